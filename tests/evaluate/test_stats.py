import itertools

import numpy as np
import pytest

from tinyr1.evaluate import stats


def test_the_interval_is_students_for_the_mean():
    # mean 3, s = sqrt(2.5), n = 5, t(0.975, 4) = 2.776445: half width 2.776445 * sqrt(2.5 / 5) = 1.963243
    found = stats.clustered(np.array([1, 2, 3, 4, 5]))
    assert (found.mean, found.low, found.high) == pytest.approx((3, 1.036757, 4.963243), abs=1e-6)


def test_a_paired_difference_is_the_interval_of_the_differences():
    # differences 1, 0, 1, 0: mean 0.5, s = sqrt(1/3), t(0.975, 3) = 3.182446;
    # half width 3.182446 * sqrt(1/12) = 0.918693
    found = stats.paired([1, 1, 1, 0], [0, 1, 0, 0])
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, -0.418693, 1.418693), abs=1e-6)


def test_a_constant_difference_has_no_width_however_much_the_questions_differ():
    b = np.linspace(0, 1, 9)
    found = stats.paired(b + 0.25, b)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_paired_values_need_the_same_questions():
    with pytest.raises(ValueError, match="found 3 and 2"):
        stats.paired([1, 0, 1], [1, 0])


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
        found = stats.paired(a, b)
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
    assert stats.sign_flip(a, b) == pytest.approx(p)


def test_the_sign_flip_test_counts_every_flip_and_keeps_its_level():
    rng = np.random.default_rng(5)
    differences = rng.normal(0, 1, (4000, 10))
    signs = np.array(list(itertools.product([1, -1], repeat=10)))
    p = (np.abs(differences @ signs.T) >= np.abs(differences.sum(axis=1))[:, None] - 1e-12).mean(axis=1)
    assert [stats.sign_flip(d, np.zeros(10)) for d in differences[:100]] == pytest.approx(p[:100])
    assert 0.04 <= np.mean(p <= 0.05) <= 0.06


def test_the_sign_flip_test_of_many_questions_draws_flips_and_finds_a_difference():
    rng = np.random.default_rng(6)
    shares = rng.binomial(4, rng.beta(1, 1, (150, 1, 40)), (150, 2, 40)) / 4
    assert np.mean([stats.sign_flip(a, b) <= 0.05 for a, b in shares]) <= 0.07
    better = rng.normal(0.4, 1, 198)
    assert stats.sign_flip(better, np.zeros(198)) == stats.sign_flip(better, np.zeros(198)) < 0.001


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert stats.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert stats.holm({"x": 0.6, "y": 0.7}) == {"x": 1.0, "y": 1.0}
    assert list(stats.holm({"b": 0.5, "a": 0.1})) == ["b", "a"]
    assert stats.holm({}) == {}


def test_the_detectable_difference_is_found_with_its_power():
    rng = np.random.default_rng(2)
    spread = rng.normal(0, 1, 60)
    size = stats.detectable(spread)
    # (t(0.975, 59) + z(0.8)) s / sqrt(60) = (2.000995 + 0.841621) s / 7.745967
    assert size == pytest.approx(0.366980 * spread.std(ddof=1), abs=1e-5)
    draws = rng.normal(size / spread.std(ddof=1), 1, (4000, 60))
    found = np.abs(draws.mean(axis=1)) > 2.000995 * draws.std(axis=1, ddof=1) / np.sqrt(60)
    assert 0.77 <= found.mean() <= 0.83


def test_a_published_number_is_compared_with_the_unpaired_width():
    values = np.array([0, 0.25, 0.5, 1])
    found, own = stats.against_published(values, 0.4), stats.clustered(values)
    assert found.mean == pytest.approx(values.mean() - 0.4)
    ratio = (found.high - found.low) / (own.high - own.low)
    assert ratio == pytest.approx(np.sqrt(2) * 2.446912 / 3.182446, abs=1e-5)  # t(0.975, 6) over t(0.975, 3)


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
    assert (same.low, same.high) == (0, 0)


@pytest.mark.parametrize(("ours", "published"), [(0.0, 0.8), (1.0, 0.5)])
def test_a_score_without_spread_is_no_certainty_beside_a_published_one(ours, published):
    found = stats.against_published(np.full(5, ours), published)
    assert found.mean == pytest.approx(ours - published)
    # Wilson, n = 5: 0 of 5 [0, 0.434], 4 of 5 [0.376, 0.964], 5 of 5 [0.566, 1], 2 of 5 [0.118, 0.769]
    expected = {0.0: (-0.8 - 0.164, -0.8 + 0.606), 1.0: (0.5 - 0.510, 0.5 + 0.382)}[ours]
    assert (found.low, found.high) == pytest.approx(expected, abs=0.002)
