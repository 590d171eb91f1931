"""Tables in, matplotlib figures out. No file is read or written here.

Every model has one colour in all figures of a run, by its role: the backbone, an expert, the data mixture or a merge.
The experts and the merges take the colours of their lists in table order.
"""

from collections.abc import Iterable, Sequence

import matplotlib

matplotlib.use("agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

GREY, RED = "#8c8c8c", "#c44e52"
BACKBONE, MIXTURE = GREY, "#8172b3"
EXPERTS = ("#4c72b0", "#55a868", RED, "#64b5cd", "#ccb974")
MERGES = ("#dd8452", "#e6b04d", "#937860", "#da8bc3")
NOT_ONE_EXPERT = {"shared": "#d9d9d9", "none": "#937860"}  # of `winners`, beside the experts
OUTCOME_COLOURS = ("#55a868", RED, GREY, "#dd8452", "#8172b3", "#937860")
plt.rcParams |= {"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def colours(models: Iterable[str], experts: Sequence[str] | None = None) -> dict[str, str]:
    """Model -> colour by its role. models: in table order, merges included.

    experts: the experts of the run in table order. None stands for every model but the backbone and the data mixture,
    which is right for a figure without merges.
    """
    names = dict.fromkeys(models)
    fixed = {"backbone": BACKBONE, "mixture": MIXTURE}
    experts = [m for m in names if m not in fixed] if experts is None else experts
    fixed |= {m: EXPERTS[i % len(EXPERTS)] for i, m in enumerate(experts)}
    merges = [m for m in names if m not in fixed]
    return fixed | {m: MERGES[i % len(MERGES)] for i, m in enumerate(merges)}


def _panels(names: Sequence[str], width: float, height: float) -> tuple[Figure, list[tuple[Axes, str]]]:
    """A figure with one panel for each name, side by side, on a common y axis; sizes of a panel in inches."""
    fig, axes = plt.subplots(
        1, len(names), figsize=(width * len(names), height), sharey=True, squeeze=False, layout="constrained"
    )
    return fig, list(zip(axes[0], names, strict=True))


def funnel(ledger: pd.DataFrame) -> Figure:
    """Where the raw rows of each domain went. ledger: index domain, columns reasons and `kept`, values rows."""
    shares = ledger.div(ledger.sum(axis=1), axis=0)
    fig, ax = plt.subplots(figsize=(8, 2.4), layout="constrained")
    left = np.zeros(len(shares))
    palette = plt.get_cmap("tab20c")
    for i, reason in enumerate(shares.columns):
        shade = EXPERTS[0] if reason == "kept" else palette(4 + i % 16)
        ax.barh(shares.index, shares[reason], left=left, label=reason, color=shade)
        left += shares[reason].to_numpy()
    for y, (kept, total) in enumerate(zip(ledger["kept"], ledger.sum(axis=1), strict=True)):
        ax.text(0.99, y, f"{kept} of {total} rows kept", va="center", ha="right", color="white")
    ax.set(xlim=(0, 1), xlabel="share of raw rows")
    ax.invert_yaxis()
    ax.legend(ncols=4, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.28), frameon=False)
    return fig


def token_lengths(rows: pd.DataFrame) -> Figure:
    """Histogram of training row lengths. rows: domain, n_tokens."""
    fig, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
    edges = np.histogram_bin_edges(rows.n_tokens, bins=40).tolist()
    shades = colours(rows.domain)
    for domain, part in rows.groupby("domain", sort=False):
        ax.hist(part.n_tokens, bins=edges, alpha=0.6, label=str(domain), color=shades[str(domain)])
    ax.set(xlabel="tokens in a row, prompt and response", ylabel="rows")
    ax.legend(frameon=False)
    return fig


def loss_curves(log: pd.DataFrame) -> Figure:
    """Training loss by optimizer step, one panel a model. log: model, step, loss (nats per target token)."""
    shades = colours(log.model)
    fig, panels = _panels(list(dict.fromkeys(log.model)), 2.3, 2.6)
    for ax, model in panels:
        part = log[log.model == model]
        ax.plot(part.step, part.loss, color=shades[model], lw=1.2)
        ax.set(title=model, xlabel="optimizer step")
    panels[0][0].set_ylabel("loss, nats per target token")
    return fig


def selected_share(table: pd.DataFrame, title: str) -> Figure:
    """Heat map of the share of differing weights that a fusion step took from its `other` model, layer by kind.

    table: tensor (name), selected and differing (entries).
    """
    part = table.assign(
        layer=table.tensor.str.extract(r"layers\.(\d+)\.", expand=False).astype(float),
        kind=table.tensor.str.replace(r".*layers\.\d+\.(.*)\.weight", r"\1", regex=True),
        share=table.selected / table.differing.where(table.differing > 0),
    ).dropna(subset=["layer"])
    grid = part.pivot_table(index="kind", columns="layer", values="share")
    fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
    image = ax.imshow(grid, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    ax.set(yticks=range(len(grid)), yticklabels=grid.index, xlabel="layer", title=title)
    fig.colorbar(image, label="share taken")
    return fig


def winners(shares: pd.DataFrame, title: str, experts: Sequence[str] | None = None) -> Figure:
    """Whose weights a merged model has, by kind of tensor.

    shares: index kind; columns the experts, `shared` and `none`; each row sums to 1. experts: see `colours`.
    """
    fig, ax = plt.subplots(figsize=(8, 0.24 * len(shares) + 1.2), layout="constrained")
    left = np.zeros(len(shares))
    shades = colours([name for name in shares.columns if name not in NOT_ONE_EXPERT], experts) | NOT_ONE_EXPERT
    for name in shares.columns:
        ax.barh(shares.index, shares[name].fillna(0), left=left, label=name, color=shades[name])
        left += shares[name].fillna(0).to_numpy()
    ax.set(xlim=(0, 1), xlabel="share of the entries on which the experts disagree", title=title)
    ax.invert_yaxis()
    fig.legend(loc="outside lower center", ncols=len(shares.columns), frameon=False, fontsize=8)
    return fig


def importance(table: pd.DataFrame) -> Figure:
    """Distribution of importance with its threshold. table: kind, reading, scores (array), threshold, zero_share."""
    kinds, readings = list(dict.fromkeys(table.kind)), list(dict.fromkeys(table.reading))
    size = (2.3 * len(readings), 1.7 * len(kinds) + 0.4)
    fig, axes = plt.subplots(len(kinds), len(readings), figsize=size, squeeze=False, layout="constrained")
    for row in table.to_dict("records"):
        ax, scores = axes[kinds.index(row["kind"]), readings.index(row["reading"])], row["scores"]
        if len(scores):
            ax.hist(np.log10(scores), bins=60, color=GREY)
        if row["threshold"] > 0:
            ax.axvline(np.log10(row["threshold"]), color=RED, lw=1.2)
        ax.set_title(f"{row['reading']}\n{row['kind']}, {row['zero_share']:.0%} are 0 or below", fontsize=7)
        ax.set_yticks([])
    for ax in axes[-1]:
        ax.set_xlabel("log10 importance", fontsize=8)
    return fig


def score_bars(scores: pd.DataFrame, experts: Sequence[str]) -> Figure:
    """pass@1 with 95 % question-clustered intervals, the counterpart of the paper's Figure 1.

    scores: the rows of scores.csv. experts: see `colours`.
    """
    models, shades = list(dict.fromkeys(scores.model)), colours(scores.model, experts)
    fig, panels = _panels(list(dict.fromkeys(scores.benchmark)), 3, 3)
    for ax, benchmark in panels:
        part = scores[scores.benchmark == benchmark].set_index("model").loc[models]
        errors = [100 * (part.pass_at_1 - part.ci_low), 100 * (part.ci_high - part.pass_at_1)]
        ax.bar(models, 100 * part.pass_at_1, yerr=errors, color=[shades[m] for m in models], capsize=2,
               error_kw={"lw": 0.9})  # fmt: skip
        ax.set_title(f"{benchmark}\n{part.n_problems.iloc[0]} questions × {part.n_samples.iloc[0]}", fontsize=9)
        ax.tick_params(axis="x", rotation=60)
    panels[0][0].set_ylabel("pass@1, %")
    return fig


def gains(differences: pd.DataFrame, experts: Sequence[str]) -> Figure:
    """Paired gains over the backbone. differences: model, benchmark, mean, low, high (fractions); experts: as above."""
    models, shades = list(dict.fromkeys(differences.model)), colours(differences.model, experts)
    fig, panels = _panels(list(dict.fromkeys(differences.benchmark)), 3, 2.6)
    for ax, benchmark in panels:
        part = 100 * differences[differences.benchmark == benchmark].set_index("model")[["mean", "low", "high"]]
        for y, model in enumerate(models):
            mean, low, high = part.loc[model]
            ax.plot([low, high], [y, y], color=shades[model], lw=2)
            ax.plot(mean, y, "o", color=shades[model], ms=4)
        ax.axvline(0, color="black", lw=0.7)
        ax.set(title=benchmark, yticks=range(len(models)), yticklabels=models, xlabel="points over backbone")
    panels[0][0].invert_yaxis()
    return fig


def outcomes(graded: pd.DataFrame, order: tuple[str, ...], models: list[str], benchmarks: list[str]) -> Figure:
    """Share of each outcome, models down and benchmarks across as listed. graded: model, benchmark, outcome."""
    shades = dict(zip(order, OUTCOME_COLOURS, strict=False))
    fig, panels = _panels(benchmarks, 3, 2.8)
    for ax, benchmark in panels:
        part = graded[graded.benchmark == benchmark]
        table = pd.crosstab(part.model, part.outcome, normalize="index").reindex(models).fillna(0)
        left = np.zeros(len(models))
        for name in (o for o in order if o in table):
            ax.barh(models, table[name], left=left, color=shades[name], label=name)
            left += table[name].to_numpy()
        ax.set(title=benchmark, xlim=(0, 1), xlabel="share of samples")
    panels[0][0].invert_yaxis()
    handles = [Patch(color=shades[o]) for o in order]
    fig.legend(handles, order, loc="outside lower center", ncols=len(order), frameon=False, fontsize=8)
    return fig


def comparison_matrix(table: pd.DataFrame, models: list[str]) -> Figure:
    """Row model less column model in points, by benchmark; a star where it differs after Holm's correction.

    table: the pairs of `evaluate.compare.pairs`.
    """
    benchmarks = list(dict.fromkeys(table.benchmark))
    fig, panels = _panels(benchmarks, 0.42 * len(models) + 2 / len(benchmarks), 0.42 * len(models) + 1.2)
    limit = max(1.0, 100 * table["mean"].abs().max())
    for ax, benchmark in panels:
        grid = np.full((len(models), len(models)), np.nan)
        part = table[table.benchmark == benchmark]
        for model, against, mean, holm in zip(part.model, part.against, 100 * part["mean"], part.holm, strict=True):
            i, j = models.index(model), models.index(against)
            for y, x, points in ((i, j, mean), (j, i, -mean)):
                grid[y, x] = points
                ax.text(x, y, f"{points:+.0f}" + ("*" if holm < 0.05 else ""), ha="center", va="center", fontsize=6)
        image = ax.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit)
        ax.set(title=benchmark, xticks=range(len(models)), yticks=range(len(models)), yticklabels=models)
        ax.set_xticklabels(models, rotation=60, ha="right")
    fig.colorbar(image, ax=[ax for ax, _ in panels], label="points", shrink=0.8)
    return fig


def answer_lengths(
    graded: pd.DataFrame, models: list[str], benchmarks: list[str], experts: Sequence[str] | None = None
) -> Figure:
    """Tokens in an answer: median, quartiles and range of each model.

    graded: model, benchmark, n_tokens. experts: see `colours`.
    """
    shades = colours(models, experts)
    fig, panels = _panels(benchmarks, 3, 2.6)
    for ax, benchmark in panels:
        part = graded[(graded.benchmark == benchmark) & graded.n_tokens.notna()]
        values = [part[part.model == m].n_tokens.to_numpy() for m in models]
        boxes = ax.boxplot(values, orientation="horizontal", tick_labels=models, whis=(0, 100), patch_artist=True,
                           medianprops={"color": "black"})  # fmt: skip
        for patch, model in zip(boxes["boxes"], models, strict=True):
            patch.set_facecolor(shades[model])
        ax.set(title=benchmark, xlabel="tokens in an answer")
    panels[0][0].invert_yaxis()
    return fig
