"""Reads short answers as competitions, datasets and models write them: integers, and what kind an answer is."""

import re

_EDGES = re.compile(r"^(?:\s|\\[,;:! (]|~|\$|\\\$)+|(?:\s|\\[,;:! )]|~|\$|\\\$)+$")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathbf|mathrm|boldsymbol)\s*\{([^{}]*)\}")
_NAME = re.compile(r"^(?:[A-Za-z]+(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?|\\text\s*\{[A-Za-z ]+\})\s*=(?!=)\s*")
# Units that leave the number as it is; per cent, hundred, thousand and the like do not.
_UNIT = re.compile(
    r"(?:\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|°|(?:\s|\\[,;:! ]|~)*\\(?:text|mathrm)\s*\{\s*(?:degrees?|square units?|"
    r"cubic units?|units?|cm|m|km|inch(?:es)?|feet|miles?|seconds?|minutes?|hours?|days?)\s*\})$"
)
_GROUPED = re.compile(r"-?[0-9]{1,3}(?:(?:,|\{,\}|\\,|,\\!)[0-9]{3})+")


def integer(text: str) -> int | None:
    """The integer that a competition answer states, or None; it has at most nine digits, which are ASCII.

    integer("x = 1{,}204^\\circ.") -> 1204
    """
    text = _EDGES.sub("", text)
    text = _NAME.sub("", text)
    text = _EDGES.sub("", text.removesuffix("."))
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[1].strip().removesuffix(".")
    text = _UNIT.sub("", text)
    if _GROUPED.fullmatch(text):
        text = re.sub(r"[^0-9-]", "", text)
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None


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
