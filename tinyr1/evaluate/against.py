"""An evaluation of one model beside others: an earlier one, question by question, and published numbers."""

import json
from dataclasses import fields
from pathlib import Path

import pandas as pd

from tinyr1.core import artifact, jsonl, paper
from tinyr1.core.errors import UserError
from tinyr1.core.params.schema import Params
from tinyr1.evaluate import compare, stats
from tinyr1.evaluate.protocol import REMARKS, Protocol
from tinyr1.evaluate.scores import by_question, points_texts, scored

SHOWN_DIFFERENCES = 5  # in one message
# These must be equal, as must the questions. Engine, versions and seed may differ: few models are served by the same.
COMPARED_RULES = (*(field.name for field in fields(Protocol) if field.name not in REMARKS), "n_problems")
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
    decided = compare.decide(shares, family, margin).set_index("benchmarks").rename_axis("benchmark")
    table = pd.DataFrame(
        {
            "points": points_texts(decided), "p": decided["p_text"], "after Holm": decided["holm"].map(stats.p_text),
            "verdict": [compare.in_words(row) for _, row in decided.iterrows()],
        }, index=decided.index,
    )  # fmt: skip
    title = f"{our_model} less {their_model}, in points with 95 % intervals paired by question"
    return f"{title}\n{table.to_string()}"


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
