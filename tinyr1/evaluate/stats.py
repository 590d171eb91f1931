"""Intervals and comparisons. The unit is the question: samples of one question are not independent (evaluation.md §6).

Two intervals answer two questions. Over questions (`clustered`, `proportion`, `bootstrap`): what the score would be on
other questions of this kind. Over samples only (`resampled`): what it would be if this benchmark were sampled again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

EXACT = 1 << 14  # sign flips; more are drawn at random, as many
RESAMPLES = 2000


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
    values = _questions(values)
    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def proportion(values: np.ndarray) -> Estimate:
    """`clustered`, cut to [0, 1]; with no spread at all, Wilson's interval for n questions instead of width 0."""
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0 and len(values) > 1:
        return _wilson(float(values[0]), len(values))
    estimate = clustered(values)
    return Estimate(estimate.mean, max(0.0, estimate.low), min(1.0, estimate.high))


def _wilson(share: float, questions: int) -> Estimate:
    interval = stats.binomtest(round(share * questions), questions).proportion_ci(method="wilson")
    return Estimate(share, float(interval.low), float(interval.high))


def bootstrap(values: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of per-question values (n,) with the BCa interval over resampled questions; for small n.

    Without any spread it is `proportion`'s, as there is nothing to resample.
    """
    values = _questions(values)
    if np.ptp(values) == 0:
        return proportion(values)
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))


def resampled(values: np.ndarray, k: int) -> Estimate:
    """Mean of per-question shares (n,), each of k samples, with the interval for sampling the same questions again.

    Standard error: sqrt(sum of x (1 - x) / (k - 1)) / n, unbiased for the variance of each share of k samples.
    """
    values = _questions(values)
    if k < 2:
        raise ValueError(f"sampling noise needs at least 2 samples of a question, found {k}")
    half = float(stats.norm.ppf(0.975) * math.sqrt((values * (1 - values)).sum() / (k - 1)) / len(values))
    mean = float(values.mean())
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def paired(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Mean of a - b over the same questions (n,), with its t interval."""
    return clustered(_differences(a, b))


def averaged(groups: Sequence[np.ndarray]) -> Estimate:
    """Mean over groups (benchmarks) of each group's mean over its questions (n_i,), with its 95 % interval.

    Every group counts the same, however many questions it has. One group: its t interval; several: standard errors
    added in squares, t with the degrees of freedom of Welch and Satterthwaite.
    """
    groups = [_questions(values) for values in groups]
    mean = float(np.mean([values.mean() for values in groups]))
    variances = np.array([values.var(ddof=1) / len(values) for values in groups]) / len(groups) ** 2
    total = float(variances.sum())
    freedom = sum(v**2 / (len(values) - 1) for v, values in zip(variances, groups, strict=True))
    half = float(stats.t.ppf(0.975, total**2 / freedom)) * math.sqrt(total) if total > 0 else 0.0
    return Estimate(mean, mean - half, mean + half)


def sign_flip(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of no difference between a and b (n,), by flipping the signs of a - b; exact up to 14 that differ."""
    d = _differences(a, b)
    d = d[d != 0]  # a sign on zero changes nothing
    if not len(d):
        return 1.0
    return float(stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=EXACT, rng=np.random.default_rng(seed)
    ).pvalue)  # fmt: skip


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p for a family of tests, by the same names: the family-wise error stays at the level."""
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p}


def detectable(values: np.ndarray, power: float = 0.8) -> float:
    """Smallest true mean that a two-sided 5 % test on values like these (n,) finds with this probability.

    values: paired differences by question, or scores; (t + z of the power) standard errors.
    """
    values = _questions(values)
    n = len(values)
    return float((stats.t.ppf(0.975, n - 1) + stats.norm.ppf(power)) * values.std(ddof=1) / math.sqrt(n))


def against_published(values: np.ndarray, published: float) -> Estimate:
    """Our mean less a published score of which no values by question are known, with the unpaired interval.

    The other score is taken to rest on as many questions with the same spread, so its error is as large as ours.
    Without any spread it is Newcombe's interval, from the Wilson intervals of both scores.
    """
    values = _questions(values)
    n = len(values)
    if np.ptp(values) == 0:
        ours = proportion(values)
        theirs = _wilson(published, n)
        difference = ours.mean - published
        below = math.hypot(ours.mean - ours.low, theirs.high - published)
        above = math.hypot(ours.high - ours.mean, published - theirs.low)
        return Estimate(difference, difference - below, difference + above)
    half = float(stats.t.ppf(0.975, 2 * (n - 1)) * values.std(ddof=1) * math.sqrt(2 / n))
    difference = float(values.mean()) - published
    return Estimate(difference, difference - half, difference + half)


def pass_at_k(correct: np.ndarray, samples: int, k: int) -> np.ndarray:
    """Unbiased chance (n,) that at least one of k samples is right: 1 - C(samples - c, k) / C(samples, k).

    correct: right samples of each question (n,), of `samples`. Intervals: `bootstrap` or `proportion` of the result.
    """
    correct = np.asarray(correct)
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs k of at least 1, and k samples of each question; found {samples}")
    if ((correct < 0) | (correct > samples)).any():
        raise ValueError(f"right samples must be 0 to {samples}, found {correct.min()} to {correct.max()}")
    return 1 - special.comb(samples - correct, k) / special.comb(samples, k)


def cons_at_k(answers: Sequence[Sequence[str | None]], truth: Sequence[str], k: int, seed: int = 0) -> np.ndarray:
    """Chance (n,) that the most frequent of k answers is right; ties are broken at random, by their expectation.

    answers: of each question, the extracted answers in canonical form (integers, option ids), None for none, which
    do not vote. With k below the number of samples: the mean over RESAMPLES random subsets of k.
    """
    rng = np.random.default_rng(seed)
    return np.array([_consensus(a, t, k, rng) for a, t in zip(answers, truth, strict=True)])


def _consensus(answers: Sequence[str | None], truth: str, k: int, rng: np.random.Generator) -> float:
    if not 1 <= k <= len(answers):
        raise ValueError(f"cons@{k} needs k of at least 1, and k samples of each question; found {len(answers)}")
    names = sorted({a for a in answers if a is not None})
    if truth not in names:
        return 0.0
    codes = np.array([names.index(a) if a is not None else len(names) for a in answers])
    drawn = codes[None] if k == len(codes) else rng.permuted(np.tile(codes, (RESAMPLES, 1)), axis=1)[:, :k]
    votes = (drawn[:, :, None] == np.arange(len(names))).sum(axis=1)  # (subsets, names)
    most = votes.max(axis=1)
    right = (votes[:, names.index(truth)] == most) & (most > 0)
    return float((right / (votes == most[:, None]).sum(axis=1)).mean())


def _questions(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 questions, found {len(values)}")
    return values


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if len(a) != len(b):
        raise ValueError(f"paired values need the same questions, found {len(a)} and {len(b)}")
    return np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
