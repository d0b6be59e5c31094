"""How what a verdict rests on is established, by what the certificate holds."""

from __future__ import annotations

import numpy as np

from .bounds import BOUND_LIMIT
from .case import Case
from .lengths import sample_size
from .premises import lone_sample
from .roundings import moved_points
from .ties import tie_equations

EXACT, INTERVAL, NUMERICAL = "proved_exact", "proved_interval", "numerical"


def rank_evidence(case: Case) -> str:
    """How the rank is established by what the certificate holds."""
    certificate = case.certificate
    if certificate.rank is not None:
        return EXACT
    if certificate.singular is not None and stable(case):
        return INTERVAL
    return NUMERICAL


def overall_evidence(case: Case) -> str:
    """The weakest evidence for the rank, the samples and their number."""
    if case.report.verdict != "globally":
        return NUMERICAL
    samples = INTERVAL if enclosed(case) else NUMERICAL
    number = NUMERICAL if tied(case) else rank_evidence(case)
    return max(rank_evidence(case), samples, number, key=(EXACT, INTERVAL, NUMERICAL).index)


def tied(case: Case) -> bool:
    """Whether nothing but a tie, a numerical finding, speaks for the number of samples."""
    if case.report.rank is None or case.report.rank - case.r**2 >= 1:
        return False
    if case.certificate.assumed.samples == case.r or lone_sample(case):
        return False
    return tie_equations(case) > 0


def enclosed(case: Case) -> bool:
    """Whether there is an enclosure that is small enough to be of use."""
    return case.certificate.enclosure is not None and box_size(case) < BOUND_LIMIT


def box_size(case: Case) -> float:
    """The largest relative size of a box, of a term or of the sample that it stands for."""
    box = case.certificate.enclosure
    if box is None:
        return float(np.inf)
    own = float(box.relative.max())
    if case.certificate.assumed.scale != "margin" or case.certificate.assumed.arithmetic is None:
        return own
    return max(own, case.keep("sizes", lambda: sample_size(case, box)))


def stable(case: Case) -> bool:
    """Whether points as far off as they may be are proved to have full rank."""
    singular = case.certificate.singular
    return singular is not None and singular[2] >= tolerance(case) * (1.0 - 1e-9)


def tolerance(case: Case) -> float:
    """How far the points may be off: by the noise, their own rounding, or that of the integers."""
    singular = case.certificate.singular
    moved = moved_points(case, len(case.neurons) if singular is None else singular[1])
    return max(case.noise, moved, float(2.0**-case.shift * np.sqrt(case.r)))
