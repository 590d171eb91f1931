"""Runs generated programs outside this process, isolated (evaluation.md §3).

Three parties: the judge (this process; it has the expected outputs and never runs a program), a fork-server of its own
for each `Runner` (a fresh interpreter without environment and data) and one confined fork for each execution. A fork
may read the interpreter and its libraries and nothing else; it writes no file, opens no socket, starts no process,
signals nobody; CPU time, memory, output, threads and open files are limited.

Layers: `landlock` is Landlock, seccomp, resource limits and, for root, a user of its own for each Runner; `bubblewrap`
puts namespaces around the fork-server as well. Before a Runner is used, and after any restart of its fork-server,
PROBES try to break out; one that succeeds, or anything that is missing, ends in `Refused`. What remains is that kernel
and hardware are shared with the programs.
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
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tinyr1.core.config import Sandbox
from tinyr1.core.errors import UserError
from tinyr1.sandbox import scratch

OUTPUT_BYTES, MOST_OUTPUT_BYTES = 1 << 20, 64 << 20
SOURCE_BYTES = 1 << 20
RECORD_SPARE_BYTES = 1 << 16
CONFIRMATION = "TINYR1_RUN_UNCONFINED"
CONFIRMED = "generated programs may read and change everything I can"
ZYGOTE = Path(__file__).with_name("zygote.py")
INSIDE = ("confine.py", "programs.py", "syscalls.py", "zygote.py")  # the files that the isolated interpreter runs
# One thread for each library; string hashes, and so the order of sets, the same every time.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
START_SECONDS, GRACE_SECONDS = 60, 10
SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache",
          "/dev/urandom", "/dev/random", "/dev/zero")  # fmt: skip

# Each ends without an exception only if the fork could do what it must not; {folder} is open to everybody.
PROBES = {
    "fork": "import os\nif os.fork() == 0: os._exit(0)",
    "execve": "import os\nos.execv('/proc/self/exe', ['python', '-c', ''])",
    "tcp socket": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "udp socket": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "read a file": "open({folder!r} + '/canary').read()",
    "write a file": "open({folder!r} + '/written', 'w').write('x')",
    "read /proc": "open('/proc/self/environ', 'rb').read()",
    "list /proc": "import os\nos.listdir('/proc')",
    "signal the fork-server": "import os\nos.kill(os.getppid(), 0)",
    "trace the fork-server": "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "if libc.ptrace(16, os.getppid(), 0, 0): raise OSError(ctypes.get_errno(), 'ptrace')",
}
REFUSALS = ("PermissionError", "FileNotFoundError")  # the second where namespaces hide the file


ENOUGH = "enough"  # status of an execution stopped because its verdict is known
LAYERS = ("rlimits", "landlock", "seccomp")
REMEDIES = (
    "What is needed: Linux 5.13 or newer on x86_64 or aarch64, `landlock` in /sys/kernel/security/lsm, and a container "
    "that allows the calls landlock_* and seccomp (Docker's default profile does). bubblewrap, where installed, adds "
    "namespaces"
)

# Takes a record of a fork; why to stop the fork ("protocol", ENOUGH), or "".
Take = Callable[[dict], str]


class SandboxError(UserError):
    """The sandbox itself failed: nothing is known about the program."""


class Refused(SandboxError):
    """Programs cannot be run in isolation here, and so are not run."""


@dataclass(frozen=True)
class Result:
    """What one execution did.

    status: ok, error (exception or exit status), timeout, memory, output_limit, crash (signal) or protocol (what came
    back is not what a program that ran to its end sends). output: standard output, or the JSON of a returned value
    (see sandbox.programs.plain); empty unless ok.
    """

    status: str
    output: str = ""
    error: str = ""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_mb: int = 0


@dataclass(frozen=True)
class _Ceilings:
    cpu_seconds: int
    wall_seconds: float
    memory_mb: int
    output_bytes: int


class _Turns:
    """Executions run side by side, except one that asked to be alone in this process."""

    def __init__(self) -> None:
        self._changed, self._running, self._alone = threading.Condition(), 0, False

    @contextlib.contextmanager
    def take(self, alone: bool) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            if alone:
                self._alone = True
                self._changed.wait_for(lambda: not self._running)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = self._alone and not alone
                self._changed.notify_all()


_TURNS = _Turns()
_SLOTS: set[int] = set()
_SLOTS_LOCK = threading.Lock()


def _take_slot() -> int:
    with _SLOTS_LOCK:
        slot = next(i for i in range(len(_SLOTS) + 1) if i not in _SLOTS)
        _SLOTS.add(slot)
        return slot


def private_uid(slot: int, ranges: str, pid: int) -> int | None:
    """A user id for a slot of process `pid`, in the upper half of the widest range of /proc/self/uid_map.

    None where the ranges hold too few users for that, as in a user namespace of one.
    """
    first, _, size = max((tuple(map(int, line.split())) for line in ranges.splitlines()), key=lambda r: r[2])
    if size < 1 << 16:
        return None
    return first + size - 8192 - (pid * 128 + slot) % (size // 4)


def site_packages() -> list[str]:
    """Folders of the packages that programs may import."""
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def readable() -> list[str]:
    """What a program may read: the interpreter, its libraries, packages, and the system's libraries."""
    base = Path(sys.base_prefix)
    stdlib = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    paths = [*stdlib, str(base / "lib"), *site_packages(), *SYSTEM]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def bubblewrap(program: str, root: bool) -> list[str]:
    """The words that put a command into namespaces where only `readable()` exists, read-only."""
    own = Path(__file__).parent
    bound = [*readable(), os.path.realpath(sys.executable), *(str(own / name) for name in INSIDE)]
    binds = [word for path in bound if not path.startswith("/dev/") for word in ("--ro-bind", path, path)]
    parents = sorted({str(folder) for path in bound for folder in Path(path).parents} - {"/"})
    folders = [word for path in parents for word in ("--perms", "0755", "--dir", path)]  # 0700 otherwise
    devices = [p for path in ("/dev/null", *SYSTEM) if path.startswith("/dev/") for p in ("--dev-bind", path, path)]
    kept = ("SETUID", "SETGID", "KILL") if root else ()  # to give every execution to a user of the slot's own
    return [
        program, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        *([] if root else ["--unshare-user"]), "--new-session", "--cap-drop", "ALL",
        *(word for name in kept for word in ("--cap-add", f"CAP_{name}")),
        *folders, *binds, *devices, "--proc", "/proc", "--symlink", "/proc/self/fd/0", "/dev/stdin",
        "--perms", "0755", "--dir", "/empty", "--remount-ro", "/", "--chdir", "/empty",
    ]  # fmt: skip


def sealed(name: str, data: bytes) -> int:
    """A descriptor of a file in memory that holds `data`, at its start, which nobody can change."""
    handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.lseek(handle, 0, os.SEEK_SET)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, 0b1111)  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE
    return handle


class Runner:
    """A slot in which programs run one after another; use as a context manager, one for each thread.

    with Runner(cfg.params.evaluate.sandbox) as runner:
        runner.run("print(int(input()) + 1)", "1\\n").output
    """

    def __init__(self, limits: Sandbox) -> None:
        self.limits = limits
        self._zygote: _Zygote | None = None

    def __enter__(self) -> "Runner":
        self._slot = _take_slot()
        scratch.sweep()
        try:
            self._start()
        except BaseException:  # an interrupt too: the slot and the fork-server go back
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        with _SLOTS_LOCK:
            _SLOTS.discard(self._slot)

    def description(self) -> dict:
        """What isolates the programs, for the record: isolation, layers, Landlock ABI, identity, probes, limits."""
        return {
            "isolation": self._isolation, **self._hello, "probes": self._probes,
            "semantics": self.limits.semantics, "cpu_seconds": self.limits.cpu_seconds,
            "memory_mb": self.limits.memory_mb,
        }  # fmt: skip

    def run(
        self, code: str, text: str, func_name: str = "", output_bytes: int = OUTPUT_BYTES, alone: bool = False
    ) -> Result:
        """Run a program once, in a process of its own, semantics `real`.

        text: standard input, or one JSON argument a line if func_name is given. alone: while no other Runner of this
        process executes anything. SandboxError if the sandbox failed; the next call starts it anew.
        """
        cpu = self.limits.cpu_seconds
        job = {"code": code, "semantics": "real", "func_name": func_name, "inputs": [text] if func_name else []}
        ceilings = _Ceilings(cpu, 3 * cpu + 2, self.limits.memory_mb, output_bytes)
        values: list[str] = []

        def take(record: dict) -> str:
            values.append(record.get("value", ""))
            return "" if func_name and set(record) == {"value"} and len(values) == 1 else "protocol"

        ended = self._execute(job, "" if func_name else text, ceilings, take, alone)
        if not func_name or ended.status != "ok":
            return ended
        if not values:
            return replace(ended, status="error", error="the program ended before its function returned")
        return replace(ended, output=values[0])

    def run_all(
        self, code: str, inputs: list[str], func_name: str, accept: Callable[[int, str], bool],
        output_bytes: int = OUTPUT_BYTES, alone: bool = False,
    ) -> list[Result]:  # fmt: skip
        """Run a program on the inputs one after another in one process, semantics `lcb-compat`.

        accept(i, output): whether to go on after test i; asked in this process. The results end with the first that
        is not ok or not accepted. Here cpu_seconds is each test's wall-clock alarm, as in the official runner.
        """
        seconds = self.limits.cpu_seconds
        job = {"code": code, "semantics": "lcb-compat", "func_name": func_name, "inputs": inputs, "seconds": seconds}
        wall = (seconds + 1) * len(inputs) + 5
        results: list[Result] = []

        def take(record: dict) -> str:
            if set(record) != {"value" if func_name else "stdout"} or len(results) == len(inputs):
                return "protocol"
            (output,) = record.values()
            results.append(Result("ok", output))
            return "" if accept(len(results) - 1, output) else ENOUGH

        ended = self._execute(job, "", _Ceilings(wall, wall, self.limits.memory_mb, output_bytes), take, alone)
        if ended.status == ENOUGH or (ended.status == "ok" and len(results) == len(inputs)):
            return results
        if ended.status == "ok":
            ended = replace(ended, status="error", error="the program ended before its last test")
        return [*results, replace(ended, output="")]

    def _execute(self, job: dict, text: str, ceilings: _Ceilings, take: Take, alone: bool = False) -> Result:
        """One fork, to its end. A fork-server that failed or was lied to is replaced before the next."""
        if len(job["code"]) > SOURCE_BYTES:
            return Result("error", error=f"the program has more than {SOURCE_BYTES} characters")
        with _TURNS.take(alone):
            if self._zygote is None:
                self._start()
            try:
                result = self._zygote.execute(job, text, ceilings, take)
            except (SandboxError, OSError) as error:
                self._stop()
                raise SandboxError(f"the sandbox failed: {error}") from error
            except BaseException:  # an interrupt: the answer to this request must not be taken for that to the next
                self._stop()
                raise
            if result.status == "protocol":
                self._stop()
        return result

    def _stop(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _start(self) -> None:
        """Start and test the fork-server, in the strongest isolation that works here and the parameters allow."""
        if self.limits.isolation == "none":
            _confirm_no_isolation()
            self._isolation, self._probes = "none", {}
            self._zygote = _Zygote(self._slot, "none", ("rlimits",))
            self._hello = self._zygote.hello
            return
        kinds = ("bubblewrap", "landlock") if self.limits.isolation == "auto" else (self.limits.isolation,)
        kinds = [kind for kind in kinds if kind != "bubblewrap" or shutil.which("bwrap")]
        problems = [] if kinds else ["bubblewrap: there is no program bwrap"]
        for kind in kinds:
            try:
                zygote = _Zygote(self._slot, kind, LAYERS)
            except (SandboxError, OSError) as error:
                problems.append(f"{kind}: {error}")
                continue
            try:
                self._probes = probe(zygote, self.limits)
            except BaseException:
                zygote.close()
                raise
            self._isolation, self._zygote, self._hello = kind, zygote, zygote.hello
            return
        raise Refused(f"generated programs are not run without isolation. {'; '.join(problems)}. {REMEDIES}")


def _confirm_no_isolation() -> None:
    """Two acts are needed to run programs unconfined, and root may not at all."""
    if os.geteuid() == 0:
        raise Refused("evaluate.sandbox.isolation: none is never allowed as root; run as an ordinary user")
    if os.environ.get(CONFIRMATION) != CONFIRMED:
        raise Refused(
            f"evaluate.sandbox.isolation: none runs generated programs with your rights. To confirm, also set the "
            f"environment variable {CONFIRMATION} to {CONFIRMED!r}"
        )


class _Zygote:
    """One fork-server process and the socket to it."""

    def __init__(self, slot: int, kind: str, layers: tuple[str, ...]) -> None:
        if not hasattr(os, "memfd_create"):
            raise SandboxError(f"{sys.platform} has neither Landlock nor seccomp")
        root = os.geteuid() == 0
        uid = private_uid(slot, Path("/proc/self/uid_map").read_text(), os.getpid()) if root else None
        plan = {"layers": layers, "readable": readable(), "uid": uid, "site_packages": site_packages()}
        words = [os.path.realpath(sys.executable), "-S", "-s", "-P", "-B", str(ZYGOTE), json.dumps(plan)]
        if kind == "bubblewrap":
            words = bubblewrap(shutil.which("bwrap"), root) + words
        self._folder = scratch.folder("sandbox")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                words, cwd=self._folder.name, env=ENVIRONMENT, stdin=theirs, stdout=subprocess.DEVNULL,
                stderr=self._log, start_new_session=True,
            )  # fmt: skip
        try:
            self.hello = self._receive(START_SECONDS)
            if kind == "bubblewrap":
                self._folder.cleanup()  # it has an empty folder of its own
            if missing := [layer for layer in layers if layer not in self.hello["layers"]]:
                raise SandboxError(f"this kernel has no {' and no '.join(missing)}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the fork-server and, with it, a fork that still runs."""
        self._control.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def _receive(self, seconds: float) -> dict:
        self._control.settimeout(max(0.0, seconds))
        try:
            message = self._control.recv(1 << 16)
        except TimeoutError as error:
            raise SandboxError(f"the fork-server did not answer within {seconds:.0f} s") from error
        if not message:
            raise SandboxError(f"the fork-server ended: {self._tail()}")
        return json.loads(message)

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace").strip() or "without a message"

    def execute(self, job: dict, text: str, ceilings: _Ceilings, take: Take) -> Result:
        """One fork, to its end."""
        request = {
            "memory_bytes": ceilings.memory_mb << 20, "cpu_seconds": ceilings.cpu_seconds,
            "wall_seconds": ceilings.wall_seconds,
        }  # fmt: skip
        with contextlib.ExitStack() as stack:
            handles = [sealed("job", json.dumps(job).encode()), sealed("stdin", text.encode(errors="surrogatepass"))]
            (output, output_write), (results, results_write) = os.pipe(), os.pipe()
            stack.callback(os.close, output)
            stack.callback(os.close, results)
            handles += [output_write, results_write]
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], handles)
            finally:
                for handle in handles:
                    os.close(handle)
            return self._collect(output, results, ceilings, take)

    def _collect(self, output: int, results: int, ceilings: _Ceilings, take: Take) -> Result:
        """Read both pipes and the fork-server's answer to their end; stop a fork that says too much or wrong things."""
        deadline = time.monotonic() + ceilings.wall_seconds + GRACE_SECONDS
        printed, records = bytearray(), _Records(take)
        answer, stopped = None, ""
        poll, waiting = select.poll(), {output, results, self._control.fileno()}
        for handle in waiting:
            poll.register(handle, select.POLLIN)
        while waiting:
            ready = [handle for handle, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
            if not ready:
                raise SandboxError("the fork-server did not stop a program at its wall-clock limit")
            for handle in ready:
                if handle == self._control.fileno():
                    answer = chunk = self._receive(GRACE_SECONDS)
                else:
                    chunk = os.read(handle, 1 << 16)
                if chunk is answer or not chunk:
                    waiting.discard(handle)
                    poll.unregister(handle)
                elif not stopped:
                    stopped = records.feed(chunk) if handle == results else ""
                    printed += chunk if handle == output else b""
                    if max(len(printed), records.size) > ceilings.output_bytes + RECORD_SPARE_BYTES:
                        stopped = "output_limit"
                    if stopped and answer is None:
                        self._control.send(b"stop")
        if not records.ready:
            raise SandboxError(f"a fork could not be confined: {records.failure or answer}")
        return _judged(answer, stopped, bytes(printed), records, ceilings)


class _Records:
    """What a fork sends beside its standard output: first {"ready"}, then results, at most one failure at the end."""

    def __init__(self, take: Take) -> None:
        self.ready, self.failure, self.size = False, None, 0
        self._take, self._buffer = take, bytearray()

    def feed(self, chunk: bytes) -> str:
        """Why to stop the fork, or ""."""
        self.size += len(chunk)
        self._buffer += chunk
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < end:
                return ""
            record = _record(bytes(self._buffer[4:end]))
            del self._buffer[:end]
            if stop := self._accept(record):
                return stop
        return ""

    def _accept(self, record: dict | None) -> str:
        if record is None or self.failure is not None:
            return "protocol"
        if not self.ready and set(record) == {"ready"}:
            self.ready = True
            return ""
        if set(record) == {"status", "error"}:
            self.failure = record
            return "" if record["status"] in ("error", "memory", "timeout") else "protocol"
        return self._take(record) if self.ready else "protocol"

    @property
    def complete(self) -> bool:
        return not self._buffer


def _record(data: bytes) -> dict | None:
    """A record, which is an object of texts; None if it is anything else, as a program may send."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    texts = type(record) is dict and all(type(value) is str for value in record.values())
    return record if texts else None


def _judged(answer: dict, stopped: str, printed: bytes, records: _Records, ceilings: _Ceilings) -> Result:
    """The status of an execution from how the fork ended and what it sent."""
    cpu, killed, failure = answer["cpu_seconds"], answer["signal"], records.failure
    error = ""
    if stopped:
        status = stopped
    elif answer["stopped"] or cpu >= ceilings.cpu_seconds:
        status = "timeout"
    elif failure:
        status, error = failure["status"], failure["error"]
    elif killed:
        status, error = "memory" if killed == signal.SIGKILL else "crash", signal.Signals(killed).name
    elif answer["exit"] or not records.complete:
        status, error = ("error", f"exit status {answer['exit']}") if answer["exit"] else ("protocol", "half a record")
    else:
        status = "ok"
    output = printed.decode(errors="replace") if status == "ok" else ""
    return Result(status, output, error, cpu, answer["wall_seconds"], answer["memory_mb"])


def probe(zygote: "_Zygote", limits: Sandbox) -> dict[str, str]:
    """What became of each attempt to break out, by name; Refused if one succeeded or an ordinary program failed."""
    ceilings = _Ceilings(limits.cpu_seconds, 10.0, limits.memory_mb, RECORD_SPARE_BYTES)

    def attempt(code: str, ceilings: _Ceilings = ceilings) -> Result:
        job = {"code": code, "semantics": "real", "func_name": "", "inputs": []}
        return zygote.execute(job, "1\n2\n", ceilings, lambda _: "protocol")

    seen = {}
    with scratch.folder("canary") as folder:
        os.chmod(folder, 0o777)  # nothing but the sandbox protects what is in it
        canary = Path(folder, "canary")
        canary.write_text("canary")
        canary.chmod(0o644)
        for name, code in PROBES.items():
            result = attempt(code.format(folder=folder))
            seen[name] = result.error.partition(":")[0] if result.status == "error" else result.status
        left = sorted(os.listdir(folder))
    escaped = [name for name, what in seen.items() if what not in REFUSALS]
    limited = {
        "memory": (attempt(f"bytearray({limits.memory_mb + 128} << 20)"), "memory"),
        "time": (attempt("import time\ntime.sleep(600)", replace(ceilings, wall_seconds=0.1)), "timeout"),
        "output": (attempt("while True: print('x' * 9999)"), "output_limit"),
        "raise a limit": (attempt("import resource as r\nr.setrlimit(r.RLIMIT_CPU, (9999, 9999))"), "error"),
    }
    seen |= {name: result.status for name, (result, _) in limited.items()}
    escaped += [name for name, (result, due) in limited.items() if result.status != due]
    if escaped or left != ["canary"]:
        raise Refused(f"a test program could: {', '.join(escaped) or 'leave files'} ({seen}). {REMEDIES}")
    control = attempt("import fractions\nprint(sum(map(int, sys.stdin)))")
    if control.output != "3\n":
        raise Refused(f"an ordinary program does not run in the sandbox: {control.error or control.status}. {REMEDIES}")
    return seen
