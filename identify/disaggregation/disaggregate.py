"""The batch behind one gradient of a ReLU network, sample by sample."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.agreement import (
    AGREEMENT,
    check_agreement,
    noisy_rows,
    single_rows,
)
from identify.disaggregation.bounds import Bounds, bound_errors, slope_errors
from identify.disaggregation.checks import (
    check_layers,
    check_loss,
    check_ones,
    check_signs,
    check_slopes,
    read_labels,
    relative_noise,
)
from identify.disaggregation.depth import AtTheTop, Descent, descend
from identify.disaggregation.evidence import compare_signs, data_statement, entry_noise, power
from identify.disaggregation.masks import Candidates
from identify.disaggregation.printed import prove_printed
from identify.disaggregation.problem import Problem, pose
from identify.disaggregation.records import (
    NONIDENTIFIABLE,
    UNDECIDED,
    Disaggregation,
    KernelFacts,
    Listing,
    PrintedProof,
)
from identify.disaggregation.row_noise import row_exponents
from identify.disaggregation.second_set import find_second_sets
from identify.disaggregation.separate import Separated, separate
from identify.disaggregation.verdict import Findings, judge
from identify.errors import BudgetExceededError
from identify.model.deep import DeepGradient, DeepNetwork
from identify.thresholds import KERNEL_NOISE

_LARGEST_SHOWN = 3_000
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
_LOOSE = 1e-2
"""The largest share of a sample's features that counts as 0 on the way down."""


@dataclass(frozen=True)
class _Options:
    loss: str | None
    reduction: str | None
    budget: Budget
    prove: bool
    seed: int


def disaggregate(
    network: DeepNetwork,
    gradient: DeepGradient,
    loss: str | None = None,
    *,
    reduction: str | None = None,
    samples: int | None = None,
    prove: bool = True,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> Disaggregation:
    """Recover the samples of a batch from one gradient and say whether they are the only ones.

    The column space of the last hidden layer's gradient holds delta_i = mask_i * A^T p_i of every
    sample; the kernel of a linear operator, or for one output and few neurons the complete list of
    masks, gives them one by one. Least squares on every layer's gradient then leads down to the
    input.

    Args:
        network: the last hidden activation relu or leaky_relu, the ones below such that their value
            determines their slope (else the samples end above them).
        gradient: of the sum or the mean over the batch; the last hidden layer's is needed, every
            other one is used as a check.
        loss: "cross_entropy" (restricts p to sum 0), "logistic", "squared", or None if unknown.
        reduction: "mean" or "sum" if known; one equation more for the loss.
        samples: r, if known; else the gap of the singular values decides.
        prove: whether to prove the uniqueness of the printed answer by a rank.
        seed: of the random starts.
        budget: what is not done at its end is left out and said.

    Raises:
        InvalidInputError: shapes that do not fit, a gradient of zeros, an unknown loss.
        NotYetSupportedError: another activation before the output layer, or no hidden layer.

    Cost: with D = r (r + 1) / 2 + r q unknowns m D^2 + D^3 / 3 operations and D^2 numbers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> network = DeepNetwork(
        ...     [rng.normal(size=(60, 20)), rng.normal(size=(1, 60))], [rng.normal(size=60), [0.0]],
        ...     "relu",
        ... )
        >>> batch = rng.normal(size=(3, 20))
        >>> result = disaggregate(network, network.gradient(batch, [[0.3], [-0.5], [0.2]]))
        >>> result.verdict, result.rank
        ('globally', 3)
        >>> bool(np.abs(result.samples[:, None] - batch).max(axis=2).min(axis=0).max() < 1e-9)
        True
    """
    started = time.monotonic()
    options = _Options(loss, reduction, budget, prove, seed)
    problem = pose(network, gradient, loss, reduction, samples=samples, seed=seed, budget=budget)
    separated = separate(problem, seed=seed, budget=budget)
    result = _confirm(problem, separated, options)
    if result.verdict == UNDECIDED and loss is None:
        result = _show_two(problem, result, options)
    return replace(result, seconds=time.monotonic() - started)


def _confirm(problem: Problem, separated: Separated, options: _Options) -> Disaggregation:
    base = Disaggregation(
        UNDECIDED, "", problem.factor.rank, problem.ranks, separated.method,
        separated.examined.facts,
    )  # fmt: skip
    completed = tuple(i for i, part in problem.known.items() if part.filled)
    base = replace(base, completed=completed, late=bool(separated.examined.interrupted))
    exempt = frozenset(problem.known)
    agreement = check_agreement(problem.network, problem.gradient, problem.factors, exempt=exempt)
    if separated.candidates is None:
        findings = replace(_findings(problem, separated), checks=(agreement,))
        verdict, reason = judge(findings)
        rows = single_rows(problem.network, problem.gradient, problem.factors)
        if rows is None:
            rows = noisy_rows(problem.network, problem.gradient, problem.factors)
        return replace(base, verdict=verdict, reason=reason, checks=(agreement,), single_rows=rows)
    candidates = _by_size(problem, separated.candidates)
    descent, bounds = _follow(problem, candidates, options, even=separated.even)
    run = problem.network.forward(descent.inputs, descent.layer)
    top = problem.network.depth - 2 - descent.layer
    features, masks = run.inputs[top], (descent.slopes[top] == 1.0).T
    slopes = descent.cotangents @ np.linalg.pinv(problem.space.T)
    noise = entry_noise(problem.layer, problem.factor, masks, slopes)
    signs = compare_signs(problem.layer, candidates, features, noise, bounds.features)
    labels = read_labels(problem.network, descent, bounds, options.loss)
    loss_check, counts = check_loss(
        problem.network, descent, bounds, labels, options.loss, options.reduction
    )
    checks = (
        check_signs(signs, problem.factor.rank),
        check_slopes(problem.network, descent, bounds),
        *check_layers(
            problem.network, problem.gradient, problem.factors, descent, bounds, problem.known
        ),
        check_ones(descent, bounds),
        loss_check,
        agreement,
    )
    kernel = _mixed(separated.examined.facts, masks)
    data = data_statement(problem.operator, problem.factor, separated.examined.plain, noise)
    findings = replace(
        _findings(problem, separated),
        kernel=kernel,
        power=power(problem.layer, problem.factor, features, seed=options.seed),
        checks=checks,
        largest_bound=float(bounds.samples.max()),
        stopped=descent.stopped,
    )
    # A proof of degree 3 takes longer than all the rest, and nothing rests on it where others fail.
    if kernel.degree == 2 or judge(findings)[0] != UNDECIDED:
        findings = replace(
            findings, printed=_prove(problem, descent, masks, kernel.degree, options)
        )
    verdict, reason = judge(findings)
    return replace(
        base, verdict=verdict, reason=reason, kernel=kernel, samples=descent.inputs,
        layer=descent.layer,
        scaled=descent.scaled, masks=masks, features=features, cotangents=descent.cotangents,
        labels=labels.labels, label_confidence=labels.confidence, counts=counts,
        error_bounds=bounds.samples, checks=checks, printed=findings.printed, data=data,
        power=findings.power, visible=_visible(problem, descent, features), caveats=CAVEATS,
        patterns=_patterns(problem, descent), listing=_listing(separated),
    )  # fmt: skip


def _show_two(problem: Problem, result: Disaggregation, options: _Options) -> Disaggregation:
    """Two sets where masks repeat, if the layers belong together; else the result as it is."""
    facts, agreement = result.kernel, result.check(AGREEMENT)
    likely = facts is not None and facts.largest_kernel <= KERNEL_NOISE
    foreign = agreement is not None and agreement.holds is False
    if facts is None or not likely or foreign or problem.operator.unknowns > _LARGEST_SHOWN:
        return result
    try:
        found = find_second_sets(problem, seed=options.seed, budget=options.budget)
    except BudgetExceededError:
        return result
    if found is None:
        return result
    r = problem.factor.rank
    reason = (
        f"two different sets of {r} samples are shown that have this gradient: samples share a "
        "mask at the last hidden layer, and their loss slopes are free"
    )
    last, following = float(found.values[r - 1]), float(found.values[r])
    unknowns = problem.operator.unknowns
    kernel = KernelFacts(
        unknowns, facts.rows, unknowns - r, last, following, following / max(last, 1.0)
    )
    checks = () if agreement is None else (agreement,)
    return Disaggregation(
        NONIDENTIFIABLE, reason, r, problem.ranks, "kernel", kernel, checks=checks,
        alternatives=found.sets, single_rows=result.single_rows, caveats=SHOWN_CAVEATS,
    )  # fmt: skip


def _mixed(kernel: KernelFacts, masks: BoolArray) -> KernelFacts:
    """The facts with the rows that the masks (m, n) show to be mixed."""
    return replace(kernel, rows=int((masks.any(axis=1) & ~masks.all(axis=1)).sum()))


def _patterns(problem: Problem, descent: Descent) -> tuple[BoolArray | None, ...]:
    kinds = problem.network.activations[descent.layer :]
    return tuple(
        None if kind.kink is None else slopes == 1.0
        for kind, slopes in zip(kinds, descent.slopes, strict=True)
    )


def _listing(separated: Separated) -> Listing | None:
    masks, selection = separated.masks, separated.selection
    if masks is None or masks.pivots is None or selection is None or not selection.decided:
        return None
    return Listing(masks.pivots, selection.excluded)


def _by_size(problem: Problem, candidates: Candidates) -> Candidates:
    """The candidates with the largest share |delta_i| |(h_i, 1)| of the gradient first."""
    delta = problem.layer.cotangents(candidates.masks, candidates.slopes)
    lengths = np.sqrt(np.sum(candidates.features**2, axis=1) + 1.0)
    order = np.argsort(-np.linalg.norm(delta, axis=0) * lengths, kind="stable")
    return replace(
        candidates,
        masks=candidates.masks[:, order],
        slopes=candidates.slopes[order],
        features=candidates.features[order],
        rounded=candidates.rounded[:, order],
        room=candidates.room[:, order],
    )


CAVEATS = (
    "sets of more samples are not excluded: two images that differ by what no neuron sees, with "
    "half the weight each, give the same gradient",
    "samples with one mask and proportional loss slopes are one sample: their average is returned",
    "samples whose loss slope lies below the noise leave no trace",
)


SHOWN_CAVEATS = (
    "the slopes of the loss are free here: a loss that is named ties them to the outputs and may "
    "leave one set",
    "this is no privacy: samples with a mask of their own are the same in both sets, and the "
    "others lie in the affine space of those shown",
)


def _findings(problem: Problem, separated: Separated) -> Findings:
    return Findings(
        problem.ranks, problem.network.depth - 2, separated.examined.facts, separated.masks,
        separated.selection, None, (), None, "", None, separated.examined.interrupted,
        tuple(sorted(problem.known)),
    )  # fmt: skip


def _follow(
    problem: Problem, candidates: Candidates, options: _Options, *, even: bool
) -> tuple[Descent, Bounds]:
    errors = slope_errors(problem.layer, problem.factor, candidates.masks, candidates.slopes)
    cotangents = candidates.slopes @ problem.space.T
    descent = descend(
        problem.network,
        problem.gradient,
        AtTheTop(
            candidates.features,
            cotangents,
            problem.layer.slopes(candidates.masks).T,
            scaled=problem.layer.has_bias,
            accuracy=np.maximum(
                1e-9, 30.0 * relative_noise(problem.factor) + np.minimum(errors, _LOOSE)
            ),
        ),
        exponents=_exponents(problem, options.seed) if even else {},
        open_rows={index: part.dropped for index, part in problem.known.items()},
        budget=options.budget,
    )
    run = problem.network.forward(descent.inputs, descent.layer)
    features = run.inputs[problem.network.depth - 2 - descent.layer]
    return descent, bound_errors(problem.network, problem.factors, descent, features, errors)


def _exponents(problem: Problem, seed: int) -> dict[int, IntArray]:
    """Of the sizes of the rows' errors, by layer."""
    found = {}
    for index in range(problem.network.depth - 1):
        g = problem.gradient.layer(index)
        if g is not None and problem.factor.rank <= min(g.shape):
            found[index] = row_exponents(g, problem.factor.rank, seed=seed)
    return found


def _prove(
    problem: Problem, descent: Descent, masks: BoolArray, degree: int, options: _Options
) -> PrintedProof | None:
    if not options.prove:
        return None
    outputs, q = problem.network.outputs, problem.space.shape[1]
    zero_sum = options.loss == "cross_entropy"
    if q != outputs - int(zero_sum):
        return PrintedProof(None, 0, 0, None, "the output layer does not see all of p")
    return prove_printed(
        problem.network.weights[-1].T,
        descent.cotangents,
        masks,
        problem.layer.leak,
        zero_sum=zero_sum,
        degree=degree,
        budget=options.budget,
    )


def _visible(problem: Problem, descent: Descent, features: FloatArray) -> float:
    """The loss slope |p| below which a typical sample would be lost in the noise."""
    reach = np.linalg.norm(descent.deltas[-1], axis=1) / (
        np.linalg.norm(descent.cotangents, axis=1) + 1e-300
    )
    typical = float(np.median(reach * np.sqrt(np.sum(features**2, axis=1) + 1.0)))
    return problem.factor.error / max(typical, 1e-300)
