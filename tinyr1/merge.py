"""Checkpoints in, checkpoint out: checks before, weights by `tinyr1.streaming`, and everything that goes with them.

    python -m tinyr1.merge --math A --science B --code C --out D      the released order: (math & science) & code
    python -m tinyr1.merge --recipe recipe.yaml --out D               any recipe; ours or mergekit's YAML
    python -m tinyr1.merge --verify D                                 hash the files again
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tinyr1 import fusion, merge_checks, modelcard, recipe, record
from tinyr1.blocks import BLOCK, as_rows, borders
from tinyr1.checkpoint import Checkpoint, CheckpointError, Stored, read_json
from tinyr1.merge_checks import MergeError
from tinyr1.recipe import Recipe, RecipeError, build, describe
from tinyr1.streaming import DTYPES, Options, shared_tensors, step_of, stored_dtype, write

STATISTICS = "merge.jsonl"
MERGEKIT_FILE = "mergekit_config.yml"


def merge(
    steps: Recipe, folders: dict[str, Path], out: Path, options: Options, title: str, parents: dict | None = None
) -> dict:
    """A complete merged checkpoint in the folder `out`, whose earlier content goes; returns a summary.

    Everything that can be known from headers is checked before a weight is read. parents: SHA-256 of the weight files
    by model, where they are known already. MergeError or CheckpointError when the models do not fit together.
    """
    started = time.perf_counter()
    models = load(steps, folders, options)
    for leftover in out.glob("*"):  # of a run that was killed; its room is free before room is asked for
        leftover.unlink()
    merge_checks.check_disk(out, output_bytes(models, steps, options))
    parents = parents or hashes(models)
    rows, written = write(steps, models, out, options, title)
    main, tokenizer = folders[steps.main_leaf], folders[options.tokenizer or steps.main_leaf]
    for name in (*merge_checks.TOKENIZER_FILES, "generation_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, out / name)
    record.write_lines(out / STATISTICS, rows)
    names = {name: str(folder) for name, folder in folders.items()}
    settings = options.results()
    whole = {key: settings[key] for key in ("reading", "iqr_multiplier")}
    text = recipe.to_mergekit(steps, names, settings["dtype"], settings["out_dtype"], **whole)
    (out / MERGEKIT_FILE).write_text(text, encoding="utf-8")
    (out / "README.md").write_text(modelcard.card(steps, parents, settings, rows, text), encoding="utf-8")
    _write_config(main, tokenizer, out, options)  # last: without it nothing loads the folder
    parameters = sum(t.entries for t in shared_tensors(models, models[steps.main_leaf]).values())
    seconds = round(time.perf_counter() - started, 2)
    return {"order": describe(steps), "parameters": parameters, "seconds": seconds, **settings, record.HASHED: written}


def load(steps: Recipe, folders: dict[str, Path], options: Options) -> dict[str, Checkpoint]:
    """The checkpoints that a recipe names, checked against each other from their headers."""
    if unknown := sorted(set(steps.leaves) - set(folders)):
        raise MergeError(f"recipe: no folder is given for {', '.join(unknown)}; models: {', '.join(folders) or 'none'}")
    build(steps, options.reading, options.iqr_multiplier)  # settings first: they cost nothing to check
    models = {name: Checkpoint(folders[name]) for name in dict.fromkeys(steps.leaves)}
    merge_checks.check(models, options.tokenizer)
    _check_dtypes(steps, models[steps.main_leaf], options)
    return models


def _check_dtypes(steps: Recipe, main: Checkpoint, options: Options) -> None:
    """The dtypes that fusion is defined in, by its readings; asked before weights are read."""
    readings = recipe.readings(steps, options.reading)
    known = (torch.bfloat16, torch.float32) if "released" in readings else tuple(DTYPES.values())
    for name, stored in main.tensors.items():
        dtype = options.dtype or stored.dtype
        if readings and dtype.is_floating_point and dtype not in known:
            raise MergeError(
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
    content = {key: value for key, value in content.items() if key not in merge_checks.SPECIAL}
    content |= {key: other[key] for key in merge_checks.SPECIAL if key in other}
    wanted = options.results()["out_dtype"] or options.results()["dtype"]
    if wanted:
        key = "dtype" if "dtype" in content else "torch_dtype"
        content[key] = wanted
    (out / "config.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def hashes(models: dict[str, Checkpoint]) -> dict[str, dict[str, str]]:
    """SHA-256 of the weight files, by model; those of a checkpoint this kit made are in its manifest."""
    known = {name: _manifest_hashes(model) for name, model in models.items()}
    asked = [(name, file) for name, model in models.items() if known[name] is None for file in model.files]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(zip(asked, pool.map(record.file_hash, [file for _, file in asked]), strict=True))
    return {
        name: {file.name: digest for (owner, file), digest in found if owner == name} if made is None else made
        for name, made in known.items()
    }


def _manifest_hashes(model: Checkpoint) -> dict[str, str] | None:
    """What the manifest of a checkpoint says, after checking that its files are as they were made."""
    if not record.manifest_path(model.folder).is_file():
        return None
    made = record.check(model.folder, "make it again")["files"]
    if added := [file.name for file in model.files if file.name not in made]:
        raise MergeError(f"{model.folder}: {', '.join(added)} came after the folder was finished; remove it")
    return {file.name: made[file.name]["sha256"] for file in model.files}


def verify(folder: Path) -> list[str]:
    """What is wrong with a merged checkpoint: files that are missing, changed or new. Hashes every file."""
    manifest = record.manifest_path(folder)
    if not manifest.is_file():
        raise MergeError(f"{folder}: no {manifest.name}; not a checkpoint that this program finished")
    listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    problems = []
    for name, entry in listed.items():
        if not (folder / name).is_file():
            problems.append(f"{name}: missing")
        elif record.file_hash(folder / name) != entry["sha256"]:
            problems.append(f"{name}: not the bytes that were written")
    here = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {manifest.name}
    return problems + [f"{name}: added later" for name in sorted(here - set(listed))]


# --- command line -------------------------------------------------------------------------------------------


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Merge checkpoints: Arcee Fusion and other methods, in any nesting.")
    for name in ("math", "science", "code"):
        parser.add_argument(f"--{name}", type=Path, help=f"{name} expert; the order is (math & science) & code")
    parser.add_argument("--recipe", type=Path, help="YAML: `recipe` and `models` (name: folder), or mergekit's own")
    parser.add_argument("--out", type=Path, help="folder for the merged checkpoint")
    parser.add_argument("--reading", choices=fusion.READINGS, help="of Arcee Fusion, see tinyr1.fusion; default: exact")
    parser.add_argument("--iqr-multiplier", type=float, help="λ of fusion's threshold; default: 1.5")
    parser.add_argument("--dtype", choices=DTYPES, help="convert inputs to it first; default: as stored")
    parser.add_argument("--out-dtype", choices=DTYPES, help="of the result; default: dtype")
    parser.add_argument("--tokenizer", metavar="MODEL", help="keep this model's tokenizer where they differ")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dry-run", action="store_true", help="check, print the plan and an estimate, write nothing")
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="hash a merged checkpoint's files again")
    return parser


def _job(a: argparse.Namespace) -> tuple[Recipe, dict[str, Path], Options]:
    """Recipe, folders and options from the command line and the recipe file; the command line wins."""
    settings: dict = {}
    experts = {name: getattr(a, name) for name in ("math", "science", "code")}
    if a.recipe is not None:
        if any(experts.values()):
            raise MergeError("--recipe names its own models; leave out --math, --science and --code")
        steps, folders, settings = recipe.read(a.recipe)
    else:
        if absent := [f"--{name}" for name, folder in experts.items() if folder is None]:
            raise MergeError(f"{', '.join(absent)}: missing; give all three experts, or --recipe")
        steps, folders = Recipe(method="fusion", base="code",
                                right=Recipe(method="fusion", base="science", right="math")), experts  # fmt: skip
    own = {k: getattr(a, k) for k in recipe.FILE_KEYS}
    settings |= {k: v for k, v in own.items() if v is not None}
    for key in ("dtype", "out_dtype"):
        if settings.get(key) is not None:
            if settings[key] not in DTYPES:
                raise MergeError(f"{key}: {settings[key]!r} is not one of {', '.join(DTYPES)}")
            settings[key] = DTYPES[settings[key]]
    settings = {k: v for k, v in settings.items() if v is not None}
    return steps, folders, Options(**settings, device=a.device, threads=a.threads)


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


def _check_output(out: Path, need: int) -> None:
    """Before weights are hashed: the folder is free or holds a finished merge, and the disk has room for a new one."""
    finished = record.manifest_path(out).is_file()
    if out.exists() and not finished and (not out.is_dir() or any(out.iterdir())):
        raise MergeError(f"{out}: exists and is not a merged checkpoint; choose another --out or remove it")
    if not finished:
        unfinished = sum(f.stat().st_blocks * 512 for f in record.partial_path(out).glob("*"))  # removed before writing
        merge_checks.check_disk(out, need - unfinished)


def _check_same(out: Path, inputs: dict) -> None:
    """A finished merge in the output folder is this very one."""
    if record.manifest_path(out).is_file():
        key = json.loads(record.manifest_path(out).read_text(encoding="utf-8")).get("key")
        if key != record.digest(inputs):
            raise MergeError(f"{out}: holds the result of another recipe or other models; choose another --out")


def _make(steps: Recipe, folders: dict[str, Path], models: dict[str, Checkpoint], out: Path, options: Options) -> str:
    """Merge into `out`, or find that merge there; a line about it. A merge that fails leaves nothing behind."""
    _check_output(out, output_bytes(models, steps, options))
    parents = hashes(models)
    inputs = {"recipe": steps.model_dump(by_alias=True), **options.results(), "models": parents}
    _check_same(out, inputs)

    def build(partial: Path) -> dict:
        _check_same(out, inputs)  # once more, now that this process is alone with the output
        try:
            return merge(steps, folders, partial, options, "merge", parents)
        except BaseException:  # an interrupt too: a merge starts over, and half of one is of no use to anybody
            record.discard(out)
            raise

    manifest, built = record.make(out, inputs, build, "run it again")
    facts = manifest["facts"]
    return f"{'merged in ' + str(facts['seconds']) + ' s' if built else 'already there'}: {out} ({facts['order']})"


def _run(a: argparse.Namespace) -> int:
    if a.verify is not None:
        problems = verify(a.verify)
        print("\n".join(problems) or f"{a.verify}: every file is as it was written")
        return 1 if problems else 0
    steps, folders, options = _job(a)
    models = load(steps, folders, options)
    if a.dry_run:
        if a.out is not None:
            _check_output(a.out, output_bytes(models, steps, options))
        print(plan(steps, models, a.out, options))
    elif a.out is None:
        raise MergeError("--out: missing; name the folder for the merged checkpoint")
    else:
        print(_make(steps, folders, models, a.out, options))
    return 0


def main() -> int:
    try:
        return _run(_arguments().parse_args())
    except (MergeError, CheckpointError, RecipeError, record.StageError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
