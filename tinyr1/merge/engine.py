r"""All weights of a merge in one pass over the tensors of several checkpoints, whatever the recipe.

    tensor by tensor, in the order of the output files; here for (math & science) & code:

    rows of math ------\
    rows of science --- step --- merged rows, rounded as if they had been stored ---\
    rows of code ------------------------------------------------------------------- step --- rows --- ShardWriter

A chain of steps needs no checkpoint in between: every step computes its blocks from the blocks of the steps inside it,
and the result has the bytes that separate merges would have given. Some blocks are in memory, and never a model. Large
tensors are shared out among the threads block by block; each small tensor belongs to one thread.
"""

import ctypes
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from tinyr1.core.errors import UserError
from tinyr1.core.progress import Bar
from tinyr1.core.recipe import DTYPE_NAMES, Recipe, describe
from tinyr1.merge.float_bits import all_finite
from tinyr1.merge.layers import LeafTensor, Source, StepTensor, layers_of
from tinyr1.merge.method import BLOCK, Method, RowBlock, as_rows, borders
from tinyr1.merge.methods import build
from tinyr1.merge.reader import Checkpoint, StoredTensor
from tinyr1.merge.tied import same_tensors
from tinyr1.merge.writer import SHARD_BYTES, ShardWriter

LARGE = 4  # blocks from which all threads work on one tensor; smaller tensors get a thread each
TOGETHER = 2  # blocks or small tensors that a thread takes at once: between two of them it waits for nobody
KEPT = 2**25  # entries of a tensor up to which the result of an inner step stays in memory between the passes
DTYPES = {name: getattr(torch, name) for name in DTYPE_NAMES}
# Tensors that transformers keeps in float32 whatever the dtype of a model is, by the ends of their names.
IN_FLOAT32 = ("e_score_correction_bias",)
Each = Callable[[Callable, Iterable], Iterator]  # each(function, items) yields the results in order, as `map` does


@dataclass(frozen=True)
class MergeOptions:
    """How a merge is computed and stored; dtypes are torch's, None keeps those of the inputs."""

    reading: str = "exact"  # of fusion steps that name none; the same holds for iqr_multiplier
    iqr_multiplier: float = 1.5
    dtype: torch.dtype | None = None  # inputs are converted to it before anything is computed
    out_dtype: torch.dtype | None = None  # the result of every step is converted to it; None: dtype
    device: str = "cpu"
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    shard_bytes: int = SHARD_BYTES
    tokenizer: str | None = None  # the model whose tokenizer the result gets; None: all must have the same
    tokenizer_source: str | None = None  # base, union or a model, whose tokens the result has; see `vocabulary`
    chat_template: str | None = None  # Jinja text or a name of `chat_templates`; None: that of the tokenizer

    def results(self) -> dict[str, Any]:
        """The options that change a bit of the result, as JSON."""
        names = {dtype: name for name, dtype in DTYPES.items()} | {None: None}
        # What was added later is named only where it is given, so that a merge without it keeps its identity.
        later = {"tokenizer_source": self.tokenizer_source, "chat_template": self.chat_template}
        given = {key: value for key, value in later.items() if value is not None}
        return {
            "reading": self.reading, "iqr_multiplier": self.iqr_multiplier, "dtype": names[self.dtype],
            "out_dtype": names[self.out_dtype], "tokenizer": self.tokenizer, "shard_bytes": self.shard_bytes,
            "device": torch.device(self.device).type,  # sums are taken in another order on a GPU
            **given,
        }  # fmt: skip


class _Leaf:
    """A tensor of an input model, block by block."""

    def __init__(self, source: LeafTensor, models: dict[str, Checkpoint], options: MergeOptions) -> None:
        self.name, self.model, self.checkpoint, self.options = source.name, source.model, models[source.model], options
        self.checked: set[int] = set()  # first rows of the blocks that are known to be finite

    def prepare(self, shape: tuple[int, int], each: Each) -> None:
        """A tensor that is read has nothing to prepare."""

    def rows(self, first: int, last: int, counted: bool = True) -> tuple[torch.Tensor, list[Any]]:
        """(rows in the dtype and on the device of the computation, no counts); UserError when one is not finite."""
        stored = self.checkpoint.rows(self.name, first, last)
        # A method reads a block several times; the check of the first time holds.
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

    def steps(self) -> "Iterator[_Step]":
        """None: nothing is merged."""
        return iter(())


class _Step:
    """One merge step of the tensor that is called `name` in the result; `prepare` comes before `rows`."""

    def __init__(
        self, source: StepTensor, name: str, models: dict[str, Checkpoint], options: MergeOptions, inner: bool
    ) -> None:
        self.recipe, self.options = source.recipe, options
        self.inputs = [_made(part, name, models, options, inner=True) for part in source.inputs]
        main = source.leaves[0]
        stored = models[main.model].tensors[main.name]
        shape = stored.shape
        # A step around this one passes over the tensor several times. Large tensors are computed again for each pass.
        self.keeps = inner and stored.entries <= KEPT
        self.kept: dict[int, tuple[torch.Tensor, list[Any]]] = {}  # first row of a block -> what `rows` gave for it
        self.method: Method = (
            build(source.recipe, options.reading, options.iqr_multiplier).for_tensor(name).for_shape(shape)
        )
        self.state: Any = None

    def prepare(self, shape: tuple[int, int], each: Each) -> None:
        """Let the method and those of the inner steps look at the whole tensor of (rows, width)."""
        for inner in self.inputs:  # inner steps first: the blocks of this one are computed from theirs
            inner.prepare(shape, each)
        places = borders(shape)

        def block(place: tuple[int, int]) -> RowBlock:
            return RowBlock(place[0], tuple(part.rows(*place, counted=False)[0] for part in self.inputs))

        self.state = self.method.prepare(lambda function: each(lambda place: function(block(place)), places), shape)

    def rows(self, first: int, last: int, counted: bool = True) -> tuple[torch.Tensor, list[Any]]:
        """(merged rows, counts of the inner steps and of this one); without `counted` the counts mean nothing."""
        if first in self.kept:
            return self.kept[first]
        counted = counted or self.keeps  # what stays is used again by a caller who wants the counts
        parts = [part.rows(first, last, counted) for part in self.inputs]
        block, counts = RowBlock(first, tuple(rows for rows, _ in parts)), None
        if counted:
            merged, counts = self.method.apply(self.state, block)
        else:
            merged = self.method.merged(self.state, block)
        # Two conversions, as if the step had been stored and read again: a chain then equals separate merges.
        stored = merged.to(self.options.out_dtype or merged.dtype)
        result = stored.to(self.options.dtype or merged.dtype), [*(c for _, inner in parts for c in inner), counts]
        if self.keeps:
            self.kept[first] = result
        return result

    def steps(self) -> "Iterator[_Step]":
        """Inner steps first, in the order of the counts of `rows`."""
        for part in self.inputs:
            yield from part.steps()
        yield self


def _made(
    source: Source, name: str, models: dict[str, Checkpoint], options: MergeOptions, inner: bool = False
) -> "_Step | _Leaf":
    """What computes the blocks of a tensor that is called `name` in the result; inner: for the step around it."""
    if isinstance(source, LeafTensor):
        return _Leaf(source, models, options)
    return _Step(source, name, models, options, inner)


def _finite(tensor: torch.Tensor) -> bool:
    if tensor.dtype == torch.bfloat16:  # torch would first make a mask of the whole block
        return all_finite(tensor.view(torch.uint16).reshape(-1).numpy())
    return bool(tensor.isfinite().all())


def merge_weights(
    recipe: Recipe, models: dict[str, Checkpoint], out: Path, options: MergeOptions, title: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Merge the weights of checked models into safetensors files under `out`.

    Returns a statistics row for each tensor and step, and the SHA-256 of each file.
    """
    tensors = result_tensors(recipe, models)
    layers = layers_of(recipe, models)
    _keep_freed_memory()
    layout = {n: (t.shape, dtype_of_result(n, t, options)) for n, t in tensors.items()}
    writer = ShardWriter(out, layout, options.shard_bytes)
    progress = _Progress(title, sum(t.entries for t in tensors.values()))
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        for model in models.values():
            model.open()
        same = same_tensors(models.values())
        # Every thread computes alone: threads inside torch would compete with those of the pool.
        with ThreadPoolExecutor(options.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def job(name: str, each: Each) -> list[dict[str, Any]]:
                source = layers.source(recipe, name)
                drawn = same.get(name, name)
                return _merge_tensor(source, models, options, writer, progress, name, tensors[name], each, drawn)

            # Tensors in the order of the files, so that the writer has little to hold back for its order.
            for is_large, group in groupby(writer.order, lambda name: _is_large(tensors[name])):
                names = list(group)
                if is_large:
                    each = partial(_in_order, pool, 2 * options.threads)
                    rows |= {name: job(name, each) for name in names}
                else:
                    results = _in_order(pool, 4 * options.threads, lambda name: job(name, map), names)
                    rows |= dict(zip(names, results, strict=True))
    except BaseException:  # an interrupt, too: the threads of the writer must end before the process can
        writer.abandon()
        raise
    finally:
        progress.bar.close()
        for model in models.values():
            model.close()
    return [row for name in tensors for row in rows[name]], writer.close()


def _is_large(stored: StoredTensor) -> bool:
    return len(borders(as_rows(stored.shape))) >= LARGE


def shared_tensors(models: dict[str, Checkpoint], main: Checkpoint) -> dict[str, StoredTensor]:
    """The tensors that are merged, by name: all, except a tied output head that not every model stores."""
    return {n: main.tensors[n] for n in sorted(set.intersection(*(set(m.tensors) for m in models.values())))}


def result_tensors(recipe: Recipe, models: dict[str, Checkpoint]) -> dict[str, StoredTensor]:
    """The tensors of the result by name, each as its main model stores it."""
    if not recipe.stacks:
        return shared_tensors(models, models[recipe.main_leaf])
    layers = layers_of(recipe, models)
    found = {}
    for name in sorted(layers.names(recipe, {model: held.tensors for model, held in models.items()})):
        main = layers.source(recipe, name).leaves[0]
        found[name] = models[main.model].tensors[main.name]
    return found


def dtype_of_result(name: str, stored: StoredTensor, options: MergeOptions) -> torch.dtype:
    """The dtype of a merged tensor. Integers keep theirs, and so do tensors that transformers keeps in float32."""
    wanted = options.out_dtype or options.dtype
    converted = stored.dtype.is_floating_point and not name.endswith(IN_FLOAT32)
    return wanted if wanted is not None and converted else stored.dtype


def _merge_tensor(
    source: Source, models: dict[str, Checkpoint], options: MergeOptions, writer: ShardWriter, progress: "_Progress",
    name: str, stored: StoredTensor, each: Each, drawn: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Merge one tensor and write it; returns a statistics row for each step. drawn: by whose name masks are drawn."""
    if name.endswith(IN_FLOAT32):
        options = replace(options, dtype=None, out_dtype=None)
    shape = as_rows(stored.shape)
    leaves = list(dict.fromkeys(source.leaves))
    if not stored.dtype.is_floating_point:
        _copy_equal(leaves, models, name, writer)
        return []
    if stored.entries == 0:
        return []
    root = _made(source, drawn, models, options)
    # The disk starts on the whole tensor before the first of its blocks is needed.
    for leaf in leaves:
        models[leaf.model].announce(leaf.name)
    root.prepare(shape, each)
    dtype = dtype_of_result(name, stored, options)

    def merge_block(place: tuple[int, int]) -> list[Any]:
        merged, counts = root.rows(*place)
        merged = merged.to(dtype).cpu()
        # Sums of finite weights can leave the range of a narrow dtype; nobody would see it in the file.
        if not _finite(merged):
            raise UserError(f"{name}: the result has numbers beyond the range of {dtype}; give another --out-dtype")
        writer.write(name, place[0] * shape[1] * dtype.itemsize, merged)
        progress.add(merged.numel())
        return counts

    # In the order of the blocks, so that sums of floats are the same with any number of threads.
    totals: list[Any] = []
    for counts in each(merge_block, borders(shape)):
        totals = counts if not totals else [None if a is None else a + b for a, b in zip(totals, counts, strict=True)]
    return [
        {"tensor": name, "method": step.recipe.method, "base": _called(step.recipe.base),
         "other": _called(step.recipe.other), **step.method.statistics(step.state, total)}
        for step, total in zip(root.steps(), totals, strict=True)
    ]  # fmt: skip


def _called(part: Recipe | str | None) -> str | None:
    return part if part is None else describe(part)


def _copy_equal(leaves: list[LeafTensor], models: dict[str, Checkpoint], name: str, writer: ShardWriter) -> None:
    """Integer tensors (buffers) are not merged: they must be the same in all models."""
    first, *others = leaves
    rows = as_rows(models[first.model].tensors[first.name].shape)[0]
    tensor = models[first.model].rows(first.name, 0, rows)
    for other in others:
        if not torch.equal(tensor, models[other.model].rows(other.name, 0, rows)):
            raise UserError(
                f"{name}: an integer tensor that differs between {first.model} and {other.model}; integers cannot be "
                "merged, make the models agree on it"
            )
    writer.write(name, 0, tensor)


def _in_order(pool: ThreadPoolExecutor, window: int, function: Callable, items: Iterable) -> Iterator:
    """pool.map that starts about `window` items, before the results of earlier ones are taken, and no more."""
    # A thread takes TOGETHER items at once, unless there are so few that others would have nothing to do.
    listed = list(items)
    together = TOGETHER if len(listed) >= 4 * window else 1

    def run(part: list) -> list:
        return [function(item) for item in part]

    # Unbounded, as pool.map is, the results of a whole tensor could wait in memory for the first of them.
    waiting: deque[Future] = deque()
    try:
        for first in range(0, len(listed), together):
            waiting.append(pool.submit(run, listed[first : first + together]))
            if len(waiting) > window // together:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _Progress:
    """Parameters done, for the progress bar."""

    def __init__(self, title: str, total: int) -> None:
        self.bar, self.total, self.done, self.started = Bar(title, "M"), total, 0, time.perf_counter()
        self.lock = threading.Lock()

    def add(self, entries: int) -> None:
        with self.lock:
            self.done += entries
            rate = self.done / (time.perf_counter() - self.started) / 1e6
            self.bar.update(round(self.done / 1e6), round(self.total / 1e6), f"{rate:.0f} M parameters/s")


def _keep_freed_memory() -> None:
    """Let the C library reuse the memory of blocks: memory returned to the system costs page faults to get back."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library without mallopt is slower, not wrong
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 1 << 30)
    mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes; it refuses a larger value and changes nothing


def trial_rate(recipe: Recipe, models: dict[str, Checkpoint], options: MergeOptions) -> float:
    """Parameters per second of a merge, from merging two blocks of its largest tensor on one thread."""
    tensors = result_tensors(recipe, models)
    floating = {n: t for n, t in tensors.items() if t.dtype.is_floating_point and t.entries}
    if not floating:
        return math.inf
    name, stored = max(floating.items(), key=lambda item: item[1].entries)
    rows, width = as_rows(stored.shape)
    rows = min(rows, max(1, 2 * BLOCK // width))
    root = _made(layers_of(recipe, models).source(recipe, name), name, models, options)
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
