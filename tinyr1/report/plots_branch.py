"""The figures of notebook 02: packed sequences, the loss mask, the course of the loss."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tinyr1.report.plots import GREY, SMALL, WIDTH, colours, panels

LINE = 0.24  # inches between two lines of tokens
LETTER = 0.0663  # inches that a letter of the tokens takes: 0.602 em of DejaVu Sans Mono at SMALL points


def _pale(colour: str) -> tuple[float, float, float]:
    """The colour for tokens without loss: three quarters of the way to white."""
    red, green, blue = (0.25 * part + 0.75 for part in to_rgb(colour))
    return red, green, blue


def packing(samples: pd.DataFrame, capacity: int) -> Figure:
    """Packed sequences as lines of segments: the prompt of each sample pale, the tokens with loss dark.

    samples: sequence (number, a line each), first (token in the sequence), prompt and tokens (their numbers), domain.
    capacity: tokens of a sequence; what no sample takes stays white.
    """
    lines, shades = list(dict.fromkeys(samples.sequence)), colours(samples.domain)
    fig, ax = plt.subplots(figsize=(WIDTH, 0.3 * len(lines) + 1.15), layout="constrained")
    for row in samples.to_dict("records"):
        y, shade, first, prompt = lines.index(row["sequence"]), shades[row["domain"]], row["first"], row["prompt"]
        end = first + row["tokens"]
        ax.barh(y, prompt, left=first, color=_pale(shade), height=0.7)
        ax.barh(y, end - first - prompt, left=first + prompt, color=shade, height=0.7)
        ax.plot([end, end], [y - 0.42, y + 0.42], color="black", lw=0.9)
    ax.barh(range(len(lines)), capacity, color="none", edgecolor=GREY, lw=0.6, height=0.7)
    ax.set(xlim=(0, capacity), ylim=(len(lines) - 0.5, -0.5), yticks=range(len(lines)),
           yticklabels=[str(n) for n in lines], ylabel="sequence", xlabel="token of the sequence")  # fmt: skip
    ax.tick_params(axis="y", length=0)
    names = {domain: Patch(color=shade) for domain, shade in shades.items()}
    names["prompt: no loss"] = Patch(color=_pale("#000000"))
    fig.legend(names.values(), names, loc="outside upper center", ncols=len(names), handlelength=1, columnspacing=1.1)
    return fig


def attention(samples: pd.DataFrame, capacity: int) -> Figure:
    """Which earlier tokens each token of the first packed sequence sees: with neat packing and with contaminated.

    samples, capacity: as of `packing`. A dark triangle is what a sample sees of itself, pale what it sees of others.
    """
    first = samples[samples["sequence"] == samples["sequence"].iloc[0]]
    shades = colours(samples.domain)
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.52 * WIDTH), layout="constrained", sharey=True)
    ends = [(row["first"], row["first"] + row["tokens"], shades[row["domain"]]) for row in first.to_dict("records")]
    for ax, kind in zip(axes, ("neat", "contaminated"), strict=True):
        for start, end, shade in ends:
            if kind == "contaminated" and start:
                ax.fill([0, start, start, 0], [start, start, end, end], color=_pale(shade), lw=0)
            ax.fill([start, start, end], [start, end, end], color=shade, lw=0)
        ax.set(title=kind, xlim=(0, capacity), ylim=(capacity, 0), xlabel="token that is seen", aspect="equal")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].set_ylabel("token that sees")
    fig.supxlabel(f"sequence {first['sequence'].iloc[0]}: {100 * ends[-1][1] / capacity:.0f} % full", fontsize=SMALL)
    return fig


def loss_mask(tokens: pd.DataFrame, domain: str, domains: Sequence[str]) -> Figure:
    """The tokens of one row in reading order: pale those without loss, dark those that the model learns to write.

    tokens: text, loss (bool). domain: whose colour they have.
    """
    shade = colours(domains)[domain]
    places, line, x = [], 0, 0.0
    for text in tokens.text:
        width = LETTER * len(text) + 0.04
        if x + width > WIDTH - 0.1:
            line, x = line + 1, 0.0
        places.append((x, line, width))
        x += width + 0.02
    height = LINE * (line + 1) + 0.4
    fig = plt.figure(figsize=(WIDTH, height))
    ax = fig.add_axes((0.05 / WIDTH, 0.02, 1 - 0.1 / WIDTH, (height - 0.4) / height))
    ax.set(xlim=(0, WIDTH - 0.1), ylim=(line + 0.5, -0.5))
    ax.axis("off")
    for (x, y, width), text, loss in zip(places, tokens.text, tokens.loss, strict=True):
        ax.barh(y, width, left=x, color=shade if loss else _pale(shade), height=0.84)
        ax.text(x + width / 2, y, text, ha="center", va="center", family="DejaVu Sans Mono", fontsize=SMALL,
                color="white" if loss else "black")  # fmt: skip
    names = {"prompt: no loss": Patch(color=_pale(shade)), "reasoning, answer, end: loss": Patch(color=shade)}
    fig.legend(names.values(), names, loc="upper center", ncols=2, handlelength=1, borderaxespad=0.2)
    return fig


def loss_so_far(file: Path) -> Figure:
    """The loss of a training that goes on, from the whole lines of its log (`tinyr1.branch.monitor.StepLog`)."""
    text = file.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return loss_curves(pd.DataFrame(lines).assign(model=file.parent.name.partition(".")[0]))


def loss_curves(log: pd.DataFrame, experts: Sequence[str] = ()) -> Figure:
    """Training loss by optimizer step, a panel for each model with scales of its own; the mean of neighbours is dark.

    log: model, step, loss (nats per target token). experts: see `plots.colours`.
    """
    shades = colours(log.model, experts)
    fig, axes = panels(list(shades), 1.35, beside=2, sharex=False, sharey=False)
    for model, ax in axes.items():
        part = log[log.model == model]
        window = max(1, len(part) // 10)
        mean = part.loss.rolling(window, center=True, min_periods=1).mean()
        ax.plot(part.step, part.loss, color=_pale(shades[model]), lw=1)
        ax.plot(part.step, mean, color=shades[model], lw=1.8)
        low, high = part.loss.min(), np.quantile(part.loss, 0.98)  # a single outlier shall not flatten the rest
        room = 0.08 * (high - low) or 0.1
        ax.set(title=model, xlim=(0, part.step.max()), ylim=(low - room, high + room))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    fig.supxlabel("optimizer step", fontsize=8.5)
    fig.supylabel("loss, nats per target token", fontsize=8.5)
    return fig
