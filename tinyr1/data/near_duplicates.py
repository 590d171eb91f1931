r"""Finds training questions that ask the same as an earlier one in other words.

    question --units--> words and formula parts --MinHash--> candidates --_repeats--> a near-duplicate

A near-duplicate has the same formulas in the same order, the same words of contrast (`largest`, `without`, `odd`), and
the same other words but for polite ones; only wording may differ.

MinHash comes from rensa, which needs no other package and does the sketches and look-ups of 94,000 questions in 12
seconds and 250 MB, where datasketch takes 280 seconds and 1.1 GB; text-dedup and datatrove bring dozens of packages.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rensa import RMinHash, RMinHashLSH

from tinyr1.core.errors import UserError
from tinyr1.data.duplicates import FENCED, GREEK, normalised_code, normalised_prose, words

# What a question may say or leave out without asking anything else.
POLITE = words(
    """the of is are was were be been being an in that which this these those there here it its itself they their them
    then so such thus given let suppose assume consider denote denotes denoted know known we you your our us me please
    find compute determine calculate evaluate obtain solve state give report what how many much number value answer
    result problem question exercise task following if when where and also as with for on at do does did can could will
    would shall should may might possible have has had having exact get want need wants needs asked work
    final response return write put express reason step steps carefully homework now"""
)
# Words that turn one question into another: two near-duplicates have the same ones in the same order.
CONTRAST = words(
    """not no non none never neither nor without cannot except unless only but or either both all any some every
    always sometimes impossible true false correct incorrect same different distinct equal unequal identical
    largest smallest most fewest least longest shortest nearest farthest closest earliest latest oldest youngest
    tallest fastest slowest best worst more less fewer greater smaller larger bigger higher lower longer shorter older
    younger faster slower earlier later taller heavier lighter above below over under exactly about
    even odd positive negative nonnegative nonpositive nonzero real complex imaginary rational irrational integer
    natural whole prime composite perfect consecutive proper improper finite infinite decimal fraction percent digit
    increasing decreasing increase decrease increased decreased grow shrink gain lose win buy sell add subtract
    multiply divide added subtracted multiplied divided doubled halved squared cubed square cube root power factor
    sum product difference quotient ratio remainder average mean median mode variance deviation probability expected
    area perimeter volume surface circumference radius diameter length width height depth base side diagonal angle
    hypotenuse leg chord arc sector tangent slope intercept vertex edge face centroid incenter circumcenter orthocenter
    triangle rectangle circle sphere cylinder cone pyramid trapezoid parallelogram rhombus hexagon pentagon polygon
    right acute obtuse isosceles equilateral scalene regular convex concave inscribed circumscribed shaded
    before after first last next previous initial beginning end start left up down top bottom upper inside outside
    inner outer interior exterior north south east west clockwise counterclockwise horizontal vertical parallel
    perpendicular open closed inclusive exclusive strictly numerator denominator domain range row column
    convergent divergent converge diverge continuous discontinuous injective surjective bijective ascending descending
    sorted unsorted reverse reversed front back head tail prefix suffix subarray subsequence substring
    local global relative absolute solution series sequence arithmetic geometric harmonic derivative integral
    prove disprove show simplify expand differentiate integrate maximize minimize
    acid oxidation reduction endothermic exothermic cation anion anode cathode dominant recessive hot cold
    fair biased replacement repetition order ordered unordered
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half third
    quarter second fourth fifth sixth seventh eighth ninth tenth once twice thrice double triple dozen"""
)
# Words that count as the first word of their line.
SAME_WORD = {
    other: line.split()[0]
    for line in (
        "largest greatest biggest maximum maximal max highest",
        "smallest minimum minimal min lowest",
        "every each",
        "maximize maximise",
        "minimize minimise",
        "meter metre",
        "kilometer kilometre",
        "centimeter centimetre",
        "liter litre",
        "color colour",
        "center centre",
        "people person",
        "begin begins start starts starting",
        "vertex vertices",
        "child children",
    )
    for other in line.split()[1:]
}

LETTER = r"[^\W\d_]"
IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
# `a` before a word is an article; before one of these it is a symbol: "a is", "a and b".
AFTER_SYMBOL = "be|is|are|was|and|or|has|to|in|on|at|by|of|for|with|such|where|when|then|so|if|lies|denotes?|equals?"
# Marks between words are punctuation; those that touch a number, a symbol or a bracket are part of a formula.
UNIT = re.compile(
    rf"\\[A-Za-z]+|\\.|\d+(?:[.,]\d+)*|[{IDEOGRAPH}]|(?:(?![{IDEOGRAPH}{GREEK}]){LETTER}){{2,}}"
    rf"|(?!(?<!\w)[aA] (?!(?:{AFTER_SYMBOL})\b)[a-z]{{2}})(?<!{LETTER}{{2}}'){LETTER}"
    rf"|(?<!{LETTER}{{2}})[!']|(?<!{LETTER}{{2}})[,:](?!{LETTER}{{2}})|-(?!{LETTER}{{2}})|(?<!{LETTER}{{2}})-"
    r"|[^\w\s.,;:?!'\"-]|_",
)
LABEL = re.compile(
    r"\A\W*(?:(?i:problem|question|exercise|example|task|q)\s*\.?\s*(?i:no\.?|number|nr\.?|#)?\s*\d+(?:\.\d+)*\s*"
    r"(?:[.:)]|-\s)|\(?\d+[.)](?=\s+(?:[A-Z][a-z]|A\s)))\s*"
)
# "Put your final answer within \boxed{}."
BOXED = re.compile(r"(?<![^.?!\n])[^.?!\n]*\\boxed\s*\{\s*\}[^.?!\n]*[.!]?\s*")
REQUEST = re.compile(  # "Show your work."
    r"(?:please\s+)?(?:show (?:all )?your work|justify your answer|explain your (?:answer|reasoning))(?:ing)?[.!]\s*"
    r"|(?:please\s+)?(?:think|reason) step by step[.!]\s*",
    re.IGNORECASE,
)
FORMULA = re.compile(r"(\$[^$]{1,400}\$|\\\(.{1,400}?\\\)|\\\[.{1,800}?\\\])", re.DOTALL)
SHOUTED = re.compile("[A-Z]{2,}")
NEGATED = re.compile("n['’]t\\b|\\bcannot\\b")
CODE_UNIT = re.compile(r"\w+|[^\w\s]|\n *")


def unlabelled(question: str) -> str:
    r"""The question without a number before it ("Problem 3.") and without words on the form of the answer."""
    if "\\boxed" in question:
        question = BOXED.sub(" ", question)
    if "your" in question or "step by step" in question:
        question = REQUEST.sub(" ", question)
    return LABEL.sub("", question, count=1)


def calm(text: str) -> str:
    """The text with its words in lower case where all of its prose is in upper case; symbols and formulas stay."""
    parts = FORMULA.split(text)
    if not "".join(parts[::2]).isupper():
        return text
    parts[::2] = [SHOUTED.sub(lambda word: word[0].lower(), part) for part in parts[::2]]
    return "".join(parts)


def _prose_units(text: str) -> list[str]:
    """Words, numbers, symbols and signs of the text, in order, without its punctuation."""
    text = calm(text)
    if "n't" in text or "n’t" in text or "cannot" in text:
        text = NEGATED.sub(" not", text)
    return UNIT.findall(normalised_prose(text))


POLITE_UNIT, PLAIN_UNIT, CONTRAST_UNIT, FORMULA_UNIT = range(4)


def _word(text: str) -> tuple[int, str]:
    """(kind, the form that the word shares with its plural and its synonyms).

    What has upper case inside, or two letters of which one is upper case, is a symbol: ABC, NaCl, Co.
    """
    word = SAME_WORD.get(text.lower(), text.lower())
    if word not in CONTRAST and word not in POLITE and len(word) > 3 and re.search("[^s]s$", word):
        word = SAME_WORD.get(word[:-1], word[:-1])
    if text[1:] != text[1:].lower() or (len(text) == 2 and text != text.lower() and word not in POLITE):
        return FORMULA_UNIT, text
    if word in POLITE:
        return POLITE_UNIT, word
    return (CONTRAST_UNIT if word in CONTRAST else PLAIN_UNIT), word


class _Vocabulary:
    """Numbers for units, so that a question is an array of 4 bytes a unit; the two low bits are the kind.

    A polite word has the number 0. `number & 2` holds for words of contrast and for formulas.
    """

    def __init__(self) -> None:
        self.number_of: dict[str, int] = {}  # by unit as written
        self.number_of_form: dict[tuple[int, str], int] = {}

    def _learn(self, unit: str, is_code: bool) -> int:
        is_word = not is_code and len(unit) > 1 and unit.isalpha()
        kind, form = _word(unit) if is_word else (FORMULA_UNIT, unit)
        if not is_code and len(unit) == 1 and re.match(f"[{IDEOGRAPH}]", unit):
            kind = PLAIN_UNIT
        if kind == POLITE_UNIT:
            number = 0
        else:
            number = self.number_of_form.setdefault((kind, form), 4 * (len(self.number_of_form) + 1) + kind)
        self.number_of[("\0" if is_code else "") + unit] = number
        return number

    def numbers(self, units: Sequence[str], is_code: bool) -> Iterator[int]:
        """The numbers of the units, polite words left out. Every unit of code counts as one of a formula."""
        known, mark = self.number_of, "\0" if is_code else ""
        for unit in units:
            number = known.get(mark + unit if is_code else unit)
            if number is None:
                number = self._learn(unit, is_code)
            if number:
                yield number


# --- near-duplicates ------------------------------------------------------------------------------------------------


def _repeats(one: Sequence[int], other: Sequence[int], threshold: float) -> bool:
    """Whether two questions of the same formulas and contrasts differ in wording only.

    Pairs of neighbouring units are compared: their Jaccard similarity reaches the threshold, and no unit of both
    questions lacks a neighbour in common (a word that was replaced, or two that changed places). One of the questions
    may say more at its beginning or its end.
    """
    pairs = [set(pairwise(one)), set(pairwise(other))]
    shared = pairs[0] & pairs[1]
    if len(shared) < threshold * len(pairs[0] | pairs[1]):
        return False
    alone = [_alone(units, shared) for units in (one, other)]
    return not all(alone) and all(map(_at_the_ends, alone, (one, other)))


def _alone(units: Sequence[int], shared: set[tuple[int, int]]) -> list[int]:
    """Positions of the units that are part of no shared pair."""
    inside = [pair in shared for pair in pairwise(units)]
    return [i for i, (a, b) in enumerate(zip([False, *inside], [*inside, False], strict=True)) if not (a or b)]


def _at_the_ends(positions: list[int], units: Sequence[int]) -> bool:
    """Whether the positions are the first ones of the units, the last ones, or both."""
    at_start = next((i for i, position in enumerate(positions) if i != position), len(positions))
    rest = positions[at_start:]
    return rest == list(range(len(units) - len(rest), len(units)))


def _bands(threshold: float, num_perm: int) -> int:
    """The fewest bands, a divisor of num_perm, that miss less than one in a thousand pairs at the threshold."""
    for bands in range(1, num_perm + 1):
        if num_perm % bands == 0 and (1 - threshold ** (num_perm // bands)) ** bands < 1e-3:
            return bands
    return num_perm


class NearDuplicates:
    """The questions so far, each in some 3 KB whatever its length; says which one another question repeats.

    threshold: the least Jaccard similarity, above 0 and at most 1, of the pairs of neighbouring units of two questions.
    num_perm: hash functions of a sketch. The seed decides them, and so which few pairs at the threshold are missed.
    UserError when the threshold is none.
    """

    def __init__(self, threshold: float, num_perm: int = 128, seed: int = 1) -> None:
        if not 0 < threshold <= 1:
            raise UserError(
                f"near-duplicates: threshold {threshold} is no similarity; take a number above 0 and at most 1, as 0.7"
            )
        self.threshold, self.num_perm, self.seed = threshold, num_perm, seed
        self.vocabulary = _Vocabulary()
        self.units, self.ends = array("I"), array("Q", [0])
        self.sketches = RMinHashLSH(threshold=threshold, num_perm=num_perm, num_bands=_bands(threshold, num_perm))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def find(self, question: str, starter_code: str = "") -> int | None:
        """The index of an earlier question that this one repeats in other words, or None; it is not added."""
        return self._find(*self._sketch(question, starter_code))

    def add(self, question: str, starter_code: str = "") -> int | None:
        """The same as `find`; a question that repeats none is added, and gets the next index, from 0 on."""
        numbers, sketch = self._sketch(question, starter_code)
        found = self._find(numbers, sketch)
        if found is None:
            if len(numbers) > 1:
                self.sketches.insert(len(self), sketch)
            self.units.extend(numbers)
            self.ends.append(len(self.units))
        return found

    def _sketch(self, question: str, starter_code: str) -> tuple[array, RMinHash]:
        """(numbers of the units, MinHash of their pairs).

        Each pair is hashed together with all formulas and contrasts of the question: two questions that differ in one
        of them have no pair in common, however alike their template is, and are never compared.
        """
        numbers = array("I")
        for i, part in enumerate([*FENCED.split(unlabelled(question)), starter_code]):  # prose, code, prose, ... code
            units = CODE_UNIT.findall(normalised_code(part)) if i % 2 else _prose_units(part)
            numbers.extend(self.vocabulary.numbers(units, is_code=bool(i % 2)))
        meaning = hash(tuple([number for number in numbers if number & 2]))
        sketch = RMinHash(num_perm=self.num_perm, seed=self.seed)
        sketch.update([f"{meaning} {a} {b}" for a, b in pairwise(numbers)])
        return numbers, sketch

    def _find(self, numbers: array, sketch: RMinHash) -> int | None:
        if len(numbers) < 2:
            return None
        meaning = [number for number in numbers if number & 2]
        for i in sorted(self.sketches.query(sketch)):
            earlier = self.units[self.ends[i] : self.ends[i + 1]]
            if meaning == [number for number in earlier if number & 2] and _repeats(numbers, earlier, self.threshold):
                return i
        return None
