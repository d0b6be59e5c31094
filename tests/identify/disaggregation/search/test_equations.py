"""F, its derivatives and the deflated spaces against plain forms of them."""

from __future__ import annotations

import numpy as np
import pytest

from identify.disaggregation.search.equations import Stop, evaluate, minimise
from identify.disaggregation.search.pose import labelled, pose
from identify.disaggregation.search.signals import signals
from identify.disaggregation.search.spaces import (
    coordinates,
    deflated_view,
    full_view,
    with_references,
)
from tests.identify.disaggregation.problems import Planted, plant
from tests.identify.disaggregation.search.reference import jacobian, residual

CASES = {
    "one output": ([12, 15, 1], "gelu", True),
    "no bias": ([12, 15, 1], "tanh", False),
    "power": ([12, 15, 1], "monomial:3", False),
    "several outputs": ([12, 15, 4], "softplus", True),
    "deep": ([12, 15, 14, 3], "silu", True),
    "deeper": ([12, 10, 11, 12, 3], "tanh", True),
}


def planted(name: str, count: int = 4, seed: int = 0) -> Planted:
    sizes, activation, bias = CASES[name]
    return plant(sizes, count, seed, activation, bias)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(
    ("name", "tied"),
    [(name, False) for name in CASES]
    + [(name, True) for name, (sizes, *_) in CASES.items() if sizes[-1] > 1],
)
def test_derivatives_are_those_of_the_plain_residual(name: str, centred: bool, tied: bool) -> None:
    case = planted(name)
    spaces = pose(case.network, case.gradient, None, samples=None, seed=0).spaces
    label = None
    if tied:
        found = labelled(spaces)
        assert found is not None
        spaces, label = found, 1
    view = full_view(spaces)
    rng = np.random.default_rng(1)
    if centred:
        draws = [rng.normal(size=view.dimension)] if spaces.tail is None else []
        view = with_references(view, draws=draws)
    y = rng.normal(size=view.dimension + spaces.chain.free)
    here = evaluate(view, y, label, tangents=True)
    plain = residual(view, case.network, y, label)
    gram, slope = here.normal()
    j = jacobian(view, case.network, y, label)
    np.testing.assert_allclose(here.cost, plain @ plain, rtol=1e-10)
    np.testing.assert_allclose(gram, j.T @ j, atol=1e-7 * np.abs(gram).max())
    np.testing.assert_allclose(slope, j.T @ plain, atol=1e-7 * np.abs(slope).max())


@pytest.mark.parametrize("name", CASES)
def test_samples_are_zeros_of_f_before_and_after_deflation(name: str) -> None:
    case = planted(name)
    spaces = pose(case.network, case.gradient, None, samples=None, seed=0).spaces
    full = full_view(spaces)
    lifted = case.samples
    if spaces.tail is not None:
        lifted = np.column_stack([lifted, np.ones(len(lifted))])
    points = lifted @ spaces.bottom.rows
    slopes = case.cotangents @ spaces.chain.space
    found = []
    for point, x in zip(points, slopes, strict=True):
        u = full.chart_of(point)
        y = np.concatenate([u, x[: spaces.chain.free]])
        here = evaluate(full, y, None, tangents=False)
        assert here.cost < 1e-20
        z = spaces.offset + spaces.rows_map @ point
        free = x if spaces.chain.free else np.ones(1)
        found.append(coordinates(spaces, point, signals(spaces.chain, z, None, free)))
    left = deflated_view(spaces, found[:2])
    for k in (2, 3):
        u = left.chart_of(points[k])
        np.testing.assert_allclose(
            left.basis @ (left.centre + left.chart @ u), points[k], atol=1e-8
        )
        y = np.concatenate([u, slopes[k][: spaces.chain.free]])
        assert evaluate(left, y, None, tangents=False).cost < 1e-18
    gone = np.concatenate([left.chart_of(points[0]), slopes[0][: spaces.chain.free]])
    assert evaluate(left, gone, None, tangents=False).cost > 1e-6


def test_minimisation_returns_to_a_sample() -> None:
    case = planted("deep")
    spaces = pose(case.network, case.gradient, None, samples=None, seed=0).spaces
    view = full_view(spaces)
    point = np.append(case.samples[0], 1.0) @ spaces.bottom.rows
    rng = np.random.default_rng(0)
    y = np.concatenate([view.chart_of(point), case.cotangents[0] @ spaces.chain.space])
    start = y + 1e-2 * rng.normal(size=len(y)) * np.linalg.norm(y)
    here, _ = minimise(view, start, None, Stop(60, 1e-28, 0.5, 3))
    np.testing.assert_allclose(view.point(here.y[: view.dimension]), point, rtol=1e-6, atol=1e-9)
