"""The authors' rule for math: how it finds an answer and when it takes two for equal, with its faults.

    text --released_answer--> answer --released_text.cleaned--> --quick_equal--> equal, different, or to be calculated

Written from its description (docs/fidelity.md §4.2, docs/evaluation.md §4.1). It is lenient by the design of its
authors: without a box the last number is the answer, and a hundredth or a hundredfold of the truth is right. The strict
rule is `tinyr1.evaluate.grading.extract.boxed_integer`.
"""

import math
import re

from tinyr1.evaluate.grading.released_text import cleaned

_NUMBER = re.compile(r"-?\d*\.?\d+")
# What their parsers can give the value of a number: no words, and no commands for the looks of it.
_CALCULABLE = re.compile(
    r"(?:[0-9.,+\-*/^(){}!]|\\(?:frac|sqrt|cdot|times|div|pi|log|ln|binom|lfloor|rfloor)(?![A-Za-z]))+"
)
_BLANKS = re.compile(r"(?:\\(?:[,:;]|q?quad|thinspace))+\Z")  # at the end their parser of LaTeX skips them
RELATIVE = 1e-4


def released_answer(text: str) -> str | None:
    """The answer in the whole output, cleaned. None where no phrase announces an answer and there is no number.

    released_answer("<think>\\boxed{7}</think> The answer: 12") -> "7"
    """
    answer = _anchored(text.replace("ки", ""))
    return None if answer is None else cleaned(answer)


def _anchored(text: str) -> str | None:
    if "final answer is $" in text and "$. I hope" in text:
        return text.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    if "boxed" in text:
        return _after_boxed(text.rpartition("boxed")[2])
    for anchor in ("he answer is", "final answer is"):
        if anchor in text:
            return text.rpartition(anchor)[2].strip()
    if "答案是" in text:  # the text between the first and the second one, up to an empty line
        return text.split("答案是")[1].strip().split("\n\n")[0].strip()
    numbers = _NUMBER.findall(text.replace(",", ""))
    return numbers[-1] if numbers else None


def _after_boxed(tail: str) -> str:
    """The text between the braces after the last `boxed`, or up to a dollar sign where no brace follows."""
    if not tail.startswith("{"):
        return tail.partition("$")[0].strip()
    depth = 0
    for i, character in enumerate(tail):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return tail[1:i]
    return tail[1:]  # the brace is never closed


def quick_equal(answer: str, truth: str) -> bool | None:
    """Whether two answers are equal as texts or as numbers; None where only a symbolic comparison can tell.

    truth: a whole number. A number is right within RELATIVE of the truth, of its hundredth or of its hundredfold.
    """
    if answer.strip().lower() == truth.strip().lower():
        return True
    a, b = _number(answer), float(truth)
    if a is not None:
        return any(math.isclose(a, target, rel_tol=RELATIVE) for target in (b / 100, b, b * 100))
    bare = answer.strip("[]()") if re.fullmatch(r"\[.*\]|\(.*\)", answer, re.DOTALL) else answer
    if re.sub(r"[{}()]", "", bare).lower() == truth.lower():
        return True
    name, *values = answer.split("=")
    if len(values) == 1 and len(name.strip()) <= 2:
        return quick_equal(values[0], truth)
    if _BLANKS.search(answer):
        return quick_equal(_BLANKS.sub("", answer), truth)
    return None if _CALCULABLE.fullmatch(answer) else False


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
