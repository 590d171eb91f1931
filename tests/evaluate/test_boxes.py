"""What a box says, for integers and for options: every honest dress of an answer, and nothing that is no answer."""

import itertools
import time

import pytest
from test_grade import OPTION, SOUND, response, rules

from tinyr1.data import arithmetic
from tinyr1.data.answers import integer, plain
from tinyr1.evaluate.grading import extract, grade, options

DRESS = ("{}", "${}$", "{{{}}}", "\\text{{{}}}", "\\textbf{{{}}}", "\\textrm{{{}}}", "\\mathrm{{{}}}", "\\mathbf{{{}}}",
         "\\mathsf{{{}}}", "\\boldsymbol{{{}}}", "\\bm{{{}}}", "\\bf {}", "{{\\rm {}}}", "\\displaystyle {}",
         "\\ {}\\ ",
         "\\quad {}\\quad", "\\,{}\\;", "**{}**", "*{}*", "`{}`", '"{}"', "“{}”", "{}.", "\\text{{\\textbf{{{}}}}}",
         "\\({}\\)", "\\large {}", "Answer: {}", "\\text{{The answer is }}{}",
         "\\textbf{{Final answer: {}}}")  # fmt: skip


@pytest.mark.parametrize("dress", DRESS)
def test_the_dress_of_an_answer_changes_no_kind_of_it(dress):
    assert extract.boxed_integer(f"so \\boxed{{{dress.format(73)}}}") == 73
    assert options.option(f"so \\boxed{{{dress.format('C')}}}") == "C"
    assert options.option(f"so \\boxed{{{dress.format('(C)')}}}") == "C"


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(DRESS[1:18], 2)])
def test_two_dresses_on_each_other_change_nothing(first, second):
    assert plain(first.format(second.format("73"))) == "73"


# --- integers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # named
        ("p+q=73", 73), ("p + q + r = 73", 73), ("100a + b = 73", 73), ("a \\cdot b = 73", 73), ("mn=73", 73),
        ("AB^2 = 73", 73), ("x^2 + y^2 = 73", 73), ("|A|=73", 73), ("|A \\cap B| = 73", 73),
        ("\\lvert T\\rvert=73", 73),
        ("g(7)=73", 73), ("g'(7)=73", 73), ("S_{10}=73", 73), ("a_1+a_2 = 73", 73), ("\\theta=73", 73), ("=73", 73),
        ("\\angle ABC = 73^\\circ", 73), ("[ABC] = 73", 73), ("\\text{area of the triangle} = 73", 73),
        ("73 = p+q", 73),
        ("k\\,=\\,73", 73), ("\\#S = 73", None), ("N_{\\text{max}} = 73", 73), ("\\overline{AB} = 73", 73),
        ("\\max = 73", 73), ("\\gcd(a,b)=73", 73), ("\\lfloor 100r \\rfloor = 73", 73), ("S_{\\max}=73", 73),
        ("\\text{Answer: not }73", None), ("\\text{at least } 73", None), ("\\pi = 73", None), ("k\\%=73", None),
        ("\\underline{73}", 73), ("\\textcolor{red}{73}", 73), ("\\overline{abc} = 73", 73), ("P(1)+P(2)=73", 73),
        # worked out
        ("p + q = 30 + 43 = 73", 73), ("30+43 = 73", 73), ("p+q = 2\\cdot 36 + 1 = 73", 73), ("3^2 + 8^2 = 73", 73),
        ("\\frac{146}{2} = 73", 73), ("\\frac{146}{2}", 73), ("\\dfrac{146}{2}", 73), ("146/2", 73),
        ("-\\frac{146}{2}", -73), ("73.0", 73), ("73.000", 73), ("p+q = 2(30 + 6) + 1", None),
        # units
        ("73\\degree", 73), ("73^{\\circ}", 73), ("73\\text{ cm}^2", 73), ("73\\ \\text{cm}^{2}", 73), ("73°", 73),
        ("\\text{73 hours}", 73), ("73\\text{ ways}", 73), ("73 \\text{ square units}", 73), ("73\\,\\text{m}^3", 73),
        # numbers that the equations do not give
        ("30+43 = 74", None), ("p+q = 30+42 = 73", None), ("72 = 73", None), ("73+0", None), ("2 \\cdot 36.5", None),
        ("\\frac{147}{2}", None), ("\\frac{73}{0}", None), ("73/0", None), ("0/0", None), ("73.5", None),
        ("73.05", None),
        # one unknown, of which nobody knows whether it was asked for
        ("2x=73", None), ("x^2=73", None), ("-x=73", None), ("x+1=73", None), ("\\frac{x}{2}=73", None),
        ("x/2=73", None), ("n(n+1)=73", None), ("|x|=73", None), ("x!=73", None), ("x=y=73", None), ("x = 73y", None),
        ("\\sqrt{x}=73", None), ("\\ln x=73", None), ("\\log_2 x = 73", None), ("ln=73", None), ("\\sin x=73", None),
        # doubt, other relations, several answers
        ("\\text{percent}=73", None), ("\\text{per cent} = 73", None), ("x \\bmod 100=73", None),
        ("n \\equiv 73", None),
        ("\\text{not }x=73", None), ("\\text{maybe } n = 73", None), ("p+q\\approx 73", None), ("p+q>73", None),
        ("p+q \\le 73", None), ("p=30, q=43", None), ("p+q=73, 74", None), ("p+q=73 \\text{ or } 74", None),
        ("p, q = 73", None), ("p \\text{ and } q = 73", None), ("p+q:=73", None), ("p+q=73!", None), ("p+q==73", None),
        ("p+q=73=74", None), ("(p=73", None), ("f(p=73)", None),
        # commas and blanks in numbers
        ("0,073", None), ("0{,}073", None), ("00,073", None), ("000,073", None), ("7,3", None), ("1,073", 1073),
        ("1{,}073", 1073), ("12,345,678", 12345678), ("1,073.0", 1073), ("1,07", None), ("1,0733", None),
        ("1,073,4", None),
        ("7\\text{3}", None), ("7{}3", None), ("{7}{3}", None), ("7\\quad 3", None), ("\\text{7}3", None),
        ("7\\!3", None),
        ("73'", None), ("5 m", 5), ("73s", None), ("73\\text{ish}", None), ("73\\text{ gross}", None), ("73..", None),
        ("73**", None), ("**73", None), ("{73", None), ('73"', None), ("\\text{73", None),
    ],
)  # fmt: skip
def test_an_integer_is_taken_where_it_cannot_be_misread(text, expected):
    assert integer(text) == expected
    if text.count("{") == text.count("}"):
        assert extract.boxed_integer(f"Then \\boxed{{4}}. So $\\boxed{{{text}}}$") == expected


def test_a_later_box_that_is_never_closed_takes_back_the_one_before():
    assert extract.boxed_integer("\\boxed{73} no, \\boxed{74") is None
    assert extract.boxed_integer("\\boxed{74 no, \\boxed{73}") == 73
    assert options.option("\\boxed{A} no, \\boxed{B") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45 + 159", 204), ("2(3+4)", None), ("2\\cdot(3+4)", 14), ("\\frac{1+5}{2}", 3), ("2^{10}", 1024), ("-3+5", 2),
        ("7-2-1", 4), ("12\\div 2/3", 2), ("2^3^2", None), ("9^9^9", None), ("9^{99}", None), ("1 2", None), ("", None),
        ("1+", None), ("(1", None), ("1)", None), ("x", None), ("1/0", None), ("0.5*4", 2), ("+".join("1" * 500), None),
        ("(" * 90 + "1" + ")" * 90, 1),
    ],
)  # fmt: skip
def test_arithmetic_has_a_value_or_none(text, expected):
    assert arithmetic.value(text) == expected


@pytest.mark.parametrize(
    "text",
    ["73" + " " * 10**6, "=" * 10**6, "x=" * 10**5 + "73", "\\text{" * 10**5, "1,000" * 10**5, "(" * 10**6, "{" * 10**6,
     "\\boxed{" + "**" * 10**5 + "}", "+1" * 10**5],
)  # fmt: skip
def test_a_hostile_box_costs_linear_time(text):
    started = time.process_time()
    integer(text)
    options.option(f"\\boxed{{{text}}}")
    assert time.process_time() - started < 2


# --- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the option's own text behind its letter
        ("\\boxed{B: 12 J}", "B"), ("\\boxed{B) 12 J}", "B"), ("\\boxed{(B) 12 J}", "B"),
        ("\\boxed{B. heat flows}", "B"),
        ("\\boxed{\\text{(D) } 3 \\times 10^8}", "D"), ("\\boxed{\\text{D) }3\\text{ m}}", "D"),
        ("\\boxed{D - heat}", "D"),
        ("\\boxed{Option B}", "B"), ("\\boxed{\\text{Choice (B)}}", "B"), ("\\boxed{C) vitamin D}", "C"),
        ("\\boxed{[B]}", "B"), ("\\boxed{A: \\{1, 2\\}}", "A"),
        ("\\boxed{B\\ (12\\text{ J})}", "B"), ("\\boxed{B (or C)}", None), ("\\boxed{B(12)}", None),
        # more than one letter, or none
        ("\\boxed{A, B}", None), ("\\boxed{(A) or (B)}", None), ("\\boxed{A) x, B) y}", None),
        ("\\boxed{A: x; C: y}", None),
        ("\\boxed{A. B. C.}", None), ("\\boxed{A and C}", None), ("\\boxed{A/B}", None), ("\\boxed{D-glucose}", None),
        ("\\boxed{A good guess}", None),
        ("\\boxed{option c}", None), ("\\boxed{E}", None), ("\\boxed{\\text{None}}", None), ("\\boxed{B 12}", None),
        ("\\boxed{not B}", None), ("\\boxed{B?}", None), ("\\boxed{B'}", None),
        # a quantity in the box, and the letter in a statement
        ("$$\\boxed{E = 3\\,\\text{J}}$$\n\n**Answer: B**", "B"), ("**Answer: B**, that is \\boxed{3.2}", "B"),
        ("\\boxed{\\vec p \\times \\vec E}\n\nThe answer is D.", "D"), ("\\boxed{}\nAnswer: B", "B"),
        ("\\boxed{3.2}", None), ("\\boxed{3.2} for A", None), ("Answer: B, so \\boxed{E}", None),
        ("Answer: B, so \\boxed{A or C}", None), ("\\boxed{E}. No, answer: B", "B"), ("\\boxed{C} Answer: B", "C"),
    ],
)  # fmt: skip
def test_the_letter_of_a_box(text, expected):
    assert options.option(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: \\text{B}", "B"), ("Answer: \\textbf{(B)}", "B"), ("Answer: `B`", "B"), ('Answer: "B"', "B"),
        ("Answer: “B”.", "B"), ("Answer: $\\mathrm{B}$", "B"), ("Answer: \\(B\\)", "B"), ("Answer: {B}", "B"),
        ("Answer: Option B", "B"), ("Answer: **(B)** heat", "B"), ("Answer: B) heat", "B"), ("Answer: B: heat", "B"),
        ("**Answer**\n\nB", "B"), ("## Final Answer\n\n**B**\n", "B"), ("### Answer:\n\n(B)", "B"),
        ("Answer\nB is wrong", None),
        ("Answer: B\nwhere x is the mass", "B"), ("Answer: B\n\nA is impossible.", "B"), ("Answer: A\nor B", None),
        ("The answer is B which is stable.", "B"), ("The answer is B with x = 3.", "B"),
        ("The answer is therefore B.", "B"),
        ("The answer must be B.", "B"), ("The correct option is B.", "B"), ("The correct answer is option (B)", "B"),
        ("So B is correct.", "B"), ("Thus option B is the right choice, as x > 0.", "B"), ("(B) is correct", "B"),
        ("Since A is not possible, the answer is B.", "B"), ("I think the answer is B.", "B"),
        ("Answer: B. No other option fits.", "B"), ("Answer: B. However, A would need heat.", "B"),
        ("B is the answer.", "B"), ("Correct option: B", "B"), ("The answer should be B.", "B"), ("Answer = B", "B"),
        ("Answer: A – B", None), ("Answer: A then B", None), ("The answer is A as well as B", None),
        # no statement
        ("The answer is B if x is zero", None), ("The answer is B cells", None), ("Answer: B?", None),
        ("B is right there", None),
        ("B is correct only if x > 0.", None), ("B is not right.", None), ("vitamin B is correct in that role", None),
        ("Answer: A or B", None), ("Answer: A; or B", None), ("answer: b", None), ("No answer. B", None),
        # doubted or taken back
        ("At first glance the answer is A. But A has no spin.", None), ("One might think the answer is A.", None),
        ("At first the answer is A, but it is not. Hence C is correct.", "C"), ("It seems that the answer is A.", None),
        ("Initially, the answer is A. Then D is right.", "D"), ("Naively the answer is B.", None),
        ("Suppose the answer is B.", None), ("If so, the answer is B.", None), ("Answer: A. Wait, the sign!", None),
        ("Answer: A. Actually, no. Answer: C", "C"), ("The answer is A, but A breaks the rule.", None),
        ("The answer is A, or is it?", None), ("A common mistake is to say the answer is A.", None),
        ("Some say that the answer is B, which is false.", None), ("The answer is A. That is wrong.", None),
        ("Answer: A. I made an error above.", None), ("It seems the answer is A; the correct one is D.", "D"),
        ("Answer: A. It has heat that is not lost.", "A"), ("Answer: A. B fails, but A does not.", "A"),
        ("The answer is C rather than B.", "C"), ("The answer is C and not B.", "C"),
        ("Since A is wrong, the answer is C.", "C"),
        ("The answer is C. One could say the answer is A, of course.", "C"), ("I am not sure the answer is A.", None),
    ],
)  # fmt: skip
def test_the_letter_of_a_statement(text, expected):
    assert options.option(text) == expected


@pytest.mark.parametrize(
    "text",
    ["answer" + "\n" * 10**5, "answer is" + " " * 10**5, "answer: " * 10**5, "." * 10**6, "*" * 10**6, "#" * 10**5,
     "A is right. " * 10**4, "but A " * 10**5, "\\text{A}" * 10**5, "option " * 10**5],
)  # fmt: skip
def test_hostile_prose_costs_linear_time(text):
    started = time.process_time()
    options.stated_option(text)
    assert time.process_time() - started < 3


# --- outcomes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        ({"answer": "25"}, "\\boxed{25.01}", ("wrong", None)), ({"answer": "25"}, "\\boxed{25", ("wrong", None)),
        ({"answer": "25"}, "\\boxed{24 \\text{ or } 25}", ("wrong", None)),
        ({"answer": "25"}, "It is 25", ("no_answer", None)),
        ({"answer": "25"}, "in \\boxed{}: 25", ("no_answer", None)),
        ({"answer": "25"}, "\\boxed{a+b=25}", ("correct", "25")),
        (OPTION, "\\boxed{3.2}", ("wrong", None)), (OPTION, "\\boxed{A or B}", ("wrong", None)),
        (OPTION, "Perhaps B", ("no_answer", None)), (OPTION, "\\boxed{3.2}. Answer: B", ("correct", "B")),
    ],
)  # fmt: skip
def test_a_box_that_cannot_be_read_is_a_wrong_answer_and_not_a_missing_one(question, text, expected):
    kind = "option" if question is OPTION else "integer"
    assert grade.outcome(response(f"x</think>{text}"), question | {"kind": kind}, SOUND[kind]) == expected


def test_the_released_rules_know_no_unreadable_box():
    assert grade.outcome(response("\\boxed{?}"), OPTION | {"kind": "option"}, rules("released", "gpqa")) == (
        "no_answer", None)  # fmt: skip
