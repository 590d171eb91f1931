"""Figures: one colour for each model of a run, by its role."""

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from tinyr1.report import plots


@pytest.fixture(autouse=True)
def _closed():
    yield
    plots.plt.close("all")


def test_the_paper_s_models_keep_their_colours():
    experts = ("math", "science", "code")
    models = ("backbone", *experts, "mixture", "math-science-code", "math-code-science")
    assert list(plots.colours(models, experts).values()) == [
        "#8c8c8c", "#8172b3", "#4c72b0", "#55a868", "#c44e52", "#dd8452", "#e6b04d",
    ]  # fmt: skip


@pytest.mark.parametrize("experts", [("law", "biology"), ("a", "b", "c", "d"), tuple("abcde")])
def test_every_model_of_a_run_has_a_colour_of_its_own(experts):
    models = ("backbone", *experts, "mixture", "first", "second", "third", "fourth")
    shades = plots.colours(models, experts)
    assert len({shades[m] for m in models}) == len(models)


def test_a_figure_without_merges_gives_the_experts_the_same_colours():
    experts = ("law", "biology")
    whole = plots.colours(("backbone", *experts, "mixture", "merged"), experts)
    trained = plots.colours(("backbone", *experts, "mixture"))
    assert all(trained[m] == whole[m] for m in trained)


def test_bars_and_gains_use_the_colours_of_the_roles():
    experts, models = ("law", "biology"), ["backbone", "law", "biology", "merged"]
    scores = pd.DataFrame([
        {"model": m, "benchmark": b, "n_problems": 4, "n_samples": 2, "pass_at_1": 0.5, "ci_low": 0.2, "ci_high": 0.7}
        for m in models for b in ("x", "y")
    ])  # fmt: skip
    shades = plots.colours(models, experts)
    first = plots.score_bars(scores, experts).axes[0]
    assert [to_hex(bar.get_facecolor()) for bar in first.patches] == [shades[m] for m in models]
    differences = scores.assign(mean=0.1, low=0.0, high=0.2)
    lines = plots.gains(differences[differences.model != "backbone"], experts).axes[0].lines
    assert {line.get_color() for line in lines} == {shades[m] for m in models[1:]} | {"black"}


def test_figures_of_one_benchmark_model_or_domain():
    rows = pd.DataFrame({"domain": ["law"] * 4, "n_tokens": [1, 2, 3, 9]})
    assert plots.token_lengths(rows).axes[0].get_legend_handles_labels()[1] == ["law"]
    log = pd.DataFrame({"model": ["law"] * 3, "step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]})
    assert plots.loss_curves(log).axes[0].get_ylabel() == "loss, nats per target token"
    graded = pd.DataFrame({"model": ["law"] * 3, "benchmark": "bar", "n_tokens": [5.0, 6.0, None], "outcome": "wrong"})
    assert plots.answer_lengths(graded, ["law"], ["bar"], ("law",)).axes[0].get_title() == "bar"
    assert len(plots.outcomes(graded, ("correct", "wrong"), ["law"], ["bar"]).axes) == 1
    assert plots.funnel(pd.DataFrame({"kept": [2], "too long": [2]}, index=["law"])).axes
    shares = pd.DataFrame({"law": [0.5], "shared": [0.25], "none": [0.25]}, index=["all"])
    assert plots.winners(shares, "law").axes
