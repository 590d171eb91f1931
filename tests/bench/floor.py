"""The floor of a merge: its bytes through memory and disk, and nothing else.

`python tests/bench/floor.py OUT BYTES FILE…`

    a thread for each core: blocks of the mapped inputs, in order, a look into every cache line
    one thread beside them: as many bytes as the result, in pieces past the page cache, and a flush

Blocks, pieces and threads are those of the kit (`tinyr1.merge.method.BLOCK`, `tinyr1.merge.writer.PIECE`), which are
not imported: importing PyTorch would take longer than the bytes of a small model.
"""

import fcntl
import mmap
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

BLOCK_BYTES = 2 * 2**20
PIECE = 2**22
LINE = 64  # bytes of a cache line


def read(file: Path, pool: ThreadPoolExecutor) -> None:
    """Look into every cache line of a file, block by block, on all threads of the pool."""
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        size = len(mapped)

        def look(start: int) -> int:
            length = min(BLOCK_BYTES, size - start)
            return int(np.frombuffer(mapped, np.uint8, length, start)[::LINE].max())

        for _ in pool.map(look, range(0, size, BLOCK_BYTES)):
            pass


def write(out: Path, size: int) -> None:
    """Write and flush `size` bytes, past the page cache where the file system can."""
    piece = mmap.mmap(-1, PIECE)  # begins at a page, as direct writing demands
    handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.ftruncate(handle, size)
        set_direct(handle, True)
        for at in range(0, size, PIECE):
            length = min(PIECE, size - at)
            if length < PIECE:
                set_direct(handle, False)
            os.pwrite(handle, memoryview(piece)[:length], at)
        os.fsync(handle)
    finally:
        os.close(handle)


def set_direct(handle: int, on: bool) -> None:
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError:  # a file system without it; the kit goes through the page cache there, too
        return


def main() -> None:
    out, size, *files = sys.argv[1:]
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(1) as writer:
        written = writer.submit(write, Path(out), int(size))
        for file in files:
            read(Path(file), readers)
        written.result()


if __name__ == "__main__":
    main()
