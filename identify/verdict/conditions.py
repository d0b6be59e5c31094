"""The condition rows of a report: required, found, holds, evidence."""

from __future__ import annotations

import numpy as np

from identify.hermite.data import HermiteData
from identify.proofs.prove import Proofs
from identify.records import Condition, Evidence, Residual
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import BALANCE_LIMIT, NOISE_LIMIT, Findings
from identify.verdict.rules import BOUND_LIMIT
from identify.verdict.sentences import hidden_quantiles


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
    if findings.second is not None:
        second = findings.second
        rows.append(
            Condition(
                "second method",
                second.agrees,
                second.allowed,
                second.distance,
                source="distance of the terms that tensorly's CP found, over their norms"
                if second.agrees is not None
                else "no start of tensorly's CP ended in terms that fit: it says nothing",
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
                Evidence.NUMERICAL if proofs is None else proofs.number_evidence,
                source="count: rank H - r^2 + ties, or the number of samples given",
            )
        )
    if found is not None and findings.hidden is not None:
        share = findings.hidden.mixtures[0]
        rows.append(
            Condition(
                "hidden share",
                share <= given.hidden_share or given.samples == reduced.dimension,
                given.hidden_share,
                share,
                source="part of the data that a further sample could carry unseen, median: "
                + hidden_quantiles(findings.hidden, data.degree)
                + f" ({findings.hidden.method})",
            )
        )
    if findings.tie is not None:
        tie = findings.tie
        count = int(tie.classes.max()) + 1
        seen = f"{tie.name}; the neurons tell {count} of {len(tie.classes)} samples apart"
        if tie.factor:
            seen += "; the common factor is the known one"
        rows.append(Condition("tie", tie.holds, tie.tolerance, tie.spread, source=seen))
    if findings.bounds is not None:
        worst = float(np.max([findings.bounds.judged, findings.bounds.terms]))
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
    return proofs.rank_evidence, proofs.sample_evidence


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
                proofs.largest if proofs.enclosed else None,
                Evidence.PROVED_INTERVAL if proofs.enclosed else Evidence.NUMERICAL,
                "relative size of the box with exactly one solution for all data within "
                f"{box.radius:.1e}"
                if proofs.enclosed
                else _unenclosed(proofs, box.reason),
            )
        )
    return rows


def _unenclosed(proofs: Proofs, reason: str) -> str:
    """Why an enclosure does not count."""
    if proofs.sizes is not None and not np.all(np.isfinite(proofs.sizes)):
        return "f is not separated from 0 over the box of a term, so that no length is proved"
    return reason


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
