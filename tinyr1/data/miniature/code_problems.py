"""How a code problem becomes a task: its steps as words and as a program, its tests from trusted functions.

    a family --draws--> CodeProblem (intro, steps, inputs) --family--> Task (question, thinking, program, tests)

Expected outputs come from the functions beside the code, never from the code: a slip in either shows in the tests.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from random import Random
from textwrap import indent
from typing import Any

from tinyr1.data.miniature.code_tables import CHANGE, DRAWN_LETTERS, KEEP, REDUCE, Table
from tinyr1.data.miniature.task import Family, Task, Test

SIZES = (4, 5, 1, 2, 3, 6, 7, 8)  # of the inputs, one test each
JOINS = ((", ", ", then "), (". Then ", ". Finally, "), ("; ", "; finally, "))
TYPES = {"nums": "List[int]", "k": "int", "s": "str", "grid": "List[List[int]]"}


@dataclass(frozen=True)
class CodeStep:
    """One operation: the words for it, the code that does it, and the trusted function."""

    words: str
    code: str
    apply: Callable[..., Any] = lambda value: value


@dataclass(frozen=True)
class CodeProblem:
    """One drawn problem, before its wording is chosen and its inputs are drawn."""

    intro: str
    steps: list[CodeStep]
    draw: Callable[[Random, int], tuple]  # (rng, size) -> the arguments, or the lines of the input
    setup: str = ""  # code before the steps
    methods: str = ""  # names to choose the method from; "": the program reads standard input
    args: str = "nums"  # names of its arguments
    solve: Callable[..., Any] | None = None  # arguments -> expected output; None: apply the steps to the last argument


def pick(rng: Random, table: Table, low: int = 2, high: int = 9) -> CodeStep:
    """A row of the table, with a constant drawn from low to high."""
    words, code, function = rng.choice(table)
    k = rng.randint(low, high)
    fill = {"k": k, "c": DRAWN_LETTERS[k % len(DRAWN_LETTERS)]}
    return CodeStep(words.format(**fill), code.format(**fill), partial(function, k))


def pick_two(rng: Random, table: Table) -> list[CodeStep]:
    """Two different rows of the table."""
    return [pick(rng, [row]) for row in rng.sample(table, 2)]


def phrase(text: str, choose: Callable[[list[str]], str]) -> str:
    """The text with every [a|b] resolved by `choose`."""
    return re.sub(r"\[([^]]*)\]", lambda match: choose(match[1].split("|")), text)


def in_words(steps: list[CodeStep], choose: Callable[[list[str]], str], join: tuple[str, str]) -> str:
    """The steps as one or more sentences."""
    *first, last = [phrase(step.words, choose) for step in steps]
    text = join[0].join(first) + join[1] + last if first else last
    return text[0].upper() + text[1:] + "."


def as_line(value: Any) -> str:
    """A value as one line of text; a list is separated by spaces."""
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) + "\n"


def apply_all(steps: list[CodeStep], value: Any) -> Any:
    """The value after all steps."""
    for step in steps:
        value = step.apply(value)
    return value


def family(build: Callable[[Random, int], CodeProblem]) -> Family:
    """The family of a builder. A problem whose tests have fewer than three different outputs is drawn again."""

    @wraps(build)
    def draw_task(rng: Random, level: int) -> Task:
        outputs: list[Any] = []
        while len(set(map(str, outputs))) < 3:
            problem = build(rng, level)
            steps, args = problem.steps, problem.args.split()
            inputs = [problem.draw(rng, size) for size in SIZES]
            outputs = [problem.solve(*v) if problem.solve else apply_all(steps, v[-1]) for v in inputs]
        code = "\n".join(filter(None, [problem.setup, *(step.code for step in steps)]))
        method = starter = ""
        if problem.methods:
            method = rng.choice(problem.methods.split())
            typed = ", ".join(f"{arg}: {TYPES[arg]}" for arg in args)
            returned = "int" if isinstance(outputs[0], int) else "List[int]"
            starter = f"class Solution:\n    def {method}(self, {typed}) -> {returned}:\n        "
            code = f"class Solution:\n    def {method}(self, {', '.join(args)}):\n" + indent(code, " " * 8)
        texts = ["\n".join(map(json.dumps, v)) if method else "".join(map(as_line, v)) for v in inputs]
        return Task(
            domain="code",
            family=build.__name__,
            level=level,
            question=f"{phrase(problem.intro, rng.choice)} {in_words(steps, rng.choice, rng.choice(JOINS))}",
            thinking=in_words(steps, lambda options: options[0], JOINS[0]),
            response=f"```python\n{code}\n```",
            starter_code=starter,
            func_name=method,
            tests=tuple(map(Test, texts, map(json.dumps if method else as_line, outputs))),
        )

    return draw_task


def map_over(words: str, name: str, var: str, source: str, step: CodeStep) -> CodeStep:
    """`name = [code for var in source]`."""
    code = f"{name} = [{step.code} for {var} in {source}]"
    return CodeStep(words, code, lambda values: [step.apply(x) for x in values])


def filter_by(words: str, name: str, var: str, step: CodeStep) -> CodeStep:
    """`name = [var for var in name if code]`."""
    code = f"{name} = [{var} for {var} in {name} if {step.code}]"
    return CodeStep(words, code, lambda values: [x for x in values if step.apply(x)])


def filter_step(rng: Random) -> CodeStep:
    """A filter of nums."""
    test = pick(rng, KEEP)
    return filter_by(f"[keep|select|take] the numbers that are {test.words}", "nums", "x", test)


def map_step(rng: Random) -> CodeStep:
    """A map over nums."""
    step = pick(rng, CHANGE, 3)
    return map_over(step.words, "nums", "x", "nums", step)


def print_step(step: CodeStep) -> CodeStep:
    """The step as a print, for the end of a stdin program."""
    return CodeStep(f"[print|output] {step.words}", f"print({step.code})", step.apply)


def return_step(step: CodeStep) -> CodeStep:
    """The step as a return, for the end of a method."""
    return CodeStep(f"return {step.words}", f"return {step.code}", step.apply)


def reduce_step(rng: Random, filtered: bool = False) -> CodeStep:
    """A reduction of nums to one number."""
    return pick(rng, REDUCE if filtered else REDUCE[:-1], 3)


def integers(rng: Random, size: int) -> tuple:
    """One argument: a list of `size` integers."""
    return (rng.choices(range(-9, 21), k=size),)


def string(letters: str | list[str], rng: Random, size: int) -> tuple:
    """One argument: a string of `size` + 1 letters."""
    return ("".join(rng.choices(letters, k=size + 1)),)
