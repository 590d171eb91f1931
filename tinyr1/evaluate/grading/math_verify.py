"""Math-Verify in processes that can be killed: the second opinion on integers, and symbolic equality.

Math-Verify's own time limit works on the main thread only, and some inputs keep SymPy busy for ever or fill the memory
(evaluation.md §4.2). So each comparison runs in a child with a memory limit, and a child that does not answer in time
is killed and replaced. A limit on its CPU time ends it where the process that would kill it is itself gone.

    python -m tinyr1.evaluate.grading.math_verify MEMORY_MB SECONDS     the child: JSON lines [gold, text] in, [equal, extracted] out
"""

import json
import math
import os
import queue
import re
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

START_SECONDS = 120  # SymPy's import on a busy machine
TAIL = 2000  # characters of an answer that are read; an answer stands at its end
# Towers and large exponents, factorials of large numbers, sums and products: what SymPy may try to write out
_BOMB = re.compile(r"\^\s*\{?[^{}^\s]*\^|\^\s*\{?\s*\d{4,}|\*\*\s*\d{4,}|\d{3,}\s*!|\\(?:sum|prod)\b")


@dataclass(frozen=True)
class Verdict:
    """status: equal, different, nothing (no expression found), timeout, error (the child died) or skipped."""

    status: str
    extracted: str


class Verifier:
    """A pool of children; use as a context manager. They start when first asked. Safe to use from many threads."""

    def __init__(self, workers: int = 1, seconds: float = 3.0, memory_mb: int = 2048) -> None:
        self.workers, self.seconds, self.memory_mb = workers, seconds, memory_mb
        self.idle: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        for _ in range(workers):
            self.idle.put(None)

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *_: object) -> None:
        for _ in range(self.workers):
            if child := self.idle.get():
                child.close()

    def ask(self, gold: str, text: str) -> Verdict:
        """Whether Math-Verify finds `gold` (LaTeX or a number) in a text."""
        child = self.idle.get()
        try:
            child = child or _Child(self.memory_mb, self.seconds)
            line = child.ask([gold, text], self.seconds)
            if line:
                equal, extracted = json.loads(line)
                return Verdict("nothing" if not extracted else "equal" if equal else "different", extracted)
            child.close()
            child = None
            return Verdict("timeout" if line is None else "error", "")
        finally:
            self.idle.put(child)

    def second_opinion(self, items: list[dict]) -> list[dict]:
        """Samples on which Math-Verify and the score disagree, or on which it gave no verdict.

        items: question, sample, answer (the truth), text (the final answer), outcome and extracted (ours). A row
        repeats these but text, and adds math_verify (its status), math_verify_extracted and tail of the text.
        """
        def row(item: dict) -> dict | None:
            tail = item["text"][-TAIL:]
            verdict = Verdict("skipped", "") if _BOMB.search(tail) else self.ask(item["answer"], tail)
            ours = "equal" if item["outcome"] == "correct" else "different"
            if verdict.status == ours or (verdict.status == "nothing" and ours == "different"):
                return None
            kept = {key: item[key] for key in ("question", "sample", "answer", "outcome", "extracted")}
            theirs = {"math_verify": verdict.status, "math_verify_extracted": verdict.extracted}
            return kept | theirs | {"tail": tail[-200:]}

        with ThreadPoolExecutor(self.workers) as pool:
            return [found for found in pool.map(row, items) if found]


class _Child:
    """One process that compares."""

    def __init__(self, memory_mb: int, seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tinyr1.evaluate.grading.math_verify", str(memory_mb), str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        if self._line(START_SECONDS) != "ready":
            self.close()
            raise RuntimeError(
                "Math-Verify does not start: run `python -m tinyr1.evaluate.grading.math_verify 2048 3` for the reason, and `make setup`"
            )

    def ask(self, request: list[str], seconds: float) -> str | None:
        """Its answer; None after `seconds`, "" when it ended."""
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return ""
        return self._line(seconds)

    def _line(self, seconds: float) -> str | None:
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline().decode().strip() if ready else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def _serve(memory_mb: int, seconds: float) -> None:
    import resource

    from math_verify import parse, verify

    out, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not write into the answers
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        most = math.ceil(time.process_time() + seconds) + 1  # later than the parent, which says timeout
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        gold, text = json.loads(line)
        found = parse(text, parsing_timeout=None)
        equal = bool(found) and verify(parse(f"${gold}$", parsing_timeout=None), found, timeout_seconds=None)
        print(json.dumps([equal, str(found[-1]) if found else ""]), file=out, flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
