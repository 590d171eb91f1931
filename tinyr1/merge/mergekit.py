"""Recipe files: our own YAML form in and out, and mergekit's in and out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import FILE_KEYS, PLACEBOS, TAKES, About, Recipe, describe, parse, parse_about, readings

FUSION_IN_MERGEKIT = "arcee_fusion"
MERGEKIT_KEYS = {
    "name", "models", "merge_method", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "chat_template",
}  # fmt: skip


def read_recipe(path: Path) -> tuple[Recipe, dict[str, Path], dict[str, Any]]:
    """(recipe, model -> folder, settings) of a file of ours or of mergekit; folders are relative to the file.

    settings: some of FILE_KEYS and, where the file has it, `about` (`recipe.About`).
    """
    if not path.is_file():
        raise UserError(f"--recipe: {path} does not exist")
    text = path.read_text(encoding="utf-8")
    documents = _documents(text, str(path))
    if any(isinstance(d, dict) and "merge_method" in d for d in documents):
        recipe, folders, settings = from_mergekit(text, str(path))
    else:
        recipe, folders, settings = _own_form(documents[0] if len(documents) == 1 else None, path)
    return recipe, {name: path.parent / Path(folder) for name, folder in folders.items()}, settings


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


def _documents(text: str, name: str) -> list[Any]:
    """The YAML documents of a file that are not empty."""
    try:
        return [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not valid YAML: {error}") from error


# --- mergekit's YAML ----------------------------------------------------------------------------------------


def not_in_mergekit(recipe: Recipe, reading: str | None = None) -> list[str]:
    """What a recipe does that no configuration of mergekit can ask for, a sentence each.

    Settings of fusion that mergekit has under another value are not among them; `to_mergekit` makes comments of those.
    """
    said = [f"{describe(s)}: mergekit has no `mask: {s.mask}`" for s in recipe.steps if s.mask in PLACEBOS]
    said += [f"{describe(s)}: mergekit has no method noise" for s in recipe.steps if s.method == "noise"]
    without = [s for s in recipe.steps if s.method == "fusion" and (s.reading or reading) == "magnitude"]
    return said + [f"{describe(s)}: mergekit's fusion has no reading magnitude" for s in without]


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
    documents: list[dict[str, Any]] = []
    comments: list[str] = []

    def place(part: "str | Recipe") -> str:
        if isinstance(part, Recipe):
            return add_step(part)
        return str(Path(folders[part]).absolute()) if part in folders else part

    def comment(whose: str, settings: dict[str, Any]) -> None:
        if said := ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None):
            comments.append(f"# not in mergekit: {whose} with {said}\n")

    def add_step(step: Recipe) -> str:
        base = {} if step.base is None else {"base_model": place(step.base)}
        models: list[dict[str, Any]] = []
        if step.other is not None:
            models = [{"model": place(step.other)}, {"model": base["base_model"]}]
        for one in step.models or ():
            settings = {k: getattr(one, k) for k in TAKES[step.method][1] if getattr(one, k) is not None}
            models.append({"model": place(one.model), "parameters": settings})
        shared = {"t": step.t, "normalize": step.normalize, "rescale": step.rescale, "lambda": step.lambda_}
        shared = {k: v for k, v in shared.items() if v is not None}
        name = f"step-{len(documents) + 1}"
        comment(name, {k: getattr(step, k) for k in ("reading", "iqr_multiplier", "seed")})
        method = FUSION_IN_MERGEKIT if step.method == "fusion" else step.method
        documents.append({
            "name": name, "models": models, "merge_method": method, **base,
            **({"parameters": shared} if shared else {}),
            **({"dtype": dtype} if dtype else {}), **({"out_dtype": out_dtype} if out_dtype else {}),
            **({"tokenizer_source": tokens_from} if tokens_from else {}),
            **({"chat_template": chat_template} if chat_template else {}),
        })  # fmt: skip
        return name

    tokens_from = tokenizer_source
    if tokenizer_source and tokenizer_source not in ("base", "union"):
        tokens_from = place(tokenizer_source)
    if readings(recipe, ""):
        comment("fusion", {"reading": reading, "iqr_multiplier": iqr_multiplier})
    add_step(recipe)
    if len(documents) == 1:
        del documents[0]["name"]
    return "".join(comments) + yaml.safe_dump_all(documents, sort_keys=False)


def from_mergekit(text: str, name: str) -> tuple[Recipe, dict[str, str], dict[str, Any]]:
    """(recipe, model -> folder, {dtype, out_dtype, tokenizer_source, chat_template}) of mergekit YAML with one or
    several documents.

    UserError for everything that has no counterpart here: slices, gradients, filters, and other methods.
    """
    documents = _documents(text, name)
    if not documents or not all(isinstance(d, dict) for d in documents):
        raise UserError(f"{name}: expected a mapping with merge_method and models")
    steps: dict[str, Recipe] = {}
    folders: dict[str, str] = {}

    def place(value: object) -> str | Recipe:
        model = value.get("model") if isinstance(value, dict) else value
        if not isinstance(model, str):
            raise UserError(f"{name}: {model!r} is not the folder of a model")
        if model not in steps:
            folders[model] = model
        return steps.get(model, model)

    for document in documents:
        recipe = _mergekit_step(document, place, name)
        steps[str(document.get("name", ""))] = recipe
    last = documents[-1]
    for key in ("dtype", "out_dtype", "tokenizer_source", "chat_template"):
        if len({str(d.get(key)) for d in documents}) > 1:
            raise UserError(f"{name}: {key} differs between the documents; one merge has one")
    settings = {k: last.get(k) for k in ("dtype", "out_dtype")}
    settings |= {k: last[k] for k in ("tokenizer_source", "chat_template") if last.get(k) is not None}
    source, base = settings.get("tokenizer_source"), last.get("base_model")
    if source == "base" and isinstance(base, str) and base not in steps:
        folders[base] = settings["tokenizer_source"] = base  # some methods do not merge it
    elif source is not None and source not in ("base", "union", *folders):
        raise UserError(f"{name}: tokenizer_source {source!r} is not one of the models; name one, base or union")
    return recipe, folders, settings


def _mergekit_step(document: dict[str, Any], place: Callable[[object], str | Recipe], name: str) -> Recipe:
    """One document as a step; place: a model's folder, or the earlier step that has this name."""
    if extra := sorted(set(document) - MERGEKIT_KEYS):
        raise UserError(f"{name}: {', '.join(extra)}: cannot be read here; only whole models, constant parameters")
    method = document.get("merge_method")
    if method == FUSION_IN_MERGEKIT:
        method = "fusion"
    if not isinstance(method, str) or method not in TAKES or method == "noise":  # noise is ours
        known = ", ".join(each for each in TAKES if each != "noise")
        raise UserError(f"{name}: merge_method {method!r} is not known here; known: {known}")
    takes, model_takes = TAKES[method]
    base, parameters = document.get("base_model"), document.get("parameters") or {}
    if not isinstance(parameters, dict) or not isinstance(document.get("models") or [], list):
        raise UserError(f"{name}: parameters must be a mapping and models a list")
    models = [m if isinstance(m, dict) else {"model": m} for m in document.get("models") or []]
    others = [m for m in models if m.get("model") != base]
    data: dict[str, Any] = {"method": method}
    if "base" in takes:
        data["base"] = None if base is None else place(base)
    if "other" in takes:
        if len(others) != 1:
            raise UserError(f"{name}: {method} merges a base_model with one other model, found {len(others)}")
        data["other"] = place(others[0])
    else:
        shared = {k: v for k, v in parameters.items() if k in model_takes}
        listed = others if "base" in takes else models
        data["models"] = [{"model": place(m), **shared, **(m.get("parameters") or {})} for m in listed]
    ignored = {"int8_mask"}  # an engine setting that changes no result
    data |= {k: v for k, v in parameters.items() if k not in model_takes | ignored}
    if any(isinstance(v, (list, dict)) for v in parameters.values()):
        raise UserError(f"{name}: parameters that vary over layers or tensors cannot be read here")
    for one in data.get("models", ()):
        one.pop("int8_mask", None)
    return parse(data, name)
