"""Runs the program of an answer on its tests, and compares its outputs with the expected ones.

The comparison is LiveCodeBench's own (`lcb-official`, docs/evaluation.md §1.2) under both semantics of the sandbox. It
happens here, in the process that holds the expected outputs, on plain values, so nothing that a program defines can
influence it.
"""

import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from tinyr1.sandbox.forkserver import Refused, Result, SandboxError
from tinyr1.sandbox.runner import MOST_OUTPUT_BYTES, Runner

COMPARATOR = "lcb-official"
KILLED = signal.SIGKILL.name  # the error of a program that the kernel, short of memory, or a person killed
MOST_DEPTH = 500  # of nested lists and dicts in a value
MOST_DIGITS = 50_000  # of a whole number; LiveCodeBench sets the same limit


@dataclass(frozen=True)
class Verdict:
    """The verdict on a program.

    outcome: correct, wrong, timeout, or grader_error where the sandbox or the question failed and not the program.
    test: index of the test that decided; None if all passed. status: the status of its
    `tinyr1.sandbox.forkserver.Result`. detail: the reason, as text.
    """

    outcome: str
    test: int | None = None
    status: str = "ok"
    detail: str = ""


def same_output(got: str, expected: str) -> bool:
    """LiveCodeBench's comparison of standard outputs: each line equal as text or as a list of decimals."""
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
    return None if any(number.is_snan() for number in numbers) else numbers  # Python raises when it compares one


def same_value(got: str, expected: str) -> bool:
    """Whether a returned value equals an expected one.

    got: JSON made by `tinyr1.sandbox.programs.plain`. expected: JSON of the dataset; ValueError if it is malformed.
    """
    wanted = load_value(expected)
    try:
        return bool(load_value(got, _tagged) == wanted)
    except (ValueError, TypeError):  # TypeError: the program sent a dict whose keys cannot be keys
        return False


def load_value(text: str, hook: Callable[[dict[str, Any]], object] | None = None) -> object:
    """A value from JSON. ValueError if it is malformed, nested deeper than MOST_DEPTH or has more than MOST_DIGITS.

    hook: makes an object of each dict, as in `json.loads`.
    """
    if _depth(text) > MOST_DEPTH:
        raise ValueError(f"JSON nested more than {MOST_DEPTH} deep")
    return json.loads(text, object_hook=hook, parse_int=_whole)


def _depth(text: str) -> int:
    """How deep lists and dicts are nested in JSON; brackets inside strings do not count."""
    if text.count("[") + text.count("{") <= MOST_DEPTH:
        return 0  # so few brackets cannot be nested deeper
    depth = deepest = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        depth += (match[0] in "[{") - (match[0] in "]}")
        deepest = max(deepest, depth)
    return deepest


def _whole(digits: str) -> int:
    """A whole number of up to MOST_DIGITS digits; Python's own `int` refuses more than 4,300 by default."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; at most {MOST_DIGITS} are read")
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))


def _tagged(item: dict[str, Any]) -> object:
    """The dict that `plain` took apart, or an object that equals nothing."""
    return dict(map(tuple, item["d"])) if set(item) == {"d"} else object()


def judge_program(runner: Runner, code: str, tests: list[dict[str, str]], func_name: str) -> Verdict:
    """The verdict on a program; the first test that it fails decides.

    tests: {"input", "output"} in LiveCodeBench's encoding. func_name: the function to call, "" for a program that reads
    standard input. A timeout or a kill counts only if it happens again while nothing else runs, since a busy machine
    may have caused it. Refused where programs cannot be isolated.
    """
    same = same_value if func_name else same_output
    if not tests:
        return Verdict("grader_error", detail="the question has no tests")
    for i, test in enumerate(tests if func_name else ()):
        try:
            load_value(test["output"])
        except ValueError as error:
            return Verdict("grader_error", i, detail=f"the expected output is not JSON: {error}")
    together = runner.limits.semantics == "lcb-compat"

    def execute(first: int, alone: bool) -> list[Result]:
        """Results from test `first` on: of all tests up to the first that fails, or of this one."""
        if not together:
            return [runner.run(code, tests[first]["input"], func_name, _most_bytes(tests[first : first + 1]), alone)]

        def accept(i: int, output: str) -> bool:
            return same(output, tests[i]["output"])

        return runner.run_all(code, [t["input"] for t in tests], func_name, accept, _most_bytes(tests), alone)

    for first in range(1 if together else len(tests)):
        try:
            results = _execute_again_in_doubt(partial(execute, first))
        except Refused:
            raise
        except SandboxError as error:
            return Verdict("grader_error", None if together else first, detail=str(error))
        i, result = first + len(results) - 1, results[-1]
        if result.status != "ok":
            return Verdict("timeout" if result.status == "timeout" else "wrong", i, result.status, result.error)
        if not same(result.output, tests[i]["output"]):
            return Verdict("wrong", i)
    return Verdict("correct")


def _execute_again_in_doubt(execute: Callable[[bool], list[Result]]) -> list[Result]:
    """execute(alone=False), and once more, alone, after a timeout, a kill from outside or a failure of the sandbox."""
    try:
        results = execute(False)
    except Refused:
        raise
    except SandboxError:
        return execute(True)
    doubtful = results[-1].status == "timeout" or results[-1].error == KILLED
    return execute(True) if doubtful else results


def _most_bytes(tests: list[dict[str, str]]) -> int:
    """How many bytes a program may print or return. It cannot see this limit, which would reveal the right length."""
    return min(4 * sum(len(test["output"].encode(errors="surrogatepass")) for test in tests), MOST_OUTPUT_BYTES)
