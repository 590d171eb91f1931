r"""Compiled loops over rows for Arcee Fusion on a CPU; `fusion` has the definitions, `fusion_blocks` the calls.

    base, other -- exact_divergence --> kl (rows,) float64, and histogram of the upper halves of the scores
                   bf16_terms       --> terms of the released divergence, which torch adds up
    + kl        -- count_high       --> histogram of the upper halves of the scores   \ quantiles, threshold
                -- count_low        --> histograms of the lower halves, where wanted  /
    + threshold -- fuse_rows        --> merged rows, and their `fusion.COUNTS`
    + mask      -- take_rows        --> the same, of entries that something else chose (`methods.placebo`)

One pass over the memory does here what tensor operations do in ten. Rows come as float32, or as bfloat16 in uint16
(`float_bits`). One thread works on a row from its first entry to its last, so results do not depend on the number of
threads. `mode` is a reading of fusion and the dtype it computes in; scores are importances.
"""

import numba
import numpy as np

from tinyr1.merge.float_bits import (
    STRICT,
    ZERO,
    bf16_bits,
    bits,
    entry,
    from_bits,
    ordered,
    stored,
    to_bf16,
    trailing_zeros,
    value_of,
)  # fmt: skip

EXACT, RELEASED_BF16, RELEASED_FP32, PAPER = range(4)  # modes; `exact` and `paper` compute in float32 and float64
SERIES_LIMIT = 0.5  # |z| up to which `_remainder_ratio` reaches double precision
SQUARINGS = 6  # exp(x) = exp(x / 64) ** 64, for -EXP_LIMIT <= x <= 0
EXP_LIMIT = 4.0
WEIGHT_LIMIT = np.float32(2)  # |entry| up to which `_moments` has six digits, which holds for nearly all weights
DELTA_LIMITS = np.float32(1e-15), np.float32(0.01)  # |difference| for which the series in `_kl` has six digits
SPAN = 1024  # entries whose single-precision sums keep six digits, and whose scratch stays in the nearest cache
LANES = 4  # histograms side by side: a counter cannot be raised twice in a row without waiting for the first time

# Sums may be taken in vector lanes, and inputs are finite (`all_finite`); no other rule of arithmetic is relaxed.
_LANES = {"fastmath": {"reassoc", "contract", "nsz", "nnan"}, **STRICT}


@numba.njit(**_LANES)
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


@numba.njit(**_LANES)
def _remainder_ratio(z):
    """(e^-z - 1 + z) / z² for |z| <= SERIES_LIMIT, to 1e-14; no term cancels."""
    tail = 1 / 40320 + z * (-1 / 362880 + z * (1 / 3628800 + z * (-1 / 39916800 + z * (1 / 479001600))))
    return 1 / 2 + z * (-1 / 6 + z * (1 / 24 + z * (-1 / 120 + z * (1 / 720 + z * (-1 / 5040 + z * tail)))))


@numba.njit(**_LANES)
def _moments(base, other):
    """Σ p, Σ p d, … Σ p d⁴ of p = exp(other), d = other - base, and the largest |other| and |d|; SPAN entries at most.

    exp(x) is the eighth power of a Taylor polynomial at x / 8: to 1e-6 up to |x| = WEIGHT_LIMIT.
    """
    # Single-precision constants: one double among them would widen the loop and halve the lanes.
    one, eighth = np.float32(1), np.float32(1 / 8)
    c2, c3, c4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
    c5, c6 = np.float32(1 / 120), np.float32(1 / 720)
    s0 = s1 = s2 = s3 = s4 = np.float32(0)
    top = widest = np.uint32(0)
    for j in range(other.size):
        x = entry(other, j)
        d = x - entry(base, j)
        # Bits without the sign order like magnitudes, and a maximum of integers needs no rule for NaNs.
        top = max(top, bits(x) & np.uint32(0x7FFFFFFF))
        widest = max(widest, bits(d) & np.uint32(0x7FFFFFFF))
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
    return s0, s1, s2, s3, s4, from_bits(top), from_bits(widest)


@numba.njit(**STRICT)
def _kl(base, other, weight, delta):
    """KL(softmax(other) ‖ softmax(base)) of one row in nats; weight and delta are float64 scratch rows.

    The form of `fusion.row_divergence`, log(1 + E_p[e^-z - 1 + z]). For branches of one backbone z is small, and the
    expectation is its series in the central moments of d, which one pass over the row gives.
    """
    # Spans are summed in single precision and added up in double precision, so that long rows keep six digits.
    a0 = a1 = a2 = a3 = a4 = 0.0
    top = widest = np.float32(0)
    for c in range(0, other.size, SPAN):
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


@numba.njit(**_LANES)
def _any_kl(base, other, weight, delta):
    """`_kl` of rows of any numbers, in double precision."""
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


@numba.njit(**STRICT)
def _codes(mode, base, other, kl, out):
    """`ordered` scores of the entries of a span (uint32); kl is the divergence of the row."""
    # Strict arithmetic: under the released readings every rounding decides which entries pass.
    row = np.float32(kl)
    if mode == RELEASED_BF16:
        for j in range(other.size):
            out[j] = ordered(to_bf16(abs(to_bf16(entry(other, j) - entry(base, j))) * row))
    elif mode == PAPER:
        for j in range(other.size):
            out[j] = ordered(np.float32((np.float64(entry(base, j)) - np.float64(entry(other, j))) * kl))
    else:
        for j in range(other.size):
            out[j] = ordered(abs(entry(other, j) - entry(base, j)) * row)


@numba.njit(**STRICT)
def _count_row(mode, base, other, kl, codes, counts):
    """Adds the upper half of each code of a row to counts (65536 * LANES,); LANES counters side by side are one sum."""
    for c in range(0, other.size, SPAN):
        part = other[c : c + SPAN]
        _codes(mode, base[c : c + SPAN], part, kl, codes)
        whole = part.size - part.size % LANES
        # Unrolled by hand, one lane each: neighbouring scores often share a bin, and would wait for each other.
        for j in range(0, whole, LANES):
            first = (codes[j] >> np.uint32(16)) * np.uint32(LANES)
            second = (codes[j + 1] >> np.uint32(16)) * np.uint32(LANES) + np.uint32(1)
            third = (codes[j + 2] >> np.uint32(16)) * np.uint32(LANES) + np.uint32(2)
            fourth = (codes[j + 3] >> np.uint32(16)) * np.uint32(LANES) + np.uint32(3)
            counts[first] += 1
            counts[second] += 1
            counts[third] += 1
            counts[fourth] += 1
        for j in range(whole, part.size):
            counts[(codes[j] >> np.uint32(16)) * np.uint32(LANES)] += 1


@numba.njit(**STRICT)
def _fold(lanes, counts):
    """Adds up the lanes of each counter."""
    for b in range(counts.size):
        counts[b] += lanes[LANES * b] + lanes[LANES * b + 1] + lanes[LANES * b + 2] + lanes[LANES * b + 3]


@numba.njit(**STRICT)
def exact_divergence(base, other, kl, counts):
    """Fills kl (rows,) float64 and adds the upper half of each score to counts (65536,) int64, in one pass."""
    n, lanes = other.shape[1], np.zeros(counts.size * LANES, np.uint32)
    weight, delta, codes = np.empty(n), np.empty(n), np.empty(SPAN, np.uint32)
    for i in range(other.shape[0]):
        # The scores follow at once, while the row is still in the cache.
        kl[i] = _kl(base[i], other[i], weight, delta)
        _count_row(EXACT, base[i], other[i], kl[i], codes, lanes)
    _fold(lanes, counts)


@numba.njit(**STRICT)
def count_high(mode, base, other, kl, counts):
    """Adds the upper half of each score's ordered bits to counts (65536,) int64."""
    codes, lanes = np.empty(SPAN, np.uint32), np.zeros(counts.size * LANES, np.uint32)
    for i in range(other.shape[0]):
        _count_row(mode, base[i], other[i], kl[i], codes, lanes)
    _fold(lanes, counts)


@numba.njit(**STRICT)
def _mark(codes, n, first, second, third, marks):
    """Sets marks (uint8) to 1 for those of the first n codes whose upper half is wanted and that are not 0, else 0."""
    for j in range(n):
        high = codes[j] >> np.uint32(16)
        marks[j] = ((high == first) | (high == second) | (high == third)) & (codes[j] != ZERO)
    for j in range(n, -(-n // 8) * 8):  # the caller reads marks by eights
        marks[j] = 0


@numba.njit(**STRICT)
def count_low(mode, base, other, kl, highs, counts):
    """For scores whose upper half is highs[k], k < 3, adds the lower half to counts[k]; counts is (3, 65536) int64.

    Where entries of highs are equal, the first of them counts.
    """
    # Few scores are wanted, apart from zeros. Eight marks are one uint64: most are 0 and eight entries are skipped at
    # once; of the others only the set bytes are visited. Zeros are many, and are counted by a loop of their own.
    codes, marks = np.empty(SPAN, np.uint32), np.empty(SPAN, np.uint8)
    eights = marks.view(np.uint64)
    first, second, third = highs[0], highs[1], highs[2]
    zero = ZERO >> np.uint32(16)
    zero_place = 0 if first == zero else 1 if second == zero else 2 if third == zero else -1
    for i in range(other.shape[0]):
        for c in range(0, other.shape[1], SPAN):
            part = other[i, c : c + SPAN]
            _codes(mode, base[i, c : c + SPAN], part, kl[i], codes)
            _mark(codes, part.size, first, second, third, marks)
            for e in range((part.size + 7) // 8):
                wanted = eights[e]
                while wanted:
                    code = codes[8 * e + (trailing_zeros(wanted) >> 3)]
                    wanted &= wanted - np.uint64(1)  # clears the lowest set bit, the mark just visited
                    high = code >> np.uint32(16)
                    k = 0 if high == first else 1 if high == second else 2
                    counts[k, code & np.uint32(0xFFFF)] += 1
            if zero_place >= 0:
                zeros = np.uint32(0)
                for j in range(part.size):
                    zeros += codes[j] == ZERO
                counts[zero_place, 0] += zeros


@numba.njit(**STRICT)
def bf16_terms(p, q, logs, out):
    """bfloat16 bits of p' log(p'/q') with p' = p + 1e-8, q' = q + 1e-8, every step rounded to bfloat16.

    p, q: bfloat16 bits (rows, width) of the softmax of other and of base. logs: the logarithm of every bfloat16, by its
    bits. out may not overlap p or q.
    """
    epsilon, n = np.float32(1e-8), p.shape[1]
    x, ratio = np.empty(n, np.float32), np.empty(n, np.uint32)
    for i in range(p.shape[0]):
        for j in range(n):
            x[j] = to_bf16(from_bits(np.uint32(p[i, j]) << np.uint32(16)) + epsilon)
            y = to_bf16(from_bits(np.uint32(q[i, j]) << np.uint32(16)) + epsilon)
            ratio[j] = bf16_bits(x[j] / y) >> np.uint32(16)
        # The look-ups have a loop of their own: they cannot run in vector lanes, and the loops around them can.
        for j in range(n):
            ratio[j] = np.uint32(logs[ratio[j]]) << np.uint32(16)
        for j in range(n):
            out[i, j] = np.uint16(bf16_bits(x[j] * from_bits(ratio[j])) >> np.uint32(16))


@numba.njit(**STRICT)
def fuse_rows(mode, base, other, kl, threshold, out, tally):
    """Writes the merged rows to out, which has the dtype of other; adds their `fusion.COUNTS` to tally (4,).

    An entry passes when its score is at or above the threshold; under PAPER it is above, and weighs ⌈score -
    threshold⌉. Released readings add the rounded difference, as the released code does; EXACT copies.
    """
    codes = np.empty(SPAN, np.uint32)
    limit = ordered(threshold + np.float32(0)) + np.uint32(mode == PAPER)  # the lowest code that passes; -0 + 0 is 0
    for i in range(other.shape[0]):
        for c in range(0, other.shape[1], SPAN):
            b, t, o = base[i, c : c + SPAN], other[i, c : c + SPAN], out[i, c : c + SPAN]
            if mode == EXACT:
                differing, selected, distance, taken = _copy_span(b, t, np.float32(kl[i]), threshold, o)
            else:
                _codes(mode, b, t, kl[i], codes)
                differing, selected, distance, taken = _tally_span(b, t, codes, limit)
                _add_span(mode, b, t, codes, limit, threshold, o)
            # A span sums in single precision; its sums are added up in double precision here.
            tally[0] += differing
            tally[1] += selected
            tally[2] += distance
            tally[3] += taken


@numba.njit(**_LANES)
def _add(tally, d, passes):
    """A tally (`fusion.COUNTS`) with one more entry, whose difference is d."""
    differing, selected, distance, taken = tally
    differs = d != np.float32(0)
    return (
        np.int32(differing + differs), np.int32(selected + (differs & passes)),
        distance + d * d, taken + (d * d if passes else np.float32(0)),
    )  # fmt: skip


@numba.njit(**_LANES)
def _tally_span(base, other, codes, limit):
    """Differing and selected entries of a span, its squared distance and the selected part of that."""
    tally = np.int32(0), np.int32(0), np.float32(0), np.float32(0)
    for j in range(other.size):
        d = entry(other, j) - entry(base, j)
        passes = codes[j] >= limit
        tally = _add(tally, d, passes)
    return tally


@numba.njit(**_LANES)
def _copy_span(base, other, kl, threshold, out):
    """Fuses a span under EXACT and returns the counts that `_tally_span` returns."""
    # One loop serves for both: entries are copied, so relaxed sums cannot change a bit of the result.
    tally = np.int32(0), np.int32(0), np.float32(0), np.float32(0)
    for j in range(other.size):
        d = entry(other, j) - entry(base, j)
        passes = abs(d) * kl >= threshold
        out[j] = other[j] if passes else base[j]
        tally = _add(tally, d, passes)
    return tally


@numba.njit(**STRICT)
def _add_span(mode, base, other, codes, limit, threshold, out):
    """Fuses a span under the readings that add a difference to the entry of the base."""
    if mode == RELEASED_BF16:
        for j in range(other.size):
            step = to_bf16(entry(other, j) - entry(base, j))  # bfloat16 arithmetic rounds the difference, too
            out[j] = stored(out, entry(base, j) + (step if codes[j] >= limit else np.float32(0)))
    elif mode == RELEASED_FP32:
        for j in range(other.size):
            step = entry(other, j) - entry(base, j)
            out[j] = stored(out, entry(base, j) + (step if codes[j] >= limit else np.float32(0)))
    else:
        for j in range(other.size):
            factor = np.ceil(max(np.float32(0), value_of(codes[j]) - threshold))
            out[j] = stored(out, entry(base, j) + (entry(other, j) - entry(base, j)) * factor)


@numba.njit(**STRICT)
def take_rows(base, other, mask, out, tally):
    """Writes base, and other where mask (rows, width) is true, to out; adds their `fusion.COUNTS` to tally (4,)."""
    for i in range(other.shape[0]):
        for j in range(other.shape[1]):
            taken = mask[i, j]
            out[i, j] = other[i, j] if taken else base[i, j]
            d = np.float64(entry(other[i], j)) - np.float64(entry(base[i], j))
            if d != 0:
                tally[0] += 1
                tally[1] += taken
                tally[2] += d * d
                tally[3] += d * d if taken else 0.0


@numba.njit(**STRICT)
def drawn_scores(raw, base, other, out):
    """1 - u for the uniform number u (`pruning.uniform`) of raw bits (entries,) where the entries differ, else 0.

    base, other, out: (rows, width); out is float32.
    """
    n = other.shape[1]
    for i in range(other.shape[0]):
        for j in range(n):
            drawn = np.float64(raw[i * n + j] >> np.uint64(11)) * 2.0**-53
            out[i, j] = np.float32(1.0 - drawn) if entry(other[i], j) != entry(base[i], j) else np.float32(0)


@numba.njit(**STRICT)
def count_upper(keys, counts):
    """Adds the upper half of each key (int32) to counts (65536,) int64, the lowest one first."""
    for j in range(keys.size):
        counts[(keys[j] >> 16) + 32768] += 1


@numba.njit(**STRICT)
def count_lower(keys, high, counts):
    """Adds the lower half of each key whose upper half is number `high` of `count_upper` to counts (65536,) int64."""
    for j in range(keys.size):
        if (keys[j] >> 16) + 32768 == high:
            counts[keys[j] & 0xFFFF] += 1
