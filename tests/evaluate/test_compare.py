"""Models against each other: pairs, Holm's correction, both intervals, errata and majority votes."""

import numpy as np
import pandas as pd
import pytest

from tinyr1.core import config
from tinyr1.evaluate import compare, scores
from tinyr1.report import plots

EXPERTS = ("math", "science", "code")


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


def test_pairs_are_paired_by_question():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 4, 60) / 4
    table = compare.pairs(graded({"a": list(base), "b": list(base + 0.25), "c": list(base)}), ["a", "b", "c"])
    by_name = {(r.model, r.against): r for r in table.itertuples()}
    assert by_name["b", "a"].mean == pytest.approx(0.25)
    assert (by_name["b", "a"].low, by_name["b", "a"].high) == (pytest.approx(0.25), pytest.approx(0.25))
    assert by_name["c", "a"].p == 1.0
    assert (table.holm >= table.p).all()
    assert compare.differing(table)[["model", "against"]].to_numpy().tolist() == [["b", "a"], ["c", "b"]]
    assert plots.comparison_matrix(table, ["a", "b", "c"]).axes


def run_of(shares: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Graded samples, one of each question, by benchmark and model; models left out are never right."""
    zero = [0.0] * 40
    models = dict.fromkeys(("backbone", "math", "science", "code"), zero)
    return pd.concat(graded(models | by_model, samples=1).assign(benchmark=b) for b, by_model in shares.items())


def test_the_headline_says_what_the_intervals_of_the_averages_show():
    half, most, few = [1.0, 0.0] * 20, [1.0] * 36 + [0.0] * 4, [1.0] * 4 + [0.0] * 36
    rows = run_of(
        {
            "a": {"m": half, "mixture": most, "math": half[::-1], "code": few},
            "b": {"m": half, "mixture": most, "math": half[::-1], "code": few},
        }
    )
    # by benchmark: m - mixture has mean -0.4, s 0.5905; m - backbone 0.5, 0.5064; m - math 0.0, 1.0127; the standard
    # error of the average of two is s / sqrt(80), and t(0.975, 78) = 1.9908
    assert compare.headline(rows, "m", EXPERTS) == (
        "Averaged over 2 benchmarks, with 95 % intervals paired by question, m is 40.0 points [26.9, 53.1] below the "
        "data mixture; it is 50.0 points [38.7, 61.3] above the backbone; no difference shown between it and the best "
        "expert, math (+0.0 points [-22.5, +22.5])."
    )


def test_the_headline_of_one_benchmark_without_a_mixture():
    said = compare.headline(run_of({"a": {"m": [0.0] * 40, "science": [1.0] * 40}}), "m", EXPERTS)
    assert said == (
        "On a, with 95 % intervals paired by question, no difference shown between m and the backbone (+0.0 points "
        "[+0.0, +0.0]); it is 100.0 points [100.0, 100.0] below the best expert, science."
    )


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
    low, high = map(float, row["samples"].strip("[]").split(","))
    # sqrt(20 · 0.25 · 0.75 / 3) / 40 · 1.96 = 5.48 points
    assert (low, high) == (pytest.approx(12.5 - 5.48, abs=0.06), pytest.approx(12.5 + 5.48, abs=0.06))


def test_one_sample_of_each_question_has_no_second_interval():
    table = scores.interval_table(graded({"a": [1.0, 0.0, 1.0]}, samples=1), {"b": []}, {})
    assert table.loc["a", "b"]["samples"] == "one sample each"
    assert list(table) == ["pass@1", "questions", "samples"], "pass@1 is not told twice, and no column is empty"


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
    table = scores.score_rows(cfg, rows, {("math", "mini-code"): 0.5}).set_index(["model", "benchmark"])
    gains = scores.gains_over_backbone(cfg, rows).set_index(["model", "benchmark"])
    assert tuple(table.reset_index().columns[:2]) == ("model", "benchmark")
    for (model, benchmark), row in table.iterrows():
        assert row.pass_at_1 == pytest.approx(wanted[model].mean())
        assert (row.n_problems, row.n_samples) == (12, 4)
        assert row.looping == 0.25, "the last of four samples loops"
        assert row.ci_low <= row.pass_at_1 <= row.ci_high
        if model != "backbone":
            gained = wanted[model].mean() - wanted["backbone"].mean()
            assert gains.loc[(model, benchmark), "mean"] == pytest.approx(gained)
    assert len(gains) == len(table) - len(cfg.params.benchmarks)
    assert table.paper.dropna().to_dict() == {("math", "mini-code"): 0.5}
    long = scores.per_question(rows)
    assert list(long.columns) == ["model", "benchmark", "question", "score"]
    assert long.groupby("model").score.mean().to_dict() == pytest.approx({m: v.mean() for m, v in wanted.items()})
