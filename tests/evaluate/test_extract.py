import itertools
import time

import pytest

from tinyr1.data.answers import integer
from tinyr1.evaluate.grading import extract, options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"), ("\\boxed{1} then \\boxed{2}", "2"), ("\\boxed {7}", "7"),
        ("\\fbox{8}", "8"), ("\\boxed{\\boxed{5}}", "5"), ("\\boxed{}", ""), ("\\boxed{5", None),
        ("\\boxed{5} and \\boxed{6", None), ("\\boxed5", None), ("boxed{5}", None), ("the answer is 5", None),
        ("", None),
        ("\\boxed{5\\}", None), ("\\boxed{\\{5\\}}", "\\{5\\}"), ("{ \\boxed{5}", "5"), ("} \\boxed{5}", "5"),
        ("\\boxed{\\frac{\\boxed{5}}{2}}", "\\frac{\\boxed{5}}{2}"), ("\\boxed{ open \\boxed{5}", "5"),
        ("{\\boxed{5}}", "5"), ("\\\\boxed{5}", "5"), ("\\boxed{a} \\fbox{b} {c}", "b"), ("\\boxedtext{5}", None),
    ],
)  # fmt: skip
def test_the_last_balanced_box_is_read(text, expected):
    assert extract.boxed(text) == expected


@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 200_000, "\\boxed{}" * 100_000, "{" * 500_000 + "}" * 500_000, "\\" * 10**6],
    ids=["opened", "closed", "nested", "escapes"],
)
def test_a_hostile_text_costs_linear_time(text):
    started = time.process_time()
    extract.boxed(text)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("204", 204), ("025", 25), ("000", 0), (" 204 ", 204), ("204.", 204), ("-3", -3),
        ("$204$", 204), ("\\$12", 12), ("\\text{204}", 204), ("\\mathbf{7}", 7), ("x = 5", 5), ("x_1=3", 3),
        ("x_{AB} = 5", 5), ("\\text{area} = 5", 5), ("\\(204\\)", 204), ("\\ 204\\ ", 204), ("$1,204$.", 1204),
        ("5^\\circ", 5), ("5^{\\circ}", 5), ("5°", 5), ("x = 1{,}204^\\circ.", 1204), ("204\\text{ minutes}", 204),
        ("204\\,\\text{cm}", 204), ("204 \\mathrm{ square units}", 204),
        ("1,204", 1204), ("1{,}204", 1204), ("1\\,204", 1204), ("1,\\!204", 1204), ("1,234,567", 1234567),
        ("204.01", None), ("204.0", 204), ("1.204", None), ("20400\\%", None), ("20400%", None),
        ("5 or 6", None), ("5, 6", None), ("1,2", None), ("12,34", None), ("1,2345", None), ("\\{5\\}", None),
        ("m+n=204", 204), ("\\frac{408}{2}", 204), ("200+4", None), ("5!", None), ("--5", None), ("+5", None),
        ("12 dollars", 12), ("two", None), ("", None), ("9" * 10, None), ("0x10", None), ("1e3", None),
        ("20 4", None), ("20\\ 4", None), ("20\\,4", None), ("2\\text{04}", None), ("1, 204", None), ("1 204", None),
        ("204\\text{ hundred}", None), ("204\\text{ thousand}", None), ("204\\text{ or } 5", None), ("x \\neq 5", None),
        ("x==5", None), ("x=y=5", None), ("x<=5", None), ("x mod 7 = 5", None), ("5_{10}", None), ("204^2", None),
        ("٢٠٤", None), ("２０４", None), ("²", None), ("½", None), ("−5", None), ("5\\cdot 1", None), ("204\\pi", None),
        ("\\sqrt{4}", None), ("(5)", None), ("[5]", None), ("5;", None), ("\\text{not } 204", None), ("~5", 5),
    ],
)  # fmt: skip
def test_an_integer_is_read_in_the_ways_it_is_written_and_nothing_else_is(text, expected):
    assert integer(text) == expected


def wrong_forms(truth):
    """Answers that a careless grader takes for `truth`, and that say something else or nothing definite."""
    t = str(truth)
    other = str(truth + 1)
    numbers = [
        f"{t}0", f"{t}00", f"{t}000", f"1{t}", f"0.{t}", f"{t}.5", f"{t}.01", f"{t}.0001", f"{t},5", f"{t},000",
        f"-{t}", f"--{t}", f"\u2212{t}", f"{t}\\%", f"{t}%", f"{t}\\,\\%", f"{t}\\text{{ percent}}", f"{t}e1",
        f"{t}E2", f"0x{t}",
        f"{t}/100", f"\\frac{{{t}}}{{100}}", f"\\frac{{{t}}}{{2}}", f"\\dfrac{{1}}{{{t}}}", f"{t}^2", f"{t}^{{-1}}",
        f"{t}!",
        f"\\sqrt{{{t}}}", f"\\log {t}", f"{t}\\pi", f"{t}x", f"{t}i", f"{t}_8", f"{t}_{{16}}", f"|{t}|",
        f"\\overline{{{t}}}",
        f"{t}+1", f"{t}-1", f"2\\cdot{t}", f"{t}\\times 10", f"{t}\\cdot 10^3", f"{t} 000", f"{t}\\,000",
        f"{t}\\text{{ thousand}}",
        f"{t}\\text{{ hundred}}", f"{t}\\text{{ million}}", f"{t}\\text{{ dozen}}", f"\\pm {t}", f"\\approx {t}",
        f"\\neq {t}",
        f"<{t}", f">{t}", f"\\le {t}", f"\\ge {t}", f"x\\neq {t}", f"x<{t}", f"x\\equiv {t}", f"{t}\\pmod{{1000}}",
    ]  # fmt: skip
    several = [
        f"{t}, {other}", f"{other}, {t}", f"{other} or {t}", f"{t}\\text{{ or }}{other}", f"{other}\\text{{ and }}{t}",
        f"({other}, {t})", f"\\{{{other}, {t}\\}}", f"[{t}, {other}]", f"{t};{other}", f"{t}\\quad {other}",
        f"{t}|{other}",
        f"{other}\\to {t}", f"{t}={other}", f"x={other}, y={t}", f"x=y={t}", f"{t}\\ldots", f"{t}...", f"{t}-{other}",
        f"{t}\\text{{ to }}{other}", f"\\text{{not }}{t}", f"\\text{{maybe }}{t}", f"{t}?", f"{t}\\text{{?}}",
        f"about {t}",
        f"\\boxed{{{t}}} {other}", f"\\frac{{\\boxed{{{t}}}}}{{2}}", f"\\boxed{{{t}}}\\boxed{{{other}}}", "", "?", "x",
    ]  # fmt: skip
    digits = [t.translate({48 + i: base + i for i in range(10)}) for base in (0x660, 0x6F0, 0x966, 0xFF10, 0x1D7CE)]
    gaps = (" ", "\\ ", "\\,", "\\!", "~", "\n", "{}", ",", ".")
    split = [f"{t[:i]}{gap}{t[i:]}" for i in range(1, len(t)) for gap in gaps]
    return numbers + several + digits + split


@pytest.mark.parametrize("truth", [5, 25, 204, 500, 999])
def test_no_adversarial_form_in_the_box_counts_as_the_answer(truth):
    forms = wrong_forms(truth)
    assert len(forms) == len(set(forms)) > 90
    wrapped = itertools.product(forms, ("{}", "${}$", " {} ", "\\text{{{}}}", "{}.", "n = {}"))
    texts = [f"\\boxed{{{around.format(form)}}}" for form, around in wrapped]
    assert [text for text in texts if extract.boxed_integer(text) == truth] == []


@pytest.mark.parametrize("truth", [5, 25, 204, 500])
def test_no_text_around_another_or_no_box_counts_as_the_answer(truth):
    t, o = str(truth), str(truth + 1)
    texts = [
        f"\\boxed{{{t}}} is wrong, so \\boxed{{{o}}}", f"\\boxed{{{o}}}\\boxed{{{t}{t}}}",
        f"\\boxed{{{t}}}{{}}\\boxed{{}}",
        f"\\boxed{{{o}}} {t}", f"{t} \\boxed{{{o}}}", f"\\boxed{{{t}", f"\\boxed{{{t}\\}}", f"\\boxed {t}",
        f"boxed{{{t}}}",
        f"\\text{{boxed}}{{{t}}}", f"The answer is {t}.", f"Answer: {t}", f"**{t}**", f"$${t}$$", f"`{t}`", f"#### {t}",
        f"final answer is ${t}$. I hope it is correct", f"\\framebox{{{t}}}", f"\\mbox{{{t}}}",
        f"\\boxed{{{o}}} ({t} is tempting)",
        f"\\boxed{{\\text{{see above}}}} {t}", f"\\boxed[{t}]{{{o}}}", f"\\boxed({t})", f"\\BOXED{{{t}}}",
        f"\\boxed{{{t}}}\n\\fbox{{{o}}}",
        f"\\boxed{{3}} so \\boxed{{{t}0}}", f"\\boxed{{{t[0]}}} and \\boxed{{{t[1:] or 'x'}}}",
        f"\\boxed{{a=\\boxed{{{t}}}}}",
    ]  # fmt: skip
    assert [text for text in texts if extract.boxed_integer(text) == truth] == []


@pytest.mark.parametrize("truth", [5, 25, 204, 0])
def test_honest_forms_in_the_box_count_as_the_answer(truth):
    t = str(truth)
    forms = [
        t, t.zfill(3), f" {t} ", f"${t}$", f"{t}.", f"\\text{{{t}}}", f"\\mathbf{{{t}}}", f"n = {t}", f"m_1={t}",
        f"{t}^\\circ",
        f"{t}^{{\\circ}}", f"{t}\\text{{ units}}", f"\\boxed{{{t}}}", f"\\textbf{{{t}}}",
    ]  # fmt: skip
    around = "\\boxed{{{}}}"
    arounds = [around, f"\\boxed{{{{3}}}} ... so {around}", f"${around}$ is it.", f"\\[{around}\\]", "\\fbox{{{}}}"]
    texts = [around.format(form) for around in arounds for form in forms]
    assert [text for text in texts if extract.boxed_integer(text) != truth] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{A}", "A"), ("\\boxed{(C)}", "C"), ("\\boxed{D.}", "D"), ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\text{ (B) }}", "B"), ("Not \\boxed{A}, but \\boxed{B}", "B"), ("\\boxed{\\mathbf{B}}", "B"),
        ("Answer: A. Then \\boxed{B}", "B"), ("Answer: $B$", "B"), ("Answer: [B]", "B"), ("**Answer: B**", "B"),
        ("Answer: C", "C"), ("The answer is A.", "A"), ("ANSWER: (B)", "B"), ("**Answer:** B", "B"),
        ("Answer: A. No, wait. Answer: D", "D"), ("Answer: A) heat", "A"), ("Answer: C because it is", "C"),
        ("The answer is a cat", None), ("Answer: a", None), ("\\boxed{a}", None), ("answer: because", None),
        ("The answer is vitamin D", None), ("Answer: vitamin D", None), ("The answer is D-glucose", None),
        ("The answer is A's child", None), ("The answer is BBC", None), ("Answer: E", None), ("Answer: Dimethyl", None),
        ("\\boxed{E}", None), ("\\boxed{A or B}", None), ("\\boxed{AB}", None), ("\\boxed{}", None),
        ("\\boxed{vitamin D}", None), ("A", None), ("I choose C", None), ("", None), ("(B)", None),
        ("The answer is not B", None), ("The answer isn't B", None), ("Answer: A or B", None), ("Answer: A, B", None),
        ("Answer: A/B", None), ("Answer: A and C", None), ("No clear answer. A second look", None),
        ("The answer is A good guess", None), ("Answer: \\boxed{E}", None), ("B is a tempting answer", None),
    ],
)  # fmt: skip
def test_an_option_is_read_where_it_is_given_as_the_answer(text, expected):
    assert options.option(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # measured on the released rule (docs/evaluation.md §5)
        ("\\boxed{B}. This is a consequence", "A"), ("It is vitamin D", "D"), ("\\boxed{C}", "C"), ("none", None),
        ("abcd", None), ("b", "B"), ("A-B", "B"),
    ],
)  # fmt: skip
def test_the_released_rule_for_options_takes_the_last_bare_letter(text, expected):
    assert extract.last_letter(text) == expected
