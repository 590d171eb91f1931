"""Texts as models write them, with the answer that somebody who reads carefully takes.

Each list has one kind of answer. What a list holds is read by the graders as its name says, and nothing else is.
"""

import pytest

from tinyr1.evaluate.grading import extract, options

SAYS_C = [
    "\\boxed{C: heat capacity}", "\\boxed{**C**}", "\\boxed{$C$}", "\\boxed{{C}}", "\\boxed{\\textrm{C}}",
    "\\boxed{\\boldsymbol{C}}", "\\boxed{\\text{Option C}}", "\\boxed{\\textbf{(C) }\\text{heat}}",
    "\\boxed{\\mathbf{C.}}", "\\boxed{'C'}", "\\boxed{`C`}", "\\boxed{C,}", "\\boxed{C;}", "\\boxed{C!}",
    "\\boxed{(C).}", "\\boxed{C}.", "\\boxed{\\mathrm{C}}", "\\boxed{\\rm C}", "\\boxed{C \\text{ (heat)}}",
    "\\boxed{C\\text{) heat}}", "\\boxed{C\\quad}", "\\boxed{\\mathsf C}", "\\boxed{\\text{C}\\,}",
    "\\boxed{\\underline{C}}", "\\boxed{\\Large C}", "\\boxed{\\textcolor{blue}{C}}",
    "\\boxed{\\text{The answer is C}}", "\\boxed{\\text{Answer: } C}", "\\boxed{\\text{C – heat}}",
    "\\boxed{A} \\boxed{C}", "\\boxed{\\text{C. }\\; 3.2\\times10^{5}}", "**Answer**\n\nC", "**Answer:**\n\n**C**",
    "Answer:\nC", "Answer: C\nwhere x is the mass", "Final Answer: C", "**Final answer:** (C)",
    "the answer is C which fits", "The correct answer is: C", "The correct answer is **C**.",
    "The answer is option **C**: heat", "Therefore, the correct choice is (C).",
    "The right answer is C, because heat flows", "So the answer is: **C) heat**", "Hence, option C is correct.",
    "My answer is C.", "Answer: C (heat)", "Answer: C – heat flows", "Answer: C, heat flows",
    "Answer: **C. Heat flows**", "ANSWER: C", "answer is C", "Answer is C.", "The answer is \\(\\boxed{C}\\).",
    "The answer is $\\mathbf{C}$.", "The final answer is C", "The best answer is C.", "The best choice is C.",
    "Correct answer: C", "**C** is the correct answer.", "Option C is the best answer.", "Only C is correct.",
    "The answer would be C.", "The answer is thus C", "Answer: C\n\nExplanation: A is wrong since it is hot.",
    "The answer is (C) heat.", "The answer is C: heat",
    "It is tempting to say that the answer is A, but the answer is C.",
    "The answer is A. Hmm, wait. The answer is C.", "Answer: A\n\nOn reflection: Answer: C",
    "The answer is C, not A.", "A is incorrect, so the answer is C.", "Statement A is correct, but the answer is C.",
    "The answer is C, but A is close.", "The answer is A, though C is right.",
    "The answer is C. This is not right for A.", "The answer: C", "Answer:C", 'Answer: "C"', "Answer: 'C'",
    "Answer: [C]", "Answer: {C}", "Answer: C.", "Answer: C\n", "Answer: C and not D",
    "\\boxed{\\text{The correct answer is C}}", "\\boxed{\\text{The correct option is C}}",
    "\\boxed{\\text{Option C is correct}}",
    "\\boxed{\\mathcal{C}}", "\\boxed{\\Huge C}", "\\boxed{\\text{C) both A and D}}", "**Answer**\n\n**(C) heat**",
    "The correct answer to this question is **C**.", "The correct statement is C.", "C is the only correct option.",
    "<answer>C</answer>", "#### C", "Ans: C", "Answer choice: C", "答案是C。", "正确答案是 **C**。", "故选C。",
    "So the energy is 5 eV, which corresponds to option **C**.", "This matches option (C).",
    "\\boxed{3.2\\text{ eV}}\n\nThis corresponds to option C.",
    "The answer is C. Though A and C are close, C fits best.",
    "**Answer: C**\n\nHowever, only C satisfies both conditions.", "Answer: C\n\nBut why C? A, B and D violate parity.",
    "As you might expect, the answer is C.", "\\boxed{A}\n\nWait, that is wrong. The answer is C.",
    "Answer: C; A and B are wrong", "The answer is C. Let me say why: it is hot.", "The only possible answer is C.",
]
SAYS_B = [
    "At first sight the answer is A. But A ignores spin, so B is right.", "A is correct? B is correct.",
]
SAYS_NO_LETTER = [
    "\\boxed{C → heat}", "\\boxed{C = 3}", "\\boxed{A, C}", "\\boxed{AC}", "\\boxed{\\text{A or C}}",
    "\\boxed{\\text{not C}}", "\\boxed{\\text{None}}", "\\boxed{c}", "\\boxed{\\text{C?}}", "\\boxed{C/D}",
    "\\boxed{A} \\boxed{}", "\\boxed{\\text{C and D}}", "I choose option C.", "Answer - C", "It's C.",
    "The answer is not A but B.", "The answer is either A or C.", "Answer: A or C", "The answer is A? No.",
    "The answer cannot be C.", "The answer is C or D, I guess", "If the mass were zero, the answer is C.",
    "The answer is A. Wait, no.", "The student said the answer is A.", "Neither A nor C is correct.",
    "The answer is none of A to D", "Answer: none. C", "Answer: C. Actually, D is better.", "Vitamin C is correct.",
    "The answer is vitamin C", "Plan C is the answer", "The answer isn't C.", "The answer → C", "Answer: <C>",
    "Answer: C or maybe D", "Answer: C & D", "Answer: C+D", "Answer: Cu", "Answer: C-14", "Answer: C6H12",
    "Answer: C = 5 F", "Answer: A student", "Answer: A cat",
    # a letter that is a symbol
    "The answer is $A = \\pi r^2$.", "$C = Q/V$ is found. Answer: $C = Q/V$", "Answer: $A \\times B$",
    "The answer is $C(10,3)$.",
    "Answer: $B \\approx 3$ T", "The answer is $D > 0$.", "The answer is A^2.", "Answer: D = λ/2", "\\boxed{C (10, 3)}",
    # several letters
    "A > B > C is the order. Answer: A > B > C", "The answer is A → B → C → D.", "Answer: A;C", "Answer: A – 3, B – 1",
    "The answer is C, or maybe D.", "Answer: A, and also C", "\\boxed{(A),(C),(D)}", "\\boxed{A), C), D)}",
    "\\boxed{A - 3, B - 1}", "\\boxed{\\text{A (and also C)}}", "\\boxed{A. 5 \\quad B. 6}",
    "\\boxed{A} or $\\boxed{B}$",
    "The answer is C for even n, D for odd n.", "For case 1 the answer is C, for case 2 the answer is D.",
    "Answer: A\nor\nAnswer: B", "A is correct and B is correct.", "A is correct. B is correct. D is correct.",
    # somebody else's answer, and one that is denied
    "The wrong answer is B.", "Least correct option: B", "Not the answer: B", "Your answer: B (incorrect)",
    "The previous answer is B.", "A possible answer is B.", "It is false that C is correct.",
    "It isn't clear that B is correct.",
    "It can't be that the answer is B.", "I rule out that the answer is B.", "You'd expect the answer is B.",
    "\\boxed{\\text{(A) is wrong}}", "错误答案是B。",
]
SAYS_A = ["Answer: A. The cat"]
IS_204 = [
    "m+n=204", "|S|=204", "\\frac{408}{2}", "{204}", "\\displaystyle 204", "204\\degree", "204\\quad", "n\\,=\\,204",
    "204.0", "\\text{204 minutes}", "204\\,", "\\;204", "204\\text{ cm}^3", "204\\ \\text{units}^2",
    "204\\text{ square feet}", "204\\text{ mph}", "\\mathbf{204}", "\\boldsymbol{204}", "\\underline{\\textbf{204}}",
    "\\color{red}{204}", "\\color{red} 204", "\\textcolor{red}{204}", "204.", "204\\text{.}", "\\text{Answer: }204",
    "\\text{The answer is } 204", "\\mathrm{N}=204", "N = 204", "a+b+c=204", "100m+n = 204", "p+q+r=200+4=204",
    "200+4=204", "2^2\\cdot 51 = 204", "AB=204", "AB + CD = 204", "\\angle ABC = 204^\\circ",
    "\\lfloor x\\rfloor=204", "\\left\\lfloor 100x \\right\\rfloor=204", "f(10)=204", "\\text{sum} = 204",
    "\\text{Total area} = 204", "x=204^\\circ", "204/1", "\\frac{204}{1}", "\\dfrac{816}{4}", "408/2",
    "\\tfrac{408}{2}", "204 = m+n", "204=x", "0204", "00204", "204.00", "204\\\\", "\\mbox{204}", "\\hbox{204}",
    "\\fbox{204}", "\\boxed{204}", "\\text{204}^\\circ", "204\\text{°}", "$204$ dollars", "\\$204",
    "204\\text{ ways}", "204\\text{ subsets}", "m + n = \\mathbf{204}", "m+n = 204.", "\\text{m+n}=204",
    "m\\!+\\!n=204", "\\text{Area}=204\\text{ cm}^2", "k_{\\max}=204", "\\min = 204", "\\gcd = 204", "\\phi(n)=204",
    "=204", "204\\text{ }", "r_1r_2=204", "|\\mathcal{S}|=204", "3a+2b=204", "AB^2=204", "\\Huge 204",
]
IS_MINUS_204 = [
    "-204",
]
IS_NO_INTEGER = [
    "0,204", "0{,}025", "000,204", "\\text{percent}=204", "ln=204", "204 \\text{ m/s}", "204\\text{ km/h}", "+204",
    "(204)", "204,", "204;", "204!", "2^2\\cdot 51", "\\frac{a}{b}=204", "\\sum = 204", "x = 204, y = 3",
    "204 \\text{ or } 5", "204\\%", "204\\text{ thousand}", "2.04\\times 10^2", "2.04e2", "\\frac{-408}{-2}",
    "204_{10}", "\\overline{204}", "204\\ldots", "\\approx 204", "\\leq 204", "204\\pm 1", "\\sqrt{41616}", "204i",
    "204\\pi", "two hundred four", "x^2 = 204", "2x=204", "x=y=204", "−204", "\\minus 204", "204\\text{ (mod 1000)}",
    "204 \\pmod{1000}", "n \\equiv 204", "204.5", "2 04", "20\\,4", "\\text{2}04", "20{4}", "{20}4", "204\\newline",
    "\\ensuremath{204}", "204^{o}", "204\\text{ USD}", "€204", "204\\text{ apples}", "204\\text{ ordered pairs}",
    "m+n=\\boxed{204}", "\\text{not }204", "n!=204", "\\binom{n}{2}=204", "\\operatorname{lcm}(a,b)=204",
    "\\Rightarrow 204", "\\therefore 204", "204\\checkmark", "204\\;\\blacksquare", "204\\text{ is the answer}",
    ": 204", "#204", "\\phantom{0}204", "\\hspace{1em}204", "2AB=204", "AB/2=204", "-AB=204", "2(m+n)=204",
    "(m+n)/2=204", "m+n-1=204", "\\text{upper bound}=204", "\\text{estimate}=204",
]


@pytest.mark.parametrize(("texts", "letter"), [(SAYS_C, "C"), (SAYS_B, "B"), (SAYS_A, "A"), (SAYS_NO_LETTER, None)])
def test_letters_are_read_as_a_careful_reader_reads_them(texts, letter):
    assert {text: found for text in texts if (found := options.option(text)) != letter} == {}


@pytest.mark.parametrize("n", [5, 10, 26])
def test_more_options_change_no_text_that_names_one_of_the_first(n):
    assert [text for text in SAYS_C if options.option(text, n) != "C"] == []


@pytest.mark.parametrize(("contents", "number"), [(IS_204, 204), (IS_MINUS_204, -204), (IS_NO_INTEGER, None)])
def test_integers_are_read_as_a_careful_reader_reads_them(contents, number):
    boxes = {content: f"Then \\boxed{{4}}. So $\\boxed{{{content}}}$" for content in contents}
    assert {content: found for content, text in boxes.items() if (found := extract.boxed_integer(text)) != number} == {}
