"""The judge's side of a fork-server: start it, hand it one execution at a time, and read what comes back.

    server = ForkServer(slot, "landlock", ("rlimits", "landlock", "seccomp"))
    result = server.execute(job, "20 22\\n", ceilings, take)

`zygote` is the other side and describes the messages; `confine` draws all three parties. This module trusts nothing
that comes back: it reads raw bytes, parses JSON objects whose values are texts, and checks each of them. An exit status
alone never passes (docs/evaluation.md §3.3).
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1.core.errors import UserError
from tinyr1.sandbox import scratch

ZYGOTE = Path(__file__).with_name("zygote.py")
# The files that the isolated interpreter reads.
INSIDE = ("confine.py", "interpreter.py", "programs.py", "syscalls.py", "zygote.py")
# One thread for each numerical library, since a test has one core. A fixed seed of string hashes gives sets the same
# order in every execution, so that a program does not pass by luck.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
START_SECONDS, GRACE_SECONDS = 60, 10
SPARE_BYTES = 1 << 16  # a program may send this much more than the expected output before it is stopped
SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache",
          "/dev/urandom", "/dev/random", "/dev/zero")  # fmt: skip

ENOUGH = "enough"  # status of an execution that was stopped because its verdict is known
# Receives one record of a fork and returns why to stop the fork ("protocol" or ENOUGH), or "" to go on.
Take = Callable[[dict[str, str]], str]


class SandboxError(UserError):
    """The sandbox itself failed, so nothing is known about the program."""


class Refused(SandboxError):
    """This machine cannot run programs in isolation, so they are not run."""


@dataclass(frozen=True)
class Result:
    """What one execution did.

    status: ok; error (an exception or an exit status); timeout; memory (the exception MemoryError, or the kernel's
    kill); output_limit; crash (a signal); protocol (records that no program that ran to its end sends). The program's
    own word tells only error and memory apart; judge and fork-server observed all else.
    output: standard output, or the JSON of a returned value (see `tinyr1.sandbox.programs.plain`); empty unless ok.
    """

    status: str
    output: str = ""
    error: str = ""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_mb: int = 0


@dataclass(frozen=True)
class Ceilings:
    """What one execution may use. Reaching a ceiling ends it."""

    cpu_seconds: int
    wall_seconds: float
    memory_mb: int
    output_bytes: int


# The upper half of the range is far from the users that a system or a container gives out. The process number spreads
# the judges of one machine, so that two of them rarely give their programs the same user.
def private_uid(slot: int, ranges: str, pid: int) -> int | None:
    """A user id for a slot of process `pid`, in the upper half of the widest range of /proc/self/uid_map.

    None where the ranges hold fewer than 65,536 users, as in a user namespace with a single user.
    """
    rows = [tuple(map(int, line.split())) for line in ranges.splitlines()]
    first, _, size = max(rows, key=lambda row: row[2])
    if size < 1 << 16:
        return None
    return first + size - 8192 - (pid * 128 + slot) % (size // 4)


def site_packages() -> list[str]:
    """Folders of the packages that programs may import."""
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def readable() -> list[str]:
    """The files and folders that a program may read: the interpreter, its packages and the system's libraries."""
    base = Path(sys.base_prefix)
    stdlib = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    paths = [*stdlib, str(base / "lib"), *site_packages(), *SYSTEM]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def bubblewrap(program: str, root: bool) -> list[str]:
    """The words before a command that put it into namespaces where only `readable()` exists, read-only."""
    own = Path(__file__).parent
    bound = [*readable(), os.path.realpath(sys.executable), *(str(own / name) for name in INSIDE)]
    binds = [word for path in bound if not path.startswith("/dev/") for word in ("--ro-bind", path, path)]
    # bubblewrap creates missing parent folders with mode 0700, which a private user could not enter.
    parents = sorted({str(folder) for path in bound for folder in Path(path).parents} - {"/"})
    folders = [word for path in parents for word in ("--perms", "0755", "--dir", path)]
    devices = [p for path in ("/dev/null", *SYSTEM) if path.startswith("/dev/") for p in ("--dev-bind", path, path)]
    names = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
    links = [word for name, fd in names.items() for word in ("--symlink", f"/proc/self/fd{fd}", f"/dev/{name}")]
    # Root needs these three to give every execution to the slot's own user, and to kill it there.
    capabilities = ("SETUID", "SETGID", "KILL") if root else ()
    return [
        program, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        *([] if root else ["--unshare-user"]), "--new-session", "--cap-drop", "ALL",
        *(word for name in capabilities for word in ("--cap-add", f"CAP_{name}")),
        *folders, *binds, *devices, "--proc", "/proc", *links,
        "--perms", "0755", "--dir", "/empty", "--remount-ro", "/", "--chdir", "/empty",
    ]  # fmt: skip


def sealed(name: str, data: bytes) -> int:
    """A descriptor, at its start, of a file in memory that holds `data` and that nobody can change any more."""
    handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.lseek(handle, 0, os.SEEK_SET)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, 0b1111)  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE
    return handle


class ForkServer:
    """One fork-server process and the socket to it.

    slot: number of the Runner, from which root derives a user of its own. kind: bubblewrap, landlock or none. layers:
    what every fork must apply, of rlimits, landlock and seccomp. hello: what the process says of itself (layers,
    landlock_abi, identity, python, numpy). SandboxError if it does not start or the kernel lacks a layer.
    """

    def __init__(self, slot: int, kind: str, layers: Sequence[str]) -> None:
        if not hasattr(os, "memfd_create"):
            raise SandboxError(f"{sys.platform} has neither Landlock nor seccomp")
        root = os.geteuid() == 0
        uid = private_uid(slot, Path("/proc/self/uid_map").read_text(), os.getpid()) if root else None
        plan = {"layers": layers, "readable": readable(), "uid": uid, "site_packages": site_packages()}
        # -S -s -P: no site module, no user packages, and no module from the working folder.
        words = [os.path.realpath(sys.executable), "-S", "-s", "-P", "-B", str(ZYGOTE), json.dumps(plan)]
        if kind == "bubblewrap":
            words = bubblewrap(shutil.which("bwrap") or "bwrap", root) + words
        self.folder = scratch.folder("sandbox")
        # Its forks' working folder: a file that does not exist there must be missing, not forbidden, to any user.
        os.chmod(self.folder.name, 0o755)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A session of its own: Ctrl-C in the terminal reaches the judge only, which then ends the fork-server in order.
        with theirs:
            self.process = subprocess.Popen(
                words, cwd=self.folder.name, env=ENVIRONMENT, stdin=theirs.fileno(), stdout=subprocess.DEVNULL,
                stderr=self._log, start_new_session=True,
            )  # fmt: skip
        try:
            self.hello = self._receive(START_SECONDS)
            if kind == "bubblewrap":
                self.folder.cleanup()  # inside its namespaces it works in an empty folder of its own
            if missing := [layer for layer in layers if layer not in self.hello["layers"]]:
                raise SandboxError(f"this kernel has no {' and no '.join(missing)}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the fork-server and, with it, a fork that still runs."""
        self._control.close()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()
        self.folder.cleanup()

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._control.settimeout(max(0.0, seconds))
        try:
            message = self._control.recv(1 << 16)
        except TimeoutError as error:
            raise SandboxError(f"the fork-server did not answer within {seconds:.0f} s") from error
        if not message:
            self._log.seek(0)
            tail = self._log.read()[-2000:].decode(errors="replace").strip()
            raise SandboxError(f"the fork-server ended: {tail or 'without a message'}")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def execute(self, job: dict[str, Any], text: str, ceilings: Ceilings, take: Take) -> Result:
        """Run one job in one fork, to its end.

        job: code, semantics, func_name, inputs and, for lcb-compat, seconds (see `tinyr1.sandbox.programs`). text:
        standard input. take: called in this process with each record of results. SandboxError if the sandbox failed.
        """
        request = {
            "memory_bytes": ceilings.memory_mb << 20, "cpu_seconds": ceilings.cpu_seconds,
            "wall_seconds": ceilings.wall_seconds,
        }  # fmt: skip
        with contextlib.ExitStack() as stack:
            # Files in memory instead of pipes: an input above 64 KiB would block whoever writes it into a pipe.
            handles = [sealed("job", json.dumps(job).encode()), sealed("stdin", text.encode(errors="surrogatepass"))]
            (output, output_write), (results, results_write) = os.pipe(), os.pipe()
            stack.callback(os.close, output)
            stack.callback(os.close, results)
            handles += [output_write, results_write]
            os.fchmod(output_write, 0o666)  # a program of another user may open it once more, as /dev/stdout
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], handles)
            finally:
                for handle in handles:
                    os.close(handle)
            return self._collect(output, results, ceilings, take, job.get("seconds"))

    def _collect(self, output: int, results: int, ceilings: Ceilings, take: Take, alarm: int | None) -> Result:
        """Read both pipes and the fork-server's answer to their end; stop a fork that sends too much or wrong data."""
        # The fork-server keeps the limits. The judge waits a little longer and then gives the fork-server up.
        deadline = time.monotonic() + ceilings.wall_seconds + GRACE_SECONDS
        printed, records, control = bytearray(), _Records(take), self._control.fileno()
        answer: dict[str, Any] = {}
        stopped = ""
        poll, waiting = select.poll(), {output, results, control}
        for handle in waiting:
            poll.register(handle, select.POLLIN)
        while waiting:
            ready = [handle for handle, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
            if not ready:
                raise SandboxError("the fork-server did not stop a program at its wall-clock limit")
            for handle in ready:
                chunk = b""
                if handle == control:
                    answer = self._receive(GRACE_SECONDS)
                else:
                    chunk = os.read(handle, 1 << 16)
                if not chunk:
                    waiting.discard(handle)
                    poll.unregister(handle)
                elif not stopped:  # what a stopped fork still sends is read, so that it can end, and thrown away
                    stopped = records.feed(chunk) if handle == results else ""
                    printed += chunk if handle == output else b""
                    if max(len(printed), records.size) > ceilings.output_bytes + SPARE_BYTES:
                        stopped = "output_limit"
                    if stopped and not answer:
                        self._control.send(b"stop")
        if not records.ready:
            raise SandboxError(f"a fork could not be confined: {records.failure or answer}")
        return _result(answer, stopped, bytes(printed), records, ceilings, alarm)


class _Records:
    """The records of one fork: first {"ready"}, then results, and at the end at most one {"error"}, its failure."""

    def __init__(self, take: Take) -> None:
        self.ready, self.size = False, 0
        self.failure: str | None = None
        self._take, self._buffer = take, bytearray()

    def feed(self, chunk: bytes) -> str:
        """Take bytes from the pipe; return why to stop the fork, or ""."""
        self.size += len(chunk)
        self._buffer += chunk
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < end:
                return ""
            record = _parsed(bytes(self._buffer[4:end]))
            del self._buffer[:end]
            if stop := self._accept(record):
                return stop
        return ""

    def _accept(self, record: dict[str, str] | None) -> str:
        # A failure is the last thing that an honest fork sends.
        if record is None or self.failure is not None:
            return "protocol"
        if not self.ready and set(record) == {"ready"}:
            self.ready = True
            return ""
        if set(record) == {"error"}:
            self.failure = record["error"]
            return ""
        return self._take(record) if self.ready else "protocol"

    @property
    def complete(self) -> bool:
        return not self._buffer


def _parsed(data: bytes) -> dict[str, str] | None:
    """A record, which is a JSON object whose values are texts, or None for anything else that a program may send."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    texts = type(record) is dict and all(type(value) is str for value in record.values())
    return record if texts else None


def _result(
    answer: dict[str, Any], stopped: str, printed: bytes, records: _Records, ceilings: Ceilings, alarm: int | None
) -> Result:
    """The result of an execution, from how the fork ended and from its records.

    alarm: the seconds of wall clock after which lcb-compat ends a test by an exception inside the program.
    """
    cpu, killed, failure = answer["cpu_seconds"], answer["signal"], records.failure
    # What the judge and the fork-server saw comes before what the fork says of itself.
    error = ""
    if stopped:
        status = stopped
    elif answer["stopped"] or cpu >= ceilings.cpu_seconds:
        status = "timeout"
    elif killed:
        # Within its time only the kernel, when it runs out of memory, or a person sends SIGKILL.
        status, error = "memory" if killed == signal.SIGKILL else "crash", signal.Signals(killed).name
    elif failure is not None:
        # A fork that reports an exception ends with exit status 1 at once; a program that forged the report went on.
        rung = alarm is not None and answer["wall_seconds"] >= alarm
        status, error = _kind(failure, rung) if answer["exit"] == 1 else "protocol", failure
    elif answer["exit"] or not records.complete:
        status, error = ("error", f"exit status {answer['exit']}") if answer["exit"] else ("protocol", "half a record")
    else:
        status = "ok"
    output = printed.decode(errors="replace") if status == "ok" else ""
    return Result(status, output, error, cpu, answer["wall_seconds"], answer["memory_mb"])


def _kind(failure: str, rung: bool) -> str:
    """The status for an exception, "<class>: <text>". rung: whether enough time passed for the alarm of lcb-compat."""
    name = failure.partition(":")[0]
    if rung and "timeoutexception" in name.lower():
        return "timeout"
    return "memory" if name.endswith("MemoryError") else "error"
