"""What a reader of scores must know of how they came about, in sentences.

`one_sided`: nearly all answers of a benchmark end in a way that is neither right nor wrong. Such a score measures how
the model was asked or read, and seldom what it can do. `disagreement`: how often Math-Verify grades otherwise.
"""

from collections.abc import Mapping

import pandas as pd

from tinyr1.core.prompts import THINK_CLOSE
from tinyr1.evaluate.grading.selftest import AS_TEXT
from tinyr1.evaluate.grading.symbolic import OPINIONS

SHARE = 0.9  # of a benchmark's answers that end in one and the same way
GRADED = ("correct", "wrong")
VERDICTS = ("equal", "different", "nothing")  # of Math-Verify; each other status means that it has none
REASONS = {
    "truncated": "they were cut off at the token limit, or end inside their reasoning; raise max_tokens, and look "
                 "whether the model goes round in circles (examples.txt)",
    "timeout": "their programs ran out of time twice; look at cpu_seconds of evaluate.sandbox, and at what else runs "
               "on this machine",
    "grader_error": "the grader, the sandbox or the questions failed, and not the model; the log says how",
    "unreadable": "their boxes hold something else than the answer that the prompt asks for; examples.txt shows one",
}  # fmt: skip
UNCLOSED = (
    "{n} of them never close the think tag that the prompt opened, so there is nothing to read; a model that does not "
    "reason in these tags is asked with its own template through --endpoint"
)
SILENT = "{n} of them have nothing behind their reasoning"
NOTHING_FOUND = "{n} of them hold no answer in the form that the prompt asks for; examples.txt shows one"


def disagreement(graded: pd.DataFrame, asked: Mapping[str, list[dict]], opinions: pd.DataFrame) -> list[str]:
    """One sentence on how often Math-Verify disagrees with the grades of OPINIONS; none where there are none.

    opinions: as `tinyr1.evaluate.stage.second_opinions` returns them.
    """
    judged = {(name, q["id"]): q["kind"] for name, qs in asked.items() for q in qs if q["kind"] in OPINIONS}
    n = sum(pair in judged for pair in zip(graded["benchmark"], graded["question"], strict=True))
    if not n:
        return []
    verdicts = opinions["math_verify"] if len(opinions) else pd.Series(dtype=str)
    called = "integer" if set(judged.values()) == {"integer"} else "mathematical"
    differs = int(verdicts.isin(VERDICTS).sum())
    return [
        f"second opinion: Math-Verify disagrees on {differs} of {n} {called} answers and has no verdict on "
        f"{len(verdicts) - differs} (second_opinion in evaluation.json lists them)"
    ]


def as_texts(tested: pd.DataFrame) -> list[str]:
    """One sentence for each benchmark with references that Math-Verify cannot read. tested: `stage.self_test`'s."""
    if AS_TEXT not in tested.index.get_level_values("answer"):
        return []
    counts = tested.xs(AS_TEXT, level="answer")["samples"].groupby("benchmark").sum()
    return [
        f"{name}: Math-Verify cannot read {n} of the reference answers; a word or text is right where it is the same"
        for name, n in counts.items()
    ]


def one_sided(graded: pd.DataFrame) -> list[str]:
    """One sentence for each model and benchmark of which one outcome, neither correct nor wrong, has SHARE or more.

    graded: one row for each sample, as `tinyr1.evaluate.stage.grade_all` returns it.
    """
    sentences = []
    for (model, benchmark), part in graded.groupby(["model", "benchmark"], sort=False):
        endings = part["outcome"].mask(part["reason"].notna(), part["reason"])
        for outcome, n in endings.value_counts().items():
            if outcome not in GRADED and n >= SHARE * len(part):
                why = REASONS.get(str(outcome)) or _why_no_answer(part[endings == outcome])
                sentences.append(f"{benchmark}, {model}: {n} of {len(part)} answers are {outcome}: {why}")
    return sentences


def _why_no_answer(answers: pd.DataFrame) -> str:
    """What the texts without an answer have in common."""
    silent = answers["final"].str.strip().eq("")
    unclosed = silent & ~answers["text"].str.contains(THINK_CLOSE, regex=False)
    counts = ((UNCLOSED, unclosed), (SILENT, silent & ~unclosed), (NOTHING_FOUND, ~silent))
    return "; ".join(words.format(n=found.sum()) for words, found in counts if found.any())
