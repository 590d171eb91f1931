"""What a process gives up before it runs a generated program: identity, limits, files, system calls.

A generated program may be hostile, so another process decides whether it is right. There are three parties
(docs/evaluation.md §3.1). The judge knows the expected outputs and runs no generated code. The fork-server is a fresh
interpreter that forks quickly and knows nothing. A fork runs one program, after it has given up everything else.

      judge  (runner, forkserver)          fork-server  (zygote)             fork  (programs)
      holds expected outputs, data,        holds the imported prelude;       holds one program and its
      environment, files                   environment of 4 variables        input, then ends
      ─────────────────────────────        ────────────────────────          ──────────────────────────
      program, input ───────────── sealed files in memory, passed on ──────▶ reads them
      limits ───────── socket ───────────▶ forks ──────────────────────────▶ Confinement.apply(),
                                           waits; kills at the limits         runs the program
      how it ended ◀── socket ──────────── reports
      compares, decides ◀───────── two pipes: standard output, records ───── writes them
      ─────────────────────────────        ────────────────────────          ──────────────────────────
      may do everything                    may fork, kill its fork, and       may compute, start threads, read
                                           become its slot's own user         libraries and write to its pipes

The fork-server makes one `Confinement` when it starts and builds Landlock rules and seccomp filter there; each fork
applies them in well under a millisecond (docs/evaluation.md §3.2 lists the steps). This file uses the standard library
only, since an isolated interpreter with an empty environment reads it.
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
STACK_BYTES = 512 << 20  # room for 50,000 nested calls, also of functions written in C
SPARE_BYTES = 64 << 20  # added to the memory limit, so that a program that reached it can still report it
PRIVATE_TASKS, SHARED_TASKS = 64, 256  # threads of a program: with a user of its own; with a user that others share
WRITABLE = "/dev/null"

# Python's standard library has no names for the following. They are the kernel's, from its headers linux/prctl.h,
# linux/capability.h and linux/landlock.h; the Landlock calls have the same numbers on every architecture.
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 8, 22, 38
_CAPABILITY_VERSION, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 0x20080522, 1, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _ALL_OF_ABI_1 = 1 << 1, 1 << 2, 1 << 3, 1 << 14, (1 << 13) - 1
_SINCE = ((2, 1 << 13), (3, _TRUNCATE), (5, 1 << 15))  # (ABI, the right that it added): refer, truncate, device ioctl
_LIBC = ctypes.CDLL(None, use_errno=True)


def _checked(value: int, what: str) -> int:
    """The value of a call, or OSError with the kernel's reason where it is negative."""
    if value < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return value


def _prctl(option: int, *arguments: object) -> None:
    # The kernel refuses some options unless the arguments they do not use are zero.
    padded = [*arguments, *[0] * (4 - len(arguments))]
    _checked(_LIBC.prctl(option, *padded), f"prctl({option})")


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def _ruleset(abi: int, readable: list[str]) -> int:
    """A Landlock ruleset that denies everything but reading these files and folders, and writing to /dev/null."""
    # A kernel refuses a ruleset with rights, or with a size, that it does not know yet.
    handled = _ALL_OF_ABI_1 | sum(right for since, right in _SINCE if abi >= since)
    network, scoped = (0b11 if abi >= 4 else 0), (0b11 if abi >= 6 else 0)  # TCP; abstract sockets and signals
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("QQQ", handled, network, scoped)
    ruleset = _checked(_LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "landlock_create_ruleset")
    # A rule holds for the file or folder that was opened, whatever becomes of its path later.
    for path in (*readable, WRITABLE):
        rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
        if path == WRITABLE:
            rights |= (_WRITE_FILE | _TRUNCATE) & handled
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, handle)
        _checked(_LIBC.syscall(_ADD_RULE, ruleset, 1, rule, 0), f"landlock_add_rule({path})")
        os.close(handle)
    return ruleset


def _set_capabilities(mask: int) -> None:
    """Make `mask` the permitted and effective capabilities, and no capability inheritable."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _checked(_LIBC.capset(header, struct.pack("6I", mask, mask, 0, 0, 0, 0)), "capset")


def _become_private(capabilities: int, uid: int) -> None:
    """Become a user that owns nothing, with these capabilities (a bit mask) and no others."""
    # The groups go first: once the user has changed, they can no longer be given up.
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    # Without this the kernel drops all capabilities with the change of user, and capset could not keep one.
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setresuid(uid, uid, uid)
    _set_capabilities(capabilities)


def _stay_without_capabilities(_: int) -> None:
    _set_capabilities(0)


# By preference. An interpreter in a private folder, such as root's home, can only be read with a capability. Landlock
# still decides which files are opened: capabilities do not lift its rules.
IDENTITIES = {
    "private user": partial(_become_private, 0),
    "private user with CAP_DAC_READ_SEARCH": partial(_become_private, 1 << _CAP_DAC_READ_SEARCH),
    "private user with CAP_DAC_OVERRIDE": partial(_become_private, 1 << _CAP_DAC_OVERRIDE),
}


def _works(become: Callable[[int], None], uid: int, paths: list[str]) -> bool:
    """Whether a process that takes this identity can still read the interpreter."""
    # A fork tries it, since there is no way back from another user.
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
    """The number of threads that count against this user's RLIMIT_NPROC already."""
    count, uid = 0, os.getuid()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process ended meanwhile
            if entry.stat().st_uid == uid:
                count += len(os.listdir(entry / "task"))
    return count


class Confinement:
    """All that forks give up, prepared once.

    layers: some of LAYERS. readable: existing files and folders. uid: the user for the forks, if this process is root.
    Afterwards `layers` holds those that this kernel has, `abi` the Landlock version, `identity` the name of the user.
    """

    def __init__(self, layers: list[str], readable: list[str], uid: int | None) -> None:
        self.layers, self.uid = [layer for layer in LAYERS if layer in layers], uid or 0
        self.abi = landlock_abi() if "landlock" in self.layers else 0
        # The judge compares this list with what it asked for, and refuses to run programs if a layer is missing.
        if not self.abi and "landlock" in self.layers:
            self.layers.remove("landlock")
        self.ruleset = _ruleset(self.abi, readable) if self.abi else None
        # From ABI 3 on Landlock decides about writing file by file; before, the filter has to deny all of it.
        self.filter = syscalls.filter_program(platform.machine(), self.abi >= 3) if "seccomp" in layers else b""
        self.identity, self.become = self._choose_identity(readable, uid)
        # RLIMIT_NPROC counts all threads of a user: where others share it, their threads must be added.
        shared = self.become is _stay_without_capabilities
        self.tasks = SHARED_TASKS + _tasks_of_this_user() if shared else PRIVATE_TASKS
        # The kernel follows a pointer into this buffer, which must therefore live as long as the fork-server.
        self._buffer = ctypes.create_string_buffer(self.filter, max(1, len(self.filter)))
        steps = len(self.filter) // 8
        self._fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", steps, ctypes.addressof(self._buffer)))

    def _choose_identity(self, readable: list[str], uid: int | None) -> tuple[str, Callable[[int], None]]:
        if not self.layers:
            return "unchanged", lambda _: None
        if uid is not None:
            for name, become in IDENTITIES.items():
                if _works(become, uid, readable):
                    return name, become
        return "own user, no capabilities", _stay_without_capabilities

    def apply(self, memory_bytes: int, cpu_seconds: int, ruleset: int | None) -> None:
        """Confine the calling process for good. ruleset: the descriptor of the rules, closed here.

        The order matters: each step needs rights that a later one takes away. OSError names the step that failed.
        """
        self.become(self.uid)
        if "rlimits" in self.layers:
            self._limit(memory_bytes, cpu_seconds)
        if self.layers:
            # A change of user clears this signal, so it comes after it. It ends the fork with the fork-server.
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            _prctl(_PR_SET_DUMPABLE, 0)  # no other process may trace it or read its memory
            _prctl(_PR_SET_NO_NEW_PRIVS, 1)  # without it the kernel refuses Landlock and seccomp to ordinary users
        if ruleset is not None:
            _checked(_LIBC.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
            os.close(ruleset)
        # Last, because the filter denies the calls that the steps above make.
        if self.filter:
            _prctl(_PR_SET_SECCOMP, 2, ctypes.byref(self._fprog))

    def _limit(self, memory_bytes: int, cpu_seconds: int) -> None:
        # The fork-server kills at the exact CPU time; this coarser limit holds if the fork-server is gone.
        limits = {
            resource.RLIMIT_CPU: (cpu_seconds + 1, cpu_seconds + 1), resource.RLIMIT_FSIZE: (0, 0),
            resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: (64, 64), resource.RLIMIT_MEMLOCK: (0, 0),
            resource.RLIMIT_MSGQUEUE: (0, 0), resource.RLIMIT_NPROC: (self.tasks, self.tasks),
            resource.RLIMIT_AS: (memory_bytes, memory_bytes + SPARE_BYTES),
        }  # fmt: skip
        for kind, (soft, hard) in limits.items():
            # Only root could raise a hard limit that is lower already.
            ceiling = resource.getrlimit(kind)[1]
            below = ceiling != resource.RLIM_INFINITY and ceiling < hard
            resource.setrlimit(kind, (min(soft, ceiling), ceiling) if below else (soft, hard))
