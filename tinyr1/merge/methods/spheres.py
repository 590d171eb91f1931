"""Averages of directions: two tensors, or several, are vectors, and their directions points on a sphere.

    nuslerp     two vectors      -> point of the arc between them, at the second weight's share of the way
    multislerp  several vectors  -> their mean direction -> each direction as a step from it, in the tangent plane
                                 -> the weighted sum of the steps, walked on the sphere -> with the mean length

With a base the vectors are the differences to it, and the base is added in the end; without one they are the models.
`sums` says what is rounded when.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from tinyr1.core.errors import UserError
from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.methods.sums import computed_in, products, squares, total
from tinyr1.merge.methods.task_vectors import added, check_flag, check_number, check_weights, tensors_of

TINY_LENGTH = 1e-7  # what nuslerp divides by is at least this (mergekit's value)
COLINEAR = 1e-16  # nuslerp: squared sine up to which it is linear (mergekit's value)
TINY_TOTAL = 1e-6  # nuslerp: a sum of weights below this says nothing, and both count alike (mergekit's value)
UNKNOWN = torch.empty(0)  # a number that a later pass finds


@dataclass(frozen=True, kw_only=True)
class _Directions(Method):
    """A method whose vectors are models, or with a base their differences to it; the base has no weight."""

    weight: tuple[float, ...]
    has_base: bool = False

    def __post_init__(self) -> None:
        check_weights(self.weight)

    @property
    def inputs(self) -> int:
        return len(self.weight) + self.has_base

    def vectors(self, block: RowBlock) -> list[torch.Tensor]:
        """The vectors (rows, width) of a block, in the dtype of the computation."""
        tensors = [tensor.to(computed_in(tensor.dtype)) for tensor in tensors_of(self, block)]
        return [tensor - tensors[0] for tensor in tensors[1:]] if self.has_base else tensors

    def placed(self, mixed: torch.Tensor, block: RowBlock) -> torch.Tensor:
        """The merged rows of a mixture of the vectors."""
        first = block.tensors[0]
        return (first.to(mixed.dtype) + mixed if self.has_base else mixed).to(first.dtype)


@dataclass(frozen=True, kw_only=True)
class Nuslerp(_Directions):
    """Spherical interpolation of two vectors at t = w₂ / (w₁ + w₂); at 0.5 where the weights sum to 0.

    A vector is the whole tensor; with `nuslerp_flatten` false a row, or with `nuslerp_row_wise` too what runs along the
    first dimension, which is a column of a matrix. Parallel and opposite vectors are interpolated linearly, and a
    vector without length counts as orthogonal to the other.
    """

    nuslerp_flatten: bool = True
    nuslerp_row_wise: bool = False
    middle: int = 1  # rows of the tensor that share an index of the first dimension; `for_shape` knows

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("nuslerp_flatten", self.nuslerp_flatten)
        check_flag("nuslerp_row_wise", self.nuslerp_row_wise)
        if len(self.weight) != 2:
            raise ValueError(f"merges two models beside the base and got {len(self.weight)}; give two")

    def for_shape(self, shape: tuple[int, ...]) -> Method:
        if len(shape) < 2 and self.nuslerp_row_wise:  # what runs along the only dimension is everything
            return replace(self, nuslerp_flatten=True)
        return replace(self, middle=math.prod(shape[1:-1]))

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> torch.Tensor | None:
        """Cosine of the whole tensor (), or of the vectors along the first dimension (middle, width); None for rows."""
        if self.nuslerp_flatten:
            lengths, dtype = total(scan, lambda block: squares(self.vectors(block)))
            lengths = lengths.sqrt().to(dtype)
            (product,), _ = total(scan, lambda block: products(_units(self.vectors(block), lengths)))
            return product.to(dtype).clamp(-1, 1)
        return self._along_first(scan, shape[1]) if self.nuslerp_row_wise else None

    def _along_first(self, scan: Scan, width: int) -> torch.Tensor:
        """(middle, width) cosines of the vectors along the first dimension."""

        def measure(block: RowBlock) -> tuple[int, list[torch.Tensor], torch.dtype]:
            vectors = self.vectors(block)
            return block.start, [_folded(v.double().square(), self.middle) for v in vectors], vectors[0].dtype

        sums, dtype = torch.zeros(2, self.middle, width, dtype=torch.float64), torch.float32
        for start, parts, dtype in scan(measure):  # noqa: B007
            for each, part in zip(sums, parts, strict=True):
                each[self._places(start, len(part))] += part
        lengths = sums.sqrt().to(dtype)

        def multiply(block: RowBlock) -> tuple[int, torch.Tensor]:
            vectors = self.vectors(block)
            here = lengths[:, self._places(block.start, len(vectors[0]))].to(vectors[0].device)
            v, w = _units(vectors, here)
            return block.start, _folded((v * w).double(), self.middle)

        product = torch.zeros(self.middle, width, dtype=torch.float64)
        for start, part in scan(multiply):
            product[self._places(start, len(part))] += part
        return product.to(dtype).clamp(-1, 1)

    def _places(self, start: int, rows: int) -> torch.Tensor:
        """(rows,) of the middle dimensions that the rows from `start` on belong to."""
        return (torch.arange(rows) + start) % self.middle

    def apply(self, state: torch.Tensor | None, block: RowBlock) -> tuple[torch.Tensor, None]:
        vectors = self.vectors(block)
        if state is None:
            lengths = squares(vectors, -1).sqrt().to(vectors[0].dtype)
            cosine = products(_units(vectors, lengths), -1)[0].to(vectors[0].dtype).clamp(-1, 1)
        else:
            cosine = state if state.dim() == 0 else state[self._places(block.start, len(vectors[0]))]
        return self.placed(self._between(vectors, cosine.to(vectors[0].device)), block), None

    def _between(self, vectors: list[torch.Tensor], cosine: torch.Tensor) -> torch.Tensor:
        """The point of the arc between two vectors; cosine: one for all entries or one for each vector."""
        v, w = vectors
        t = 0.5 if abs(sum(self.weight)) < TINY_TOTAL else self.weight[1] / sum(self.weight)
        straight = 1 - cosine.square() <= COLINEAR
        angle = torch.where(straight, 0, cosine).acos()
        arc = (((1 - t) * angle).sin() * v + (t * angle).sin() * w) / angle.sin()
        return torch.where(straight, (1 - t) * v + t * w, arc)

    def statistics(self, state: torch.Tensor | None, counts: None) -> dict[str, Any]:
        """The cosine, where the whole tensor has one."""
        return {"cosine": state.item()} if state is not None and state.dim() == 0 else {}


@dataclass(frozen=True)
class Sphere:
    """What multislerp knows of the directions of a tensor, more after each pass; numbers in the dtype of computation.

    `straight` is the mixture of vectors without a mean direction: they are added up with their weights.
    """

    weights: torch.Tensor  # (models,)
    lengths: torch.Tensor  # (models,) of the vectors
    eps: float
    straight: bool = False
    mean_length: torch.Tensor = UNKNOWN  # () of the weighted mean of the directions
    cosines: torch.Tensor = UNKNOWN  # (models,) of the directions with it
    step: torch.Tensor = UNKNOWN  # () length of the weighted sum of the steps

    def directions(self, vectors: list[torch.Tensor]) -> list[torch.Tensor]:
        return [v / (length + self.eps) for v, length in zip(vectors, self.lengths, strict=True)]

    def weighted(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        return added([v * weight for v, weight in zip(vectors, self.weights, strict=True)])

    def steps(self, vectors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(the mean direction, of length 1; the weighted sum of the steps from it to each direction)."""
        directions = self.directions(vectors)
        mean = self.weighted(directions) / self.mean_length
        return mean, self.weighted([d - cosine * mean for d, cosine in zip(directions, self.cosines, strict=True)])

    def mixed(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        if self.straight:
            return self.weighted(vectors)
        mean, steps = self.steps(vectors)
        walked = mean * self.step.cos() + steps * (self.step.sin() / self.step)
        return walked * (self.lengths * self.weights).sum()


@dataclass(frozen=True, kw_only=True)
class Multislerp(_Directions):
    """The weighted mean on the sphere, by one step in the tangent plane; the whole tensor is one vector.

    A model alone is itself. Vectors whose directions cancel out have no mean direction: two of them, and any number
    without length, are added up with their weights; mergekit refuses more than two models that all equal the base.
    """

    normalize_weights: bool = True
    eps: float = 1e-8
    tensor: str = "a tensor"  # its name, for the error that only its values can show

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("normalize_weights", self.normalize_weights)
        check_number("eps", self.eps, "a finite number above 0", lambda eps: 0 < eps < math.inf)
        if self.normalize_weights and sum(self.weight) == 0:
            raise ValueError(
                f"weight = {self.weight} sums to 0 and cannot be normalized; set normalize_weights to false"
            )

    def for_tensor(self, name: str) -> Method:
        return replace(self, tensor=name)

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> Sphere | None:
        """Four passes; None for a model alone."""
        if len(self.weight) == 1:
            return None
        lengths, dtype = total(scan, lambda block: squares(self.vectors(block)))
        weights = torch.tensor(self.weight, dtype=dtype)
        weights = weights / weights.sum() if self.normalize_weights else weights
        known = Sphere(weights, lengths.sqrt().to(dtype), self.eps)

        mean, _ = total(scan, lambda block: squares([known.weighted(known.directions(self.vectors(block)))]))
        known = replace(known, mean_length=mean[0].sqrt().to(dtype))
        if known.mean_length < self.eps:
            return self._straight(known)

        def cosines(block: RowBlock) -> torch.Tensor:
            directions = known.directions(self.vectors(block))
            mean = known.weighted(directions) / known.mean_length
            return torch.stack([(each * mean).double().sum() for each in directions])

        known = replace(known, cosines=total(scan, cosines)[0].to(dtype))
        length, _ = total(scan, lambda block: squares([known.steps(self.vectors(block))[1]]))
        return replace(known, step=length[0].sqrt().to(dtype) + self.eps)

    def _straight(self, known: Sphere) -> Sphere:
        if len(self.weight) > 2 and known.lengths.any():
            raise UserError(
                f"multislerp: {self.tensor}: the directions of the models cancel out with weight = {self.weight}, so "
                f"that they have no mean; give other weights, or another base"
            )
        return replace(known, straight=True)

    def apply(self, state: Sphere | None, block: RowBlock) -> tuple[torch.Tensor, None]:
        if state is None:
            return tensors_of(self, block)[-1].clone(), None
        return self.placed(state.mixed(self.vectors(block)), block), None


def _units(vectors: list[torch.Tensor], lengths: torch.Tensor) -> list[torch.Tensor]:
    """The vectors with length 1, or 0; lengths (2, …) of them in their dtype."""
    return [v / length.clamp(min=TINY_LENGTH) for v, length in zip(vectors, lengths, strict=True)]


def _folded(entries: torch.Tensor, middle: int) -> torch.Tensor:
    """(rows, width) -> (at most middle, width) on the CPU: rows that are `middle` apart are added up."""
    if len(entries) <= middle:
        return entries.cpu()
    padded = torch.cat([entries, entries.new_zeros(-len(entries) % middle, entries.shape[1])])
    return padded.view(-1, middle, entries.shape[1]).sum(0).cpu()
