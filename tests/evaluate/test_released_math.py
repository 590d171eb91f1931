"""The authors' rule for math: the answer that it finds, as it cleans it, and what it takes for equal."""

import pytest

from tinyr1.evaluate.grading.released_math import quick_equal, released_answer
from tinyr1.evaluate.grading.released_text import cleaned, in_digits


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # by the scripts' own parser.py
        ("m+n=73", "73"), ("a+b=73", "73"), ("p+q=73", "p+q=73"), ("x_1=73", "x_1=73"), ("m+n+p=73", "+n+p=73"),
        ("100m+n=73", "100m+n=73"), ("n = 73", "73"), ("|S|=73", "|S|=73"), ("=73", "73"), ("73=", ""),
        ("204=", "204="),
        ("\\textbf{73}", "\\textbf{73}"), ("\\mathrm{73}", "\\mathrm{73}"), ("\\mathbf{73}", "{73}"),
        ("\\text{73}", "73"),
        ("\\displaystyle 73", "\\displaystyle73"), ("73\\text{ cm}", "73"), ("73 miles", "73"),
        ("73 dollars", "73dollars"),
        ("73 square units", "73"), ("73^\\circ", "73"), ("73^{\\circ}", "73"), ("73°", "73°"), ("73\\%", "73"),
        ("$73$", "73"),
        ("073", "73"), ("73.0", "73"), ("73.", "73"), ("1,073", "1,073"), ("{73}", "{73}"), ("73\\,", "73\\,"),
        ("7\\!3", "73"),
        ("seventy-three", "73"), ("73 for the two points", "2"), ("73 and 74", "7374"), ("73 or 74", "73or74"),
        ("m", "m"),
        ("\\dfrac{146}{2}", "\\frac{146}{2}"), ("\\frac12", "\\frac{1}{2}"), ("\\frac1{72}", "\\frac{1}{72}"),
        ("1/2", "\\frac{1}{2}"), ("01/2", "01/2"), ("1/2/3", "1/2/3"), ("3/\\sqrt2", "\\frac{3}{\\sqrt{2}}"),
        (".5", "0.5"),
        ("\\left(7\\right)", "(7)"), ("\\{7\\}", "{7}"), ("7j", "7i"), ("inf", "\\infty"), ("x\\in 7", "7"),
        ("z=7", "7"),
        ("7\\mbox{ cm}", "7"), ("5 sq m", "5"), ("\\emptyset", "{}"), ("the 7th", "the7th"), ("", ""),
        ("7\n  3", "73"), (": 73 ./", "73"),
    ],
)  # fmt: skip
def test_an_answer_is_cleaned_as_the_scripts_clean_it(text, expected):
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two hundred four", "204"), ("two hundred and four", "204"), ("twelve", "12"), ("forty-two", "42"),
        ("ten", "10"),
        ("two thousand twenty four", "2024"), ("one million two hundred", "1000200"), ("hundred", "100"), ("007", "7"),
        ("three point one four", "3.14"), ("the point", "0"), ("one two three four five", "1"), ("we have one", "1"),
        ("thousand two", "thousand two"), ("two thousand million", "two thousand million"), ("-5", "-5"), ("", ""),
        ("point point", "point point"), ("one point ten", "one point ten"), ("someone", "someone"),
    ],
)  # fmt: skip
def test_number_words_become_a_number_and_all_else_is_lost(text, expected):
    assert in_digits(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("答案是 12\n\n答案是 13", "12"), ("答案是 12", "12"), ("the answer is 12. Therefore", "12Therefore"),
        ("boxed", ""), ("the answer is 12", "12"), ("x = 17, then 1,033", "1033"), ("nothing", None),
        ("\\boxed{12", "12"), ("ки 12", "12"),
        ("The final answer is $12$. I hope it is correct.", "12"), ("\\boxed{7}</think> the answer is 12", "7"),
    ],
)  # fmt: skip
def test_an_answer_is_found_as_the_scripts_find_it(text, expected):
    assert released_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("73", "73", True), ("7300", "73", True), ("0.73", "73", True), ("73.001", "73", True), ("73.01", "73", False),
        ("(73)", "73", True), ("[73]", "73", True), ("{73}", "73", True), ("[73", "73", False), ("7,3", "73", True),
        ("73\\,", "73", True), ("73\\quad", "73", True), ("", "73", False), ("73=", "73", False),
        ("p+q=73", "73", False),
        ("a = 73", "73", True), ("73dollars", "73", False), ("\\textbf{73}", "73", False),
        ("\\mathrm{73}", "73", False),
        ("\\displaystyle73", "73", False), ("73or74", "73", False), ("nan", "73", False), ("1e2", "1", True),
        ("\\frac{146}{2}", "73", None), ("70+3", "73", None), ("\\sqrt{5329}", "73", None), ("73°", "73", False),
    ],
)  # fmt: skip
def test_what_the_scripts_take_for_equal(answer, truth, expected):
    assert quick_equal(answer, truth) is expected
