"""What every thread of a merge does at every moment: `python tests/bench/timeline.py` and the options of a merge.

    functions of tinyr1.merge, each wrapped in `span` -> (thread, kind, start, end, processor time) -> table and picture

A span that calls another one has the time between the calls only, so the seconds of a thread add up to its life. Where
a span lasts longer than the processor worked for it, its thread waited: for the disk, for a page of a mapped file, or
for the processor itself. In the picture a column is an equal share of the time and has the letter of the kind that
took most of it; a small letter: the thread waited for more than half of that.
"""

import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

COLUMNS = 100
KINDS = {
    "start": "S", "read": "R", "compute": "C", "wait for the pen": "Q", "hash inputs": "I", "hash the result": "H",
    "wait for the disk": "D", "write": "W",
}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A stretch of one thread that belongs to one kind, in seconds since the start; cpu: its processor time."""

    thread: str
    kind: str
    start: float
    end: float
    cpu: float


class Recorder:
    """Collects spans of all threads."""

    def __init__(self) -> None:
        self.begun, self.spans, self.local = time.perf_counter(), [], threading.local()

    @contextmanager
    def span(self, kind: str) -> Iterator[None]:
        """The time inside belongs to `kind`, but for that of spans inside it."""
        stack = self.local.__dict__.setdefault("stack", [])
        self._close(stack)
        stack.append([kind, time.perf_counter(), time.thread_time()])
        try:
            yield
        finally:
            self._close(stack)
            stack.pop()
            if stack:
                stack[-1][1:] = time.perf_counter(), time.thread_time()

    def _close(self, stack: list) -> None:
        """Note the innermost span up to now."""
        if stack:
            kind, start, cpu = stack[-1]
            now = time.perf_counter()
            self.spans.append(Span(threading.current_thread().name, kind, start - self.begun, now - self.begun,
                                   time.thread_time() - cpu))  # fmt: skip

    def wrapped(self, kind: str, function: Callable) -> Callable:
        @wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self.span(kind):
                return function(*args, **kwargs)

        return inside


class _Recorded:
    """A queue or a semaphore in which a thread may wait; `waits` is the name of the method that does."""

    def __init__(self, real: Any, waits: str, kind: str, recorder: Recorder) -> None:
        self._real = real
        setattr(self, waits, recorder.wrapped(kind, getattr(real, waits)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def install(recorder: Recorder) -> None:
    """Wrap what a merge spends its time in."""
    from tinyr1.merge import engine, parents, writer

    parents.b3_hash = recorder.wrapped("hash inputs", parents.b3_hash)
    leaf, stream, shards = engine._Leaf, writer._Stream, writer.ShardWriter  # noqa: SLF001
    leaf.rows = recorder.wrapped("read", leaf.rows)
    stream.put = recorder.wrapped("hash the result", stream.put)
    stream.to_disk = recorder.wrapped("write", stream.to_disk)
    begin, begin_shards, in_order = stream.__init__, shards.__init__, engine._in_order  # noqa: SLF001

    def begun(self: Any, *args: Any) -> None:
        begin(self, *args)
        self.free = _Recorded(self.free, "get", "wait for the disk", recorder)

    def begun_shards(self: Any, *args: Any) -> None:
        begin_shards(self, *args)
        self.room = _Recorded(self.room, "acquire", "wait for the pen", recorder)

    def recorded(pool: Any, window: int, function: Callable, items: Any) -> Iterator:
        return in_order(pool, window, recorder.wrapped("compute", function), items)

    stream.__init__, shards.__init__, engine._in_order = begun, begun_shards, recorded  # noqa: SLF001


def table(spans: list[Span], seconds: float) -> str:
    """Seconds of each kind over all threads, and those in which a processor worked for it."""
    wall, cpu = Counter(), Counter()
    for span in spans:
        wall[span.kind] += span.end - span.start
        cpu[span.kind] += span.cpu
    lines = [f"{'':2s} {'kind':18s} {'seconds':>9s} {'processor':>9s} {'of the whole':>12s}"]
    for kind, letter in KINDS.items():
        lines.append(f"{letter:2s} {kind:18s} {wall[kind]:9.2f} {cpu[kind]:9.2f} {100 * wall[kind] / seconds:10.0f} %")
    return "\n".join(lines)


def picture(spans: list[Span], seconds: float) -> str:
    """A line for each thread; · is a share of the time in which it did none of KINDS."""
    cells: dict[str, list[Counter]] = defaultdict(lambda: [Counter() for _ in range(COLUMNS)])
    busy: dict[str, list[Counter]] = defaultdict(lambda: [Counter() for _ in range(COLUMNS)])
    width = seconds / COLUMNS
    for span in spans:
        share = span.cpu / max(span.end - span.start, 1e-9)
        for column in range(int(span.start / width), min(COLUMNS - 1, int(span.end / width)) + 1):
            inside = min(span.end, (column + 1) * width) - max(span.start, column * width)
            cells[span.thread][column][span.kind] += inside
            busy[span.thread][column][span.kind] += inside * share

    def letter(thread: str, column: int) -> str:
        here = cells[thread][column]
        if sum(here.values()) < width / 2:
            return "·"
        kind = here.most_common(1)[0][0]
        return KINDS[kind] if busy[thread][column][kind] >= here[kind] / 2 else KINDS[kind].lower()

    order = sorted(cells, key=lambda thread: min(span.start for span in spans if span.thread == thread))
    return "\n".join(f"{thread[-24:]:24s} {''.join(letter(thread, c) for c in range(COLUMNS))}" for thread in order)


def main() -> int:
    recorder = Recorder()
    with recorder.span("start"):
        install(recorder)
        from tinyr1.merge.__main__ import main as merge
    status = merge()
    seconds = time.perf_counter() - recorder.begun
    print(f"{seconds:.2f} s\n{table(recorder.spans, seconds)}\n{picture(recorder.spans, seconds)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
