"""Which entries a rule takes: placebos beside importance, the paper's printed equations, branches at many distances."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tinyr1.merge import fusion, quantiles
from tinyr1.merge.analysis import ARITHMETICS, Overlap, Pair, pairs, sample, scored
from tinyr1.merge.fusion_blocks import Fusion
from tinyr1.merge.method import RowBlock, as_rows, borders, merge_tensors
from tinyr1.merge.methods.placebo import Placebo

MOST = 2**24  # entries of a model that the comparisons of this module look at, in whole layers
WIDTHS = (5120, 27648)  # rows of a 32B model: most matrices, and mlp.down_proj
DISTANCES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # standard deviations of other - base
SPREAD = 0.02  # standard deviation of the weights themselves
ENTRIES = 2**21  # of each matrix of the sweep
TIE = 1e-6  # relative distance to a threshold within which the rounding of single precision decides
SWEPT = tuple(name for name in ARITHMETICS if name != "paper")


def placebos(base: Path, other: Path, iqr_multiplier: float) -> pd.DataFrame:
    """How far other rules take the entries that importance takes, in one fusion step of two checkpoints (`exact`).

    Index: importance; magnitude, the same threshold rule on |other - base|; largest and random, as many entries as
    importance (tinyr1.merge.methods.placebo). Columns: share of the differing entries that a rule takes, share of the
    squared distance between the models that these hold, intersection over union with importance.
    """
    rules = {
        "importance": Fusion("exact", iqr_multiplier),
        "magnitude": Fusion("magnitude", iqr_multiplier),
        "largest": Placebo("exact", iqr_multiplier, mask="largest"),
        "random": Placebo("exact", iqr_multiplier, mask="random"),
    }
    overlap, distance, whole = Overlap(tuple(rules)), dict.fromkeys(rules, 0.0), 0.0
    for name, pair in _layers(base, other):
        # These readings copy entries, so an entry was taken where the merge differs from the base.
        masks = {rule: merge_tensors(method.for_tensor(name), pair)[0] != pair[0] for rule, method in rules.items()}
        overlap.add(pair, masks)
        squared = (pair[1].float() - pair[0].float()).square()
        whole += float(squared.sum(dtype=torch.float64))
        for rule, mask in masks.items():
            distance[rule] += float((squared * mask).sum(dtype=torch.float64))
    return pd.DataFrame({
        "differing weights taken": overlap.taken(),
        "squared distance taken": pd.Series(distance) / (whole or 1.0),
        "overlap with importance": overlap.table()["importance"],
    }).rename_axis("mask")  # fmt: skip


def printed(base: Path, other: Path, iqr_multiplier: float) -> dict[str, float]:
    """What equations (1) to (4) as printed take in one fusion step, with and without their divergence.

    The divergence is one positive number of a tensor and multiplies scores and threshold alike (docs/fidelity.md §3.3),
    so the same rule on base - other alone selects the same entries but for rounding. Shares of the differing entries:
    `taken`, and `ties`, those whose base - other is the threshold to a millionth; `overlap`: intersection over union of
    the two selections without ties; `smaller`: share of the taken entries that become smaller, where base > other.
    """
    overlap, counts = Overlap(("printed", "difference")), np.zeros(4)
    for _, pair in _layers(base, other):
        signed, differs = pair[0].float() - pair[1].float(), pair[0] != pair[1]
        limit = _threshold(signed, iqr_multiplier)
        mask = scored(pair, "paper", iqr_multiplier).factor > 0
        tie = (signed.double() - limit).abs() <= TIE * abs(limit)
        overlap.add(pair, {"printed": mask & ~tie, "difference": (signed.double() > limit) & ~tie})
        counts += [float(each.sum()) for each in (differs, mask & differs, mask & (signed > 0), tie & differs)]
    differing, taken, smaller, ties = counts.tolist()
    same = float(overlap.table()["printed"]["difference"])
    return {"taken": taken / max(1.0, differing), "ties": ties / max(1.0, differing), "overlap": same,
            "smaller": smaller / max(1.0, taken)}  # fmt: skip


def printed_told(seen: dict[str, float]) -> str:
    """`printed` in sentences."""
    return (
        f"The printed equations take {100 * seen['taken']:.1f} % of the weights that differ. The same rule without the "
        f"divergence makes a selection that overlaps with theirs by {seen['overlap']:.3f}, apart from the "
        f"{100 * seen['ties']:.1f} % of the weights that lie on the threshold, where rounding decides. Of the weights "
        f"that the equations take, {100 * seen['smaller']:.1f} % become smaller."
    )


def _layers(base: Path, other: Path) -> Iterator[tuple[str, Pair]]:
    """(name, pair) of the tensors of some layers, at even distances; the embedding would be most of a small model."""
    wanted = sample(base, MOST)
    return pairs(base, other, lambda name: ".layers." in name and wanted(name))


def _threshold(scores: torch.Tensor, iqr_multiplier: float) -> float:
    """median + λ · interquartile range of scores (rows, width), float32."""
    blocks = [RowBlock(a, (scores[a:b],)) for a, b in borders(as_rows(scores.shape))]
    ranks = fusion.quartile_ranks(scores.numel())
    [quartiles] = quantiles.order_statistics(
        lambda function: map(function, blocks), [lambda block: block.tensors[0]], [ranks]
    )
    return fusion.threshold(quartiles, iqr_multiplier, torch.float64)


def sweep(
    iqr_multiplier: float, widths: Sequence[int] = WIDTHS, distances: Sequence[float] = DISTANCES
) -> pd.DataFrame:
    """Selections on random matrices with rows of a 32B model, stored in bfloat16, for branches ever farther apart.

    A row for each width, distance and arithmetic of SWEPT: `differing`, the share of entries that differ in bfloat16;
    `taken`, the share of those that is taken; `overlap`, intersection over union with `exact`; `rows with KL <= 0`.
    Weights have a standard deviation of 0.02, distance is that of other - base (docs/fidelity.md §3.4).
    """
    rows = []
    for width in widths:
        for distance in distances:
            pair = _branches(max(1, ENTRIES // width), width, distance)
            seen = {name: scored(pair, name, iqr_multiplier) for name in SWEPT}
            overlap = Overlap(SWEPT)
            overlap.add(pair, {name: one.factor > 0 for name, one in seen.items()})
            taken, table = overlap.taken(), overlap.table()
            rows += [
                {"width": width, "distance": distance, "arithmetic": name,
                 "differing": float((pair[0] != pair[1]).double().mean()), "taken": taken[name],
                 "overlap": table.loc[name, "exact"],
                 "rows with KL <= 0": float((one.state.divergence <= 0).mean())} for name, one in seen.items()
            ]  # fmt: skip
    return pd.DataFrame(rows)


def sweep_told(table: pd.DataFrame, distance: float) -> str:
    """What a sweep says of the released arithmetic at one of its distances, a sentence for each width."""
    at = table[np.isclose(table.distance, distance)].set_index(["arithmetic", "width"])
    said = []
    for width in at.index.get_level_values("width").unique():
        bf16, exact = at.loc[("released, bf16", width)], at.loc[("exact", width)]
        said.append(
            f"In rows of {width:,} weights whose branches differ by {distance:g}, the released arithmetic takes "
            f"{100 * bf16.taken:.1f} % of the weights that differ and the exact one {100 * exact.taken:.1f} %; the two "
            f"selections overlap by {bf16.overlap:.2f}, and {100 * bf16['rows with KL <= 0']:.0f} % of the rows get a "
            "divergence of zero or below."
        )
    return " ".join(said)


def _branches(rows: int, width: int, distance: float) -> Pair:
    """(base, other) in bfloat16, the same ones each time."""
    generator = torch.Generator().manual_seed(width)
    base = (SPREAD * torch.randn(rows, width, generator=generator)).bfloat16()
    return base, (base.float() + distance * torch.randn(rows, width, generator=generator)).bfloat16()
