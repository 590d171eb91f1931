"""What the blocks of a params file are made of: their base, and the kinds of numbers and texts in them."""

import datetime
import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Patterns of texts, and what a message says of a text that does not match.
NAME, COMMIT, SHA256, ADDRESS = r"^[a-z0-9][a-z0-9-]*$", r"^[0-9a-f]{40}$", r"^[0-9a-f]{64}$", r"^https?://[^@\s]+$"
PATTERNS = {
    NAME: "is not a name; use lower-case letters, digits and hyphens",
    COMMIT: "is not a commit; give all 40 hexadecimal digits",
    SHA256: "is not a SHA-256 checksum; give all 64 hexadecimal digits",
    ADDRESS: "is not an address such as http://127.0.0.1:8000/v1, without user name and password",
}


def _no_bool(value: object) -> object:
    """pydantic takes `true` for 1, which in a params file is a slip."""
    if isinstance(value, bool):
        raise ValueError(f"{json.dumps(value)} is not a number")
    return value


def _date(value: object) -> datetime.date:
    """A date as YAML reads it, or the same as text; pydantic would also take seconds since 1970."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
            return datetime.date.fromisoformat(str(value))
    except ValueError:  # 2025-02-29
        pass
    raise ValueError(f"{json.dumps(value, default=str)} is not a date of the form YYYY-MM-DD; e.g. 2024-08-01")


NO_BOOL = BeforeValidator(_no_bool)  # last of the annotations, so that the JSON schema keeps the ranges
Count = Annotated[int, Field(ge=1), NO_BOOL]
CountOrZero = Annotated[int, Field(ge=0), NO_BOOL]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), NO_BOOL]  # NumPy takes no larger one
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), NO_BOOL]
PositiveOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False), NO_BOOL]
Share = Annotated[float, Field(ge=0, le=1), NO_BOOL]
PositiveShare = Annotated[float, Field(gt=0, le=1), NO_BOOL]
Flag = Annotated[bool, Field(strict=True)]  # else "no" in quotes and 0 are false
Name = Annotated[str, Field(pattern=NAME)]
Commit = Annotated[str, Field(pattern=COMMIT)]
Sha256 = Annotated[str, Field(pattern=SHA256)]
Date = Annotated[datetime.date, BeforeValidator(_date)]
Level = Annotated[int, Field(ge=1, le=3), NO_BOOL]


def unless_verifying(null: bool = False) -> Any:
    """The default of a parameter that every run has to give but a verification run, which leaves it out.

    It is None there, whatever the type of the parameter says: only stages that such a run does not have read it.
    null: whether None is also a value that a file may give.
    """

    def without_default(schema: dict) -> None:
        schema.pop("default")  # the page and editors call it required, as it is for every other run

    return Field(default=None, exclude_if=None if null else _is_none, json_schema_extra=without_default)


def _is_none(value: object) -> bool:
    return value is None


class Block(BaseModel):
    """Base of all blocks: no unknown keys, immutable, and no default but `null`, which stands for "none"."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
