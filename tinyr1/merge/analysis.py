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


def winners_told(shares: pd.DataFrame, name: str) -> str:
    """The last row of `winners` in a sentence; name: that of the merged model."""
    whole = shares.loc["all"]
    parts = whole.drop(["shared", "none", "disagree"]).to_dict()
    said = [f"{100 * parts[expert]:.0f} % {expert}" for expert in sorted(parts, key=lambda e: -parts[e])]
    if whole["shared"] > 0:
        said.append(f"{100 * whole['shared']:.0f} % what two or more experts share")
    if whole["none"] > 0:
        said.append(f"{100 * whole['none']:.0f} % of no expert")
    where = f"Where the experts disagree, which is {100 * whole['disagree']:.0f} % of all weights"
    return f"{where}, {name} is {', '.join(said[:-1])}{' and ' if said[1:] else ''}{said[-1]}."


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


class Overlap:
    """Counts, over many tensors, the entries that several rules take together, of those that differ."""

    def __init__(self, rules: tuple[str, ...]) -> None:
        self.rules, self.differing = rules, 0.0
        self.both = np.zeros((len(rules), len(rules)))  # entries that two rules take; on the diagonal, that one takes

    def add(self, pair: Pair, masks: dict[str, torch.Tensor]) -> None:
        """One tensor; masks: rule -> True where it takes an entry (rows, width)."""
        differs = pair[0] != pair[1]
        self.differing += float(differs.sum())
        taken = [masks[rule] & differs for rule in self.rules]
        self.both += [[float((a & b).sum()) for b in taken] for a in taken]

    def taken(self) -> pd.Series:
        """Rule -> the share of the differing entries that it takes."""
        return pd.Series(self.both.diagonal() / max(1.0, self.differing), index=self.rules)

    def table(self) -> pd.DataFrame:
        """Intersection over union of each two rules; 0 where neither takes anything."""
        size = self.both.diagonal()
        either = size[:, None] + size[None, :] - self.both
        return pd.DataFrame(self.both / np.where(either > 0, either, 1), index=self.rules, columns=self.rules)


def agreement(base: Path, other: Path, iqr_multiplier: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How the readings agree on one fusion step of two checkpoints: (summary, overlap).

    summary: for each reading the share of the differing entries that it takes from `other`, of rows with a divergence
    of at most 0, of tensors with a threshold of at most 0. overlap: intersection over union of the differing entries
    that two readings take.
    """
    totals = {name: np.zeros(4) for name in ARITHMETICS}  # rows <= 0, rows, tensors <= 0, tensors
    overlap = Overlap(tuple(ARITHMETICS))
    for _, pair in pairs(base, other, sample(base)):
        masks = {}
        for name in ARITHMETICS:
            _, factor, state = scored(pair, name, iqr_multiplier)
            masks[name] = factor > 0
            totals[name] += [(state.divergence <= 0).sum(), len(state.divergence), state.threshold <= 0, 1]
        overlap.add(pair, masks)
    taken = overlap.taken()
    summary = pd.DataFrame({
        name: {"differing weights taken": taken[name], "rows with KL <= 0": t[0] / t[1],
               "tensors with threshold <= 0": t[2] / t[3]} for name, t in totals.items()
    }).T  # fmt: skip
    return summary.rename_axis("reading"), overlap.table().rename_axis("overlap of masks")


def histograms(base: Path, other: Path, iqr_multiplier: float, kinds: tuple[str, ...]) -> pd.DataFrame:
    """Importance of the middle layer's tensors of some kinds: kind, reading, scores (array), threshold, zero_share.

    scores: those above 0 of at most DRAWN entries at even distances; zero_share: the share that is 0 or below.
    """
    middle = Checkpoint(base).config["num_hidden_layers"] // 2
    middles = {kind(name): pair for name, pair in pairs(base, other, lambda name: _layer(name) == middle)}
    rows = []
    for which in (k for k in kinds if k in middles):  # other architectures have other names
        for name in ARITHMETICS:
            importance, _, state = scored(middles[which], name, iqr_multiplier)
            flat = importance.flatten()[:: max(1, importance.numel() // DRAWN)]
            rows.append({
                "kind": which, "reading": name, "scores": flat[flat > 0].numpy(), "threshold": state.threshold,
                "zero_share": float((flat <= 0).float().mean()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def pairs(base: Path, other: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Pair]]:
    """(name, (base, other)) of the wanted tensors of two checkpoints; of large ones the first LARGEST entries."""
    with closing(Checkpoint(base).open()) as a, closing(Checkpoint(other).open()) as b:
        for name, stored in a.tensors.items():
            rows, width = as_rows(stored.shape)
            last = min(rows, max(1, LARGEST // max(1, width)))
            if wanted(name) and stored.entries and stored.dtype.is_floating_point:
                yield name, (a.rows(name, 0, last), b.rows(name, 0, last))


def sample(folder: Path, most: int = MOST) -> Callable[[str], bool]:
    """Every tensor of a model of up to `most` entries; of a larger one, layers at even distances."""
    entries = sum(min(stored.entries, LARGEST) for stored in Checkpoint(folder).tensors.values())
    step = -(-entries // most)
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
