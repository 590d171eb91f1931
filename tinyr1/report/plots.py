"""Tables in, matplotlib figures out: the style of all figures of a report, and those of notebook 03 and 04.

`plots_data` draws the figures of notebook 01, `plots_branch` those of notebook 02. No file is read or written here.

A figure is as wide as one column of a page or a telephone, and it grows downwards. Models stand in the order of the
tables and benchmarks in that of the rows, which is the order of the params file. A model's colour says its role, and
it is the same in every figure, whichever other models are beside it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

WIDTH = 4.4  # inches; a telephone of 390 px shows it at 80 px an inch
SMALL = 8.0  # points, the smallest text of a figure: 9 px on that telephone
BESIDE = 3  # panels in a row
GREY, ACCENT = "#999999", "#d55e00"
# These colours keep apart for people with and without red-green blindness (tests/report/test_plots.py).
ROLES = {"backbone": GREY, "mixture": "#aa3377", "fusion": ACCENT, "merge": "#e69f00", "placebo": "#222222"}
EXPERTS = ("#1f5fa8", "#117733", "#33bbee", "#ddcc77", "#3f007d")
PLACEBOS = re.compile(r"random|largest|magnitude|noise|self|placebo")  # in the names of controls
NOT_ONE_EXPERT = {"shared": "#e3e3e3", "none": ROLES["merge"]}  # of `winners`, beside the experts
# Correct, wrong, and what is neither.
OUTCOMES = ("#222222", "#d4d4d4", "#e69f00", "#aa3377", "#33bbee", ACCENT, "#117733")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9.0, "axes.titlesize": 9.0, "axes.labelsize": 8.5,
    "xtick.labelsize": SMALL, "ytick.labelsize": 8.5, "legend.fontsize": SMALL, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left", "hatch.linewidth": 0.6,
}  # fmt: skip
matplotlib.rcdefaults()  # a person's own matplotlibrc must not change the figures of a report
plt.rcParams |= STYLE


def role(model: str, experts: Sequence[str]) -> str:
    """What a model is: `backbone`, `mixture`, `expert`, `fusion` (also with other settings), `merge` or `placebo`.

    The name says it: fusions are called by the order of their experts or by a setting or reading of fusion, such as
    lambda-0; controls by what replaces the importance. Any other name is that of another merge.
    """
    if model in ("backbone", "mixture"):
        return model
    if model in experts:
        return "expert"
    if PLACEBOS.search(model):
        return "placebo"
    order = re.sub("|".join(map(re.escape, sorted(experts, key=len, reverse=True))) or "$", "", model)
    return "fusion" if re.match(r"(fusion|lambda|exact|released|paper|-+$)", order) else "merge"


def colours(models: Iterable[str], experts: Sequence[str] | None = None) -> dict[str, str]:
    """Model -> colour. experts: the experts of the run in table order, whose places decide their colours.

    None stands for every model but the backbone and the data mixture, which is right for a figure without merges.
    """
    names = list(dict.fromkeys(models))
    experts = [m for m in names if m not in ("backbone", "mixture")] if experts is None else experts
    own = {m: EXPERTS[i % len(EXPERTS)] for i, m in enumerate(experts)}
    return {m: own[m] if m in own else ROLES[role(m, experts)] for m in names}


def panels(
    names: Sequence[str], height: float, beside: int = BESIDE, sharex: bool = True, sharey: bool = True
) -> tuple[Figure, dict[str, Axes]]:
    """A figure one column wide, and a panel in it for each name; at most `beside` of them in a row.

    height: of a row of panels, in inches. sharex, sharey: whether the panels have one scale.
    """
    across = max(1, min(beside, len(names)))
    down = -(-len(names) // across)
    fig, grid = plt.subplots(down, across, figsize=(WIDTH, height * down), sharex=sharex, sharey=sharey,
                             squeeze=False, layout="constrained")  # fmt: skip
    for empty in grid.flat[len(names) :]:
        empty.remove()
    return fig, dict(zip(names, grid.flat, strict=False))


def model_panels(models: Sequence[str], benchmarks: Sequence[str], xlabel: str) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each benchmark with a row for each model, the first one on top; row i of a panel is at y = i."""
    fig, axes = panels(benchmarks, 0.21 * len(models) + 0.9)
    for name, ax in axes.items():
        ax.set_title(name, fontsize=SMALL if len(benchmarks) > 1 else None)
        ax.xaxis.set_major_locator(MaxNLocator(3 if len(benchmarks) > 1 else 6))
        ax.tick_params(axis="y", length=0)
    first = next(iter(axes.values()))
    first.set(yticks=range(len(models)), yticklabels=models, ylim=(len(models) - 0.5, -0.5))
    fig.supxlabel(xlabel, fontsize=8.5)
    return fig, axes


def selected_share(table: pd.DataFrame, title: str) -> Figure:
    """Heat map of the share of differing weights that a fusion step took from its `other` model, layer by kind.

    table: tensor (name), selected and differing (entries). The colours run from 0 to the largest share.
    """
    part = table.assign(
        layer=table.tensor.str.extract(r"layers\.(\d+)\.", expand=False).astype(float),
        kind=table.tensor.str.replace(r".*layers\.\d+\.(.*)\.weight", r"\1", regex=True),
        share=100 * table.selected / table.differing.where(table.differing > 0),
    ).dropna(subset=["layer"])
    grid = part.pivot_table(index="kind", columns="layer", values="share")
    fig, ax = plt.subplots(figsize=(WIDTH, 0.22 * len(grid) + 1.1), layout="constrained")
    image = ax.imshow(grid, aspect="auto", vmin=0, cmap="viridis", interpolation="nearest")
    ax.set(yticks=range(len(grid)), yticklabels=grid.index, xlabel="layer")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    fig.suptitle(title, fontsize=9, x=0.01, ha="left")
    fig.colorbar(image, label="taken, %", aspect=12)
    return fig


def winners(shares: pd.DataFrame, title: str, experts: Sequence[str] | None = None) -> Figure:
    """Whose weights a merged model has, by kind of tensor.

    shares: index kind; columns the experts, `shared` and `none`; each row sums to 1. experts: see `colours`.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 0.21 * len(shares) + 1.3), layout="constrained")
    left = np.zeros(len(shares))
    shades = colours([name for name in shares.columns if name not in NOT_ONE_EXPERT], experts) | NOT_ONE_EXPERT
    for name in shares.columns:
        values = 100 * shares[name].fillna(0)
        ax.barh(shares.index, values, left=left, label=name, color=shades[name])
        left += values.to_numpy()
    ax.set(xlim=(0, 100), xlabel="% of the entries on which the experts disagree")
    ax.invert_yaxis()
    fig.suptitle(title, fontsize=9, x=0.01, ha="left")
    fig.legend(loc="outside lower center", ncols=len(shares.columns), handlelength=1, columnspacing=1.2)
    return fig


def importance(table: pd.DataFrame) -> Figure:
    """Distribution of importance with its threshold. table: kind, reading, scores (array), threshold, zero_share."""
    kinds, readings = list(dict.fromkeys(table.kind)), list(dict.fromkeys(table.reading))
    names = [f"{reading}, {kind}" for reading in readings for kind in kinds]
    fig, axes = panels(names, 1.25, beside=len(kinds), sharex=False, sharey=False)
    for row in table.to_dict("records"):
        ax, scores = axes[f"{row['reading']}, {row['kind']}"], row["scores"]
        if len(scores):
            ax.hist(np.log10(scores), bins=60, color=GREY)
        if row["threshold"] > 0:
            ax.axvline(np.log10(row["threshold"]), color=ACCENT, lw=1.2)
        title = f"{row['reading']}: {row['kind'].rpartition('.')[2]}"
        ax.set_title(f"{title}\n{row['zero_share']:.0%} are 0 or below", fontsize=SMALL)
        ax.set_yticks([])
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    fig.supxlabel("log10 of the importance", fontsize=8.5)
    return fig


def score_bars(scores: pd.DataFrame, experts: Sequence[str], chance: Mapping[str, float] | None = None) -> Figure:
    """pass@1 with 95 % question-clustered intervals, the counterpart of the paper's Figure 1.

    scores: the rows of scores.csv. experts: see `colours`. chance: benchmark -> the score of guessing, in [0, 1], drawn
    as a line; 0, or a benchmark that is not named, has none.
    """
    models, shades = list(dict.fromkeys(scores.model)), colours(scores.model, experts)
    fig, axes = model_panels(models, list(dict.fromkeys(scores.benchmark)), "pass@1, %, with 95 % intervals")
    for benchmark, ax in axes.items():
        part = scores[scores.benchmark == benchmark].set_index("model").loc[models]
        errors = [100 * (part.pass_at_1 - part.ci_low), 100 * (part.ci_high - part.pass_at_1)]
        # The intervals have a white rim, so that they can be seen on bars of every colour.
        ax.barh(range(len(models)), 100 * part.pass_at_1, xerr=errors, color=[shades[m] for m in models], height=0.72,
                error_kw={"lw": 1, "path_effects": [withStroke(linewidth=2.4, foreground="white")]})  # fmt: skip
        for y, (value, high) in enumerate(zip(part.pass_at_1, part.ci_high, strict=True)):
            ax.annotate(f"{100 * value:.0f}", (100 * high, y), (3, 0), textcoords="offset points", va="center",
                        fontsize=SMALL)  # fmt: skip
        size = f"{part.n_problems.iloc[0]:.0f} × {part.n_samples.iloc[0]:.0f} answers"
        ax.set_title(f"{benchmark}\n{size}", fontsize=SMALL)
    mark_chance(axes, chance or {}, len(models))
    ax.set_xlim(0, 112 * max([scores.ci_high.max(), *(chance or {}).values()]) + 6)
    return fig


def mark_chance(axes: Mapping[str, Axes], chance: Mapping[str, float], rows: int) -> None:
    """A line at the score of guessing, in percent, in the panels of `model_panels` whose benchmark has one.

    chance: benchmark -> score in [0, 1]; 0 gets no line. rows: the models of a panel; the name of the line is below.
    """
    for benchmark, level in chance.items():
        if level and (ax := axes.get(benchmark)):
            ax.axvline(100 * level, color="black", lw=0.9, ls=(0, (4, 2)), zorder=3)
            ax.set_ylim(rows + 0.2, -0.5)  # of all panels, which share their rows
            ax.annotate(f"chance {100 * level:.0f}", (100 * level, rows - 0.15), (3, 0), textcoords="offset points",
                        fontsize=SMALL, va="center")  # fmt: skip


def gains(differences: pd.DataFrame, experts: Sequence[str]) -> Figure:
    """Paired gains over the backbone. differences: model, benchmark, mean, low, high (fractions); experts: as above."""
    models, shades = list(dict.fromkeys(differences.model)), colours(differences.model, experts)
    benchmarks = list(dict.fromkeys(differences.benchmark))
    fig, axes = model_panels(models, benchmarks, "points over the backbone, with 95 % intervals")
    for benchmark, ax in axes.items():
        part = 100 * differences[differences.benchmark == benchmark].set_index("model")[["mean", "low", "high"]]
        for y, model in enumerate(models):
            mean, low, high = part.loc[model]
            ax.plot([low, high], [y, y], color=shades[model], lw=2.2, solid_capstyle="butt")
            ax.plot(mean, y, "o", color=shades[model], ms=4.5)
        ax.axvline(0, color="black", lw=0.7)
    return fig


def outcomes(graded: pd.DataFrame, order: tuple[str, ...], models: list[str], benchmarks: list[str]) -> Figure:
    """Share of each outcome, models down and benchmarks across as listed. graded: model, benchmark, outcome.

    The legend names the outcomes of `order` that occur.
    """
    shades = dict(zip(order, OUTCOMES, strict=False))
    shown = [name for name in order if name in set(graded.outcome)]
    fig, axes = model_panels(models, benchmarks, "% of the samples")
    for benchmark, ax in axes.items():
        part = graded[graded.benchmark == benchmark]
        table = 100 * pd.crosstab(part.model, part.outcome, normalize="index").reindex(models).fillna(0)
        left = np.zeros(len(models))
        for name in (o for o in shown if o in table):
            ax.barh(range(len(models)), table[name], left=left, color=shades[name], height=0.78)
            left += table[name].to_numpy()
    ax.set_xlim(0, 100)
    handles = [Patch(color=shades[o]) for o in shown]
    fig.legend(handles, [o.replace("_", " ") for o in shown], loc="outside upper center", ncols=3, handlelength=1)
    return fig


def comparison_matrix(table: pd.DataFrame, models: list[str]) -> Figure:
    """Row model less column model in points, by benchmark; a star where it differs after Holm's correction.

    table: the pairs of `evaluate.compare.pairs`. Each pair is shown once, so the first model has no row.
    """
    rows, across = models[1:], models[:-1]
    fig, axes = panels(list(dict.fromkeys(table.benchmark)), 0.24 * len(rows) + 0.5, beside=1)
    limit = max(1.0, 100 * table["mean"].abs().max())
    for benchmark, ax in axes.items():
        grid = np.full((len(rows), len(across)), np.nan)
        part = table[table.benchmark == benchmark]
        for model, against, mean, holm in zip(part.model, part.against, 100 * part["mean"], part.holm, strict=True):
            i, j = models.index(model), models.index(against)
            x, y, sign = (j, i, 1) if i > j else (i, j, -1)
            grid[y - 1, x] = sign * mean
            text = f"{sign * mean:+.0f}" + ("*" if holm < 0.05 else "")
            dark = abs(mean) > 0.6 * limit
            ax.text(x, y - 1, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
        image = ax.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        ax.set(title=benchmark, xticks=range(len(across)), yticks=range(len(rows)), yticklabels=rows)
    ax.set_xticklabels(across, rotation=90)
    fig.colorbar(image, ax=list(axes.values()), label="row less column, points", location="bottom", aspect=35)
    return fig


def answer_lengths(
    graded: pd.DataFrame, models: list[str], benchmarks: list[str], experts: Sequence[str] | None = None
) -> Figure:
    """Tokens in an answer: median, quartiles and range of each model.

    graded: model, benchmark, n_tokens. experts: see `colours`.
    """
    shades = colours(models, experts)
    fig, axes = model_panels(models, benchmarks, "tokens in an answer: median, quartiles, range")
    for benchmark, ax in axes.items():
        part = graded[(graded.benchmark == benchmark) & graded.n_tokens.notna()]
        for y, model in enumerate(models):
            values = part[part.model == model].n_tokens.to_numpy(dtype=float)
            if len(values):
                low, first, middle, third, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
                ax.plot([low, high], [y, y], color=shades[model], lw=1)
                ax.barh(y, third - first, left=first, height=0.62, color=shades[model])
                ax.plot([middle, middle], [y - 0.31, y + 0.31], color="white", lw=1.6)
    ax.set_xlim(left=0)
    return fig
