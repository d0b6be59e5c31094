"""What speaks for a recovered set: equations that are left over."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.alternatives.equations import SetEquations
from identify.arrays import FloatArray
from identify.hermite.reduction import reduce_data
from identify.interpolation.interpolate import interpolate
from identify.recovery import stages
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.tensors import symmetric_dimension
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.planes import coplanar_data
from proofs_check.statements.uniqueness.recovery import DETERMINED, INDEPENDENT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

TERRACINI = "Terracini 1911 (tangent spaces of sums of powers)"


# --- the count ---------------------------------------------------------------------------------


def redundant_equations(instance: Explained) -> tuple[int, int, int] | None:
    """Rank H less the rank of the equations' derivative in the samples, with N and r.

    None where a rank is not clear.
    """
    found = base.hermite_rank(instance.data)
    if found is None:
        return None
    reduced = reduce_data(instance.data, base.NOISE)
    terms, signs = base.true_terms(instance, reduced)
    sizes = np.linalg.norm(terms, axis=1).repeat(terms.shape[1])
    jacobian = SetEquations(instance.data, reduced, "free").jacobian(terms[None], signs[None])[0]
    # Entries are rounded once or twice: what is rounding lies near 1e-16.
    rank = base.clear_rank(np.linalg.svd(jacobian * sizes, compute_uv=False), 1e-14)
    return None if rank is None else (found[0] - rank, found[1], found[2])


def _is_clear(instance: Explained) -> bool:
    """Whether every rank that is counted is clear; other instances are not drawn."""
    return redundant_equations(instance) is not None


def _count(instance: Explained) -> Check:
    """By the derivative of the equations, and as a report counts them."""
    found = redundant_equations(instance)
    if found is None:
        return Check.of(False, "a rank is not clear")
    left, _, r = found
    expected = symmetric_dimension(instance.data.degree, r) - r * r
    none = r == 1 or (r == 2 and instance.data.degree == 3)
    if left != expected or (left == 0) != none:
        return Check.of(False, f"{left} by the derivative, expected {expected}")
    given = Assumptions(scale="free")
    shown = stages.redundant_equations(measure(instance.data, given, seed=instance.seed))
    return Check.of(shown == expected, f"{shown} in a report, expected {expected}")


def _count_symmetric(instance: Explained) -> Check:
    """The count for symmetric unknowns, r (r + 1)/2 in place of r^2."""
    found = redundant_equations(instance)
    if found is None:
        return Check.of(False, "a rank is not clear")
    left, required, r = found
    symmetric = required - r * (r + 1) // 2
    return Check.of(left == symmetric, f"{left}, not {symmetric}")


def _count_algebra() -> bool:
    """The tangent space at e_1, ..., e_r is spanned by the monomials x_i^(alpha-1) x_k."""
    for degree in range(3, 9):
        for r in range(1, 9):
            distinct = {tuple(sorted([i] * (degree - 1) + [k])) for i in range(r) for k in range(r)}
            spare = symmetric_dimension(degree, r) - r * r
            none = r == 1 or (degree == 3 and r == 2)
            if len(distinct) != r * r or (spare == 0) != none or spare < 0:
                return False
    return True


def _one_term_short() -> AbstractContextManager[object]:
    """Derivatives of the equations without those in the last term."""
    original = SetEquations.jacobian

    def broken(self: SetEquations, terms: FloatArray, signs: FloatArray) -> FloatArray:
        found = original(self, terms, signs)
        found[:, :, -terms.shape[2] :] = 0.0
        return found

    return patch.object(SetEquations, "jacobian", broken)


def _one_more() -> AbstractContextManager[object]:
    """Interpolation of which the rank is too large by one."""
    import identify.recovery.measure as module

    original = interpolate

    def broken(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        return replace(found, rank=found.rank + 1)

    return patch.object(module, "interpolate", broken)


def _overfull() -> SearchStrategy[Explained]:
    """Samples of a plane and one more, at degrees 3 and 4."""
    from hypothesis import strategies as st

    drawn = st.builds(coplanar_data, st.just(3), st.integers(0, 2), st.just(4), st.integers(0, 255))
    return drawn.filter(_is_clear)


def _narrow() -> SearchStrategy[Explained]:
    def widths(degree: int, count: int) -> tuple[int, int]:
        return count, max(count, base.neurons_needed(degree, count) - 1)

    drawn = base.gradients(counts=(2, 4), kinds=("generic", "orthonormal"), width=widths)
    return drawn.filter(_is_clear)


REDUNDANCY = Statement(
    name="redundancy-count",
    title="Redundant equations for r samples",
    sentence=(
        "With I-hermite and independent samples N - r^2 Hermite equations are left over: none "
        "for r = 1, none for r = 2 at degree 3, and at least one in every other case."
    ),
    formula=r"\mathrm{rank}\,H - \mathrm{rank}\,\partial(H T)/\partial(b, x) = "
    r"\tbinom{r+\alpha-1}{\alpha} - r^2",
    source=TERRACINI + "; ours for the count",
    hypotheses=(
        Hypothesis("I-hermite", DETERMINED, base.is_determined, _narrow),
        Hypothesis("independent", INDEPENDENT, base.is_independent, _overfull),
    ),
    instances=lambda: base.gradients(counts=(1, 4)).filter(_is_clear),
    conclusion=_count,
    sabotages=(
        Sabotage("symmetric", "r (r + 1)/2 unknowns", conclusion=_count_symmetric),
        Sabotage("derivative", "a term not differentiated", implementation=_one_term_short),
        Sabotage("rank", "a report that counts one equation more", implementation=_one_more),
    ),
    cost="medium",
    algebra=_count_algebra,
    algebra_note=(
        "distinct monomials at unit vectors for degrees 3 to 8, r <= 8; all independent samples "
        "by a change of coordinates"
    ),
    code=("identify.recovery.stages.redundant_equations",),
    remark="Without I-hermite the count is rank H - r^2, which may be negative.",
)


STATEMENTS = (REDUNDANCY,)
