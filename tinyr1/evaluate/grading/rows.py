"""Judges answers to training rows, where a row brings an answer to compare with: the grader of the teacher's traces.

    row: question, answer --\
    text of a model ------> split_reasoning --> option | integer | Math-Verify --> right, wrong, or nothing to compare
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tinyr1.core.prompts import split_reasoning
from tinyr1.data.answers import integer, kind_of_answer
from tinyr1.evaluate.grading import extract, options
from tinyr1.evaluate.grading.symbolic import TAIL, Verifier

LONGEST = 80  # characters of an answer that is an expression; a longer one is a worked solution
Grade = Callable[[Mapping, str], bool | None]


@contextmanager
def grader() -> Iterator[Grade]:
    """A function (row, whole text of an answer) -> right, wrong, or None: the row has nothing to compare with, or
    Math-Verify came to no verdict. Integers and options are read by the strict rules of evaluation."""
    with Verifier() as verifier:

        def grade(row: Mapping, text: str) -> bool | None:
            gold, kind = row["answer"].strip(), kind_of_answer(row["answer"])
            if kind == "none" or (kind == "text" and len(gold) > LONGEST):
                return None
            final = split_reasoning(text)[1]
            if final is None:
                return False
            if kind == "option":
                return options.option(final) == gold.strip("()")
            if kind == "integer" and (number := integer(gold)) is not None:
                return extract.boxed_integer(final) == number
            verdict = verifier.compare(gold.strip("$"), final[-TAIL:]).status
            return {"equal": True, "different": False, "nothing": False}.get(verdict)

        yield grade
