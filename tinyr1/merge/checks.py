"""Checks of the inputs and the output of a merge, from headers alone, before a byte of weights is read.

Nothing here imports torch, so that the command can use it before that takes its seconds.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1.core.checkpoints import PROVENANCE, SPECIAL, TOKENIZER_FILES, read_json, read_object
from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from tinyr1.merge.reader import Checkpoint

SHOWN = 20  # problems listed before the rest is only counted
RESERVE = 100 * 10**6  # bytes of the output disk that stay free


def folders_of(recipe: Recipe, folders: dict[str, Path]) -> dict[str, Path]:
    """The folders of the models that a recipe names, in the order of its leaves. UserError where one is missing."""
    if unknown := sorted(set(recipe.leaves) - set(folders)):
        raise UserError(f"recipe: no folder is given for {', '.join(unknown)}; models: {', '.join(folders) or 'none'}")
    return {name: folders[name] for name in dict.fromkeys(recipe.leaves)}


def check(models: "dict[str, Checkpoint]", tokenizer: str | None) -> None:
    """UserError unless all models have the same architecture, tensors and tokenizer; it lists every mismatch by model.

    tokenizer: the model whose tokenizer and special tokens the result gets; None demands that all have the same.
    """
    if tokenizer is not None and tokenizer not in models:
        raise UserError(f"tokenizer: {tokenizer!r} is not one of the models ({', '.join(models)})")
    (first_name, first), *others = models.items()
    problems = []
    for name, model in others:
        problems += _config_problems(first_name, first, name, model, tokenizer is not None)
        problems += _tensor_problems(first_name, first, name, model)
        if tokenizer is None:
            problems += _tokenizer_problems(first_name, first, name, model)
            problems += _generation_problems(first_name, first, name, model)
    if problems:
        more = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise UserError("these models cannot be merged:\n" + "\n".join(problems[:SHOWN] + more))


def _generation_problems(first_name: str, first: "Checkpoint", name: str, model: "Checkpoint") -> list[str]:
    """Special tokens of generation_config.json, where both models have one."""
    a, b = (read_object(m.folder / "generation_config.json") or {} for m in (first, model))
    return [
        f"generation_config.json: {k} is {b[k]!r} in {name}, {a[k]!r} in {first_name}; name the model whose "
        "tokenizer to keep"
        for k in SPECIAL
        if k in a and k in b and a[k] != b[k]
    ]


def _config_problems(first_name: str, first: "Checkpoint", name: str, model: "Checkpoint", special: bool) -> list[str]:
    skipped = {*PROVENANCE, *(SPECIAL if special else ())}
    keys = (first.config.keys() | model.config.keys()) - skipped
    different = [k for k in sorted(keys) if first.config.get(k) != model.config.get(k)]
    return [
        f"config.json: {k} is {model.config.get(k)!r} in {name}, {first.config.get(k)!r} in {first_name}"
        + ("; name the model whose tokenizer to keep" if k in SPECIAL else "")
        for k in different
    ]


def _tied_head(model: "Checkpoint") -> set[str]:
    """The output head of a model that shares it with the embedding: some checkpoints store it, others do not."""
    return {"lm_head.weight"} if model.config.get("tie_word_embeddings") else set()


def _tensor_problems(first_name: str, first: "Checkpoint", name: str, model: "Checkpoint") -> list[str]:
    problems = []
    for tensor in sorted((first.tensors.keys() ^ model.tensors.keys()) - _tied_head(first)):
        owner, lacks = (first_name, name) if tensor in first.tensors else (name, first_name)
        problems.append(f"{tensor}: only {owner} has it, {lacks} does not")
    for tensor in sorted(first.tensors.keys() & model.tensors.keys()):
        a, b = first.tensors[tensor], model.tensors[tensor]
        if a.shape != b.shape:
            padded = len(a.shape) == 2 and a.shape[1:] == b.shape[1:] and a.shape[0] == first.config.get("vocab_size")
            hint = "; the vocabularies are padded differently, resize one to the other" if padded else ""
            problems.append(f"{tensor}: shape {list(b.shape)} in {name}, {list(a.shape)} in {first_name}{hint}")
        if a.dtype != b.dtype:
            problems.append(f"{tensor}: {_short(b.dtype)} in {name}, {_short(a.dtype)} in {first_name}")
    return problems


def _short(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _tokenizer_problems(first_name: str, first: "Checkpoint", name: str, model: "Checkpoint") -> list[str]:
    return [
        f"{file}: {name} and {first_name} differ; name the model whose tokenizer to keep"
        for file in TOKENIZER_FILES
        if _content(first.folder / file) != _content(model.folder / file)
    ]


def _content(path: Path) -> object:
    """The data of a JSON file, whatever its layout; the bytes of any other file."""
    if path.suffix == ".json":
        return read_json(path)
    return path.read_bytes() if path.is_file() else None


def check_disk(out: Path, need: int) -> None:
    """UserError unless the disk of the output has room for `need` bytes."""
    place = next(p for p in (out, *out.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < need + RESERVE:
        raise UserError(
            f"{out}: the result takes {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; free some space or choose "
            "another disk"
        )
