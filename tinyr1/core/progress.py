"""What a person sees while a stage works: lines and progress bars, in a notebook and on the terminal.

A headless run executes notebooks in a kernel, which is a process without a terminal. There the environment variable
TINYR1_EVENTS names a file to which lines and bars are appended; `tinyr1.run` reads that file and shows them.
"""

import os
import sys
import time
from collections import deque
from pathlib import Path

from tqdm import tqdm

EVENTS = "TINYR1_EVENTS"
WIDTH = 100
PERIOD = 1.0  # seconds between two pictures of a bar
RECENT = 60.0  # seconds whose rate says when the rest will be done


def say(line: str) -> None:
    """Show one line, in the notebook and on the terminal."""
    print(line, flush=True)
    _emit(line + "\n")


def note(text: str) -> None:
    """Show on the terminal of a headless run what is being done, until the next line or bar takes its place."""
    _emit(f"  {text}\r")


def _emit(text: str) -> None:
    path = os.environ.get(EVENTS)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


class Bar:
    """Progress with rate and ETA, redrawn in place: in an interactive cell or terminal, or as events of a headless run.

    Rate and ETA are those of the last minute, so that they follow when another program slows this one down, and count
    from the first finished piece: what starts before it, such as an engine that reads its weights, would make a stage
    of minutes look like one of days.
    """

    def __init__(self, title: str, unit: str) -> None:
        self.title, self.unit = title, unit
        self.started, self.shown = time.monotonic(), 0.0
        self.marks: deque[tuple[float, int]] = deque()  # when pieces were finished, and how many were by then
        self.latest: tuple[int, int, str] | None = None  # done, of, text

    def update(self, done: int, of: int, text: str = "") -> None:
        """Show that `done` of `of` units are finished. text: what stands behind the bar, such as a rate."""
        now, self.latest = time.monotonic(), (done, of, text)
        if done and (not self.marks or done != self.marks[-1][1]):
            self.marks.append((now, done))
        while len(self.marks) > 2 and self.marks[1][0] <= now - RECENT:
            self.marks.popleft()
        if self._is_due(now):
            self._show(self._picture(now, done, of, text))

    def _picture(self, now: float, done: int, of: int, text: str) -> str:
        since, before = self.marks[0] if self.marks else (now, done)
        return tqdm.format_meter(
            done, of, now - self.started, ncols=WIDTH, prefix=f"  {self.title}", unit=f" {self.unit}", postfix=text,
            rate=(done - before) / (now - since) if done > before and now > since else None,
            initial=done,  # without a rate there is no ETA: tqdm shows a question mark
        )  # fmt: skip

    def wait(self, doing: str) -> None:
        """Show what is being done while nothing can be counted, and for how long this bar has been there."""
        now = time.monotonic()
        if self._is_due(now):
            self._show(f"  {self.title}: {doing}, {tqdm.format_interval(now - self.started)}")

    def _is_due(self, now: float) -> bool:
        due = now - self.shown >= PERIOD
        if due:
            self.shown = now
        return due

    def _show(self, picture: str) -> None:
        if EVENTS in os.environ:
            _emit(picture + "\r")
        else:
            sys.stderr.write(f"\r{picture:<{WIDTH}}")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar as it ended and go to the next line."""
        if EVENTS not in os.environ:
            if self.latest:
                self._show(self._picture(time.monotonic(), *self.latest))
            sys.stderr.write("\n")
