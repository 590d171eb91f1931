"""The answer in a text: extraction rules, each a pure function text -> answer or None.

The strict ones accept only what cannot be misread (evaluation.md §4.3, §5). `last_letter` is the released rule of
GPQA-Diamond (ledger §4.3); the released rule for math is in `tinyr1.evaluate.grading.released_math`.
"""

import re

from tinyr1.data.answers import integer

_BRACES = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_NESTED = re.compile(r"\s*\\(?:boxed|fbox)\s*\{([^{}]*)\}\s*")
_OPTION = re.compile(r"\s*(?:\\(?:text|mathrm|mathbf|textbf)\s*\{)?\s*\(?([A-D])\)?\.?\s*\}?\s*")
# "Answer: X" or "answer is X", markdown and brackets tolerated. After the letter: no word, no second letter that
# takes it back ("A or B"), and a lower-case word only if it gives a reason ("the answer is A good guess" is no answer).
_ANSWER = re.compile(
    r"(?i:answer)[*_\s]*(?::|(?i:is)\b:?)[*_\s]*[\[({$\\]{0,2}\b([A-D])\b(?![\w'’-])"
    r"(?!\W{0,4}(?:or|and|nor|/|,)\W{0,4}[A-D]\b)(?!\s*[/&])(?!\s+(?!because|since|as\b|for\b)[a-z])"
)


def boxed(text: str) -> str | None:
    """Content of the last balanced \\boxed{…} or \\fbox{…} that stands in no other box; time linear in the text.

    boxed("so \\boxed{\\frac{1}{2}}") -> "\\frac{1}{2}"
    """
    open_braces: list[tuple[int, bool]] = []  # (where the content starts, whether it is a box's)
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
    """The integer in the last box."""
    return integer(boxed(text) or "")


def option(text: str) -> str | None:
    """The letter of a four-option answer: the last boxed one, else the last `Answer: X`. No bare letters."""
    box = boxed(text)
    if box is not None:
        match = _OPTION.fullmatch(box)
        return match[1] if match else None
    found = _ANSWER.findall(text)
    return found[-1] if found else None


def last_letter(text: str) -> str | None:
    """The last A, B, C or D that is a word of the upper-cased text: the released rule, articles included."""
    found = re.findall(r"\b(A|B|C|D)\b", text.upper())
    return found[-1] if found else None
