"""Proof, before anything is scored, that the graders accept the right answers and no constant.

Every loaded question is answered with its own reference, in the forms that its protocol must accept, and with
constants. A program that knows the expected outputs stands in for a reference solution, which LiveCodeBench does not
have.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

from tinyr1.core.errors import UserError
from tinyr1.evaluate.grading import grade
from tinyr1.evaluate.grading.math_verify import Verifier
from tinyr1.evaluate.protocol import LETTERS, Protocol, order
from tinyr1.sandbox.runner import SOURCE_BYTES, Runner

INTEGERS = (0, 1, 7, 42, 100, 999, -1)
CONSTANTS = {"": "pass", "0": "print(0)", "YES": "print('YES')"}


def run(
    protocol: Protocol, questions: list[dict], runner: Runner | None = None, verifier: Verifier | None = None
) -> list[dict]:
    """A row for each form of answer: benchmark, protocol, answer, expected, samples, as_expected, not_run.

    Programs need the runner; without it their rows say how many were not run. UserError names the first answers
    that were graded otherwise.
    """
    tally: dict[tuple[str, str], Counter] = {}
    failures = []
    for question in questions:
        for form, text, sample, expected in _answers(protocol, question):
            count = tally.setdefault((form, " or ".join(sorted(expected))), Counter())
            if text is None or (question["kind"] == "program" and runner is None):
                count["not_run"] += 1
                continue
            response = {"text": f"x</think>{text}", "finish": "stop", "sample": sample}
            found, _ = grade.outcome(response, question, protocol, runner, verifier)
            count["samples"] += 1
            count["as_expected"] += found in expected
            if found not in expected:
                failures.append(f"{question['id']}, {form}: {found}, expected {' or '.join(sorted(expected))}")
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


Answer = tuple[str, str | None, int, set[str]]  # form, text (None: too large to run), sample, accepted outcomes


def _answers(protocol: Protocol, question: dict) -> Iterator[Answer]:
    makers: dict[str, Callable[[Protocol, dict], Iterator[Answer]]] = {
        "integer": _integers, "option": _letters, "program": _programs,
    }  # fmt: skip
    yield "no answer", "I do not know.", 0, {"no_answer"}
    yield from makers[question["kind"]](protocol, question)


def _integers(protocol: Protocol, question: dict) -> Iterator[Answer]:
    """Boxed forms are right in every protocol; a bare number is an answer only for the released rule."""
    truth, lenient = question["answer"], protocol.grader == "math_equal"
    padded = truth.zfill(3) if not truth.startswith("-") else truth
    yield "boxed", f"\\boxed{{{truth}}}", 0, {"correct"}
    yield "boxed, three digits, after another box", f"\\boxed{{8}} was wrong, so $\\boxed{{{padded}}}$.", 0, {"correct"}
    yield "bare", f"It is {truth}", 0, {"correct" if lenient else "no_answer"}
    for constant in INTEGERS:
        known_fault = lenient and constant != int(truth) and _nearly(constant, int(truth))
        form = "a constant, equal by a known fault of the protocol" if known_fault else "a constant"
        right = constant == int(truth) or known_fault
        yield form, f"\\boxed{{{constant}}}", 0, {"correct" if right else "wrong"}


def _nearly(found: int, truth: int) -> bool:
    """Equal within 1e-4 of the truth, its hundredth or its hundredfold: what the released rule lets pass."""
    targets = [Fraction(truth) * factor for factor in (Fraction(1, 100), 1, 100)]
    return any(abs(found - t) <= max(abs(found), abs(t)) / 10_000 for t in targets)


def _letters(protocol: Protocol, question: dict) -> Iterator[Answer]:
    """Every letter on every sample of a question: right exactly where the right option stands."""
    for sample in range(protocol.samples):
        shown = order(protocol, question, sample)
        right = LETTERS[shown.index(int(question["answer"]))] if shown else question["answer"]
        yield "boxed", f"\\boxed{{{right}}}", sample, {"correct"}
        yield "anchored", f"**Answer: {right}**", sample, {"correct"}
        for letter in LETTERS:
            yield "a constant letter", f"\\boxed{{{letter}}}", sample, {"correct" if letter == right else "wrong"}
        yield "bare letter in a sentence", f"Perhaps {right} then", sample, (
            {"correct"} if protocol.extraction == "last_letter" else {"no_answer"}
        )


def _programs(protocol: Protocol, question: dict) -> Iterator[Answer]:
    tests = question["tests"]
    ambiguous = len({t["input"].strip() for t in tests}) < len({(t["input"].strip(), t["output"]) for t in tests})
    stand_in = None if ambiguous else _stand_in(question)
    fits = stand_in is not None and len(stand_in) <= SOURCE_BYTES
    yield "a stand-in for a reference solution", _fenced(stand_in) if fits else None, 0, {"correct"}
    for output, code in CONSTANTS.items():
        right = {t["output"].strip() for t in tests} == {output} and not question["func_name"]
        yield "a program with constant output", _fenced(code), 0, {"correct" if right else "wrong"}


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def _stand_in(question: dict) -> str:
    """A program that looks the expected output up by its input."""
    if name := question["func_name"]:
        table = {json.dumps(_arguments(t["input"])): t["output"] for t in question["tests"]}
        return f"import json\nTABLE = {table!r}\ndef {name}(*a):\n    return json.loads(TABLE[json.dumps(list(a))])"
    table = {t["input"].strip(): t["output"] for t in question["tests"]}
    return f"import sys\nTABLE = {table!r}\nprint(TABLE[sys.stdin.read().strip()])"


def _arguments(text: str) -> list:
    return [json.loads(line) for line in text.split("\n") if line.strip()]
