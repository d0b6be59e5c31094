"""The conditions of a report: their list, their numbers, and whether their evidence exists."""

from __future__ import annotations

from collections.abc import Mapping

from .case import Case
from .leftover import leftover
from .levels import EXACT, INTERVAL, NUMERICAL, enclosed, rank_evidence, stable, tied
from .outcome import FLOAT, Claim, NotCheckableError, require
from .reading.report import COMPLETE, Row
from .rows import CHECKS, fits_range
from .terms import is_finite
from .ties import tie_expected

_FREE = ("I-flat", "I-value", "stable rank", "first-order bounds", "enclosure")
"""What no verdict needs."""
_CHEAP = 8
"""Samples up to which a second method is tried."""
_SEARCHED = ("neurons", "I-hermite", "number covered", "decomposition", "redundancy")
"""What has other sets looked for where it is the first to fail."""


def check_conditions(case: Case, claims: Mapping[str, Claim]) -> tuple[str, str]:
    """Every row has the numbers that follow from the files, and the evidence that exists."""
    rows = {row.name: row for row in case.report.rows}
    require(len(rows) == len(case.report.rows), "a condition is listed twice")
    unknown = [name for name in rows if name not in CHECKS]
    open_rows = [f"no condition {name} is known"[:80] for name in unknown]
    known = [row for name, row in rows.items() if name in CHECKS]
    says_needed = [row.needed is not None for row in rows.values()]
    complete = case.certificate.format >= COMPLETE or any(says_needed)
    require(
        all(says_needed) or not complete,
        "the conditions have to say whether they are needed, each of them",
    )
    _check_order(known, complete=complete)
    missing = [name for name in _expected(case, complete=complete) if name not in rows]
    require(not missing, f"there is no condition {', '.join(missing)}")
    require(
        ("error bounds" in rows) == (case.report.bounds is not None),
        "there are bounds without their condition, or a condition without bounds",
    )
    if complete:
        _check_decision(case, known)
    else:
        _check_earlier(case, rows)
    if complete and case.certificate.format < COMPLETE:
        case.not_checked["certificate.format"] = None
    tried = case.report.verdict == "globally" and 2 <= case.r <= _CHEAP
    if tried and "second method" not in rows:
        # It is not repeated here: nobody can tell whether it was tried.
        case.not_checked["conditions.second method"] = None
    weighed = case.r >= 2 or not case.data.homogeneous
    if case.report.verdict == "globally" and weighed and "hidden share" not in rows:
        open_rows.append("hidden share: the report does not weigh its redundant equations")
    for row in known:
        try:
            CHECKS[row.name](case, row)
        except NotCheckableError as error:
            open_rows.append(f"{row.name}: {error}")
    for row in known:
        _check_evidence(case, row, claims)
    if open_rows:
        raise NotCheckableError("; ".join(open_rows))
    return FLOAT, f"{len(rows)} conditions, with the evidence that exists"


def _check_order(rows: list[Row], *, complete: bool) -> None:
    order = list(CHECKS)
    if not complete:
        # Reports of earlier versions list the tie behind what it speaks for.
        order.remove("tie")
        order.insert(order.index("error bounds"), "tie")
    places = [order.index(row.name) for row in rows]
    require(places == sorted(places), "the conditions are not in their order")


def _expected(case: Case, *, complete: bool) -> list[str]:
    """The conditions that the report has to list; `complete` ones list all that decide."""
    data, certificate, assumed = case.data, case.certificate, case.certificate.assumed
    recovered = case.report.bounds is not None
    names = ["span", "I-hermite", "I-flat", "I-value", "decomposition"]
    names += ["balance" if data.homogeneous else "consistency"] * (not data.filled)
    if recovered:
        names += ["redundancy", "error bounds"]
    if case.report.verdict == "globally":
        names += ["stable rank"] * (certificate.singular is not None)
        names += ["enclosure"] * (certificate.enclosure is not None)
        names += ["tie"] * tie_expected(case)
        names += ["leftover"] * (leftover(case) is not None)
        if complete:
            names += ["first-order bounds"] * (certificate.singular is not None)
            names += ["agreement"] * (not certificate.rank is certificate.singular is None)
    if complete:
        names += ["range", "noise level", "settled noise"]
        names += ["neurons"] * (not data.homogeneous)
        names += ["number possible", "number covered"] * (assumed.samples is not None)
    if complete and recovered:
        names += ["finite samples", *["non-negative"] * assumed.non_negative]
        names += ["right side", "separate margins"] * (data.source == "kkt")
    return names


def _check_decision(case: Case, rows: list[Row]) -> None:
    """The verdict is the one that the needed conditions make."""
    failing = []
    for row in rows:
        silent = row.name == "second method" and row.holds is None
        needed = row.name not in _FREE and not silent
        require(row.needed is needed, f"{row.name}: whether it is needed is wrong")
        failing += [row.name] * (needed and row.holds is not True)
    if case.report.verdict == "globally":
        require(not failing, f"{', '.join(failing)}: it is not said to hold")
    else:
        found = failing[:1]
        require(bool(found) and found[0] in _SEARCHED, "no condition has other sets looked for")


def _check_earlier(case: Case, rows: Mapping[str, Row]) -> None:
    """Earlier reports do not say what is needed; a lone sample had no redundancy to hold."""
    if case.report.verdict != "globally":
        return
    # What they do not list has to hold as well; all else is a claim of its own.
    require(fits_range(case), "range: rows or weights leave the range of float64")
    require(is_finite(case), "finite samples: a sample is infinite under the assumed scale")
    for name in [*_expected(case, complete=False), "hidden share"]:
        if name not in (*_FREE, "redundancy") and name in rows:
            require(rows[name].holds is True, f"{name}: it is not said to hold")


def _check_evidence(case: Case, row: Row, claims: Mapping[str, Claim]) -> None:
    """The word of a row is that of the proof in the certificate, and no more."""
    by_rank = rank_evidence(case)
    by_box = INTERVAL if enclosed(case) else NUMERICAL
    expected = {
        "I-hermite": by_rank,
        "redundancy": NUMERICAL if tied(case) else by_rank,
        "decomposition": by_box,
        "enclosure": by_box,
        "stable rank": INTERVAL if stable(case) else NUMERICAL,
    }.get(row.name, NUMERICAL)
    require(row.evidence == expected, f"{row.name}: {row.evidence}, where {expected} is shown")
    proofs = {
        "I-hermite": "rank" if by_rank == EXACT else "singular value",
        "stable rank": "singular value",
        "decomposition": "enclosure",
        "enclosure": "enclosure",
    }
    proof = proofs.get(row.name)
    if row.evidence != NUMERICAL and proof is not None and not claims[proof].holds:
        raise NotCheckableError(f"{row.name}: its proof is {claims[proof].outcome}")
