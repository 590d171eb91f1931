"""What a person sees while a stage works: lines and progress bars, in a notebook and on the terminal.

A headless run executes notebooks in a kernel, which is a process without a terminal. There the environment variable
TINYR1_EVENTS names a file to which lines and bars are appended; `tinyr1.run` reads that file and shows them.
"""

import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

EVENTS = "TINYR1_EVENTS"
WIDTH = 100
PERIOD = 1.0  # seconds between two pictures of a bar


def say(line: str) -> None:
    """Show one line, in the notebook and on the terminal."""
    print(line, flush=True)
    _emit(line + "\n")


def _emit(text: str) -> None:
    path = os.environ.get(EVENTS)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


class Bar:
    """Progress with rate and ETA: a bar of tqdm in an interactive notebook, events in a headless run."""

    def __init__(self, title: str, unit: str) -> None:
        self.title, self.unit = title, unit
        self.started, self.shown = time.monotonic(), 0.0
        headless = EVENTS in os.environ
        self.bar = None if headless else tqdm(desc=f"  {title}", unit=f" {unit}", file=sys.stderr, ncols=WIDTH)

    def update(self, done: int, of: int, text: str = "") -> None:
        """Show that `done` of `of` units are finished. text: what stands behind the bar, such as a rate."""
        if self.bar is not None:
            self.bar.total = of
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.shown >= PERIOD:
            self.shown = time.monotonic()
            seconds = self.shown - self.started
            _emit(tqdm.format_meter(done, of, seconds, ncols=WIDTH, prefix=f"  {self.title}", unit=f" {self.unit}",
                                    postfix=text) + "\r")  # fmt: skip

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self.bar is not None:
            self.bar.close()
