"""Neurons are eigenvectors of the moment tensor, and how many it has."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.planting import eigenvectors
from identify.tensors import CoordinateTensor, monomials
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import STATIONARY, rounding
from proofs_check.statements.kkt.sources import slope_rounding
from proofs_check.strategies import GradientProblem, SampleSet, StationaryPoint

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

# --- neurons are eigenvectors ----------------------------------------------------------------


def _eigenpairs(point: StationaryPoint, power: float) -> Check:
    """|T(v^(alpha-1), .) - mu v| / |mu| and |a|^(alpha-1) alpha^power |mu| against 1."""
    net, data = point.network, point.data
    alpha, dimension = net.degree, net.dimension
    tensor = CoordinateTensor(data.coefficients @ monomials(data.samples, alpha), alpha, dimension)
    sizes = np.linalg.norm(net.hidden_weight, axis=1)
    units = net.hidden_weight / sizes[:, None]
    slopes = np.array([tensor.contract(unit) @ unit for unit in units])
    values = np.sum(slopes * units, axis=1)
    gaps = np.linalg.norm(slopes - values[:, None] * units, axis=1) / np.abs(values)
    heights = np.abs(net.output_weight) ** (alpha - 1) * alpha**power * np.abs(values)
    # Stationarity holds to `rounding`, and enters the power alpha - 1; contraction rounds too.
    errors = slope_rounding(units, data.samples, data.coefficients, alpha) / np.abs(values)
    allowed = 2.0 * alpha**2 * rounding(point) + 2.0 * float(errors.max())
    return Check.compare(max(float(gaps.max()), float(np.max(np.abs(heights - 1.0)))), allowed)


def _neurons_are_eigenvectors(point: StationaryPoint) -> Check:
    return _eigenpairs(point, point.network.degree / 2.0)


def _recheck_eigenpairs(point: StationaryPoint) -> Check:
    """Slopes T(w^(alpha-1), .) and Rayleigh quotients exactly, for the weights as they are."""
    net, data = point.network, point.data
    alpha, points = net.degree, rational.exact(net.hidden_weight)
    slopes = rational.slopes(net.hidden_weight, data.samples, data.coefficients, alpha)
    norms = np.sum(points**2, axis=1)
    quotients = np.sum(points * slopes, axis=1) / norms
    gaps = rational.floats((slopes - quotients[:, None] * points) / quotients[:, None])
    lengths = np.sqrt(rational.floats(norms))
    values = np.abs(rational.floats(quotients)) / lengths ** (alpha - 2)
    heights = np.abs(net.output_weight) ** (alpha - 1) * alpha ** (alpha / 2.0) * values
    worst = max(
        float(np.max(np.linalg.norm(gaps, axis=1) / lengths)), float(np.max(np.abs(heights - 1.0)))
    )
    return Check.compare(worst, 2.0 * alpha**2 * rounding(point))


def _wrong_length(point: StationaryPoint) -> Check:
    return _eigenpairs(point, point.network.degree / 2.0 - 0.5)


def _random_points() -> SearchStrategy[StationaryPoint]:
    """Random networks, stationary for no samples."""

    def build(problem: GradientProblem) -> StationaryPoint:
        return StationaryPoint(problem.network, problem.data, 0.0)

    return strategies.gradient_problems(neurons=(1, 8)).map(build)


def _contract_with(factor: float) -> AbstractContextManager[object]:
    original = CoordinateTensor.contract

    def broken(self: CoordinateTensor, direction: FloatArray) -> FloatArray:
        return factor * original(self, direction)

    return patch.object(CoordinateTensor, "contract", broken)


EIGENVECTORS = Statement(
    name="neuron-eigenvectors",
    title="Neurons are eigenvectors of the moment tensor",
    sentence=(
        "At a stationary point v_j = w_j/|w_j| satisfies T(v_j^(alpha-1), .) = mu_j v_j, and "
        "|a_j|^(alpha-1) = 1/(alpha^(alpha/2) |mu_j|)."
    ),
    formula=r"T(v_j^{\alpha-1},\cdot) = \mu_j v_j,\qquad "
    r"\lvert a_j\rvert^{\alpha-1} = \frac{1}{\alpha^{\alpha/2}\lvert\mu_j\rvert}",
    source="stationarity with balance; eigenvectors of tensors: Lim 2005, Qi 2005; ours",
    hypotheses=(replace(STATIONARY, violating=_random_points),),
    instances=strategies.stationary_points,
    conclusion=_neurons_are_eigenvectors,
    sabotages=(
        Sabotage("length", "alpha^((alpha-1)/2)", conclusion=_wrong_length),
        Sabotage(
            "contraction",
            "T(v^(alpha-2), ., .) too large by 2",
            implementation=lambda: _contract_with(2.0),
        ),
    ),
    cost="light",
    recheck=_recheck_eigenpairs,
    code=("identify.tensors.CoordinateTensor.contract",),
)

# --- how many eigenvectors -------------------------------------------------------------------

_MERGE = 1e-3
"""Angle below which two eigenvectors count as one: far more than rounding moves an isolated one,
far less than the distances in a continuum of them that random starts reach."""


def eigenvector_bound(degree: int, dimension: int) -> int:
    """((alpha-1)^r - 1)/(alpha-2).

    Example:
        >>> eigenvector_bound(3, 4), eigenvector_bound(4, 2)
        (15, 4)
    """
    return int((degree - 1) ** dimension - 1) // (degree - 2)


def count_directions(data: SampleSet, starts: int = 150) -> int:
    """Real eigenvectors of T up to sign that Newton steps reach, isolated or not."""
    rng = np.random.default_rng([data.seed, 8])
    samples = data.samples / float(np.linalg.norm(data.samples, axis=1).max())
    first = rng.standard_normal((starts, samples.shape[1]))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    more, _ = eigenvectors.real_eigenvectors(
        samples, data.coefficients, data.degree, starts=60, seed=data.seed
    )
    found = eigenvectors.refine(
        samples, data.coefficients, data.degree, np.vstack([first, more]), steps=30
    )
    kept: list[FloatArray] = []
    for vector in found.vectors[found.residuals < 1e-9]:
        if all(abs(float(vector @ other)) < 1.0 - 0.5 * _MERGE**2 for other in kept):
            kept.append(vector)
    return len(kept)


def _is_finite(data: SampleSet) -> bool:
    """Whether T is known to have finitely many eigenvectors in C^r.

    Independent samples: in s = X v they solve G diag(b) s^(alpha-1) = mu s, G = X X^T, and the
    leading form has no zero but 0, so mu is not 0 and Bezout's theorem gives (alpha-1)^r solutions
    with mu = 1, counted with multiplicity. r = 2: the roots of v_1 T_2 - v_2 T_1, unless it is 0.
    """
    count, dimension = data.samples.shape
    sigma = np.linalg.svd(data.samples, compute_uv=False)
    if count == dimension and float(sigma[-1]) > 1e-9 * float(sigma[0]):
        return True
    if dimension != 2:
        return False
    angles = np.pi * np.arange(data.degree + 1) / (data.degree + 1)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    turned = np.stack([-circle[:, 1], circle[:, 0]], axis=1)
    low = (circle @ data.samples.T) ** (data.degree - 1) * data.coefficients
    form = np.sum((low @ data.samples) * turned, axis=1)
    # A form of degree alpha vanishes if it does on alpha + 1 lines.
    return bool(np.max(np.abs(form)) > 1e-8 * np.max(np.abs(low)))


def _spectra() -> SearchStrategy[SampleSet]:
    """Independent samples that span R^r, r <= 4, or 3 to 5 samples in a plane."""
    from hypothesis import strategies as st

    def fill(data: SampleSet) -> SampleSet:
        count = len(data.samples)
        samples = strategies.draw_samples(data.kind, count, count, data.seed)
        # Equal signs and sizes for orthonormal samples: all eigenvectors are real.
        even = data.kind == "orthonormal"
        coefficients = np.ones(count) if even else data.coefficients
        return replace(data, samples=samples, coefficients=coefficients)

    def plane(count: int, degree: int, seed: int) -> SampleSet:
        rng = np.random.default_rng([seed, count, 9])
        samples = rng.standard_normal((count, 2))
        coefficients = rng.choice([-1.0, 1.0], size=count) * rng.uniform(0.5, 2.0, size=count)
        return SampleSet("plane", samples, coefficients, degree, seed)

    planes = st.builds(
        plane, st.integers(3, 5), st.sampled_from((3, 4, 5)), st.integers(0, strategies.SEEDS)
    )
    return st.one_of(strategies.sample_sets(4, 4).map(fill), planes)


def equiangular(count: int, degree: int, seed: int, extra: int = 0) -> SampleSet:
    """Unit samples at equal angles in a plane of R^(2 + extra), with `extra` orthogonal ones.

    sum_k cos(t - k pi/n)^alpha does not depend on t for even alpha < 2 n.
    """
    rng = np.random.default_rng([seed, 10])
    angles = rng.uniform(0.0, np.pi) + np.pi * np.arange(count) / count
    samples = np.zeros((count + extra, 2 + extra))
    samples[:count, 0], samples[:count, 1] = np.cos(angles), np.sin(angles)
    samples[count:, 2:] = np.eye(extra)
    return SampleSet("equiangular", samples, np.ones(count + extra), degree, seed)


def _equiangular_sets() -> SearchStrategy[SampleSet]:
    from hypothesis import strategies as st

    def build(pair: tuple[int, int], extra: int, seed: int) -> SampleSet:
        return equiangular(pair[0], pair[1], seed, extra)

    return st.builds(
        build,
        st.sampled_from(((3, 4), (4, 4), (4, 6))),
        st.integers(0, 1),
        st.integers(0, strategies.SEEDS),
    )


def _within_bound(data: SampleSet) -> Check:
    found = count_directions(data)
    limit = eigenvector_bound(data.degree, data.samples.shape[1])
    return Check.of(found <= limit, f"{found} eigenvectors, at most {limit}")


def _below_bound(data: SampleSet) -> Check:
    found = count_directions(data)
    return Check.of(found < eigenvector_bound(data.degree, data.samples.shape[1]))


def _every_start_is_one() -> AbstractContextManager[object]:
    """Starts returned as if Newton's method had converged at once."""
    original = eigenvectors.refine

    def broken(
        samples: FloatArray, coefficients: FloatArray, degree: int, vectors: FloatArray, **_: Any
    ) -> eigenvectors.EigenSystem:
        found = original(samples, coefficients, degree, vectors, steps=0)
        return replace(found, defects=np.zeros_like(found.defects))

    return patch.object(eigenvectors, "refine", broken)


COUNT = Statement(
    name="eigenvector-count",
    title="At most so many neurons",
    sentence=(
        "If T has finitely many eigenvectors on R^r, they are at most ((alpha-1)^r - 1)/(alpha-2) "
        "up to scale; a sum of r linearly independent powers always has finitely many."
    ),
    formula=r"\#\{\mathbb{R}v : T(v^{\alpha-1},\cdot)=\mu v\} \le "
    r"\frac{(\alpha-1)^r-1}{\alpha-2}",
    source="Cartwright & Sturmfels 2013 (Theorem 1.2); independent powers: ours",
    hypotheses=(
        Hypothesis(
            "finite",
            "T has finitely many eigenvectors, as it has if n = r samples are independent",
            _is_finite,
            _equiangular_sets,
        ),
    ),
    instances=_spectra,
    conclusion=_within_bound,
    sabotages=(
        Sabotage("strict", "fewer than the bound", conclusion=_below_bound),
        Sabotage("convergence", "starts taken for ends", implementation=_every_start_is_one),
    ),
    cost="medium",
    code=("identify.planting.eigenvectors.real_eigenvectors",),
    remark=(
        "Three samples at angles of 60 degrees with equal coefficients and alpha = 4 give "
        "T = 9/8 |w|^4, of which every vector of the plane is an eigenvector."
    ),
)

STATEMENTS = (EIGENVECTORS, COUNT)
