"""What a reader of scores must know of how they came about, in sentences.

`one_sided`: nearly all answers of a benchmark end in a way that is neither right nor wrong. Such a score measures how
the model was asked or read, and seldom what it can do. `disagreement`: how often Math-Verify grades otherwise.
`failures`: generations that failed, and what they count as. `uncounted`: answers whose tokens the server did not count.
"""

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from tinyr1.core.prompts import THINK_CLOSE
from tinyr1.evaluate.grading.selftest import AS_TEXT
from tinyr1.evaluate.grading.symbolic import OPINIONS

FAILED = "failed"  # the outcome of a generation that failed
SHOWN_REASONS = 3  # in one sentence
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
    answered = graded[graded["outcome"] != FAILED]
    n = sum(pair in judged for pair in zip(answered["benchmark"], answered["question"], strict=True))
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
    sentences, answered = [], graded[graded["outcome"] != FAILED]
    for (model, benchmark), part in answered.groupby(["model", "benchmark"], sort=False):
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


def failures(graded: pd.DataFrame, counted: bool, imported: bool = False) -> list[str]:
    """One sentence for each model and benchmark of which generations failed: how many, why, and what follows from it.

    graded: as `tinyr1.evaluate.stage.grade_all` returns it. counted: whether they count as wrong. imported: whether the
    answers come from a file, so that the command asks nobody.
    """
    if counted:
        follows = "they count as wrong"
        again = "; without --failed-as-wrong the same command asks for them again"
    else:
        follows = "so it has no score; with --failed-as-wrong they count as wrong"
        again = ", and without it the same command asks for them again"
    follows += "" if imported else again
    sentences = []
    for (model, benchmark), part in graded.groupby(["model", "benchmark"], sort=False):
        told = part.loc[part["outcome"] == FAILED, "reason"].astype(str)
        # A server may say of each question how long it is; that is one reason.
        kinds = told.str.replace(r"\d+", "#", regex=True)
        examples, reasons = dict(zip(kinds, told, strict=True)), Counter(kinds)
        if reasons:
            why = "; ".join(f"{n} x {examples[kind]}" for kind, n in reasons.most_common(SHOWN_REASONS))
            more = f"; {len(reasons) - SHOWN_REASONS} other reasons" if len(reasons) > SHOWN_REASONS else ""
            sentences.append(
                f"{benchmark}, {model}: {reasons.total()} of {len(part)} generations failed, {follows} ({why}{more})"
            )
    return sentences


def uncounted(graded: pd.DataFrame) -> list[str]:
    """One sentence for each model and benchmark of which the server counted the tokens of some answers only."""
    sentences, answered = [], graded[graded["outcome"] != FAILED]
    for (model, benchmark), part in answered.groupby(["model", "benchmark"], sort=False):
        if 0 < (n := int(part["n_tokens"].isna().sum())) < len(part):
            sentences.append(
                f"{benchmark}, {model}: the server did not say how many tokens {n} of {len(part)} answers have; all "
                "lengths are those of the others"
            )
    return sentences
