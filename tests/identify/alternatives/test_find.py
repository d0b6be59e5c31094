"""The public entry: sets from the weights, sets from given data, files."""

from __future__ import annotations

import numpy as np
import pytest

from identify.alternatives.find import find_alternative, save_alternatives
from identify.errors import FileError, InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.stationarity import stationarity
from identify.model.dataset import Dataset
from identify.model.two_layer import TwoLayerNetwork
from identify.records import TrainingSet
from tests.identify.alternatives.training_sets import (
    batch_gradient,
    check_pair,
    orthonormal_kkt,
    plain_difference,
    stationary,
    unit_rows,
)


class TestFromData:
    def test_multipliers_and_reflection(self):
        rng = np.random.default_rng(8)
        x = unit_rows(rng.normal(size=(5, 9)))
        network = stationary(x, np.ones(5), 3, neurons=3)
        own, other = find_alternative(network, "weight-decay", start=Dataset(x))
        check_pair((own, other), network, network, source="weight-decay", counts=(5, 5))
        np.testing.assert_allclose(own.coefficients, other.coefficients)

    def test_inactive_samples_are_left_out(self):
        network, x, b = orthonormal_kkt(3, 6)
        rng = np.random.default_rng(9)
        labels = np.append(np.sign(b), [1.0, -1.0])
        start = Dataset(np.vstack([x, rng.normal(size=(2, 6))]), labels)
        own, other = find_alternative(network, start=start)
        assert (own.count, other.count) == (3, 4)
        np.testing.assert_allclose(own.coefficients, b, rtol=1e-10)
        check_pair((own, other), network, network, source="kkt")
        zero_one = Dataset(start.samples, (labels + 1.0) / 2.0)
        again, _ = find_alternative(network, start=zero_one)
        np.testing.assert_allclose(again.coefficients, own.coefficients)

    def test_data_that_nearly_explain_the_weights_are_refused(self):
        network, x, _ = orthonormal_kkt(3, 6)
        rng = np.random.default_rng(4)
        for size in (1e-3, 1e-6, 1e-9):
            start = Dataset(x + size * rng.normal(size=x.shape))
            with pytest.raises(InvalidInputError, match=r"to 1\.0e-10"):
                find_alternative(network, start=start)
        rough = Dataset(x + 1e-6 * rng.normal(size=x.shape))
        sets = find_alternative(network, start=rough, noise=1e-5)
        assert len(sets) == 2
        assert all(found.stationarity <= 2e-5 for found in sets)

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"non_negative": True}, "none is negative"), ({"scale": "unit"}, "where all are 1")],
    )
    def test_data_that_break_an_assumption_are_refused(self, options, words):
        network, x, _ = orthonormal_kkt(3, 6)
        with pytest.raises(InvalidInputError, match=words):
            find_alternative(network, start=Dataset(2.0 * x), **options)

    def test_full_span_leaves_nothing(self):
        network, x, _b, gradient = batch_gradient(8, 3, 5, 3)
        assert find_alternative(network, "gradient", gradient=gradient, start=Dataset(x)) == ()

    @pytest.mark.parametrize(
        ("start", "words"),
        [
            (Dataset(np.eye(6)[:2]), "samples that explain the weights"),
            (Dataset(np.ones((2, 5))), "dimension 6"),
            (Dataset(np.eye(6)[:2], np.array([3.0, 7.0])), "-1 and 1"),
        ],
    )
    def test_foreign_data(self, start, words):
        network, _, _ = orthonormal_kkt(3, 6)
        with pytest.raises(InvalidInputError, match=words):
            find_alternative(network, start=start)


class TestArguments:
    @pytest.mark.parametrize("distance", [0.0, -1.0, np.nan, np.inf])
    def test_a_distance_is_positive(self, distance):
        network, x, _ = orthonormal_kkt(2, 3)
        with pytest.raises(InvalidInputError, match="distance"):
            find_alternative(network, start=Dataset(x), distance=distance)

    def test_unknown_words(self):
        network, _, _ = orthonormal_kkt(2, 3)
        with pytest.raises(InvalidInputError, match="norms, box, count, margins"):
            find_alternative(network, keep=("labels",))

    @pytest.mark.parametrize(
        ("source", "options", "words"),
        [
            ("sgd", {}, "source"),
            ("gradient", {}, "gradient"),
            ("fine-tuning", {}, "initial"),
            ("kkt", {"samples": 0}, "samples"),
            ("kkt", {"scale": "bias"}, "scale"),
        ],
    )
    def test_invalid(self, source, options, words):
        network, _, _ = orthonormal_kkt(2, 3)
        with pytest.raises(InvalidInputError, match=words):
            find_alternative(network, source, **options)

    def test_fine_tuning(self):
        initial, _x, _b, step = batch_gradient(3, 5, 6, 3)
        final = TwoLayerNetwork(
            initial.hidden_weight + 1e-7 * step.hidden_weight,
            initial.output_weight + 1e-7 * step.output_weight,
            3,
        )
        sets = find_alternative(final, "fine-tuning", initial=initial, samples=5)
        data = HermiteData.from_fine_tuning(initial, final)
        for found in sets:
            assert stationarity(data, found.samples, found.coefficients) < 1e-5
        assert plain_difference(sets[0].samples, sets[1].samples) >= 0.1


class TestFiles:
    def test_round_trip(self, tmp_path):
        network, _, _ = orthonormal_kkt(2, 4)
        sets = find_alternative(network)
        save_alternatives(tmp_path / "alternatives.npz", sets)
        with np.load(tmp_path / "alternatives.npz") as stored:
            assert sorted(stored) == [
                "coefficients_1", "coefficients_2", "samples_1", "samples_2",
            ]  # fmt: skip
            for number, found in enumerate(sets, 1):
                np.testing.assert_array_equal(stored[f"samples_{number}"], found.samples)
                np.testing.assert_array_equal(stored[f"coefficients_{number}"], found.coefficients)

    def test_refusals(self, tmp_path):
        with pytest.raises(InvalidInputError, match="at least one"):
            save_alternatives(tmp_path / "a.npz", ())
        found = TrainingSet(np.eye(2), np.ones(2), 0.0)
        with pytest.raises(FileError, match="cannot be written"):
            save_alternatives(tmp_path / "absent" / "a.npz", (found,))
