"""Checks of the inputs and the output of a merge, from headers alone, before a byte of weights is read.

Nothing here imports torch, so that the command can use it before that takes its seconds.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import Recipe
from tinyr1.merge import beside, configs
from tinyr1.merge.configs import EMBEDDINGS, HEADS, ending

if TYPE_CHECKING:
    import torch

    from tinyr1.merge.reader import Checkpoint

SHOWN = 8  # problems listed before the rest is only counted; with the lines around them at most ten
RESERVE = 100 * 10**6  # bytes of the output disk that stay free


def folders_of(recipe: Recipe, folders: dict[str, Path]) -> dict[str, Path]:
    """The folders of the models that a recipe names, in the order of its leaves. UserError where one is missing."""
    if unknown := sorted(set(recipe.leaves) - set(folders)):
        raise UserError(f"recipe: no folder is given for {', '.join(unknown)}; models: {', '.join(folders) or 'none'}")
    return {name: folders[name] for name in dict.fromkeys(recipe.leaves)}


def check(
    models: "dict[str, Checkpoint]", tokenizer: str | None, main: str | None = None, converts: bool = False
) -> list[str]:  # fmt: skip
    """Lines about what differs without standing in the way; UserError lists what does stand in the way, by model.

    tokenizer: the model whose tokenizer and special tokens the result gets; None demands that all have the same.
    main: the model whose config the result gets; None: the first. converts: whether a dtype is given in which all is
    computed, so that models may be stored in several.
    """
    if tokenizer is not None and tokenizer not in models:
        raise UserError(f"tokenizer: {tokenizer!r} is not one of the models ({', '.join(models)})")
    main = main or next(iter(models))
    first = models[main]
    sizes = frozenset({"vocab_size"} if any(_resized(first, model) for model in models.values()) else ())
    problems, notices = configs.compare(main, {name: model.config for name, model in models.items()}, sizes)
    for name, model in models.items():
        problems += _tensor_problems(main, first, name, model, converts)
    if tokenizer is None:
        problems += _tokenizer_problems(main, {name: model.folder for name, model in models.items()})
    if problems:
        more = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise UserError("these models cannot be merged:\n" + "\n".join(problems[:SHOWN] + more))
    return notices


def _resized(first: "Checkpoint", model: "Checkpoint") -> list[str]:
    """Tensors with a row for each token whose number of rows differs between two models."""
    shared = first.tensors.keys() & model.tensors.keys()
    names = ending(shared, EMBEDDINGS + HEADS)
    shapes = {name: (first.tensors[name].shape, model.tensors[name].shape) for name in names}
    return sorted(n for n, (a, b) in shapes.items() if a != b and len(a) == len(b) == 2 and a[1] == b[1])


def _tensor_problems(main: str, first: "Checkpoint", name: str, model: "Checkpoint", converts: bool) -> list[str]:
    """Tensors that only one of two models has, or that have other shapes or dtypes; a line for each kind of problem."""
    problems = []
    for owner, lacks, own, other in ((main, name, first, model), (name, main, model, first)):
        if only := sorted(own.tensors.keys() - other.tensors.keys()):
            them = "it" if len(only) == 1 else "them"
            problems.append(f"{_named(only, len(own.tensors))}: only {owner} has {them}, {lacks} does not; give models "
                            "of one architecture, whole and saved alike")  # fmt: skip
    shared = sorted(first.tensors.keys() & model.tensors.keys())
    resized = _resized(first, model)
    for tensor in resized:
        rows, rows_of_main = (one.tensors[tensor].shape[0] for one in (model, first))
        problems.append(
            f"{tensor}: {rows} rows in {name}, {rows_of_main} in {main}, and their tokens differ or are not known; say "
            "which tokens the result has: --tokenizer-source base, union or one of the models"
        )
    problems += _shape_problems(main, first, name, model, [tensor for tensor in shared if tensor not in resized])
    kinds: dict[tuple[str, str, bool], list[str]] = {}
    for tensor in shared:
        a, b = first.tensors[tensor].dtype, model.tensors[tensor].dtype
        floats = a.is_floating_point and b.is_floating_point
        if a != b and not (floats and converts):
            kinds.setdefault((_short(b), _short(a), floats), []).append(tensor)
    for (dtype, dtype_of_main, floats), tensors in kinds.items():
        remedy = "say in what to compute: --dtype, or dtype in the recipe" if floats else "make the models agree on it"
        problems.append(f"{_named(tensors, len(shared))}: {dtype} in {name}, {dtype_of_main} in {main}; {remedy}")
    return problems


def _shape_problems(main: str, first: "Checkpoint", name: str, model: "Checkpoint", shared: list[str]) -> list[str]:
    shapes = {tensor: (model.tensors[tensor].shape, first.tensors[tensor].shape) for tensor in shared}
    other = {tensor: pair for tensor, pair in shapes.items() if pair[0] != pair[1]}
    if not other:
        return []
    tensor, (b, a) = next(iter(other.items()))
    example = "" if len(other) == 1 else f"{tensor} has "
    return [f"{_named(list(other), len(shared))}: {example}shape {list(b)} in {name}, {list(a)} in {main}; give models "
            "of one architecture and size"]  # fmt: skip


def _named(tensors: list[str], total: int) -> str:
    """Some of `total` tensors in a message: all, one by its name, several by the first two."""
    if len(tensors) == 1:
        return tensors[0]
    if len(tensors) == total:
        return f"all {total} tensors"
    return f"{len(tensors)} tensors ({tensors[0]}, {tensors[1]}{', …' if len(tensors) > 2 else ''})"


def _short(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _tokenizer_problems(main: str, folders: dict[str, Path]) -> list[str]:
    """Files that turn text into token ids and differ from those of the main model, a line each."""
    problems = []
    for file in dict.fromkeys(file for folder in folders.values() for file in beside.tokenizer_files(folder)):
        own = folders[main] / file
        beside.content(own)  # a damaged file is an error, also where all models have the same one
        if others := [name for name, folder in folders.items() if not beside.same(folder / file, own)]:
            problems.append(f"{file}: {' and '.join([*others, main])} differ; name the model whose tokenizer to keep "
                            "(--tokenizer)")  # fmt: skip
    return problems


def check_disk(out: Path, need: int) -> None:
    """UserError unless the disk of the output has room for `need` bytes.

    The disk is that of the folder around the output: the result is made beside its place and renamed when it is done.
    """
    free = shutil.disk_usage(next(p for p in out.resolve().parents if p.exists())).free
    if free < need + RESERVE:
        raise UserError(
            f"{out}: the result takes {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; free some space or choose "
            "another disk"
        )
