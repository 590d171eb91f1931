"""Checkpoints, read block by block; safetensors files and pickles of torch alike.

    headers of all files -> tensors: name -> (file, first byte, shape, dtype)
    rows(name, first, last) -> window of the file that holds them (mapped, the last two stay) -> tensor over that memory

Headers alone say where every tensor is. Rows are mapped and not copied, so that only the pages in use take memory.
"""

import json
import mmap
import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open

from tinyr1.core.checkpoints import Weights, chosen_weights, read_config
from tinyr1.core.errors import UserError
from tinyr1.merge import pickled, tensor_names
from tinyr1.merge.method import as_rows
from tinyr1.merge.quantised import check_unquantised

DTYPES_STORED = {  # dtypes by their names in safetensors headers
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# Neighbouring blocks share a mapping: one of many MB has large pages, and few page-table entries serve all of it.
WINDOW = 2**23  # bytes, a multiple of a large page; a mapping begins at a multiple of it and is at least two long
WINDOWS = 2  # mappings that a checkpoint keeps


@dataclass(frozen=True)
class StoredTensor:
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


class TensorFiles:
    """Tensors in some files, read row by row."""

    def __init__(self, files: list[Path], tensors: dict[str, StoredTensor]) -> None:
        self.files, self.tensors = files, tensors
        self._handles: dict[Path, int] = {}
        # The threads work on neighbouring blocks, so that two windows serve nearly all of them.
        self._windows = lru_cache(WINDOWS)(self._map)

    @property
    def bytes(self) -> int:
        return sum(stored.bytes for stored in self.tensors.values())

    def open(self) -> Self:
        """Open the files, for `rows`; returns itself."""
        self._handles = {file: os.open(file, os.O_RDONLY) for file in self.files}
        return self

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}
        self._windows.cache_clear()

    def rows(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows first to last - 1 of a tensor as (rows, width), in the dtype of `tensors`; the files are open.

        The rows stay mapped for as long as the result lives; writing to them changes no file.
        """
        stored = self.tensors[name]
        width = as_rows(stored.shape)[1]
        size = (last - first) * width * stored.dtype.itemsize
        if size == 0:
            return torch.empty((last - first, width), dtype=stored.dtype)
        begin = stored.begin + first * width * stored.dtype.itemsize
        # Reading a mapped page behind the end of a file kills the process with SIGBUS, so the size is checked first.
        if os.fstat(self._handles[stored.file]).st_size < begin + size:
            raise UserError(f"{stored.file}: became shorter while {name} was read; fetch or write it again")
        start, end = begin // WINDOW * WINDOW, -(-(begin + size) // WINDOW) * WINDOW
        window = self._windows(stored.file, start, max(end, start + 2 * WINDOW))
        data = torch.frombuffer(window, dtype=torch.uint8, offset=begin - start, count=size)
        if begin % stored.dtype.itemsize:  # a view in the wider dtype needs an aligned start
            data = data.clone()
        return data.view(stored.dtype).view(last - first, width)

    def _map(self, file: Path, start: int, end: int) -> mmap.mmap:
        """Bytes of a file from `start` to `end`, or to its end."""
        handle = self._handles[file]
        size = min(end, os.fstat(handle).st_size) - start
        # Copy on write: torch wants writable memory, and the file must never change.
        return mmap.mmap(handle, size, access=mmap.ACCESS_COPY, offset=start)

    def announce(self, name: str) -> None:
        """Tell the system that a tensor will be read soon, so that the disk starts before the first block waits."""
        stored = self.tensors[name]
        os.posix_fadvise(self._handles[stored.file], stored.begin, stored.bytes, os.POSIX_FADV_WILLNEED)


class Checkpoint(TensorFiles):
    """The tensors and the config of a checkpoint folder.

    tensors: by the names that the model has; what transformers computes anew is left out. notices: what a person should
    know about the choice of files and names, a sentence each. UserError when a file is missing or damaged, and when the
    weights are quantised.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.config = read_config(self.folder)
        check_unquantised(self.folder, self.config)
        weights = chosen_weights(self.folder)
        stored = _stored(self.folder, weights)
        names = tensor_names.of_model(str(self.folder), stored, self.config.get("model_type"))
        super().__init__(weights.files, {name: stored[there] for name, there in names.stored.items()})
        self.notices = [*weights.notices, *names.notices]


def _stored(folder: Path, weights: Weights) -> dict[str, StoredTensor]:
    """The tensors by the names in the files. The index decides where it is said, and has to list every tensor."""
    found: dict[str, StoredTensor] = {}
    for file in weights.files:
        for name, stored in read_header(file).items():
            if weights.weight_map is None and name in found:
                raise UserError(f"{file}: {name} is also in {found[name].file.name}; remove one of the two files")
            if weights.weight_map is None or weights.weight_map.get(name) == file:
                found[name] = stored
            elif name not in weights.weight_map:
                raise UserError(f"{file}: holds {name}, which the index does not list; fetch or write it again")
    for name, file in (weights.weight_map or {}).items():
        if name not in found:
            raise UserError(f"{folder}: the index puts {name} into {file.relative_to(folder)}, where it is not")
    return found


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Tensors of one file by name. UserError when the file is damaged or holds something else."""
    if file.suffix != ".safetensors":
        places = pickled.places(file, DTYPES_STORED.values())
        return {name: StoredTensor(file, *place) for name, place in places.items()}
    try:
        # The library checks lengths, offsets, gaps and file size; it does not tell offsets, so they are read here.
        with safe_open(file, "pt"):
            pass
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(length), object_pairs_hook=_unique)
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise UserError(f"{file}: damaged safetensors file: {error}; fetch or write it again") from error
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES_STORED:
            raise UserError(f"{file}: {name} is stored as {entry['dtype']}; dequantize the model first")
        begin = 8 + length + entry["data_offsets"][0]
        tensors[name] = StoredTensor(file, begin, tuple(entry["shape"]), DTYPES_STORED[entry["dtype"]])
    return tensors


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; a key that comes twice would hide a tensor."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)} is listed twice")
    return dict(pairs)
