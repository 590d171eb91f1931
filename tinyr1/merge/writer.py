"""Safetensors files written from blocks that come from several threads.

The files are laid out before the first weight is there. Blocks are put into the order of the files, hashed and handed
to the disk while the next ones are made. Where the file system can, they go to the disk past the page cache: filling
the cache takes more than ten times the processor time, and drives out the inputs that are read again.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from tinyr1.merge.reader import INDEX, NAMES, Stored

SHARD_BYTES = 50 * 10**9  # transformers' own limit for a file
ALIGNMENT = 8  # of the first tensor in a file, in bytes
PIECE = 2**22  # bytes that the disk is given at once; a multiple of any file system's block
PIECES = 4  # buffers of that size: one is filled while the others are written
WAITING = 8  # blocks that wait for their turn to be put in order, at most


class Writer:
    """Safetensors files of at most `limit` bytes each, with an index where there are several.

    Blocks may come in any order and from any thread, but one that comes early is kept in memory until those before it
    are there. One thread puts them in order and hashes them, another one waits for the disk.
    """

    def __init__(self, folder: Path, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]], limit: int) -> None:
        layout = list(_shards({n: Stored(folder, 0, *t) for n, t in tensors.items()}, limit))
        names = ["model.safetensors"]
        if len(layout) > 1:
            names = [f"model-{i:05d}-of-{len(layout):05d}.safetensors" for i in range(1, len(layout) + 1)]
        self.order = [name for shard in layout for name in shard]  # as they lie in the files
        self.places: dict[str, int] = {}  # tensor -> its first byte, counted through all files
        self.pen, self.disk = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.room = threading.Semaphore(WAITING)
        self.failed: list[BaseException] = []
        self.stream = _Stream(self._flush)
        for file, shard in zip(names, layout, strict=True):
            self._start(folder / file, shard)
        if len(layout) > 1:
            weight_map = {name: file for file, shard in zip(names, layout, strict=True) for name in shard}
            total = sum(stored.bytes for shard in layout for stored in shard.values())
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")

    def _start(self, path: Path, shard: dict[str, Stored]) -> None:
        """Plan a file: its header, and where in it each tensor is."""
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, stored in shard.items():
            header[name] = {
                "dtype": NAMES[stored.dtype], "shape": list(stored.shape), "data_offsets": [at, at + stored.bytes]
            }  # fmt: skip
            at += stored.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        begin = self.stream.add(path, 8 + len(text) + at)
        for name in shard:
            self.places[name] = begin + 8 + len(text) + header[name]["data_offsets"][0]
        self._submit(begin, memoryview(struct.pack("<Q", len(text)) + text))

    def write(self, name: str, offset: int, data: torch.Tensor) -> None:
        """Bytes of a contiguous tensor at a byte offset of the named one; raises what went wrong with earlier ones."""
        self._submit(self.places[name] + offset, memoryview(data.contiguous().view(torch.uint8).reshape(-1).numpy()))

    def _submit(self, at: int, view: memoryview) -> None:
        self.room.acquire()
        if self.failed:
            self.room.release()
            raise self.failed[0]
        task = self.pen.submit(self.stream.put, at, view)
        task.add_done_callback(self._note)
        task.add_done_callback(lambda _: self.room.release())

    def _flush(self, piece: "_Piece") -> None:
        self.disk.submit(self.stream.to_disk, piece).add_done_callback(self._note)

    def _note(self, task: Future) -> None:
        """Keep the error of a task, for the next `write` or `close` to raise."""
        if not task.cancelled() and (error := task.exception()):
            self.failed.append(error)

    def close(self) -> dict[str, str]:
        """SHA-256 of every file, now that all of them are on the disk; raises what went wrong before."""
        self.pen.shutdown()
        self.disk.shutdown()
        self.stream.release()
        if self.failed:
            raise self.failed[0]
        return self.stream.hashes()

    def abandon(self) -> None:
        """Let go of files that nobody will use."""
        self.pen.shutdown(cancel_futures=True)
        self.disk.shutdown()  # not cancelled: every piece gives its buffer back, and every file is closed
        self.stream.release()


class _File:
    """One of the files that are written, as a part of the stream of all of them."""

    def __init__(self, path: Path, begin: int, size: int) -> None:
        self.path, self.begin, self.end, self.size = path, begin, begin + size, size
        self.hash, self.handle = hashlib.sha256(), None

    def open(self) -> None:
        """Create the file in its full size."""
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.ftruncate(self.handle, self.size)
        self.direct = _set_direct(self.handle, True)

    def write(self, at: int, view: memoryview) -> None:
        """Bytes at a place in the file; whole pieces go past the page cache, the end of the file through it."""
        if self.direct and len(view) < PIECE:
            self.direct = _set_direct(self.handle, False)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self.handle, view[done:], at + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self.direct:
                    raise
                self.direct = _set_direct(self.handle, False)  # a file system that promises it and then refuses

    def finish(self) -> None:
        os.fsync(self.handle)
        if os.fstat(self.handle).st_size != self.size:
            raise OSError(f"{self.path}: cut short while it was written; another program works in that folder")
        self.close()

    def close(self) -> None:
        if self.handle is not None:
            handle, self.handle = self.handle, None
            os.close(handle)


def _set_direct(handle: int, on: bool) -> bool:
    """Write past the page cache, or no longer; whether it is so now, as not every file system can."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return on


class _Stream:
    """The bytes of all files, one after the other: put in order, hashed, and handed on in pieces.

    `put` is called by one thread, `to_disk` by another one, for every piece once.
    """

    def __init__(self, flush: Callable[["_Piece"], None]) -> None:
        self.flush, self.files, self.current = flush, [], 0
        self.taken = 0  # bytes that were put in order
        self.early: dict[int, memoryview] = {}  # first byte -> blocks that came before an earlier one
        self.free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
        for _ in range(PIECES):
            self.free.put(mmap.mmap(-1, PIECE))  # begins with a page, as the disk demands
        self.buffer, self.filled = None, 0

    def add(self, path: Path, size: int) -> int:
        """Another file; its first byte in the stream."""
        begin = self.files[-1].end if self.files else 0
        self.files.append(_File(path, begin, size))
        return begin

    def put(self, at: int, view: memoryview) -> None:
        """Bytes at a place in the stream."""
        if len(view):
            self.early[at] = view
        while self.taken in self.early:
            self._take(self.early.pop(self.taken))

    def _take(self, view: memoryview) -> None:
        file = self.files[self.current]
        file.hash.update(view)
        while len(view):
            self.buffer = self.buffer or self.free.get()
            part = view[: PIECE - self.filled]
            self.buffer[self.filled : self.filled + len(part)] = part
            view = view[len(part) :]
            self.filled += len(part)
            self.taken += len(part)
            if self.filled == PIECE or self.taken == file.end:
                self.flush(_Piece(file, self.taken - self.filled - file.begin, self.buffer, self.filled))
                self.buffer, self.filled = None, 0
        self.current += self.taken == file.end

    def to_disk(self, piece: "_Piece") -> None:
        """Write a piece; the first one of a file creates it, the last one finishes it."""
        file = piece.file
        try:
            if piece.at == 0:
                file.open()
            file.write(piece.at, memoryview(piece.buffer)[: piece.size])
            if piece.at + piece.size == file.size:
                file.finish()
        finally:
            self.free.put(piece.buffer)

    def release(self) -> None:
        for file in self.files:
            file.close()

    def hashes(self) -> dict[str, str]:
        """SHA-256 by file name, once every byte was put."""
        if self.taken < self.files[-1].end:
            raise ValueError(f"{self.files[self.current].path}: of all bytes only the first {self.taken} were written")
        return {file.path.name: file.hash.hexdigest() for file in self.files}


@dataclass(frozen=True)
class _Piece:
    """The first `size` bytes of a buffer, which belong at byte `at` of a file."""

    file: _File
    at: int
    buffer: mmap.mmap
    size: int


def _shards(tensors: dict[str, Stored], limit: int) -> Iterator[dict[str, Stored]]:
    """Tensors in order, wide dtypes first so that every one is aligned, cut before a file grows beyond the limit."""
    shard: dict[str, Stored] = {}
    for name, stored in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if shard and sum(s.bytes for s in shard.values()) + stored.bytes > limit:
            yield shard
            shard = {}
        shard[name] = stored
    yield shard
