"""The figures of notebook 01: the method as a picture, the way of the raw rows, the lengths of the training rows."""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from tinyr1.core import recipe
from tinyr1.core.config import Config
from tinyr1.report.plots import ACCENT, GREY, SMALL, WIDTH, colours, panels

COLUMN = 0.92  # inches that a branch takes in the picture of Branch-Merge
GUTTER = 0.72  # inches for the names of the steps
BOX, LETTERS = 2.6, 42  # inches of the first and the last box, and what fits into one of their lines


def branch_merge(cfg: Config) -> Figure:
    """The method with the names of a run: one backbone, a branch for each domain, one merged model, and the control."""
    branches = list(cfg.branches)
    name, merged = next(iter(cfg.merges.items()))
    width = max(WIDTH, GUTTER + COLUMN * len(branches))
    column = (width - GUTTER) / len(branches)
    shades = colours(["backbone", *branches, name], cfg.domains)
    fig, ax = plt.subplots(figsize=(width, 3.55), layout="constrained")
    ax.set(xlim=(0, width), ylim=(0, 3.55))
    ax.axis("off")
    middle = {branch: GUTTER + (i + 0.5) * column for i, branch in enumerate(branches)}
    used = [expert for expert in cfg.domains if expert in merged.leaves]
    centre = sum(middle[expert] for expert in used or branches) / len(used or branches)
    start = cfg.params.backbone
    _box(ax, centre, 3.2, BOX, "backbone", start.model + (", distilled first" if start.distill else ""), shades)
    for branch in branches:
        x, control = middle[branch], branch not in cfg.domains
        _arrow(ax, (centre + 0.3 * (x - centre), 2.92), (x, 2.3), control)
        _box(ax, x, 1.79, column - 0.12, branch, "", shades)
        _label(ax, x, 2.14, "rows of all" if control else f"{branch} rows")
        if control:
            _label(ax, x, 1.33, "the control:\nno merge")
        elif branch in merged.leaves:
            _arrow(ax, (x, 1.58), (centre + 0.3 * (x - centre), 0.62), False)
    order = f"{merged.method}: {recipe.describe(merged)}"
    _box(ax, centre, 0.34, BOX, name, order if len(order) <= LETTERS else merged.method, shades)
    for y, step, what in ((2.6, "Branch", "fine-tune"), (1.1, "Merge", "combine the\nweights")):
        ax.text(0, y, step, weight="bold", fontsize=10, va="bottom")
        ax.text(0, y - 0.03, what, fontsize=SMALL, va="top")
    return fig


def _box(ax: Axes, x: float, y: float, width: float, title: str, below: str, shades: dict[str, str]) -> None:
    """A model as a box around (x, y), in inches, in its colour."""
    height = 0.54 if below else 0.4
    style = FancyBboxPatch((x - width / 2, y - height / 2), width, height, color=shades[title], lw=0,
                           boxstyle="round,pad=0,rounding_size=0.07", zorder=2)  # fmt: skip
    ax.add_patch(style)
    ink = _ink(shades[title])
    shift = 0.1 if below else 0
    ax.text(x, y + shift, title, ha="center", va="center", color=ink, weight="bold", zorder=3)
    ax.text(x, y - 0.12, below, ha="center", va="center", color=ink, fontsize=SMALL, zorder=3)


def _ink(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], dashed: bool) -> None:
    look = {"arrowstyle": "-|>", "color": "#555555", "lw": 1.1, "ls": (0, (3, 2)) if dashed else "-"}
    ax.annotate("", end, start, arrowprops=look | {"shrinkA": 0, "shrinkB": 0}, zorder=1)


def _label(ax: Axes, x: float, y: float, text: str) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=SMALL, bbox={"color": "white", "pad": 1})


def funnel(fates: pd.DataFrame) -> Figure:
    """Where the raw rows of each domain went: each reason takes its rows away, and the rest becomes training rows.

    fates: index domain, columns reasons and `kept`, values rows; as from `data.curate.fates`.
    """
    reasons = [name for name in fates.columns if name != "kept"]
    names = ["raw rows", *(name.replace("_", " ") for name in reasons), "training rows"]
    shades, totals = colours(fates.index), fates.sum(axis=1)
    fig, axes = panels(list(map(str, fates.index)), 0.21 * len(names) + 0.75, sharex=False)
    for domain, ax in axes.items():
        total, left = totals[domain], totals[domain]
        _bar(ax, 0, 0, total, GREY, total)
        for y, reason in enumerate(reasons, 1):
            lost = int(fates[reason][domain])
            left -= lost
            if lost:
                _bar(ax, y, left, lost, ACCENT, total)
        _bar(ax, len(names) - 1, 0, left, shades[domain], total)
        ax.set(title=domain, xlim=(0, 1.02 * total))
        ax.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        ax.tick_params(axis="y", length=0)
    next(iter(axes.values())).set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    fig.supxlabel("rows", fontsize=8.5)
    return fig


def _bar(ax: Axes, y: int, left: int, rows: int, shade: str, total: int) -> None:
    """A bar with its number: inside where it is long, else beside it, on the side with more room."""
    ax.barh(y, rows, left=left, color=shade, height=0.78)
    if rows > total / 2:
        ax.text(left + rows / 2, y, f"{rows}", ha="center", va="center", fontsize=SMALL, color=_ink(shade))
        return
    to_the_left = left + rows / 2 > total / 2
    at = (left, y) if to_the_left else (left + rows, y)
    ax.annotate(f"{rows}", at, (-2 if to_the_left else 2, 0), textcoords="offset points", va="center",
                ha="right" if to_the_left else "left", fontsize=SMALL)  # fmt: skip


def row_lengths(rows: pd.DataFrame) -> Figure:
    """Histogram of the training rows of each domain by length, with the median. rows: domain, n_tokens."""
    shades = colours(rows.domain)
    fig, axes = panels(list(shades), 1.0, beside=1, sharey=False)
    for domain, ax in axes.items():
        lengths = rows.n_tokens[rows.domain == domain]
        ax.hist(lengths, bins=50, range=(rows.n_tokens.min(), rows.n_tokens.max()), color=shades[domain])
        ax.axvline(lengths.median(), color="black", lw=1)
        ax.annotate(f"median {lengths.median():.0f}", (lengths.median(), 1), (4, -2), va="top", fontsize=SMALL,
                    xycoords=("data", "axes fraction"), textcoords="offset points",
                    bbox={"color": "white", "alpha": 0.8, "pad": 0.5})  # fmt: skip
        ax.set_title(domain)
        ax.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    fig.supylabel("rows", fontsize=8.5)
    fig.supxlabel("tokens in a row, prompt and response", fontsize=8.5)
    return fig
