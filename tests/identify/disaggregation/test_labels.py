"""Labels and the check of the loss for losses on several outputs."""

from __future__ import annotations

import numpy as np
import pytest

from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.records import GLOBALLY, UNDECIDED
from identify.model.losses import loss_slope

from .problems import Planted, change, initialise, plant

SHAPES = [
    ([12, 160, 3], 4, 0),
    ([16, 24, 220, 5], 4, 1),
    ([14, 260, 10], 3, 2),
    ([12, 90, 2], 4, 3),
]


def planted(sizes, count, seed, loss, targets=None, factor=1.0) -> Planted:
    """The gradient of a batch with that loss; one-hot targets, -1 and 1 for logistic."""
    rng = np.random.default_rng(seed)
    network = initialise(sizes, rng)
    samples = rng.normal(size=(count, sizes[0]))
    labels = rng.integers(0, sizes[-1], count)
    wanted = np.eye(sizes[-1])[labels] if targets is None else targets(rng, (count, sizes[-1]))
    if loss == "logistic" and targets is None:
        wanted = 2.0 * wanted - 1.0
    p = factor * loss_slope(loss, network.value(samples), wanted) / count
    return Planted(network, network.gradient(samples, p), samples, p, labels, loss)


def order_of(result, problem):
    apart = np.linalg.norm(result.samples[:, None] - problem.samples, axis=2)
    return apart.argmin(axis=0)


def known_loss(result):
    return next(check for check in result.checks if check.name == "known loss")


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize(("sizes", "count", "seed"), SHAPES)
def test_labels_of_several_outputs_are_read_and_the_loss_is_checked(sizes, count, seed, loss):
    # Torch's mean over all entries, twice the square: a factor that is the same for all samples.
    problem = planted(sizes, count, seed, loss, factor=2.0 / sizes[-1])
    result = disaggregate(problem.network, problem.gradient, loss)
    assert result.verdict == GLOBALLY, result.reason
    np.testing.assert_array_equal(result.labels[order_of(result, problem)], problem.labels)
    assert result.label_confidence.min() > 3
    check = known_loss(result)
    assert check.holds
    assert check.equations == count * sizes[-1] - 1
    np.testing.assert_allclose(result.counts, 1.0, rtol=1e-5)


@pytest.mark.parametrize(("sizes", "count", "seed"), SHAPES)
@pytest.mark.parametrize(("true", "said"), [("logistic", "squared"), ("cross_entropy", "logistic")])
def test_another_loss_is_not_confirmed(sizes, count, seed, true, said):
    problem = planted(sizes, count, seed, "squared")
    targets = problem.labels
    if true == "logistic":
        targets = 2.0 * np.eye(sizes[-1])[targets] - 1.0
    p = loss_slope(true, problem.network.value(problem.samples), targets) / count
    result = disaggregate(problem.network, problem.network.gradient(problem.samples, p), said)
    check = known_loss(result)
    if said == "squared":
        # Any slopes fit some targets: nothing speaks against the loss.
        assert (check.holds, check.value, result.labels) == (None, None, None)
        assert "one-hot" in check.note
    else:
        assert check.holds is False
        assert result.verdict == UNDECIDED


def several(rng, shape):
    return rng.choice([-1.0, 1.0], shape)


@pytest.mark.parametrize("seed", range(3))
def test_several_positive_outputs_have_no_class_and_a_checked_loss(seed):
    problem = planted([14, 260, 6], 4, seed, "logistic", several)
    result = disaggregate(problem.network, problem.gradient, "logistic")
    assert result.labels is None
    assert known_loss(result).holds
    signs = -np.sign(result.cotangents[order_of(result, problem)])
    np.testing.assert_array_equal(signs, -np.sign(problem.cotangents))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outputs", [1, 4])
def test_squared_loss_with_other_targets_claims_no_labels(seed, outputs):
    def real(rng, shape):
        return rng.normal(size=shape)

    problem = planted([12, 170, outputs], 4, seed, "squared", real)
    result = disaggregate(problem.network, problem.gradient, "squared")
    assert result.verdict == GLOBALLY, result.reason
    assert result.labels is None
    assert known_loss(result).holds is None
    assert "any" in known_loss(result).note


@pytest.mark.parametrize(("sizes", "count", "seed"), SHAPES[:3])
@pytest.mark.parametrize("factor", [-1.0, -0.03])
def test_an_update_in_place_of_a_gradient_names_no_label(sizes, count, seed, factor):
    problem = plant(sizes, count, seed)
    whole = disaggregate(problem.network, problem.gradient, "cross_entropy")
    assert whole.labels is not None
    assert sorted(whole.labels) == sorted(problem.labels)
    flipped = change(problem.gradient, lambda part: factor * part)
    found = disaggregate(problem.network, flipped, "cross_entropy")
    assert found.verdict == UNDECIDED
    assert found.labels is None
    assert known_loss(found).holds is False
    assert "change its sign" in known_loss(found).note
