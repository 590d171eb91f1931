"""Task arithmetic: the frame of all methods that add differences to a base, with the checks of their parameters.

Differences and weighted differences are rounded to the dtype of the tensors and their sums taken in float32, as
mergekit 0.1.5 does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tinyr1.merge.method import Method, RowBlock, Scan

TINY_WEIGHT = 1e-8  # a sum of weights below this does not divide (mergekit's value)
PerModel = float | tuple[float, ...]  # a parameter: one number for all models, or one for each


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic(Method):
    """base + λ Σ w·δ with δ = model - base (arXiv 2212.04089); divided by Σ w with `normalize`.

    A sum of weights that is 0 does not divide: a model faded out over the layers has weight 0 in some of them.
    """

    weight: tuple[float, ...]
    normalize: bool = False
    lambda_: float = 1.0
    elects: ClassVar[bool] = False  # whether the sign of each entry is elected among the models (TIES)

    def __post_init__(self) -> None:
        check_weights(self.weight)
        check_flag("normalize", self.normalize)
        check_number("lambda", self.lambda_, "a finite number", math.isfinite)

    @property
    def inputs(self) -> int:
        return len(self.weight) + 1

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> Any:
        return None

    def prune(self, state: Any, model: int, delta: torch.Tensor, start: int) -> torch.Tensor:
        """The difference (rows, width) of a model, 0 where an entry takes no part; start: first row of the block."""
        return delta

    def apply(self, state: Any, block: RowBlock) -> tuple[torch.Tensor, torch.Tensor]:
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

    def statistics(self, state: Any, counts: torch.Tensor) -> dict[str, Any]:
        """kept_share_i: the share of entries in which model i = 1, 2, … takes part and differs from the base."""
        entries, *parts = counts.tolist()
        return {f"kept_share_{i}": count / entries for i, count in enumerate(parts, 1)}


def check_number(name: str, value: Any, rule: str, holds: Callable[[Any], bool]) -> None:
    """ValueError unless the value is a number for which `holds` is true; rule: "a number from 0 to 1"."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
        raise ValueError(f"{name} = {value!r} is not {rule}")


def check_flag(name: str, value: Any) -> None:
    """ValueError unless the value is true or false; a text such as "false" would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} is neither true nor false")


def check_weights(weight: Sequence[float]) -> None:
    """ValueError unless `weight` is a list of finite numbers."""
    if isinstance(weight, int | float) or len(weight) == 0:
        raise ValueError(f"weight = {weight!r} is not a list; give one number per model, e.g. [1.0, 0.5]")
    for each in weight:
        check_number("weight", each, "a finite number", math.isfinite)


def check_shares(name: str, values: PerModel, models: int) -> None:
    """ValueError unless a parameter is a number from 0 to 1, or a list with one for each model."""
    each = (values,) if isinstance(values, int | float) else values
    if len(each) != models and not isinstance(values, int | float):
        raise ValueError(f"{name} has {len(each)} values for {models} models; give one number or one per model")
    for value in each:
        check_number(name, value, "a number from 0 to 1", lambda v: 0 <= v <= 1)


def of_model(values: PerModel, model: int) -> float:
    """The value of a parameter for one model."""
    return values if isinstance(values, int | float) else values[model]


def tensors_of(method: Method, block: RowBlock) -> tuple[torch.Tensor, ...]:
    """The tensors of a block; ValueError when there are more or fewer than the method has parameters for."""
    if len(block.tensors) != method.inputs:
        raise ValueError(
            f"{type(method).__name__} has parameters for {method.inputs} tensors, a base included, and "
            f"got {len(block.tensors)}; give one weight per model"
        )
    return block.tensors


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are taken in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def added(tensors: list[torch.Tensor]) -> torch.Tensor:
    """The sum in float32, one tensor after the other, rounded to the dtype of the tensors."""
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
