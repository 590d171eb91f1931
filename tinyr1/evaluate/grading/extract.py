r"""Finds the answer in a text. Each rule is a pure function: text -> answer, or None where it finds none.

    text --boxes.boxed--> what the last box holds --> boxed_integer, boxed_expression

The strict rules accept only what cannot be misread (docs/evaluation.md §0.5, §4.3); `tinyr1.evaluate.grading.options`
has the one for letters. `last_letter` is the released rule of GPQA-Diamond (docs/fidelity.md §4.3); the released rule
for math is in `tinyr1.evaluate.grading.released_math`.
"""

import re

from tinyr1.data.answers import LONGEST, integer, plain
from tinyr1.data.boxes import boxed


def boxed_integer(text: str) -> int | None:
    """The integer in the last box, if it is written in one of the ways of `tinyr1.data.answers.integer`."""
    return integer(boxed(text) or "")


def boxed_expression(text: str) -> str | None:
    """What the last box holds, for `tinyr1.evaluate.grading.expression`; None for nothing, another box, or too much."""
    content = (boxed(text) or "").strip()
    if not plain(content) or len(content) > LONGEST or r"\boxed" in content or r"\fbox" in content:
        return None
    return content


def tries_to_answer(text: str) -> bool:
    """Whether a text has a box with anything in it, readable or not: who boxes something gives an answer."""
    content = boxed(text)
    return bool(content.strip()) if content is not None else r"\boxed{" in text or r"\fbox{" in text


def last_letter(text: str) -> str | None:
    """The last A, B, C or D that is a word of the upper-cased text. This released rule reads the article "a" as A."""
    found = re.findall(r"\b(A|B|C|D)\b", text.upper())
    return found[-1] if found else None
