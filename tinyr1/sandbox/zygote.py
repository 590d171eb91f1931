"""The fork-server that runs generated programs. `tinyr1.sandbox.forkserver` starts it as a script and never imports it.

A new Python interpreter with the imports that programs expect takes 20 ms; a fork of one that has them takes 3 ms. That
is why this process exists. It speaks with the judge through descriptor 0, a socket that keeps messages apart:

      judge                                                    fork-server
      ◀── {layers, landlock_abi, identity, python, numpy} ──── once, when it is ready
      ─── {memory_bytes, cpu_seconds, wall_seconds}
            with 4 descriptors: job, standard input,
            standard output, pipe for results ───────────────▶ forks; the fork confines itself and runs the job
      ─── "stop" ────────────────────────────────────────────▶ kills the fork (the judge knows enough)
      ◀── {signal, exit, stopped, cpu_seconds, … } ─────────── how the fork ended
      ─── end of file ───────────────────────────────────────▶ kills the fork and ends

A job is JSON: code, semantics, func_name, inputs, seconds. Code, inputs and outputs pass through descriptors that only
judge and fork read, so nothing of one program stays in this process for the next one, and expected outputs never come
here. This file uses the standard library only, and numpy where it is installed.
"""

import contextlib
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

# The interpreter is started without any folder to import from. It gets this one for the two files below, and loses it
# before a program runs, so that no program can import the sandbox's other files.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import confine  # noqa: E402
import interpreter  # noqa: E402
import programs  # noqa: E402

sys.path.pop(0)

RESULT, RULESET, FIRST_FREE = 3, 4, 5  # descriptors of a fork, beside the three standard ones
HIGH = 100  # descriptors from here on cannot be in the way of those of a fork
THREAD_STACK_BYTES = 8 << 20
MESSAGE_BYTES = 1 << 16
JUDGE_ENDED = "the judge ended"


def _with_deep_stack() -> None:
    """Raise the stack limit, and start again with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = confine.STACK_BYTES if hard == resource.RLIM_INFINITY else min(confine.STACK_BYTES, hard)
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        # The kernel lays memory out when a program starts, and leaves as much room as the limit says then.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _preload(site_packages: list[str]) -> str | None:
    """Import what programs use, once for all forks; return the version of numpy, if there is one."""
    sys.path.extend(site_packages)
    sys.set_int_max_str_digits(50000)  # the limit that LiveCodeBench's runner sets
    # Threads would otherwise reserve as much stack as the main thread has, and soon reach the memory limit.
    threading.stack_size(THREAD_STACK_BYTES)
    try:
        import numpy
    except ImportError:
        return None
    return numpy.__version__


def _open_streams(null: int) -> None:
    """Open the standard streams on descriptors of the kinds that forks have, and leave these to /dev/null."""
    pipe = os.pipe()
    os.dup2(null, 0)
    os.dup2(pipe[1], 1)
    interpreter.open_streams()
    os.dup2(null, 1)
    for handle in pipe:
        os.close(handle)


def _fork_main(request: dict[str, Any], handles: list[int], confinement: Any, null: int) -> NoReturn:
    """What the fork does: arrange its descriptors, confine itself, run the job."""
    # A program may put another function in the place of os._exit, so it is looked up before the program runs.
    code, leave = 1, os._exit
    try:
        job, stdin, stdout, result = handles
        with open(job, "rb") as file:
            work = json.loads(file.read())
        # First out of the way, since one of the four may have the number that another one is to get.
        result = fcntl.fcntl(result, fcntl.F_DUPFD, HIGH)
        # What a function prints, such as lines for debugging, is not its answer.
        printed = null if work["func_name"] else stdout
        for source, target in ((stdin, 0), (printed, 1), (null, 2), (result, RESULT)):
            os.dup2(source, target)
        ruleset = None
        if confinement.ruleset is not None:
            ruleset = os.dup2(confinement.ruleset, RULESET)
        # The socket to the judge, above all, must not reach the program.
        os.closerange(RULESET if ruleset is None else FIRST_FREE, 1 << 20)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        results = programs.Results(RESULT)
        try:
            confinement.apply(request["memory_bytes"], request["cpu_seconds"], ruleset)
        except OSError as error:
            results.send({"error": str(error)})
            raise
        # The judge takes nothing from a fork that has not said this: an unconfined one never runs a program.
        results.send({"ready": ""})
        code = programs.run(work, results)
    finally:
        leave(code)


def _cpu_seconds(pid: int) -> float:
    """The CPU time of a process so far."""
    # Its clock CPUCLOCK_SCHED (see the kernel's posix-timers.h) is exact, where RLIMIT_CPU counts whole seconds.
    return time.clock_gettime((~pid << 3) | 2)


def _wait(pid: int, control: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    """Wait for the fork's end and describe it. The fork is killed at its limits, on request, and without a judge."""
    start, stopped = time.monotonic(), None
    # A descriptor for the fork lets one call wait for its end, for a message and for the clock.
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        wall_left = start + request["wall_seconds"] - time.monotonic()
        cpu_left = request["cpu_seconds"] - _cpu_seconds(pid)
        # CPU time cannot pass faster than the clock with one thread. With several it can, which RLIMIT_CPU bounds.
        left = None if stopped else max(0.0, min(wall_left, cpu_left)) * 1000 + 1
        ready = [fd for fd, _ in poll.poll(left)]
        if handle in ready:
            break
        if ready:
            stopped = "by the judge" if control.recv(MESSAGE_BYTES) else JUDGE_ENDED
        elif wall_left <= 0 or cpu_left <= 0:
            stopped = "at its wall-clock limit" if wall_left <= 0 else "at its CPU limit"
        if stopped:
            poll.unregister(control)
            os.kill(pid, signal.SIGKILL)
    os.close(handle)
    _, status, usage = os.wait4(pid, 0)
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None, "stopped": stopped,
        "cpu_seconds": usage.ru_utime + usage.ru_stime, "wall_seconds": time.monotonic() - start,
        "memory_mb": usage.ru_maxrss >> 10,
    }  # fmt: skip


def main() -> None:
    """Prepare everything that forks share, then serve requests until the judge closes its socket."""
    _with_deep_stack()
    plan = json.loads(sys.argv[1])
    # The judge passes the socket as standard input, so it needs no name that a program could look for.
    control = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, HIGH))
    null = os.open(os.devnull, os.O_RDWR)
    readable = [path for path in plan["readable"] if os.path.exists(path)]
    confinement = confine.Confinement(plan["layers"], readable, plan["uid"])
    if confinement.ruleset is not None:
        confinement.ruleset = fcntl.fcntl(confinement.ruleset, fcntl.F_DUPFD, HIGH)
    version = _preload(plan["site_packages"])
    _open_streams(null)
    # Objects that the collector never visits are not written to, so all forks share the memory pages they are in.
    gc.collect()
    gc.freeze()
    hello = {
        "layers": confinement.layers, "landlock_abi": confinement.abi, "identity": confinement.identity,
        "python": sys.version.split()[0], "numpy": version,
    }  # fmt: skip
    control.send(json.dumps(hello).encode())
    # One program at a time, so that each has a core to itself; a judge with more cores starts more fork-servers.
    while True:
        message, handles, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
        if not message:
            return
        if not handles:
            continue  # a "stop" that came after its fork had ended
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            _fork_main(request, handles, confinement, null)
        for handle in handles:
            os.close(handle)
        answer = _wait(pid, control, request)
        if answer["stopped"] == JUDGE_ENDED:
            return
        control.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
    # The judge removes this folder too, but not when it was killed.
    with contextlib.suppress(OSError):
        os.rmdir(os.getcwd())
