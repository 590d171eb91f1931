"""Ablations against their control, and their figures, from made answers."""

import numpy as np
import pandas as pd
import pytest

from tinyr1.core.params.ablations import Ablations
from tinyr1.report import effects, plots_claims
from tinyr1.report.claims import of_statements
from tinyr1.report.effects import AVERAGE

BENCHMARKS = ["mini-math", "mini-code"]
BLOCK = Ablations.model_validate({
    "trainings": {"seed-2": {"models": ["math"], "seed": 2}, "near": {"models": ["math"], "learning_rate": 1e-5}},
    "groups": {
        "plain": {"question": "Which?", "control": "b", "models": ["a", "b", "c"]},
        "seeds": {"question": "Again?", "control": "b", "trainings": ["own", "seed-2"], "models": ["a", "b"]},
        "rates": {"question": "How far?", "control": "b", "trainings": ["own", "near"], "models": ["a", "b"]},
        "against-own": {"question": "More?", "control": "b", "control_training": "own", "trainings": ["near"],
                        "models": ["a", "b"]},
    },
})  # fmt: skip


def questions(right: dict[tuple[str, str], float], n: int = 300) -> pd.DataFrame:
    """Rows of ablation_questions.csv: (model, training) -> probability of a right answer, on the same questions."""
    rng = np.random.default_rng(0)
    hardness = {b: rng.random(n) for b in BENCHMARKS}
    return pd.DataFrame([
        {"model": m, "training": t, "seed": 2 if t == "seed-2" else 1, "benchmark": b, "question": f"q{i}",
         "samples": 2, "right": 2 * int(hardness[b][i] < p), "looping": 0}
        for (m, t), p in right.items() for b in BENCHMARKS for i in range(n)
    ])  # fmt: skip


OWN = {("a", "own"): 0.7, ("b", "own"): 0.5, ("c", "own"): 0.5}


def decided(name: str, right: dict) -> pd.DataFrame:
    table = effects.differences(name, BLOCK, questions(right), BENCHMARKS, margin=5.0)
    return table.set_index("model")


def test_every_model_is_compared_with_the_control_and_a_reversal_flips_the_verdict():
    table = decided("plain", OWN)
    assert list(table.index) == ["a", "c"]
    assert set(table.against) == {"b"}
    assert (table.loc["a", "verdict"], table.loc["a", "star"], table.loc["c", "verdict"]) == ("higher", "*", "similar")
    assert decided("plain", OWN | {("a", "own"): 0.3}).loc["a", "verdict"] == "lower"
    assert set(table.family) == {"exploratory: plain"}


def test_seeds_of_one_training_share_a_row_with_a_wider_interval():
    right = OWN | {("a", "seed-2"): 0.6, ("b", "seed-2"): 0.5}
    rows = effects.scores(BLOCK.groups["seeds"], BLOCK, questions(right), BENCHMARKS)
    average = rows[rows.benchmark == AVERAGE].set_index("model")
    assert [len(t) for t in average.trainings] == [2, 2]
    assert average.loc["a", "mean"] == pytest.approx(np.mean(average.loc["a", "trainings"]))
    alone = effects.scores(BLOCK.groups["plain"], BLOCK, questions(OWN), BENCHMARKS)
    alone = alone[alone.benchmark == AVERAGE].set_index("model")
    assert np.ptp(average.loc["a", ["low", "high"]]) > np.ptp(alone.loc["a", ["low", "high"]])


def test_models_of_another_training_have_rows_and_controls_of_their_own():
    table = decided("rates", OWN | {("a", "near"): 0.5, ("b", "near"): 0.5})
    assert table.against.to_dict() == {"a": "b", "a (near)": "b (near)"}
    assert table.loc["a (near)", "mean"] == 0
    against_own = decided("against-own", OWN | {("a", "near"): 0.4, ("b", "near"): 0.3})
    assert list(against_own.index) == ["a (near)", "b (near)"]


def test_trainings_that_differ_in_the_seed_only_share_the_name_of_the_first():
    changes = {"models": ["a"], "packing": "contaminated"}
    trainings = {"seed-2": {"models": ["a"], "seed": 2}, "mixed": changes, "mixed-2": changes | {"seed": 2}}
    group = {"question": "Do they?", "control": "a", "control_training": "own",
             "trainings": ["own", *trainings], "models": ["a"]}  # fmt: skip
    block = Ablations.model_validate({"trainings": trainings, "groups": {"packing": group}})
    assert effects.families(block) == {"own": "own", "seed-2": "own", "mixed": "mixed", "mixed-2": "mixed"}
    assert effects.repetitions(block) == {"own", "seed-2"}
    right = {("a", "own"): 0.6, ("a", "seed-2"): 0.6, ("a", "mixed"): 0.3, ("a", "mixed-2"): 0.3}
    rows = questions(right)
    rows.loc[rows.training == "mixed-2", "seed"] = 2
    scores = effects.scores(block.groups["packing"], block, rows, BENCHMARKS).set_index(["model", "benchmark"])
    assert list(scores.index.get_level_values(0).unique()) == ["a", "a (mixed)"]
    assert [len(row) for row in scores.trainings] == [2] * 6
    table = effects.differences("packing", block, rows, BENCHMARKS, margin=5.0)
    assert table[["model", "against", "verdict"]].values.tolist() == [["a (mixed)", "a", "lower"]]


def test_a_control_of_another_training_is_compared_with_although_it_is_no_row():
    table = decided("against-own", OWN | {("a", "near"): 0.4, ("b", "near"): 0.3})
    assert set(table.against) == {"b"}
    assert table.loc["b (near)", "mean"] < table.loc["a (near)", "mean"] < 0


def test_models_that_have_not_answered_everything_are_left_out():
    rows = questions(OWN)
    partial = rows[(rows.model != "a") | (rows.benchmark != "mini-code")]
    table = effects.differences("plain", BLOCK, partial, BENCHMARKS, margin=5.0)
    assert list(table.model) == ["c"]
    without = rows[rows.model != "b"]
    assert effects.differences("plain", BLOCK, without, BENCHMARKS, margin=5.0).empty
    assert effects.scores(BLOCK.groups["plain"], BLOCK, rows[:0], BENCHMARKS).empty


def test_the_table_for_reading_has_every_benchmark_and_the_difference():
    rows = effects.scores(BLOCK.groups["plain"], BLOCK, questions(OWN), BENCHMARKS)
    table = effects.table(rows, decided("plain", OWN).reset_index())
    assert list(table.columns) == [AVERAGE, *BENCHMARKS, "less", "points", "verdict"]
    assert table.loc["b", ["less", "points", "verdict"]].to_list() == ["", "", ""]
    assert table.loc["a", "verdict"] == "higher*"


def test_without_ablations_the_page_says_how_to_make_them():
    assert effects.summary({}, "smol") == "No ablations were made for this run; `make ablations RUN=smol` makes them."
    assert effects.summary(BLOCK.groups, "smol") == "4 ablations: plain, seeds, rates, against-own."


def test_effects_of_single_models_are_said_in_words_and_missing_ones_are_not():
    wide = questions(OWN).assign(share=lambda t: t.right / t.samples)
    wide = wide.pivot_table(index=["benchmark", "question"], columns="model", values="share")
    said = effects.of_models({"C1 a": ("a", "b"), "C2 z": ("z", "b")}, wide, BENCHMARKS, 5.0)
    assert list(said) == ["C1 a"]
    assert said["C1 a"].startswith("a less b: +")
    assert said["C1 a"].endswith("points, higher")
    assert effects.of_models({}, wide, BENCHMARKS, 5.0) == {}


def lines_at_zero(ax):
    return [line for line in ax.lines if len(set(line.get_xdata())) == 1 and line.get_xdata()[0] == 0]


def test_an_ablation_draws_the_control_as_a_line_and_seeds_as_dots():
    right = OWN | {("a", "seed-2"): 0.6, ("b", "seed-2"): 0.4}
    rows = effects.scores(BLOCK.groups["seeds"], BLOCK, questions(right), BENCHMARKS)
    (ax,) = plots_claims.ablation(rows, ()).axes
    control = 100 * rows[(rows.model == "b") & (rows.benchmark == AVERAGE)]["mean"].iloc[0]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--" or line.is_dashed()]
    assert [set(line.get_xdata()) for line in dashed] == [{control}, {control}]
    dots = [line for line in ax.lines if line.get_markersize() == 2.6]
    assert [len(line.get_xdata()) for line in dots] == [2, 2]
    assert [line.get_marker() for line in ax.lines if line.get_marker() == "D"] == ["D"], "the control alone"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


def test_all_ablations_fit_one_figure_with_stars():
    tables = {name: decided(name, OWN).reset_index() for name in ("plain", "seeds")}
    (ax,) = plots_claims.effects(tables, ()).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["plain, less b", "a *", "c", "seeds, less b", "a *"]
    assert lines_at_zero(ax)


def test_the_forest_has_a_row_for_each_difference_and_the_papers_own(tmp_path):
    from claim_parts import EVERY, made_run

    items = of_statements(made_run(EVERY | {"mixture": 0.9}))
    (ax,) = plots_claims.forest(items, 5.0).axes
    wanted = [item for item in items if item["unit"] == "points"]
    assert len(wanted) > 15
    assert len(ax.texts) == len(wanted)
    diamonds = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert diamonds == [item["paper_points"] for item in wanted if item["paper_points"] is not None]
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert bold == ["math-science-code scores higher than mixture"]
    assert all(len(text.get_text()) <= plots_claims.LONGEST for text in ax.texts)
