"""Recipe files: our own YAML form in and out, and mergekit's in and out."""

from pathlib import Path
from typing import Any, cast

import yaml

from tinyr1.core import params_text
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import FILE_KEYS, PLACEBOS, TAKES, About, Input, Recipe, describe, parse, parse_about, readings
from tinyr1.core.varying import plain
from tinyr1.merge import inputs
from tinyr1.merge.mergekit_document import FUSION, NO_PARAMETERS, PASSTHROUGH
from tinyr1.merge.mergekit_reading import recipe_of


def read_recipe(path: Path) -> tuple[Recipe, dict[str, Path], dict[str, Any]]:
    """(recipe, model -> place (`inputs`), settings) of a file of ours or of mergekit.

    Folders are relative to a file of ours; in mergekit's they are relative to where the command is started, as mergekit
    reads them. settings: some of FILE_KEYS and, where the file has it, `about` (`recipe.About`).
    """
    if not path.is_file():
        raise UserError(f"--recipe: {path} does not exist")
    documents = params_text.documents(params_text.text_of(path, str(path)), str(path))
    if any(isinstance(d, dict) and "merge_method" in d for d in documents):
        recipe, folders, settings = recipe_of(documents, str(path))
        start = Path()
    else:
        recipe, folders, settings = _own_form(documents[0] if len(documents) == 1 else None, path)
        start = path.parent
    return recipe, {name: inputs.place(folder, start) for name, folder in folders.items()}, settings


def _own_form(data: object, path: Path) -> tuple[Recipe, dict[str, str], dict[str, Any]]:
    if not isinstance(data, dict) or not {"recipe", "models"} <= set(data) or not isinstance(data["models"], dict):
        raise UserError(f"{path}: needs `recipe` (a merge step) and `models` (name: folder)")
    recipe, folders = parse(data["recipe"], str(path)), data["models"]
    if wrong := [name for name, folder in folders.items() if not isinstance(folder, str)]:
        raise UserError(f"{path}: models.{wrong[0]}: {folders[wrong[0]]!r} is not the path of a folder")
    settings = {key: value for key, value in data.items() if key not in ("recipe", "models", "about")}
    if extra := sorted(set(settings) - set(FILE_KEYS)):
        known = ", ".join((*FILE_KEYS, "about"))
        raise UserError(f"{path}: {', '.join(extra)}: unknown; beside recipe and models: {known}")
    for key, value in settings.items():
        kind, called = ((int, float), "a number") if key == "iqr_multiplier" else (str, "text")
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise UserError(f"{path}: {key}: {value!r} is not {called}")
    if "about" in data:
        settings["about"] = parse_about(data["about"], f"{path}: about")
    return recipe, folders, settings


def own_form(recipe: Recipe, folders: dict[str, Path], settings: dict[str, Any], about: About) -> str:
    """A recipe file of ours, which `read_recipe` reads; settings: some of FILE_KEYS."""
    models = {name: str(folder.absolute()) for name, folder in folders.items()}
    data = {"recipe": recipe.model_dump(by_alias=True, exclude_none=True), "models": models, **settings}
    data |= {"about": about.model_dump()} if about != About() else {}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


# --- mergekit's YAML ----------------------------------------------------------------------------------------


def not_in_mergekit(recipe: Recipe, reading: str | None = None) -> list[str]:
    """What a recipe does that no configuration of mergekit can ask for, a sentence each.

    Settings of fusion that mergekit has under another value are not among them; `to_mergekit` makes comments of those.
    """
    said = [f"{describe(s)}: mergekit has no `mask: {s.mask}`" for s in recipe.steps if s.mask in PLACEBOS]
    said += [f"{describe(s)}: mergekit has no method noise" for s in recipe.steps if s.method == "noise"]
    without = [s for s in recipe.steps if s.method == "fusion" and (s.reading or reading) == "magnitude"]
    said += [f"{describe(s)}: mergekit's fusion has no reading magnitude" for s in without]
    stacks = (step for step in recipe.steps if step.method == "stack" and not _in_slices(step))
    return said + [f"{describe(s)}: mergekit stacks ranges of layers; give `layers` of each model" for s in stacks]


def to_mergekit(
    recipe: Recipe, folders: dict[str, str], dtype: str | None, out_dtype: str | None, reading: str | None = None,
    iqr_multiplier: float | None = None, tokenizer_source: str | None = None, chat_template: str | None = None,
) -> str:  # fmt: skip
    """The recipe as mergekit configuration; several documents, as mergekit-multi reads them, for a nested one.

    Folders are written absolute, so that the file can be used from anywhere. mergekit has one reading of fusion and
    λ = 1.5, and takes seeds elsewhere: settings of these, of the whole merge (reading, iqr_multiplier) or of a step,
    become comments. UserError for what mergekit cannot do at all, see `not_in_mergekit`.
    """
    if problems := not_in_mergekit(recipe, reading):
        raise UserError("this merge cannot be written for mergekit:\n" + "\n".join(problems))
    source = tokenizer_source
    if source not in (None, "base", "union"):  # also where a model has such a name
        source = _absolute(source, folders)
    whole = {"dtype": dtype, "out_dtype": out_dtype, "tokenizer_source": source, "chat_template": chat_template}
    writer = _Writer(folders, whole)
    if readings(recipe, ""):
        writer.comment("fusion", {"reading": reading, "iqr_multiplier": iqr_multiplier})
    writer.add(recipe)
    if len(writer.documents) == 1:
        del writer.documents[0]["name"]
    return "".join(writer.comments) + yaml.safe_dump_all(writer.documents, sort_keys=False)


def _absolute(model: str, folders: dict[str, str]) -> str:
    """The absolute path of a model whose folder is known, and the name of any other."""
    return str(Path(folders[model]).absolute()) if model in folders else model


class _Writer:
    """Steps as documents, the inner ones first. whole: keys of the whole merge, which every document repeats."""

    def __init__(self, folders: dict[str, str], whole: dict[str, str | None]) -> None:
        self.folders, self.whole = folders, whole
        self.documents: list[dict[str, Any]] = []
        self.comments: dict[str, None] = {}  # each once, in order

    def comment(self, whose: str, settings: dict[str, Any]) -> None:
        if said := ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None):
            self.comments[f"# not in mergekit: {whose} with {said}\n"] = None

    def add(self, step: Recipe) -> str:
        """Write a step and those inside it; returns the name of its document."""
        slices = _in_slices(step)
        body = self._sliced(slices) if slices else self._whole(step)
        method = _method(slices[0]) if slices else step.method
        name = f"step-{len(self.documents) + 1}"
        for one in [entry.model for entry in slices if entry.layers is None] if slices else [step]:
            self.comment(name, {key: getattr(one, key) for key in ("reading", "iqr_multiplier", "seed")})
        order = {"name": name, "models": None, "slices": None, "merge_method": FUSION if method == "fusion" else method}
        document = order | body | self.whole
        self.documents.append({key: value for key, value in document.items() if value is not None})
        return name

    def _place(self, part: str | Recipe) -> str:
        if isinstance(part, Recipe):
            return self.add(part)
        return _absolute(part, self.folders)

    def _whole(self, step: Recipe) -> dict[str, Any]:
        """A step over whole models."""
        body: dict[str, Any] = {"models": []}
        if step.base is not None:
            body["base_model"] = self._place(step.base)
        if step.other is not None:
            body["models"] = [{"model": self._place(step.other)}, {"model": body["base_model"]}]
        for one in step.models or ():
            body["models"].append({"model": self._place(one.model), **_parameters(one, TAKES[step.method][1])})
        return body | _parameters(step, TAKES[step.method][0])

    def _sliced(self, entries: list[Input]) -> dict[str, Any]:
        """Layers of models and steps over such layers, one upon the other."""
        slices = [self._slice(entry) for entry in entries]
        base = {"base_model": slices[0]["base_model"]} if "base_model" in slices[0] else {}
        if len(slices) > 1:
            return {"slices": slices, **base}
        parameters = slices[0].pop("parameters", None)
        return {"slices": [{"sources": slices[0]["sources"]}], **base, "parameters": parameters}

    def _slice(self, entry: Input) -> dict[str, Any]:
        if entry.layers is not None:
            return {"sources": [{"model": self._place(entry.model), "layer_range": entry.layers}]}
        step = cast(Recipe, entry.model)
        sources = [self._layers(one.model) | _parameters(one, TAKES[step.method][1]) for one in step.models or ()]
        sources += [self._layers(part) for part in (step.other, step.base) if part is not None]
        base = {} if step.base is None else {"base_model": sources[-1]["model"]}
        return {"sources": sources, **base, **_parameters(step, TAKES[step.method][0])}

    def _layers(self, part: str | Recipe) -> dict[str, Any]:
        """A source of a slice."""
        entry = cast(Input, _cut(part))
        return {"model": self._place(entry.model), "layer_range": entry.layers}


def _in_slices(step: Recipe) -> list[Input] | None:
    """A step as entries of a stack that mergekit can make with slices of one method; None where it cannot."""
    entries = (step.models or []) if step.method == "stack" else [Input(model=step)]
    methods = {_method(entry) for entry in entries}
    return entries if len(methods) == 1 and None not in methods else None


def _method(entry: Input) -> str | None:
    """mergekit's method for an entry of a stack as a slice: layers of one model, or a step over such layers."""
    if entry.layers is not None:
        return PASSTHROUGH
    step = entry.model
    if isinstance(step, str) or step.method == "stack" or not all(_cut(part) for part in step.parts):
        return None
    return step.method


def _cut(part: str | Recipe) -> Input | None:
    """The model and its layers, where a part is some layers of one model."""
    entries = part.models if isinstance(part, Recipe) and part.method == "stack" else None
    return entries[0] if entries and len(entries) == 1 and entries[0].layers is not None else None


def _parameters(block: Recipe | Input, keys: set[str]) -> dict[str, Any]:
    """The parameters of a block among these keys that are given, in the order of its fields."""
    fields = {field.alias or name: name for name, field in type(block).model_fields.items()}
    values = {key: getattr(block, name) for key, name in fields.items() if key in keys - NO_PARAMETERS}
    given = {key: plain(value) for key, value in values.items() if value is not None}
    return {"parameters": given} if given else {}


def from_mergekit(text: str, name: str) -> tuple[Recipe, dict[str, str], dict[str, Any]]:
    """(recipe, model -> folder, settings) of mergekit YAML with one or several documents.

    UserError for everything that has no counterpart here.
    """
    return recipe_of(params_text.documents(text, name), name)
