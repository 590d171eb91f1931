"""Figures of notebook 03: fusion by hand, branches at many distances, activations of a merge beside its parents.

The colours and sizes are those of `plots`, which also has the figures of a run's tensors.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyr1.merge import fusion
from tinyr1.report.plots import ACCENT, BESIDE, GREY, SMALL, colours, panels

ARITHMETIC = {"released, bf16": ACCENT, "released, fp32": "#1f5fa8", "exact": GREY}


def by_hand(base: torch.Tensor, other: torch.Tensor, iqr_multiplier: float) -> Figure:
    """A fusion step of two small matrices (rows, width) as six pictures, every number in its place."""
    kl = fusion.row_divergence(base, other)
    scores = fusion.importance(base, other, kl, "exact")
    merged, selection = fusion.fuse(base, other, iqr_multiplier)
    mask = fusion.factor(scores, selection.threshold, "exact")
    shown = {
        "base": (base, "{:.2f}", "Blues"), "other": (other, "{:.2f}", "Blues"),
        "|other − base|": ((other - base).abs(), "{:.2f}", "Oranges"),
        "× KL of its row = importance": (scores, "{:.4f}", "Oranges"),
        f"≥ {selection.threshold:.4f}: mask": (mask, "{:.0f}", "Greys"),
        "merged": (merged, "{:.2f}", "Blues"),
    }  # fmt: skip
    fig, axes = panels(list(shown), 1.15, beside=2, sharex=False, sharey=False)
    top = float(torch.stack([base, other]).max())
    for name, (values, form, map_) in shown.items():
        high = top if map_ == "Blues" else max(float(values.max()), 1e-12)
        _cells(axes[name], values.numpy(), form, map_, high)
        axes[name].set_title(name, fontsize=SMALL)
    for i, j in mask.nonzero().tolist():
        axes["merged"].add_patch(_frame(i, j))
    fig.suptitle("Framed: the weights that the base takes from other", fontsize=9, x=0.01, ha="left")
    return fig


def _cells(ax: Axes, values: np.ndarray, form: str, map_: str, high: float) -> None:
    # Half of the range of a map, so that black numbers stay readable on every cell.
    ax.imshow(values, cmap=map_, vmin=0, vmax=2 * high, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, form.format(value), ha="center", va="center", fontsize=SMALL)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _frame(i: int, j: int) -> Rectangle:
    """A frame around the cell in row i and column j."""
    return Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, fill=False, ec=ACCENT, lw=2)


def sweep(table: pd.DataFrame) -> Figure:
    """How far the released arithmetic selects what the exact one does, over the distance of the branches.

    table: width, distance, arithmetic, overlap (0 to 1) of `tinyr1.merge.masks.sweep`. A panel for each width.
    """
    fig, axes = panels([f"rows of {width:,}" for width in dict.fromkeys(table.width)], 2.3, beside=2)
    for width, ax in zip(dict.fromkeys(table.width), axes.values(), strict=True):
        part = table[table.width == width]
        for name in ("released, bf16", "released, fp32"):
            line = part[part.arithmetic == name]
            ax.plot(line.distance, line.overlap, color=ARITHMETIC[name], lw=1.6, marker="o", ms=3, label=name)
        ax.set_title(f"rows of {width:,}", fontsize=SMALL)
        ax.set(xscale="log", ylim=(0, 1.02))
    next(iter(axes.values())).set_ylabel("overlap with the exact selection")
    fig.supxlabel("standard deviation of other − base", fontsize=8.5)
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=2)
    return fig


def activations(table: pd.DataFrame, experts: Sequence[str]) -> Figure:
    """Variance and effective rank by layer, a line for each model. table: see `tinyr1.merge.collapse.by_layer`.

    experts: see `plots.colours`.
    """
    models = list(dict.fromkeys(table.model))
    shades = colours(models, experts)
    fig, axes = panels(["variance of an activation", "effective rank"], 1.9, beside=1, sharey=False)
    for (name, ax), column in zip(axes.items(), ("variance", "effective_rank"), strict=True):
        for model in models:
            line = table[table.model == model]
            ax.plot(line.layer, line[column], color=shades[model], lw=2.4 if model not in experts else 1.2, label=model)
        ax.set_title(name, fontsize=SMALL)
    axes["variance of an activation"].set_yscale("log")
    fig.supxlabel("layer; 0 is the embedding", fontsize=8.5)
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=min(len(models), BESIDE))
    return fig
