r"""Finds the answer in a text. Each rule is a pure function: text -> answer, or None where it finds none.

    text --boxed--> what the last box holds --answers.plain--> without its dress --> boxed_integer, option
       \--statements such as "Answer: C" --------------------------------------------^ (letters only)

The strict rules accept only what cannot be misread (docs/evaluation.md §4.3, §5). `last_letter` is the released rule of
GPQA-Diamond (docs/fidelity.md §4.3); the released rule for math is in `tinyr1.evaluate.grading.released_math`.
"""

import re

from tinyr1.data.answers import integer, plain, plain_prose

_BRACES = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_NESTED = re.compile(r"\s*\\(?:boxed|fbox)\s*\{([^{}]*)\}\s*")


# --- boxes ----------------------------------------------------------------------------------------------------


def last_box(text: str) -> tuple[str | None, int]:
    """(the content of the last \\boxed{…} or \\fbox{…} that stands in no other box, where it ends in the text).

    The content is None where there is no box, and where a box behind all others is never closed: such a text takes back
    what it boxed before. The time is linear in the length of the text, whatever a model has written.
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
    unclosed = [start for start, is_box in open_braces if is_box]
    if not boxes or (unclosed and unclosed[-1] > boxes[-1][1]):
        return None, len(text)
    content = text[slice(*boxes[-1])]
    nested = _NESTED.fullmatch(content)
    return (nested[1] if nested else content), boxes[-1][1]


def boxed(text: str) -> str | None:
    """The content of the last box (see `last_box`).

    boxed("so \\boxed{\\frac{1}{2}}") -> "\\frac{1}{2}"
    """
    return last_box(text)[0]


def boxed_integer(text: str) -> int | None:
    """The integer in the last box, if it is written in one of the ways of `tinyr1.data.answers.integer`."""
    return integer(boxed(text) or "")


def tries_to_answer(text: str) -> bool:
    """Whether a text has a box with anything in it, readable or not: who boxes something gives an answer."""
    content = boxed(text)
    return bool(content.strip()) if content is not None else r"\boxed{" in text or r"\fbox{" in text


# --- options --------------------------------------------------------------------------------------------------

# A letter alone, or with brackets or a mark before the option's own text: "C", "(C)", "C) heat", "C: heat".
_OPTION = re.compile(
    r"(?:(?:option|choice|letter)\s+)?(?:(?P<bare>[A-D])|[(\[]\s*(?P<bracketed>[A-D])\s*[)\]])\s*"
    r"(?:$|(?(bare)(?:[).:]|[-–—](?=\s)|(?<=\s)(?=\())|[.:]?)(?P<text>.*))", re.DOTALL | re.IGNORECASE,
)  # fmt: skip
# Another letter beside the first one, and another lettered option in the text of the first.
_BESIDE = re.compile(r"\W{0,4}(?:(?:or|and|nor|to)\b)?\W{0,4}[A-D]\W{0,3}")
_ANOTHER = re.compile(r"(?:^|\b(?:or|and)\b|[,;/&])\s*\(?[A-D][).:]\s")
# What a box may hold beside the answer line: a quantity, told by a digit, a command or a relation.
_QUANTITY = re.compile(r"[0-9=<>^_]|\\[A-Za-z]")


def _letter(name: str) -> str:
    """The pattern of a letter that a statement gives, in the group `name`."""
    return rf"(?:(?i:option|choice|letter) )?[(\[]?\b(?P<{name}>[A-D])\b"


# After the letter there must be no word and no second letter that takes it back ("A or B"). A lower-case word may only
# give a reason or say where: "the answer is A good guess" is no answer, and "C if …" is none for certain.
_END = (
    r"(?![\w'’-])(?!\W{0,4}(?:or|and|nor|/|,)\W{0,4}[A-D]\b)(?! ?[/&?])"
    r"(?![ –—~]{1,3}[A-D]\b)(?!\s(?!(?:because|since|as(?! well)|for|which|where|with|when|whose|while|by|due|so|given|"
    r"in|from|at|on|based|according|not|and not|but not|rather than|instead of)\b)[a-z])"
)
_ADVERB = r"(?:(?:therefore|thus|hence|clearly|indeed|definitely|certainly|then|again) )?"
_STATEMENT = re.compile(
    # "Answer: C"; what follows on the next line belongs to it no more
    rf"(?i:\b(?:answer|(?:correct|right) (?:option|choice))) ?[:=]\s?{_letter('line')}"
    rf"(?:[)\].]* ?(?=\n(?!or\b|and\b))|{_END})"
    # "Answer" as a heading
    rf"|^(?:#+ )?(?i:(?:final )?answer)\n{_letter('alone')}[)\].]*$"
    # "the answer is C", "the correct option is C"
    rf"|(?i:\b(?:answer|(?:correct|right) (?:option|choice|letter|one))) (?i:is|must be|should be|has to be)\b ?:?\s?"
    rf"{_ADVERB}{_letter('told')}{_END}"
    # "C is right"
    rf"|{_letter('right')}[)\]]? is {_ADVERB}(?:the (?:final )?answer|"
    r"(?:the )?(?:right|correct)\b(?: (?:one|answer|option|choice|letter))?)"
    r"(?=\s?(?:[.!;,\n]|$|because\b|since\b|as\b))",
    re.MULTILINE,
)
# Words before a statement, in its sentence, with which it is none; and a question mark behind it.
_DOUBT = re.compile(
    r"\bat first\b|\bfirst (?:sight|glance|thought)\b|\b(?:initially|naively|tempting|suppose|assume|imagine)\b"
    r"(?:\W{1,3}\w+){0,4}\W*$|\b(?:might|may|could|would) (?:\w+ )?(?:think|say|guess|expect|assume|believe|conclude|"
    r"suspect|seem|appear|suggest)|\b(?:it|this) (?:seems|appears|looks)\b|\b(?:if|whether|unless|doubt)\b|"
    r"\b(?:not|n't) (?:sure|clear|certain|true|think|the case)\b|\bmistake\b|\b(?:wrong|false|incorrect) that\b|"
    r"\b(?:some|many|others|people|students|one|you) (?:\w+ )?(?:say|claim|think|argue|believe|answer)",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[^.!?\n]*\?")
# A sentence behind it that takes it back, and one that says something against a letter.
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?\n])\W{0,5}(?:wait\b|no\s?[,.!—-]|hmm|actually\b|on second thought|correction\b|scratch that|let me re|"
    r"sorry\b|(?:that|this) (?:is|was) (?:wrong|false|incorrect|not (?:right|correct|true)))|"
    r",\s?which (?:is|was) (?:wrong|false|incorrect|not (?:right|correct|true))\b|"
    r"\bi (?:was wrong|made (?:an?|the) (?:error|mistake))\b",
    re.IGNORECASE,
)
# What follows "but" in the statement's own sentence or at the beginning of a later one. "B fails, but C does not" in a
# later sentence says nothing against C.
_BUT = re.compile(
    r"(?:^(?:[^.!?\n]*[,;])?|[.!?\n])\W{0,5}(?:but|however|yet|though|although|nevertheless)\b([^.!?\n]*)",
    re.IGNORECASE,
)
DOUBTED = 200  # characters before and behind a statement in which its sentence is sought


def option(text: str) -> str | None:
    """The letter A to D of an answer: in the last box; else, where no box gives another kind of answer, in the last
    statement such as "Answer: C". No bare letters.

    A box that is empty or holds a quantity leaves the answer to the statements; one that holds anything else that is no
    letter, such as "E" or "A or B", takes back what was stated before it.
    """
    box, end = last_box(text)
    if box is None:
        return None if tries_to_answer(text) else stated_option(text)
    content = plain(box)
    letter = boxed_option(content)
    if letter is not None:
        return letter
    return stated_option(text if not content or _QUANTITY.search(content) else text[end:])


def boxed_option(content: str) -> str | None:
    """The letter that the plain content of a box gives, alone or before the text of its option."""
    match = _OPTION.match(content)
    if match is None:
        return None
    letter, text = match["bare"] or match["bracketed"], match["text"] or ""
    return letter if letter.isupper() and not _BESIDE.fullmatch(text) and not _ANOTHER.search(text) else None


def stated_option(text: str) -> str | None:
    """The letter of the last statement that a text gives as its answer; None where it is doubted or taken back."""
    text = plain_prose(text)
    letter, end = None, 0
    for match in _STATEMENT.finditer(text):
        sentence = re.split(r"[.!?;\n]", text[max(end, match.start() - DOUBTED) : match.start()])[-1]
        if not _DOUBT.search(sentence) and not _QUESTION.match(text, match.end(), match.end() + DOUBTED):
            letter, end = match["line"] or match["alone"] or match["told"] or match["right"], match.end()
    rest = text[end:]
    if letter is None or _TAKEN_BACK.search(rest):
        return None
    return None if any(re.search(rf"\b{letter}\b", but) for but in _BUT.findall(rest)) else letter


def last_letter(text: str) -> str | None:
    """The last A, B, C or D that is a word of the upper-cased text. This released rule reads the article "a" as A."""
    found = re.findall(r"\b(A|B|C|D)\b", text.upper())
    return found[-1] if found else None
