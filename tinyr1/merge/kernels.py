"""Compiled loops over rows for Arcee Fusion on a CPU; `tinyr1.merge.fusion` says what they compute and calls them.

One pass over the memory where the same arithmetic as tensor operations takes ten. Rows come as float32, or as the
bits of bfloat16 (uint16). Every row is worked on by one thread from left to right, so results do not depend on the
number of threads. All functions release the GIL.
"""

import numba
import numpy as np
from numba.extending import intrinsic, overload

EXACT, RELEASED_BF16, RELEASED_FP32, PAPER = range(4)  # how `_codes` weighs a difference; see fusion.READINGS
SERIES_LIMIT = 0.5  # |z| up to which `_excess` reaches double precision
SQUARINGS = 6  # exp(x) = exp(x / 64) ** 64, for -EXP_LIMIT <= x <= 0
EXP_LIMIT = 4.0
WEIGHT_LIMIT = np.float32(2)  # |entry| and |difference| for which `_moments` has six digits, as nearly all weights
DELTA_LIMITS = np.float32(1e-15), np.float32(0.01)
SPAN = 1024  # entries that are summed in single precision, and that stay in the nearest cache
LANES = 4  # histograms side by side, as one counter cannot be raised twice in a row without waiting
ZERO = np.uint32(0x80000000)  # `_ordered` of 0

# Sums may be taken in vector lanes, and inputs are finite (`all_finite`); no other rule of arithmetic is relaxed.
_lanes = {"fastmath": {"reassoc", "contract", "nsz", "nnan"}, "error_model": "numpy", "nogil": True, "cache": True}
_strict = {"error_model": "numpy", "nogil": True, "cache": True}


def _at(row, j):  # numba compiles what is registered for the name below; Python itself never runs it
    raise NotImplementedError("compiled code only")


@overload(_at, inline="always")
def _at_compiled(row, j):
    """Entry j of a row as float32."""
    if row.dtype == numba.types.uint16:
        return lambda row, j: _from_bits(np.uint32(row[j]) << np.uint32(16))
    return lambda row, j: row[j]


def _stored(row, value):  # numba compiles what is registered for the name below; Python itself never runs it
    raise NotImplementedError("compiled code only")


@overload(_stored)
def _stored_compiled(row, value):
    """A float32 as a row holds it."""
    if row.dtype == numba.types.uint16:
        return lambda row, value: np.uint16(_bf16_bits(value) >> np.uint32(16))
    return lambda row, value: value


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


@intrinsic
def _trailing_zeros(typingctx, value):
    """How many of the lowest bits of a uint64 other than 0 are 0."""

    def code(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(numba.types.boolean, True))

    return numba.types.int64(numba.types.uint64), code


@numba.njit(**_strict)
def _ordered(value):
    """Bits of a float32 that compare, as unsigned integers, like the number itself."""
    bits = _bits(value)
    return bits ^ (np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else np.uint32(0x80000000))


@numba.njit(**_strict)
def _value(ordered):
    """The float32 behind `_ordered`."""
    return _from_bits(ordered ^ (ZERO if ordered >> np.uint32(31) else np.uint32(0xFFFFFFFF)))


@numba.njit(**_lanes)
def _moments(right, left):
    """Σ p, Σ p d, … Σ p d⁴ of p = exp(right), d = right - left, and the largest |right| and |d|; SPAN entries at most.

    exp(x) is the eighth power of a Taylor polynomial at x / 8: to 1e-6 up to |x| = WEIGHT_LIMIT.
    """
    one, eighth = np.float32(1), np.float32(1 / 8)
    c2, c3, c4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
    c5, c6 = np.float32(1 / 120), np.float32(1 / 720)
    s0 = s1 = s2 = s3 = s4 = np.float32(0)
    top = widest = np.uint32(0)
    for j in range(right.size):
        x = _at(right, j)
        d = x - _at(left, j)
        top = max(top, _bits(x) & np.uint32(0x7FFFFFFF))
        widest = max(widest, _bits(d) & np.uint32(0x7FFFFFFF))
        x *= eighth
        p = one + x * (one + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * c6)))))
        p *= p
        p *= p
        p *= p
        s0 += p
        p *= d
        s1 += p
        p *= d
        s2 += p
        p *= d
        s3 += p
        s4 += p * d
    return s0, s1, s2, s3, s4, _from_bits(top), _from_bits(widest)


@numba.njit(**_strict)
def _kl(right, left, weight, delta):
    """KL(softmax(right) ‖ softmax(left)) of one row in nats; weight and delta are float64 scratch rows.

    With d = right - left, p = softmax(right), μ = E_p[d] and z = d - μ it is log(1 + E_p[e^-z - 1 + z]): a sum of
    terms that are never negative, where Σ p log(p/q) cancels to rounding noise. For branches of one backbone z is
    small, and the expectation is its series in the central moments of d, which one pass over the row gives.
    """
    a0 = a1 = a2 = a3 = a4 = 0.0
    top = widest = np.float32(0)
    for c in range(0, right.size, SPAN):
        s0, s1, s2, s3, s4, high, wide = _moments(right[c : c + SPAN], left[c : c + SPAN])
        a0, a1, a2, a3, a4 = a0 + s0, a1 + s1, a2 + s2, a3 + s3, a4 + s4
        top, widest = max(top, high), max(widest, wide)
    if widest == 0:
        return 0.0
    if top <= WEIGHT_LIMIT and DELTA_LIMITS[0] <= widest <= DELTA_LIMITS[1]:
        m, a2, a3, a4 = a1 / a0, a2 / a0, a3 / a0, a4 / a0
        if 2 * m * m <= a2:  # otherwise the mean drowns what is sought
            second = a2 - m * m
            third = a3 - 3 * m * a2 + 2 * m * m * m
            fourth = a4 - 4 * m * a3 + 6 * m * m * a2 - 3 * m * m * m * m
            return np.log1p(second / 2 - third / 6 + fourth / 24)
    return _any_kl(right, left, weight, delta)


@numba.njit(**_lanes)
def _any_kl(right, left, weight, delta):
    """`_kl` of rows of any numbers, in double precision."""
    high = low = np.float64(_at(right, 0))
    for j in range(right.size):
        high, low = max(high, np.float64(_at(right, j))), min(low, np.float64(_at(right, j)))
    total = moment = 0.0
    for j in range(right.size):
        x = np.float64(_at(right, j)) - high
        p = _exp(x) if high - low <= EXP_LIMIT else np.exp(x)
        d = np.float64(_at(right, j)) - np.float64(_at(left, j))
        weight[j], delta[j] = p, d
        total += p
        moment += p * d
    mean, sum_ = moment / total, 0.0
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
def _codes(mode, right, left, kl, out):
    """`_ordered` importance of a span's entries (uint32); kl is the row's divergence."""
    row = np.float32(kl)
    if mode == RELEASED_BF16:
        for j in range(right.size):
            out[j] = _ordered(_to_bf16(abs(_to_bf16(_at(right, j) - _at(left, j))) * row))
    elif mode == PAPER:
        for j in range(right.size):
            out[j] = _ordered(np.float32((np.float64(_at(left, j)) - np.float64(_at(right, j))) * kl))
    else:
        for j in range(right.size):
            out[j] = _ordered(abs(_at(right, j) - _at(left, j)) * row)


@numba.njit(**_strict)
def _count_row(mode, right, left, kl, codes, counts):
    """Adds the upper half of each code of a row to counts (65536 * LANES,), of which LANES are one sum."""
    for c in range(0, right.size, SPAN):
        r = right[c : c + SPAN]
        _codes(mode, r, left[c : c + SPAN], kl, codes)
        whole = r.size - r.size % LANES
        for j in range(0, whole, LANES):
            first = (codes[j] >> np.uint32(16)) * np.uint32(LANES)
            second = (codes[j + 1] >> np.uint32(16)) * np.uint32(LANES) + np.uint32(1)
            third = (codes[j + 2] >> np.uint32(16)) * np.uint32(LANES) + np.uint32(2)
            fourth = (codes[j + 3] >> np.uint32(16)) * np.uint32(LANES) + np.uint32(3)
            counts[first] += 1
            counts[second] += 1
            counts[third] += 1
            counts[fourth] += 1
        for j in range(whole, r.size):
            counts[(codes[j] >> np.uint32(16)) * np.uint32(LANES)] += 1


@numba.njit(**_strict)
def _fold(lanes, counts):
    """Adds up the lanes of each counter."""
    for b in range(counts.size):
        counts[b] += lanes[LANES * b] + lanes[LANES * b + 1] + lanes[LANES * b + 2] + lanes[LANES * b + 3]


@numba.njit(**_strict)
def exact_divergence(right, left, kl, counts):
    """Fills kl (rows,) float64 and adds each score's upper half to counts (65536,) int64, in one pass."""
    n, lanes = right.shape[1], np.zeros(counts.size * LANES, np.uint32)
    weight, delta, codes = np.empty(n), np.empty(n), np.empty(SPAN, np.uint32)
    for i in range(right.shape[0]):
        kl[i] = _kl(right[i], left[i], weight, delta)
        _count_row(EXACT, right[i], left[i], kl[i], codes, lanes)
    _fold(lanes, counts)


@numba.njit(**_strict)
def count_high(mode, right, left, kl, counts):
    """Adds the upper half of each score's ordered bits to counts (65536,) int64."""
    codes, lanes = np.empty(SPAN, np.uint32), np.zeros(counts.size * LANES, np.uint32)
    for i in range(right.shape[0]):
        _count_row(mode, right[i], left[i], kl[i], codes, lanes)
    _fold(lanes, counts)


@numba.njit(**_strict)
def _mark(codes, n, first, second, third, marks):
    """Marks with 1 (uint8, others 0) the first n codes whose upper half is wanted, but for those of 0."""
    for j in range(n):
        high = codes[j] >> np.uint32(16)
        marks[j] = ((high == first) | (high == second) | (high == third)) & (codes[j] != ZERO)
    for j in range(n, -(-n // 8) * 8):
        marks[j] = 0


@numba.njit(**_strict)
def count_low(mode, right, left, kl, highs, counts):
    """For scores whose upper half is highs[k], k < 3, adds the lower half to counts[k]; counts is (3, 65536) int64.

    Of equal entries of highs the first one counts. Few scores are wanted, but for zeros, so eight are passed over at
    a time, and of eight those that are not wanted.
    """
    codes, marks = np.empty(SPAN, np.uint32), np.empty(SPAN, np.uint8)
    eights = marks.view(np.uint64)
    first, second, third = highs[0], highs[1], highs[2]
    zero = ZERO >> np.uint32(16)
    zero_place = 0 if first == zero else 1 if second == zero else 2 if third == zero else -1
    for i in range(right.shape[0]):
        for c in range(0, right.shape[1], SPAN):
            r = right[i, c : c + SPAN]
            _codes(mode, r, left[i, c : c + SPAN], kl[i], codes)
            _mark(codes, r.size, first, second, third, marks)
            for e in range((r.size + 7) // 8):
                wanted = eights[e]
                while wanted:
                    code = codes[8 * e + (_trailing_zeros(wanted) >> 3)]
                    wanted &= wanted - np.uint64(1)
                    high = code >> np.uint32(16)
                    k = 0 if high == first else 1 if high == second else 2
                    counts[k, code & np.uint32(0xFFFF)] += 1
            if zero_place >= 0:
                zeros = np.uint32(0)
                for j in range(r.size):
                    zeros += codes[j] == ZERO
                counts[zero_place, 0] += zeros


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
    codes = np.empty(SPAN, np.uint32)
    limit = _ordered(threshold + np.float32(0)) + np.uint32(mode == PAPER)  # the lowest code that passes; -0 + 0 is 0
    for i in range(right.shape[0]):
        for c in range(0, right.shape[1], SPAN):
            r, l, o = right[i, c : c + SPAN], left[i, c : c + SPAN], out[i, c : c + SPAN]  # noqa: E741
            if mode == EXACT:
                differing, selected, distance, taken = _copy_span(r, l, np.float32(kl[i]), threshold, o)
            else:
                _codes(mode, r, l, kl[i], codes)
                differing, selected, distance, taken = _tally_span(r, l, codes, limit)
                _add_span(mode, r, l, codes, limit, threshold, o)
            tally[0] += differing
            tally[1] += selected
            tally[2] += distance
            tally[3] += taken


@numba.njit(**_lanes)
def _add(tally, d, passes):
    """A tally (what `fusion.COUNTS` names) with one more entry, whose difference is d."""
    differing, selected, distance, taken = tally
    differs = d != np.float32(0)
    return (
        np.int32(differing + differs), np.int32(selected + (differs & passes)),
        distance + d * d, taken + (d * d if passes else np.float32(0)),
    )  # fmt: skip


@numba.njit(**_lanes)
def _tally_span(right, left, codes, limit):
    """A span's differing and selected entries, squared distance and the selected part of it."""
    tally = np.int32(0), np.int32(0), np.float32(0), np.float32(0)
    for j in range(right.size):
        d = _at(right, j) - _at(left, j)
        passes = codes[j] >= limit
        tally = _add(tally, d, passes)
    return tally


@numba.njit(**_lanes)
def _copy_span(right, left, kl, threshold, out):
    """Fuses a span under EXACT and returns what `_tally_span` does: one loop, as nothing is added that could round."""
    tally = np.int32(0), np.int32(0), np.float32(0), np.float32(0)
    for j in range(right.size):
        d = _at(right, j) - _at(left, j)
        passes = abs(d) * kl >= threshold
        out[j] = right[j] if passes else left[j]
        tally = _add(tally, d, passes)
    return tally


@numba.njit(**_strict)
def _add_span(mode, right, left, codes, limit, threshold, out):
    """Fuses a span under the readings that add a difference to the left entry."""
    if mode == RELEASED_BF16:
        for j in range(right.size):
            step = _to_bf16(_at(right, j) - _at(left, j))
            out[j] = _stored(out, _at(left, j) + (step if codes[j] >= limit else np.float32(0)))
    elif mode == RELEASED_FP32:
        for j in range(right.size):
            step = _at(right, j) - _at(left, j)
            out[j] = _stored(out, _at(left, j) + (step if codes[j] >= limit else np.float32(0)))
    else:
        for j in range(right.size):
            factor = np.ceil(max(np.float32(0), _value(codes[j]) - threshold))
            out[j] = _stored(out, _at(left, j) + (_at(right, j) - _at(left, j)) * factor)


@numba.njit(**_strict)
def all_finite(bits):
    """Whether bfloat16 bits (uint16, any shape flattened) hold neither an infinity nor a NaN."""
    worst = np.uint16(0)
    for j in range(bits.size):
        worst = max(worst, bits[j] & np.uint16(0x7FFF))
    return worst < 0x7F80
