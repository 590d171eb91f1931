"""Models against each other on the same questions: paired differences, tests, the difference that the sample could have
shown, and the headline result in words (docs/evaluation.md §6.2)."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from tinyr1.evaluate import stats
from tinyr1.evaluate.scores import by_question, points_texts

LEVEL = 0.05


def pairs(graded: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Every pair of models on every benchmark: model, against, benchmark, mean, low, high, p, holm, detectable.

    mean: of model - against over the questions, with its 95 % interval, as fractions. p: two-sided sign-flip test;
    holm: adjusted over all pairs and benchmarks of the table. detectable: smallest true difference that such a test
    would have found in four of five repetitions.
    """
    rows, shares = [], by_question(graded)["share"].unstack("model")
    for benchmark in graded["benchmark"].unique():
        wide = shares.xs(benchmark, level="benchmark")
        for against, model in combinations(models, 2):
            a, b = wide[model].to_numpy(), wide[against].to_numpy()
            estimate = stats.paired(a, b)
            rows.append((model, against, benchmark, estimate.mean, estimate.low, estimate.high,
                         stats.sign_flip(a, b), stats.detectable(a - b)))  # fmt: skip
    columns = ["model", "against", "benchmark", "mean", "low", "high", "p", "detectable"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(7, "holm", list(stats.holm(dict(enumerate(table["p"]))).values()))
    return table


def differing(table: pd.DataFrame) -> pd.DataFrame:
    """The pairs that differ after Holm's correction, largest difference first; for reading, in points."""
    significant = in_points(table[table["holm"] < LEVEL].sort_values("mean", key=abs, ascending=False))
    return significant[["model", "against", "benchmark", "points", "holm"]].reset_index(drop=True)


def in_points(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `pairs` with a column for reading: the difference in points and its 95 % interval."""
    return table.assign(points=points_texts(table))


def detectable_points(table: pd.DataFrame) -> pd.DataFrame:
    """Median and largest detectable difference of each benchmark in the table of `pairs`, in points."""
    grouped = (100 * table["detectable"]).groupby(table["benchmark"], sort=False)
    return pd.DataFrame({"median": grouped.median(), "largest": grouped.max()}).round(1)


def headline(graded: pd.DataFrame, merged: str, experts: Sequence[str]) -> str:
    """One sentence: a merged model against the data mixture (where the run has one), the backbone and the best expert.

    Differences are paired by question and averaged over the benchmarks, as for `tinyr1.report.claims`, each with its
    own 95 % interval. The best expert is the one with the highest average in these samples, which flatters it a little.
    """
    shares = by_question(graded)["share"].unstack("model")
    names = shares.index.unique("benchmark")
    best = str(shares[list(experts)].groupby("benchmark").mean().mean().idxmax())
    others = {"mixture": "the data mixture", "backbone": "the backbone", best: f"the best expert, {best}"}
    clauses: list[str] = []
    for name in [name for name in others if name in shares]:
        differences = shares[merged] - shares[name]
        average = stats.averaged([differences.xs(benchmark, level="benchmark").to_numpy() for benchmark in names])
        clauses.append(_clause("it" if clauses else merged, others[name], average))
    where = f"Averaged over {len(names)} benchmarks" if len(names) > 1 else f"On {names[0]}"
    return f"{where}, with 95 % intervals paired by question, {'; '.join(clauses)}."


def _clause(model: str, other: str, difference: stats.Estimate) -> str:
    """What the interval of model - other says, in words."""
    mean, low, high = (100 * value for value in (difference.mean, difference.low, difference.high))
    if low <= 0 <= high:
        return f"no difference shown between {model} and {other} ({mean:+.1f} points [{low:+.1f}, {high:+.1f}])"
    near, far = sorted((abs(low), abs(high)))
    return f"{model} is {abs(mean):.1f} points [{near:.1f}, {far:.1f}] {'above' if mean > 0 else 'below'} {other}"
