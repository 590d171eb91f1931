"""What a program expects of the interpreter that runs it, where a confined fork is not an ordinary one.

An interpreter that starts for one script opens its standard streams at the beginning and, at the end, waits for threads
and writes out what its streams still hold. A fork is made of an interpreter that runs already, and ends by `os._exit`:
to tear all modules down would take as long as the execution itself. So `open_streams`, in the fork-server, and
`end_of_script`, in the fork, do what a program can notice. This file uses the standard library only.
"""

import atexit
import contextlib
import gc
import io
import itertools
import os
import resource
import site
import socket
import sys
import threading
import types
from typing import Any

# The fork-server runs without the module that gives every interpreter its exit() and quit().
site.setquit()
STREAMS: list[Any] = []  # those that `open_streams` has opened for writing


def open_streams() -> None:
    """Open the standard streams as a script has them, once for all forks: it takes a tenth of a fork's time.

    Descriptor 0 must be a file with positions and descriptor 1 a pipe, as in a fork, since streams remember that.
    """
    stdin: Any = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    stdout: Any
    stderr: Any
    stdout, stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))  # noqa: SIM115
    for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        stream.buffer.raw.name = f"<{name}>"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["solution.py"]
    STREAMS.extend((stdout, stdout.buffer))


class _PipeEnd:
    """One end of a pipe, with the methods of a socket that an event loop calls."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def fileno(self) -> int:
        return self._handle

    def setblocking(self, flag: bool) -> None:
        os.set_blocking(self._handle, flag)

    def recv(self, size: int) -> bytes:
        return os.read(self._handle, size)

    def send(self, data: bytes) -> int:
        return os.write(self._handle, data)

    def close(self) -> None:
        os.close(self._handle)


def make_event_loops_work() -> None:
    """Let asyncio wake its event loops through a pipe, since the sockets that it makes for this are denied."""
    from asyncio import selector_events  # 60 ms that only the programs that import asyncio pay anyway

    def pipe() -> tuple[_PipeEnd, _PipeEnd]:
        read, write = os.pipe()
        return _PipeEnd(read), _PipeEnd(write)

    # Only this module sees it: for the program itself the function of `socket` stays denied.
    vars(selector_events)["socket"] = types.SimpleNamespace(**vars(socket) | {"socketpair": pipe})


def lend_spare_memory() -> None:
    """Raise the memory limit by `confine.SPARE_BYTES`: a program that reached it has none left for what follows."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def end_of_script() -> None:
    """Wait for threads and thread pools, run what was registered for the exit, write out what streams still hold.

    An interpreter does this last part by destroying all objects. Here the streams that the program made are flushed
    instead, wherever it holds them, and other objects with a `__del__` method get that call. As in an interpreter,
    an exception in any of this comes too late to count.
    """
    # Python has no public function for these two.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    try:
        left = _with_finalizer()
    except MemoryError:
        lend_spare_memory()
        left = _with_finalizer()
    streams = []
    for item in left:
        if isinstance(item, io.IOBase):
            streams.append(item)
            continue
        with contextlib.suppress(BaseException):
            item.__del__()
    # Streams come last, because the methods above may write into them.
    for stream in (*streams, *STREAMS):
        with contextlib.suppress(BaseException):
            stream.flush()


def _with_finalizer() -> list[Any]:
    """The objects made since the fork (earlier ones are frozen) whose class has a method `__del__`, as streams have."""
    # A program may have made millions of objects, so no line of Python runs for each.
    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if hasattr(kind, "__del__")}
    return list(itertools.compress(objects, map(kinds.__contains__, map(type, objects))))
