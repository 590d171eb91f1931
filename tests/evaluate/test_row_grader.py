"""Answers to training rows are judged by what the row brings, and by nothing where it brings none."""

import pytest

from tinyr1.evaluate.grading import rows


@pytest.fixture(scope="module")
def grade():
    with rows.grader() as function:
        yield function


def answered(final):
    return f"why</think>so {final}"


@pytest.mark.parametrize(
    ("gold", "final", "right"),
    [
        ("204", r"\boxed{204}", True),
        ("1,204", r"\boxed{1204}", True),
        ("204", r"\boxed{205}", False),
        ("204", "204", False),  # outside a box, a number may be anything
        ("B", r"\boxed{B}", True),
        ("(B)", "Answer: C", False),
        (r"\frac{1}{2}", r"\boxed{0.5}", True),
        ("$x^2+1$", r"\boxed{1+x^2}", True),
        ("x^2+1", r"\boxed{x^2}", False),
        ("x^2+1", "I do not know.", False),
        ("", r"\boxed{204}", None),
        ("First we note that the sum of the digits is a multiple of nine, and therefore so is the number itself.",
         r"\boxed{9}", None),
    ],
)  # fmt: skip
def test_an_answer_is_right_wrong_or_cannot_be_compared(grade, gold, final, right):
    assert grade({"question": "q", "answer": gold}, answered(final)) is right


def test_a_text_that_never_ends_its_reasoning_is_wrong(grade):
    assert grade({"question": "q", "answer": "5"}, r"I think \boxed{5}") is False
