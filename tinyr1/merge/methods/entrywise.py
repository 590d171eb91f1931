"""Methods that see one entry at a time: NearSwap, and the model that is passed through."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.methods.sums import computed_in
from tinyr1.merge.methods.task_vectors import check_number, tensors_of

TINY_DIFFERENCE = 1e-6  # differences count as at least this large (mergekit's value)


@dataclass(frozen=True, kw_only=True)
class Nearswap(Method):
    """The base, with w = min(1, t / |other - base|) of the other model in each entry.

    Entries that differ by up to t are the other model's; those further away stay the closer to the base, the further
    they are. float16 is computed in float32, because t / difference leaves its range.
    """

    t: float
    inputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_number("t", self.t, "a number from 0 to 1", lambda t: 0 <= t <= 1)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> None:
        return None

    def apply(self, state: None, block: RowBlock) -> tuple[torch.Tensor, None]:
        base, other = (tensor.to(computed_in(tensor.dtype)) for tensor in tensors_of(self, block))
        share = (self.t / (base - other).abs().clamp(min=TINY_DIFFERENCE)).clamp(max=1)
        return (share * other + (1 - share) * base).to(block.tensors[0].dtype), None


@dataclass(frozen=True, kw_only=True)
class Passthrough(Method):
    """One model as it is; `scale`, which has one number, is a factor on its entries."""

    models: int = 1
    scale: tuple[float, ...] = (1.0,)
    inputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.models != 1:
            raise ValueError(f"takes one model and got {self.models}; give one, or choose a method that merges")
        for each in self.scale:
            check_number("scale", each, "a finite number", math.isfinite)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> None:
        return None

    def apply(self, state: None, block: RowBlock) -> tuple[torch.Tensor, None]:
        (tensor,) = tensors_of(self, block)
        return tensor * self.scale[0], None
