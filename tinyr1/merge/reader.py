"""Safetensors checkpoints, read block by block.

Every tensor is known from the headers alone, and the rows that are asked for are mapped, so that what is resident is
what is worked on.
"""

import json
import mmap
import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tinyr1.core.checkpoints import INDEX, read_config, read_weight_map, weight_files
from tinyr1.core.errors import UserError
from tinyr1.merge.method import as_rows

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Blocks that lie beside each other share a mapping: one of many MB has large pages, of which few must be looked up.
WINDOW = 2**23  # bytes, a multiple of a large page; a mapping begins at a multiple of it and is at least two long
WINDOWS = 2  # mappings that a checkpoint keeps


@dataclass(frozen=True)
class Stored:
    """Where a tensor is: file, first byte, shape, dtype."""

    file: Path
    begin: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def entries(self) -> int:
        rows, width = as_rows(self.shape)
        return rows * width

    @property
    def bytes(self) -> int:
        return self.entries * self.dtype.itemsize


class Checkpoint:
    """Tensors, config and tokenizer files of a folder. UserError when a file is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.config = read_config(self.folder)
        self.files = weight_files(self.folder)
        self.tensors: dict[str, Stored] = {}
        for file, tensors in ((file, _header(file)) for file in self.files):
            for name, stored in tensors.items():
                if name in self.tensors:
                    raise UserError(f"{file}: {name} is also in {self.tensors[name].file.name}")
                self.tensors[name] = stored
        _check_index(self.folder, self.tensors)
        self._handles: dict[Path, int] = {}
        self._windows = lru_cache(WINDOWS)(self._map)

    @property
    def bytes(self) -> int:
        return sum(stored.bytes for stored in self.tensors.values())

    def open(self) -> "Checkpoint":
        self._handles = {file: os.open(file, os.O_RDONLY) for file in self.files}
        return self

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}
        self._windows.cache_clear()

    def rows(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows first to last - 1 of a tensor as (rows, width); the checkpoint is open.

        The rows are mapped, not copied, for as long as the result lives; writing to them changes no file.
        """
        stored = self.tensors[name]
        width = as_rows(stored.shape)[1]
        size = (last - first) * width * stored.dtype.itemsize
        if size == 0:
            return torch.empty((last - first, width), dtype=stored.dtype)
        begin = stored.begin + first * width * stored.dtype.itemsize
        if os.fstat(self._handles[stored.file]).st_size < begin + size:  # touching it would end the process
            raise UserError(f"{stored.file}: ended while {name} was read; it was cut short meanwhile")
        start, end = begin // WINDOW * WINDOW, -(-(begin + size) // WINDOW) * WINDOW
        window = self._windows(stored.file, start, max(end, start + 2 * WINDOW))
        data = torch.frombuffer(window, dtype=torch.uint8, offset=begin - start, count=size)
        if begin % stored.dtype.itemsize:
            data = data.clone()
        return data.view(stored.dtype).view(last - first, width)

    def _map(self, file: Path, start: int, end: int) -> mmap.mmap:
        """Bytes of a file from `start` to `end`, or to its end."""
        handle = self._handles[file]
        size = min(end, os.fstat(handle).st_size) - start
        return mmap.mmap(handle, size, access=mmap.ACCESS_COPY, offset=start)

    def announce(self, name: str) -> None:
        """Tell the system that a tensor will be read soon, so that the disk starts before it is asked for."""
        stored = self.tensors[name]
        os.posix_fadvise(self._handles[stored.file], stored.begin, stored.bytes, os.POSIX_FADV_WILLNEED)


def _check_index(folder: Path, tensors: dict[str, Stored]) -> None:
    """The index lists the tensors that the files hold, each in its file."""
    if not (folder / INDEX).exists():
        return
    weight_map = read_weight_map(folder)
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file.name != file:
            raise UserError(f"{folder}: the index puts {name} into {file}, where it is not")
    if unlisted := sorted(tensors.keys() - weight_map.keys()):
        raise UserError(f"{tensors[unlisted[0]].file}: holds {unlisted[0]}, which the index does not list")


def _header(file: Path) -> dict[str, Stored]:
    """Tensors of one file. The library checks the header (lengths, offsets, gaps, file size); offsets come from it."""
    try:
        with safe_open(file, "pt"):
            pass
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(length), object_pairs_hook=_unique)
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise UserError(f"{file}: damaged safetensors file: {error}; fetch or write it again") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{file}: {name} is stored as {entry['dtype']}; dequantize the model first")
        begin = 8 + length + entry["data_offsets"][0]
        found[name] = Stored(file, begin, tuple(entry["shape"]), DTYPES[entry["dtype"]])
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; a key that comes twice would hide a tensor."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)} is listed twice")
    return found
