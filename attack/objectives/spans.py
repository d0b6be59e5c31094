"""Attacks inside an affine span: x = mean + z B with far fewer unknowns than pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attack.objectives.base import MultiplierSystem, Objective, Products
from attack.objectives.candidates import Candidates
from attack.objectives.penalties import (
    FloorPenalty,
    Penalty,
    RidgePenalty,
    SignedFloorPenalty,
    SparsityPenalty,
)
from identify.errors import InvalidInputError

#: Penalties that do not look at the points.
OF_MULTIPLIERS = (FloorPenalty, SignedFloorPenalty, SparsityPenalty, RidgePenalty)


@dataclass(frozen=True, eq=False)
class AffineSpan:
    """The points mean + z B: ``mean`` (D,), ``basis`` B (r, D), made orthonormal by `of`.

    Example:
        >>> span = AffineSpan.of(torch.ones(3), torch.tensor([[0.0, 2.0, 0.0]]))
        >>> z = span.drop(torch.tensor([[1.0, 6.0, 4.0]], dtype=torch.float64))
        >>> span.lift(z).tolist()
        [[1.0, 6.0, 1.0]]
    """

    mean: Tensor
    basis: Tensor

    @staticmethod
    def of(mean: Any, rows: Any, rank: int | None = None) -> AffineSpan:
        """Build the span of ``mean`` and the rows (k, D), dropping what is dependent to rounding.

        ``rank`` keeps the leading directions only; of the first layer's part of one gradient, or of
        the difference of two networks, they are those of the samples.

        Raises InvalidInputError for shapes that do not fit, numbers that are not finite, and rows
        of a smaller rank. The cost is one singular value decomposition.
        """
        centre = torch.as_tensor(mean, dtype=torch.float64, device="cpu")
        given = torch.as_tensor(rows, dtype=torch.float64, device="cpu")
        if centre.ndim != 1 or given.ndim != 2 or given.shape[1] != len(centre):
            shapes = f"{tuple(centre.shape)}, {tuple(given.shape)}"
            raise InvalidInputError("span", "a mean (D,) and rows (k, D)", shapes)
        if not bool(torch.isfinite(centre).all() and torch.isfinite(given).all()):
            raise InvalidInputError("span", "finite numbers", "NaN or infinity")
        _, values, vectors = torch.linalg.svd(given, full_matrices=False)
        eps = torch.finfo(torch.float64).eps
        there = int((values > eps * max(given.shape) * values.max()).sum()) if len(values) else 0
        wanted = there if rank is None else rank
        if not 1 <= wanted <= there:
            raise InvalidInputError("span", f"rows of rank {max(1, wanted)} at least", there)
        return AffineSpan(centre, vectors[:wanted].clone())

    @staticmethod
    def of_rows(basis: Any, has_bias: bool) -> AffineSpan:
        """Build the points that the row space of the first layer's change [dW | db] holds.

        ``basis`` (r, k) are orthonormal rows. With a bias these are points of the form [x; 1], and
        x = V^T c with <c, beta> = 1 for the rows [v_j, beta_j]: an affine span of dimension r - 1.
        Without one they are the linear span of the rows.

        Raises InvalidInputError where no point has a last coordinate of 1, or only one.

        Example:
            >>> rows = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])
            >>> [round(value, 6) for value in AffineSpan.of_rows(rows, has_bias=True).mean.tolist()]
            [0.75, 0.0]
        """
        rows = torch.as_tensor(basis, dtype=torch.float64, device="cpu")
        if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
            raise InvalidInputError("span", "finite rows (r, k)", tuple(rows.shape))
        if not has_bias:
            return AffineSpan.of(torch.zeros(rows.shape[1]), rows)
        points, heights = rows[:, :-1], rows[:, -1]
        square = heights @ heights
        if not len(rows) or float(square) <= len(rows) * torch.finfo(torch.float64).eps ** 2:
            raise InvalidInputError("span", "rows that hold a point [x; 1]", "none")
        mean = heights @ points / square
        free = points - torch.outer(heights, mean)
        if len(rows) < 2:
            raise InvalidInputError("span", "at least 2 rows", 1, "the only point is the sample")
        return AffineSpan.of(mean, free, len(rows) - 1)

    @property
    def dimension(self) -> int:
        """The number r of coordinates."""
        return len(self.basis)

    def to(self, device: torch.device, dtype: torch.dtype) -> AffineSpan:
        """Return the span on another device or in another dtype."""
        return AffineSpan(self.mean.to(device, dtype), self.basis.to(device, dtype))

    def lift(self, z: Tensor) -> Tensor:
        """Return the points (m, D) of coordinates (m, r)."""
        return self.mean + z @ self.basis

    def drop(self, x: Tensor) -> Tensor:
        """Return the coordinates of the nearest points of the span."""
        return (x - self.mean) @ self.basis.T

    def describe(self) -> dict[str, Any]:
        """Return what a record keeps to recognise the span."""
        return {"dimension": self.dimension, "sha256": self.sha256()}

    def sha256(self) -> str:
        """Hash mean and basis as little-endian float64."""
        digest = hashlib.sha256()
        for tensor in (self.mean, self.basis):
            digest.update(f"{tuple(tensor.shape)}\n".encode())
            array = tensor.to("cpu", torch.float64).numpy()
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class SpanPenalty(Penalty):
    """A penalty of the points, as one of their coordinates."""

    penalty: Penalty
    span: AffineSpan

    def values(self, x: Tensor, lam: Tensor) -> Tensor:
        return self.penalty.values(self.span.lift(x), lam)

    def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
        points = self.span.lift(x)
        slopes = torch.zeros_like(points)
        self.penalty.add_gradients(points, lam, slopes, grad_lam)
        grad_x.add_(slopes @ self.span.basis.T)

    def products(self, x: Tensor, v: Tensor) -> Tensor:
        basis = self.span.basis
        return self.penalty.products(self.span.lift(x), v @ basis) @ basis.T

    def describe(self) -> dict[str, Any]:
        return self.penalty.describe()


@dataclass(frozen=True, eq=False)
class SpanObjective(Objective):
    """An objective of the coordinates z (m, r) in a span; splitting and solvers work in them.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-6-1,tanh").initialise(seed=0)
        >>> objective = haim_objective(network, normaliser=3)
        >>> span = AffineSpan.of(torch.zeros(4), torch.eye(4)[:2])
        >>> inside = span_objective(objective, span)
        >>> at = inside.start(3, seed=0, scale=0.1)
        >>> tuple(at.x.shape), bool(objective.value(inside.lifted(at)) == inside.value(at))
        ((3, 2), True)
    """

    base: Objective
    span: AffineSpan
    name: str
    normaliser: float
    penalties: tuple[Penalty, ...]
    image_shape: tuple[int, int, int] | None

    def lifted(self, candidates: Candidates) -> Candidates:
        """Return the candidates in all D pixels."""
        return candidates.with_points(self.span.lift(candidates.x), candidates.lam)

    def dropped(self, candidates: Candidates) -> Candidates:
        """Return the nearest candidates in the span, in coordinates."""
        return candidates.with_points(self.span.drop(candidates.x), candidates.lam)

    @property
    def columns(self) -> int:
        return self.base.columns

    @property
    def dimension(self) -> int:
        return self.span.dimension

    @property
    def signed(self) -> bool:
        return self.base.signed

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def quadratic(self) -> bool:
        return self.base.quadratic

    def data_loss(self, candidates: Candidates) -> Tensor:
        return self.base.data_loss(self.lifted(candidates))

    def data_value(self, candidates: Candidates) -> Tensor:
        return self.base.data_value(self.lifted(candidates))

    def data_value_and_gradients(self, candidates: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        loss, grad_x, grad_lam = self.base.data_value_and_gradients(self.lifted(candidates))
        return loss, grad_x @ self.span.basis.T, grad_lam

    def splitting_operator(self, candidates: Candidates) -> Products:
        product, basis = self.base.splitting_operator(self.lifted(candidates)), self.span.basis
        return lambda v: product(v @ basis) @ basis.T

    def multiplier_system(self, candidates: Candidates) -> MultiplierSystem:
        return self.base.multiplier_system(self.lifted(candidates))

    def with_step(self, step: int) -> Objective:
        stepped = self.base.with_step(step)
        return self if stepped is self.base else span_objective(stepped, self.span)

    def start_multipliers(self, count: int, generator: torch.Generator) -> Tensor:
        return self.base.start_multipliers(count, generator)

    def start_labels(self, count: int) -> Tensor | None:
        return self.base.start_labels(count)

    def check_labels(self, labels: Tensor | None, count: int) -> None:
        self.base.check_labels(labels, count)

    def describe(self) -> dict[str, Any]:
        return {**self.base.describe(), "span": self.span.describe()}


def span_objective(objective: Objective, span: AffineSpan) -> SpanObjective:
    """Restrict an objective to a span.

    Raises InvalidInputError for a span of another dimension.
    """
    if len(span.mean) != objective.dimension:
        raise InvalidInputError(
            "span", f"points of dimension {objective.dimension}", len(span.mean)
        )
    here = span.to(objective.device, objective.dtype)
    penalties = tuple(
        p if isinstance(p, OF_MULTIPLIERS) else SpanPenalty(p, here) for p in objective.penalties
    )
    return SpanObjective(
        base=objective,
        span=here,
        name=objective.name,
        normaliser=objective.normaliser,
        penalties=penalties,
        image_shape=objective.image_shape,
    )
