"""A look into merged weights: whose weights won, how the readings of fusion agree, how importance is distributed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from tinyr1.merge import fusion
from tinyr1.merge.fusion_blocks import Fusion, FusionState
from tinyr1.merge.method import RowBlock, as_rows, borders
from tinyr1.merge.reader import Checkpoint

ARITHMETICS = {  # a reading in the dtype that its inputs are converted to, by its name in tables
    "released, bf16": ("released", torch.bfloat16),
    "released, fp32": ("released", torch.float32),
    "exact": ("exact", torch.float32),
    "paper": ("paper", torch.float32),
}
DRAWN = 2**18  # entries of a tensor whose importance is drawn
LARGEST, MOST = 2**25, 2**28  # entries of one tensor, and of a model, that a comparison of readings looks at
Pair = tuple[torch.Tensor, torch.Tensor]  # (base, other), both (rows, width)


def kind(tensor: str) -> str:
    """A tensor's place in its layer: self_attn.q_proj, mlp.up_proj, …; embed_tokens, norm and lm_head outside."""
    parts = tensor.removesuffix(".weight").removeprefix("model.").split(".")
    return ".".join(parts[2:] if parts[0] == "layers" else parts)


def winners(merged: Path, experts: dict[str, Path]) -> pd.DataFrame:
    """Whose weights a merged model has: share of the entries on which the experts disagree, by kind of tensor.

    Columns: one for each expert, counting the entries that equal its own and no other's; `shared`, equal to two or
    more of them; `none`, to none (a method that mixes); `disagree`, the share of all entries that is counted here.
    """
    with ExitStack() as stack:
        result, *parents = (
            stack.enter_context(closing(Checkpoint(folder).open())) for folder in (merged, *experts.values())
        )
        rows = []
        for name, stored in result.tensors.items():
            counts = np.zeros(len(experts) + 3)
            for place in borders(as_rows(stored.shape)):
                theirs = torch.stack([parent.rows(name, *place) for parent in parents])
                counts += _matches(result.rows(name, *place), theirs)
            rows.append((kind(name), *counts, stored.entries))
    columns = [*experts, "shared", "none", "disagree"]
    table = pd.DataFrame(rows, columns=["kind", *columns, "entries"]).groupby("kind", sort=False).sum()
    table.loc["all"] = table.sum()
    shares = table[columns[:-1]].div(table.disagree.where(table.disagree > 0), axis=0).fillna(0.0)
    return shares.assign(disagree=table.disagree / table.entries)


def _matches(merged: torch.Tensor, experts: torch.Tensor) -> np.ndarray:
    """Entries equal to one expert alone (one count each), to several, to none; entries on which experts disagree."""
    disagree = (experts != experts[0]).any(0)
    equal = (experts == merged) & disagree
    how_many = equal.sum(0)
    alone = [float((e & (how_many == 1)).sum()) for e in equal]
    return np.array([*alone, float((how_many > 1).sum()), float(((how_many == 0) & disagree).sum()),
                     float(disagree.sum())])  # fmt: skip


class Scored(NamedTuple):
    """Fusion of one tensor under a reading: importance and factor (rows, width), divergences and threshold."""

    importance: torch.Tensor
    factor: torch.Tensor
    state: FusionState


def scored(pair: Pair, name: str, iqr_multiplier: float) -> Scored:
    """`pair` under one of ARITHMETICS, called by its name there."""
    reading, dtype = ARITHMETICS[name]
    base, other = (tensor.to(dtype) for tensor in pair)
    blocks = [RowBlock(a, (base[a:b], other[a:b])) for a, b in borders(as_rows(base.shape))]
    state = Fusion(reading, iqr_multiplier).prepare(lambda function: map(function, blocks), as_rows(base.shape))
    importance = fusion.importance(base, other, torch.from_numpy(state.divergence), reading)
    return Scored(importance, fusion.factor(importance, state.threshold, reading), state)


def agreement(base: Path, other: Path, iqr_multiplier: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How the readings agree on one fusion step of two checkpoints: (summary, overlap).

    summary: for each reading the share of the differing entries that it takes from `other`, of rows with a divergence
    of at most 0, of tensors with a threshold of at most 0. overlap: intersection over union of the differing entries
    that two readings take.
    """
    names = list(ARITHMETICS)
    both, either = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    totals = {name: np.zeros(6) for name in names}  # taken, differing, rows <= 0, rows, tensors <= 0, tensors
    for _, pair in _pairs(base, other, _sample(base)):
        differs, masks = pair[0] != pair[1], {}
        for name in names:
            _, factor, state = scored(pair, name, iqr_multiplier)
            masks[name] = (factor > 0) & differs
            totals[name] += [
                float(masks[name].sum()), float(differs.sum()), (state.divergence <= 0).sum(), len(state.divergence),
                state.threshold <= 0, 1,
            ]  # fmt: skip
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                both[i, j] += float((masks[a] & masks[b]).sum())
                either[i, j] += float((masks[a] | masks[b]).sum())
    summary = pd.DataFrame({
        name: {"differing weights taken": t[0] / max(1, t[1]), "rows with KL <= 0": t[2] / t[3],
               "tensors with threshold <= 0": t[4] / t[5]} for name, t in totals.items()
    }).T  # fmt: skip
    overlap = pd.DataFrame(both / np.where(either > 0, either, 1), index=names, columns=names)
    return summary.rename_axis("reading"), overlap.rename_axis("overlap of masks")


def histograms(base: Path, other: Path, iqr_multiplier: float, kinds: tuple[str, ...]) -> pd.DataFrame:
    """Importance of the middle layer's tensors of some kinds: kind, reading, scores (array), threshold, zero_share.

    scores: those above 0 of at most DRAWN entries at even distances; zero_share: the share that is 0 or below.
    """
    middle = Checkpoint(base).config["num_hidden_layers"] // 2
    pairs = {kind(name): pair for name, pair in _pairs(base, other, lambda name: _layer(name) == middle)}
    rows = []
    for which in (k for k in kinds if k in pairs):  # other architectures have other names
        for name in ARITHMETICS:
            importance, _, state = scored(pairs[which], name, iqr_multiplier)
            flat = importance.flatten()[:: max(1, importance.numel() // DRAWN)]
            rows.append({
                "kind": which, "reading": name, "scores": flat[flat > 0].numpy(), "threshold": state.threshold,
                "zero_share": float((flat <= 0).float().mean()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _pairs(base: Path, other: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Pair]]:
    """(name, (base, other)) of the wanted tensors of two checkpoints; of large ones the first LARGEST entries."""
    with closing(Checkpoint(base).open()) as a, closing(Checkpoint(other).open()) as b:
        for name, stored in a.tensors.items():
            rows, width = as_rows(stored.shape)
            last = min(rows, max(1, LARGEST // max(1, width)))
            if wanted(name) and stored.entries and stored.dtype.is_floating_point:
                yield name, (a.rows(name, 0, last), b.rows(name, 0, last))


def _sample(folder: Path) -> Callable[[str], bool]:
    """Every tensor of a model of up to MOST entries; of a larger one, layers at even distances."""
    entries = sum(min(stored.entries, LARGEST) for stored in Checkpoint(folder).tensors.values())
    step = -(-entries // MOST)
    return lambda name: (_layer(name) or 0) % step == 0


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else None


def all_finite(folder: Path) -> bool:
    """Whether every floating-point tensor of a checkpoint is finite."""
    with closing(Checkpoint(folder).open()) as opened:
        return all(
            bool(opened.rows(name, *place).isfinite().all())
            for name, stored in opened.tensors.items()
            if stored.dtype.is_floating_point
            for place in borders(as_rows(stored.shape))
        )
