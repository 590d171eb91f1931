"""The model card of a merge: README.md of its folder, with the metadata that Hugging Face reads.

    recipe, settings, hashes of the parents, statistics --model_card--> text --with_scores--> text with scores

A card goes to strangers with the weights, so it names models and never folders of the machine that merged them.
Nothing here imports torch.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tinyr1.core.errors import UserError
from tinyr1.core.licences import licence
from tinyr1.core.recipe import PARTS, PLACEBOS, TAKES, About, Recipe, describe
from tinyr1.core.varying import described
from tinyr1.merge import inputs, mergekit

COLUMNS = ("tensor", "base", "other", "threshold", "selected share", "distance share", "rows KL <= 0", "regime")
CARD = "README.md"
SCORES = "## Scores"
HUB_CACHE = re.compile(r"models--([^/]+)--([^/]+)/snapshots/")  # where huggingface_hub keeps what it fetched
HUB_ID = r"[\w.-]+/[\w.-]+"
WHOLE = ("dtype", "out_dtype", "tokenizer", "tokenizer_source")  # of a whole merge; a card tells those that were given


@dataclass(frozen=True)
class Made:
    """What a card tells of a merge.

    settings: `engine.MergeOptions.results`. parents: `ParentHashes.hashes`. folders: model -> checkpoint.
    rows: statistics of each tensor and step. about: where the models come from.
    """

    recipe: Recipe
    settings: Mapping[str, Any]
    parents: Mapping[str, Mapping[str, str]]
    folders: Mapping[str, Path]
    rows: list[dict[str, Any]]
    about: About


def model_card(made: Made) -> str:
    """The card of a merge, without scores."""
    names = labels(made.folders)
    recipe, settings = _relabelled(made.recipe, names), _named(made.settings, names)
    own = recipe.model_dump(by_alias=True, exclude_none=True)
    files = [(names[m], name, hash_) for m, part in made.parents.items() for name, hash_ in part.items()]
    parts = [
        _metadata(made), f"# {describe(recipe)}\n",
        "Merged by [tinyr1](https://arxiv.org/abs/2503.04872). `a & b` is Arcee Fusion with b as the base: b keeps its "
        "weights but for those that fusion takes from a.\n",
        "## Steps\n", _markdown(_steps(recipe, settings), ("step", "method", "settings")),
        *_whole(settings),
        "## Made from\n", _markdown(files, ("model", "file", "hash")), *_sources(made),
        "## Recipe\n", f"```yaml\n{yaml.safe_dump({'recipe': own}, sort_keys=False)}```\n",
        *_for_mergekit(recipe, settings), *_tensors(made, recipe),
    ]  # fmt: skip
    return "\n".join(parts)


def with_scores(card: str, rows: Iterable[Mapping[str, str]], model: str) -> str:
    """A card with a table of the scores of `model` before its first section.

    rows: those of a run's scores.csv, as text. UserError where the model has none.
    """
    own = [row for row in rows if row["model"] == model]
    if not own:
        raise UserError(f"scores: none of model {model!r}; give the scores.csv of the run that has this merge")
    lines = [
        (row["benchmark"], *(f"{100 * float(row[key]):.1f}" for key in ("pass_at_1", "ci_low", "ci_high")),
         row["n_problems"], row["n_samples"], f"{100 * float(row.get('chance') or 0):.0f}") for row in own
    ]  # fmt: skip
    columns = ("benchmark", "pass@1, %", "95 % from", "to", "questions", "answers to each", "guessing, %")
    before, heading, rest = card.partition("## Steps\n")
    return f"{before}{SCORES}\n\n{_markdown(lines, columns)}\n{heading}{rest}"


def labels(folders: Mapping[str, Path]) -> dict[str, str]:
    """Model -> a name without folders; its Hugging Face id where the folder is in the hub's cache.

    The models of mergekit's files and of some recipes are called by their paths.
    """
    short: dict[str, str] = {}
    for model, place in folders.items():
        parts = [part for part in inputs.parts(place) if part is not None]
        label = "+".join(hub_id(part) or part.name for part in parts) if "/" in model else model
        same = sum(used == label or used.startswith(f"{label} (") for used in short.values())
        short[model] = f"{label} ({same + 1})" if same else label
    return short


def hub_id(folder: Path) -> str | None:
    """owner/name of a checkpoint in the cache of huggingface_hub; None for every other folder."""
    found = HUB_CACHE.search(f"{folder.absolute()}/")
    return f"{found[1]}/{found[2]}" if found else None


def _relabelled(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """The recipe with other names for its models."""

    def named(part: "str | Recipe | None") -> "str | Recipe | None":
        return names[part] if isinstance(part, str) else part and _relabelled(part, names)

    models = recipe.models and [one.model_copy(update={"model": named(one.model)}) for one in recipe.models]
    return recipe.model_copy(update={"base": named(recipe.base), "other": named(recipe.other), "models": models})


def _metadata(made: Made) -> str:
    """The YAML block that Hugging Face reads."""
    bases = made.about.base_model or sorted({i for folder in made.folders.values() if (i := hub_id(folder))})
    datasets = [name for name in made.about.data if re.fullmatch(HUB_ID, name)]
    data = {"base_model": bases, "datasets": datasets, "library_name": "transformers", "tags": ["merge", "tinyr1"]}
    return f"---\n{yaml.safe_dump({k: v for k, v in data.items() if v}, sort_keys=False)}---\n"


def _steps(recipe: Recipe, settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(step, method, what was set) of every step, the inner ones first; only what its method has."""
    return [(describe(step), step.method, ", ".join(_settings(step, settings)) or "defaults")
            for step in reversed(recipe.steps) if not _takes_layers(step)]  # fmt: skip


def _takes_layers(step: Recipe) -> bool:
    """Whether a step only takes layers of one model, which the names of the steps around it say."""
    return step.method == "stack" and len(step.parts) == 1


def _settings(step: Recipe, settings: Mapping[str, Any]) -> list[str]:
    if step.method == "fusion":
        multiplier = settings["iqr_multiplier"] if step.iqr_multiplier is None else step.iqr_multiplier
        said = [f"reading {step.reading or settings['reading']}", f"λ {multiplier:g}"]
        if step.mask in PLACEBOS:
            said.append(f"mask {step.mask}, as many weights of each tensor as importance would take")
        return said + ([f"seed {step.seed or 0}"] if step.mask == "random" else [])
    given = {field.alias or name: getattr(step, name) for name, field in type(step).model_fields.items()}
    keys, of_models = TAKES[step.method]
    said = [f"{k} {described(given[k])}" for k in sorted(keys - PARTS) if given[k] is not None]
    for key in sorted(of_models - {"layers"}):  # the name of a stack says its layers
        values = [getattr(one, key) for one in step.models or ()]
        said += [f"{key} {', '.join(map(described, values))}"] if any(v is not None for v in values) else []
    return said


def _named(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Settings in which models have the names of the card."""
    models = {key: value for key in ("tokenizer", "tokenizer_source") if (value := settings.get(key)) is not None}
    return {**settings, **{key: names.get(value, Path(value).name) for key, value in models.items()}}


def _whole(settings: Mapping[str, Any]) -> list[str]:
    """The settings of the whole merge that were given, in a sentence."""
    given = {key: value for key in WHOLE if (value := settings.get(key)) is not None}
    said = [f"{key} {value}" for key, value in given.items()]
    return [f"Of the whole merge: {', '.join(said)}.\n"] if said else []


def _sources(made: Made) -> list[str]:
    """Base models and data with their licences."""
    rows = [("model", name, licence(name)) for name in made.about.base_model]
    rows += [("data", name, of) for name, of in made.about.data.items()]
    return [_markdown(rows, ("kind", "name", "licence"))] if rows else []


def _for_mergekit(recipe: Recipe, settings: Mapping[str, Any]) -> list[str]:
    """mergekit's configuration with the models' names; none where mergekit cannot express the merge."""
    if mergekit.not_in_mergekit(recipe, settings["reading"]):
        return []
    text = mergekit.to_mergekit(recipe, {}, settings["dtype"], settings["out_dtype"], settings["reading"],
                                settings["iqr_multiplier"], settings.get("tokenizer_source"),
                                settings.get("chat_template"))  # fmt: skip
    return ["## Recipe for mergekit\n", "Put the folder of each model in place of its name.\n",
            f"```yaml\n{text}```\n"]  # fmt: skip


def _tensors(made: Made, recipe: Recipe) -> list[str]:
    """What fusion did to each tensor."""
    pairs = zip(made.recipe.steps, recipe.steps, strict=True)
    called = {describe(a): describe(b) for old, new in pairs for a, b in zip(old.parts, new.parts, strict=True)}
    fused = [row for row in made.rows if row["method"] == "fusion" and "threshold" in row]
    lines = [_line(row | {key: called[row[key]] for key in ("base", "other")}) for row in fused]
    return [] if not fused else [
        "## Fusion, tensor by tensor\n",
        "Shares are of the entries that differ and of the squared distance between the two models. `everything` "
        "means that all entries that differ were taken: the tensor is that of the other model. `nothing`: it is "
        "that of the base.\n",
        _markdown(lines, COLUMNS),
    ]  # fmt: skip


def _line(row: dict[str, Any]) -> tuple:
    share = row["selected"] / row["differing"] if row["differing"] else 0.0
    return (row["tensor"], row["base"], row["other"], f"{row['threshold']:.3g}", f"{share:.4f}",
            f"{row['distance_share']:.4f}", f"{row['nonpositive_rows']} of {row['rows']}", row["regime"])  # fmt: skip


def _markdown(rows: Iterable[tuple], columns: tuple[str, ...]) -> str:
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(value) for value in row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)
