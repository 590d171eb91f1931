"""The figures of notebook 05: the forest plot of the claims, and one figure for each ablation. No file is read here."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tinyr1.report import plots
from tinyr1.report.statement import AVERAGE
from tinyr1.report.verdicts import CONTRADICTED, HEADLINE, SUPPORTED, UNDECIDED

VERDICT_COLOURS = {SUPPORTED: "#117733", CONTRADICTED: plots.ACCENT, UNDECIDED: "#777777"}
VERDICT_MARKS = {SUPPORTED: "o", CONTRADICTED: "X", UNDECIDED: "s"}  # they differ without colours, too
ROW, HEAD = 0.36, 1.0  # inches of a row, and of what is around the rows
LONGEST = 70  # letters of a claim beside its interval


def forest(items: Sequence[Mapping[str, Any]], margin: float) -> Figure:
    """Every claim that is a difference between models of the run, with its interval in points, and the paper's own
    difference as a diamond. Colour and mark are the verdict; the band is ±margin, within which models are similar.

    items: those of claims.json; claims without an interval in points are left out.
    """
    shown = [item for item in items if item["unit"] == "points" and item["low"] is not None]
    fig, ax = _rows(len(shown), "points, with the 95 % interval of this run")
    ax.axvspan(-margin, margin, color="#eeeeee", zorder=0)
    for y, item in enumerate(shown):
        colour, mark = VERDICT_COLOURS[item["verdict"]], VERDICT_MARKS[item["verdict"]]
        _interval(ax, y, item, colour, mark)
        if item["paper_points"] is not None:
            ax.plot(item["paper_points"], y, "D", mfc="none", mec="black", mew=0.9, ms=5.5, zorder=4)
        _name(ax, y, _short(item["claim"]), bold=item["group"] == HEADLINE)
    handles = [Line2D([], [], color=colour, marker=VERDICT_MARKS[verdict], lw=2, ms=5, label=verdict)
               for verdict, colour in VERDICT_COLOURS.items()]  # fmt: skip
    handles.append(Line2D([], [], color="black", marker="D", mfc="none", lw=0, ms=5.5, label="the paper's own"))
    fig.legend(handles=handles, loc="outside upper center", ncols=2)
    return fig


def _rows(count: int, xlabel: str) -> tuple[Figure, Axes]:
    """A figure of so many rows, each below its name, the first one on top; with a line at 0."""
    fig, ax = plt.subplots(figsize=(plots.WIDTH, ROW * count + HEAD), layout="constrained")
    ax.axvline(0, color="black", lw=0.7, zorder=1)
    ax.set(ylim=(count - 0.4, -0.8), yticks=[], xlabel=xlabel)
    ax.spines["left"].set_visible(False)
    return fig, ax


def _interval(ax: Axes, y: float, points: Mapping[str, Any], colour: str, mark: str) -> None:
    ax.plot([points["low"], points["high"]], [y, y], color=colour, lw=2.2, solid_capstyle="butt", zorder=2)
    ax.plot(points["ours"], y, mark, color=colour, ms=5, zorder=3)


def _name(ax: Axes, y: int, text: str, bold: bool = False) -> None:
    """The name of a row, above its interval; the band and the line do not run through it."""
    ax.text(0, y - 0.4, text, transform=ax.get_yaxis_transform(), fontsize=plots.SMALL, va="center", zorder=2,
            fontweight="bold" if bold else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip


def _short(claim: str) -> str:
    """A claim that fits the width of a figure."""
    text = claim.removesuffix(".").replace(", averaged over all benchmarks", "")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2].rsplit(' ', 1)[0]} …"


def ablation(rows: pd.DataFrame, experts: Sequence[str]) -> Figure:
    """The scores of one ablation, averaged over the benchmarks: a row for each model, with its 95 % interval.

    rows: model, control, benchmark, mean, low, high, trainings (`effects.scores`); those of the average are drawn. The
    dashed line of a row is the mean of its control, whose own mark is a diamond. Of several trainings each is a small
    dot. experts: see `plots.colours`.
    """
    average = rows[rows.benchmark == AVERAGE].to_dict("records")
    means = {row["model"]: 100 * row["mean"] for row in average}
    shades = _shades(list(means), experts)
    fig, ax = plt.subplots(figsize=(plots.WIDTH, 0.27 * len(average) + 0.6), layout="constrained")
    for y, row in enumerate(average):
        points = {"ours": means[row["model"]], "low": 100 * row["low"], "high": 100 * row["high"]}
        _interval(ax, y, points, shades[row["model"]], "D" if row["model"] == row["control"] else "o")
        if row["control"] in means:
            ax.plot([means[row["control"]]] * 2, [y - 0.5, y + 0.5], color="black", lw=0.9, ls=(0, (4, 2)), zorder=1)
        if len(row["trainings"]) > 1:
            dots = [100 * value for value in row["trainings"]]
            ax.plot(dots, [y] * len(dots), "o", ms=2.6, mfc="white", mec="#333333", mew=0.7, zorder=4)
        ax.annotate(f"{points['ours']:.0f}", (points["high"], y), (4, 0), textcoords="offset points", va="center",
                    fontsize=plots.SMALL)  # fmt: skip
    ax.set(yticks=range(len(average)), yticklabels=list(means), ylim=(len(average) - 0.5, -0.5))
    fig.supxlabel("average pass@1, %, with 95 % intervals; dashed: the control", fontsize=8.5)
    ax.margins(x=0.08)
    ax.tick_params(axis="y", length=0)
    return fig


def effects(decided: Mapping[str, pd.DataFrame], experts: Sequence[str]) -> Figure:
    """Every ablation in one figure: the difference of each model to its control, which is the line at 0.

    decided: name of an ablation -> rows of `effects.differences`. A star marks what differs after Holm's correction.
    experts: see `plots.colours`.
    """
    lines: list[tuple[str, dict]] = []
    for name, table in decided.items():
        lines += [(f"{name}, less {table['against'].iloc[0]}", {})] if len(table) else []
        lines += [(str(row["model"]), row) for row in table.to_dict("records")]
    shades = _shades([name for name, row in lines if row], experts)
    fig, ax = plt.subplots(figsize=(plots.WIDTH, 0.19 * len(lines) + 0.6), layout="constrained")
    ax.axvline(0, color="black", lw=0.7, zorder=1)
    for y, (name, row) in enumerate(lines):
        if row:
            points = {"ours": 100 * row["mean"], "low": 100 * row["low"], "high": 100 * row["high"]}
            _interval(ax, y, points, shades[name], "o")
    stars = [f"{name} *" if row and row["star"] else name for name, row in lines]
    ax.set(yticks=range(len(lines)), yticklabels=stars, ylim=(len(lines) - 0.5, -0.7))
    for text, (_, row) in zip(ax.get_yticklabels(), lines, strict=True):
        text.set(fontsize=plots.SMALL, fontweight="normal" if row else "bold")
    ax.tick_params(axis="y", length=0)
    fig.supxlabel("points over the control, averaged over the benchmarks", fontsize=8.5)
    return fig


def _shades(labels: Sequence[str], experts: Sequence[str]) -> dict[str, str]:
    """Label -> colour of its model; a label may name a training in brackets after the model."""
    shades = plots.colours(dict.fromkeys(label.partition(" (")[0] for label in labels), experts)
    return {label: shades[label.partition(" (")[0]] for label in labels}
