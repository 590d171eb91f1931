"""The process that runs generated programs: started by `tinyr1.sandbox`, never imported by it.

Reads one JSON request a line, {"code", "input", "func_name", "cpu_seconds", "memory_mb", "output_bytes"}, runs
the program in a fork of its own under limits, and writes one JSON line {"status", "output", "error"}. Expected
outputs never come here. Standard library only: it runs in an isolated interpreter with an empty environment.
"""

import contextlib
import ctypes
import errno
import io
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import time

# What LiveCodeBench's runner puts before every program (evaluation.md §1.2).
PRELUDE = (
    "from string import *\nfrom re import *\nfrom datetime import *\nfrom collections import *\n"
    "from heapq import *\nfrom bisect import *\nfrom copy import *\nfrom math import *\nfrom random import *\n"
    "from statistics import *\nfrom itertools import *\nfrom functools import *\nfrom operator import *\n"
    "from io import *\nfrom sys import *\nfrom json import *\nfrom builtins import *\nfrom typing import *\n"
    "import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools\n"
    "import functools, operator, io, sys, json, builtins, typing\nsys.setrecursionlimit(50000)\n"
)

# System calls a test may not make, by number: sockets, new processes and programs, signals to others, tracing.
DENIED = {
    "x86_64": (41, 42, 49, 50, 53, 57, 58, 59, 62, 76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 92, 101, 112, 129, 133,
               200, 234, 258, 259, 263, 264, 265, 266, 268, 310, 311, 316, 322, 424, 425, 434, 437, 438),
    "aarch64": (33, 34, 35, 36, 37, 38, 45, 46, 53, 54, 117, 129, 130, 131, 138, 157, 198, 199, 200, 201, 203,
                221, 270, 271, 276, 281, 424, 425, 434, 437, 438),
}  # fmt: skip
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OPEN = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}  # (open or openat, index of its flags)
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
CLONE_THREAD = 0x10000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 4, 38, 22
_LIBC = ctypes.CDLL(None, use_errno=True)


def _filter_program() -> ctypes.Array:
    """A seccomp BPF program: denied calls fail with EPERM, files open for reading only, clone makes threads only."""
    machine = platform.machine()
    load, jump_eq, jump_set, ret = 0x20, 0x15, 0x45, 0x06
    allow, deny, no_such_call, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
    code = [(load, 0, 0, 4), (jump_eq, 1, 0, ARCH[machine]), (ret, 0, 0, kill), (load, 0, 0, 0)]
    for number, flags in OPEN[machine]:  # flags are the low half of the argument at 16 + 8 * index
        code += [(jump_eq, 0, 4, number), (load, 0, 0, 16 + 8 * flags), (jump_set, 0, 1, WRITING)]
        code += [(ret, 0, 0, deny), (ret, 0, 0, allow)]
    code += [(jump_eq, 0, 4, CLONE[machine]), (load, 0, 0, 16), (jump_set, 0, 1, CLONE_THREAD)]
    code += [(ret, 0, 0, allow), (ret, 0, 0, deny)]
    code += [(jump_eq, 0, 1, CLONE3), (ret, 0, 0, no_such_call)]  # its flags are out of reach; libc falls back
    for number in DENIED[machine]:
        code += [(jump_eq, 0, 1, number), (ret, 0, 0, deny)]
    code += [(ret, 0, 0, allow)]
    return ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))


def _confine(request: dict, program: ctypes.Array) -> None:
    """Limits on the calling process; nothing after this can lift them."""
    memory, cpu = request["memory_mb"] << 20, request["cpu_seconds"]
    limits = {
        resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: cpu, resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 16, resource.RLIMIT_MEMLOCK: 0,
    }  # fmt: skip
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_STACK, (min(memory, 512 << 20), resource.getrlimit(resource.RLIMIT_STACK)[1]))
    steps = len(program) // 8
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", steps, ctypes.addressof(program)))
    for option, *arguments in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1),
        (_PR_SET_SECCOMP, 2, ctypes.byref(fprog)),
    ):  # fmt: skip
        padded = [*arguments, *[0] * (4 - len(arguments))]
        if _LIBC.prctl(option, *padded) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}) refused: programs cannot be isolated here")


def _call(namespace: dict, request: dict) -> str:
    """Functional problem: call the method with one JSON argument a line; the JSON of what it returns."""
    arguments = [json.loads(line) for line in request["input"].split("\n") if line.strip()]
    owner = namespace["Solution"]() if "Solution" in namespace else None
    function = getattr(owner, request["func_name"]) if owner else namespace[request["func_name"]]
    value = function(*arguments)
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _input_file(text: str) -> int:
    """A file in memory that holds `text`: programs read `open(0)` and `os.read(0, n)` as well as `sys.stdin`."""
    handle = os.memfd_create("stdin")
    with open(handle, "wb", closefd=False) as file:
        file.write(text.encode())
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _run_test(request: dict, program: ctypes.Array, out: int) -> None:
    """In the fork: run the program with `out` as standard output; never returns."""
    status = 1
    try:
        os.dup2(_input_file("" if request["func_name"] else request["input"]), 0)
        os.dup2(out, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a program logs is not its answer
        os.closerange(3, 256)
        _confine(request, program)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
        namespace = {"__name__": "__main__"}
        exec(PRELUDE, namespace)
        with contextlib.suppress(SystemExit):
            with contextlib.redirect_stdout(io.StringIO()) if request["func_name"] else contextlib.nullcontext():
                exec(compile(request["code"], "solution.py", "exec"), namespace)
                result = _call(namespace, request) if request["func_name"] else ""
            sys.stdout.write(result)
        sys.stdout.flush()
        status = 0
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its own result
        os.write(1, f"\0{type(error).__name__}: {error}"[:500].encode(errors="replace"))
    finally:
        os._exit(status)


def _collect(pid: int, out: int, request: dict) -> dict:
    """Output and verdict of a running test; kills it at its wall-clock or output limit."""
    deadline, data, status = time.monotonic() + 3 * request["cpu_seconds"] + 2, b"", ""
    while not status:
        ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(out, 65536) if ready else b""
        data += chunk
        if not ready:
            status = "timeout"
        elif len(data) > request["output_bytes"]:
            status = "output_limit"
        elif not chunk:
            break
    if status:
        os.kill(pid, signal.SIGKILL)
    _, code = os.waitpid(pid, 0)
    if not status:
        if os.WIFSIGNALED(code):
            status = "timeout" if os.WTERMSIG(code) in (signal.SIGXCPU, signal.SIGKILL) else "crash"
        else:
            status = "ok" if os.WEXITSTATUS(code) == 0 else "error"
    text = data.decode(errors="replace")
    _, mark, error = text.rpartition("\0")  # what `_run_test` writes after an exception
    return {
        "status": status,
        "output": text if status == "ok" else "",
        "error": error if mark and status == "error" else "",
    }


def main() -> None:
    program = _filter_program()
    sys.set_int_max_str_digits(50000)
    exec(PRELUDE, {})  # imported once, inherited by every fork
    for line in sys.stdin.buffer:
        request = json.loads(line)
        out_read, out_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run_test(request, program, out_write)
        os.close(out_write)
        answer = _collect(pid, out_read, request)
        os.close(out_read)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
