"""Lengths |f|^(-1/alpha): their derivative, the network's own error, and where there is none."""

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork, Verdict, assess_identifiability
from identify.exposure.compare import compare_recovery
from identify.hermite.reduction import reduce_data
from identify.recovery.samples import to_samples


def rounded(net: TwoLayerNetwork, dtype: type) -> TwoLayerNetwork:
    return TwoLayerNetwork(
        net.hidden_weight.astype(dtype), net.output_weight.astype(dtype), degree=net.degree
    )


def flat_directions(
    seed: int, degree: int, tries: int, dtype: type = np.float32
) -> tuple[HermiteData, np.ndarray]:
    """Samples of |f| = 1 in directions where f is small against its gradient, of `tries`."""
    rng = np.random.default_rng([seed, degree])
    d, r, m = 6, 3, 40
    w, a = rng.normal(size=(m, d)).astype(dtype), rng.normal(size=m).astype(dtype)
    net, rows = TwoLayerNetwork(w, a, degree=degree), []
    for _ in range(r):
        c = rng.normal(size=(tries, d))
        c /= np.linalg.norm(c, axis=1, keepdims=True)
        slope = np.linalg.norm((net.output_weight * (c @ w.T) ** (degree - 1)) @ w, axis=1)
        rows.append(c[np.argmin(np.abs(net.value(c)) / slope)])
    x = np.array(rows)
    b = np.array([1.0, -1.0, 1.0])
    gradient = rounded(net.gradient(x, b), dtype)
    x = x * np.abs(net.value(x))[:, None] ** (-1.0 / degree)
    return HermiteData.from_gradient(net, gradient), x


@pytest.mark.parametrize(
    ("seed", "degree", "tries", "dtype"),
    [
        (3, 3, 400, np.float32), (1, 4, 400, np.float32), (2, 5, 100, np.float32),
        (4, 3, 4000, np.float32), (5, 3, 1, np.float16), (6, 5, 400, np.float64),
    ],
)  # fmt: skip
def test_bounds_hold_the_error_of_the_length(
    seed: int, degree: int, tries: int, dtype: type
) -> None:
    data, x = flat_directions(seed, degree, tries, dtype)
    report = assess_identifiability(data, scale="margin")
    assert report.recovery is not None
    table = compare_recovery(report.recovery, x, degree, "margin")
    bounds = report.recovery.error_bounds[table.matching.indices]
    known = np.isfinite(bounds)
    assert np.all(table.matching.errors[known] <= bounds[known])
    if dtype is not np.float16:
        assert report.verdict is Verdict.GLOBALLY


@pytest.mark.parametrize(("seed", "degree"), [(0, 3), (1, 4), (2, 5), (3, 3)])
def test_no_length_where_f_is_not_separated_from_zero(seed: int, degree: int) -> None:
    """One direction is moved onto f = 0 to far below the noise: free it is, its length is open."""
    rng = np.random.default_rng([seed, degree])
    w, a = rng.normal(size=(40, 6)).astype("f4"), rng.normal(size=40).astype("f4")
    net = TwoLayerNetwork(w, a, degree=degree)
    x = rng.normal(size=(3, 6))
    for _ in range(60):
        slope = (degree * net.output_weight * (w @ x[0]) ** (degree - 1)) @ w
        x[0] -= float(net.value(x[:1])[0]) * slope / float(slope @ slope)
        x[0] /= np.linalg.norm(x[0])
    assert abs(float(net.value(x[:1])[0])) < 1e-9
    gradient = rounded(net.gradient(x, np.array([1.0, -1.0, 1.0])), np.float32)
    data = HermiteData.from_gradient(net, gradient)
    assert assess_identifiability(data, evidence="numerical").verdict is Verdict.GLOBALLY
    report = assess_identifiability(data, scale="margin", evidence="numerical")
    assert report.verdict is Verdict.UNDECIDED
    assert "not separated from 0" in report.reason
    assert report.error_bounds == (None, None, None)


@pytest.mark.parametrize("scale", ["free", "margin", "bias"])
@pytest.mark.parametrize("seed", range(3))
def test_derivatives_are_those_of_the_samples(scale: str, seed: int) -> None:
    """Every scale map against differences, inside V and off it, modulo the common factor."""
    rng = np.random.default_rng(seed)
    d, r = 5, 3
    bias = {"hidden_bias": rng.normal(size=30)} if scale == "bias" else {}
    net = TwoLayerNetwork(rng.normal(size=(30, d)), rng.normal(size=30), degree=3, **bias)
    x, b = rng.normal(size=(r, d)), np.array([1.0, -0.7, 0.4])
    data = HermiteData.from_gradient(net, net.gradient(x, b))
    reduced = reduce_data(data, 1e-13)
    root = np.cbrt(b / reduced.tensor_scale)
    full = net.lift(x) * root[:, None]
    terms = full @ reduced.basis

    def sample(moved: np.ndarray, i: int) -> np.ndarray:
        """Sample i in its own length, without the factor that all share."""
        changed = full.copy()
        changed[i] = moved
        if scale == "bias":
            return np.asarray(changed[i, :-1] / changed[i, -1])
        unit = changed[i] / np.linalg.norm(changed[i])
        length = 1.0 if scale == "free" else abs(float(net.value(unit[None])[0])) ** (-1.0 / 3.0)
        return np.asarray(unit * length)

    found = to_samples(data, reduced, terms, np.ones(r), scale)
    h = 1e-6
    for i in range(r):
        factor = found.sizes[i] / np.linalg.norm(sample(full[i], i))
        for direction in np.vstack([np.eye(r), rng.normal(size=(3, r))]):
            move = h * reduced.basis @ direction
            slope = (sample(full[i] + move, i) - sample(full[i] - move, i)) / (2.0 * h)
            expected = float(np.linalg.norm(found.derivatives[i] @ direction))
            assert np.isclose(np.linalg.norm(slope) * factor, expected, rtol=1e-5, atol=1e-9)
        beyond = rng.normal(size=len(reduced.basis))
        beyond -= reduced.basis @ (reduced.basis.T @ beyond)
        beyond /= np.linalg.norm(beyond)
        slope = (sample(full[i] + h * beyond, i) - sample(full[i] - h * beyond, i)) / (2.0 * h)
        assert np.linalg.norm(slope) * factor <= found.stretch[i] * (1.0 + 1e-5)
