"""Methods that ask how much the models agree on the way from the base: SCE and Model Stock.

    sce          differences -> the entries whose variance is large -> a weight for each model from the size of its own
                             -> the mean of the entries that have the sign of their sum
    model_stock  differences -> the cosine of each pair -> how far to go from the base to the mean of the models

`sums` says what is rounded when.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Any

import torch

from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.methods import pruning
from tinyr1.merge.methods.sums import computed_in, products, squares, total
from tinyr1.merge.methods.task_vectors import added, check_flag, check_number, tensors_of

TINY = 1e-6  # below it sums of weights, products of lengths and denominators say nothing (mergekit's value)


@dataclass(frozen=True, kw_only=True)
class _Consensus(Method):
    """A method for a base and any number of models, which have no weights of their own."""

    models: int

    @property
    def inputs(self) -> int:
        return self.models + 1

    def tensors(self, block: RowBlock) -> list[torch.Tensor]:
        """The tensors (rows, width) of a block, the base first, in the dtype of the computation."""
        return [tensor.to(computed_in(tensor.dtype)) for tensor in tensors_of(self, block)]

    def differences(self, block: RowBlock) -> list[torch.Tensor]:
        base, *models = self.tensors(block)
        return [model - base for model in models]


@dataclass(frozen=True)
class Selection:
    """What SCE knows of a tensor. head: the entries that take part, None for all; weights (models,); entries: count."""

    head: pruning.Head | None
    weights: torch.Tensor
    entries: int


@dataclass(frozen=True, kw_only=True)
class Sce(_Consensus):
    """SCE (arXiv 2408.07990): select entries, calculate weights, erase minorities.

    Of the entries that differ between the models the share `select_topk` with the largest variance takes part, of equal
    ones the first by index; mergekit takes equal ones in no particular order. The weight of a model is the mean square
    of its differences there, and all weigh alike where those sum up to less than 1e-6, as in most tensors of models
    that were fine-tuned a little.
    """

    select_topk: float = 1.0

    def __post_init__(self) -> None:
        check_number("select_topk", self.select_topk, "a number from 0 to 1", lambda share: 0 <= share <= 1)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> Selection:
        entries = shape[0] * shape[1]
        head = self._head(scan, entries) if self.select_topk < 1 else None
        sizes, dtype = total(scan, lambda block: self._sizes(head, block))
        weights = (sizes / entries).to(dtype)
        whole = weights.sum().item()
        weights = torch.full_like(weights, 1 / self.models) if whole < TINY else weights / whole
        return Selection(head, weights, entries)

    def _head(self, scan: Scan, entries: int) -> pruning.Head:
        counts = scan(lambda block: self._variance(block).count_nonzero().cpu())
        # int64 times a number is float32 in torch, which decides on which side of a whole number the product lies.
        size = int(sum(counts, torch.tensor(0)) * self.select_topk)
        [[head]] = pruning.heads(scan, [self._variance], [[size]], entries)
        return head

    def _variance(self, block: RowBlock) -> torch.Tensor:
        """(rows, width) variance of the differences over the models, float32."""
        return torch.var(torch.stack(self.differences(block)), dim=0, unbiased=False).float()

    def _selected(self, head: pruning.Head | None, block: RowBlock) -> list[torch.Tensor]:
        """The differences, 0 where an entry takes no part."""
        differences = self.differences(block)
        if head is None:
            return differences
        mask = head.mask(self._variance(block), block.start)
        return [difference * mask for difference in differences]

    def _sizes(self, head: pruning.Head | None, block: RowBlock) -> torch.Tensor:
        """(models,) sum of squares, each rounded to the dtype of the computation."""
        return torch.stack([each.square().double().sum() for each in self._selected(head, block)])

    def apply(self, state: Selection, block: RowBlock) -> tuple[torch.Tensor, torch.Tensor]:
        """(merged rows, number of entries that are not the base's)."""
        selected = self._selected(state.head, block)
        positive = added(selected) >= 0
        agrees = [(each != 0) & ((each > 0) == positive) for each in selected]
        weights = [weight * mask for weight, mask in zip(state.weights, agrees, strict=True)]
        change = added([each * weight for each, weight in zip(selected, weights, strict=True)])
        change /= added(weights).clamp(min=TINY)
        first = block.tensors[0]
        return (first.to(change.dtype) + change).to(first.dtype), change.count_nonzero().cpu()

    def statistics(self, state: Selection, counts: torch.Tensor) -> dict[str, Any]:
        """changed_share: share of the entries that change; weight_i: the weight of model i = 1, 2, …"""
        weights = {f"weight_{i}": value for i, value in enumerate(state.weights.tolist(), 1)}
        return {"changed_share": counts.item() / state.entries} | weights


@dataclass(frozen=True, kw_only=True)
class ModelStock(_Consensus):
    """Model Stock (arXiv 2403.19522): base + t · (mean of the models - base), t = k c / (1 + (k - 1) c).

    k is the number of models and c the mean cosine of their differences, over the whole tensor or, with `filter_wise`,
    over each row. The base stays where t has no finite value. mergekit divides by at least 1e-6, which makes the cosine
    of differences too small whose lengths have a smaller product.
    """

    filter_wise: bool = False

    def __post_init__(self) -> None:
        check_flag("filter_wise", self.filter_wise)
        if self.models < 2:
            raise ValueError(f"compares the models beside the base and got {self.models}; give at least 2")

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(mean cosine, t) of the whole tensor; None with `filter_wise`."""
        if self.filter_wise:
            return None

        def measure(block: RowBlock) -> torch.Tensor:
            differences = self.differences(block)
            return torch.cat([squares(differences), products(differences)])

        sums, dtype = total(scan, measure)
        return self._ratio(sums[: self.models].sqrt().to(dtype), sums[self.models :].to(dtype))

    def _ratio(self, lengths: torch.Tensor, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean cosine, t) from the lengths (models, …) of the differences and the products (pairs, …) of each two."""
        areas = torch.stack([a * b for a, b in combinations(lengths, 2)])
        cosine = (pairs / areas.clamp(min=TINY)).clamp(-1, 1).mean(0)
        below = 1 + (self.models - 1) * cosine
        singular = below.abs() < TINY
        return cosine, torch.where(singular, 0, self.models * cosine / torch.where(singular, 1, below))

    def apply(self, state: tuple[torch.Tensor, torch.Tensor] | None, block: RowBlock) -> tuple[torch.Tensor, None]:
        base, *models = self.tensors(block)
        if state is None:
            differences = [model - base for model in models]
            dtype = base.dtype
            state = self._ratio(squares(differences, -1).sqrt().to(dtype), products(differences, -1).to(dtype))
        _, t = state
        mean = reduce(torch.add, models) / self.models
        return (t * mean + (1 - t) * base).to(block.tensors[0].dtype), None

    def statistics(self, state: tuple[torch.Tensor, torch.Tensor] | None, counts: None) -> dict[str, Any]:
        """Mean cosine and t, where the whole tensor has them."""
        return {} if state is None else {"cosine": state[0].item(), "t": state[1].item()}
