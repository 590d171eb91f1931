"""Reads integers the ways competitions and models write them; benchmarks and the graders of boxed answers use it."""

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
