"""What speaks for a recovered set: margins that agree where the network tells samples apart."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.arrays import FloatArray
from identify.recovery import samples
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.recovery.stages import Recovered
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt import balance as kkt
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.planes import false_set
from proofs_check.statements.uniqueness.recovery import DETERMINED
from proofs_check.strategies import StationaryPoint, draw_samples

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def classes(instance: Explained) -> int:
    """Samples that no symmetry exchanges: different lists of a_j (w_j . x_i)^alpha, signs apart."""
    network = instance.data.network
    inner = network.lift(instance.samples) @ network.points.T
    lists = np.sort(network.output_weight * inner**network.degree, axis=1)
    kept: list[FloatArray] = []
    for row in lists:
        level = 1e-8 * np.abs(row).max()
        mirrored = (np.abs(np.stack([row, -row[::-1]]) - other).max(axis=1) for other in kept)
        if not any(gaps.min() <= level for gaps in mirrored):
            kept.append(row)
    return len(kept)


def _ties(instance: Explained) -> Check:
    """With unit samples the margins agree; they count as one equation less than classes."""
    count, wanted = len(instance.samples), classes(instance) - 1
    findings = measure(instance.data, Assumptions(scale="unit"), seed=instance.seed)
    if not isinstance(findings, Recovered) or findings.tie is None:
        return Check.of(False, "nothing is recovered")
    if findings.tie.equations != wanted:
        return Check.of(False, f"{findings.tie.equations} equations, not {wanted}")
    if findings.redundancy != findings.linear.rank - count**2 + wanted:
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
    """All positive, and equal up to 1e-11: planted ones are 1 up to 1e-12."""
    margins = np.sign(instance.coefficients) * instance.data.network.value(instance.samples)
    top = float(margins.max())
    return bool(margins.min() > 0.0 and np.ptp(margins) <= 1e-11 * top)


def _long_samples() -> AbstractContextManager[object]:
    """Recovered samples of length 1 to 2 in place of 1."""
    import identify.recovery.measure as module

    original = samples.to_samples

    def broken(*arguments: Any, **options: Any) -> samples.Samples:
        found = original(*arguments, **options)
        factors = np.linspace(1.0, 2.0, len(found.samples))
        return replace(found, samples=found.samples * factors[:, None])

    return patch.object(module, "to_samples", broken)


def _all_different() -> AbstractContextManager[object]:
    """Samples of which each counts, mirror images or not."""
    import identify.recovery.ties as module

    return patch.object(module, "sample_classes", lambda data, rows, errors: np.arange(len(rows)))


def _n_minus_one(instance: Explained) -> Check:
    """n - 1 equations whatever the symmetry."""
    findings = measure(instance.data, Assumptions(scale="unit"), seed=instance.seed)
    tie = findings.tie if isinstance(findings, Recovered) else None
    found = None if tie is None else tie.equations
    return Check.of(found == len(instance.samples) - 1, f"{found} equations")


def mirrored(share: float, copies: int) -> Explained | None:
    """An exact KKT point of three mirror-symmetric samples of a plane, with the two false ones.

    T = 6 B u^2 v + C v^3 with C = `share` B has its eigenvectors at (0, 1) and at mirrored pairs,
    of which `copies` are neurons; an angle of the outer samples makes all three margins equal.
    The two false samples are mirror images as well: their margins agree by symmetry alone.
    """
    from scipy.optimize import brentq

    def build(angle: float) -> tuple[TwoLayerNetwork, FloatArray, FloatArray]:
        s, c = np.sin(angle), np.cos(angle)
        first = c * s * s
        last = share * first
        edge = np.sqrt((12.0 - 3.0 * share) / 6.0)
        rows = np.array([[u, 1.0] for u in (0.0, *(edge, -edge) * copies)])
        slopes = np.stack([12.0 * first * rows[:, 0], 6.0 * first * rows[:, 0] ** 2 + 3.0 * last])
        lengths = np.linalg.norm(rows, axis=1)
        values = np.sum(slopes.T * rows, axis=1) / (3.0 * lengths**2)
        sizes = (np.sqrt(3.0) * lengths * np.abs(values)) ** -0.5
        output = np.sign(values) * lengths * sizes / np.sqrt(3.0)
        samples = np.array([[s, c], [-s, c], [0.0, 1.0]])
        b = np.array([1.0, 1.0, last - 2.0 * c**3])
        return TwoLayerNetwork(sizes[:, None] * rows, output, 3), samples, b

    def gap(angle: float) -> float:
        network, samples, _ = build(angle)
        outputs = network.value(samples)
        return float(outputs[0] - outputs[2])

    angles = np.linspace(0.2, 1.5, 100)
    gaps = np.array([gap(angle) for angle in angles])
    for place in np.flatnonzero(gaps[:-1] * gaps[1:] < 0.0):
        network, samples, b = build(brentq(gap, angles[place], angles[place + 1], xtol=1e-15))
        if b[2] > 0.05:
            data = HermiteData.from_kkt(network)
            return false_set(Explained(data, samples, b, "mirror", 100 * copies))
    return None


def _mirrored() -> SearchStrategy[Explained]:
    from hypothesis import strategies as st

    shares = st.integers(12, 25).map(lambda k: k / 10.0)
    return base.present(st.builds(mirrored, shares, st.integers(5, 12)))


def _points() -> SearchStrategy[Explained]:
    """Samples in general position, and false ones that the network cannot tell apart."""
    from hypothesis import strategies as st

    return st.one_of(base.plantings(("kkt",)), _mirrored())


TIES = Statement(
    name="margin-ties",
    title="Equal margins are up to n - 1 more equations",
    sentence=(
        "At a KKT point of unit samples the outputs of the recovered samples agree in modulus. "
        "These are one equation less than there are classes of samples that the network tells "
        "apart by its list of a_j (w_j . x_i)^alpha: n - 1 in general position, none between "
        "mirror images."
    ),
    formula=r"\lvert f(x_i)\rvert = \gamma\ \forall i,\qquad "
    r"R = \mathrm{rank}\,H - r^2 + (c - 1),\ c \le n",
    source="complementary slackness (Lyu & Li 2020); ours for the count",
    hypotheses=(
        Hypothesis(
            "margins", "all y_i f(x_i) are equal, as at a KKT point", _has_equal_margins, _unequal
        ),
        Hypothesis("unit", "|x_i| = 1", base.has_unit_samples, _other_lengths),
        Hypothesis("I-hermite", DETERMINED, base.is_determined, _few_neurons),
    ),
    instances=_points,
    conclusion=_ties,
    sabotages=(
        Sabotage("multipliers", "the multipliers agree too", conclusion=_equal_multipliers),
        Sabotage("count", "n - 1 equations, mirror images or not", conclusion=_n_minus_one),
        Sabotage("lengths", "samples of wrong length", implementation=_long_samples),
        Sabotage("classes", "mirror images told apart", implementation=_all_different),
    ),
    cost="heavy",
    code=("identify.recovery.ties.check_ties", "identify.recovery.measure.measure"),
    remark=(
        "For free lengths every set of positive margins can be scaled to equal ones. Three "
        "mirror-symmetric samples of a plane are replaced by two false mirror images, whose "
        "margins agree by symmetry: the tie speaks for nothing."
    ),
)

STATEMENTS = (TIES,)
