"""Right or wrong: every sample ends as exactly one of OUTCOMES, by the extraction and the grader of its protocol."""

from collections.abc import Callable

from tinyr1.core.prompts import split_response
from tinyr1.evaluate.grading import programs
from tinyr1.evaluate.grading.extract import boxed_integer, last_letter, option
from tinyr1.evaluate.grading.math_verify import Verifier
from tinyr1.evaluate.grading.released_math import quick_equal, released_answer
from tinyr1.evaluate.protocol import LETTERS, Protocol, order
from tinyr1.sandbox.runner import Runner

OUTCOMES = ("correct", "wrong", "no_answer", "truncated", "timeout", "grader_error")
UNDECIDED = ("timeout", "grader_error")  # not right, and not shown to be wrong: scores.csv has a column for each


def outcome(
    response: dict, question: dict, protocol: Protocol, runner: Runner | None = None, verifier: Verifier | None = None
) -> tuple[str, str | None]:
    """(one of OUTCOMES, extracted answer) of one stored response, by the rules of its protocol.

    response: text, finish ("stop" or "length") and sample; question: as `tinyr1.data.benchmarks` makes it. An option is
    returned as its id where the protocol orders the options, else as its letter. runner: needed for programs;
    verifier: for the released math rule.
    """
    cut = response["finish"] == "length"
    if cut and not protocol.truncated_counts:
        return "truncated", None
    text = response["text"] if protocol.reads == "whole" else split_response(response["text"])[1]
    found = None if text is None else EXTRACTION[protocol.extraction](text)
    if found is None:
        return ("truncated" if cut else "no_answer"), None
    verdict, shown = GRADERS[protocol.grader](found, question, response, protocol, runner, verifier)
    return ("truncated" if cut and verdict == "wrong" else verdict), shown


def _integer(found: int, question: dict, *_: object) -> tuple[str, str]:
    return ("correct" if found == int(question["answer"]) else "wrong"), str(found)


def _option(found: str, question: dict, response: dict, protocol: Protocol, *_: object) -> tuple[str, str]:
    shown = response.get("order") or order(protocol, question, response["sample"])
    name = str(shown[LETTERS.index(found)]) if shown else found
    return ("correct" if name == question["answer"] else "wrong"), name


def _program(
    code: str, question: dict, response: dict, protocol: Protocol, runner: Runner, verifier: object
) -> tuple[str, str]:
    return programs.judge_program(runner, code, question["tests"], question["func_name"]).outcome, code


def _math_equal(
    found: str, question: dict, response: dict, protocol: Protocol, runner: object, verifier: Verifier
) -> tuple[str, str]:
    equal = quick_equal(found, question["answer"])
    if equal is None:
        return SYMBOLIC[verifier.ask(question["answer"], f"${found}$").status], found
    return ("correct" if equal else "wrong"), found


SYMBOLIC = {"equal": "correct", "different": "wrong", "nothing": "wrong", "timeout": "timeout", "error": "grader_error"}
EXTRACTION: dict[str, Callable[[str], object]] = {
    "boxed_integer": boxed_integer, "released_math": released_answer, "anchored_option": option,
    "last_letter": last_letter, "last_fence": programs.extract,
}  # fmt: skip
GRADERS = {"integer": _integer, "math_equal": _math_equal, "option": _option, "program": _program}
