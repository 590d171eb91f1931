"""Controls of Arcee Fusion: they do as much to a tensor as fusion does and leave out what fusion is about.

    fusion           -> how many entries that differ it takes from `other`, tensor by tensor
    mask: random     -> takes as many of them by chance                      is it the importance, or how many?
    mask: largest    -> takes as many, those with the largest |other - base|   does the divergence change anything?
    noise            -> adds Gaussian noise as long as other - base            does any change of this size do it?

What a control does depends on the models, the settings, the seed and the names of tensor and step, and not on the
number of threads. A step counts on the models that it gets itself: in a chain of random masks the second step takes as
many entries as importance would take from the result of the first random step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from tinyr1.core.recipe import PLACEBOS
from tinyr1.merge import fusion, kernels
from tinyr1.merge.fusion_blocks import Fusion, FusionState, array, is_compiled, loose
from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.methods import pruning
from tinyr1.merge.methods.sparse import tensor_seed
from tinyr1.merge.methods.task_vectors import wide

SELECTED = fusion.COUNTS.index("selected")
COARSE = 2.0 ** np.linspace(-1, 7, 17)  # factors on the noise that are tried first; rounding can swallow most of it
FINE = 9  # factors that are tried between the two best of those


@dataclass(frozen=True)
class PlaceboState(FusionState):
    """The state of fusion, which decides how many entries are taken; head: which ones; width: entries of a row."""

    head: pruning.Head
    width: int


@dataclass(frozen=True)
class Placebo(Fusion):
    """A fusion step that takes as many entries as importance would, chosen without it; blocks hold (base, other).

    Only entries that differ count and are taken. Where importance takes every one of them, so does the placebo: the
    regime `everything` has no choice in it. step: description of the step, so that the steps of a chain draw
    independently; with one stream for all, the second step would take what the first one has put in.
    """

    mask: str = "random"
    seed: int = 0
    step: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask not in PLACEBOS:
            raise ValueError(f"mask {self.mask!r}: must be importance, {' or '.join(PLACEBOS)}")

    def for_tensor(self, name: str) -> Method:
        return replace(self, seed=tensor_seed(self.seed, f"{self.step}:{name}"))

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> PlaceboState:
        state = super().prepare(scan, shape)
        importance = super().apply  # merged and thrown away: the count of one more pass is all that is wanted
        taken = int(sum(scan(lambda block: importance(state, block)[1][SELECTED])))
        [[head]] = pruning.heads(scan, [lambda block: self._scores(block, shape[1])], [[taken]], state.entries)
        return PlaceboState(**vars(state), head=head, width=shape[1])

    def apply(self, state: Any, block: RowBlock) -> tuple[torch.Tensor, np.ndarray]:
        base, other = block.tensors
        mask = state.head.mask(self._scores(block, state.width), block.start)
        if self.reading in fusion.COPYING and is_compiled(base):
            out, tally = torch.empty(base.shape, dtype=loose(base).dtype), np.zeros(len(fusion.COUNTS))
            kernels.take_rows(array(base), array(other), mask.numpy(), array(out), tally)
            return out.to(base.dtype), tally
        factor = mask.float()
        merged = fusion.combine(base, other, factor, self.reading)
        return merged, np.array(fusion.tally(base, other, factor))

    def merged(self, state: Any, block: RowBlock) -> torch.Tensor:
        return self.apply(state, block)[0]

    def statistics(self, state: Any, counts: np.ndarray) -> dict[str, Any]:
        """Those of fusion, whose threshold tells the number of entries only, and `mask`."""
        return super().statistics(state, counts) | {"mask": self.mask}

    def _scores(self, block: RowBlock, width: int) -> torch.Tensor:
        """(rows, width) float32: above 0 where the entries differ, else 0; the largest ones are taken."""
        base, other = block.tensors
        if self.mask == "largest":
            return (other.float() - base.float()).abs()
        if is_compiled(base):
            scores = torch.empty(base.shape)
            raw = pruning.raw_bits(self.seed, 0, block.start * width, base.numel())
            kernels.drawn_scores(raw, array(base), array(other), scores.numpy())
            return scores
        drawn = pruning.uniform(self.seed, 0, block.start * width, base.shape, base.device)
        return (1 - drawn).float() * (other != base)


@dataclass(frozen=True, kw_only=True)
class Noise(Method):
    """base + Gaussian noise, as far from the base as `other` is, tensor by tensor; blocks hold (base, other).

    The norm of the difference is meant after rounding to the dtype of the tensors: bfloat16 swallows most of a noise
    that is small beside the weights, so the factor on it is searched for.
    """

    seed: int = 0
    step: str = ""
    inputs: ClassVar[int] = 2

    def for_tensor(self, name: str) -> Method:
        return replace(self, seed=tensor_seed(self.seed, f"{self.step}:{name}"))

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> tuple[float, float, int]:
        """(norm of other - base, factor on standard noise, width)."""

        def squared(block: RowBlock) -> float:
            base, other = (tensor.double() for tensor in block.tensors)
            return float((other - base).square().sum())

        norm = math.sqrt(sum(scan(squared)))
        factors = COARSE * norm / math.sqrt(shape[0] * shape[1])
        if norm == 0:
            return norm, 0.0, shape[1]
        coarse = self._norms(scan, factors, shape[1])
        place = int(np.clip(np.searchsorted(coarse, norm), 1, len(factors) - 1))
        factors = np.geomspace(factors[place - 1], factors[place], FINE)
        return norm, float(np.interp(norm, self._norms(scan, factors, shape[1]), factors)), shape[1]

    def apply(self, state: tuple[float, float, int], block: RowBlock) -> tuple[torch.Tensor, np.ndarray]:
        """(merged rows, squared norm of their difference to the base)."""
        norm, factor, width = state
        merged = _moved(block.tensors[0], factor, self._noise(block, width)) if norm else block.tensors[0].clone()
        return merged, np.array([_squared_distance(block.tensors[0], merged)])

    def statistics(self, state: tuple[float, float, int], counts: np.ndarray) -> dict[str, Any]:
        """norm: of other - base; noise: of merged - base."""
        return {"norm": state[0], "noise": math.sqrt(counts[0])}

    def _norms(self, scan: Scan, factors: Sequence[float] | np.ndarray, width: int) -> np.ndarray:
        """Norms of merged - base with each factor; they never fall from one factor to a larger one."""

        def squared(block: RowBlock) -> np.ndarray:
            base, noise = block.tensors[0], self._noise(block, width)
            return np.array([_squared_distance(base, _moved(base, float(factor), noise)) for factor in factors])

        return np.sqrt(sum(scan(squared), np.zeros(len(factors))))

    def _noise(self, block: RowBlock, width: int) -> torch.Tensor:
        """(rows, width) float64 standard Gaussian noise; each number depends on the seed and its place alone."""
        base = block.tensors[0]
        drawn = pruning.uniform(self.seed, 0, block.start * width, base.shape, base.device)
        return torch.special.ndtri(drawn + 2.0**-54)  # half a step above 0, where the quantile is finite


def _moved(base: torch.Tensor, factor: float, noise: torch.Tensor) -> torch.Tensor:
    return (base.to(wide(base.dtype)) + (factor * noise).to(wide(base.dtype))).to(base.dtype)


def _squared_distance(base: torch.Tensor, merged: torch.Tensor) -> float:
    return float((merged.double() - base.double()).square().sum())
