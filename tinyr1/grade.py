"""Right or wrong: extraction and comparison for each kind of question.

A sample ends as exactly one of OUTCOMES. Only the text after the last `</think>` is read.
"""

import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from tinyr1.chat import split_response
from tinyr1.sandbox import Runner

OUTCOMES = ("correct", "wrong", "no_answer", "truncated", "timeout")


def boxed(text: str) -> str | None:
    """Content of the last balanced \\boxed{…} or \\fbox{…}.

    boxed("so \\boxed{\\frac{1}{2}}") -> "\\frac{1}{2}"
    """
    for start in reversed([m.end() for m in re.finditer(r"\\(?:boxed|fbox)\s*\{", text)]):
        depth = 1
        for i in range(start, len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if depth == 0:
                return text[start:i]
    return None


def integer(text: str) -> int | None:
    """An integer written the ways competition answers are, or None.

    integer("x = 1{,}204^\\circ.") -> 1204
    """
    text = re.sub(r"\\(?:text|mathbf|mathrm|boldsymbol)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,;!: ]|\\?\$|\\left|\\right|\^\{?\\circ\}?|\s", "", text).replace("{,}", ",")
    text = re.sub(r"^[A-Za-z]\w*=", "", text).rstrip(".")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else None


def option(text: str) -> str | None:
    """The letter of a four-option answer: the last boxed one, else the last `Answer: X`. No bare letters."""
    box = boxed(text)
    if box is not None:
        match = re.fullmatch(r"\s*(?:\\text\s*\{)?\s*\(?([A-D])\)?\.?\s*\}?\s*", box)
        return match[1] if match else None
    found = re.findall(r"(?i:answer)\W{0,6}(?i:is)?\W{0,6}\b([A-D])\b(?![\w'-])", text)
    return found[-1] if found else None


def program(text: str) -> str | None:
    """The code between the last two lines that hold a fence, LiveCodeBench's rule (evaluation.md §1.1)."""
    lines = text.split("\n")
    fences = [i for i, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else None


def same_output(got: str, expected: str) -> bool:
    """LiveCodeBench's comparison of standard output: line by line, equal as text or as lists of decimals."""
    got_lines, expected_lines = ([x.strip() for x in text.strip().split("\n")] for text in (got, expected))
    if len(got_lines) != len(expected_lines):
        return False
    pairs = zip(got_lines, expected_lines, strict=True)
    return all(a == b or (_decimals(a) is not None and _decimals(a) == _decimals(b)) for a, b in pairs)


def _decimals(line: str) -> list[Decimal] | None:
    try:
        numbers = [Decimal(token) for token in line.split()]
    except InvalidOperation:
        return None
    return None if any(number.is_snan() for number in numbers) else numbers  # comparing one raises


def same_value(got: str, expected: str) -> bool:
    """Return values of functional problems, as JSON."""
    try:
        return json.loads(got) == json.loads(expected)
    except (ValueError, RecursionError):
        return False


def judge_program(runner: Runner, code: str, tests: list[dict], func_name: str) -> str:
    """Outcome of a program on all its tests; the first failure decides."""
    for test in tests:
        result = runner.run(code, test["input"], func_name)
        if result.status == "timeout":
            return "timeout"
        same = same_value if func_name else same_output
        if result.status != "ok" or not same(result.output, test["output"]):
            return "wrong"
    return "correct"


def outcome(response: dict, question: dict, runner: Runner | None) -> tuple[str, str | None]:
    """(one of OUTCOMES, extracted answer) of one stored response.

    response: text, finish ("stop" or "length"); question: kind ("integer", "option" or "program"), and
    answer, or tests and func_name. runner: needed for programs.
    """
    _, final = split_response(response["text"])
    if response["finish"] == "length":
        return "truncated", None
    if final is None:
        return "no_answer", None
    if question["kind"] == "program":
        code = program(final)
        if code is None:
            return "no_answer", None
        return judge_program(runner, code, question["tests"], question["func_name"]), code
    read: Callable[[str], object] = option if question["kind"] == "option" else lambda t: integer(boxed(t) or "")
    found = read(final)
    if found is None:
        return "no_answer", None
    truth = question["answer"] if question["kind"] == "option" else int(question["answer"])
    return ("correct" if found == truth else "wrong"), str(found)
