r"""Main memory: how much this process may use, and how much a process and all that it has started hold.

    size of the machine --\
    limits of its control groups --> limit, available          a tree of processes --resident, proportional--> bytes
                                                                            Peak: the most of it while a stage works

Resident memory counts a page once for each process that has it, so libraries that the kernel of a notebook shares with
a training count twice. Proportional memory (PSS, proc_pid_smaps(5)) divides such a page by the processes that share it;
it is what a machine or a control group has to have. The peak that a control group itself keeps is no such number, since
the system also counts the files there that it remembers as long as nobody needs the memory.
"""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# (limit, use, line of memory.stat with the files that the system gives back first) of the two kinds of control groups.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
PERIOD = 1.0  # seconds between two looks at a tree of processes
NEWS = 1.01  # growth of resident memory after which the proportional memory is read, which takes the kernel longer


def limit() -> int:
    """Bytes that this process may use: those of the machine, or of the narrowest of its control groups."""
    import psutil  # late, because the GPU check needs nothing but PyTorch and transformers

    return min([psutil.virtual_memory().total, *(most for most, _ in _groups())])


def available() -> int:
    """Bytes that are free for this process now: on the machine, and in each of its control groups."""
    import psutil  # late, because the GPU check needs nothing but PyTorch and transformers

    return max(0, min([psutil.virtual_memory().available, *(most - used for most, used in _groups())]))


def _groups() -> Iterator[tuple[int, int]]:
    """(limit, bytes in use) of each control group around this process that has a limit."""
    try:
        lines = GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, names = (MOUNT / "memory", VERSION_1) if controllers else (MOUNT, VERSION_2)
        # Inside a container the name may be that of a group outside, of which only the root of the mount is seen.
        folder = mount / name.lstrip("/")
        for place in [folder, *folder.parents][: len(folder.parts) - len(mount.parts) + 1]:
            most, used = (_number(place / file) for file in names[:2])
            if most is not None:
                yield most, (used or 0) - _remembered(place, names[2])


def _number(file: Path) -> int | None:
    """The number in a file of a control group; None where it is not there, or says that there is no limit."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _remembered(place: Path, name: str) -> int:
    """Bytes of files that a control group holds and gives back where a process needs them."""
    try:
        found = re.search(rf"^{name} (\d+)$", (place / "memory.stat").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


# --- trees of processes ---------------------------------------------------------------------------------------


def tree(pid: int) -> "list[psutil.Process]":
    """A process and its descendants; empty where it has ended."""
    import psutil  # late, because the GPU check needs nothing but PyTorch and transformers

    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def resident(process: "psutil.Process") -> int:
    """Resident bytes of a process; 0 where it has ended."""
    import psutil  # late, because the GPU check needs nothing but PyTorch and transformers

    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def proportional(process: "psutil.Process") -> int:
    """Proportional bytes of a process; its resident ones where this user may not ask."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return resident(process)
    return 1024 * int(found[1]) if found else resident(process)


class Peak:
    """The most proportional memory that this process and its descendants held together; a thread looks every PERIOD
    seconds until `stop`. What lasts for a shorter time may be missed."""

    def __init__(self) -> None:
        self.bytes, self._resident = 0, 0.0
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self) -> None:
        """See what the tree holds at this moment."""
        processes = tree(os.getpid())
        held = sum(map(resident, processes))
        if held > NEWS * self._resident:
            self._resident = held
            self.bytes = max(self.bytes, sum(map(proportional, processes)))

    def _watch(self) -> None:
        while not self._stopped.wait(PERIOD):
            self.look()

    def stop(self) -> int:
        """End the thread; the bytes of the peak."""
        self._stopped.set()
        self.look()
        return self.bytes
