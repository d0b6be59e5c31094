"""Losses of victims and the multipliers that they imply."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch

from attack.networks.activations import Activation
from attack.networks.network import Network
from attack.networks.spec import parse_spec
from attack.training.kkt_residual import fit_multipliers, gram_system, kink_share
from attack.training.losses import (
    log_loss,
    margins,
    mean_loss,
    prepare_labels,
)
from identify.errors import InvalidInputError
from tests.attack.training.references import random_set, tensor


class TestLosses:
    @pytest.mark.parametrize("loss", ["logistic", "exponential", "cross-entropy"])
    def test_the_logarithm_of_moderate_losses(self, loss):
        rng = np.random.default_rng(0)
        f = tensor(rng.normal(size=(9, 4 if loss == "cross-entropy" else 1)) * 3)
        f.requires_grad_()
        y = torch.as_tensor(rng.integers(0, 4, 9)) if f.shape[1] > 1 else tensor([1, -1, 1] * 3)
        plain = {
            "logistic": lambda: torch.log1p(torch.exp(-y * f[:, 0])).mean(),
            "exponential": lambda: torch.exp(-y * f[:, 0]).mean(),
            "cross-entropy": lambda: torch.nn.functional.cross_entropy(f, y),
        }[loss]()
        value = log_loss(loss, f, y)
        number = float(plain.detach())
        assert float(value.detach().exp()) == pytest.approx(number, rel=1e-13)
        assert float(mean_loss(loss, f, y).detach()) == pytest.approx(number, rel=1e-13)
        # The gradient of log L is that of L over L.
        (got,), (want,) = torch.autograd.grad(value, f), torch.autograd.grad(plain, f)
        torch.testing.assert_close(got, want / plain.detach(), rtol=1e-11, atol=1e-13)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_losses_far_below_the_smallest_float(self, dtype):
        f = torch.tensor([[800.0], [2000.0], [-5.0e4]], dtype=dtype, requires_grad=True)
        for y, least in (([1, 1, -1], 800.0), ([1, 1, 1], -5.0e4)):
            value = log_loss("logistic", f, torch.tensor(y, dtype=dtype))
            expected = -least if least > 0 else math.log(-least)
            assert float(value.detach()) == pytest.approx(expected - math.log(3.0), rel=1e-6)
            (slope,) = torch.autograd.grad(value, f)
            assert bool(torch.isfinite(slope).all())
        f = torch.tensor([[0.0, 900.0, 3.0]], dtype=dtype, requires_grad=True)
        value = log_loss("cross-entropy", f, torch.tensor([1]))
        expected = -897.0 + math.log1p(math.exp(-3.0))
        assert float(value.detach()) == pytest.approx(expected, rel=1e-6)
        assert bool(torch.isfinite(torch.autograd.grad(value, f)[0]).all())

    def test_the_two_branches_meet(self):
        f = tensor([[20.0 - 1e-13], [20.0], [20.0 + 1e-13]])
        one = torch.ones(1, dtype=torch.float64)
        values = [float(log_loss("logistic", row[None], one)) for row in f]
        exact = math.log(math.log1p(math.exp(-20.0)))
        assert values == pytest.approx([exact] * 3, rel=1e-12)

    def test_squared_and_margins(self):
        f, y = tensor([[1.0, 2.0], [0.0, -1.0]]), tensor([[0.0, 2.0], [0.5, 0.0]])
        assert float(mean_loss("squared", f, y)) == (1.0 + 0.25 + 1.0) / 8.0
        assert margins("squared", f, y).tolist() == [-1.0, -1.0]
        assert margins("logistic", f[:, :1], tensor([-1, 1])).tolist() == [-1.0, 0.0]
        assert margins("cross-entropy", f, torch.tensor([0, 0])).tolist() == [-1.0, 1.0]
        with pytest.raises(InvalidInputError, match="loss"):
            log_loss("squared", f, y)

    @pytest.mark.parametrize(
        ("loss", "labels", "outputs", "message"),
        [
            ("hinge", [1, -1], 1, "loss: expected one of logistic"),
            ("logistic", [0, 1], 1, r"labels: expected \+1 and -1, got 0"),
            ("logistic", [1, -1], 2, "network: expected 1 output"),
            ("cross-entropy", [0, 3], 3, "labels: expected classes 0 to 2, got 3"),
            ("cross-entropy", [0, 0.5], 3, "labels: expected classes"),
            ("cross-entropy", [0, 1], 1, "network: expected 2 outputs"),
            ("squared", [1, 2, 3], 1, "labels: expected 2 numbers"),
            ("squared", [1, 2], 3, r"labels: expected shape \(2, 3\)"),
            ("squared", [1, math.nan], 1, "labels: expected finite"),
            ("logistic", None, 1, "labels: expected targets"),
            ("logistic", ["a", "b"], 1, "labels: expected 2 numbers"),
        ],
    )
    def test_labels_that_do_not_fit(self, loss, labels, outputs, message):
        with pytest.raises(InvalidInputError, match=message):
            prepare_labels(loss, labels, 2, outputs, torch.zeros(1))


class TestMultipliers:
    @pytest.mark.parametrize(
        ("spec", "n"),
        [("6-5-1,relu", 7), ("6-5-4-1,tanh,bias=all", 6), ("5-4-3,gelu,bias=all", 5),
         ("4-3-1,power3,bias=none", 9), ("6-5-5-4,soft_relu7", 4)],
    )  # fmt: skip
    def test_against_explicit_gradients(self, spec, n):
        network = parse_spec(spec).initialise(seed=3)
        outputs = network.outputs
        data = random_set(n, network.dimension, outputs, seed=n)
        x, y = tensor(data.samples), torch.as_tensor(data.labels)
        rows, sample, cotangents = [], [], []
        for i in range(n):
            for k in range(max(2, outputs) - 1):
                leaves = [p.clone().requires_grad_() for p in network.parameters()]
                f = network.forward(x[i : i + 1], leaves)[0]
                c = torch.zeros(outputs, dtype=torch.float64)
                if outputs == 1:
                    c[0] = y[i]
                else:
                    others = [other for other in range(outputs) if other != y[i]]
                    c[y[i]], c[others[k]] = 1.0, -1.0
                gradient = torch.autograd.grad((c * f).sum(), leaves)
                rows.append(torch.cat([g.reshape(-1) for g in gradient]).numpy())
                sample.append(x[i])
                cotangents.append(c)
        jacobian = np.array(rows)
        theta = torch.cat([p.reshape(-1) for p in network.parameters()]).numpy()
        gram, linear = gram_system(network, torch.stack(sample), torch.stack(cotangents))
        np.testing.assert_allclose(gram, jacobian @ jacobian.T, atol=1e-12)
        np.testing.assert_allclose(linear, jacobian @ theta, atol=1e-12)
        best, rest = scipy.optimize.nnls(jacobian.T, theta)
        fit = fit_multipliers(network, x, y)
        assert fit.residual == pytest.approx(rest / np.linalg.norm(theta), rel=1e-9)
        np.testing.assert_allclose(fit.multipliers.ravel(), best, atol=1e-8 * (1 + best.max()))
        assert fit.multipliers.shape == ((n,) if outputs == 1 else (n, outputs - 1))

    def test_an_exact_kkt_point(self):
        # Orthonormal samples, one cubic neuron each: the planted weights are known in closed form.
        y, lam = np.array([1.0, -1.0, 1.0]), 3.0**-0.75
        w = (3.0 / lam**2) ** -0.25 * np.diag(y) / lam
        a = lam * y * np.diag(w) ** 3
        network = Network((tensor(w), tensor(a)[None]), (None, None), Activation("power", 3))
        fit = fit_multipliers(network, torch.eye(3, dtype=torch.float64), tensor(y))
        assert fit.residual < 1e-12
        np.testing.assert_allclose(fit.multipliers, lam, rtol=1e-10)
        assert fit.active == 3
        assert fit.slackness == pytest.approx(0.0, abs=1e-12)

    def test_negative_multipliers_are_not_used(self):
        network = Network((tensor([[1.0, -1.0]]),), (None,), Activation("identity"))
        fit = fit_multipliers(network, torch.eye(2, dtype=torch.float64), tensor([1.0, 1.0]))
        assert fit.multipliers.tolist() == [pytest.approx(1.0), 0.0]
        assert fit.residual == pytest.approx(math.sqrt(0.5))
        assert (fit.slackness, fit.active) == (None, 1)

    def test_duplicates_and_dead_samples(self):
        network = parse_spec("3-4-1,relu,bias=none").initialise(seed=0)
        x = tensor([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5], [0.0, 0.0, 0.0]])
        fit = fit_multipliers(network, x, tensor([1.0, 1.0, -1.0]))
        assert np.isfinite(fit.multipliers).all()
        assert fit.multipliers[2] == 0.0
        with pytest.raises(InvalidInputError, match="at most 2000"):
            fit_multipliers(network, torch.zeros(2001, 3), torch.ones(2001))

    def test_kinks(self):
        weight = tensor([[1.0, 0.0], [1.0, 1.0]])
        network = Network((weight, weight[:1]), (None, None), Activation("relu"))
        x = tensor([[0.0, 2.0], [1.0, 1.0], [2.0, 3.0]])
        assert kink_share(network, x) == pytest.approx(1 / 6)
        dead = Network((torch.cat([weight, 1e-9 * weight[:1]]), tensor([[1.0, 1.0, 1.0]])),
                       (None, None), network.activation)  # fmt: skip
        assert kink_share(dead, x) == pytest.approx(1 / 9)
        assert kink_share(network.with_activation(Activation("tanh")), x) is None
