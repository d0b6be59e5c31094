"""Samples of one plane, and the two cubes that explain three or more of them at degree 3."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def coplanar_data(count: int, further: int, degree: int, seed: int) -> Explained:
    """One gradient of `count` samples in a plane and `further` independent ones."""
    rng = np.random.default_rng([seed, count, further])
    dimension = 2 + further
    angles = np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    samples = np.zeros((count + further, dimension))
    samples[:count, :2] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    samples[count:] = rng.standard_normal((further, dimension))
    width = base.neurons_needed(degree, dimension) + 1
    b = base.draw_coefficients(count + further, seed)
    turn, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    return base.gradient_data(samples @ turn, b, degree, width, "coplanar", seed)


def binary_cubic(pairs: FloatArray, coefficients: FloatArray) -> FloatArray:
    """sum_i b_i p^(3-k) q^k of the points (p_i, q_i), k = 0..3."""
    p, q = pairs.T
    return np.array([np.sum(coefficients * p ** (3 - k) * q**k) for k in range(4)])


def two_cubes(cubic: FloatArray) -> tuple[FloatArray, FloatArray, float] | None:
    """Points (2, 2) and coefficients (2,) of the only sum of two cubes, and its conditioning.

    The points are the roots of the quadratic form in the kernel of the catalecticant; None where
    they are not real and distinct, which is where the cubic has three real lines or a double one.

    Source: Sylvester 1851.

    Example:
        >>> points, b, _ = two_cubes(np.array([1.0, 0.0, 0.0, 8.0]))
        >>> bool(np.allclose(binary_cubic(points, b), [1, 0, 0, 8]))
        True
    """
    catalecticant = np.array([cubic[:3], cubic[1:]])
    _, sigma, right = np.linalg.svd(catalecticant)
    first, middle, last = right[2]
    discriminant = middle**2 - 4.0 * first * last
    if not (discriminant > 0.0 and sigma[1] > 0.0):
        return None
    # The larger root of both forms of the quadratic: no cancellation.
    large = -0.5 * (middle + np.copysign(np.sqrt(discriminant), middle))
    points = base.unit_rows(np.array([[large, first], [last, large]]))
    powers = np.array([points[:, 0] ** (3 - k) * points[:, 1] ** k for k in range(4)])
    b = np.linalg.lstsq(powers, cubic, rcond=None)[0]
    grown = float(sigma[0] / sigma[1]) / np.sqrt(discriminant)
    return points, b, float(grown * np.abs(b).sum() / np.linalg.norm(cubic))


def false_set(explained: Explained, limit: float = 1e2) -> Explained | None:
    """The same data with two unit samples in place of those of the plane of the first two.

    None where the two are not real, or badly determined.
    """
    x = explained.samples
    axes = np.linalg.qr(x[:2].T)[0]
    inside = x @ axes
    chosen = np.linalg.norm(x - inside @ axes.T, axis=1) <= 1e-12 * np.linalg.norm(x, axis=1)
    found = two_cubes(binary_cubic(inside[chosen], explained.coefficients[chosen]))
    if found is None or found[2] > limit:
        return None
    samples = np.vstack([found[0] @ axes.T, x[~chosen]])
    sizes = np.linalg.norm(samples, axis=1)
    b = np.concatenate([found[1], explained.coefficients[~chosen]]) * sizes**3
    return replace(explained, samples=samples / sizes[:, None], coefficients=b, kind="false")


def planes(count: tuple[int, int] = (3, 5), further: int = 1) -> SearchStrategy[Explained]:
    """Gradients at degree 3 of samples of a plane and some further ones."""
    from hypothesis import strategies as st

    return st.builds(
        coplanar_data, st.integers(*count), st.integers(0, further), st.just(3), st.integers(0, 255)
    )


def false_sets() -> SearchStrategy[Explained]:
    """Data of three or more coplanar samples, with the two false ones that explain them."""
    return base.present(planes().map(false_set))
