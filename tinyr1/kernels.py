"""Compiled loops over rows for Arcee Fusion on a CPU; `tinyr1.fusion` says what they compute and calls them.

One pass over the memory where the same arithmetic as tensor operations takes ten. Rows come as float32, or as the
bits of bfloat16 (uint16). Every row is worked on by one thread from left to right, so results do not depend on the
number of threads. All functions release the GIL.
"""

import numba
import numpy as np
from numba.extending import intrinsic, overload

from tinyr1.quantiles import BINS

EXACT, RELEASED_BF16, RELEASED_FP32, PAPER = range(4)  # how `_scores` weighs a difference; see fusion.READINGS
SERIES_LIMIT, SHORT_LIMIT = 0.5, 0.02  # |z| up to which the series below reach double precision
SQUARINGS = 6  # exp(x) = exp(x / 64) ** 64, for -EXP_LIMIT <= x <= 0
EXP_LIMIT = 4.0

# Sums may be taken in vector lanes, and inputs are finite (`all_finite`); no other rule of arithmetic is relaxed.
_lanes = {"fastmath": {"reassoc", "contract", "nsz", "nnan"}, "error_model": "numpy", "nogil": True, "cache": True}
_strict = {"error_model": "numpy", "nogil": True, "cache": True}


def _widen(row, out):
    raise NotImplementedError("compiled code only")


@overload(_widen, inline="always")
def _widen_compiled(row, out):
    if row.dtype == numba.types.uint16:

        def widen(row, out):
            bits = out.view(np.uint32)
            for j in range(row.size):
                bits[j] = np.uint32(row[j]) << np.uint32(16)
    else:

        def widen(row, out):
            for j in range(row.size):
                out[j] = row[j]

    return widen


@numba.njit(**_lanes)
def _exp(x):
    """exp of -EXP_LIMIT <= x <= 0 to 1e-14: a Taylor polynomial at x / 64, then six squarings."""
    x *= 1.0 / (1 << SQUARINGS)
    y = 1 + x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x * (1 / 5040)))))))
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    return y * y


@numba.njit(**_lanes)
def _excess(z):
    """(e^-z - 1 + z) / z² for |z| <= SERIES_LIMIT, to 1e-14; no term cancels."""
    tail = 1 / 40320 + z * (-1 / 362880 + z * (1 / 3628800 + z * (-1 / 39916800 + z * (1 / 479001600))))
    return 1 / 2 + z * (-1 / 6 + z * (1 / 24 + z * (-1 / 120 + z * (1 / 720 + z * (-1 / 5040 + z * tail)))))


@numba.njit(**_lanes)
def _short_excess(z):
    """The same for |z| <= SHORT_LIMIT, which holds for branches of one backbone."""
    return 1 / 2 + z * (-1 / 6 + z * (1 / 24 + z * (-1 / 120 + z * (1 / 720 + z * (-1 / 5040)))))


@intrinsic
def _bits(typingctx, value):
    """The bits of a float32 as uint32."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.uint32))

    return numba.types.uint32(numba.types.float32), code


@intrinsic
def _from_bits(typingctx, value):
    """A float32 from its bits (uint32)."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(numba.types.float32))

    return numba.types.float32(numba.types.uint32), code


@numba.njit(**_strict)
def _ordered(value):
    """Bits of a float32 that compare, as unsigned integers, like the number itself."""
    bits = _bits(value)
    return bits ^ (np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else np.uint32(0x80000000))


@numba.njit(**_strict)
def _value(ordered):
    """The float32 behind `_ordered`."""
    return _from_bits(ordered ^ (np.uint32(0x80000000) if ordered >> np.uint32(31) else np.uint32(0xFFFFFFFF)))


@numba.njit(**_strict)
def _extent(right, left):
    """(largest entry, largest - smallest entry, largest |right - left|) of a row; integers, as lanes need."""
    high, low, widest = np.uint32(0), np.uint32(0xFFFFFFFF), np.uint32(0)
    for j in range(right.size):
        bits = _ordered(right[j])
        high, low = max(high, bits), min(low, bits)
        widest = max(widest, _bits(right[j] - left[j]) & np.uint32(0x7FFFFFFF))
    top = np.float64(_value(high))
    return top, top - np.float64(_value(low)), np.float64(_from_bits(widest))


@numba.njit(**_lanes)
def _kl(right, left, weight, delta):
    """KL(softmax(right) ‖ softmax(left)) of one row in nats; weight and delta are float64 scratch rows.

    With d = right - left, p = softmax(right), μ = E_p[d] and z = d - μ it is log(1 + E_p[e^-z - 1 + z]): a sum of
    terms that are never negative, where Σ p log(p/q) cancels to rounding noise.
    """
    high, spread, widest = _extent(right, left)
    total = moment = 0.0
    if spread <= EXP_LIMIT:
        for j in range(right.size):
            p = _exp(np.float64(right[j]) - high)
            d = np.float64(right[j]) - np.float64(left[j])
            weight[j], delta[j] = p, d
            total += p
            moment += p * d
    else:
        for j in range(right.size):
            p = np.exp(np.float64(right[j]) - high)
            d = np.float64(right[j]) - np.float64(left[j])
            weight[j], delta[j] = p, d
            total += p
            moment += p * d
    mean, sum_ = moment / total, 0.0
    if 2 * widest <= SHORT_LIMIT:
        for j in range(right.size):
            z = delta[j] - mean
            sum_ += weight[j] * (z * z * _short_excess(z))
    elif 2 * widest <= SERIES_LIMIT:
        for j in range(right.size):
            z = delta[j] - mean
            sum_ += weight[j] * (z * z * _excess(z))
    else:
        for j in range(right.size):
            z = delta[j] - mean
            sum_ += weight[j] * (z * z * _excess(z) if abs(z) <= SERIES_LIMIT else np.expm1(-z) + z)
    return np.log1p(sum_ / total)


@numba.njit(**_strict)
def _to_bf16(value):
    """A float32 rounded to the nearest bfloat16, ties to even, as float32."""
    return _from_bits(_bf16_bits(value))


@numba.njit(**_strict)
def _bf16_bits(value):
    bits = _bits(np.float32(value))
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint32((bits + rounding) & np.uint32(0xFFFF0000))


@numba.njit(**_strict)
def _scores(mode, right, left, kl, out):
    """Importance of one row's entries as float32; kl is the row's divergence."""
    if mode == EXACT:
        for j in range(right.size):
            out[j] = np.float32(abs(np.float64(right[j]) - np.float64(left[j])) * kl)
    elif mode == RELEASED_BF16:
        row = np.float32(kl)
        for j in range(right.size):
            out[j] = _to_bf16(abs(_to_bf16(right[j] - left[j])) * row)
    elif mode == RELEASED_FP32:
        row = np.float32(kl)
        for j in range(right.size):
            out[j] = abs(right[j] - left[j]) * row
    else:
        for j in range(right.size):
            out[j] = np.float32((np.float64(left[j]) - np.float64(right[j])) * kl)


@numba.njit(**_strict)
def _count_high(scores, counts):
    for j in range(scores.size):
        counts[_ordered(scores[j]) >> np.uint32(16)] += 1


@numba.njit(**_strict)
def exact_divergence(right, left, kl, counts):
    """Fills kl (rows,) float64 and adds each score's upper half to counts (65536,), in one pass."""
    n = right.shape[1]
    r, l, s = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)  # noqa: E741
    weight, delta = np.empty(n), np.empty(n)
    for i in range(right.shape[0]):
        _widen(right[i], r)
        _widen(left[i], l)
        kl[i] = _kl(r, l, weight, delta)
        _scores(EXACT, r, l, kl[i], s)
        _count_high(s, counts)


@numba.njit(**_strict)
def count_high(mode, right, left, kl, counts):
    """Adds the upper half of each score's ordered bits to counts (65536,)."""
    n = right.shape[1]
    r, l, s = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)  # noqa: E741
    for i in range(right.shape[0]):
        _widen(right[i], r)
        _widen(left[i], l)
        _scores(mode, r, l, kl[i], s)
        _count_high(s, counts)


@numba.njit(**_strict)
def count_low(mode, right, left, kl, highs, counts):
    """For scores whose upper half is highs[k], k < 3, adds the lower half to counts[k]; counts is (4, 65536).

    Of equal entries of highs the first one counts. The last row takes all other scores, so that no branch has to
    be guessed; it means nothing.
    """
    n, flat = right.shape[1], counts.reshape(-1)
    r, l, s = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)  # noqa: E741
    places = s.view(np.uint32)
    first, second, third = highs[0], highs[1], highs[2]
    for i in range(right.shape[0]):
        _widen(right[i], r)
        _widen(left[i], l)
        _scores(mode, r, l, kl[i], s)
        for j in range(n):
            bits = _ordered(s[j])
            high, low = bits >> np.uint32(16), bits & np.uint32(0xFFFF)
            place = np.uint32(3 * BINS) + (low & np.uint32(0xFF))
            place = np.uint32(2 * BINS) + low if high == third else place
            place = np.uint32(BINS) + low if high == second else place
            places[j] = low if high == first else place
        for j in range(n):
            flat[places[j]] += 1


@numba.njit(**_strict)
def terms(p, q, logs, out):
    """bfloat16 bits of p' log(p'/q') with p' = p + 1e-8, q' = q + 1e-8, every step rounded to bfloat16.

    logs: the logarithm of every bfloat16, by its bits; out may not overlap p or q.
    """
    epsilon, n = np.float32(1e-8), p.shape[1]
    x, ratio = np.empty(n, np.float32), np.empty(n, np.uint32)
    for i in range(p.shape[0]):
        for j in range(n):
            x[j] = _to_bf16(_from_bits(np.uint32(p[i, j]) << np.uint32(16)) + epsilon)
            y = _to_bf16(_from_bits(np.uint32(q[i, j]) << np.uint32(16)) + epsilon)
            ratio[j] = _bf16_bits(x[j] / y) >> np.uint32(16)
        for j in range(n):
            ratio[j] = np.uint32(logs[ratio[j]]) << np.uint32(16)
        for j in range(n):
            out[i, j] = np.uint16(_bf16_bits(x[j] * _from_bits(ratio[j])) >> np.uint32(16))


@numba.njit(**_strict)
def select(mode, right, left, kl, threshold, out, tally):
    """Writes the fused rows to out, which has the type of right; adds to tally (4,) what `fusion.COUNTS` names.

    An entry passes when its score is at or above the threshold; under PAPER it is above, and weighs ⌈score -
    threshold⌉. Released readings add the rounded difference, as the released code does; EXACT copies.
    """
    n = right.shape[1]
    r, l, s = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)  # noqa: E741
    for i in range(right.shape[0]):
        _widen(right[i], r)
        _widen(left[i], l)
        _scores(mode, r, l, kl[i], s)
        _tally_row(mode, r, l, s, threshold, tally)
        _fuse_row(mode, r, l, s, threshold)
        _narrow(s, out[i])


@numba.njit(**_lanes)
def _tally_row(mode, right, left, scores, threshold, tally):
    """Adds one row's differing and selected entries, squared distance and the selected part of it."""
    differing = selected = 0
    distance = taken = 0.0
    for j in range(right.size):
        d = np.float64(right[j]) - np.float64(left[j])
        passes = scores[j] > threshold if mode == PAPER else scores[j] >= threshold
        differs = d != 0.0
        differing += differs
        selected += differs and passes
        distance += d * d
        taken += d * d if passes else 0.0
    tally[0] += differing
    tally[1] += selected
    tally[2] += distance
    tally[3] += taken


@numba.njit(**_strict)
def _fuse_row(mode, right, left, scores, threshold):
    """Replaces the scores of one row by the fused entries."""
    if mode == EXACT:
        for j in range(right.size):
            scores[j] = right[j] if scores[j] >= threshold else left[j]
    elif mode == RELEASED_BF16:
        for j in range(right.size):
            scores[j] = left[j] + (_to_bf16(right[j] - left[j]) if scores[j] >= threshold else np.float32(0))
    elif mode == RELEASED_FP32:
        for j in range(right.size):
            scores[j] = left[j] + ((right[j] - left[j]) if scores[j] >= threshold else np.float32(0))
    else:
        for j in range(right.size):
            factor = np.ceil(max(np.float32(0), scores[j] - threshold))
            scores[j] = left[j] + (right[j] - left[j]) * factor


def _narrow(row, out):
    raise NotImplementedError("compiled code only")


@overload(_narrow, inline="always")
def _narrow_compiled(row, out):
    if out.dtype == numba.types.uint16:

        def narrow(row, out):
            for j in range(row.size):
                out[j] = np.uint16(_bf16_bits(row[j]) >> np.uint32(16))
    else:

        def narrow(row, out):
            for j in range(row.size):
                out[j] = row[j]

    return narrow


@numba.njit(**_strict)
def all_finite(bits):
    """Whether bfloat16 bits (uint16, any shape flattened) hold neither an infinity nor a NaN."""
    worst = np.uint16(0)
    for j in range(bits.size):
        worst = max(worst, bits[j] & np.uint16(0x7FFF))
    return worst < 0x7F80
