"""The verdict rules, in their order: Theorem 4.1 with I-hermite, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.reduction import rank_one
from identify.records import Scope, Verdict
from identify.recovery.assumptions import Assumptions
from identify.recovery.bounds import ErrorBounds
from identify.recovery.measure import Findings
from identify.recovery.samples import Samples
from identify.thresholds import BALANCE_LIMIT, BOUND_LIMIT, NOISE_LIMIT, ROUNDS
from identify.verdict import sentences


@dataclass(frozen=True)
class Outcome:
    """Verdict, reason and scope; `searchable` says that other sets are worth looking for."""

    verdict: Verdict
    reason: str
    scope: Scope | None = None
    searchable: bool = False


def judge(data: HermiteData, given: Assumptions, findings: Findings) -> Outcome:
    """The verdict rules in their order; the first that applies decides."""
    reduced, linear = findings.reduced, findings.linear
    if data.homogeneous and (data.consistency or 0.0) > BALANCE_LIMIT:
        return _undecided(sentences.not_stationary(data.consistency or 0.0))
    if not findings.in_range:
        return _undecided(
            f"at degree {data.degree} the moment tensor of these data leaves the range of float64; "
            "rescale the weights towards norm 1"
        )
    if not data.homogeneous and (data.consistency or 0.0) > NOISE_LIMIT:
        return _undecided(sentences.inconsistent(data, NOISE_LIMIT))
    if reduced is None:
        return _undecided(sentences.too_noisy(findings.noise_level, NOISE_LIMIT))
    if findings.unsettled is not None:
        return _undecided(sentences.unsettled(findings.noise_level, findings.unsettled, ROUNDS))
    if not reduced.span.clear or reduced.dimension == 0 or linear is None:
        return _undecided(sentences.span_unclear(reduced))
    r = reduced.dimension
    if given.samples is not None and given.samples < r:
        return _undecided(
            f"--samples {given.samples} contradicts the data: every set that explains them has "
            f"at least {r} samples"
        )
    if data.homogeneous is False and findings.neurons <= r:
        return _undecided(
            f"the rows of the gradient span {r} dimensions and there are {findings.neurons} "
            "distinct neurons: the batch may be as large as the width or larger, so that samples "
            "outside the span are not excluded",
            searchable=True,
        )
    if linear.determined is None:
        return _undecided(
            "the rank of the Hermite matrix is not clear at noise level "
            f"{findings.noise_level:.1e} ({linear.method})"
        )
    if not linear.determined:
        return _undecided(
            f"I-hermite fails: {findings.neurons} distinct neurons give rank {linear.rank} of the "
            f"{linear.required} that determine the moment tensor on {r} dimensions",
            searchable=True,
        )
    if given.samples is not None and given.samples > r:
        more = (
            "; for a stationary network with linearly independent samples there is no uniqueness"
            if data.homogeneous and r < data.points.shape[1] - int(data.has_bias)
            else ""
        )
        return _undecided(
            f"{given.samples} samples in {r} dimensions are more than the theorem covers{more}",
            searchable=True,
        )
    if not findings.decomposes or findings.samples is None:
        found = findings.decomposition
        best = "none was found" if found is None else f"best residual {found.residual:.1e}"
        return _undecided(
            f"the moment tensor is determined, but no decomposition into {r} independent terms was "
            f"found ({best}): there are more than {r} samples, or nearly parallel ones",
            searchable=True,
        )
    return _judge_set(data, given, findings, findings.samples)


def _judge_set(
    data: HermiteData, given: Assumptions, findings: Findings, found: Samples
) -> Outcome:
    """Rules 1 and 2 for a refined set of r samples."""
    reduced, bounds, tie = findings.reduced, findings.bounds, findings.tie
    assert reduced is not None
    assert bounds is not None
    r = reduced.dimension
    redundancy = findings.redundancy
    assert redundancy is not None
    lone = not data.homogeneous and r == 1 and findings.neurons >= 2 and data.network.dimension >= 2
    if not found.finite:
        return _undecided("a recovered sample is infinite under the assumed scale")
    if findings.second is not None and findings.second.agrees is False:
        return _undecided(sentences.methods_disagree(findings.second))
    left = findings.leftover
    if left is not None and not left.holds:
        plural = "neuron" if left.neurons == 1 else "neurons"
        return _undecided(
            f"{left.neurons} {plural} that the equations leave out, too small or without a part in "
            f"the span, have rows that the recovered samples do not explain ({left.residual:.1e} "
            f"of all rows, more than {left.limit:.1e})"
        )
    if tie is not None and not tie.holds:
        return _undecided(
            f"the assumption fails: {tie.name} differ by {tie.spread:.1e} (logarithm) where the "
            f"error bounds allow {tie.tolerance:.1e}; the true number of samples exceeds {r}, or "
            "the scale is not as assumed"
        )
    if given.non_negative:
        lowest = found.samples.min(axis=1)
        margin = np.nan_to_num(bounds.absolute, nan=0.0)
        if np.any(lowest < -margin - 1e-12):
            return _undecided(
                "the assumption fails: a recovered sample has negative entries "
                f"({float(lowest.min()):.1e}) under --non-negative"
            )
    unclear = 0
    if data.source == "kkt":
        outputs = data.network.value(found.samples)
        if np.any(found.coefficients * outputs <= 0.0):
            count = int(np.count_nonzero(found.coefficients * outputs <= 0.0))
            return _undecided(
                f"{count} of the {r} recovered samples lie on the wrong side of their margin "
                f"(b_i f(x_i) <= 0): the true number of samples exceeds {r}, or the source is "
                "weight decay"
            )
        unclear = _unclear_margins(data, found, bounds, outputs)
    if redundancy < 1 and given.samples != r and not lone:
        return _undecided(
            f"no redundant equation speaks for {sentences.plural(r)}: {r**2} unknowns are "
            f"fitted to {reduced.dimension**2 + redundancy} equations, so the number of samples "
            "itself is open",
            searchable=True,
        )
    hidden = findings.hidden
    if hidden is not None and given.samples != r and hidden.mixtures[0] > given.hidden_share:
        return _undecided(sentences.hidden(hidden, given.hidden_share))
    # The size of a term counts too: where it is open, near-parallel terms trade places.
    both = np.concatenate([bounds.judged, bounds.terms])
    worst = float(np.max(both)) if np.all(np.isfinite(both)) else np.inf
    if not worst < BOUND_LIMIT:
        return _undecided(
            f"the largest error bound of a sample or its term is {worst:.1e}, relative, "
            f"above {BOUND_LIMIT}"
            if np.isfinite(worst)
            else f"a sample has no error bound ({bounds.method})"
        )
    if unclear:
        return _undecided(
            f"{unclear} of the {r} recovered samples have a margin that is not separated from 0 "
            "within the error bounds: on which side they lie is open"
        )
    support = sentences.support(redundancy, given.samples, r, lone)
    return Outcome(
        Verdict.GLOBALLY,
        f"the moment tensor is determined on {r} dimensions, is a sum of {r} independent terms, "
        f"and {support}",
        Scope("at_most", r),
    )


def has_candidates(data: HermiteData, findings: Findings, outcome: Outcome) -> bool:
    """Whether samples are at hand though nothing is decided.

    A refined set with redundant equations fits to the noise, or the rows of a gradient or of a
    movement are all parallel: then they are the sample, whatever the activation.
    """
    if outcome.verdict is not Verdict.UNDECIDED:
        return False
    if findings.decomposes and (findings.redundancy or 0) >= 1:
        return True
    tolerance = min(max(10.0 * data.rounding, 1e-12), NOISE_LIMIT)
    return not data.homogeneous and rank_one(data, tolerance)


def is_covered(data: HermiteData) -> bool:
    """Whether the identity between the layers holds that every network of the source obeys."""
    limit = BALANCE_LIMIT if data.homogeneous else NOISE_LIMIT
    return (data.consistency or 0.0) <= limit


def _unclear_margins(
    data: HermiteData, found: Samples, bounds: ErrorBounds, outputs: FloatArray
) -> int:
    """Samples whose f(x_i) is not separated from 0: |grad f| |dx_i| and the network's own error."""
    network = data.network
    lifted = network.lift(found.samples)
    inner = lifted @ network.points.T
    slopes = (data.degree * network.output_weight * inner ** (data.degree - 1)) @ network.points
    if not data.has_bias:
        # The length of a sample does not change the sign.
        units = lifted / np.linalg.norm(lifted, axis=1)[:, None]
        slopes = slopes - np.sum(slopes * units, axis=1)[:, None] * units
    error = np.linalg.norm(slopes, axis=1) * bounds.absolute
    if bounds.outputs is not None:
        error = error + bounds.outputs * np.abs(outputs)
    return int(np.count_nonzero(~(error < np.abs(outputs))))


def _undecided(reason: str, searchable: bool = False) -> Outcome:
    return Outcome(Verdict.UNDECIDED, reason, None, searchable)
