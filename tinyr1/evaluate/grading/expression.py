r"""Judges any mathematical answer: strict rules around Math-Verify (docs/evaluation.md §0.5).

    reference, content of a box --dissected--> names = value, unit, per cent, kind of list
      |  as texts or as integers --------------------------------------------------------------> equal or different
      |  another unit, a set for a pair, a word, doubt, digits apart --------------------------> different
      \- both values as formulas --Verifier.formulas: Math-Verify, in a process of its own--> equal, different, timeout

Math-Verify finds what two formulas have in common, and finds it too where the texts say different things: it drops
words behind a number, every side of an equation but one, brackets, capitals and the base of a number.
"""

import re
from dataclasses import dataclass

from tinyr1.data import arithmetic
from tinyr1.data.answers import LONGEST, integer, plain
from tinyr1.data.arithmetic import SPOILED, is_name, is_variable
from tinyr1.evaluate.grading import units
from tinyr1.evaluate.grading.symbolic import Verifier

_WRAPPED = re.compile(rf"[\s$]*{units.FONT}\s*\{{([^{{}}]*)\}}[\s$.]*")
_DEGREES = re.compile(r"(?:\s*\^\s*\{?\s*\\circ\s*\}?|°|\\degrees?(?![A-Za-z]))[\s$.]*\Z")
_PER_CENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*\\?%\s*\})[\s$.]*\Z")
_PER_CENT_WORDS = frozenset(("percent", "per cent", "percentage"))
_DOUBT = re.compile(
    r"\\[lc]?dots|…|\.\.\.|\?|\\approx|≈|\\sim(?:eq)?(?![A-Za-z])|\\neq?(?![A-Za-z])|≠|\\equiv|≡|\\pmod|\\bmod|"
    r"\\not(?![A-Za-z])|==|:=|!=|\\to(?![A-Za-z])|→"
)
_ANGLES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_ORDER = re.compile(r"[<>≤≥]|\\(?:[lg](?:eq?|t|eqslant))(?![A-Za-z])")
_EQUALS = re.compile(r"(?<![<>!=:])=(?!=)")
_BASE = re.compile(r"(?<=[0-9A-F])\s*_\s*\{?\s*([0-9]+)\s*\}?")
_APART = re.compile(r"[0-9]\s+[0-9]")
_MIXED = re.compile(r"(?<![0-9./])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9./])")
_COMMAND = re.compile(r"\\(?:begin|end|mathbb|mathcal|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{4,}|(?<![A-Za-z])[A-Z][a-z]+|(?<![A-Za-z])(?:and|or|not|no|yes)(?![A-Za-z])")
_FUNCTIONS = ("sinh", "cosh", "tanh", "arcsin", "arccos", "arctan")
_VARIABLE = r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{?\w\}?)?"
_VARIABLES = re.compile(rf"\(?{_VARIABLE}(?:,{_VARIABLE})+\)?")  # (x,y), of (x,y)=(1,2)
_CALLED = re.compile(rf"{_VARIABLE}'*(?:\({_VARIABLE}(?:,{_VARIABLE})*\))?|[A-Za-z]{{2,}}(?: [A-Za-z]+)*")


@dataclass(frozen=True)
class _Value:
    """One side of an equation, or an answer that is none: as plain text and as a formula, with what was cut off it."""

    text: str
    formula: str
    unit: str  # "" where there is none that is known
    per_cent: bool
    base: str

    @property
    def kind(self) -> str:
        """set, list, pair (or triple, interval) by its brackets, or one."""
        return _kind(self.text)


@dataclass(frozen=True)
class _Dissected:
    """The sides of an answer: what it names, and its values."""

    names: tuple[str, ...]
    values: tuple[_Value, ...]
    whole: _Value


def judge_expression(verifier: Verifier, gold: str, content: str) -> str:
    """Whether the content of a box is the reference answer: a status of `symbolic.Comparison`.

    RuntimeError if Math-Verify cannot be started.
    """
    found = quickly(gold, content)
    if found is not None:
        return "equal" if found else "different"
    ours, theirs = dissected(gold, is_reference=True), dissected(content)
    value = ours.values[-1]
    if len(ours.values) == 1:
        status = _all_equal(verifier, value, theirs.values)
        if status != "different":
            return status
    solved = ours.names and not re.search(r"[A-Za-z]", _COMMAND.sub("", value.text))
    if "=" in gold and "=" in content and not solved and len(theirs.values) + len(theirs.names) == 2:
        return _compared(verifier, ours.whole, theirs.whole)
    return "different"


def is_formula(verifier: Verifier, gold: str) -> bool:
    """Whether Math-Verify can read a reference answer; else only an equal text is right."""
    values = dissected(gold, is_reference=True).values
    return all(
        not _words(value.text) and verifier.formulas(value.formula, value.formula).status == "equal" for value in values
    )


def quickly(gold: str, content: str) -> bool | None:
    """The verdict where no formula has to be calculated; None where Math-Verify must say."""
    a, b = _text(gold), _text(content)
    if _same(a, b):
        return True
    if len(content) > LONGEST or set(_DOUBT.findall(b)) - set(_DOUBT.findall(a)):
        return False
    ours, theirs = dissected(gold, is_reference=True), dissected(content)
    if any(_words(value.text) for value in (*ours.values, *theirs.values)):
        return False
    variables = [{name for name in one.names if is_variable(name)} for one in (ours, theirs)]
    if len(variables[1]) > 1 or (all(variables) and variables[0] != variables[1]):
        return False
    number, other = integer(ours.values[0].text), integer(content)
    if len(ours.values) > 1 or number is None or other is None or ours.values[0].per_cent:
        return None
    return number == other and _same_unit(ours.values[0], theirs.values[-1])


def dissected(answer: str, is_reference: bool = False) -> _Dissected:
    """The parts of an answer. Solutions such as `x = 2 or x = 3` become the list of their values.

    is_reference: `x^2+y^2 = 4` is an equation, and no name for the number 4 as it is in a model's `m+n = 4`.
    """
    if match := _WRAPPED.fullmatch(answer):
        answer = match[1]
    answer = _one_list(answer)
    sides = [side for side in _EQUALS.split(answer) if side.strip(" $")] or [answer]
    plains = [_text(side) for side in sides]
    is_called = _CALLED.fullmatch if is_reference else is_name
    named = [bool(is_called(text) or _VARIABLES.fullmatch(text)) for text in plains]
    if all(named):
        named[-1] = False
    names = tuple(text for text, is_one in zip(plains, named, strict=True) if is_one)
    values = tuple(_value(side) for side, is_one in zip(sides, named, strict=True) if not is_one)
    return _Dissected(names, values, _value(answer))


def _one_list(answer: str) -> str:
    """`x = 2, x = 3` as `2, 3`; every other answer as it is, without `x \\in` before it."""
    answer = re.sub(r",?\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*(?:and|or)\s*\}|(?<=\s)(?:and|or)(?=\s)|;)", ", ", answer)
    answer = re.sub(r"\A[\s$]*[A-Za-z]\s*(?:\\in(?![A-Za-z])|∈)", "", answer)
    parts = [_EQUALS.split(part) for part in answer.split(",")]
    names = {_text(part[0]) if len(part) == 2 else "" for part in parts}
    one_name = len(names) == 1 and all(map(is_variable, names))
    return ", ".join(value for _, value in parts) if one_name and len(parts) > 1 else answer


def _value(side: str) -> _Value:
    """A side without its unit, its per cent sign and the base of its number."""
    unit, per_cent = "", False
    if match := _PER_CENT.search(side):
        side, per_cent = side[: match.start()], True
    elif (match := _DEGREES.search(side)) and not _ANGLES.search(side):
        side, unit = side[: match.start()], "degree"
    elif (match := units.TAIL.search(side)) and re.search(r"[0-9})\]]|[A-Za-z]\Z", side[: match.start()]):
        words = units.plain_unit(match["set"] or match["bare"])
        if words.lower() in _PER_CENT_WORDS:
            side, per_cent = side[: match.start()], True
        elif words and (name := _unit(words)) is not None:
            side, unit = side[: match.start()], name
    text = _text(side)
    base = "".join(_BASE.findall(text))
    text = _BASE.sub("", text)
    return _Value(text, _formula(side, text), unit, per_cent, base)


def _unit(words: str) -> str | None:
    """The name of a unit, "" for words that are none that is known; None for words that change a number."""
    if name := units.canonical(words):
        return name
    spoiled = SPOILED - {"square", "per"}  # "square units", "items per day"
    return None if spoiled & set(re.findall("[a-z]+", words.lower())) else ""


def _text(side: str) -> str:
    """The plain form of an answer, in which blanks around signs do not count."""
    if r"\begin" in side:
        side = side.replace("\\\\", r"\cr ")  # the end of a row of a matrix, which `plain` takes for a blank
    text = plain(side).replace("−", "-").replace("\\varnothing", "\\emptyset")
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\langle(?![A-Za-z])", "(", re.sub(r"\\rangle(?![A-Za-z])", ")", text))
    text = re.sub(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = re.sub(r"\s*([-+*/^=<>(){}\[\],|])\s*", r"\1", " ".join(text.split()))
    single = re.fullmatch(r"\(([A-Za-z])\)", text)
    return single[1] if single else text


def _formula(side: str, text: str) -> str:
    """What Math-Verify reads. A matrix keeps the line ends that `plain` takes for blanks."""
    return side.strip(" $") if r"\begin" in side else text


def _same(a: str, b: str) -> bool:
    """Whether two plain texts are one; of words, capitals do not count."""
    return a == b or (_words(a) and _words(b) and a.casefold() == b.casefold())


def _words(text: str) -> bool:
    """Whether a text holds a word: `ab` is a product and `sin` a function, `Yes` and `east` are words."""
    words = _WORD.findall(_COMMAND.sub(" ", text))
    return any(word not in _FUNCTIONS for word in words)


def _kind(text: str) -> str:
    opening, closing = text[:1], text[-1:]
    if text.startswith("\\{") and text.endswith("\\}"):
        return "set" if text[2:-2].strip() else "one"
    if opening in "([" and closing in ")]" and opening and _encloses(text) and "," in text:
        return f"pair {opening}{closing}"
    return "list" if _has_outer_comma(text) or r"\pm" in text else "one"


def _depths(text: str) -> list[int]:
    """How many brackets are open behind each character."""
    depths, depth = [], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        depths.append(depth)
    return depths


def _encloses(text: str) -> bool:
    return 0 not in _depths(text)[:-1]


def _has_outer_comma(text: str) -> bool:
    return any(depth == 0 and character == "," for depth, character in zip(_depths(text), text, strict=True))


# --- comparing values -----------------------------------------------------------------------------------------


def _all_equal(verifier: Verifier, value: _Value, others: tuple[_Value, ...]) -> str:
    """equal where every other value is the value; else the first status that is another one."""
    for other in others:
        is_same = _same(value.text, other.text) and _may_be(value, other)
        status = "equal" if is_same else _compared(verifier, value, other)
        if status != "equal":
            return status
    return "equal"


def _may_be(a: _Value, b: _Value) -> bool:
    """Whether units, bases, lists, letters and relations let b be the same as a."""
    if not _same_unit(a, b) or (b.base and a.base != b.base) or _is_apart(b.text):
        return False
    letters = [set(re.findall("[A-Za-z]", _COMMAND.sub("", one.text))) for one in (a, b)]
    if letters[0] != letters[1] and {x.lower() for x in letters[0]} == {x.lower() for x in letters[1]}:
        return False
    inequality = [_ORDER.search(one.text) is not None for one in (a, b)]
    if any(inequality):
        return all(inequality) or all(map(_is_range, (a, b)))
    return a.kind == b.kind or {a.kind, b.kind} == {"set", "list"}


def _same_unit(a: _Value, b: _Value) -> bool:
    return units.same(a.unit, b.unit)


def _is_range(value: _Value) -> bool:
    """Whether it may be an interval, or an inequality that is one."""
    return value.kind.startswith("pair") or bool(_ORDER.search(value.text)) or r"\cup" in value.text


def _is_apart(text: str) -> bool:
    return r"\begin" not in text and _APART.search(text) is not None


def _compared(verifier: Verifier, a: _Value, b: _Value) -> str:
    """Math-Verify's status for two values. A per cent sign on one side only may also stand for a hundredth."""
    if not _may_be(a, b):
        return "different"
    number, other = arithmetic.value(a.text), arithmetic.value(b.text)
    if number is not None and other is not None:  # exactly; Math-Verify rounds
        hundredths = {True: (number / 100, other), False: (number, other / 100)}
        equal = number == other or (a.per_cent != b.per_cent and len(set(hundredths[a.per_cent])) == 1)
        return "equal" if equal else "different"
    status = verifier.formulas(a.formula, b.formula).status
    if status in ("equal", "timeout", "error"):
        return status
    if a.per_cent != b.per_cent:
        hundredth, whole = (a, b) if a.per_cent else (b, a)
        return verifier.formulas(f"({hundredth.formula})/100", whole.formula).status
    if _is_range(a) and _is_range(b):
        return verifier.formulas(b.formula, a.formula).status
    return status
