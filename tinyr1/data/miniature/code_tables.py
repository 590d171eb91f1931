"""The operations that the code problems are composed of, as tables.

A row of a table is (words, code, trusted function). In words and code, {k} stands for a constant that is drawn for each
problem, and {c} for the letter DRAWN_LETTERS[k]; the function takes k first. In words, "[a|b]" offers wordings: the
question takes any of them, the thinking the first.
"""

from collections.abc import Callable
from typing import Any

DRAWN_LETTERS = "aeiostrnlm"
Operation = tuple[str, str, Callable[..., Any]]
Table = list[Operation]

KEEP: Table = [  # conditions on a number x; the last two are for lists that may hold negative numbers
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
CHANGE: Table = [
    ("[add {k} to each|increase each by {k}]", "x + {k}", lambda k, x: x + k),
    ("[subtract {k} from each|decrease each by {k}]", "x - {k}", lambda k, x: x - k),
    ("subtract each from {k}", "{k} - x", lambda k, x: k - x),
    ("multiply each by {k}", "x * {k}", lambda k, x: x * k),
    ("[square each|replace each by its square]", "x * x", lambda k, x: x * x),
    ("take [each modulo {k}|the remainder of each divided by {k}]", "x % {k}", lambda k, x: x % k),
    ("take the absolute value of each", "abs(x)", lambda k, x: abs(x)),
]
REDUCE: Table = [  # the last one only says something new after a filter
    ("the [sum|total]", "sum(nums)", lambda k, v: sum(v)),
    ("the [largest|maximum] value (0 if none)", "max(nums, default=0)", lambda k, v: max(v, default=0)),
    ("the [smallest|minimum] value (0 if none)", "min(nums, default=0)", lambda k, v: min(v, default=0)),
    ("the sum [modulo|reduced modulo] {k}", "sum(nums) % {k}", lambda k, v: sum(v) % k),
    ("the number of [distinct|different] values", "len(set(nums))", lambda k, v: len(set(v))),
    ("{k} times the [sum|total]", "sum(nums) * {k}", lambda k, v: sum(v) * k),
    ("how many numbers [remain|are left]", "len(nums)", lambda k, v: len(v)),
]
WORD_MAP: Table = [
    ("[reverse each word|write each word backwards]", "w[::-1]", lambda k, w: w[::-1]),
    ("[put each word in upper case|make each word upper case]", "w.upper()", lambda k, w: w.upper()),
    ("capitalize each word", "w.capitalize()", lambda k, w: w.capitalize()),
    ("replace each word by its length", "str(len(w))", lambda k, w: str(len(w))),
    ("[repeat each word {k} times|write each word {k} times in a row]", "w * {k}", lambda k, w: w * k),
    ("[keep|take] the first {k} letters of each word", "w[:{k}]", lambda k, w: w[:k]),
    ("replace {c} by x in each word", 'w.replace("{c}", "x")', lambda k, w: w.replace(DRAWN_LETTERS[k], "x")),
]
WORD_ORDER: Table = [
    ("reverse the order of the words", "words[::-1]", lambda k, v: v[::-1]),
    ("sort the words [alphabetically|in alphabetical order]", "sorted(words)", lambda k, v: sorted(v)),
    ("stably sort the words by length", "sorted(words, key=len)", lambda k, v: sorted(v, key=len)),
    ("move the first word to the end", "words[1:] + words[:1]", lambda k, v: v[1:] + v[:1]),
]
WORD_KEEP: Table = [
    ("[longer than|with more than] {k} letters", "len(w) > {k}", lambda k, w: len(w) > k),
    ("[shorter than|with fewer than] {k} letters", "len(w) < {k}", lambda k, w: len(w) < k),
    ("that contain {c}", '"{c}" in w', lambda k, w: DRAWN_LETTERS[k] in w),
    ("without the letter {c}", '"{c}" not in w', lambda k, w: DRAWN_LETTERS[k] not in w),
]
SEPARATORS: Table = [
    ("spaces", '" ".join(words)', lambda k, v: " ".join(v)),
    ("[dashes|hyphens]", '"-".join(words)', lambda k, v: "-".join(v)),
    ("commas", '",".join(words)', lambda k, v: ",".join(v)),
    ("[stars|asterisks]", '"*".join(words)', lambda k, v: "*".join(v)),
]
UPDATES: Table = [
    ("add x to the total", "total += x", lambda k, t, x: t + x),
    ("subtract x from the total", "total -= x", lambda k, t, x: t - x),
    ("add {k} * x to the total", "total += {k} * x", lambda k, t, x: t + k * x),
    ("add {k} to the total", "total += {k}", lambda k, t, x: t + k),
    ("add [x squared|the square of x] to the total", "total += x * x", lambda k, t, x: t + x * x),
]
STOPS: Table = [
    ("[over|greater than] {k}", "total > {k}", lambda k, t: t > k),
    ("[below|less than] -{k}", "total < -{k}", lambda k, t: t < -k),
    ("divisible by {k}", "total % {k} == 0", lambda k, t: t % k == 0),
]
LENGTHS: Table = [  # characters in line i of n; only the first does not depend on i
    ("{k}", "{k}", lambda k, n, i: k),
    ("i", "i", lambda k, n, i: i),
    ("[i plus {k}|{k} more than i]", "(i + {k})", lambda k, n, i: i + k),
    ("{k} times i", "({k} * i)", lambda k, n, i: k * i),
    ("n + 1 - i", "(n + 1 - i)", lambda k, n, i: n + 1 - i),
    ("n plus i", "(n + i)", lambda k, n, i: n + i),
]
ACTIONS: Table = [
    ("[adds {k} to x|increases x by {k}]", "x += {k}", lambda k, x: x + k),
    ("[subtracts {k} from x|decreases x by {k}]", "x -= {k}", lambda k, x: x - k),
    ("doubles x", "x *= 2", lambda k, x: x * 2),
    ("[flips the sign of x|negates x]", "x = -x", lambda k, x: -x),
    ("[sets x to|resets x to] {k}", "x = {k}", lambda k, x: k),
]
CLAMPS: Table = [
    ("[lower x to {k} if it is larger|cap x at {k}]", "x = min(x, {k})", lambda k, x: min(x, k)),
    ("[raise x to {k} if it is smaller|keep x at least {k}]", "x = max(x, {k})", lambda k, x: max(x, k)),
    ("[reduce x modulo {k}|replace x by x modulo {k}]", "x = x % {k}", lambda k, x: x % k),
]
CHARS: Table = [
    ("vowels", 'c in "aeiou"', lambda k, c: c in "aeiou"),
    ("digits", "c.isdigit()", lambda k, c: c.isdigit()),
    ("[upper-case|capital] letters", "c.isupper()", lambda k, c: c.isupper()),
    ("[lower-case|small] letters", "c.islower()", lambda k, c: c.islower()),
    ("characters equal to {c}", 'c == "{c}"', lambda k, c: c == DRAWN_LETTERS[k]),
    ("characters other than {c}", 'c != "{c}"', lambda k, c: c != DRAWN_LETTERS[k]),
]
CUTS: Table = [
    ("keep only the first {k} characters", "s = s[:{k}]", lambda k, s: s[:k]),
    ("keep only the last {k} characters", "s = s[-{k}:]", lambda k, s: s[-k:]),
    ("[drop|remove] the first {k} characters", "s = s[{k}:]", lambda k, s: s[k:]),
    ("[drop|remove] the last {k} characters", "s = s[:-{k}]", lambda k, s: s[:-k]),
]
COMBINE: Table = [
    ("a plus {k} times b", "a + {k} * b", lambda k, a, b: a + k * b),
    ("{k} times a minus b", "{k} * a - b", lambda k, a, b: k * a - b),
    ("the product of a and b", "a * b", lambda k, a, b: a * b),
    ("the larger of a and b", "max(a, b)", lambda k, a, b: max(a, b)),
    ("[abs(a - b)|the absolute difference of a and b]", "abs(a - b)", lambda k, a, b: abs(a - b)),
]
KEYS: Table = [
    ("value", "x", lambda k, x: x),
    ("absolute value", "abs(x)", lambda k, x: abs(x)),
    ("distance from {k}", "abs(x - {k})", lambda k, x: abs(x - k)),
    ("remainder modulo {k}", "x % {k}", lambda k, x: x % k),
]
PAIR_KEEP: Table = [
    ("a is [less|smaller] than b", "a < b", lambda k, p: p[0] < p[1]),
    ("a is [greater|larger] than b", "a > b", lambda k, p: p[0] > p[1]),
    ("a and b differ by more than {k}", "abs(a - b) > {k}", lambda k, p: abs(p[0] - p[1]) > k),
    ("a and b differ by less than {k}", "abs(a - b) < {k}", lambda k, p: abs(p[0] - p[1]) < k),
    ("a + b is even", "(a + b) % 2 == 0", lambda k, p: sum(p) % 2 == 0),
    ("a + b is greater than {k}", "a + b > {k}", lambda k, p: sum(p) > k),
]
PAIR_VALUE: Table = [
    ("a + b", "a + b", lambda k, p: p[0] + p[1]),
    ("a times b", "a * b", lambda k, p: p[0] * p[1]),
    ("a plus {k} times b", "a + {k} * b", lambda k, p: p[0] + k * p[1]),
    ("[abs(a - b)|the absolute difference]", "abs(a - b)", lambda k, p: abs(p[0] - p[1])),
    ("the larger of a and b", "max(a, b)", lambda k, p: max(p)),
    ("the smaller of a and b", "min(a, b)", lambda k, p: min(p)),
]
LINES: Table = [
    ("row", "grid", lambda k, grid: grid),
    ("column", "zip(*grid)", lambda k, grid: list(zip(*grid, strict=True))),
]
LINE_VALUE: Table = [
    ("the [sum|total]", "sum(r)", lambda k, r: sum(r)),
    ("the [largest|maximum] value", "max(r)", lambda k, r: max(r)),
    ("the [smallest|minimum] value", "min(r)", lambda k, r: min(r)),
    ("the [first|leading] value", "r[0]", lambda k, r: r[0]),
    ("the last value", "r[-1]", lambda k, r: r[-1]),
    ("{k} times the sum", "{k} * sum(r)", lambda k, r: k * sum(r)),
    ("the largest minus the smallest value", "max(r) - min(r)", lambda k, r: max(r) - min(r)),
]
OFTEN: Table = [
    ("[exactly {k} times|{k} times]", "count[x] == {k}", lambda k, n: n == k),
    ("[at least {k} times|{k} or more times]", "count[x] >= {k}", lambda k, n: n >= k),
    ("[fewer|less] than {k} times", "count[x] < {k}", lambda k, n: n < k),
    ("[only once|exactly once]", "count[x] == 1", lambda k, n: n == 1),
]
COMMON: Table = [  # the sort key decides which number wins: (count, number) with either sign
    ("most common number (the smallest if tied)", "(-count[x], x)", lambda k, n, x: (-n, x)),
    ("most common number (the largest if tied)", "(-count[x], -x)", lambda k, n, x: (-n, -x)),
    ("least common number (the smallest if tied)", "(count[x], x)", lambda k, n, x: (n, x)),
    ("least common number (the largest if tied)", "(count[x], -x)", lambda k, n, x: (n, -x)),
]
DIGITS: Table = [
    ("the sum of its digits", "sum(map(int, str(x)))", lambda k, x: sum(map(int, str(x)))),
    ("its digits reversed", "int(str(x)[::-1])", lambda k, x: int(str(x)[::-1])),
    ("[its number of digits|how many digits it has]", "len(str(x))", lambda k, x: len(str(x))),
    ("its first digit", "int(str(x)[0])", lambda k, x: int(str(x)[0])),
    ("its last digit", "x % 10", lambda k, x: x % 10),
    ("its largest digit", "int(max(str(x)))", lambda k, x: int(max(str(x)))),
    ("{k} times its last digit", "x % 10 * {k}", lambda k, x: x % 10 * k),
]
