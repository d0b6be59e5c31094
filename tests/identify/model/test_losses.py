"""The names of losses, one mapping for every command and function."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attack.objectives.cotangents import LossReadout
from attack.training.descent import DescentSettings
from attack.training.losses import LOSSES as TRAINED
from attack.training.losses import prepare_labels
from identify.assess_batch import assess_gradient
from identify.checkpoints.recipe import Recipe, parse_recipe
from identify.errors import InvalidInputError
from identify.exposure.batch_members import GivenSamples, gradient_members
from identify.hermite.data import HermiteData
from identify.model.deep import DeepNetwork
from identify.model.losses import LOSSES, loss_slope, read_loss
from tests.command_line import kkt, random_network

SPELLINGS = {
    "cross_entropy": ("cross_entropy", "cross-entropy", "CrossEntropyLoss", "CE", "nll_loss",
                      "torch.nn.functional.cross_entropy", "categorical_crossentropy"),
    "logistic": ("logistic", "bce", "BCELoss", "BCEWithLogitsLoss", "binary cross-entropy",
                 "nn.BCEWithLogitsLoss", "logistic_loss"),
    "squared": ("squared", "mse", "MSELoss", "mse_loss", "mean_squared_error", "L2"),
}  # fmt: skip
EVERY = [(name, text) for name, texts in SPELLINGS.items() for text in texts]


@pytest.mark.parametrize(("name", "text"), EVERY)
def test_a_loss_has_many_spellings(name, text):
    assert read_loss(text) == name
    assert read_loss(text, TRAINED) == name.replace("_", "-")


@pytest.mark.parametrize("text", ["", "loss", "l1", "hinge", "entropy", "cross", 3, None, "bcee"])
def test_other_words_are_no_loss(text):
    with pytest.raises(InvalidInputError, match="cross_entropy, logistic, squared"):
        read_loss(text)


def test_every_entrance_takes_them():
    assert DescentSettings(loss="CrossEntropyLoss").loss == "cross-entropy"
    assert LossReadout("MSELoss").loss == "squared"
    assert Recipe(1, 0.1, loss="cross-entropy").loss == "cross_entropy"
    assert parse_recipe("steps=1,rate=0.1,loss=BCELoss").loss == "logistic"
    labels = prepare_labels("cross_entropy", [0, 1], 2, 3, torch.zeros(1))
    assert labels.dtype == torch.int64
    network = random_network()
    data = HermiteData.from_weight_decay(network, loss="binary_cross_entropy")
    assert data.loss == "logistic"
    f = np.array([[0.2, -0.1]])
    assert np.array_equal(loss_slope("ce", f, [0]), loss_slope("cross_entropy", f, [0]))


def test_gradients_and_members_take_them():
    rng = np.random.default_rng(0)
    net = DeepNetwork([rng.normal(size=(60, 9)), rng.normal(size=(3, 60))], None, "relu")
    x, y = rng.normal(size=(3, 9)), np.array([0, 1, 2])
    gradient = net.gradient(x, loss_slope("cross_entropy", net.value(x), y) / 3)
    named = [assess_gradient(net, gradient, loss) for loss in ("cross_entropy", "CrossEntropyLoss")]
    assert [report.problem["loss"] for report in named] == ["cross_entropy"] * 2
    assert (
        gradient_members(net, gradient, GivenSamples(x, y), loss="CE").answers[0].value == "member"
    )


@pytest.mark.parametrize(("loss", "name"), [("squared", "MSELoss"), ("logistic", "BCELoss")])
def test_an_average_over_the_outputs_is_named(loss, name):
    rng = np.random.default_rng(1)
    sizes = ((90, 9), (4, 90))
    net = DeepNetwork(
        [rng.normal(size=size) for size in sizes], [rng.normal(size=m) for m, _ in sizes], "relu"
    )
    x, y = rng.normal(size=(3, 9)), np.eye(4)[[0, 1, 2]]
    y = y if loss == "squared" else 2.0 * y - 1.0
    factor = (2.0 if loss == "squared" else 1.0) / 12.0
    gradient = net.gradient(x, factor * loss_slope(loss, net.value(x), y))
    assert assess_gradient(net, gradient, loss).verdict == "globally"
    said = assess_gradient(net, gradient, loss, reduction="mean")
    assert said.verdict == "undecided"
    assert f"as torch's {name} makes them: leave reduction out" in str(said)


@pytest.mark.parametrize("command", ["verify", "recover", "audit", "alternatives", "check"])
def test_options_take_them_in_any_case(tmp_path, command):
    beside = {"audit": ["d.npz"], "check": ["m.npz"]}.get(command, [])
    for option, word in (("--loss", "CrossEntropyLoss"), ("--source", "Weight_Decay")):
        said = kkt(command, tmp_path / "absent.npz", *beside, option, word, "--out", tmp_path / "o")
        assert "Invalid value" not in said.err
    said = kkt(command, tmp_path / "absent.npz", *beside, "--loss", "hinge")
    assert said.err == (
        "kktcert: error: Invalid value for '--loss': expected one of logistic, squared, "
        f"cross-entropy, got 'hinge'; see kktcert {command} --help\n"
    )
    assert LOSSES == ("cross_entropy", "logistic", "squared")
