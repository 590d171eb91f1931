"""Merge recipes: any nesting of merge methods as data, for params files, recipe files and mergekit's YAML.

    {method: fusion, base: code, other: {method: fusion, base: science, other: math}}

is the released order (math & science) & code: science takes entries of math, then code takes entries of that result
(docs/fidelity.md §3.1). A string is the name of a model; the caller knows the folder of each name.

    {method: stack, models: [{model: math, layers: [0, 24]}, {model: code, layers: [20, 40]}]}

has the first 24 layers of math and upon them the last 20 of code. Steps take and give whole models, so that layers of a
model can stand wherever a model can.
"""

from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from tinyr1.core.errors import UserError
from tinyr1.core.varying import KINDS, STRICT, Varying, VaryingPositive, VaryingShare, has_gradient, problems, varies

Reading = Literal["exact", "released", "paper", "magnitude"]  # of fusion; tinyr1.merge.fusion defines them
READINGS: tuple[str, ...] = get_args(Reading)
Mask = Literal["importance", "random", "largest"]  # of fusion; the last two: tinyr1.merge.methods.placebo
PLACEBOS: tuple[str, ...] = get_args(Mask)[1:]
DTYPE_NAMES = ("bfloat16", "float16", "float32")  # a merge converts to one of these
MethodName = Literal[
    "fusion", "slerp", "linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "della_linear", "della",
    "breadcrumbs", "breadcrumbs_ties", "nuslerp", "multislerp", "karcher", "sce", "model_stock", "nearswap",
    "passthrough", "noise", "stack",
]  # fmt: skip
Block = TypeVar("Block", bound=BaseModel)
_MODEL_KEYS = ("weight", "density", "gamma", "epsilon", "scale", "layers")
_SPARSE = {"models", "base", "normalize", "lambda", "rescale"}
# What each method takes: keys of the recipe, and keys of each of its models beside `model`.
TAKES: dict[str, tuple[set[str], set[str]]] = {
    "fusion": ({"base", "other", "reading", "iqr_multiplier", "mask", "seed"}, set()),
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
    "nuslerp": ({"models", "base", "nuslerp_flatten", "nuslerp_row_wise"}, {"weight"}),
    "multislerp": ({"models", "base", "normalize_weights", "eps"}, {"weight"}),
    "karcher": ({"models", "max_iter", "tol"}, set()),
    "sce": ({"models", "base", "select_topk"}, set()),
    "model_stock": ({"models", "base", "filter_wise"}, set()),
    "nearswap": ({"base", "other", "t"}, set()),
    "passthrough": ({"models"}, {"scale"}),
    "noise": ({"base", "other", "seed"}, set()),
    "stack": ({"models"}, {"layers"}),
}
_NEEDED = {"base", "other", "models", "t"}
_DEFAULTS = {"weight": 1.0}  # of a model's keys; the others are null where they are not given
PARTS = {"base", "other", "models"}  # keys of a step that name models; its other keys are settings
BASE_OPTIONAL = ("nuslerp", "multislerp")  # with a base they merge differences to it, without one whole models
FILE_KEYS = (  # of a recipe file, beside recipe and models
    "reading", "iqr_multiplier", "dtype", "out_dtype", "tokenizer", "tokenizer_source", "chat_template",
)  # fmt: skip


class _Strict(BaseModel):
    model_config = STRICT


def _is_none(value: object) -> bool:
    """For keys that are younger than merges which people keep: one that is not given is not written, so that the
    identity of such a merge, which is a hash of its recipe, stays what it was."""
    return value is None


class Input(_Strict):
    """One of the models of a method that takes any number of them, with its own settings."""

    model: "str | Recipe"
    """Name of a model, or a merge step."""
    weight: Varying = 1.0
    """Its weight in the sum; karcher, sce, model_stock, passthrough and stack take none. Where a type allows lists, a
    list of numbers is a gradient from the first layer to the last, and a list of filters has a number for each kind of
    tensor."""
    density: VaryingShare | None = None
    """Share of its difference to the base that takes part; null: all of it. Methods that prune."""
    gamma: Varying | None = None
    """Share of the largest differences that breadcrumbs drop; null: 0.01."""
    epsilon: Varying | None = None
    """DELLA: probabilities run from density - epsilon to density + epsilon with the rank in a row; null: 0.15."""
    scale: Varying | None = Field(default=None, exclude_if=_is_none)
    """Factor on the entries of the model of passthrough; null: none."""
    layers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(default=None, exclude_if=_is_none)
    """Stacks: the first of its layers that are taken, counted from 0, and the first one after them; null: all."""

    @model_validator(mode="after")
    def _is_in_order(self) -> "Input":
        wrong = problems(self)
        if self.layers and not 0 <= self.layers[0] < self.layers[1]:
            wrong.append(f"layers: {self.layers} takes no layer; give the first, counted from 0, and the one after the "
                         "last")  # fmt: skip
        if wrong:
            raise ValueError("\n".join(wrong))
        return self


class About(_Strict):
    """Where the models of a merge come from, for its card; the key `about` of a recipe file."""

    base_model: list[str] = []
    """Hugging Face ids of the models that they were trained from."""
    data: dict[str, str] = {}
    """Data that they were trained on, Hugging Face ids where there are some -> licence."""


class Recipe(_Strict):
    """One merge step. Each method takes some of the keys; an error names those that it takes."""

    method: MethodName
    """The method; `fusion` is Arcee Fusion (tinyr1.merge.fusion), `noise` a control (tinyr1.merge.methods.placebo),
    `stack` puts layers of models upon each other, the others are those of mergekit by its names."""
    base: "str | Recipe | None" = None
    """The model, or step, that keeps its entries where the step changes nothing; nuslerp and multislerp can do without
    one."""
    other: "str | Recipe | None" = None
    """The second model, or step, of fusion, slerp, nearswap and noise, which take exactly two."""
    models: list[Input] | None = Field(default=None, min_length=1)
    """The models of the other methods; with a base, their differences to it are merged. Stacks: the lowest layers
    first; what lies before the layers comes from the first model, what lies after them from the last."""
    reading: Reading | None = None
    """Which reading of fusion; null: that of the whole merge."""
    iqr_multiplier: float | None = Field(default=None, ge=0)
    """λ of fusion's threshold; null: that of the whole merge."""
    mask: Mask | None = None
    """Which entries fusion takes: `importance`, those whose importance reaches the threshold; `random` and `largest`
    (by |other - base|) are its controls and take as many entries of each tensor; null: importance."""
    t: VaryingShare | None = None
    """Place of slerp between base (0) and other (1); of nearswap, the difference up to which an entry is that of
    other."""
    normalize: bool | None = None
    """Whether the sum is divided by the sum of the weights; null: the method's own default."""
    rescale: bool | None = None
    """Whether the entries that pruning leaves are scaled up; null: the method's own default."""
    lambda_: Varying | None = Field(default=None, alias="lambda")
    """Factor on the sum of the differences; null: 1."""
    seed: int | None = None
    """Seed of the random masks of DARE, DELLA and fusion with `mask: random`, and of noise; null: 0."""
    nuslerp_flatten: bool | None = Field(default=None, exclude_if=_is_none)
    """Whether nuslerp takes a tensor as one vector; null: true. Otherwise each of its rows is one."""
    nuslerp_row_wise: bool | None = Field(default=None, exclude_if=_is_none)
    """Whether the vectors of nuslerp with `nuslerp_flatten: false` run along the first dimension, so that those of a
    matrix are its columns; null: false. The name is mergekit's."""
    normalize_weights: bool | None = Field(default=None, exclude_if=_is_none)
    """Whether the weights of multislerp are divided by their sum; null: true."""
    eps: VaryingPositive | None = Field(default=None, exclude_if=_is_none)
    """Length below which the mean direction of multislerp counts as none; null: 1e-8."""
    max_iter: int | None = Field(default=None, exclude_if=_is_none, ge=0)
    """Most steps of karcher towards the mean; null: 10."""
    tol: VaryingPositive | None = Field(default=None, exclude_if=_is_none)
    """Length of a step of karcher at which it stops, and of a vector that has no direction; null: 1e-5."""
    select_topk: VaryingShare | None = Field(default=None, exclude_if=_is_none)
    """Share of the entries that differ between models which sce takes, those of the largest variance; null: 1."""
    filter_wise: bool | None = Field(default=None, exclude_if=_is_none)
    """Whether model_stock takes an angle for each row and not for the whole tensor; null: false."""

    @model_validator(mode="before")
    @classmethod
    def _names_the_key_of_today(cls, data: Any) -> Any:
        if isinstance(data, dict) and "right" in data:
            raise ValueError("right: unknown; this key is called `other` now, rename it")
        return data

    @model_validator(mode="after")
    def _fits_method(self) -> "Recipe":
        takes, model_takes = TAKES[self.method]
        given = {k for k, v in self.model_dump(by_alias=True).items() if v is not None} - {"method"}
        wrong = [f"{k}: {self.method} does not take it; it takes {', '.join(sorted(takes))}" for k in given - takes]
        needed = (_NEEDED & takes) - ({"base"} if self.method in BASE_OPTIONAL else set())
        wrong += [f"{k}: is missing; {self.method} needs it" for k in needed - given]
        if self.method == "fusion" and self.seed is not None and self.mask != "random":
            wrong.append("seed: only fusion with `mask: random` draws numbers; remove it")
        for one in self.models or ():
            extra = {k for k in _MODEL_KEYS if getattr(one, k) not in (None, _DEFAULTS.get(k))} - model_takes
            wrong += [f"models: {self.method} takes no {k} for a model; remove it" for k in sorted(extra)]
        wrong += problems(self)
        if wrong:
            raise ValueError("\n".join(sorted(wrong)))
        return self

    @property
    def parts(self) -> "tuple[str | Recipe, ...]":
        """The models and steps that this step merges, in the order of its blocks: the base first."""
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

    @property
    def steps(self) -> "tuple[Recipe, ...]":
        """This step and all steps inside it."""
        return (self, *(s for part in self.parts if isinstance(part, Recipe) for s in part.steps))

    @property
    def varies(self) -> bool:
        """Whether a number of this step, not of the steps inside it, differs between tensors."""
        return any(varies(value) for value in self.settings)

    @property
    def counts_layers(self) -> bool:
        """Whether the result depends on the number of layers: of gradients and stacks, here and in the steps inside."""
        gradients = (has_gradient(value) for step in self.steps for value in step.settings)
        return self.stacks or any(gradients)

    @property
    def stacks(self) -> bool:
        """Whether this step, or one inside it, stacks layers, so that tensors change their names."""
        return any(step.method == "stack" for step in self.steps)

    @property
    def settings(self) -> list[Any]:
        """The parameters of this step and of its models; neither models nor ranges of layers."""
        own = [getattr(self, name) for name in type(self).model_fields if name != "models"]
        return own + [getattr(one, key) for one in self.models or () for key in _MODEL_KEYS if key != "layers"]


def readings(recipe: Recipe, reading: str) -> set[str]:
    """The readings of all fusion steps; `reading` for those that name none."""
    return {step.reading or reading for step in recipe.steps if step.method == "fusion"}


def describe(recipe: Recipe | str) -> str:
    """A recipe for reading: the paper's (math & science) & code for fusion, base last; else method(base, models).

    A fusion step with another mask than importance says so: math &random science. A stack is math[0:24] + code[20:40].
    """
    if isinstance(recipe, str):
        return recipe
    if recipe.method == "stack":
        return " + ".join(map(_described_layers, recipe.models or ()))
    if recipe.method != "fusion":
        return f"{recipe.method}({', '.join(describe(part) for part in recipe.parts)})"
    base, other = recipe.parts
    sign = f" &{recipe.mask} " if recipe.mask in PLACEBOS else " & "
    return sign.join(f"({describe(p)})" if isinstance(p, Recipe) else p for p in (other, base))


def _described_layers(one: Input) -> str:
    text = describe(one.model)
    if one.layers is None:
        return text
    is_call = isinstance(one.model, str) or one.model.method not in ("fusion", "stack")
    return f"{text if is_call else f'({text})'}[{one.layers[0]}:{one.layers[1]}]"


def parse(data: object, name: str) -> Recipe:
    """A recipe from a mapping. UserError lists every problem; `name` is how it calls the source."""
    return _parsed(Recipe, data, name)


def parse_about(data: object, name: str) -> About:
    """The key `about` of a recipe file. UserError lists every problem; `name` is how it calls the source."""
    return _parsed(About, data, name)


def _parsed(kind: type[Block], data: object, name: str) -> Block:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = {line for item in error.errors() for line in _problems(dict(item))}
        raise UserError("\n".join(f"{name}: {line}" for line in sorted(lines))) from error


def _problems(item: dict[str, Any]) -> list[str]:
    """One of pydantic's errors as lines `path: rule`.

    pydantic tries a part both as a name and as a step; only the error of the kind that the part has counts.
    """
    path = [str(p) for p in item["loc"] if p not in ("str", *KINDS) and "Recipe" not in str(p)]
    if item["loc"][-1:] == ("str",):
        if isinstance(item["input"], dict):
            return []
        said = f"{item['input']!r} is neither the name of a model nor a merge step"
    elif item["type"] == "model_type" and "Recipe" in str(item["loc"][-1:]):
        return []
    elif item["type"] == "model_type" and path:
        said = f"{item['input']!r} is not a mapping"
    elif item["type"] == "value_error":  # of the validators above, whose lines begin with a key
        return [".".join([*path, line]) for line in str(item["ctx"]["error"]).splitlines()]
    elif item["type"] == "extra_forbidden":
        said = "unknown key; remove it or correct its spelling"
    else:
        said = item["msg"]
    return [f"{'.'.join(path)}: {said}" if path else said]
