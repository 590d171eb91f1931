"""Where the program of an answer is found: LiveCodeBench's rule, else the last block that compiles."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_grade import SOUND, rules

from tinyr1.evaluate.grading import fences

GOOD, BETTER = "print(int(input()) + 1)", "n = int(input())\nprint(n + 1)"


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
    assert fences.fenced_code(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"```python\n{GOOD}\n```", GOOD), (f"```\n{GOOD}\n```\nbetter:\n```python\n{BETTER}\n```", BETTER),
        # the last fence is never closed
        (f"```python\n{GOOD}", GOOD), (f"First:\n```python\n{GOOD}\n```\nBetter:\n```python\n{BETTER}", BETTER),
        (f"First:\n```python\n{GOOD}\n```\nBetter:\n```python\n{BETTER[:-1]}", GOOD),
        # an example of the output behind the program
        (f"```python\n{GOOD}\n```\nIt prints:\n```\n2\n```\nComplexity: O(1)", GOOD),
        (f"```python\n{GOOD}\n```\nIt prints:\n```text\nYES 2 of 3\n```", GOOD),
        (f"```python\n{GOOD}\n```\nRun it:\n```bash\npython3 a.py < in\n```", GOOD),
        # indented, as in a list
        (f"1. So:\n   ```python\n   {GOOD}\n   ```\n", GOOD), ("- ```python\n  x\n  ```", "  x"),
        ("  ```python\n  n = int(input())\n  print(n + 1)\n  ```\nas asked", BETTER),
        # a fence in a text of the program itself
        (f"```python\n\'\'\'\n```\nin\n```\n\'\'\'\n{GOOD}\n```", f"\'\'\'\n```\nin\n```\n\'\'\'\n{GOOD}"),
        # another opening fence where the first is not closed
        (f"```python\ndef f(:\n```python\n{GOOD}\n```\n```\n1\n```", GOOD),
        # no program at all: what LiveCodeBench takes
        ("```\n5\n```", "5"), ("```python\nprint(\n```", "print("), ("```python\n```", ""), ("print(1)", None),
        ("```python\nprint(", None), ("", None),
    ],
)  # fmt: skip
def test_the_last_block_that_compiles_is_taken_where_the_official_rule_has_no_program(text, expected):
    assert fences.program(text) == expected


NAMED, CALL = "class Solution:\n    def twice(self, n):\n        return 2 * n", "print(Solution().twice(3))"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"```python\n{NAMED}\n```\nAn example:\n```python\n{CALL}\n```", NAMED),
        (f"```python\n{NAMED}\n```\n```python\n{NAMED}\n\n{CALL}\n```", f"{NAMED}\n\n{CALL}"),
        (f"```python\n{NAMED}\n```\n```python\ndef main():\n    {CALL}\n```", NAMED),
        ("```python\ntwice = lambda n: 2 * n\n```\n```python\nprint(twice(3))\n```", "twice = lambda n: 2 * n"),
        # no block defines it: as where no name is wanted
        (f"```python\n{GOOD}\n```\n```\n5\n```", GOOD), (f"```python\n{CALL}\n```", CALL), ("none", None),
    ],
)  # fmt: skip
def test_a_block_that_only_calls_what_is_wanted_is_no_program(text, expected):
    assert fences.program(text, "twice") == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print(1)", True), ("def f(): pass", True), ("class A: pass", True), ("async def f(): pass", True),
        ("5", False), ("x", False), ("'YES'", False), ("1, 2", False), ("", False), ("# nothing", False),
        ("print 1", False), ("return f(1)", False), ("f(1)\n  g()", False), ("print('\\d')", True),
        ("print(1)\0", False),
        ("O(n)", False), ("f(x)", False), ("Point(1, 2)", False), ("range(0, 3)", False), ("main()", False),
        ("sys.stdout.write('1')", True), ("for x in f(): pass", True), ("x = f()", True),
        ("f('\ud800')", False), ("await f()", False),
    ],
)  # fmt: skip
def test_a_program_compiles_and_does_something(code, expected):
    assert fences.is_program(code) is expected


@pytest.mark.parametrize(
    "code",
    ["(" * 10**5, "[" * 199 + "]" * 199 + "(f())", "-" * 10**5 + "1", "f()" + "+1" * 40_000, "f" + "()" * 40_000,
     "f" + ".a" * 40_000, "f(9**9**9**9)", "f('a' * 10**12)",
     "if 1:\n" * 1000, "x = f(" * 20_000, "lambda: " * 10_000 + "f()",
     "not " * 20_000 + "f()", "@f\n" * 20_000 + "def g(): pass"],
    ids=lambda code: code[:8],
)  # fmt: skip
def test_a_hostile_source_is_judged_in_time_and_in_a_thread(code):
    started = time.process_time()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fences.is_program, code).result()
    assert time.process_time() - started < 5


def test_blocks_without_end_cost_little():
    started = time.process_time()
    assert fences.program("```python\nprint(\n" * 20_000) is not None
    assert time.process_time() - started < 3


def test_both_rules_are_named_in_the_protocols():
    assert SOUND["program"].extraction == "last_fence_or_program"
    assert rules("sound", "livecodebench").extraction == "last_fence_or_program"
    assert rules("released", "livecodebench").extraction == "last_fence"
