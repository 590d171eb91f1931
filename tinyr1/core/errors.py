"""The one kind of error that a person at the terminal can put right, and the exit status of every command."""

import builtins
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

from tinyr1.core.streams import lasting

BUG = "this is a bug of tinyr1; please report it with `make doctor`"


class UserError(Exception):
    """A problem that a person can put right: wrong params, a missing file, a full disk, a model that does not fit.

    The message names the value, the rule that it breaks, and what to do; each problem has a line of its own. An
    exception of any other kind is a defect of this kit, and shows its traceback, which ends with BUG.
    """


def is_bug(name: str) -> bool:
    """Whether an exception of this class, which a notebook or another process named, is a defect of this kit: it is a
    built-in one that neither a person nor the system causes."""
    kind = getattr(builtins, name, OSError)
    return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, OSError | MemoryError)


class _Marked(AbstractContextManager):
    """Notes BUG at an exception that leaves the block, so that its traceback ends with it."""

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> None:
        if isinstance(error, Exception):
            error.add_note(BUG)


def guarded(main: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """The exit status of a command: that of `main`, 2 after a UserError or OSError, 130 after Ctrl-C.

    An OSError names a file and the system's reason ("No space left on device"), so it needs no traceback. Output that
    can no longer be written does not end the command. interrupted: the sentence that Ctrl-C ends with, unless `main`
    raises KeyboardInterrupt with a sentence of its own.
    """
    with lasting(), _Marked():
        try:
            return main() or 0
        except (UserError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as error:
            print(f"\n{error.args[0] if error.args else interrupted}", file=sys.stderr)
            return 130
