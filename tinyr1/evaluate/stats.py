"""Intervals and tests (docs/evaluation.md §6). The unit is the question: its samples are not independent.

Two intervals answer two questions. The one over questions (`clustered`, `proportion`, `bootstrap`) says what the score
would be on other questions of this kind; the one over samples (`resampled`) says what it would be if the same questions
were sampled again. All values are numbers by question, and all intervals are 95 %. Functions that need an interval
raise ValueError where there are fewer than 2 questions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import special, stats

EXACT = 1 << 14  # sign flips that are enumerated; where there are more, as many are drawn at random
RESAMPLES = 2000
Name = TypeVar("Name")


@dataclass(frozen=True)
class Estimate:
    """A mean over questions with its 95 % interval, in the unit of the values."""

    mean: float
    low: float
    high: float

    def points(self) -> str:
        """A difference in points with its interval, for reading: "+4.9 [-0.4, +10.2]"."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"

    def interval(self) -> str:
        """The interval of a score in percent, for reading: "[11.9, 27.0]"."""
        return f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"


def clustered(values: np.ndarray) -> Estimate:
    """Mean of per-question values (n,) with the t interval over questions.

    For pass@1 a value is the mean over the k samples of a question; this is the question-clustered interval, which
    contains the sampling noise too (docs/evaluation.md §6.1).
    """
    values = _questions(values)
    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def proportion(values: np.ndarray) -> Estimate:
    """`clustered` for values in [0, 1], cut to [0, 1]; Wilson's interval for n questions where all are equal."""
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0 and len(values) > 1:
        return _wilson(float(values[0]), len(values))
    estimate = clustered(values)
    return Estimate(estimate.mean, max(0.0, estimate.low), min(1.0, estimate.high))


def _wilson(share: float, questions: int) -> Estimate:
    """A share of so many questions with Wilson's interval."""
    interval = stats.binomtest(round(share * questions), questions).proportion_ci(method="wilson")
    return Estimate(share, float(interval.low), float(interval.high))


def bootstrap(values: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of per-question values (n,) with the BCa interval over resampled questions (docs/evaluation.md §6.4).

    Where all values are equal it is the interval of `proportion`, since there is nothing to resample.
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

    The standard error is sqrt(sum of x (1 - x) / (k - 1)) / n, unbiased for the variance of each share of k samples
    (docs/evaluation.md §6.1). ValueError for k below 2.
    """
    values = _questions(values)
    if k < 2:
        raise ValueError(f"sampling noise needs at least 2 samples of a question, found {k}")
    half = float(stats.norm.ppf(0.975) * math.sqrt((values * (1 - values)).sum() / (k - 1)) / len(values))
    mean = float(values.mean())
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def paired(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Mean of a - b over the same questions (n,), with its t interval (docs/evaluation.md §6.2)."""
    return clustered(_differences(a, b))


def averaged(groups: Sequence[np.ndarray]) -> Estimate:
    """Mean over groups (benchmarks) of each group's mean over its questions (n_i,), with its 95 % interval.

    Every group counts the same, however many questions it has. One group has its t interval; of several the standard
    errors add in squares, and t has the degrees of freedom of Welch and Satterthwaite (docs/evaluation.md §6.2).
    """
    groups = [_questions(values) for values in groups]
    mean = float(np.mean([values.mean() for values in groups]))
    variances = np.array([values.var(ddof=1) / len(values) for values in groups]) / len(groups) ** 2
    total = float(variances.sum())
    freedom = sum(v**2 / (len(values) - 1) for v, values in zip(variances, groups, strict=True))
    half = float(stats.t.ppf(0.975, total**2 / freedom)) * math.sqrt(total) if total > 0 else 0.0
    return Estimate(mean, mean - half, mean + half)


def sign_flip(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of no difference between a and b (n,), by flipping the signs of a - b.

    It is exact where at most 14 questions differ (docs/evaluation.md §6.2).
    """
    d = _differences(a, b)
    d = d[d != 0]  # a sign on zero changes nothing
    if len(d) < 2:  # one difference is as far from zero with either sign
        return 1.0
    return float(stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=EXACT, rng=np.random.default_rng(seed)
    ).pvalue)  # fmt: skip


def holm(p: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjusted p for a family of tests, by the same names: the family-wise error stays at the level."""
    adjusted: dict[Name, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p}


def detectable(values: np.ndarray, power: float = 0.8) -> float:
    """Smallest true mean that a two-sided 5 % test on values like these (n,) finds with the probability `power`.

    values: paired differences by question, or scores. It is t + z standard errors (docs/evaluation.md §6.3).
    """
    values = _questions(values)
    n = len(values)
    return float((stats.t.ppf(0.975, n - 1) + stats.norm.ppf(power)) * values.std(ddof=1) / math.sqrt(n))


def against_published(values: np.ndarray, published: float) -> Estimate:
    """Our mean of values in [0, 1] less a published score in [0, 1], with the unpaired interval.

    Nothing is known of the single questions behind the published score. It is taken to rest on as many questions with
    the same spread, so its error is as large as ours. Where all our values are equal, this is Newcombe's interval, from
    the Wilson intervals of both scores (docs/evaluation.md §6.3).
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

    correct: the number c of right samples of each question (n,), out of `samples`. `bootstrap` of the result gives the
    interval (docs/evaluation.md §6.4). ValueError for a k or a c that is impossible.
    """
    correct = np.asarray(correct)
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs k of at least 1, and k samples of each question; found {samples}")
    if ((correct < 0) | (correct > samples)).any():
        raise ValueError(f"right samples must be 0 to {samples}, found {correct.min()} to {correct.max()}")
    return 1 - special.comb(samples - correct, k) / special.comb(samples, k)


def cons_at_k(answers: Sequence[Sequence[str | None]], truth: Sequence[str], k: int, seed: int = 0) -> np.ndarray:
    """Chance (n,) that the most frequent of k answers is right; ties count by their expectation.

    answers: the extracted answers of each question in canonical form (integers, option ids); None stands for a sample
    without an answer, which does not vote. truth: the right answer of each question. Where k is below the number of
    samples, it is the mean over RESAMPLES random subsets of k (docs/evaluation.md §6.4).
    """
    rng = np.random.default_rng(seed)
    return np.array([_consensus(a, t, k, rng) for a, t in zip(answers, truth, strict=True)])


def _consensus(answers: Sequence[str | None], truth: str, k: int, rng: np.random.Generator) -> float:
    """`cons_at_k` of one question."""
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
    """The values as floats. ValueError for fewer than 2."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 questions, found {len(values)}")
    return values


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b (n,). ValueError where they are not as many."""
    if len(a) != len(b):
        raise ValueError(f"paired values need the same questions, found {len(a)} and {len(b)}")
    return np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
