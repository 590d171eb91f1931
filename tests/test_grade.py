import pytest

from tinyr1 import grade
from tinyr1.config import Sandbox
from tinyr1.sandbox import Runner


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed {7}", "7"),
        ("\\fbox{8}", "8"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{}", ""),
        ("\\boxed{5", None),
        ("\\boxed{5} and \\boxed{6", "5"),
        ("\\boxed5", None),
        ("boxed{5}", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_read(text, expected):
    assert grade.boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("204", 204), ("025", 25), ("000", 0), (" 204 ", 204), ("204.", 204), ("-3", -3),
        ("$204$", 204), ("\\$12", 12), ("\\text{204}", 204), ("\\mathbf{7}", 7), ("x = 5", 5), ("x_1=3", 3),
        ("5^\\circ", 5), ("5^{\\circ}", 5), ("x = 1{,}204^\\circ.", 1204),
        ("1,204", 1204), ("1{,}204", 1204), ("1\\,204", 1204), ("1,234,567", 1234567),
        ("204.01", None), ("204.0", None), ("1.204", None), ("20400\\%", None), ("20400%", None),
        ("5 or 6", None), ("5, 6", None), ("1,2", None), ("12,34", None), ("1,2345", None), ("\\{5\\}", None),
        ("m+n=204", None), ("\\frac{408}{2}", None), ("200+4", None), ("5!", None), ("--5", None),
        ("12 dollars", None), ("two", None), ("", None), ("9" * 10, None), ("0x10", None), ("1e3", None),
    ],
)  # fmt: skip
def test_an_integer_is_read_in_the_ways_it_is_written_and_nothing_else_is(text, expected):
    assert grade.integer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{A}", "A"), ("\\boxed{(C)}", "C"), ("\\boxed{D.}", "D"), ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\text{ (B) }}", "B"), ("Not \\boxed{A}, but \\boxed{B}", "B"),
        ("Answer: A. Then \\boxed{B}", "B"),
        ("Answer: C", "C"), ("The answer is A.", "A"), ("ANSWER: (B)", "B"), ("**Answer:** B", "B"),
        ("Answer: A. No, wait. Answer: D", "D"), ("Answer: A) heat", "A"),
        ("The answer is a cat", None), ("Answer: a", None), ("\\boxed{a}", None),
        ("The answer is vitamin D", None), ("Answer: vitamin D", None), ("The answer is D-glucose", None),
        ("The answer is A's child", None), ("The answer is BBC", None), ("Answer: E", None),
        ("\\boxed{E}", None), ("\\boxed{A or B}", None), ("\\boxed{AB}", None), ("\\boxed{}", None),
        ("\\boxed{vitamin D}", None), ("A", None), ("I choose C", None), ("", None),
    ],
)  # fmt: skip
def test_an_option_is_read_where_it_is_given_as_the_answer(text, expected):
    assert grade.option(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("So:\n```\na\n```\nbetter:\n```python\nb\nc\n```\nDone.", "b\nc"),
        ("text ```py\nx\n  ``` text", "x"),
        ("```python\n```", ""),
        ("```python\nx = 1", None),
        ("x = 1", None),
        ("", None),
    ],
)
def test_a_program_is_what_stands_between_the_last_two_fences(text, expected):
    assert grade.program(text) == expected


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
    assert grade.same_output(got, expected) is same


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
    assert grade.same_value(got, expected) is same


INTEGER = {"kind": "integer", "answer": "25"}
OPTION = {"kind": "option", "answer": "B"}


@pytest.mark.parametrize(
    ("text", "finish", "question", "expected"),
    [
        ("why</think>\\boxed{25}", "stop", INTEGER, ("correct", "25")),
        ("why</think>\\boxed{025}", "stop", INTEGER, ("correct", "25")),
        ("why</think>\\boxed{26}", "stop", INTEGER, ("wrong", "26")),
        ("why</think>\\boxed{25.01}", "stop", INTEGER, ("no_answer", None)),
        ("why</think>It is 25.", "stop", INTEGER, ("no_answer", None)),
        ("why</think>", "stop", INTEGER, ("no_answer", None)),
        ("so \\boxed{25}", "stop", INTEGER, ("no_answer", None)),
        ("so \\boxed{25}</think>It is done.", "stop", INTEGER, ("no_answer", None)),
        ("so \\boxed{26}</think>\\boxed{25}", "stop", INTEGER, ("correct", "25")),
        ("a</think>\\boxed{26}</think>\\boxed{25}", "stop", INTEGER, ("correct", "25")),
        ("why</think>\\boxed{25}", "length", INTEGER, ("truncated", None)),
        ("why, why, why", "length", INTEGER, ("truncated", None)),
        ("why</think>\\boxed{B}", "stop", OPTION, ("correct", "B")),
        ("why</think>Answer: C", "stop", OPTION, ("wrong", "C")),
        ("why</think>Vitamin B", "stop", OPTION, ("no_answer", None)),
        ("why</think>no code", "stop", {"kind": "program"}, ("no_answer", None)),
    ],
)
def test_every_response_has_exactly_one_outcome(text, finish, question, expected):
    found = grade.outcome({"text": text, "finish": finish}, question, None)
    assert found == expected
    assert found[0] in grade.OUTCOMES


@pytest.fixture(scope="module")
def runner():
    with Runner(Sandbox(cpu_seconds=1, memory_mb=512)) as running:
        yield running


TESTS = [{"input": "1\n", "output": "2"}, {"input": "5\n", "output": "6\n"}]
STDIN = {"kind": "program", "func_name": "", "tests": TESTS}
CALL = {"kind": "program", "func_name": "f", "tests": [{"input": "[1]\n2", "output": "[1, 2]"}]}


@pytest.mark.parametrize(
    ("code", "question", "expected"),
    [
        ("print(int(input()) + 1)", STDIN, "correct"),
        ("print(2)", STDIN, "wrong"),
        ("raise ValueError", STDIN, "wrong"),
        ("def", STDIN, "wrong"),
        ("while True: pass", STDIN, "timeout"),
        ("import os, sys\nprint(int(input()) + 1)\nsys.exit(1)", STDIN, "correct"),
        ("import os\nos._exit(0)", STDIN, "wrong"),
        ("class Solution:\n    def f(self, a, b):\n        return a + [b]", CALL, "correct"),
        ("def f(a, b):\n    return (*a, b)", CALL, "correct"),
        ("def f(a, b):\n    return a", CALL, "wrong"),
        ("def g(a, b):\n    return a + [b]", CALL, "wrong"),
        ("class Same(list):\n    __eq__ = lambda *_: True\ndef f(a, b):\n    return Same()", CALL, "wrong"),
    ],
)  # fmt: skip
def test_a_program_is_judged_by_its_tests(runner, code, question, expected):
    response = {"text": f"why</think>Here:\n```python\n{code}\n```", "finish": "stop"}
    assert grade.outcome(response, question, runner) == (expected, code)
