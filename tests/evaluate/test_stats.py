import itertools

import numpy as np
import pytest

from tinyr1.evaluate import stats


def test_the_interval_is_students_for_the_mean():
    # mean 3, s = sqrt(2.5), n = 5, t(0.975, 4) = 2.776445: half width 2.776445 * sqrt(2.5 / 5) = 1.963243
    found = stats.clustered(np.array([1, 2, 3, 4, 5]))
    assert (found.mean, found.low, found.high) == pytest.approx((3, 1.036757, 4.963243), abs=1e-6)


def test_a_difference_is_the_interval_of_the_differences():
    # differences 1, 0, 1, 0: mean 0.5, s = sqrt(1/3), t(0.975, 3) = 3.182446;
    # half width 3.182446 * sqrt(1/12) = 0.918693
    found = difference([1, 1, 1, 0], [0, 1, 0, 0]).estimate()
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, -0.418693, 1.418693), abs=1e-6)


def difference(a, b):
    """`difference_over` of one seed and one benchmark."""
    return stats.difference_over([np.asarray(a, dtype=float)[None]], [np.asarray(b, dtype=float)[None]])


@pytest.mark.parametrize(("n", "p"), [(4, 0.4271), (30, 0.1976), (400, 0.0)])
def test_questions_that_happen_not_to_differ_are_no_proof_of_equality(n, p):
    found = difference(np.linspace(0, 0.5, n) + 0.25, np.linspace(0, 0.5, n))
    # Wilson's interval of 0 in n ends at z² / (n + z²); its half width in units of z = 1.959964
    assert found.error == pytest.approx(3.841459 / (n + 3.841459) / 1.959964, abs=1e-6)
    assert (found.equivalence(0.3) < 0.05) == (n == 400)
    # n = 4: t(3) above 0.05 / 0.249934; n = 30: t(29) above 0.05 / 0.057915
    assert difference([0.5] * n, [0.5] * n).equivalence(0.05) == pytest.approx(p, abs=2e-4)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_an_interval_needs_two_questions(values):
    with pytest.raises(ValueError, match=f"at least 2 questions, found {len(values)}"):
        stats.clustered(np.array(values))


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.113513), (1.0, 0.886487, 1.0)])
def test_without_any_spread_the_interval_is_wilsons(value, low, high):
    # Wilson for 0 of 30: high = z² / (n + z²) = 3.841459 / 33.841459
    found = stats.proportion(np.full(30, value))
    assert (found.mean, found.low, found.high) == pytest.approx((value, low, high), abs=1e-6)


def test_a_proportion_never_leaves_zero_to_one():
    found = stats.proportion(np.array([0, 0, 0, 0, 0, 1]))
    assert found.low == 0.0
    assert found.high == pytest.approx(0.595096, abs=1e-6)  # 1/6 + 2.570582 * sqrt(1/6) / sqrt(6)
    assert stats.clustered(np.array([0, 0, 0, 0, 0, 1])).low < 0


def test_samples_of_a_question_do_not_count_as_questions():
    per_question = np.array([0.0, 1.0, 0.5, 0.25])
    repeated = np.repeat(per_question, 16)
    assert stats.clustered(per_question).high > stats.clustered(repeated).high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits, repeats, n, k = 0, 400, 30, 4
    for _ in range(repeats):
        difficulty = rng.beta(2, 3, n)  # mean 0.4
        found = stats.proportion(rng.binomial(k, difficulty) / k)
        hits += found.low <= 0.4 <= found.high
    assert 0.90 <= hits / repeats <= 0.98


# Difficulties of questions, samples of each, and the half width that they give in points (evaluation.md §6)
SETUPS = [(30, 16, 1.0, 0.4, 11.1), (198, 4, 1.2, 0.74, 4.8), (268, 16, 0.47, 0.31, 4.5)]


def simulated(n, k, a, b, repeats, seed):
    """(true shares, observed shares), each (repeats, n): difficulties from Beta(a, b), k samples of each question."""
    rng = np.random.default_rng(seed)
    true = rng.beta(a, b, (repeats, n))
    return true, rng.binomial(k, true) / k


def covered(estimates, truths):
    return np.mean([e.low <= t <= e.high for e, t in zip(estimates, truths, strict=True)])


@pytest.mark.parametrize(("n", "k", "a", "b", "half"), SETUPS)
def test_nominal_95_percent_intervals_cover_92_to_97_percent(n, k, a, b, half):
    repeats = 2000
    true, observed = simulated(n, k, a, b, repeats, seed=n)
    over_questions = [stats.proportion(x) for x in observed]
    assert 0.92 <= covered(over_questions, [a / (a + b)] * repeats) <= 0.97
    assert 100 * np.mean([(e.high - e.low) / 2 for e in over_questions]) == pytest.approx(half, abs=0.3)
    over_samples = [stats.resampled(x, k) for x in observed]
    assert 0.92 <= covered(over_samples, true.mean(axis=1)) <= 0.97


@pytest.mark.parametrize(("n", "k", "a", "b"), [setup[:4] for setup in SETUPS])
def test_bootstrap_intervals_cover_92_to_97_percent(n, k, a, b):
    repeats = 800 if n < 100 else 400
    _, observed = simulated(n, k, a, b, repeats, seed=n + 1)
    assert 0.92 <= covered([stats.bootstrap(x) for x in observed], [a / (a + b)] * repeats) <= 0.97


def test_the_binomial_interval_over_all_samples_would_cover_far_less():
    _, observed = simulated(30, 16, 1.0, 0.4, 1000, seed=0)
    half = 1.96 * np.sqrt(observed.mean(axis=1) * (1 - observed.mean(axis=1)) / (30 * 16))
    assert np.mean(np.abs(observed.mean(axis=1) - 1 / 1.4) <= half) < 0.65


def test_paired_intervals_cover_and_are_narrower_than_unpaired_ones():
    rng = np.random.default_rng(3)
    hits, widths = 0, []
    for _ in range(1500):
        base = rng.beta(1.2, 0.74, 198)
        better = np.clip(base + 0.03, 0, 1)
        a, b = rng.binomial(4, better) / 4, rng.binomial(4, base) / 4
        found = difference(a, b).estimate()
        hits += found.low <= (better - base).mean() <= found.high
        unpaired = stats.against_published(a, b.mean())
        widths.append((found.high - found.low, unpaired.high - unpaired.low))
    assert 0.92 <= hits / 1500 <= 0.97
    paired, unpaired = np.mean(widths, axis=0)
    assert paired < 0.75 * unpaired


def test_the_bootstrap_interval_is_seeded_and_handles_no_spread():
    values = np.array([0, 0, 0, 0.5, 1, 1, 1, 1])
    assert stats.bootstrap(values, seed=1) == stats.bootstrap(values, seed=1)
    assert stats.bootstrap(values, seed=1) != stats.bootstrap(values, seed=2)
    assert stats.bootstrap(np.ones(30)) == stats.proportion(np.ones(30))
    lonely = stats.bootstrap(np.array([0, 0, 0, 0, 0, 1]))
    assert 0 <= lonely.low <= lonely.mean <= lonely.high <= 1


def test_the_sampling_interval_is_that_of_independent_samples():
    # x = 1/2, 1/2, k = 2: sqrt((1/4 + 1/4) / 1) / 2 = 0.353553; times 1.959964 = 0.692952, cut at 0 and 1
    found = stats.resampled(np.array([0.5, 0.5]), 2)
    assert (found.low, found.high) == (0.0, 1.0)
    # x = 1/4, 3/4, 1, k = 16: sqrt(2 * 3/16 / 15) / 3 = 0.0527046; times 1.959964 = 0.103299
    found = stats.resampled(np.array([0.25, 0.75, 1.0]), 16)
    assert (found.mean, found.high - found.mean) == pytest.approx((2 / 3, 0.103299), abs=1e-6)


def test_one_sample_says_nothing_of_sampling_noise():
    with pytest.raises(ValueError, match="at least 2 samples of a question, found 1"):
        stats.resampled(np.array([0.0, 1.0]), 1)


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        ([1, 1, 1], [0, 0, 0], 2 / 8), ([1] * 10, [0] * 10, 2 / 1024), ([1, 0], [0, 1], 1.0), ([1, 0], [1, 0], 1.0),
        ([1, 1, 1, 0.5], [0, 0, 0, 0.5], 2 / 8),  # a question without a difference changes nothing
        ([3, 1], [0, 0], 2 / 4), ([3, -1], [0, 0], 4 / 4),
        ([1, 0], [0, 0], 1.0),  # one question alone shows nothing
    ],
)  # fmt: skip
def test_the_sign_flip_test_is_exact_for_few_questions(a, b, p):
    assert stats.sign_flip([np.subtract(a, b)]) == pytest.approx(p)


def test_the_sign_flip_test_counts_every_flip_and_keeps_its_level():
    rng = np.random.default_rng(5)
    differences = rng.normal(0, 1, (4000, 10))
    signs = np.array(list(itertools.product([1, -1], repeat=10)))
    p = (np.abs(differences @ signs.T) >= np.abs(differences.sum(axis=1))[:, None] - 1e-12).mean(axis=1)
    assert [stats.sign_flip([d]) for d in differences[:100]] == pytest.approx(p[:100])
    assert 0.04 <= np.mean(p <= 0.05) <= 0.06


def test_the_sign_flip_test_of_many_questions_draws_flips_and_finds_a_difference():
    rng = np.random.default_rng(6)
    shares = rng.binomial(4, rng.beta(1, 1, (150, 1, 40)), (150, 2, 40)) / 4
    assert np.mean([stats.sign_flip([a - b]) <= 0.05 for a, b in shares]) <= 0.07
    better = rng.normal(0.4, 1, 198)
    assert stats.sign_flip([better]) == stats.sign_flip([better]) < 0.001


def test_the_sign_flip_test_of_several_benchmarks_counts_each_the_same():
    few, many = np.array([1.0, 1.0, -1.0]), np.array([0.5, -0.25, 0.5, 0.5, 0.25])
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    sums = (signs[:, :3] * few).mean(axis=1) + (signs[:, 3:] * many).mean(axis=1)
    expected = (np.abs(sums) >= few.mean() + many.mean() - 1e-12).mean()
    assert stats.sign_flip([few, many]) == pytest.approx(expected)


def test_a_p_value_is_not_printed_smaller_than_drawn_flips_can_tell():
    p = stats.sign_flip([np.ones(60)])
    assert p == 1 / 20_000, "none of the drawn flips is as extreme as the observed one, which counts itself"
    printed = [stats.p_text(value) for value in (p, 1e-12, 1e-4, 0.000123, 0.0384, 0.25, 1.0)]
    assert printed == ["≤ 0.0001", "≤ 0.0001", "≤ 0.0001", "0.00012", "0.038", "0.25", "1"]


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert stats.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert stats.holm({"x": 0.6, "y": 0.7}) == {"x": 1.0, "y": 1.0}
    assert list(stats.holm({"b": 0.5, "a": 0.1})) == ["b", "a"]
    assert stats.holm({}) == {}


def test_the_detectable_difference_is_found_with_its_power():
    rng = np.random.default_rng(2)
    spread = rng.normal(0, 1, (1, 60))
    size = stats.mean_over([spread]).detectable()
    # (t(0.975, 59) + z(0.8)) s / sqrt(60) = (2.000995 + 0.841621) s / 7.745967
    assert size == pytest.approx(0.366980 * spread.std(ddof=1), abs=1e-5)
    draws = rng.normal(size / spread.std(ddof=1), 1, (4000, 60))
    found = np.abs(draws.mean(axis=1)) > 2.000995 * draws.std(axis=1, ddof=1) / np.sqrt(60)
    assert 0.77 <= found.mean() <= 0.83
    assert stats.mean_over([spread]).detectable(0.005) > size


# --- training seeds -------------------------------------------------------------------------------------------


def trained(rng, seeds, questions, spread, k, repeats):
    """Scores (repeats, seeds, questions) of models trained again: each training and each question has its own level."""
    level = rng.beta(2, 3, (repeats, 1, questions)) + rng.normal(0, spread, (repeats, seeds, 1))  # mean 0.4
    level = level + rng.normal(0, 0.05, (repeats, seeds, questions))
    return rng.binomial(k, np.clip(level, 0, 1)) / k


@pytest.mark.parametrize(
    ("seeds", "questions", "spread", "k"),
    [(3, 108, 0.0, 1), (3, 108, 0.05, 1), (3, 324, 0.02, 4), (5, 108, 0.03, 2), (3, 40, 0.08, 4)],
)
def test_the_interval_over_seeds_and_questions_covers_the_truth_and_the_one_over_questions_alone_does_not(
    seeds, questions, spread, k
):
    values = trained(np.random.default_rng(seeds * questions), seeds, questions, spread, k, 1500)
    truth = trained(np.random.default_rng(1), 1, 1000, spread, 1, 1000).mean()  # clipping moves it a little
    both = covered([stats.over_seeds(x) for x in values], [truth] * 1500)
    assert 0.94 <= both <= 0.985
    if spread >= 0.05:
        pooled = covered([stats.clustered(x.mean(axis=0)) for x in values], [truth] * 1500)
        assert pooled < 0.9


def test_one_training_has_the_interval_over_questions():
    values = np.random.default_rng(0).binomial(4, 0.3, (1, 50)) / 4
    found, plain = stats.over_seeds(values), stats.clustered(values[0])
    assert (found.mean, found.low, found.high) == pytest.approx((plain.mean, plain.low, plain.high))


def test_the_variance_over_seeds_and_questions_is_the_sum_of_both():
    # seed means 0.25, 0.75: variance 0.125, over 2 seeds 0.0625, 1 degree of freedom; question means 0.25, 0.25, 0.75,
    # 0.75: variance 1/12, over 4 questions 1/48, 3 degrees
    values = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    found = stats.mean_over([values])
    variance = 0.0625 + 1 / 48
    assert (found.mean, found.error) == pytest.approx((0.5, np.sqrt(variance)))
    assert found.freedom == pytest.approx(variance**2 / (0.0625**2 / 1 + (1 / 48) ** 2 / 3))


def test_seeds_that_move_all_benchmarks_together_count_together():
    rng = np.random.default_rng(4)
    moved = rng.normal(0, 0.1, (3, 1))
    groups = [rng.normal(0.5, 0.1, (1, 4000)) + moved for _ in range(2)]
    found = stats.mean_over(groups)
    assert found.error == pytest.approx(moved.std(ddof=1) / np.sqrt(3), rel=0.01), "not smaller by averaging"
    opposite = [groups[0], groups[1] - 2 * moved]
    assert stats.mean_over(opposite).error < 0.1 * found.error, "what one loses the other wins"


def test_differences_over_seeds_are_paired_by_seed_and_question():
    rng = np.random.default_rng(5)
    b = rng.uniform(0.2, 0.6, (1, 200)) + np.array([[-0.15], [0.0], [0.1]])  # the trainings move both models
    a = b + 0.2 + rng.normal(0, 0.02, (3, 200))
    found = stats.difference_over([a], [b])
    assert found.estimate().mean == pytest.approx(0.2, abs=0.01)
    assert found.error < 0.2 * stats.mean_over([a]).error


# --- equivalence ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [60, 324])
def test_models_that_differ_by_the_margin_are_called_equivalent_in_one_of_twenty(n):
    rng, margin = np.random.default_rng(n), 0.05
    draws = rng.choice([-1.0, 0.0, 1.0], size=(3000, n), p=[0.02, 0.91, 0.07])  # mean 0.05
    wrongly = np.mean([stats.mean_over([d[None]]).equivalence(margin) < 0.05 for d in draws])
    assert 0.03 <= wrongly <= 0.07
    equal = rng.choice([-1.0, 0.0, 1.0], size=(500, 4 * n), p=[0.02, 0.96, 0.02])
    power = np.mean([stats.mean_over([d[None]]).equivalence(margin) < 0.05 for d in equal])
    assert power > 0.9


def test_equivalence_is_the_worse_of_two_one_sided_tests():
    found = stats.mean_over([np.array([[0.1, 0.0, 0.1, 0.0]])])  # mean 0.05, error 0.028868
    # t(3) above (0.15 - 0.05) / 0.028868 = 3.4641: 0.020291; the other side, 6.9282, is smaller
    assert found.equivalence(0.15) == pytest.approx(0.020256, abs=1e-4)
    assert found.equivalence(0.05) == pytest.approx(0.5)
    assert found.equivalence(0.01) > 0.5


def test_a_published_number_is_compared_with_the_unpaired_width():
    values = np.array([0, 0.25, 0.5, 1])
    found, own = stats.against_published(values, 0.4), stats.clustered(values)
    assert found.mean == pytest.approx(values.mean() - 0.4)
    ratio = (found.high - found.low) / (own.high - own.low)
    assert ratio == pytest.approx(np.sqrt(2) * 2.446912 / 3.182446, abs=1e-5)  # t(0.975, 6) over t(0.975, 3)


def test_the_same_questions_again_have_the_spread_of_the_answers_alone():
    # 30 x 0.75 · 0.25 / 15 · (1 + 16 / 64) / 30²: an error of 2.2822 points
    found = stats.repeated(np.full(30, 0.75), 16, 0.726, 64)
    assert (found.mean, found.error) == pytest.approx((0.024, 0.022822), abs=1e-6)
    estimate = found.estimate()
    assert estimate.high - estimate.mean == pytest.approx(1.959964 * 0.022822, abs=1e-6)
    # one answer: the binomial variance of the mean, 0.25 / 4 · (1 + 1 / 4)
    assert stats.repeated(np.array([0, 1, 0, 1]), 1, 0.5, 4).error == pytest.approx(np.sqrt(0.25 / 4 * 1.25))
    # answers that all agree: the errors behind Wilson's intervals of none in 120 and in 480
    least = [1.959964 / (n + 1.959964**2) for n in (120, 480)]
    assert stats.repeated(np.ones(30), 4, 1.0, 16).error == pytest.approx(np.hypot(*least), abs=1e-6)


@pytest.mark.parametrize(("k", "their_k"), [(16, 64), (16, 16), (4, 4), (4, 64)])
def test_intervals_for_the_same_questions_cover_and_are_far_narrower_than_for_others(k, their_k):
    rng = np.random.default_rng(k + their_k)
    hits, widths = 0, []
    for _ in range(1500):
        true = rng.beta(1.0, 0.4, 60)
        ours, theirs = rng.binomial(k, true) / k, rng.binomial(their_k, true) / their_k
        found = stats.repeated(ours, k, theirs.mean(), their_k).estimate()
        hits += found.low <= 0 <= found.high
        wide = stats.against_published(ours, theirs.mean())
        widths.append((found.high - found.low) / (wide.high - wide.low))
    assert 0.93 <= hits / 1500 <= 0.985
    assert np.mean(widths) < 0.6


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    samples = [1, 1, 0, 0, 0]
    for k in range(1, 6):
        subsets = list(itertools.combinations(samples, k))
        assert stats.pass_at_k([2], 5, k)[0] == pytest.approx(np.mean([any(s) for s in subsets]))
    assert stats.pass_at_k([0, 3, 16], 16, 1) == pytest.approx([0, 3 / 16, 1])


@pytest.mark.parametrize(("correct", "samples", "k"), [([1], 4, 5), ([1], 4, 0), ([5], 4, 1), ([-1], 4, 1)])
def test_pass_at_k_refuses_what_the_samples_cannot_say(correct, samples, k):
    with pytest.raises(ValueError, match="samples"):
        stats.pass_at_k(correct, samples, k)


@pytest.mark.parametrize(
    ("answers", "truth", "value"),
    [
        (["5", "5", "7"], "5", 1.0), (["5", "7", "7"], "5", 0.0), (["5", "7"], "5", 0.5), (["5", "7", "9"], "9", 1 / 3),
        (["5", None, None], "5", 1.0), ([None, None], "5", 0.0), (["5", "5"], "7", 0.0),
        (["5", "5", "7", "7", None], "7", 0.5),
    ],
)  # fmt: skip
def test_consensus_drops_missing_answers_and_splits_ties(answers, truth, value):
    assert stats.cons_at_k([answers], [truth], len(answers)) == pytest.approx([value])


def test_consensus_of_fewer_samples_is_the_mean_over_subsets():
    answers = ["5", "5", "7", "9", None, "7"]
    exact = np.mean([stats.cons_at_k([s], ["5"], 3)[0] for s in itertools.combinations(answers, 3)])
    found = stats.cons_at_k([answers], ["5"], 3)
    assert found == pytest.approx([exact], abs=0.03)
    assert found == stats.cons_at_k([answers], ["5"], 3)
    assert stats.cons_at_k([answers], ["5"], 1) == pytest.approx([2 / 6], abs=0.03)


@pytest.mark.parametrize("k", [0, 3])
def test_consensus_needs_as_many_samples(k):
    with pytest.raises(ValueError, match=f"cons@{k} needs"):
        stats.cons_at_k([["5", "7"]], ["5"], k)


def test_an_average_over_benchmarks_counts_each_the_same():
    rng = np.random.default_rng(0)
    small, large = rng.normal(1.0, 1.0, 30), rng.normal(0.0, 1.0, 300)
    found = stats.averaged([small, large])
    assert found.mean == pytest.approx((small.mean() + large.mean()) / 2)
    error = np.sqrt(small.var(ddof=1) / 30 + large.var(ddof=1) / 300) / 2
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    one, plain = stats.averaged([small]), stats.clustered(small)
    assert (one.mean, one.low, one.high) == pytest.approx((plain.mean, plain.low, plain.high))
    same = stats.averaged([np.zeros(5), np.zeros(9)])
    assert same.mean == 0
    assert same.low == pytest.approx(-same.high)
    assert same.high > 0, "answers that all agree are no proof that others would"


@pytest.mark.parametrize(("ours", "published"), [(0.0, 0.8), (1.0, 0.5)])
def test_a_score_without_spread_is_no_certainty_beside_a_published_one(ours, published):
    found = stats.against_published(np.full(5, ours), published)
    assert found.mean == pytest.approx(ours - published)
    # Wilson, n = 5: 0 of 5 [0, 0.434], 4 of 5 [0.376, 0.964], 5 of 5 [0.566, 1], 2 of 5 [0.118, 0.769]
    expected = {0.0: (-0.8 - 0.164, -0.8 + 0.606), 1.0: (0.5 - 0.510, 0.5 + 0.382)}[ours]
    assert (found.low, found.high) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(("value", "n", "k"), [(0.0, 3, 4), (1.0, 3, 4), (1.0, 30, 16), (0.0, 2, 2)])
def test_samples_that_happen_to_agree_are_no_proof_that_others_would(value, n, k):
    found = stats.resampled(np.full(n, value), k)
    # 1.959964 times the error 1.959964 / (n k + 3.841459): Wilson's interval of none in n k is twice as wide
    half = 3.841459 / (n * k + 3.841459)
    assert found.high - found.low == pytest.approx(half, abs=1e-6), "cut at 0 or 1"
    mixed, half = stats.resampled(np.array([0.0, 1.0, 1.0]), 4), 3.841459 / 15.841459
    assert (mixed.low, mixed.high) == pytest.approx((2 / 3 - half, 2 / 3 + half), abs=1e-6)


def test_scores_without_any_spread_have_an_interval():
    # 3 questions: t(0.975, 2) = 4.302653 times 1.959964 / 6.841459
    found = stats.averaged([np.zeros(3)])
    assert (found.low, found.high) == pytest.approx((-1.232638, 1.232638), abs=1e-5)
    trained = stats.over_seeds(np.ones((3, 40)))
    assert trained.low < 1 < trained.high
    wide, narrow = stats.mean_over([np.full((1, 9), 5.0)], span=100), stats.mean_over([np.full((1, 9), 5.0)], span=10)
    assert wide.error == pytest.approx(10 * narrow.error)
    assert narrow.error > 0
    assert narrow.detectable() > 0
    assert 0 < narrow.p() < 1


def test_pass_at_k_of_thousands_of_samples_is_a_number():
    found = stats.pass_at_k([0, 1, 3, 1000, 1001, 2000], 2000, 1000)
    # 1 - (1/2) for one right sample; for three: 1 - (1000 · 999 · 998) / (2000 · 1999 · 1998)
    assert found[:3] == pytest.approx([0, 0.5, 1 - 997002000 / 7988004000], abs=1e-12)
    assert found[3:] == pytest.approx([1, 1, 1])
    assert (stats.pass_at_k(np.arange(5), 4, 4) == [0, 1, 1, 1, 1]).all()
