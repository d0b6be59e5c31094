"""What one more sample could hide from the equations: how much redundancy weighs."""

from __future__ import annotations

import numpy as np

from .bounds import weighted_jacobian
from .case import Case
from .outcome import FloatArray, NotCheckableError, agrees, check_possible, finite, require
from .reading.report import Row
from .second_sample import lone_median
from .terms import samples_of, sorted_terms
from .ties import tie_equations, tie_slopes

HIDDEN_SHARE = 0.1
"""The share that is asked for unless the report says otherwise."""
# Above the first two the report has an upper estimate.
_SAME_UNKNOWNS, _SAME_NUMBERS = 600, 12_000_000
_UNKNOWNS, _NUMBERS = 1100, 30_000_000
_DRAWS, _SEED = 384, 5
_AGREEMENT = 0.02
_WIDE = 1.6
"""The same factor where widths of ties or fewer directions enter."""


def median_share(case: Case) -> float:
    """Median over mixtures x of the samples of 10 rho |phi(x)| / |(I - P) phi(x)|, at most 1.

    phi(x) = (w_j (p_j.x)^(alpha-1) x)_j is the weighted data of a sample, P the projection to the
    range of the Jacobian; where only ties speak for the number of samples they are equations too.
    Next to a lone sample the further one is sought in the whole space.
    """
    return case.keep("hidden share", lambda: _median(case))


def _median(case: Case) -> float:
    merged, r = case.merged, case.r
    unknowns = r * r
    if r == 1:
        return lone_median(case)
    check_possible(
        unknowns <= _UNKNOWNS and merged.equations * unknowns <= _NUMBERS,
        f"{unknowns} unknowns are too many to say what a further sample could hide",
    )
    case.in_time()
    terms, signs = sorted_terms(case)
    matrix = weighted_jacobian(case)
    level = 10.0 * case.noise
    if _tied(case):
        matrix = np.vstack([matrix, level * merged.size * tie_slopes(case, terms, signs)])
    matrix = matrix / np.linalg.norm(matrix, axis=0)
    left, sigma, _ = np.linalg.svd(finite(matrix), full_matrices=False)
    left = left[:, sigma > 1e-13 * sigma[0]]
    # The samples come sorted; the weights are for the order of the certificate.
    known = np.empty((r, r))
    order = np.argsort(-np.linalg.norm(case.terms[0], axis=1), kind="stable")
    known[order] = case.data.lift(samples_of(case).samples) @ case.basis
    mixtures = np.random.default_rng(_SEED).dirichlet(np.ones(r), _DRAWS) @ known
    mixtures /= np.linalg.norm(mixtures, axis=1)[:, None]
    shares: list[FloatArray] = []
    for start in range(0, _DRAWS, 100):
        rows = _data_of(case, mixtures[start : start + 100])
        sizes = np.linalg.norm(rows, axis=1)
        rows = np.column_stack([rows, np.zeros((len(rows), len(matrix) - rows.shape[1]))])
        seen = np.linalg.norm(rows - (rows @ left) @ left.T, axis=1) / sizes
        shares.append(np.minimum(level / np.maximum(seen, 1e-12), 1.0))
    return float(np.median(np.concatenate(shares)))


def _data_of(case: Case, directions: FloatArray) -> FloatArray:
    """phi(x) of every direction, one row each."""
    merged, power = case.merged, case.degree - 1
    rows = []
    for x in directions:
        heights = merged.weights * (merged.points @ x) ** power
        values = merged.value_weights * (merged.value_points @ x) ** case.degree
        rows.append(np.concatenate([np.outer(heights, x).ravel(), values]))
    return np.array(rows)


def check_hidden_share(case: Case, row: Row) -> None:
    """The row states the share that a further sample could have unseen, and judges it rightly."""
    if row.required is None or row.found is None:
        raise NotCheckableError("the report has no numbers for it")
    require(0.0 < row.required <= 1.0, f"hidden share: required {row.required}")
    given = case.certificate.assumed.samples == case.r
    holds = row.found <= row.required or given
    require(row.holds is holds, "hidden share: holds is wrong")
    check_possible(case.certificate.terms is not None, "there are no terms")
    own, unknowns = median_share(case), case.r**2
    words = f"hidden share: it is {own:.3g}, not {row.found:.3g}"
    if _tied(case):
        # Widths of ties are rounding errors where the share is far below what matters.
        far = max(own, row.found) <= 0.01 * row.required
        require(far or own / _WIDE <= row.found <= own * _WIDE, words)
    elif unknowns <= _SAME_UNKNOWNS and case.merged.equations * unknowns <= _SAME_NUMBERS:
        require(agrees(row.found, own, _AGREEMENT, 0.0), words)
    else:
        require(row.found >= own / _WIDE, words)


def _tied(case: Case) -> bool:
    """Whether ties, and no equation of the tensor, are what speaks for the number."""
    return (case.report.rank or 0) <= case.r**2 and tie_equations(case) > 0
