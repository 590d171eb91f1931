r"""Measures how stage 01 finds repeated questions: seconds and memory at the paper's size, precision and recall.

    templates --seed--> questions --variant--> pairs: other words for the same question, or another question
    pairs --NearDuplicates--> precision, recall      questions --Contamination--> recall, false positives

`python tests/bench/bench_duplicates.py`, for about two minutes on one core. Everything here is made up.
"""

import argparse
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from tinyr1.core.params.domains import Decontaminate
from tinyr1.data.contamination import Contamination
from tinyr1.data.duplicates import question_key
from tinyr1.data.near_duplicates import NearDuplicates

QUESTIONS, PAIRS, THRESHOLD = 94_000, 2400, 0.7
MOST_SECONDS, MOST_MB = 60, 500  # CPU seconds of each step for QUESTIONS; memory beside that of the questions

# Numbers are {a} to {e}, symbols {x} {y} {z} {f}, objects {thing} {place} {name} {other}; {extra} is a sentence without
# any of them, which may stand elsewhere.
TEMPLATES = (
    "Let ${x}$ and ${y}$ be positive integers such that ${x}^2 + {a}{y} = {b}$. {extra} Find the largest possible value"
    " of ${x} + {c}{y}$.",
    "A bag in the {place} holds {a} red {thing} and {b} blue {thing}. {extra} {name} draws {c} of them without"
    " replacement. What is the probability that all {thing} in the hand are red?",
    "The function ${f}$ satisfies ${f}({x}) = \\frac{{{a}{x} + {b}}}{{{c}{x} - {d}}}$ for all real numbers ${x}$ where"
    " it is defined. {extra} Determine the sum of all solutions of ${f}({x}) = {e}$.",
    "{name} walks from the {place} to the station at {a} km per hour, waits there for {b} minutes, and takes a bus that"
    " runs {c} km. {extra} How many minutes after {other} does {name} arrive, if {other} needs {d} minutes?",
    "In triangle $ABC$ the side ${x}$ is ${a}$ and the side ${y}$ is ${b}$, and the angle between them is"
    " ${c}^\\circ$. {extra} What is the area of the triangle, to the nearest integer?",
    "Consider the sequence with first term ${a}$ in which every term is ${b} \\times$ the term before it, less ${c}$."
    " {extra} Find the smallest ${x}$ for which term number ${x}$ is at least ${d}$.",
    "How many ways are there to arrange {a} {thing} and {b} books on a shelf of the {place} so that no two books are"
    " next to each other? {extra} Give the remainder when this number is divided by {c}.",
    "Suppose that ${x} + {y} = {a}$ and ${x} \\cdot {y} = {b}$. {extra} Calculate the value of ${x}^{{{c}}} +"
    " {y}^{{{c}}}$ when ${x} \\le {y}$.",
    "A tank in the {place} is filled by a pipe in {a} hours and emptied by a drain in {b} hours. {extra} If both are"
    " open and the tank holds {c} liters at the beginning, when does {name} find it full?",
    "For a prime ${x}$ with ${a} \\le {x} \\le {b}$, let ${f}({x})$ be the number of even divisors of ${x}! + {c}$."
    " {extra} Evaluate the difference between the maximum and the minimum of ${f}$.",
    "{name} has {a} {thing} and gives {b} of them to {other}. {extra} Then {other} buys {c} more {thing} in the"
    " {place}. How many {thing} does {other} have now, if {other} had {d} before?",
    "Let ${f}({x}) = {a}{x}^3 - {b}{x} + {c}$ be a polynomial over the integers modulo ${d}$. {extra} Determine whether"
    " ${f}$ is injective, and compute ${f}({e})$.",
)
EXTRAS = (
    "Nobody else takes part in this story.", "The weather in the valley stays fine.", "Friends of the family watch it.",
    "A teacher wrote these lines for a contest.", "The village newspaper printed it long ago.",
)  # fmt: skip
OBJECTS = {
    "thing": ("apples", "marbles", "stamps", "pencils", "tickets", "candles", "buttons", "cards"),
    "place": ("garden", "market", "library", "harbour", "castle", "museum", "kitchen", "workshop"),
    "name": ("Alma", "Boris", "Chiara", "Dmitri", "Elena", "Farid"),
    "other": ("Greta", "Hakim", "Ingrid", "Jorge", "Keiko", "Lionel"),
}
SYMBOLS = {"x": "xmpt", "y": "ynqu", "z": "zkrv", "f": "fghw"}
NUMBERS = "abcde"


@dataclass(frozen=True)
class Draw:
    """A question: its template, what fills it, and the prose sentence in its middle."""

    template: str
    values: dict[str, str]
    extra: str

    def __str__(self) -> str:
        return " ".join(self.template.format(**self.values, extra=self.extra).split())

    def put(self, **values: str) -> "Draw":
        """The same question with other values."""
        return replace(self, values=self.values | values)

    def slots(self, names: str | dict) -> list[str]:
        """Those of the names that the template shows."""
        return [name for name in names if re.search(rf"(?<!\{{)\{{{name}\}}|\{{\{{\{{{name}\}}", self.template)]


def draw(rng: Random) -> Draw:
    """A question that differs in some of five numbers from every other, but for chance."""
    values = {name: str(rng.randint(2, 9999)) for name in NUMBERS}
    values |= {name: rng.choice(choices) for name, choices in (SYMBOLS | OBJECTS).items()}
    return Draw(rng.choice(TEMPLATES), values, rng.choice(EXTRAS))


# --- the same question in other words -------------------------------------------------------------------------------

WORDINGS = (
    ("Find", "Compute", "Determine", "Calculate", "Please find"), ("What is", "Find", "Determine"),
    ("Determine", "Compute", "Find"), ("Calculate", "Evaluate", "Find"), ("Evaluate", "Determine", "Work out"),
    ("Let", "Suppose that", "Assume that"), ("Suppose that", "Given that", "It is known that"),
    ("such that", "so that"), ("largest", "greatest"), ("smallest", "minimum"), ("every", "each"),
    ("Give", "Report", "State"), ("Consider", "Let there be"), ("the value of ", ""), ("possible value", "value"),
)  # fmt: skip
PREAMBLES = (
    "Problem 3. ", "Exercise 12: ", "12. ", "Question No. 7) ", "Consider the following problem. ",
    "Return your final response within \\boxed{}. ", "Homework from the spring school: ",
    "Please reason step by step, and put your final answer within \\boxed{}. ",
)  # fmt: skip


def reworded(rng: Random, question: Draw) -> str:
    """Other verbs of request, synonyms, and polite words."""
    text = str(question)
    for word, *others in rng.sample(WORDINGS, len(WORDINGS)):
        if word in text and rng.random() < 0.7:
            text = text.replace(word, rng.choice(others), 1)
    return text if text != str(question) else f"Please answer this question: {text}"


def repunctuated(rng: Random, question: Draw) -> str:
    """Commas between words go, and the final mark is another one."""
    text = re.sub(r"(?<=[a-z]{2}), (?=[a-z]{2})", rng.choice((" ", "; ", " - ")), str(question))
    return text.replace("?", ".") if "?" in text else f'"{text[:-1]}"'


def preceded(rng: Random, question: Draw) -> str:
    """Something stands before the question."""
    return f"{rng.choice(PREAMBLES)}{question}"


def translated(rng: Random, question: Draw) -> str:
    """Other delimiters and other spellings of the signs."""
    text = re.sub(r"\$([^$]*)\$", rng.choice((r"\\(\1\\)", r"$$\1$$", r"\\[ \1 \\]", r"$ \1 $")), str(question))
    text = text.replace("\\frac", "\\dfrac").replace("\\le", rng.choice(("≤", "\\leq", "<=")))
    text = text.replace("\\times", "×").replace("\\cdot", "·").replace(" - ", rng.choice((" − ", "-", " – ")))
    return re.sub(r"\^2(?!\d)", "²", text).replace("^\\circ", "°").replace(" + ", rng.choice((" + ", "+", "\\,+\\,")))


def swapped(rng: Random, question: Draw) -> str:
    """The sentence in the middle, which has no formula, stands at the beginning or at the end."""
    rest = str(replace(question, extra=""))
    return f"{question.extra} {rest}" if rng.random() < 0.5 else f"{rest} {question.extra}"


# --- another question in nearly the same words ----------------------------------------------------------------------

CONTRASTS = (
    ("largest", "smallest"), ("without", "with"), ("sum", "product"), ("area", "perimeter"), ("at least", "at most"),
    ("no two", "some two"), ("positive", "negative"), ("red", "white"), ("before", "after"), ("after", "before"),
    ("both", "neither"), ("even", "odd"), ("difference", "quotient"), ("injective", "surjective"), ("all", "none"),
    ("divided", "multiplied"), ("first", "last"), ("is filled", "is not filled"), ("real", "complex"),
    ("smallest", "largest"), ("beginning", "end"), ("more", "fewer"),
)  # fmt: skip


def other_number(rng: Random, question: Draw) -> str:
    """One number differs."""
    name = rng.choice(question.slots(NUMBERS))
    old = question.values[name]
    new = rng.choice((str(int(old) + 1), f"{old}0", f"{old}.5", old[::-1] if old != old[::-1] else f"{old}1"))
    return str(question.put(**{name: new}))


def other_operator(rng: Random, question: Draw) -> str:
    """One operator differs, or a factorial comes or goes."""
    text = str(question)
    changes = (
        (" + ", " - "), (" - ", " + "), ("\\le", "\\ge"), ("\\times", "+"), ("\\cdot", "+"), ("!", ""), ("^2", ""),
    )  # fmt: skip
    possible = [(old, new) for old, new in changes if old in text]
    if not possible:
        return re.sub(r"\d+", lambda number: f"{number[0]}!", text, count=1)
    old, new = rng.choice(possible)
    return text.replace(old, new, 1)


def other_case(rng: Random, question: Draw) -> str:
    """A symbol is the same letter in upper case; a question without symbols has another number."""
    names = question.slots("xyf")
    if not names:
        return other_number(rng, question)
    name = rng.choice(names)
    return str(question.put(**{name: question.values[name].upper()}))


def other_contrast(rng: Random, question: Draw) -> str:
    """One word turns the question into another one."""
    text = str(question)
    possible = [pair for pair in CONTRASTS if re.search(rf"\b{pair[0]}\b", text)]
    if not possible:
        return other_number(rng, question)
    old, new = rng.choice(possible)
    return re.sub(rf"\b{old}\b", new, text, count=1)


def other_object(rng: Random, question: Draw) -> str:
    """The same template about something else; a question without objects has other symbols."""
    names = question.slots(OBJECTS)
    choices = OBJECTS if names else SYMBOLS
    name = rng.choice(names or question.slots("xyf"))
    return str(question.put(**{name: rng.choice([v for v in choices[name] if v != question.values[name]])}))


def exchanged(rng: Random, question: Draw) -> str:
    """Two persons, or two numbers, change places."""
    pair = ("name", "other") if len(question.slots({"name": 0, "other": 0})) == 2 else ("a", "b")
    return str(question.put(**{pair[0]: question.values[pair[1]], pair[1]: question.values[pair[0]]}))


Variant = Callable[[Random, Draw], str]
SAME: tuple[Variant, ...] = (reworded, repunctuated, preceded, translated, swapped)
OTHER: tuple[Variant, ...] = (other_number, other_operator, other_case, other_contrast, other_object, exchanged)


def pairs(n: int, seed: int) -> Iterator[tuple[str, bool, str, str]]:
    """n times (name of the variant, whether it asks the same, question, variant), half of them the same."""
    rng = Random(seed)
    for i in range(n):
        variants = SAME if i % 2 else OTHER
        variant = variants[i // 2 % len(variants)]
        question = draw(rng)
        yield variant.__name__, variant in SAME, str(question), variant(rng, question)


@dataclass
class Quality:
    """How many of the variants were found, by name of the variant; and all that was found wrongly."""

    asked: Counter[str]
    found: Counter[str]
    precision: float
    recall: float


def near_quality(n: int, seed: int) -> Quality:
    """Near-duplicates among n pairs: all questions are added, then every variant is looked for."""
    planted = list(pairs(n, seed))
    near = NearDuplicates(THRESHOLD)
    index = [near.add(question) for _, _, question, _ in planted]
    assert index.count(None) == len(planted), "two of the drawn questions are the same; take another seed"
    asked: Counter[str] = Counter()
    found: Counter[str] = Counter()
    right = wrong = 0
    for i, (name, same, _, variant) in enumerate(planted):
        hit = near.find(variant)
        asked[name] += 1
        found[name] += hit is not None
        right += same and hit == i
        wrong += hit is not None and not (same and hit == i)
    return Quality(asked, found, right / max(1, right + wrong), right / sum(same for _, same, _, _ in planted))


# --- contamination --------------------------------------------------------------------------------------------------


def renamed(rng: Random, question: Draw) -> str:
    """Every symbol is another letter."""
    other = {"x": "a", "y": "b", "z": "c", "f": "S"}
    return str(question.put(**{name: other[name] for name in question.slots(SYMBOLS)}))


def other_blanks(rng: Random, question: Draw) -> str:
    """Blanks of other kinds, more and fewer of them."""
    text = str(question).replace(" + ", rng.choice(("+", "  +  ", "\\;+\\;")))
    text = text.replace(" = ", rng.choice(("=", "\n=\n")))
    return text.replace(" ", rng.choice(("  ", "\u00a0", "\n", "\u2009")))


def upper_case(rng: Random, question: Draw) -> str:
    """The prose in upper case."""
    parts = re.split(r"(\$[^$]*\$)", str(question))
    return "".join(part if part.startswith("$") else part.upper() for part in parts)


def quoted(rng: Random, question: Draw) -> str:
    """Something stands before and behind the question."""
    return f"{rng.choice(PREAMBLES)}{question} Show your work."


def verbatim(rng: Random, question: Draw) -> str:
    """The question itself."""
    return str(question)


LEAKS: tuple[Variant, ...] = (verbatim, renamed, other_blanks, translated, upper_case, quoted)
NEAR: tuple[Variant, ...] = (other_number, other_operator, other_contrast)
SHORT = (
    "Compute ${a} + {b} \\times {c}$.", "Solve ${x}^2 - {a}{x} + {b} = 0$.", "Simplify $\\frac{{{a}}}{{{b}}}$.",
    "Find ${x}$ if ${a}{x} + {b} = {c}$.", "Evaluate ${a}! - {b}$.", "求 ${a}{x} + {b} = {c}$ 的解。",
    "Чему равно ${a} + {b}$?", "Πόσο κάνει ${a} \\cdot {b}$;",
)  # fmt: skip


def sibling(rng: Random, question: Draw) -> str:
    """The same template with other numbers."""
    return str(question.put(**{name: str(rng.randint(2, 9999)) for name in NUMBERS}))


def leak_quality(n: int, seed: int, rule: Decontaminate, templates: tuple[str, ...] = TEMPLATES) -> Quality:
    """Contamination among n questions: each leaks in one way, has a sibling, and a near copy that asks something else.

    A sibling is found wrongly in any way, a near copy as "exact" or "renamed". That a near copy shares its n-grams with
    the question is what `min_share` is for; such quotations are counted under the name of the variant alone.
    """
    rng = Random(seed)
    drawn = [replace(draw(rng), template=rng.choice(templates)) for _ in range(n)]
    index = Contamination([{"question": str(question), "private": False} for question in drawn], rule)
    asked: Counter[str] = Counter()
    found: Counter[str] = Counter()
    right = wrong = 0
    for i, question in enumerate(drawn):
        for variant in (LEAKS[i % len(LEAKS)], sibling, NEAR[i % len(NEAR)]):
            hit = index.hit(variant(rng, question))
            asked[variant.__name__] += 1
            found[variant.__name__] += hit is not None
            right += variant in LEAKS and hit is not None and hit.question == str(question)
            wrong += hit is not None and (variant is sibling or (variant in NEAR and hit.kind != "n-gram"))
    return Quality(asked, found, right / max(1, right + wrong), right / n)


# --- what it costs --------------------------------------------------------------------------------------------------


def long_questions(n: int, seed: int) -> Iterator[str]:
    """n different questions of some 500 characters."""
    rng = Random(seed)
    for _ in range(n):
        text = str(draw(rng))
        while len(text) < 450:
            text = f"{text} {draw(rng)}"
        yield text


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def cost(step: str, n: int) -> tuple[float, float]:
    """(CPU seconds, megabytes beside the questions) of one step for n questions; for a process of its own."""
    questions = list(long_questions(n, seed=7))
    before, started = _peak_mb(), time.process_time()
    if step == "exact":
        keys = {question_key(question) for question in questions}
        assert len(keys) == n
    elif step == "near":
        near = NearDuplicates(THRESHOLD)
        for question in questions:
            near.add(question)
        assert len(near) == n, n - len(near)
    else:
        rng = Random(8)
        asked = [{"question": str(draw(rng)), "private": False} for _ in range(500)]
        index = Contamination(asked, Decontaminate(ngram=13, min_share=0.1))
        for question in questions:
            index.hit(question)
    return time.process_time() - started, _peak_mb() - before


def _print(title: str, quality: Quality) -> None:
    print(f"{title}: precision {quality.precision:.4f}, recall {quality.recall:.4f}")
    for name, asked in quality.asked.items():
        print(f"    {name:16s} {quality.found[name]:5d} of {asked:5d} found")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--step", choices=("exact", "near", "contamination"), help="the cost of this step alone")
    arguments = parser.parse_args()
    if arguments.step:
        print(*cost(arguments.step, arguments.questions))
        return 0
    _print("near-duplicates, planted pairs", near_quality(arguments.pairs, seed=1))
    high, low = Decontaminate(ngram=8, min_share=0.9), Decontaminate(ngram=13, min_share=0.1)
    _print("contamination, 8-grams, share 0.9", leak_quality(arguments.pairs, 2, high))
    _print("contamination, 13-grams, share 0.1: siblings quote", leak_quality(1200, 3, low))
    _print("contamination, short questions", leak_quality(1200, 4, high, SHORT))
    failed = False
    for step in ("exact", "near", "contamination"):
        words = [sys.executable, __file__, "--step", step, "--questions", str(arguments.questions)]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        seconds, megabytes = map(float, done.stdout.split())
        failed |= seconds > MOST_SECONDS or megabytes > MOST_MB
        print(f"{step:14s} {arguments.questions} questions: {seconds:6.1f} CPU s, {megabytes:6.0f} MB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
