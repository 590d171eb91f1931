"""Output that may end before the command does: `make reproduce | head`, a closed terminal, a full disk under a log.

    print --> sys.stdout or sys.stderr --write fails--> the rest goes to /dev/null, one sentence to the other stream
                                                        the command goes on
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

ENDED = "the output can no longer be written ({reason}); the command goes on without it"


class _Lasting:
    """A text stream whose reader may go away. All but writing is that of the stream that it stands for."""

    def __init__(self, stream: Any) -> None:
        # A closed descriptor gives no stream at all.
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self.other: _Lasting | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._end(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        """Send what is written from now on to nowhere, in the children that inherit the descriptor as well."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        with suppress(OSError):  # what the stream still holds would be written again
            self._stream.flush()
        if self.other is not None:
            print(ENDED.format(reason=error.strerror), file=self.other, flush=True)


@contextmanager
def lasting() -> Iterator[None]:
    """A context in which a command prints, whatever becomes of its output."""
    before = sys.stdout, sys.stderr
    output, errors = _Lasting(sys.stdout), _Lasting(sys.stderr)
    output.other = errors  # and not the other way: nobody looks for a sentence about errors in a table of scores
    sys.stdout, sys.stderr = output, errors  # they have all that a stream has
    try:
        yield
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
