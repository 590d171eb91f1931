"""Two sets of parameters -> what differs between them, by path in the params file."""

import json
from collections.abc import Iterator
from typing import Any

ABSENT = "–"  # what a table shows for a parameter that one of two files does not have


def differences(a: dict, b: dict) -> list[tuple[str, str, str]]:
    """(path, value in a, value in b) of each parameter that differs, in the order of b, what only a has last.

    a, b: parameters nested as in a params file. The path of a parameter is dotted, with the index of a list's entry.
    """
    flat_a, flat_b = dict(flat(a)), dict(flat(b))
    paths = dict.fromkeys([*flat_b, *flat_a])
    pairs = ((path, flat_a.get(path, ABSENT), flat_b.get(path, ABSENT)) for path in paths)
    return [(path, old, new) for path, old, new in pairs if old != new]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, value as text) of every parameter; a recipe, and a list of plain values, is one value."""
    if isinstance(value, dict) and value and not path.endswith("recipe"):
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        for i, part in enumerate(value):
            yield from flat(part, f"{path}.{i}")
    else:
        yield path, value if isinstance(value, str) else json.dumps(_given(value), ensure_ascii=False)


def _given(value: Any) -> Any:
    """A recipe without the keys that it does not give."""
    if isinstance(value, dict):
        return {key: _given(part) for key, part in value.items() if part is not None}
    return [_given(part) for part in value] if isinstance(value, list) else value
