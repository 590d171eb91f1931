r"""Any mathematical answer: what a careful reader takes for the reference is right, and nothing else is."""

import time

import pytest
from test_extract import wrong_forms

from tinyr1.evaluate.grading import expression, extract
from tinyr1.evaluate.grading.symbolic import Verifier


@pytest.fixture(scope="module")
def verifier():
    with Verifier(1, seconds=20) as running:
        yield running


# (reference, contents of boxes that are right, contents that are wrong)
ANSWERS = [
    # numbers
    ("18", ["18", "$18", "\\$18", "18.0", "18.00", "18\\text{ eggs}", "\\text{18 eggs}", "18 \\text{ dollars}",
     "18 apples", "x = 18",
     "9+9",
            "3^2 \\cdot 2", "\\frac{36}{2}", "36/2", "\\sqrt{324}", "2\\cdot 9=18", "\\text{Total} = 18", "18\\%",
            "\\displaystyle 18", "\\left(18\\right)", "18^\\circ", "18\\text{ miles per hour}", "{18}", "**18**"],
     ["18.5", "180", "-18", "1,8", "\\{18\\}", "18, 19", "18 \\text{ or } 19", "17=18", "18=17", "2x=18", "x=y=18",
      "x \\ne 18", "x<18", "\\approx 18", "18?", "18\\ldots", "18\\text{ thousand}", "18\\text{ dozen}",
       "\\text{18 or 19}", "\\text{18 thousand}", "not 18",
      "\\text{not }18", "1 8", "1\\,8", "18_9", "\\frac{18}{2}", "18x", "18i", "18!", "(18, 0)", "\\pm 18",
      "x \\equiv 18 \\pmod{20}", "18\\pi", "I do not know 18", "\\log 18", "\\text{eighteen}"]),
    ("1000", ["1000", "1,000", "1{,}000", "1\\,000", "10^3", "1000.0", "1,\\!000"], ["1.000", "1,00", "1 000 000",
     "1,0000"]),
    ("0.204", ["0.204", ".204", "\\frac{204}{1000}", "20.4\\%", "\\frac{51}{250}"], ["204", "0,204", "2.04",
     "0.2040001"]),
    ("-5", ["-5", "−5", "-\\frac{10}{2}", "x=-5"], ["5", "|-5|", "- 5 \\text{ or } 5"]),
    ("70,000", ["70000", "70,000", "\\$70,000", "7 \\times 10^4"], ["70", "7000"]),
    # fractions and powers
    ("\\frac{1}{2}", ["\\frac12", "\\dfrac{1}{2}", "\\tfrac{1}{2}", "1/2", "0.5", "\\frac{2}{4}", "50\\%", "2^{-1}",
                      "\\text{P} = \\frac{1}{2}", "P(A)=\\frac{1}{2}"],
     ["\\frac{2}{1}", "2", "1/2/2", "-\\frac12", "\\frac{1}{2}x", "12", "1,2", "\\frac{1}{2}, \\frac{1}{3}"]),
    ("2\\frac{1}{3}", ["\\frac{7}{3}", "2\\frac{1}{3}", "2 1/3", "7/3"], ["\\frac{2}{3}", "21/3", "7"]),
    ("2\\sqrt{2}", ["\\sqrt{8}", "2\\sqrt2", "2 \\sqrt{2}", "2^{3/2}", "2sqrt(2)", "\\frac{4}{\\sqrt{2}}"],
     ["\\sqrt{2}", "2\\sqrt{3}", "2.8", "2\\sqrt{2}i", "22"]),
    ("\\frac{\\pi}{4}", ["\\frac{\\pi}{4}", "\\pi/4", "pi/4", "\\frac14\\pi", "0.25\\pi", "\\theta=\\frac{\\pi}{4}"],
     ["\\frac{\\pi}{2}", "45", "\\pi", "0.785", "\\frac{4}{\\pi}"]),
    ("3^{2024}", ["3^{2024}", "3^{ 2024 }"], ["3^{2023}", "2024"]),
    ("2^{10}-1", ["1023", "2^{10} - 1", "1{,}023"], ["1024", "2^{9}-1"]),
    # units and percentages
    ("5\\text{ cm}", ["5", "5\\text{ cm}", "5 \\mathrm{cm}", "5\\text{ centimeters}", "5\\,\\text{cm}"],
     ["5\\text{ m}", "5\\text{ inches}", "50\\text{ mm}\\text{ or so}", "5\\text{ cm}^2", "6\\text{ cm}"]),
    ("12\\text{ square units}", ["12", "12\\text{ square units}", "12 \\text{ units}"], ["12^2", "13"]),
    ("50\\%", ["50\\%", "50", "0.5", "\\frac12", "50\\text{ percent}", "50 \\%"], ["5\\%", "0.05", "5000\\%", "150"]),
    ("90^\\circ", ["90", "90^\\circ", "90^{\\circ}", "90°", "\\angle A = 90^\\circ", "90\\text{ degrees}"],
     ["90\\text{ radians}", "9", "-90^\\circ"]),
    ("3.5\\text{ eV}", ["3.5", "3.5\\text{ electronvolts}"], ["3.5\\text{ keV}", "3.5\\text{ J}"]),
    ("9.8\\text{ m/s}^2", ["9.8", "9.8\\text{ m s}^{-2}", "9.8 \\mathrm{m}/\\mathrm{s}^2", "9.8\\text{ m/s²}",
     "9.8\\text{ meters per second squared}"], ["9.8\\text{ m/s}", "9.8\\text{ km/s}^2", "9.8\\text{ m}"]),
    ("25^\\circ\\text{C}",
     ["25", "25\\text{ C}", "25\\text{ degrees Celsius}", "25^{\\circ}\\mathrm{C}", "25\\text{ °C}"],
     ["25^\\circ\\text{F}", "25\\text{ K}", "25\\text{ degrees Fahrenheit}"]),
    ("4\\text{ m s}^{-1}", ["4\\text{ ms}^{-1}", "4\\text{ m/s}"], ["4\\text{ ms}", "4\\text{ km/s}"]),
    ("60\\text{ mph}", ["60\\text{ miles per hour}", "60\\text{ mi/h}"], ["60\\text{ km/h}", "60\\text{ kph}"]),
    ("4\\text{ J/(kg K)}", ["4\\text{ J kg}^{-1}\\text{ K}^{-1}", "4\\text{ joules per kilogram per kelvin}"],
     ["4\\text{ J/kg}", "4\\text{ kJ/(kg K)}"]),
    ("3\\text{ kWh}", ["3\\text{ kilowatt hours}", "3\\text{ kW h}"], ["3\\text{ kW}", "3\\text{ Wh}"]),
    ("300\\text{ K}", ["300", "300\\text{ kelvins}"], ["300^\\circ\\text{C}", "300\\text{ kK}"]),
    ("5\\ \\Omega", ["5", "5\\text{ ohms}", "5\\,\\Omega"], ["5\\text{ k}\\Omega", "5\\ \\mu"]),
    ("5\\ \\mu\\text{m}", ["5", "5\\text{ µm}", "5\\text{ micrometers}"], ["5\\text{ mm}", "5\\text{ m}", "5\\mu"]),
    ("5\\text{ N}\\cdot\\text{m}", ["5", "5\\text{ N m}", "5\\text{ newton meters}"], ["5\\text{ N}", "5\\text{ N/m}"]),
    ("12\\text{ square meters}", ["12", "12\\text{ m}^2", "12\\text{ sq m}"], ["12\\text{ m}", "12\\text{ m}^3"]),
    ("24", ["24\\text{ ways}", "24\\text{ MHz}", "24\\text{ apples per day}"],
     ["24\\text{ trillion}", "24\\text{ crore}", "24\\mu", "24\\text{ squared}"]),
    ("3\\text{ hours}", ["3", "3\\text{ hrs}", "3 hours"], ["3\\text{ minutes}", "180"]),
    # expressions in variables
    ("2x+3", ["3+2x", "2x + 3", "f(x) = 2x+3", "y=2x+3", "2\\left(x+\\frac32\\right)"], ["2x-3", "2y+3", "2X+3",
     "2x+3=0", "23"]),
    ("y=2x+3", ["2x+3", "y=2x+3", "y = 3+2x", "2x-y+3=0", "y-2x=3"], ["y=2x-3", "z=2x+3", "y=3", "2x+3y"]),
    ("x^2+y^2=4", ["x^2+y^2=4", "y^2+x^2=4", "x^2 + y^2 - 4 = 0"], ["x^2+y^2=2", "4", "x^2+y^2"]),
    ("x=5", ["5", "x=5", "5=x", "x = \\frac{10}{2}"], ["y=5", "x=6", "x>5", "2x=10"]),
    ("(x-1)(x+2)", ["(x+2)(x-1)", "x^2+x-2"], ["(x+1)(x-2)", "(x-1), (x+2)", "x=1"]),
    ("6-5i", ["6-5i", "6 - 5i", "-5i+6", "z = 6-5i"], ["6+5i", "6-5j", "6-5", "5-6i"]),
    ("A", ["A", "\\text{A}", "(A)", "\\textbf{(A)}"], ["a", "B", "AB", "A, B"]),
    ("ab", ["ab", "ba", "a \\cdot b"], ["a+b", "AB", "a", "a, b"]),
    # pairs, sets, lists, intervals
    ("(3, \\frac{\\pi}{2})", ["\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)",
     "(r,\\theta) = (3, \\frac{\\pi}{2})"],
     ["(\\frac{\\pi}{2}, 3)", "3, \\frac{\\pi}{2}", "\\{3, \\frac{\\pi}{2}\\}", "[3, \\frac{\\pi}{2}]", "3"]),
    ("(1,2)", ["(1,2)", "(1, 2)", "\\langle 1,2\\rangle", "(x,y)=(1,2)"],
     ["(2,1)", "[1,2]", "[1,2)", "1,2", "\\{1,2\\}", "(1,2,3)", "12", "(1.2)", "1.2"]),
    ("1, 2, 3", ["3,1,2", "\\{1,2,3\\}", "1, 2, \\text{ and } 3", "x=1, x=2, x=3", "1;2;3"],
     ["1,2", "(1,2,3)", "1,2,3,4", "123", "[1,2,3]", "1, 2, x=3"]),
    ("\\{-1, 1\\}", ["\\{1,-1\\}", "\\pm 1", "1, -1", "x = \\pm 1", "x=1 \\text{ or } x=-1"], ["1", "-1", "(1,-1)",
     "[-1,1]"]),
    ("[1,2)", ["[1,2)", "\\left[1, 2\\right)", "x\\in[1,2)", "1 \\le x < 2"], ["(1,2)", "[1,2]", "(1,2]", "1,2",
     "1<x<2"]),
    ("(5,\\infty)", ["(5,\\infty)", "x>5", "x \\in (5, \\infty)", "(5,+\\infty)"], ["[5,\\infty)", "x\\ge 5", "x<5",
     "5", "(-\\infty,5)"]),
    ("(-\\infty,2)\\cup(3,\\infty)", ["(3,\\infty)\\cup(-\\infty,2)", "(-\\infty, 2) \\cup (3, \\infty)"],
     ["(2,3)", "(-\\infty,2]\\cup(3,\\infty)", "(-\\infty,2)"]),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", ["\\begin{pmatrix}1\\\\2\\end{pmatrix}",
     "\\begin{bmatrix} 1 \\\\ 2 \\end{bmatrix}"],
     ["\\begin{pmatrix}2\\\\1\\end{pmatrix}", "\\begin{pmatrix}1 & 2\\end{pmatrix}",
      "\\begin{pmatrix}1 2\\end{pmatrix}", "3"]),
    # bases, words
    ("1011_2", ["1011_2", "1011_{2}", "1011"], ["1011_3", "11", "1011_{10}"]),
    ("\\text{Evelyn}", ["Evelyn", "\\text{Evelyn}", "\\textbf{Evelyn}", "evelyn"], ["neveLy", "Evelyn, Bob", "E",
     "\\text{not Evelyn}"]),
    ("east", ["east", "\\text{East}", "\\text{east}."], ["seat", "west", "\\text{east or west}", "\\text{northeast}"]),
    ("Yes", ["yes", "\\text{Yes}"], ["No", "sey", "Y"]),
    ("\\text{(C)}", ["C", "\\text{C}", "(C)", "\\mathrm{(C)}"], ["c", "D", "(C, D)"]),
    ("\\emptyset", ["\\emptyset", "\\varnothing"], ["0", "\\{0\\}"]),
]  # fmt: skip


@pytest.mark.parametrize("truth", [204])
def test_no_adversarial_form_counts_as_a_number_unless_it_has_the_same_value(verifier, truth):
    """A sum of signs and an absolute value have it; a per cent sign may have been asked for."""
    same = {f"--{truth}", f"|{truth}|"} | {form for form in wrong_forms(truth) if "%" in form or "percent" in form}
    counted = {form for form in wrong_forms(truth) if judged(verifier, str(truth), form)}
    assert counted <= same


@pytest.mark.parametrize("hostile", ["(" * 400, "{" * 400 + "}" * 400, "=" * 900, " " * 900 + "x", "x=" * 400,
 "\\text{ a}" * 90,
                                     "1," * 450, "[" * 300 + "," + "]" * 300])  # fmt: skip
def test_a_hostile_box_costs_little(hostile):
    started = time.process_time()
    expression.quickly("\\frac{1}{2}", hostile)
    assert time.process_time() - started < 1


def test_a_bomb_is_neither_right_nor_shown_to_be_wrong():
    with Verifier(1, seconds=1) as verifier:
        assert expression.judge_expression(verifier, "\\sqrt{2}", "9^{9^{9^9}}\\cdot\\sqrt{x}") in ("timeout", "error")


def judged(verifier, gold, content):
    boxed = extract.boxed_expression(f"So \\boxed{{4}}? No: $\\boxed{{{content}}}$.")
    return boxed is not None and expression.judge_expression(verifier, gold, boxed) == "equal"


@pytest.mark.parametrize(("gold", "right", "wrong"), ANSWERS, ids=[gold for gold, *_ in ANSWERS])
def test_an_answer_is_right_where_a_careful_reader_says_so(verifier, gold, right, wrong):
    assert [text for text in right if not judged(verifier, gold, text)] == []
    assert [text for text in wrong if judged(verifier, gold, text)] == []
