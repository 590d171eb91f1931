import json

import pytest

from tinyr1.core.params.evaluation import Sandbox
from tinyr1.evaluate.grading import programs
from tinyr1.evaluate.grading.programs import judge_program
from tinyr1.sandbox.forkserver import Refused, Result, SandboxError
from tinyr1.sandbox.runner import Runner

LIMITS = Sandbox(cpu_seconds=1, memory_mb=512, semantics="real", isolation="landlock")


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("5", "5", True), (" 5 \n6\n\n", "5\n6", True), ("", "", True), ("", "5", False),
        ("1.0", "1", True), ("1e0", "1", True), ("1_0", "10", True), ("1   2", "1 2", True),
        ("-0", "0", True),
        ("0.30000000000000004", "0.3", False), ("1.000001", "1", False),
        ("1 2", "12", False), ("2 1", "1 2", False),
        ("a b", "a b", True), ("a  b", "a b", False), ("Yes", "YES", False), ("1 a", "1.0 a", False),
        ("1\n\n2", "1\n2", False), ("1\n2", "1 2", False), ("1\n2\n3", "1\n2", False),
        ("nan", "nan", True), ("nan", "NaN", False), ("inf", "Infinity", True),
        ("snan", "1", False), ("1 snan", "1.0 snan", False), ("snan", "snan", True),
    ],
)  # fmt: skip
def test_standard_output_is_compared_by_lines_as_livecodebench_does(got, expected, same):
    assert programs.same_output(got, expected) is same


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ("[1,2]", "[1, 2]", True), ("2.0", "2", True), ('"a"', '"a"', True), ("null", "null", True),
        ("[[1, 2]]", "[1, 2]", False), ("[2, 1]", "[1, 2]", False), ('"2"', "2", False),
        ("0.30000000000000004", "0.3", False), ("", "1", False),
        ("not json", "1", False), ("[" * 100_000, "1", False),
    ],
    ids=lambda v: str(v)[:12],
)  # fmt: skip
def test_return_values_are_compared_as_json(got, expected, same):
    assert programs.same_value(got, expected) is same


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ('{"d": [["a", {"d": []}]]}', '{"a": {}}', True), ('{"d": [[1, 2]]}', '{"1": 2}', False),
        ('{"o": "tuple"}', '{"o": "tuple"}', False), ('{"d": [["d", 1]]}', '{"d": 1}', True),
        ("NaN", "NaN", False), ("Infinity", "Infinity", True), ("true", "1", True), ("9" * 5000, "9" * 5000, True),
        ("9" * 50001, "1", False), ('"\\ud800"', '"\\ud800"', True), ('{"d": 1}', "1", False),
        ('{"d": [[[], 1]]}', "1", False),
        ("[" * 501 + "]" * 501, "1", False), ("[" * 400 + "]" * 400, "[" * 400 + "]" * 400, True),
        (json.dumps(["[" * 999]), json.dumps(["[" * 999]), True), ('["' + "[" * 999 + "\\", "1", False),
    ],
    ids=lambda v: str(v)[:14],
)  # fmt: skip
def test_values_of_python_are_told_from_those_of_json(got, expected, same):
    assert programs.same_value(got, expected) is same


@pytest.fixture(scope="module")
def runner():
    with Runner(LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def official():
    """The semantics of LiveCodeBench's runner, with an alarm of one second."""
    with Runner(LIMITS.model_copy(update={"semantics": "lcb-compat"})) as running:
        yield running


STDIN = ([{"input": "1\n", "output": "2"}, {"input": "5\n", "output": "6\n"}], "")
CALL = ([{"input": "[1]\n2", "output": "[1, 2]"}, {"input": "[]\n3", "output": "[3]"}], "f")
BOTH = [
    ("print(int(input()) + 1)", STDIN, ("correct", None)),
    ("print(2)", STDIN, ("wrong", 1)),
    ("raise ValueError", STDIN, ("wrong", 0)),
    ("def", STDIN, ("wrong", 0)),
    ("while True: pass", STDIN, ("timeout", 0)),
    ("import time\ntime.sleep(600)", STDIN, ("timeout", 0)),
    ("x = int(input())\nwhile x == 5: pass\nprint(x + 1)", STDIN, ("timeout", 1)),
    ("import sys\nprint(int(input()) + 1)\nsys.exit(1)", STDIN, ("correct", None)),
    ("import os\nos._exit(0)", STDIN, ("wrong", 0)),
    ("print('x' * 10 ** 6)", STDIN, ("wrong", 0)),
    ("x = bytearray(1 << 30)", STDIN, ("wrong", 0)),
    ("class Solution:\n    def f(self, a, b):\n        return a + [b]", CALL, ("correct", None)),
    ("def f(a, b):\n    return (*a, b)", CALL, ("correct", None)),
    ("def f(a, b):\n    return a", CALL, ("wrong", 0)),
    ("def f(a, b):\n    return [1, 2]", CALL, ("wrong", 1)),
    ("def g(a, b):\n    return a + [b]", CALL, ("wrong", 0)),
    ("def f(a, b):\n    while True: pass", CALL, ("timeout", 0)),
    ("def f(a, b):\n    exit()", CALL, ("wrong", 0)),
    ("class Same(list):\n    __eq__ = lambda *_: True\ndef f(a, b):\n    return Same()", CALL, ("wrong", 0)),
]


@pytest.mark.parametrize("semantics", ["runner", "official"])
@pytest.mark.parametrize(("code", "question", "expected"), BOTH)
def test_a_program_is_judged_by_its_tests(request, semantics, code, question, expected):
    verdict = judge_program(request.getfixturevalue(semantics), code, *question)
    assert (verdict.outcome, verdict.test) == expected


READ = [{"input": "1\n2\n", "output": "1 2"}]
TWICE = [{"input": "1", "output": "1"}, {"input": "1", "output": "1"}]


@pytest.mark.parametrize(
    ("code", "tests", "func_name"),
    [
        ("import sys\nprint(*[line.strip() for line in sys.stdin])", READ, ""),
        ("import sys\nsys.stdout.buffer.write(b'1 2')", READ, ""),
        ("import sys\nr = sys.stdin.buffer.readline\nprint(int(r()), int(r()))", READ, ""),
        ("print(*open(0).read().split())", READ, ""),
        ("import os\nprint(*os.read(0, 9).decode().split())", READ, ""),
        ("n = 0\ndef f():\n    global n\n    n += 1\nf()\nprint(n, 2)", READ, ""),
        ("from __future__ import annotations\nprint(1, 2)", READ, ""),
        ("def main(): print(1, 2)\nif '__main__' == __name__: main()", READ, ""),
        ("from sys import stdin\nx = []\nwhile line := stdin.readline(): x.append(line.strip())\n"
         "while line := stdin.readline(): pass\nprint(*x)", READ, ""),
        ("from sys import stdout\nstdout.write('1 2')", READ, ""),
        ("import resource\nprint(1, 2)", READ, ""),
        ("import threading\nt = threading.Timer(.05, lambda: print(1, 2))\nt.start()", READ, ""),
        ("class Solution: pass\nprint(1, 2)", READ, ""),
        ("class Solution:\n    n = 0\n    def f(self, a):\n        self.n += 1\n        return self.n", TWICE, "f"),
        ("def f(a):\n    return a", [{"input": "1\n", "output": "1"}], "f"),
    ],
)  # fmt: skip
def test_programs_that_are_right_only_outside_the_official_runner(runner, official, code, tests, func_name):
    """Its known quirks (docs/evaluation.md §1.2)."""
    assert judge_program(runner, code, tests, func_name).outcome == "correct"
    assert judge_program(official, code, tests, func_name).outcome == "wrong"


@pytest.mark.parametrize(
    "code",
    [
        "print(int(input()), int(input()))",
        "import sys\nprint(*sys.stdin.read().split())",
        "import sys\nprint(*sys.stdin.buffer.read().decode().split())",
        "import sys\nread = sys.stdin.readline\nprint(int(read()), int(read()))",
        "from sys import stdin\nprint(int(stdin.readline()), int(stdin.readline()))",
        "import sys\nprint(*[x.strip() for x in sys.stdin.readlines()])",
        "def main():\n    print(int(input()), int(input()))\nif __name__ == '__main__':\n    main()",
        "def solve():\n    return input(), input()\nprint(*solve())\nexit()",
        "import sys\nx = []\nwhile True:\n    try: x.append(input())\n    except EOFError: break\nprint(*x)",
    ],
)
def test_programs_that_are_right_in_both_semantics(runner, official, code):
    assert judge_program(runner, code, READ, "").outcome == "correct"
    assert judge_program(official, code, READ, "").outcome == "correct"


def test_a_program_may_swallow_the_official_alarm_but_not_the_limit_of_all_tests(official):
    code = "import time\nend = time.monotonic() + 1.3\nwhile time.monotonic() < end:\n    try:\n        while time.monotonic() < end: pass\n    except Exception: pass\nprint(2)"  # noqa: E501
    assert judge_program(official, code, [{"input": "", "output": "2"}], "").outcome == "correct"
    code = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    assert judge_program(official, code, [{"input": "", "output": "2"}], "").outcome == "timeout"


def test_the_official_runner_stops_at_the_first_wrong_test(official):
    code = "x = input()\nwhile x == '2': pass\nprint(1)"
    tests = [{"input": "1", "output": "9"}, {"input": "2", "output": "1"}]
    verdict = judge_program(official, code, tests, "")
    assert (verdict.outcome, verdict.test) == ("wrong", 0)


class Scripted:
    """A runner whose results are given, to see what is asked of it."""

    limits = LIMITS

    def __init__(self, *results):
        self.results, self.alone = list(results), []

    def run(self, code, text, func_name, output_bytes, alone):
        self.alone.append(alone)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_a_timeout_counts_only_if_it_happens_again_alone():
    tests = [{"input": "", "output": "1"}]
    slow = Scripted(Result("timeout"), Result("ok", "1"))
    assert judge_program(slow, "", tests, "").outcome == "correct"
    assert slow.alone == [False, True]
    assert judge_program(Scripted(Result("timeout"), Result("timeout")), "", tests, "").outcome == "timeout"


def test_a_sandbox_that_fails_is_a_grader_error_and_never_a_wrong_answer():
    tests = [{"input": "", "output": "1"}]
    assert judge_program(Scripted(SandboxError("x"), Result("ok", "1")), "", tests, "").outcome == "correct"
    verdict = judge_program(Scripted(SandboxError("x"), SandboxError("gone")), "", tests, "")
    assert (verdict.outcome, verdict.detail) == ("grader_error", "gone")


def test_programs_that_cannot_be_isolated_end_the_grading():
    with pytest.raises(Refused):
        judge_program(Scripted(Refused("x")), "", [{"input": "", "output": "1"}], "")


def test_a_question_that_cannot_be_judged_is_a_grader_error(runner):
    assert judge_program(runner, "print(1)", [], "").outcome == "grader_error"
    verdict = judge_program(runner, "def f(a): return a", [{"input": "1", "output": "not json"}], "f")
    assert (verdict.outcome, verdict.test) == ("grader_error", 0)


def test_a_program_cannot_learn_the_length_of_the_expected_output(runner):
    limit = 4 * len("right") + (1 << 16)
    print_many = "print('x' * {})"
    tests = [{"input": "", "output": "right"}]
    assert judge_program(runner, print_many.format(limit - 1), tests, "").status == "ok"
    assert judge_program(runner, print_many.format(limit), tests, "").status == "output_limit"
