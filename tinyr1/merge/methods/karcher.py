"""The Karcher mean: the direction to which the squared angles of several models sum up to the least.

    one pass -> products of each pair of models -> cosines -> `coefficients`: the iteration on K numbers
             -> one pass: Σ coefficient · model

Every point that the iteration visits is a combination of the models, so their products with each other determine it,
and no pass over the tensor is needed for a step.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tinyr1.merge.method import Method, RowBlock, Scan
from tinyr1.merge.methods.sums import total
from tinyr1.merge.methods.task_vectors import check_number, tensors_of, wide


@dataclass(frozen=True, kw_only=True)
class Karcher(Method):
    """The mean direction of tensors, each taken as one vector, with the mean of their lengths; all count alike.

    Products are taken in float64 and the result is rounded once. mergekit 0.1.5 rounds every step of the iteration to
    the dtype of the tensors. In float32 the results agree to some units in the last place of the largest entry, and
    bfloat16 tensors give what it computes from them in float32; what it computes in bfloat16 differs by its rounding,
    by less than 2 % of the largest entry.
    """

    models: int
    max_iter: int = 10
    tol: float = 1e-5

    def __post_init__(self) -> None:
        rule = "a whole number of at least 0"
        check_number("max_iter", self.max_iter, rule, lambda steps: type(steps) is int and steps >= 0)
        check_number("tol", self.tol, "a finite number above 0", lambda tol: 0 < tol < math.inf)

    @property
    def inputs(self) -> int:
        return self.models

    def prepare(self, scan: Scan, shape: tuple[int, int]) -> np.ndarray:
        """(models,) coefficients."""

        def products(block: RowBlock) -> torch.Tensor:
            vectors = [tensor.double() for tensor in tensors_of(self, block)]
            rows = [torch.stack([(v * w).sum() for w in vectors[: i + 1]]) for i, v in enumerate(vectors)]
            return torch.cat(rows)

        below, _ = total(scan, products)
        gram = np.zeros((self.models, self.models))
        gram[np.tril_indices(self.models)] = below.numpy()
        return coefficients(gram + np.tril(gram, -1).T, self.max_iter, self.tol)

    def apply(self, state: np.ndarray, block: RowBlock) -> tuple[torch.Tensor, None]:
        first = tensors_of(self, block)[0]
        if self.models == 1:
            return first.clone(), None
        mixed = torch.zeros_like(first, dtype=wide(first.dtype))
        for coefficient, tensor in zip(state.tolist(), block.tensors, strict=True):
            mixed += coefficient * tensor.to(mixed.dtype)
        return mixed.to(first.dtype), None

    def statistics(self, state: np.ndarray, counts: None) -> dict[str, Any]:
        """coefficient_i: the factor of model i = 1, 2, … in the sum."""
        return {f"coefficient_{i}": value for i, value in enumerate(state.tolist(), 1)}


def coefficients(gram: np.ndarray, max_iter: int, tol: float) -> np.ndarray:
    """(models,) factors of the vectors in their Karcher mean; gram (models, models): their products with each other.

    A vector not longer than `tol` has no direction and takes part with its length alone; without any direction the mean
    is 0. Where the directions cancel out, the iteration starts at the first. It ends after `max_iter` steps, or with
    a step shorter than `tol`.
    """
    lengths = np.sqrt(gram.diagonal())
    pointing = lengths > tol
    found = np.zeros(len(gram))
    if pointing.any():
        cosines = gram[np.ix_(pointing, pointing)] / np.outer(lengths[pointing], lengths[pointing])
        found[pointing] = lengths.mean() * _mean_direction(cosines, max_iter, tol) / lengths[pointing]
    return found


def _mean_direction(cosines: np.ndarray, max_iter: int, tol: float) -> np.ndarray:
    """(directions,) factors of unit vectors, given by their cosines with each other, in their mean of length 1."""

    def length(factors: np.ndarray) -> float:
        return math.sqrt(max(0.0, factors @ cosines @ factors))

    share = 1 / len(cosines)
    mean = np.full(len(cosines), share)
    mean = mean / length(mean) if length(mean) >= tol else np.eye(len(cosines))[0]
    for _ in range(max_iter):
        along = np.clip(cosines @ mean, -1, 1)
        angles = np.arccos(along)
        # The mean itself is no way off, and to the vector opposite to it all ways are equally long.
        turned = (angles >= tol) & (math.pi - angles >= tol)
        stretch = np.divide(angles, np.sin(angles), out=np.zeros_like(angles), where=turned)
        step = share * (stretch - (stretch * along).sum() * mean)
        if length(step) < tol:
            break
        mean = math.cos(length(step)) * mean + math.sin(length(step)) / length(step) * step
        mean /= length(mean)
    return mean
