"""The samples between two checkpoints of a known recipe, by replaying the training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from identify.arrays import FloatArray
from identify.budget import Budget, Progress
from identify.checkpoints.recipe import Recipe
from identify.checkpoints.simulate import SpanNetwork, tangents, train
from identify.checkpoints.span import CheckpointSpan, stored_precision
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork

REACHED = 100.0
"""Expected roundings of the residual up to which a replay reaches the final weights."""
BOUND = 0.1
"""A relative error bound from which a sample is not determined."""
_REFRESH = 0.3
_WIDTHS = (0.1, 0.03, 0.01)
_STALLED = 0.98


@dataclass(frozen=True, eq=False)
class Replay:
    """Samples (n, d) whose training from the first checkpoint ends in the last, or near it.

    ``residual`` is the largest relative distance of a layer's change; ``rounding`` what the stored
    numbers leave of it; ``error_bounds`` (n,) relative; ``equations`` and ``unknowns`` at full
    column rank where ``determined``. ``rate`` is the rate as fitted, or as given.
    """

    samples: FloatArray
    residual: float
    rounding: float
    limit: float
    error_bounds: FloatArray
    rank: int
    unknowns: int
    equations: int
    rate: float
    starts: int
    timed_out: bool

    @property
    def reached(self) -> bool:
        """Whether training on the samples ends in the last checkpoint, to rounding."""
        return self.residual <= self.limit

    @property
    def determined(self) -> bool:
        """Whether no other samples near these do, with the number and the recipe as given."""
        full = self.rank == self.unknowns < self.equations
        return self.reached and full and bool(np.all(self.error_bounds < BOUND))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the samples; what is infinite is None."""
        return {
            "verdict": "locally" if self.determined else "undecided",
            "scope": {"kind": "exactly", "samples": len(self.samples)} if self.determined else None,
            "reached": self.reached,
            "residual": float(self.residual) if np.isfinite(self.residual) else None,
            "rounding": self.rounding,
            "error_bounds": [float(b) if np.isfinite(b) else None for b in self.error_bounds],
            "rank": self.rank,
            "unknowns": self.unknowns,
            "equations": self.equations,
            "rate": self.rate,
            "starts": self.starts,
            "timed_out": self.timed_out,
            "assumptions": [
                f"{len(self.samples)} samples; labels and recipe as given: full-batch descent"
            ],
        }

    def __str__(self) -> str:
        n = len(self.samples)
        if self.determined:
            head = f"LOCALLY identifiable: {n} samples, with the recipe known."
        elif self.reached:
            head = f"undecided: {n} samples reach the final weights, others near them may too."
        else:
            head = f"undecided: {n} candidates that do not reach the final weights."
        return "\n".join([
            head,
            f"  residual {self.residual:.1e}, rounding {self.rounding:.1e}",
            f"  largest error bound {np.max(self.error_bounds):.1e}; {self.equations} equations, "
            f"rank {self.rank} of {self.unknowns} unknowns; starts: {self.starts}",
        ])  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Problem:
    """The training run as equations in the coordinates of the samples."""

    start: SpanNetwork
    final: tuple[FloatArray, ...]
    scales: tuple[float, ...]
    labels: FloatArray
    recipe: Recipe
    centre: FloatArray
    frame: FloatArray
    fit_rate: bool

    @property
    def unknowns(self) -> int:
        """The number of unknowns."""
        return int(len(self.labels) * self.frame.shape[1] + self.fit_rate)

    def points(self, u: FloatArray) -> FloatArray:
        """Coordinates (n, r) of the unknowns."""
        inner = u[: len(self.labels) * self.frame.shape[1]].reshape(len(self.labels), -1)
        return np.asarray(self.centre + inner @ self.frame.T)

    def rated(self, u: FloatArray) -> Recipe:
        """The recipe with the rate of the unknowns."""
        if not self.fit_rate:
            return self.recipe
        return replace(self.recipe, rate=self.recipe.rate * float(np.exp(u[-1])))

    def residual(self, u: FloatArray, network: SpanNetwork | None = None) -> FloatArray:
        """Trained layers minus the final ones, each over the norm of its change."""
        got = train(network or self.start, self.points(u), self.labels, self.rated(u))
        return np.concatenate([
            ((a - b) * s).ravel() for a, b, s in zip(got, self.final, self.scales, strict=True)
        ])  # fmt: skip

    def jacobian(self, u: FloatArray, network: SpanNetwork | None = None) -> FloatArray:
        """The derivative of the residual, (equations, unknowns)."""
        n, width = len(self.labels), self.frame.shape[1]
        directions = np.zeros((n, width, n, len(self.centre)))
        for index in range(n):
            directions[index, :, index] = self.frame.T
        chunks = tangents(
            network or self.start,
            self.points(u),
            self.labels,
            self.rated(u),
            directions.reshape(n * width, n, -1),
            rate=self.fit_rate,
        )
        rows = [
            np.concatenate(
                [(d * s).reshape(len(d), -1) for d, s in zip(part, self.scales, strict=True)],
                axis=1,
            )
            for part in chunks
        ]
        return np.asarray(np.concatenate(rows).T, dtype=np.float64)


def replay_samples(
    initial: DeepNetwork,
    final: DeepNetwork,
    span: CheckpointSpan,
    recipe: Recipe,
    labels: npt.ArrayLike,
    *,
    fit_rate: bool = False,
    start: FloatArray | None = None,
    starts: int = 6,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Replay:
    r"""Find the samples whose training by a known recipe leads from one checkpoint to the other.

    The samples lie in the span of the first layer's change, so that n (n - 1) coordinates are
    unknown (n^2 without a bias). Training is simulated from the first checkpoint, its exact
    derivatives come by forward mode through all steps, and Levenberg-Marquardt matches the weights
    of every layer. Starts are random points of the span; a ReLU network begins with smoothed ones.

    Args:
        initial, final: the checkpoints.
        span: of the two, from `find_span`, with a number of samples.
        recipe: full-batch descent; nothing is said about other training.
        labels: (n,) the label of each sample, in any order.
        fit_rate: fit the rate beside the samples, from the recipe's.
        start: samples (n, d) to begin from instead of random points.
        starts: random starts at most.
        seed: of the starts.
        time_limit: seconds; the best result so far is returned.
        progress: called with a stage name and a share.

    Returns:
        A `Replay`. Only ``determined`` is a statement, of a neighbourhood, and with the recipe and
        the number of samples as assumptions.

    Raises InvalidInputError for a span without a number, and labels that do not fit.

    Cost: for a Jacobian about 12 T n^2 (n - 1) times the number of parameters in the span.

    Source: Gauss-Newton on the unrolled training; the bound is \|J^+\| times the residual.

    Example:
        >>> from identify.checkpoints.span import find_span
        >>> rng = np.random.default_rng(0)
        >>> net = DeepNetwork(
        ...     [rng.normal(size=(30, 8)) / 3, rng.normal(size=(4, 30)) / 5],
        ...     [np.zeros(30), np.zeros(4)], "tanh")
        >>> x, y = rng.normal(size=(3, 8)), np.array([0.0, 1.0, 2.0])
        >>> end = retrain(net, x, y, Recipe(steps=20, rate=0.5))
        >>> found = replay_samples(net, end, find_span(net, end), Recipe(steps=20, rate=0.5), y)
        >>> found.determined, bool(np.abs(found.samples - x).max() < 1e-6)
        (True, True)
    """
    problem = _pose(initial, final, span, recipe, np.asarray(labels, dtype=np.float64), fit_rate)
    budget = Budget.of(time_limit, progress)
    rng = np.random.default_rng(seed)
    kinked = any(getattr(kind, "kink", None) is not None for kind in problem.start.activations)
    rounding = _rounding(initial, final)
    # Each step rounds once more.
    limit = REACHED * rounding * float(np.sqrt(recipe.steps))
    best = (np.inf, np.zeros(problem.unknowns))
    tried = 0
    for tried in range(1, (1 if start is not None else starts) + 1):
        budget.tell("replay", (tried - 1) / starts)
        begin = _begin(problem, span, start, rng)
        u = (
            _fit_kinked(problem, begin, budget)
            if kinked and len(begin)
            else _fit(problem, begin, budget)[0]
        )
        size = _size(problem, problem.residual(u))
        if tried == 1 or size < best[0]:
            best = (size, u)
        if best[0] <= limit or budget.expired or problem.unknowns == 0:
            break
    return _result(problem, span, best[1], best[0], (rounding, limit), tried, budget)


def jacobian_numbers(network: DeepNetwork, samples: int) -> int:
    """The numbers of the Jacobian of a replay: parameters in the span times unknowns.

    Example:
        >>> jacobian_numbers(DeepNetwork([[[2.0, 1.0]], [[5.0]]], None, "relu"), 3)
        36
    """
    sizes = [weight.size for weight in network.weights[1:]]
    sizes += [bias.size for bias in network.biases[1:] if bias is not None]
    return (len(network.weights[0]) * samples + sum(sizes)) * samples**2


def retrain(
    network: DeepNetwork, samples: FloatArray, labels: npt.ArrayLike, recipe: Recipe
) -> DeepNetwork:
    """Train a network on samples (n, d) by a recipe; no span is used.

    Example:
        >>> net = DeepNetwork([[[1.0]]], [[0.0]], "identity")
        >>> retrain(net, np.array([[2.0]]), [[5.0]], Recipe(1, 0.1, loss="squared")).weights[0]
        array([[1.6]])
    """
    whole = _whole(network, np.eye(network.dimension + int(network.biases[0] is not None)))
    points = samples
    if network.biases[0] is not None:
        points = np.column_stack([samples, np.ones(len(samples))])
    layers = train(whole, points, np.asarray(labels, dtype=np.float64), recipe)
    weights, biases = [], []
    for layer, bias in zip(layers, network.biases, strict=True):
        weights.append(layer if bias is None else layer[:, :-1])
        biases.append(None if bias is None else layer[:, -1])
    return DeepNetwork(weights, biases, network.activations, network.names)


def _whole(network: DeepNetwork, basis: FloatArray) -> SpanNetwork:
    layers = [
        weight if bias is None else np.column_stack([weight, bias])
        for weight, bias in zip(network.weights, network.biases, strict=True)
    ]
    layers[0] = layers[0] @ basis.T
    biased = tuple(bias is not None for bias in network.biases)
    return SpanNetwork(
        tuple(layers), (False, *biased[1:]), network.activations, (False,) * len(layers)
    )


def _pose(
    initial: DeepNetwork,
    final: DeepNetwork,
    span: CheckpointSpan,
    recipe: Recipe,
    labels: FloatArray,
    fit_rate: bool,
) -> _Problem:
    if span.samples is None:
        raise InvalidInputError("span", "a span with a number of samples", span.reason)
    if (initial.biases[0] is not None) != span.has_bias:
        raise InvalidInputError("span", "first biases that were trained with the weights", "others")
    if len(labels) != span.samples:
        raise InvalidInputError("labels", f"{span.samples} of them, as the span says", len(labels))
    start, end = _whole(initial, span.basis), _whole(final, span.basis)
    changes = [float(np.linalg.norm(a - b)) for a, b in zip(end.layers, start.layers, strict=True)]
    frozen = tuple(change == 0.0 for change in changes)
    scales = tuple(0.0 if change == 0.0 else 1.0 / change for change in changes)
    if span.has_bias:
        last = span.basis[:, -1]
        centre = last / float(last @ last)
        frame = linalg.null_space(last[None, :])
    else:
        centre, frame = np.zeros(span.samples), np.eye(span.samples)
    return _Problem(
        replace(start, frozen=frozen), end.layers, scales, labels, recipe, centre, frame, fit_rate
    )


def _begin(
    problem: _Problem, span: CheckpointSpan, start: FloatArray | None, rng: np.random.Generator
) -> FloatArray:
    """Coordinates of the given samples, or of random points at a typical distance."""
    if start is not None:
        inner = (span.lifted(start) @ span.basis.T - problem.centre) @ problem.frame
    else:
        inner = rng.normal(size=(len(problem.labels), problem.frame.shape[1]))
        if inner.size:
            inner *= _typical(problem) / np.linalg.norm(inner, axis=1, keepdims=True)
    tail = np.zeros(int(problem.fit_rate))
    return np.concatenate([inner.ravel(), tail])


def _typical(problem: _Problem) -> float:
    """A sample's distance from the centre if the cotangents were uncorrelated: |dM N| / |dM v|."""
    change = problem.final[0] - problem.start.layers[0]
    centre = problem.centre / max(float(np.linalg.norm(problem.centre)), 1e-300)
    if not np.any(problem.centre):
        return float(np.sqrt(len(centre)))
    along = float(np.linalg.norm(change @ centre)) / float(np.linalg.norm(problem.centre))
    return float(np.linalg.norm(change @ problem.frame)) / max(along, 1e-300)


def _fit(
    problem: _Problem,
    u: FloatArray,
    budget: Budget,
    *,
    network: SpanNetwork | None = None,
    most: int = 60,
    until: float = 1e-14,
) -> tuple[FloatArray, float]:
    """Levenberg-Marquardt; a Jacobian serves as long as each step takes the residual below 0.3."""
    if not len(u):
        return u, 0.0
    residual = problem.residual(u, network)
    size = float(residual @ residual)
    damping, sizes = 1e-3, [size]
    while len(sizes) <= most and np.isfinite(size) and size > until**2 and not budget.expired:
        jacobian = problem.jacobian(u, network)
        gram = jacobian.T @ jacobian
        diagonal = np.diag(gram) + 1e-12 * float(np.diag(gram).max())
        if not np.isfinite(gram).all():
            break
        gain, moved = 0.0, False
        while gain < _REFRESH and size > until**2:
            found = _step(problem, u, residual, jacobian, gram, diagonal, damping, network)
            if found is None:
                break
            u, residual, damping = found
            before, size = size, float(residual @ residual)
            gain, moved = size / before, True
            damping = max(damping / (10.0 if gain < 0.5 else 3.0), 1e-13)
            sizes.append(size)
        if not moved or (len(sizes) > 12 and sizes[-1] > _STALLED**2 * sizes[-8]):
            break
    return u, size


def _step(
    problem: _Problem,
    u: FloatArray,
    residual: FloatArray,
    jacobian: FloatArray,
    gram: FloatArray,
    diagonal: FloatArray,
    damping: float,
    network: SpanNetwork | None,
) -> tuple[FloatArray, FloatArray, float] | None:
    """A step that lowers the residual, with its damping, or None."""
    slope = jacobian.T @ residual
    size = float(residual @ residual)
    while damping < 1e6:
        try:
            move = -linalg.solve(gram + np.diag(damping * diagonal), slope, assume_a="pos")
        except linalg.LinAlgError:
            damping = max(5.0 * damping, 1e-10)
            continue
        there = problem.residual(u + move, network)
        if np.isfinite(there).all() and float(there @ there) < size:
            return u + move, there, damping
        damping = max(5.0 * damping, 1e-10)
    return None


def _fit_kinked(problem: _Problem, u: FloatArray, budget: Budget) -> FloatArray:
    """Smoothed runs first, then exact residuals with smoothed slopes, then rows by their weight."""
    for width in _WIDTHS:
        tau = width * _spread(problem)
        u, _ = _fit(problem, u, budget, network=problem.start.smoothed(tau), most=20, until=1e-4)
    u = _fit_by_smoothed_slopes(problem, u, budget)
    return _polish(problem, u, budget)


def _spread(problem: _Problem) -> float:
    """The size of a preactivation of the first layer at the typical distance."""
    rows = float(np.sqrt(np.mean(np.sum((problem.start.layers[0] @ problem.frame) ** 2, axis=1))))
    return float(rows * _typical(problem) / np.sqrt(problem.frame.shape[1]))


def _fit_by_smoothed_slopes(problem: _Problem, u: FloatArray, budget: Budget) -> FloatArray:
    """Non-monotone Gauss-Newton: exact residuals, slopes with ReLUs as wide as the error."""
    residual = problem.residual(u)
    best, error, bad = (float(np.linalg.norm(residual)), u), 0.1, 0
    while bad < 5 and best[0] > 1e-12 and not budget.expired:
        tau = max(0.1 * error * _spread(problem), 1e-9)
        jacobian = problem.jacobian(u, problem.start.smoothed(tau))
        moves = _moves(jacobian, residual, (1e-1, 1e-2, 1e-3, 1e-4, 1e-6))
        tried = [(u + move, problem.residual(u + move)) for move in moves]
        sizes = [float(np.linalg.norm(r)) if np.isfinite(r).all() else np.inf for _, r in tried]
        chosen = int(np.argmin(sizes))
        if not np.isfinite(sizes[chosen]):
            break
        step = float(np.linalg.norm(moves[chosen])) / max(float(np.linalg.norm(u)), 1e-300)
        u, residual = tried[chosen]
        error = min(max(step, 1e-9), 1.0) if step < error else max(0.7 * error, 1e-9)
        bad = bad + 1 if sizes[chosen] > 0.999 * best[0] else 0
        if sizes[chosen] < best[0]:
            best = (sizes[chosen], u)
    return best[1]


def _polish(problem: _Problem, u: FloatArray, budget: Budget) -> FloatArray:
    """Exact slopes; a neuron with a wrong sign spoils its row alone, so rows count by their fit."""
    rows = problem.start.layers[0].shape

    def weigh(residual: FloatArray) -> FloatArray:
        return np.asarray(np.linalg.norm(residual[: rows[0] * rows[1]].reshape(rows), axis=1))

    residual = problem.residual(u)
    best, bad = (float(np.median(weigh(residual))), float(np.linalg.norm(residual)), u), 0
    while bad < 4 and best[1] > 1e-12 and not budget.expired:
        sizes = weigh(residual)
        weight = np.ones(len(residual))
        share = 1.0 / (1.0 + (sizes / max(float(np.median(sizes)), 1e-17)) ** 2)
        weight[: rows[0] * rows[1]] = np.repeat(np.sqrt(share), rows[1])
        jacobian = problem.jacobian(u) * weight[:, None]
        moves = _moves(jacobian, residual * weight, (1e-1, 1e-2, 1e-4, 1e-9))
        tried = [(u + move, problem.residual(u + move)) for move in moves]
        medians = [float(np.median(weigh(r))) if np.isfinite(r).all() else np.inf for _, r in tried]
        chosen = int(np.argmin(medians))
        u, residual = tried[chosen]
        bad = 0 if medians[chosen] < 0.999 * best[0] else bad + 1
        if medians[chosen] < best[0]:
            best = (medians[chosen], float(np.linalg.norm(residual)), u)
    return best[2]


def _moves(
    jacobian: FloatArray, residual: FloatArray, dampings: tuple[float, ...]
) -> list[FloatArray]:
    gram = jacobian.T @ jacobian
    slope = jacobian.T @ residual
    diagonal = np.diag(gram)
    floor = 1e-13 * float(diagonal.max())
    return [
        np.asarray(-np.linalg.solve(gram + np.diag(damping * diagonal + floor), slope), np.float64)
        for damping in dampings
    ]


def _size(problem: _Problem, residual: FloatArray) -> float:
    """The largest relative distance of a layer."""
    ends = np.cumsum([layer.size for layer in problem.final])[:-1]
    sizes = [float(np.linalg.norm(part)) for part in np.split(residual, ends)]
    return max(size if np.isfinite(size) else np.inf for size in sizes)


def _rounding(initial: DeepNetwork, final: DeepNetwork) -> float:
    """What the stored numbers leave of a layer's change, relative to it, at most."""
    eps = max(stored_precision(weight) for weight in final.weights)
    shares = [
        float(np.linalg.norm(b)) / float(np.linalg.norm(b - a))
        for a, b in zip(initial.weights, final.weights, strict=True)
        if not np.array_equal(a, b)
    ]
    return eps * max(shares, default=1.0)


def _result(
    problem: _Problem,
    span: CheckpointSpan,
    u: FloatArray,
    size: float,
    levels: tuple[float, float],
    tried: int,
    budget: Budget,
) -> Replay:
    points = problem.points(u)
    samples = points @ span.basis
    samples = samples[:, :-1] if span.has_bias else samples
    rounding, limit = levels
    if problem.unknowns == 0:
        # One sample with a bias is its span.
        rank, bounds = 0, np.array([10.0 * np.sqrt(samples.size) * max(span.noise, rounding)])
    else:
        rank, bounds = _isolation(problem, u, samples, max(size, rounding))
    pairs = zip(problem.final, problem.start.layers, strict=True)
    live = sum(int(np.sum(np.any(end != start, axis=1))) * end.shape[1] for end, start in pairs)
    return Replay(
        samples, size, rounding, limit, bounds, rank, problem.unknowns, live,
        problem.rated(u).rate, tried, budget.expired,
    )  # fmt: skip


def _isolation(
    problem: _Problem, u: FloatArray, samples: FloatArray, level: float
) -> tuple[int, FloatArray]:
    """The rank of the derivative, and what a residual of this level leaves open, relative."""
    jacobian = problem.jacobian(u)
    values = np.linalg.svd(jacobian, compute_uv=False)
    # Tangents are in float32: smaller singular values are not known.
    rank = int(np.sum(values > 1e-5 * values[0]))
    if rank < problem.unknowns:
        return rank, np.full(len(samples), np.inf)
    inverse = np.linalg.inv(jacobian.T @ jacobian)
    width = problem.frame.shape[1]
    error = level * np.sqrt(len(problem.final))
    bounds = np.empty(len(samples))
    for index, sample in enumerate(samples):
        part = slice(index * width, (index + 1) * width)
        reach = float(np.sqrt(max(np.linalg.eigvalsh(inverse[part, part])[-1], 0.0)))
        bounds[index] = reach * error / float(np.linalg.norm(sample))
    return rank, bounds
