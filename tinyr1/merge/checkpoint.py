"""Checkpoints in, checkpoint out: checks before, weights by `tinyr1.merge.engine`, and everything that goes with them.

`tinyr1.merge` is the command.
"""

import json
import math
import shutil
import time
from pathlib import Path

import torch

from tinyr1.core import artifact, jsonl, recipe
from tinyr1.core.checkpoints import SPECIAL, TOKENIZER_FILES, read_json
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe, describe
from tinyr1.merge import checks, mergekit, modelcard
from tinyr1.merge.engine import DTYPES, Options, shared_tensors, step_of, stored_dtype, write
from tinyr1.merge.method import BLOCK, as_rows, borders
from tinyr1.merge.methods import build
from tinyr1.merge.parents import Parents
from tinyr1.merge.reader import Checkpoint, Stored

STATISTICS = "merge.jsonl"
MERGEKIT_FILE = "mergekit_config.yml"


def merge(
    steps: Recipe, folders: dict[str, Path], out: Path, options: Options, title: str, parents: Parents | None = None
) -> dict:
    """A complete merged checkpoint in the folder `out`, whose earlier content goes; returns a summary.

    Everything that can be known from headers is checked before anything is computed or written. parents: of the same
    folders, where their hashes are being made already. UserError or UserError when the models do not fit
    together.
    """
    started = time.perf_counter()
    models = load(steps, folders, options)
    for leftover in out.glob("*"):  # of a run that was killed; its room is free before room is asked for
        leftover.unlink()
    checks.check_disk(out, output_bytes(models, steps, options))
    parents = parents or Parents(checks.chosen(steps, folders))
    rows, written = write(steps, models, out, options, title)
    main, tokenizer = folders[steps.main_leaf], folders[options.tokenizer or steps.main_leaf]
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, out / name)
    jsonl.write(out / STATISTICS, rows)
    names = {name: str(folder) for name, folder in folders.items()}
    settings = options.results()
    whole = {key: settings[key] for key in ("reading", "iqr_multiplier")}
    text = mergekit.to_mergekit(steps, names, settings["dtype"], settings["out_dtype"], **whole)
    (out / MERGEKIT_FILE).write_text(text, encoding="utf-8")
    (out / "README.md").write_text(modelcard.card(steps, parents.hashes(), settings, rows, text), encoding="utf-8")
    _write_config(main, tokenizer, out, options)  # last: without it nothing loads the folder
    parameters = sum(t.entries for t in shared_tensors(models, models[steps.main_leaf]).values())
    seconds = round(time.perf_counter() - started, 2)
    return {"order": describe(steps), "parameters": parameters, "seconds": seconds, **settings,
            artifact.HASHED: written, artifact.ASIDE: [MERGEKIT_FILE, "README.md"]}  # fmt: skip


def options(settings: dict) -> Options:
    """Options from a recipe file or a command line: dtypes by name, the device a GPU where there is one.

    UserError for a dtype or a device that there is not.
    """
    given = {"device": "cuda" if torch.cuda.is_available() else "cpu"} | settings
    for key in ("dtype", "out_dtype"):
        if key in given:
            if given[key] not in DTYPES:
                raise UserError(f"{key}: {given[key]!r} is not one of {', '.join(DTYPES)}")
            given[key] = DTYPES[given[key]]
    _check_device(given["device"])
    return Options(**given)


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        why = str(error).splitlines()[0]
        raise UserError(f"--device: {name!r} cannot be used here ({why}); use cpu, or cuda with a GPU") from error


def load(steps: Recipe, folders: dict[str, Path], options: Options) -> dict[str, Checkpoint]:
    """The checkpoints that a recipe names, checked against each other from their headers."""
    build(steps, options.reading, options.iqr_multiplier)  # settings first: they cost nothing to check
    models = {name: Checkpoint(folder) for name, folder in checks.chosen(steps, folders).items()}
    checks.check(models, options.tokenizer)
    _check_dtypes(steps, models[steps.main_leaf], options)
    return models


def _check_dtypes(steps: Recipe, main: Checkpoint, options: Options) -> None:
    """The dtypes that fusion is defined in, by its readings; asked before weights are read."""
    readings = recipe.readings(steps, options.reading)
    known = (torch.bfloat16, torch.float32) if "released" in readings else tuple(DTYPES.values())
    for name, stored in main.tensors.items():
        dtype = options.dtype or stored.dtype
        if readings and dtype.is_floating_point and dtype not in known:
            raise UserError(
                f"{name}: fusion ({', '.join(sorted(readings))}) takes {', '.join(map(str, known))}, not {dtype}; "
                "give --dtype"
            )


def output_bytes(models: dict[str, Checkpoint], steps: Recipe, options: Options) -> int:
    """Size of the merged weights."""
    tensors = shared_tensors(models, models[steps.main_leaf]).values()
    return sum(t.entries * stored_dtype(t, options).itemsize for t in tensors)


def _write_config(main: Path, tokenizer: Path, out: Path, options: Options) -> None:
    """The main model's config, with the dtype of the result and the special tokens of the tokenizer that is kept."""
    content = dict(read_json(main / "config.json"))
    other = read_json(tokenizer / "config.json")
    content = {key: value for key, value in content.items() if key not in SPECIAL}
    content |= {key: other[key] for key in SPECIAL if key in other}
    wanted = options.results()["out_dtype"] or options.results()["dtype"]
    if wanted:
        key = "dtype" if "dtype" in content else "torch_dtype"
        content[key] = wanted
    (out / "config.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def plan(steps: Recipe, models: dict[str, Checkpoint], out: Path | None, options: Options) -> str:
    """What a merge will read, compute and write, with an estimate from a trial on two blocks of real weights."""
    size = output_bytes(models, steps, options)
    tensors = shared_tensors(models, models[steps.main_leaf])
    entries = sum(t.entries for t in tensors.values())
    widest = max((as_rows(t.shape)[1] for t in tensors.values()), default=0)
    block = max(BLOCK, widest) * (len(models) + 8) * 4 * options.threads
    rate = _trial(steps, models, tensors, options)
    lines = [
        f"recipe     {describe(steps)} ({options.reading}, λ = {options.iqr_multiplier})",
        *(f"{name:10s} {m.folder}: {len(m.tensors)} tensors, {m.bytes / 1e9:.2f} GB" for name, m in models.items()),
        f"result     {len(tensors)} tensors, {entries / 1e6:.1f} M parameters, {size / 1e9:.2f} GB in "
        f"{-(-size // options.shard_bytes)} file(s)" + (f" in {out}" if out else ""),
        f"memory     about {0.5 + block / 1e9:.1f} GB",
        f"time       about {entries / rate:.1f} s on {options.threads} threads, without waiting for the disk",
    ]
    return "\n".join(lines)


def _trial(steps: Recipe, models: dict[str, Checkpoint], tensors: dict[str, Stored], options: Options) -> float:
    """Parameters/s of merging the first rows of the largest tensor, times the threads."""
    floating = {n: t for n, t in tensors.items() if t.dtype.is_floating_point and t.entries}
    if not floating:
        return math.inf
    name, stored = max(floating.items(), key=lambda item: item[1].entries)
    rows, width = as_rows(stored.shape)
    rows = min(rows, max(1, 2 * BLOCK // width))
    root = step_of(steps, name, models, options)
    for model in models.values():
        model.open()
    try:
        for _ in range(2):  # the first time compiles
            started = time.perf_counter()
            root.prepare((rows, width), map)
            for place in borders((rows, width)):
                root.rows(*place)
            seconds = time.perf_counter() - started
    finally:
        for model in models.values():
            model.close()
    return rows * width / seconds * options.threads
