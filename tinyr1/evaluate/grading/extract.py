"""Finds the answer in a text. Each rule is a pure function: text -> answer, or None where it finds none.

The strict rules accept only what cannot be misread (docs/evaluation.md §4.3, §5). `last_letter` is the released rule of
GPQA-Diamond (docs/fidelity.md §4.3); the released rule for math is in `tinyr1.evaluate.grading.released_math`.
"""

import re

from tinyr1.data.answers import integer

_BRACES = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_NESTED = re.compile(r"\s*\\(?:boxed|fbox)\s*\{([^{}]*)\}\s*")
_OPTION = re.compile(r"\s*(?:\\(?:text|mathrm|mathbf|textbf)\s*\{)?\s*\(?([A-D])\)?\.?\s*\}?\s*")
# "Answer: X" or "answer is X", also in markdown and brackets. After the letter there must be no word and no second
# letter that takes it back ("A or B"), and a lower-case word only if it gives a reason: "the answer is A good guess" is
# no answer.
_ANSWER = re.compile(
    r"(?i:answer)[*_\s]*(?::|(?i:is)\b:?)[*_\s]*[\[({$\\]{0,2}\b([A-D])\b(?![\w'’-])"
    r"(?!\W{0,4}(?:or|and|nor|/|,)\W{0,4}[A-D]\b)(?!\s*[/&])(?!\s+(?!because|since|as\b|for\b)[a-z])"
)


def boxed(text: str) -> str | None:
    """The content of the last balanced \\boxed{…} or \\fbox{…} that stands in no other box.

    The time is linear in the length of the text, whatever a model has written.

    boxed("so \\boxed{\\frac{1}{2}}") -> "\\frac{1}{2}"
    """
    open_braces: list[tuple[int, bool]] = []  # (where the content starts, whether the brace belongs to a box)
    boxes: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match[0] == "{" or len(match[0]) > 2:
            open_braces.append((match.end(), match[0] != "{"))
        elif match[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box:
                while boxes and boxes[-1][0] > start:
                    boxes.pop()
                boxes.append((start, match.start()))
    if not boxes:
        return None
    content = text[slice(*boxes[-1])]
    nested = _NESTED.fullmatch(content)
    return nested[1] if nested else content


def boxed_integer(text: str) -> int | None:
    """The integer in the last box, if it is written in one of the ways of `tinyr1.data.answers.integer`."""
    return integer(boxed(text) or "")


def option(text: str) -> str | None:
    """The letter A to D of an answer: in the last box, or without any box in the last `Answer: X`; no bare letters."""
    box = boxed(text)
    if box is not None:
        match = _OPTION.fullmatch(box)
        return match[1] if match else None
    found = _ANSWER.findall(text)
    return found[-1] if found else None


def last_letter(text: str) -> str | None:
    """The last A, B, C or D that is a word of the upper-cased text. This released rule reads the article "a" as A."""
    found = re.findall(r"\b(A|B|C|D)\b", text.upper())
    return found[-1] if found else None
