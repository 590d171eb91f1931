"""Starts heavy work in a child process, shows its progress, and turns a failure into a readable error."""

import gc
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1.core.errors import UserError
from tinyr1.core.progress import Bar

WATCH = "TINYR1_PARENT"
TAIL_LINES = 25


def shell(command: list[str], environment: dict[str, str]) -> str:
    """The command as it can be pasted into a terminal."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in environment.items()), shlex.join(command)])


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Imports of a process that needs them to its end.

    Their objects are not searched for garbage, neither now nor when the process ends: of the seconds that torch,
    transformers and vLLM take, that is a third.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def die_with_parent() -> None:
    """End this process when the one that launched it is gone, be it by `kill -9`.

    The DeepSpeed launcher stands between the two, so no kernel mechanism carries the signal.
    """
    parent, _, host = os.environ.get(WATCH, "").partition("@")
    if not parent or host != os.uname().nodename:
        return

    def watch() -> None:
        while Path(f"/proc/{parent}").exists():
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


Poll = Callable[[], tuple[int, int, str] | None]  # (done, of, text) or None before the first news


def follow(command: list[str], environment: dict[str, str], log: Path, title: str, poll: Poll, unit: str) -> None:
    """Run a command to its end; its output goes to `log`, its progress to a bar with an ETA.

    UserError with the tail of the log when it fails. An interrupt ends the child before it goes on.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    watched = os.environ | environment | {WATCH: f"{os.getpid()}@{os.uname().nodename}"}
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ {shell(command, environment)}\n")
        file.flush()
        process = subprocess.Popen(command, env=watched, stdout=file, stderr=file, start_new_session=True)
    bar = Bar(title, unit)
    try:
        while process.poll() is None:
            _show(bar, poll())
            time.sleep(0.5)
        _show(bar, poll())
    finally:
        bar.close()
        _end_group(process)
    if process.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
        raise UserError(
            f"{title}: the command ended with exit status {process.returncode}. Last lines of {log}:\n{tail}\n"
            f"To run it alone: {shell(command, environment)}"
        )


def _end_group(process: subprocess.Popen) -> None:
    """End the child and whatever it started; its own children can outlive it when it is killed."""
    for wish, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, wish)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
    process.wait()


def _show(bar: Bar, news: tuple[int, int, str] | None) -> None:
    if news:
        bar.update(*news)
