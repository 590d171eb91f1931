import numpy as np
import pytest

from tinyr1 import stats


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
