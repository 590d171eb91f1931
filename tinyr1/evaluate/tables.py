"""Descriptions of an evaluation as tables to read: what is said nowhere, and hashes, are left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

# Only a program compares these; the record of the stage has them.
NOT_READ = ("template_hash", "protocol_hash", "responses", "versions", "sha256", "revision")


def overview(descriptions: Sequence[Mapping[str, Any]], by: str) -> pd.DataFrame:
    """Plain descriptions as texts: their fields down, and across what each of them is called in the field `by`.

    A field that is empty (None, "", an empty list) in all of them has no row; nor have those of NOT_READ.
    """
    columns = {
        described[by]: {name: _text(value) for name, value in described.items() if name not in (by, *NOT_READ)}
        for described in descriptions
    }
    table = pd.DataFrame(columns).fillna("")
    return table[(table != "").any(axis=1)].rename_axis(index=None, columns=by)


def _text(value: Any) -> str:
    """A value as a person writes it: lists with a line for each entry, mappings as "key: value"."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(map(_text, value))
    return str(value)
