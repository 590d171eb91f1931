r"""Reads short answers as competitions, datasets and models write them: integers, and what kind an answer is.

    "$\displaystyle m+n = 1{,}204$." --plain--> "m+n = 1204" --integer--> 1204

`plain` removes what changes nothing of an answer, whatever its kind; `integer` accepts what cannot be misread.
"""

import re

from tinyr1.data import arithmetic

# A comma or thin space between groups of three digits. "0,204" is a decimal comma, and "20,4" is no number.
_GROUPED = re.compile(r"(?<![0-9.,}])[1-9][0-9]{0,2}(?:(?:,|\{,\}|\\,|,\\!)[0-9]{3})+(?![0-9,]|\{,|\\,\s*[0-9])")
_FONT = (
    r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|math(?:bf|it|rm|sf|tt|normal|cal|bb|scr|frak)|boldsymbol|bm|emph|underline|"
    r"[mh]box)"
)
_WRAPPED = re.compile(_FONT + r"\s*\{([^{}]*)\}|\{\s*\\(?:bf|rm|it|sf|tt)(?![A-Za-z])([^{}]*)\}")
_DOUBLE_BRACES = re.compile(r"\{\s*(\{[^{}]*\})\s*\}")
_SPACES = re.compile(
    r"\\(?:displaystyle|textstyle|bfseries|bf|rm|it|sf|tt|left|right|[bB]igg?[lr]?|q?quad|thinspace|large|Large|LARGE|[Hh]uge)"
    r"(?![A-Za-z])|\\(?:text)?color\s*\{[A-Za-z]+\}|" + _FONT + r"(?![A-Za-z]|\s*\{)"
    r"|\\[,;:! ()\[\]]|\\{2}(?![A-Za-z])|\\?\$|~|\{\}"
)
_QUOTES = (('"', '"'), ("``", "''"), ("'", "'"), ("`", "`"), ("“", "”"), ("‘", "’"), ("**", "**"), ("__", "__"),
           ("*", "*"), ("{", "}"))  # fmt: skip
# Units that leave the number as it is; per cent, hundred, thousand and the like do not.
_UNIT_WORDS = (
    r"degrees?|radians?|(?:square |cubic )?(?:units?|cm|mm|km|m|in|ft|inch(?:es)?|feet|foot|miles?|yards?|"
    r"(?:centi|milli|kilo)?met(?:er|re)s?)|mph|kph|sec|seconds?|minutes?|hours?|days?|weeks?|months?|"
    r"years?|dollars?|cents?|euros?|pounds?|kg|grams?|lit(?:er|re)s?|points?|people|persons?|students?|ways?|times|"
    r"integers?|numbers?|solutions?|pairs?|triples?|tuples?|values?|elements?|subsets?|sets?|sequences?|triangles?|"
    r"squares|rectangles?|polygons?|regions?|coins?|balls?|marbles?|tiles?|games?|paths?|arrangements?|permutations?"
)
_UNIT = re.compile(rf"(?:\s*(?:\^\s*\{{?\s*\\circ\s*\}}?|°|\\degrees?(?![A-Za-z]))|\s+(?:{_UNIT_WORDS})"
                   r"(?:\s*\^\s*(?:[23]|\{\s*[23]\s*\})|[²³])?)\Z")  # fmt: skip
_NUMBER = re.compile(r"(-?)\s?([0-9]{1,9})(?:\.0{1,9})?")
_FRACTION = re.compile(
    r"-?\s?(?:\\[dt]?frac\s*\{\s*[0-9]{1,9}\s*\}\s*\{\s*[0-9]{1,9}\s*\}|[0-9]{1,9}\s?/\s?[0-9]{1,9})"
)
_ANSWER_IS = re.compile(
    r"\A\s*(?:the\s+)?(?:(?:final|correct|right|best)\s+)?(?:answer|(?<=t\s)(?:option|choice))(?:\s*[:=]|\s+is\b:?)\s*",
    re.IGNORECASE,
)
_RELATION = re.compile(r"==|[<>!:≠≈≤≥±]\s*=?|=\s*[<>]")
_MARKS = re.compile(r"[*`{}\"“”]|(?<!\w)_+|_+(?!\w)")
LONGEST = 1000  # characters of an answer
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of options


def plain(text: str) -> str:
    r"""A short answer without what changes nothing of it: fonts, sizes, blanks of LaTeX, dollar signs, braces or
    quotes around all of it, markdown, commas between groups of digits, "Answer:" before it and a full stop behind.

    plain("$\\textbf{(C)}$.") -> "(C)"
    """
    text = _GROUPED.sub(lambda match: re.sub(r"[^0-9]", "", match[0]), text[:LONGEST])
    return _bare(_ANSWER_IS.sub("", _bare(_SPACES.sub(" ", _unwrapped(text)))))


def plain_prose(text: str) -> str:
    """A text of any length without fonts, markdown's marks, dollar signs and quotes, with single blanks."""
    text = _MARKS.sub("", _SPACES.sub(" ", _unwrapped(text)))
    return "\n".join(line for line in (" ".join(line.split()) for line in text.split("\n")) if line)


def _unwrapped(text: str) -> str:
    """The text without fonts, of which three may be nested; blanks keep digits apart that do not belong together."""
    for _ in range(3):
        text = _WRAPPED.sub(r" \1\2 ", _DOUBLE_BRACES.sub(r"\1", text))
    return text


def _bare(text: str) -> str:
    """The text without quotes, braces and blanks around all of it, and without one full stop at its end."""
    full_stop, before = False, None
    while text != before:
        before, text = text, text.strip()
        if text.endswith(".") and not full_stop and not text.endswith(".."):
            full_stop, text = True, text[:-1]
        for opening, closing in _QUOTES:
            inner = text[len(opening) : -len(closing)]
            if text == opening + inner + closing and (opening != "{" or _closing(text) == len(text) - 1):
                text = inner
    return text


def _closing(text: str) -> int:
    """Where the brace closes that opens a text; -1 where it never does."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += (match[0] == "{") - (match[0] == "}")
        if not depth and match[0] == "}":
            return match.start()
    return -1


def integer(text: str) -> int | None:
    r"""The integer that a competition answer states, or None; it has at most nine digits, which are ASCII.

    It may be named, as in m+n = 204, worked out, as in m+n = 45+159 = 204, or be a fraction that is whole. None where
    the sides of an equation differ, where what is equal to the number is no plain name (`arithmetic.is_name`), and
    where two variables have it (x = y = 204), since nobody knows which was asked for.

    integer("x = 1{,}204^\\circ.") -> 1204
    """
    text = plain(text)
    if _RELATION.search(text):
        return None
    *others, last = text.removeprefix("=").split("=")
    number = _stated(last)
    if number is None and others:  # 204 = m+n
        *others, last = [last, *reversed(others)]
        number = _stated(last)
    names = [side for side in others if arithmetic.value(side) != number]
    if number is None or not all(map(arithmetic.is_name, names)):
        return None
    return number if sum(map(arithmetic.is_variable, names)) <= 1 else None


def _stated(text: str) -> int | None:
    """The integer that a side of an equation states: digits with at most a unit, or a fraction that is whole."""
    text = _bare(text)
    text = _UNIT.sub("", text).rstrip()
    if number := _NUMBER.fullmatch(text):
        return int(number[1] + number[2])
    if not _FRACTION.fullmatch(text):
        return None
    whole = arithmetic.value(text)
    return int(whole) if whole is not None and whole.denominator == 1 else None


def kind_of_answer(answer: str) -> str:
    """What an answer is, for the tables: integer, number, option, text, or none."""
    text = answer.strip().strip("$")
    if not text:
        return "none"
    if re.fullmatch(r"[-−+]?\d[\d,]*", text):
        return "integer"
    if re.fullmatch(r"[-−+]?(\d+[.,]\d+|\d+/\d+|\\[dt]?frac\{-?\d+\}\{\d+\})", text):
        return "number"
    return "option" if re.fullmatch(r"\(?[A-J]\)?", text) else "text"
