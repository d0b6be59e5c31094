"""The batch behind one gradient of a network with a smooth activation, sample by sample."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.bounds import Bounds
from identify.disaggregation.checks import Labels, check_loss, read_labels, relative_noise
from identify.disaggregation.depth import Descent
from identify.disaggregation.records import Check, Disaggregation, SearchFacts
from identify.disaggregation.search.equations import evaluate
from identify.disaggregation.search.evidence import (
    Coverage,
    SampleBound,
    bound_sample,
    cover,
    null_hits,
    power,
)
from identify.disaggregation.search.find import Hunt, Sample, Search, accept, search
from identify.disaggregation.search.joint import joint_of, joint_power, solve_joint
from identify.disaggregation.search.pose import Posed, labelled, pose, thinned
from identify.disaggregation.search.sides import choose_sides
from identify.disaggregation.search.spaces import Spaces, full_view
from identify.disaggregation.search.verdict import Findings, judge
from identify.model.deep import DeepGradient, DeepNetwork
from identify.thresholds import LOOSEST

BoolArray = npt.NDArray[np.bool_]

_COVERAGE = (20, 60)
_NULL_STARTS = 20
_MOST_OUTPUTS = 32

CAVEATS = (
    "samples far from these are not excluded: the search is not a proof that it found every one",
    "sets of more samples are not excluded: two images that differ by what no neuron sees, with "
    "half the weight each, give the same gradient",
    "samples whose loss slope lies below the noise leave no trace",
)
SIGN_CAVEAT = "a sample and its negative have the same gradient here: the sign of each is open"


@dataclass(frozen=True, eq=False)
class _Outcome:
    search: Search
    spaces: Spaces
    coverage: Coverage
    null: tuple[int, int]
    power: int
    bounds: tuple[tuple[Sample, SampleBound], ...] = ()
    spare: int | None = None


def search_batch(
    network: DeepNetwork,
    gradient: DeepGradient,
    loss: str | None = None,
    *,
    reduction: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> Disaggregation:
    """Recover the samples of a batch from one gradient by search and deflation.

    A sample is a point of the affine row space of a gradient whose error signals lie in the
    column spaces of all layers: r - 1 unknowns, and the direction of p. Each one that is found is
    taken out of the spaces before the next is looked for.

    Args:
        network: any activations with a slope that is not piecewise constant in the last hidden
            layer.
        gradient: of the sum or the mean over the batch; that of the last hidden layer is needed.
        loss: "cross_entropy" (p sums to 0), "logistic", "squared", or None if unknown.
        reduction: "mean" or "sum" if known; one equation more for the loss.
        samples: r, if known; else the gap of the singular values decides.
        seed: of the starts.
        budget: at its end the samples found by then are returned.

    Raises:
        InvalidInputError: shapes that do not fit, a gradient of zeros, an unknown loss.
        NotYetSupportedError: no hidden layer.

    Cost: r searches of some ten steps of 2 m r^2 operations.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> network = DeepNetwork(
        ...     [rng.normal(size=(30, 20)), rng.normal(size=(1, 30))], [rng.normal(size=30), [0.0]],
        ...     "tanh",
        ... )
        >>> batch = rng.normal(size=(3, 20))
        >>> result = search_batch(network, network.gradient(batch, [[0.3], [-0.5], [0.2]]))
        >>> result.verdict, result.rank
        ('locally', 3)
        >>> bool(np.abs(result.samples[:, None] - batch).max(axis=2).min(axis=0).max() < 1e-9)
        True
    """
    started = time.monotonic()
    posed = pose(network, gradient, loss, samples=samples, seed=seed)
    rng = np.random.default_rng([seed, 1])
    hunt = Hunt(posed.spaces, thinned(posed.spaces, rng), posed.bias_slope, rng, budget)
    outcome = _search(hunt, loss, seed)
    result = _confirm(posed, outcome, loss, reduction)
    return replace(result, seconds=time.monotonic() - started)


def _search(hunt: Hunt, loss: str | None, seed: int) -> _Outcome:
    """Search with p free; with p tied to the labels where a free p meets too few equations."""
    spaces = hunt.spaces
    tied = labelled(spaces) if loss == "cross_entropy" and spaces.chain.free else None
    before = power(spaces, [], seed=seed)
    if tied is not None and before < 1:
        hunt = replace(hunt, spaces=tied, thin=tied)
        before = power(tied, [], seed=seed)
    together = None
    if before < 1:
        together = _all_at_once(hunt, before, seed)
        if together is not None and (together.search.samples or before < 0):
            return together
    if before < 0:
        # More unknowns than equations: every start would end at a zero that means nothing.
        found = Search(stopped=f"power {before}, a sample has more unknowns than equations")
        return _Outcome(found, hunt.spaces, Coverage(0, (), ()), (0, 0), before)
    found = search(hunt)
    if together is not None and len(found.samples) < hunt.spaces.rank:
        # At power 0 single points fit by chance; all of them together give the gradient.
        return together
    r = power(hunt.spaces, found.samples, seed=seed)
    coverage, null = Coverage(0, (0,) * len(found.samples), ()), (0, 0)
    if found.samples and r >= 1 and len(found.samples) == hunt.spaces.rank:
        # Chance is excluded first: without that nothing is claimed.
        null = null_hits(hunt, found.samples, _NULL_STARTS)
        starts = int(np.clip(2 * hunt.spaces.rank, *_COVERAGE))
        coverage = cover(hunt, found.samples, starts)
    return _Outcome(found, hunt.spaces, coverage, null, r)


def _all_at_once(hunt: Hunt, before: int, seed: int) -> _Outcome | None:
    """The samples by their joint equations, where these have equations to spare."""
    spaces = hunt.spaces
    joint = joint_of(spaces)
    spare = 0 if joint is None else joint_power(joint, spaces.rank, seed=seed)
    if joint is None or spare < 1:
        return None
    found = solve_joint(joint, spaces.rank, hunt.rng, hunt.budget)
    state = Search(starts=found.starts, steps=found.steps, stopped=found.stopped)
    view = full_view(spaces)
    bounds = []
    for point, bound in zip(found.points, found.bounds, strict=True):
        # Alone, a sample has a continuum of zeros around it: it must not be moved again.
        here = evaluate(view, view.chart_of(point), None, tangents=False)
        sample = accept(hunt, here, None)
        if sample is not None:
            state.samples.append(sample)
            slope = joint.power * float(bound)
            bounds.append((sample, SampleBound(float(bound), slope, found.condition)))
    if len(state.samples) < len(found.points):
        state.stopped = "its residual in the joint solution is more than the noise explains"
    nothing = Coverage(0, (0,) * len(state.samples), ())
    return _Outcome(state, spaces, nothing, (0, 0), before, tuple(bounds), spare)


def _bounds_of(outcome: _Outcome, spaces: Spaces, samples: list[Sample]) -> list[SampleBound]:
    """What bounds each sample: its own equations, or those of all together."""
    if not outcome.bounds:
        return [bound_sample(spaces, sample) for sample in samples]
    points = np.array([own.point for own, _ in outcome.bounds])
    # Samples may have been turned to their negatives, and are in another order.
    nearest = [int(np.argmax(np.abs(points @ sample.point))) for sample in samples]
    return [outcome.bounds[place][1] for place in nearest]


def _confirm(
    posed: Posed, outcome: _Outcome, loss: str | None, reduction: str | None
) -> Disaggregation:
    spaces, rank = outcome.spaces, outcome.spaces.rank
    samples = sorted(outcome.search.samples, key=lambda s: -_share(spaces, s))
    open_sides = spaces.two_sided
    if len(samples) == rank:
        samples, open_sides = choose_sides(posed, spaces, samples)
    bounds = _bounds_of(outcome, spaces, samples)
    facts = _facts(outcome, samples, bounds)
    caveats = (*CAVEATS, SIGN_CAVEAT) if open_sides else CAVEATS
    base = Disaggregation(
        "", "", rank, posed.ranks, "search", power=outcome.power, search=facts, caveats=caveats
    )
    descent = checks = limits = None
    if samples:
        descent = _descent(posed, spaces, samples)
        limits = _limits(posed.network, descent, bounds)
        base, checks = _confirmed(posed, base, descent, limits, (loss, reduction, open_sides))
    verdict, reason = judge(
        Findings(
            rank, posed.ranks, posed.network.depth - 1, outcome.power, facts,
            checks or (), None if limits is None else float(limits.samples.max()),
            outcome.spare,
        )
    )  # fmt: skip
    return replace(base, verdict=verdict, reason=reason)


def _confirmed(
    posed: Posed,
    base: Disaggregation,
    descent: Descent,
    limits: Bounds,
    known: tuple[str | None, str | None, bool],
) -> tuple[Disaggregation, tuple[Check, ...]]:
    loss, reduction, open_sides = known
    complete = len(descent.inputs) == base.rank
    labels = Labels(reason="the sign of each sample is open")
    if not open_sides:
        # With the sign of a sample that of p is open, and so is the label.
        labels = read_labels(posed.network, descent, limits, loss)
    checks: tuple[Check, ...] = ()
    counts = None
    if complete:
        gradient = posed.gradient
        if open_sides:
            # The output bias sums p, whose sign is as open as that of the sample.
            gradient = DeepGradient(gradient.weights, (*gradient.biases[:-1], None))
        loss_check, counts = check_loss(posed.network, descent, limits, labels, loss, reduction)
        checks = (
            *_check_layers(posed, gradient, descent, limits),
            loss_check,
        )
    run = posed.network.forward(descent.inputs, descent.layer)
    return replace(
        base, samples=descent.inputs, layer=descent.layer, scaled=descent.scaled,
        features=run.inputs[posed.network.depth - 2 - descent.layer],
        cotangents=descent.cotangents, labels=labels.labels, label_confidence=labels.confidence,
        counts=counts, error_bounds=limits.samples, checks=checks,
        visible=_visible(posed.spaces, descent), patterns=_patterns(posed.network, descent),
    ), checks  # fmt: skip


def _check_layers(
    posed: Posed, gradient: DeepGradient, descent: Descent, limits: Bounds
) -> list[Check]:
    """Every supplied gradient against a forward and backward pass of the samples.

    The limit is 10 times the layer's noise and 3 times what the samples' errors do to their terms:
    |delta_i| |h_i| times the errors of h_i and p_i, over the norm of the gradient.
    """
    run = posed.network.forward(descent.inputs, descent.layer)
    deltas = (*descent.deltas, descent.cotangents)
    checks = []
    for index in range(posed.network.depth):
        given = gradient.layer(index) if descent.scaled else gradient.weights[index]
        if given is None:
            continue
        name = f"gradient of layer {index + 1}"
        if index < descent.layer:
            checks.append(Check(name, None, None, None, 0, "below the samples"))
            continue
        delta, inputs = deltas[index - descent.layer], run.inputs[index - descent.layer]
        if given.shape[1] > inputs.shape[1]:
            inputs = np.column_stack([inputs, np.ones(len(inputs))])
        norm = max(float(np.linalg.norm(given)), 1e-300)
        residual = float(np.linalg.norm(given - delta.T @ inputs)) / norm
        terms = np.linalg.norm(delta, axis=1) * np.linalg.norm(inputs, axis=1)
        carried = float(terms @ (limits.samples + limits.slopes)) / norm
        noise = relative_noise(posed.factors[index]) if index in posed.factors else 1e-12
        limit = 10.0 * noise + 3.0 * carried
        holds = residual <= limit if limit <= LOOSEST or residual > limit else None
        rows = max(0, len(given) - len(inputs))
        checks.append(Check(name, holds, residual, limit, rows * given.shape[1]))
    return checks


def _patterns(network: DeepNetwork, descent: Descent) -> tuple[BoolArray | None, ...]:
    """The masks (n, m) of the layers with a kink, None for the others."""
    kinds = network.activations[descent.layer :]
    return tuple(
        None if kind.kink is None else slope == 1.0
        for kind, slope in zip(kinds, descent.slopes, strict=True)
    )


def _share(spaces: Spaces, sample: Sample) -> float:
    """|delta_i| |h_i|, the sample's share of the gradient."""
    delta = float(np.linalg.norm(sample.where.delta))
    return abs(sample.weight) * delta * float(np.linalg.norm(sample.point))


def _facts(outcome: _Outcome, samples: list[Sample], bounds: list[SampleBound]) -> SearchFacts:
    found, coverage = outcome.search, outcome.coverage
    hits = coverage.hits
    return SearchFacts(
        found=len(samples),
        missing=outcome.spaces.rank - len(samples),
        starts=found.starts,
        steps=found.steps,
        others=len(found.doubtful) + len(coverage.others),
        coverage_starts=coverage.starts,
        coverage_share=float(np.mean([h > 0 for h in hits])) if hits and coverage.starts else None,
        least_hits=min(hits) if hits and coverage.starts else None,
        null_starts=outcome.null[0],
        null_hits=outcome.null[1],
        residuals=tuple(s.residual for s in samples),
        tolerances=tuple(s.tolerance for s in samples),
        conditions=tuple(b.condition for b in bounds),
        stopped=found.stopped,
    )


def _descent(posed: Posed, spaces: Spaces, samples: list[Sample]) -> Descent:
    """The samples as the records of a descent that ended at the first layer of the search."""
    points = np.array([sample.point for sample in samples])
    inputs = points @ spaces.bottom.rows.T
    if spaces.tail is not None:
        inputs = inputs[:, :-1]
    p = np.array([sample.weight * sample.cotangent for sample in samples])
    run = posed.network.forward(inputs, spaces.first)
    deltas = posed.network.backward(run, p)[:-1]
    slopes = tuple(
        posed.network.activations[spaces.first + i].slope(z)
        for i, z in enumerate(run.preactivations[:-1])
    )
    return Descent(
        spaces.first, inputs, p, not spaces.homogeneous, (float("nan"),) * posed.network.depth,
        deltas, slopes, "",
    )  # fmt: skip


def _limits(network: DeepNetwork, descent: Descent, bounds: list[SampleBound]) -> Bounds:
    relative = np.array([bound.input for bound in bounds])
    slopes = np.array([bound.slope for bound in bounds])
    run = network.forward(descent.inputs, descent.layer)
    weight = network.weights[descent.layer]
    count, outputs = run.outputs.shape
    gain = np.zeros(count)
    if outputs <= _MOST_OUTPUTS:
        for c in range(outputs):
            unit = np.zeros((count, outputs))
            unit[:, c] = 1.0
            gain += np.sum((network.backward(run, unit)[0] @ weight) ** 2, axis=1)
    else:
        length = np.maximum(np.linalg.norm(descent.cotangents, axis=1), 1e-300)[:, None]
        gain += outputs * np.sum(((descent.deltas[0] / length) @ weight) ** 2, axis=1)
    moved = relative * np.linalg.norm(descent.inputs, axis=1) * np.sqrt(gain)
    return Bounds(relative, relative, slopes, moved)


def _visible(spaces: Spaces, descent: Descent) -> float:
    """The loss slope |p| below which a typical sample would be lost in the noise."""
    size = np.linalg.norm(descent.cotangents, axis=1) + 1e-300
    lengths = np.sqrt(np.sum(descent.inputs**2, axis=1) + 1.0)
    reach: FloatArray = np.linalg.norm(descent.deltas[0], axis=1) / size * lengths
    return spaces.bottom.error / max(float(np.median(reach)), 1e-300)
