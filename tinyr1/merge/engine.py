"""Merging weights in one pass over the tensors of several checkpoints, whatever the recipe.

A chain of steps needs no checkpoint in between: every step works on the blocks that the steps inside it make, and
the result has the bytes that separate merges would have given. What is in memory are some blocks, not a model.
"""

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from tinyr1.core.errors import UserError
from tinyr1.core.progress import Bar
from tinyr1.core.recipe import DTYPE_NAMES, Recipe, describe
from tinyr1.merge import kernels
from tinyr1.merge.method import Block, Method, as_rows, borders
from tinyr1.merge.methods import build, tensor_seed
from tinyr1.merge.reader import Checkpoint, Stored
from tinyr1.merge.writer import SHARD_BYTES, Writer

LARGE = 4  # blocks from which all threads work on one tensor; smaller tensors get a thread each
DTYPES = {name: getattr(torch, name) for name in DTYPE_NAMES}


@dataclass(frozen=True)
class Options:
    """How a merge is computed and stored; dtypes are torch's, None keeps what the inputs have."""

    reading: str = "exact"
    iqr_multiplier: float = 1.5
    dtype: torch.dtype | None = None  # inputs are converted to it before anything is computed
    out_dtype: torch.dtype | None = None  # every step's result is; None: dtype
    device: str = "cpu"
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    shard_bytes: int = SHARD_BYTES
    tokenizer: str | None = None  # the model whose tokenizer is kept; None: all must have the same

    def results(self) -> dict:
        """The options that change a bit of the result, as JSON."""
        names = {dtype: name for name, dtype in DTYPES.items()} | {None: None}
        return {
            "reading": self.reading, "iqr_multiplier": self.iqr_multiplier, "dtype": names[self.dtype],
            "out_dtype": names[self.out_dtype], "tokenizer": self.tokenizer, "shard_bytes": self.shard_bytes,
            "device": torch.device(self.device).type,  # sums are taken in another order on a GPU
        }  # fmt: skip


class _Leaf:
    """A tensor of an input model, block by block."""

    def __init__(self, name: str, model: str, checkpoint: Checkpoint, options: Options) -> None:
        self.name, self.model, self.checkpoint, self.options = name, model, checkpoint, options
        self.checked: set[int] = set()  # first rows of the blocks that were seen to be finite

    def rows(self, first: int, last: int) -> tuple[torch.Tensor, list]:
        """(rows in the dtype that is computed in, no counts); UserError when one is not finite."""
        stored = self.checkpoint.rows(self.name, first, last)
        if first not in self.checked and not _finite(stored):
            raise UserError(
                f"{self.checkpoint.folder}: {self.name} holds infinities or NaNs (model {self.model}); "
                "such a checkpoint cannot be merged"
            )
        self.checked.add(first)
        tensor = stored.to(dtype=self.options.dtype)
        if tensor.dtype != stored.dtype and not _finite(tensor):
            raise UserError(f"{self.name}: model {self.model} has numbers beyond the range of {tensor.dtype}; give "
                             "another --dtype")  # fmt: skip
        return tensor.to(device=self.options.device), []


class _Step:
    """One merge step of one tensor; prepared before its rows can be had."""

    def __init__(self, recipe: Recipe, method: Method, inputs: list, options: Options) -> None:
        self.recipe, self.method, self.inputs, self.options = recipe, method, inputs, options
        self.state: Any = None

    def prepare(self, shape: tuple[int, int], each: Callable) -> None:
        for inner in self.inputs:
            if isinstance(inner, _Step):
                inner.prepare(shape, each)
        places = borders(shape)

        def scan(function: Callable) -> Iterator:
            return each(lambda place: function(self.block(*place)), places)

        self.state = self.method.prepare(scan, shape)

    def block(self, first: int, last: int) -> Block:
        return Block(first, tuple(part.rows(first, last)[0] for part in self.inputs))

    def rows(self, first: int, last: int) -> tuple[torch.Tensor, list]:
        """(merged rows, counts of the inner steps and of this one)."""
        parts = [part.rows(first, last) for part in self.inputs]
        merged, counts = self.method.apply(self.state, Block(first, tuple(t for t, _ in parts)))
        stored = merged.to(self.options.out_dtype or merged.dtype)  # as if the step had been stored and read again
        return stored.to(self.options.dtype or merged.dtype), [*(c for _, inner in parts for c in inner), counts]

    def steps(self) -> "Iterator[_Step]":
        """Inner steps first, in the order of `rows`' counts."""
        for part in self.inputs:
            if isinstance(part, _Step):
                yield from part.steps()
        yield self


def _finite(tensor: torch.Tensor) -> bool:
    if tensor.dtype == torch.bfloat16:
        return kernels.all_finite(tensor.view(torch.uint16).reshape(-1).numpy())
    return bool(tensor.isfinite().all())


def write(
    recipe: Recipe, models: dict[str, Checkpoint], out: Path, options: Options, title: str
) -> tuple[list[dict], dict[str, str]]:
    """Merge the weights of checked models into safetensors files under `out`.

    Returns a statistics row a tensor and step, and the SHA-256 of each file.
    """
    main = models[recipe.main_leaf]
    tensors = shared_tensors(models, main)
    keep_freed_memory()
    writer = Writer(out, {n: (t.shape, stored_dtype(t, options)) for n, t in tensors.items()}, options.shard_bytes)
    watch = _Watch(title, sum(t.entries for t in tensors.values()))
    rows: dict[str, list[dict]] = {}
    try:
        for model in models.values():
            model.open()
        with ThreadPoolExecutor(options.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            job = partial(_merge_tensor, recipe, models, options, writer, watch)
            for is_large, names in groupby(writer.order, lambda name: _is_large(tensors[name])):
                if is_large:
                    rows |= {n: job(n, tensors[n], partial(_in_order, pool, 2 * options.threads)) for n in names}
                else:
                    few = list(names)
                    found = _in_order(pool, 4 * options.threads, lambda name: job(name, tensors[name], map), few)
                    rows |= dict(zip(few, found, strict=True))
    finally:
        watch.bar.close()
        for model in models.values():
            model.close()
        hashes = writer.close() if len(rows) == len(tensors) else writer.abandon()
    return [row for name in tensors for row in rows[name]], hashes


def _is_large(stored: Stored) -> bool:
    return len(borders(as_rows(stored.shape))) >= LARGE


def shared_tensors(models: dict[str, Checkpoint], main: Checkpoint) -> dict[str, Stored]:
    """What is merged, by name: all tensors, but for a tied output head that not every model stores."""
    return {n: main.tensors[n] for n in sorted(set.intersection(*(set(m.tensors) for m in models.values())))}


def stored_dtype(stored: Stored, options: Options) -> torch.dtype:
    wanted = options.out_dtype or options.dtype
    return wanted if wanted is not None and stored.dtype.is_floating_point else stored.dtype


def _merge_tensor(
    recipe: Recipe, models: dict[str, Checkpoint], options: Options, writer: Writer, watch: "_Watch",
    name: str, stored: Stored, each: Callable,
) -> list[dict]:  # fmt: skip
    """Merge one tensor and write it; `each(function, items)` yields results in order."""
    shape = as_rows(stored.shape)
    if not stored.dtype.is_floating_point:
        _copy_equal(models, name, writer)
        return []
    if stored.entries == 0:
        return []
    root = step_of(recipe, name, models, options)
    for model in models.values():
        model.announce(name)
    root.prepare(shape, each)
    dtype = stored_dtype(stored, options)

    def block(place: tuple[int, int]) -> list:
        merged, counts = root.rows(*place)
        merged = merged.to(dtype).cpu()
        if not _finite(merged):
            raise UserError(f"{name}: the result has numbers beyond the range of {dtype}; give another --out-dtype")
        writer.write(name, place[0] * shape[1] * dtype.itemsize, merged)
        watch.add(merged.numel())
        return counts

    totals: list = []
    for counts in each(block, borders(shape)):
        totals = counts if not totals else [None if a is None else a + b for a, b in zip(totals, counts, strict=True)]
    return [
        {"tensor": name, "method": step.recipe.method, "base": _called(step.recipe.base),
         "other": _called(step.recipe.other), **step.method.statistics(step.state, total)}
        for step, total in zip(root.steps(), totals, strict=True)
    ]  # fmt: skip


def _called(part: Recipe | str | None) -> str | None:
    return part if part is None else describe(part)


def step_of(recipe: Recipe, name: str, models: dict[str, Checkpoint], options: Options) -> _Step:
    inputs = [
        _Leaf(name, part, models[part], options) if isinstance(part, str) else step_of(part, name, models, options)
        for part in recipe.parts
    ]
    method = build(recipe, options.reading, options.iqr_multiplier)
    if hasattr(method, "seed"):
        method = replace(method, seed=tensor_seed(method.seed, name))
    return _Step(recipe, method, inputs, options)


def _copy_equal(models: dict[str, Checkpoint], name: str, writer: Writer) -> None:
    """Integer tensors (buffers) are not merged: they must be the same in all models."""
    (first_name, first), *others = models.items()
    rows = as_rows(first.tensors[name].shape)[0]
    tensor = first.rows(name, 0, rows)
    for other_name, other in others:
        if not torch.equal(tensor, other.rows(name, 0, rows)):
            raise UserError(
                f"{name}: an integer tensor that differs between {first_name} and {other_name}; integers cannot be "
                "merged, make the models agree on it"
            )
    writer.write(name, 0, tensor)


def _in_order(pool: ThreadPoolExecutor, window: int, function: Callable, items: Any) -> Iterator:
    """pool.map that starts no more than `window` items ahead of what was taken."""
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _Watch:
    """Parameters done, for the progress bar."""

    def __init__(self, title: str, total: int) -> None:
        self.bar, self.total, self.done, self.started = Bar(title, "M"), total, 0, time.perf_counter()
        self.lock = threading.Lock()

    def add(self, entries: int) -> None:
        with self.lock:
            self.done += entries
            rate = self.done / (time.perf_counter() - self.started) / 1e6
            self.bar.update(round(self.done / 1e6), round(self.total / 1e6), f"{rate:.0f} M parameters/s")


def keep_freed_memory() -> None:
    """Let the C library reuse the memory of blocks: handed back to the system, it costs a page fault each time."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library without it is slower, not wrong
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 1 << 30)
    mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes; a larger value would be refused and change nothing
