r"""Append-only files of JSON lines for results that are expensive to make: no kill loses a line that was appended.

    LineWriter(path, form)
      open --- another process holds the file ---> UserError
        \-- flock --> end the file with a whole line --> append, append, … (fsync once a second) --> close

What a line holds is its `Form`. The stores of responses (`tinyr1.sampling.responses`) and of grades
(`tinyr1.evaluate.grading.grade`) are such files. Reading never changes a file; only the next writer mends its end.
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
    """The form of the lines in a store.

    what: the noun for a line, such as "response". fields: name -> type or types of its value; a field `sample`, the
    sample's number from 0, is among them.
    """

    what: str
    fields: dict[str, type | tuple[type, ...]]

    def problem(self, line: object) -> str | None:
        """Why a decoded line does not have this form, or None."""
        if not isinstance(line, dict):
            return f"{type(line).__name__}, expected an object"
        for name, kind in self.fields.items():
            if name not in line:
                return f"no field {name!r}"
            # Python counts True among the integers, but no field of a store is a boolean.
            if not isinstance(line[name], kind) or isinstance(line[name], bool):
                return f"field {name!r} is {line[name]!r}"
        return None if line["sample"] >= 0 else f"field 'sample' is {line['sample']}"

    def lines(self, path: Path) -> Iterator[tuple[int, dict | None]]:
        """Yield (line number, line) for each line of a file, None in place of a malformed line.

        A torn last line is left out: the process that wrote it was killed, and its sample counts as missing.
        """
        for line in jsonl.scan(path):
            malformed = line.error or self.problem(line.value)
            if isinstance(line.value, dict) and not malformed:
                yield line.number, line.value
            elif not line.torn:
                yield line.number, None


class LineWriter:
    """Appends lines of one form to one file. UserError while another process has a writer for that file.

    Each line is with the operating system when `append` returns, so a killed process loses none; it is on the disk a
    second later at most.
    """

    def __init__(self, path: Path, form: Form) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.form = path, form
        # Without a buffer, a line that was appended is with the system and survives a kill of this process.
        self.file = path.open("a+b", buffering=0)
        self.synced, self.dirty = time.monotonic(), False
        # Two writers would put the pieces of their lines between one another.
        try:
            # The lock lies on the file itself: the kernel drops it with the process, however that ends, and no lock
            # file is left beside the data. The package filelock would leave one, or open the data a second time.
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.file.close()
            raise UserError(f"{path}: another process is writing {form.what}s there; wait for it or end it") from error
        self._mend()

    def _mend(self) -> None:
        """End the file with a whole line: a killed process may have left a torn one, or only no line feed."""
        size = start = self.file.seek(0, os.SEEK_END)
        tail = b""
        # From the end, because the file may have gigabytes and the torn line is its last.
        while start and b"\n" not in tail:
            start = max(0, start - BLOCK)
            self.file.seek(start)
            tail = self.file.read(size - start)
        torn = tail[tail.rfind(b"\n") + 1 :]
        value, error = jsonl.parse(torn)
        if torn and (error or self.form.problem(value)):
            # Half a line would become one malformed line together with the next one that is appended.
            self.file.truncate(size - len(torn))
        elif torn:
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # an unbuffered file may take only a part of what it is given
            left = left[self.file.write(left) :]
        self.dirty = True

    def append(self, line: dict) -> None:
        """Add one line. ValueError if it does not have the form."""
        if why := self.form.problem(line):
            raise ValueError(f"not a {self.form.what}: {why}")
        self._write(jsonl.encode(line))
        # A flush to disk takes milliseconds, so a store that is written fast must not wait for one with each line.
        if time.monotonic() - self.synced >= FSYNC_PERIOD:
            self.sync()

    def sync(self) -> None:
        """Flush everything that was appended so far to the disk."""
        if self.dirty:
            os.fsync(self.file.fileno())
            self.synced, self.dirty = time.monotonic(), False

    def close(self) -> None:
        """Flush to the disk and let other processes write."""
        self.sync()
        self.file.close()

    def __enter__(self) -> "LineWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
