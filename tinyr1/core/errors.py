"""The one error that a person at the terminal can put right, and how every command ends."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that a person can put right: wrong params, a missing file, a full disk, a model that does not fit.

    The message gives the value, the rule and what to do, one problem a line. Whatever else is raised is a defect of
    this kit, and shows its traceback.
    """


def guarded(main: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Exit status of a command: what `main` returns, 2 after a UserError or OSError, 130 after Ctrl-C.

    An OSError names a file and what the system says of it ("No space left on device"), so it needs no traceback.
    interrupted: the sentence for Ctrl-C, unless `main` raises KeyboardInterrupt with one of its own.
    """
    try:
        return main() or 0
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"\n{error.args[0] if error.args else interrupted}", file=sys.stderr)
        return 130
