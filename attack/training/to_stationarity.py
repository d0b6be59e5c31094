"""From the neighbourhood of a minimum to a stationary point: L-BFGS, then Newton's method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.optimize
import scipy.sparse.linalg
import torch
from torch import Tensor

from identify.arrays import FloatArray

_RESTARTS = 4
_NEWTON_STEPS = 30
_PRODUCTS = 1000
_ROUNDING = 1e-13


class Minimised(Protocol):
    """A function of parameters, such as `TrainingProblem`."""

    def value(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return the value, twice differentiable by autograd."""


@dataclass(frozen=True, eq=False)
class Polished:
    """Parameters at a smaller gradient; `gradient_norm` |grad F| there, `stopped` why it ended."""

    parameters: list[Tensor]
    gradient_norm: float
    steps: int
    stopped: str


def polish(
    problem: Minimised,
    parameters: Sequence[Tensor],
    *,
    tolerance: float,
    limit: int = 2000,
    deadline: float | None = None,
    report: Callable[[float], None] | None = None,
) -> Polished:
    """Minimise F until |grad F| <= `tolerance`, an absolute bound, or as far as rounding allows.

    L-BFGS lowers F; then Newton's method with MINRES and Hessian-vector products lowers |grad F|,
    quadratically where F is smooth. At a kink of relu neither can, and the result says so.

    Args:
        problem: in float64; other dtypes reach their own rounding only.
        parameters: the start, near a minimum.
        tolerance: of |grad F|.
        limit: L-BFGS iterations.
        deadline: of time.monotonic().
        report: called with |grad F|.

    Cost: 3 evaluations' worth for each gradient, 6 for each of at most 1000 products a Newton step.
    Source: Liu & Nocedal (1989) for L-BFGS, Paige & Saunders (1975) for MINRES, both by scipy;
        Hessian-vector products, Pearlmutter (1994).

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.training.losses import TrainingProblem
        >>> network = parse_spec("3-4-1,tanh").initialise(seed=0)
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> problem = TrainingProblem(network, x, torch.ones(3, 1, dtype=torch.float64),
        ...                           "squared", decay=0.01)
        >>> polish(problem, network.parameters(), tolerance=1e-12).gradient_norm <= 1e-12
        True
    """
    like = [p.detach() for p in parameters]
    theta = _flat(like)
    steps = 0

    def evaluate(point: FloatArray) -> tuple[float, FloatArray]:
        leaves = _split(point, like)
        value = problem.value(leaves)
        return float(value.detach()), _flat(torch.autograd.grad(value, leaves))

    def stop(xk: FloatArray) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise StopIteration

    _, gradient = evaluate(theta)
    for _ in range(_RESTARTS):
        before = float(np.linalg.norm(gradient))
        if before <= tolerance or _late(deadline) or steps >= limit:
            break
        found = scipy.optimize.minimize(
            evaluate,
            theta,
            jac=True,
            method="L-BFGS-B",
            callback=stop,
            options={
                "maxiter": limit - steps,
                "maxfun": 2 * limit,
                "maxcor": 20,
                "maxls": 50,
                "ftol": 0.0,
                "gtol": 0.1 * tolerance / math.sqrt(theta.size),
            },
        )
        theta, steps = np.asarray(found.x), steps + int(found.nit)
        _, gradient = evaluate(theta)
        if report is not None:
            report(float(np.linalg.norm(gradient)))
        # A restart forgets the curvature pairs, which rounding spoils near a minimum.
        if float(np.linalg.norm(gradient)) > 0.5 * before:
            break
    theta, gradient, more, stopped = _newton(problem, theta, like, evaluate, tolerance, deadline)
    if report is not None:
        report(float(np.linalg.norm(gradient)))
    return Polished(
        [leaf.detach() for leaf in _split(theta, like)],
        float(np.linalg.norm(gradient)),
        steps + more,
        stopped,
    )


def _newton(
    problem: Minimised,
    theta: FloatArray,
    like: Sequence[Tensor],
    evaluate: Callable[[FloatArray], tuple[float, FloatArray]],
    tolerance: float,
    deadline: float | None,
) -> tuple[FloatArray, FloatArray, int, str]:
    value, gradient = evaluate(theta)
    for step in range(_NEWTON_STEPS):
        size = float(np.linalg.norm(gradient))
        if size <= tolerance:
            return theta, gradient, step, "stationary"
        if _late(deadline):
            return theta, gradient, step, "time limit"
        move = _direction(problem, theta, like, gradient, deadline)
        for length in (1.0, 0.5, 0.25, 0.125, 0.0625):
            trial = theta + length * move
            new_value, new_gradient = evaluate(trial)
            # Newton's method alone would also go up to a saddle.
            higher = new_value > value + _ROUNDING * abs(value)
            if not higher and float(np.linalg.norm(new_gradient)) < (1.0 - 0.1 * length) * size:
                theta, value, gradient = trial, new_value, new_gradient
                break
        else:
            return theta, gradient, step, "no further decrease"
    done = float(np.linalg.norm(gradient)) <= tolerance
    return theta, gradient, _NEWTON_STEPS, "stationary" if done else "steps"


def solve_hessian(
    problem: Minimised,
    parameters: Sequence[Tensor],
    right: Sequence[Tensor],
    *,
    accuracy: float = 1e-10,
) -> list[Tensor]:
    """Return H^+ b, H the Hessian of F at the parameters, by MINRES with Hessian-vector products.

    Args:
        problem: F.
        parameters: where H is taken.
        right: b, in the shapes of the parameters.
        accuracy: of the residual over |H| |x| + |b|.

    Cost: two backward passes for each of at most 1000 products.
    Source: Paige & Saunders (1975), "Solution of sparse indefinite systems of linear equations".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.training.losses import TrainingProblem
        >>> network = parse_spec("2-1,identity,bias=none").initialise(seed=0)
        >>> problem = TrainingProblem(network, torch.eye(2, dtype=torch.float64),
        ...                           torch.zeros(2, 1, dtype=torch.float64), "squared", 0.5)
        >>> right = [torch.ones(1, 2, dtype=torch.float64)]
        >>> solve_hessian(problem, network.parameters(), right)[0].round(decimals=6).tolist()
        [[1.0, 1.0]]
    """
    like = [p.detach() for p in parameters]
    found = _direction(problem, _flat(like), like, -_flat(right), None, accuracy)
    return [part.detach() for part in _split(found, like)]


def _direction(
    problem: Minimised,
    theta: FloatArray,
    like: Sequence[Tensor],
    gradient: FloatArray,
    deadline: float | None,
    accuracy: float = 1e-6,
) -> FloatArray:
    """-H^+ gradient by MINRES, which also bears singular and indefinite H."""
    leaves = _split(theta, like)
    first = torch.autograd.grad(problem.value(leaves), leaves, create_graph=True)
    best = np.zeros_like(theta)

    def product(vector: FloatArray) -> FloatArray:
        seconds = torch.autograd.grad(
            first, leaves, grad_outputs=_split(vector, like, leaf=False), retain_graph=True,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return _flat(seconds)

    def keep(point: FloatArray) -> None:
        best[:] = point
        if _late(deadline):
            raise StopIteration

    hessian = scipy.sparse.linalg.LinearOperator(
        (theta.size, theta.size), matvec=product, dtype=np.float64
    )
    try:
        move, _ = scipy.sparse.linalg.minres(
            hessian, -gradient, rtol=accuracy, maxiter=min(_PRODUCTS, 5 * theta.size), callback=keep
        )
    except StopIteration:
        return best
    return np.asarray(move)


def _flat(tensors: Sequence[Tensor]) -> FloatArray:
    parts = [t.detach().to("cpu", torch.float64).reshape(-1) for t in tensors]
    return np.asarray(torch.cat(parts).numpy())


def _split(vector: FloatArray, like: Sequence[Tensor], leaf: bool = True) -> list[Tensor]:
    flat = torch.as_tensor(np.asarray(vector, dtype=np.float64).reshape(-1))
    parts = torch.split(flat, [t.numel() for t in like])
    shaped = [p.reshape(t.shape).to(t).clone() for p, t in zip(parts, like, strict=True)]
    return [p.requires_grad_() for p in shaped] if leaf else shaped


def _late(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline
