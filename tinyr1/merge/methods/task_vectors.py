"""Task arithmetic, the frame of all methods that add differences to a base, and what they share.

Differences and weighted differences are rounded to the dtype of the tensors and their sums taken in float32, as
mergekit 0.1.5 does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tinyr1.merge.method import Block, Method, Scan

TINY_WEIGHT = 1e-8  # a sum of weights below this does not divide (mergekit's value)


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic(Method):
    """base + λ Σ w·δ with δ = model - base (arXiv 2212.04089); divided by Σ w with `normalize`.

    A sum of weights that is 0 does not divide: a model faded out over the layers has weight 0 in some of them.
    """

    weight: tuple[float, ...]
    normalize: bool = False
    lambda_: float = 1.0
    elects: ClassVar[bool] = False  # whether the sign of each entry is elected among the models (TIES)

    def __post_init__(self):
        check_weights(self)
        require_flags(self, "normalize")
        require("lambda", self.lambda_, "a finite number", math.isfinite)

    @property
    def inputs(self) -> int:
        """Number of tensors in a block, the base among them."""
        return len(self.weight) + 1

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> Any:
        return None

    def prune(self, state: Any, model: int, delta: torch.Tensor, start: int) -> torch.Tensor:
        """The entries of a model's difference (rows, width) that take part, 0 elsewhere."""
        return delta

    def apply(self, state: Any, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
        """(merged rows, number of entries and of each model's entries that take part and are not 0)."""
        base, *models = tensors_of(self, block)
        weights = torch.tensor(self.weight, dtype=base.dtype, device=base.device).view(-1, 1, 1)
        deltas = [self.prune(state, i, model - base, block.start) for i, model in enumerate(models)]
        counts = torch.stack([torch.tensor(base.numel(), device=base.device), *(d.count_nonzero() for d in deltas)])
        deltas = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
        total, divisor = _elected(deltas, weights) if self.elects else _plain(deltas, weights)
        if self.normalize:
            total /= divisor
        if self.lambda_ != 1:
            total *= self.lambda_
        return base + total, counts

    def statistics(self, state: Any, counts: torch.Tensor) -> dict:
        """kept_share_i: the share of entries in which model i = 1, 2, … takes part and differs from the base."""
        entries, *kept = counts.tolist()
        return {f"kept_share_{i}": count / entries for i, count in enumerate(kept, 1)}


def require(name: str, value: Any, rule: str, holds: Callable[[Any], bool]) -> None:
    """ValueError unless the value is a number for which `holds` is true; rule: "a number from 0 to 1"."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
        raise ValueError(f"{name} = {value!r} is not {rule}")


def require_flags(method: Method, *names: str) -> None:
    """ValueError unless the fields are true or false; a text such as "false" would count as true."""
    for name in names:
        if not isinstance(getattr(method, name), bool):
            raise ValueError(f"{name} = {getattr(method, name)!r} is neither true nor false")


def check_weights(method: Method) -> None:
    """Stores `weight` as a tuple of finite numbers."""
    if isinstance(method.weight, int | float) or len(method.weight) == 0:
        raise ValueError(f"weight = {method.weight!r} is not a list; give one number per model, e.g. [1.0, 0.5]")
    per_model(method, "weight", len(method.weight), "a finite number", math.isfinite)


def per_model(method: Method, name: str, models: int, rule: str, holds: Callable[[float], bool]) -> None:
    """Checks a parameter and stores it as a tuple with one number per model."""
    value = getattr(method, name)
    values = (value,) * models if isinstance(value, int | float) else tuple(value)
    if len(values) != models:
        raise ValueError(f"{name} has {len(values)} values for {models} models; give one number or one per model")
    for each in values:
        require(name, each, rule, holds)
    object.__setattr__(method, name, values)


def tensors_of(method: Method, block: Block) -> tuple[torch.Tensor, ...]:
    """The tensors of a block; ValueError when there are more or fewer than the method has parameters for."""
    if len(block.tensors) != method.inputs:
        raise ValueError(
            f"{type(method).__name__} has parameters for {method.inputs} tensors, a base included, and "
            f"got {len(block.tensors)}; give one weight per model"
        )
    return block.tensors


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype sums are taken in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def added(tensors: list[torch.Tensor]) -> torch.Tensor:
    """The sum in float32, one after the other, rounded to the dtype of the tensors."""
    total = torch.zeros_like(tensors[0], dtype=wide(tensors[0].dtype))
    for tensor in tensors:
        total += tensor
    return total.to(tensors[0].dtype)


def _plain(deltas: list[torch.Tensor], weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of the weighted differences, sum of the weights)."""
    divisor = weights.sum(0)
    return added(deltas), torch.where(divisor.double().abs() < TINY_WEIGHT, 1, divisor)  # float16 has no 1e-8


def _elected(deltas: list[torch.Tensor], weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same over the models whose entry has the sign of the sum of all; a sum of 0 counts as positive."""
    positive = added(deltas) >= 0
    agrees = [(delta != 0) & ((delta > 0) == positive) for delta in deltas]
    divisor = added([weight * mask for weight, mask in zip(weights, agrees, strict=True)])
    total = added([delta * mask for delta, mask in zip(deltas, agrees, strict=True)])
    return total, torch.where(divisor == 0, 1, divisor)
