"""Rows that only proofs give, and the rules that let proofs decide."""

from __future__ import annotations

import numpy as np

from identify.proofs.prove import Proofs
from identify.records import Evidence
from identify.recovery.stages import Recovered
from identify.thresholds import BOUND_LIMIT
from identify.verdict import sentences
from identify.verdict.rule import Finding, Grounds


def stable_rank(at: Grounds[Recovered]) -> Finding | None:
    """How far the points may move."""
    proofs = at.proofs
    if proofs is None or proofs.singular is None:
        return None
    return Finding(
        proofs.stable or None,
        proofs.tolerance,
        proofs.singular.radius,
        "distance that every unit point may move without loss of rank, from the proved "
        f"sigma_min(H) >= {proofs.singular.bound:.3g}",
        Evidence.PROVED_INTERVAL if proofs.stable else Evidence.NUMERICAL,
        needed=False,
    )


def first_order_bounds(at: Grounds[Recovered]) -> Finding | None:
    """How far the terms may move, to first order."""
    if at.proofs is None or at.proofs.movement is None:
        return None
    worst = float(np.max(at.proofs.movement))
    known = bool(np.isfinite(worst))
    return Finding(
        worst < BOUND_LIMIT if known else None,
        BOUND_LIMIT,
        worst if known else None,
        "largest movement of a term, from the proved sigma_min(H) and the conditioning of the "
        "decomposition in float64",
        needed=False,
    )


def enclosure(at: Grounds[Recovered]) -> Finding | None:
    """A box with exactly one solution."""
    proofs = at.proofs
    if proofs is None or proofs.enclosure is None:
        return None
    if not proofs.enclosed:
        source = _unenclosed(proofs, proofs.enclosure.reason)
        return Finding(None, BOUND_LIMIT, None, source, needed=False)
    return Finding(
        True,
        BOUND_LIMIT,
        proofs.largest,
        "relative size of the box with exactly one solution for all data within "
        f"{proofs.enclosure.radius:.1e}",
        Evidence.PROVED_INTERVAL,
        needed=False,
    )


def _unenclosed(proofs: Proofs, reason: str) -> str:
    """Why an enclosure does not count."""
    if proofs.sizes is not None and not np.all(np.isfinite(proofs.sizes)):
        return "f is not separated from 0 over the box of a term, so that no length is proved"
    return reason


def agreement(at: Grounds[Recovered]) -> Finding | None:
    """No proof contradicts the numbers."""
    if at.proofs is None:
        return None
    conflict = at.proofs.conflict
    return Finding(
        conflict is None,
        source="no proof contradicts the numerical evidence",
        sentence=f"numerical evidence and proof disagree: {conflict}",
    )


def asked_evidence(at: Grounds[Recovered]) -> Finding | None:
    """The level of evidence that was asked for."""
    if at.proofs is None or at.asked not in ("exact", "interval"):
        return None
    missing = "; ".join(at.proofs.strengthen) or "a condition is numerical"
    unique = sentences.unique(at.stage, at.given.samples)
    return Finding(
        at.proofs.reaches(at.asked),
        source=f"the evidence that --evidence {at.asked} asks for",
        sentence=f"--evidence {at.asked} is not reached: {missing}. By numerical evidence alone it "
        f"would be globally: {unique}",
    )
