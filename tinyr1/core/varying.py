"""Numbers of a recipe that vary over the layers and tensors of a model, in the forms that mergekit has for them.

    0.5                                                    the same number for every tensor
    [0, 0.5, 1]                                            a gradient: first layer … last layer, linear in between
    [{filter: mlp, value: [0, 1]}, {value: 0.5}]           the first entry whose filter is a part of the tensor's name

    number, name of a tensor, depth of its layer --at--> a plain number

Depth is 0 in the first layer and 1 in the last; tensors outside of the layers have depth 0, as in mergekit.
"""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticKnownError

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, use_attribute_docstrings=True)
KINDS = ("one number", "a gradient", "filters")  # pydantic puts them into the paths of its errors


def _kind(value: Any) -> str:
    """Which of KINDS a value of a file, or of a recipe, is meant to be."""
    if not isinstance(value, list):
        return KINDS[0]
    return KINDS[2] if any(isinstance(entry, dict | Filtered) for entry in value) else KINDS[1]


class Filtered(BaseModel):
    """The number of the tensors whose names contain a text: one entry of a list, whose last entry has no filter."""

    model_config = STRICT

    filter: str | None = None
    """Text in the name of a tensor, such as `self_attn` or `mlp`; null: every tensor that no entry before it takes."""
    value: Annotated[
        Annotated[float, Tag(KINDS[0])] | Annotated[list[float], Field(min_length=1), Tag(KINDS[1])],
        Discriminator(_kind),
    ]
    """The number, or a gradient over the layers."""

    @property
    def numbers(self) -> list[float]:
        """The number, or those of the gradient."""
        return self.value if isinstance(self.value, list) else [self.value]


def _simplest(value: Any) -> Any:
    """The number of a gradient with one value, and of a list whose only entry takes every tensor."""
    if not isinstance(value, list) or len(value) != 1:
        return value
    entry = value[0].model_dump() if isinstance(value[0], Filtered) else value[0]
    if not isinstance(entry, dict):
        return entry
    takes_all = "value" in entry and entry.keys() <= {"value", "filter"} and entry.get("filter") is None
    return _simplest(entry["value"]) if takes_all else value


def _filtered(value: Any) -> Iterator[float]:
    """The numbers of a list of filters; none of other forms, whose numbers pydantic checks."""
    for entry in value if isinstance(value, list) else ():
        yield from entry.numbers if isinstance(entry, Filtered) else ()


def _shares(value: Any) -> Any:
    """Entries of a list of filters are shares, too."""
    for number in _filtered(value):
        if not number >= 0:
            raise PydanticKnownError("greater_than_equal", {"ge": 0})
        if number > 1:
            raise PydanticKnownError("less_than_equal", {"le": 1})
    return value


def _positive(value: Any) -> Any:
    """Entries of a list of filters are above 0, too."""
    if not all(number > 0 for number in _filtered(value)):
        raise PydanticKnownError("greater_than", {"gt": 0})
    return value


Number = TypeVar("Number")
# The list of filters comes first: it is the one whose entries the page of parameters describes.
_Forms = Annotated[
    Annotated[list[Filtered], Field(min_length=1), Tag(KINDS[2])]
    | Annotated[Number, Tag(KINDS[0])]
    | Annotated[list[Number], Field(min_length=1), Tag(KINDS[1])],
    Discriminator(_kind),
    BeforeValidator(_simplest),
]
Varying = _Forms[float]
VaryingShare = Annotated[_Forms[Annotated[float, Field(ge=0, le=1)]], AfterValidator(_shares)]
VaryingPositive = Annotated[_Forms[Annotated[float, Field(gt=0)]], AfterValidator(_positive)]
Setting = float | list[float] | list[Filtered]


def varies(value: Any) -> bool:
    """Whether a parameter of a recipe is not the same for every tensor."""
    return isinstance(value, list)


def has_gradient(value: Any) -> bool:
    """Whether a parameter of a recipe depends on the layer."""
    return varies(value) and any(not isinstance(entry, Filtered) or varies(entry.value) for entry in value)


def at(value: Setting, name: str, depth: float) -> float:
    """The number for one tensor. name: the tensor's; depth: 0 in the first layer, 1 in the last.

    Every list of filters ends in an entry that takes all tensors (`problems`), so that there is always a number.
    """
    if not isinstance(value, list):
        return value
    for entry in value:
        if not isinstance(entry, Filtered):
            return _between(cast("list[float]", value), depth)
        if entry.filter is None or entry.filter in name:
            return at(entry.value, name, depth)
    raise AssertionError(f"no entry of {value} takes {name}")


def _between(values: list[float], depth: float) -> float:
    """Linear interpolation: the values stand at equal distances from depth 0 to depth 1."""
    place = depth * (len(values) - 1)
    left = int(place)
    right = min(left + 1, len(values) - 1)
    share = place - left
    return (1 - share) * values[left] + share * values[right]


def problems(block: BaseModel) -> list[str]:
    """What is wrong with the order of filters in the parameters of a block, a line `key: rule` each."""
    found = []
    for name, field in type(block).model_fields.items():
        entries = getattr(block, name)
        if not isinstance(entries, list) or not all(isinstance(entry, Filtered) for entry in entries):
            continue
        *before, last = [entry.filter is None for entry in entries]
        if any(before):
            rule = "entries after the one without a filter are never reached; put that one last"
            found.append(f"{field.alias or name}: {rule}")
        elif not last:
            rule = "a tensor that no filter takes has no number; end the list with an entry without a filter"
            found.append(f"{field.alias or name}: {rule}")
    return found


def plain(value: Any) -> Any:
    """A parameter as data for YAML, without keys that are null."""
    if not isinstance(value, list):
        return value
    return [entry.model_dump(exclude_none=True) if isinstance(entry, Filtered) else entry for entry in value]


def described(value: Any) -> str:
    """A parameter for reading: `0.5`, `[0.0, 1.0] over the layers`, `(mlp 0.5, others 0.0)`."""
    if not isinstance(value, list):
        return str(value)
    if any(isinstance(entry, Filtered) for entry in value):
        parts = [f"{entry.filter or 'others'} {described(entry.value)}" for entry in value]
        return f"({', '.join(parts)})"
    return f"{value} over the layers"
