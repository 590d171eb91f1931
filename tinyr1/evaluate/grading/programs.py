"""Generated programs: taken out of an answer, run on their tests, compared with the expected outputs.

Comparison is LiveCodeBench's own (`lcb-official`, evaluation.md §1.2) under both semantics of the sandbox, and happens
here, in the process that has the expected outputs, on plain values: nothing a program defines takes part in it.
"""

import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TypeVar

from tinyr1.sandbox.forkserver import Refused, Result, SandboxError
from tinyr1.sandbox.runner import MOST_OUTPUT_BYTES, Runner

COMPARATOR = "lcb-official"
T = TypeVar("T")
KILLED = signal.SIGKILL.name  # what the kernel, short of memory, or a person did to a program
MOST_DEPTH = 500  # nested lists and dicts in a value
MOST_DIGITS = 50_000  # of a whole number, the limit LiveCodeBench sets


@dataclass(frozen=True)
class Verdict:
    """What became of a program.

    outcome: correct, wrong, timeout, or grader_error where the sandbox or the question failed, not the program.
    test: index of the test that decided; None when all passed. status: that test's `sandbox.Result.status`.
    """

    outcome: str
    test: int | None = None
    status: str = "ok"
    detail: str = ""


def extract(text: str) -> str | None:
    """The code between the last two lines that hold a fence, LiveCodeBench's rule (evaluation.md §1.1)."""
    lines = text.split("\n")
    fences = [i for i, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else None


def same_output(got: str, expected: str) -> bool:
    """LiveCodeBench's comparison of standard output: line by line, equal as text or as lists of decimals."""
    got_lines, expected_lines = ([x.strip() for x in text.strip().split("\n")] for text in (got, expected))
    if len(got_lines) != len(expected_lines):
        return False
    pairs = zip(got_lines, expected_lines, strict=True)
    return all(a == b or (_decimals(a) is not None and _decimals(a) == _decimals(b)) for a, b in pairs)


def _decimals(line: str) -> list[Decimal] | None:
    try:
        numbers = [Decimal(token) for token in line.split()]
    except InvalidOperation:
        return None
    return None if any(number.is_snan() for number in numbers) else numbers  # comparing one raises


def same_value(got: str, expected: str) -> bool:
    """Whether a returned value (JSON as of `tinyr1.sandbox.programs.plain`) equals an expected one (JSON of the data set)."""
    wanted = load_value(expected)
    try:
        return bool(load_value(got, _tagged) == wanted)
    except (ValueError, TypeError):  # TypeError: a dict with keys that cannot be keys, sent by hand
        return False


def load_value(text: str, hook: Callable[[dict], object] | None = None) -> object:
    """A value from JSON; ValueError if it is malformed, nested beyond MOST_DEPTH or has numbers beyond MOST_DIGITS."""
    if _depth(text) > MOST_DEPTH:
        raise ValueError(f"JSON nested more than {MOST_DEPTH} deep")
    return json.loads(text, object_hook=hook, parse_int=_whole)


def _depth(text: str) -> int:
    """Nesting of lists and dicts in JSON, strings left out."""
    if text.count("[") + text.count("{") <= MOST_DEPTH:
        return 0  # cannot be deeper than that
    depth = deepest = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        depth += (match[0] in "[{") - (match[0] in "]}")
        deepest = max(deepest, depth)
    return deepest


def _whole(digits: str) -> int:
    """A whole number of any length up to MOST_DIGITS, whatever limit the interpreter has for `int`."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; at most {MOST_DIGITS} are read")
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))


def _tagged(item: dict) -> object:
    """A dict of the program, or an object that equals nothing."""
    return dict(map(tuple, item["d"])) if set(item) == {"d"} else object()


def judge_program(runner: Runner, code: str, tests: list[dict], func_name: str) -> Verdict:
    """Verdict on a program; the first test that fails decides.

    tests: {"input", "output"} in LiveCodeBench's encoding; func_name: "" for programs that read standard input. A
    timeout or a kill counts only if it happens again while nothing else runs. Refused if programs cannot be isolated.
    """
    same = same_value if func_name else same_output
    if not tests:
        return Verdict("grader_error", detail="the question has no tests")
    for i, test in enumerate(tests if func_name else ()):
        try:
            load_value(test["output"])
        except ValueError as error:
            return Verdict("grader_error", i, detail=f"the expected output is not JSON: {error}")
    if runner.limits.semantics == "lcb-compat":
        return _judge_together(runner, code, tests, func_name, same)
    for i, test in enumerate(tests):
        size = _most_bytes([test])

        def once(alone: bool, test: dict = test, size: int = size) -> Result:
            return runner.run(code, test["input"], func_name, size, alone)

        try:
            result = _settled(once, lambda r: r)
        except SandboxError as error:
            return _grader_error(error, i)
        if result.status != "ok":
            return _failed(i, result)
        if not same(result.output, test["output"]):
            return Verdict("wrong", i)
    return Verdict("correct")


def _judge_together(runner: Runner, code: str, tests: list[dict], func_name: str, same: Callable) -> Verdict:
    """All tests in one process, stopped at the first that fails."""

    def once(alone: bool) -> list[Result]:
        def accept(i: int, output: str) -> bool:
            return same(output, tests[i]["output"])

        return runner.run_all(code, [t["input"] for t in tests], func_name, accept, _most_bytes(tests), alone)

    try:
        results = _settled(once, lambda found: found[-1])
    except SandboxError as error:
        return _grader_error(error, None)
    last, result = len(results) - 1, results[-1]
    if result.status != "ok":
        return _failed(last, result)
    if not same(result.output, tests[last]["output"]):
        return Verdict("wrong", last)
    return Verdict("correct")


def _settled(once: Callable[[bool], T], last: Callable[[T], Result]) -> T:
    """What `once(alone)` gives; again, alone, after a timeout, a kill from outside, or a failure of the sandbox."""
    try:
        found = once(False)
    except Refused:
        raise
    except SandboxError:
        return once(True)
    ended = last(found)
    return once(True) if ended.status == "timeout" or ended.error == KILLED else found


def _grader_error(error: SandboxError, test: int | None) -> Verdict:
    if isinstance(error, Refused):
        raise error
    return Verdict("grader_error", test, detail=str(error))


def _failed(test: int, result: Result) -> Verdict:
    outcome = "timeout" if result.status == "timeout" else "wrong"
    return Verdict(outcome, test, result.status, result.error)


def _most_bytes(tests: list[dict]) -> int:
    """How much a program may print or return; it cannot see the limit, which would give away the length expected."""
    return min(4 * sum(len(test["output"].encode(errors="surrogatepass")) for test in tests), MOST_OUTPUT_BYTES)
