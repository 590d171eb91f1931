"""The claim audit of a run: which models play the parts of the paper, and claims.json."""

import json

import pandas as pd
import pytest
from claim_parts import EVERY, made_run
from report_parts import write_record

from tinyr1.core import config
from tinyr1.core.config import STAGES, Config
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe
from tinyr1.report import ablations, claims, parts
from tinyr1.report.statement import BACKBONE, EXPERT, MERGED, MIXTURE, OTHER_ORDER, TWO_AVERAGED, TWO_FUSED
from tinyr1.report.verdicts import MEANINGS

AVERAGE_OF_TWO = {"method": "linear", "models": [{"model": "math"}, {"model": "science"}]}


def fused(base: object, other: object, **settings: object) -> dict:
    return {"method": "fusion", "base": base, "other": other, **settings}


def with_merges(cfg: Config, *models: dict, headline: tuple = ()) -> Config:
    """A run with other merges, without ablations; the headline is the first merge against the backbone."""
    data = cfg.params.model_dump(mode="json", by_alias=True) | {"ablations": None}
    data["merge"]["models"] = list(models)
    data["analysis"]["headline"] = [{"model": m, "against": a} for m, a in headline or [("math", "backbone")]]
    return Config(run=cfg.run, params=config.validate(data, ""))


PAPERS = fused("code", fused("science", "math"))
OTHER = fused("science", fused("code", "math"))


def test_merges_play_their_parts_by_recipe_and_not_by_name(cfg):
    recipes = {"math-science-code": OTHER, "b": PAPERS, "c": fused("science", "math"), "d": AVERAGE_OF_TWO}
    found = parts.models(with_merges(cfg, *({"recipe": recipe, "name": name} for name, recipe in recipes.items())))
    assert {part: found[part] for part in (MERGED, OTHER_ORDER, TWO_FUSED, TWO_AVERAGED)} == {
        MERGED: "b", OTHER_ORDER: "math-science-code", TWO_FUSED: "c", TWO_AVERAGED: "d",
    }  # fmt: skip
    assert (found[BACKBONE], found[EXPERT["code"]], found[MIXTURE]) == ("backbone", "code", "mixture")


@pytest.mark.parametrize(
    "recipe",
    [
        fused("code", fused("science", "math"), iqr_multiplier=3.0),
        fused("code", fused("science", "math", mask="random")),
        fused("code", fused("science", "math"), reading="paper"),
        fused(fused("science", "math"), "code"),
        {"method": "linear", "models": [{"model": "math", "weight": 2.0}, {"model": "science"}]},
    ],
    ids=["another λ", "a placebo", "another reading", "another base", "other weights"],
)
def test_a_merge_with_other_settings_plays_no_part(cfg, recipe):
    found = parts.models(with_merges(cfg, {"recipe": recipe, "name": "x"}))
    assert "x" not in found.values()


def test_the_order_of_a_chain_ends_with_its_base():
    chain = Recipe.model_validate(PAPERS)
    assert parts.fusion_order(chain) == ("math", "science", "code")
    assert parts.fusion_order(Recipe.model_validate(AVERAGE_OF_TWO)) is None
    assert parts.fusion_order(Recipe.model_validate(fused(fused("science", "math"), "code"))) is None


def graded(cfg: Config, models: list[str], questions: int = 8) -> pd.DataFrame:
    """Every second answer is right."""
    return pd.DataFrame([
        {"model": m, "benchmark": b, "question": f"q{q}", "sample": 0, "n_tokens": 40 + q,
         "outcome": "correct" if (q + i) % 2 else "wrong"}
        for i, m in enumerate(models) for b in cfg.params.benchmarks for q in range(questions)
    ])  # fmt: skip


@pytest.fixture
def run(cfg):
    """Run `smol` with the paper's merge only, whose stages are recorded."""
    small = with_merges(cfg, {"recipe": PAPERS}, headline=[("math-science-code", "mixture")])
    for stage in STAGES[:3]:
        write_record(small, stage, seconds={"mixture": 200.0, "math-science-code": 5.0})
    return small


def test_a_run_is_asked_by_its_own_models_benchmarks_and_seconds(run):
    made = claims.of_run(run, graded(run, ["backbone", *run.branches, "math-science-code"]))
    assert set(made.benchmarks) == set(run.domains)
    assert made.models[MERGED] == "math-science-code"
    assert made.margin == run.params.analysis.margin
    assert [cost.seconds for cost in made.spent] == [5.0, 200.0]
    assert made.published == frozenset(), "a miniature repeats none of the paper's numbers"


def test_models_of_the_ablations_are_asked_where_they_answered_every_question(run, tmp_path):
    rows = graded(run, ["x", "partial"]).assign(training="own", seed=42, samples=1, looping=0)
    rows = rows[(rows.model == "x") | (rows.question != "q0")].assign(right=1)
    ablations.path(run).parent.mkdir(parents=True, exist_ok=True)
    ablations.path(run).write_text("ablation\n")
    rows[list(ablations.QUESTION_COLUMNS)].to_csv(ablations.questions_path(run), index=False)
    made = claims.of_run(run, graded(run, ["backbone", "math-science-code"]))
    assert set(made.shares.columns) == {"backbone", "math-science-code", "x"}
    assert made.shares["x"].eq(1).all()
    assert made.samples["x", next(iter(run.params.benchmarks))] == 1
    with pytest.raises(UserError, match="questions that the run was not asked, such as"):
        claims.of_run(run, graded(run, ["backbone", "math-science-code"], questions=7))


def test_claims_json_has_the_same_bytes_each_time(cfg):
    first = claims.save(cfg, claims.of_statements(made_run(EVERY))).read_bytes()
    again = claims.save(cfg, claims.of_statements(made_run(EVERY))).read_bytes()
    assert first == again
    items = json.loads(first)
    assert [item["id"] for item in items][:2] == ["headline-1", "over-backbone-math"]
    assert b"NaN" not in first
    assert all(item["verdict"] in MEANINGS for item in items)


def test_the_headline_says_what_was_shown_or_what_would_have_shown():
    said = {p: claims.headline(claims.of_statements(made_run(EVERY | {"mixture": p}))) for p in (0.2, 0.5, 0.9)}
    assert said[0.2].startswith("math-science-code scores higher than mixture (+30.0 points, 95 % interval +")
    assert said[0.9].startswith("math-science-code scores lower than mixture (-40.0 points, ")
    assert said[0.5].startswith("math-science-code and mixture score similarly (+0.0 points, ")


def test_tables_and_counts_have_every_item_once():
    items = claims.of_statements(made_run(EVERY))
    both = [claims.table(items), claims.table(items, numbers=True)]
    assert sum(map(len, both)) == len(items)
    counted = claims.counts(items)
    assert counted.loc[claims.PAPER].sum() == len(items) - counted.loc["Headline"].sum() < len(items)
    assert list(counted.columns) == list(MEANINGS)
    assert counted.index[0] == "Headline"


def test_a_score_beside_a_published_one_says_whose_it_is():
    items = {item["id"]: item for item in claims.of_statements(made_run(EVERY))}
    number = next(item for item in items.values() if item["unit"] == "percent" and item["model"] == "backbone")
    assert claims.ours(number).startswith("backbone here: 50.0 [")
    assert claims.ours(items["over-backbone-math"]).startswith("+0.0 [")
