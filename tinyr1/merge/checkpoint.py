"""Checkpoints in, checkpoint out: checks first, then weights (`engine`), then the files that go with them.

    out/  model*.safetensors   merged weights            config.json        of the main model, written last
          merge.jsonl          statistics of each tensor tokenizer files    of the main model, or of the one named
          README.md            model card                mergekit_config.yml  the recipe for mergekit, where it has one
          and what else a model has beside its weights, see `beside`

`python -m tinyr1.merge` is the command.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from tinyr1.core import artifact, jsonl
from tinyr1.core.checkpoints import SPECIAL, WEIGHTS_KEY, read_config
from tinyr1.core.errors import UserError
from tinyr1.core.progress import say
from tinyr1.core.recipe import About, Recipe, describe, readings
from tinyr1.merge import adapters, beside, chat_templates, checks, mergekit, vocabulary
from tinyr1.merge.beside import Choice
from tinyr1.merge.card import CARD, Made, model_card
from tinyr1.merge.engine import DTYPES, MergeOptions, dtype_of_result, merge_weights, result_tensors, trial_rate
from tinyr1.merge.layers import comparable, layers_of
from tinyr1.merge.method import BLOCK, as_rows
from tinyr1.merge.methods import check as check_settings
from tinyr1.merge.parents import ParentHashes
from tinyr1.merge.prediction import drop_where_missing
from tinyr1.merge.reader import Checkpoint
from tinyr1.merge.sources import check_sources
from tinyr1.merge.tied import drop_stored_heads

STATISTICS = "merge.jsonl"
MERGEKIT_FILE = "mergekit_config.yml"
DTYPE_KEYS = ("dtype", "torch_dtype")  # of config.json; old files have the second, new ones the first


def merge_checkpoints(
    recipe: Recipe, folders: dict[str, Path], out: Path, options: MergeOptions, title: str,
    parents: ParentHashes | None = None, about: About | None = None, models: dict[str, Checkpoint] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A complete merged checkpoint in the folder `out`, whose earlier content is removed; returns the facts about it.

    parents: the hashes of the same folders, where threads compute them already. about: for the card. models: those of
    `load_models`, where they are loaded already. UserError when the models do not fit together, which headers show
    before anything is computed or written.
    """
    started = time.perf_counter()
    models = models or load_models(recipe, folders, options)
    for leftover in out.glob("*"):  # of a killed merge; remove it before asking how much room there is
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    checks.check_disk(out, output_bytes(models, recipe, options))
    parents = parents or ParentHashes(checks.folders_of(recipe, folders))
    rows, hashes = merge_weights(recipe, models, out, options, title)
    choice = _choice(recipe, folders, models, options)
    _write_beside(choice, models, out, options)
    jsonl.write(out / STATISTICS, rows)
    settings = options.results()
    if expressible := not mergekit.not_in_mergekit(recipe, settings["reading"]):
        text = mergekit.to_mergekit(
            recipe, {name: str(folder) for name, folder in folders.items()}, settings["dtype"], settings["out_dtype"],
            reading=settings["reading"], iqr_multiplier=settings["iqr_multiplier"],
            tokenizer_source=options.tokenizer_source, chat_template=options.chat_template,
        )  # fmt: skip
        (out / MERGEKIT_FILE).write_text(text, encoding="utf-8")
    made = Made(recipe, settings, parents.hashes(), checks.folders_of(recipe, folders), rows, about or About())
    (out / CARD).write_text(model_card(made), encoding="utf-8")
    configs = {name: model.config for name, model in models.items()}
    content = layers_of(recipe, models).config(recipe, configs, configs[recipe.main_leaf])
    config = config_of_result(content, read_config(choice.folders[choice.tokenizer]), options)
    # Last: no program loads the folder without it.
    (out / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    parameters = sum(t.entries for t in result_tensors(recipe, models).values())
    seconds = round(time.perf_counter() - started, 2)
    return {"order": describe(recipe), "parameters": parameters, "seconds": seconds, **settings,
            artifact.HASHED: hashes, artifact.ASIDE: [*([MERGEKIT_FILE] if expressible else []), CARD]}  # fmt: skip


def identity(recipe: Recipe, options: MergeOptions, models: dict[str, Any]) -> dict[str, Any]:
    """All that determines a merged checkpoint, as JSON; models: whatever identifies each input, by model."""
    return {"recipe": recipe.model_dump(by_alias=True), **options.results(), "models": models}


def options_from(settings: dict[str, Any]) -> MergeOptions:
    """Options from a recipe file or a command line: dtypes by name; by default a GPU where there is one.

    UserError for an unknown dtype and for a device that this machine does not have.
    """
    settings = {"device": "cuda" if torch.cuda.is_available() else "cpu"} | settings
    for key in ("dtype", "out_dtype"):
        if key in settings:
            if settings[key] not in DTYPES:
                raise UserError(f"{key}: {settings[key]!r} is not one of {', '.join(DTYPES)}")
            settings[key] = DTYPES[settings[key]]
    name = settings["device"]
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        why = str(error).splitlines()[0]
        raise UserError(f"--device: {name!r} cannot be used here ({why}); use cpu, or cuda with a GPU") from error
    return MergeOptions(**settings)


def load_models(recipe: Recipe, folders: dict[str, Path], options: MergeOptions) -> dict[str, Checkpoint]:
    """The checkpoints that a recipe names, checked against each other, with embeddings of the same size.

    Says what differs without standing in the way, and what is taken from whom. UserError lists what does stand in it.
    """
    check_settings(recipe, options.reading, options.iqr_multiplier)  # first: they cost nothing to check
    places = checks.folders_of(recipe, folders)
    models = {name: adapters.load(place, options.dtype) for name, place in places.items()}
    notices = list(dict.fromkeys(notice for model in models.values() for notice in model.notices))
    notices += drop_stored_heads(models) + drop_where_missing(models, recipe.counts_layers)
    models, fitted = vocabulary.fit(
        models, folders, recipe.main_leaf, options.tokenizer_source, recipe.base is not None, options.dtype
    )
    choice = _choice(recipe, folders, models, options)
    chosen = options.tokenizer or (recipe.main_leaf if options.tokenizer_source else None)
    converts = options.dtype is not None
    notices += fitted + checks.check(comparable(recipe, models), chosen, recipe.main_leaf, converts)
    check_sources(recipe, models, options)
    if options.chat_template is not None:
        chat_templates.resolve(options.chat_template, choice.folders.values())
    for line in [*notices, *choice.notices()]:
        say(line)
    used = readings(recipe, options.reading)
    defined = (torch.bfloat16, torch.float32) if "released" in used else tuple(DTYPES.values())
    for name, stored in models[recipe.main_leaf].tensors.items():
        dtype = options.dtype or stored.dtype
        if used and dtype.is_floating_point and dtype not in defined:
            raise UserError(
                f"{name}: fusion ({', '.join(sorted(used))}) takes {', '.join(map(str, defined))}, not {dtype}; "
                "give --dtype"
            )
    return models


def output_bytes(models: dict[str, Checkpoint], recipe: Recipe, options: MergeOptions) -> int:
    """Size of the merged weights."""
    tensors = result_tensors(recipe, models)
    return sum(t.entries * dtype_of_result(n, t, options).itemsize for n, t in tensors.items())


def _choice(
    recipe: Recipe, folders: dict[str, Path], models: dict[str, Checkpoint], options: MergeOptions
) -> Choice:  # fmt: skip
    """Whose files the result gets. UserError where the model for its tokenizer is not known."""
    if options.tokenizer and options.tokenizer_source:
        raise UserError("--tokenizer and --tokenizer-source: give one of them; the second one matches rows by token")
    main, own = recipe.main_leaf, {name: model.folder for name, model in models.items()}
    tokenizer = options.tokenizer or main
    if options.tokenizer_source:
        tokenizer = vocabulary.tokenizer_model({**folders, **own}, main, options.tokenizer_source)
    # A recipe of mergekit may name a tokenizer of a model that it does not merge.
    other = {tokenizer: folders[tokenizer]} if tokenizer in folders.keys() - own.keys() else {}
    return Choice(own | other, main, tokenizer)


def _write_beside(choice: Choice, models: dict[str, Checkpoint], out: Path, options: MergeOptions) -> None:
    """Tokenizer, generation config and whatever else belongs to the result beside its weights and its config."""
    beside.copy(choice.sources(), out)
    if options.tokenizer_source == vocabulary.UNION:
        entries = vocabulary.added_for_union({name: model.folder for name, model in models.items()}, choice.main)
        vocabulary.add_tokens(entries, out)
    if options.chat_template is not None:
        chat_templates.write(chat_templates.resolve(options.chat_template, choice.folders.values()), out)


def config_of_result(main: dict[str, Any], tokenizer: dict[str, Any], options: MergeOptions) -> dict[str, Any]:
    """config.json of the result, with its dtype and the special tokens of the tokenizer's model.

    main: that of the main model, with the layers of the result. tokenizer: that of the model that gives the tokenizer.
    Files name the dtype `dtype` or `torch_dtype`, also in the configs inside; all that are there say the same.
    """
    special = {key: value for key, value in tokenizer.items() if key in SPECIAL}
    content = {key: value for key, value in main.items() if key not in (*SPECIAL, WEIGHTS_KEY)} | special
    wanted = options.results()["out_dtype"] or options.results()["dtype"]
    if wanted and not content.keys() & set(DTYPE_KEYS):
        content["torch_dtype"] = wanted
    return _with_dtype(content, wanted)


def _with_dtype(config: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    """A config whose keys for the dtype agree: on `wanted`, or else on `dtype`, which transformers prefers."""
    said = wanted or config.get("dtype") or config.get("torch_dtype")
    nested = {key: _with_dtype(value, wanted) for key, value in config.items() if isinstance(value, dict)}
    return config | nested | {key: said for key in DTYPE_KEYS if key in config}


def describe_plan(recipe: Recipe, models: dict[str, Checkpoint], out: Path | None, options: MergeOptions) -> str:
    """What a merge will read, compute and write, with an estimate from a trial on two blocks of real weights."""
    size = output_bytes(models, recipe, options)
    tensors = result_tensors(recipe, models)
    entries = sum(t.entries for t in tensors.values())
    widest = max((as_rows(t.shape)[1] for t in tensors.values()), default=0)
    block = max(BLOCK, widest) * (len(models) + 8) * 4 * options.threads
    rate = trial_rate(recipe, models, options)
    lines = [
        f"recipe     {describe(recipe)} ({options.reading}, λ = {options.iqr_multiplier})",
        *(f"{name:10s} {m.folder}: {len(m.tensors)} tensors, {m.bytes / 1e9:.2f} GB" for name, m in models.items()),
        f"result     {len(tensors)} tensors, {entries / 1e6:.1f} M parameters, {size / 1e9:.2f} GB in "
        f"{-(-size // options.shard_bytes)} file(s)" + (f" in {out}" if out else ""),
        f"memory     about {0.5 + block / 1e9:.1f} GB",
        f"time       about {entries / rate:.1f} s on {options.threads} threads, without waiting for the disk",
    ]
    return "\n".join(lines)
