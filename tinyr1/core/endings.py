"""How a child process ended, in a sentence: an exit status, a signal, or memory that ran out.

    while it runs: Memory.look(pid) --> least memory that the machine had left, most that the process tree held
    exit status --told--> "ended with exit status 3" | "was killed by signal 9; the machine had 0.3 GB of memory left …"
    its log --cause--> "ValueError: no room, at tinyr1/branch/train.py:12", of the process that failed first
"""

import re
import signal
from pathlib import Path

from tinyr1.core import memory

TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'File "(?:[^"]*/)?(?P<file>tinyr1/[^"]+)", line (?P<line>\d+)')
ERROR = "error: "  # begins the line with which a command of this kit ends (tinyr1.core.errors)
# What launchers put before each line of one of several processes: a rank of PyTorch, a part of vLLM's engine.
ONE_OF_SEVERAL = re.compile(r"^(\[rank\d+\]: |\([\w-]+ pid=\d+\) )")
# Exit statuses with which shells (128 + signal) and launchers (256 - signal) pass a signal on; 255 is any failure.
FATAL = (signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)
PASSED_ON = {status: int(one) for one in FATAL for status in (128 + one, 256 - one)}
FEW = 0.05  # share of the memory with which a machine has none to give
GB = 1e9


class Memory:
    """What was seen of memory while a process ran: `left` bytes of the machine at least, `held` by its tree at most.

    ran_out: whether the system has ended a process for want of memory since.
    """

    def __init__(self) -> None:
        self.left, self.held = float("inf"), 0
        self._killed = _killed_for_memory()

    def look(self, pid: int) -> None:
        """See what the machine has left, and what a process and its descendants hold, at this moment."""
        self.left = min(self.left, memory.available())
        self.held = max(self.held, sum(map(memory.resident, memory.tree(pid))))

    @property
    def ran_out(self) -> bool:
        return _killed_for_memory() > self._killed or self.left < FEW * memory.limit()


def _killed_for_memory() -> int:
    """How many processes the kernel has ended for want of memory, in a control group or on the whole machine."""
    try:
        counted = re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(counted[1]) if counted else 0


def told(status: int, seen: Memory) -> str:
    """How a process ended, as the end of a sentence. status: negative after a signal, as `subprocess` has it; launchers
    and shells report the signal 9 of a process below them as 137 or 247."""
    number = -status if status < 0 else PASSED_ON.get(status, 0)
    if not number:
        return f"ended with exit status {status}"
    name = f"signal {number} ({signal.Signals(number).name})"
    if number != signal.SIGKILL or not seen.held:
        return f"was killed by {name}"
    said = f"was killed by {name}; the machine had {seen.left / GB:.1f} GB of memory left, the process held "
    said += f"{seen.held / GB:.1f} GB"
    if seen.ran_out:
        said += ": out of memory; end other programs, or run this on a machine with more"
    return said


def cause(log: str) -> str:
    """Why a process ended, in a line: its `error:` line, or its exception with the last frame in this project; of
    several processes with one log, that of the first one that failed. "" where the log holds neither."""
    lines = log.splitlines()
    starts = [i for i, line in enumerate(lines) if TRACEBACK in line]
    labels = [found[0] if (found := ONE_OF_SEVERAL.match(lines[i])) else "" for i in starts]
    if first := next(filter(None, labels), ""):
        starts = [i for i, label in zip(starts, labels, strict=True) if label == first]
    ends = [i for i, line in enumerate(lines) if line.startswith(ERROR)]
    if ends and (not starts or (not first and ends[-1] > starts[-1])):
        return _error_line(lines[ends[-1] :])
    return _exception(lines[starts[-1] :]) if starts else ""


def _error_line(lines: list[str]) -> str:
    """The text of the `error:` line that comes first, with the first reason where it only announces some."""
    said, reasons = lines[0].removeprefix(ERROR), lines[1:2]
    return f"{said} {reasons[0].strip()}" if said.endswith(":") and reasons else said


def _exception(lines: list[str]) -> str:
    """The exception below the head of a traceback, which comes first; "" where the log ends before it."""
    column, frame = lines[0].index(TRACEBACK), ""
    for line in lines[1:]:
        if line[column : column + 1].strip():
            return line[column:].strip() + frame
        if found := FRAME.search(line):
            frame = f", at {found['file']}:{found['line']}"
    return ""
