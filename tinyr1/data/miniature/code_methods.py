"""Code problems whose program is a method of class Solution, in LeetCode's form."""

from functools import partial
from random import Random

from tinyr1.data.miniature import code_tables as tables
from tinyr1.data.miniature.code_problems import (
    CodeProblem,
    CodeStep,
    apply_all,
    family,
    filter_by,
    filter_step,
    integers,
    map_over,
    pick,
    pick_two,
    reduce_step,
    return_step,
    string,
)
from tinyr1.data.miniature.task import Family

CHARACTERS = "aeiosrtnAEIRST0123789"
NUMS = "[Given a list nums of integers:|nums is a list of integers.|You get an integer list nums.]"


@family
def count_characters(rng: Random, level: int) -> CodeProblem:
    """Counts of one or two classes of characters, combined."""
    (one, two), cut, combine = pick_two(rng, tables.CHARS), pick(rng, tables.CUTS, 2, 5), pick(rng, tables.COMBINE)
    steps = [
        cut,
        CodeStep(f"let a count the {one.words}", f"a = sum({one.code} for c in s)"),
        CodeStep(f"let b count the {two.words}", f"b = sum({two.code} for c in s)"),
        return_step(combine),
    ][level == 2 :]
    if level == 1:
        steps = [return_step(CodeStep(f"the number of {one.words}", f"sum({one.code} for c in s)"))]

    def solve(s: str) -> int:
        s = cut.apply(s) if level == 3 else s
        a, b = sum(map(one.apply, s)), sum(map(two.apply, s))
        return a if level == 1 else combine.apply(a, b)

    intro = "[Given a string s:|s is a string.|You get a string s.]"
    names = "countCharacters scoreString stringValue"
    return CodeProblem(intro, steps, partial(string, CHARACTERS), "", names, "s", solve)


@family
def first_k_sorted(rng: Random, level: int) -> CodeProblem:
    """Sort by a key and take the first k, after a filter or before a reduction."""
    key, down = pick(rng, tables.KEYS), rng.random() < 0.5
    words = f"stably sort nums by {key.words}, {'[largest|highest]' if down else '[smallest|lowest]'} first"
    options = ("" if key.code == "x" else f", key=lambda x: {key.code}") + (", reverse=True" if down else "")
    before = [CodeStep(words, f"nums = sorted(nums{options})", partial(sorted, key=key.apply, reverse=down))]
    after = [return_step(CodeStep("the first k numbers", "nums[:k]"))]
    if level == 1:
        after = [return_step(CodeStep("the sorted list", "nums"))]
        return CodeProblem(NUMS, before + after, integers, "", "sortNumbers orderList firstSorted")
    if level == 3 and rng.random() < 0.5:
        after = [CodeStep("[take|keep] the first k", "nums = nums[:k]"), return_step(reduce_step(rng))]
    elif level == 3:
        before.insert(0, filter_step(rng))
    return CodeProblem(
        "[Given a list nums of integers and an integer k:|You get an integer list nums and a number k.]",
        before + after,
        lambda rng, n: (*integers(rng, n), rng.randint(1, n)),
        methods="firstSorted topNumbers sortAndTake",
        args="nums k",
        solve=lambda nums, k: apply_all(after, apply_all(before, nums)[:k]),
    )


@family
def neighbours(rng: Random, level: int) -> CodeProblem:
    """Pairs of neighbours, filtered, valued and reduced."""
    test, value = pick(rng, tables.PAIR_KEEP), pick(rng, tables.PAIR_VALUE)
    code = "pairs = list(zip(nums, nums[1:]))"
    steps = [
        CodeStep("[form|make] neighbour pairs (a, b)", code, lambda v: list(zip(v, v[1:], strict=False))),
        filter_by(f"[keep|select] those where {test.words}", "pairs", "(a, b)", test),
        map_over(f"[take|compute] {value.words} for each", "nums", "a, b", "pairs", value),
        return_step(reduce_step(rng)),
    ]
    if level == 1:
        steps[2:] = [return_step(CodeStep("the number of pairs", "len(pairs)", len))]
    if level == 2:
        del steps[1]
    return CodeProblem(NUMS, steps, integers, "", "neighbourPairs adjacentValue solvePairs")


@family
def matrix_lines(rng: Random, level: int) -> CodeProblem:
    """A value of each row or column, filtered and reduced."""
    lines, value = pick(rng, tables.LINES), pick(rng, tables.LINE_VALUE)
    words = f"[compute|find] {value.words} of each {lines.words}"
    code = f"nums = [{value.code} for r in {lines.code}]"
    steps = [CodeStep(words, code, lambda grid: [value.apply(r) for r in lines.apply(grid)])]
    if level == 3:
        steps.append(filter_step(rng))
    end = CodeStep("[these values|them] in a list", "nums") if level == 1 else reduce_step(rng, level == 3)

    def draw(rng: Random, size: int) -> tuple:
        width = rng.randint(1, 4)
        return ([rng.choices(range(-5, 13), k=width) for _ in range((size + 1) // 2)],)

    intro = "[Given an integer matrix grid:|grid is a matrix of integers.|You get a matrix grid of integers.]"
    return CodeProblem(intro, [*steps, return_step(end)], draw, "", "gridValue matrixLines solveGrid", "grid")


@family
def frequency(rng: Random, level: int) -> CodeProblem:
    """How often numbers occur, with a condition or a tie rule."""
    test, best = pick(rng, tables.OFTEN, 2, 3), pick(rng, tables.COMMON)
    steps = [filter_step(rng)] if level == 3 else []
    code = "count = {x: nums.count(x) for x in nums}"
    steps.append(CodeStep("count [each number|every number]", code, lambda v: {x: v.count(x) for x in v}))
    if level > 1 and rng.random() < 0.4:
        code = f"min(count, key=lambda x: {best.code}, default=0)"
        words = f"the {best.words} or 0 if none"
        first = CodeStep(words, code, lambda n: min(n, key=lambda x: best.apply(n[x], x), default=0))
        steps.append(return_step(first))
    else:
        words = f"[keep|select] the values seen {test.words}"
        code = f"nums = [x for x in count if {test.code}]"
        steps.append(CodeStep(words, code, lambda count: [x for x in count if test.apply(count[x])]))
        steps.append(return_step(pick(rng, tables.REDUCE[-1:]) if level == 1 else reduce_step(rng)))
    names = "countNumbers frequencyValue solveCounts"
    return CodeProblem(NUMS, steps, repetitive, "", names)


@family
def digit_values(rng: Random, level: int) -> CodeProblem:
    """Replace numbers by something about their digits, filter and reduce."""
    value, late = pick(rng, tables.DIGITS), rng.random() < 0.5
    steps = [map_over(f"replace [each|every] number by {value.words}", "nums", "x", "nums", value)]
    if level == 3:
        steps.insert(late, filter_step(rng))
    end = CodeStep("the [new|resulting] list", "nums") if level == 1 else reduce_step(rng, level == 3 and late)
    intro = "[Given a list nums of integers >= 0:|nums holds integers >= 0.|You get integers nums, all >= 0.]"
    return CodeProblem(intro, [*steps, return_step(end)], naturals, "", "digitValues solveDigits digitResult")


def repetitive(rng: Random, size: int) -> tuple:
    """One argument: a list of `size` integers with few distinct values."""
    return (rng.choices(rng.sample(range(-5, 16), 2 + size // 3), k=size),)


def naturals(rng: Random, size: int) -> tuple:
    """One argument: a list of `size` numbers of one to three digits."""
    return ([rng.randrange(10 ** rng.randint(1, 3)) for _ in range(size)],)


METHOD_FAMILIES: dict[str, Family] = {
    build.__name__: build
    for build in (count_characters, first_k_sorted, neighbours, matrix_lines, frequency, digit_values)
}
