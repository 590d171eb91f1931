"""The paper's claims as comparisons that a run decides for itself."""

import pandas as pd
import pytest

from tinyr1.core import paper
from tinyr1.core.recipe import Recipe
from tinyr1.report import claims

DOMAINS = {"aime24": "math", "aime25": "math", "gpqa": "science", "lcb": "code"}


def fused(base: "str | Recipe", other: "str | Recipe", **settings: object) -> Recipe:
    return Recipe.model_validate({"method": "fusion", "base": base, "other": other, **settings})


def chain(first: str, *others: str, **settings: object) -> Recipe:
    """(first & second) & third …: the base of the last step is the last model."""
    made = first
    for name in others:
        made = fused(name, made, **settings)
    return made


MERGES = {
    "math-science-code": chain("math", "science", "code"),
    "math-code-science": chain("math", "code", "science"),
}
ROLES = {"math": paper.MATH, "code": paper.CODE, "science": paper.SCIENCE, "mixture": paper.MIXTURE,
         "math-code-science": paper.MATH_CODE_SCIENCE, "math-science-code": paper.MATH_SCIENCE_CODE}  # fmt: skip
PUBLISHED = {(m, b): v / 100 for m, name in ROLES.items() for b, v in paper.TABLE_2[name].items()}
PUBLISHED |= {("backbone", b): v / 100 for b, (v, _) in paper.TABLE_1[paper.BACKBONE].items()}
AVERAGE = Recipe.model_validate({"method": "linear", "models": [{"model": "math"}, {"model": "code"}]})


def rows(scores: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Scores by model and benchmark, one a question."""
    return pd.DataFrame([
        {"model": m, "benchmark": b, "question": f"q{i}", "score": s}
        for m, by_benchmark in scores.items()
        for b, values in by_benchmark.items()
        for i, s in enumerate(values)
    ])


def drawn(models: tuple[str, ...], benchmarks: tuple[str, ...]) -> pd.DataFrame:
    return rows({m: {b: [0, 1] * 8 for b in benchmarks} for m in models})


def test_verdicts_follow_the_interval_and_an_average_is_of_benchmarks():
    merged = {"aime24": [1, 1, 1, 0], "aime25": [1, 1, 0, 1], "gpqa": [0, 1] * 50, "lcb": [0, 1] * 100}
    mixture = {b: [0] * len(v) for b, v in merged.items()}
    scores = rows({"math-science-code": merged, "backbone": merged, "mixture": mixture})
    table = claims.audit(scores, DOMAINS, MERGES, {})
    assert table.index.is_unique, "two benchmarks of one domain are one claim"
    assert table.loc["merged model over backbone, math", "verdict"] == "undecided here"
    average = table.loc["merged model over data mixture, average"]
    assert average.verdict == "higher here"
    assert average["ours, points"].startswith("+62.5 "), "75, 75, 50 and 50 points, each benchmark the same"
    assert "paper, points" not in table, "a column in which there is nothing"


def test_a_run_decides_the_claims_about_the_models_that_it_has():
    names = ("biology", "law")
    scores = drawn(("backbone", *names, "ties", "law-biology"), ("bio", "bar"))
    merges = {"ties": AVERAGE, "law-biology": chain("law", "biology")}
    table = claims.audit(scores, {"bio": "biology", "bar": "law"}, merges, PUBLISHED)
    assert list(table.index) == [
        "merged model over backbone, biology", "merged model over backbone, law",
        "biology expert over backbone, biology", "law expert over backbone, law",
        "merged model over biology expert, biology", "merged model over law expert, law",
    ]  # fmt: skip


def test_a_domain_without_an_expert_in_the_scores_is_asked_for_the_merged_model_only():
    scores = drawn(("backbone", "math", "ties"), ("aime24", "gpqa"))
    table = claims.audit(scores, {"aime24": "math", "gpqa": "science"}, {"ties": AVERAGE}, {})
    assert [claim for claim in table.index if "science" in claim] == ["merged model over backbone, science"]


def test_the_order_of_a_chain_ends_with_its_base():
    assert claims.fusion_order(MERGES["math-science-code"]) == ("math", "science", "code")
    assert claims.fusion_order(chain("a", "b", "c", "d")) == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "recipe",
    [AVERAGE, fused("code", AVERAGE), fused(chain("math", "science"), "code")],
    ids=["another method", "another method inside", "a base that is itself a merge"],
)
def test_what_is_no_chain_of_fusion_steps_has_no_order(recipe):
    assert claims.fusion_order(recipe) is None


def test_the_two_orders_are_those_of_the_same_experts_with_the_same_settings():
    first, swapped = MERGES.values()
    assert claims.two_orders({"ties": AVERAGE, "a": first, "b": swapped}) == ("a", "b")
    assert claims.two_orders({"a": first, "again": first}) is None
    assert claims.two_orders({"a": first, "fewer": chain("math", "code")}) is None
    assert claims.two_orders({"a": first, "b": chain("math", "code", "science", iqr_multiplier=3.0)}) is None
    assert claims.two_orders({"a": chain("a", "b", "c", "d"), "b": chain("d", "b", "c", "a")}) == ("a", "b")


def test_the_claim_about_the_orders_names_both_and_its_source():
    table = claims.audit(drawn(tuple(MERGES), ("gpqa",)), {"gpqa": "science"}, MERGES, {})
    row = table.loc["(math & science) & code over (math & code) & science, average"]
    assert row["where"] == "paper §3.2; docs/fidelity.md C25"


def test_the_papers_differences_come_from_its_tables():
    models = ("backbone", "math", "science", "code", "mixture", *MERGES)
    domains = {"aime24": "math", "gpqa": "science", "livecodebench": "code"}
    table = claims.audit(drawn(models, tuple(domains)), domains, MERGES, PUBLISHED)["paper, points"]
    assert table["merged model over backbone, math"] == "+5.5"  # 78.1 - 72.6
    assert table["merged model over backbone, science"] == "+2.9"  # 65.0 - 62.1
    average = (78.1 + 61.6 + 65.0 - 75.3 - 61.0 - 65.7) / 3
    assert table["merged model over data mixture, average"] == f"{average:+.1f}"
    assert table["(math & science) & code over (math & code) & science, average"] == "-0.1"


def test_the_papers_numbers_stand_beside_its_own_benchmarks_and_models_only():
    models = ("backbone", "math", "science", "mixture", *MERGES)
    domains = {"aime24": "math", "mini-science": "science"}
    table = claims.audit(drawn(models, tuple(domains)), domains, MERGES, PUBLISHED)["paper, points"]
    assert table["merged model over backbone, math"] == "+5.5"
    assert table["merged model over backbone, science"] == ""
    assert table["merged model over data mixture, average"] == "", "the paper has no such average"
