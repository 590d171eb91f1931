"""Averages of whole models, without differences to a base: weighted mean and spherical interpolation."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.methods.task_vectors import check_flag, check_number, check_weights, tensors_of, wide

SLERP_LINEAR = 0.9995  # |cosine| above which spherical interpolation is replaced by linear (mergekit's value)
TINY_NORM = 1e-8  # a norm up to this is no direction (mergekit's value)


@dataclass(frozen=True, kw_only=True)
class Linear(Method):
    """Σ w·θ, divided by Σ w with `normalize`: weighted average, or soup with equal weights (arXiv 2203.05482).

    It has no base: every tensor of a block has a weight. Sums are taken in float32.
    """

    weight: tuple[float, ...]
    normalize: bool = True

    def __post_init__(self) -> None:
        check_weights(self.weight)
        check_flag("normalize", self.normalize)
        if self.normalize and sum(self.weight) == 0:
            raise ValueError(f"weight = {self.weight} sums to 0 and cannot be normalized; set normalize to false")

    @property
    def inputs(self) -> int:
        return len(self.weight)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> None:
        return None

    def apply(self, state: None, block: RowBlock) -> tuple[torch.Tensor, None]:
        first = tensors_of(self, block)[0]
        weights = torch.tensor(self.weight, dtype=wide(first.dtype), device=first.device).view(-1, 1, 1)
        total = torch.zeros_like(first, dtype=weights.dtype)
        for tensor, weight in zip(block.tensors, weights, strict=True):
            total.addcmul_(tensor, weight)
        return (total / weights.sum(0) if self.normalize else total).to(first.dtype), None


@dataclass(frozen=True, kw_only=True)
class Slerp(Method):
    """Interpolation along the great circle between two tensors: t = 0 is the base, t = 1 the other one.

    The whole tensor is one vector. Where the vectors are nearly parallel or opposite (|cosine| > 0.9995) it is linear,
    and a vector without length counts as orthogonal, as in mergekit. Norms and product are summed in float64.
    """

    t: float
    inputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_number("t", self.t, "a number from 0 to 1", lambda t: 0 <= t <= 1)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> tuple[float, float, float]:
        """(cosine, coefficient of the base, of the other tensor)."""

        def products(block: RowBlock) -> torch.Tensor:
            base, other = (tensor.double() for tensor in tensors_of(self, block))
            return torch.stack([(base * base).sum(), (other * other).sum(), (base * other).sum()])

        squared_base, squared_other, product = sum(scan(products), torch.zeros(3)).tolist()
        norm_base, norm_other = (n if n > TINY_NORM else 1.0 for n in map(math.sqrt, (squared_base, squared_other)))
        cosine = min(1.0, max(-1.0, product / norm_base / norm_other))
        t = torch.tensor(self.t, dtype=torch.float32).item()  # mergekit rounds it before 1 - t
        if abs(cosine) > SLERP_LINEAR:
            return cosine, 1 - t, t
        angle = math.acos(cosine)
        return cosine, math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)

    def apply(self, state: tuple[float, float, float], block: RowBlock) -> tuple[torch.Tensor, None]:
        base, other = tensors_of(self, block)
        mixed = state[1] * base.to(wide(base.dtype)) + state[2] * other.to(wide(other.dtype))
        return mixed.to(base.dtype), None

    def statistics(self, state: tuple[float, float, float], counts: None) -> dict[str, Any]:
        return {"cosine": state[0]}
