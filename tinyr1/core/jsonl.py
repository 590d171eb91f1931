"""JSON lines: the one reader and writer of files that hold a JSON value on each line.

Files are read as bytes and split at line feeds only, since a JSON string may hold other line separators. A process
that is killed while it appends leaves a last line without a line feed: it is called torn, and no reader changes the
file because of it.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyr1.core.artifact import write_atomic
from tinyr1.core.errors import UserError


@dataclass(frozen=True)
class Line:
    """One line of a file.

    number: from 1, blank lines counted. error: why the line holds no JSON value, or None. torn: whether it is a last
    line without a line feed, such as a killed process leaves.
    """

    number: int
    value: object
    error: str | None
    torn: bool


def parse(data: bytes) -> tuple[object, str | None]:
    """(value, None) for the bytes of a line that hold a JSON value, else (None, the reason)."""
    try:
        return json.loads(data), None
    except (ValueError, RecursionError) as error:  # ValueError: broken JSON or broken UTF-8
        return None, f"not valid JSON: {error}"


def scan(path: Path) -> Iterator[Line]:
    """Yield every line that is not blank, malformed ones included. The file is read as it is asked for, not at once."""
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            if data.strip():
                yield Line(number, *parse(data), torn=not data.endswith(b"\n"))


def read(path: Path) -> list[dict]:
    """The JSON objects in a file that this kit wrote, [] where there is no file; a torn last line is left out.

    UserError names the first other line that holds no object.
    """
    rows: list[dict] = []
    for line in scan(path) if path.exists() else ():
        if line.torn and line.error:
            break
        if not isinstance(line.value, dict):
            why = line.error or f"expected an object, not {type(line.value).__name__}"
            raise UserError(f"{path}:{line.number}: {why}; the file is damaged, remove it and make it again")
        rows.append(line.value)
    return rows


def encode(row: object) -> bytes:
    """A value as the bytes of one line.

    Half a surrogate pair, which a model's tokens can decode to and UTF-8 cannot hold, becomes a question mark.
    """
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def write(path: Path, rows: Iterable[object]) -> None:
    """Write one line for each row, so that the file is there completely or not at all."""
    write_atomic(path, b"".join(map(encode, rows)))
