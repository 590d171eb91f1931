"""Curated rows as token ids: stage 01 makes them once, and every later step maps them into memory.

    rows, one by one --RowWriter--> rows/<domain>/rows.jsonl    the rows as text, one a line
                                    rows/<domain>/ids.bin       int32, the tokens of all rows, one row after another
                                    rows/<domain>/prompts.bin   int32 (rows,), tokens of each row's prompt, without loss
                                    rows/<domain>/starts.bin    int64 (rows + 1,), first token of each row; at the end
                                                                the number of all tokens
    rows/<domain>/ --read_tokens--> Tokens --part--> the rows of one model --> packing, tables, checks

At the paper's size the ids of the three domains take gigabytes, while the two tables of offsets take a megabyte. So
the tables are read and the ids are mapped: a reader touches the pages of the rows that it looks at and no others, and
several training ranks on one machine share them.
"""

import os
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from tinyr1.core import jsonl
from tinyr1.core.errors import UserError
from tinyr1.core.prompts import Encoded

ROWS, IDS, STARTS, PROMPTS = "rows.jsonl", "ids.bin", "starts.bin", "prompts.bin"
ID_BYTES = np.dtype(np.int32).itemsize


class RowWriter:
    """Writes rows and their tokens into an existing folder, one after another; a context manager.

    The folder can be read once the context ends without an error. It cannot be read before that, nor after an error,
    even where an earlier writer had finished in the same folder.
    """

    def __init__(self, folder: Path) -> None:
        # The table of starts is the last file to be written, and its absence says that the others are not complete.
        (folder / STARTS).unlink(missing_ok=True)
        self.folder = folder
        # Numbers of a fixed width: a list would hold an object of some 30 bytes for each of them.
        self.starts, self.prompts = array("q", [0]), array("i")
        self.rows, self.ids = (folder / ROWS).open("wb"), (folder / IDS).open("wb")

    def __enter__(self) -> "RowWriter":
        return self

    def write(self, row: dict, encoded: Encoded) -> None:
        """Add one row: `row` as a line of JSON, its tokens behind those of the rows before it."""
        # Text and tokens side by side: people and checks read the one, training the other, and neither makes the other
        # again with a tokenizer that may have changed meanwhile.
        self.rows.write(jsonl.encode(row))
        self.ids.write(np.asarray(encoded.ids, dtype=np.int32).tobytes())
        self.starts.append(self.starts[-1] + len(encoded.ids))
        self.prompts.append(encoded.n_prompt)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.rows.close()
        self.ids.close()
        if kind is None:
            (self.folder / PROMPTS).write_bytes(self.prompts.tobytes())
            (self.folder / STARTS).write_bytes(self.starts.tobytes())  # last, see __init__


@dataclass(frozen=True)
class Tokens:
    """The tokens of some consecutive rows of one folder.

    ids: int32 (tokens of the whole folder,), mapped; starts: int64 (rows + 1,), where each of these rows begins in
    `ids`, and where the last one ends; prompts: int32 (rows,), prompt lengths in tokens; first: number of the first of
    these rows in the folder, from 0.
    """

    folder: Path
    ids: np.ndarray
    starts: np.ndarray
    prompts: np.ndarray
    first: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (rows,)."""
        return np.diff(self.starts)

    @property
    def count(self) -> int:
        """Tokens of all these rows."""
        return int(self.starts[-1] - self.starts[0])

    def row_ids(self, i: int) -> np.ndarray:
        """Token ids of row i, int32 (tokens of the row,), still in the map."""
        return self.ids[self.starts[i] : self.starts[i + 1]]

    def row(self, i: int) -> Encoded:
        """Row i as lists, for showing it."""
        return Encoded(self.row_ids(i).tolist(), int(self.prompts[i]))

    def part(self, rows: slice) -> "Tokens":
        """The rows of a slice without a step; the ids are shared."""
        first, last, _ = rows.indices(len(self))
        last = max(first, last)  # a slice that begins behind its end holds no rows
        # The starts stay those of the whole file, so that no id is copied; one more of them says where the part ends.
        starts, prompts = self.starts[first : last + 1], self.prompts[first:last]
        return Tokens(self.folder, self.ids, starts, prompts, self.first + first)

    @property
    def last_ids(self) -> np.ndarray:
        """The last token of each row, int32 (rows,): the one that a model learns to end with."""
        # Read and not mapped: the system maps the pages around each access too, and with one access in every row the
        # whole file would count as memory of this process.
        with (self.folder / IDS).open("rb") as file:
            ends = (os.pread(file.fileno(), ID_BYTES, (end - 1) * ID_BYTES) for end in self.starts[1:].tolist())
            return np.array([int.from_bytes(data, sys.byteorder) for data in ends], dtype=np.int32)


def read_tokens(folder: Path) -> Tokens:
    """The tokens of a folder. UserError where no RowWriter came to its end in it."""
    if not (folder / STARTS).is_file():
        raise UserError(f"{folder}: holds no complete rows, {STARTS} is missing; make them again with stage 01")
    starts = np.fromfile(folder / STARTS, dtype=np.int64)
    # An empty file cannot be mapped.
    ids = np.memmap(folder / IDS, dtype=np.int32, mode="r") if starts[-1] else np.empty(0, np.int32)
    return Tokens(folder, ids, starts, np.fromfile(folder / PROMPTS, dtype=np.int32))
