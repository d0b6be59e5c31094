"""Which training sets may be shown, and when two of them differ."""

from __future__ import annotations

import numpy as np
import pytest

from identify.alternatives.admissible import SetRules, largest_difference
from identify.alternatives.equations import SetEquations
from identify.alternatives.solvers import polish
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from tests.identify.alternatives.training_sets import orthonormal_kkt, plain_difference, searched

FREE, UNIT = Assumptions(scale="free"), Assumptions(scale="unit")


class TestDifference:
    @pytest.mark.parametrize("n", [1, 2, 4, 5])
    def test_bottleneck_matching(self, n):
        rng = np.random.default_rng(n)
        for _ in range(20):
            first, second = rng.normal(size=(2, n, 3))
            expected = plain_difference(first, second)
            assert largest_difference(first, second) == pytest.approx(expected, abs=1e-12)

    def test_symmetries(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(5, 4))
        image = x[rng.permutation(5)] * rng.normal(size=(5, 1))
        assert largest_difference(x, image) < 1e-13
        assert largest_difference(x, image, directions=False) > 0.1
        assert largest_difference(x, x[::-1], directions=False) == 0.0
        assert largest_difference(x, x[:4]) == np.inf


class TestRules:
    @pytest.fixture
    def case(self):
        network, x, b = orthonormal_kkt(3, 3)
        data = HermiteData.from_kkt(network)
        found = measure(data, Assumptions(scale="free"))
        terms = np.cbrt(b / found.reduced.tensor_scale)[:, None] * (x @ found.reduced.basis)
        return data, found.reduced, terms

    def test_the_truth_is_accepted(self, case):
        data, reduced, terms = case
        shown = SetRules(data, 1e-13, FREE).accept(reduced, terms, np.ones(3))
        assert shown.stationarity < 1e-13

    @pytest.mark.parametrize(
        "change",
        [
            lambda z: 1.001 * z,  # not stationary
            lambda z: np.vstack([0.5 ** (1 / 3) * z[:1], 0.5 ** (1 / 3) * z[:1], z[1:]]),
            lambda z: np.vstack([z[:1], np.full((1, 3), np.nan), z[2:]]),
        ],
        ids=["stationarity", "parallel", "nan"],
    )
    def test_broken_sets(self, case, change):
        data, reduced, terms = case
        terms = change(terms)
        rules = SetRules(data, 1e-13, FREE)
        assert rules.accept(reduced, terms, np.ones(len(terms))) is None

    def test_a_sample_that_vanishes(self, case):
        data, reduced, terms = case
        equations = SetEquations(data, reduced, "free")
        for size, accepted in ((1e-5, True), (1e-7, False)):
            small = np.cbrt(size) * np.linalg.norm(terms[0]) * np.full((1, 3), 3**-0.5)
            if equations.outputs(small)[0] < 0.0:
                small = -small
            more, norm = polish(equations, np.vstack([terms, small]), np.ones(4))
            assert norm < 1e-13
            found = SetRules(data, 1e-13, FREE).accept(reduced, more, np.ones(4))
            assert (found is not None) == accepted

    def test_unequal_margins(self, case):
        data, reduced, terms = case
        small = 0.5 * np.linalg.norm(terms[0]) * np.array([[0.6, 0.8, 0.0]])
        equations = SetEquations(data, reduced, "free")
        if equations.outputs(small)[0] < 0.0:
            small = -small
        more, _ = polish(equations, np.vstack([terms, small]), np.ones(4))
        assert SetRules(data, 1e-13, FREE).accept(reduced, more, np.ones(4)) is not None
        assert SetRules(data, 1e-13, UNIT).accept(reduced, more, np.ones(4)) is None

    def test_a_weak_sample_beside_a_strong_one(self, case):
        data, reduced, terms = case
        aside = terms[0] + 1e-4 * terms[1]
        weak = 1e-5 ** (1 / 3) * aside
        strong = (1 - 1e-5) ** (1 / 3) * terms[0] - 1e-9 / 3 * terms[1]
        ghost = np.vstack([strong, terms[1:], weak])
        assert SetRules(data, 1e-13, FREE).accept(reduced, ghost, np.ones(4)) is None

    def test_non_negative(self):
        eye = np.eye(3)
        network = TwoLayerNetwork(3.0**-0.5 * eye, np.full(3, 3.0**-1), degree=3)
        data = HermiteData.from_weight_decay(network)
        found = measure(data, Assumptions(scale="free"))
        rules = SetRules(data, 1e-13, Assumptions(non_negative=True))
        terms = np.cbrt(3.0**0.5 / found.reduced.tensor_scale) * (eye @ found.reduced.basis)
        assert rules.accept(found.reduced, terms, np.ones(3)).samples.min() == 0.0
        sets = searched(data, samples=4)
        assert min(found.samples.min() for found in sets) < -1e-3
        positive = searched(data, samples=4, non_negative=True)
        assert len(positive) == 2
        assert min(found.samples.min() for found in positive) >= -1e-9
