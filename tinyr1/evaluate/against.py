"""An evaluation of one model beside others: an earlier one, question by question, and published numbers.

    graded samples + published scores --with_published--> a row of `compare.COLUMNS` for each benchmark that has one
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tinyr1.core import artifact, jsonl, paper
from tinyr1.core.errors import UserError
from tinyr1.core.params.schema import Params
from tinyr1.evaluate import compare, stats
from tinyr1.evaluate.protocol import REMARKS, Protocol
from tinyr1.evaluate.scores import PUBLISHED, by_question, points_texts, scored

SHOWN_DIFFERENCES = 5  # in one message
# These must be equal, as must the questions. Engine, versions and seed may differ: few models are served by the same.
COMPARED_RULES = (*(field.name for field in fields(Protocol) if field.name not in REMARKS), "n_problems")
PAIRS = "every pair of models, by benchmark"  # the family of `in_pairs`
PAPER_MODELS = (paper.BACKBONE, paper.TINYR1)  # either is shown beside the other, too


def earlier_evaluation(folder: Path, described: list[dict], taken: str) -> pd.DataFrame:
    """Graded samples of a finished evaluation; its model gets the folder in its name where the name is `taken`.

    described: the protocols of this evaluation. UserError names the benchmarks, rules or questions that differ.
    """
    path, remedy = folder / "evaluation.json", "give the folder of a finished `python -m tinyr1.evaluate`"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        name, theirs = facts["model"], {rules["benchmark"]: rules for rules in facts["protocols"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--against: {path} cannot be read: {error!r}; {remedy}") from error
    ours = {rules["benchmark"]: rules for rules in json.loads(json.dumps(described))}
    if problems := _protocol_differences(theirs, ours):
        more = [f"… and {len(problems) - SHOWN_DIFFERENCES} more"] if len(problems) > SHOWN_DIFFERENCES else []
        raise UserError(
            f"--against: {folder} cannot be compared question by question; both need the same benchmarks, questions "
            "and protocol:\n" + "\n".join(problems[:SHOWN_DIFFERENCES] + more)
        )
    artifact.check(folder / "graded.jsonl", "evaluate that model again")
    graded = pd.DataFrame(jsonl.read(folder / "graded.jsonl"))
    if len(scored(graded, facts["protocols"][0].get("failed"))) < len(graded):
        raise UserError(f"--against: generations of {folder} failed, so it has no score; complete it first")
    return graded.assign(model=f"{name} in {folder}" if name == taken else name)


def _protocol_differences(theirs: dict[str, dict], ours: dict[str, dict]) -> list[str]:
    """The differences between the protocols of two evaluations, by benchmark; one line each."""
    if theirs.keys() != ours.keys():
        return [f"benchmarks: {', '.join(theirs)}; here {', '.join(ours)}"]
    problems = []
    for name, mine in ours.items():
        differing = [f"{name}: {key} {theirs[name].get(key)!r}; here {mine[key]!r}"
                     for key in COMPARED_RULES if theirs[name].get(key) != mine[key]]  # fmt: skip
        if not differing and theirs[name]["responses"] != mine["responses"]:  # a hash of all that a model is asked
            differing = [f"{name}: its questions are not those asked here"]
        problems += differing
    return problems


def question_by_question(ours: pd.DataFrame, theirs: pd.DataFrame, margin: float) -> str:
    """Our model less theirs on each benchmark, as a table with its title; the benchmarks are one family.

    margin: see `compare.decide`. UserError names questions that only one of the evaluations has answers to.
    """
    asked = [set(zip(graded["benchmark"], graded["question"], strict=True)) for graded in (ours, theirs)]
    if alone := sorted(f"{benchmark}/{question}" for benchmark, question in asked[0] ^ asked[1]):
        names = ", ".join(alone[:SHOWN_DIFFERENCES]) + (", …" if len(alone) > SHOWN_DIFFERENCES else "")
        raise UserError(
            f"--against: {len(alone)} questions have answers in one evaluation only: {names}; complete it first"
        )
    their_model, our_model = theirs["model"].iloc[0], ours["model"].iloc[0]
    shares = by_question(pd.concat([theirs, ours]))["share"].unstack("model")
    family = [
        compare.Comparison("both evaluations, by benchmark", our_model, their_model, (name,))
        for name in ours["benchmark"].unique()
    ]
    table = _texts(compare.decide(shares, family, margin).set_index("benchmarks").rename_axis("benchmark"))
    title = f"{our_model} less {their_model}, in points with 95 % intervals paired by question"
    return f"{title}\n{table.to_string()}"


def _texts(decided: pd.DataFrame) -> pd.DataFrame:
    """Rows of `compare.decide` for reading, with the same index."""
    return pd.DataFrame(
        {
            "points": points_texts(decided), "p": decided["p_text"], "after Holm": decided["holm"].map(stats.p_text),
            "verdict": [compare.in_words(row) for _, row in decided.iterrows()],
        }, index=decided.index,
    )  # fmt: skip


def in_pairs(graded: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Every model less every one before it, on each benchmark: the rows of `compare.decide`, as one family.

    graded: samples of several models that were asked the same questions. margin: see `compare.decide`.
    """
    shares = by_question(graded)["share"].unstack("model")
    names = combinations(graded["model"].unique(), 2)
    family = [
        compare.Comparison(PAIRS, later, earlier, (benchmark,))
        for earlier, later in names for benchmark in graded["benchmark"].unique()
    ]  # fmt: skip
    return compare.decide(shares, family, margin)


def pairs_in_words(decided: pd.DataFrame) -> str:
    """The rows of `in_pairs` as a table with its title."""
    names = ["model", "against", "benchmarks"]
    table = _texts(decided.set_index(names, drop=False).rename_axis(["model", "less", "benchmark"]))
    title = f"{PAIRS}, in points with 95 % intervals paired by question; Holm's correction is over all rows"
    return f"{title}\n{table.reset_index().to_string(index=False)}"


def with_published(graded: pd.DataFrame, theirs: Mapping[str, paper.Published], margin: float) -> pd.DataFrame:
    """Whether the scores of one model are those that were published for it: the rows of `compare.decide`, by benchmark.

    graded: samples of one model. theirs: benchmark -> the published score of this model on the same questions.
    margin: in points. The benchmarks are one family.
    """
    (model,), counts = graded["model"].unique(), by_question(graded).droplevel("model")
    asked = {name: counts.loc[name] for name in theirs}
    return compare.judged([
        repeated(model, name, asked[name]["share"].to_numpy(), int(asked[name]["samples"].min()), score.percent,
                 score.samples, margin)
        for name, score in theirs.items()
    ])  # fmt: skip


def repeated(
    model: str, benchmark: str, values: np.ndarray, k: int, percent: float, their_k: int, margin: float
) -> dict[str, Any]:
    """The row of `compare.measured` for our score and a published one of the same questions.

    values: share of right answers of each question (n,), of k samples. percent, their_k: theirs. margin: in points.
    Equivalence is asked first, of the interval for the same questions sampled again (docs/evaluation.md §6.3).
    """
    found = stats.repeated(values, k, percent / 100, their_k)
    comparison = compare.Comparison("published scores", model, PUBLISHED, (benchmark,), "equivalence")
    return compare.measured(comparison, found, found.p(), len(values), margin / 100)


def beside_published(model: str, params: Params, graded: pd.DataFrame) -> pd.DataFrame:
    """Published scores of the evaluated model on the benchmarks of `graded`, and ours less them, as text.

    model: its hub id; the table is empty for every model and benchmark without a published score (`core.paper`). The
    paper's backbone and the paper's model stand beside each other. params: with the benchmarks that were asked. The
    differences have the width for two independent runs (docs/evaluation.md §6.3).
    """
    shares = {str(name): part for name, part in by_question(graded)["share"].groupby("benchmark", sort=False)}
    asked = {name: len(part) for name, part in shares.items()}
    rows: dict[str, dict[str, str]] = {}
    for one in PAPER_MODELS if model in PAPER_MODELS else (model,):
        for name, score in paper.of_model(one, params, asked).items():
            less = stats.against_published(shares[name].to_numpy(), score.percent / 100).points()
            row = rows.setdefault(f"{paper.short(one)} ({score.source})", {})
            row[name] = f"{score.percent:.1f}; ours less it {less}"
    return pd.DataFrame.from_dict(rows, orient="index")
