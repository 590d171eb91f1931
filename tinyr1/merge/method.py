"""A tensor of several models as blocks of whole rows, so that merging needs memory for a block and not for a model.

A merge method first looks at all blocks as often as it must (`prepare`), then turns each block into a block of the
result (`apply`). Blocks have fixed borders and results are taken in their order: threads change the time, not a bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

BLOCK = 2**20  # entries of one input in a block: its intermediates stay in the processor's cache
T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    """Rows start, start + 1, … of one tensor: (rows, width) of each input, the base first. 0-d and 1-d: one row."""

    start: int
    tensors: tuple[torch.Tensor, ...]


# Calls a function on every block, perhaps on several threads; yields the results in the order of the blocks. What a
# function returns must not share memory with its block, which is reused.
Scan = Callable[[Callable[[Block], T]], Iterator[T]]


class Method(ABC):
    """One way to merge tensors of equal shape and dtype; holds its parameters and nothing else."""

    @abstractmethod
    def prepare(self, scan: Scan, shape: tuple[int, int]) -> Any:
        """What `apply` needs to know about the whole tensor of `shape` (rows, width); each `scan` is one pass."""

    @abstractmethod
    def apply(self, state: Any, block: Block) -> tuple[torch.Tensor, Any]:
        """(merged rows in the dtype of the inputs, counts to be added up over the blocks or None)."""

    def statistics(self, state: Any, counts: Any) -> dict:
        """What the method did to the tensor, for the record; numbers only."""
        return {}


def as_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, width) of a tensor's shape: the last dimension is the row; 0-d and 1-d tensors are one row."""
    width = shape[-1] if shape else 1
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows, width


def borders(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """First and last + 1 row of every block."""
    rows, width = shape
    step = max(1, BLOCK // max(1, width))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def merge_tensors(method: Method, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, dict]:
    """(merged tensor, statistics) of tensors in memory, the base first. ValueError when they are not alike."""
    first = tensors[0]
    for other in tensors[1:]:
        if other.shape != first.shape or other.dtype != first.dtype:
            raise ValueError(
                f"tensors of shapes {tuple(first.shape)} and {tuple(other.shape)} and dtypes {first.dtype} and "
                f"{other.dtype} cannot be merged; both must agree"
            )
    if first.numel() == 0:
        return first.clone(), {}
    shape = as_rows(first.shape)
    flat = [t.reshape(shape) for t in tensors]
    blocks = [Block(a, tuple(t[a:b] for t in flat)) for a, b in borders(shape)]
    state = method.prepare(lambda function: map(function, blocks), shape)
    parts, counts = zip(*(method.apply(state, block) for block in blocks), strict=True)
    total = None if counts[0] is None else sum(counts[1:], counts[0])
    return torch.cat(parts).view(first.shape), method.statistics(state, total)
