"""Merge recipes: any nesting of merge methods as data, for params, files and mergekit's YAML.

    {method: fusion, base: code, right: {method: fusion, base: science, right: math}}

is the released order (math & science) & code: science takes entries of math, then code takes entries of the result
(ledger §3.1). A string names a model; where its folder is, is said elsewhere.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from tinyr1.blocks import Method

READINGS = ("exact", "released", "paper")  # of fusion, see tinyr1.fusion
DTYPE_NAMES = ("bfloat16", "float16", "float32")  # that a merge converts to
_MODEL_KEYS = ("weight", "density", "gamma", "epsilon")
_SPARSE = {"models", "base", "normalize", "lambda", "rescale"}
# What each method takes: keys of the recipe, and keys of each of its models beside `model`.
TAKES: dict[str, tuple[set[str], set[str]]] = {
    "fusion": ({"base", "right", "reading", "iqr_multiplier"}, set()),
    "slerp": ({"base", "right", "t"}, set()),
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
_NEEDED = {"base", "right", "models", "t"}
FUSION_IN_MERGEKIT = "arcee_fusion"
FILE_KEYS = ("reading", "iqr_multiplier", "dtype", "out_dtype", "tokenizer")  # beside recipe and models


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says what is wrong and what is allowed."""


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
    """One merge step. base keeps what the others do not change; right is the other model of a two-model method."""

    method: Literal[tuple(TAKES)]
    base: "str | Recipe | None" = None
    right: "str | Recipe | None" = None
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
        pair = [part for part in (self.base, self.right) if part is not None]
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


def build(recipe: Recipe, reading: str, iqr_multiplier: float) -> "Method":
    """The method of the outermost step; reading and λ for fusion steps that name none.

    Inner steps are checked too. ValueError as the method's.
    """
    from tinyr1.fusion import Fusion  # a params file is checked without waiting for PyTorch
    from tinyr1.methods import METHODS

    for part in recipe.parts:
        if isinstance(part, Recipe):
            build(part, reading, iqr_multiplier)
    if recipe.method == "fusion":
        own = recipe.iqr_multiplier
        return Fusion(recipe.reading or reading, iqr_multiplier if own is None else own)
    settings = {k: getattr(recipe, k) for k in ("t", "normalize", "rescale", "lambda_", "seed")}
    settings = {k: v for k, v in settings.items() if v is not None}
    for key in TAKES[recipe.method][1]:
        values = tuple(getattr(one, key) for one in recipe.models or ())
        if any(v is not None for v in values):
            if None in values:
                raise ValueError(f"models: {key} is given for some models only; give it for all or for none")
            settings[key] = values
    return METHODS[recipe.method](**settings)


def readings(recipe: Recipe, reading: str) -> set[str]:
    """The readings of all fusion steps; `reading` for those that name none."""
    inner = [readings(part, reading) for part in recipe.parts if isinstance(part, Recipe)]
    return set().union(*inner, {recipe.reading or reading} if recipe.method == "fusion" else ())


def describe(recipe: Recipe | str) -> str:
    """A recipe for reading: the paper's (math & science) & code for fusion, base last; else method(base; models)."""
    if isinstance(recipe, str):
        return recipe
    if recipe.method == "fusion":
        parts = [f"({describe(p)})" if isinstance(p, Recipe) else p for p in (recipe.right, recipe.base)]
        return " & ".join(parts)
    return f"{recipe.method}({', '.join(describe(p) for p in recipe.parts)})"


def parse(data: object, name: str) -> Recipe:
    """A recipe from a mapping. RecipeError lists every problem; `name` is how it calls the source."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = {line for item in error.errors() if (line := _problem(item)) is not None}
        raise RecipeError("\n".join(f"{name}: {line}" for line in sorted(lines))) from error


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


def read(path: Path) -> tuple[Recipe, dict[str, Path], dict]:
    """A recipe file of ours (recipe, models, options) or of mergekit (merge_method); folders relative to the file."""
    if not path.is_file():
        raise RecipeError(f"--recipe: {path} does not exist")
    text = path.read_text(encoding="utf-8")
    documents = _documents(text, str(path))
    if any(isinstance(d, dict) and "merge_method" in d for d in documents):
        steps, folders, settings = from_mergekit(text, str(path))
    else:
        data = documents[0] if len(documents) == 1 else None
        if not isinstance(data, dict) or not {"recipe", "models"} <= set(data) or not isinstance(data["models"], dict):
            raise RecipeError(f"{path}: needs `recipe` (a merge step) and `models` (name: folder)")
        steps, folders = parse(data.pop("recipe"), str(path)), data.pop("models")
        if wrong := [name for name, folder in folders.items() if not isinstance(folder, str)]:
            raise RecipeError(f"{path}: models.{wrong[0]}: {folders[wrong[0]]!r} is not the path of a folder")
        settings = data
        if extra := sorted(set(settings) - set(FILE_KEYS)):
            raise RecipeError(f"{path}: {', '.join(extra)}: unknown; beside recipe and models: {', '.join(FILE_KEYS)}")
        for key, value in settings.items():
            kind, called = ((int, float), "a number") if key == "iqr_multiplier" else (str, "text")
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
                raise RecipeError(f"{path}: {key}: {value!r} is not {called}")
    return steps, {name: path.parent / Path(folder) for name, folder in folders.items()}, settings


def _documents(text: str, name: str) -> list:
    """The YAML documents of a file that are not empty."""
    try:
        return [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from error


# --- mergekit's YAML ----------------------------------------------------------------------------------------


def to_mergekit(
    recipe: Recipe, folders: dict[str, str], dtype: str | None, out_dtype: str | None, reading: str | None = None,
    iqr_multiplier: float | None = None,
) -> str:  # fmt: skip
    """The recipe as mergekit configuration; several documents, as mergekit-multi reads them, for a nested one.

    Folders are written absolute, so that the file can be used from anywhere. mergekit has one reading of fusion and
    λ = 1.5, and takes seeds elsewhere: what the whole merge (reading, iqr_multiplier) or a step sets of these is a
    comment.
    """
    documents: list[dict] = []
    comments: list[str] = []

    def place(part: "str | Recipe") -> str:
        if isinstance(part, Recipe):
            return step(part)
        return str(Path(folders[part]).absolute()) if part in folders else part

    def say(whose: str, settings: dict) -> None:
        if said := ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None):
            comments.append(f"# not in mergekit: {whose} with {said}\n")

    def step(recipe: Recipe) -> str:
        base = {} if recipe.base is None else {"base_model": place(recipe.base)}
        models = [{"model": place(recipe.right)}, {"model": base["base_model"]}] if recipe.right is not None else []
        for one in recipe.models or ():
            settings = {k: getattr(one, k) for k in TAKES[recipe.method][1] if getattr(one, k) is not None}
            models.append({"model": place(one.model), "parameters": settings})
        shared = {"t": recipe.t, "normalize": recipe.normalize, "rescale": recipe.rescale, "lambda": recipe.lambda_}
        shared = {k: v for k, v in shared.items() if v is not None}
        name = f"step-{len(documents) + 1}"
        say(name, {k: getattr(recipe, k) for k in ("reading", "iqr_multiplier", "seed")})
        method = FUSION_IN_MERGEKIT if recipe.method == "fusion" else recipe.method
        documents.append({
            "name": name, "models": models, "merge_method": method, **base,
            **({"parameters": shared} if shared else {}),
            **({"dtype": dtype} if dtype else {}), **({"out_dtype": out_dtype} if out_dtype else {}),
        })  # fmt: skip
        return name

    if readings(recipe, ""):
        say("fusion", {"reading": reading, "iqr_multiplier": iqr_multiplier})
    step(recipe)
    if len(documents) == 1:
        del documents[0]["name"]
    return "".join(comments) + yaml.safe_dump_all(documents, sort_keys=False)


def from_mergekit(text: str, name: str) -> tuple[Recipe, dict[str, str], dict]:
    """(recipe, model -> folder, {dtype, out_dtype, tokenizer}) of mergekit YAML with one or several documents.

    RecipeError for what has no counterpart here: slices, gradients and filters, unions of tokenizers, other methods.
    """
    documents = _documents(text, name)
    if not documents or not all(isinstance(d, dict) for d in documents):
        raise RecipeError(f"{name}: expected a mapping with merge_method and models")
    steps: dict[str, Recipe] = {}
    folders: dict[str, str] = {}

    def place(value: object) -> str | Recipe:
        model = value.get("model") if isinstance(value, dict) else value
        if not isinstance(model, str):
            raise RecipeError(f"{name}: {model!r} is not the folder of a model")
        if model not in steps:
            folders[model] = model
        return steps.get(model, model)

    for document in documents:
        recipe = _mergekit_step(document, place, name)
        steps[str(document.get("name", ""))] = recipe
    last = documents[-1]
    for key in ("dtype", "out_dtype", "tokenizer_source"):
        if len({str(d.get(key)) for d in documents}) > 1:
            raise RecipeError(f"{name}: {key} differs between the documents; one merge has one")
    settings = {k: last.get(k) for k in ("dtype", "out_dtype")}
    source = last.get("tokenizer_source")
    if source not in (None, "base"):
        if source not in folders:
            raise RecipeError(f"{name}: tokenizer_source {source!r} is not one of the models; name one, or base")
        settings["tokenizer"] = source
    return recipe, folders, settings


def _mergekit_step(document: dict, place: Any, name: str) -> Recipe:
    known = {"name", "models", "merge_method", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source"}
    if extra := sorted(set(document) - known):
        raise RecipeError(f"{name}: {', '.join(extra)}: cannot be read here; only whole models, constant parameters")
    method = document.get("merge_method")
    if method == FUSION_IN_MERGEKIT:
        method = "fusion"
    if not isinstance(method, str) or method not in TAKES:
        raise RecipeError(f"{name}: merge_method {method!r} is not known here; known: {', '.join(TAKES)}")
    takes, model_takes = TAKES[method]
    base, parameters = document.get("base_model"), document.get("parameters") or {}
    if not isinstance(parameters, dict) or not isinstance(document.get("models") or [], list):
        raise RecipeError(f"{name}: parameters must be a mapping and models a list")
    models = [m if isinstance(m, dict) else {"model": m} for m in document.get("models") or []]
    others = [m for m in models if m.get("model") != base]
    data: dict[str, Any] = {"method": method}
    if "base" in takes:
        data["base"] = None if base is None else place(base)
    if "right" in takes:
        if len(others) != 1:
            raise RecipeError(f"{name}: {method} merges a base_model with one other model, found {len(others)}")
        data["right"] = place(others[0])
    else:
        shared = {k: v for k, v in parameters.items() if k in model_takes}
        listed = others if "base" in takes else models
        data["models"] = [
            {"model": place(m), **shared, **(m.get("parameters") or {})} for m in listed
        ]
    ignored = {"int8_mask"}  # an engine setting that changes no result
    data |= {k: v for k, v in parameters.items() if k not in model_takes | ignored}
    if any(isinstance(v, (list, dict)) for v in parameters.values()):
        raise RecipeError(f"{name}: parameters that vary over layers or tensors cannot be read here")
    for one in data.get("models", ()):
        one.pop("int8_mask", None)
    return parse(data, name)
