"""Intervals and tests (docs/evaluation.md §6). The unit is the question: its samples are not independent.

Three intervals answer three questions. The one over questions (`clustered`, `proportion`, `bootstrap`) says what the
score would be on other questions of this kind. The one over samples (`resampled`) says what it would be if the same
questions were sampled again. The one over training seeds and questions (`over_seeds`) says what it would be on other
questions, of a model that is trained again. All values are numbers by question, and all intervals are 95 %. Functions
that need an interval raise ValueError where there are fewer than 2 questions.

`tinyr1.evaluate.compare` decides with them what a difference between two models shows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

LEVEL = 0.05  # of every test
ENUMERATED = 14  # questions that differ, of which all sign flips are enumerated
FLIPS = 19_999  # sign flips that are drawn at random where more questions differ
SMALLEST_P = 1e-4  # what a p-value is printed as at least; drawn flips do not tell smaller ones apart
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


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error, in the unit of the values, and the degrees of freedom of Student's t."""

    mean: float
    error: float
    freedom: float

    def estimate(self) -> Estimate:
        """The mean with its 95 % interval."""
        half = float(stats.t.ppf(1 - LEVEL / 2, self.freedom)) * self.error
        return Estimate(self.mean, self.mean - half, self.mean + half)

    def p(self) -> float:
        """Two-sided p of a true mean of 0, by the t test; 1 where the values are all 0."""
        if self.error == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))

    def equivalence(self, margin: float) -> float:
        """p of a true mean that is at least `margin` away from 0: the larger p of two one-sided t tests (TOST)."""
        room = margin - abs(self.mean)
        if self.error == 0:
            return float(room <= 0)
        return float(stats.t.sf(room / self.error, self.freedom))

    def detectable(self, level: float = LEVEL) -> float:
        """Smallest true mean that a two-sided test at this level finds in four of five repetitions.

        It is t + z standard errors (docs/evaluation.md §6.2).
        """
        return float(stats.t.ppf(1 - level / 2, self.freedom) + stats.norm.ppf(0.8)) * self.error


def mean_over(groups: Sequence[np.ndarray], span: float = 1.0) -> Mean:
    """Mean over groups (benchmarks), each counting the same, of the mean of its values (seeds, questions).

    The seeds are the trainings, the same in each group. The variance is that of the seeds' means, divided by the seeds,
    and that of each group's question means, divided by its questions; several groups share the weight. With one seed
    only the questions have a variance. The degrees of freedom are those of Welch and Satterthwaite. The noise of a
    single answer is in both parts, so the interval is a little wide (docs/evaluation.md §6.2).

    span: the largest difference that two values can have. Where no two differ, which is no proof that none ever would,
    the standard error is the one behind Wilson's interval of none in n (all questions), times the span.
    """
    groups = [_by_seed(values) for values in groups]
    by_seed = np.mean([values.mean(axis=1) for values in groups], axis=0)
    parts = [
        (values.mean(axis=0).var(ddof=1) / values.shape[1] / len(groups) ** 2, values.shape[1] - 1) for values in groups
    ]
    if len(by_seed) > 1:
        parts.append((by_seed.var(ddof=1) / len(by_seed), len(by_seed) - 1))
    variance = float(sum(part for part, _ in parts))
    if variance == 0:
        least = span * _least_error(sum(values.shape[1] for values in groups))
        return Mean(float(by_seed.mean()), least, sum(freedom for _, freedom in parts))
    freedom = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    return Mean(float(by_seed.mean()), math.sqrt(variance), float(freedom))


def difference_over(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> Mean:
    """`mean_over` of a - b: the same groups, seeds and questions of two models, values in [0, 1].

    Few questions that happen not to differ are no proof of equality. So the standard error is at least the one behind
    Wilson's interval of none in n, where n is the number of all questions: 1.96 / (n + 1.96²).
    """
    differences = [_by_seed(x) - _by_seed(y) for x, y in zip(a, b, strict=True)]
    found = mean_over(differences)
    least = _least_error(sum(values.shape[1] for values in differences))
    return Mean(found.mean, max(found.error, least), found.freedom)


def _least_error(n: int) -> float:
    """The standard error behind Wilson's interval of none in n: 1.96 / (n + 1.96²).

    It stands in where values in [0, 1] happen not to differ, which is no proof that they never do.
    """
    z = float(stats.norm.ppf(1 - LEVEL / 2))
    return z / (n + z**2)


def over_seeds(values: np.ndarray) -> Estimate:
    """Mean of values (seeds, questions) with the interval over training seeds and over questions (see `mean_over`).

    With one seed it is `clustered`.
    """
    return mean_over([values]).estimate()


def clustered(values: np.ndarray) -> Estimate:
    """Mean of per-question values (n,) with the t interval over questions.

    For pass@1 a value is the mean over the k samples of a question; this is the question-clustered interval, which
    contains the sampling noise too (docs/evaluation.md §6.1).
    """
    return averaged([values])


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

    The standard error is sqrt(sum of x (1 - x) / (k - 1)) / n, unbiased for the variance of each share of k samples,
    and at least the one behind Wilson's interval of none in n k: samples that happen to agree are no proof that others
    would (docs/evaluation.md §6.1). ValueError for k below 2.
    """
    values = _questions(values)
    if k < 2:
        raise ValueError(f"sampling noise needs at least 2 samples of a question, found {k}")
    error = math.sqrt((values * (1 - values)).sum() / (k - 1)) / len(values)
    half = float(stats.norm.ppf(0.975)) * max(error, _least_error(len(values) * k))
    mean = float(values.mean())
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def averaged(groups: Sequence[np.ndarray]) -> Estimate:
    """Mean over groups (benchmarks) of each group's mean over its questions (n_i,), with its 95 % interval.

    Every group counts the same, however many questions it has (see `mean_over`).
    """
    return mean_over([np.asarray(values)[None] for values in groups]).estimate()


def sign_flip(differences: Sequence[np.ndarray], seed: int = 0) -> float:
    """Two-sided p of no difference, by flipping the signs of the questions' differences.

    differences: one array (n_i,) for each group (benchmark), whose means count the same. Up to ENUMERATED questions
    that differ, every flip is counted; else FLIPS random ones and the observed one are (docs/evaluation.md §6.2).
    """
    weighted = np.concatenate([_questions(d) / len(d) for d in differences])
    weighted = weighted[weighted != 0]  # a sign on zero changes nothing
    n, total = len(weighted), weighted.sum()
    if n < 2:  # one difference is as far from zero with either sign
        return 1.0
    exact = n <= ENUMERATED
    if exact:
        flipped: np.ndarray = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
    else:
        drawn = np.random.default_rng(seed).integers(0, 256, (FLIPS, -(-n // 8)), dtype=np.uint8)
        flipped = np.unpackbits(drawn, axis=1, count=n)
    sums = total - 2 * (flipped @ weighted)
    extreme = int((np.abs(sums) >= abs(total) - 1e-9 * np.abs(weighted).sum()).sum())
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


def p_text(p: float) -> str:
    """A p-value for reading: two figures, and "≤ 0.0001" from there on."""
    return f"≤ {SMALLEST_P:.4f}" if p <= SMALLEST_P else np.format_float_positional(float(f"{p:.2g}"), trim="-")


def holm(p: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjusted p for a family of tests, by the same names: the family-wise error stays at the level."""
    adjusted: dict[Name, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p}


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


def repeated(values: np.ndarray, k: int, published: float, their_k: int) -> Mean:
    """Our mean of values in [0, 1], shares of k samples, less a published one of their_k samples of the same questions.

    The questions are the same, so that only the samples of both are drawn. The spread of theirs is taken to be ours,
    question by question: the variance is sum of x (1 - x) / (k - 1) x (1 + k / their_k) / n². One sample of a question
    says nothing of its spread; then the binomial variance of the mean stands in, which is the most that it can be. Each
    error is at least the one behind Wilson's interval of none in all samples (docs/evaluation.md §6.3).
    """
    values = _questions(values)
    n, mean = len(values), float(values.mean())
    spread = (values * (1 - values)).sum() / (k - 1) if k > 1 else n * mean * (1 - mean)
    least = math.hypot(_least_error(n * k), _least_error(n * their_k))
    return Mean(mean - published, max(math.sqrt(spread * (1 + k / their_k)) / n, least), math.inf)


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
    # Binomial coefficients of thousands overflow; the product of the factors of their quotient does not. It is 0 where
    # fewer than k samples are wrong, from the factor of k on.
    first = np.maximum(samples - correct + 1, k)
    return np.array([1 - np.prod(1 - k / np.arange(start, samples + 1)) for start in first])


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


def _by_seed(values: np.ndarray) -> np.ndarray:
    """The values (seeds, questions) as floats. ValueError for fewer than 2 questions."""
    values = np.asarray(values, dtype=float)
    _questions(values.T)
    return values


def _questions(values: np.ndarray) -> np.ndarray:
    """The values as floats. ValueError for fewer than 2."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 questions, found {len(values)}")
    return values
