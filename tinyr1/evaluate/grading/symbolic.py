"""Compares mathematical expressions with Math-Verify, in child processes that can be killed (docs/evaluation.md §4.2).

      Verifier.compare, .formulas                  python -m tinyr1.evaluate.grading.symbolic MEMORY_MB SECONDS
      takes an idle child, or starts one
      writes a line [gold, text, form] ──────────▶ parses and compares, under limits of memory and CPU time
      waits for SECONDS of CPU  ◀───────────────── a line [equal, extracted]
      no line: kills the child, and the next comparison starts another

Some inputs keep SymPy busy for ever or fill the memory, and Math-Verify's own time limit works on the main thread only.
A process pool from a library does not fit. Pebble and concurrent.futures send results as pickles, and to load a pickle
is to run what the sender wrote, here a process that parsed a model's text; a line of JSON is only data. Pebble's pool
also ends for good when an idle child is killed, and its children import the caller's `__main__` again.
"""

import json
import math
import queue
import re
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil

from tinyr1.core import surroundings
from tinyr1.core.errors import UserError

OPINIONS = ("integer", "expression")  # kinds of answers that get a second opinion
START_SECONDS = 120  # to import SymPy, on a busy machine
PATIENCE = 20  # times its CPU time that a comparison may take by the clock, beside other work
SLICE = 0.25  # seconds between two looks at a child
END_SECONDS = 5  # between the end of a child's output and its own
STARTS = 3  # of a child that a signal ends before it is ready: the kernel kills one when memory runs out
TAIL = 2000  # characters from the end of a response, where its answer stands
# Towers and large exponents, factorials of large numbers, sums and products: SymPy may try to write them out.
_BOMB = re.compile(r"\^\s*\{?[^{}^\s]*\^|\^\s*\{?\s*\d{4,}|\*\*\s*\d{4,}|\d{3,}\s*!|\\(?:sum|prod)\b")


@dataclass(frozen=True)
class Comparison:
    """status: equal, different, nothing (no expression in the text), timeout, error (the child died) or skipped.

    extracted: the expression that Math-Verify read, as text; empty where it read none.
    """

    status: str
    extracted: str


class Verifier:
    """A pool of children for many threads. Use it as a context manager; children start when they are first needed.

    workers: how many comparisons run at a time. seconds: CPU time of one. memory_mb: address space of a child, in MiB.
    """

    def __init__(self, workers: int = 1, seconds: float = 3.0, memory_mb: int = 2048) -> None:
        self.workers, self.seconds, self.memory_mb = workers, seconds, memory_mb
        self.idle: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        for _ in range(workers):
            self.idle.put(None)  # the place of a child that has not been started

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *exception: object) -> None:
        for _ in range(self.workers):
            if child := self.idle.get():
                child.close()

    def compare(self, gold: str, text: str) -> Comparison:
        """Whether the last expression in a text equals `gold` (LaTeX or a number).

        UserError if Math-Verify cannot be started.
        """
        return self._asked([gold, text, "text"])

    def formulas(self, gold: str, formula: str) -> Comparison:
        """Whether two formulas are equal; nothing is sought in them, and "nothing" says that one cannot be read.

        RuntimeError if Math-Verify cannot be started.
        """
        return self._asked([gold, f"${formula}$", "formula"])

    def _asked(self, request: list[str]) -> Comparison:
        child = self.idle.get()
        try:
            child = child or _started(self.memory_mb, self.seconds)
            line = child.reply(request, self.seconds)
            if line:
                equal, extracted = json.loads(line)
                return Comparison("nothing" if not extracted else "equal" if equal else "different", extracted)
            child.close()
            child = None
            return Comparison("timeout" if line is None else "error", "")
        finally:
            self.idle.put(child)

    def second_opinion(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The samples on which Math-Verify and the score disagree, or on which Math-Verify has no verdict.

        items: question, sample, answer (the truth), text (the final answer), outcome and extracted (ours). A row
        repeats these except text, and adds math_verify (a status of Comparison), math_verify_extracted and the tail of
        the text.
        """

        def disagreement(item: dict[str, Any]) -> dict[str, Any] | None:
            tail = item["text"][-TAIL:]
            theirs = Comparison("skipped", "") if _BOMB.search(tail) else self.compare(item["answer"], tail)
            ours = "equal" if item["outcome"] == "correct" else "different"
            if theirs.status == ours or (theirs.status == "nothing" and ours == "different"):
                return None
            repeated = {key: item[key] for key in ("question", "sample", "answer", "outcome", "extracted")}
            added = {"math_verify": theirs.status, "math_verify_extracted": theirs.extracted, "tail": tail[-200:]}
            return repeated | added

        with ThreadPoolExecutor(self.workers) as pool:
            return [row for row in pool.map(disagreement, items) if row]


def _started(memory_mb: int, seconds: float) -> "_Child":
    """A child that is ready. UserError where it ends by itself, or where a signal ends several in a row."""
    for _ in range(STARTS):
        child = _Child(memory_mb, seconds)
        if child.is_ready():
            return child
        killed = child.was_killed()
        child.close()
        if not killed:
            break
    raise UserError(
        "Math-Verify does not start: run `python -m tinyr1.evaluate.grading.symbolic 2048 3` for the reason, "
        "and `make setup`"
    )


class _Child:
    """One process that compares. Its standard error is dropped: libraries write model text into their warnings."""

    def __init__(self, memory_mb: int, seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tinyr1.evaluate.grading.symbolic", str(memory_mb), str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env=surroundings.for_child({"OMP_NUM_THREADS": "1"}),
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._replies = self.process.stdin, self.process.stdout

    def is_ready(self) -> bool:
        """Waits until it can compare; False when it ends before, or takes longer than START_SECONDS."""
        return self._line(START_SECONDS) == "ready"

    def was_killed(self) -> bool:
        """Whether a signal ended it. Its pipe closes a moment before the kernel tells how it ended."""
        try:
            return self.process.wait(END_SECONDS) < 0
        except subprocess.TimeoutExpired:
            return False

    def reply(self, request: list[str], seconds: float) -> str | None:
        """The line that answers a request; None after `seconds` of CPU time, "" if the process ended."""
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return ""
        # By the clock, a busy machine would decide what is equal.
        begun, used = time.monotonic(), self._cpu_seconds()
        while (line := self._line(SLICE)) is None:
            if self._cpu_seconds() - used >= seconds or time.monotonic() - begun >= PATIENCE * seconds:
                return None
        return line

    def _cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def _line(self, seconds: float) -> str | None:
        ready, _, _ = select.select([self._replies], [], [], seconds)
        return self._replies.readline().decode().strip() if ready else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._requests.close()
        self._replies.close()


def _serve(memory_mb: int, seconds: float) -> None:
    """The child: read requests from standard input and answer them until it closes."""
    import resource

    from math_verify import LatexExtractionConfig, parse, verify

    def read(text: str, form: str) -> list:
        if form == "text":
            return parse(text, parsing_timeout=None)
        latex = [LatexExtractionConfig()]
        return parse(text, latex, fallback_mode="no_fallback", parsing_timeout=None)

    replies, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not write among the replies
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        # The parent kills at its time limit. If it is gone, this limit ends a comparison a little later.
        most = math.ceil(time.process_time() + seconds) + 1
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        gold, text, form = json.loads(line)
        parsed, expected = read(text, form), read(f"${gold}$", form)
        equal = bool(parsed) and verify(expected, parsed, timeout_seconds=None)
        readable = parsed and (expected or form == "text")
        print(json.dumps([equal, str(parsed[-1]) if readable else ""]), file=replies, flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
