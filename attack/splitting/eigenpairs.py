"""Smallest eigenpairs of many symmetric matrices at once, from their products with vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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


def smallest_eigenpairs(
    product: Product,
    count: int,
    dimension: int,
    *,
    method: Method = "auto",
    start: Tensor | None = None,
    seed: int = 0,
    iterations: int = 24,
    tolerance: float = 1e-3,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Eigenpairs:
    """Find the smallest eigenpair of each of `count` symmetric matrices S_i, all at once.

    "exact" forms the matrices (D <= 64), "lanczos" keeps a basis that is orthogonalised fully,
    "lobpcg" keeps three vectors a matrix, "auto" takes the first of them that fits. An
    exhausted Krylov space goes on from a random direction, so no eigenvalue is out of reach.

    Args:
        product: maps V (m, D) to the rows S_i v_i.
        count: m >= 1.
        dimension: D >= 1.
        method: "auto", "exact", "lanczos" or "lobpcg".
        start: vectors (m, D) near the eigenvectors, mixed with noise; random if not given.
        seed: of the random directions.
        iterations: bound on the products before the last one, which measures the residual.
        tolerance: stop once every residual is below this share of |S_i|.
        dtype: of the vectors; `start` decides if given.
        device: of the vectors; `start` decides if given.

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
        ...     lambda v: torch.einsum("ijk,ik->ij", S, v), 2, 2, dtype=torch.float32
        ... )
        >>> [round(value, 4) for value in pairs.values.tolist()]
        [1.0, -3.0]
    """
    return _ends(
        product, count, dimension, ("smallest",), method, start, seed, iterations, tolerance,
        dtype, device,
    )[0]  # fmt: skip


def extreme_eigenpairs(
    product: Product,
    count: int,
    dimension: int,
    *,
    method: Method = "auto",
    start: Tensor | None = None,
    seed: int = 0,
    iterations: int = 24,
    tolerance: float = 1e-3,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> tuple[Eigenpairs, Eigenpairs]:
    """Find the smallest and the largest eigenpairs, from one Krylov space where there is one.

    Arguments, errors and source as for `smallest_eigenpairs`; `start` is for the smallest.

    Cost: one product more than `smallest_eigenpairs`; twice as many with "lobpcg".

    Example:
        >>> low, high = extreme_eigenpairs(lambda v: v * torch.tensor([1.0, -2.0, 5.0]), 1, 3)
        >>> round(low.values.item(), 6), round(high.values.item(), 6)
        (-2.0, 5.0)
    """
    low, high = _ends(
        product, count, dimension, ("smallest", "largest"), method, start, seed, iterations,
        tolerance, dtype, device,
    )  # fmt: skip
    return low, high


def _ends(
    product: Product,
    count: int,
    dimension: int,
    ends: tuple[str, ...],
    method: Method,
    start: Tensor | None,
    seed: int,
    iterations: int,
    tolerance: float,
    dtype: torch.dtype,
    device: torch.device | str,
) -> list[Eigenpairs]:
    if start is not None:
        if start.shape != (count, dimension):
            raise InvalidInputError("start", f"shape ({count}, {dimension})", tuple(start.shape))
        dtype, device = start.dtype, start.device
    if count < 1 or dimension < 1 or iterations < 1:
        got = f"{count}, {dimension} and {iterations}"
        raise InvalidInputError("count, dimension and iterations", "at least 1 each", got)
    if method == "auto":
        size = count * min(iterations, dimension) * dimension * dtype.itemsize
        method = "exact" if dimension <= EXACT_LIMIT else "lanczos"
        method = "lobpcg" if method == "lanczos" and size > _MEMORY else method
    if method == "exact" and dimension > EXACT_LIMIT:
        hint = 'take method "lanczos"'
        raise InvalidInputError("dimension", f"at most {EXACT_LIMIT}", dimension, hint)
    generator = torch.Generator(device).manual_seed(seed)
    first = torch.randn((count, dimension), generator=generator, dtype=dtype, device=device)
    first = _unit(first)
    if start is not None:
        first = _unit(_unit(start) + _WARM_NOISE * first)
    counted = _Counted(product)
    if method == "exact":
        return _exact(counted, first, ends)
    if method == "lanczos":
        warm = start is not None
        return _lanczos(counted, first, ends, iterations, tolerance, generator, warm)
    if method == "lobpcg":
        pairs = [_lobpcg(counted, first, iterations, tolerance, generator)]
        if "largest" in ends:
            minus = _Counted(lambda v: -counted(v))
            pairs.append(_mirrored(_lobpcg(minus, first, iterations, tolerance, generator)))
        return pairs
    raise InvalidInputError("method", "auto, exact, lanczos or lobpcg", method)


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


def _lanczos(
    product: _Counted,
    first: Tensor,
    ends: tuple[str, ...],
    iterations: int,
    tolerance: float,
    generator: torch.Generator,
    warm: bool,
) -> list[Eigenpairs]:
    count, dimension = first.shape
    steps = min(iterations, dimension)
    basis = first.new_empty((count, steps, dimension))
    projected = first.new_zeros((count, steps, steps))
    scales = first.new_zeros(count)
    vector = first
    used = 0
    for k in range(steps):
        basis[:, k] = vector
        image = product(vector)
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
            vector = torch.where(ended[:, None], _fresh(space, generator), vector)
    values, small = torch.linalg.eigh(projected[:, :used, :used])
    scales = torch.maximum(scales, values.abs().amax(dim=1))
    margins = _margins(values, dimension, used, count, warm)
    pairs = []
    for end in ends:
        at = 0 if end == "smallest" else -1
        ritz = _unit(torch.einsum("ik,ikj->ij", small[:, :, at], basis[:, :used]))
        pairs.append(_measured(product, ritz, scales, margins, tolerance, "lanczos"))
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


def _lobpcg(
    product: _Counted,
    first: Tensor,
    iterations: int,
    tolerance: float,
    generator: torch.Generator,
) -> Eigenpairs:
    dimension = first.shape[1]
    eps = torch.finfo(first.dtype).eps
    vector, image = first, product(first)
    step = step_image = torch.zeros_like(first)
    scales = torch.linalg.vector_norm(image, dim=1)
    for _ in range(iterations - 1):
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
            direction = torch.where(ended[:, None], _fresh(space, generator), direction)
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
    return _measured(product, _unit(vector), scales, margins, tolerance, "lobpcg")


def _measured(
    product: _Counted,
    vectors: Tensor,
    scales: Tensor,
    margins: Tensor,
    tolerance: float,
    method: str,
) -> Eigenpairs:
    """One more product: the Rayleigh quotients and residuals that are reported are true ones."""
    image = product(vectors)
    values = (vectors * image).sum(dim=1)
    residuals = torch.linalg.vector_norm(image - values[:, None] * vectors, dim=1)
    converged = residuals <= tolerance * scales
    return Eigenpairs(values, vectors, residuals, scales, converged, margins, product.calls, method)


def _mirrored(pairs: Eigenpairs) -> Eigenpairs:
    return Eigenpairs(
        -pairs.values, pairs.vectors, pairs.residuals, pairs.scales, pairs.converged,
        pairs.margins, pairs.products, pairs.method,
    )  # fmt: skip


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
