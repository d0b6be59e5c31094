"""The samples between two checkpoints of a known recipe, by replaying the training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import Budget, Progress
from identify.checkpoints.pair import separate_pair
from identify.checkpoints.recipe import Recipe
from identify.checkpoints.replay_fit import fit_kinked, fit_smooth
from identify.checkpoints.replay_problem import (
    ReplayProblem,
    begin_at,
    in_span,
    largest_distance,
    pose,
)
from identify.checkpoints.simulate import train
from identify.checkpoints.span import CheckpointSpan, stored_precision
from identify.markup import Shown
from identify.model.deep import DeepNetwork
from identify.thresholds import REACHED, REPLAY_BOUND

_NEAR = 1e-3
"""The residual from which soft labels are rounded."""


@dataclass(frozen=True, eq=False)
class Replay(Shown):
    """Samples (n, d) whose training from the first checkpoint ends in the last, or near it.

    ``residual`` is the largest relative distance of a layer's change; ``rounding`` what the stored
    numbers leave of it; ``error_bounds`` (n,) relative; ``equations`` and ``unknowns`` at full
    column rank where ``determined``. ``rate`` is the rate as fitted, or as given, ``steps`` the
    number of steps. ``labels`` (n,) are classes or signs, (n, C) what is neither, as soft labels
    that no rounding reached.
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
    labels: FloatArray
    steps: int
    fitted: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether training on the samples ends in the last checkpoint, to rounding."""
        return self.residual <= self.limit

    @property
    def determined(self) -> bool:
        """Whether no other samples near these do, with the number and the recipe as given."""
        full = self.rank == self.unknowns < self.equations
        return self.reached and full and bool(np.all(self.error_bounds < REPLAY_BOUND))

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
            "steps": self.steps,
            "labels": self.labels.tolist(),
            "fitted": list(self.fitted),
            "starts": self.starts,
            "timed_out": self.timed_out,
            "assumptions": [
                f"{len(self.samples)} samples; labels and recipe as given but for what was fitted"
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
            *([f"  found with them: {', '.join(self.fitted)}"] if self.fitted else []),
        ])  # fmt: skip


def replay_samples(
    initial: DeepNetwork,
    final: DeepNetwork,
    span: CheckpointSpan,
    recipe: Recipe,
    labels: npt.ArrayLike | None = None,
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
    of every layer. Starts are random points of the span. In a ReLU network of two layers the sides
    of all neurons are held while the samples are fitted to the rows that agree, and then repaired.

    Args:
        initial, final: the checkpoints.
        span: of the two, from `find_span`, with a number of samples.
        recipe: descent on all samples or known mini-batches; nothing is said about other training.
        labels: (n,) the label of each sample, in any order unless there is a start or an order of
            mini-batches; None where they are unknown: a two-layer ReLU network takes them from
            `separate_pair`, others fit soft labels and round them.
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
    return replay_within(
        ReplayRequest(initial, final, span, recipe, fit_rate, seed),
        None if labels is None else np.asarray(labels, dtype=np.float64),
        start,
        starts,
        Budget.of(time_limit, progress),
    )


@dataclass(frozen=True, eq=False)
class ReplayRequest:
    """A pair with its span, the recipe, whether the rate is fitted, and the seed of the starts."""

    initial: DeepNetwork
    final: DeepNetwork
    span: CheckpointSpan
    recipe: Recipe
    fit_rate: bool
    seed: int


def replay_within(
    asked: ReplayRequest,
    labels: FloatArray | None,
    start: FloatArray | None,
    starts: int,
    budget: Budget,
) -> Replay:
    """`replay_samples` within a budget; without labels they are found too."""
    if labels is not None:
        return _replay(asked, labels, start, starts, budget)
    pair = None if start is not None else separated(asked, budget.part(0.5))
    found = None if pair is None else _replay(asked, pair[0], pair[1], 1, budget)
    if found is None or not (found.reached or budget.expired):
        found = _replay(asked, None, start, starts, budget)
    return replace(found, fitted=("labels", *found.fitted))


def separated(asked: ReplayRequest, budget: Budget) -> tuple[FloatArray, FloatArray] | None:
    """Labels and candidates where no recipe is needed for them."""
    initial, span = asked.initial, asked.span
    kind = initial.activations[0].kink if initial.depth == 2 else None
    covered = kind is not None and abs(kind) < 1.0 and span.has_bias
    if asked.recipe.loss == "squared" or not covered or budget.expired:
        return None
    limit = budget.remaining if budget.limited else None
    pair = separate_pair(
        initial, asked.final, span, seed=asked.seed, time_limit=limit, progress=budget.progress
    )
    if not pair.candidates or pair.labels is None or pair.samples is None:
        return None
    return pair.labels, pair.samples


def _replay(
    asked: ReplayRequest,
    labels: FloatArray | None,
    start: FloatArray | None,
    starts: int,
    budget: Budget,
) -> Replay:
    span = asked.span
    problem = pose(asked.initial, asked.final, span, asked.recipe, labels, asked.fit_rate)
    rng = np.random.default_rng(asked.seed)
    rounding = _rounding(asked.initial, asked.final)
    # Each step rounds once more.
    limit = REACHED * rounding * float(np.sqrt(asked.recipe.steps))
    best = (np.inf, np.zeros(problem.unknowns), problem)
    tried = 0
    for tried in range(1, (1 if start is not None else starts) + 1):
        budget.tell("replay", (tried - 1) / starts)
        begin = begin_at(problem, span, start, rng)
        u, size = _fit(problem, begin, limit, budget)
        settled = problem
        if problem.label_frame is not None and size < _NEAR:
            settled, u = problem.hardened(u)
            u, size = _fit(settled, u, limit, budget)
        if tried == 1 or size < best[0]:
            best = (size, u, settled)
        if best[0] <= limit or budget.expired or problem.unknowns == 0:
            break
    return _result(best[2], span, best[1], best[0], (rounding, limit), tried, budget)


def _fit(
    problem: ReplayProblem, u: FloatArray, limit: float, budget: Budget
) -> tuple[FloatArray, float]:
    kinked = any(getattr(kind, "kink", None) is not None for kind in problem.start.activations)
    if kinked and len(u):
        u = fit_kinked(problem, u, budget, limit)
    else:
        u = fit_smooth(problem, u, budget)[0]
    return u, largest_distance(problem, problem.residual(u))


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
    whole = in_span(network, np.eye(network.dimension + int(network.biases[0] is not None)))
    points = samples
    if network.biases[0] is not None:
        points = np.column_stack([samples, np.ones(len(samples))])
    layers = train(whole, points, np.asarray(labels, dtype=np.float64), recipe)
    weights, biases = [], []
    for layer, bias in zip(layers, network.biases, strict=True):
        weights.append(layer if bias is None else layer[:, :-1])
        biases.append(None if bias is None else layer[:, -1])
    return DeepNetwork(weights, biases, network.activations, network.names)


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
    problem: ReplayProblem,
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
        problem.rated(u).rate, tried, budget.expired, printed_labels(problem, u),
        problem.recipe.steps, _fitted(problem, u),
    )  # fmt: skip


def printed_labels(problem: ReplayProblem, u: FloatArray) -> FloatArray:
    """Classes, signs or targets of the samples; soft labels as they are."""
    wanted = problem.wanted(u)
    if problem.recipe.loss == "squared":
        return wanted[:, 0] if wanted.shape[1] == 1 else wanted
    if not np.isin(wanted, (0.0, 1.0)).all():
        return wanted
    if problem.recipe.loss == "cross_entropy":
        return np.asarray(wanted.argmax(axis=1), dtype=np.float64)
    signs = 2.0 * wanted - 1.0
    return signs[:, 0] if signs.shape[1] == 1 else signs


def _fitted(problem: ReplayProblem, u: FloatArray) -> tuple[str, ...]:
    words = [f"rate {problem.rated(u).rate:.10g}"] if problem.fit_rate else []
    return tuple(words)


def _isolation(
    problem: ReplayProblem, u: FloatArray, samples: FloatArray, level: float
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
