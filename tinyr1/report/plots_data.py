"""The figures of notebook 01: the method as a picture, the way of the raw rows, the lengths of the training rows."""

from textwrap import fill

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from tinyr1.core import recipe
from tinyr1.core.config import Config
from tinyr1.report.plots import ACCENT, BESIDE, GREY, SMALL, WIDTH, colours, panels

COLUMN = 0.92  # inches that a branch takes in the picture of Branch-Merge
GUTTER = 0.72  # inches for the names of the steps
BOX, LETTERS = 2.6, 42  # inches of the first and the last box, and what fits into one of their lines
NAME = 16  # letters in a line of the name of a reason
DIGIT = 0.0715  # inches that a digit takes at SMALL points: 0.636 em of DejaVu Sans
PALE = "#e9e9e9"  # rows that are still there


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

    A column of numbers stands beside the bars of each domain, and adds up as in a ledger: the raw rows less those of
    every reason are the training rows. fates: index domain, columns reasons and `kept`, values rows; as from
    `data.curate.fates`.
    """
    reasons = [name for name in fates.columns if name != "kept"]
    names = ["raw rows", *(fill(name.replace("_", " "), NAME) for name in reasons), "training rows"]
    line = 0.2 + 0.07 * max(name.count("\n") for name in names)
    shades, totals = colours(fates.index), fates.sum(axis=1)
    fig, axes = panels(list(map(str, fates.index)), line * len(names) + 0.5, sharex=False)
    widest = max(len(part) for name in names for part in name.split("\n"))
    panel = (WIDTH - DIGIT * widest - 0.2) / min(BESIDE, len(fates)) - 0.06
    for domain, ax in axes.items():
        total = left = int(totals[domain])
        bars = max(0.3, 1 - (DIGIT * len(f"−{total:,}") + 0.03) / panel)  # of the panel; numbers take the rest
        _entry(ax, 0, 0, total, GREY, f"{total:,}")
        for y, reason in enumerate(reasons, 1):
            lost = int(fates[reason][domain])
            left -= lost
            ax.barh(y, left, color=PALE, height=0.78)
            if lost:
                _entry(ax, y, left, lost, ACCENT, f"−{lost:,}")
        _entry(ax, len(names) - 1, 0, left, shades[domain], f"{left:,}")
        ax.plot([bars, 1], [len(names) - 1.5] * 2, color="black", lw=0.8, transform=ax.get_yaxis_transform())
        ax.set(title=domain, xlim=(0, max(total, 1) / bars), xticks=[])
        ax.tick_params(axis="y", length=0)
        ax.spines["bottom"].set_visible(False)
    next(iter(axes.values())).set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    return fig


def _entry(ax: Axes, y: int, left: int, rows: int, shade: str, number: str) -> None:
    """A bar, with a rim so that few rows of many can be seen, and its number at the right end of the panel."""
    ax.barh(y, rows, left=left, color=shade, edgecolor=shade, lw=0.6, height=0.78)
    ax.text(1, y, number, ha="right", va="center_baseline", fontsize=SMALL, transform=ax.get_yaxis_transform())


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
