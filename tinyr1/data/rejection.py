"""Which answers of the teacher become traces: rejection sampling, with a grader where there is an answer to compare.

    stored answer --judged, grade--> Sample: complete and right, wrong or unchecked; or spoiled
    samples of a seed --wanted--> those that are to be drawn next
                      --chosen, trace_of--> Trace: one sample, or the reason why there is none
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinyr1.core import prompts
from tinyr1.core.params.teacher import Teacher
from tinyr1.data.answers import integer

Seed = dict
Grade = Callable[[Seed, str], bool | None]  # (seed, whole text of an answer) -> right, wrong, or nothing to compare

# What became of a seed: its trace was written, or the reason why it has none.
OUTCOMES = {
    "written": "the teacher wrote a trace",
    "wrong": "no sample of the teacher was right",
    "empty_reasoning": "the teacher gave no reasoning, or no answer after it",
    "refused": "the teacher or its filter refused the question",
    "truncated": "no sample of the teacher ended by itself",
    "failed": "the teacher's server gave no answer",
}
SPOILED = ("empty_reasoning", "refused", "truncated")  # samples that `attempts` draws again; the worst one comes last

# How a refusal begins: an apology, then what the model cannot do; or DeepSeek's own words, in English and Chinese. A
# refusal is short and boxes no answer; a solution may say, too, that it cannot go on.
REFUSAL = re.compile(
    r"^\W*(?:(?:i(?:[’']m|\sam)\s(?:\w+\s)?sorry|sorry|i\sapologi[sz]e|my\sapologies|unfortunately)\W+(?:but\s)?)?"
    r"(?:(?:i|we)(?:\scan[’']t|\scan\s?not|\swon[’']t|\swill\snot|(?:[’']m|[’']re|\sam|\sare)\s(?:unable|not\sable)\sto)"
    r"\s(?:help(?!\sbut)|assist|answer|provide|discuss|comply|fulfil|engage|respond|process)"
    r"|that(?:[’']s|\sis)\sbeyond\smy\scurrent\sscope)"
    r"|^.{0,20}无法回答",
    re.IGNORECASE,
)
LONGEST_REFUSAL = 400  # characters


@dataclass(frozen=True)
class Sample:
    """One answer of the teacher: complete, or one of SPOILED; right as the grader says, None where it cannot say."""

    state: str
    thinking: str = ""
    response: str = ""
    right: bool | None = None

    @property
    def fate(self) -> str:
        """right, wrong, unchecked, or one of SPOILED."""
        verdicts = {True: "right", False: "wrong", None: "unchecked"}
        return verdicts[self.right] if self.state == "complete" else self.state


@dataclass(frozen=True)
class Trace:
    """What the teacher made of one seed.

    outcome: one of OUTCOMES. thinking, response: the two parts of the trace, "" where none was written. samples:
    answers that are stored. right: how many of them the grader accepted; None where it had nothing to compare with.
    """

    key: str
    outcome: str
    thinking: str
    response: str
    samples: int
    right: int | None


def judged(seed: Seed, line: dict, grade: Grade) -> Sample:
    """A stored answer to a seed, or a refusal (`tinyr1.sampling.responses`), as a sample."""
    if line.get("kind") == "refused":
        return Sample("refused")
    thinking, response = prompts.split_reasoning(line["text"], prompts.THINK_OPEN, prompts.THINK_CLOSE)
    thinking, response = thinking.strip(), (response or "").strip()
    if refuses(response or thinking):
        return Sample("refused")
    if line["finish"] == "length":
        return Sample("truncated")
    if not thinking or not response:
        return Sample("empty_reasoning")
    return Sample("complete", thinking, response, grade(seed, line["text"]))


def refuses(text: str) -> bool:
    """Whether a text declines to answer."""
    return len(text) <= LONGEST_REFUSAL and r"\boxed" not in text and bool(REFUSAL.search(text))


def wanted(drawn: Mapping[int, Sample], teacher: Teacher) -> list[int]:
    """Numbers of the samples of a seed that are to be drawn next, by those that are drawn already."""
    n, first = teacher.samples, teacher.choose == "first"
    if first and chosen(drawn, "first"):
        return []
    numbers = []
    for slot in range(n):
        for number in range(slot, n * teacher.attempts, n):
            if number not in drawn:
                numbers.append(number)
            if number not in drawn or drawn[number].state not in SPOILED:
                break
    return numbers[:1] if first else numbers


def chosen(drawn: Mapping[int, Sample], rule: str) -> Sample | None:
    """The sample that becomes the trace, by `teacher.choose`; None where none is complete and accepted."""
    complete = [drawn[number] for number in sorted(drawn) if drawn[number].state == "complete"]
    if rule == "majority" and complete:
        votes = Counter(final_answer(sample.response) for sample in complete)
        (most, _), *_ = votes.most_common(1)  # of equal numbers the one that came first
        complete = [sample for sample in complete if final_answer(sample.response) == most]
    accepted = [s for s in complete if s.right] or [s for s in complete if s.right is None]
    if rule == "shortest_correct" and accepted:
        return min(accepted, key=lambda sample: len(sample.thinking) + len(sample.response))
    return accepted[0] if accepted else None


def trace_of(key: str, drawn: Mapping[int, Sample], rule: str) -> Trace:
    """The trace of a seed, or the outcome that says why it has none."""
    best, states = chosen(drawn, rule), {sample.state for sample in drawn.values()}
    marks = [sample.right for sample in drawn.values() if sample.right is not None]
    right = sum(marks) if marks else None
    if best:
        return Trace(key, "written", best.thinking, best.response, len(drawn), right)
    reasons = ("wrong" if state == "complete" else state for state in ("complete", *SPOILED) if state in states)
    return Trace(key, next(reasons, "failed"), "", "", len(drawn), right)


def final_answer(response: str) -> str:
    """What a vote compares: what the last box holds, as an integer where it is one; the whole text without a box.

    "so \\boxed{1{,}204}." -> "1204"
    """
    _, box, rest = response.rpartition(r"\boxed{")
    if not box:
        return " ".join(response.split())
    depth, inside = 1, ""
    for character in rest:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if not depth:
            break
        inside += character
    number = integer(inside)
    return "".join(inside.split()) if number is None else str(number)
