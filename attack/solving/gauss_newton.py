"""Levenberg-Marquardt on the residual of the parameters, without ever forming its Jacobian."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attack.networks.network import Network
from attack.objectives.base import Objective, gradients
from attack.objectives.candidates import Candidates
from attack.objectives.closed_form import Backward, Forward, backward_pass, forward_pass
from attack.objectives.residual import Kernel, ResidualObjective
from attack.objectives.spans import SpanObjective
from attack.solving.problem import Move, Point, Problem, Solver, State
from identify.errors import InvalidInputError

LARGEST = 6_000
"""Most unknowns: a step then factorises a matrix of 288 MB."""
_TRIES = 12
_FIRST_DAMPING = 1e-2
_LEAST_DAMPING, _MOST_DAMPING = 1e-14, 1e12
_NOTHING = 4.0


@dataclass(frozen=True)
class GaussNewton(Solver):
    """Levenberg-Marquardt in (x, lam): quadratic convergence where the residual vanishes.

    Each step solves (J^T J + H + mu diag(J^T J)) p = -J^T R - g for the residual R of the
    parameters, with gradients g and Hessians H of the penalties (halved), at the first damping mu
    that lowers the loss. Bounded multipliers at 0 that the loss pushes down stay there.

    Source: Nocedal & Wright (2006), "Numerical Optimization", section 10.3; scaling after More
    (1978), damping after Nielsen (1999), "Damping parameter in Marquardt's method".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import gradient_matching_objective
        >>> network = parse_spec("4-30-1,power3,bias=none").initialise(seed=0)
        >>> objective = gradient_matching_objective(
        ...     network, [torch.zeros_like(p) for p in network.parameters()], normaliser=1
        ... )
        >>> truth = objective.start(2, seed=1, scale=1.0)
        >>> gradient = [-r for r in objective.residual(truth)]
        >>> objective = gradient_matching_objective(network, gradient, normaliser=1)
        >>> problem, solver = Problem(objective), GaussNewton()
        >>> at = objective.start(2, seed=2, scale=1.0)
        >>> state = solver.begin(at)
        >>> for _ in range(60):
        ...     move = solver.advance(problem, at, state)
        ...     at, state = move.candidates, move.state
        >>> float(objective.value(at)) < 1e-24
        True
    """

    name: str = field(default="gauss-newton", init=False)
    hold: int = field(default=50, init=False)
    window: int = field(default=20, init=False)
    interval: int = field(default=100, init=False)

    def begin(self, candidates: Candidates) -> State:
        return _state(_FIRST_DAMPING, 2.0)

    def advance(self, problem: Problem, candidates: Candidates, state: State) -> Move:
        at = problem.evaluate(candidates)
        if not math.isfinite(at.loss):
            return Move(at, candidates, state)
        here, model = at.candidates, _Model.at(problem, at)
        if float(model.right.abs().max()) == 0.0:
            return Move(at, here, state, stuck="stationary")
        size = float(torch.cat([here.x, here.lam], 1).norm())
        damping, growth = float(state["damping"]), float(state["growth"])
        stuck = "no further decrease"
        for tries in range(1, _TRIES + 1):
            p = model.step(damping)
            if p is not None:
                trial = model.moved(problem, here, p)
                value = float(problem.objective.value(trial))
                if value < at.loss and math.isfinite(value):
                    predicted = model.decrease(p, damping)
                    gain = (at.loss - value) / predicted if predicted > 0 else -1.0
                    relaxed = _relaxed(damping, gain, value / at.loss)
                    return Move(at, trial, _state(relaxed, 2.0), 1 + tries)
                if float(p.norm()) <= _NOTHING * torch.finfo(p.dtype).eps * size:
                    stuck = "stationary"
                    break
            damping = min(damping * growth, _MOST_DAMPING)
            growth *= 2
        return Move(at, here, _state(_FIRST_DAMPING, 2.0), 1 + tries, stuck)

    def carry(self, state: State, old: Candidates, new: Candidates, origin: Tensor) -> State:
        return self.begin(new)


@dataclass(frozen=True, eq=False)
class _Model:
    """The quadratic model at a point, in the k unknowns that may move.

    ``matrix`` (k, k) is J^T J + H, ``right`` (k,) half the descent direction, ``scale`` (k,) what
    the damping multiplies, ``moving`` (k,) the places of the unknowns among all.
    """

    matrix: Tensor
    right: Tensor
    scale: Tensor
    moving: Tensor

    @staticmethod
    def at(problem: Problem, point: Point) -> _Model:
        here, dimension = point.candidates, problem.objective.dimension
        slope = 0.5 * torch.cat([point.grad_x, point.grad_lam], 1)
        held = torch.zeros_like(slope, dtype=torch.bool)
        if problem.multipliers != "free":
            held[:, dimension:] = True
        elif problem.bounded:
            held[:, dimension:] = (here.lam <= 0) & (point.grad_lam >= 0)
        moving = (~held).flatten().nonzero()[:, 0]
        matrix = curvature(problem.objective, here)[moving][:, moving]
        diagonal = matrix.diagonal()
        # Unknowns that do not matter yet, as points with multiplier 0, must not divide by 0.
        scale = diagonal.clamp_min(1e-12 * float(diagonal.max()) or 1.0)
        return _Model(matrix, -slope.flatten()[moving], scale, moving)

    def step(self, damping: float) -> Tensor | None:
        """The step (k,) at a damping, None where the damped matrix is not positive definite."""
        damped = self.matrix + torch.diag_embed(damping * self.scale)
        factor, info = torch.linalg.cholesky_ex(damped)
        return None if int(info) else torch.cholesky_solve(self.right[:, None], factor)[:, 0]

    def decrease(self, p: Tensor, damping: float) -> float:
        """The decrease of the loss that the model predicts for its own step."""
        return float((p * (self.right + damping * self.scale * p)).sum())

    def moved(self, problem: Problem, here: Candidates, p: Tensor) -> Candidates:
        z, dimension = torch.cat([here.x, here.lam], 1), here.x.shape[1]
        step = torch.zeros_like(z).flatten()
        step[self.moving] = p
        new = z + step.reshape(z.shape)
        trial = problem.moved(here, new[:, :dimension], new[:, dimension:])
        return problem.eliminated(trial) if problem.multipliers == "eliminated" else trial


def _relaxed(damping: float, gain: float, ratio: float) -> float:
    """The damping after a step with this gain over the model, which left `ratio` of the loss."""
    shrink = max(1 / 3, 1 - (2 * min(gain, 1.0) - 1) ** 3)
    # Close to a root the damping has to vanish with the loss.
    shrink = min(shrink, max(ratio, 1e-6)) if gain > 0.5 else shrink
    return max(damping * shrink, _LEAST_DAMPING)


def _state(damping: float, growth: float) -> State:
    numbers = {"damping": damping, "growth": growth}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}


def check_small(objective: Objective, count: int) -> ResidualObjective:
    """Return the residual in pixels; InvalidInputError unless it is one with few unknowns."""
    base = objective.base if isinstance(objective, SpanObjective) else objective
    if not isinstance(base, ResidualObjective):
        raise InvalidInputError(
            "solver", "lbfgs, sgd or adam for this objective", "gauss-newton", objective.name
        )
    unknowns = count * (objective.dimension + objective.columns)
    if unknowns > LARGEST:
        raise InvalidInputError(
            "solver", f"lbfgs for more than {LARGEST} unknowns", f"gauss-newton for {unknowns}",
            "restrict the candidates to a span, or take fewer",
        )  # fmt: skip
    return base


def curvature(objective: Objective, candidates: Candidates) -> Tensor:
    """Return J^T J + H, (m q, m q) with q = D + K: half the Gauss-Newton matrix of the loss.

    J is the Jacobian of the residual of the parameters in (x_1, lam_1, x_2, lam_2, ...), H half the
    Hessian of the penalties. In layer l the derivative of a sample's term p h^T in unknown u is
    p_u h^T + p h_u^T, so that only inner products of p, p_u, h, h_u enter.

    Raises InvalidInputError for an objective that is no residual, and for too many unknowns.

    Cost: 2 (m q)^2 (in + out) per layer, and m q passes through the network.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("3-5-1,tanh").initialise(seed=0)
        >>> objective = haim_objective(network, normaliser=2)
        >>> matrix = curvature(objective, objective.start(2, seed=0, scale=1.0))
        >>> tuple(matrix.shape), bool(torch.linalg.eigvalsh(matrix)[0] > -1e-12)
        ((8, 8), True)
    """
    base = check_small(objective, candidates.count)
    points = candidates.detach()
    if isinstance(objective, SpanObjective):
        points, axes = objective.lifted(points), objective.span.basis
    else:
        axes = torch.eye(base.dimension, dtype=points.x.dtype, device=points.x.device)
    with torch.no_grad():
        sides = [_tangents(base, kernel, points, axes) for kernel in base.kernels]
        pairs = itertools.product(sides, sides)
        total = functools.reduce(
            operator.add, (_gram(base.network, first, second) for first, second in pairs)
        )
        total = 0.5 * (total + total.T)
        _add_penalties(objective, candidates.detach(), total)
    return total


@dataclass(frozen=True, eq=False)
class _Tangents:
    """Per layer h (m, in), p (m, out) and their derivatives (m, q, in), (m, q, out)."""

    inputs: list[Tensor]
    deltas: list[Tensor]
    input_tangents: list[Tensor]
    delta_tangents: list[Tensor]


def _tangents(
    objective: ResidualObjective, kernel: Kernel, at: Candidates, axes: Tensor
) -> _Tangents:
    """Differentiate both passes in every coordinate of a point and in its multipliers."""
    network, m, width = kernel.network, at.count, objective.columns
    forward = forward_pass(network, at.x, 2)
    cotangent = objective._cotangent(kernel, at.lam, forward.values, at.labels)
    backward = backward_pass(network, forward, cotangent)
    # Along the axes of the point.
    rise = (axes @ network.weights[0].T).expand(m, -1, -1)
    sums, inputs = [rise], [axes.expand(m, -1, -1)]
    for k in range(1, network.depth):
        inputs.append(forward.jets[k - 1][0][:, None] * sums[-1])
        sums.append(inputs[-1] @ network.weights[k].T)
    turn = _turned(objective, kernel, at, forward.values, sums[-1])
    deltas = _backward_tangents(network, forward, backward, sums, turn)
    # Along the multipliers the forward pass stands still.
    basis = torch.zeros(m, width, network.outputs, dtype=at.x.dtype, device=at.x.device)
    share = kernel.weight / objective.normaliser
    block = objective._slice(kernel)
    basis[:, block] = share * objective.readout.basis(forward.values, at.labels)
    more = backward_pass(network, forward, basis).deltas
    still = [h.new_zeros(m, width, h.shape[2]) for h in inputs]
    return _Tangents(
        forward.inputs,
        backward.deltas,
        [torch.cat([a, b], 1) for a, b in zip(inputs, still, strict=True)],
        [torch.cat([a, b], 1) for a, b in zip(deltas, more, strict=True)],
    )


def _turned(
    objective: ResidualObjective, kernel: Kernel, at: Candidates, values: Tensor, rise: Tensor
) -> Tensor:
    """The change (m, r, C) of the cotangents where they depend on the outputs."""
    if not objective.readout.curved:
        return torch.zeros_like(rise)
    found = []
    for c in range(values.shape[1]):
        with torch.enable_grad():
            f = values.detach().requires_grad_()
            a = objective._cotangent(kernel, at.lam, f, at.labels)
            (row,) = torch.autograd.grad(a[:, c].sum(), f)
        found.append((rise * row[:, None]).sum(2))
    return torch.stack(found, 2)


def _backward_tangents(
    network: Network, forward: Forward, backward: Backward, sums: list[Tensor], turn: Tensor
) -> list[Tensor]:
    found = [turn]
    for k in range(network.depth - 1, 0, -1):
        first, second = forward.jets[k - 1]
        part = first[:, None] * (found[-1] @ network.weights[k])
        if not network.activation.piecewise_linear:
            part += (second * backward.raw[k - 1])[:, None] * sums[k - 1]
        found.append(part)
    return found[::-1]


def _gram(network: Network, first: _Tangents, second: _Tangents) -> Tensor:
    m, q = first.delta_tangents[0].shape[:2]
    total = first.deltas[0].new_zeros(m, q, m, q)
    for k in range(network.depth):
        h, p = first.inputs[k], first.deltas[k]
        g, s = second.inputs[k], second.deltas[k]
        dh, dp = first.input_tangents[k], first.delta_tangents[k]
        dg, ds = second.input_tangents[k], second.delta_tangents[k]
        plain = h @ g.T + (1.0 if network.biases[k] is not None else 0.0)
        total += _inner(dp, ds) * plain[:, None, :, None]
        total += _inner(dh, dg) * (p @ s.T)[:, None, :, None]
        total += torch.einsum("iao,jo->iaj", dp, s)[..., None] * torch.einsum(
            "ik,jbk->ijb", h, dg
        ).unsqueeze(1)
        total += torch.einsum("iak,jk->iaj", dh, g)[..., None] * torch.einsum(
            "io,jbo->ijb", p, ds
        ).unsqueeze(1)
    return total.reshape(m * q, m * q)


def _inner(first: Tensor, second: Tensor) -> Tensor:
    (m, q), (n, r) = first.shape[:2], second.shape[:2]
    return (first.flatten(0, 1) @ second.flatten(0, 1).T).reshape(m, q, n, r)


def _add_penalties(objective: Objective, at: Candidates, matrix: Tensor) -> None:
    """Add half the Hessian of each penalty, one block per candidate, by autograd."""
    if not objective.penalties:
        return
    m, dimension = at.x.shape
    z = torch.cat([at.x, at.lam], 1).requires_grad_()
    q = z.shape[1]
    view = matrix.view(m, q, m, q)
    rows = torch.arange(m, device=z.device)
    with torch.enable_grad():
        x, lam = z[:, :dimension], z[:, dimension:]
        total = objective.penalty_values(at.with_points(x, lam)).sum()
        (slope,) = gradients(total, [z], graph=True)
        # A penalty sees one candidate, so that one pass gives a column of every block.
        for column in range(q):
            (found,) = gradients(slope[:, column].sum(), [z], graph=True)
            view[rows, :, rows, column] += 0.5 * found.detach()
