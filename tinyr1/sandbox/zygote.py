"""The fork-server that runs generated programs: started by `tinyr1.sandbox` as a script, never imported by it.

Descriptor 0 is a socket to the judge. A request is one JSON message {"memory_bytes", "cpu_seconds", "wall_seconds"}
with four descriptors: the job (JSON: code, semantics, func_name, inputs, seconds), standard input, standard output, and
the pipe for results. Each request runs in a confined fork; the answer is one JSON message about how the fork ended.
Code, inputs and outputs pass through descriptors that only judge and fork read, so nothing of one program is left in
this process for the next to find, and expected outputs never come here.
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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import confine  # noqa: E402 - the files beside this one, and nothing else of their folder
import programs  # noqa: E402

sys.path.pop(0)

RESULT, RULESET, FIRST_FREE = 3, 4, 5  # descriptors of a fork, beside the three standard ones
HIGH = 100
THREAD_STACK_BYTES = 8 << 20
MESSAGE_BYTES = 1 << 16


def _with_deep_stack() -> None:
    """Start again with a larger stack limit: the kernel lays out the room for it when a program starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = confine.STACK_BYTES if hard == resource.RLIM_INFINITY else min(confine.STACK_BYTES, hard)
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _preload(site_packages: list[str]) -> str | None:
    """Import what programs use, once for all forks; the version of numpy, if there is one."""
    sys.path.extend(site_packages)
    sys.set_int_max_str_digits(50000)  # LiveCodeBench's limit
    threading.stack_size(THREAD_STACK_BYTES)  # otherwise that of the main thread
    try:
        import numpy
    except ImportError:
        return None
    return numpy.__version__


def _fork_main(request: dict, handles: list[int], confinement: confine.Confinement, null: int) -> None:
    """In the fork: arrange descriptors, confine, run. Never returns."""
    code, leave = 1, os._exit  # a program may put another function in its place
    try:
        job, stdin, stdout, result = handles
        with open(job, "rb") as file:
            work = json.loads(file.read())
        result = fcntl.fcntl(result, fcntl.F_DUPFD, HIGH)
        for source, target in ((stdin, 0), (stdout, 1), (null, 2), (result, RESULT)):
            os.dup2(source, target)
        if confinement.ruleset is not None:
            os.dup2(confinement.ruleset, RULESET)
        os.closerange(FIRST_FREE if confinement.ruleset is not None else RULESET, 1 << 20)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        ruleset = RULESET if confinement.ruleset is not None else None
        results = programs.Results(RESULT)
        try:
            confinement.apply(request["memory_bytes"], request["cpu_seconds"], ruleset)
        except OSError as error:
            results.send({"status": "error", "error": str(error)})
            raise
        results.send({"ready": ""})
        code = programs.run(work, results)
    finally:
        leave(code)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, its CPUCLOCK_SCHED: exact, where RLIMIT_CPU counts ticks."""
    return time.clock_gettime((~pid << 3) | 2)


def _wait(pid: int, control: socket.socket, request: dict) -> dict:
    """How the fork ended; it is killed at its limits of CPU and wall-clock time, on request, and without a judge."""
    start, stopped = time.monotonic(), None
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        wall_left = start + request["wall_seconds"] - time.monotonic()
        cpu_left = request["cpu_seconds"] - _cpu_seconds(pid)
        left = None if stopped else max(0.0, min(wall_left, cpu_left)) * 1000 + 1
        ready = [fd for fd, _ in poll.poll(left)]
        if handle in ready:
            break
        if ready:
            stopped = "asked" if control.recv(MESSAGE_BYTES) else "gone"
        elif wall_left <= 0 or cpu_left <= 0:
            stopped = "wall" if wall_left <= 0 else "cpu"
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
    _with_deep_stack()
    plan = json.loads(sys.argv[1])
    control = socket.socket(fileno=0)
    null = os.open(os.devnull, os.O_WRONLY)
    readable = [path for path in plan["readable"] if os.path.exists(path)]
    confinement = confine.Confinement(plan["layers"], readable, plan["uid"])
    if confinement.ruleset is not None:
        confinement.ruleset = fcntl.fcntl(confinement.ruleset, fcntl.F_DUPFD, HIGH)
    version = _preload(plan["site_packages"])
    gc.collect()
    gc.freeze()  # forks then share these pages
    hello = {
        "layers": confinement.layers, "landlock_abi": confinement.abi, "identity": confinement.identity,
        "python": sys.version.split()[0], "numpy": version,
    }  # fmt: skip
    control.send(json.dumps(hello).encode())
    while True:
        message, handles, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
        if not message:
            return
        if not handles:
            continue  # a request to stop that came after the end
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            _fork_main(request, handles, confinement, null)
        for handle in handles:
            os.close(handle)
        answer = _wait(pid, control, request)
        if answer["stopped"] == "gone":
            return
        control.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
    with contextlib.suppress(OSError):
        os.rmdir(os.getcwd())  # the judge does it too, unless it was killed
