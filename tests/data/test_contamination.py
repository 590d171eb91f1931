"""Which questions repeat a benchmark question: to the letter, by their wording, or with other symbols."""

import json

import pytest
from bench_duplicates import SHORT, leak_quality

from tinyr1.core.params.domains import Decontaminate
from tinyr1.data.contamination import Contamination, form, marked_units, units

BENCHMARK = "A train leaves the town of Alma at noon and runs 90 kilometers per hour towards the distant sea"
CLEAN = "How many ways are there to seat five guests around one table"


def rule(share=0.5, private=False):
    return index_of(BENCHMARK, share=share, private=private)


def index_of(*questions, ngram=8, share=0.9, private=False):
    asked = [{"question": question, "private": private} for question in questions]
    return Contamination(asked, Decontaminate(ngram=ngram, min_share=share))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("exact", BENCHMARK),
        ("exact", f"Warm-up. {BENCHMARK}. When does it arrive?"),
        ("exact", f"Problem 7. {BENCHMARK}?"),
        ("exact", BENCHMARK.replace(" ", "\n")),
        ("n-gram", BENCHMARK.upper()),
        ("n-gram", f"Warm-up: so {BENCHMARK}! When does it arrive?"),
        ("exact", BENCHMARK.replace(" ", "\n").replace("noon", "noon,")),
        ("n-gram", BENCHMARK.replace("distant sea", "capital")),
    ],
)
def test_a_question_with_the_wording_of_a_benchmark_is_contaminated(kind, text):
    hit = rule().hit(text)
    assert hit.question == BENCHMARK
    assert hit.share >= 0.5
    assert hit.kind == kind


@pytest.mark.parametrize("text", [CLEAN, "A train leaves the town of Alma at noon", "", "90"])
def test_other_questions_are_clean(text):
    assert rule().hit(text) is None


def test_a_question_of_the_same_template_is_kept_when_the_share_is_high():
    near = BENCHMARK.replace("90", "75")
    assert rule(share=0.3).hit(near) is not None
    assert rule(share=0.9).hit(near) is None
    assert rule(share=0.9).hit(BENCHMARK).share == 1.0


def test_a_question_that_one_of_two_benchmarks_keeps_private_is_private():
    asked = [{"question": BENCHMARK, "private": private} for private in (True, False)]
    assert Contamination(asked, Decontaminate(ngram=8, min_share=0.9)).private == {BENCHMARK}


CHINESE = "小明从家到学校的距离是五公里，他走了两个小时"
RUSSIAN = "Поезд выходит из города в полдень и едет весь день к морю"
FORMULA = r"Solve $x^2 - 5x + 6 = 0$."
SERIES = (
    r"Let $x$ and $y$ be real numbers with $\frac{x}{2} + 3xy = 7$ and $x \le y$. Find the largest value of $x - 5y$ "
    r"in triangle $ABC$."
)


@pytest.mark.parametrize(
    ("kind", "question", "text"),
    [
        ("exact", FORMULA, "Solve x² − 5x + 6 = 0"),
        ("exact", FORMULA, r"Exercise 3: Solve \(x^{2}-5x+6=0\)."),
        ("exact", FORMULA, r"This is easy. Solve \(x^{2}-5x+6=0\). Show your work."),
        ("renamed", FORMULA, "Solve $t^2 - 5t + 6 = 0$."),
        ("renamed", FORMULA, "SOLVE $x^2 - 5x + 6 = 0$."),
        ("renamed", FORMULA, "2. Solve $n^2-5n+6=0$"),
        ("exact", r"Simplify $\frac{12}{20} + 1$.", r"Simplify $\dfrac{12}{20}+1$."),
        ("renamed", r"Simplify $\frac{12}{20} + 1$.", "Simplify 12/20 + 1."),
        ("exact", "求 $x + 1 = 2$ 的解。", r"求\(x+1=2\)的解"),
        ("exact", "Чему равно 2 + 2?", "Чему равно $2+2$"),
        ("exact", "Πόσο κάνει 2 + 2;", "Πόσο κάνει $2+2$;"),
        ("n-gram", CHINESE, f"题目：{CHINESE}吗"),
        ("n-gram", RUSSIAN, RUSSIAN.upper()),
        ("n-gram", SERIES, SERIES.upper().replace(r"\FRAC", r"\frac").replace(r"\LE", r"\le")),
        ("n-gram", SERIES, SERIES.replace(r"\frac{x}{2}", "x/2").replace(" + ", "+").replace("$", "$$")),
        ("renamed", SERIES, f"Recall: {SERIES.replace('x', 'p').replace('mapbe', 'maxbe').replace('y', 'q')}"),
        ("renamed", SERIES, SERIES.replace("ABC", "PQR").replace("$x", "$u").replace("{x}", "{u}").replace("xy", "uy")),
    ],
)  # fmt: skip
def test_a_leak_is_found_however_it_is_written(kind, question, text):
    hit = index_of(question, CLEAN).hit(text)
    assert hit is not None
    assert (hit.question, hit.kind) == (question, kind)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (FORMULA, "Solve $x^2 - 5x + 7 = 0$."),
        (FORMULA, "Solve $x^2 + 5x + 6 = 0$."),
        (FORMULA, "Solve $x^2 - 5y + 6 = 0$."),
        (FORMULA, "Factor $t^2 - 5t + 6 = 0$."),
        ("Find $x$.", "Let $2x + 7 = 9$. Find $x$."),
        ("Find $x$.", "Find $y$."),
        ("Evaluate $5! + 3$.", "Evaluate $5 + 3$."),
        ("求 $x + 1 = 2$ 的解。", "求 $x + 1 = 3$ 的解。"),
        ("求解", "小明走了两个小时"),
        ("Чему равно 2 + 2?", "Чему равно 2 + 3?"),
        ("Чему равно 2 + 2?", "Найдите сумму"),
        (r"$\alpha + \beta = 3$", r"$\alpha \cdot \beta = 3$"),
        (SERIES, SERIES.replace("7", "8")),
        (SERIES, SERIES.replace("x", "p").replace("y", "q").replace("7", "8")),
        (SERIES, SERIES.replace("- 5y", "+ 5y").replace(r"x \le y", r"x \ge y")),
        ("", "Find x."),
    ],
)
def test_another_question_is_no_leak(question, text):
    assert index_of(question, CLEAN).hit(text) is None


def test_units_are_words_and_formulas_in_any_script():
    assert units("Two-digit NUMBERS, 3.5 km!") == ["two", "digit", "numbers", "3.5", "km"]
    assert units(r"$\frac{a}{b+1}$") == units("a/(b+1)") == ["a", "/b", "+1"]
    assert units("求两个数 Привет κόσμε") == ["求", "两", "个", "数", "привет", "κόσμε"]
    assert units(r"$2\pi r^2$") == units("2πr²") == ["2", "π", "r", "^2"]
    assert marked_units("Let $a+2b$ be") == marked_units("Let $x+2y$ be") == ["let", "•", "+2", "•", "be"]


def test_the_form_of_a_question_tells_which_symbols_are_the_same():
    assert form("$x + y + x$") == form("$a + b + a$") == (0, "+", 1, "+", 0)
    assert form("$x + y + y$") != form("$a + b + a$")
    assert form("$F + f$") != form("$f + f$")


def test_planted_leaks_are_found_and_other_questions_are_not():
    rule = Decontaminate(ngram=8, min_share=0.9)
    for templates in (None, SHORT):
        quality = leak_quality(240, 21, rule, *([templates] if templates else []))
        assert quality.recall >= 0.95
        assert quality.precision >= 0.99


def test_real_questions_are_found_again_in_themselves_and_not_in_each_other(shared_data):
    path = shared_data / "s1k" / "partial_solution_question_source_type.jsonl"
    questions = [json.loads(line)["question"] for line in path.open(encoding="utf-8")]
    long = [q for q in dict.fromkeys(questions) if len(units(q)) > 30][:100]
    index = index_of(*long[:50])
    assert all(index.hit(f"Consider this. {q}") for q in long[:50])
    assert not any(index.hit(q) for q in long[50:])


def test_real_questions_of_training_are_no_aime_questions_in_other_symbols(shared_data):
    """What the low share of the paper's run finds beside quotations is looked at: kind by kind, and by hand."""
    with (shared_data / "aime" / "tinyr1_aime24_test.jsonl").open(encoding="utf-8") as lines:
        aime = [json.loads(line)["problem"] for line in lines]
    path = shared_data / "openthoughts_114k" / "partial_default_assistant_cut_at_500_chars.jsonl"
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line)["conversations"][0]["value"] for line in lines]
    index = index_of(*aime, ngram=13, share=0.1)
    assert not [hit for hit in map(index.hit, rows) if hit]
