r"""Says what stands in the box of a text, \boxed{…} or \fbox{…}: for answers of every kind, and for references.

    "so $\boxed{\frac{1}{2}}$." --boxed--> "\frac{1}{2}"      "\boxed{1} no, \boxed{2" --boxed--> None
"""

import re

_BRACES = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_OR = re.compile(r"\}[\s$\\(){}.,]*(?:text\s*\{)?\s*or\b[\s$\\(){}.,]*(?:boxed|fbox)\s*\{")  # between two boxes
_OPENING = re.compile(r"\s*\\{1,2}(?:boxed|fbox)\s*\{")


def last_box(text: str) -> tuple[str | None, int]:
    """(the content of the last \\boxed{…} or \\fbox{…} that stands in no other box, where it ends in the text).

    A box that holds only a box is opened. The content is None where there is no box; where a box behind all others is
    never closed, since such a text takes back what it boxed before; and where the last two boxes are joined by "or".
    The time is linear in the length of the text, whatever a model has written.
    """
    content, end = _last_outer(text)
    if content is not None and (opening := _OPENING.match(content)):
        inner, _ = _last_outer(content)
        if inner is not None and content.rstrip() == f"{opening[0]}{inner}}}":
            return inner, end
    return content, end


def _last_outer(text: str) -> tuple[str | None, int]:
    """The same without opening a box that holds only a box."""
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
    unclosed = [start for start, is_box in open_braces if is_box]
    if not boxes or (unclosed and unclosed[-1] > boxes[-1][1]):
        return None, len(text)
    if len(boxes) > 1 and _OR.fullmatch(text, boxes[-2][1], boxes[-1][0]):
        return None, boxes[-1][1]
    return text[slice(*boxes[-1])], boxes[-1][1]


def boxed(text: str) -> str | None:
    """The content of the last box (see `last_box`).

    boxed("so \\boxed{\\frac{1}{2}}") -> "\\frac{1}{2}"
    """
    return last_box(text)[0]
