"""The figures of notebooks 01 and 02, from made-up tables and from the params files of this repository."""

from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyBboxPatch

from tinyr1.core import config
from tinyr1.report import plots, plots_branch, plots_data


@pytest.fixture(autouse=True)
def _closed():
    yield
    plots.plt.close("all")


def texts_of(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.mark.parametrize("run", ["smoke", "smol", "r1-1.5b", "paper"])
def test_the_picture_of_branch_merge_has_the_run_s_own_models(run):
    cfg = config.load(run)
    figure = plots_data.branch_merge(cfg)
    figure.canvas.draw()
    (ax,) = figure.axes
    merged, texts = next(iter(cfg.merges)), texts_of(figure)
    assert {"backbone", *cfg.branches, merged, *(f"{domain} rows" for domain in cfg.domains)} <= set(texts)
    boxes = [part for part in ax.patches if isinstance(part, FancyBboxPatch)]
    assert len(boxes) == len(cfg.branches) + 2
    shades = plots.colours(["backbone", *cfg.branches, merged], cfg.domains)
    assert {to_hex(box.get_facecolor()) for box in boxes} == set(shades.values())
    for text in ax.texts:  # of an annotation, the place of its arrow does not count
        box = text.get_window_extent()
        assert ax.bbox.x0 - 2 <= box.x0, text.get_text()
        assert box.x1 <= ax.bbox.x1 + 2, text.get_text()


def test_a_run_without_a_control_shows_none():
    cfg = config.load("smol")
    cfg = cfg.model_copy(update={"params": cfg.params.model_copy(update={"mixture": None})})
    assert not [text for text in texts_of(plots_data.branch_merge(cfg)) if "control" in text or "mixture" in text]


def ledger(ax):
    """The numbers of a panel of the funnel, from the top to the bottom: {row: number}."""
    return {round(text.get_position()[1]): int(text.get_text().replace("−", "-").replace(",", "")) for text in ax.texts}


def test_the_bars_of_the_funnel_take_the_raw_rows_apart():
    fates = pd.DataFrame({"no_answer": [3, 0], "too_long": [1, 2], "kept": [6, 8]}, index=["law", "biology"])
    figure = plots_data.funnel(fates)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "raw rows", "no answer", "too long", "training rows",
    ]  # fmt: skip
    bars = [[(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in ax.patches
             if to_hex(bar.get_facecolor()) != plots_data.PALE] for ax in figure.axes]  # fmt: skip
    assert bars[0] == [(0, 0, 10), (1, 7, 3), (2, 6, 1), (3, 0, 6)]
    assert bars[1] == [(0, 0, 10), (2, 8, 2), (3, 0, 8)], "a reason that took nothing has no bar"
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["law", "biology"]


REASONS = (
    "malformed", "no_question", "no_answer", "unverified", "incomplete", "no_reasoning", "several_turns", "duplicate",
    "near_duplicate", "contaminated", "too_long", "over_limit", "refused", "truncated", "wrong", "failed",
    "correctness_math_verify",
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 37, 10_007])
def test_the_numbers_of_the_funnel_add_up_and_lie_beside_its_bars(size):
    lost = {why: [size * (i % 5), size * (i % 3 == 0), 1] for i, why in enumerate(REASONS)}
    fates = pd.DataFrame(lost | {"kept": [5 * size, 9, 1000 * size]}, index=["law", "biology", "art"])
    figure = plots_data.funnel(fates)
    figure.canvas.draw()
    for domain, ax in zip(fates.index, figure.axes, strict=True):
        numbers = ledger(ax)
        raw, kept = numbers.pop(0), numbers.pop(len(REASONS) + 1)
        assert (raw, kept) == (fates.loc[domain].sum(), fates.kept[domain])
        assert raw + sum(numbers.values()) == kept
        assert {REASONS[y - 1]: -n for y, n in numbers.items()} == {
            why: n for why, n in fates.loc[domain].items() if n and why != "kept"
        }
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not [box for box, other in pairwise(boxes) if box.overlaps(other)]
        assert min(box.x0 for box in boxes) >= max(bar.get_window_extent().x1 for bar in ax.patches)
    names = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not [box for box, other in pairwise(names) if box.overlaps(other)]


def test_row_lengths_are_on_one_scale_from_the_shortest_to_the_longest():
    rows = pd.DataFrame({"domain": ["law"] * 3 + ["art"] * 2, "n_tokens": [100, 110, 120, 150, 180]})
    figure = plots_data.row_lengths(rows)
    assert texts_of(figure) == ["median 110", "median 165"]
    low, high = figure.axes[0].get_xlim()
    assert 90 < low <= 100 < 180 <= high < 190
    assert {to_hex(bar.get_facecolor()) for bar in figure.axes[1].patches} == {plots.EXPERTS[1]}


def test_a_packed_sequence_is_drawn_prompt_pale_and_target_dark():
    samples = pd.DataFrame({
        "sequence": [1, 1, 2], "first": [0, 5, 0], "prompt": [2, 3, 1], "tokens": [5, 4, 4],
        "domain": ["law", "art", "law"],
    })  # fmt: skip
    ax = plots_branch.packing(samples, 10).axes[0]
    law, art = (to_hex(c) for c in plots.EXPERTS[:2])
    pale = {c: to_hex([0.25 * part + 0.75 for part in to_rgb(c)]) for c in (law, art)}
    filled = [bar for bar in ax.patches if bar.get_facecolor()[3]]
    assert [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor())) for bar in filled] == [
        (0, 2, pale[law]), (2, 3, law), (5, 3, pale[art]), (8, 1, art), (0, 1, pale[law]), (1, 3, law),
    ]  # fmt: skip
    assert ax.get_xlim() == (0, 10)


def test_what_a_token_sees_is_a_triangle_for_each_sample_and_with_contamination_all_before_it():
    samples = pd.DataFrame({
        "sequence": [1, 1, 2], "first": [0, 5, 0], "prompt": [2, 3, 1], "tokens": [5, 4, 4],
        "domain": ["law", "art", "law"],
    })  # fmt: skip
    figure = plots_branch.attention(samples, 10)
    neat, contaminated = figure.axes

    def corners(ax):
        return [sorted({(float(x), float(y)) for x, y in part.get_xy()}) for part in ax.patches]

    law, art = [(0, 0), (0, 5), (5, 5)], [(5, 5), (5, 9), (9, 9)]
    assert corners(neat) == [law, art]
    assert corners(contaminated) == [law, [(0, 5), (0, 9), (5, 5), (5, 9)], art]
    assert figure.get_supxlabel() == "sequence 1: 90 % full"


def test_tokens_of_the_loss_mask_stay_inside_the_figure_in_reading_order():
    tokens = pd.DataFrame({"text": ["word"] * 40 + ["<|im_end|>"], "loss": [False] * 20 + [True] * 21})
    figure = plots_branch.loss_mask(tokens, "art", ["law", "art"])
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.texts] == tokens.text.tolist()
    places = [(round(bar.get_y(), 3), bar.get_x()) for bar in ax.patches]
    assert places == sorted(places)
    assert max(bar.get_x() + bar.get_width() for bar in ax.patches) <= ax.get_xlim()[1]
    dark = [to_hex(bar.get_facecolor()) == plots.EXPERTS[1] for bar in ax.patches]
    assert dark == tokens.loss.tolist()
    figure.canvas.draw()
    for bar, text in zip(ax.patches, ax.texts, strict=True):
        assert text.get_window_extent().width <= bar.get_window_extent().width, "a token is wider than its box"


def test_every_model_has_scales_of_its_own_for_its_loss():
    log = pd.DataFrame({
        "model": ["backbone"] * 4 + ["law"] * 8, "step": [1, 2, 3, 4, *range(1, 9)],
        "loss": [3.0, 2.0, 1.5, 1.0, *[0.3, 0.2] * 4],
    })  # fmt: skip
    first, second = plots_branch.loss_curves(log, ["law"]).axes
    assert (first.get_xlim()[1], second.get_xlim()[1]) == (4, 8)
    assert first.get_ylim()[1] > 2.5
    assert 0.1 < second.get_ylim()[0] < 0.2 < 0.3 < second.get_ylim()[1] < 0.4


def test_the_loss_of_a_training_of_one_step_is_drawn():
    log = pd.DataFrame({"model": ["law"], "step": [1], "loss": [3.0]})
    plots_branch.loss_curves(log, ["law"]).canvas.draw()
