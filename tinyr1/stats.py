"""Intervals and comparisons. The unit is the question: samples of one question are not independent."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over questions with its 95 % interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def clustered(values: np.ndarray) -> Estimate:
    """Mean of per-question values (n,) with the t interval over questions.

    For pass@1 a value is the mean over the k samples of a question; the interval is the question-clustered one,
    which holds sampling noise too (evaluation.md §6).
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 questions, found {n}")
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def proportion(values: np.ndarray) -> Estimate:
    """`clustered`, cut to [0, 1]; with no spread at all, Wilson's interval for n questions instead of width 0."""
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0 and len(values) > 1:
        interval = stats.binomtest(round(values[0] * len(values)), len(values)).proportion_ci(method="wilson")
        return Estimate(float(values[0]), float(interval.low), float(interval.high))
    estimate = clustered(values)
    return Estimate(estimate.mean, max(0.0, estimate.low), min(1.0, estimate.high))


def paired(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Mean of a - b over the same questions (n,), with its t interval."""
    if len(a) != len(b):
        raise ValueError(f"paired values need the same questions, found {len(a)} and {len(b)}")
    return clustered(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))
