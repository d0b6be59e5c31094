"""The verdict rules, in their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify import wording
from identify.hermite import HermiteData
from identify.measure import BALANCE_LIMIT, NOISE_LIMIT, Assumptions, Findings
from identify.prove import Proofs
from identify.results import Condition, Evidence, Residual, Scope, Verdict
from identify.samples import Samples

BOUND_LIMIT = 0.1


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
        return _undecided(wording.not_stationary(data.consistency or 0.0))
    if reduced is None:
        return _undecided(wording.too_noisy(findings.noise_level, NOISE_LIMIT))
    if not reduced.span.clear or reduced.dimension == 0 or linear is None:
        return _undecided(wording.span_unclear(reduced))
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
            f"the moment tensor is determined but is not a sum of {r} independent terms ({best}): "
            f"the true number of samples exceeds {r}",
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
        margin = np.nan_to_num(bounds.samples, nan=0.0) * np.linalg.norm(found.samples, axis=1)
        if np.any(lowest < -margin - 1e-12):
            return _undecided(
                "the assumption fails: a recovered sample has negative entries "
                f"({float(lowest.min()):.1e}) under --non-negative"
            )
    if data.source == "kkt":
        outputs = data.network.value(found.samples)
        if np.any(found.coefficients * outputs <= 0.0):
            count = int(np.count_nonzero(found.coefficients * outputs <= 0.0))
            return _undecided(
                f"{count} of the {r} recovered samples lie on the wrong side of their margin "
                f"(b_i f(x_i) <= 0): the true number of samples exceeds {r}, or the source is "
                "weight decay"
            )
    if redundancy < 1 and given.samples != r and not lone:
        return _undecided(
            f"no redundant equation speaks for {wording.plural(r)}: {r**2} unknowns are "
            f"fitted to {reduced.dimension**2 + redundancy} equations, so the number of samples "
            "itself is open",
            searchable=True,
        )
    # The size of a term counts too: where it is open, near-parallel terms trade places.
    both = np.concatenate([bounds.samples, bounds.terms])
    worst = float(np.max(both)) if np.all(np.isfinite(both)) else np.inf
    if not worst < BOUND_LIMIT:
        return _undecided(
            f"the largest error bound of a sample or its coefficient is {worst:.1e}, relative, "
            f"above {BOUND_LIMIT}"
            if np.isfinite(worst)
            else f"a sample has no error bound ({bounds.method})"
        )
    support = wording.support(redundancy, given.samples, r, lone)
    return Outcome(
        Verdict.GLOBALLY,
        f"the moment tensor is determined on {r} dimensions, is a sum of {r} independent terms, "
        f"and {support}",
        Scope("at_most", r),
    )


def _undecided(reason: str, searchable: bool = False) -> Outcome:
    return Outcome(Verdict.UNDECIDED, reason, None, searchable)


def conditions(
    data: HermiteData, given: Assumptions, findings: Findings, proofs: Proofs | None = None
) -> tuple[Condition, ...]:
    """Every condition that was looked at, with what was required and found, and the evidence."""
    by_rank, by_box = _evidence(proofs)
    rows: list[Condition] = []
    rho, reduced, linear = findings.noise_level, findings.reduced, findings.linear
    if data.homogeneous:
        balance = data.consistency or 0.0
        rows.append(
            Condition(
                "balance",
                balance <= BALANCE_LIMIT,
                BALANCE_LIMIT,
                balance,
                source="|w_j|^2 = alpha a_j^2 at a stationary point",
            )
        )
    elif data.consistency is not None:
        rows.append(
            Condition(
                "consistency",
                data.consistency <= NOISE_LIMIT,
                NOISE_LIMIT,
                data.consistency,
                source="Euler's identity between the two layers",
            )
        )
    if reduced is None:
        return tuple(rows)
    gap = reduced.span
    ratio = None
    if gap.largest_uncounted:
        ratio = gap.smallest / gap.largest_uncounted
    rows.append(
        Condition("span", gap.clear, 100.0, ratio, source="gap in the singular values of the rows")
    )
    if linear is None:
        return tuple(rows)
    rows.append(
        Condition(
            "I-hermite",
            linear.determined,
            linear.required,
            linear.rank,
            by_rank,
            source="rank of the Hermite matrix, " + linear.method,
        )
    )
    for name, (needed, rank), meaning in (
        ("I-flat", linear.flat, "points to the power alpha - 1 span"),
        ("I-value", linear.value, "points to the power alpha span"),
    ):
        holds = None if rank is None else rank >= needed
        rows.append(Condition(name, holds, needed, rank, source=meaning + "; not required"))
    found = findings.decomposition
    rows.append(
        Condition(
            "decomposition",
            findings.decomposes if found is not None else None,
            10.0 * rho,
            None if found is None else found.residual,
            by_box,
            source=f"residual of {reduced.dimension} refined terms; independent terms "
            "are unique (Kruskal 1977)",
        )
    )
    if findings.leftover is not None:
        left = findings.leftover
        rows.append(
            Condition(
                "leftover",
                left.holds,
                left.limit,
                left.residual,
                source=f"rows of {left.neurons} neurons that the equations leave out, as the "
                "recovered samples explain them",
            )
        )
    redundancy = findings.redundancy
    if found is not None and redundancy is not None:
        rows.append(
            Condition(
                "redundancy",
                redundancy >= 1 or given.samples == reduced.dimension,
                1,
                redundancy,
                by_rank if findings.tie is None else Evidence.NUMERICAL,
                source="rank H - r^2 + ties, or the number of samples given",
            )
        )
    if findings.tie is not None:
        tie = findings.tie
        rows.append(Condition("tie", tie.holds, tie.tolerance, tie.spread, source=tie.name))
    if findings.bounds is not None:
        worst = float(np.max([findings.bounds.samples, findings.bounds.terms]))
        rows.append(
            Condition(
                "error bounds",
                bool(worst < BOUND_LIMIT) if np.isfinite(worst) else None,
                BOUND_LIMIT,
                worst if np.isfinite(worst) else None,
                source=findings.bounds.method,
            )
        )
    return tuple(rows + _proved(proofs))


def _evidence(proofs: Proofs | None) -> tuple[Evidence, Evidence]:
    """Evidence for the rank and for the decomposition."""
    if proofs is None:
        return Evidence.NUMERICAL, Evidence.NUMERICAL
    box = Evidence.PROVED_INTERVAL if proofs.enclosed else Evidence.NUMERICAL
    return proofs.rank_evidence, box


def _proved(proofs: Proofs | None) -> list[Condition]:
    """Conditions that only proofs look at."""
    rows: list[Condition] = []
    if proofs is None:
        return rows
    smallest, box = proofs.singular, proofs.enclosure
    if smallest is not None:
        rows.append(
            Condition(
                "stable rank",
                proofs.stable or None,
                proofs.tolerance,
                smallest.radius,
                Evidence.PROVED_INTERVAL if proofs.stable else Evidence.NUMERICAL,
                "distance that every unit point may move without loss of rank, from the proved "
                f"sigma_min(H) >= {smallest.bound:.3g}",
            )
        )
    if proofs.movement is not None:
        worst = float(np.max(proofs.movement))
        rows.append(
            Condition(
                "first-order bounds",
                bool(worst < BOUND_LIMIT) if np.isfinite(worst) else None,
                BOUND_LIMIT,
                worst if np.isfinite(worst) else None,
                source="largest movement of a term, from the proved sigma_min(H) and the "
                "conditioning of the decomposition in float64",
            )
        )
    if box is not None:
        rows.append(
            Condition(
                "enclosure",
                True if proofs.enclosed else None,
                BOUND_LIMIT,
                float(np.max(box.relative)) if proofs.enclosed else None,
                Evidence.PROVED_INTERVAL if proofs.enclosed else Evidence.NUMERICAL,
                "relative size of the box with exactly one solution for all data within "
                f"{box.radius:.1e}"
                if proofs.enclosed
                else box.reason,
            )
        )
    return rows


def residuals(data: HermiteData, findings: Findings) -> dict[str, Residual]:
    """Relative residuals with the number of equations that could have failed."""
    reduced, linear, found = findings.reduced, findings.linear, findings.decomposition
    checks = data.network.width if data.consistency is not None else 0
    result = {"balance": Residual(data.consistency, checks)}
    off = 0 if reduced is None else data.network.width * (data.points.shape[1] - reduced.dimension)
    result["off_span"] = Residual(reduced.off_span if reduced is not None and off else None, off)
    spare = 0 if linear is None else linear.redundant
    result["linear"] = Residual(findings.linear_residual if spare else None, spare)
    left = 0
    if reduced is not None and found is not None:
        left = max(0, reduced.equations - found.terms.size)
    result["samples"] = Residual(found.residual if found is not None and left else None, left)
    return result
