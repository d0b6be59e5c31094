"""Pairs of training sets: every shown one is checked by plain loops."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from identify.alternatives.find import find_alternative
from identify.alternatives.pairs import _Search
from identify.alternatives.solvers import minimise, start_cost
from identify.budget import Budget
from identify.hermite.data import HermiteData
from identify.hermite.stationarity import stationarity
from identify.model.dataset import Dataset
from identify.model.two_layer import TwoLayerNetwork
from identify.tensors import symmetric_dimension
from tests.identify.alternatives.training_sets import (
    batch_gradient,
    check_pair,
    orthonormal_kkt,
    plain_difference,
    plain_residual,
    searched,
    stationary,
    unit_rows,
)
from tests.identify.families import undetermined


def descents(monkeypatch):
    """A list to which every descent from random starts adds its flops."""
    costs = []

    def counted(equations, terms, *rest, **options):
        costs.append(len(terms) * start_cost(equations, terms.shape[1]))
        return minimise(equations, terms, *rest, **options)

    monkeypatch.setattr("identify.alternatives.candidate_sets.minimise", counted)
    return costs


class TestKkt:
    """Orthonormal samples with one neuron each: as many equations as unknowns."""

    @pytest.mark.parametrize("n", [2, 3, 5, 8])
    def test_the_number_is_open(self, n):
        network, x, _ = orthonormal_kkt(n, n + 2)
        sets = find_alternative(network)
        check_pair(sets, network, network, source="kkt", counts=(n, n + 1))
        gaps = np.stack([np.linalg.norm(unit_rows(sets[0].samples)[:, None] - s * x, axis=2)
                         for s in (1.0, -1.0)]).min(axis=0)  # fmt: skip
        assert sorted(gaps.argmin(axis=1)) == list(range(n))
        assert gaps.min(axis=1).max() < 1e-8

    @pytest.mark.parametrize("samples", [4, 5, 6])
    def test_known_number(self, samples):
        network, _, _ = orthonormal_kkt(3, 5)
        sets = find_alternative(network, samples=samples)
        check_pair(sets, network, network, source="kkt", counts=(samples, samples))

    @pytest.mark.parametrize(("n", "d", "samples"), [(1, 3, 2), (2, 2, 4), (2, 4, 3), (3, 5, 5)])
    def test_unit_norms_tie_the_margins(self, n, d, samples):
        network, _, _ = orthonormal_kkt(n, d)
        sets = find_alternative(network, samples=samples, scale="unit")
        check_pair(sets, network, network, source="kkt", counts=(samples, samples))
        for found in sets:
            np.testing.assert_allclose(np.linalg.norm(found.samples, axis=1), 1.0, atol=1e-12)
            assert np.ptp(np.log(np.abs(network.value(found.samples)))) < 1e-6

    def test_a_tie_leaves_the_true_set_alone(self):
        network, _, _ = orthonormal_kkt(3, 5)
        assert find_alternative(network, scale="unit") == ()

    def test_a_single_neuron(self):
        network, _, _ = orthonormal_kkt(1, 4)
        sets = find_alternative(network)
        check_pair(sets, network, network, source="kkt", counts=(1, 2))
        assert find_alternative(network, samples=1) == ()
        line, _, _ = orthonormal_kkt(1, 1)
        assert find_alternative(line) == ()

    def test_fewer_samples_than_dimensions(self):
        network, _, _ = orthonormal_kkt(3, 5)
        assert find_alternative(network, samples=2) == ()

    def test_wrong_side_of_the_margin_is_refused(self):
        # The same network as a weight-decay point has no such condition.
        rng = np.random.default_rng(2)
        refused = 0
        for seed in range(6):
            x = unit_rows(rng.normal(size=(3, 4)))
            network = stationary(x, rng.choice([-1.0, 1.0], 3), 3, neurons=3, seed=seed)
            if np.linalg.matrix_rank(network.hidden_weight, tol=1e-9) < 3:
                continue
            decay = find_alternative(network, "weight-decay", samples=4, seed=seed)
            check_pair(decay, network, network, source="weight-decay", counts=(4, 4))
            for found in decay:
                refused += bool(np.any(found.coefficients * network.value(found.samples) <= 0.0))
            sets = find_alternative(network, "kkt", samples=4, seed=seed)
            if sets:
                check_pair(sets, network, network, source="kkt", counts=(4, 4))
        assert refused > 0


class TestCollapsed:
    """Stationary networks with as many neurons as dimensions, as training leaves them."""

    @pytest.mark.parametrize("degree", [3, 4, 5])
    @pytest.mark.parametrize("n", [2, 3, 4])
    def test_square_systems(self, degree, n):
        rng = np.random.default_rng([degree, n])
        signs = rng.choice([-1.0, 1.0], n) if degree % 2 else np.ones(n)
        network = stationary(
            unit_rows(rng.normal(size=(n, n + 2))), signs, degree, neurons=n, seed=1
        )
        r = np.linalg.matrix_rank(network.hidden_weight, tol=1e-9)
        sets = find_alternative(network, "weight-decay")
        check_pair(sets, network, network, source="weight-decay")
        assert {found.count for found in sets} <= {r, r + 1}
        for more in (1, 2):
            sets = find_alternative(network, "weight-decay", samples=r + more)
            check_pair(sets, network, network, source="weight-decay", counts=(r + more, r + more))

    def test_mixed_signs_at_degree_4(self):
        rng = np.random.default_rng(5)
        x = unit_rows(rng.normal(size=(3, 5)))
        patterns = set()
        for seed in range(4):
            network = stationary(x, np.array([1.0, 1.0, -1.0]), 4, neurons=3, seed=seed)
            sets = find_alternative(network, "weight-decay", seed=seed)
            if not sets:
                continue
            check_pair(sets, network, network, source="weight-decay")
            patterns |= {tuple(sorted(np.sign(found.coefficients))) for found in sets}
        assert any(-1.0 in pattern and 1.0 in pattern for pattern in patterns)

    def test_a_trained_network(self):
        from tests.identify.families import train_stationary

        rng = np.random.default_rng(3)
        x = unit_rows(rng.normal(size=(5, 8)))
        targets = rng.choice([-1.0, 1.0], 5)
        network = train_stationary(x, targets, 3, 10.0**-2, 6, rng)
        assert network is not None
        data = HermiteData.from_weight_decay(network, 10.0**-2)
        b = (targets - network.value(x)) / 5
        assert stationarity(data, x, b) < 1e-9
        assert np.linalg.matrix_rank(network.hidden_weight, tol=1e-6) < 5
        known = find_alternative(network, "weight-decay", samples=5)
        check_pair(known, network, network, source="weight-decay", counts=(5, 5))
        own, moved = find_alternative(network, "weight-decay", start=Dataset(x), decay=10.0**-2)
        np.testing.assert_allclose(own.coefficients, b, rtol=1e-6)
        np.testing.assert_allclose(moved.coefficients, own.coefficients)
        np.testing.assert_allclose(np.linalg.norm(moved.samples, axis=1), 1.0, rtol=1e-12)
        np.testing.assert_allclose(network.value(moved.samples), network.value(x), rtol=1e-9)
        assert moved.stationarity < 1e-9
        assert plain_difference(own.samples, moved.samples) > 0.1

    def test_bias(self):
        rng = np.random.default_rng(1)
        for seed in range(3):
            x = unit_rows(rng.normal(size=(3, 5)))
            network = stationary(x, np.ones(3), 3, neurons=3, seed=seed, bias=True)
            r = np.linalg.matrix_rank(network.points, tol=1e-9)
            sets = find_alternative(network, "weight-decay", samples=r + 1, seed=seed)
            check_pair(
                sets, network, network, source="weight-decay", counts=(r + 1, r + 1),
                directions=False,
            )  # fmt: skip
            first, second = (found.samples for found in sets)
            assert (
                min(
                    np.max(np.linalg.norm(first - second[list(order)], axis=1))
                    for order in permutations(range(r + 1))
                )
                >= 0.1 * np.linalg.norm(first, axis=1).min()
            )


class TestLarger:
    """No set of as many samples as dimensions: larger ones, and where they prove nothing."""

    @pytest.mark.parametrize("seed", [253, 1048, 1438])
    def test_trained_networks_without_a_set_of_r(self, seed):
        # Three and four live cubic neurons, as many equations as r samples have unknowns.
        case = undetermined(seed)
        assert case.family == "trained"
        network = case.data.network
        r = np.linalg.matrix_rank(network.hidden_weight, tol=1e-9)
        sets = find_alternative(network, "weight-decay")
        check_pair(sets, network, network, source="weight-decay", counts=(r + 1, r + 1))

    @pytest.mark.parametrize(
        "seed", [619, *(pytest.param(s, marks=pytest.mark.slow) for s in (379, 1114))]
    )
    def test_a_set_that_is_overlooked_may_be_the_only_one(self, seed, monkeypatch):
        # More quartic samples than dimensions, few enough to be unique.
        case = undetermined(seed)
        assert case.family == "n > d"
        r, n = case.samples.shape[1], len(case.samples)
        assert n * r < symmetric_dimension(4, r)
        assert searched(case.data) is None
        monkeypatch.setattr(_Search, "number_open", lambda self, needed: True)
        assert searched(case.data)[0].count > n

    @pytest.mark.parametrize("degree", [3, 4, 5])
    def test_planted_sets_that_are_unique(self, degree):
        # rank H < N, but more equations than the true set has unknowns.
        for seed in range(6):
            r = 5 + seed % 2 if degree == 3 else 3 + seed % 3
            network, _, _, gradient = batch_gradient(r + 1, r, r + 2, degree, seed=seed)
            assert searched(HermiteData.from_gradient(network, gradient)) is None


class TestGradients:
    @pytest.mark.parametrize(
        ("m", "n", "d", "degree", "bias", "smaller"),
        [(2, 5, 3, 3, False, True), (3, 5, 6, 3, True, True), (3, 6, 6, 4, False, False),
         (6, 20, 10, 3, False, True)],
    )  # fmt: skip
    def test_batch_larger_than_the_width(self, m, n, d, degree, bias, smaller):
        network, _, _, gradient = batch_gradient(m, n, d, degree, bias=bias)
        options = {"gradient": gradient}
        if smaller:  # as few samples as neurons explain the gradient, too
            sets = find_alternative(network, "gradient", **options)
            check_pair(sets, network, gradient, source="gradient", directions=not bias)
            assert sets[0].count == m
            assert sets[1].count in (m, m + 1)
        sets = find_alternative(network, "gradient", samples=n, **options)
        check_pair(sets, network, gradient, source="gradient", counts=(n, n), directions=not bias)

    @pytest.mark.parametrize("bias", [False, True])
    def test_known_loss(self, bias):
        network, _, _, gradient = batch_gradient(3, 6, 6, 3, bias=bias)
        sets = find_alternative(
            network, "gradient", samples=6, gradient=gradient, loss="logistic",
            scale="auto" if bias else "unit",
        )  # fmt: skip
        check_pair(sets, network, gradient, source="gradient", counts=(6, 6), directions=not bias)
        for found in sets:
            y = -np.sign(found.coefficients)
            ratio = np.abs(found.coefficients) * (1 + np.exp(y * network.value(found.samples)))
            np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
            if not bias:
                np.testing.assert_allclose(np.linalg.norm(found.samples, axis=1), 1.0, rtol=1e-12)

    def test_two_cubes_are_three(self):
        # Determined, a sum of r terms, and redundant: only a stated number asks for more.
        network, _x, _b, gradient = batch_gradient(12, 4, 6, 3)
        assert find_alternative(network, "gradient", gradient=gradient) == ()
        sets = find_alternative(network, "gradient", samples=5, gradient=gradient)
        check_pair(sets, network, gradient, source="gradient", counts=(5, 5))

    def test_directions_that_no_neuron_sees(self):
        network, _, _, gradient = batch_gradient(1, 3, 4, 4)
        sets = find_alternative(network, "gradient", gradient=gradient)
        check_pair(sets, network, gradient, source="gradient", counts=(1, 2))
        sets = find_alternative(network, "gradient", samples=2, gradient=gradient)
        check_pair(sets, network, gradient, source="gradient", counts=(2, 2))

    def test_neurons_without_a_vector(self):
        network, x, b, _ = batch_gradient(9, 3, 6, 3)
        output = network.output_weight.copy()
        output[:2] = 0.0
        network = TwoLayerNetwork(network.hidden_weight, output, 3)
        gradient = network.gradient(x, b)
        sets = find_alternative(network, "gradient", samples=4, gradient=gradient)
        check_pair(sets, network, gradient, source="gradient", counts=(4, 4))


class TestDetermined:
    """Where the samples are determined the search must come back empty."""

    @pytest.mark.parametrize("degree", [3, 4, 5])
    @pytest.mark.parametrize("r", [3, 5])
    def test_gradients(self, degree, r):
        m = int(1.4 * symmetric_dimension(degree, r) / r) + 2
        network, _, _, gradient = batch_gradient(m, r, r + 3, degree)
        data = HermiteData.from_gradient(network, gradient)
        assert searched(data) is None
        assert searched(data, samples=r) is None
        if degree > 3:
            assert searched(data, samples=r + 1) is None

    @pytest.mark.parametrize("samples", [None, 4])
    def test_planted(self, samples):
        rng = np.random.default_rng(0)
        x = np.linalg.qr(rng.normal(size=(6, 4)))[0].T
        network = stationary(x, np.ones(4), 3)
        data = HermiteData.from_weight_decay(network)
        assert searched(data, samples=samples) is None

    def test_low_rank_recovery(self):
        # rank H < N, but above n r: the true set is alone among sets of its size.
        network, _, _, gradient = batch_gradient(8, 5, 8, 4)
        data = HermiteData.from_gradient(network, gradient)
        assert searched(data) is None
        assert searched(data, samples=5) is None

    def test_more_samples_than_dimensions(self):
        # Nine quartic terms in six dimensions are unique; larger sets reduce to them.
        rng = np.random.default_rng(0)
        network = TwoLayerNetwork(rng.normal(size=(60, 6)), rng.normal(size=60), 4)
        x = unit_rows(rng.normal(size=(9, 6)))
        gradient = network.gradient(x, rng.normal(size=9))
        data = HermiteData.from_gradient(network, gradient)
        assert searched(data) is None


class TestSearch:
    def test_repeatable(self):
        network, _, _ = orthonormal_kkt(3, 5)
        first, second = (find_alternative(network, samples=5, seed=7) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.samples, other.samples)

    def test_deadline(self, monkeypatch):
        network, _, _, gradient = batch_gradient(8, 8, 10, 3)
        data = HermiteData.from_gradient(network, gradient)
        costs = descents(monkeypatch)
        assert searched(data, budget=Budget(float("-inf"))) is None
        assert costs == []

    def test_large_problems_are_left_alone(self, monkeypatch):
        network, _, _, gradient = batch_gradient(40, 60, 70, 3)
        costs = descents(monkeypatch)
        assert searched(HermiteData.from_gradient(network, gradient)) is None
        assert costs == []

    def test_the_work_of_a_search_fits_its_budget(self, monkeypatch):
        network, _, _, gradient = batch_gradient(8, 8, 10, 3)
        costs = descents(monkeypatch)
        searched(HermiteData.from_gradient(network, gradient))
        assert 0.0 < sum(costs) <= 1e10

    def test_progress(self):
        network, _, _, gradient = batch_gradient(3, 6, 6, 4)
        seen = []
        data = HermiteData.from_gradient(network, gradient)
        searched(data, samples=6, budget=Budget(progress=lambda *what: seen.append(what)))
        assert seen
        assert all("6 samples" in stage and 0.0 <= share <= 1.0 for stage, share in seen)

    def test_shown_pairs_of_the_undetermined_families(self):
        from identify.assess import assess_identifiability
        from identify.records import Verdict

        shown = 0
        for seed in range(30):
            case = undetermined(seed)
            report = assess_identifiability(case.data, **case.options)
            if report.verdict is not Verdict.NONIDENTIFIABLE:
                continue
            shown += 1
            data = case.data
            goal = data.network if data.homogeneous else data.target
            level = max(1e-10, 2.0 * report.noise_level)
            first, second = report.alternatives
            for found in (first, second):
                exact = plain_residual(data.network, goal, found.samples, found.coefficients)
                assert exact <= level, case.family
            if first.count == second.count <= 6:
                assert plain_difference(first.samples, second.samples) >= 0.1
        assert shown >= 10
