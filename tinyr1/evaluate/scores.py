r"""Graded samples -> counts by question -> scores, gains over the backbone, and tables for reading.

    graded: a row for each sample, with model, benchmark, question, sample, outcome, extracted, n_tokens, looping, …
      \-- by_question: right and samples of each question --> score_rows --> reports/<run>/scores.csv
                                                          \-> gains_over_backbone, interval_table
      \-- share_table, with the scores of guessing ------------> tinyr1.evaluate.compare, which decides

The unit of every interval is the question (docs/evaluation.md §6.1).
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from tinyr1.core import artifact
from tinyr1.core.config import SCORE_COLUMNS, Config
from tinyr1.evaluate import stats
from tinyr1.evaluate.grading import grade
from tinyr1.evaluate.notices import FAILED
from tinyr1.evaluate.protocol import letters

CHANCE = "chance"  # the scores of guessing, beside the models' in a table of shares
PUBLISHED = "the published score"  # what stands in for a model of others, of which only a number is known
Published = Mapping[tuple[str, str], float]  # (model, benchmark) -> pass@1 in [0, 1] that somebody else published
QUANTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "max": 1.0}


def by_question(graded: pd.DataFrame) -> pd.DataFrame:
    """Counts `right` and `samples` of each model and question, and their quotient `share`; scores are means of shares.

    graded: one row for each sample, with model, benchmark, question and outcome; the first three index the result.
    """
    right = graded["outcome"].eq("correct").groupby([graded["model"], graded["benchmark"], graded["question"]])
    counts = pd.DataFrame({"right": right.sum(), "samples": right.size()})
    return counts.assign(share=counts["right"] / counts["samples"])


def scored(graded: pd.DataFrame, failed: str | None) -> pd.DataFrame:
    """The graded samples from which scores are made: none of a model and benchmark of which a generation failed.

    failed: `evaluate.failed` of the params; where it says that they count as wrong, all rows stay.
    """
    if failed is not None:
        return graded
    spoiled = graded["outcome"].eq(FAILED).groupby([graded["model"], graded["benchmark"]]).transform("any")
    return graded[~spoiled.astype(bool)]


def chance(question: dict) -> float:
    """The score of guessing at a question: 1/n with n options, 0 where the answer is not chosen from a list."""
    return 1 / len(letters(question)) if question["kind"] == "option" else 0.0


def share_table(graded: pd.DataFrame, asked: Mapping[str, list[dict]]) -> pd.DataFrame:
    """The share of right samples of every question: index (benchmark, question), a column for each model, and CHANCE.

    asked: benchmark -> questions, as `tinyr1.data.benchmarks` makes them; the column CHANCE has their chance levels, so
    the mean of a benchmark that mixes kinds of questions is that of its mix. `tinyr1.evaluate.compare` reads the table.
    """
    shares = by_question(graded)["share"].unstack("model")
    levels = {(name, q["id"]): chance(q) for name, questions in asked.items() for q in questions}
    order = [name for name in levels if name in shares.index]
    return shares.loc[order, list(graded["model"].unique())].assign(**{CHANCE: [levels[name] for name in order]})


def chance_levels(asked: Mapping[str, list[dict]]) -> dict[str, float]:
    """The score of guessing at each benchmark, in [0, 1]: the mean over its questions."""
    return {name: float(np.mean([chance(q) for q in questions])) for name, questions in asked.items()}


def score_rows(
    cfg: Config, graded: pd.DataFrame, asked: Mapping[str, list[dict]], published: Published
) -> pd.DataFrame:
    """SCORE_COLUMNS for every model and benchmark of a run; scores and shares are fractions in [0, 1].

    asked: benchmark -> questions. published: the scores for the column `paper`, which stays empty elsewhere. There is
    no row where `scored` leaves none. KeyError when a model has no answer to a benchmark.
    """
    rows, counts, guessing = [], by_question(graded), chance_levels(asked)
    unscored = _pairs(graded) - _pairs(scored(graded, cfg.params.evaluate.failed))
    for model in cfg.models:
        for benchmark in cfg.params.benchmarks:
            if (model, benchmark) in unscored:
                continue
            part = graded[(graded["model"] == model) & (graded["benchmark"] == benchmark)]
            questions = counts.loc[(model, benchmark), :]
            estimate = stats.proportion(questions["share"].to_numpy())
            values = (
                cfg.run, model, benchmark, len(questions), questions["samples"].max(),
                estimate.mean, estimate.low, estimate.high, part["n_tokens"].mean(),
                *(part["outcome"].eq(name).mean() for name in ("truncated", "no_answer", *grade.UNDECIDED)),
                part["looping"].mean(), guessing[benchmark], published.get((model, benchmark), np.nan),
            )  # fmt: skip
            rows.append(dict(zip(SCORE_COLUMNS, values, strict=True)))
    return pd.DataFrame(rows)


def _pairs(graded: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(graded["model"], graded["benchmark"], strict=True))


def save_scores(folder: Path, rows: pd.DataFrame) -> None:
    """Write the rows as `scores.csv` into a folder."""
    artifact.write_atomic(folder / "scores.csv", rows.to_csv(index=False, float_format="%.6f"))


def gains_over_backbone(cfg: Config, graded: pd.DataFrame) -> pd.DataFrame:
    """Columns model, benchmark, mean, low, high: the paired differences of every other model, as fractions.

    `tinyr1.evaluate.compare.decide` has the same means and intervals, with tests.
    """
    shares = by_question(graded)["share"].unstack("model")
    rows = []
    for model in [m for m in cfg.models if m != "backbone"]:
        for benchmark in cfg.params.benchmarks:
            wide = shares.xs(benchmark, level="benchmark")
            estimate = stats.difference_over([wide[[model]].to_numpy().T], [wide[["backbone"]].to_numpy().T]).estimate()
            rows.append({"model": model, "benchmark": benchmark, **asdict(estimate)})
    return pd.DataFrame(rows)


def score_table(rows: pd.DataFrame, tokens: bool = False) -> pd.DataFrame:
    """The rows of scores.csv for reading: percent [95 % interval], with the mean answer length when `tokens` is set."""
    percent = (100 * rows[["pass_at_1", "ci_low", "ci_high"]]).to_numpy()
    text = [f"{mean:.1f} [{low:.1f}, {high:.1f}]" for mean, low, high in percent]
    lengths = [f" ({n:.0f} tokens)" if tokens else "" for n in rows["mean_tokens"]]
    return _wide(rows.assign(text=[score + length for score, length in zip(text, lengths, strict=True)]))


def points_texts(differences: pd.DataFrame) -> list[str]:
    """The columns mean, low and high (fractions) of each row as text: points [95 % interval]."""
    return [stats.Estimate(*row).points() for row in differences[["mean", "low", "high"]].to_numpy()]


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """The column `text` with models down and benchmarks across, in the order of the rows."""
    wide = table.pivot(index="model", columns="benchmark", values="text")
    return wide.reindex(index=table["model"].unique(), columns=table["benchmark"].unique())


def interval_table(graded: pd.DataFrame, asked: dict[str, list[dict]], published: Published) -> pd.DataFrame:
    """The score of every model and benchmark with both intervals of docs/evaluation.md §6.1, in percent, as text.

    over questions: the interval for other questions of this kind; over samples: the one for sampling the same questions
    again, which needs two samples of each. pass@k: at least one of the k samples is right; cons@k: the answer of the
    majority is right (docs/evaluation.md §6.4). without errata: the score without LiveCodeBench's faulty problems.
    paper and less paper: a published score, and ours less it with the width for two independent runs
    (docs/evaluation.md §6.3). cut off, loops and failed: percent of the samples; tokens: mean length of an answer.
    Columns that have no entry are left out.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for benchmark_of_model, part in graded.groupby(["model", "benchmark"], sort=False):
        model, benchmark = map(str, benchmark_of_model)
        counts = by_question(part).loc[(model, benchmark), :]
        k, values = int(counts["samples"].min()), counts["share"].to_numpy()
        over, theirs = stats.proportion(values), published.get((model, benchmark))
        same_k = k > 1 and bool((counts["samples"] == k).all())
        rows[model, benchmark] = {
            "pass@1": f"{100 * over.mean:.1f}",
            "over questions": over.interval(),
            "over samples": stats.resampled(values, k).interval() if k > 1 else "",
            "pass@k": _at_k(stats.pass_at_k(counts["right"].to_numpy(), k, k), k) if same_k else "",
            "cons@k": _majority(part, asked[benchmark], k) if k > 1 else "",
            "without errata": _without_errata(counts["share"], asked[benchmark]),
            "paper": f"{100 * theirs:.1f}" if theirs is not None else "",
            "less paper": stats.against_published(values, theirs).points() if theirs is not None else "",
            "cut off, %": f"{100 * part['outcome'].eq('truncated').mean():.0f}",
            "loops, %": f"{100 * part['looping'].mean():.0f}",
            "failed, %": f"{100 * failed:.1f}" if (failed := part["outcome"].eq(FAILED).mean()) else "",
            "tokens": f"{part['n_tokens'].mean():.0f}" if part["n_tokens"].notna().any() else "",
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["model", "benchmark"])
    return table.loc[:, (table != "").any()]


def _at_k(values: np.ndarray, k: int) -> str:
    """A mean of per-question values (n,) with its bootstrap interval, in percent."""
    estimate = stats.bootstrap(values)
    return f"{100 * estimate.mean:.1f} {estimate.interval()} (k = {k})"


def _majority(part: pd.DataFrame, questions: list[dict], k: int) -> str:
    """cons@k of the questions that have an answer to vote on; "" where there are none."""
    truth = {q["id"]: q["answer"] for q in questions if "answer" in q}
    if not truth:
        return ""
    votes: dict[str, list[str | None]] = {}
    for question, outcome, extracted in part.sort_values("sample")[["question", "outcome", "extracted"]].to_numpy():
        # An answer that was graded as right is the truth, however it was written.
        vote = truth[question] if outcome == "correct" else None if pd.isna(extracted) else str(extracted)
        votes.setdefault(question, []).append(vote)
    names = sorted(votes)
    return _at_k(stats.cons_at_k([votes[name] for name in names], [truth[name] for name in names], k), k)


def _without_errata(shares: pd.Series, questions: list[dict]) -> str:
    """The score without the problems that have an erratum; "" where none of the questions has one."""
    faulty = [q["id"] for q in questions if q.get("erratum")]
    sound = shares[~shares.index.isin(faulty)]
    return f"{100 * sound.mean():.1f} ({len(sound)} problems)" if len(sound) < len(shares) else ""


def token_quantiles(graded: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the number of tokens in an answer, one row for each benchmark whose answers were counted."""
    counted = graded.dropna(subset=["n_tokens"])  # an endpoint need not count them
    tokens = counted["n_tokens"].astype(float).groupby(counted["benchmark"])
    return pd.DataFrame({name: tokens.quantile(q) for name, q in QUANTILES.items()}).round().astype(int)


def outcome_counts(graded: pd.DataFrame) -> list[dict]:
    """The number of samples by model, benchmark and outcome, as rows."""
    return graded.groupby(["model", "benchmark", "outcome"]).size().rename("samples").reset_index().to_dict("records")
