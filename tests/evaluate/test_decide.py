"""The one rule of significance: verdicts, families, error rates with known truth, and the words for them."""

import numpy as np
import pandas as pd
import pytest

from tinyr1.evaluate import compare, stats
from tinyr1.evaluate.compare import Comparison
from tinyr1.evaluate.scores import CHANCE


def table(values: dict[str, np.ndarray], benchmark: str = "b") -> pd.DataFrame:
    """Shares (n,) of each model on one benchmark."""
    n = len(next(iter(values.values())))
    index = pd.MultiIndex.from_product([[benchmark], [f"q{i}" for i in range(n)]], names=["benchmark", "question"])
    return pd.DataFrame(values, index=index)


def answered(rng, n: int, k: int = 2, **above: float) -> pd.DataFrame:
    """Shares of k samples of n questions; each model is as good as said above questions of mean 0.4."""
    level = rng.beta(2, 3, n)
    return table({m: rng.binomial(k, np.clip(level + more, 0, 1)) / k for m, more in above.items()})


def family(*pairs: tuple[str, str], name: str = "f", kind="difference") -> list[Comparison]:
    return [Comparison(name, model, against, ("b",), kind) for model, against in pairs]


def test_an_injected_fault_is_found_and_equal_models_get_no_star():
    rng = np.random.default_rng(0)
    shares = answered(rng, 300, k=4, base=0.0, same=0.0, broken=-0.15, better=0.15)
    found = compare.decide(shares, family(("same", "base"), ("broken", "base"), ("better", "base")), 5.0)
    assert tuple(found.columns) == compare.COLUMNS
    assert found["verdict"].to_list()[1:] == ["lower", "higher"]
    assert found["star"].to_list() == ["", "*", "*"]
    assert found["mean"].to_list() == pytest.approx([0, -0.15, 0.15], abs=0.04)
    assert (found["low"] < found["mean"]).all()
    assert (found["p_text"][1:] == "≤ 0.0001").all()
    assert found["holm"].to_list() == pytest.approx([found["p"][0], 3 / 20_000, 3 / 20_000])


def error_rates(kind: str, repeats: int, more: float, n: int = 150) -> float:
    """The share of families of five comparisons with models `more` better in which at least one gets a star."""
    rng, wrong = np.random.default_rng(n), 0
    comparisons = family(*((f"m{i}", "base") for i in range(5)), kind=kind)
    index = table({"base": np.zeros(n)}).index
    for _ in range(repeats):
        level = rng.uniform(0.2, 0.7, n)
        values = {"base": level, **{f"m{i}": level + more for i in range(5)}}
        shares = pd.DataFrame({m: rng.binomial(1, v) for m, v in values.items()}, index=index)
        wrong += (compare.decide(shares, comparisons, 10.0)["star"] == "*").any()
    return wrong / repeats


def test_where_no_model_differs_at_most_one_family_in_twenty_has_a_star(monkeypatch):
    monkeypatch.setattr(stats, "FLIPS", 999)
    assert 0.015 <= error_rates("difference", 400, 0.0) <= 0.075
    monkeypatch.setattr(stats, "holm", dict)
    assert error_rates("difference", 150, 0.0) > 0.1, "without Holm's correction there are more"


def test_where_every_model_differs_by_the_margin_at_most_one_family_in_twenty_is_called_equivalent(monkeypatch):
    monkeypatch.setattr(stats, "FLIPS", 99)  # these tests have no flips
    assert 0.005 <= error_rates("equivalence", 400, 0.1, n=600) <= 0.075


def test_holm_corrects_in_each_family_by_itself():
    shares = answered(np.random.default_rng(1), 120, base=0.0, a=0.09, b=0.0, c=0.0)
    alone = compare.decide(shares, family(("a", "base")), 5.0)
    others = family(("b", "base"), ("c", "base"), name="another question")
    beside = compare.decide(shares, [*others, *family(("a", "base"))], 5.0)
    together = compare.decide(shares, family(("a", "base"), ("b", "base"), ("c", "base")), 5.0)
    assert alone["holm"][0] == beside["holm"][2] == alone["p"][0] < together["holm"][0]
    assert beside["family"].to_list() == ["another question"] * 2 + ["f"], "rows keep the order of the comparisons"
    assert alone["detectable"][0] < together["detectable"][0], "it is that of the corrected test"


def test_a_detectable_difference_would_have_been_found_in_four_of_five_repetitions(monkeypatch):
    monkeypatch.setattr(stats, "FLIPS", 1999)
    rng, pairs = np.random.default_rng(3), family(("m", "base"), ("same", "base"), ("other", "base"))
    level = rng.uniform(0.2, 0.6, 200)

    def draw(more):
        return table({"base": rng.binomial(4, level) / 4, "same": rng.binomial(4, level) / 4,
                      "other": rng.binomial(4, level) / 4, "m": rng.binomial(4, level + more) / 4})  # fmt: skip

    size = float(np.mean([compare.decide(draw(0.0), pairs, 5.0)["detectable"][0] for _ in range(5)]))
    found = np.mean([compare.decide(draw(size), pairs, 5.0)["verdict"][0] == "higher" for _ in range(200)])
    assert 0.72 <= found <= 0.9


@pytest.mark.parametrize(
    ("mean", "error", "difference", "equivalence"),
    [
        (0.0, 0.01, "similar", "similar"), (0.0, 0.10, "undecided", "undecided"), (0.2, 0.01, "higher", "higher"),
        (-0.2, 0.01, "lower", "lower"), (0.02, 0.003, "higher", "similar"), (-0.02, 0.003, "lower", "similar"),
    ],
)  # fmt: skip
def test_the_kind_says_what_is_asked_first(mean, error, difference, equivalence):
    spread = np.resize([1.0, -1.0], 400) * error * 20  # its standard error is `error`
    shares = table({"m": 0.5 + mean + spread, "base": np.full(400, 0.5)})
    said = [
        compare.decide(shares, family(("m", "base"), kind=kind), 5.0).iloc[0] for kind in ("difference", "equivalence")
    ]
    assert [row["verdict"] for row in said] == [difference, equivalence]
    assert [row["star"] == "*" for row in said] == [difference in ("higher", "lower"), equivalence == "similar"]


def test_several_benchmarks_count_the_same_however_many_questions_they_have():
    rng = np.random.default_rng(2)
    shares = pd.concat([table({"m": rng.binomial(1, 0.9, 40), "base": rng.binomial(1, 0.5, 40)}, "a"),
                        table({"m": rng.binomial(1, 0.5, 400), "base": rng.binomial(1, 0.5, 400)}, "b")])  # fmt: skip
    found = compare.decide(shares, [Comparison("f", "m", "base", ("a", "b"))], 5.0).iloc[0]
    means = shares.groupby("benchmark").mean()
    assert found["mean"] == pytest.approx((means["m"] - means["base"]).mean())
    assert (found["benchmarks"], found["n"], found["verdict"]) == ("a, b", 440, "higher")


def trained(rng, moved: list[float], more: float = 0.0) -> pd.DataFrame:
    """Shares with a level `seed`: two models, of which trainings move the second one, on 300 questions."""
    level, parts = rng.beta(2, 3, 300), {}
    for seed, move in enumerate(moved):
        values = {"base": level, "m": np.clip(level + move + more, 0, 1)}
        parts[seed] = table({m: rng.binomial(4, v) / 4 for m, v in values.items()})
    return pd.concat(parts, names=["seed"])


def test_a_difference_that_depends_on_the_training_is_not_decided_by_one_training():
    rng = np.random.default_rng(0)
    shares = trained(rng, [0.12, -0.10, 0.02])
    one = compare.decide(shares.xs(0, level="seed"), family(("m", "base")), 5.0).iloc[0]
    all_three = compare.decide(shares, family(("m", "base")), 5.0).iloc[0]
    assert (one["verdict"], all_three["verdict"]) == ("higher", "undecided")
    assert all_three["detectable"] > 0.1
    assert all_three["n"] == one["n"] == 300
    steady = compare.decide(trained(rng, [0.0, 0.0, 0.0], more=0.12), family(("m", "base")), 5.0).iloc[0]
    assert steady["verdict"] == "higher"
    assert stats.over_seeds(np.ones((2, 3))).mean == 1.0


def test_trainings_that_one_of_the_models_does_not_have_are_left_out():
    shares = trained(np.random.default_rng(1), [0.0, 0.0, 0.3])
    shares.loc[2, "base"] = np.nan
    found = compare.decide(shares, family(("m", "base")), 5.0)
    expected = compare.decide(shares.loc[[0, 1]], family(("m", "base")), 5.0)
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(ValueError, match="no training has the scores of both models on every question"):
        compare.decide(shares.loc[[2]], family(("m", "base")), 5.0)


@pytest.mark.parametrize(
    ("comparison", "margin", "said"),
    [
        (Comparison("f", "m", "gone", ("b",)), 5.0, "no scores of gone"),
        (Comparison("f", "m", "base", ("b", "c")), 5.0, "no scores of c"),
        (Comparison("f", "m", "base", ()), 5.0, "no scores of no benchmark"),
        (Comparison("f", "m", "base", ("b",)), 0.05, "the margin is 0.05, expected points"),
    ],
)
def test_what_cannot_be_compared_is_an_error(comparison, margin, said):
    with pytest.raises(ValueError, match=said):
        compare.decide(table({"m": np.ones(4), "base": np.ones(4)}), [comparison], margin)


def test_no_comparison_is_an_empty_table():
    assert compare.decide(table({"m": np.ones(4)}), [], 5.0).to_dict("list") == {name: [] for name in compare.COLUMNS}


# --- guessing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "verdict"), [(0.25, "not"), (0.45, "higher"), (0.05, "lower")])
def test_a_model_is_compared_with_guessing_as_with_another_model(right, verdict):
    rng = np.random.default_rng(7)
    shares = table({"m": rng.binomial(1, right, 160), CHANCE: np.full(160, 0.25)})
    found = compare.decide(shares, family(("m", CHANCE)), 5.0).iloc[0]
    assert (found["verdict"] if verdict != "not" else found["star"]) == (verdict if verdict != "not" else "")
    said = {"not": "not above chance (", "higher": "above chance", "lower": "below chance"}[verdict]
    assert compare.in_words(found).startswith(said)


def test_a_guesser_is_seldom_called_above_chance(monkeypatch):
    monkeypatch.setattr(stats, "FLIPS", 999)
    rng = np.random.default_rng(8)
    verdicts = [
        compare.decide(table({"m": rng.binomial(1, 0.25, 108), CHANCE: np.full(108, 0.25)}), family(("m", CHANCE)), 5.0)
        .iloc[0]["verdict"] for _ in range(600)
    ]  # fmt: skip
    assert verdicts.count("higher") / 600 <= 0.03
    assert verdicts.count("lower") / 600 <= 0.06


# --- words and families -----------------------------------------------------------------------------------------


def row(verdict: str, against: str = "base") -> dict:
    return {"verdict": verdict, "margin": 0.05, "detectable": 0.0814, "against": against}


def test_each_verdict_has_its_words():
    said = [compare.in_words(row(v)) for v in ("higher", "lower", "similar", "undecided")]
    shown = "a difference of 8.1 points would have shown"
    assert said == ["higher", "lower", "similar (within ±5 points)", f"undecided ({shown})"]
    said = [compare.in_words(row(v, CHANCE)) for v in ("higher", "lower", "similar", "undecided")]
    assert said == [
        "above chance",
        "below chance",
        "not above chance (within ±5 points)",
        f"not above chance ({shown})",
    ]


def test_every_pair_of_a_run_is_in_one_family():
    shares = pd.concat([table({CHANCE: np.full(3, 0.25)}, "science"), table({CHANCE: np.zeros(3)}, "math")])
    models = ["backbone", "x", "y", "z"]
    found = compare.of_run(shares, models)
    by_family = {name: {(c.model, c.against, *c.benchmarks) for c in found if c.family == name}
                 for name in dict.fromkeys(c.family for c in found)}  # fmt: skip
    assert list(by_family) == [compare.OVER_BACKBONE, compare.ABOVE_CHANCE, compare.ALL_PAIRS]
    assert by_family[compare.ABOVE_CHANCE] == {(m, CHANCE, "science") for m in models}, "math has nothing to guess"
    assert by_family[compare.OVER_BACKBONE] == {(m, "backbone", b) for m in "xyz" for b in ("science", "math")}
    pairs = {frozenset((c.model, c.against, *c.benchmarks)) for c in found}
    assert len(pairs) == len(found) == 4 + 2 * 6
