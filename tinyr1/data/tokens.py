"""Curated rows as token ids: made once, in stage 01, and mapped into memory by everything that needs them later.

    rows/<domain>/rows.jsonl    the rows as text, one a line
    rows/<domain>/ids.bin       int32, the tokens of all rows, one row after another
    rows/<domain>/starts.bin    int64 (rows + 1,), the first token of each row; the last entry is their number
    rows/<domain>/prompts.bin   int32 (rows,), how many tokens of each row are its prompt, which carries no loss

At the paper's size the ids are gigabytes; a reader maps them and touches only the pages of the rows that it looks at.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from tinyr1.core import jsonl
from tinyr1.core.prompts import Encoded

ROWS, IDS, STARTS, PROMPTS = "rows.jsonl", "ids.bin", "starts.bin", "prompts.bin"


class RowWriter:
    """Writes rows and their tokens into a folder as they come; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.starts, self.prompts = folder, [0], []  # type: Path, list[int], list[int]
        self.rows, self.ids = (folder / ROWS).open("wb"), (folder / IDS).open("wb")

    def __enter__(self) -> "RowWriter":
        return self

    def write(self, row: dict, encoded: Encoded) -> None:
        """Add one row."""
        self.rows.write(jsonl.encode(row))
        self.ids.write(np.asarray(encoded.ids, dtype=np.int32).tobytes())
        self.starts.append(self.starts[-1] + len(encoded.ids))
        self.prompts.append(encoded.n_prompt)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.rows.close()
        self.ids.close()
        if kind is None:  # an interrupted writer leaves no folder that could be read
            np.asarray(self.starts, dtype=np.int64).tofile(self.folder / STARTS)
            np.asarray(self.prompts, dtype=np.int32).tofile(self.folder / PROMPTS)


@dataclass(frozen=True)
class Tokens:
    """The tokens of some rows of one folder; ids is mapped, the other two are small.

    ids: int32, all tokens of the folder; starts: int64 (rows + 1,), where each of these rows begins in it and where the
    last one ends; prompts: int32 (rows,), prompt lengths.
    """

    folder: Path
    ids: np.ndarray
    starts: np.ndarray
    prompts: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row (rows,) int64."""
        return np.diff(self.starts)

    def row(self, i: int) -> Encoded:
        """Row i as a list of ids."""
        return Encoded(self.ids[self.starts[i] : self.starts[i + 1]].tolist(), int(self.prompts[i]))

    def part(self, rows: slice) -> "Tokens":
        """Some of the rows; a contiguous slice."""
        first, last, _ = rows.indices(len(self))
        return Tokens(self.folder, self.ids, self.starts[first : last + 1], self.prompts[first:last])

    @property
    def last_ids(self) -> np.ndarray:
        """The last token of each row (rows,), which a model is trained to end with."""
        return self.ids[self.starts[1:] - 1]


def read_tokens(folder: Path) -> Tokens:
    """The tokens of a folder that a RowWriter finished."""
    starts = np.fromfile(folder / STARTS, dtype=np.int64)
    ids = np.memmap(folder / IDS, dtype=np.int32, mode="r") if starts[-1] else np.empty(0, np.int32)
    return Tokens(folder, ids, starts, np.fromfile(folder / PROMPTS, dtype=np.int32))


def write_rows(folder: Path, rows: Iterable[dict], encode: Callable[[dict], Encoded]) -> None:
    """All of `rows`, encoded by `encode`, in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with RowWriter(folder) as writer:
        for row in rows:
            writer.write(row, encode(row))
