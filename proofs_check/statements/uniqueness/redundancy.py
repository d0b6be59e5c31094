"""What speaks for a recovered set: redundant equations and ties."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.alternatives.equations import SetEquations
from identify.arrays import FloatArray
from identify.hermite.reduction import reduce_data
from identify.recovery import samples
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.tensors import symmetric_dimension
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt import balance as kkt
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.recovery import DETERMINED, INDEPENDENT, coplanar_data
from proofs_check.strategies import StationaryPoint, draw_samples

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


def _count(instance: Explained) -> Check:
    found = redundant_equations(instance)
    if found is None:
        return Check.of(True, "a rank is not clear")
    left, _, r = found
    expected = symmetric_dimension(instance.data.degree, r) - r * r
    none = r == 1 or (r == 2 and instance.data.degree == 3)
    return Check.of(left == expected and (left == 0) == none, f"{left}, expected {expected}")


def _count_symmetric(instance: Explained) -> Check:
    """The count for symmetric unknowns, r (r + 1)/2 in place of r^2."""
    found = redundant_equations(instance)
    if found is None:
        return Check.of(True)
    left, required, r = found
    return Check.of(left == required - r * (r + 1) // 2)


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


def _overfull() -> SearchStrategy[Explained]:
    """Samples of a plane and one more, at degrees 3 and 4."""
    from hypothesis import strategies as st

    return st.builds(coplanar_data, st.just(3), st.integers(0, 2), st.just(4), st.integers(0, 255))


def _narrow() -> SearchStrategy[Explained]:
    def widths(degree: int, count: int) -> tuple[int, int]:
        return count, max(count, base.neurons_needed(degree, count) - 1)

    return base.gradients(counts=(2, 4), kinds=("generic", "orthonormal"), width=widths)


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
    instances=lambda: base.gradients(counts=(1, 4)),
    conclusion=_count,
    sabotages=(
        Sabotage("symmetric", "r (r + 1)/2 unknowns", conclusion=_count_symmetric),
        Sabotage("derivative", "a term not differentiated", implementation=_one_term_short),
    ),
    cost="light",
    algebra=_count_algebra,
    algebra_note=(
        "distinct monomials at unit vectors for degrees 3 to 8, r <= 8; all independent samples "
        "by a change of coordinates"
    ),
    code=("identify.recovery.measure.Findings.redundancy",),
    remark="Without I-hermite the count is rank H - r^2, which may be negative.",
)


# --- ties --------------------------------------------------------------------------------------


def _ties(instance: Explained) -> Check:
    """With unit samples the margins agree, and count as n - 1 redundant equations."""
    count = len(instance.samples)
    findings = measure(instance.data, Assumptions(None, "unit", False, None), seed=instance.seed)
    if findings.tie is None or findings.linear is None:
        return Check.of(False, "nothing is recovered")
    if findings.tie.equations != count - 1:
        return Check.of(False, f"{findings.tie.equations} equations")
    if findings.redundancy != findings.linear.rank - count**2 + count - 1:
        return Check.of(False, f"redundancy {findings.redundancy}")
    return Check.compare(findings.tie.spread, 2.0 * findings.tie.tolerance, findings.tie.name)


def _equal_multipliers(instance: Explained) -> Check:
    """The claim that the coefficients agree too."""
    sizes = np.log(np.abs(instance.coefficients))
    return Check.compare(float(np.ptp(sizes)), 1e-6)


def _unequal() -> SearchStrategy[Explained]:
    """Points stationary under weight decay, read as KKT points."""

    def build(instance: Explained) -> Explained:
        return replace(instance, data=HermiteData.from_kkt(instance.data.network))

    return base.plantings(("weight-decay",)).map(build)


def _other_lengths() -> SearchStrategy[Explained]:
    """KKT points with margins 1 whose samples have other lengths."""

    def build(point: StationaryPoint) -> Explained:
        data = HermiteData.from_kkt(point.network)
        chosen = point.data
        return Explained(data, chosen.samples, chosen.coefficients, chosen.kind, chosen.seed)

    drawn = kkt.margin_points(3, 4).filter(lambda point: point.network.degree == 3)
    return drawn.map(build).filter(lambda found: len(found.samples) >= 2)


def _few_neurons() -> SearchStrategy[Explained]:
    """Orthonormal samples, each with a neuron of its own: r^2 equations.

    A cubic neuron c x alone is stationary for 3 b^2 c^4 = 1, and f(x) = +-1 for |b| = 3^(-3/4).
    """
    from hypothesis import strategies as st

    def build(count: int, seed: int) -> Explained:
        samples = draw_samples("orthonormal", count, count, seed)
        b = np.sign(base.draw_coefficients(count, seed)) * 3.0**-0.75
        network = TwoLayerNetwork(3.0**0.125 * samples, 3.0**0.375 * b, 3)
        return Explained(HermiteData.from_kkt(network), samples, b, "orthonormal", seed)

    return st.builds(build, st.integers(3, 4), st.integers(0, 255))


def _has_equal_margins(instance: Explained) -> bool:
    """Planted margins are 1 up to 1e-12."""
    margins = np.sign(instance.coefficients) * instance.data.network.value(instance.samples)
    return bool(np.all(np.abs(margins - 1.0) <= 1e-11))


def _long_samples() -> AbstractContextManager[object]:
    """Recovered samples of length 1 to 2 in place of 1."""
    import identify.recovery.measure as module

    original = samples.to_samples

    def broken(*arguments: Any, **options: Any) -> samples.Samples:
        found = original(*arguments, **options)
        factors = np.linspace(1.0, 2.0, len(found.samples))
        return replace(found, samples=found.samples * factors[:, None])

    return patch.object(module, "to_samples", broken)


TIES = Statement(
    name="margin-ties",
    title="Equal margins are n - 1 more equations",
    sentence=(
        "At a KKT point of unit samples the outputs of the recovered samples agree in modulus: "
        "n - 1 equations more than the Hermite equations, which other lengths or weight decay "
        "do not satisfy."
    ),
    formula=r"\lvert f(x_i)\rvert = \gamma\ \forall i,\qquad "
    r"R = \mathrm{rank}\,H - r^2 + (n - 1)",
    source="complementary slackness (Lyu & Li 2020); ours for the count",
    hypotheses=(
        Hypothesis(
            "margins", "all y_i f(x_i) are equal, as at a KKT point", _has_equal_margins, _unequal
        ),
        Hypothesis("unit", "|x_i| = 1", base.has_unit_samples, _other_lengths),
        Hypothesis("I-hermite", DETERMINED, base.is_determined, _few_neurons),
    ),
    instances=lambda: base.plantings(("kkt",)),
    conclusion=_ties,
    sabotages=(
        Sabotage("multipliers", "the multipliers agree too", conclusion=_equal_multipliers),
        Sabotage("lengths", "samples of wrong length", implementation=_long_samples),
    ),
    cost="heavy",
    code=("identify.recovery.ties.check_ties", "identify.recovery.measure.measure"),
    remark="For free lengths every set of positive margins can be scaled to equal ones.",
)


STATEMENTS = (REDUNDANCY, TIES)
