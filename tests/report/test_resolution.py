"""How far published scores resolve, against binomial draws."""

import numpy as np
import pytest

from tinyr1.report import resolution
from tinyr1.report.resolution import Score


def test_the_two_variances_are_those_of_simulated_tests():
    rng, n, k, p = np.random.default_rng(0), 30, 16, 0.781
    alike = rng.binomial(n * k, p, 20_000) / (n * k)  # every question is equally hard, and always the same
    unlike = rng.binomial(n, p, 20_000) / n  # each question is always right or always wrong
    same, other = resolution.half_widths([Score(100 * p, n, k)])
    assert same == pytest.approx(196 * alike.std(), rel=0.02)
    assert other == pytest.approx(196 * unlike.std(), rel=0.02)


def test_a_difference_adds_both_variances():
    scores = [Score(78.1, 30, 16), Score(72.6, 30, 16)]
    single = [resolution.half_widths([score]) for score in scores]
    for i, both in enumerate(resolution.half_widths(scores)):
        assert both == pytest.approx(np.hypot(single[0][i], single[1][i]))


@pytest.mark.parametrize(
    ("says", "a", "b", "n", "holds"),
    [
        ("higher", 60, 50, 4000, "yes"),
        ("higher", 55, 50, 280, "for its own questions only"),
        ("higher", 51, 50, 280, "only its sign"),
        ("higher", 50, 60, 4000, "no"),
        ("higher", 50, 50, 4000, "no"),
        ("lower", 50, 60, 4000, "yes"),
        ("similar", 50, 51, 4000, "yes"),
        ("similar", 50, 51, 30, "not shown"),
        ("similar", 50, 58, 30, "no"),
        ("retains", 60, 50, 4000, "yes"),
        ("retains", 50, 60, 4000, "no"),
        ("slightly higher", 52, 50, 9000, "yes"),
        ("slightly higher", 60, 50, 9000, "no"),
        ("slightly lower", 52, 50, 9000, "no"),
    ],
)
def test_what_the_numbers_support(says, a, b, n, holds):
    assert resolution.of_difference(says, [(Score(a, n, 4), Score(b, n, 4))], 5.0)[0] == holds


def test_an_average_of_three_is_known_better_than_each():
    pair = (Score(60.0, 200, 4), Score(50.0, 200, 4))
    one, three = (resolution.of_difference("higher", [pair] * count, 5.0)[1] for count in (1, 3))
    assert one != three
    assert "±9.7" in one  # 196 · sqrt((0.6 · 0.4 + 0.5 · 0.5) / 200)
    assert "±5.6" in three  # by sqrt(3) less
