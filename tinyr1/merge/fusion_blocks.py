"""Arcee Fusion over the blocks of a tensor: the method that `engine` runs. `fusion` has the definition.

    prepare   pass 1  each block -> divergence of its rows, histogram of the upper bits of its scores, or of a sample
                      -> brackets: the bin of each quartile, after a sample the bins in which it should be
              pass 2  each block -> how many scores are below each bracket, and a histogram of those inside
                      -> quartiles -> threshold          (`paper` first takes three passes for its one divergence)
    apply     pass 3  each block -> merged rows, counts of what was taken

Scores are computed again in every pass: storing them would take more memory than both inputs. Of a large tensor pass 1
counts one score in SHARE. Pass 2 counts all of them, so that it shows whether a bracket holds its quartile; where one
does not, all scores are counted once more, and the quartiles are exact in either case. On a CPU the compiled loops of
`kernels` do the work, on a GPU the tensor operations of `fusion`.
"""

import threading
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import READINGS
from tinyr1.merge import fusion, kernels, quantiles
from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.quantiles import BINS

SAMPLED = 2**23  # entries of a tensor from which pass 1 counts a sample of the scores
CODES = 2**32  # ordered bits of a score
MOST_CODES = 2**20  # scores that all brackets may have room for: 8 MiB for each thread


@dataclass(frozen=True)
class FusionState:
    """What pass 3 needs of a tensor: the divergence of every row (rows,) float64, in nats, and the threshold."""

    divergence: np.ndarray
    threshold: float
    entries: int


@dataclass(frozen=True)
class Fusion(Method):
    """One fusion step; blocks hold (base, other)."""

    reading: str = "exact"
    iqr_multiplier: float = 1.5
    inputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise ValueError(f"reading {self.reading!r}: must be one of {', '.join(READINGS)}")
        if not 0 <= self.iqr_multiplier < float("inf"):
            raise ValueError(f"iqr_multiplier {self.iqr_multiplier}: must be a number of at least 0, as 1.5")

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> FusionState:
        entries = shape[0] * shape[1]
        ranks = fusion.quartile_ranks(entries)
        fixed = tensor_divergence(scan) if self.reading == "paper" else 1.0 if self.reading == "magnitude" else None
        # Write into one preallocated array; per-thread arrays would fragment the heap.
        divergence, done, dtype = np.empty(shape[0]), 0, torch.float64
        sampled = entries >= SAMPLED and self.reading != "released"
        counters = _Counters(sampled)
        for rows, dtype in scan(lambda block: self._measure(block, fixed, counters)):  # noqa: B007
            divergence[done : done + len(rows)] = rows
            done += len(rows)
        counts = counters.by_bin()
        if self.reading == "released" and dtype == torch.bfloat16:
            # The lower half of a bfloat16 score is empty: all 0, or all 1 where the bits of a negative one are flipped.
            highs = [quantiles.locate(counts, rank)[0] for rank in ranks]
            quartiles = [_score(high * BINS + (BINS - 1) * (high < BINS // 2)) for high in highs]
        else:
            quartiles = self._quartiles(scan, divergence, counts, ranks, entries)
        # The released code rounds the threshold as its inputs are rounded; elsewhere nothing needs rounding.
        computed_in = dtype if self.reading == "released" else torch.float64
        return FusionState(divergence, fusion.threshold(quartiles, self.iqr_multiplier, computed_in), entries)

    def _quartiles(
        self, scan: Scan, divergence: np.ndarray, counts: torch.Tensor, ranks: list[int], entries: int
    ) -> list[float]:
        """The scores of the ranks. counts: upper bits of all scores or of a sample, see `quantiles.brackets`."""
        spans, width = quantiles.brackets(counts, ranks, entries), CODES // len(counts)
        edges = [first * width for first, _ in spans]
        sizes = [(last - first + 1) * width for first, last in spans]
        if sum(sizes) <= MOST_CODES:
            found = self._in_brackets(scan, divergence, edges, sizes, ranks)
            if found is not None:
                return found
        if len(counts) == BINS:
            raise UserError("scores that one pass counted were gone in the next: the weights were changed while they "
                            "were merged; leave them alone and merge again")  # fmt: skip
        # The sample says too little, or it misleads.
        everything = _Counters(sampled=False)
        for _ in scan(lambda block: self._count(block, divergence, everything)):
            pass
        return self._quartiles(scan, divergence, everything.by_bin(), ranks, entries)

    def _in_brackets(
        self, scan: Scan, divergence: np.ndarray, edges: list[int], sizes: list[int], ranks: list[int]
    ) -> list[float] | None:
        """The scores of the ranks; None where the brackets, each of some codes from an edge on, lack one of them."""
        counters = _ThreadCounters(len(edges) + sum(sizes))  # below each bracket, then inside of it
        for _ in scan(lambda block: self._refine(block, divergence, edges, sizes, counters.mine())):
            pass
        below, *counts = counters.total().split([len(edges), *sizes])
        places = quantiles.inside(counts, below.tolist(), ranks)
        return [_score(edges[k] + at) for k, at in places] if len(places) == len(ranks) else None

    def apply(self, state: FusionState, block: RowBlock) -> tuple[torch.Tensor, np.ndarray]:
        base, other = block.tensors
        if is_compiled(base):
            return self._fused(state, block, counted=True)
        divergence = state.divergence[block.start : block.start + len(base)]
        scores = fusion.importance(base, other, torch.from_numpy(divergence).to(base.device), self.reading)
        factor = fusion.factor(scores, state.threshold, self.reading)
        merged = fusion.combine(base, other, factor, self.reading)
        return merged, np.array(fusion.tally(base, other, factor))

    def merged(self, state: FusionState, block: RowBlock) -> torch.Tensor:
        if is_compiled(block.tensors[0]):
            return self._fused(state, block, counted=False)[0]
        return self.apply(state, block)[0]

    def _fused(self, state: FusionState, block: RowBlock, counted: bool) -> tuple[torch.Tensor, np.ndarray]:
        """What `apply` gives, by a compiled loop, which leaves the counts at 0 unless they are wanted."""
        base, other = block.tensors
        divergence = state.divergence[block.start : block.start + len(base)]
        # The kernel counts while it writes: a second pass for the statistics would read both inputs again.
        out, tally = torch.empty(base.shape, dtype=loose(base).dtype), np.zeros(len(fusion.COUNTS))
        limit = np.float32(state.threshold)
        # Kernels compare in float32: take the smallest float32 that is not below the threshold, so that the same
        # entries pass as in a comparison with the threshold itself. Equation (4) subtracts, and has no such care.
        if self.reading != "paper" and limit < state.threshold:
            limit = np.nextafter(limit, np.float32(np.inf))
        mode = _mode(self.reading, base.dtype)
        kernels.fuse_rows(mode, array(base), array(other), divergence, limit, counted, array(out), tally)
        return out.to(base.dtype), tally

    def statistics(self, state: FusionState, counts: np.ndarray) -> dict[str, Any]:
        divergence = torch.from_numpy(state.divergence)
        return asdict(fusion.selection(counts.tolist(), divergence, state.threshold, state.entries))

    def _measure(
        self, block: RowBlock, fixed: float | None, counters: "_Counters"
    ) -> tuple[np.ndarray, torch.dtype]:  # fmt: skip
        """(divergence of each row, dtype) of a block, whose scores are counted."""
        base, other = block.tensors
        if is_compiled(base) and self.reading == "exact":
            # One kernel does both, with the row still in the processor's cache.
            rows, counts = np.empty(len(base)), counters.mine()
            kernels.exact_divergence(array(base), array(other), rows, block.start, counters.sampled, counts)
            return rows, base.dtype
        rows = _divergence(self.reading, base, other, fixed).double().cpu().numpy()
        self._count_rows(block, rows, counters)
        return rows, base.dtype

    def _count(self, block: RowBlock, divergence: np.ndarray, counters: "_Counters") -> None:
        """Count the scores of a block; divergence: of all rows of the tensor."""
        self._count_rows(block, divergence[block.start : block.start + len(block.tensors[0])], counters)

    def _count_rows(self, block: RowBlock, rows: np.ndarray, counters: "_Counters") -> None:
        base, other = block.tensors
        if is_compiled(base):
            mode, sampled = _mode(self.reading, base.dtype), counters.sampled
            kernels.count_high(mode, array(base), array(other), rows, block.start, sampled, counters.mine())
        else:
            scores = fusion.importance(base, other, torch.from_numpy(rows).to(base.device), self.reading)
            counters.add(quantiles.sort_keys(scores).view(scores.shape), block.start)

    def _refine(
        self, block: RowBlock, divergence: np.ndarray, edges: list[int], sizes: list[int], counts: np.ndarray
    ) -> None:
        """Adds to counts how many scores are below each bracket, then how often each ordered bits inside occur."""
        base, other = block.tensors
        rows = divergence[block.start : block.start + len(base)]
        below, inside = counts[: len(edges)], counts[len(edges) :]
        if is_compiled(base):
            limits = np.zeros((2, kernels.BRACKETS), np.uint32)
            limits[:, : len(edges)] = edges, sizes
            under = np.zeros(kernels.BRACKETS, np.int64)
            mode = _mode(self.reading, base.dtype)
            kernels.count_low(mode, array(base), array(other), rows, *limits, under, inside)
            below += under[: len(edges)]
        else:
            scores = fusion.importance(base, other, torch.from_numpy(rows).to(base.device), self.reading)
            keys = quantiles.sort_keys(scores)
            for k, (edge, size) in enumerate(zip(edges, sizes, strict=True)):
                places = keys.long() + (CODES // 2 - edge)
                below[k] += int((places < 0).sum())
                _tally(inside[sum(sizes[:k]) :], places[(places >= 0) & (places < size)])


class _ThreadCounters:
    """Counters (int64), one array for each thread: no thread waits, and arrays are added up once and not per block."""

    def __init__(self, size: int) -> None:
        self.size, self.local = size, threading.local()
        self.arrays: list[np.ndarray] = []

    def mine(self) -> np.ndarray:
        """The array of the calling thread, zeros at first."""
        if not hasattr(self.local, "counts"):
            self.local.counts = np.zeros(self.size, np.int64)
            self.arrays.append(self.local.counts)
        return self.local.counts

    def total(self) -> torch.Tensor:
        """The sum over all threads, once: it takes the place of what the first one counted."""
        first, *others = self.arrays
        for each in others:
            first += each
        return torch.from_numpy(first)


class _Counters(_ThreadCounters):
    """How often each value of the upper bits of a score occurs, as kernels count it; sampled: see `kernels`."""

    def __init__(self, sampled: bool) -> None:
        super().__init__(2**kernels.FINE_BITS if sampled else BINS * kernels.COPIES)
        self.sampled = sampled

    def add(self, keys: torch.Tensor, start: int) -> None:
        """Count scores by their `quantiles.sort_keys` (rows, width), on any device; start: number of the first row."""
        if not self.sampled:
            self.mine()[:: kernels.COPIES] += quantiles.histogram(keys.flatten()).cpu().numpy()
            return
        rows, columns = (torch.arange(size, device=keys.device) for size in keys.shape)
        # Diagonals: every column is counted as often as any other.
        sample = keys[(rows[:, None] + columns + start) % kernels.SHARE == 0]
        _tally(self.mine(), (sample >> (32 - kernels.FINE_BITS)) + 2 ** (kernels.FINE_BITS - 1))

    def by_bin(self) -> torch.Tensor:
        """(2 ** FINE_BITS,) counts of a sample, (65536,) of all scores."""
        counts = self.total()
        return counts if self.sampled else torch.from_numpy(kernels.fold(counts.numpy()))


def _tally(counts: np.ndarray, places: torch.Tensor) -> None:
    """Raise the counter at each place, given by their numbers on any device."""
    # Of all counters few are hit, and only those leave a GPU.
    numbers, times = places.unique(return_counts=True)
    counts[numbers.cpu().numpy()] += times.cpu().numpy()


def _score(ordered: int) -> float:
    """The float32 whose ordered bits (`float_bits.ordered`) are given."""
    return quantiles.value_of(ordered - CODES // 2)


def is_compiled(tensor: torch.Tensor) -> bool:
    """Whether `kernels` computes with this tensor; for the others, on a GPU, tensor operations do."""
    return tensor.device.type == "cpu"


def _mode(reading: str, dtype: torch.dtype) -> int:
    """The kernels' number of a reading and the dtype that it computes in."""
    if reading != "released":
        return kernels.PAPER if reading == "paper" else kernels.EXACT
    if dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"reading 'released' computes in bfloat16 or float32, not {dtype}; give one as dtype")
    return kernels.RELEASED_BF16 if dtype == torch.bfloat16 else kernels.RELEASED_FP32


def loose(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in a dtype that kernels read: float16, which Numba cannot compile, becomes float32."""
    return tensor if tensor.dtype in (torch.bfloat16, torch.float32) else tensor.float()


def array(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a tensor as kernels take it: float32, or bfloat16 as uint16."""
    tensor = loose(tensor).contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@cache
def _logarithms() -> np.ndarray:
    """Bits (uint16) of the logarithm of every bfloat16 number, as torch rounds it."""
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    return numbers.log().view(torch.uint16).numpy()


def _divergence(reading: str, base: torch.Tensor, other: torch.Tensor, fixed: float | None) -> torch.Tensor:
    """(rows,) divergences of a block; fixed: the one of all rows, under `paper` and `magnitude`."""
    if fixed is not None:
        return torch.full((len(base),), fixed, dtype=torch.float64, device=base.device)
    if reading != "released" or not is_compiled(base) or base.dtype != torch.bfloat16:
        return fusion.divergence(base, other, reading)
    # The bits of `fusion.released_divergence`, four times as fast: torch's softmax and sum round as in the released
    # code, and the kernel does the steps between them.
    terms = torch.empty_like(other)
    p, q = other.softmax(-1), base.softmax(-1)
    kernels.bf16_terms(array(p), array(q), _logarithms(), array(terms))
    return terms.sum(-1)


def tensor_divergence(scan: Scan) -> float:
    """`fusion.paper_divergence` of a tensor that comes in blocks: three passes, for the maximum, the mean, the sum."""
    # The largest entry is subtracted before exp, so that no block overflows.
    top = max(scan(lambda block: float(block.tensors[0].max())))

    def moments(block: RowBlock) -> np.ndarray:
        base, other = (t.double() for t in block.tensors)
        p = (base - top).exp()
        return np.array([float(p.sum()), float((p * (base - other)).sum())])

    total, moment = sum(scan(moments), np.zeros(2))
    mean = moment / total

    def remainder(block: RowBlock) -> float:
        base, other = (t.double() for t in block.tensors)
        return float(((base - top).exp() * fusion.exp_remainder(base - other - mean)).sum())

    return float(np.log1p(sum(scan(remainder)) / total))
