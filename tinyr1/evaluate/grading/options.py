r"""Reads the letter of an option that an answer gives: in its last box, else in a statement (docs/evaluation.md §5).

    text --boxes.last_box--> content --answers.plain--> boxed_option --> letter
      \--answers.plain_prose--> sentences --stated_option: "Answer: C", not doubted, not taken back--> letter
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from tinyr1.data.answers import LETTERS, plain, plain_prose
from tinyr1.data.boxes import last_box
from tinyr1.evaluate.grading.extract import tries_to_answer

# A letter alone, or with brackets or a mark before the option's own text: "C", "(C)", "C) heat", "C: heat".
_OPTION = (
    r"(?:(?:option|choice|letter)\s+)?(?:(?P<bare>[A-D])|[(\[]\s*(?P<bracketed>[A-D])\s*[)\]])\s*"
    r"(?:[,;!]?\s*$|is (?:the )?(?:correct|right)(?: (?:answer|option|choice))?\s*$|"
    r"(?(bare)(?:[).:]|[-–—](?=\s)|(?<=\s)(?=\())|[.:]?)(?P<text>.*))"
)
# Another letter beside the first one, in a list, a ranking or a ratio; "I" before a small letter is a pronoun, "A" an
# article. And another lettered option in the text of the first.
_BESIDE = (
    r"[^\w.\n]{0,6}(?:(?:or|and|nor|to|then|also|maybe|possibly|perhaps|rather|even)\b[^\w.\n]{1,4}){0,3}"
    r"[(\[]?[A-D](?!\s[a-z])(?![\w'’])"
)
_ANOTHER = (
    r"(?:^|\b(?:or|and)\b|[,;/&])\s*(?:(?:and|or|but)\s)?(?:[(\[][A-D][)\]]|[A-D](?:[).:]|\s?[-–—]\s?(?=\w)))"
    r"|\s{2}[A-D][).:]\s|(?<![A-Z] )\b(?:or|and)(?:\s\w+){0,2}\s[(\[]?[A-D][)\]]?\W*$"
    r"|^\W*(?:is|are) (?:not|wrong|false|incorrect)\b"
)
_PAIR = re.compile(r"\s*\(\s*-?[0-9.]+\s*,[-0-9., ]*\)\s*")  # "C (10, 3)" is a number
# What a box may hold beside the answer line: a quantity, told by a digit, a command or a relation.
_QUANTITY = re.compile(r"[0-9=<>^_]|\\[A-Za-z]")


def _letter(name: str) -> str:
    """The pattern of a letter that a statement gives, in the group `name`."""
    return rf"(?:(?i:option|choice|letter) )?[(\[]?\b(?P<{name}>[A-D])\b"


# What may stand behind the letter: the end, a mark of a sentence, the option's own text behind a colon, a dash, in
# brackets or with a capital, and a reason. No sign of a formula, in which the letter is a symbol, and no word: "the
# answer is A good guess" is no answer, and "C if …" is none for certain.
_END = (
    r"(?=[)\]]+\s|[)\]]*(?:\s*$|\n|\s?[.,;:!](?![\w^])|\s?[–—]\s?|\s-\s|\s\((?!\d+\s*,)|\s[✓✔✅☑]|\s[A-Z][a-z]|\s[0-9]|"
    r"\s(?:because|since|as(?! well)|for|which|where|with|when|whose|while|by|due|so|given|in|from|at|on|based|"
    r"according|not|and not|but not|rather than|instead of)\b))"
)
# A statement that gives several letters: a list or a ranking, whose other letters nothing is said of; letters for other
# cases, "C for even n, D for odd n"; and letters that each have something, "A – 3, B – 1", "(A) true (B) false".
_SEVERAL = (
    r"[)\]]*(?:\W{0,4}(?:or|and|nor|/|,)\W{0,4}[A-D]\b"
    rf"|{_BESIDE}(?![^.\n]*\b(?:is|are|was|were|fails?|does|do|can|cannot|has|have|gives?|would)\b)"
    r"|[^.!?\n]*?(?:[,;]|\sand)\s(?:(?:and|but|or)\s)?(?:option\s)?[(\[]?[A-D][)\]]?\s(?:(?:for|when|if|in|otherwise)\b|[–—:-]\s)"
    r"|(?<=[)\]])\s(?!(?:\w+\s){0,3}(?:not|than|of|over|from|because|since|unlike)\b)(?:\w+\s){1,4}\([A-D]\)\s)"
)
_ADVERB = r"(?:(?:therefore|thus|hence|clearly|indeed|definitely|certainly|then|again) )?"
_BEFORE = (
    r"\b(?i:so|thus|hence|therefore|consequently|that|then|only|and|but|clearly|indeed|since|because|as|means|implies|"
    r"think|believe|conclude|know|find|see|now|finally|overall|though|although|while|whereas|yet|however)"
)
_STATEMENT = (
    # "Answer: C"; what follows on the next line belongs to it no more
    rf"(?i:\b(?:answer(?: choice)?|ans\.?|(?:correct|right) (?:option|choice))) ?[:=]\s?{_letter('line')}"
    rf"(?:[)\].]* ?(?=\n(?!or\b|and\b))|{_END})"
    # "Answer" as a heading, and as a tag; four marks are the form of GSM8K
    rf"|^#### {_letter('marked')}[)\].]*$"
    rf"|^(?:#+ )?(?i:(?:final )?answer)\n{_letter('alone')}(?:[)\].]*$|[)\]]+ )"
    rf"|(?i:<answer>)\s?{_letter('tagged')}[)\].]*\s?(?=</)"
    # "the answer is C", "the answer to this question is C", "the correct option is C"
    rf"|(?i:\b(?:answer(?: to (?:the|this) (?:question|problem))?|"
    rf"(?:correct|right|best) (?:option|choice|letter|statement|one))) "
    rf"(?i:is|must be|should be|would be|has to be)\b ?:?\s?"
    rf"{_ADVERB}{_letter('told')}{_END}"
    # "C is right", where it begins what is said: "vitamin C is right" and "neither A nor C is right" do not
    rf"|(?:(?:^|[.!?:;,(—–-] ?)|{_BEFORE} ){_letter('right')}[)\]]? is {_ADVERB}(?:the (?:final |best )?answer|"
    r"(?:the )?(?:only )?(?:right|correct)\b(?: (?:one|answer|option|choice|letter))?|the best (?:option|choice))"
    r"(?=\s?(?:[.!;,\n]|$|because\b|since\b|as\b|and [A-D]\b))"
    # Chinese: "the answer is C", "so choose C"
    r"|(?:(?<!错误)答案(?:是|为)?|[故应]选)\s?[:：]?\s?[(（]?(?P<chosen>[A-D])(?!\w)"
)
# Counts only where a text has no statement of those above, for it may be said of options that are discussed.
_MATCHING = (
    r"\b(?i:corresponds to|matches|is closest to) (?i:the )?(?i:(?:answer )?(?:option|choice)) "
    rf"[(\[]?(?P<matching>[A-D])\b{_END}"
)
# Words before a statement, in its sentence, with which it is none; and a question mark behind it.
_DOUBT = re.compile(
    r"\bat first\b|\bfirst (?:sight|glance|thought)\b|\b(?:initially|naively|tempting|suppose|assume|imagine)\b"
    r"(?:\W{1,3}\w+){0,4}\W*$|\b(?:might|may|could|would) (?:\w+ )?(?:think|say|guess|(?<!as you might )expect|assume|"
    r"believe|conclude|suspect|seem|appear|suggest)|\b(?:it|this) (?:seems|appears|looks)\b|"
    r"\b(?:if|whether|unless|doubt)\b|"
    r"(?:\bnot|n['’]t) (?:be |sure|clear|certain|true|think|the case)|\bmistake\b|\b(?:wrong|false|incorrect) that\b|"
    r"\b(?:impossible|rule out|must check|can(?:not|['’]t) (?:say|tell|know)|no (?:reason|way))\b|"
    r"\b(?:you|one|we)['’]d (?:\w+ )?(?:expect|think|guess|say)\b|"
    r"\b(?:some|many|others|people|students|one|you) (?:\w+ )?(?:say|claim|think|argue|believe|answer)|"
    r"(?<!\bas i )(?<!\bas we )(?<!\bi have )(?<!\bas )\b(?:says|said|claims|claimed|thinks|argues|argued|believes|"
    r"believed|guessed)\b",
    re.IGNORECASE,
)
# Words right before "answer", with which it is none of this text, or not its last.
_OTHERS = re.compile(
    r"\b(?:wrong|incorrect|false|trap|worst|bad|least(?: \w+)?|student(?:['’]?s)?|your|user['’]s|their|his|her|"
    r"previous|initial|rejected|alternative|tempting|unlikely|(?<!only )(?<!best )possible|second[- ]best|"
    r"not (?:the|an?|my)) $|\bnon-$",
    re.IGNORECASE,
)
# Between two statements of a sentence: what makes the second one take the place of the first.
_INSTEAD = re.compile(
    r"[.!?\n]|\b(?:but|however|no|not|wait|rather|instead|actually|so|then|therefore|though|although|while)\b",
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
# What is said for a letter behind "but", where it is not denied: "However, only C satisfies both."
_FOR = re.compile(r"\b(?:only|best|fits?|satisf\w+|correct|right|match\w*|consistent|works|why)\b", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|cannot|fails?|wrong|false|neither|nor|never)\b|n['’]t\b", re.IGNORECASE)
_QUOTED = re.compile(r"(?<!\w)['‘]([A-Z])['’](?!\w)")
DOUBTED = 200  # characters before and behind a statement in which its sentence is sought


class _Patterns(NamedTuple):
    """The patterns above for a number of options, whose letters stand in place of A to D."""

    option: re.Pattern
    beside: re.Pattern
    another: re.Pattern
    several: re.Pattern
    matching: re.Pattern
    statement: re.Pattern


@lru_cache
def _patterns(n: int) -> _Patterns:
    def compiled(pattern: str, flags: int = 0) -> re.Pattern:
        return re.compile(pattern.replace("[A-D]", f"[A-{LETTERS[n - 1]}]"), flags)

    return _Patterns(
        option=compiled(_OPTION, re.DOTALL | re.IGNORECASE), beside=compiled(rf"{_BESIDE}\W{{0,3}}$|[A-D]\b"),
        another=compiled(_ANOTHER), several=compiled(_SEVERAL), matching=compiled(_MATCHING),
        statement=compiled(_STATEMENT, re.MULTILINE),
    )  # fmt: skip


def option(text: str, n: int = 4) -> str | None:
    """The letter of an answer, one of the first n: in the last box; else, where no box gives another kind of answer, in
    the last statement such as "Answer: C". No bare letters.

    A box that is empty or holds a quantity leaves the answer to the statements; one that holds anything else that is no
    letter, such as "E" or "A or B", takes back what was stated before it. A letter in a box is taken back by words such
    as "wait, that is wrong" with another statement behind it.
    """
    box, end = last_box(text)
    if box is None:
        return None if tries_to_answer(text) else stated_option(text, n)
    content = plain(box)
    letter = boxed_option(content, n)
    if letter is not None:
        return (_TAKEN_BACK.search(text, end) and stated_option(text[end:], n)) or letter
    return stated_option(text if not content or _QUANTITY.search(content) else text[end:], n)


def boxed_option(content: str, n: int = 4) -> str | None:
    """The letter that the plain content of a box gives, alone or before the text of its option."""
    patterns = _patterns(n)
    match = patterns.option.match(content)
    if match is None:
        return None
    letter, text = match["bare"] or match["bracketed"], match["text"] or ""
    is_alone = not patterns.beside.match(text) and not patterns.another.search(text) and not _PAIR.fullmatch(text)
    return letter if letter.isupper() and is_alone else None


class _Given(NamedTuple):
    """A statement: its letter, where the statement and its letter begin and end, and whether it is "C is right"."""

    letter: str
    start: int
    letter_start: int
    letter_end: int
    end: int
    is_right: bool


def _statements(text: str, pattern: re.Pattern) -> Iterator[_Given]:
    """Yield the statements of a text that are not doubted, asked, or about the answer of somebody else."""
    end = 0
    for match in pattern.finditer(text):
        name = str(match.lastgroup)
        start, stop = match.span(name)
        # "It is false that C is right": "that" belongs to the statement.
        before = text[max(end, match.start() - DOUBTED) : start if name == "right" else match.start()]
        sentence = re.split(r"[.!?;\n]", before)[-1]
        is_doubted = _DOUBT.search(sentence) or _OTHERS.search(sentence)
        is_pronoun = match[name] == "I" and not re.match(r"[).:\]]|\s*$|\n", text[stop:])
        if not is_doubted and not is_pronoun and not _QUESTION.match(text, match.end(), match.end() + DOUBTED):
            yield _Given(match[name], match.start(), start, stop, match.end(), name == "right")
            end = match.end()


def stated_option(text: str, n: int = 4) -> str | None:
    """The letter of the last statement that a text gives as its answer; None where it gives several letters, or is
    doubted or taken back."""
    text, patterns = _QUOTED.sub(r"\1", plain_prose(text)), _patterns(n)
    letter, end, right = None, 0, ""
    for given in _statements(text, patterns.statement):
        between = text[end : given.letter_start]
        is_or = re.fullmatch(r"\W*or\W*", text[end : given.start])
        joined = letter is not None and (is_or or not _INSTEAD.search(between))
        # "A is right. B is right." gives no letter.
        right = given.letter + (right if not _TAKEN_BACK.search(between) else "") if given.is_right else ""
        several = len(set(right)) > 1 or (joined and given.letter != letter)
        letter = None if several or patterns.several.match(text, given.letter_end) else given.letter
        end = given.end
    if not end:
        ends = {given.letter: given.end for given in _statements(text, patterns.matching)}
        letter, end = next(iter(ends.items())) if len(ends) == 1 else (None, 0)
    rest = text[end:]
    if letter is None or _TAKEN_BACK.search(rest):
        return None
    said = [but for but in _BUT.findall(rest) if re.search(rf"\b{letter}\b", but)]
    return letter if all(_FOR.search(but) and not _DENIED.search(but) for but in said) else None
