"""What a process gives up before it runs a generated program (evaluation.md §3.2): identity, limits, files, calls.

The fork-server makes one `Confinement` at its start, where rules and filter are built; each fork applies it in well
under a millisecond. Standard library only: the file is read by an isolated interpreter with an empty environment.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import syscalls

LAYERS = ("rlimits", "landlock", "seccomp")
STACK_BYTES = 512 << 20  # room for 50,000 nested calls, through C as well
SPARE_BYTES = 64 << 20  # above the memory limit, for reporting that it was reached
PRIVATE_TASKS, SHARED_TASKS = 64, 256  # threads of a program: of a user of its own; beside those of a person
WRITABLE = "/dev/null"

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 8, 22, 38
_CAPABILITY_VERSION, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 0x20080522, 1, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _ALL_OF_ABI_1 = 1 << 1, 1 << 2, 1 << 3, 1 << 14, (1 << 13) - 1
_SINCE = ((2, 1 << 13), (3, _TRUNCATE), (5, 1 << 15))  # (ABI, right it added): refer, truncate, device ioctl
_LIBC = ctypes.CDLL(None, use_errno=True)


def _checked(value: int, what: str) -> int:
    if value < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return value


def _prctl(option: int, *arguments: object) -> None:
    padded = [*arguments, *[0] * (4 - len(arguments))]
    _checked(_LIBC.prctl(option, *padded), f"prctl({option})")


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    return max(0, _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def _ruleset(abi: int, readable: list[str]) -> int:
    """A Landlock ruleset: everything is denied but reading these files and folders, and writing to /dev/null."""
    handled = _ALL_OF_ABI_1 | sum(right for since, right in _SINCE if abi >= since)
    network, scoped = (0b11 if abi >= 4 else 0), (0b11 if abi >= 6 else 0)  # TCP; abstract sockets and signals
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("QQQ", handled, network, scoped)
    ruleset = _checked(_LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "landlock_create_ruleset")
    for path in (*readable, WRITABLE):
        rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
        if path == WRITABLE:
            rights |= (_WRITE_FILE | _TRUNCATE) & handled
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, handle)
        _checked(_LIBC.syscall(_ADD_RULE, ruleset, 1, rule, 0), f"landlock_add_rule({path})")
        os.close(handle)
    return ruleset


def _keep_capabilities(kept: int) -> None:
    """Permitted and effective capabilities become `kept`, a bit mask; nothing is inheritable."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _checked(_LIBC.capset(header, struct.pack("6I", kept, kept, 0, 0, 0, 0)), "capset")


def _private(capabilities: int, uid: int) -> None:
    """Become a user that owns nothing, with these capabilities (a bit mask) and no others."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setresuid(uid, uid, uid)
    _keep_capabilities(capabilities)


def _own(_: int) -> None:
    _keep_capabilities(0)


# By preference. The capabilities are for an interpreter in a private folder; Landlock still decides what is opened.
IDENTITIES = {
    "private user": partial(_private, 0),
    "private user with CAP_DAC_READ_SEARCH": partial(_private, 1 << _CAP_DAC_READ_SEARCH),
    "private user with CAP_DAC_OVERRIDE": partial(_private, 1 << _CAP_DAC_OVERRIDE),
}


def _works(become: Callable[[int], None], uid: int, paths: list[str]) -> bool:
    """Whether a process that takes this identity can still read the interpreter; tried in a fork."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(OSError):
            become(uid)
            for path in paths:
                if os.path.isdir(path):
                    os.listdir(path)
            Path(os.__file__).read_bytes()
            code = 0
        os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def _tasks_of_this_user() -> int:
    """Threads that count against the user's RLIMIT_NPROC already."""
    count, uid = 0, os.getuid()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # a process that ends meanwhile
            if entry.stat().st_uid == uid:
                count += len(os.listdir(entry / "task"))
    return count


class Confinement:
    """layers: some of LAYERS; readable: existing files and folders; uid: a user of the slot's own, if root."""

    def __init__(self, layers: list[str], readable: list[str], uid: int | None) -> None:
        self.layers, self.uid = [layer for layer in LAYERS if layer in layers], uid or 0
        self.abi = landlock_abi() if "landlock" in self.layers else 0
        if not self.abi and "landlock" in self.layers:
            self.layers.remove("landlock")
        self.ruleset = _ruleset(self.abi, readable) if self.abi else None
        self.filter = syscalls.filter_program(platform.machine(), self.abi >= 3) if "seccomp" in layers else b""
        self.identity, self.become = "own user, no capabilities", _own
        if not self.layers:
            self.identity, self.become = "unchanged", lambda _: None
        elif uid is not None:
            for name, become in IDENTITIES.items():
                if _works(become, uid, readable):
                    self.identity, self.become = name, become
                    break
        self.tasks = SHARED_TASKS + _tasks_of_this_user() if self.become is _own else PRIVATE_TASKS
        self._buffer = ctypes.create_string_buffer(self.filter, max(1, len(self.filter)))
        steps = len(self.filter) // 8
        self._fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", steps, ctypes.addressof(self._buffer)))

    def apply(self, memory_bytes: int, cpu_seconds: int, ruleset: int | None) -> None:
        """Confine the calling process for good. ruleset: where the descriptor of the ruleset is; closed here."""
        self.become(self.uid)
        if "rlimits" in self.layers:
            self._limit(memory_bytes, cpu_seconds)
        if self.layers:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it, so after that
            _prctl(_PR_SET_DUMPABLE, 0)
            _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if ruleset is not None:
            _checked(_LIBC.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
            os.close(ruleset)
        if self.filter:
            _prctl(_PR_SET_SECCOMP, 2, ctypes.byref(self._fprog))

    def _limit(self, memory_bytes: int, cpu_seconds: int) -> None:
        limits = {
            resource.RLIMIT_CPU: (cpu_seconds + 1, cpu_seconds + 1), resource.RLIMIT_FSIZE: (0, 0),
            resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: (64, 64), resource.RLIMIT_MEMLOCK: (0, 0),
            resource.RLIMIT_MSGQUEUE: (0, 0), resource.RLIMIT_NPROC: (self.tasks, self.tasks),
            resource.RLIMIT_AS: (memory_bytes, memory_bytes + SPARE_BYTES),
        }  # fmt: skip
        for kind, (soft, hard) in limits.items():
            ceiling = resource.getrlimit(kind)[1]
            below = ceiling != resource.RLIM_INFINITY and ceiling < hard
            resource.setrlimit(kind, (min(soft, ceiling), ceiling) if below else (soft, hard))
