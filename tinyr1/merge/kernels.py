r"""Compiled loops over rows for Arcee Fusion on a CPU; `fusion` has the definitions, `fusion_blocks` the calls.

    base, other -- exact_divergence --> kl (rows,) float64, and what count_high gives
                   bf16_terms       --> terms of the released divergence, which torch adds up
    + kl        -- count_high       --> histogram of the upper bits of all scores, or of a sample -> brackets
    + brackets  -- count_low        --> scores below each bracket, and histograms of those inside -> quartiles
    + threshold -- fuse_rows        --> merged rows, and their `fusion.COUNTS`
    + mask      -- take_rows        --> the same, of entries that something else chose (`methods.placebo`)

One pass over the memory does here what tensor operations do in ten. Rows come as float32, or as bfloat16 in uint16
(`float_bits`). One thread works on a row from its first entry to its last, so results do not depend on the number of
threads. `mode` is a reading of fusion and the dtype it computes in; scores are importances.
"""

import numba
import numpy as np

from tinyr1.merge.float_bits import (
    ANY_ORDER,
    SPAN,
    STRICT,
    ZERO,
    bf16_bits,
    entry,
    fetch,
    from_bits,
    ordered,
    stored,
    to_bf16,
    trailing_zeros,
    value_of,
)  # fmt: skip
from tinyr1.merge.row_kl import row_kl

EXACT, RELEASED_BF16, RELEASED_FP32, PAPER = range(4)  # modes; `exact` and `paper` compute in float32 and float64
SHARE, FINE_BITS = 16, 18  # a sample takes one score in SHARE, and counts it by its upper FINE_BITS bits
BRACKETS = 3  # of `count_low`, one for each quartile
COPIES = 4  # histograms side by side: a counter cannot be raised twice in a row without waiting for the first time


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
    """Adds the upper half of each code of a row to counts (65536 * COPIES,), where COPIES side by side are one sum."""
    for c in range(0, other.size, SPAN):
        part = other[c : c + SPAN]
        _codes(mode, base[c : c + SPAN], part, kl, codes)
        whole = part.size - part.size % COPIES
        # Unrolled by hand, one copy each: neighbouring scores often share a bin, and would wait for each other.
        for j in range(0, whole, COPIES):
            first = (codes[j] >> np.uint32(16)) * np.uint32(COPIES)
            second = (codes[j + 1] >> np.uint32(16)) * np.uint32(COPIES) + np.uint32(1)
            third = (codes[j + 2] >> np.uint32(16)) * np.uint32(COPIES) + np.uint32(2)
            fourth = (codes[j + 3] >> np.uint32(16)) * np.uint32(COPIES) + np.uint32(3)
            counts[first] += 1
            counts[second] += 1
            counts[third] += 1
            counts[fourth] += 1
        for j in range(whole, part.size):
            counts[(codes[j] >> np.uint32(16)) * np.uint32(COPIES)] += 1


@numba.njit(**STRICT)
def _sample_row(mode, base, other, kl, row, codes, counts):
    """Adds the upper FINE_BITS bits of some codes of a row to counts (2 ** FINE_BITS,)."""
    # One part of a row, another one in each row, so that nearly all columns are counted equally often.
    part = max(1, other.size // SHARE)
    first = row % (other.size // part) * part
    for c in range(first, first + part, SPAN):
        last = min(c + SPAN, first + part)
        _codes(mode, base[c:last], other[c:last], kl, codes)
        for j in range(last - c):
            counts[codes[j] >> np.uint32(32 - FINE_BITS)] += 1


@numba.njit(**STRICT)
def exact_divergence(base, other, kl, start, sampled, counts):
    """Fills kl (rows,) float64 and adds the scores to counts, as `count_high` does, in one pass."""
    n = other.shape[1]
    weight, delta, codes = np.empty(n), np.empty(n), np.empty(SPAN, np.uint32)
    for i in range(other.shape[0]):
        # The scores follow at once, while the row is still in the cache.
        kl[i] = row_kl(base[i], other[i], weight, delta)
        if sampled:
            _sample_row(EXACT, base[i], other[i], kl[i], start + i, codes, counts)
        else:
            _count_row(EXACT, base[i], other[i], kl[i], codes, counts)


@numba.njit(**STRICT)
def count_high(mode, base, other, kl, start, sampled, counts):
    """Adds the upper half of each score's ordered bits to counts (65536 * COPIES,) int64; COPIES of them are one sum.

    sampled: adds the upper FINE_BITS bits of one score in SHARE to counts (2 ** FINE_BITS,) instead. start: number of
    the first row in its tensor.
    """
    codes = np.empty(SPAN, np.uint32)
    for i in range(other.shape[0]):
        if sampled:
            _sample_row(mode, base[i], other[i], kl[i], start + i, codes, counts)
        else:
            _count_row(mode, base[i], other[i], kl[i], codes, counts)


@numba.njit(**STRICT)
def fold(counts):
    """(65536,) int64: the sums over the COPIES of each counter of `count_high`."""
    sums = np.empty(counts.size // COPIES, np.int64)
    for b in range(sums.size):
        sums[b] = counts[COPIES * b : COPIES * (b + 1)].sum()
    return sums


@numba.njit(**STRICT)
def _mark(codes, edges, sizes, marks, below):
    """Sets marks (uint8) to 1 for the codes that are in a bracket and not 0, else to 0.

    Bracket k: codes from edges[k] on, sizes[k] of them. Adds the codes below each bracket to below (3,) int64.
    """
    first, second, third = edges[0], edges[1], edges[2]
    one, two, three = sizes[0], sizes[1], sizes[2]
    under_first = under_second = under_third = np.uint32(0)
    # Numba computes with integers in 64 bits: cut back to 32, twice as many fit into a vector.
    for j in range(codes.size):
        code = codes[j]
        # A code below the edge wraps around to a number above all sizes.
        inside = (np.uint32(code - first) < one) | (np.uint32(code - second) < two) | (np.uint32(code - third) < three)
        marks[j] = inside & (code != ZERO)
    for j in range(codes.size):
        code = codes[j]
        under_first = np.uint32(under_first + np.uint32(code < first))
        under_second = np.uint32(under_second + np.uint32(code < second))
        under_third = np.uint32(under_third + np.uint32(code < third))
    below[0] += under_first
    below[1] += under_second
    below[2] += under_third


@numba.njit(**STRICT)
def count_low(mode, base, other, kl, edges, sizes, below, counts):
    """Adds each score that is in one of three brackets to counts, and the number below each bracket to below (3,).

    edges, sizes: uint32 (3,), first ordered bits of a bracket and how many there are, 0 for none; brackets do not
    overlap. counts: int64, one for each code of the first bracket, then those of the second and of the third.
    """
    # Few scores are wanted, apart from zeros. Eight marks are one uint64: most are 0 and eight entries are skipped at
    # once; of the others only the set bytes are visited. Zeros are many, and are counted by a loop of their own.
    codes, marks = np.empty(SPAN, np.uint32), np.empty(SPAN, np.uint8)
    eights = marks.view(np.uint64)
    zero_place, begin = -1, np.zeros(3, np.int64)
    for k in range(3):
        if np.uint32(ZERO - edges[k]) < sizes[k]:
            zero_place = begin[k] + np.int64(np.uint32(ZERO - edges[k]))
        begin[k + 1 :] += np.int64(sizes[k])
    for i in range(other.shape[0]):
        for c in range(0, other.shape[1], SPAN):
            part = other[i, c : c + SPAN]
            fetch(base[i], c)
            fetch(other[i], c)
            _codes(mode, base[i, c : c + SPAN], part, kl[i], codes)
            _mark(codes[: part.size], edges, sizes, marks[: part.size], below)
            marks[part.size : -(-part.size // 8) * 8] = 0  # they are read by eights
            for e in range((part.size + 7) // 8):
                wanted = eights[e]
                while wanted:
                    code = codes[8 * e + (trailing_zeros(wanted) >> 3)]
                    wanted &= wanted - np.uint64(1)  # clears the lowest set bit, the mark just visited
                    k = 0
                    while np.uint32(code - edges[k]) >= sizes[k]:
                        k += 1
                    counts[begin[k] + np.int64(np.uint32(code - edges[k]))] += 1
            if zero_place >= 0:
                zeros = np.uint32(0)
                for j in range(part.size):
                    zeros += np.uint32(codes[j] == ZERO)
                counts[zero_place] += zeros


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
def fuse_rows(mode, base, other, kl, threshold, counted, out, tally):
    """Writes the merged rows to out, which has the dtype of other; counted: adds their `fusion.COUNTS` to tally (4,).

    An entry passes when its score is at or above the threshold; under PAPER it is above, and weighs ⌈score -
    threshold⌉. Released readings add the rounded difference, as the released code does; EXACT copies.
    """
    codes = np.empty(SPAN, np.uint32)
    limit = ordered(threshold + np.float32(0)) + np.uint32(mode == PAPER)  # the lowest code that passes; -0 + 0 is 0
    for i in range(other.shape[0]):
        for c in range(0, other.shape[1], SPAN):
            fetch(base[i], c)
            fetch(other[i], c)
            b, t, o = base[i, c : c + SPAN], other[i, c : c + SPAN], out[i, c : c + SPAN]
            differing, selected, distance, taken = np.int32(0), np.int32(0), np.float32(0), np.float32(0)
            if mode == EXACT and counted:
                differing, selected, distance, taken = _count_and_copy_span(b, t, np.float32(kl[i]), threshold, o)
            elif mode == EXACT:
                _copy_span(b, t, np.float32(kl[i]), threshold, o)
            else:
                _codes(mode, b, t, kl[i], codes)
                if counted:
                    differing, selected, distance, taken = _tally_span(b, t, codes, limit)
                _add_span(mode, b, t, codes, limit, threshold, o)
            # A span sums in single precision; its sums are added up in double precision here.
            tally[0] += differing
            tally[1] += selected
            tally[2] += distance
            tally[3] += taken


@numba.njit(**STRICT)
def _copy_span(base, other, kl, threshold, out):
    """Fuses a span under EXACT."""
    for j in range(other.size):
        passes = abs(entry(other, j) - entry(base, j)) * kl >= threshold
        out[j] = other[j] if passes else base[j]


@numba.njit(**ANY_ORDER)
def _add(tally, d, passes):
    """A tally (`fusion.COUNTS`) with one more entry, whose difference is d."""
    differing, selected, distance, taken = tally
    differs = d != np.float32(0)
    return (
        np.int32(differing + differs), np.int32(selected + (differs & passes)),
        distance + d * d, taken + (d * d if passes else np.float32(0)),
    )  # fmt: skip


@numba.njit(**ANY_ORDER)
def _tally_span(base, other, codes, limit):
    """Differing and selected entries of a span, its squared distance and the selected part of that."""
    tally = np.int32(0), np.int32(0), np.float32(0), np.float32(0)
    for j in range(other.size):
        d = entry(other, j) - entry(base, j)
        passes = codes[j] >= limit
        tally = _add(tally, d, passes)
    return tally


@numba.njit(**ANY_ORDER)
def _count_and_copy_span(base, other, kl, threshold, out):
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
