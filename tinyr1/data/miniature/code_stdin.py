"""Code problems whose program reads standard input and prints."""

from functools import partial
from random import Random
from typing import Any

from tinyr1.data.miniature import code_tables as tables
from tinyr1.data.miniature.code_problems import (
    CodeProblem,
    CodeStep,
    family,
    filter_by,
    filter_step,
    integers,
    map_over,
    map_step,
    pick,
    pick_two,
    print_step,
    reduce_step,
    string,
)
from tinyr1.data.miniature.task import Family

WORDS = ["red", "stone", "apple", "moon", "is", "letter", "tree", "at", "orange", "salt", "river"]
READ_NUMS = "nums = list(map(int, input().split()))"
READ_N = "n = int(input())"
ONE_LINE = "[The input is one line of integers.|You get one line of integers.|Read integers from one line.]"
ONE_N = "[The input is a number n.|You get one integer n.|Read an integer n.]"


@family
def list_pipeline(rng: Random, level: int) -> CodeProblem:
    """Filter, change and reduce a list."""
    kinds = {1: [map_step], 2: [rng.choice([filter_step, map_step])], 3: rng.sample([filter_step, map_step], 2)}[level]
    results = CodeStep("the results separated by spaces", "*nums")
    end = results if level == 1 else reduce_step(rng, kinds[-1] is filter_step)
    steps = [*(kind(rng) for kind in kinds), print_step(end)]
    if rng.random() < 0.5:
        return CodeProblem(ONE_LINE, steps, integers, READ_NUMS)
    intro = "The first line has n, the second [has n integers|n integers|contains n integers]."
    return CodeProblem(intro, steps, lambda rng, n: (n, *integers(rng, n)), f"{READ_N}\n{READ_NUMS}")


@family
def sentence(rng: Random, level: int) -> CodeProblem:
    """Select, change and reorder the words of a line."""
    step, order, join = pick(rng, tables.WORD_MAP, 2, 4), pick(rng, tables.WORD_ORDER), pick(rng, tables.SEPARATORS)
    mapped = map_over(step.words, "words", "w", "words", step)
    steps = rng.sample([mapped, CodeStep(order.words, f"words = {order.code}", order.apply)], min(level, 2))
    if level == 3:
        test = pick(rng, tables.WORD_KEEP, 2, 5)
        steps.insert(0, filter_by(f"[keep|select] the words {test.words}", "words", "w", test))
    steps.append(print_step(CodeStep(f"the words [separated|joined] by {join.words}", join.code, join.apply)))
    intro = "[The input is one line of words.|You get one line of words.|Read a line of words.]"
    return CodeProblem(intro, steps, lambda rng, n: (rng.choices(WORDS, k=n),), "words = input().split()")


@family
def running_total(rng: Random, level: int) -> CodeProblem:
    """A total updated by the numbers that pass a test, until a stop condition."""
    start, test, update = rng.randint(0, 9), pick(rng, tables.KEEP), pick(rng, tables.UPDATES)
    stop, said = pick(rng, tables.STOPS, 3, 15), "that is " + test.words.replace("multiples", "a multiple")
    steps = [
        CodeStep(f"[start total at|start with a total of] {start}", f"total = {start}\nfor x in nums:"),
        CodeStep(f"for [each|every] x {said}, {update.words}", f"    if {test.code}:\n        {update.code}"),
        CodeStep(f"after each x stop if the total is {stop.words}", f"    if {stop.code}:\n        break"),
        CodeStep("[print|output] the [total|final total]", "print(total)"),
    ]
    if level == 1:
        steps[1:] = [
            CodeStep(
                f"for [each|every] x {update.words} and [print|output] the total",
                f"    {update.code}\n    print(total)",
            ),
        ]
    if level == 2:
        del steps[2]

    def solve(nums: list[int]) -> Any:
        totals = [start]
        for x in nums:
            totals.append(update.apply(totals[-1], x) if level == 1 or test.apply(x) else totals[-1])
            if level == 3 and stop.apply(totals[-1]):
                break
        return "\n".join(map(str, totals[1:])) if level == 1 else totals[-1]

    return CodeProblem(ONE_LINE, steps, integers, READ_NUMS, solve=solve)


@family
def shape(rng: Random, level: int) -> CodeProblem:
    """N lines of one or two repeated characters."""
    a, b = rng.sample("#*+@=%&$", 2)
    one, two = pick(rng, tables.LENGTHS[:1] if level == 1 else tables.LENGTHS[1:]), pick(rng, tables.LENGTHS)
    words, code = f"line i (i from 1 to n) has {one.words} characters {a}", f'"{a}" * {one.code}'
    if level == 1:
        words = f"every line has {one.words} characters {a}"
    if level == 3:
        words, code = f"{words} followed by {two.words} characters {b}", f'{code} + "{b}" * {two.code}'

    def solve(n: int) -> str:
        rows = range(1, n + 1)
        return "\n".join(a * one.apply(n, i) + b * (two.apply(n, i) if level == 3 else 0) for i in rows)

    steps = [CodeStep(f"[print|output] n lines, {words}", f"for i in range(1, n + 1):\n    print({code})")]
    return CodeProblem(ONE_N, steps, lambda rng, size: (size,), READ_N, solve=solve)


@family
def labelled_range(rng: Random, level: int) -> CodeProblem:
    """FizzBuzz with other conditions, labels and ranges."""
    start, gap, tests = rng.randint(0, 4), rng.randint(1, 4), pick_two(rng, tables.KEEP[:-2])[: level - 1]
    rules = list(zip(tests, rng.sample(["fizz", "buzz", "ping", "pong", "tick", "tock"], 2), strict=False))
    by, step = (f" in steps of {gap}", f", {gap}") if gap > 1 else ("", "")
    said = [f"{label} if x is {test.words.replace('multiples', 'a multiple')}" for test, label in rules]
    code = "    el".join(f'if {test.code}:\n        print("{label}")\n' for test, label in rules)
    code = f"    {code}    else:\n        print(x)" if rules else "    print(x)"
    words = f"for [each|every] x from {start} to n{by} [print|output] " + ", otherwise ".join([*said, "x"])
    steps = [CodeStep(words, f"for x in range({start}, n + 1{step}):\n{code}")]

    def solve(n: int) -> str:
        numbers = range(start, n + 1, gap)
        return "\n".join(next((label for test, label in rules if test.apply(x)), str(x)) for x in numbers)

    return CodeProblem(ONE_N, steps, lambda rng, size: (8 + size + rng.randint(0, 3),), READ_N, solve=solve)


@family
def instructions(rng: Random, level: int) -> CodeProblem:
    """A string of letters, each of which changes x."""
    start, clamp, letters = rng.randint(0, 9), pick(rng, tables.CLAMPS, 5, 15), rng.sample("ABCDLRUX", 2)
    actions = dict(zip(letters, pick_two(rng, tables.ACTIONS)[:level], strict=False))
    tests = [f'if c == "{letters[0]}":', "else:"]
    steps = [
        CodeStep(f"[start with x at|x starts at] {start}", f"x = {start}\nfor c in s:"),
        *(CodeStep(f"[each|every] {letter} {action.words}", f"    {test}\n        {action.code}")
          for (letter, action), test in zip(actions.items(), tests, strict=False)),
        CodeStep(f"after [every|each] letter {clamp.words}", f"    {clamp.code}"),
        CodeStep("[print|output] x", "print(x)"),
    ]
    if level < 3:
        del steps[-2]

    def solve(s: str) -> int:
        x = start
        for c in s:
            x = actions[c].apply(x) if c in actions else x
            x = clamp.apply(x) if level == 3 else x
        return x

    intro = f"[The input is|You get|Read] a string of the letters {letters[0]} and {letters[1]}."
    draw = partial(string, letters)
    return CodeProblem(intro, steps, draw, "s = input()", solve=solve)


STDIN_FAMILIES: dict[str, Family] = {
    build.__name__: build
    for build in (list_pipeline, sentence, running_total, shape, labelled_range, instructions)
}
