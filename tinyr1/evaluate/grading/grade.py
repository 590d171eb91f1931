"""Grades stored responses: one (`outcome`), or all of a run (`grade_samples`), which stores each grade at once.

    outcome(response, question, protocol, runner, verifier) -> ("correct", "204")

    text ─ cut off at the limit, or inside its reasoning? ─▶ truncated
      └─ protocol.reads ─▶ protocol.extraction ─ nothing there? ─▶ no_answer
                                 └─▶ protocol.grader ─▶ correct, wrong, timeout, grader_error

A killed grading goes on where it was. The store's grade of a sample is used again if its key is the same: a hash of the
response, the question with its answer or tests, the rules, the limits of the sandbox, the modules that judge, and the
versions of Python and of the libraries that compare. A `grader_error` is not stored, so the next call tries again.
"""

import os
import platform
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tinyr1.core import artifact, record
from tinyr1.core.params.evaluation import Sandbox
from tinyr1.core.progress import Bar, say
from tinyr1.core.prompts import THINK_OPEN, final_answer
from tinyr1.evaluate.grading.expression import judge_expression
from tinyr1.evaluate.grading.extract import boxed_expression, boxed_integer, last_letter, tries_to_answer
from tinyr1.evaluate.grading.fences import fenced_code, program
from tinyr1.evaluate.grading.options import option
from tinyr1.evaluate.grading.programs import judge_program
from tinyr1.evaluate.grading.released_math import quick_equal, released_answer
from tinyr1.evaluate.grading.symbolic import Verifier
from tinyr1.evaluate.protocol import Protocol, letters, order
from tinyr1.sampling import store
from tinyr1.sandbox.runner import Runner

# A generation that failed has no text to grade; `tinyr1.evaluate.stage` gives it the outcome `failed`.
OUTCOMES = ("correct", "wrong", "no_answer", "truncated", "timeout", "grader_error", "failed")
UNDECIDED = ("timeout", "grader_error")  # neither right nor shown to be wrong; scores.csv has a column for each
EXTRACTION: dict[str, Callable[[str], int | str | None]] = {
    "boxed_integer": boxed_integer, "boxed_expression": boxed_expression, "released_math": released_answer,
    "last_letter": last_letter, "last_fence": fenced_code,
}  # fmt: skip
ANCHORED = "anchored_option"  # the rule that has to know how many options there are
PROGRAM = "last_fence_or_program"  # the rule that has to know what a program must define
# Rules to which a box that they cannot read is an answer: a wrong one.
BOXED = ("boxed_integer", "boxed_expression", ANCHORED)
SYMBOLIC = {"equal": "correct", "different": "wrong", "nothing": "wrong", "timeout": "timeout", "error": "grader_error"}

FORM = store.Form("grade", {
    "model": str, "benchmark": str, "question": str, "sample": int, "outcome": str, "extracted": (str, type(None)),
    "key": str,
})  # fmt: skip
# What a grade depends on. Code: the modules of this package that can change one; a test walks their imports.
JUDGING = (
    *(f"evaluate/grading/{name}.py"
      for name in ("grade", "expression", "extract", "fences", "options", "programs", "released_math", "released_text",
                   "symbolic", "units")),
    "evaluate/protocol.py", "sandbox", "core/prompts.py", "core/text_tokens.py", "data/answers.py",
    "data/arithmetic.py", "data/boxes.py",
)  # fmt: skip
LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "numpy")  # Math-Verify's, and numpy for the programs
RESPONSE_FIELDS = ("text", "finish", "sample", "order", "opened")


def outcome(
    response: dict[str, Any], question: dict[str, Any], protocol: Protocol,
    runner: Runner | None = None, verifier: Verifier | None = None,
) -> tuple[str, str | None]:  # fmt: skip
    """(one of OUTCOMES, the extracted answer) of one response, by the rules of its protocol (docs/evaluation.md §0.3).

    response: text, finish ("stop" or "length"), sample, the order of the options where one is stored, and opened:
    whether the prompt opened the think tag (without this field: it did). question: as `tinyr1.data.benchmarks` makes
    it. runner, verifier: programs and formulas need them; ValueError where one is missing. An option is
    returned as its id where the protocol orders the options, else as its letter. An answer that is boxed and that
    cannot be read is wrong, and nothing is extracted.
    """
    cut = response["finish"] == "length"
    if cut and not protocol.truncated_counts:
        return "truncated", None
    text = response["text"]
    if protocol.reads == "final":
        text, unclosed = final_answer(response["text"], response.get("opened", True))
        # An answer to a prompt that opened the tag may end by itself without closing it: nothing was cut off.
        if unclosed and (response["finish"] != "stop" or THINK_OPEN in response["text"]):
            return "truncated", None
    answer = None if text is None else _extracted(text, question, protocol.extraction)
    if answer is None:
        if cut:
            return "truncated", None
        return ("wrong" if text and protocol.extraction in BOXED and tries_to_answer(text) else "no_answer"), None
    if protocol.grader == "option":
        shown = response.get("order") or order(protocol, question, response["sample"])
        answer = shown[letters(question).index(str(answer))] if shown else answer
    extracted = str(answer)
    verdict = _verdict(extracted, question, protocol, runner, verifier)
    return ("truncated" if cut and verdict == "wrong" else verdict), extracted


def _extracted(text: str, question: dict[str, Any], rule: str) -> int | str | None:
    if rule == ANCHORED:
        return option(text, len(letters(question)))
    return program(text, question["func_name"]) if rule == PROGRAM else EXTRACTION[rule](text)


def _verdict(
    extracted: str, question: dict[str, Any], protocol: Protocol, runner: Runner | None, verifier: Verifier | None
) -> str:
    """correct, wrong, timeout or grader_error for an answer that was extracted."""
    match protocol.grader:
        case "integer":
            return "correct" if int(extracted) == int(question["answer"]) else "wrong"
        case "expression":
            if verifier is None:
                raise ValueError("formulas are compared with a Verifier")
            return SYMBOLIC[judge_expression(verifier, question["answer"], extracted)]
        case "option":
            return "correct" if extracted == question["answer"] else "wrong"
        case "program":
            if runner is None:
                raise ValueError("programs are graded with a Runner")
            return judge_program(runner, extracted, question["tests"], question["func_name"]).outcome
        case "math_equal":
            equal = quick_equal(extracted, question["answer"])
            if equal is not None:
                return "correct" if equal else "wrong"
            if verifier is None:
                raise ValueError("the released math rule compares with a Verifier")
            return SYMBOLIC[verifier.compare(question["answer"], f"${extracted}$").status]
    raise ValueError(f"grader {protocol.grader!r}: expected integer, expression, option, program or math_equal")


Name = tuple[str, str, str, int]  # model, benchmark, question, number of the sample


@dataclass(frozen=True)
class Sample:
    """One stored response, with everything else that its grade depends on."""

    model: str
    benchmark: str
    response: dict[str, Any]
    question: dict[str, Any]
    rules: Protocol

    @property
    def name(self) -> Name:
        """The name of this sample, which no other one of a run has."""
        return self.model, self.benchmark, self.response["question"], self.response["sample"]


def grade_samples(path: Path, samples: list[Sample], sandbox: Sandbox) -> list[dict[str, Any]]:
    """The grade of each sample, in their order: a line of FORM with `outcome` and `extracted` (see `outcome`).

    path: the store, a file of JSON lines; a grade in it is not computed again. UserError while another process grades
    into it, and where programs cannot be isolated.
    """
    keys = grade_keys(samples, sandbox)
    with store.LineWriter(path, FORM) as writer:
        grades = _stored(path, keys)
        todo = [sample for sample in samples if sample.name not in grades]
        if grades:
            say(f"  {len(grades)} of {len(samples)} grades are stored already")
        bar, lock = Bar("grading", "answer"), threading.Lock()

        def add(sample: Sample, outcome: str, extracted: str | None) -> None:
            names = dict(zip(("model", "benchmark", "question", "sample"), sample.name, strict=True))
            line = names | {"outcome": outcome, "extracted": extracted, "key": keys[sample.name]}
            with lock:
                grades[sample.name] = line
                if outcome != "grader_error":
                    writer.append(line)
                bar.update(len(grades), len(samples))

        try:
            _grade_in_threads(todo, sandbox, add)
        finally:
            bar.close()
    return [grades[sample.name] for sample in samples]


def grade_keys(samples: list[Sample], sandbox: Sandbox) -> dict[Name, str]:
    """A hash of everything that determines the grade of a sample, and of nothing else, by the sample's name."""
    common = artifact.digest([
        record.source_hash(*JUDGING), sandbox.model_dump(), platform.python_version(),
        {name: metadata.version(name) for name in LIBRARIES},
    ])  # fmt: skip
    # Each question is hashed once: its tests may have many megabytes, and all its samples share them.
    questions = {id(s.question): s.question for s in samples}
    hashes = {i: artifact.digest(question) for i, question in questions.items()}
    return {
        s.name: artifact.digest([
            common, s.rules.grading_key, hashes[id(s.question)],
            {field: s.response.get(field) for field in RESPONSE_FIELDS},
        ])
        for s in samples
    }  # fmt: skip


def _stored(path: Path, keys: dict[Name, str]) -> dict[Name, dict[str, Any]]:
    """The grades in the store that have these keys; malformed and outdated lines are ignored."""
    grades: dict[Name, dict[str, Any]] = {}
    for _, line in FORM.lines(path):
        if line is not None:
            name = (line["model"], line["benchmark"], line["question"], line["sample"])
            if line["key"] == keys.get(name) and line["outcome"] in OUTCOMES:
                grades.setdefault(name, line)
    return grades


def _grade_in_threads(
    samples: list[Sample], sandbox: Sandbox, add: Callable[[Sample, str, str | None], None]
) -> None:
    """Grade on all cores, and call add(sample, outcome, extracted) for each grade.

    A core gets its sandbox when its first program is to be judged: numbers and letters need none. An error or interrupt
    in one thread ends the others after the sample they are at.
    """
    workers = min(len(samples), max(1, len(os.sched_getaffinity(0))))
    if not workers:
        return
    ended = threading.Event()

    def grade_share(start: int) -> None:
        try:
            with ExitStack() as opened:
                runner: Runner | None = None
                for sample in samples[start::workers]:
                    if ended.is_set():
                        return
                    if runner is None and sample.rules.grader == "program":
                        runner = opened.enter_context(Runner(sandbox))
                    add(sample, *outcome(sample.response, sample.question, sample.rules, runner, verifier))
        except BaseException:  # an interrupt, too: the other threads must stop before it goes on
            ended.set()
            raise

    with Verifier(workers) as verifier, ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(grade_share, range(workers)))
        finally:
            ended.set()
