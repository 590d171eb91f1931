"""Grades every stored sample of a run and keeps each grade as it is found: a killed grading goes on where it was.

    run(path, samples, sandbox)   a grade for each sample, in their order; only those not in the store are made

A grade in the store is taken only for the same model, benchmark, question and sample, and under a key of all that
decides it: the response, the question with its answer or tests, the rules, the limits of the sandbox, the parts
of this package that judge, and the versions of what compares and runs. What the grader failed on is not kept, so the next run tries again.
"""

import os
import platform
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tinyr1.core import artifact, record
from tinyr1.core.config import Sandbox
from tinyr1.core.progress import Bar, say
from tinyr1.evaluate.grading import grade
from tinyr1.evaluate.grading.math_verify import Verifier
from tinyr1.evaluate.protocol import Protocol
from tinyr1.sampling import store
from tinyr1.sandbox.runner import Runner

FORM = store.Form("grade", {
    "model": str, "benchmark": str, "question": str, "sample": int, "outcome": str, "extracted": (str, type(None)),
    "key": str,
})  # fmt: skip
COMPARING = ("math-verify", "latex2sympy2_extended", "sympy", "numpy")  # Math-Verify's, and what programs import
# The parts of this package that decide a grade: extraction and graders, what runs programs, and what they call.
JUDGING = ("evaluate/grading", "evaluate/protocol.py", "sandbox", "core/prompts.py", "data/answers.py")
DECIDING = ("text", "finish", "sample", "order")  # fields of a response that its grade depends on


@dataclass(frozen=True)
class Sample:
    """One stored response with all that its grade depends on."""

    model: str
    benchmark: str
    response: dict
    question: dict
    rules: Protocol

    @property
    def name(self) -> tuple[str, str, str, int]:
        return self.model, self.benchmark, self.response["question"], self.response["sample"]


def run(path: Path, samples: list[Sample], sandbox: Sandbox) -> list[dict]:
    """The grade of each sample, in their order: outcome and extracted (see `tinyr1.evaluate.grading.grade.outcome`).

    path: the store. UserError while another process grades into it.
    """
    keys = keys_of(samples, sandbox)
    with store.LineWriter(path, FORM) as writer:
        grades = kept(path, keys)
        todo = [sample for sample in samples if sample.name not in grades]
        if grades:
            say(f"  {len(grades)} of {len(samples)} grades kept")
        bar, lock = Bar("grading", "answer"), threading.Lock()

        def take(sample: Sample, outcome: str, extracted: str | None) -> None:
            names = dict(zip(("model", "benchmark", "question", "sample"), sample.name, strict=True))
            line = names | {"outcome": outcome, "extracted": extracted, "key": keys[sample.name]}
            with lock:
                grades[sample.name] = line
                if outcome != "grader_error":
                    writer.append(line)
                bar.update(len(grades), len(samples))

        try:
            grade_each(todo, sandbox, take)
        finally:
            bar.close()
    return [grades[sample.name] for sample in samples]


def keys_of(samples: list[Sample], sandbox: Sandbox) -> dict[tuple, str]:
    """What decides the grade of each sample, as a hash, by the sample's name."""
    common = artifact.digest([
        record.source_hash(*JUDGING), sandbox.model_dump(), platform.python_version(),
        {name: metadata.version(name) for name in COMPARING},
    ])  # fmt: skip
    questions = {id(s.question): s.question for s in samples}  # by identity: their tests may have many megabytes
    hashes = {i: artifact.digest(question) for i, question in questions.items()}
    return {
        s.name: artifact.digest([
            common, s.rules.grading_key, hashes[id(s.question)], {field: s.response.get(field) for field in DECIDING}
        ])
        for s in samples
    }  # fmt: skip


def kept(path: Path, keys: dict[tuple, str]) -> dict[tuple, dict]:
    """Grades of the store that were made under these keys, by name; malformed and other lines are passed over."""
    found: dict[tuple, dict] = {}
    for _, line in FORM.lines(path):
        if line is not None:
            name = (line["model"], line["benchmark"], line["question"], line["sample"])
            if line["key"] == keys.get(name) and line["outcome"] in grade.OUTCOMES:
                found.setdefault(name, line)
    return found


def grade_each(samples: list[Sample], sandbox: Sandbox, take: Callable[[Sample, str, str | None], None]) -> None:
    """Grade side by side, one sandbox for each core; `take(sample, outcome, extracted)` gets each as it is found.

    An error or interrupt ends the other threads after the sample they are at.
    """
    workers = min(len(samples), max(1, len(os.sched_getaffinity(0))))
    if not workers:
        return
    ended = threading.Event()

    def share(start: int) -> None:
        try:
            with Runner(sandbox) as runner:
                for sample in samples[start::workers]:
                    if ended.is_set():
                        return
                    take(sample, *grade.outcome(sample.response, sample.question, sample.rules, runner, verifier))
        except BaseException:  # not handled here: it ends the others, then goes on
            ended.set()
            raise

    with Verifier(workers) as verifier, ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(share, range(workers)))
        finally:
            ended.set()
