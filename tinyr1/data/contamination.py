r"""Finds training rows that repeat a benchmark question (docs/fidelity.md §1.3).

There are three ways to repeat one, tried in this order:

    exact     the normalised question, alone or as whole sentences of the row (`tinyr1.data.duplicates.normalised`)
    n-gram    at least `min_share` of the question's n-grams, words and formulas in any script, occur in the row
    renamed   the same with one mark for every single-letter symbol, a large share, the question's numbers in order, and
              one other symbol of a formula for each symbol that changed

A question shorter than an n-gram has none, and is found by the first way, or by the third one as a whole.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

from tinyr1.core.params.domains import Decontaminate
from tinyr1.data.duplicates import FUNCTIONS, GREEK, normalised
from tinyr1.data.near_duplicates import FORMULA, IDEOGRAPH, LETTER, calm, unlabelled

# Formulas without their words have little to tell one from another: a smaller share of them is no evidence.
RENAMED_SHARE = 0.8
FEWEST_UNITS = 3  # of a question that is looked for inside a row, or by its form: "Find x." is part of many questions

LATIN = "a-z\u00df-\u00f6\u00f8-\u024f"
# A word, a number, an ideograph; a sign of a formula belongs to the number or the symbol that follows it.
UNIT = re.compile(
    rf"(?:(?<![-+*/=<>≤≥≠^_±∈|])[-+*/=<>≤≥≠^_±∈|]++(?=\d|{LETTER}(?!{LETTER})))?"
    rf"(?:\d+(?:\.\d+)?|[{IDEOGRAPH}]|[{LATIN}]+|[{GREEK}]+|(?:(?![{LATIN}{GREEK}{IDEOGRAPH}]){LETTER})+)"
    rf"(?:(?<!{LETTER}{{2}})[!%°]+)?",
    re.IGNORECASE,
)
SYMBOL = re.compile(rf"(?<!{LETTER})(?![{IDEOGRAPH}]){LETTER}(?!{LETTER})")
SIGNS = str.maketrans("×·÷", "**/")
OPENED = re.compile(r"(?<=[-+*/=<>≤≥≠^_±∈|])[\s({\[]+")
SENTENCE = re.compile(rf"(?<=[.:?])\s+(?={LETTER}|[$\\])|(?<=[。？！])")
PRODUCT = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,4}(?![A-Za-z])")
CAPITALS = re.compile(r"(?<![\\A-Za-z])[A-Z]{2,4}(?![A-Za-z])")
# Short words that a formula may hold beside products of symbols.
NAMES = FUNCTIONS | {"if", "and", "or", "is", "of", "for", "the", "in", "cm", "mm", "km", "kg", "ft", "mph", "text"}
# Tokens of a short question, of which the form is compared as a whole.
TOKEN = re.compile(rf"\d+(?:[.,]\d+)*|[{IDEOGRAPH}]|(?:(?![{IDEOGRAPH}]){LETTER})+|[^\w\s\\.,;:?\"$]|_")
BRACKETS = str.maketrans("{}[]", "()()")
SINGLE = re.compile(rf"\(({LETTER}+|\d+(?:\.\d+)?)\)")
# A symbol beside a sign. A minus is none: DNA is written as T-C-A.
BESIDE_SIGN = re.compile(
    rf"(?<!{LETTER})({LETTER})(?=\s*[+*/=<>≤≥≠^_(!×·÷])|(?<=[+*/=<>≤≥≠^_)×·÷\d])\s*({LETTER})(?!{LETTER})"
)


class Hit(NamedTuple):
    """The benchmark question that a row repeats, how much of it (1: all), and how it was found."""

    question: str
    share: float
    kind: str  # "exact", "n-gram" or "renamed"


def units(text: str) -> list[str]:
    r"""Lower-case words, numbers and symbols in any script; a/b and \frac{a}{b} give the same ones."""
    return _split(normalised(text))


def _split(text: str) -> list[str]:
    """The units of a normalised text."""
    return _cased(text.lower())


def _cased(text: str) -> list[str]:
    """The units of a normalised text as they are written."""
    plain = text.replace("\\frac", " ").replace("}{", "/")
    if not plain.isascii():
        plain = plain.translate(SIGNS)
    return UNIT.findall(OPENED.sub("", plain))


def _spread(text: str) -> str:
    """The text with blanks between the symbols of a product (`xy` in a formula) and of a figure (triangle ABC)."""

    def apart(found: re.Match[str]) -> str:
        return found[0] if found[0] in NAMES else " ".join(found[0])

    return CAPITALS.sub(apart, FORMULA.sub(lambda formula: PRODUCT.sub(apart, formula[0]), calm(text)))


@lru_cache(maxsize=1 << 16)
def _marked(unit: str) -> str:
    """The unit with a mark in place of its symbol, where it has one."""
    return SYMBOL.sub("•", unit)


def marked_units(text: str) -> list[str]:
    """The units of a text with one mark for every single-letter symbol: the same for `x + 2y` and for `a + 2b`."""
    return [_marked(unit) for unit in units(_spread(text))]


def form(text: str) -> tuple[str | int, ...]:
    """The whole text with the number of its first occurrence for each symbol: `x + y + x` gives 0 + 1 + 0.

    It is the same for two texts if one renaming of symbols turns one into the other.
    """
    plain = normalised(_spread(text)).replace("\\frac", " ").replace("}{", ")/(").translate(SIGNS).translate(BRACKETS)
    order: dict[str, int] = {}
    return tuple(
        order.setdefault(token, len(order)) if SYMBOL.fullmatch(token) else token.lower()
        for token in TOKEN.findall(SINGLE.sub(r" \1 ", plain))
    )


def _formula_symbols(text: str) -> set[str]:
    """The symbols that stand in a formula of the text or beside a sign."""
    parts = FORMULA.split(_spread(text))
    inside = (symbol for part in parts[1::2] for symbol in SYMBOL.findall(normalised(part)))
    beside = (one or other for one, other in BESIDE_SIGN.findall(normalised("".join(parts))))
    return {*inside, *beside}


def _is_renaming(question: str, text: str) -> bool:
    """Whether the symbols of the question that changed are symbols of formulas, each with one other in its place."""
    ours, theirs = (_cased(normalised(_spread(each))) for each in (question, text))
    one, other = ([_marked(unit).lower() for unit in each] for each in (ours, theirs))
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    matched = [(ours[i + k], theirs[j + k]) for i, j, n in matcher.get_matching_blocks() for k in range(n)]
    pairs = {pair for a, b in matched for pair in zip(SYMBOL.findall(a), SYMBOL.findall(b), strict=True)}
    pairs -= {("a", "a"), ("A", "A"), ("I", "I")}  # the article and the pronoun look like symbols
    changed = {(a, b) for a, b in pairs if a != b}
    is_bijection = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    symbols = _formula_symbols(question), _formula_symbols(text)
    return is_bijection and all(a in symbols[0] and b in symbols[1] for a, b in changed)


def _numbers(tokens: Iterable[str]) -> list[str]:
    return [digits for token in tokens for digits in re.findall(r"\d+(?:\.\d+)?", token)]


def _holds(long: Sequence[str], short: Sequence[str]) -> bool:
    """Whether the short sequence is a part of the long one, without gaps."""
    return any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))


def _ngrams(tokens: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return set(zip(*(tokens[i:] for i in range(n)), strict=False))


class _Shares:
    """Which share of the n-grams of each question a text has. Questions shorter than n units have none."""

    def __init__(self, questions: Iterable[Sequence[str]], n: int) -> None:
        self.n = n
        grams = [_ngrams(tokens, n) for tokens in questions]
        self.sizes = [len(found) for found in grams]
        self.index: dict[tuple[str, ...], list[int]] = {}
        for i, found in enumerate(grams):
            for gram in found:
                self.index.setdefault(gram, []).append(i)

    def of(self, tokens: Sequence[str], least: float) -> list[tuple[float, int]]:
        """(share, number of the question) of the questions with at least the least share, the largest first."""
        found = Counter(i for gram in _ngrams(tokens, self.n) if gram in self.index for i in self.index[gram])
        shares = [(count / self.sizes[i], i) for i, count in found.items()]
        return sorted((pair for pair in shares if pair[0] >= least), key=lambda pair: (-pair[0], pair[1]))


class Contamination:
    """An index of benchmark questions, which says whether a text repeats one of them.

    A low `min_share` catches quotations in long competition problems. Templated questions, which share their phrasing
    and differ in their numbers, need a high one.

    questions: dicts of `tinyr1.data.benchmarks`. Their texts are in `questions`; those that must not be published are
    also in `private`. rule: None compares no text with any of them.
    """

    def __init__(self, questions: Iterable[dict], rule: Decontaminate | None) -> None:
        private: dict[str, bool] = {}
        for q in questions if rule else ():
            private[q["question"]] = private.get(q["question"], False) or q["private"]
        self.rule = rule = rule or Decontaminate(ngram=1, min_share=1)
        self.questions = list(private)
        self.private = {question for question, hidden in private.items() if hidden}
        split = [units(question) for question in self.questions]
        marked = [marked_units(unlabelled(question)) for question in self.questions]
        self.quoted = _Shares(split, rule.ngram)
        self.renamed = _Shares(marked, rule.ngram)
        self.numbers = [_numbers(tokens) for tokens in marked]
        self.whole = {normalised(question): i for i, question in enumerate(self.questions)}
        self.short = {
            form(question): i
            for i, question in enumerate(self.questions)
            if FEWEST_UNITS <= len(marked[i]) < rule.ngram
        }  # fmt: skip
        parts = [_sentences(question) for question in self.questions]
        self.sentences = {tuple(p): i for i, p in enumerate(parts) if len(split[i]) >= FEWEST_UNITS}
        self.lengths = sorted({len(p) for p in self.sentences})  # how many sentences a question has

    def hit(self, text: str) -> Hit | None:
        """The benchmark question that the text repeats, or None; of several, the one with the largest share."""
        plain = normalised(text)
        return self._exact(text, plain) or self._quoted(plain) or self._renamed(text)

    def _exact(self, text: str, plain: str) -> Hit | None:
        found = self.whole.get(plain)
        if found is None:
            parts = _sentences(text)
            windows = (tuple(parts[i : i + n]) for n in self.lengths for i in range(len(parts) - n + 1))
            found = next((self.sentences[w] for w in windows if w in self.sentences), None)
        return None if found is None else Hit(self.questions[found], 1.0, "exact")

    def _quoted(self, plain: str) -> Hit | None:
        found = self.quoted.of(_split(plain), self.rule.min_share)
        return Hit(self.questions[found[0][1]], found[0][0], "n-gram") if found else None

    def _renamed(self, text: str) -> Hit | None:
        text = unlabelled(text)
        marked = marked_units(text)
        if FEWEST_UNITS <= len(marked) < self.rule.ngram and (found := self.short.get(form(text))) is not None:
            is_renamed = _is_renaming(self.questions[found], text)
            return Hit(self.questions[found], 1.0, "renamed") if is_renamed else None
        numbers = _numbers(marked)
        for share, i in self.renamed.of(marked, max(self.rule.min_share, RENAMED_SHARE)):
            if _holds(numbers, self.numbers[i]) and _is_renaming(self.questions[i], text):
                return Hit(self.questions[i], share, "renamed")
        return None


def _sentences(text: str) -> list[str]:
    """The normalised sentences of a text, without a number before it."""
    return [part for part in map(normalised, SENTENCE.split(unlabelled(text))) if part]
