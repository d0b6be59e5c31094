"""Limited-memory BFGS whose whole memory is tensors, so that a checkpoint continues it exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attack.objectives.candidates import Candidates
from attack.solving.problem import Move, Point, Problem, Solver, State, shares

_DECREASE, _CURVATURE = 1e-4, 0.9
_SEARCH = 20
_INDEPENDENT = 1e-12
_PAIRS, _FEW, _FEW_PAIRS = 10, 100, 50
"""Pairs by default; with few unknowns more. There 10 converge so slowly that a descent
towards zero looks like a stall, and splits are made where nothing is stationary."""


def default_memory(unknowns: int) -> int:
    """The pairs that are kept unless a number is given.

    Example:
        >>> default_memory(48), default_memory(3_280)
        (50, 10)
    """
    return _FEW_PAIRS if unknowns <= _FEW else _PAIRS


@dataclass(frozen=True)
class LimitedMemory(Solver):
    """L-BFGS over points and multipliers together, with a strong Wolfe line search.

    Multipliers that are bounded and at 0 stay there while the loss pushes them down, and the search
    then runs along the projected line with a decrease condition alone. A search that fails forgets
    the memory once and goes along the gradient; if that fails too, the solver is stuck: at a
    minimum to rounding, or where the gradient is not that of the loss (soft_relu).

    Source: Liu & Nocedal (1989), "On the limited memory BFGS method for large scale optimization";
    the search as Nocedal & Wright (2006), "Numerical Optimization", algorithms 3.5 and 3.6.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-6-1,tanh").initialise(seed=0)
        >>> problem = Problem(haim_objective(network, normaliser=4))
        >>> solver, at = LimitedMemory(), problem.objective.start(4, 0, 0.1)
        >>> state, losses = solver.begin(at), []
        >>> for _ in range(5):
        ...     move = solver.advance(problem, at, state)
        ...     at, state = move.candidates, move.state
        ...     losses.append(move.at.loss)
        >>> losses == sorted(losses, reverse=True)
        True
    """

    memory: int | None = None
    name: str = field(default="lbfgs", init=False)
    hold: int = field(default=50, init=False)
    window: int = field(default=50, init=False)
    interval: int = field(default=250, init=False)

    def begin(self, candidates: Candidates) -> State:
        return {}

    def advance(self, problem: Problem, candidates: Candidates, state: State) -> Move:
        evaluations = 0
        at = _remembered(candidates, state)
        if at is None:
            at = problem.evaluate(candidates)
            evaluations += 1
        if not math.isfinite(at.loss):
            return Move(at, candidates, state, evaluations)
        pairs = _pairs(state)
        here, gradient = _flat(at.candidates), _flat_gradient(at)
        frozen = _frozen(problem, at)
        gradient = gradient.masked_fill(frozen, 0.0)
        for history in (pairs, []) if pairs else ([],):
            direction = -_product(history, gradient).masked_fill(frozen, 0.0)
            slope = float((direction * gradient).sum())
            if not slope < 0:
                continue
            first = 1.0
            if not history:
                # The gradient has no scale of its own: the first trial moves by 1 % of the points.
                size = float(here.norm()) or 1.0
                first = 0.01 * size / float(direction.norm())
            found, used = self._search(problem, at, direction, slope, first)
            evaluations += used
            if found is not None:
                step = _flat(found.candidates) - here
                if problem.multipliers != "free":
                    step[:, found.candidates.x.shape[1] :] = 0
                change = _flat_gradient(found) - _flat_gradient(at)
                most = self.memory or default_memory(here.numel())
                kept = _added(history, step, change, most)
                return Move(at, found.candidates, _state(kept, found), evaluations)
        return Move(at, at.candidates, _state([], at), evaluations, "no further decrease")

    def carry(self, state: State, old: Candidates, new: Candidates, origin: Tensor) -> State:
        # In the symmetric directions of the offspring the carried pairs are exact: steps of points
        # and slopes of multipliers are those of the parent, the others its share of them.
        share, dimension = shares(old, new, origin), old.x.shape[1]
        carried: State = {}
        for name, tensor in state.items():
            kind = name.split(".")[0]
            if kind in ("s", "y"):
                rows = tensor[origin]
                part = rows[:, dimension:] if kind == "s" else rows[:, :dimension]
                part.mul_(share)
                carried[name] = rows
        return carried

    def renewed(self, state: State) -> State:
        return {name: t for name, t in state.items() if name.split(".")[0] in ("s", "y")}

    def _search(
        self, problem: Problem, at: Point, direction: Tensor, slope: float, first: float
    ) -> tuple[Point | None, int]:
        """Find a point on the line that satisfies the strong Wolfe conditions, or decreases."""
        here = _flat(at.candidates)
        dimension = at.candidates.x.shape[1]

        def trial(length: float) -> tuple[Point, float]:
            z = here + length * direction
            moved = problem.moved(at.candidates, z[:, :dimension], z[:, dimension:])
            point = problem.evaluate(moved)
            return point, float((_flat_gradient(point) * direction).sum())

        if problem.bounded and bool((here + first * direction)[:, dimension:].lt(0).any()):
            return _backtracked(trial, at, here, direction, first)
        return strong_wolfe(trial, at.loss, slope, first)


Trial = Callable[[float], tuple[Point, float]]


def strong_wolfe(
    trial: Trial, start: float, slope: float, first: float
) -> tuple[Point | None, int]:
    """Search a step length with sufficient decrease and a small slope.

    Args:
        trial: maps a step length to the point there and the slope along the line.
        start: loss at length 0.
        slope: there, negative.
        first: length to try first.

    Returns:
        The point, or the lowest one with sufficient decrease after 20 trials, or None; and the
        number of trials.

    Source: Nocedal & Wright (2006), "Numerical Optimization", algorithms 3.5 and 3.6, with the
    cubic interpolation of equation 3.59.
    """
    best: Point | None = None
    low = (0.0, start, slope)
    high: tuple[float, float, float] | None = None
    length = first
    for count in range(1, _SEARCH + 1):
        point, here = trial(length)
        value = point.loss
        # Where the predicted decrease is below rounding, equal values are no decrease.
        enough = value <= start + _DECREASE * length * slope and value < start
        if enough and math.isfinite(here):
            if best is None or value < best.loss:
                best = point
            if abs(here) <= -_CURVATURE * slope:
                return point, count
        if not (enough and value < low[1] and math.isfinite(here)):
            high = (length, value, here)
        else:
            if here * ((high[0] - low[0]) if high else 1.0) >= 0:
                high = low
            low = (length, value, here)
        if high is None:
            length *= 4.0
        else:
            length = _between(low, high)
            if abs(high[0] - low[0]) <= 1e-12 * max(low[0], high[0]):
                return best, count
    return best, _SEARCH


def _between(low: tuple[float, float, float], high: tuple[float, float, float]) -> float:
    """The minimum of the cubic through both ends, kept away from them."""
    (a, fa, da), (b, fb, db) = low, high
    middle = 0.5 * (a + b)
    if not (math.isfinite(fb) and math.isfinite(db)):
        return a + 0.1 * (b - a)
    bend = da + db - 3 * (fa - fb) / (a - b)
    square = bend * bend - da * db
    if not math.isfinite(square):
        return a + 0.1 * (b - a)
    if square < 0:
        return middle
    root = math.copysign(math.sqrt(square), b - a)
    bottom = db - da + 2 * root
    if bottom == 0:
        return middle
    found = b - (b - a) * (db + root - bend) / bottom
    margin = 0.1 * abs(b - a)
    return min(max(found, min(a, b) + margin), max(a, b) - margin)


def _backtracked(
    trial: Trial, at: Point, here: Tensor, direction: Tensor, first: float
) -> tuple[Point | None, int]:
    gradient, length = _flat_gradient(at), first
    for count in range(1, _SEARCH + 1):
        point, _ = trial(length)
        predicted = float((gradient * (_flat(point.candidates) - here)).sum())
        enough = point.loss <= at.loss + _DECREASE * predicted and point.loss < at.loss
        if predicted < 0 and enough:
            return point, count
        length *= 0.25
    return None, _SEARCH


def _flat(candidates: Candidates) -> Tensor:
    return torch.cat([candidates.x, candidates.lam], 1)


def _flat_gradient(point: Point) -> Tensor:
    return torch.cat([point.grad_x, point.grad_lam], 1)


def _frozen(problem: Problem, at: Point) -> Tensor:
    """Which numbers must not move: multipliers at their bound that the loss pushes down."""
    mask = torch.zeros_like(at.candidates.x, dtype=torch.bool)
    lam = torch.zeros_like(at.candidates.lam, dtype=torch.bool)
    if problem.bounded:
        lam = (at.candidates.lam <= 0) & (at.grad_lam >= 0)
    return torch.cat([mask, lam], 1)


def _product(pairs: list[tuple[Tensor, Tensor]], gradient: Tensor) -> Tensor:
    """The inverse Hessian times the gradient, by the two-loop recursion."""
    q, alphas = gradient, []
    for s, y in reversed(pairs):
        alpha = (s * q).sum() / (s * y).sum()
        alphas.append(alpha)
        q = q - alpha * y
    if pairs:
        s, y = pairs[-1]
        q = q * ((s * y).sum() / y.square().sum())
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = (y * q).sum() / (s * y).sum()
        q = q + (alpha - beta) * s
    return q


def _added(
    pairs: list[tuple[Tensor, Tensor]], step: Tensor, change: Tensor, memory: int
) -> list[tuple[Tensor, Tensor]]:
    product = float((step * change).sum())
    if product > _INDEPENDENT * float(step.norm()) * float(change.norm()):
        pairs = [*pairs, (step, change)]
    return pairs[-memory:]


def _pairs(state: State) -> list[tuple[Tensor, Tensor]]:
    count = sum(name.startswith("s.") for name in state)
    pairs = [(state[f"s.{k}"], state[f"y.{k}"]) for k in range(count)]
    # A pair that a merge of candidates has bent may have lost its positive curvature.
    return [(s, y) for s, y in pairs if float((s * y).sum()) > 0]


def _state(pairs: list[tuple[Tensor, Tensor]], at: Point) -> State:
    state = {}
    for k, (s, y) in enumerate(pairs):
        state[f"s.{k}"], state[f"y.{k}"] = s, y
    losses = torch.tensor([at.loss, at.data_loss], dtype=torch.float64)
    return {**state, "losses": losses, "grad_x": at.grad_x, "grad_lam": at.grad_lam}


def _remembered(candidates: Candidates, state: State) -> Point | None:
    if "losses" not in state:
        return None
    loss, data_loss = state["losses"].tolist()
    return Point(candidates, loss, data_loss, state["grad_x"], state["grad_lam"])
