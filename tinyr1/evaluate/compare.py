"""Graded samples by question, and models against each other on the same questions: paired differences, tests, what the
sample could have found, and the headline result in words."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from tinyr1.evaluate import stats

LEVEL = 0.05


def by_question(graded: pd.DataFrame) -> pd.DataFrame:
    """How each model did on each question: right, samples (counts) and share, of which scores are the mean.

    graded: one row for each sample, with model, benchmark, question and outcome; the first three index the result.
    """
    right = graded.outcome.eq("correct").groupby([graded.model, graded.benchmark, graded.question])
    counts = right.agg(right="sum", samples="size")
    return counts.assign(share=counts.right / counts.samples)


def pairs(graded: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Every pair of models on every benchmark: model, against, benchmark, mean, low, high, p, holm, detectable.

    mean: of model - against over the questions, with its 95 % interval, as fractions. p: two-sided sign-flip test;
    holm: adjusted over all pairs and benchmarks of the table. detectable: smallest true difference that such a test
    would have found in four of five repetitions.
    """
    rows, shares = [], by_question(graded).share.unstack("model")
    for benchmark in dict.fromkeys(graded.benchmark):
        wide = shares.loc[benchmark]
        for against, model in combinations(models, 2):
            a, b = wide[model].to_numpy(), wide[against].to_numpy()
            estimate = stats.paired(a, b)
            rows.append((model, against, benchmark, estimate.mean, estimate.low, estimate.high,
                         stats.sign_flip(a, b), stats.detectable(a - b)))  # fmt: skip
    columns = ["model", "against", "benchmark", "mean", "low", "high", "p", "detectable"]
    table = pd.DataFrame(rows, columns=columns)
    adjusted = stats.holm(dict(enumerate(table.p)))
    table.insert(7, "holm", [adjusted[i] for i in range(len(table))])
    return table


def differing(table: pd.DataFrame) -> pd.DataFrame:
    """The pairs that differ after Holm's correction, largest difference first; for reading, in points."""
    found = in_points(table[table.holm < LEVEL].sort_values("mean", key=abs, ascending=False))
    return found[["model", "against", "benchmark", "points", "holm"]].reset_index(drop=True)


def in_points(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `pairs` with a column for reading: the difference in points and its 95 % interval."""
    return table.assign(points=[_points(r) for r in table.itertuples()])


def headline(graded: pd.DataFrame, merged: str, experts: Sequence[str]) -> str:
    """One sentence: a merged model against the data mixture (where the run has one), the backbone and the best expert.

    Differences are paired by question and averaged over the benchmarks, as for `tinyr1.report.claims`, each with its
    own 95 % interval. The best expert is the one with the highest average in these samples, which flatters it a little.
    """
    shares = by_question(graded).share.unstack("model")
    names = shares.index.unique("benchmark")
    best = shares[list(experts)].groupby("benchmark").mean().mean().idxmax()
    others = {"mixture": "the data mixture", "backbone": "the backbone", best: f"the best expert, {best}"}
    clauses = []
    for name in [name for name in others if name in shares]:
        differences = shares[merged] - shares[name]
        found = stats.averaged([differences[benchmark].to_numpy() for benchmark in names])
        clauses.append(_clause("it" if clauses else merged, others[name], found))
    where = f"Averaged over {len(names)} benchmarks" if len(names) > 1 else f"On {names[0]}"
    return f"{where}, with 95 % intervals paired by question, {'; '.join(clauses)}."


def _clause(model: str, other: str, found: stats.Estimate) -> str:
    """What the interval of model - other says, in words."""
    mean, low, high = (100 * value for value in (found.mean, found.low, found.high))
    if low <= 0 <= high:
        return f"no difference shown between {model} and {other} ({mean:+.1f} points [{low:+.1f}, {high:+.1f}])"
    near, far = sorted((abs(low), abs(high)))
    return f"{model} is {abs(mean):.1f} points [{near:.1f}, {far:.1f}] {'above' if mean > 0 else 'below'} {other}"


def power(table: pd.DataFrame) -> pd.DataFrame:
    """Median and largest detectable difference of each benchmark, in points."""
    grouped = (100 * table.detectable).groupby(table.benchmark, sort=False)
    return pd.DataFrame({"median": grouped.median(), "largest": grouped.max()}).round(1)


def intervals(
    graded: pd.DataFrame, asked: dict[str, list[dict]], paper: dict[tuple[str, str], float]
) -> pd.DataFrame:
    """Score of every model and benchmark with both intervals of evaluation.md §6, in percent.

    questions: over the questions (the population they stand for); samples: the same questions drawn again, which needs
    two samples of each. pass@k: at least one of the k drawn samples is right; cons@k: the majority's answer is; both
    with intervals from resampled questions. Beside it the score without problems of known faults (LiveCodeBench's
    errata), the paper's number where it has one, and ours less it with the width for two independent runs, since
    nothing is known of the paper's single questions. Columns in which there is nothing are left out.
    """
    rows = []
    for (model, benchmark), part in graded.groupby(["model", "benchmark"], sort=False):
        counts = by_question(part).loc[model, benchmark]
        k, values = int(counts.samples.min()), counts.share
        over = stats.proportion(values.to_numpy())
        again = stats.resampled(values.to_numpy(), k) if k > 1 else None
        at_k = stats.pass_at_k(counts.right.to_numpy(), k, k) if k > 1 and (counts.samples == k).all() else None
        theirs = paper.get((model, benchmark))
        rows.append({
            "model": model, "benchmark": benchmark, "pass@1": f"{100 * over.mean:.1f}",
            "questions": _interval(over), "samples": _interval(again) if again else "one sample each",
            "pass@k": _resampled(at_k, k) if at_k is not None else "",
            **_extras(part, values, asked[benchmark], k),
            "paper": f"{100 * theirs:.1f}" if theirs is not None else "",
            "less paper": less(values.to_numpy(), theirs) if theirs is not None else "",
        })  # fmt: skip
    table = pd.DataFrame(rows).set_index(["model", "benchmark"])
    return table.loc[:, (table != "").any()]


def less(values: np.ndarray, published: float) -> str:
    """The mean of per-question values (n,) less a published score, in points with its interval; for reading."""
    return _points(stats.against_published(values, published))


def _points(found: stats.Estimate) -> str:
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _interval(found: stats.Estimate) -> str:
    return f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _resampled(values: np.ndarray, k: int) -> str:
    """A mean of per-question values (n,) with its bootstrap interval, in percent."""
    found = stats.bootstrap(values)
    return f"{100 * found.mean:.1f} {_interval(found)} (k = {k})"


def _extras(part: pd.DataFrame, values: pd.Series, questions: list[dict], k: int) -> dict[str, str]:
    """cons@k of questions with an answer to vote on, and the score without faulty problems."""
    found = {"cons@k": "", "without errata": ""}
    truth = {q["id"]: q["answer"] for q in questions if "answer" in q}
    if truth and k > 1:
        by_question = {i: _votes(rows, truth[i]) for i, rows in part.sort_values("sample").groupby("question")}
        votes = stats.cons_at_k(list(by_question.values()), [truth[i] for i in by_question], k)
        found["cons@k"] = _resampled(votes, k)
    faulty = {q["id"] for q in questions if q.get("erratum")}
    if faulty & set(values.index):
        kept = values[~values.index.isin(faulty)]
        found["without errata"] = f"{100 * kept.mean():.1f} ({len(kept)} problems)"
    return found


def _votes(rows: pd.DataFrame, truth: str) -> list[str | None]:
    """Answers in canonical form: whatever was graded as right is the truth, however it was written."""
    return [
        truth if row.outcome == "correct" else None if pd.isna(row.extracted) else str(row.extracted)
        for row in rows.itertuples()
    ]
