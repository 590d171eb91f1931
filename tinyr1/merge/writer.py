r"""Safetensors files written from blocks that come from several threads, in any order.

    threads of the merge          pen (1 thread)                             disk (1 thread)
    write(name, offset, block) -> put blocks in order, hash, fill a piece -> write the piece past the page cache,
          |    \_ waits while 8 blocks are in the queue     ^                flush and close a finished file
          raises an earlier error of pen or disk            \__ 4 buffers go round __/

The layout of the files is known before the first weight is. Hashing and writing happen while the next blocks are
computed. Where the file system can, pieces go to the disk past the page cache: filling the cache takes more than ten
times the processor time, and drives out the inputs that are read again.
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
from typing import Any

import numpy as np
import torch

from tinyr1.core.checkpoints import INDEX
from tinyr1.merge.reader import DTYPES_STORED, StoredTensor

SHARD_BYTES = 50 * 10**9  # transformers' own limit for a file
ALIGNMENT = 8  # of the first tensor in a file, in bytes
PIECE = 2**22  # bytes that the disk is given at once; a multiple of any file system's block
PIECES = 4  # buffers of that size: one is filled while the others are written
WAITING = 8  # blocks in the queue of the pen, at most
CLOSED = -1  # handle of a file that is not open


class ShardWriter:
    """Safetensors files of at most `limit` bytes each, with an index where there are several.

    tensors: name -> (shape, dtype). A block that comes before its turn stays in memory until those before it are there.
    """

    def __init__(self, folder: Path, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]], limit: int) -> None:
        layout = list(_shards({n: StoredTensor(folder, 0, *t) for n, t in tensors.items()}, limit))
        names = ["model.safetensors"]
        if len(layout) > 1:
            names = [f"model-{i:05d}-of-{len(layout):05d}.safetensors" for i in range(1, len(layout) + 1)]
        self.order = [name for shard in layout for name in shard]  # the order of the tensors in the files
        self.places: dict[str, int] = {}  # tensor -> its first byte, counted through all files
        # One thread each: a hash needs the bytes in order, and a disk gains nothing from several writers.
        self.pen, self.disk = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.room = threading.Semaphore(WAITING)
        self.errors: list[BaseException] = []
        self.stream = _Stream(self._flush)
        for file, shard in zip(names, layout, strict=True):
            self._plan_file(folder / file, shard)
        if len(layout) > 1:
            weight_map = {name: file for file, shard in zip(names, layout, strict=True) for name in shard}
            total = sum(stored.bytes for shard in layout for stored in shard.values())
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")

    def _plan_file(self, path: Path, shard: dict[str, StoredTensor]) -> None:
        """Add a file to the stream: its header, and where in it each tensor is."""
        names = {dtype: name for name, dtype in DTYPES_STORED.items()}
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offsets, at = {}, 0
        for name, stored in shard.items():
            offsets[name], end = at, at + stored.bytes
            header[name] = {"dtype": names[stored.dtype], "shape": list(stored.shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        begin = self.stream.add(path, 8 + len(text) + at)
        self.places |= {name: begin + 8 + len(text) + offset for name, offset in offsets.items()}
        self._submit(begin, memoryview(struct.pack("<Q", len(text)) + text))

    def write(self, name: str, offset: int, data: torch.Tensor) -> None:
        """Bytes of a tensor at a byte offset of the named one; raises the error of an earlier write, if any."""
        self._submit(self.places[name] + offset, data.contiguous().view(torch.uint8).reshape(-1).numpy().data)

    def _submit(self, at: int, view: memoryview) -> None:
        self.room.acquire()  # where the disk is slow, the merge waits here and memory does not fill with blocks
        if self.errors:
            self.room.release()
            raise self.errors[0]
        task = self.pen.submit(self.stream.put, at, view)
        task.add_done_callback(self._note)
        task.add_done_callback(lambda _: self.room.release())

    def _flush(self, piece: "_Piece") -> None:
        self.disk.submit(self.stream.to_disk, piece).add_done_callback(self._note)

    def _note(self, task: Future) -> None:
        """Remember the error of a task, for the next `write` or `close` to raise."""
        if not task.cancelled() and (error := task.exception()):
            self.errors.append(error)

    def close(self) -> dict[str, str]:
        """SHA-256 of every file by name, when all bytes are on the disk; raises the error of an earlier write."""
        self.pen.shutdown()  # first the pen, which still hands pieces to the disk
        self.disk.shutdown()
        self.stream.release()
        if self.errors:
            raise self.errors[0]
        return self.stream.hashes()

    def abandon(self) -> None:
        """End the threads and close the files of a merge that failed."""
        self.pen.shutdown(cancel_futures=True)
        self.disk.shutdown()  # not cancelled: every piece gives its buffer back, and every file is closed
        self.stream.release()


class _File:
    """One output file, as a part of the stream of all of them."""

    def __init__(self, path: Path, begin: int, size: int) -> None:
        self.path, self.begin, self.end, self.size = path, begin, begin + size, size
        self.hash, self.handle, self.direct = hashlib.sha256(), CLOSED, False

    def open(self) -> None:
        """Create the file in its full size."""
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.ftruncate(self.handle, self.size)
        self.direct = set_direct(self.handle, True)

    def write(self, at: int, view: memoryview) -> None:
        """Bytes at a place in the file; whole pieces go past the page cache, the end of the file through it."""
        if self.direct and len(view) < PIECE:  # direct writes must have the length of whole disk blocks
            self.direct = set_direct(self.handle, False)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self.handle, view[done:], at + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self.direct:
                    raise
                # Some file systems accept the flag and refuse the write.
                self.direct = set_direct(self.handle, False)

    def finish(self) -> None:
        """Flush and close the file, with all its bytes written."""
        os.fsync(self.handle)
        if os.fstat(self.handle).st_size != self.size:
            raise OSError(f"{self.path}: cut short while it was written; another program works in that folder")
        self.close()

    def close(self) -> None:
        if self.handle != CLOSED:
            # Forget the handle first: where closing fails it is gone all the same, and another file may get its number.
            handle, self.handle = self.handle, CLOSED
            os.close(handle)


def set_direct(handle: int, on: bool) -> bool:
    """Turn writing past the page cache on or off; returns whether it is on, since not every file system can."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
        return on
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False


@dataclass(frozen=True)
class _Piece:
    """The first `size` bytes of a buffer, which belong at byte `at` of a file."""

    file: _File
    at: int
    buffer: mmap.mmap
    size: int


class _Stream:
    """The bytes of all files, one file after the other: put in order, hashed, and handed on in pieces.

    One thread calls `put`, another one calls `to_disk`, once for every piece; that is why nothing here has a lock.
    """

    def __init__(self, flush: Callable[[_Piece], None]) -> None:
        self.flush = flush
        self.files: list[_File] = []
        self.current = 0  # index of the file that is being filled
        self.taken = 0  # bytes that were put in order
        self.early: dict[int, memoryview] = {}  # first byte -> blocks that came before an earlier one
        self.free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
        for _ in range(PIECES):
            self.free.put(mmap.mmap(-1, PIECE))  # mapped memory begins at a page, as direct writing demands
        self.buffer: mmap.mmap | None = None
        self.filled = 0  # bytes of the buffer in use

    def add(self, path: Path, size: int) -> int:
        """Another file; returns its first byte in the stream."""
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
        """The next bytes of the stream, all of one file."""
        file = self.files[self.current]
        file.hash.update(view)
        while len(view):
            buffer = self.buffer or self.free.get()  # waits while the disk has all buffers
            part = view[: PIECE - self.filled]
            # NumPy lets other threads run while it copies.
            np.copyto(np.frombuffer(buffer, np.uint8, len(part), self.filled), np.frombuffer(part, np.uint8))
            view = view[len(part) :]
            self.buffer, self.filled, self.taken = buffer, self.filled + len(part), self.taken + len(part)
            if self.filled == PIECE or self.taken == file.end:
                self.flush(_Piece(file, self.taken - self.filled - file.begin, buffer, self.filled))
                self.buffer, self.filled = None, 0
        self.current += self.taken == file.end

    def to_disk(self, piece: _Piece) -> None:
        """Write a piece; the first one of a file creates it, the last one finishes it."""
        file = piece.file
        try:
            if piece.at == 0:
                file.open()
            file.write(piece.at, memoryview(piece.buffer)[: piece.size])
            if piece.at + piece.size == file.size:
                file.finish()
        finally:
            self.free.put(piece.buffer)  # after an error, too: the pen would wait for it for ever

    def release(self) -> None:
        """Close the files that are still open."""
        for file in self.files:
            file.close()

    def hashes(self) -> dict[str, str]:
        """SHA-256 by file name. ValueError where bytes are missing, which is a defect of the caller."""
        if self.taken < self.files[-1].end:
            raise ValueError(f"{self.files[self.current].path}: of all bytes only the first {self.taken} were written")
        return {file.path.name: file.hash.hexdigest() for file in self.files}


def _shards(tensors: dict[str, StoredTensor], limit: int) -> Iterator[dict[str, StoredTensor]]:
    """Tensors in order, wide dtypes first so that every one is aligned, cut before a file grows beyond the limit."""
    shard: dict[str, StoredTensor] = {}
    size = 0
    for name, stored in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if shard and size + stored.bytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = stored
        size += stored.bytes
    yield shard
