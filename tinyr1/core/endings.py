"""How a child process ended, in a sentence: an exit status, a signal, or memory that ran out.

    while it runs: Memory.look(pid) --> least memory that the machine had left, most that the process tree held
    exit status --told--> "ended with exit status 3" | "was killed by signal 9; the machine had 0.3 GB of memory left …"
    its log --cause--> "ValueError: no room, at tinyr1/branch/train.py:12", of the rank that failed first
"""

import re
import signal
from pathlib import Path

from tinyr1.core import memory

TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'File "(?:[^"]*/)?(?P<file>tinyr1/[^"]+)", line (?P<line>\d+)')
RANK = re.compile(r"^\[rank\d+\]: ")
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
    """The exception that ended a process, with the last frame in this project; of several ranks, that of the first one
    that failed. "" where the log holds no whole traceback."""
    lines = log.splitlines()
    starts = [i for i, line in enumerate(lines) if TRACEBACK in line]
    ranks = [i for i in starts if RANK.match(lines[i])]
    if ranks:
        prefix = RANK.match(lines[ranks[0]])[0]  # type: ignore[index]  # it matched a line above
        starts = [i for i in ranks if lines[i].startswith(prefix)]
    if not starts:
        return ""
    column, frame = lines[starts[-1]].index(TRACEBACK), ""
    for line in lines[starts[-1] + 1 :]:
        if line[column : column + 1].strip():
            return line[column:].strip() + frame
        if found := FRAME.search(line):
            frame = f", at {found['file']}:{found['line']}"
    return ""
