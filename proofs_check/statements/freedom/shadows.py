"""Stationary networks that see their samples only in part."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify import TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.strategies import SampleSet

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, eq=False)
class Shadow:
    """A stationary network that sees n samples only through their part in V, r = dim V.

    `residual` is what rounding left of the equations of a neuron, relative to it.
    """

    network: TwoLayerNetwork
    data: SampleSet
    residual: float

    def __repr__(self) -> str:
        bias = ", bias" if self.network.has_bias else ""
        return f"Shadow(m={self.network.width}{bias}, {self.data!r})"

    @property
    def basis(self) -> FloatArray:
        """Orthonormal basis (D, r) of V, the span of the points."""
        _, values, right = np.linalg.svd(self.network.points, full_matrices=False)
        return np.ascontiguousarray(right[: int(np.count_nonzero(values > 1e-9 * values[0]))].T)

    @property
    def outside(self) -> FloatArray:
        """Orthonormal basis (D, D - r) of what no neuron sees."""
        basis = self.basis
        full = np.linalg.svd(basis, full_matrices=True)[0]
        return np.ascontiguousarray(full[:, basis.shape[1] :])


def cast_shadow(data: SampleSet, neurons: int, *, bias: bool) -> Shadow | None:
    """The network of at most `neurons` of the eigenvectors of T; each is stationary by itself."""
    lifted = np.column_stack([data.samples, np.ones(len(data.samples))]) if bias else data.samples
    point = strategies.stationary_point(replace(data, samples=lifted))
    if point is None:
        return None
    found = point.network
    rng = np.random.default_rng([data.seed, neurons, 13])
    chosen = rng.permutation(found.width)[:neurons]
    weights, output = found.hidden_weight[chosen], found.output_weight[chosen]
    network = TwoLayerNetwork(
        weights[:, :-1] if bias else weights,
        output,
        data.degree,
        hidden_bias=weights[:, -1] if bias else None,
    )
    return Shadow(network, data, point.residual)


def shadows(
    counts: tuple[int, int] = (2, 4),
    *,
    fewer: bool = True,
    spare: tuple[int, int] = (0, 2),
    biases: tuple[bool, ...] = (False, True),
    kinds: tuple[str, ...] = ("generic", "orthonormal", "integer", "digits"),
) -> SearchStrategy[Shadow]:
    """Stationary networks on n independent samples; `fewer` for fewer neurons than samples."""
    from hypothesis import strategies as st

    def build(
        kind: str, count: int, more: int, neurons: int, degree: int, bias: bool, seed: int
    ) -> Shadow | None:
        dimension = count + more
        samples = strategies.draw_samples(kind, count, dimension, seed)
        data = SampleSet(kind, samples, base.draw_coefficients(count, seed), degree, seed)
        return cast_shadow(data, 1 + neurons % (count - 1) if fewer else 60, bias=bias)

    return base.present(
        st.builds(
            build,
            st.sampled_from(strategies.present(kinds)),
            st.integers(*counts),
            st.integers(*spare),
            st.integers(0, 3),
            st.sampled_from((3, 4, 5)),
            st.sampled_from(biases),
            st.integers(0, strategies.SEEDS),
        )
    )


def shake(shadow: Shadow) -> Shadow:
    """The same with random neurons: nothing is stationary any more."""
    net = shadow.network
    rng = np.random.default_rng([shadow.data.seed, 14])
    factor = 1.0 + rng.uniform(0.05, 0.2, size=(net.width, net.dimension))
    return replace(shadow, network=replace(net, hidden_weight=net.hidden_weight * factor))


def roundings(shadow: Shadow) -> float:
    """The residual of the eigenvectors, counted in roundings of the sums of moduli."""
    return 1.0 + shadow.network.degree * shadow.residual / UNIT


def explains(
    network: TwoLayerNetwork,
    samples: FloatArray,
    b: FloatArray,
    factor: float,
    *,
    exactly: bool = False,
) -> Check:
    """Whether theta = sum_i b_i grad f(x_i), to `factor` times the rounding of the sums.

    `exactly` evaluates the sums in fractions.
    """
    rows, values = base.summed(network, samples, b, exactly)
    hidden, output = (np.maximum(part, 1e-300) for part in base.moduli(network, samples, b))
    points, heights = network.points, network.output_weight
    if exactly:
        points, heights = rational.exact(points), rational.exact(heights)
    left = np.linalg.norm(rational.floats(rows - points), axis=1) / hidden
    right = np.abs(rational.floats(values - heights)) / output
    return Check.compare(max(float(left.max()), float(right.max())), factor)


def is_stationary(shadow: Shadow) -> bool:
    """Whether the samples explain the weights."""
    data = shadow.data
    return explains(shadow.network, data.samples, data.coefficients, roundings(shadow)).holds


def _free_part(shadow: Shadow) -> FloatArray:
    """What of the lifted samples lies off V and off the axis of the bias, shape (n, q)."""
    outside = shadow.outside
    part = shadow.network.lift(shadow.data.samples) @ outside
    axis = outside[-1] if outside.size else np.zeros(0)
    length = float(np.linalg.norm(axis))
    if shadow.network.has_bias and length > 1e-9:
        part = part - np.outer(part @ axis, axis) / length**2
    return np.asarray(part)


def leaves(shadow: Shadow) -> bool:
    """Whether some sample does so by a hundredth of its lifted norm."""
    sizes = np.linalg.norm(shadow.network.lift(shadow.data.samples), axis=1)
    return bool(np.max(np.linalg.norm(_free_part(shadow), axis=1) / sizes) > 1e-2)


def short_span() -> AbstractContextManager[object]:
    """V one direction too small, so that a move off it is seen."""
    from identify.alternatives import off_span

    original: Any = vars(off_span)["row_space"]

    def broken(*arguments: Any, **options: Any) -> Any:
        basis, decision = original(*arguments, **options)
        return basis[:, 1:], decision

    return patch.object(off_span, "row_space", broken)
