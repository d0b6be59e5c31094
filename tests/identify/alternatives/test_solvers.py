"""The numerical search: equations and their derivatives, descent, walks, elimination."""

from __future__ import annotations

import numpy as np
import pytest

from identify.alternatives.equations import SetEquations, padded, thinned
from identify.alternatives.solvers import draw_starts, eliminate, minimise, polish, tangents, walk
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from tests.identify.alternatives.training_sets import (
    batch_gradient,
    orthonormal_kkt,
    stationary,
    unit_rows,
)


def reduced_of(data):
    return measure(data, Assumptions().resolved(data)).reduced


def gradient_data(degree, *, bias=False, dead=0, loss=None):
    network, x, b, _ = batch_gradient(7, 3, 5, degree, bias=bias)
    output = network.output_weight.copy()
    output[:dead] = 0.0
    network = TwoLayerNetwork(
        network.hidden_weight, output, degree, hidden_bias=network.hidden_bias
    )
    return HermiteData.from_gradient(network, network.gradient(x, b), loss)


def stationary_data(degree, source, *, bias=False, loss=None):
    x = unit_rows(np.random.default_rng(0).normal(size=(3, 5)))
    network = stationary(x, np.ones(3), degree, bias=bias)
    if source == "kkt":
        return HermiteData.from_kkt(network)
    return HermiteData.from_weight_decay(network, 0.1, loss)


CASES = {
    "free": (lambda: gradient_data(3), "free"),
    "value rows": (lambda: gradient_data(4, dead=2), "free"),
    "margins, unit": (lambda: stationary_data(3, "kkt"), "unit"),
    "margins, bias": (lambda: stationary_data(4, "kkt", bias=True), "bias"),
    "loss, unit": (lambda: gradient_data(5, loss="logistic"), "unit"),
    "loss, bias": (lambda: gradient_data(3, bias=True, loss="logistic"), "bias"),
    "decay, unit": (lambda: stationary_data(3, "weight-decay", loss="logistic"), "unit"),
    "decay, bias": (lambda: stationary_data(4, "weight-decay", bias=True, loss="logistic"), "bias"),
}


class TestEquations:
    @pytest.mark.parametrize("name", CASES)
    @pytest.mark.parametrize("shrink", [0.0, 0.3])
    def test_jacobian(self, name, shrink):
        build, scale = CASES[name]
        data = build()
        reduced = reduced_of(data)
        equations = SetEquations(data, reduced, scale)
        equations = equations.shrinking(shrink)
        rng = np.random.default_rng(1)
        terms = rng.normal(size=(2, 4, reduced.dimension))
        signs = np.ones((2, 4))
        if data.degree % 2 == 0:
            signs = rng.choice([-1.0, 1.0], (2, 4))
        exact = equations.jacobian(terms, signs)
        step = 1e-6
        for column in range(terms[0].size):
            move = np.zeros(terms[0].size)
            move[column] = step
            move = move.reshape(terms[0].shape)
            high = equations.residual(terms + move, signs)
            low = equations.residual(terms - move, signs)
            difference = (high - low) / (2 * step)
            np.testing.assert_allclose(
                exact[:, :, column], difference, atol=1e-6 * np.abs(exact).max()
            )

    @pytest.mark.parametrize("name", ["free", "value rows", "loss, unit", "loss, bias"])
    def test_the_truth_solves_them(self, name):
        build, scale = CASES[name]
        data = build()
        reduced = reduced_of(data)
        bias = scale == "bias"
        network, x, b, _ = batch_gradient(7, 3, 5, data.degree, bias=bias)
        lifted = network.lift(x) @ reduced.basis
        strength = np.abs(b / reduced.tensor_scale) ** (1.0 / data.degree)
        sign = np.sign(b)
        if data.degree % 2:
            lifted, sign = lifted * sign[:, None], np.ones(3)
        residual = SetEquations(data, reduced, scale).residual(
            (lifted * strength[:, None])[None], sign[None]
        )
        assert np.abs(residual).max() < 1e-8

    def test_padding_adds_the_freedom_off_the_span(self):
        network, x, b = orthonormal_kkt(2, 4)
        data = HermiteData.from_kkt(network)
        reduced = reduced_of(data)
        free = np.linalg.svd(reduced.basis)[0][:, 2:]
        wide = padded(reduced, free)
        equations = SetEquations(data, wide, "free")
        z = np.cbrt(b / reduced.tensor_scale)[:, None] * (x @ wide.basis)
        assert np.abs(equations.residual(z[None], np.ones((1, 2)))).max() < 1e-13
        z[0, 2:] = 0.1  # not allowed for two independent samples
        assert np.abs(equations.residual(z[None], np.ones((1, 2)))).max() > 1e-3

    def test_thinning_keeps_the_strongest(self):
        reduced = reduced_of(gradient_data(3))
        few = thinned(reduced, 3)
        assert few.neurons == 3
        assert few.weights.min() >= np.sort(reduced.weights)[-3]
        assert thinned(reduced, 50) is reduced


class TestDescent:
    def test_batches_are_independent(self):
        data = gradient_data(3)
        equations = SetEquations(data, reduced_of(data), "free")
        rng = np.random.default_rng(0)
        terms, signs = draw_starts(equations, 3, 6, False, rng)
        together, norms = minimise(equations, terms, signs, goal=1e-12)
        alone, norm = minimise(equations, terms[2:3], signs[2:3], goal=1e-12)
        np.testing.assert_allclose(together[2], alone[0], rtol=1e-6)
        assert norms[2] == pytest.approx(norm[0], rel=1e-3, abs=1e-12)
        start = np.linalg.norm(equations.residual(terms, signs), axis=1)
        assert np.all(norms <= start)

    @pytest.mark.parametrize("degree", [3, 4])
    def test_finds_and_polishes_the_true_set(self, degree):
        data = gradient_data(degree)
        equations = SetEquations(data, reduced_of(data), "free")
        terms, signs = draw_starts(equations, 3, 30, False, np.random.default_rng(0))
        terms, norms = minimise(equations, terms, signs, goal=1e-7)
        best = int(np.argmin(norms))
        _, norm = polish(equations, terms[best], signs[best])
        assert norm < 1e-13

    def test_starts_on_the_right_side(self):
        data = stationary_data(3, "kkt")
        equations = SetEquations(data, reduced_of(data), "free")
        terms, signs = draw_starts(equations, 4, 8, True, np.random.default_rng(0))
        right = signs * equations.outputs(terms) > 0.0
        assert np.all(right[np.arange(8) % 4 > 0])


@pytest.fixture
def square():
    """Three neurons in three dimensions: sets of four samples form a continuum."""
    network, _, _ = orthonormal_kkt(3, 3)
    data = HermiteData.from_weight_decay(network)
    equations = SetEquations(data, reduced_of(data), "free")
    terms, signs = draw_starts(equations, 4, 20, False, np.random.default_rng(3))
    terms, norms = minimise(equations, terms, signs, goal=1e-13)
    return equations, terms[norms < 1e-12], signs[norms < 1e-12]


class TestWalks:
    def test_tangents(self, square):
        equations, terms, signs = square
        moves = tangents(equations, terms[0], signs[0], 1e-10)
        assert moves.shape == (3, 4, 3)
        flat = moves.reshape(3, -1)
        np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-12)
        sizes = np.linalg.norm(terms[0], axis=1, keepdims=True)
        for move in moves:
            ends = terms[0] + 1e-5 * sizes * move
            assert np.linalg.norm(equations.residual(ends[None], signs[:1])) < 1e-8

    def test_walk_stays_on_solutions(self, square):
        equations, terms, signs = square
        seen = []

        def examine(z):
            seen.append(float(np.linalg.norm(equations.residual(z[None], signs[:1]))))
            return float(np.abs(z - terms[0]).max())

        found = walk(equations, terms[0], signs[0], examine, cut=1e-10)
        assert found.difference >= 0.3
        assert max(seen) < 1e-10

    def test_walk_turns_back_where_told(self, square):
        equations, terms, signs = square
        turned = reached = 0
        for start, sign in zip(terms[:8], signs[:8], strict=True):
            limit = start[0, 0] + 1e-12

            def examine(z, start=start, limit=limit):
                nonlocal turned
                turned += z[0, 0] > limit
                return -1.0 if z[0, 0] > limit else float(np.abs(z - start).max())

            found = walk(equations, start, sign, examine, cut=1e-10)
            if found is not None:
                reached += 1
                assert found.terms[0, 0] <= limit
        assert turned > 0
        assert reached > 4

    def test_no_walk_from_an_isolated_set(self):
        data = gradient_data(3)
        equations = SetEquations(data, reduced_of(data), "free")
        terms, signs = draw_starts(equations, 3, 30, False, np.random.default_rng(0))
        terms, norms = minimise(equations, terms, signs, goal=1e-13)
        best = int(np.argmin(norms))
        assert norms[best] < 1e-12
        assert walk(equations, terms[best], signs[best], lambda z: 1.0, cut=1e-10) is None

    def test_elimination(self, square):
        equations, terms, signs = square
        ends, kept, norms = eliminate(
            equations, terms, signs, limit=30, rng=np.random.default_rng(0)
        )
        assert ends.shape[1:] == (3, 3)
        assert np.count_nonzero(norms < 1e-12) >= 3
        assert equations.shrink == 0.0
        again = np.linalg.norm(equations.residual(ends, kept), axis=1)
        np.testing.assert_allclose(again, norms, atol=1e-12)
