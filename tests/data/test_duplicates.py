"""Which questions ask the same: exact duplicates by spelling, near-duplicates by wording."""

import json
from random import Random

import pytest
from bench_duplicates import THRESHOLD, draw, near_quality, pairs

from tinyr1.core.errors import UserError
from tinyr1.data.duplicates import normalised, question_key
from tinyr1.data.near_duplicates import NearDuplicates

SAME = [
    (r"Solve \(x + 1 = 2\).", "Solve $x + 1 = 2$."),
    (r"Solve \[x + 1 = 2\]", "Solve $$x + 1 = 2$$"),
    ("Solve $x + 1 = 2$.", "Solve x + 1 = 2"),
    ("Compute 7 − 3.", "Compute 7 - 3."),
    ("Compute 7 – 3.", "Compute 7-3."),
    ("Find Größe von é.", "Find Gro\u0308ße von e\u0301."),
    ("Add\u00a02 and 2.", "Add 2 and 2."),
    ("Add\u20092 and\n2.", "Add 2 and 2."),
    ("Add 2 \u200band 2.", "Add 2 and 2."),
    ("Add 2 and 2.", "\ufeff  Add\t2\r\nand 2 . "),
    (r"Find $3\times 4$.", "Find 3 × 4."),
    (r"Find $12\div 4$.", "Find 12 ÷ 4."),
    (r"Find $3\cdot 4$.", "Find 3 · 4."),
    (r"Let $x\le 3$.", "Let x ≤ 3."),
    (r"Let $x\leq 3$.", "Let x <= 3."),
    (r"Let $x\geq 3$.", "Let x ≥ 3."),
    (r"Let $x\ne 3$.", r"Let $x\neq3$."),
    (r"Let $x\neq 3$.", "Let x ≠ 3."),
    (r"Area $2\pi r$?", "Area 2πr?"),
    (r"As $n\to\infty$.", "As n → ∞."),
    (r"Sum $1+2+\ldots+n$.", "Sum 1 + 2 + … + n."),
    (r"Sum $1+2+\cdots+n$.", "Sum 1+2+...+n."),
    ("The “mean” of 3.", 'The "mean" of 3.'),
    ("Ana’s 3 pens.", "Ana's 3 pens."),
    (r"Find $\dfrac{1}{2}$.", r"Find $\frac{1}{2}$."),
    (r"Find $\tfrac12$.", r"Find $\frac{1}{2}$."),
    (r"Find $\left(x+1\right)^2$.", "Find $(x+1)^2$."),
    ("Find x² + 1.", "Find $x^2+1$."),
    ("Find $x^{2}+1$.", "Find $x^2+1$."),
    ("Find $x^{10}$.", "Find x¹⁰."),
    ("Find $a_{1}$.", "Find a₁."),
    (r"Find $\sqrt{2}$.", "Find √2."),
    (r"Find $\sqrt 2$.", r"Find $\sqrt{2}$."),
    (r"An angle of $30^\circ$.", "An angle of 30°."),
    (r"An angle of $30^{\circ}$.", "An angle of 30 °."),
    (r"It costs \$5.", r"It  costs \$5."),
    (r"A share of 5\%.", "A share of 5%."),
    (r"$x\in\mathbb{R}$", "x ∈ ℝ"),
    (r"$\sin\theta$", "sin θ"),
    (r"$\alpha + \beta$", "α+β"),
    (r"$3\,\text{cm}$", "3 cm"),
    (r"$3~\mathrm{cm}$", "3 cm"),
    (r"$2\quad 3$", "2 3"),
    ("Find ５＋３.", "Find 5+3."),
    ("Find 𝑥 + 1.", "Find x + 1."),
    ("(1, 2)", "( 1,2 )"),
    ("Why? Find 5! .", "Why? Find 5!."),
    ("What is 5?", "What is 5"),
    ("Sort the list; finally, print it", "Sort the list . Finally print it."),
    (r"$7\equiv1\pmod{3}$", "7 ≡ 1 (mod 3)"),
    ("Is ½ it?", r"Is $\frac12$ it?"),
    (r"\begin{equation}x=1\end{equation}", "$x=1$"),
    ("Run\n```\nx = 1   \n```", "Run\n```\nx = 1\n```\n"),
]
DISTINCT = [
    ("Evaluate 5! + 3.", "Evaluate 5 + 3."),
    ("Find 5!", "Find 5"),
    ("Find 5!", "Find 5!!"),
    ("Find n!! for n = 5.", "Find n! for n = 5."),
    ("Round 3.14 up.", "Round 3,14 up."),
    ("Round 3.14 up.", "Round 314 up."),
    ("Round 3,14 up.", "Round 314 up."),
    ("Let F be 1; find F.", "Let f be 1; find f."),
    ("Triangle ABC", "Triangle abc"),
    ("Find x².", "Find x2."),
    ("Find $x^2$.", "Find $x_2$."),
    ("Find x²³.", "Find x².3"),
    ("Add 1 2.", "Add 12."),
    (r"Add $1\,2$.", "Add 12."),
    ("Find 3 + 4.", "Find 3 - 4."),
    ("Find 3 − 4.", "Find 34."),
    ("Find -4.", "Find 4."),
    ("Find 3 × 4.", "Find 3 + 4."),
    ("Find 3 · 4.", "Find 3.4."),
    ("Let x < 3.", "Let x ≤ 3."),
    ("Let x ≥ 3.", "Let x > 3."),
    ("Let x = 3.", "Let x ≠ 3."),
    ("Is x != y?", "Is x! = y?"),
    (r"Find $\frac{1}{2}$.", r"Find $\frac{2}{1}$."),
    (r"Find $\frac{1}{23}$.", r"Find $\frac{12}{3}$."),
    (r"Find $\sqrt{2}$.", "Find 2."),
    (r"Find $\sqrt{23}$.", r"Find $\sqrt{2}3$."),
    (r"Find $\sqrt[3]{2}$.", r"Find $\sqrt{2}$."),
    (r"Find $\Gamma(5)$.", r"Find $\gamma(5)$."),
    (r"Find $\pi$.", r"Find $\Pi$."),
    (r"It costs \$5.", "It costs 5."),
    ("A share of 5%.", "A share of 5."),
    ("An angle of 30°.", "An angle of 30."),
    ("Find f'(3).", "Find f(3)."),
    ("Find f''(3).", "Find f'(3)."),
    ("Find |x|.", "Find x."),
    (r"Find $\lfloor 3.5\rfloor$.", r"Find $\lceil 3.5\rceil$."),
    ("Find $2^{10}$.", "Find 210."),
    ("Find $2^{x+1}$.", "Find $2^x+1$."),
    ("Find (3 + 4) 5.", "Find 3 + 4 5."),
    ("It is 3. 14 go.", "It is 3.14 go."),
    ("5 − -3", "5 - 3"),
    (r"$\vec{a}$", "$a$"),
    (r"$\mathbf{F}$", "$F$"),
    (r"$x\cup y$", r"$x\cap y$"),
    (r"$x\in A$", r"$x\notin A$"),
    (r"\{1\}", "(1)"),
    ("3:4", "3/4"),
    ("the sum", "the product"),
    ("Co reacts.", "CO reacts."),
    ("Rr x Rr gives 20 seeds.", "Rr x rr gives 20 seeds."),
    ("Let AB, cd be 3", "Let AB, Cd be 3"),
    ("Run\n```\nif a:\n    b\nc\n```", "Run\n```\nif a:\n    b\n    c\n```"),
    ("Run\n```\nA = 1\n```", "Run\n```\na = 1\n```"),
    ("Run\n```\n$x = 1\n```", "Run\n```\nx = 1\n```"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_another_spelling_of_a_question_has_its_key(one, other):
    assert normalised(one) == normalised(other)
    assert question_key(one) == question_key(other)


@pytest.mark.parametrize(("one", "other"), DISTINCT)
def test_another_question_has_another_key(one, other):
    assert question_key(one) != question_key(other)


@pytest.mark.parametrize("text", sorted({text for pair in SAME + DISTINCT for text in pair}))
def test_what_is_normalised_stays_as_it_is(text):
    assert normalised(normalised(text)) == normalised(text)


def test_a_key_has_16_bytes_and_the_starter_code_counts():
    assert len(question_key("Add a and b.")) == 16
    keys = [question_key("Add a and b.", code) for code in ("", "def f(a, b):", "def F(a, b):", "def f(a, b):\n    ")]
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]
    assert question_key("a", "b") != question_key("a b")


def test_text_that_is_no_valid_unicode_has_a_key():
    assert question_key("a \ud800") != question_key("a \ud801")


@pytest.mark.parametrize(("name", "kept"), [("distinct_math", 9), ("same_math", 5)])
def test_the_keys_of_the_real_cases(name, kept, shared_data):
    path = shared_data.parent / "cases" / "data" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not beside the checkout")
    with path.open(encoding="utf-8") as lines:
        problems = [json.loads(line)["problem"] for line in lines]
    assert len({question_key(problem) for problem in problems}) == kept


@pytest.fixture
def real_questions(shared_data):
    """Each question of s1's and OpenThoughts' samples once, in order."""
    s1 = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    openthoughts = shared_data / "openthoughts_114k" / "partial_default_assistant_cut_at_500_chars.jsonl"
    with s1.open(encoding="utf-8") as lines:
        questions = [json.loads(line)["question"] for line in lines]
    with openthoughts.open(encoding="utf-8") as lines:
        questions += [json.loads(line)["conversations"][0]["value"] for line in lines]
    return list(dict.fromkeys(questions))


def test_the_real_questions_with_one_key_differ_in_spelling_alone(real_questions):
    by_key: dict[bytes, list[str]] = {}
    for question in real_questions:
        by_key.setdefault(question_key(question), []).append(question)
    same = [questions for questions in by_key.values() if len(questions) > 1]
    assert len(same) == 10
    for first, *others in same:  # letters and digits are those of the first, but for \textit around a name
        plain = ["".join(filter(str.isalnum, q.replace(r"\textit", ""))) for q in (first, *others)]
        assert len(set(plain)) == 1, plain


def test_the_near_duplicates_among_real_questions_are_two(real_questions):
    near, starts = NearDuplicates(THRESHOLD), []
    for question in {question_key(q): q for q in real_questions}.values():
        if near.add(question) is not None:
            starts.append(question.removeprefix(r"Return your final response within \boxed{}. ")[:24])
    assert starts == ["Given a convex quadrilat", "A cubic polynomial $p(x)"]


# --- near-duplicates ------------------------------------------------------------------------------------------------

PROSE = "A farmer writes the pairs on a board in the barn. "
BASE = (
    f"Let $m$ and $n$ be positive integers such that $m^2 + 3n = 40$. {PROSE}"
    "Find the largest possible value of $m + n$."
)
WORDINGS = [
    BASE,
    "Problem 3. " + BASE,
    BASE.replace("Find", "Please compute"),
    BASE.replace("largest", "greatest"),
    BASE.replace("Let $m$ and $n$ be", "Suppose that $m$, $n$ are").replace("$m$, $n$", "$m$ and $n$"),
    BASE.replace("$m^2 + 3n = 40$", r"\(m² + 3n = 40\)"),
    BASE.replace("board in", "board, in"),
    "The old school book of the village has this. " + BASE,
    BASE + r" Put your final answer within \boxed{}.",
    BASE + " Show your work.",
    PROSE + BASE.replace(PROSE, ""),
    BASE.replace("integers", "integer"),
]  # fmt: skip
OTHERS = [
    BASE.replace("40", "41"),
    BASE.replace("40", "4.0"),
    BASE.replace("40", "40!"),
    BASE.replace("m + n", "m - n"),
    BASE.replace("$m", "$M").replace("$m$", "$M$"),
    BASE.replace("m^2", "m^3"),
    BASE.replace("largest", "smallest"),
    BASE.replace("positive", "negative"),
    BASE.replace("positive ", ""),
    BASE.replace("such that", "such that it is not true that"),
    BASE.replace("integers", "real numbers"),
    BASE.replace("farmer", "miller"),
    BASE.replace("a board in the barn", "a barn in the board"),
    "In the ring of residues modulo a prime: " + BASE,
    BASE.replace("value of", r"value of \sqrt"),
]


@pytest.mark.parametrize("text", WORDINGS)
def test_the_same_question_in_other_words_is_found(text):
    near = NearDuplicates(THRESHOLD)
    assert near.add("How many ways are there to seat five guests around one table?") is None
    assert near.add(BASE) is None
    assert near.find(text) == 1
    assert near.add(text) == 1
    assert len(near) == 2


@pytest.mark.parametrize("text", OTHERS)
def test_a_question_that_asks_something_else_is_added(text):
    near = NearDuplicates(THRESHOLD)
    near.add(BASE)
    assert near.find(text) is None
    assert near.add(text) is None
    assert near.find(BASE) == 0
    assert near.find(text) == 1


def test_code_is_compared_to_the_letter():
    near = NearDuplicates(THRESHOLD)
    question = "Write the function below so that it returns the sum of the numbers in a list."
    for code in ("def total(values):\n    pass", "def Total(values):\n    pass", "def total(values):\npass"):
        assert near.add(question, code) is None
    assert near.add(f"Please {question}", "def Total(values):\n    pass") == 1
    assert near.add(f"{question}\n```\nx = 1\n```") is None
    assert near.add(f"{question}\n```\nX = 1\n```") is None


@pytest.mark.parametrize("text", ["", "Why?", "5", "...", "\\boxed{}"])
def test_a_question_without_two_units_is_never_a_near_duplicate(text):
    near = NearDuplicates(THRESHOLD)
    assert [near.add(text), near.add(text)] == [None, None]
    assert len(near) == 2


def test_the_same_seed_finds_the_same():
    texts = [text for _, _, one, other in pairs(60, seed=5) for text in (one, other)]
    first, second = NearDuplicates(THRESHOLD, seed=3), NearDuplicates(THRESHOLD, seed=3)
    assert [first.add(text) for text in texts] == [second.add(text) for text in texts]


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1])
def test_a_threshold_that_is_no_similarity_is_an_error(threshold):
    with pytest.raises(UserError, match=f"threshold {threshold} is no similarity; take a number above 0"):
        NearDuplicates(threshold)


def test_planted_pairs_are_told_apart():
    quality = near_quality(400, seed=11)
    assert quality.precision >= 0.99
    assert quality.recall >= 0.9
    assert len(quality.asked) == 11


def test_the_generator_gives_the_same_questions_for_the_same_seed():
    assert str(draw(Random(1))) == str(draw(Random(1)))
    assert list(pairs(22, seed=1)) == list(pairs(22, seed=1)) != list(pairs(22, seed=2))
    assert all(one != other for name, _, one, other in pairs(220, seed=1) if name != "translated")
