"""The code domain of the miniature: solutions pass their tests, questions are many and short."""

import json
import subprocess
import sys
from random import Random

import pytest

from tinyr1.data.miniature.code_tasks import CODE_FAMILIES

DRIVER = """
import contextlib, io, json, sys
problems = json.load(sys.stdin)

def answer(code, method, text):
    if method:
        scope = {}
        exec(code, scope)
        return json.dumps(getattr(scope["Solution"](), method)(*map(json.loads, text.splitlines())))
    sys.stdin, out = io.StringIO(text), io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return out.getvalue()

print(json.dumps([[answer(code, method, text) for text in inputs] for code, method, inputs in problems]))
"""
LEVELS = (1, 2, 3)
every_family = pytest.mark.parametrize("family", list(CODE_FAMILIES))


def draws(family, count, seed=0):
    rng = Random(f"{family}{seed}")
    return [CODE_FAMILIES[family](rng, level) for level in LEVELS for _ in range(count)]


def program(task):
    assert task.response.startswith("```python\n")
    assert task.response.endswith("\n```")
    return task.response.removeprefix("```python\n").removesuffix("\n```")


@every_family
def test_the_solution_gives_exactly_the_expected_outputs(family):
    tasks = draws(family, 40)
    problems = [(program(task), task.func_name, [test.input for test in task.tests]) for task in tasks]
    child = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps(problems), capture_output=True, text=True, timeout=30
    )
    assert child.returncode == 0, child.stderr
    for task, outputs in zip(tasks, json.loads(child.stdout), strict=True):
        assert outputs == [test.output for test in task.tests], task.question


@every_family
def test_each_problem_has_eight_tests_with_at_least_three_distinct_outputs(family):
    for task in draws(family, 100):
        assert len(task.tests) == 8
        assert len({test.output for test in task.tests}) >= 3
        assert all(task.func_name or (test.input + test.output).endswith("\n") for test in task.tests)


@every_family
def test_a_task_names_its_domain_family_level_and_starter_code(family):
    for task, level in zip(draws(family, 1), LEVELS, strict=True):
        assert (task.domain, task.family, task.level) == ("code", family, level)
        head = f"class Solution:\n    def {task.func_name}(self, "
        assert task.starter_code.startswith(head) if task.func_name else task.starter_code == ""
        assert program(task).startswith(head) == bool(task.func_name)


def test_half_of_the_families_read_stdin_and_half_are_methods():
    kinds = [{bool(task.func_name) for task in draws(family, 5)} for family in CODE_FAMILIES]
    assert len(kinds) == 12
    assert kinds.count({True}) == kinds.count({False}) == 6


@every_family
def test_the_same_seed_gives_the_same_tasks(family):
    assert draws(family, 20) == draws(family, 20)
    assert draws(family, 20) != draws(family, 20, seed=1)


def test_there_are_more_than_ten_thousand_questions_and_all_texts_are_short():
    questions = set()
    for family in CODE_FAMILIES:
        for task in draws(family, 3000):
            questions.add(task.question)
            assert len(task.question) <= 330
            assert len(task.thinking) <= 160, task.thinking
            assert len(task.response) <= 420, task.response
            assert "[" not in task.question + task.thinking
            assert "{" not in task.question + task.thinking
    assert len(questions) > 10_000
