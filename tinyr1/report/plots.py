"""Tables to figures. No file is read or written here; every function returns a matplotlib Figure."""

import matplotlib

matplotlib.use("agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = {
    "backbone": "#8c8c8c", "math": "#4c72b0", "science": "#55a868", "code": "#c44e52", "mixture": "#8172b3",
}  # fmt: skip
MERGED = ("#dd8452", "#e6b04d", "#937860", "#da8bc3")
plt.rcParams |= {"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def colour(model: str, models: list[str]) -> str:
    """The same colour for a model in every figure; merged models take theirs in table order."""
    others = [m for m in models if m not in COLOURS]
    return COLOURS.get(model) or MERGED[others.index(model) % len(MERGED)]


def funnel(ledger: pd.DataFrame) -> Figure:
    """Where the raw rows of each domain went. ledger: index domain, columns reasons and `kept`, values rows."""
    shares = ledger.div(ledger.sum(axis=1), axis=0)
    fig, ax = plt.subplots(figsize=(8, 2.4), layout="constrained")
    left = np.zeros(len(shares))
    palette = plt.get_cmap("tab20c")
    for i, reason in enumerate(shares.columns):
        shade = "#4c72b0" if reason == "kept" else palette(4 + i % 16)
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
    edges = np.histogram_bin_edges(rows.n_tokens, bins=40)
    for domain, part in rows.groupby("domain", sort=False):
        ax.hist(part.n_tokens, bins=edges, alpha=0.6, label=domain, color=COLOURS.get(domain))
    ax.set(xlabel="tokens in a row, prompt and response", ylabel="rows")
    ax.legend(frameon=False)
    return fig


def loss_curves(log: pd.DataFrame) -> Figure:
    """Training loss by optimizer step, one panel a model. log: model, step, loss, learning_rate."""
    models = list(dict.fromkeys(log.model))
    fig, axes = plt.subplots(1, len(models), figsize=(2.3 * len(models), 2.6), sharey=True, layout="constrained")
    for ax, model in zip(np.atleast_1d(axes), models, strict=True):
        part = log[log.model == model]
        ax.plot(part.step, part.loss, color=colour(model, models), lw=1.2)
        ax.set(title=model, xlabel="optimizer step")
    np.atleast_1d(axes)[0].set_ylabel("loss, nats per target token")
    return fig


def selected_share(table: pd.DataFrame, title: str) -> Figure:
    """Heat map of the share of differing weights that a fusion step took from the right, layer by kind of tensor."""
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


def winners(shares: pd.DataFrame, title: str) -> Figure:
    """Whose weights a merged model has, by kind of tensor. shares: index kind, one column a model, rows sum to 1."""
    fig, ax = plt.subplots(figsize=(8, 0.24 * len(shares) + 1.2), layout="constrained")
    left, extra = np.zeros(len(shares)), {"shared": "#d9d9d9", "none": "#937860"}
    for name in shares.columns:
        shade = COLOURS.get(name) or extra[name]
        ax.barh(shares.index, shares[name].fillna(0), left=left, label=name, color=shade)
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
    for row in table.itertuples():
        ax = axes[kinds.index(row.kind), readings.index(row.reading)]
        if len(row.scores):
            ax.hist(np.log10(row.scores), bins=60, color="#8c8c8c")
        if row.threshold > 0:
            ax.axvline(np.log10(row.threshold), color="#c44e52", lw=1.2)
        ax.set_title(f"{row.reading}\n{row.kind}, {row.zero_share:.0%} are 0 or below", fontsize=7)
        ax.set_yticks([])
    for ax in axes[-1]:
        ax.set_xlabel("log10 importance", fontsize=8)
    return fig


def score_bars(scores: pd.DataFrame) -> Figure:
    """pass@1 with 95 % question-clustered intervals, the counterpart of the paper's Figure 1."""
    models, benchmarks = list(dict.fromkeys(scores.model)), list(dict.fromkeys(scores.benchmark))
    fig, axes = plt.subplots(1, len(benchmarks), figsize=(3 * len(benchmarks), 3), sharey=True, layout="constrained")
    for ax, benchmark in zip(np.atleast_1d(axes), benchmarks, strict=True):
        part = scores[scores.benchmark == benchmark].set_index("model").loc[models]
        errors = [100 * (part.pass_at_1 - part.ci_low), 100 * (part.ci_high - part.pass_at_1)]
        shades = [colour(m, models) for m in models]
        ax.bar(models, 100 * part.pass_at_1, yerr=errors, color=shades, capsize=2, error_kw={"lw": 0.9})
        ax.set_title(f"{benchmark}\n{part.n_problems.iloc[0]} questions × {part.n_samples.iloc[0]}", fontsize=9)
        ax.tick_params(axis="x", rotation=60)
    np.atleast_1d(axes)[0].set_ylabel("pass@1, %")
    return fig


def gains(differences: pd.DataFrame) -> Figure:
    """Paired gains over the backbone. differences: model, benchmark, mean, low, high (fractions)."""
    models, benchmarks = list(dict.fromkeys(differences.model)), list(dict.fromkeys(differences.benchmark))
    fig, axes = plt.subplots(1, len(benchmarks), figsize=(3 * len(benchmarks), 2.6), sharey=True, layout="constrained")
    for ax, benchmark in zip(np.atleast_1d(axes), benchmarks, strict=True):
        part = differences[differences.benchmark == benchmark].set_index("model").loc[models] * 1
        for y, model in enumerate(models):
            row = part.loc[model]
            ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour(model, models), lw=2)
            ax.plot(100 * row["mean"], y, "o", color=colour(model, models), ms=4)
        ax.axvline(0, color="black", lw=0.7)
        ax.set(title=benchmark, yticks=range(len(models)), yticklabels=models, xlabel="points over backbone")
    np.atleast_1d(axes)[0].invert_yaxis()
    return fig


def outcomes(graded: pd.DataFrame, order: tuple[str, ...], models: list[str], benchmarks: list[str]) -> Figure:
    """Share of each outcome, models down and benchmarks across as listed. graded: model, benchmark, outcome."""
    shades = dict(zip(order, ("#55a868", "#c44e52", "#8c8c8c", "#dd8452", "#8172b3", "#937860"), strict=False))
    fig, axes = plt.subplots(1, len(benchmarks), figsize=(3 * len(benchmarks), 2.8), sharey=True, layout="constrained")
    for ax, benchmark in zip(np.atleast_1d(axes), benchmarks, strict=True):
        part = graded[graded.benchmark == benchmark]
        table = pd.crosstab(part.model, part.outcome, normalize="index").reindex(models).fillna(0)
        left = np.zeros(len(models))
        for name in (o for o in order if o in table):
            ax.barh(models, table[name], left=left, color=shades[name], label=name)
            left += table[name].to_numpy()
        ax.set(title=benchmark, xlim=(0, 1), xlabel="share of samples")
    np.atleast_1d(axes)[0].invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, color=shades[o]) for o in order]
    fig.legend(handles, order, loc="outside lower center", ncols=len(order), frameon=False, fontsize=8)
    return fig


def comparison_matrix(table: pd.DataFrame, models: list[str]) -> Figure:
    """Row model less column model in points, by benchmark; a star where it differs after Holm's correction.

    table: `comparison.pairs`.
    """
    benchmarks = list(dict.fromkeys(table.benchmark))
    size = (0.42 * len(models) * len(benchmarks) + 2, 0.42 * len(models) + 1.2)
    fig, axes = plt.subplots(1, len(benchmarks), figsize=size, sharey=True, layout="constrained")
    limit = max(1.0, 100 * table["mean"].abs().max())
    for ax, benchmark in zip(np.atleast_1d(axes), benchmarks, strict=True):
        grid = np.full((len(models), len(models)), np.nan)
        for row in table[table.benchmark == benchmark].itertuples():
            i, j = models.index(row.model), models.index(row.against)
            grid[i, j], grid[j, i] = 100 * row.mean, -100 * row.mean
            for y, x, sign in ((i, j, 1), (j, i, -1)):
                text = f"{sign * 100 * row.mean:+.0f}" + ("*" if row.holm < 0.05 else "")
                ax.text(x, y, text, ha="center", va="center", fontsize=6)
        image = ax.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit)
        ax.set(title=benchmark, xticks=range(len(models)), yticks=range(len(models)), yticklabels=models)
        ax.set_xticklabels(models, rotation=60, ha="right")
    fig.colorbar(image, ax=axes, label="points", shrink=0.8)
    return fig


def answer_lengths(graded: pd.DataFrame, models: list[str], benchmarks: list[str]) -> Figure:
    """Tokens in an answer: median, quartiles and range of each model. graded: model, benchmark, n_tokens."""
    fig, axes = plt.subplots(1, len(benchmarks), figsize=(3 * len(benchmarks), 2.6), sharey=True, layout="constrained")
    for ax, benchmark in zip(np.atleast_1d(axes), benchmarks, strict=True):
        part = graded[(graded.benchmark == benchmark) & graded.n_tokens.notna()]
        values = [part[part.model == m].n_tokens.to_numpy() for m in models]
        boxes = ax.boxplot(values, orientation="horizontal", tick_labels=models, whis=(0, 100), patch_artist=True,
                           medianprops={"color": "black"})  # fmt: skip
        for patch, model in zip(boxes["boxes"], models, strict=True):
            patch.set_facecolor(colour(model, models))
        ax.set(title=benchmark, xlabel="tokens in an answer")
    np.atleast_1d(axes)[0].invert_yaxis()
    return fig
