import math
import re
from random import Random

import pytest

from tinyr1.data.miniature.math_tasks import MATH_FAMILIES

LEVELS = (1, 2, 3)
SIGNS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__truediv__}
SIZES = {"minutes": 60, "hours": 60, "days": 24, "weeks": 7, "years": 12}
CASES = [(f, n) for f in MATH_FAMILIES for n in LEVELS]
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
every_family_and_level = pytest.mark.parametrize(("name", "level"), CASES)


def draw(name, level, count, seed=0):
    rng = Random(seed)
    return [MATH_FAMILIES[name](rng, level) for _ in range(count)]


def solve(name, level, question, v):
    """The answer worked out from the numbers `v` of the question, in another way than the module's."""
    hard = level == 3
    return {
        "shop": lambda: v[0] * v[1] + v[2] - (v[3] if hard else 0),
        "travel": lambda: v[0] * v[1] + v[2] * (v[3] if hard else v[0]),
        "ages": lambda: v[0] + v[1] + v[2] if level == 1 else v[0] * v[1] - (v[2] if hard else 0) + v[-1],
        "remainder": lambda: (math.prod(v[:2 if level > 1 else 1]) + (v[2] if hard else 0)) % v[-1],
        "rectangle": lambda: 2 * (v[0] + v[1]) if "perimeter" in question
        else v[0] * v[1] - (v[2] * v[3] if hard else 0),
        "sequence": lambda: v[0] + (v[1] - v[0] if hard else v[1]) * (v[-1] - (level > 1)),
        "sharing": lambda: (math.prod(v[:-2]) - v[-2]) / v[-1],
        "percent": lambda: v[0] * (100 - v[1] if hard else v[1]) / 100,
        "gcd": lambda: math.gcd(*v),
        "duration": lambda: v[0] * SIZES[re.search(r"(\w+) and", question)[1]] + v[1] - (v[2] if hard else 0),
        "equation": lambda: (v[3] - v[1]) / (v[0] - v[2]) if hard else (v[2] - v[1]) / v[0],
        "average": lambda: sum(v) / len(v),
    }[name]()


@every_family_and_level
def test_every_line_of_the_thinking_is_true_arithmetic(name, level):
    for task in draw(name, level, 400):
        for line in task.thinking.split("\n"):
            step = STEP.fullmatch(line)
            assert step, line
            a, sign, b, c = step.groups()
            assert SIGNS[sign](int(a), int(b)) == int(c), line


@every_family_and_level
def test_the_last_number_computed_is_the_answer_boxed_in_the_response(name, level):
    for task in draw(name, level, 400):
        assert (task.domain, task.family, task.level) == ("math", name, level)
        assert task.answer == task.thinking.split()[-1]
        assert task.answer == str(int(task.answer))
        assert 0 <= int(task.answer) <= 999
        assert task.response == f"The answer is \\boxed{{{task.answer}}}."


@every_family_and_level
def test_the_answer_follows_from_the_numbers_in_the_question(name, level):
    for task in draw(name, level, 400):
        numbers = [int(n) for n in re.findall(r"\d+", task.question)]
        assert solve(name, level, task.question, numbers) == int(task.answer), task.question


@every_family_and_level
def test_questions_and_thinking_stay_short(name, level):
    for task in draw(name, level, 400):
        assert len(task.question) <= 220
        assert len(task.thinking) <= 220


def test_the_same_seed_draws_the_same_tasks_and_another_seed_does_not():
    for name in MATH_FAMILIES:
        assert draw(name, 2, 50, seed=7) == draw(name, 2, 50, seed=7)
        assert draw(name, 2, 50, seed=7) != draw(name, 2, 50, seed=8)


def test_the_families_give_many_distinct_questions():
    assert len(MATH_FAMILIES) >= 8
    distinct = {(f, n): {task.question for task in draw(f, n, 3000)} for f, n in CASES}
    assert min(map(len, distinct.values())) >= 300
    assert len(set().union(*distinct.values())) > 20_000
