"""Small Python problems in LiveCodeBench form, composed from tables of operations.

A table row is (words, code, trusted callable). In words and code {k} is a constant drawn per problem
and {c} the letter LETTERS[k]; the callable takes k first. In words "[a|b]" offers wordings: the question
takes any of them, the thinking the first. Expected outputs come from the callables, never from the code.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from random import Random
from textwrap import indent
from typing import Any

from tinyr1.data.miniature.task import Family, Task, Test

FAMILIES: dict[str, Family] = {}
SIZES = (4, 5, 1, 2, 3, 6, 7, 8)  # one test each
LETTERS = "aeiostrnlm"
WORDS = ["red", "stone", "apple", "moon", "is", "letter", "tree", "at", "orange", "salt", "river"]
JOINS = ((", ", ", then "), (". Then ", ". Finally, "), ("; ", "; finally, "))
CHARACTERS = "aeiosrtnAEIRST0123789"
TYPES = {"nums": "List[int]", "k": "int", "s": "str", "grid": "List[List[int]]"}
READ_NUMS = "nums = list(map(int, input().split()))"
READ_N = "n = int(input())"
ONE_LINE = "[The input is one line of integers.|You get one line of integers.|Read integers from one line.]"
ONE_N = "[The input is a number n.|You get one integer n.|Read an integer n.]"
NUMS = "[Given a list nums of integers:|nums is a list of integers.|You get an integer list nums.]"

KEEP = [  # conditions on a number x; the last two are for lists that may hold negative numbers
    ("even", "x % 2 == 0", lambda k, x: x % 2 == 0),
    ("odd", "x % 2 == 1", lambda k, x: x % 2 == 1),
    ("[greater than|above|over] {k}", "x > {k}", lambda k, x: x > k),
    ("[less than|below|under] {k}", "x < {k}", lambda k, x: x < k),
    ("[at least {k}|{k} or more]", "x >= {k}", lambda k, x: x >= k),
    ("[at most {k}|{k} or less]", "x <= {k}", lambda k, x: x <= k),
    ("[divisible by|multiples of] {k}", "x % {k} == 0", lambda k, x: x % k == 0),
    ("not [divisible by|multiples of] {k}", "x % {k} != 0", lambda k, x: x % k != 0),
    ("[positive|greater than zero]", "x > 0", lambda k, x: x > 0),
    ("[negative|less than zero]", "x < 0", lambda k, x: x < 0),
]
CHANGE = [
    ("[add {k} to each|increase each by {k}]", "x + {k}", lambda k, x: x + k),
    ("[subtract {k} from each|decrease each by {k}]", "x - {k}", lambda k, x: x - k),
    ("subtract each from {k}", "{k} - x", lambda k, x: k - x),
    ("multiply each by {k}", "x * {k}", lambda k, x: x * k),
    ("[square each|replace each by its square]", "x * x", lambda k, x: x * x),
    ("take [each modulo {k}|the remainder of each divided by {k}]", "x % {k}", lambda k, x: x % k),
    ("take the absolute value of each", "abs(x)", lambda k, x: abs(x)),
]
REDUCE = [  # the last one only says something new after a filter
    ("the [sum|total]", "sum(nums)", lambda k, v: sum(v)),
    ("the [largest|maximum] value (0 if none)", "max(nums, default=0)", lambda k, v: max(v, default=0)),
    ("the [smallest|minimum] value (0 if none)", "min(nums, default=0)", lambda k, v: min(v, default=0)),
    ("the sum [modulo|reduced modulo] {k}", "sum(nums) % {k}", lambda k, v: sum(v) % k),
    ("the number of [distinct|different] values", "len(set(nums))", lambda k, v: len(set(v))),
    ("{k} times the [sum|total]", "sum(nums) * {k}", lambda k, v: sum(v) * k),
    ("how many numbers [remain|are left]", "len(nums)", lambda k, v: len(v)),
]
WORD_MAP = [
    ("[reverse each word|write each word backwards]", "w[::-1]", lambda k, w: w[::-1]),
    ("[put each word in upper case|make each word upper case]", "w.upper()", lambda k, w: w.upper()),
    ("capitalize each word", "w.capitalize()", lambda k, w: w.capitalize()),
    ("replace each word by its length", "str(len(w))", lambda k, w: str(len(w))),
    ("[repeat each word {k} times|write each word {k} times in a row]", "w * {k}", lambda k, w: w * k),
    ("[keep|take] the first {k} letters of each word", "w[:{k}]", lambda k, w: w[:k]),
    ("replace {c} by x in each word", 'w.replace("{c}", "x")', lambda k, w: w.replace(LETTERS[k], "x")),
]
WORD_ORDER = [
    ("reverse the order of the words", "words[::-1]", lambda k, v: v[::-1]),
    ("sort the words [alphabetically|in alphabetical order]", "sorted(words)", lambda k, v: sorted(v)),
    ("stably sort the words by length", "sorted(words, key=len)", lambda k, v: sorted(v, key=len)),
    ("move the first word to the end", "words[1:] + words[:1]", lambda k, v: v[1:] + v[:1]),
]
WORD_KEEP = [
    ("[longer than|with more than] {k} letters", "len(w) > {k}", lambda k, w: len(w) > k),
    ("[shorter than|with fewer than] {k} letters", "len(w) < {k}", lambda k, w: len(w) < k),
    ("that contain {c}", '"{c}" in w', lambda k, w: LETTERS[k] in w),
    ("without the letter {c}", '"{c}" not in w', lambda k, w: LETTERS[k] not in w),
]
SEPARATORS = [
    ("spaces", '" ".join(words)', lambda k, v: " ".join(v)),
    ("[dashes|hyphens]", '"-".join(words)', lambda k, v: "-".join(v)),
    ("commas", '",".join(words)', lambda k, v: ",".join(v)),
    ("[stars|asterisks]", '"*".join(words)', lambda k, v: "*".join(v)),
]
UPDATES = [
    ("add x to the total", "total += x", lambda k, t, x: t + x),
    ("subtract x from the total", "total -= x", lambda k, t, x: t - x),
    ("add {k} * x to the total", "total += {k} * x", lambda k, t, x: t + k * x),
    ("add {k} to the total", "total += {k}", lambda k, t, x: t + k),
    ("add [x squared|the square of x] to the total", "total += x * x", lambda k, t, x: t + x * x),
]
STOPS = [
    ("[over|greater than] {k}", "total > {k}", lambda k, t: t > k),
    ("[below|less than] -{k}", "total < -{k}", lambda k, t: t < -k),
    ("divisible by {k}", "total % {k} == 0", lambda k, t: t % k == 0),
]
LENGTHS = [  # characters in line i of n; only the first does not depend on i
    ("{k}", "{k}", lambda k, n, i: k),
    ("i", "i", lambda k, n, i: i),
    ("[i plus {k}|{k} more than i]", "(i + {k})", lambda k, n, i: i + k),
    ("{k} times i", "({k} * i)", lambda k, n, i: k * i),
    ("n + 1 - i", "(n + 1 - i)", lambda k, n, i: n + 1 - i),
    ("n plus i", "(n + i)", lambda k, n, i: n + i),
]
ACTIONS = [
    ("[adds {k} to x|increases x by {k}]", "x += {k}", lambda k, x: x + k),
    ("[subtracts {k} from x|decreases x by {k}]", "x -= {k}", lambda k, x: x - k),
    ("doubles x", "x *= 2", lambda k, x: x * 2),
    ("[flips the sign of x|negates x]", "x = -x", lambda k, x: -x),
    ("[sets x to|resets x to] {k}", "x = {k}", lambda k, x: k),
]
CLAMPS = [
    ("[lower x to {k} if it is larger|cap x at {k}]", "x = min(x, {k})", lambda k, x: min(x, k)),
    ("[raise x to {k} if it is smaller|keep x at least {k}]", "x = max(x, {k})", lambda k, x: max(x, k)),
    ("[reduce x modulo {k}|replace x by x modulo {k}]", "x = x % {k}", lambda k, x: x % k),
]
CHARS = [
    ("vowels", 'c in "aeiou"', lambda k, c: c in "aeiou"),
    ("digits", "c.isdigit()", lambda k, c: c.isdigit()),
    ("[upper-case|capital] letters", "c.isupper()", lambda k, c: c.isupper()),
    ("[lower-case|small] letters", "c.islower()", lambda k, c: c.islower()),
    ("characters equal to {c}", 'c == "{c}"', lambda k, c: c == LETTERS[k]),
    ("characters other than {c}", 'c != "{c}"', lambda k, c: c != LETTERS[k]),
]
CUTS = [
    ("keep only the first {k} characters", "s = s[:{k}]", lambda k, s: s[:k]),
    ("keep only the last {k} characters", "s = s[-{k}:]", lambda k, s: s[-k:]),
    ("[drop|remove] the first {k} characters", "s = s[{k}:]", lambda k, s: s[k:]),
    ("[drop|remove] the last {k} characters", "s = s[:-{k}]", lambda k, s: s[:-k]),
]
COMBINE = [
    ("a plus {k} times b", "a + {k} * b", lambda k, a, b: a + k * b),
    ("{k} times a minus b", "{k} * a - b", lambda k, a, b: k * a - b),
    ("the product of a and b", "a * b", lambda k, a, b: a * b),
    ("the larger of a and b", "max(a, b)", lambda k, a, b: max(a, b)),
    ("[abs(a - b)|the absolute difference of a and b]", "abs(a - b)", lambda k, a, b: abs(a - b)),
]
KEYS = [
    ("value", "x", lambda k, x: x),
    ("absolute value", "abs(x)", lambda k, x: abs(x)),
    ("distance from {k}", "abs(x - {k})", lambda k, x: abs(x - k)),
    ("remainder modulo {k}", "x % {k}", lambda k, x: x % k),
]
PAIR_KEEP = [
    ("a is [less|smaller] than b", "a < b", lambda k, p: p[0] < p[1]),
    ("a is [greater|larger] than b", "a > b", lambda k, p: p[0] > p[1]),
    ("a and b differ by more than {k}", "abs(a - b) > {k}", lambda k, p: abs(p[0] - p[1]) > k),
    ("a and b differ by less than {k}", "abs(a - b) < {k}", lambda k, p: abs(p[0] - p[1]) < k),
    ("a + b is even", "(a + b) % 2 == 0", lambda k, p: sum(p) % 2 == 0),
    ("a + b is greater than {k}", "a + b > {k}", lambda k, p: sum(p) > k),
]
PAIR_VALUE = [
    ("a + b", "a + b", lambda k, p: p[0] + p[1]),
    ("a times b", "a * b", lambda k, p: p[0] * p[1]),
    ("a plus {k} times b", "a + {k} * b", lambda k, p: p[0] + k * p[1]),
    ("[abs(a - b)|the absolute difference]", "abs(a - b)", lambda k, p: abs(p[0] - p[1])),
    ("the larger of a and b", "max(a, b)", lambda k, p: max(p)),
    ("the smaller of a and b", "min(a, b)", lambda k, p: min(p)),
]
LINES = [
    ("row", "grid", lambda k, grid: grid),
    ("column", "zip(*grid)", lambda k, grid: list(zip(*grid, strict=True))),
]
LINE_VALUE = [
    ("the [sum|total]", "sum(r)", lambda k, r: sum(r)),
    ("the [largest|maximum] value", "max(r)", lambda k, r: max(r)),
    ("the [smallest|minimum] value", "min(r)", lambda k, r: min(r)),
    ("the [first|leading] value", "r[0]", lambda k, r: r[0]),
    ("the last value", "r[-1]", lambda k, r: r[-1]),
    ("{k} times the sum", "{k} * sum(r)", lambda k, r: k * sum(r)),
    ("the largest minus the smallest value", "max(r) - min(r)", lambda k, r: max(r) - min(r)),
]
OFTEN = [
    ("[exactly {k} times|{k} times]", "count[x] == {k}", lambda k, n: n == k),
    ("[at least {k} times|{k} or more times]", "count[x] >= {k}", lambda k, n: n >= k),
    ("[fewer|less] than {k} times", "count[x] < {k}", lambda k, n: n < k),
    ("[only once|exactly once]", "count[x] == 1", lambda k, n: n == 1),
]
COMMON = [  # the sort key decides which number wins: (count, number) with either sign
    ("most common number (the smallest if tied)", "(-count[x], x)", lambda k, n, x: (-n, x)),
    ("most common number (the largest if tied)", "(-count[x], -x)", lambda k, n, x: (-n, -x)),
    ("least common number (the smallest if tied)", "(count[x], x)", lambda k, n, x: (n, x)),
    ("least common number (the largest if tied)", "(count[x], -x)", lambda k, n, x: (n, -x)),
]
DIGITS = [
    ("the sum of its digits", "sum(map(int, str(x)))", lambda k, x: sum(map(int, str(x)))),
    ("its digits reversed", "int(str(x)[::-1])", lambda k, x: int(str(x)[::-1])),
    ("[its number of digits|how many digits it has]", "len(str(x))", lambda k, x: len(str(x))),
    ("its first digit", "int(str(x)[0])", lambda k, x: int(str(x)[0])),
    ("its last digit", "x % 10", lambda k, x: x % 10),
    ("its largest digit", "int(max(str(x)))", lambda k, x: int(max(str(x)))),
    ("{k} times its last digit", "x % 10 * {k}", lambda k, x: x % 10 * k),
]


@dataclass(frozen=True)
class Step:
    """One operation: how it is said, the code that does it, the trusted callable."""

    words: str
    code: str
    run: Callable[..., Any] = lambda value: value


@dataclass(frozen=True)
class Problem:
    """What a family draws; no `methods`: a stdin problem; no `solve`: run the steps on the last argument."""

    intro: str
    steps: list[Step]
    draw: Callable[[Random, int], tuple]  # (rng, size) -> the arguments, or the lines of the input
    setup: str = ""
    methods: str = ""
    args: str = "nums"
    solve: Callable[..., Any] | None = None


def pick(rng: Random, table: list, low: int = 2, high: int = 9) -> Step:
    """A row of the table with its constant drawn from low..high."""
    words, code, run = rng.choice(table)
    k = rng.randint(low, high)
    fill = {"k": k, "c": LETTERS[k % len(LETTERS)]}
    return Step(words.format(**fill), code.format(**fill), partial(run, k))


def pick_two(rng: Random, table: list) -> list[Step]:
    """Two different rows of the table."""
    return [pick(rng, [row]) for row in rng.sample(table, 2)]


def phrase(text: str, choose: Callable[[list[str]], str]) -> str:
    """The text with every [a|b] resolved by `choose`."""
    return re.sub(r"\[([^]]*)\]", lambda match: choose(match[1].split("|")), text)


def told(steps: list[Step], choose: Callable[[list[str]], str], join: tuple[str, str]) -> str:
    """The steps as one or more sentences."""
    *first, last = [phrase(step.words, choose) for step in steps]
    text = join[0].join(first) + join[1] + last if first else last
    return text[0].upper() + text[1:] + "."


def line(value: Any) -> str:
    """A value as one line of text; a list is separated by spaces."""
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) + "\n"


def chain(steps: list[Step], value: Any) -> Any:
    """The value after all steps."""
    for step in steps:
        value = step.run(value)
    return value


def family(build: Callable[[Random, int], Problem]) -> Family:
    """Register a builder; a problem with fewer than 3 distinct outputs is drawn again."""

    @wraps(build)
    def draw_task(rng: Random, level: int) -> Task:
        outputs: list = []
        while len(set(map(str, outputs))) < 3:
            problem = build(rng, level)
            steps, args = problem.steps, problem.args.split()
            inputs = [problem.draw(rng, size) for size in SIZES]
            outputs = [problem.solve(*v) if problem.solve else chain(steps, v[-1]) for v in inputs]
        code = "\n".join(filter(None, [problem.setup, *(step.code for step in steps)]))
        method = starter = ""
        if problem.methods:
            method = rng.choice(problem.methods.split())
            typed = ", ".join(f"{arg}: {TYPES[arg]}" for arg in args)
            returned = "int" if isinstance(outputs[0], int) else "List[int]"
            starter = f"class Solution:\n    def {method}(self, {typed}) -> {returned}:\n        "
            code = f"class Solution:\n    def {method}(self, {', '.join(args)}):\n" + indent(code, " " * 8)
        texts = ["\n".join(map(json.dumps, v)) if method else "".join(map(line, v)) for v in inputs]
        return Task(
            domain="code",
            family=build.__name__,
            level=level,
            question=f"{phrase(problem.intro, rng.choice)} {told(steps, rng.choice, rng.choice(JOINS))}",
            thinking=told(steps, lambda options: options[0], JOINS[0]),
            response=f"```python\n{code}\n```",
            starter_code=starter,
            func_name=method,
            tests=tuple(map(Test, texts, map(json.dumps if method else line, outputs))),
        )

    FAMILIES[build.__name__] = draw_task
    return draw_task


def each(words: str, name: str, var: str, source: str, step: Step) -> Step:
    """`name = [code for var in source]`."""
    code = f"{name} = [{step.code} for {var} in {source}]"
    return Step(words, code, lambda values: [step.run(x) for x in values])


def only(words: str, name: str, var: str, step: Step) -> Step:
    """`name = [var for var in name if code]`."""
    code = f"{name} = [{var} for {var} in {name} if {step.code}]"
    return Step(words, code, lambda values: [x for x in values if step.run(x)])


def keep(rng: Random) -> Step:
    """A filter of nums."""
    test = pick(rng, KEEP)
    return only(f"[keep|select|take] the numbers that are {test.words}", "nums", "x", test)


def change(rng: Random) -> Step:
    """A map over nums."""
    step = pick(rng, CHANGE, 3)
    return each(step.words, "nums", "x", "nums", step)


def shown(step: Step) -> Step:
    """The step as a print, for the end of a stdin program."""
    return Step(f"[print|output] {step.words}", f"print({step.code})", step.run)


def returned(step: Step) -> Step:
    """The step as a return, for the end of a method."""
    return Step(f"return {step.words}", f"return {step.code}", step.run)


def reduced(rng: Random, filtered: bool = False) -> Step:
    """A reduction of nums to one number."""
    return pick(rng, REDUCE if filtered else REDUCE[:-1], 3)


def integers(rng: Random, size: int) -> tuple:
    """One argument: a list of `size` integers."""
    return (rng.choices(range(-9, 21), k=size),)


def string(letters: str | list[str], rng: Random, size: int) -> tuple:
    """One argument: a string of `size` + 1 letters."""
    return ("".join(rng.choices(letters, k=size + 1)),)


def repetitive(rng: Random, size: int) -> tuple:
    """One argument: a list of `size` integers with few distinct values."""
    return (rng.choices(rng.sample(range(-5, 16), 2 + size // 3), k=size),)


def naturals(rng: Random, size: int) -> tuple:
    """One argument: a list of `size` numbers of one to three digits."""
    return ([rng.randrange(10 ** rng.randint(1, 3)) for _ in range(size)],)


@family
def list_pipeline(rng: Random, level: int) -> Problem:
    """stdin: filter, change and reduce a list."""
    kinds = {1: [change], 2: [rng.choice([keep, change])], 3: rng.sample([keep, change], 2)}[level]
    end = Step("the results separated by spaces", "*nums") if level == 1 else reduced(rng, kinds[-1] is keep)
    steps = [*(kind(rng) for kind in kinds), shown(end)]
    if rng.random() < 0.5:
        return Problem(ONE_LINE, steps, integers, READ_NUMS)
    intro = "The first line has n, the second [has n integers|n integers|contains n integers]."
    return Problem(intro, steps, lambda rng, n: (n, *integers(rng, n)), f"{READ_N}\n{READ_NUMS}")


@family
def sentence(rng: Random, level: int) -> Problem:
    """stdin: select, change and reorder the words of a line."""
    step, order, join = pick(rng, WORD_MAP, 2, 4), pick(rng, WORD_ORDER), pick(rng, SEPARATORS)
    mapped = each(step.words, "words", "w", "words", step)
    steps = rng.sample([mapped, Step(order.words, f"words = {order.code}", order.run)], min(level, 2))
    if level == 3:
        test = pick(rng, WORD_KEEP, 2, 5)
        steps.insert(0, only(f"[keep|select] the words {test.words}", "words", "w", test))
    steps.append(shown(Step(f"the words [separated|joined] by {join.words}", join.code, join.run)))
    intro = "[The input is one line of words.|You get one line of words.|Read a line of words.]"
    return Problem(intro, steps, lambda rng, n: (rng.choices(WORDS, k=n),), "words = input().split()")


@family
def running_total(rng: Random, level: int) -> Problem:
    """stdin: a total updated by the numbers that pass a test, until a stop condition."""
    start, test, update = rng.randint(0, 9), pick(rng, KEEP), pick(rng, UPDATES)
    stop, said = pick(rng, STOPS, 3, 15), "that is " + test.words.replace("multiples", "a multiple")
    steps = [
        Step(f"[start total at|start with a total of] {start}", f"total = {start}\nfor x in nums:"),
        Step(f"for [each|every] x {said}, {update.words}", f"    if {test.code}:\n        {update.code}"),
        Step(f"after each x stop if the total is {stop.words}", f"    if {stop.code}:\n        break"),
        Step("[print|output] the [total|final total]", "print(total)"),
    ]
    if level == 1:
        steps[1:] = [
            Step(
                f"for [each|every] x {update.words} and [print|output] the total",
                f"    {update.code}\n    print(total)",
            ),
        ]
    if level == 2:
        del steps[2]

    def solve(nums: list[int]) -> Any:
        totals = [start]
        for x in nums:
            totals.append(update.run(totals[-1], x) if level == 1 or test.run(x) else totals[-1])
            if level == 3 and stop.run(totals[-1]):
                break
        return "\n".join(map(str, totals[1:])) if level == 1 else totals[-1]

    return Problem(ONE_LINE, steps, integers, READ_NUMS, solve=solve)


@family
def shape(rng: Random, level: int) -> Problem:
    """stdin: n lines of one or two repeated characters."""
    a, b = rng.sample("#*+@=%&$", 2)
    one, two = pick(rng, LENGTHS[:1] if level == 1 else LENGTHS[1:]), pick(rng, LENGTHS)
    words, code = f"line i (i from 1 to n) has {one.words} characters {a}", f'"{a}" * {one.code}'
    if level == 1:
        words = f"every line has {one.words} characters {a}"
    if level == 3:
        words, code = f"{words} followed by {two.words} characters {b}", f'{code} + "{b}" * {two.code}'

    def solve(n: int) -> str:
        rows = range(1, n + 1)
        return "\n".join(a * one.run(n, i) + b * (two.run(n, i) if level == 3 else 0) for i in rows)

    steps = [Step(f"[print|output] n lines, {words}", f"for i in range(1, n + 1):\n    print({code})")]
    return Problem(ONE_N, steps, lambda rng, size: (size,), READ_N, solve=solve)


@family
def labelled_range(rng: Random, level: int) -> Problem:
    """stdin: FizzBuzz with other conditions, labels and ranges."""
    start, gap, tests = rng.randint(0, 4), rng.randint(1, 4), pick_two(rng, KEEP[:-2])[: level - 1]
    rules = list(zip(tests, rng.sample(["fizz", "buzz", "ping", "pong", "tick", "tock"], 2), strict=False))
    by, step = (f" in steps of {gap}", f", {gap}") if gap > 1 else ("", "")
    said = [f"{label} if x is {test.words.replace('multiples', 'a multiple')}" for test, label in rules]
    code = "    el".join(f'if {test.code}:\n        print("{label}")\n' for test, label in rules)
    code = f"    {code}    else:\n        print(x)" if rules else "    print(x)"
    words = f"for [each|every] x from {start} to n{by} [print|output] " + ", otherwise ".join([*said, "x"])
    steps = [Step(words, f"for x in range({start}, n + 1{step}):\n{code}")]

    def solve(n: int) -> str:
        numbers = range(start, n + 1, gap)
        return "\n".join(next((label for test, label in rules if test.run(x)), str(x)) for x in numbers)

    return Problem(ONE_N, steps, lambda rng, size: (8 + size + rng.randint(0, 3),), READ_N, solve=solve)


@family
def instructions(rng: Random, level: int) -> Problem:
    """stdin: a string of letters, each of which changes x."""
    start, clamp, letters = rng.randint(0, 9), pick(rng, CLAMPS, 5, 15), rng.sample("ABCDLRUX", 2)
    actions = dict(zip(letters, pick_two(rng, ACTIONS)[:level], strict=False))
    tests = [f'if c == "{letters[0]}":', "else:"]
    steps = [
        Step(f"[start with x at|x starts at] {start}", f"x = {start}\nfor c in s:"),
        *(Step(f"[each|every] {letter} {action.words}", f"    {test}\n        {action.code}")
          for (letter, action), test in zip(actions.items(), tests, strict=False)),
        Step(f"after [every|each] letter {clamp.words}", f"    {clamp.code}"),
        Step("[print|output] x", "print(x)"),
    ]
    if level < 3:
        del steps[-2]

    def solve(s: str) -> int:
        x = start
        for c in s:
            x = actions[c].run(x) if c in actions else x
            x = clamp.run(x) if level == 3 else x
        return x

    intro = f"[The input is|You get|Read] a string of the letters {letters[0]} and {letters[1]}."
    draw = partial(string, letters)
    return Problem(intro, steps, draw, "s = input()", solve=solve)


@family
def count_characters(rng: Random, level: int) -> Problem:
    """method: counts of one or two classes of characters, combined."""
    (one, two), cut, combine = pick_two(rng, CHARS), pick(rng, CUTS, 2, 5), pick(rng, COMBINE)
    steps = [
        cut,
        Step(f"let a count the {one.words}", f"a = sum({one.code} for c in s)"),
        Step(f"let b count the {two.words}", f"b = sum({two.code} for c in s)"),
        returned(combine),
    ][level == 2 :]
    if level == 1:
        steps = [returned(Step(f"the number of {one.words}", f"sum({one.code} for c in s)"))]

    def solve(s: str) -> int:
        s = cut.run(s) if level == 3 else s
        a, b = sum(map(one.run, s)), sum(map(two.run, s))
        return a if level == 1 else combine.run(a, b)

    intro = "[Given a string s:|s is a string.|You get a string s.]"
    names = "countCharacters scoreString stringValue"
    return Problem(intro, steps, partial(string, CHARACTERS), "", names, "s", solve)


@family
def first_k_sorted(rng: Random, level: int) -> Problem:
    """method: sort by a key and take the first k, after a filter or before a reduction."""
    key, down = pick(rng, KEYS), rng.random() < 0.5
    words = f"stably sort nums by {key.words}, {'[largest|highest]' if down else '[smallest|lowest]'} first"
    options = ("" if key.code == "x" else f", key=lambda x: {key.code}") + (", reverse=True" if down else "")
    before = [Step(words, f"nums = sorted(nums{options})", partial(sorted, key=key.run, reverse=down))]
    after = [returned(Step("the first k numbers", "nums[:k]"))]
    if level == 1:
        after = [returned(Step("the sorted list", "nums"))]
        return Problem(NUMS, before + after, integers, "", "sortNumbers orderList firstSorted")
    if level == 3 and rng.random() < 0.5:
        after = [Step("[take|keep] the first k", "nums = nums[:k]"), returned(reduced(rng))]
    elif level == 3:
        before.insert(0, keep(rng))
    return Problem(
        "[Given a list nums of integers and an integer k:|You get an integer list nums and a number k.]",
        before + after,
        lambda rng, n: (*integers(rng, n), rng.randint(1, n)),
        methods="firstSorted topNumbers sortAndTake",
        args="nums k",
        solve=lambda nums, k: chain(after, chain(before, nums)[:k]),
    )


@family
def neighbours(rng: Random, level: int) -> Problem:
    """method: pairs of neighbours, filtered, valued and reduced."""
    test, value = pick(rng, PAIR_KEEP), pick(rng, PAIR_VALUE)
    code = "pairs = list(zip(nums, nums[1:]))"
    steps = [
        Step("[form|make] neighbour pairs (a, b)", code, lambda v: list(zip(v, v[1:], strict=False))),
        only(f"[keep|select] those where {test.words}", "pairs", "(a, b)", test),
        each(f"[take|compute] {value.words} for each", "nums", "a, b", "pairs", value),
        returned(reduced(rng)),
    ]
    if level == 1:
        steps[2:] = [returned(Step("the number of pairs", "len(pairs)", len))]
    if level == 2:
        del steps[1]
    return Problem(NUMS, steps, integers, "", "neighbourPairs adjacentValue solvePairs")


@family
def matrix_lines(rng: Random, level: int) -> Problem:
    """method: a value of each row or column, filtered and reduced."""
    lines, value = pick(rng, LINES), pick(rng, LINE_VALUE)
    words = f"[compute|find] {value.words} of each {lines.words}"
    code = f"nums = [{value.code} for r in {lines.code}]"
    steps = [Step(words, code, lambda grid: [value.run(r) for r in lines.run(grid)])]
    if level == 3:
        steps.append(keep(rng))
    end = Step("[these values|them] in a list", "nums") if level == 1 else reduced(rng, level == 3)

    def draw(rng: Random, size: int) -> tuple:
        width = rng.randint(1, 4)
        return ([rng.choices(range(-5, 13), k=width) for _ in range((size + 1) // 2)],)

    intro = "[Given an integer matrix grid:|grid is a matrix of integers.|You get a matrix grid of integers.]"
    return Problem(intro, [*steps, returned(end)], draw, "", "gridValue matrixLines solveGrid", "grid")


@family
def frequency(rng: Random, level: int) -> Problem:
    """method: how often numbers occur, with a condition or a tie rule."""
    test, best = pick(rng, OFTEN, 2, 3), pick(rng, COMMON)
    steps = [keep(rng)] if level == 3 else []
    code = "count = {x: nums.count(x) for x in nums}"
    steps.append(Step("count [each number|every number]", code, lambda v: {x: v.count(x) for x in v}))
    if level > 1 and rng.random() < 0.4:
        code = f"min(count, key=lambda x: {best.code}, default=0)"
        words = f"the {best.words} or 0 if none"
        first = Step(words, code, lambda n: min(n, key=lambda x: best.run(n[x], x), default=0))
        steps.append(returned(first))
    else:
        words = f"[keep|select] the values seen {test.words}"
        code = f"nums = [x for x in count if {test.code}]"
        steps.append(Step(words, code, lambda count: [x for x in count if test.run(count[x])]))
        steps.append(returned(pick(rng, REDUCE[-1:]) if level == 1 else reduced(rng)))
    names = "countNumbers frequencyValue solveCounts"
    return Problem(NUMS, steps, repetitive, "", names)


@family
def digit_values(rng: Random, level: int) -> Problem:
    """method: replace numbers by something about their digits, filter and reduce."""
    value, late = pick(rng, DIGITS), rng.random() < 0.5
    steps = [each(f"replace [each|every] number by {value.words}", "nums", "x", "nums", value)]
    if level == 3:
        steps.insert(late, keep(rng))
    end = Step("the [new|resulting] list", "nums") if level == 1 else reduced(rng, level == 3 and late)
    intro = "[Given a list nums of integers >= 0:|nums holds integers >= 0.|You get integers nums, all >= 0.]"
    return Problem(intro, [*steps, returned(end)], naturals, "", "digitValues solveDigits digitResult")
