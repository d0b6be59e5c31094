"""The best multipliers at given points: least squares, non-negative where they have to be."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.objectives.penalties import BlurPenalty, BoxPenalty, FloorPenalty, RidgePenalty
from identify.errors import InvalidInputError

LARGEST = 10_000
"""Most multipliers: the Gram matrix then has 800 MB."""
_ROUNDS = 60
_SHIFTS = (1e-8, 1e-6, 1e-4)
"""Of the mean diagonal, one after the other: entries in float32 need more than those in float64."""
_PATIENCE = 10
_POINT_PENALTIES = (BoxPenalty, BlurPenalty)


def optimal_multipliers(
    objective: Objective, candidates: Candidates, *, ridge: float | None = None
) -> Tensor:
    """Minimise the loss over the multipliers at fixed points.

    The data loss is const - 2 <c, lam> + <lam, G lam>. Signed multipliers solve a ridge
    regression; others are at least 0, and a penalty floor w max(floor - lam, 0)^2 is minimised with
    it exactly, as is a ridge w lam^2. The given multipliers start the search for the active set and
    change nothing else.

    Args:
        objective: with a data loss that is quadratic in the multipliers.
        candidates: m points, K columns of multipliers.
        ridge: relative to the mean of diag G; 1e-10 in float64 and 1e-6 in float32 unless given.

    Returns:
        lam (m, K) in the dtype of the candidates.

    Raises:
        InvalidInputError: a loss that is not quadratic in the multipliers, a penalty of theirs
            other than floor and ridge, more than 10,000 of them, numbers that are not finite.

    Cost: the Gram matrix of all gradients and a few Cholesky factorisations of size m K.

    Source: variable projection, Golub & Pereyra (1973), "The differentiation of pseudo-inverses and
    nonlinear least squares problems whose variables separate"; `non_negative` for the active set.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-9-1,power3,bias=none").initialise(seed=0)
        >>> objective = haim_objective(network, normaliser=3, floor=None)
        >>> at = objective.start(3, seed=0, scale=1.0)
        >>> best = at.with_points(at.x, optimal_multipliers(objective, at))
        >>> objective.value(best) < objective.value(at), bool((best.lam >= 0).all())
        (tensor(True), True)
    """
    floor = check_eliminable(objective)
    size = candidates.count * objective.columns
    if size > LARGEST:
        raise InvalidInputError(
            "multipliers", f"at most {LARGEST} to eliminate", size, "leave them free"
        )
    system = objective.multiplier_system(candidates.detach())
    gram, linear = system.gram.double(), system.linear.double()
    if not bool(torch.isfinite(gram).all() and torch.isfinite(linear).all()):
        # The loss at these points is not finite either, and its caller says so.
        return torch.full_like(candidates.lam, math.nan)
    if ridge is None:
        ridge = 1e-10 if candidates.x.dtype == torch.float64 else 1e-6
    # Where no multiplier matters at all, any positive ridge gives 0.
    shift = (ridge * gram.diagonal().mean()).clamp_min(1e-300)
    gram = gram + torch.diag_embed(shift.expand(size))
    mass = torch.ones_like(linear)
    if candidates.mass is not None:
        mass = candidates.mass.to(linear).repeat_interleave(objective.columns)
    for penalty in objective.penalties:
        if isinstance(penalty, RidgePenalty):
            # s w (lam / s)^2 = w / s lam^2
            gram = gram + torch.diag_embed(penalty.weight / mass)
    if objective.signed:
        lam = _solved(gram, linear)
    else:
        start = candidates.lam.detach().double().flatten()
        weight, level = (0.0, 0.0) if floor is None else (floor.weight, floor.floor)
        # s w max(floor - lam / s, 0)^2 = w / s max(s floor - lam, 0)^2
        lam = non_negative(gram, linear, weight=weight / mass, floor=level * mass, start=start)
    return lam.to(candidates.lam.dtype).reshape(candidates.lam.shape)


def check_eliminable(objective: Objective) -> FloorPenalty | None:
    """Return the floor on the multipliers, if there is one.

    Raises InvalidInputError unless the multipliers can be eliminated.
    """
    hint = "leave the multipliers free"
    if not objective.quadratic:
        raise InvalidInputError(
            "multipliers", "a loss that is quadratic in them", objective.name, hint
        )
    floors = [p for p in objective.penalties if isinstance(p, FloorPenalty)]
    known = (*_POINT_PENALTIES, FloorPenalty, RidgePenalty)
    bare = [getattr(p, "penalty", p) for p in objective.penalties]
    others = [type(p).__name__ for p in bare if not isinstance(p, known)]
    if others or len(floors) > 1:
        raise InvalidInputError(
            "multipliers", "a ridge and at most one floor as their penalty",
            ", ".join(others) or "two", hint,
        )  # fmt: skip
    return floors[0] if floors else None


def is_eliminable(objective: Objective) -> bool:
    """Whether the multipliers can be eliminated."""
    try:
        check_eliminable(objective)
    except InvalidInputError:
        return False
    return True


def non_negative(
    gram: Tensor,
    linear: Tensor,
    *,
    weight: float | Tensor = 0.0,
    floor: float | Tensor = 0.0,
    start: Tensor | None = None,
) -> Tensor:
    """Minimise <z, G z> - 2 <c, z> + sum_i weight_i max(floor_i - z_i, 0)^2 over z >= 0.

    Block principal pivoting: all variables of the wrong sign change sides at once, one at a time if
    that does not shrink their number; a slack per floor makes the problem a linear
    complementarity problem. If the pivoting does not end, the active-set method takes over.

    Args:
        gram: G (k, k) symmetric positive definite, float64.
        linear: c (k,).
        weight: of the floors, (k,) or one number, 0 for none.
        floor: their levels, (k,) or one number.
        start: guess (k,) of z, of which only the active set is used.

    Returns:
        z (k,).

    Raises:
        InvalidInputError: a Gram matrix that is not positive definite.

    Cost: a Cholesky factorisation of the free part per round, 1 to 5 rounds from a good guess.

    Source: Kim & Park (2011), "Fast nonnegative matrix factorization: an active-set-like method
    and comparisons", after Portugal, Judice & Vicente (1994); Lawson & Hanson (1974) as a fallback.

    Example:
        >>> gram = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> non_negative(gram, torch.tensor([2.0, -1.0], dtype=torch.float64)).round(decimals=9)
        tensor([1., 0.], dtype=torch.float64)
    """
    weight, floor = (torch.as_tensor(t).to(linear).expand_as(linear) for t in (weight, floor))
    guess = torch.zeros_like(linear) if start is None else start
    free, above = guess > 0, guess >= floor
    fewest, patience = 2 * len(linear) + 1, _PATIENCE
    for _ in range(_ROUNDS):
        z = torch.zeros_like(linear)
        pulled = weight * (~above).to(linear)
        index = free.nonzero()[:, 0]
        part = gram[index][:, index] + torch.diag_embed(pulled[index])
        z[index] = _solved(part, (linear + floor * pulled)[index])
        slope = gram @ z - linear - pulled * (floor - z)
        tiny = 1e-12 * (linear.abs().max() + (weight * floor).max())
        wrong = torch.where(free, z < 0, slope < -tiny)
        turned = torch.where(above, z < floor, z > floor) & (weight > 0)
        count = int(wrong.sum() + turned.sum())
        if count == 0:
            return z
        if count < fewest:
            fewest, patience = count, _PATIENCE
        elif patience > 0:
            patience -= 1
        else:
            both = torch.stack([wrong, turned]).flatten()
            last = torch.zeros_like(both)
            last[int(both.nonzero()[-1])] = True
            wrong, turned = last.chunk(2)
        free, above = free ^ wrong, above ^ turned
    return _active_set(gram, linear, weight, floor)


def _active_set(gram: Tensor, linear: Tensor, weight: Tensor, floor: Tensor) -> Tensor:
    from scipy.optimize import nnls

    factor = _cholesky(gram).cpu().numpy()
    right = np.linalg.solve(factor, linear.cpu().numpy())
    size = len(right)
    if bool((weight > 0).any()):
        root = weight.sqrt()
        pull = np.diag(root.cpu().numpy())
        rows = np.block([[factor.T, np.zeros((size, size))], [pull, -pull]])
        right = np.concatenate([right, (root * floor).cpu().numpy()])
    else:
        rows = factor.T
    found, _ = nnls(rows, right, maxiter=100 * size)
    return torch.as_tensor(found[:size]).to(linear)


def _solved(gram: Tensor, right: Tensor) -> Tensor:
    if len(right) == 0:
        return right
    return torch.cholesky_solve(right[:, None], _cholesky(gram)).squeeze(1)


def _cholesky(gram: Tensor) -> Tensor:
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(gram)
    for share in _SHIFTS:
        if not int(info):
            break
        # Rounding may turn a semidefinite matrix indefinite; a ridge of its size mends that.
        shift = share * gram.diagonal().mean()
        factor, info = torch.linalg.cholesky_ex(gram + torch.diag_embed(shift.expand(len(gram))))
    if int(info):
        raise InvalidInputError(
            "gram", "a positive definite matrix", "an indefinite one", "raise the ridge"
        )
    return factor
