r"""The one rule by which this kit says that models differ, or that they do not (docs/evaluation.md §6.2).

    shares (scores.share_table) + comparisons --decide--> verdict, star, interval of each --in_words--> text

A comparison belongs to a family: the comparisons that answer one question together. Holm's correction holds in it.
Every table, figure and page takes its verdicts, stars and words from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from tinyr1.evaluate import stats
from tinyr1.evaluate.scores import CHANCE, PUBLISHED, points_texts

Kind = Literal["difference", "equivalence"]
VERDICTS = ("higher", "lower", "similar", "undecided")
COLUMNS = ("family", "model", "against", "benchmarks", "kind", "margin", "n", "mean", "low", "high", "p", "p_text",
           "holm", "detectable", "verdict", "star")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One question to the scores: is `model` different from `against`, or is it equivalent to it?

    against: another model, CHANCE for the scores of guessing, or PUBLISHED (`evaluate.against`). benchmarks: their
    names; several are averaged, each with the same weight. kind: what is asked first, and so what Holm's correction and
    the star are about.
    """

    family: str
    model: str
    against: str
    benchmarks: tuple[str, ...]
    kind: Kind = "difference"


def decide(shares: pd.DataFrame, comparisons: Sequence[Comparison], margin: float) -> pd.DataFrame:
    """One row for each comparison, in their order: COLUMNS.

    shares: index (benchmark, question), columns models, values the share of right samples in [0, 1]. With a third index
    level `seed` (trainings), the intervals and tests are over seeds, too, for the seeds that both models have.
    margin: how far apart two models may be that are called similar, in points.

    mean: of model - against, with its 95 % interval; mean, low, high and detectable are fractions. benchmarks: their
    names, with commas. n: questions. p: of the kind that is asked first: a two-sided sign-flip test (with several seeds
    a t test) for "difference", two one-sided t tests against ±margin for "equivalence". holm: p after Holm's correction
    in the family. star: "*" where holm is below 0.05. detectable: smallest true difference that four of five
    repetitions would find at the strictest level of the family.
    verdict: of a difference "higher" or "lower" where it has a star, else "similar" if the second question, whether it
    is equivalent, is answered with yes after Holm's correction of these answers, else "undecided"; of an equivalence
    "similar" where it has a star, else "higher" or "lower" by the same second look, else "undecided".
    ValueError for a margin that is no number of points, and for models or benchmarks that `shares` does not have.
    """
    if not 0.5 <= margin <= 100:
        raise ValueError(f"the margin is {margin}, expected points from 0.5 to 100")
    return judged([_measured(shares, comparison, margin / 100) for comparison in comparisons])


def judged(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of `measured` with Holm's correction, verdict and star: what `decide` returns."""
    table = pd.DataFrame(rows)
    if table.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    by_family = table.groupby("family")
    table["holm"], second = (
        by_family[column].transform(lambda p: pd.Series(stats.holm(p.to_dict()))) for column in ("p", "second_p")
    )
    sizes = by_family["mean"].transform("size")
    table["detectable"] = [
        found.detectable(stats.LEVEL / size) for found, size in zip(table["found"], sizes, strict=True)
    ]
    table["star"] = np.where(table["holm"] < stats.LEVEL, "*", "")
    table["verdict"] = [
        _verdict(kind, mean, first < stats.LEVEL, other < stats.LEVEL)
        for kind, mean, first, other in zip(table["kind"], table["mean"], table["holm"], second, strict=True)
    ]
    return table[list(COLUMNS)]


def _measured(shares: pd.DataFrame, comparison: Comparison, margin: float) -> dict[str, Any]:
    """`measured` of a comparison of two models."""
    a, b = _values(shares, comparison)
    found = stats.difference_over(a, b)
    one_seed = len(a[0]) == 1  # signs of questions say nothing of other trainings
    p = stats.sign_flip([(x - y)[0] for x, y in zip(a, b, strict=True)]) if one_seed else found.p()
    return measured(comparison, found, p, sum(values.shape[1] for values in a), margin)


def measured(comparison: Comparison, found: stats.Mean, p: float, n: int, margin: float) -> dict[str, Any]:
    """The row of one comparison, as far as it does not depend on its family.

    p: of no difference. n: questions. margin: as a fraction.
    """
    first, second = p, found.equivalence(margin)
    if comparison.kind == "equivalence":
        first, second = second, first
    estimate = found.estimate()
    return {
        "family": comparison.family, "model": comparison.model, "against": comparison.against,
        "benchmarks": ", ".join(comparison.benchmarks), "kind": comparison.kind, "margin": margin,
        "n": n, "mean": estimate.mean, "low": estimate.low, "high": estimate.high,
        "p": first, "p_text": stats.p_text(first), "second_p": second, "found": found,
    }  # fmt: skip


def _values(shares: pd.DataFrame, comparison: Comparison) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The values (seeds, questions) of both models on each benchmark."""
    names = [comparison.model, comparison.against]
    missing = [name for name in names if name not in shares]
    missing += [name for name in comparison.benchmarks if name not in shares.index.get_level_values("benchmark")]
    if missing or not comparison.benchmarks:
        raise ValueError(f"{comparison}: no scores of {', '.join(missing) or 'no benchmark'}")
    asked = shares.loc[shares.index.get_level_values("benchmark").isin(comparison.benchmarks), names]
    if "seed" not in asked.index.names:
        asked = pd.concat({0: asked}, names=["seed"])
    complete = asked.notna().all(axis=1).groupby("seed").all()
    asked = asked[asked.index.get_level_values("seed").isin(complete[complete].index)]
    if asked.empty:
        raise ValueError(f"{comparison}: no training has the scores of both models on every question")
    wide = [asked.xs(benchmark, level="benchmark").unstack("seed") for benchmark in comparison.benchmarks]
    a, b = ([part[name].to_numpy().T for part in wide] for name in names)
    return a, b


def _verdict(kind: Kind, mean: float, first: bool, second: bool) -> str:
    """The verdict from the mean and from whether the first and the second question are answered with yes."""
    differs, similar = (first, second) if kind == "difference" else (second, first)
    if similar and (kind == "equivalence" or not differs):
        return "similar"
    if differs:
        return "higher" if mean > 0 else "lower"
    return "undecided"


def in_words(row: Mapping[str, Any] | pd.Series) -> str:
    """The verdict of a row of `decide` as every table and page says it."""
    within = f"within ±{100 * row['margin']:g} points"
    shows = f"a difference of {100 * row['detectable']:.1f} points would have shown"
    if row["against"] == CHANCE:
        words = {
            "higher": "above chance", "lower": "below chance", "similar": f"not above chance ({within})",
            "undecided": f"not above chance ({shows})",
        }  # fmt: skip
    else:
        words = {"similar": f"similar ({within})", "undecided": f"undecided ({shows})"}
    if row["against"] == PUBLISHED:
        words["similar"] = f"reproduced ({within})"
        words |= {verdict: f"{verdict} than published" for verdict in ("higher", "lower")}
    return words.get(row["verdict"], row["verdict"])


# --- the families of a run ------------------------------------------------------------------------------------

OVER_BACKBONE = "every model against the backbone, by benchmark"
ABOVE_CHANCE = "every model against guessing, by benchmark"
ALL_PAIRS = "every other pair of models, by benchmark (exploratory)"


def of_run(shares: pd.DataFrame, models: Sequence[str]) -> list[Comparison]:
    """The comparisons of an evaluation on each of its benchmarks, in three families.

    Every model with the backbone (the first of `models`); every model with guessing, where guessing scores; and every
    other pair of models, which is exploratory. shares: see `scores.share_table`. models: in the order of the tables.
    """
    guessing = shares[CHANCE].groupby("benchmark", sort=False).mean()
    backbone, *others = models
    return [
        *(Comparison(OVER_BACKBONE, model, backbone, (b,)) for b in guessing.index for model in others),
        *(Comparison(ABOVE_CHANCE, model, CHANCE, (b,)) for b in guessing.index[guessing > 0] for model in models),
        *(Comparison(ALL_PAIRS, model, against, (b,)) for b in guessing.index
          for against, model in combinations(others, 2)),
    ]  # fmt: skip


def pairs(decided: pd.DataFrame) -> pd.DataFrame:
    """The rows of `of_run` that compare two models, with the name of their one benchmark in the column `benchmark`."""
    between_models = decided[decided["against"] != CHANCE]
    return between_models.rename(columns={"benchmarks": "benchmark"})


def with_verdicts(table: pd.DataFrame, decided: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """`scores.interval_table` with the verdicts of `of_run`: benchmarks down, in each of them the models in this order.

    over the backbone: the paired difference in points, its 95 % interval, and a star where it has one; verdict: the
    same in words; guessing: the score of guessing in percent, and what the model's own is beside it.
    """
    gains = decided[decided["family"] == OVER_BACKBONE]
    guesses = decided[decided["family"] == ABOVE_CHANCE]
    points = [text + star for text, star in zip(points_texts(gains), gains["star"], strict=True)]
    columns = pd.concat(
        [
            pd.Series(points, _names(gains), name="over the backbone"),
            pd.Series([in_words(row) for _, row in gains.iterrows()], _names(gains), name="verdict"),
            pd.Series([in_words(row) for _, row in guesses.iterrows()], _names(guesses), name="guessing"),
        ],
        axis=1,
    )
    joined = table.join(columns).fillna("").swaplevel().rename_axis(["benchmark", "model"])
    benchmarks = dict.fromkeys([*decided["benchmarks"], *joined.index.get_level_values("benchmark")])
    order = [(benchmark, model) for benchmark in benchmarks for model in models]
    return joined.loc[order, (joined != "").any()]


def _names(decided: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(decided[["model", "benchmarks"]], names=["model", "benchmark"])
