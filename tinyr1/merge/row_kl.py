r"""The divergence of one row, compiled: KL(softmax(other) ‖ softmax(base)); `fusion.row_divergence` has the definition.

    row of base, row of other --_moments--> Σ p d^k, span by span (SPAN)  --series in z--> nats
                                        \-- where the series does not reach: _any_kl, in double precision

The sums of `_moments` have the same bits on every processor (`lanes`), and with them the divergence of nearly all rows
of branches. Those of `_any_kl` have not: their order is the compiler's.
After a change here, remove the *.nbi files in __pycache__ (`float_bits`).
"""

import numba
import numpy as np

from tinyr1.merge.float_bits import ANY_ORDER, SPAN, STRICT, entry, fetch
from tinyr1.merge.lanes import WIDTH, fma, larger, largest, load, splat, total

SERIES_LIMIT = 0.5  # |z| up to which `_remainder_ratio` reaches double precision
SQUARINGS = 6  # exp(x) = exp(x / 64) ** 64, for -EXP_LIMIT <= x <= 0
EXP_LIMIT = 4.0
WEIGHT_LIMIT = np.float32(2)  # |entry| up to which `_moments` has six digits, which holds for nearly all weights
# 1 / k!, in single precision: one double among them would halve the lanes.
C2, C3, C4, C5, C6 = (np.float32(1 / k) for k in (2, 6, 24, 120, 720))
NOUGHT, EIGHTH, ONE = np.float32(0), np.float32(1 / 8), np.float32(1)
DELTA_LIMITS = np.float32(1e-15), np.float32(0.01)  # |difference| for which the series in `row_kl` has six digits


@numba.njit(**ANY_ORDER)
def _exp(x):
    """exp of -EXP_LIMIT <= x <= 0 to 1e-14: a Taylor polynomial at x / 64, then six squarings."""
    # A polynomial runs in vector lanes; a call of the library's exp for each entry would not.
    x *= 1.0 / (1 << SQUARINGS)
    y = 1 + x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x * (1 / 5040)))))))
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    return y * y


@numba.njit(**ANY_ORDER)
def _remainder_ratio(z):
    """(e^-z - 1 + z) / z² for |z| <= SERIES_LIMIT, to 1e-14; no term cancels."""
    tail = 1 / 40320 + z * (-1 / 362880 + z * (1 / 3628800 + z * (-1 / 39916800 + z * (1 / 479001600))))
    return 1 / 2 + z * (-1 / 6 + z * (1 / 24 + z * (-1 / 120 + z * (1 / 720 + z * (-1 / 5040 + z * tail)))))


@numba.njit(**STRICT)
def _weight(x):
    """exp(x), the eighth power of a Taylor polynomial at x / 8: to 1e-6 up to |x| = WEIGHT_LIMIT. Lanes or float32."""
    x = x * EIGHTH
    p = fma(x, fma(x, fma(x, fma(x, fma(x, fma(x, C6, C5), C4), C3), C2), ONE), ONE)
    p = p * p
    p = p * p
    return p * p


@numba.njit(**STRICT)
def _moments(base, other):
    """Σ p, Σ p d, … Σ p d⁴ of p = exp(other) and d = other - base, and the largest |other| and |d|, of one span."""
    v0 = v1 = v2 = v3 = v4 = v_top = v_widest = splat(NOUGHT)
    eights = other.size - other.size % WIDTH
    for j in range(0, eights, WIDTH):
        x = load(other, j)
        d = x - load(base, j)
        v_top, v_widest = larger(v_top, x), larger(v_widest, d)
        p = _weight(x)
        v0 = v0 + p
        p = p * d
        v1 = v1 + p
        p = p * d
        v2 = v2 + p
        p = p * d
        v3 = v3 + p
        v4 = fma(p, d, v4)
    s0, s1, s2, s3, s4 = total(v0), total(v1), total(v2), total(v3), total(v4)
    top, widest = largest(v_top), largest(v_widest)
    for j in range(eights, other.size):
        x = entry(other, j)
        d = x - entry(base, j)
        top, widest = larger(top, x), larger(widest, d)
        p = _weight(x)
        s0 += p
        p *= d
        s1 += p
        p *= d
        s2 += p
        p *= d
        s3 += p
        s4 = fma(p, d, s4)
    return s0, s1, s2, s3, s4, top, widest


@numba.njit(**STRICT)
def row_kl(base, other, weight, delta):
    """KL(softmax(other) ‖ softmax(base)) of one row in nats; weight and delta are float64 scratch rows.

    The form of `fusion.row_divergence`, log(1 + E_p[e^-z - 1 + z]). For branches of one backbone z is small, and the
    expectation is its series in the central moments of d, which one pass over the row gives.
    """
    # Spans are summed in single precision and added up in double precision, so that long rows keep six digits.
    a0 = a1 = a2 = a3 = a4 = 0.0
    top = widest = np.float32(0)
    for c in range(0, other.size, SPAN):
        fetch(base, c)
        fetch(other, c)
        s0, s1, s2, s3, s4, high, wide = _moments(base[c : c + SPAN], other[c : c + SPAN])
        a0, a1, a2, a3, a4 = a0 + s0, a1 + s1, a2 + s2, a3 + s3, a4 + s4
        top, widest = max(top, high), max(widest, wide)
    if widest == 0:
        return 0.0
    if top <= WEIGHT_LIMIT and DELTA_LIMITS[0] <= widest <= DELTA_LIMITS[1]:
        m, a2, a3, a4 = a1 / a0, a2 / a0, a3 / a0, a4 / a0
        if 2 * m * m <= a2:  # otherwise a2 - m² cancels, since nearly all of the moment is the mean
            second = a2 - m * m
            third = a3 - 3 * m * a2 + 2 * m * m * m
            fourth = a4 - 4 * m * a3 + 6 * m * m * a2 - 3 * m * m * m * m
            return np.log1p(second / 2 - third / 6 + fourth / 24)
    return _any_kl(base, other, weight, delta)


@numba.njit(**ANY_ORDER)
def _any_kl(base, other, weight, delta):
    """`row_kl` of rows of any numbers, in double precision."""
    high = low = np.float64(entry(other, 0))
    for j in range(other.size):
        high, low = max(high, np.float64(entry(other, j))), min(low, np.float64(entry(other, j)))
    total = moment = 0.0
    for j in range(other.size):
        x = np.float64(entry(other, j)) - high  # at most 0, so that exp cannot overflow
        p = _exp(x) if high - low <= EXP_LIMIT else np.exp(x)
        d = np.float64(entry(other, j)) - np.float64(entry(base, j))
        weight[j], delta[j] = p, d
        total += p
        moment += p * d
    mean, sum_ = moment / total, 0.0
    for j in range(other.size):
        z = delta[j] - mean
        sum_ += weight[j] * (z * z * _remainder_ratio(z) if abs(z) <= SERIES_LIMIT else np.expm1(-z) + z)
    return np.log1p(sum_ / total)
