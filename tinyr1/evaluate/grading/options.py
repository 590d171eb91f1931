r"""Reads the letter of an option that an answer gives: in its last box, else in a statement (docs/evaluation.md §5).

    text --boxes.last_box--> content --answers.plain--> boxed_option --> letter
      \--answers.plain_prose--> sentences --stated_option: "Answer: C", not doubted, not taken back--> letter
"""

import re
from functools import lru_cache
from typing import NamedTuple

from tinyr1.data.answers import LETTERS, plain, plain_prose
from tinyr1.data.boxes import last_box
from tinyr1.evaluate.grading.extract import tries_to_answer

# A letter alone, or with brackets or a mark before the option's own text: "C", "(C)", "C) heat", "C: heat".
_OPTION = (
    r"(?:(?:option|choice|letter)\s+)?(?:(?P<bare>[A-D])|[(\[]\s*(?P<bracketed>[A-D])\s*[)\]])\s*"
    r"(?:[,;!]?\s*$|(?(bare)(?:[).:]|[-–—](?=\s)|(?<=\s)(?=\())|[.:]?)(?P<text>.*))"
)
# Another letter beside the first one, and another lettered option in the text of the first.
_BESIDE = r"\W{0,4}(?:(?:or|and|nor|to)\b)?\W{0,4}[A-D]\W{0,3}"
_ANOTHER = r"(?:^|\b(?:or|and)\b|[,;/&])\s*\(?[A-D][).:]\s"
# What a box may hold beside the answer line: a quantity, told by a digit, a command or a relation.
_QUANTITY = re.compile(r"[0-9=<>^_]|\\[A-Za-z]")


def _letter(name: str) -> str:
    """The pattern of a letter that a statement gives, in the group `name`."""
    return rf"(?:(?i:option|choice|letter) )?[(\[]?\b(?P<{name}>[A-D])\b"


# After the letter there must be no word and no second letter that takes it back ("A or B"). A lower-case word may only
# give a reason or say where: "the answer is A good guess" is no answer, and "C if …" is none for certain.
_END = (
    r"(?![\w'’-])(?!\W{0,4}(?:or|and|nor|/|,)\W{0,4}[A-D]\b)(?! ?(?:[/&?+]|=\s?[0-9]))"
    r"(?![ –—~]{1,3}[A-D]\b)(?!\s(?!(?:because|since|as(?! well)|for|which|where|with|when|whose|while|by|due|so|given|"
    r"in|from|at|on|based|according|not|and not|but not|rather than|instead of)\b)[a-z])"
)
_ADVERB = r"(?:(?:therefore|thus|hence|clearly|indeed|definitely|certainly|then|again) )?"
_BEFORE = (
    r"\b(?i:so|thus|hence|therefore|consequently|that|then|only|and|but|clearly|indeed|since|because|as|means|implies|"
    r"think|believe|conclude|know|find|see|now|finally|overall|though|although|while|whereas|yet|however)"
)
_STATEMENT = (
    # "Answer: C"; what follows on the next line belongs to it no more
    rf"(?i:\b(?:answer|(?:correct|right) (?:option|choice))) ?[:=]\s?{_letter('line')}"
    rf"(?:[)\].]* ?(?=\n(?!or\b|and\b))|{_END})"
    # "Answer" as a heading
    rf"|^(?:#+ )?(?i:(?:final )?answer)\n{_letter('alone')}[)\].]*$"
    # "the answer is C", "the correct option is C"
    rf"|(?i:\b(?:answer|(?:correct|right|best) (?:option|choice|letter|one))) "
    rf"(?i:is|must be|should be|would be|has to be)\b ?:?\s?"
    rf"{_ADVERB}{_letter('told')}{_END}"
    # "C is right", where it begins what is said: "vitamin C is right" and "neither A nor C is right" do not
    rf"|(?:(?:^|[.!?:;,(—–-] ?)|{_BEFORE} ){_letter('right')}[)\]]? is {_ADVERB}(?:the (?:final |best )?answer|"
    r"(?:the )?(?:right|correct)\b(?: (?:one|answer|option|choice|letter))?|the best (?:option|choice))"
    r"(?=\s?(?:[.!;,\n]|$|because\b|since\b|as\b))"
)
# Words before a statement, in its sentence, with which it is none; and a question mark behind it.
_DOUBT = re.compile(
    r"\bat first\b|\bfirst (?:sight|glance|thought)\b|\b(?:initially|naively|tempting|suppose|assume|imagine)\b"
    r"(?:\W{1,3}\w+){0,4}\W*$|\b(?:might|may|could|would) (?:\w+ )?(?:think|say|guess|expect|assume|believe|conclude|"
    r"suspect|seem|appear|suggest)|\b(?:it|this) (?:seems|appears|looks)\b|\b(?:if|whether|unless|doubt)\b|"
    r"\b(?:not|n't) (?:sure|clear|certain|true|think|the case)\b|\bmistake\b|\b(?:wrong|false|incorrect) that\b|"
    r"\b(?:some|many|others|people|students|one|you) (?:\w+ )?(?:say|claim|think|argue|believe|answer)|"
    r"(?<!\bas i )(?<!\bas we )(?<!\bi have )(?<!\bas )\b(?:says|said|claims|claimed|thinks|argues|argued|believes|"
    r"believed|guessed)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[^.!?\n]*\?")
# A sentence behind it that takes it back, and one that says something against a letter.
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?\n])\W{0,5}(?:wait\b|no\s?[,.!—-]|hmm|actually\b|on second thought|correction\b|scratch that|let me re|"
    r"sorry\b|(?:that|this) (?:is|was) (?:wrong|false|incorrect|not (?:right|correct|true))(?! (?:for|of|about)\b))|"
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
_QUOTED = re.compile(r"(?<!\w)['‘]([A-Z])['’](?!\w)")
DOUBTED = 200  # characters before and behind a statement in which its sentence is sought


class _Patterns(NamedTuple):
    """The patterns above for a number of options, whose letters stand in place of A to D."""

    option: re.Pattern
    beside: re.Pattern
    another: re.Pattern
    statement: re.Pattern


@lru_cache
def _patterns(n: int) -> _Patterns:
    option, beside, another, statement = (
        pattern.replace("[A-D]", f"[A-{LETTERS[n - 1]}]") for pattern in (_OPTION, _BESIDE, _ANOTHER, _STATEMENT)
    )
    return _Patterns(re.compile(option, re.DOTALL | re.IGNORECASE), re.compile(beside), re.compile(another),
                     re.compile(statement, re.MULTILINE))  # fmt: skip


def option(text: str, n: int = 4) -> str | None:
    """The letter of an answer, one of the first n: in the last box; else, where no box gives another kind of answer, in
    the last statement such as "Answer: C". No bare letters.

    A box that is empty or holds a quantity leaves the answer to the statements; one that holds anything else that is no
    letter, such as "E" or "A or B", takes back what was stated before it.
    """
    box, end = last_box(text)
    if box is None:
        return None if tries_to_answer(text) else stated_option(text, n)
    content = plain(box)
    letter = boxed_option(content, n)
    if letter is not None:
        return letter
    return stated_option(text if not content or _QUANTITY.search(content) else text[end:], n)


def boxed_option(content: str, n: int = 4) -> str | None:
    """The letter that the plain content of a box gives, alone or before the text of its option."""
    patterns = _patterns(n)
    match = patterns.option.match(content)
    if match is None:
        return None
    letter, text = match["bare"] or match["bracketed"], match["text"] or ""
    is_alone = not patterns.beside.fullmatch(text) and not patterns.another.search(text)
    return letter if letter.isupper() and is_alone else None


def stated_option(text: str, n: int = 4) -> str | None:
    """The letter of the last statement that a text gives as its answer; None where it is doubted or taken back."""
    text = _QUOTED.sub(r"\1", plain_prose(text))
    letter, end = None, 0
    for match in _patterns(n).statement.finditer(text):
        sentence = re.split(r"[.!?;\n]", text[max(end, match.start() - DOUBTED) : match.start()])[-1]
        if not _DOUBT.search(sentence) and not _QUESTION.match(text, match.end(), match.end() + DOUBTED):
            letter, end = match["line"] or match["alone"] or match["told"] or match["right"], match.end()
    rest = text[end:]
    if letter is None or _TAKEN_BACK.search(rest):
        return None
    return None if any(re.search(rf"\b{letter}\b", but) for but in _BUT.findall(rest)) else letter
