"""A look into a merge: whose weights won, how the readings of fusion agree, how importance is distributed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tinyr1.merge.fusion import Fusion, importance
from tinyr1.merge.method import Block, as_rows, borders
from tinyr1.merge.reader import Checkpoint

READINGS = {  # how a reading is called in tables -> (reading, dtype its inputs are converted to)
    "released, bf16": ("released", torch.bfloat16),
    "released, fp32": ("released", torch.float32),
    "exact": ("exact", torch.float32),
    "paper": ("paper", torch.float32),
}
DRAWN = 2**18  # entries of a tensor whose importance is drawn
LARGEST, MOST = 2**25, 2**28  # entries of one tensor, and of a model, that a comparison of readings looks at


def kind(tensor: str) -> str:
    """A tensor's place in its layer: self_attn.q_proj, mlp.up_proj, …; embed_tokens, norm and lm_head outside."""
    parts = tensor.removesuffix(".weight").removeprefix("model.").split(".")
    return ".".join(parts[2:] if parts[0] == "layers" else parts)


def winners(merged: Path, experts: dict[str, Path]) -> pd.DataFrame:
    """Whose weights a merged model has: share of the entries on which the experts disagree, by kind of tensor.

    Columns: one for each expert, counting the entries that equal its own and no other's; `shared`, equal to two or
    more of them; `none`, to none (a method that mixes); `disagree`, the share of all entries that is counted here.
    """
    opened = {name: Checkpoint(folder).open() for name, folder in experts.items()}
    result = Checkpoint(merged).open()
    rows = []
    for name, stored in result.tensors.items():
        counts = np.zeros(len(experts) + 3)
        for place in borders(as_rows(stored.shape)):
            ours = result.rows(name, *place)
            counts += _matches(ours, torch.stack([c.rows(name, *place) for c in opened.values()]))
        rows.append((kind(name), *counts, stored.entries))
    for checkpoint in (result, *opened.values()):
        checkpoint.close()
    columns = [*experts, "shared", "none", "disagree"]
    table = pd.DataFrame(rows, columns=["kind", *columns, "entries"]).groupby("kind", sort=False).sum()
    table.loc["all"] = table.sum()
    shares = table[columns[:-1]].div(table.disagree.where(table.disagree > 0), axis=0).fillna(0.0)
    return shares.assign(disagree=table.disagree / table.entries)


def _matches(ours: torch.Tensor, theirs: torch.Tensor) -> np.ndarray:
    """Entries equal to one expert alone (one count each), to several, to none; entries on which experts disagree."""
    disagree = (theirs != theirs[0]).any(0)
    equal = (theirs == ours) & disagree
    how_many = equal.sum(0)
    alone = [float((e & (how_many == 1)).sum()) for e in equal]
    return np.array([*alone, float((how_many > 1).sum()), float(((how_many == 0) & disagree).sum()),
                     float(disagree.sum())])  # fmt: skip


def agreement(left: Path, right: Path, iqr_multiplier: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How the readings agree on one step of real branches: (summary, overlap).

    summary: for each reading the share taken of the differing entries, of rows with a divergence of 0 and below, of
    tensors with a threshold of 0 and below. overlap: intersection over union of the selected differing entries.
    """
    names = list(READINGS)
    both, either = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    totals = {name: np.zeros(6) for name in names}  # taken, differing, rows <= 0, rows, tensors <= 0, tensors
    for _, tensors in _pairs(left, right, _sample(left)):
        differs, masks = tensors[0] != tensors[1], {}
        for name in names:
            masks[name], state = selection(tensors, name, iqr_multiplier)
            masks[name] &= differs
            totals[name] += [
                float(masks[name].sum()), float(differs.sum()), (state.divergence <= 0).sum(), len(state.divergence),
                state.threshold <= 0, 1,
            ]  # fmt: skip
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                both[i, j] += float((masks[a] & masks[b]).sum())
                either[i, j] += float((masks[a] | masks[b]).sum())
    summary = pd.DataFrame({
        name: {"taken, of those that differ": t[0] / max(1, t[1]), "rows with KL <= 0": t[2] / t[3],
               "tensors with threshold <= 0": t[4] / t[5]} for name, t in totals.items()
    }).T  # fmt: skip
    overlap = pd.DataFrame(both / np.where(either > 0, either, 1), index=names, columns=names)
    return summary.rename_axis("reading"), overlap.rename_axis("overlap of masks")


def selection(tensors: tuple[torch.Tensor, torch.Tensor], name: str, iqr_multiplier: float) -> tuple:
    """(mask of the entries a reading takes, its state) of (left, right); name: a key of READINGS."""
    scores, state, reading = scored(tensors, name, iqr_multiplier)
    return scores > state.threshold if reading == "paper" else scores.double() >= state.threshold, state


def scored(tensors: tuple[torch.Tensor, torch.Tensor], name: str, iqr_multiplier: float) -> tuple:
    """(importance (rows, width), state with divergence and threshold, reading) of (left, right)."""
    reading, dtype = READINGS[name]
    method, shape = Fusion(reading, iqr_multiplier), as_rows(tensors[0].shape)
    left, right = (t.reshape(shape).to(dtype) for t in tensors)
    blocks = [Block(a, (left[a:b], right[a:b])) for a, b in borders(shape)]
    state = method.prepare(lambda function: map(function, blocks), shape)
    return importance(left, right, torch.from_numpy(state.divergence), reading), state, reading


def _pairs(left: Path, right: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, tuple]]:
    """(name, (left, right)) of the wanted tensors of two checkpoints; of large ones the first LARGEST entries."""
    a, b = Checkpoint(left).open(), Checkpoint(right).open()
    try:
        for name, stored in a.tensors.items():
            rows, width = as_rows(stored.shape)
            last = min(rows, max(1, LARGEST // max(1, width)))
            if wanted(name) and stored.entries and stored.dtype.is_floating_point:
                yield name, (a.rows(name, 0, last), b.rows(name, 0, last))
    finally:
        a.close()
        b.close()


def _sample(folder: Path) -> Callable[[str], bool]:
    """Every tensor of a model of up to MOST entries; of a larger one, layers at even distances."""
    entries = sum(min(stored.entries, LARGEST) for stored in Checkpoint(folder).tensors.values())
    step = -(-entries // MOST)
    return lambda name: (_layer(name) or 0) % step == 0


def histograms(left: Path, right: Path, iqr_multiplier: float, kinds: tuple[str, ...]) -> pd.DataFrame:
    """Importance of the middle layer's tensors of some kinds: kind, reading, scores (array), threshold, zero_share.

    Scores above 0 only, of at most DRAWN entries at even distances; zero_share says how many are 0 or below.
    """
    middle = Checkpoint(left).config["num_hidden_layers"] // 2
    pairs = {kind(name): pair for name, pair in _pairs(left, right, lambda name: _layer(name) == middle)}
    rows = []
    for which in (k for k in kinds if k in pairs):  # other architectures have other names
        for name in READINGS:
            scores, state, _ = scored(pairs[which], name, iqr_multiplier)
            flat = scores.flatten()[:: max(1, scores.numel() // DRAWN)]
            rows.append({
                "kind": which, "reading": name, "scores": flat[flat > 0].numpy(), "threshold": state.threshold,
                "zero_share": float((flat <= 0).float().mean()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else None

