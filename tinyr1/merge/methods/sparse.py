"""Task arithmetic with pruned differences: TIES, model breadcrumbs, DARE, DELLA.

`density`, `gamma` and `epsilon` are one number for all models or one per model. Neither the borders of the blocks nor
the number of threads changes which entries a method keeps.
"""

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.methods import pruning
from tinyr1.merge.methods.task_vectors import (
    PerModel,
    TaskArithmetic,
    check_flag,
    check_number,
    check_shares,
    of_model,
    tensors_of,
)  # fmt: skip
from tinyr1.merge.quantiles import Values

TINY_MASS = 1e-7  # a sum of magnitudes below this is not rescaled to or from (mergekit's value)


@dataclass(frozen=True, kw_only=True)
class _Pruned(TaskArithmetic):
    """Task arithmetic with a share `density` of each difference, chosen by a subclass."""

    density: PerModel = 1.0
    rescale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("rescale", self.rescale)
        check_shares("density", self.density, len(self.weight))

    def share(self, model: int) -> float:
        """The density of one model."""
        return of_model(self.density, model)


@dataclass(frozen=True)
class Window:
    """The entries that one model keeps: those of `outer` without those of `inner`. scale: a factor on them."""

    inner: pruning.Head
    outer: pruning.Head
    scale: float = 1.0

    def mask(self, magnitudes: torch.Tensor, start: int) -> torch.Tensor:
        return self.outer.mask(magnitudes, start) & ~self.inner.mask(magnitudes, start)


@dataclass(frozen=True, kw_only=True)
class _Magnitude(_Pruned):
    """Pruning by |δ| over the whole tensor, to an exact number of entries.

    Entries are taken from the largest down and equal ones in the order of their index; mergekit takes equal ones in no
    particular order. `rescale` makes the magnitudes that stay sum up to those of the whole difference.
    """

    @abstractmethod
    def places(self, model: int, entries: int) -> tuple[int, int]:
        """First and last + 1 place of the entries that stay, in the order from the largest to the smallest."""

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> list[Window]:
        """A window for each model."""
        entries, models = shape[0] * shape[1], range(len(self.weight))
        magnitudes = [_magnitude(self, i) for i in models]
        places = [(0, entries) if self.share(i) >= 1 else self.places(i, entries) for i in models]
        windows = [Window(inner, outer) for inner, outer in pruning.heads(scan, magnitudes, places, entries)]
        return self._scaled(scan, magnitudes, windows) if self.rescale else windows

    def _scaled(self, scan: Scan, magnitudes: list[Values], windows: list[Window]) -> list[Window]:
        def masses(block: RowBlock) -> tuple[torch.Tensor, torch.dtype]:
            seen = [values(block) for values in magnitudes]
            inside = [s * w.mask(s, block.start) for s, w in zip(seen, windows, strict=True)]
            sums = [torch.stack([s.double().sum(), i.double().sum()]) for s, i in zip(seen, inside, strict=True)]
            return torch.stack(sums).cpu(), block.tensors[0].dtype

        parts, dtypes = zip(*scan(masses), strict=True)
        # Rounded as in mergekit, but not to float16, where sums of a large tensor are infinite.
        whole, inside = sum(parts).to(torch.bfloat16 if dtypes[0] == torch.bfloat16 else torch.float32).unbind(1)
        scale = torch.where((whole < TINY_MASS) | (inside < TINY_MASS), 1, whole / inside).tolist()
        return [replace(window, scale=factor) for window, factor in zip(windows, scale, strict=True)]

    def prune(self, state: list[Window], model: int, delta: torch.Tensor, start: int) -> torch.Tensor:
        if self.share(model) >= 1:
            return delta
        window = state[model]
        inside = delta * window.mask(delta.abs().float(), start)
        return inside * window.scale if window.scale != 1 else inside

    def statistics(self, state: list[Window], counts: torch.Tensor) -> dict[str, Any]:
        """Also threshold_i, the smallest magnitude that stays, for models that keep a part of their entries."""
        stay = counts.tolist()[1:]
        limits = {f"threshold_{i}": w.outer.value for i, w in enumerate(state, 1) if stay[i - 1] and w.outer.value >= 0}
        return super().statistics(state, counts) | limits


@dataclass(frozen=True, kw_only=True)
class Ties(_Magnitude):
    """TIES (arXiv 2306.01708): trim to the largest |δ|, elect signs, average the entries that agree with them."""

    normalize: bool = True
    elects: ClassVar[bool] = True

    def places(self, model: int, entries: int) -> tuple[int, int]:
        density = self.share(model)
        return 0, max(1, int(density * entries)) if density > 0 and entries else 0


@dataclass(frozen=True, kw_only=True)
class Breadcrumbs(_Magnitude):
    """Model breadcrumbs (arXiv 2312.06795): drops the share `gamma` of largest |δ| and the smallest down to `density`.

    Where density + gamma exceed 1, fewer of the largest are dropped.
    """

    gamma: PerModel = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("gamma", self.gamma, len(self.weight))

    def places(self, model: int, entries: int) -> tuple[int, int]:
        size = int(self.share(model) * entries)
        start = min(int(of_model(self.gamma, model) * entries), entries - size)
        return start, start + size


@dataclass(frozen=True, kw_only=True)
class BreadcrumbsTies(Breadcrumbs):
    """Model breadcrumbs with the sign election of TIES."""

    elects: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class _Random(_Pruned):
    """Pruning by chance. `rescale` divides an entry that stays by its probability: its expectation is the difference.

    The draws depend on seed, model and index alone (`pruning.uniform`). mergekit 0.1.5 rescales to the sum of
    magnitudes instead. For DARE that is the same in expectation; for DELLA it is not, and its paper divides as here.
    """

    rescale: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "a whole number from 0 to 2^64 - 1"
        check_number("seed", self.seed, rule, lambda seed: type(seed) is int and 0 <= seed < 2**64)

    def for_tensor(self, name: str) -> Method:
        return replace(self, seed=tensor_seed(self.seed, name))

    def probability(self, model: int, delta: torch.Tensor) -> float | torch.Tensor:
        """The chance of each entry (rows, width) to stay."""
        return self.share(model)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> tuple[int, int]:
        return shape

    def prune(self, state: tuple[int, int], model: int, delta: torch.Tensor, start: int) -> torch.Tensor:
        if self.share(model) in (0, 1):
            return delta * self.share(model)
        chance = self.probability(model, delta)
        stays = pruning.uniform(self.seed, model, start * state[1], delta.shape, delta.device) < chance
        return stays * ((delta / chance).to(delta.dtype) if self.rescale else delta)


@dataclass(frozen=True, kw_only=True)
class DareLinear(_Random):
    """DARE (arXiv 2311.03099): each entry stays with probability `density`, then task arithmetic."""


@dataclass(frozen=True, kw_only=True)
class DareTies(DareLinear):
    """DARE with the sign election of TIES."""

    elects: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class DellaLinear(_Random):
    """DELLA's MagPrune (arXiv 2406.11617), then task arithmetic: larger entries stay with a larger probability.

    The probability rises evenly with the rank of |δ| in its row, from density - epsilon to density + epsilon, which is
    mergekit's epsilon. Equal magnitudes rank by index; an entry alone in its row has probability density.
    """

    epsilon: PerModel = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares("epsilon", self.epsilon, len(self.weight))
        for model in range(len(self.weight)):
            d, e = self.share(model), of_model(self.epsilon, model)
            if 0 < d < 1 and not (d - e > 0 and d + e < 1):
                raise ValueError(
                    f"density = {d} with epsilon = {e} makes probabilities from {d - e:g} to {d + e:g}; they must lie "
                    f"between 0 and 1: choose an epsilon below {min(d, 1 - d):g}"
                )

    def probability(self, model: int, delta: torch.Tensor) -> float | torch.Tensor:
        density, epsilon, width = self.share(model), of_model(self.epsilon, model), delta.shape[-1]
        if width < 2:
            return density
        order = delta.abs().argsort(dim=-1, stable=True)
        places = torch.arange(width, dtype=torch.float64, device=delta.device).expand(delta.shape)
        ranks = torch.empty_like(places, memory_format=torch.contiguous_format).scatter_(-1, order, places)
        return density - epsilon + 2 * epsilon * ranks / (width - 1)


@dataclass(frozen=True, kw_only=True)
class Della(DellaLinear):
    """DELLA: MagPrune, sign election, average of the entries that agree."""

    normalize: bool = True
    elects: ClassVar[bool] = True


def tensor_seed(seed: int, name: str) -> int:
    """Seed of one tensor for the random methods, from the recipe's seed and the tensor's name.

    With one seed for all tensors, the same positions of every tensor would stay.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")


def _magnitude(method: Method, model: int) -> Values:
    """|δ| of a model: subtracted in the dtype of the tensors, returned in float32."""

    def values(block: RowBlock) -> torch.Tensor:
        base, *models = tensors_of(method, block)
        return (models[model] - base).abs().float()

    return values
