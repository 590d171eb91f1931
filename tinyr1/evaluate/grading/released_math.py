"""The authors' rule for math: how it finds an answer and when it takes two for equal, with its faults.

Written from its description (docs/fidelity.md §4.2, docs/evaluation.md §4.1). It is lenient by the design of its
authors: without a box the last number is the answer, and a hundredth or a hundredfold of the truth is right. The strict
rule is `tinyr1.evaluate.grading.extract.boxed_integer`.
"""

import math
import re

_NUMBER = re.compile(r"-?\d*\.?\d+")
_WORDS = dict(zip(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), map(str, range(11)),
    strict=True,
))  # fmt: skip
RELATIVE = 1e-4


def released_answer(text: str) -> str | None:
    """The answer in the whole output, cleaned. None where no phrase announces an answer and there is no number.

    released_answer("<think>\\boxed{7}</think> The answer: 12") -> "7"
    """
    answer = _anchored(text)
    return None if answer is None else _clean(answer)


def _anchored(text: str) -> str | None:
    if "final answer is $" in text and "$. I hope" in text:
        return text.split("final answer is $", 1)[1].split("$. I hope", 1)[0]
    if "boxed" in text:
        return _after_boxed(text.rpartition("boxed")[2])
    for anchor in ("he answer is", "final answer is", "答案是"):
        if anchor in text:
            return text.rpartition(anchor)[2].strip()
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


def _clean(text: str) -> str:
    """The text without line breaks, dollar signs, degrees, per cent, units in \\text and a short `name =`."""
    text = re.sub(r"\n\s*", "", text).strip().lstrip(":").rstrip("./").strip()
    text = re.sub(r"\\[!,;: ]|\\left|\\right|\^\{?\\circ\}?|\\?\$|\\?%", "", text)
    text = re.sub(r"^\\(?:text|mathrm|mathbf)\{([^{}]*)\}$", r"\1", text)
    text = re.sub(r"\\(?:text|mathrm|mbox)\{[^{}]*\}$", "", text).strip()
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name.strip()) <= 2:
        text = value.strip()
    return re.sub(r"\.0+$", "", _WORDS.get(text.lower(), text))


def quick_equal(answer: str, truth: str) -> bool | None:
    """Whether two answers are equal as texts or as numbers; None where only a symbolic comparison can tell.

    A number is right within RELATIVE of the truth, of its hundredth or of its hundredfold.
    """
    if answer.strip().lower() == truth.strip().lower():
        return True
    a, b = _number(answer), _number(truth)
    if a is not None and b is not None:
        return any(math.isclose(a, target, rel_tol=RELATIVE) for target in (b / 100, b, b * 100))
    bare = re.sub(r"[{}()\[\]]", "", answer).strip().lower()
    if bare == truth.strip().lower():
        return True
    return None if re.search(r"\d", answer) and "=" not in answer else False


def _number(text: str) -> float | None:
    digits = text.replace(",", "").strip()
    return float(digits) if re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", digits) else None
