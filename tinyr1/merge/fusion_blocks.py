"""Arcee Fusion over the blocks of a tensor: the method that `engine` runs. `fusion` has the definition.

    prepare   pass 1  each block -> divergence of its rows, histogram of the upper halves of its scores
              pass 2  each block -> histograms of the lower halves in the three bins of the quartiles
                      -> quartiles -> threshold          (`paper` first takes three passes for its one divergence)
    apply     pass 3  each block -> merged rows, counts of what was taken

Scores are computed again in every pass: storing them would take more memory than both inputs. On a CPU the compiled
loops of `kernels` do the work, on a GPU the tensor operations of `fusion`.
"""

import threading
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch

from tinyr1.core.recipe import READINGS
from tinyr1.merge import fusion, kernels, quantiles
from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.quantiles import BINS


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
        entries, ranks = shape[0] * shape[1], fusion.quartile_ranks(shape[0] * shape[1])
        fixed = tensor_divergence(scan) if self.reading == "paper" else 1.0 if self.reading == "magnitude" else None
        # Write into one preallocated array; per-thread arrays would fragment the heap.
        divergence, done, dtype = np.empty(shape[0]), 0, torch.float64
        high, low = _ThreadCounters((BINS,)), _ThreadCounters((len(ranks), BINS))
        for rows, dtype in scan(lambda block: self._measure(block, fixed, high.mine())):  # noqa: B007
            divergence[done : done + len(rows)] = rows
            done += len(rows)
        # A quartile lies in the bin of the upper halves where the counts reach its rank; the rest of the rank counts on
        # inside that bin. Where two quartiles share a bin, `highs.index` gives both the counters of the first.
        counts = high.total()
        bins = [quantiles.locate(counts, rank) for rank in ranks]
        highs = [b for b, _ in bins]
        if self.reading == "released" and dtype == torch.bfloat16:
            # The lower half of a bfloat16 score is empty: all 0, or all 1 where the bits of a negative one are flipped.
            lows = [(BINS - 1) * (h < BINS // 2) for h in highs]
        else:
            for _ in scan(lambda block: self._refine(block, divergence, highs, low.mine())):
                pass
            counts = low.total()
            lows = [quantiles.locate(counts[highs.index(h)], rest)[0] for h, rest in bins]
        quartiles = [quantiles.value_of((h - BINS // 2) * BINS + low) for h, low in zip(highs, lows, strict=True)]
        # The released code rounds the threshold as its inputs are rounded; elsewhere nothing needs rounding.
        computed_in = dtype if self.reading == "released" else torch.float64
        return FusionState(divergence, fusion.threshold(quartiles, self.iqr_multiplier, computed_in), entries)

    def apply(self, state: FusionState, block: RowBlock) -> tuple[torch.Tensor, np.ndarray]:
        base, other = block.tensors
        divergence = state.divergence[block.start : block.start + len(base)]
        if not is_compiled(base):
            scores = fusion.importance(base, other, torch.from_numpy(divergence).to(base.device), self.reading)
            factor = fusion.factor(scores, state.threshold, self.reading)
            merged = fusion.combine(base, other, factor, self.reading)
            return merged, np.array(fusion.tally(base, other, factor))
        # The kernel counts while it writes: a second pass for the statistics would read both inputs again.
        out, tally = torch.empty_like(loose(base)), np.zeros(len(fusion.COUNTS))
        limit = np.float32(state.threshold)
        # Kernels compare in float32: take the smallest float32 that is not below the threshold, so that the same
        # entries pass as in a comparison with the threshold itself. Equation (4) subtracts, and has no such care.
        if self.reading != "paper" and limit < state.threshold:
            limit = np.nextafter(limit, np.float32(np.inf))
        mode = _mode(self.reading, base.dtype)
        kernels.fuse_rows(mode, array(base), array(other), divergence, limit, array(out), tally)
        return out.to(base.dtype), tally

    def statistics(self, state: FusionState, counts: np.ndarray) -> dict[str, Any]:
        divergence = torch.from_numpy(state.divergence)
        return asdict(fusion.selection(counts.tolist(), divergence, state.threshold, state.entries))

    def _measure(self, block: RowBlock, fixed: float | None, counts: np.ndarray) -> tuple[np.ndarray, torch.dtype]:
        """(divergence of each row, dtype) of a block; adds the upper halves of its scores to counts (65536,)."""
        base, other = block.tensors
        if is_compiled(base) and self.reading == "exact":
            # One kernel does both, with the row still in the processor's cache.
            rows = np.empty(len(base))
            kernels.exact_divergence(array(base), array(other), rows, counts)
            return rows, base.dtype
        divergence = _divergence(self.reading, base, other, fixed)
        rows = divergence.double().cpu().numpy()
        if is_compiled(base):
            kernels.count_high(_mode(self.reading, base.dtype), array(base), array(other), rows, counts)
        else:
            scores = fusion.importance(base, other, divergence, self.reading)
            counts += quantiles.histogram(quantiles.sort_keys(scores)).cpu().numpy()
        return rows, base.dtype

    def _refine(self, block: RowBlock, divergence: np.ndarray, highs: list[int], counts: np.ndarray) -> None:
        """Adds the lower halves of the scores whose upper half is one of highs to counts (3, 65536)."""
        base, other = block.tensors
        rows = divergence[block.start : block.start + len(base)]
        if is_compiled(base):
            mode = _mode(self.reading, base.dtype)
            kernels.count_low(mode, array(base), array(other), rows, np.array(highs, np.uint32), counts)
        else:
            scores = fusion.importance(base, other, torch.from_numpy(rows).to(base.device), self.reading)
            keys = quantiles.sort_keys(scores)
            counts += torch.stack([quantiles.histogram(keys, h) for h in highs]).cpu().numpy()


class _ThreadCounters:
    """Counters (int64), one array for each thread: no thread waits, and arrays are added up once and not per block."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.local = shape, threading.local()
        self.arrays: list[np.ndarray] = []

    def mine(self) -> np.ndarray:
        """The array of the calling thread, zeros at first."""
        if not hasattr(self.local, "counts"):
            self.local.counts = np.zeros(self.shape, np.int64)
            self.arrays.append(self.local.counts)
        return self.local.counts

    def total(self) -> torch.Tensor:
        return torch.from_numpy(sum(self.arrays))


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
    tensor = loose(tensor)
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
