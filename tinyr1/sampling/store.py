"""Append-only JSONL files for results that are expensive to make: one line each, kept whatever kills the process.

The stores of responses (`tinyr1.sampling.responses`) and of grades (`tinyr1.evaluate.grading.grades`) are files of this kind; what a line holds
is their `Form`.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyr1.core import jsonl
from tinyr1.core.errors import UserError

FSYNC_PERIOD = 1.0  # seconds between two flushes to disk; a power cut loses at most this much, a killed process nothing
BLOCK = 1 << 16  # bytes, more than most lines have


@dataclass(frozen=True)
class Form:
    """What the lines of a store are called, and their fields with the types; `sample` is a number from 0."""

    what: str
    fields: dict[str, type | tuple[type, ...]]

    def problem(self, line: object) -> str | None:
        """Why a decoded line is none of this form, or None."""
        if not isinstance(line, dict):
            return f"{type(line).__name__}, expected an object"
        for name, kind in self.fields.items():
            if name not in line:
                return f"no field {name!r}"
            if not isinstance(line[name], kind) or isinstance(line[name], bool):
                return f"field {name!r} is {line[name]!r}"
        return None if line["sample"] >= 0 else f"field 'sample' is {line['sample']}"

    def parse(self, data: bytes) -> tuple[dict | None, str | None]:
        """(line, None) or (None, why not) of the bytes of one line."""
        line, why = jsonl.parse(data)
        why = why or self.problem(line)
        return (None, why) if why else (line, None)

    def read(self, path: Path) -> Iterator[tuple[int, dict | None]]:
        """(line number, line or None where malformed) of a file; a torn last line is left out."""
        for line in jsonl.scan(path):
            why = line.error or self.problem(line.value)
            if not (line.torn and why):
                yield line.number, None if why else line.value


class Writer:
    """Appends lines of one form to one file, alone: UserError while another process writes it.

    Each line is with the operating system when `append` returns, so a killed process loses none; it is on the disk a
    second later at most. A torn last line of an earlier process is cut off; a whole one only lacks its line end.
    """

    def __init__(self, path: Path, form: Form) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.form = path, form
        self.file = path.open("a+b", buffering=0)
        self.synced, self.dirty = time.monotonic(), False
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.file.close()
            raise UserError(f"{path}: another process is writing {form.what}s there; wait for it or end it") from error
        self._mend()

    def _mend(self) -> None:
        """End the file with a whole line."""
        size = start = self.file.seek(0, os.SEEK_END)
        tail = b""
        while start and b"\n" not in tail:  # from the end, not from the start: the file may have gigabytes
            start = max(0, start - BLOCK)
            self.file.seek(start)
            tail = self.file.read(size - start)
        torn = tail[tail.rfind(b"\n") + 1 :]
        if torn and self.form.parse(torn)[0] is None:
            self.file.truncate(size - len(torn))
        elif torn:
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self.file.write(left) :]
        self.dirty = True

    def append(self, line: dict) -> None:
        """Add one line; ValueError if it is not of the form."""
        if why := self.form.problem(line):
            raise ValueError(f"not a {self.form.what}: {why}")
        self._write(jsonl.encode(line))
        if time.monotonic() - self.synced >= FSYNC_PERIOD:
            self.sync()

    def sync(self) -> None:
        """Everything appended so far onto the disk."""
        if self.dirty:
            os.fsync(self.file.fileno())
            self.synced, self.dirty = time.monotonic(), False

    def close(self) -> None:
        self.sync()
        self.file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
