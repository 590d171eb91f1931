"""Checkpoints in, checkpoint out: Arcee Fusion over whole models, one tensor at a time.

    python -m tinyr1.merge --math A --science B --code C --out D

A recipe such as ((science <- math), then code <- that) runs in one pass: no intermediate checkpoint is written.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tinyr1 import fusion, record
from tinyr1.config import Config, Recipe
from tinyr1.progress import Bar, say

SHARD_BYTES = 5 * 10**9
STATISTICS = "merge.jsonl"
COPIED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip


class MergeError(ValueError):
    """Checkpoints that cannot be merged; the message names every mismatch."""


class Checkpoint:
    """Tensors of a safetensors checkpoint, mapped into memory and read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = sorted(folder.glob("*.safetensors"))
        if not files or not (folder / "config.json").is_file():
            raise MergeError(f"{folder}: not a checkpoint; it needs config.json and .safetensors files")
        self.handles = [safe_open(file, "pt") for file in files]
        self.where = {name: handle for handle in self.handles for name in handle.keys()}  # noqa: SIM118

    def shapes(self) -> dict[str, tuple]:
        return {name: tuple(handle.get_slice(name).get_shape()) for name, handle in self.where.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.where[name].get_tensor(name)


def check_alike(models: dict[str, Checkpoint]) -> None:
    """All models have the same architecture, tensors and tokenizer; read from headers, before any weight."""
    (first_name, first), *others = models.items()
    problems = []
    for name, model in others:
        ours, theirs = first.shapes(), model.shapes()
        for tensor in sorted(ours.keys() ^ theirs.keys()):
            owner = first_name if tensor in ours else name
            problems.append(f"{tensor}: only {owner} has it")
        for tensor in sorted(ours.keys() & theirs.keys()):
            if ours[tensor] != theirs[tensor]:
                problems.append(f"{tensor}: {ours[tensor]} in {first_name}, {theirs[tensor]} in {name}")
        for file in ("tokenizer.json", "config.json"):
            texts = [_comparable(m.folder / file) for m in (first, model)]
            if texts[0] != texts[1]:
                problems.append(f"{file}: {name} and {first_name} differ")
    if problems:
        more = f"\n… and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise MergeError("these models cannot be merged:\n" + "\n".join(problems[:20]) + more)


def _comparable(path: Path) -> object:
    """Content of a JSON file that must agree; a config's provenance may differ."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "config.json":
        ignored = ("_name_or_path", "transformers_version", "use_cache")
        content = {key: value for key, value in content.items() if key not in ignored}
    return content


Fused = tuple[torch.Tensor, list[dict]]


def fuse_tensor(recipe: Recipe | str, read: Callable[[str], torch.Tensor], options: dict) -> Fused:
    """(merged tensor, one statistics row for each fusion step) by a recipe; inner recipes first."""
    if isinstance(recipe, str):
        return read(recipe), []
    (left, left_rows), (right, right_rows) = (fuse_tensor(r, read, options) for r in (recipe.base, recipe.right))
    merged, selection = fusion.fuse(left, right, **options)
    step = {"base": describe(recipe.base), "right": describe(recipe.right), **asdict(selection)}
    return merged, [*left_rows, *right_rows, step]


def describe(recipe: Recipe | str) -> str:
    """A recipe in the paper's notation: (math & science) & code, base last."""
    if isinstance(recipe, str):
        return recipe
    parts = [f"({describe(r)})" if isinstance(r, Recipe) else r for r in (recipe.right, recipe.base)]
    return " & ".join(parts)


def base_leaf(recipe: Recipe | str) -> str:
    """The model whose config and tokenizer the result takes: the base of the last step (ledger §3.1)."""
    return recipe if isinstance(recipe, str) else base_leaf(recipe.base)


def merge(recipe: Recipe, folders: dict[str, Path], out: Path, options: dict, title: str) -> dict:
    """Write the merged checkpoint into `out`, which exists and is empty; returns a summary.

    MergeError when the models do not fit together or an input holds a value that is not finite.
    """
    models = {name: Checkpoint(folders[name]) for name in dict.fromkeys(recipe.leaves)}
    check_alike(models)
    base = models[base_leaf(recipe)]
    rows, started, parameters = [], time.perf_counter(), 0

    def merged() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal parameters
        bar = Bar(title, "tensor")
        for done, tensor_name in enumerate(sorted(base.where), 1):

            def read(model: str, tensor_name: str = tensor_name) -> torch.Tensor:
                tensor = models[model][tensor_name]
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise MergeError(f"{models[model].folder}: {tensor_name} holds values that are not finite")
                return tensor

            tensor, steps = fuse_tensor(recipe, read, options)
            rows.extend({"tensor": tensor_name, **step} for step in steps)
            parameters += tensor.numel()
            rate = parameters / (time.perf_counter() - started) / 1e6
            bar.update(done, len(base.where), f"{rate:.0f} M parameters/s")
            yield tensor_name, tensor
        bar.close()

    write_shards(out, merged())
    for name in COPIED:
        if (base.folder / name).exists():
            shutil.copyfile(base.folder / name, out / name)
    record.write_lines(out / STATISTICS, rows)
    seconds = time.perf_counter() - started
    return {"order": describe(recipe), "parameters": parameters, "seconds": round(seconds, 2), **options}


def write_shards(out: Path, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Tensors as safetensors files of at most SHARD_BYTES, with an index when there are several."""
    shards: list[list[str]] = []  # tensor names of each file
    held: dict[str, torch.Tensor] = {}
    held_bytes = total_bytes = 0

    def flush() -> None:
        save_file(held, out / f"shard-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if held and held_bytes + size > SHARD_BYTES:
            flush()
            held_bytes = 0
        held[name] = tensor.contiguous()
        held_bytes, total_bytes = held_bytes + size, total_bytes + size
    flush()
    if len(shards) == 1:
        (out / "shard-0.safetensors").replace(out / "model.safetensors")
        return
    weight_map = {}
    for i, names in enumerate(shards):
        final = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (out / f"shard-{i}.safetensors").replace(out / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    record.write_atomic(out / "model.safetensors.index.json", json.dumps(index, indent=1))


def merge_run(cfg: Config, name: str) -> dict:
    """The merged checkpoint of a run's recipe; kept if it was made from the same branches and settings."""
    recipe, settings = cfg.params.merge.models[name], cfg.params.merge
    folders = {leaf: cfg.model(leaf) for leaf in recipe.leaves}
    remedy = f"run `make 02_branch_sft RUN={cfg.run}` first"
    options = {"iqr_multiplier": settings.iqr_multiplier, "reading": settings.reading}
    inputs = {
        "recipe": recipe.model_dump(), **options,
        "models": {leaf: record.check(path, remedy)["content"] for leaf, path in folders.items()},
    }  # fmt: skip

    def build(out: Path) -> dict:
        return merge(recipe, folders, out, options, name)

    again = f"run `make 03_fusion_merge RUN={cfg.run}` again"
    manifest, built = record.make(cfg.model(name), inputs, build, again)
    facts = manifest["facts"]
    state = f"merged in {facts['seconds']:.0f} s" if built else "kept"
    say(f"  {name:18s} {facts['order']}, {state}")
    return facts | {"model": name, "merged_now": built}


def statistics(folder: Path) -> pd.DataFrame:
    """Per-tensor statistics of a merged checkpoint: tensor, base, right, and the fields of fusion.Selection."""
    return pd.DataFrame(record.read_lines(folder / STATISTICS))


def facts_table(facts: list[dict]) -> pd.DataFrame:
    """One row for each merged model: order (base last), reading, λ, parameters, seconds."""
    columns = ["model", "order", "reading", "iqr_multiplier", "parameters", "seconds"]
    return pd.DataFrame(facts)[columns].set_index("model")


def summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each fusion step over all tensors, weighted by entries; shares are fractions."""
    rows = []
    for name, table in tables.items():
        for (right, base), step in table.groupby(["right", "base"], sort=False):
            differing = step.differing.sum()
            rows.append({
                "model": name, "right": right, "base": base,
                "weights that differ": differing / step.entries.sum(),
                "taken, of those": step.selected.sum() / max(1, differing),
                "tensors with threshold 0": step.threshold.le(0).mean(),
                "rows with KL < 0": step.negative_rows.sum() / max(1, step.rows.sum()),
            })  # fmt: skip
    return pd.DataFrame(rows).set_index("model").round(3)


def all_finite(folder: Path) -> bool:
    """Whether every floating-point tensor of a checkpoint is finite."""
    checkpoint = Checkpoint(folder)
    tensors = (checkpoint[name] for name in checkpoint.where)
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def main() -> None:
    parser = argparse.ArgumentParser(description="Merge three experts by Arcee Fusion: (math & science) & code.")
    for name in ("math", "science", "code"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"checkpoint folder of the {name} expert")
    parser.add_argument("--out", type=Path, required=True, help="folder for the merged checkpoint")
    parser.add_argument("--reading", choices=("exact", "released"), default="exact", help="see tinyr1.fusion")
    parser.add_argument("--iqr-multiplier", type=float, default=1.5, help="λ of the threshold")
    a = parser.parse_args()
    recipe = Recipe(base="code", right=Recipe(base="science", right="math"))
    folders = {"math": a.math, "science": a.science, "code": a.code}
    options = {"iqr_multiplier": a.iqr_multiplier, "reading": a.reading}
    hashes = {name: [record.file_hash(f) for f in sorted(path.glob("*.safetensors"))] for name, path in folders.items()}
    inputs = {"recipe": recipe.model_dump(), **options, "models": hashes}
    try:
        manifest, built = record.make(
            a.out, inputs, lambda out: merge(recipe, folders, out, options, "merge"), "run the command again"
        )
    except (MergeError, record.StageError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{'merged' if built else 'already there'}: {a.out} ({manifest['facts']['order']})")


if __name__ == "__main__":
    main()
