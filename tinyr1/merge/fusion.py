"""Arcee Fusion on tensors: importance, threshold, selection (paper §2.2, ledger §3). Pure functions.

    importance = |right - left| · KL(softmax(right row) ‖ softmax(left row))
    threshold  = median + λ (Q75 - Q25) of the tensor's importance
    merged     = right where importance >= threshold, else left

left is the base, kept where the mask is 0. Three readings of one definition:

exact     the definition of the released code, computed soundly: the divergence to six digits by a form that cannot go
          negative, exact quantiles, and merged entries that are copies of one of the two inputs.
released  what the released code computes, in the dtype of its inputs (bfloat16 for the published model, or float32),
          where rounding decides many selections (ledger §3.4). Quantiles are exact, where the released code draws a
          random subsample from tensors above a million entries; below that the result is the same to the bit.
paper     equations (1) to (4) as printed: one divergence for the tensor, from softmax(left) to softmax(right); a
          signed difference left - right; and left + (right - left) · ⌈max(0, importance - threshold)⌉ (C12 to C14).

Ties: entries whose importance equals the threshold are taken (`>=`), under `paper` they are not. Where fewer than a
quarter of the entries differ, all three quartiles are 0, so is the threshold, and `>=` takes everything: merged is
right. `exact` and `released` keep that rule, and the statistics name it. Importance is held in float32; what is
below 1e-45 is 0.
"""

import threading
from dataclasses import asdict, dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from tinyr1.core.recipe import READINGS
from tinyr1.merge import kernels, quantiles
from tinyr1.merge.method import Block, Method, Scan, merge_tensors
from tinyr1.merge.quantiles import BINS

COUNTS = ("differing", "selected", "distance", "taken")  # entries, entries, squared, squared
RELEASED_EPSILON = 1e-8  # added after softmax in the released code; lost in bfloat16


@dataclass(frozen=True)
class Selection:
    """What one fusion step did to one tensor; `selected` counts entries that differ and were taken from the right."""

    entries: int
    differing: int
    selected: int
    threshold: float
    distance_share: float  # of the squared distance between left and right, what the taken entries hold
    negative_rows: int  # rows whose computed divergence is below zero; none under `exact`
    nonpositive_rows: int  # those, and the rows where it is zero
    rows: int
    regime: str  # identical, everything (all that differs was taken), nothing, or part


@dataclass(frozen=True)
class _State:
    divergence: np.ndarray  # (rows,) float64, in nats
    threshold: float
    entries: int


def row_divergence(right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """KL(softmax(right) ‖ softmax(left)) of each row (..., n) -> (...), float64, in nats; never negative.

    With d = right - left, p = softmax(right), μ = E_p[d] and z = d - μ it is log(1 + E_p[e^(-z) - 1 + z]). Every
    term of the expectation is at least 0, while Σ p log(p/q) cancels to rounding noise for small d.
    """
    right, left = right.double(), left.double()
    delta = right - left
    p = right.softmax(-1)
    z = delta - (p * delta).sum(-1, keepdim=True)
    return torch.log1p((p * _excess(z)).sum(-1))


def _excess(z: torch.Tensor) -> torch.Tensor:
    """e^(-z) - 1 + z without cancellation: its series for small z."""
    series = z.square() * (1 / 2 - z / 6 + z.square() / 24 - z**3 / 120)
    return torch.where(z.abs() < 1e-3, series, torch.expm1(-z) + z)


def released_divergence(right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """The same quantity the way the released code computes it, in the dtype of its inputs."""
    p = right.softmax(-1) + RELEASED_EPSILON
    q = left.softmax(-1) + RELEASED_EPSILON
    return (p * torch.log(p / q)).sum(-1)


def importance(left: torch.Tensor, right: torch.Tensor, divergence: torch.Tensor, reading: str) -> torch.Tensor:
    """Float32 importance of every entry (rows, n); divergence: (rows,) as one of the functions above gives it."""
    if reading == "released":
        return ((right - left).abs() * divergence.to(right.dtype).unsqueeze(-1)).float()
    if reading == "exact":
        return (right.float() - left.float()).abs() * divergence.float().unsqueeze(-1)
    return ((left.double() - right.double()) * divergence.double().unsqueeze(-1)).float()


def combine(
    left: torch.Tensor, right: torch.Tensor, scores: torch.Tensor, threshold: float, reading: str
) -> torch.Tensor:
    """The merged rows, in the dtype of left."""
    if reading == "exact":
        return torch.where(scores >= threshold, right, left)
    if reading == "released":
        return (left + (right - left) * (scores >= threshold).float()).to(left.dtype)
    factor = (scores - threshold).clamp_min(0).ceil()
    return (left.float() + (right.float() - left.float()) * factor).to(left.dtype)


def threshold(quartiles: list[float], iqr_multiplier: float, dtype: torch.dtype) -> float:
    """median + λ · interquartile range, rounded after each operation as `dtype` does."""
    low, median, high = torch.tensor(quartiles, dtype=dtype)
    return float(median + iqr_multiplier * (high - low))


def quartile_ranks(entries: int) -> list[int]:
    """0-based ranks of the three quartiles: the nearest lower entry, as in the released code (ledger §3.2)."""
    return [k * (entries - 1) // 4 for k in (1, 2, 3)]


@dataclass(frozen=True)
class Fusion(Method):
    """One fusion step; blocks hold (left, right)."""

    reading: str = "exact"
    iqr_multiplier: float = 1.5
    inputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise ValueError(f"reading {self.reading!r}: must be one of {', '.join(READINGS)}")
        if not 0 <= self.iqr_multiplier < float("inf"):
            raise ValueError(f"iqr_multiplier {self.iqr_multiplier}: must be a number of at least 0, as 1.5")

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> _State:
        entries, ranks = shape[0] * shape[1], quartile_ranks(shape[0] * shape[1])
        fixed = _tensor_divergence(scan) if self.reading == "paper" else None
        # Copied to one place: kept where the threads make them, small results would hold freed blocks apart.
        divergence, done, dtype = np.empty(shape[0]), 0, None
        high, low = _Counts((BINS,)), _Counts((len(ranks), BINS))
        for rows, dtype in scan(lambda block: self._measure(block, fixed, high.mine())):  # noqa: B007
            divergence[done : done + len(rows)] = rows
            done += len(rows)
        found = high.total()
        bins = [quantiles.locate(found, rank) for rank in ranks]
        highs = [b for b, _ in bins]
        if self.reading == "released" and dtype == torch.bfloat16:  # the upper half of such a score is all of it
            lows = [(BINS - 1) * (h < BINS // 2) for h in highs]  # bits of negative numbers are flipped
        else:
            for _ in scan(lambda block: self._refine(block, divergence, highs, low.mine())):
                pass
            found = low.total()
            lows = [quantiles.locate(found[highs.index(h)], rest)[0] for h, rest in bins]
        values = [quantiles.value_of((h - BINS // 2) * BINS + low) for h, low in zip(highs, lows, strict=True)]
        exact = dtype if self.reading == "released" else torch.float64
        return _State(divergence, threshold(values, self.iqr_multiplier, exact), entries)

    def apply(self, state: _State, block: Block) -> tuple[torch.Tensor, np.ndarray]:
        left, right = block.tensors
        divergence = state.divergence[block.start : block.start + len(left)]
        if not _compiled(left):
            return _apply_tensors(self.reading, left, right, divergence, state.threshold)
        out, tally = torch.empty_like(_loose(left)), np.zeros(len(COUNTS))
        limit = np.float32(state.threshold)
        if self.reading != "paper" and limit < state.threshold:
            limit = np.nextafter(limit, np.float32(np.inf))  # the smallest float32 that is not below the threshold
        mode = _mode(self.reading, left.dtype)
        kernels.select(mode, _array(right), _array(left), divergence, limit, _array(out), tally)
        return out.to(left.dtype), tally

    def statistics(self, state: _State, counts: np.ndarray) -> dict:
        differing, selected, distance, taken = counts.tolist()
        return asdict(Selection(
            entries=state.entries, differing=int(differing), selected=int(selected), threshold=state.threshold,
            distance_share=taken / distance if distance else 0.0, rows=len(state.divergence),
            negative_rows=int((state.divergence < 0).sum()),
            nonpositive_rows=int((state.divergence <= 0).sum()), regime=_regime(int(differing), int(selected)),
        ))  # fmt: skip

    def _measure(self, block: Block, fixed: float | None, counts: np.ndarray) -> tuple[np.ndarray, torch.dtype]:
        """(divergence of each row, dtype) of a block; adds the upper halves of its scores to counts (65536,)."""
        left, right = block.tensors
        if not _compiled(left):
            divergence = _divergence(self.reading, left, right, fixed)
            scores = importance(left, right, divergence, self.reading)
            counts += quantiles.histogram(quantiles.ordered(scores)).cpu().numpy()
            return divergence.double().cpu().numpy(), left.dtype
        if self.reading == "exact":
            divergence = np.empty(len(left))
            kernels.exact_divergence(_array(right), _array(left), divergence, counts)
        else:
            divergence = _divergence(self.reading, left, right, fixed).double().numpy()
            mode = _mode(self.reading, left.dtype)
            kernels.count_high(mode, _array(right), _array(left), divergence, counts)
        return divergence, left.dtype

    def _refine(self, block: Block, divergence: np.ndarray, highs: list[int], counts: np.ndarray) -> None:
        """Adds the lower halves of the scores whose upper half is wanted to counts (3, 65536)."""
        left, right = block.tensors
        rows = divergence[block.start : block.start + len(left)]
        if not _compiled(left):
            scores = importance(left, right, torch.from_numpy(rows).to(left.device), self.reading)
            keys = quantiles.ordered(scores)
            counts += torch.stack([quantiles.histogram(keys, h) for h in highs]).cpu().numpy()
            return
        mode = _mode(self.reading, left.dtype)
        kernels.count_low(mode, _array(right), _array(left), rows, np.array(highs, np.uint32), counts)


class _Counts:
    """Counters (int64) that each thread has for itself, so that none waits and none is added up block by block."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.local, self.parts = shape, threading.local(), []

    def mine(self) -> np.ndarray:
        if not hasattr(self.local, "counts"):
            self.local.counts = np.zeros(self.shape, np.int64)
            self.parts.append(self.local.counts)
        return self.local.counts

    def total(self) -> torch.Tensor:
        return torch.from_numpy(sum(self.parts))


def fuse(
    left: torch.Tensor, right: torch.Tensor, iqr_multiplier: float = 1.5, reading: str = "exact"
) -> tuple[torch.Tensor, Selection]:
    """(merged tensor in left's dtype, what was selected) of two tensors of equal shape and dtype."""
    merged, statistics = merge_tensors(Fusion(reading, iqr_multiplier), (left, right))
    return merged, Selection(**statistics) if statistics else Selection(0, 0, 0, 0.0, 0.0, 0, 0, 0, "identical")


def _compiled(tensor: torch.Tensor) -> bool:
    """Whether `tinyr1.merge.kernels` does the work; elsewhere the tensor operations above do."""
    return tensor.device.type == "cpu"


def _regime(differing: int, selected: int) -> str:
    if differing == 0:
        return "identical"
    return {0: "nothing", differing: "everything"}.get(selected, "part")


def _mode(reading: str, dtype: torch.dtype) -> int:
    if reading != "released":
        return kernels.EXACT if reading == "exact" else kernels.PAPER
    if dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"reading 'released' computes in bfloat16 or float32, not {dtype}; give one as dtype")
    return kernels.RELEASED_BF16 if dtype == torch.bfloat16 else kernels.RELEASED_FP32


def _loose(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in a dtype that the kernels read: float16, which NumPy's compilers lack, becomes float32."""
    return tensor if tensor.dtype in (torch.bfloat16, torch.float32) else tensor.float()


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = _loose(tensor)
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@cache
def _logarithms() -> np.ndarray:
    """Bits of the logarithm of every bfloat16 number, as torch rounds it."""
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    return numbers.log().view(torch.uint16).numpy()


def _divergence(reading: str, left: torch.Tensor, right: torch.Tensor, fixed: float | None) -> torch.Tensor:
    if reading == "exact":
        return row_divergence(right, left)
    if reading == "paper":
        return torch.full((len(left),), fixed, dtype=torch.float64, device=left.device)
    if not _compiled(left) or left.dtype != torch.bfloat16:
        return released_divergence(right, left)
    terms = torch.empty_like(right)
    p, q = right.softmax(-1), left.softmax(-1)
    kernels.terms(_array(p), _array(q), _logarithms(), _array(terms))  # released_divergence, four times as fast
    return terms.sum(-1)


def _tensor_divergence(scan: Scan) -> float:
    """KL(softmax(left) ‖ softmax(right)) with one softmax over all entries of the tensor (paper eq. 1)."""
    top = max(scan(lambda b: float(b.tensors[0].max())))

    def moments(block: Block) -> np.ndarray:
        left, right = (t.double() for t in block.tensors)
        p = (left - top).exp()
        return np.array([float(p.sum()), float((p * (left - right)).sum())])

    total, moment = sum(scan(moments))
    mean = moment / total

    def excess(block: Block) -> float:
        left, right = (t.double() for t in block.tensors)
        return float(((left - top).exp() * _excess(left - right - mean)).sum())

    return float(np.log1p(sum(scan(excess)) / total))


def _apply_tensors(
    reading: str, left: torch.Tensor, right: torch.Tensor, divergence: np.ndarray, limit: float
) -> tuple[torch.Tensor, np.ndarray]:
    """`Fusion.apply` in tensor operations, for a GPU."""
    scores = importance(left, right, torch.from_numpy(divergence).to(left.device), reading)
    mask = scores > limit if reading == "paper" else scores.double() >= limit
    squared, differs = (right.double() - left.double()).square(), right != left
    sums = [differs.sum(), (differs & mask).sum(), squared.sum(), (squared * mask).sum()]
    merged = combine(left, right, scores, limit, reading)
    return merged, np.array([float(value) for value in sums])
