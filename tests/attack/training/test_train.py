"""Victims at vanishing loss or at stationarity."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from attack.networks.activations import Activation
from attack.networks.network import Network
from attack.networks.spec import parse_spec
from attack.training.descent import DescentSettings
from attack.training.images import load_images
from attack.training.losses import (
    TrainingProblem,
    norm,
)
from attack.training.to_stationarity import polish
from attack.training.train import train_network
from identify.errors import InvalidInputError, KktCertError
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from tests.attack.training.references import full_gradient, tensor


class TestVanishingLoss:
    def test_to_the_target(self, digits):
        result = train_network("64-30-30-1,relu", digits, scale=1e-4, seed=2)
        assert result.stopped == "target loss"
        assert result.log10_loss <= -40.0 < result.history[-2].log10_loss + 5.0
        assert result.loss == pytest.approx(10.0**result.log10_loss)
        assert result.margins.shape == (10,)
        assert result.margins.min() > 90.0
        with torch.no_grad():
            f = result.network(tensor(digits.samples))[:, 0].numpy()
        np.testing.assert_allclose(result.margins, digits.labels * f)
        gradient = full_gradient(result.network, digits, "logistic", 0.0)
        # 1 + e^-92 is 1: the plain loss has lost everything that the logarithm keeps.
        assert float(gradient.norm()) == pytest.approx(result.gradient_norm, rel=1e-6)
        assert 0.0 < result.kkt.residual < 0.9
        losses = [entry.log10_loss for entry in result.history]
        assert losses == sorted(losses, reverse=True)

    def test_the_start_is_the_stated_one_and_is_kept(self, digits):
        result = train_network("64-9-1,relu", digits, scale=1e-3, seed=5, steps=3)
        start = parse_spec("64-9-1,relu").initialise(5, scale=1e-3)
        assert result.initial.sha256() == start.sha256() != result.network.sha256()
        assert (result.steps, result.stopped) == (3, "steps")

    def test_the_same_seed_the_same_network(self, digits):
        runs = [train_network("64-9-1,gelu", digits, seed=s, steps=40) for s in (1, 1, 2)]
        assert runs[0].network.sha256() == runs[1].network.sha256()
        assert runs[0].network.sha256() != runs[2].network.sha256()

    @pytest.mark.parametrize("normalised", [True, False])
    def test_one_step(self, digits, normalised):
        result = train_network(
            "64-7-1,tanh", digits, steps=1, rate=0.03, normalised=normalised, adaptive=False
        )
        gradient = full_gradient(result.initial, digits, "logistic", 0.0)
        if normalised:
            gradient = gradient / 10.0 ** result.history[0].log10_loss
        before, after = (
            torch.cat([p.reshape(-1) for p in network.parameters()])
            for network in (result.initial, result.network)
        )
        torch.testing.assert_close(after, before - 0.03 * gradient, rtol=1e-12, atol=1e-14)

    def test_momentum(self, digits):
        result = train_network(
            "64-7-1,tanh", digits, steps=2, rate=0.03, normalised=False, adaptive=False,
            momentum=0.9,
        )  # fmt: skip
        first = train_network(
            "64-7-1,tanh", digits, steps=1, rate=0.03, normalised=False, adaptive=False
        ).network
        flat = [
            torch.cat([p.reshape(-1) for p in network.parameters()])
            for network in (result.initial, first, result.network)
        ]
        gradient = full_gradient(first, digits, "logistic", 0.0)
        expected = flat[1] + 0.9 * (flat[1] - flat[0]) - 0.03 * gradient
        torch.testing.assert_close(flat[2], expected, rtol=1e-12, atol=1e-14)

    def test_below_the_smallest_float(self, digits):
        result = train_network("64-30-1,relu", digits, target_loss=0.0, steps=800)
        assert result.stopped == "steps"
        assert result.log10_loss < -400.0
        assert result.loss == result.gradient_norm == 0.0
        assert "e-" in str(result).splitlines()[1]
        near = train_network("64-30-1,relu", digits, target_loss=1e-10)
        assert result.kkt.residual < near.kkt.residual
        assert result.kkt.slackness < near.kkt.slackness

    def test_more_than_two_classes(self, classes):
        result = train_network("64-20-20-3,relu", classes, loss="cross-entropy", scale=1e-2)
        assert result.stopped == "target loss"
        with torch.no_grad():
            f = result.network(tensor(classes.samples)).numpy()
        for i, y in enumerate(classes.labels):
            rest = np.delete(f[i], y).max()
            assert result.margins[i] == pytest.approx(f[i, y] - rest)
        assert result.kkt.multipliers.shape == (9, 2)

    @pytest.mark.parametrize("loss", ["exponential", "squared"])
    def test_the_other_losses(self, digits, loss):
        result = train_network("64-60-1,relu,bias=all", digits, loss=loss, scheme="lecun")
        assert result.stopped == "target loss"
        assert result.log10_loss <= (-10.0 if loss == "squared" else -40.0)
        assert (result.kkt is None) == (loss == "squared")

    def test_single_precision(self, digits):
        result = train_network("64-30-1,relu", digits, dtype=torch.float32)
        assert result.network.dtype == torch.float32
        assert result.stopped == "target loss"
        assert result.kkt.residual < 1.0


class TestDecay:
    @pytest.mark.medium
    @pytest.mark.parametrize(
        ("spec", "loss"),
        [("64-12-1,power3,bias=none", "logistic"), ("64-12-1,power3,bias=none", "squared"),
         ("64-12-1,tanh", "squared"), ("64-8-8-1,softplus2", "logistic")],
    )  # fmt: skip
    def test_stationarity(self, digits, spec, loss):
        result = train_network(spec, digits, loss=loss, decay=0.02, scale=0.1)
        assert result.stopped == "stationary"
        assert result.stationarity <= 1e-12
        gradient = float(full_gradient(result.network, digits, loss, 0.02).norm())
        assert gradient <= 1e-12 * 0.02 * norm(result.network.parameters()) * 3
        assert result.kkt is None
        assert norm(result.network.parameters()) > 0.1

    def test_a_cubic_network_is_stationary_for_the_verifier(self, digits):
        result = train_network("64-12-1,power3,bias=none", digits, decay=0.01, scale=0.1)
        w, a = result.network.weights
        data = HermiteData.from_weight_decay(TwoLayerNetwork(w.numpy(), a[0].numpy(), 3), 0.01)
        assert data.consistency < 1e-10

    def test_many_classes(self, classes):
        result = train_network("64-6-3,tanh", classes, loss="cross-entropy", decay=0.01)
        gradient = float(full_gradient(result.network, classes, "cross-entropy", 0.01).norm())
        assert gradient < 1e-13
        assert result.stationarity < 1e-12

    def test_relu_says_why_it_cannot(self, digits):
        result = train_network("64-20-1,relu", digits, decay=0.01, scale=0.1, steps=1500)
        assert result.stopped == "no further decrease"
        assert result.stationarity > 1e-6
        assert result.kinks > 0.01
        assert "where the gradient is not defined" in str(result)

    def test_without_polishing(self, digits):
        plain = train_network(
            "64-12-1,tanh", digits, decay=0.01, steps=50, polishing=False, target_loss=1e-9
        )
        assert plain.stopped == "steps"
        assert 1e-8 < plain.stationarity < 100.0

    def test_the_polishing_does_not_climb_to_a_saddle(self):
        # F = (f - 1)^2 / 2 + mu/2 |theta|^2 has a saddle at 0 and a minimum away from it.
        network = Network(
            (tensor([[1e-3]]), tensor([[1e-3]])), (None, None), Activation("identity")
        )
        one = torch.ones(1, 1, dtype=torch.float64)
        problem = TrainingProblem(network, one, one, "squared", 0.1)
        found = polish(problem, network.parameters(), tolerance=1e-14)
        assert found.stopped == "stationary"
        product = float(found.parameters[0] * found.parameters[1])
        assert product == pytest.approx(0.9, abs=1e-12)

    def test_an_interrupt_keeps_what_was_reached(self, digits):
        def interrupt(stage, share):
            if share > 0.3:
                raise KeyboardInterrupt

        settings = {"scale": 1e-2, "target_loss": 0.0, "kkt": False, "progress": interrupt}
        result = train_network(
            "64-12-1,relu", digits, steps=400, interruptible=True, **settings
        )  # fmt: skip
        assert result.stopped == "interrupted"
        assert 0 < result.steps < 400
        settings["progress"] = None
        same = train_network("64-12-1,relu", digits, steps=result.steps, **settings)
        assert result.network.sha256() == same.network.sha256()
        assert result.log10_loss == same.log10_loss
        assert result.gradient_norm == same.gradient_norm
        assert result.history[-1].step == result.steps
        with pytest.raises(KeyboardInterrupt):
            train_network("64-12-1,relu", digits, steps=400, **{**settings, "progress": interrupt})

    def test_time_limit_and_progress(self, digits):
        seen = []
        result = train_network(
            "64-12-1,tanh", digits, decay=0.01, time_limit=1e-9,
            progress=lambda stage, share: seen.append((stage, share)),
        )  # fmt: skip
        assert result.stopped == "time limit"
        assert result.steps == 0
        assert seen[0][0].startswith("training, loss 1e-0.")
        assert all(0.0 <= share <= 1.0 for _, share in seen)
        found = train_network(
            "64-12-1,tanh", digits, decay=0.01, progress=lambda *entry: seen.append(entry)
        )
        assert found.stopped == "stationary"
        assert {stage.split(",")[0] for stage, _ in seen} == {"training", "polishing"}


class TestFineTuning:
    def test_from_a_saved_start(self, digits):
        first = train_network("64-40-1,relu,bias=all", digits, loss="squared", target_loss=1e-3)
        other = load_images("digits", task="binary", per_class=3, skip=40, mean=digits.mean)
        tuned = train_network(
            "64-40-1,relu,bias=all", other, loss="squared", initial=first.network, seed=9
        )
        assert tuned.initial.sha256() == first.network.sha256()
        assert tuned.settings["fine_tuned"]
        # Every step adds multiples of the samples to the rows of the first layer.
        moved = torch.cat(
            [
                tuned.network.weights[0] - tuned.initial.weights[0],
                (tuned.network.biases[0] - tuned.initial.biases[0])[:, None],
            ],
            dim=1,
        )
        sizes = torch.linalg.svdvals(moved)
        assert float(sizes[6] / sizes[0]) < 1e-12 < float(sizes[5] / sizes[0])
        again = train_network(first.network, other, loss="squared", steps=2)
        assert again.initial.sha256() == first.network.sha256()

    def test_starts_that_do_not_fit(self, digits):
        start = parse_spec("64-8-1,relu").initialise(seed=0)
        for spec in ("64-9-1,relu", "64-8-1,tanh", "64-8-1,relu,bias=all"):
            with pytest.raises(InvalidInputError, match="initial: expected the form Network"):
                train_network(spec, digits, initial=start)
        for options in ({"initial": start, "scale": 0.1}, {"scale": 0.1}):
            network = "64-8-1,relu" if "initial" in options else start
            with pytest.raises(InvalidInputError, match="scale"):
                train_network(network, digits, **options)


class TestOptions:
    def test_minibatches(self, digits):
        options = {"batch": 4, "steps": 60, "rate": 0.05, "momentum": 0.5, "normalised": False}
        runs = [train_network("64-9-1,relu", digits, seed=s, **options) for s in (1, 1, 2)]
        assert runs[0].network.sha256() == runs[1].network.sha256() != runs[2].network.sha256()
        assert runs[0].history[-1].log10_loss < runs[0].history[0].log10_loss
        gradient = full_gradient(runs[0].network, digits, "logistic", 0.0)
        assert runs[0].gradient_norm == pytest.approx(float(gradient.norm()))

    def test_a_batch_of_everything_is_the_full_batch(self, digits):
        options = {"steps": 5, "adaptive": False, "rate": 0.05}
        one = train_network("64-9-1,relu", digits, batch=10, **options)
        assert (
            one.network.sha256() == train_network("64-9-1,relu", digits, **options).network.sha256()
        )

    def test_divergence(self, digits):
        with pytest.raises(
            KktCertError, match=r"NaN or infinity at step .*lower the rate"
        ) as caught:
            train_network(
                "64-9-1,power3", digits, loss="squared", rate=1e3, adaptive=False, scale=1.0
            )
        network = caught.value.context["network"]
        assert all(bool(torch.isfinite(p).all()) for p in network.parameters())

    def test_the_record(self, classes):
        result = train_network("64-8-3,relu", classes, loss="cross-entropy", steps=30, kkt=False)
        record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert record["settings"]["target_loss"] == 1e-40
        assert record["settings"]["dtype"] == "float64"
        assert len(record["history"]["rows"][0]) == len(record["history"]["columns"])
        assert record["kkt"] is None
        assert record["sha256"] == result.network.sha256()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": "hinge"}, "loss"),
            ({"decay": -1.0}, "decay"),
            ({"rate": 0.0}, "rate"),
            ({"steps": -1}, "steps"),
            ({"batch": 0}, "batch: expected at least 1"),
            ({"batch": 11}, "batch: expected at most 10"),
            ({"momentum": 1.0}, "momentum"),
            ({"target_loss": -1.0}, "target_loss"),
            ({"normalised": True, "decay": 0.1}, "normalised"),
            ({"normalised": True, "loss": "squared"}, "normalised"),
            ({"polishing": True}, "polishing"),
            ({"adaptive": True, "batch": 4}, "adaptive"),
            ({"time_limit": 0.0}, "time_limit"),
            ({"seed": -1}, "seed"),
            ({"network": "63-5-1,relu"}, r"samples: expected shape \(n, 63\)"),
            ({"loss": "cross-entropy"}, "2 outputs"),
        ],
    )
    def test_settings_out_of_range(self, digits, options, message):
        given = {"network": "64-5-1,relu"} | options
        with pytest.raises(InvalidInputError, match=message):
            train_network(given.pop("network"), digits, **given)

    def test_defaults_depend_on_the_loss(self):
        chosen = [DescentSettings(loss) for loss in ("logistic", "squared")]
        assert [s.target_loss for s in chosen] == [1e-40, 1e-10]
        assert [s.normalised for s in chosen] == [True, False]
        decayed = DescentSettings("logistic", decay=0.1)
        assert (decayed.target_loss, decayed.normalised, decayed.polishing) == (None, False, True)
