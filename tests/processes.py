"""Processes as /proc shows them, for tests that look for ones that should have ended."""

from pathlib import Path


def state_and_parent(pid):
    """The state letter and the parent of a process; ("X", 0) where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def ended(pid):
    """Whether a process has ended, waited for or not."""
    return state_and_parent(pid)[0] in "ZX"


def parents():
    """Parent by process."""
    return {int(path.name): state_and_parent(path.name)[1] for path in Path("/proc").glob("[0-9]*")}


def children(pid):
    return [child for child, parent in parents().items() if parent == pid]


def descendants(pid):
    """Every process below `pid`, ended ones that nobody waited for included."""
    by_process, found, fresh = parents(), set(), {pid}
    while fresh:
        fresh = {child for child, parent in by_process.items() if parent in fresh} - found
        found |= fresh
    return found
