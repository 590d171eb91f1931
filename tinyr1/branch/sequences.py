"""Which rows share a packed sequence. It knows lengths and nothing else, so that a plan is made without PyTorch."""

import bisect
from collections.abc import Sequence
from random import Random

ROUNDS = 64  # parts of the random order that are packed one after another


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best fit, in the order given: indices of `lengths` in groups whose sum is at most `capacity`, all in tokens.

    ValueError when a length is above the capacity.

    bins([5, 3, 2, 4], 7) -> [[0, 2], [1, 3]]
    """
    groups: list[list[int]] = []
    # Kept sorted, so that bisection finds the tightest group with enough room: 60,000 rows take a second or two.
    free: list[tuple[int, int]] = []  # (room left, group)
    for i, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"sample {i} has {length} tokens, the packed sequence only {capacity}")
        at = bisect.bisect_left(free, (length, -1))
        room, group = free.pop(at) if at < len(free) else (capacity, len(groups))
        if group == len(groups):
            groups.append([])
        groups[group].append(i)
        bisect.insort(free, (room - length, group))
    return groups


def layout(lengths: Sequence[int], capacity: int, seed: int, packing: str | None = None) -> list[list[int]]:
    """Sample indices of each packed sequence; the samples are taken in a seeded random order, in ROUNDS parts, each
    from its longest to its shortest.

    packing: of `Sft`; with `none` each sample has a sequence of its own. ValueError for a sample that fits into none.
    """
    # The rows lie in the order of their sources. In that order a sequence, and a step, would hold one source only.
    order = Random(seed).sample(range(len(lengths)), len(lengths))
    if packing == "none":
        bins(lengths, capacity)  # none is too long
        return [[i] for i in order]
    # From the longest to the shortest packs tightest, but in one go it would put the samples of one kind into one
    # sequence. In parts it packs as tightly: the short ones of a part fill what the long ones of earlier parts left.
    part = -(-len(order) // ROUNDS) or 1
    rounds = [sorted(order[i : i + part], key=lambda j: -lengths[j]) for i in range(0, len(order), part)]
    order = [i for one in rounds for i in one]
    groups = bins([lengths[i] for i in order], capacity)
    return [[order[i] for i in group] for group in groups]
