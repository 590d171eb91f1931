"""The shape of one verifiable task: a question, a worked solution, and what it takes to grade an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Test:
    """One input and the output a right program gives for it, in LiveCodeBench's encoding.

    stdin problems: `input` is fed to standard input, `output` is compared with standard output.
    functional problems: `input` holds one JSON argument a line, `output` the JSON return value.
    """

    input: str
    output: str


@dataclass(frozen=True)
class Task:
    """One question of the miniature with its worked solution.

    domain: "math", "science" or "code"; family: the template it comes from; level: 1 (easy) to 3 (hard).
    thinking: the reasoning, without think tags; response: what follows the closing think tag.
    answer: math: an integer in decimal; science: a letter A-D; code: empty, the tests decide.
    subject: science only: "physics", "chemistry" or "biology".
    func_name: code only: the method of class Solution for a functional problem, "" for a stdin problem.
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


Family = Callable[[Random, int], Task]  # (rng, level 1-3) -> Task; draws only from rng
