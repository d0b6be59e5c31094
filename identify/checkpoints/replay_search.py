"""What a recipe leaves open: the number of steps by a search, the rate by the fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import Budget, Progress
from identify.checkpoints.recipe import OpenRecipe
from identify.checkpoints.replay import Replay, ReplayRequest, replay_within, separated
from identify.checkpoints.replay_problem import begin_at, pose
from identify.checkpoints.simulate import train
from identify.checkpoints.span import CheckpointSpan
from identify.model.deep import DeepNetwork

_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
_RATES = (1e-5, 1e3)
_HALVINGS = 40


def search_recipe(
    initial: DeepNetwork,
    final: DeepNetwork,
    span: CheckpointSpan,
    recipe: OpenRecipe,
    labels: npt.ArrayLike | None = None,
    *,
    start: FloatArray | None = None,
    starts: int = 6,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Replay with the number of steps and the rate found beside the samples.

    For each number of steps T that is tried the rate is fitted, from the one at which the first
    layer moves as far as it did. The residual grows with the distance from the right T on both
    sides, so a golden section over T finds it, each fit from the best samples before.

    Args:
        initial, final, span, labels, start, starts, seed, time_limit, progress: as for
            `replay_samples`.
        recipe: with a range of steps, and a rate or none.

    Returns:
        The `Replay` with the least residual; ``fitted`` names what was found with the samples.

    Raises InvalidInputError as `replay_samples`.

    Cost: about 1.5 log2(range) replays.

    Source: golden-section search (Kiefer 1953) over whole numbers.

    Example:
        >>> from identify.checkpoints.recipe import Recipe, parse_open_recipe
        >>> from identify.checkpoints.replay import retrain
        >>> from identify.checkpoints.span import find_span
        >>> rng = np.random.default_rng(0)
        >>> net = DeepNetwork(
        ...     [rng.normal(size=(30, 8)) / 3, rng.normal(size=(4, 30)) / 5],
        ...     [np.zeros(30), np.zeros(4)], "tanh")
        >>> x, y = rng.normal(size=(3, 8)), np.array([0.0, 1.0, 2.0])
        >>> end = retrain(net, x, y, Recipe(steps=11, rate=0.5))
        >>> found = search_recipe(net, end, find_span(net, end), parse_open_recipe("steps=5-20"), y)
        >>> found.determined, found.steps, round(found.rate, 9)
        (True, 11, 0.5)
    """
    budget = Budget.of(time_limit, progress)
    first = recipe.with_steps((recipe.steps[0] + recipe.steps[1]) // 2)
    request = ReplayRequest(initial, final, span, first, True, seed)
    given = None if labels is None else np.asarray(labels, dtype=np.float64)
    found_labels = given is None
    if given is None and start is None:
        pair = separated(request, budget.part(0.3))
        if pair is not None:
            given, start = pair
    tried: dict[int, Replay] = {}

    def best() -> Replay:
        return min(tried.values(), key=lambda one: one.residual)

    def size(steps: int) -> float:
        if steps not in tried:
            budget.tell("searching the number of steps", len(tried) / 20.0)
            near = best() if tried else None
            begin = start if near is None else near.samples
            now = given if near is None or given is not None else near.labels
            rated = _rated(replace(request, recipe=recipe.with_steps(steps)), recipe, now, begin)
            tried[steps] = replay_within(rated, now, begin, starts, budget)
        return tried[steps].residual

    low, high = recipe.steps
    size(first.steps)
    while high > low and not tried[min(tried, key=size)].reached and not budget.expired:
        inner = low + round((1.0 - _GOLDEN) * (high - low))
        outer = max(low + round(_GOLDEN * (high - low)), inner + 1)
        if size(inner) <= size(outer):
            high = outer - 1
        else:
            low = inner + 1
    if not budget.expired and not best().reached:
        size(low)
    result = best()
    words = tuple(word for word in result.fitted if word != "labels")
    if recipe.steps[0] != recipe.steps[1]:
        words = (f"steps {result.steps} of {recipe.steps[0]} to {recipe.steps[1]}", *words)
    return replace(result, fitted=("labels", *words) if found_labels else words)


def _rated(
    request: ReplayRequest,
    recipe: OpenRecipe,
    labels: FloatArray | None,
    start: FloatArray | None,
) -> ReplayRequest:
    """The request with the rate at which the first layer moves as far as it did, if none is known.

    It is fitted beside the samples afterwards.
    """
    if recipe.rate is not None:
        return replace(request, fit_rate=recipe.fit_rate)
    problem = pose(
        request.initial, request.final, request.span, request.recipe, labels, fit_rate=False
    )
    u = begin_at(problem, request.span, start, np.random.default_rng(request.seed))
    points, wanted = problem.points(u), problem.wanted(u)
    low, high = np.log(_RATES)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        tried = replace(request.recipe, rate=float(np.exp(middle)))
        moved = train(problem.start, points, wanted, tried)[0] - problem.start.layers[0]
        far = float(np.linalg.norm(moved)) * problem.scales[0]
        if not np.isfinite(far) or far > 1.0:
            high = middle
        else:
            low = middle
    rate = float(np.exp(0.5 * (low + high)))
    return replace(request, recipe=replace(request.recipe, rate=rate), fit_rate=True)
