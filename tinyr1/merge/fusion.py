r"""Arcee Fusion of one tensor: importance, threshold, selection (paper §2.2, docs/fidelity.md §3). Pure functions.

    base, other (rows, width)
      divergence  (rows,)         KL(softmax(other row) ‖ softmax(base row))
      importance  (rows, width)   |other - base| · divergence of the row
      threshold   one number      median + λ (Q75 - Q25) of the importance
      factor      (rows, width)   1 where importance >= threshold, else 0
      merged      (rows, width)   other where the factor is 1, else base

Every tensor of a checkpoint is fused by itself. `fuse` is the whole method on a tensor in memory, the definition;
`fusion_blocks` computes the same over blocks, and the tests compare the two. There are three readings,
and a fourth one that leaves the divergence out, as a control of its effect:

exact     The definition above, which is that of the released code, computed soundly: the divergence in a form that
          cannot become negative, exact quantiles, and merged entries that are copies of one of the two inputs.
released  The released arithmetic in the dtype of its inputs (bfloat16 for the published model, or float32), where
          rounding decides many selections (docs/fidelity.md §3.4). Quantiles are exact, while the released code takes
          a random subsample above a million entries; up to there the result is the same to the bit.
paper     Equations (1) to (4) as printed: the divergence runs from softmax(base) to softmax(other), the difference is
          the signed base - other, and the factor is ⌈max(0, importance - threshold)⌉ (docs/fidelity.md C12 to C14). The
          equations take a vector over all parameters, with one divergence and one threshold for the whole model; this
          reading takes one of each for every tensor, as the released code does with its thresholds.
magnitude `exact` with every divergence replaced by 1: importance is |other - base|; the rule of the threshold stays.

An entry whose importance equals the threshold is taken, except under `paper`. Where fewer than a quarter of the
entries differ, all three quartiles are 0, the threshold is 0, and `>=` takes everything: merged is other. All readings
but `paper` keep that rule, and the statistics name it. Importance is float32, in which values below 1e-45 are 0.
"""

from dataclasses import dataclass

import torch

COUNTS = ("differing", "selected", "distance", "taken")  # what `tally` counts, in this order
COPYING = ("exact", "magnitude")  # readings whose merged entries are those of base or other, bit by bit
RELEASED_EPSILON = 1e-8  # added after softmax in the released code; lost in bfloat16


def row_divergence(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(softmax(other) ‖ softmax(base)) of each row (..., n) -> (...), float64, in nats; never negative.

    With d = other - base, p = softmax(other), μ = E_p[d] and z = d - μ it is log(1 + E_p[e^(-z) - 1 + z]). Every
    term of the expectation is at least 0, while Σ p log(p/q) cancels to rounding noise for small d.
    """
    base, other = base.double(), other.double()
    delta = other - base
    p = other.softmax(-1)
    z = delta - (p * delta).sum(-1, keepdim=True)
    return torch.log1p((p * exp_remainder(z)).sum(-1))


def exp_remainder(z: torch.Tensor) -> torch.Tensor:
    """e^(-z) - 1 + z without cancellation: its series for small z. Float64, any shape."""
    series = z.square() * (1 / 2 - z / 6 + z.square() / 24 - z**3 / 120)
    return torch.where(z.abs() < 1e-3, series, torch.expm1(-z) + z)


def released_divergence(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`row_divergence` as the released code computes it (docs/fidelity.md §3.2), in the dtype of the inputs.

    Rounding makes it negative for many rows of two branches.
    """
    p = other.softmax(-1) + RELEASED_EPSILON
    q = base.softmax(-1) + RELEASED_EPSILON
    return (p * torch.log(p / q)).sum(-1)


def paper_divergence(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(softmax(base) ‖ softmax(other)) with one softmax over all entries: () float64 (paper eq. 1, C12)."""
    return row_divergence(other.flatten(), base.flatten())  # the two roles are exchanged


def divergence(base: torch.Tensor, other: torch.Tensor, reading: str) -> torch.Tensor:
    """(rows,) divergences in nats under a reading; float64, under `released` the dtype of base and other.

    Under `magnitude`, which has none, they are 1.
    """
    if reading == "magnitude":
        return torch.ones(len(base), dtype=torch.float64, device=base.device)
    if reading == "exact":
        return row_divergence(base, other)
    if reading == "released":
        return released_divergence(base, other)
    return paper_divergence(base, other).expand(len(base))


def importance(base: torch.Tensor, other: torch.Tensor, divergence: torch.Tensor, reading: str) -> torch.Tensor:
    """(rows, width) float32 importance of every entry; divergence: (rows,) of the same reading (paper eq. 2)."""
    if reading in COPYING:
        return (other.float() - base.float()).abs() * divergence.float().unsqueeze(-1)
    if reading == "released":
        return ((other - base).abs() * divergence.to(other.dtype).unsqueeze(-1)).float()
    return ((base.double() - other.double()) * divergence.double().unsqueeze(-1)).float()


def quartile_ranks(entries: int) -> list[int]:
    """0-based ranks of the quartiles: the nearest lower entry, as in the released code (docs/fidelity.md §3.2)."""
    return [k * (entries - 1) // 4 for k in (1, 2, 3)]


def threshold(quartiles: list[float], iqr_multiplier: float, dtype: torch.dtype) -> float:
    """median + λ · interquartile range, rounded after each operation as `dtype` does (paper eq. 3).

    dtype: that of the inputs under `released`, else float64.
    """
    low, median, high = torch.tensor(quartiles, dtype=dtype)
    return float(median + iqr_multiplier * (high - low))


def factor(scores: torch.Tensor, threshold: float, reading: str) -> torch.Tensor:
    """(rows, width) float32: how much of other - base each entry gets; 0 keeps the base (paper eq. 4)."""
    if reading == "paper":
        return (scores - threshold).clamp_min(0).ceil()
    return (scores.double() >= threshold).float()


def combine(base: torch.Tensor, other: torch.Tensor, factor: torch.Tensor, reading: str) -> torch.Tensor:
    """(rows, width) merged entries in the dtype of base. COPYING readings copy entries; the others add and round."""
    if reading in COPYING:
        return torch.where(factor > 0, other, base)
    if reading == "released":
        return (base + (other - base) * factor).to(base.dtype)
    return (base.float() + (other.float() - base.float()) * factor).to(base.dtype)


def tally(base: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> list[float]:
    """COUNTS: entries that differ, those of them that were taken, squared distance, and the taken part of it."""
    squared, differs, taken = (other.double() - base.double()).square(), other != base, factor > 0
    return [float(count.sum()) for count in (differs, differs & taken, squared, squared * taken)]


@dataclass(frozen=True)
class Selection:
    """What one fusion step did to one tensor; shares and counts are of entries, divergences in nats."""

    entries: int
    differing: int
    selected: int  # entries that differ and were taken from the other model
    threshold: float
    distance_share: float  # the share of the squared distance between base and other that the taken entries hold
    negative_rows: int  # rows whose computed divergence is below zero; none under `exact`
    nonpositive_rows: int  # those, and the rows where it is zero
    rows: int
    regime: str  # identical, everything (all that differs was taken), nothing, or part


def selection(counts: list[float], divergence: torch.Tensor, threshold: float, entries: int) -> Selection:
    """The statistics of a tensor from its COUNTS, its (rows,) divergences and its threshold."""
    differing, selected, distance, taken = counts
    # Rounded: kernels add up distances in single precision, in an order that is the compiler's choice.
    share = round(taken / distance, 6) if distance else 0.0
    regime = {0: "nothing", differing: "everything"}.get(selected, "part") if differing else "identical"
    return Selection(
        entries=entries, differing=int(differing), selected=int(selected), threshold=threshold,
        distance_share=share, negative_rows=int((divergence < 0).sum()),
        nonpositive_rows=int((divergence <= 0).sum()), rows=len(divergence), regime=regime,
    )  # fmt: skip


def fuse(
    base: torch.Tensor, other: torch.Tensor, iqr_multiplier: float = 1.5, reading: str = "exact"
) -> tuple[torch.Tensor, Selection]:
    """(merged tensor in the dtype of base, statistics) of two tensors of equal shape and dtype, at least one entry.

    The last dimension is the row; a tensor of one dimension is one row. iqr_multiplier: λ.
    """
    shape, width = base.shape, base.shape[-1] if base.dim() else 1
    base, other = base.reshape(-1, width), other.reshape(-1, width)
    kl = divergence(base, other, reading)
    scores = importance(base, other, kl, reading)
    quartiles = scores.flatten().sort().values[quartile_ranks(scores.numel())].tolist()
    limit = threshold(quartiles, iqr_multiplier, base.dtype if reading == "released" else torch.float64)
    taken = factor(scores, limit, reading)
    merged = combine(base, other, taken, reading).reshape(shape)
    return merged, selection(tally(base, other, taken), kl, limit, scores.numel())
