"""The one kind of error that a person at the terminal can put right, and the exit status of every command."""

import builtins
import errno
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinyr1.core.streams import lasting

FULL = (errno.ENOSPC, errno.EDQUOT)
BUG = "this is a bug of tinyr1; please report it with `make doctor`"


class UserError(Exception):
    """A problem that a person can put right: wrong params, a missing file, a full disk, a model that does not fit.

    The message names the value, the rule that it breaks, and what to do; each problem has a line of its own. An
    exception of any other kind is a defect of this kit, and shows its traceback, which ends with BUG.
    """

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows, which IPython asks for by this name: the message alone, as on a terminal."""
        return [f"{type(self).__name__}: {self}"]


def is_bug(name: str) -> bool:
    """Whether an exception of this class, which a notebook or another process named, is a defect of this kit: it is a
    built-in one that neither a person nor the system causes."""
    kind = getattr(builtins, name, OSError)
    return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, OSError | MemoryError)


def guarded(main: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """The exit status of a command: that of `main`, 2 after a UserError or OSError, 130 after Ctrl-C.

    An OSError names a file and the system's reason ("No space left on device"), so it needs no traceback. Output that
    can no longer be written does not end the command, and a terminal that is closed ends it as Ctrl-C does.
    interrupted: the sentence that Ctrl-C ends with, unless `main` raises KeyboardInterrupt with a sentence of its own.
    """
    with lasting(), _hang_up_interrupts(), _marked():
        try:
            return main() or 0
        except (UserError, OSError) as error:
            full = "; free some space and repeat the command" if getattr(error, "errno", None) in FULL else ""
            print(f"error: {error}{full}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as error:
            print(f"\n{error.args[0] if error.args else interrupted}", file=sys.stderr)
            return 130


@contextmanager
def _marked() -> Iterator[None]:
    """Notes BUG at an exception that leaves the block, so that its traceback ends with it."""
    try:
        yield
    except Exception as error:
        error.add_note(BUG)
        raise


@contextmanager
def _hang_up_interrupts() -> Iterator[None]:
    """A context in which SIGHUP, which a closed terminal sends, is a Ctrl-C; under nohup the command goes on."""
    is_main = threading.current_thread() is threading.main_thread()  # no other can set handlers
    if not is_main or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
