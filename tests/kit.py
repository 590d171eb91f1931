"""The kit as a person starts it, for tests of whole runs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1.core import memory
from tinyr1.core.config import ROOT

STATED = 8 * 10**9  # bytes of main memory that README.md asks for
REQUIREMENTS = ("requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt")
PARTS = ("tinyr1", "notebooks", "params", "docs", "pyproject.toml", *REQUIREMENTS)  # of an archive of the kit
MOUNT = 'mount --bind -o ro "$1" "$2"; cd "$2"; shift 2; exec "$@"'
WHOLE_RUN = 1800  # seconds in which a run of all stages ends even on a slow machine, beside other tests


def run_kit(*words, env, timeout=WHOLE_RUN, inside=()):
    """inside: first words of the command, as `memory_group` gives them."""
    command = [*inside, sys.executable, "-m", "tinyr1.run", *words]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


def git_status():
    """What git says about the checkout; "" where there is no git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


@contextmanager
def memory_group(most: int) -> Iterator[tuple[str, ...]]:
    """First words of a command that may use so many bytes together with all that it starts.

    () where no control group can be made: it takes root, a kernel that has them, and no container around this process.
    """
    folder = _place() / f"tinyr1-{os.getpid()}"
    file, _, _ = memory.VERSION_1 if folder.is_relative_to(memory.MOUNT / "memory") else memory.VERSION_2
    try:
        folder.mkdir()
        (folder / file).write_text(str(most))
    except OSError:
        if folder.is_dir():
            folder.rmdir()
        yield ()
        return
    yield "sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(folder)
    deadline = time.monotonic() + 60
    while (folder / "cgroup.procs").read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.1)
    folder.rmdir()


def _place() -> Path:
    """The folder of the group around this process; in version 2, whose groups have no groups beside processes, of the
    one above it."""
    for line in memory.GROUPS.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):
            return memory.MOUNT / "memory" / name.lstrip("/")
    return (memory.MOUNT / name.lstrip("/")).parent


def read_only_archive(folder: Path) -> tuple[Path, Callable[..., subprocess.CompletedProcess] | str]:
    """An archive of the kit under `folder`, read-only, in a place with a blank and an umlaut, without the program git.

    Returns (the place, call with words and variables: what the programs say there); the second is the reason where
    nothing can be mounted, which takes root.
    """
    source, place, programs = folder / "source", folder / "my kits \u00fc" / "kit", folder / "bin"
    for part in (source, place, programs):
        part.mkdir(parents=True)
    for path in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in path.iterdir() if path.is_dir() else ():
            if program.name != "git" and not os.path.lexists(programs / program.name):
                (programs / program.name).symlink_to(program)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TINYR1_")}

    def run(*words, **variables):
        inside = ["unshare", "--mount", "sh", "-ec", MOUNT, "sh", source, place, "env", f"PATH={programs}", *words]
        environment = kept | {"PYTHONPATH": str(place), "HOME": str(folder)} | variables
        command = list(map(str, inside))
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WHOLE_RUN)

    tried = run(shutil.which("touch"), "x")
    if "Read-only file system" not in tried.stderr:
        return place, f"nothing can be mounted here: {tried.stderr.strip()}"
    return place, run
