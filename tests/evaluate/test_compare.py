"""Tables of scores: verdicts in them, chance levels, both intervals, errata and majority votes."""

import numpy as np
import pandas as pd
import pytest

from tinyr1.core import config
from tinyr1.evaluate import compare, scores
from tinyr1.report import plots


def graded(shares: dict[str, list[float]], samples: int = 4) -> pd.DataFrame:
    """Samples whose share of right answers by question is as given, for each model."""
    rows = []
    for model, values in shares.items():
        for i, share in enumerate(values):
            for s in range(samples):
                right = s < round(share * samples)
                outcome, answer = ("correct", "7") if right else ("wrong", str(s))
                rows.append((model, "b", f"q{i}", s, 10 + s, outcome, answer, s == 3))
    columns = ["model", "benchmark", "question", "sample", "n_tokens", "outcome", "extracted", "looping"]
    return pd.DataFrame(rows, columns=columns)


ASKED = {"b": [{"id": f"q{i}", "kind": "option", "answer": "7"} for i in range(60)]}


def test_a_run_is_compared_by_one_rule_in_its_table_and_in_its_figure():
    base = np.random.default_rng(0).integers(0, 3, 60) / 4
    rows = graded({"backbone": list(base), "b": list(base + 0.5), "c": list(base)})
    shares = scores.share_table(rows, ASKED)
    assert list(shares) == ["backbone", "b", "c", scores.CHANCE]
    decided = compare.decide(shares, compare.of_run(shares, ["backbone", "b", "c"]), 5.0)
    by_name = {(r.model, r.against): r for r in decided.itertuples()}
    assert by_name["b", "backbone"].mean == -by_name["c", "b"].mean == 0.5
    assert {pair: r.star for pair, r in by_name.items() if scores.CHANCE not in pair} == {
        ("b", "backbone"): "*", ("c", "backbone"): "", ("c", "b"): "*",
    }  # fmt: skip
    assert plots.comparison_matrix(compare.pairs(decided), ["backbone", "b", "c"]).axes
    table = compare.with_verdicts(scores.interval_table(rows, ASKED, {}), decided, ["backbone", "c", "b"])
    assert list(table.index) == [("b", "backbone"), ("b", "c"), ("b", "b")]
    # the differences of b are all 0.5: the error is that behind Wilson's interval, 1.96 / 63.84; t(0.975, 59) = 2.001
    assert list(table["over the backbone"]) == ["", "+0.0 [-6.1, +6.1]", "+50.0 [+43.9, +56.1]*"]
    assert list(table["verdict"])[::2] == ["", "higher"]
    assert table["verdict"].iloc[1].startswith("undecided (a difference of ")
    assert table["guessing"].to_list()[2] == "above chance"


def test_a_benchmark_without_options_is_compared_with_no_guess():
    rows = graded({"backbone": [0.5, 0.25, 0.0], "b": [0.5, 0.5, 0.0]})
    asked = {"b": [q | {"kind": "integer"} for q in ASKED["b"][:3]]}
    shares = scores.share_table(rows, asked)
    decided = compare.decide(shares, compare.of_run(shares, ["backbone", "b"]), 5.0)
    assert scores.CHANCE not in set(decided["against"])
    assert "guessing" not in compare.with_verdicts(scores.interval_table(rows, asked, {}), decided, ["backbone", "b"])


def test_the_chance_level_of_a_mixed_benchmark_is_the_mean_over_its_questions():
    mixed = [{"id": "q0", "kind": "option"}, {"id": "q1", "kind": "integer"}, {"id": "q2", "kind": "program"}]
    assert [scores.chance(q) for q in mixed] == [0.25, 0.0, 0.0]
    assert scores.chance_levels({"b": mixed, "c": mixed[1:]}) == {"b": pytest.approx(0.25 / 3), "c": 0.0}
    shares = scores.share_table(graded({"a": [1.0, 0.5, 0.0]}), {"b": mixed})
    assert shares[scores.CHANCE].to_list() == [0.25, 0.0, 0.0]
    assert shares["a"].to_list() == [1.0, 0.5, 0.0]


def test_both_intervals_and_pass_at_k():
    table = scores.interval_table(graded({"a": [0.25] * 20 + [0.0] * 20}), {"b": []}, {("a", "b"): 0.5})
    row = table.loc["a", "b"]
    assert row["pass@1"] == "12.5"
    assert row["pass@k"].startswith("50.0 [")
    assert row["pass@k"].endswith("] (k = 4)")
    low, high = map(float, row["pass@k"].partition("[")[2].partition("]")[0].split(","))
    assert (low, high) == (pytest.approx(35, abs=3), pytest.approx(65, abs=3))  # 1.96 · sqrt(0.25 / 40) = 15.5 points
    assert row["paper"] == "50.0"
    # t(0.975, 78) · s · sqrt(2 / 40), s = 12.659 points: 5.64
    assert row["less paper"] == "-37.5 [-43.1, -31.9]"
    low, high = map(float, row["over samples"].strip("[]").split(","))
    # sqrt(20 · 0.25 · 0.75 / 3) / 40 · 1.96 = 5.48 points
    assert (low, high) == (pytest.approx(12.5 - 5.48, abs=0.06), pytest.approx(12.5 + 5.48, abs=0.06))


def test_one_sample_of_each_question_has_no_second_interval():
    table = scores.interval_table(graded({"a": [1.0, 0.0, 1.0]}, samples=1), {"b": []}, {})
    assert list(table) == ["pass@1", "over questions", "cut off, %", "loops, %", "tokens"], "no column is empty"
    assert table.loc["a", "b"].to_list()[2:] == ["0", "0", "10"]


def test_majority_and_errata():
    asked = {"b": [{"id": "q0", "answer": "7"}, {"id": "q1", "answer": "7", "erratum": "wrong tests"}]}
    row = scores.interval_table(graded({"a": [0.5, 0.0]}), asked, {}).loc["a", "b"]
    assert row["cons@k"].startswith("50.0 ["), "two of four votes against two single ones; none in the other question"
    assert row["without errata"] == "50.0 (1 problems)"


def test_a_right_answer_votes_for_the_truth_however_it_was_written():
    rows = graded({"a": [0.75, 0.75]})
    rows.loc[rows.outcome == "correct", "extracted"] = "007"
    asked = {"b": [{"id": "q0", "answer": "7"}, {"id": "q1", "answer": "7"}]}
    text = scores.interval_table(rows, asked, {}).loc[("a", "b"), "cons@k"]
    assert text == "100.0 [34.2, 100.0] (k = 4)", "without spread: Wilson's interval for two questions"


def test_samples_are_counted_by_question():
    rows = graded({"a": [0.75, 0.0], "b": [0.25, 1.0]})
    rows = rows[~((rows.model == "b") & (rows.question == "q1") & (rows["sample"] > 1))]
    table = scores.by_question(rows.sample(frac=1, random_state=0))
    assert list(table.index.names) == ["model", "benchmark", "question"]
    assert table.loc[("a", "b", "q0")].to_list() == [3, 4, 0.75]
    assert table.loc[("b", "b", "q1")].to_list() == [2, 2, 1.0]
    assert table.loc["a", "b"].share.mean() == 0.375, "every question counts the same"


def test_scores_and_gains_of_a_run_are_means_over_its_questions(home):
    cfg = config.load("smol")
    rng = np.random.default_rng(1)
    wanted = {m: rng.integers(0, 5, 12) / 4 for m in cfg.models}
    parts = [graded(wanted).assign(benchmark=b) for b in cfg.params.benchmarks]
    rows = pd.concat(parts).sample(frac=1, random_state=0)
    asked = {b: [{"kind": "option" if b == "mini-science" else "integer"}] for b in cfg.params.benchmarks}
    table = scores.score_rows(cfg, rows, asked, {("math", "mini-code"): 0.5}).set_index(["model", "benchmark"])
    gains = scores.gains_over_backbone(cfg, rows).set_index(["model", "benchmark"])
    assert tuple(table.reset_index().columns[:2]) == ("model", "benchmark")
    for (model, benchmark), row in table.iterrows():
        assert row.pass_at_1 == pytest.approx(wanted[model].mean())
        assert (row.n_problems, row.n_samples) == (12, 4)
        assert row.looping == 0.25, "the last of four samples loops"
        assert row.chance == (0.25 if benchmark == "mini-science" else 0.0)
        assert row.ci_low <= row.pass_at_1 <= row.ci_high
        if model != "backbone":
            gained = wanted[model].mean() - wanted["backbone"].mean()
            assert gains.loc[(model, benchmark), "mean"] == pytest.approx(gained)
    assert len(gains) == len(table) - len(cfg.params.benchmarks)
    assert table.paper.dropna().to_dict() == {("math", "mini-code"): 0.5}
