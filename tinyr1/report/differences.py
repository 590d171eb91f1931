"""Two sets of parameters -> what differs between them, by path in the params file."""

import json
from collections.abc import Iterator
from typing import Any

ABSENT = "–"  # what a table shows for a parameter that one of two files does not have
MOST = 6  # parameters of a block that is written out where only one of the files has it
_NOTHING = object()


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, value in a, value in b) of each parameter that differs, in the order of b; what only a has comes last.

    a, b: parameters nested as in a params file. The path of a parameter is dotted, with the index of a list's entry. A
    recipe, a list of plain values, and a block that only one of the files has, is one value.
    """
    parts_a, parts_b = _parts(a, path), _parts(b, path)
    if parts_a is not None and parts_b is not None:
        for key in dict.fromkeys([*parts_b, *parts_a]):
            below = f"{path}.{key}" if path else str(key)
            yield from differences(parts_a.get(key, _NOTHING), parts_b.get(key, _NOTHING), below)
    elif a != b:
        yield path, _text(a), _text(b)


def _parts(value: Any, path: str) -> dict | None:
    """The parameters inside a value by key; None where the value is compared as a whole."""
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return dict(enumerate(value))
    return value if isinstance(value, dict) and not path.endswith("recipe") else None


def _text(value: Any) -> str:
    if value is _NOTHING:
        return ABSENT
    if isinstance(value, str):
        return value
    given = _given(value)
    many = _count(given)
    if isinstance(given, dict | list) and many > MOST and "method" not in given:
        return f"a block of {many} parameters"
    return json.dumps(given, ensure_ascii=False)


def _given(value: Any) -> Any:
    """A block without the parameters that are null."""
    if isinstance(value, dict):
        return {key: _given(part) for key, part in value.items() if part is not None}
    return [_given(part) for part in value] if isinstance(value, list) else value


def _count(value: Any) -> int:
    """Parameters in a value; a list of plain values is one."""
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, list) and any(isinstance(e, dict) for e in value) else 1
