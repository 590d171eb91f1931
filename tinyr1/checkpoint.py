"""Safetensors checkpoints, read and written block by block.

Reading: `Checkpoint` knows every tensor from the headers alone and maps the rows that are asked for, so that what is
resident is what is worked on. Writing: `Writer` lays out all files before the first weight is there, takes blocks in
any order, and hands them to the disk while the next ones are made.
"""

import hashlib
import json
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tinyr1.blocks import as_rows

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 50 * 10**9  # transformers' own limit for a file
ALIGNMENT = 8  # of the first tensor in a file, in bytes
FLUSH_BYTES = 2**28  # written to a file before the disk is made to take them
WAITING = 8  # blocks that wait for being written, at most


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what is wrong with it."""


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
    """Tensors, config and tokenizer files of a folder. CheckpointError when a file is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; give the folder of a checkpoint on this machine")
        self.config = read_json(self.folder / "config.json")
        if not isinstance(self.config, dict):
            raise CheckpointError(f"{folder}: not a checkpoint, it has no config.json")
        self.files = _weight_files(self.folder)
        self.tensors: dict[str, Stored] = {}
        for file, tensors in ((file, _header(file)) for file in self.files):
            for name, stored in tensors.items():
                if name in self.tensors:
                    raise CheckpointError(f"{file}: {name} is also in {self.tensors[name].file.name}")
                self.tensors[name] = stored
        _check_index(self.folder, self.tensors)
        self._handles: dict[Path, int] = {}

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
        extra = begin % mmap.ALLOCATIONGRANULARITY
        handle = self._handles[stored.file]
        if os.fstat(handle).st_size < begin + size:  # touching what is not there would end the process
            raise CheckpointError(f"{stored.file}: ended while {name} was read; it was cut short meanwhile")
        pages = mmap.mmap(handle, extra + size, access=mmap.ACCESS_COPY, offset=begin - extra)
        data = torch.frombuffer(pages, dtype=torch.uint8, offset=extra, count=size)
        if begin % stored.dtype.itemsize:
            data = data.clone()
        return data.view(stored.dtype).view(last - first, width)

    def announce(self, name: str) -> None:
        """Tell the system that a tensor will be read soon, so that the disk starts before it is asked for."""
        stored = self.tensors[name]
        os.posix_fadvise(self._handles[stored.file], stored.begin, stored.bytes, os.POSIX_FADV_WILLNEED)


def read_json(path: Path) -> object:
    """Content of a JSON file, None where there is none. CheckpointError when it is not JSON."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those its index lists, or all there are."""
    if not (folder / INDEX).exists():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder}: no .safetensors file; convert the weights with transformers first")
        return files
    files = sorted({folder / name for name in _weight_map(folder).values()})
    if absent := [f.name for f in files if not f.is_file()]:
        raise CheckpointError(f"{folder}: the index lists files that are not there: {', '.join(absent)}")
    return files


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> file of the index."""
    index = read_json(folder / INDEX)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{folder / INDEX}: has no weight_map of names to files; fetch it again")
    return weight_map


def _check_index(folder: Path, tensors: dict[str, Stored]) -> None:
    """The index lists the tensors that the files hold, each in its file."""
    if not (folder / INDEX).exists():
        return
    weight_map = _weight_map(folder)
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file.name != file:
            raise CheckpointError(f"{folder}: the index puts {name} into {file}, where it is not")
    if unlisted := sorted(tensors.keys() - weight_map.keys()):
        raise CheckpointError(f"{tensors[unlisted[0]].file}: holds {unlisted[0]}, which the index does not list")


def _header(file: Path) -> dict[str, Stored]:
    """Tensors of one file. The library checks the header (lengths, offsets, gaps, file size); offsets come from it."""
    try:
        with safe_open(file, "pt"):
            pass
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(length), object_pairs_hook=_unique)
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{file}: damaged safetensors file: {error}; fetch or write it again") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(f"{file}: {name} is stored as {entry['dtype']}; dequantize the model first")
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


class Writer:
    """Safetensors files of at most `limit` bytes each, with an index where there are several.

    Blocks may come in any order and from any thread; one thread writes and hashes them, another waits for the disk.
    """

    def __init__(self, folder: Path, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]], limit: int) -> None:
        self.folder = folder
        layout = list(_shards({n: Stored(folder, 0, *t) for n, t in tensors.items()}, limit))
        names = ["model.safetensors"]
        if len(layout) > 1:
            names = [f"model-{i:05d}-of-{len(layout):05d}.safetensors" for i in range(1, len(layout) + 1)]
        self.order = [name for shard in layout for name in shard]  # as they lie in the files
        self.places: dict[str, tuple[_Sink, int]] = {}  # tensor -> (its file, first byte)
        self.sinks: dict[str, _Sink] = {}
        self.pen, self.disk = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.room = threading.Semaphore(WAITING)
        self.failed: list[BaseException] = []
        for file, shard in zip(names, layout, strict=True):
            self._start(folder / file, shard)
        if len(layout) > 1:
            weight_map = {name: file for file, shard in zip(names, layout, strict=True) for name in shard}
            total = sum(stored.bytes for shard in layout for stored in shard.values())
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")

    def _start(self, path: Path, shard: dict[str, Stored]) -> None:
        """Create a file of full size with its header."""
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, stored in shard.items():
            header[name] = {
                "dtype": NAMES[stored.dtype], "shape": list(stored.shape), "data_offsets": [at, at + stored.bytes]
            }  # fmt: skip
            at += stored.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        sink = self.sinks[path.name] = _Sink(path, 8 + len(text) + at)
        sink.write(0, struct.pack("<Q", len(text)) + text)
        for name in shard:
            self.places[name] = (sink, 8 + len(text) + header[name]["data_offsets"][0])

    def write(self, name: str, offset: int, data: torch.Tensor) -> None:
        """Bytes of a contiguous tensor at a byte offset of the named one; raises what went wrong with earlier ones."""
        sink, begin = self.places[name]
        view = memoryview(data.contiguous().view(torch.uint8).reshape(-1).numpy())
        self.room.acquire()
        if self.failed:
            self.room.release()
            raise self.failed[0]
        task = self.pen.submit(self._write, sink, begin + offset, view)
        task.add_done_callback(self._note)
        task.add_done_callback(lambda _: self.room.release())

    def _write(self, sink: "_Sink", at: int, view: memoryview) -> None:
        sink.write(at, view)
        if sink.unflushed >= FLUSH_BYTES:
            sink.unflushed = 0
            self.disk.submit(os.fdatasync, sink.handle).add_done_callback(self._note)

    def _note(self, task: Future) -> None:
        """Keep the error of a task, for the next `write` or `close` to raise."""
        if not task.cancelled() and (error := task.exception()):
            self.failed.append(error)

    def close(self) -> dict[str, str]:
        """SHA-256 of every file, now that all of them are on the disk; raises what went wrong before."""
        self.pen.shutdown()
        self.disk.shutdown()
        try:
            if self.failed:
                raise self.failed[0]
            return {name: sink.finish() for name, sink in self.sinks.items()}
        finally:
            self._release()

    def abandon(self) -> None:
        """Let go of files that nobody will use."""
        self.pen.shutdown(cancel_futures=True)
        self.disk.shutdown(cancel_futures=True)
        self._release()

    def _release(self) -> None:
        for sink in self.sinks.values():
            os.close(sink.handle)


class _Sink:
    """A file of a known size that is hashed from its start while its blocks come, in about that order."""

    def __init__(self, path: Path, size: int) -> None:
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.ftruncate(self.handle, size)
        self.path, self.size = path, size
        self.unflushed, self.hashed, self.hash = 0, 0, hashlib.sha256()
        self.early: dict[int, int] = {}  # first byte -> bytes of blocks that came before an earlier one

    def write(self, at: int, view: bytes | memoryview) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self.handle, view[done:], at + done)
        if not done:
            return
        self.unflushed += done
        self.early[at] = done
        if at == self.hashed:
            self._hash(view)
        while self.hashed in self.early:
            self._hash(os.pread(self.handle, self.early[self.hashed], self.hashed))

    def _hash(self, view: bytes | memoryview) -> None:
        self.hash.update(view)
        del self.early[self.hashed]
        self.hashed += len(view)

    def finish(self) -> str:
        """Flush the file; its SHA-256, with zeros where nothing was written."""
        os.fsync(self.handle)
        while self.hashed < self.size:
            rest = os.pread(self.handle, min(FLUSH_BYTES, self.size - self.hashed), self.hashed)
            if not rest:
                raise OSError(f"{self.path}: cut short while it was written; another program works in that folder")
            self.hash.update(rest)
            self.hashed += len(rest)
        return self.hash.hexdigest()


def _shards(tensors: dict[str, Stored], limit: int) -> Iterator[dict[str, Stored]]:
    """Tensors in order, wide dtypes first so that every one is aligned, cut before a file grows beyond the limit."""
    shard: dict[str, Stored] = {}
    for name, stored in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if shard and sum(s.bytes for s in shard.values()) + stored.bytes > limit:
            yield shard
            shard = {}
        shard[name] = stored
    yield shard
