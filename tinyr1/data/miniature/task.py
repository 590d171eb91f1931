"""One task of the miniature: a question, its worked solution, and the answer or the tests that grade an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Test:
    """One input and the output of a right program, in LiveCodeBench's encoding (docs/evaluation.md §1.1).

    In a stdin problem `input` is fed to standard input and `output` is compared with standard output. In a functional
    problem `input` holds one JSON argument a line and `output` the JSON value that the method returns.
    """

    input: str
    output: str


@dataclass(frozen=True)
class Task:
    """One question of the miniature with its worked solution.

    domain: "math", "science" or "code"; family: the name of the function that drew it; level: 1 (easy) to 3 (hard).
    thinking: the reasoning, without think tags; response: the text after the closing think tag.
    answer: an integer in decimal for math, a letter from A to D or an integer for science, empty for code, where the
    tests decide.
    subject: "physics", "chemistry" or "biology" for science, empty for the others.
    func_name: for code, the method of class Solution of a functional problem; empty for a stdin problem.
    """

    domain: str
    family: str
    level: int
    question: str
    thinking: str
    response: str
    answer: str = ""
    subject: str = ""
    starter_code: str = ""
    func_name: str = ""
    tests: tuple[Test, ...] = ()


Family = Callable[[Random, int], Task]  # (rng, level from 1 to 3) -> Task; it draws from rng only


def boxed_answer(answer: object) -> str:
    """The sentence that closes a worked solution whose answer is a number or a letter."""
    return f"The answer is \\boxed{{{answer}}}."
