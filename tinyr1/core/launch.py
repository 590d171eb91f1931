"""Starts heavy work in a child process, shows its progress, and turns a failure into a readable error.

follow --starts--> child (its output goes to a log) --writes--> progress file or log lines
  poll() reads the progress ------------> Bar
  exit status != 0 --error_excerpt(log)--> UserError
"""

import atexit
import gc
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1.core import endings, surroundings
from tinyr1.core.errors import UserError
from tinyr1.core.progress import Bar

STOP, LISTENER = "stop", "listener"  # files of a command that ends early when it is asked to
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # what a cluster sends before it takes the machine away
PARENT = "TINYR1_PARENT"  # environment variable: process id and host of the process that a child must not outlive
CONTEXT_LINES = 25  # of a log, up to the end of its last error
AFTER_LINES = 8  # lines that are shown after it
COMMAND = "\n$ "  # begins the line of a command in a log
OTHERS = 2.0  # seconds in which the other parts of a command that has failed say so: DeepSpeed looks once a second
LEAST = 1 << 20  # bytes below which a disk is full

TRACEBACK = endings.TRACEBACK
# What nanobind prints at the end of a process whose objects are still referenced, as after every exception.
LEAKS = re.compile(r"nanobind: (leaked|this is likely)|\s*- (leaked|\.\.\. skipped) ")


def shell(command: list[str], environment: dict[str, str]) -> str:
    """The command with its environment variables, to be pasted into a terminal."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in environment.items()), shlex.join(command)])


@contextmanager
def lasting_imports() -> Iterator[None]:
    """A context for imports that a process needs to its end.

    Python does not search the imported objects for garbage, neither now nor when the process ends. That saves a third
    of the seconds which torch, transformers and vLLM take.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def watched() -> dict[str, str]:
    """Environment of a child that calls `die_with_parent`, with this process as the parent."""
    return {PARENT: f"{os.getpid()}@{os.uname().nodename}"}


def die_with_parent() -> None:
    """End this process as soon as the process that launched it is gone, even if that was killed by `kill -9`.

    The DeepSpeed launcher stands between the two, so no kernel mechanism carries the signal.
    """
    parent, _, host = os.environ.get(PARENT, "").partition("@")
    if not parent or host != os.uname().nodename:
        return

    def watch() -> None:
        while Path(f"/proc/{parent}").exists():
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave() -> None:
    """Ends the process at once, with status 0, after what Python has registered for the end."""
    # Gloo's threads may still run when the interpreter ends, also after dist.destroy_process_group, and then C++ aborts
    # a training that has done its work.
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


Poll = Callable[[], tuple[int, int, str] | None]  # (done, of, text), or None while there is no progress to show


def follow(
    command: list[str], environment: dict[str, str], log: Path, title: str, poll: Poll, unit: str,
    first: str = "starting", last: str = "saving", stop: Path | None = None, failed: str = "",
    passing: Iterable[str] = (),
) -> None:  # fmt: skip
    """Run a command to its end; its output goes to the file `log`, its progress to a bar with an ETA.

    environment: variables to set besides those that every child has (`surroundings.for_child`). passing: names of
    further variables of this process that it gets, such as that of a key; they are not in the log. title, unit: what
    the bar shows. poll: reads how far the command is; it is called twice a second. first, last: what the command does
    before the first unit is finished and after the last one. stop: a file at whose appearance the command ends by
    itself, with its work stored; a signal of a cluster makes it then. failed: what the command writes when a part of it
    has failed for which the other parts would wait; it is ended then. UserError with the last error in the log
    when the command fails. An interrupt ends the child before it is raised again.
    """
    start = _begin_log(log, f"{COMMAND}{shell(command, environment)}\n")
    with log.open("ab") as file:
        variables = surroundings.for_child(environment | watched(), passing)
        process = subprocess.Popen(command, env=variables, stdout=file, stderr=file, start_new_session=True)
    bar, memory = Bar(title, unit), endings.Memory()
    try:
        with _listening(stop):
            while process.poll() is None and not (failed and failed.encode() in log.read_bytes()[start:]):
                memory.look(process.pid)
                _show(bar, poll(), first, last)
                time.sleep(0.5)
        if process.poll() is None:
            time.sleep(OTHERS)
        if news := poll():
            bar.update(*news)
    finally:
        bar.close()
        _end_group(process, 60 if stop and not failed else 10)
    if process.returncode:
        written = log.read_bytes()[start:].decode(errors="replace")
        why = f"{title}: {found}\n" if (found := endings.cause(written)) else ""
        full = "; the disk of its log is full: free some space" if shutil.disk_usage(log.parent).free < LEAST else ""
        raise UserError(
            f"{why}{title}: the command {endings.told(process.returncode, memory)}{full}. From {log}:\n"
            f"{error_excerpt(written)}\nTo run it alone: {shell(command, environment)}"
        )


def _begin_log(log: Path, line: str) -> int:
    """Add a line to a log, which keeps what earlier commands wrote; its size then."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            return file.tell()
    except OSError as error:  # a full disk is one without the name of a file
        raise OSError(error.errno, error.strerror, str(log)) from error


def latest(log: Path) -> str:
    """What the latest command of `follow` has written into a log, with the command at its beginning; "" without one."""
    if not log.is_file():
        return ""
    return log.read_text(encoding="utf-8", errors="replace").rpartition(COMMAND)[2]


@contextmanager
def _listening(stop: Path | None) -> Iterator[None]:
    """While a command runs that ends at the file `stop`, signals of a cluster make that file, and `ask_to_stop` finds
    it by a file beside it, which holds the number of this process."""
    if stop is None:
        yield
        return
    stop.unlink(missing_ok=True)
    listener = stop.with_name(LISTENER)
    listener.write_text(str(os.getpid()))
    main = threading.current_thread() is threading.main_thread()  # no other can set handlers
    before = {number: signal.signal(number, lambda *_: stop.touch()) for number in SIGNALS if main}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listener.unlink(missing_ok=True)


def ask_to_stop(home: Path) -> bool:
    """Ask the commands that work below a folder and listen to store their work and end; whether there is one."""
    listeners = [file for file in home.rglob(LISTENER) if Path(f"/proc/{file.read_text() or 0}").exists()]
    for file in listeners:
        file.with_name(STOP).touch()
    return bool(listeners)


def error_excerpt(text: str) -> str:
    """The lines of a log that say why a process failed: its last traceback or `error:` line, with the lines around it.

    Whatever the process printed later is cut down to a few lines, because libraries print dozens when a failed process
    ends. The end of the log is shown where there is neither a traceback nor an `error:` line.
    """
    lines = [line for line in text.splitlines() if not LEAKS.match(line)]
    end = _error_end(lines)
    after = lines[end:]
    if len(after) > AFTER_LINES:
        half = AFTER_LINES // 2
        after = [*after[:half], f"[… {len(after) - 2 * half} lines …]", *after[-half:]]
    return "\n".join(lines[max(0, end - CONTEXT_LINES) : end] + after)


def _error_end(lines: list[str]) -> int:
    """Index of the line after the last error; all lines where there is no error."""
    for i in range(len(lines) - 1, -1, -1):
        if lines[i].startswith(endings.ERROR):
            return i + 1
        if (column := lines[i].find(TRACEBACK)) >= 0:
            # The frames are indented behind whatever a launcher put before each line; the exception is not.
            for j in range(i + 1, len(lines)):
                if lines[j][column : column + 1].strip():
                    return j + 1
            break
    return len(lines)


def _end_group(process: subprocess.Popen, seconds: float) -> None:
    """End the child and all that it started: its own children can outlive it when it is killed. seconds: that it has to
    end by itself."""
    for wish, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, wish)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
    process.wait()


def _show(bar: Bar, news: tuple[int, int, str] | None, first: str, last: str) -> None:
    done, of, text = news or (0, 0, "")
    if not done:
        bar.wait(first)
    elif done >= of:
        bar.wait(f"100 %, {last}")
    else:
        bar.update(done, of, text)
