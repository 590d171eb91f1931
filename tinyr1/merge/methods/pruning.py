"""Which entries of a tensor stay: an exact number of the largest by magnitude, or entries by chance.

Both give the same entries whatever the borders of the blocks, the number of threads and the device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tinyr1.merge import quantiles
from tinyr1.merge.method import RowBlock, Scan


@dataclass(frozen=True)
class Head:
    """The largest entries of a tensor; of those equal to `value`, the smallest among them, the first by index."""

    value: float
    equal: dict[int, int]  # start of a block -> how many of its entries equal to `value` belong, where any do

    def mask(self, magnitudes: torch.Tensor, start: int) -> torch.Tensor:
        """True where an entry of the block at `start` belongs; magnitudes (rows, width), float32."""
        larger, equal = magnitudes > self.value, self.equal.get(start, 0)
        return larger | first_true(magnitudes == self.value, equal) if equal else larger


def heads(
    scan: Scan, magnitudes: Sequence[quantiles.Values], sizes: Sequence[Sequence[int]], entries: int
) -> list[list[Head]]:
    """For each function of a block (>= 0, float32) its heads of the given sizes, 0 … entries; at most three passes.

    A threshold alone keeps every entry equal to it, and bfloat16 has many of those: the last pass counts them.
    """
    wanted = [(i, size) for i, each in enumerate(sizes) for size in each if 0 < size < entries]
    ranks = [[entries - size for j, size in wanted if j == i] for i in range(len(sizes))]
    values = [value for each in quantiles.order_statistics(scan, magnitudes, ranks) for value in each]

    def around(block: RowBlock) -> tuple[int, list[list[int]]]:
        seen = {i: magnitudes[i](block) for i, _ in wanted}
        pairs = [(seen[i], value) for (i, _), value in zip(wanted, values, strict=True)]
        counts = [torch.stack([(s > value).count_nonzero(), (s == value).count_nonzero()]) for s, value in pairs]
        return block.start, torch.stack(counts).tolist()

    counted = list(scan(around)) if wanted else []
    by_size = {
        key: _head(value, key[1], [(start, *counts[at]) for start, counts in counted])
        for at, (key, value) in enumerate(zip(wanted, values, strict=True))
    }
    trivial = {0: Head(math.inf, {}), entries: Head(-1.0, {})}
    return [[trivial[size] if size in trivial else by_size[i, size] for size in each] for i, each in enumerate(sizes)]


def _head(value: float, size: int, blocks: list[tuple[int, int, int]]) -> Head:
    """blocks: (start, entries larger than value, entries equal to it)."""
    left, belong = size - sum(larger for _, larger, _ in blocks), {}
    for start, _, equal in blocks:
        if taken := min(left, equal):
            belong[start] = taken
            left -= taken
    return Head(value, belong)


def first_true(mask: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` true entries of `mask` in the order of the flat index."""
    if count >= int(mask.count_nonzero()):
        return mask
    return mask & (mask.flatten().cumsum(0).view_as(mask) <= count)


def uniform(seed: int, stream: int, first: int, shape: torch.Size, device: torch.device) -> torch.Tensor:
    """Numbers first, first + 1, … of a stream of uniform [0, 1) float64, as a tensor of `shape`.

    Philox is a counter: number i depends on seed, stream and i alone. seed and stream: 0 … 2^64 - 1.
    """
    raw = raw_bits(seed, stream, first, shape.numel())
    return torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53).view(shape).to(device)


def raw_bits(seed: int, stream: int, first: int, count: int) -> np.ndarray:
    """(count,) uint64 whose upper 53 bits are the numbers of `uniform`."""
    generator = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).advance(first // 4)
    skipped = first % 4  # a count of the counter is four numbers
    return generator.random_raw(skipped + count)[skipped:]
