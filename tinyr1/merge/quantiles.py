"""Exact order statistics of values that come block by block, without sorting or storing them.

The bits of a float32, read as an integer, order like the float once those of negative numbers are flipped. A first
pass counts the upper 16 bits; a second one counts the lower 16 bits of the values whose upper bits were hit. Two
histograms of 65,536 bins find any rank. Values of at most 16 bits, such as bfloat16, need the first pass only.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from tinyr1.merge import kernels
from tinyr1.merge.method import RowBlock, Scan

BINS = 2**16
MARGIN = 6  # a bracket reaches so many standard deviations of its rank in a sample to either side
Values = Callable[[RowBlock], torch.Tensor]


def sort_keys(values: torch.Tensor) -> torch.Tensor:
    """int32 keys in the order of the values, flat; -0 and 0 have one key. values: float32, bfloat16 or float16."""
    if values.dtype == torch.float64:
        raise ValueError("values of dtype torch.float64 have more bits than the histograms; convert them to float32")
    bits = (values.flatten().float() + 0.0).view(torch.int32)  # -0 + 0 is 0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def value_of(key: int) -> float:
    """The float32 whose key is `key`."""
    bits = key ^ 0x7FFFFFFF if key < 0 else key
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32).item()


def histogram(keys: torch.Tensor, high: int | None = None) -> torch.Tensor:
    """(65536,) int64: how often each upper half occurs; with `high`, each lower half of the keys in that bin."""
    if keys.device.type == "cpu":  # one loop over the keys, where tensor operations take several
        counts = torch.zeros(BINS, dtype=torch.int64)
        if high is None:
            kernels.count_upper(keys.numpy(), counts.numpy())
        else:
            kernels.count_lower(keys.numpy(), high, counts.numpy())
        return counts
    upper = (keys >> 16) + BINS // 2
    if high is None:
        return torch.bincount(upper, minlength=BINS)
    return torch.bincount(keys[upper == high] & (BINS - 1), minlength=BINS)


def locate(counts: torch.Tensor, rank: int) -> tuple[int, int]:
    """(bin that holds the value of `rank`, its rank within that bin); counts (bins,), ranks from 0."""
    cumulative = counts.cumsum(0)
    if not 0 <= rank < int(cumulative[-1]):
        raise ValueError(f"rank {rank} of {int(cumulative[-1])} values does not exist; ranks count from 0")
    place = int(torch.searchsorted(cumulative, rank, right=True))
    return place, rank - int(cumulative[place] - counts[place])


def brackets(counts: torch.Tensor, ranks: Sequence[int], entries: int) -> list[tuple[int, int]]:
    """(first bin, last bin) that hold the values of some ranks, ascending; those that overlap are one.

    counts: (bins,), of `entries` values or of a sample of them. Those of a sample are no proof: whoever counts on
    inside the brackets has to check them (`inside`).
    """
    cumulative = counts.cumsum(0)
    taken = int(cumulative[-1])
    # A rank in a random sample has a standard deviation of at most half the root of its size.
    margin = 0 if taken == entries else math.ceil(MARGIN * math.sqrt(taken) / 2)
    wanted = [rank * taken // entries + step for rank in sorted(ranks) for step in (-margin, margin)]
    bins = torch.searchsorted(cumulative, torch.tensor(wanted).clamp(0, taken - 1), right=True).tolist()
    spans: list[tuple[int, int]] = []
    for first, last in zip(bins[::2], bins[1::2], strict=True):
        if spans and first <= spans[-1][1]:
            begun, ended = spans.pop()
            first, last = begun, max(last, ended)
        spans.append((first, last))
    return spans


def inside(counts: Sequence[torch.Tensor], below: Sequence[int], ranks: Sequence[int]) -> list[tuple[int, int]]:
    """(bracket, place in it) of the value of each rank, ascending; ranks that no bracket holds are left out.

    counts: of each bracket, the counts of its values in ascending order. below: how many values are below a bracket.
    """
    found = []
    for k, (mine, under) in enumerate(zip(counts, below, strict=True)):
        cumulative = mine.cumsum(0)
        held = torch.tensor([r - under for r in ranks if 0 <= r - under < int(cumulative[-1])], dtype=torch.int64)
        found += [(k, place) for place in torch.searchsorted(cumulative, held, right=True).tolist()]
    return found


def order_statistics(scan: Scan, series: Sequence[Values], ranks: Sequence[Sequence[int]]) -> list[list[float]]:
    """For each function of a block, the values of its ranks (ascending, from 0); two passes for all of them.

    Exact, on the device of the values, none of which may be NaN. Meant for few ranks: each needs 512 KiB.
    """

    def upper(block: RowBlock) -> tuple[torch.Tensor, torch.Tensor]:
        keys = [sort_keys(values(block)) for values in series]
        fine = [((k ^ (k >> 31)) & (BINS - 1)).any() for k in keys]  # lower bits in use, flips undone
        return torch.stack([histogram(k) for k in keys]), torch.stack(fine)

    if not any(ranks):
        return [[] for _ in series]
    counts, needs_second = _added(scan(upper))
    hits = [[locate(counts[i], rank) for rank in wanted] for i, wanted in enumerate(ranks)]
    bins = sorted({(i, high) for i, hit in enumerate(hits) if needs_second[i] for high, _ in hit})

    def lower(block: RowBlock) -> tuple[torch.Tensor, ...]:
        keys = {i: sort_keys(series[i](block)) for i, _ in bins}
        return (torch.stack([histogram(keys[i], high) for i, high in bins]),)

    second = dict(zip(bins, _added(scan(lower))[0], strict=True)) if bins else {}

    def value(i: int, high: int, rank: int) -> float:
        top = high - BINS // 2
        low = locate(second[i, high], rank)[0] if (i, high) in second else (BINS - 1) * (top < 0)
        return value_of(top * BINS + low)

    return [[value(i, *hit) for hit in each] for i, each in enumerate(hits)]


def _added(parts: Iterator[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Tuples of tensors, added up position by position."""
    total = next(parts)
    for part in parts:
        for mine, more in zip(total, part, strict=True):
            mine += more
    return total
