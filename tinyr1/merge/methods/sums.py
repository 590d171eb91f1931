"""Sums over a whole tensor that comes in blocks, for the methods that measure lengths and angles.

mergekit 0.1.5 measures in the dtype of the tensors: it rounds entries, products and sums to it. Here sums are taken in
float64, whose rounding is far below that of the result, and rounded to the dtype in the end. So blocks and threads
change no bit. bfloat16 gives mergekit's numbers, unless a sum lies so near the middle of two of them that its last
digits decide. In float32 these digits differ: mergekit's own sums in float32 move its results by up to 2e-5 of the
largest entry in a tensor of a million, and by 1e-7 in small ones.

float16 is the exception: products of two differences of fine-tuned models lie below its smallest number, and an angle
made of them is 90 degrees for any two models. Its tensors are computed in float32 and the result is rounded once, as in
mergekit with `dtype: float32` and `out_dtype: float16`.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import combinations

import torch

from tinyr1.merge.method import RowBlock, Scan


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype that tensors of this dtype are computed in."""
    return torch.float32 if dtype == torch.float16 else dtype


def total(scan: Scan, terms: Callable[[RowBlock], torch.Tensor]) -> tuple[torch.Tensor, torch.dtype]:
    """(float64 sum of the terms over all blocks, on the CPU; dtype that their tensors are computed in); one pass.

    The terms of a block are a tensor of any shape, the same for every block.
    """

    def measure(block: RowBlock) -> tuple[torch.Tensor, torch.dtype]:
        return terms(block).cpu(), computed_in(block.tensors[0].dtype)

    parts, dtypes = zip(*scan(measure), strict=True)
    return reduce(torch.add, parts), dtypes[0]


def squares(vectors: Sequence[torch.Tensor], dim: int | None = None) -> torch.Tensor:
    """Σ v² of each vector in float64: (vectors,), or (vectors, rows, 1) where dim = -1 makes a vector of each row."""
    return torch.stack([v.double().square().sum(dim, keepdim=dim is not None) for v in vectors])


def products(vectors: Sequence[torch.Tensor], dim: int | None = None) -> torch.Tensor:
    """Σ v·w of each pair in float64, with entries rounded to the dtype of the vectors; shapes as those of `squares`."""
    pairs = combinations(vectors, 2)
    return torch.stack([(v * w).double().sum(dim, keepdim=dim is not None) for v, w in pairs])
