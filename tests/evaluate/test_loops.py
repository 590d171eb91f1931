"""Answers that loop, and answers that only look so."""

import random

import pytest

from tinyr1.evaluate.loops import LONGEST, loops

STEP = "3 + 4 = 7, and "
PARAGRAPH = "Wait, let me check this again. The train leaves at 9 and needs two hours, so it arrives at 11.\n\n"
LOOPING = {
    "words": "So the sum is 12. " + "Wait, let me check. " * 4,
    "cut off in the middle of a copy": "So the sum is 12. " + "Wait, let me check. " * 4 + "Wait, let",
    "code": "def f(x):\n" + "    if x > 3:\n        return x\n" * 4,
    "one letter": "the answer is " + "0" * 40,
    "blank lines": "I do not know." + "\n" * 40,
    "a short step": STEP * 4,
    "a paragraph": "First.\n" + PARAGRAPH * 4,
    "nothing else": "ab" * 20,
    "after an answer": "\\boxed{4}" + " The answer is 4." * 5,
}
SOUND = {
    "nothing": "",
    "a short answer": "\\boxed{11111111}",
    "an ordinary answer": "There are 3 + 4 = 7 apples. So the answer is \\boxed{7}.",
    "a table with equal rows, and an answer": "| 0 | 0 |\n" * 8 + "So all entries are 0: \\boxed{0}",
    "a table with different rows": "".join(f"| {i} | 7 | 7 |\n" for i in range(30)),
    "code with equal lines": "```python\n" + "    total += 1\n" * 9 + "    return total\n```",
    "a line of dashes": "The result\n" + "-" * 39,
    "three copies of a paragraph": PARAGRAPH * 3,
    "counting": " ".join(f"Step {i}: add one." for i in range(60)),
    "a loop that the answer left": "Wait, let me check. " * 12 + "Yes. \\boxed{3}",
    "almost four copies": STEP * 4 + "and",
}


@pytest.mark.parametrize("name", LOOPING)
def test_an_answer_with_a_repeated_tail_loops(name):
    assert loops(LOOPING[name])


@pytest.mark.parametrize("name", SOUND)
def test_other_answers_do_not(name):
    assert not loops(SOUND[name])


def test_a_unit_has_a_longest_length():
    rng = random.Random(0)
    unit = "".join(rng.choices("abcdefgh ", k=LONGEST))
    assert loops("start" + unit * 4)
    assert not loops("start" + (unit + "x") * 4)
    assert not loops("start" + (unit * 4)[1:]), "the first of four copies is not whole"


def test_the_result_is_that_of_the_definition():
    """Texts of few letters, compared with a search for the unit."""
    rng = random.Random(1)

    def slowly(text):
        for unit in range(1, len(text) + 1):
            length = max(4 * unit, 40)
            tail = text[-length:]
            if len(tail) == length and all(tail[i] == tail[i % unit] for i in range(length)):
                return True
        return False

    found = 0
    for _ in range(3000):
        unit = "".join(rng.choices("ab", k=rng.randint(1, 14)))
        text = "".join(rng.choices("ab", k=rng.randint(0, 9))) + (unit * 40)[: rng.randint(20, 62)]
        assert loops(text) == slowly(text), text
        found += loops(text)
    assert 500 < found < 2500
