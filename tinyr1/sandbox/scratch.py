"""Temporary folders that say whose they are, so that the next process can remove those of a killed one."""

import os
import re
import shutil
import tempfile
from pathlib import Path

_NAME = re.compile(r"tinyr1-[a-z]+-(\d+-(\d+)-\d+)-\w+")


def folder(kind: str) -> tempfile.TemporaryDirectory:
    """A temporary folder whose name holds the name of this process. kind: letters a to z."""
    return tempfile.TemporaryDirectory(prefix=f"tinyr1-{kind}-{owner(os.getpid())}-")


def owner(pid: int) -> str | None:
    """A name that no other process will ever have: PID namespace, number and start. None where the process is gone."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # several containers may share one /tmp
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{space}-{pid}-{started}"


def sweep() -> None:
    """Remove the folders that processes of this PID namespace left when they were killed."""
    space = (owner(os.getpid()) or "").partition("-")[0]
    for path in Path(tempfile.gettempdir()).glob("tinyr1-*"):
        match = _NAME.fullmatch(path.name)
        if match and match[1].startswith(f"{space}-") and owner(int(match[2])) != match[1]:
            shutil.rmtree(path, ignore_errors=True)  # another process may be sweeping too
