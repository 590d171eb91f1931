"""The one kind of error that a person at the terminal can put right, and the exit status of every command."""

import sys
from collections.abc import Callable

from tinyr1.core.streams import lasting


class UserError(Exception):
    """A problem that a person can put right: wrong params, a missing file, a full disk, a model that does not fit.

    The message names the value, the rule that it breaks, and what to do; each problem has a line of its own. An
    exception of any other kind is a defect of this kit, and shows its traceback.
    """


def guarded(main: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """The exit status of a command: that of `main`, 2 after a UserError or OSError, 130 after Ctrl-C.

    An OSError names a file and the system's reason ("No space left on device"), so it needs no traceback. Output that
    can no longer be written does not end the command. interrupted: the sentence that Ctrl-C ends with, unless `main`
    raises KeyboardInterrupt with a sentence of its own.
    """
    with lasting():
        try:
            return main() or 0
        except (UserError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as error:
            print(f"\n{error.args[0] if error.args else interrupted}", file=sys.stderr)
            return 130
