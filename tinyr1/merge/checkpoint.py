"""Checkpoints in, checkpoint out: checks first, then weights (`engine`), then the files that go with them.

    out/  model*.safetensors   merged weights            config.json        of the main model, written last
          merge.jsonl          statistics of each tensor tokenizer files    of the main model, or of the one named
          README.md            model card                mergekit_config.yml  the recipe for mergekit, where it has one

`python -m tinyr1.merge` is the command.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from tinyr1.core import artifact, jsonl
from tinyr1.core.checkpoints import SPECIAL, TOKENIZER_FILES, read_config
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import About, Recipe, describe, readings
from tinyr1.merge import checks, mergekit
from tinyr1.merge.card import CARD, Made, model_card
from tinyr1.merge.engine import DTYPES, MergeOptions, dtype_of_result, merge_weights, result_tensors, trial_rate
from tinyr1.merge.layers import comparable, layers_of
from tinyr1.merge.method import BLOCK, as_rows
from tinyr1.merge.methods import check as check_settings
from tinyr1.merge.parents import ParentHashes
from tinyr1.merge.reader import Checkpoint
from tinyr1.merge.sources import check_sources

STATISTICS = "merge.jsonl"
MERGEKIT_FILE = "mergekit_config.yml"


def merge_checkpoints(
    recipe: Recipe, folders: dict[str, Path], out: Path, options: MergeOptions, title: str,
    parents: ParentHashes | None = None, about: About | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A complete merged checkpoint in the folder `out`, whose earlier content is removed; returns the facts about it.

    parents: the hashes of the same folders, where threads compute them already. about: for the card. UserError when
    the models do not fit together, which headers show before anything is computed or written.
    """
    started = time.perf_counter()
    models = load_models(recipe, folders, options)
    for leftover in out.glob("*"):  # of a killed merge; remove it before asking how much room there is
        leftover.unlink()
    checks.check_disk(out, output_bytes(models, recipe, options))
    parents = parents or ParentHashes(checks.folders_of(recipe, folders))
    rows, hashes = merge_weights(recipe, models, out, options, title)
    main, tokenizer = folders[recipe.main_leaf], folders[options.tokenizer or recipe.main_leaf]
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, out / name)
    jsonl.write(out / STATISTICS, rows)
    settings = options.results()
    if expressible := not mergekit.not_in_mergekit(recipe, settings["reading"]):
        text = mergekit.to_mergekit(
            recipe, {name: str(folder) for name, folder in folders.items()}, settings["dtype"], settings["out_dtype"],
            reading=settings["reading"], iqr_multiplier=settings["iqr_multiplier"],
        )  # fmt: skip
        (out / MERGEKIT_FILE).write_text(text, encoding="utf-8")
    made = Made(recipe, settings, parents.hashes(), checks.folders_of(recipe, folders), rows, about or About())
    (out / CARD).write_text(model_card(made), encoding="utf-8")
    content = layers_of(recipe, models).config(recipe, {n: m.config for n, m in models.items()}, read_config(main))
    _write_config(content, tokenizer, out, options)  # last: no program loads the folder without it
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
    """The checkpoints that a recipe names, checked against each other from their headers. UserError lists problems."""
    check_settings(recipe, options.reading, options.iqr_multiplier)  # first: they cost nothing to check
    models = {name: Checkpoint(folder) for name, folder in checks.folders_of(recipe, folders).items()}
    checks.check(comparable(recipe, models), options.tokenizer)
    check_sources(recipe, models, options)
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
    tensors = result_tensors(recipe, models).values()
    return sum(t.entries * dtype_of_result(t, options).itemsize for t in tensors)


def _write_config(content: dict, tokenizer: Path, out: Path, options: MergeOptions) -> None:
    """config.json of the result, with its dtype and the special tokens of the tokenizer's model."""
    special = {key: value for key, value in read_config(tokenizer).items() if key in SPECIAL}
    content = {key: value for key, value in content.items() if key not in SPECIAL} | special
    if wanted := options.results()["out_dtype"] or options.results()["dtype"]:
        content["dtype" if "dtype" in content else "torch_dtype"] = wanted
    (out / "config.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
