"""Temporary folders that do not outlast their process for long: the next one removes what a killed one left."""

import os
import re
import shutil
import tempfile
from pathlib import Path

_NAME = re.compile(r"tinyr1-[a-z]+-(\d+-(\d+)-\d+)-\w+")


def folder(kind: str) -> tempfile.TemporaryDirectory:
    """A temporary folder whose name says which process it belongs to. kind: letters a to z."""
    return tempfile.TemporaryDirectory(prefix=f"tinyr1-{kind}-{owner(os.getpid())}-")


def owner(pid: int) -> str | None:
    """A name for a process that no later one has: its PID namespace, number and start; None where there is none."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # several containers may share one /tmp
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{space}-{pid}-{started}"


def sweep() -> None:
    """Remove the folders of processes of this PID namespace that are gone."""
    space = (owner(os.getpid()) or "").partition("-")[0]
    for path in Path(tempfile.gettempdir()).glob("tinyr1-*"):
        match = _NAME.fullmatch(path.name)
        if match and match[1].startswith(f"{space}-") and owner(int(match[2])) != match[1]:
            shutil.rmtree(path, ignore_errors=True)  # another process may be sweeping too
