"""The figures of notebook 05: the forest plot of the claims, and one figure for each ablation. No file is read here."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tinyr1.report import plots
from tinyr1.report.audit import CONTRADICTED, SUPPORTED, UNDECIDED

VERDICT_COLOURS = {SUPPORTED: "#117733", CONTRADICTED: plots.ACCENT, UNDECIDED: "#777777"}
VERDICT_MARKS = {SUPPORTED: "o", CONTRADICTED: "X", UNDECIDED: "s"}  # they differ without colours, too
ROW, HEAD = 0.37, 0.8  # inches of a row and of what is around the rows


def forest(items: Sequence[Mapping[str, Any]], margin: float) -> Figure:
    """Every claim that is a difference between models of the run, with its interval in points; colour and mark are the
    verdict. The band is ±margin, within which models count as similar.

    items: those of claims.json; claims without an interval in points are left out.
    """
    shown = [item for item in items if item["unit"] == "points" and item["low"] is not None]
    fig, ax = plt.subplots(figsize=(plots.WIDTH, ROW * len(shown) + HEAD), layout="constrained")
    ax.axvspan(-margin, margin, color="#eeeeee", zorder=0)
    ax.axvline(0, color="black", lw=0.7, zorder=1)
    for y, item in enumerate(shown):
        colour = VERDICT_COLOURS[item["verdict"]]
        ax.plot([item["low"], item["high"]], [y, y], color=colour, lw=2.2, solid_capstyle="butt", zorder=2)
        ax.plot(item["ours"], y, VERDICT_MARKS[item["verdict"]], color=colour, ms=5, zorder=3)
        weight = "bold" if item["group"] == "Headline" else "normal"
        ax.text(0, y - 0.34, _short(item["claim"]), transform=ax.get_yaxis_transform(), fontsize=plots.SMALL,
                fontweight=weight, va="center")  # fmt: skip
    ax.set(ylim=(len(shown) - 0.4, -0.8), yticks=[], xlabel="points in this run, with 95 % intervals")
    ax.spines["left"].set_visible(False)
    handles = [Line2D([], [], color=colour, marker=VERDICT_MARKS[verdict], lw=2, ms=5, label=verdict)
               for verdict, colour in VERDICT_COLOURS.items()]  # fmt: skip
    fig.legend(handles=handles, loc="outside upper center", ncols=2)
    return fig


def _short(claim: str) -> str:
    """A claim that fits the width of a figure."""
    text = claim.removesuffix(".").replace(", averaged over all benchmarks", "")
    return text if len(text) <= 68 else f"{text[:66].rsplit(' ', 1)[0]} …"


def ablation(rows: pd.DataFrame, control: str, experts: Sequence[str]) -> Figure:
    """The scores of one ablation: a panel for the average and for each benchmark, a row for each model.

    rows: model, benchmark, mean, low, high, seeds, trainings (`effects.scores`). control: the model whose mean is a
    line through each panel. The mark is the mean with its 95 % interval; of several trainings each is a dot, too.
    experts: see `plots.colours`.
    """
    models, benchmarks = list(dict.fromkeys(rows.model)), list(dict.fromkeys(rows.benchmark))
    names = {model: model.partition(" (")[0] for model in models}
    shades = plots.colours(list(dict.fromkeys(names.values())), experts)
    fig, axes = plots.model_panels(models, benchmarks, "pass@1, %, with 95 % intervals; the line is the control")
    for benchmark, ax in axes.items():
        part = {row["model"]: row for row in rows[rows.benchmark == benchmark].to_dict("records")}
        if control in part:
            ax.axvline(100 * part[control]["mean"], color="black", lw=0.9, ls=(0, (4, 2)), zorder=0)
        for y, model in enumerate(models):
            row, colour = part[model], shades[names[model]]
            ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
            ax.plot(100 * row["mean"], y, "D" if model == control else "o", color=colour, ms=5)
            if row["seeds"] > 1:
                dots = [100 * value for value in row["trainings"]]
                ax.plot(dots, [y] * len(dots), "o", ms=2.6, mfc="white", mec="#333333", mew=0.7, zorder=3)
    return fig
