"""From weights to samples: recovery end to end."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify import HermiteData, Recovery, TwoLayerNetwork, compare_recovery
from identify.arrays import FloatArray
from identify.decomposition.equations import HermiteEquations
from identify.hermite.stationarity import stationarity
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.recovery.stages import Recovered
from identify.tensors import hermite_matrix
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness import readings
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.planes import false_set, false_sets, planes

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KRUSKAL = "Kruskal 1977 (uniqueness for independent terms)"
DETERMINED = "I-hermite: the matrix H of the Hermite equations on V has rank N"
INDEPENDENT = "the samples are linearly independent"


# --- recovery end to end -----------------------------------------------------------------------


def _plain() -> SearchStrategy[Explained]:
    from hypothesis import strategies as st

    return st.one_of(base.plantings(), base.gradients(counts=(1, 4), unit=True))


def _problems() -> SearchStrategy[Explained]:
    """Every convention of the lengths, rounded data, and sets that are not the true one."""
    from hypothesis import strategies as st

    plain = _plain()
    fixed = st.builds(replace, plain, scale=st.just("unit"))
    biased = base.gradients(counts=(1, 4)).map(readings.with_bias)
    biased = st.builds(replace, biased, scale=st.just("bias"))
    rounded = st.one_of(plain, fixed, biased).filter(_is_stiff).map(readings.in_single_precision)
    drawn = (plain, fixed, plain.map(readings.with_margins), biased, rounded, false_sets())
    return base.present(st.one_of(*drawn))


def _is_stiff(instance: Explained) -> bool:
    """Whether the rounding of float32 leaves all ranks clear."""
    basis = base.span_of(instance.data.rows)
    if basis is None:
        return False
    points = base.unit_rows(instance.data.points @ basis)
    sigma = np.linalg.svd(hermite_matrix(points, instance.data.degree), compute_uv=False)
    units = base.unit_rows(instance.data.network.lift(instance.samples))
    angle = np.linalg.svd(units, compute_uv=False)[-1]
    return bool(len(sigma) and sigma[-1] > 1e-3 * sigma[0] and angle > 0.05)


def recover(instance: Explained) -> tuple[Recovery | None, float]:
    """What is recovered without the truth, None if nothing is, and the noise level."""
    given = Assumptions(samples=len(instance.samples), scale=instance.scale)
    findings = measure(instance.data, given, seed=instance.seed)
    if not isinstance(findings, Recovered):
        return None, findings.noise_level
    found, bounds = findings.samples, findings.bounds
    return Recovery(found.samples, found.coefficients, bounds.samples, {}), findings.noise_level


def recovers(instance: Explained) -> Check:
    """Recover, then compare: every sample within its error bound."""
    found, noise = recover(instance)
    if found is None:
        return Check.of(False, "nothing is recovered")
    if len(found.samples) != len(instance.samples):
        return Check.of(False, f"{len(found.samples)} samples are found")
    explained = stationarity(instance.data, found.samples, found.coefficients)
    if not explained <= 10.0 * noise:
        return Check.compare(explained, 10.0 * noise, "the set explains nothing")
    # Unit norm is the convention for free lengths: with the hypothesis they count.
    scale = "unit" if instance.scale == "free" else instance.scale
    table = compare_recovery(found, instance.samples, instance.data.degree, scale)
    # The comparison normalises both samples, which moves them by a few roundings.
    bounds = found.error_bounds[table.matching.indices] + 8.0 * UNIT
    ratios = table.matching.errors / bounds
    return Check.compare(float(np.max(ratios)), 1.0, "error over printed bound")


def _recovers_signs(instance: Explained) -> Check:
    """The same with the signs of the samples."""
    found, _ = recover(instance)
    if found is None:
        return Check.of(False, "nothing is recovered")
    gaps = np.linalg.norm(found.samples[:, None] - instance.samples, axis=2)
    sizes = np.linalg.norm(instance.samples, axis=1).max()
    return Check.compare(float(gaps.min(axis=1).max()), 1e-2 * float(sizes), "signs")


def _few(degree: int, count: int) -> tuple[int, int]:
    """Widths at which H lacks rank although V contains the samples."""
    most = max(count, base.neurons_needed(degree, count) - 1)
    return count, most


def _too_many(bound: int = 4) -> SearchStrategy[Explained]:
    """One sample more than dimensions, in general position."""
    from hypothesis import strategies as st

    def build(dimension: int, degree: int, seed: int) -> Explained:
        rng = np.random.default_rng([seed, dimension])
        samples = base.unit_rows(rng.standard_normal((dimension + 1, dimension)))
        width = base.neurons_needed(degree, dimension) + 2
        b = base.draw_coefficients(dimension + 1, seed)
        return base.gradient_data(samples, b, degree, width, "dependent", seed)

    return st.builds(build, st.integers(2, bound), st.sampled_from((3, 4)), st.integers(0, 255))


def _dependent() -> SearchStrategy[Explained]:
    """Too many samples, or samples of a plane, which two false ones explain as well."""
    from hypothesis import strategies as st

    def true_one(explained: Explained) -> Explained | None:
        found = false_set(explained)
        return None if found is None else replace(explained, kind="coplanar")

    return base.present(st.one_of(_too_many(), planes().map(true_one)))


def _has_known_lengths(instance: Explained) -> bool:
    """|x_i| = 1; for margins |f(x_i)| equal and the largest norm 1; with a bias any length."""
    if instance.scale == "bias":
        return True
    if instance.scale == "margin":
        again = readings.with_margins(instance)
        if again is None:
            return False
        gaps = np.linalg.norm(again.samples - instance.samples, axis=1)
        return bool(np.all(gaps <= 1e-9))
    return base.has_unit_samples(instance)


def _longer() -> SearchStrategy[Explained]:
    """Samples of other lengths."""
    return base.gradients(kinds=("generic", "digits"))


def _inexact() -> SearchStrategy[Explained]:
    """Data of which every row is off by a tenth."""

    def build(instance: Explained) -> Explained:
        data = instance.data
        rng = np.random.default_rng([instance.seed, 10])
        if data.source != "gradient":
            factor = 1.0 + rng.uniform(0.1, 0.3, size=(data.network.width, 1))
            hidden, output = data.network.hidden_weight * factor, data.network.output_weight
            moved = HermiteData.from_kkt(TwoLayerNetwork(hidden, output, data.degree))
            return replace(instance, data=moved)
        noise = rng.standard_normal(data.rows.shape)
        noise *= 0.1 * np.linalg.norm(data.rows) / np.linalg.norm(noise)
        return replace(instance, data=replace(data, rows=data.rows + noise))

    return _plain().map(build)


def low_power() -> AbstractContextManager[object]:
    """Hermite equations with a power too few."""
    original = HermiteEquations.residual

    def broken(self: HermiteEquations, terms: FloatArray) -> FloatArray:
        lower = copy(self)
        lower.power = self.power - 1
        return original(lower, terms)

    return patch.object(HermiteEquations, "residual", broken)


THEOREM = Statement(
    name="recovery",
    title="Weights determine independent samples",
    sentence=(
        "If the neurons interpolate on the span of the samples and the samples are independent, "
        "of unit norm, of equal margins, or seen with a bias, then samples and multipliers are "
        "found from the weights (a KKT point, a point stationary under weight decay, or one "
        "gradient) up to order and, without a bias, sign."
    ),
    formula=r"T = \sum_i b_i x_i^{\otimes\alpha}\ \text{and}\ \{(x_i, b_i)\}\ "
    r"\text{are functions of the weights}",
    source=(
        "Shen, Wang, Qian & Lei 2026 (Theorem 4.1), with the weaker condition I-hermite in place "
        "of interpolation; " + KRUSKAL
    ),
    hypotheses=(
        Hypothesis(
            "I-hermite",
            DETERMINED,
            base.is_determined,
            lambda: base.gradients(counts=(2, 4), kinds=("generic",), width=_few, unit=True),
        ),
        Hypothesis("independent", INDEPENDENT, base.is_independent, _dependent),
        Hypothesis(
            "lengths",
            "|x_i| = 1, or all |f(x_i)| agree and the largest norm is 1, or there is a bias",
            _has_known_lengths,
            _longer,
        ),
        Hypothesis(
            "exact",
            "the weights satisfy the equations, to the rounding of the numbers that are read",
            base.is_exact,
            _inexact,
        ),
    ),
    instances=_problems,
    conclusion=recovers,
    sabotages=(
        Sabotage("sign", "with the signs of the samples", conclusion=_recovers_signs),
        Sabotage("power", "Hermite equations of degree alpha - 1", implementation=low_power),
    ),
    cost="medium",
    code=(
        "identify.recovery.measure.measure",
        "identify.recovery.samples.to_samples",
        "identify.recovery.bounds.bound_errors",
        "identify.exposure.compare.compare_recovery",
    ),
    remark=(
        "The number of samples is given. Every sample is compared with the error bound that the "
        "report prints, in float64 and after rounding to float32. Without a convention for the "
        "lengths directions are still found. The set need not be the true one: two false samples "
        "that explain three of a plane are found in their place."
    ),
)

STATEMENTS = (THEOREM,)
