"""Merge recipes: any nesting of merge methods as data, for params, files and mergekit's YAML.

    {method: fusion, base: code, other: {method: fusion, base: science, other: math}}

is the released order (math & science) & code: science takes entries of math, then code takes entries of the result
(ledger §3.1). A string names a model; where its folder is, is said elsewhere.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinyr1.core.errors import UserError

READINGS = ("exact", "released", "paper")  # of fusion, see tinyr1.merge.fusion
DTYPE_NAMES = ("bfloat16", "float16", "float32")  # that a merge converts to
_MODEL_KEYS = ("weight", "density", "gamma", "epsilon")
_SPARSE = {"models", "base", "normalize", "lambda", "rescale"}
# What each method takes: keys of the recipe, and keys of each of its models beside `model`.
TAKES: dict[str, tuple[set[str], set[str]]] = {
    "fusion": ({"base", "other", "reading", "iqr_multiplier"}, set()),
    "slerp": ({"base", "other", "t"}, set()),
    "linear": ({"models", "normalize"}, {"weight"}),
    "task_arithmetic": (_SPARSE - {"rescale"}, {"weight"}),
    "ties": (_SPARSE, {"weight", "density"}),
    "dare_linear": (_SPARSE | {"seed"}, {"weight", "density"}),
    "dare_ties": (_SPARSE | {"seed"}, {"weight", "density"}),
    "della_linear": (_SPARSE | {"seed"}, {"weight", "density", "epsilon"}),
    "della": (_SPARSE | {"seed"}, {"weight", "density", "epsilon"}),
    "breadcrumbs": (_SPARSE, {"weight", "density", "gamma"}),
    "breadcrumbs_ties": (_SPARSE, {"weight", "density", "gamma"}),
}
_NEEDED = {"base", "other", "models", "t"}
FILE_KEYS = ("reading", "iqr_multiplier", "dtype", "out_dtype", "tokenizer")  # beside recipe and models


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Input(_Block):
    """One of the models that a method takes in any number, with its own settings."""

    model: "str | Recipe"
    weight: float = 1.0
    density: float | None = Field(default=None, ge=0, le=1)
    gamma: float | None = None
    epsilon: float | None = None


class Recipe(_Block):
    """One merge step. base keeps what the others do not change; other is the other model of a two-model method."""

    method: Literal[tuple(TAKES)]
    base: "str | Recipe | None" = None
    other: "str | Recipe | None" = None
    models: list[Input] | None = Field(default=None, min_length=1)
    reading: Literal[READINGS] | None = None  # null: what the whole merge uses
    iqr_multiplier: float | None = Field(default=None, ge=0)
    t: float | None = Field(default=None, ge=0, le=1)
    normalize: bool | None = None  # null: the method's own default, as for the next two
    rescale: bool | None = None
    lambda_: float | None = Field(default=None, alias="lambda")
    seed: int | None = None  # of the random masks; null: 0

    @model_validator(mode="after")
    def _fits_method(self) -> "Recipe":
        takes, model_takes = TAKES[self.method]
        given = {k for k, v in self.model_dump(by_alias=True).items() if v is not None} - {"method"}
        problems = [f"{k}: {self.method} does not take it; it takes {', '.join(sorted(takes))}" for k in given - takes]
        problems += [f"{k}: is missing; {self.method} needs it" for k in (_NEEDED & takes) - given]
        for one in self.models or ():
            extra = {k for k in _MODEL_KEYS if getattr(one, k) is not None} - model_takes
            problems += [f"models: {self.method} takes no {k} for a model" for k in sorted(extra - {"weight"})]
        if problems:
            raise ValueError("\n".join(sorted(problems)))
        return self

    @property
    def parts(self) -> "tuple[str | Recipe, ...]":
        """What the method merges, in the order of its blocks: the base first."""
        pair = [part for part in (self.base, self.other) if part is not None]
        return (*pair, *(one.model for one in self.models or ()))

    @property
    def leaves(self) -> tuple[str, ...]:
        """Model names, nested recipes opened, in the order of `parts`."""
        return tuple(n for p in self.parts for n in (p.leaves if isinstance(p, Recipe) else (p,)))

    @property
    def main_leaf(self) -> str:
        """The model whose config and tokenizer the result takes: the base of the last step, else the first model."""
        first = self.parts[0]
        return first if isinstance(first, str) else first.main_leaf


def readings(recipe: Recipe, reading: str) -> set[str]:
    """The readings of all fusion steps; `reading` for those that name none."""
    inner = [readings(part, reading) for part in recipe.parts if isinstance(part, Recipe)]
    return set().union(*inner, {recipe.reading or reading} if recipe.method == "fusion" else ())


def describe(recipe: Recipe | str) -> str:
    """A recipe for reading: the paper's (math & science) & code for fusion, base last; else method(base; models)."""
    if isinstance(recipe, str):
        return recipe
    if recipe.method == "fusion":
        parts = [f"({describe(p)})" if isinstance(p, Recipe) else p for p in (recipe.other, recipe.base)]
        return " & ".join(parts)
    return f"{recipe.method}({', '.join(describe(p) for p in recipe.parts)})"


def parse(data: object, name: str) -> Recipe:
    """A recipe from a mapping. UserError lists every problem; `name` is how it calls the source."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = {line for item in error.errors() if (line := _problem(item)) is not None}
        raise UserError("\n".join(f"{name}: {line}" for line in sorted(lines))) from error


def _problem(item: Any) -> str | None:
    """A line for one of pydantic's errors; a part is tried as a name and as a step, one of them counts."""
    path = [str(p) for p in item["loc"] if p != "str" and "Recipe" not in str(p)]
    message = item["msg"]
    if item["loc"][-1:] == ("str",):
        if isinstance(item["input"], dict):
            return None
        message = f"{item['input']!r} is neither the name of a model nor a merge step"
    elif item["type"] == "model_type" and path:
        return None
    return f"{'.'.join(path)}: {message}"
