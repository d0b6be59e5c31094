"""Smallest eigenpairs of many symmetric matrices at once, from their products with vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from identify.errors import InvalidInputError

Product = Callable[[Tensor], Tensor]
"""(m, D) -> (m, D): row i is S_i v_i."""
Method = Literal["auto", "exact", "lanczos", "lobpcg"]

EXACT_LIMIT = 64
"""Largest D for which the matrices are formed."""
_MEMORY = 2**31
"""Bytes of Lanczos vectors above which "auto" takes LOBPCG, which keeps three."""
_CHECK_EVERY = 5
_WARM_NOISE = 0.1
_DOUBT = 1e-2
"""Probability, over all matrices together, that a margin is too small."""


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Approximate eigenpairs (mu_i, v_i) at one end of the spectra of S_1, ..., S_m.

    `values` (m,) mu_i = v_i . S_i v_i, so an upper bound of lambda_min(S_i) (a lower bound of
    lambda_max at the other end); `vectors` (m, D) unit; `residuals` (m,) |S_i v_i - mu_i v_i|;
    `scales` (m,) lower bounds of |S_i|; `converged` (m,) residual at most tolerance times scale;
    `margins` (m,) how far beyond mu_i the end of the spectrum may lie, with probability 0.99 over
    the random starts, infinite where nothing is known; `products` the batched products spent.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    scales: Tensor
    converged: Tensor
    margins: Tensor
    products: int
    method: str


@dataclass(frozen=True)
class EigenSearch:
    """How eigenpairs are looked for: ``method``, ``iterations``, ``tolerance`` and ``seed``.

    "exact" forms the matrices (D <= 64), "lanczos" keeps a basis that is orthogonalised fully,
    "lobpcg" keeps three vectors a matrix, "auto" takes the first of them that fits. ``iterations``
    bounds the products before the last one, which measures the residual; the search stops once
    every residual is below the share ``tolerance`` of |S_i|. ``seed`` is that of the directions.

    Raises InvalidInputError for another method and less than one iteration.

    Example:
        >>> EigenSearch().method_for(10, 64, torch.float64)
        'exact'
        >>> EigenSearch().method_for(10, 784, torch.float64)
        'lanczos'
    """

    method: Method = "auto"
    iterations: int = 24
    tolerance: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("auto", "exact", "lanczos", "lobpcg"):
            raise InvalidInputError("method", "auto, exact, lanczos or lobpcg", self.method)
        if self.iterations < 1:
            raise InvalidInputError("iterations", "at least 1", self.iterations)

    def method_for(self, count: int, dimension: int, dtype: torch.dtype) -> Method:
        """Return the method for m = `count` matrices of size D = `dimension`.

        Raises InvalidInputError for D above 64 where the matrices are to be formed.
        """
        if self.method == "exact" and dimension > EXACT_LIMIT:
            hint = 'take method "lanczos"'
            raise InvalidInputError("dimension", f"at most {EXACT_LIMIT}", dimension, hint)
        if self.method != "auto":
            return self.method
        if dimension <= EXACT_LIMIT:
            return "exact"
        size = count * min(self.iterations, dimension) * dimension * dtype.itemsize
        return "lobpcg" if size > _MEMORY else "lanczos"


def smallest_eigenpairs(
    product: Product,
    count: int,
    dimension: int,
    *,
    search: EigenSearch | None = None,
    start: Tensor | None = None,
    like: Tensor | None = None,
) -> Eigenpairs:
    """Find the smallest eigenpair of each of `count` symmetric matrices S_i, all at once.

    An exhausted Krylov space goes on from a random direction, so no eigenvalue is out of reach.

    Args:
        product: maps V (m, D) to the rows S_i v_i.
        count: m >= 1.
        dimension: D >= 1.
        search: method, effort and seed.
        start: vectors (m, D) near the eigenvectors, mixed with noise; random if not given.
        like: a tensor with the dtype and device of the vectors; `start`, else float64 on the CPU.

    Returns:
        Eigenpairs; `margins` follow the theorem below for Lanczos from random starts.

    Raises:
        InvalidInputError: shapes, D above 64 for "exact", or a product that is not finite.

    Cost: at most `iterations` + 1 products (D for "exact") and O(m k D) for k products each.

    Source: Lanczos with full re-orthogonalisation, Parlett (1998), "The Symmetric Eigenvalue
    Problem", section 13.7; LOBPCG, Knyazev (2001), algorithm 5.1 without preconditioner; margins,
    Kuczynski & Wozniakowski (1992), "Estimating the largest eigenvalue by the power and Lanczos
    algorithms with a random start", Theorem 4.2, applied to S - lambda I.

    Example:
        >>> S = torch.tensor([[[2.0, 1.0], [1.0, 2.0]], [[0.0, 3.0], [3.0, 0.0]]])
        >>> pairs = smallest_eigenpairs(
        ...     lambda v: torch.einsum("ijk,ik->ij", S, v), 2, 2, like=S
        ... )
        >>> [round(value, 4) for value in pairs.values.tolist()]
        [1.0, -3.0]
    """
    return _Search.begin(product, (count, dimension), search, start, like).ends(("smallest",))[0]


def extreme_eigenpairs(
    product: Product,
    count: int,
    dimension: int,
    *,
    search: EigenSearch | None = None,
    start: Tensor | None = None,
    like: Tensor | None = None,
) -> tuple[Eigenpairs, Eigenpairs]:
    """Find the smallest and the largest eigenpairs, from one Krylov space where there is one.

    Arguments, errors and source as for `smallest_eigenpairs`; `start` is for the smallest.

    Cost: one product more than `smallest_eigenpairs`; twice as many with "lobpcg".

    Example:
        >>> low, high = extreme_eigenpairs(lambda v: v * torch.tensor([1.0, -2.0, 5.0]), 1, 3)
        >>> round(low.values.item(), 6), round(high.values.item(), 6)
        (-2.0, 5.0)
    """
    begun = _Search.begin(product, (count, dimension), search, start, like)
    low, high = begun.ends(("smallest", "largest"))
    return low, high


@dataclass(frozen=True, eq=False)
class _Search:
    """One search: the product, the first vectors (m, D), and the stream of further ones."""

    product: _Counted
    first: Tensor
    chosen: EigenSearch
    generator: torch.Generator
    warm: bool

    @classmethod
    def begin(
        cls,
        product: Product,
        shape: tuple[int, int],
        chosen: EigenSearch | None,
        start: Tensor | None,
        like: Tensor | None,
    ) -> _Search:
        if start is not None and start.shape != shape:
            raise InvalidInputError("start", f"shape {shape}", tuple(start.shape))
        if min(shape) < 1:
            raise InvalidInputError("count and dimension", "at least 1 each", shape)
        given = like if start is None else start
        dtype = torch.float64 if given is None else given.dtype
        device = torch.device("cpu") if given is None else given.device
        chosen = chosen or EigenSearch()
        generator = torch.Generator(device).manual_seed(chosen.seed)
        first = _unit(torch.randn(shape, generator=generator, dtype=dtype, device=device))
        if start is not None:
            first = _unit(_unit(start) + _WARM_NOISE * first)
        return cls(_Counted(product), first, chosen, generator, start is not None)

    def ends(self, ends: tuple[str, ...]) -> list[Eigenpairs]:
        count, dimension = self.first.shape
        method = self.chosen.method_for(count, dimension, self.first.dtype)
        if method == "exact":
            return _exact(self.product, self.first, ends)
        if method == "lanczos":
            return _lanczos(self, ends)
        return [_lobpcg(self) if end == "smallest" else _lobpcg_above(self) for end in ends]

    def measured(self, vectors: Tensor, scales: Tensor, margins: Tensor, name: str) -> Eigenpairs:
        """One more product: the Rayleigh quotients and residuals that are reported are true."""
        image = self.product(vectors)
        values = (vectors * image).sum(dim=1)
        residuals = torch.linalg.vector_norm(image - values[:, None] * vectors, dim=1)
        converged = residuals <= self.chosen.tolerance * scales
        return Eigenpairs(
            values, vectors, residuals, scales, converged, margins, self.product.calls, name
        )


class _Counted:
    """A product that counts its calls and refuses numbers that are not finite."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.calls = 0

    def __call__(self, vectors: Tensor) -> Tensor:
        self.calls += 1
        result = self.product(vectors).detach()
        if result.shape != vectors.shape:
            raise InvalidInputError("product", f"shape {tuple(vectors.shape)}", tuple(result.shape))
        if not bool(torch.isfinite(result).all()):
            hint = "lower the learning rate or start at a smaller scale"
            raise InvalidInputError("product", "finite numbers", "NaN or infinity", hint)
        return result


def _exact(product: _Counted, first: Tensor, ends: tuple[str, ...]) -> list[Eigenpairs]:
    count, dimension = first.shape
    unit = torch.eye(dimension, dtype=first.dtype, device=first.device)
    columns = [product(unit[j].expand(count, dimension)) for j in range(dimension)]
    matrices = torch.stack(columns, dim=2)
    matrices = (matrices + matrices.mT) / 2
    values, vectors = torch.linalg.eigh(matrices)
    scales = values.abs().amax(dim=1)
    eps = torch.finfo(first.dtype).eps
    pairs = []
    for end in ends:
        at = 0 if end == "smallest" else -1
        vector = vectors[:, :, at]
        image = torch.einsum("ijk,ik->ij", matrices, vector)
        residuals = torch.linalg.vector_norm(image - values[:, at, None] * vector, dim=1)
        converged = torch.ones_like(residuals, dtype=torch.bool)
        margins = 4 * dimension * eps * scales
        pairs.append(
            Eigenpairs(
                values[:, at], vector, residuals, scales, converged, margins, product.calls, "exact"
            )
        )
    return pairs


def _lanczos(search: _Search, ends: tuple[str, ...]) -> list[Eigenpairs]:
    first, tolerance = search.first, search.chosen.tolerance
    count, dimension = first.shape
    steps = min(search.chosen.iterations, dimension)
    basis = first.new_empty((count, steps, dimension))
    projected = first.new_zeros((count, steps, steps))
    scales = first.new_zeros(count)
    vector = first
    used = 0
    for k in range(steps):
        basis[:, k] = vector
        image = search.product(vector)
        scales = torch.maximum(scales, torch.linalg.vector_norm(image, dim=1))
        space = basis[:, : k + 1]
        # Once against the last two, which take nearly all of it, and once against every vector.
        rest, near = _orthogonal(image, space[:, -2:], passes=1)
        rest, row = _orthogonal(rest, space, passes=1)
        row[:, -2:] += near
        projected[:, k, : k + 1] = row
        projected[:, : k + 1, k] = row
        used = k + 1
        beta = torch.linalg.vector_norm(rest, dim=1)
        ended = beta <= 8 * math.sqrt(dimension) * torch.finfo(first.dtype).eps * scales
        if used == steps:
            break
        if used % _CHECK_EVERY == 0:
            _, small = torch.linalg.eigh(projected[:, :used, :used])
            last = small[:, -1, [0 if end == "smallest" else -1 for end in ends]]
            left = (beta * ~ended)[:, None] * last.abs()
            if bool((left <= 0.5 * tolerance * scales[:, None]).all()):
                break
        vector = rest / beta.clamp_min(torch.finfo(first.dtype).tiny)[:, None]
        if bool(ended.any()):
            vector = torch.where(ended[:, None], _fresh(space, search.generator), vector)
    values, small = torch.linalg.eigh(projected[:, :used, :used])
    scales = torch.maximum(scales, values.abs().amax(dim=1))
    margins = _margins(values, dimension, used, count, search.warm)
    pairs = []
    for end in ends:
        at = 0 if end == "smallest" else -1
        ritz = _unit(torch.einsum("ik,ikj->ij", small[:, :, at], basis[:, :used]))
        pairs.append(search.measured(ritz, scales, margins, "lanczos"))
    return pairs


def _margins(values: Tensor, dimension: int, steps: int, count: int, warm: bool) -> Tensor:
    """Kuczynski-Wozniakowski for all matrices and both ends: P <= 1.648 sqrt(D) e^(-sqrt(e)(2k-1)).

    The error is e times the spread of the spectrum, of which the Ritz values show 1 - 2 e.
    """
    spread = values[:, -1] - values[:, 0]
    if steps >= dimension:
        return 4 * dimension * torch.finfo(values.dtype).eps * values.abs().amax(dim=1)
    events = 2 * count * (1 + steps // _CHECK_EVERY)  # both ends; where it may have stopped
    root = math.log(1.648 * math.sqrt(dimension) * events / _DOUBT) / (2 * steps - 1)
    if warm or root**2 >= 0.45:
        return torch.full_like(spread, math.inf)
    return root**2 / (1 - 2 * root**2) * spread


def _lobpcg_above(search: _Search) -> Eigenpairs:
    """The largest eigenpairs, as the smallest of -S_i."""
    minus = _Counted(lambda v: -search.product(v))
    pairs = _lobpcg(replace(search, product=minus))
    return replace(pairs, values=-pairs.values)


def _lobpcg(search: _Search) -> Eigenpairs:
    product, first, tolerance = search.product, search.first, search.chosen.tolerance
    dimension = first.shape[1]
    eps = torch.finfo(first.dtype).eps
    vector, image = first, product(first)
    step = step_image = torch.zeros_like(first)
    scales = torch.linalg.vector_norm(image, dim=1)
    for _ in range(search.chosen.iterations - 1):
        values = (vector * image).sum(dim=1)
        residual = image - values[:, None] * vector
        size = torch.linalg.vector_norm(residual, dim=1)
        if bool((size <= 0.5 * tolerance * scales).all()):
            break
        # Zero columns stand for directions that are missing: the first step has no last one.
        shift = (vector * step).sum(dim=1, keepdim=True)
        step, step_image = step - shift * vector, step_image - shift * image
        length = torch.linalg.vector_norm(step, dim=1, keepdim=True)
        usable = length > math.sqrt(eps)
        inverse = torch.where(usable, 1 / length.clamp_min(eps), torch.zeros_like(length))
        step, step_image = step * inverse, step_image * inverse
        space = torch.stack([vector, step], dim=1)
        ended = size <= 8 * math.sqrt(dimension) * eps * scales
        direction, _ = _orthogonal(_unit(residual), space)
        direction = _unit(direction)
        if bool(ended.any()):
            direction = torch.where(ended[:, None], _fresh(space, search.generator), direction)
        space = torch.cat([space, direction[:, None]], dim=1)
        direction_image = product(direction)
        scales = torch.maximum(scales, torch.linalg.vector_norm(direction_image, dim=1))
        images = torch.stack([image, step_image, direction_image], dim=1)
        projected = space @ images.mT
        projected = (projected + projected.mT) / 2
        # A missing direction must not win: its value is put above the spectrum.
        missing = torch.linalg.vector_norm(space, dim=2) < 0.5
        projected = projected + torch.diag_embed(missing * (4 * scales[:, None] + 1))
        _, small = torch.linalg.eigh(projected)
        weights = small[:, :, 0]
        new, new_image = _combined(weights, space), _combined(weights, images)
        rest = torch.cat([torch.zeros_like(weights[:, :1]), weights[:, 1:]], dim=1)
        step, step_image = _combined(rest, space), _combined(rest, images)
        vector, image = new, new_image
    margins = torch.full_like(scales, math.inf)
    return search.measured(_unit(vector), scales, margins, "lobpcg")


def _orthogonal(vectors: Tensor, space: Tensor, passes: int = 2) -> tuple[Tensor, Tensor]:
    """The parts of `vectors` (m, D) outside the rows of `space` (m, k, D), and coefficients."""
    total = vectors.new_zeros(space.shape[:2])
    for _ in range(passes):
        part = torch.einsum("ikj,ij->ik", space, vectors)
        vectors = vectors - torch.einsum("ik,ikj->ij", part, space)
        total = total + part
    return vectors, total


def _fresh(space: Tensor, generator: torch.Generator) -> Tensor:
    """Random unit vectors orthogonal to the rows of `space`."""
    shape = (space.shape[0], space.shape[2])
    noise = torch.randn(shape, generator=generator, dtype=space.dtype, device=space.device)
    return _unit(_orthogonal(_unit(_orthogonal(noise, space)[0]), space)[0])


def _combined(weights: Tensor, vectors: Tensor) -> Tensor:
    return torch.einsum("ik,ikj->ij", weights, vectors)


def _unit(vectors: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    unit: Tensor = vectors / length.clamp_min(torch.finfo(vectors.dtype).tiny)
    return unit
