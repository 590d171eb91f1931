"""Figures of made-up tables: colours by role, scales that fit, text that a telephone shows, tables of any size."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from tinyr1.report import plots

EXPERTS = ("math", "science", "code")
MODELS = ["backbone", *EXPERTS, "mixture", "math-science-code", "average", "random-masks"]
# What a colour (linear RGB) is for people without red or without green cones: Machado and others, 2009, severity 1.
SIGHT = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plots.plt.close("all")


def lab(colour, sight):
    """CIE L*a*b* of a colour as somebody sees it; a distance of 2 is just visible."""
    rgb = np.array(to_rgb(colour))
    linear = np.clip(SIGHT[sight] @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ linear / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_roles_and_experts_keep_apart_for_people_with_red_green_blindness(sight):
    shades = [*plots.ROLES.values(), *plots.EXPERTS]
    assert min(np.linalg.norm(lab(a, sight) - lab(b, sight)) for a, b in combinations(shades, 2)) > 15


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("backbone", ["backbone"]),
        ("mixture", ["mixture"]),
        ("expert", EXPERTS),
        ("fusion", ["math-science-code", "code-math", "fusion-into-math", "lambda-0", "exact-float32", "released"]),
        ("merge", ["average", "ties", "slerp-2", "task-arithmetic", "breadcrumbs", "my-own", "maths"]),
        ("placebo", ["random-masks", "random-masks-2", "largest", "magnitude", "noise", "self-merge"]),
    ],
)
def test_the_name_of_a_model_says_its_role(role, names):
    assert {plots.role(name, EXPERTS) for name in names} == {role}


def test_a_model_has_the_same_colour_whoever_is_beside_it():
    whole = plots.colours(MODELS, EXPERTS)
    for some in (MODELS[::-1], MODELS[5:], ["code", "average"]):
        assert plots.colours(some, EXPERTS) == {m: whole[m] for m in some}
    assert plots.colours(["backbone", *EXPERTS, "mixture"]) == {m: whole[m] for m in MODELS[:5]}


@pytest.mark.parametrize("experts", [("law",), ("law", "biology"), tuple("abcde")])
def test_experts_differ_from_each_other_and_from_every_role(experts):
    models = ("backbone", *experts, "mixture", "merged", "-".join((*experts, *experts)), "noise")
    shades = plots.colours(models, experts)
    assert len(set(shades.values())) == len(shades)


def scores(models, benchmarks, high=0.7):
    return pd.DataFrame([
        {"model": m, "benchmark": b, "n_problems": 4, "n_samples": 2, "pass_at_1": high / 2, "ci_low": high / 4,
         "ci_high": high}
        for m in models for b in benchmarks
    ])  # fmt: skip


def graded(models, benchmarks):
    return pd.DataFrame([
        {"model": m, "benchmark": b, "outcome": outcome, "n_tokens": tokens}
        for m in models for b in benchmarks
        for outcome, tokens in (("correct", 5.0), ("wrong", 6.0), ("no_answer", None))
    ])  # fmt: skip


def drawn(models, benchmarks):
    """Every figure whose panels are benchmarks and whose rows are models."""
    table, answers = scores(models, benchmarks), graded(models, benchmarks)
    order = ("correct", "wrong", "truncated", "no_answer")
    return {
        "bars": plots.score_bars(table, EXPERTS, {benchmarks[-1]: 0.25}),
        "gains": plots.gains(table.assign(mean=0.1, low=0.0, high=0.2), EXPERTS),
        "outcomes": plots.outcomes(answers, order, models, benchmarks),
        "lengths": plots.answer_lengths(answers, models, benchmarks, EXPERTS),
    }


@pytest.mark.parametrize("models", [MODELS[:1], MODELS], ids=["one model", "all models"])
@pytest.mark.parametrize("benchmarks", [["x"], ["z", "a"], ["d", "c", "b", "a"]], ids=len)
def test_panels_are_the_benchmarks_and_rows_the_models_in_their_order(models, benchmarks):
    for name, figure in drawn(models, benchmarks).items():
        titles = [ax.get_title(loc="left").partition("\n")[0] for ax in figure.axes]
        assert titles == benchmarks, name
        first = figure.axes[0]
        assert [label.get_text() for label in first.get_yticklabels()] == models, name
        bottom, top = first.get_ylim()
        assert top < 0 <= len(models) - 1 < bottom, "the first model is on top"


def test_every_figure_fits_one_column_and_its_text_can_be_read_there():
    pairs = pd.DataFrame([
        {"model": m, "against": a, "benchmark": b, "mean": 0.1, "holm": 1.0}
        for b in ("x", "y") for a, m in combinations(MODELS, 2)
    ])  # fmt: skip
    figures = drawn(MODELS, ["x", "y", "z"]) | {"matrix": plots.comparison_matrix(pairs, MODELS)}
    for name, figure in figures.items():
        figure.canvas.draw()
        assert figure.get_figwidth() == plots.WIDTH, name
        for text in figure.findobj(lambda part: hasattr(part, "get_fontsize")):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() >= 7.5, (name, text.get_text())
        whole = figure.bbox.padded(2)
        for ax in figure.axes:
            box = ax.get_tightbbox()
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, f"{name}: a panel is cut off at the side"  # noqa: PT018


def test_bars_and_gains_have_the_colours_of_their_models():
    table, shades = scores(MODELS, ("x", "y")), plots.colours(MODELS, EXPERTS)
    bars = plots.score_bars(table, EXPERTS).axes[0]
    assert [to_hex(bar.get_facecolor()) for bar in bars.patches] == [shades[m] for m in MODELS]
    lines = plots.gains(table.assign(mean=0.1, low=0.0, high=0.2), EXPERTS).axes[0].lines
    assert {line.get_color() for line in lines} == {*shades.values(), "black"}


@pytest.mark.parametrize("high", [0.02, 0.2, 1.0])
def test_the_scale_of_the_scores_fits_the_longest_interval(high):
    left, right = plots.score_bars(scores(MODELS, ["x"], high), EXPERTS).axes[0].get_xlim()
    assert left == 0
    assert 100 * high < right < 130 * high + 7


def test_the_score_of_guessing_is_a_line_with_a_name_where_there_is_one():
    figure = plots.score_bars(scores(MODELS, ["x", "y"], 0.1), EXPERTS, {"x": 0.0, "y": 0.25, "elsewhere": 0.5})
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert ["chance 25" in part for part in texts] == [False, True]
    (line,) = [line for line in figure.axes[1].lines if list(line.get_xdata()) == [25, 25]]
    assert line.get_linestyle() == "--"
    assert figure.axes[1].get_xlim()[1] > 25, "the line is in the panel, though every score is below it"


def test_the_legend_of_outcomes_names_those_that_occur():
    figure = plots.outcomes(graded(["math"], ["x"]), ("correct", "wrong", "truncated", "no_answer"), ["math"], ["x"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["correct", "wrong", "no answer"]
    widths = [bar.get_width() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert sum(widths) == pytest.approx(100)


def test_a_pair_of_the_matrix_is_shown_once_as_row_less_column():
    """The table may hold a pair in either order."""
    table = pd.DataFrame({"model": ["b", "a", "c"], "against": ["a", "c", "b"], "benchmark": "x",
                          "mean": [0.1, 0.2, 0.3], "holm": [0.01, 0.5, 0.5]})  # fmt: skip
    panel = plots.comparison_matrix(table, ["a", "b", "c"]).axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["b", "c"]
    assert {(*text.get_position(), text.get_text()) for text in panel.texts} == {
        (0, 0, "+10*"), (0, 1, "-20"), (1, 1, "+30"),
    }  # fmt: skip


def test_winners_and_selected_share_take_runs_of_one_domain():
    shares = pd.DataFrame({"law": [0.5], "shared": [0.25], "none": [0.25]}, index=["all"])
    assert plots.winners(shares, "law").axes[0].get_xlim() == (0, 100)
    table = pd.DataFrame({"tensor": ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"],
                          "selected": [1, 0], "differing": [4, 0]})  # fmt: skip
    image = plots.selected_share(table, "law").axes[0].images[0]
    assert image.get_array().tolist() == [[25.0]]
