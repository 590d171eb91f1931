"""Arcee Fusion on tensors: importance, threshold, selection (paper §2.2, ledger §3.2). Pure functions.

    importance = |right - left| · KL(softmax(right row) ‖ softmax(left row))
    threshold  = median + λ (Q75 - Q25) of the tensor's importance
    merged     = right where importance >= threshold, else left

Two readings. `exact` computes the definition in float64 by a form of the divergence that cannot go negative;
`released` does what the released code does, in bf16, where rounding decides many of the selections. Both take
exact quantiles, where the released code draws a random subsample from tensors above a million entries.
"""

from dataclasses import dataclass

import torch

QUANTILES = (0.25, 0.5, 0.75)
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
    low, median, high = (flat.kthvalue(1 + int(q * (flat.numel() - 1))).values for q in QUANTILES)
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
    differs = left != right
    if left.numel() == 0 or not differs.any():
        return left.clone(), Selection(left.numel(), 0, 0, 0.0, 0.0, 0, 0)
    width = left.shape[-1] if left.dim() else 1
    scores, divergence = importance(left.reshape(-1, width), right.reshape(-1, width), reading)
    limit = threshold(scores, iqr_multiplier)
    mask = (scores >= limit).view_as(left)
    merged = torch.where(mask, right, left)
    squared = (right.double() - left.double()).square()
    return merged, Selection(
        entries=left.numel(),
        differing=int(differs.sum()),
        selected=int((mask & differs).sum()),
        threshold=float(limit),
        distance_share=float(squared[mask].sum() / squared.sum()),
        negative_rows=int((divergence < 0).sum()),
        rows=divergence.numel(),
    )
