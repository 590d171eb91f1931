"""A tensor of several models as blocks of whole rows, so that merging needs memory for some blocks and not for a model.

    prepare(scan, shape) -> state                 scan(function) calls the function on every block: one pass
    apply(state, block)  -> merged rows, counts   once for every block
    statistics(state, sum of the counts)          one row of merge.jsonl

A merge method first scans all blocks as often as it must (`prepare`), then turns each block into a block of the result
(`apply`). The borders of the blocks are fixed and their results are used in order, so the number of threads changes
the time and no bit of the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

BLOCK = 2**20  # entries of one input in a block: its intermediates stay in the processor's cache
T = TypeVar("T")


@dataclass(frozen=True)
class RowBlock:
    """Rows start, start + 1, … of one tensor: (rows, width) of each input, the base first."""

    start: int
    tensors: tuple[torch.Tensor, ...]


# Calls a function on every block, perhaps on several threads; yields the results in the order of the blocks. The result
# of a function must not share memory with its block, because the memory of a block is used again.
Scan = Callable[[Callable[[RowBlock], T]], Iterator[T]]


class Method(ABC):
    """One way to merge tensors of equal shape and dtype; holds its parameters and nothing else."""

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Number of tensors in a block, the base included."""

    @abstractmethod
    def prepare(self, scan: Scan, shape: tuple[int, int]) -> Any:
        """The state that `apply` needs of the whole tensor, whose shape is (rows, width); each `scan` is one pass."""

    @abstractmethod
    def apply(self, state: Any, block: RowBlock) -> tuple[torch.Tensor, Any]:
        """(merged rows in the dtype of the inputs, counts to be added up over the blocks, or None)."""

    def merged(self, state: Any, block: RowBlock) -> torch.Tensor:
        """The rows that `apply` gives, for callers that need no counts."""
        return self.apply(state, block)[0]

    def statistics(self, state: Any, counts: Any) -> dict[str, Any]:
        """What the method did to the tensor, as JSON. counts: those of `apply`, added up over all blocks."""
        return {}

    def for_tensor(self, name: str) -> "Method":
        """The method for one tensor. Random methods draw for each tensor anew, see `sparse.tensor_seed`."""
        return self

    def for_shape(self, shape: tuple[int, ...]) -> "Method":
        """The method for tensors of one shape, for those that see more in it than rows and their width."""
        return self


def as_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, width) of a tensor's shape: the last dimension is the row; 0-d and 1-d tensors are one row."""
    width = shape[-1] if shape else 1
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows, width


def borders(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """(first row, last row + 1) of every block of a tensor with this (rows, width)."""
    rows, width = shape
    step = max(1, BLOCK // max(1, width))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def merge_tensors(method: Method, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, dict[str, Any]]:
    """(merged tensor, statistics) of tensors in memory, the base first. ValueError when they are not alike."""
    first = tensors[0]
    for each in tensors[1:]:
        if each.shape != first.shape or each.dtype != first.dtype:
            raise ValueError(
                f"tensors of shapes {tuple(first.shape)} and {tuple(each.shape)} and dtypes {first.dtype} and "
                f"{each.dtype} cannot be merged; both must agree"
            )
    if first.numel() == 0:
        return first.clone(), {}
    method, shape = method.for_shape(tuple(first.shape)), as_rows(first.shape)
    flat = [t.reshape(shape) for t in tensors]
    blocks = [RowBlock(a, tuple(t[a:b] for t in flat)) for a, b in borders(shape)]
    state = method.prepare(lambda function: map(function, blocks), shape)
    parts, counts = zip(*(method.apply(state, block) for block in blocks), strict=True)
    total = None if counts[0] is None else sum(counts[1:], counts[0])
    return torch.cat(parts).view(first.shape), method.statistics(state, total)
