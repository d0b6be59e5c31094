"""Membership by row spaces: members fit, others leave no trace, what cannot tell says so."""

from __future__ import annotations

import numpy as np
import pytest

from identify.errors import InvalidInputError
from identify.exposure.batch_members import GivenSamples, gradient_members
from identify.exposure.membership import LayerMemory, Membership, Traces, find_members
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope
from tests.identify.checkpoints.training import start

MEMBER, NONE, OPEN = Membership.MEMBER, Membership.NO_TRACE, Membership.UNDECIDED


def batch(sizes, count, seed, activation="relu"):
    rng = np.random.default_rng(seed)
    network = start(sizes, rng, activation)
    x = rng.random((count + 6, sizes[0]))
    y = rng.integers(0, sizes[-1], count + 6).astype(float)
    slopes = loss_slope("cross_entropy", network.value(x[:count]), y[:count]) / count
    return network, network.gradient(x[:count], slopes), GivenSamples(x, y)


def rounded(gradient, dtype):
    def cast(array):
        return None if array is None else array.astype(dtype).astype(np.float64)

    return DeepGradient([cast(w) for w in gradient.weights], [cast(b) for b in gradient.biases])


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "monomial:3"])
@pytest.mark.parametrize(("sizes", "count"), [((40, 30, 10), 5), ((30, 50, 40, 10), 12)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_members_and_others_are_told_apart(sizes, count, activation, dtype):
    for seed in range(3):
        network, gradient, everyone = batch(sizes, count, seed, activation)
        for loss in (None, "cross_entropy"):
            found = gradient_members(network, rounded(gradient, dtype), everyone, loss=loss)
            assert found.answers == (MEMBER,) * count + (NONE,) * 6


def test_a_wrong_label_does_not_fit_the_backward_pass():
    network, gradient, everyone = batch((40, 30, 10), 4, 0)
    wrong = GivenSamples(everyone.samples, (everyone.labels + 1) % 10)
    assert gradient_members(network, gradient, wrong).members == 4
    found = gradient_members(network, gradient, wrong, loss="cross_entropy")
    assert found.answers == (OPEN,) * 4 + (NONE,) * 6
    assert "label" in found.reason


def test_a_mixture_of_members_lies_in_the_space_and_its_backward_pass_does_not():
    network, gradient, everyone = batch((40, 30, 10), 4, 1)
    mean = everyone.samples[:4].mean(axis=0, keepdims=True)
    first = gradient_members(network, gradient, GivenSamples(mean), first_layer=True)
    assert first.answers == (MEMBER,)
    found = gradient_members(network, gradient, GivenSamples(mean))
    assert found.answers == (OPEN,)
    assert "mixtures" in found.reason


@pytest.mark.parametrize("count", [30, 41, 60])
def test_a_batch_as_large_as_the_layers_cannot_be_told(count):
    network, gradient, everyone = batch((40, 30, 30, 10), count, 2)
    found = gradient_members(network, gradient, everyone)
    assert set(found.answers) == {OPEN}
    assert "Cannot tell" in found.reason


def test_an_output_layer_of_fewer_classes_than_samples_is_not_used():
    network, gradient, everyone = batch((40, 30, 10), 14, 3)
    found = gradient_members(network, gradient, everyone)
    assert [layer.used for layer in found.layers] == [True, False]
    assert found.members == 14


def test_a_layer_without_a_gap_forbids_the_layers_of_a_smaller_rank():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(6, 1, 20))
    small = LayerMemory("small", rng.normal(size=(15, 3)) @ x[:3, 0], Traces(x))
    full = LayerMemory("full", rng.normal(size=(15, 20)), Traces(x))
    assert find_members([small]).members == 3
    assert set(find_members([small, full]).answers) == {OPEN}


def test_noise_widens_what_counts_as_a_member():
    network, gradient, everyone = batch((60, 80, 10), 5, 5)
    rng = np.random.default_rng(0)

    def noisy(array):
        size = 1e-4 * np.sqrt(np.mean(array**2))
        return array + rng.normal(scale=size, size=array.shape)

    moved = DeepGradient([noisy(w) for w in gradient.weights], [noisy(b) for b in gradient.biases])
    found = gradient_members(network, moved, everyone, noise=1e-4, first_layer=True)
    assert found.answers == (MEMBER,) * 5 + (NONE,) * 6


def test_held_out_samples_give_p_values_and_can_forbid_the_answer():
    network, gradient, everyone = batch((40, 30, 10), 4, 6)
    others = GivenSamples(np.random.default_rng(1).random((19, 40)))
    found = gradient_members(network, gradient, everyone, held_out=others)
    assert found.members == 4
    assert np.all(found.p_values[:4] == 1 / 20)
    assert np.all(found.p_values[4:] > 1 / 20)
    same = gradient_members(network, gradient, everyone, held_out=everyone)
    assert same.members == 0
    assert "held-out samples fit" in same.reason


def test_all_positions_of_a_member_fit():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(5, 3, 30))
    change = rng.normal(size=(25, 6)) @ x[:2].reshape(6, 30)
    x[2, 0], x[3, :2] = x[0, 0], x[0, 1:]
    found = find_members([LayerMemory("fc", change, Traces(x))])
    # Two of three positions of another sample say neither.
    assert found.answers == (MEMBER, MEMBER, NONE, OPEN, NONE)


def test_the_wrong_activation_is_no_proof_of_absence():
    network, gradient, everyone = batch((40, 50, 40, 10), 5, 9, "gelu")
    other = DeepNetwork(network.weights, network.biases, "tanh")
    found = gradient_members(other, gradient, everyone)
    assert found.answers == (OPEN,) * 5 + (NONE,) * 6
    assert "activation" in found.reason


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_multiples_of_a_member_without_biases(factor):
    rng = np.random.default_rng(10)
    network = start((40, 50, 40, 10), rng, "gelu")
    network = DeepNetwork(network.weights, None, "gelu")
    x = rng.random((5, 40))
    gradient = network.gradient(x, rng.normal(size=(5, 10)))
    found = gradient_members(network, gradient, GivenSamples(factor * x))
    assert set(found.answers) == {OPEN}


def test_a_gradient_of_zeros_tells_nothing():
    found = find_members([LayerMemory("fc", np.zeros((3, 4)), Traces(np.ones((2, 1, 4))))])
    assert found.answers == (OPEN, OPEN)
    assert "None" not in str(found)
    assert found.to_dict()["samples"][0]["score"] is None


def test_wrong_shapes_are_refused():
    network, gradient, _ = batch((40, 30, 10), 4, 8)
    with pytest.raises(InvalidInputError, match="40"):
        gradient_members(network, gradient, GivenSamples(np.zeros((2, 39))))
    with pytest.raises(InvalidInputError, match="layers"):
        find_members([])
    with pytest.raises(InvalidInputError):
        LayerMemory("fc", np.ones((3, 4)), Traces(np.ones((2, 1, 5))))
