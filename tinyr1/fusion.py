"""Arcee Fusion on tensors: importance, threshold, selection (paper §2.2, ledger §3.2). Pure functions.

    importance = |right - left| · KL(softmax(right row) ‖ softmax(left row))
    threshold  = median + λ (Q75 - Q25) of the tensor's importance
    merged     = right where importance >= threshold, else left

Two readings. `exact` computes the definition in float64 by a form of the divergence that cannot go negative;
`released` does what the released code does, in bf16, where rounding decides many of the selections. Both take
exact quantiles, where the released code draws a random subsample from tensors above a million entries.
"""

from dataclasses import dataclass

import numpy as np
import torch

QUANTILES = (0.25, 0.5, 0.75)
BLOCK = 2**17  # entries worked on at a time: their float64 intermediates stay in a core's cache
RELEASED_EPSILON = 1e-8  # added after softmax in the released code; lost in bf16


@dataclass(frozen=True)
class Selection:
    """What one fusion step did to one tensor; shares are of its entries that differ."""

    entries: int
    differing: int
    selected: int
    threshold: float
    distance_share: float  # of the squared distance between left and right
    negative_rows: int  # rows whose computed divergence is below zero; none under `exact`
    rows: int


def row_divergence(right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """KL(softmax(right) ‖ softmax(left)) of each row (..., n) -> (...), float64, in nats; never negative.

    With d = right - left, p = softmax(right), μ = E_p[d] and z = d - μ it is log(1 + E_p[e^(-z) - 1 + z]). Every
    term of the expectation is at least 0, while Σ p log(p/q) cancels to rounding noise for small d.
    """
    right, left = right.double(), left.double()
    delta = right - left
    p = right.softmax(-1)
    z = delta - (p * delta).sum(-1, keepdim=True)
    return torch.log1p((p * (torch.expm1(-z) + z)).sum(-1).clamp_min(0))


def released_divergence(right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """The same quantity the way the released code computes it, in the dtype of its inputs."""
    p = right.softmax(-1) + RELEASED_EPSILON
    q = left.softmax(-1) + RELEASED_EPSILON
    return (p * torch.log(p / q)).sum(-1)


def importance(left: torch.Tensor, right: torch.Tensor, reading: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(importance in the tensor's shape, divergence of each row); 0-d and 1-d tensors are one row."""
    if reading == "released":
        divergence = released_divergence(right, left)
        return (right - left).abs() * divergence.unsqueeze(-1), divergence
    divergence = row_divergence(right, left)
    return (right.double() - left.double()).abs() * divergence.unsqueeze(-1), divergence


def threshold(scores: torch.Tensor, iqr_multiplier: float) -> torch.Tensor:
    """median + λ · interquartile range, at the nearest lower index of the sorted entries (ledger §3.2)."""
    flat = scores.flatten()
    at = [int(q * (flat.numel() - 1)) for q in QUANTILES]
    exact = flat if flat.dtype == torch.float64 else flat.float()  # NumPy has no bfloat16
    low, median, high = torch.from_numpy(np.partition(exact.numpy(force=True), at)[at]).to(flat)
    return median + iqr_multiplier * (high - low)


def fuse(
    left: torch.Tensor, right: torch.Tensor, iqr_multiplier: float = 1.5, reading: str = "exact"
) -> tuple[torch.Tensor, Selection]:
    """(merged tensor in left's dtype, what was selected).

    left: the base, kept where the mask is 0; right: copied where it is 1 (ledger §3.1). Where the threshold is 0,
    which happens when fewer than a quarter of the entries differ, `>=` selects everything: merged equals right.
    """
    if left.shape != right.shape:
        raise ValueError(f"tensors of shapes {tuple(left.shape)} and {tuple(right.shape)} cannot be fused")
    if reading == "released":
        left, right = left.bfloat16(), right.bfloat16()
    if left.numel() == 0 or torch.equal(left, right):
        return left.clone(), Selection(left.numel(), 0, 0, 0.0, 0.0, 0, 0)
    width = left.shape[-1] if left.dim() else 1
    rows = max(1, BLOCK // width)
    blocks = list(zip(left.reshape(-1, width).split(rows), right.reshape(-1, width).split(rows), strict=True))
    scored = [importance(*block, reading) for block in blocks]
    limit = threshold(torch.cat([scores for scores, _ in scored]), iqr_multiplier)
    parts, counts = [], []
    for (ours, theirs), (scores, divergence) in zip(blocks, scored, strict=True):
        mask, squared = scores >= limit, (theirs.double() - ours.double()).square()
        parts.append(torch.where(mask, theirs, ours))
        differs = ours != theirs
        sums = (differs, mask & differs, squared, squared * mask, divergence < 0)
        counts.append([float(values.sum()) for values in sums])
    differing, selected, distance, taken, negative = torch.tensor(counts, dtype=torch.float64).sum(0).tolist()
    return torch.cat(parts).view_as(left), Selection(
        entries=left.numel(),
        differing=int(differing),
        selected=int(selected),
        threshold=float(limit),
        distance_share=taken / distance if distance else 0.0,
        negative_rows=int(negative),
        rows=left.numel() // width,
    )
