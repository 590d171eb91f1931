"""Merge methods beside Arcee Fusion, one class each; `METHODS` has them by the name mergekit gives them.

Tensors are taken and returned in one dtype, and rounded where mergekit 0.1.5 rounds them, so that both give the same
bits where a method is deterministic. `weight` has one number per model; a base is the first tensor and has none.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from tinyr1.core.errors import UserError
from tinyr1.core.recipe import TAKES, Recipe
from tinyr1.merge.fusion import Fusion
from tinyr1.merge.method import Block, Method, Scan
from tinyr1.merge.methods.sparse import Breadcrumbs, BreadcrumbsTies, DareLinear, DareTies, Della, DellaLinear, Ties
from tinyr1.merge.methods.task_vectors import TaskArithmetic, check_weights, require, require_flags, tensors_of, wide

SLERP_LINEAR = 0.9995  # |cosine| above which spherical interpolation is replaced by linear (mergekit's value)
TINY_NORM = 1e-8  # a norm up to this is no direction (mergekit's value)


def tensor_seed(seed: int, name: str) -> int:
    """Seed of one tensor for the random methods, from the recipe's seed and the tensor's name.

    Methods see tensors without names: with one seed for all of them, equal positions of all tensors would be kept.
    The caller makes the method of a tensor by `dataclasses.replace(method, seed=tensor_seed(method.seed, name))`.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")


@dataclass(frozen=True, kw_only=True)
class Linear(Method):
    """Σ w·θ, divided by Σ w with `normalize`: weighted average, or soup with equal weights (arXiv 2203.05482).

    No base: every tensor of a block has a weight. In float32.
    """

    weight: tuple[float, ...]
    normalize: bool = True

    def __post_init__(self):
        check_weights(self)
        require_flags(self, "normalize")
        if self.normalize and sum(self.weight) == 0:
            raise ValueError(f"weight = {self.weight} sums to 0 and cannot be normalized; set normalize to false")

    @property
    def inputs(self) -> int:
        """Number of tensors in a block."""
        return len(self.weight)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> None:
        return None

    def apply(self, state: None, block: Block) -> tuple[torch.Tensor, None]:
        first = tensors_of(self, block)[0]
        weights = torch.tensor(self.weight, dtype=wide(first.dtype), device=first.device).view(-1, 1, 1)
        total = torch.zeros_like(first, dtype=weights.dtype)
        for tensor, weight in zip(block.tensors, weights, strict=True):
            total.addcmul_(tensor, weight)
        return (total / weights.sum(0) if self.normalize else total).to(first.dtype), None


@dataclass(frozen=True, kw_only=True)
class Slerp(Method):
    """Interpolation along the great circle between two tensors: t = 0 is the first (the base), t = 1 the second.

    The whole tensor is one vector. Where the vectors are nearly parallel or opposite (|cosine| > 0.9995) it is linear,
    and a vector without length counts as orthogonal, as in mergekit. Norms and product are summed in float64.
    """

    t: float
    inputs: ClassVar[int] = 2

    def __post_init__(self):
        require("t", self.t, "a number from 0 to 1", lambda t: 0 <= t <= 1)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> tuple[float, float, float]:
        """(cosine, coefficient of the first, of the second)."""

        def products(block: Block) -> torch.Tensor:
            a, b = (tensor.double() for tensor in tensors_of(self, block))
            return torch.stack([(a * a).sum(), (b * b).sum(), (a * b).sum()])

        aa, bb, ab = sum(scan(products), torch.zeros(3)).tolist()
        norm_a, norm_b = (norm if norm > TINY_NORM else 1.0 for norm in (math.sqrt(aa), math.sqrt(bb)))
        cosine = min(1.0, max(-1.0, ab / norm_a / norm_b))
        t = torch.tensor(self.t, dtype=torch.float32).item()  # mergekit rounds it before 1 - t
        if abs(cosine) > SLERP_LINEAR:
            return cosine, 1 - t, t
        angle = math.acos(cosine)
        return cosine, math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)

    def apply(self, state: tuple[float, float, float], block: Block) -> tuple[torch.Tensor, None]:
        a, b = tensors_of(self, block)
        mixed = state[1] * a.to(wide(a.dtype)) + state[2] * b.to(wide(b.dtype))
        return mixed.to(a.dtype), None

    def statistics(self, state: tuple[float, float, float], counts: None) -> dict:
        return {"cosine": state[0]}


METHODS: dict[str, type[Method]] = {
    "linear": Linear,
    "slerp": Slerp,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare_linear": DareLinear,
    "dare_ties": DareTies,
    "della_linear": DellaLinear,
    "della": Della,
    "breadcrumbs": Breadcrumbs,
    "breadcrumbs_ties": BreadcrumbsTies,
}


def build(recipe: Recipe, reading: str, iqr_multiplier: float) -> Method:
    """The method of the outermost step; reading and λ for fusion steps that name none.

    Inner steps are checked too. UserError for settings that a method refuses.
    """
    try:
        return _built(recipe, reading, iqr_multiplier)
    except ValueError as error:  # of a method's own checks
        raise UserError(f"{recipe.method}: {error}") from error


def _built(recipe: Recipe, reading: str, iqr_multiplier: float) -> Method:
    for part in recipe.parts:
        if isinstance(part, Recipe):
            build(part, reading, iqr_multiplier)
    if recipe.method == "fusion":
        own = recipe.iqr_multiplier
        return Fusion(recipe.reading or reading, iqr_multiplier if own is None else own)
    settings = {k: getattr(recipe, k) for k in ("t", "normalize", "rescale", "lambda_", "seed")}
    settings = {k: v for k, v in settings.items() if v is not None}
    for key in TAKES[recipe.method][1]:
        values = tuple(getattr(one, key) for one in recipe.models or ())
        if any(v is not None for v in values):
            if None in values:
                raise ValueError(f"models: {key} is given for some models only; give it for all or for none")
            settings[key] = values
    return METHODS[recipe.method](**settings)
