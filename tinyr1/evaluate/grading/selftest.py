"""Tests the graders before anything is scored: they must accept every right answer and no constant.

Every question of a run is answered with its own reference, in each form that the protocol must accept, with constants
and with no answer (docs/evaluation.md §0.4). LiveCodeBench has no reference solutions, so a program that looks the
expected output up takes their place. Think tags are missing, repeated or never closed in some of the answers.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.data.answers import integer
from tinyr1.evaluate.grading import grade
from tinyr1.evaluate.grading.expression import is_formula
from tinyr1.evaluate.grading.symbolic import Verifier
from tinyr1.evaluate.protocol import Protocol, letters, order
from tinyr1.sandbox.runner import SOURCE_BYTES, Runner

INTEGERS = (0, 1, 7, 42, 100, 999, -1)
AS_TEXT = "boxed, a reference that is compared as a text"  # the form of answer that counts such references
CONSTANTS = {"": "pass", "0": "print(0)", "YES": "print('YES')"}


@dataclass(frozen=True)
class Answer:
    """One answer to a question. text: None if it is too large to run. expected: the outcomes that are right for it.

    reasoning: what stands before the text. opened: whether the prompt opened the think tag.
    """

    form: str
    text: str | None
    expected: set[str]
    sample: int = 0
    reasoning: str = "x</think>"
    opened: bool = True


def run_self_test(
    protocol: Protocol, questions: list[dict[str, Any]], runner: Runner | None = None, verifier: Verifier | None = None
) -> list[dict[str, Any]]:
    """A row for each form of answer: benchmark, protocol, answer, expected, samples, as_expected, not_run.

    Programs need the runner; without one their rows count them as not run. A reference that Math-Verify cannot read has
    the form AS_TEXT. UserError names the first five answers that get another outcome than the expected one.
    """
    tally: dict[tuple[str, str], Counter[str]] = {}
    failures = []
    for question in questions:
        for answer in _answers(protocol, question, verifier):
            expected = " or ".join(sorted(answer.expected))
            count = tally.setdefault((answer.form, expected), Counter())
            if answer.text is None or (question["kind"] == "program" and runner is None):
                count["not_run"] += 1
                continue
            response = {"text": answer.reasoning + answer.text, "finish": "stop", "sample": answer.sample,
                        "opened": answer.opened}  # fmt: skip
            outcome, _ = grade.outcome(response, question, protocol, runner, verifier)
            count["samples"] += 1
            count["as_expected"] += outcome in answer.expected
            if outcome not in answer.expected:
                failures.append(f"{question['id']}, {answer.form}: {outcome}, expected {expected}")
    if failures:
        raise UserError(
            f"{protocol.benchmark}, protocol {protocol.name}: {len(failures)} answers are graded wrongly: "
            + "; ".join(failures[:5])
        )
    return [
        {"benchmark": protocol.benchmark, "protocol": protocol.name, "answer": form, "expected": expected,
         **{key: count[key] for key in ("samples", "as_expected", "not_run")}}
        for (form, expected), count in tally.items()
    ]  # fmt: skip


def _answers(protocol: Protocol, question: dict[str, Any], verifier: Verifier | None) -> Iterator[Answer]:
    yield Answer("no answer", "I do not know.", {"no_answer"})
    if question["kind"] == "expression":
        yield from _expressions(question["answer"], verifier)
        return
    yield from {"integer": _integers, "option": _letters, "program": _programs}[question["kind"]](protocol, question)


def _tags(protocol: Protocol | None, text: str, sample: int = 0) -> Iterator[Answer]:
    """A right answer in a text without think tags, with one too many, and in a reasoning that never ends."""
    whole = protocol is not None and protocol.reads == "whole"
    yield Answer("without reasoning", text, {"correct"}, sample, reasoning="", opened=False)
    yield Answer("with a closing tag behind it", f"{text}\n</think>", {"correct"}, sample)
    yield Answer("inside a reasoning without an end", text, {"correct" if whole else "truncated"}, sample,
                 reasoning="<think>", opened=False)  # fmt: skip


def _integers(protocol: Protocol, question: dict[str, Any]) -> Iterator[Answer]:
    """Boxed forms are right in every protocol; a bare number is an answer for the released rule only."""
    truth, lenient = question["answer"], protocol.grader == "math_equal"
    padded = truth.zfill(3) if not truth.startswith("-") else truth
    again = f"\\boxed{{8}} was wrong, so $\\boxed{{{padded}}}$."
    yield Answer("boxed", f"\\boxed{{{truth}}}", {"correct"})
    yield from _tags(protocol, f"\\boxed{{{truth}}}")
    yield Answer("boxed, three digits, after another box", again, {"correct"})
    yield Answer("bare", f"It is {truth}", {"correct" if lenient else "no_answer"})
    for constant in INTEGERS:
        known_fault = lenient and constant != int(truth) and _nearly(constant, int(truth))
        form = "a constant, equal by a known fault of the protocol" if known_fault else "a constant"
        right = constant == int(truth) or known_fault
        yield Answer(form, f"\\boxed{{{constant}}}", {"correct" if right else "wrong"})


def _expressions(truth: str, verifier: Verifier | None) -> Iterator[Answer]:
    """The reference is right in any box; no other number, no word and no part of two answers is."""
    box = f"\\boxed{{{truth}}}"
    readable = verifier is None or is_formula(verifier, truth)
    yield Answer("boxed" if readable else AS_TEXT, box, {"correct"})
    yield from _tags(None, box)
    yield Answer("boxed, after another box", f"\\boxed{{8}} was wrong, so ${box}$.", {"correct"})
    yield Answer("bare", f"It is {truth}", {"no_answer"})
    yield Answer("an empty box", f"\\boxed{{}} {truth}", {"no_answer"})
    yield Answer("a word", "\\boxed{\\text{nothing at all}}", {"wrong"})
    yield Answer("taken back", f"{box} or rather \\boxed{{{truth}", {"wrong"})
    for constant in INTEGERS if (number := integer(truth)) is not None else ():
        yield Answer("a constant", f"\\boxed{{{constant}}}", {"correct" if constant == number else "wrong"})


def _nearly(constant: int, truth: int) -> bool:
    """Whether the released rule takes a constant for the truth: within 1e-4 of it, its hundredth or its hundredfold."""
    targets = (Fraction(truth, 100), Fraction(truth), Fraction(truth * 100))
    return any(abs(constant - t) <= max(Fraction(abs(constant)), abs(t)) / 10_000 for t in targets)


def _letters(protocol: Protocol, question: dict[str, Any]) -> Iterator[Answer]:
    """Every letter on every sample of a question: right exactly where the right option stands."""
    for sample in range(protocol.samples):
        shown = order(protocol, question, sample)
        right = letters(question)[shown.index(int(question["answer"]))] if shown else question["answer"]
        yield Answer("boxed", f"\\boxed{{{right}}}", {"correct"}, sample)
        yield from _tags(protocol, f"\\boxed{{{right}}}", sample)
        yield Answer("anchored", f"**Answer: {right}**", {"correct"}, sample)
        for letter in letters(question):
            expected = "correct" if letter == right else "wrong"
            yield Answer("a constant letter", f"\\boxed{{{letter}}}", {expected}, sample)
        expected = "correct" if protocol.extraction == "last_letter" else "no_answer"
        yield Answer("bare letter in a sentence", f"Perhaps {right} then", {expected}, sample)


def _programs(protocol: Protocol, question: dict[str, Any]) -> Iterator[Answer]:
    """A program that looks outputs up is right, unless two tests of one input differ; constant output is wrong."""
    tests = question["tests"]
    ambiguous = len({t["input"].strip() for t in tests}) < len({(t["input"].strip(), t["output"]) for t in tests})
    stand_in = None if ambiguous else _stand_in(question)
    text = _fenced(stand_in) if stand_in is not None and len(stand_in) <= SOURCE_BYTES else None
    yield Answer("a stand-in for a reference solution", text, {"correct"})
    for output, code in CONSTANTS.items():
        right = {t["output"].strip() for t in tests} == {output} and not question["func_name"]
        yield Answer("a program with constant output", _fenced(code), {"correct" if right else "wrong"})


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def _stand_in(question: dict[str, Any]) -> str:
    """A program that looks the expected output up by its input."""
    if name := question["func_name"]:
        table = {json.dumps(_arguments(t["input"])): t["output"] for t in question["tests"]}
        return f"import json\nTABLE = {table!r}\ndef {name}(*a):\n    return json.loads(TABLE[json.dumps(list(a))])"
    table = {t["input"].strip(): t["output"] for t in question["tests"]}
    return f"import sys\nTABLE = {table!r}\nprint(TABLE[sys.stdin.read().strip()])"


def _arguments(text: str) -> list:
    return [json.loads(line) for line in text.split("\n") if line.strip()]
