"""What an attack reads off its inputs, and what it refuses in one line."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest
import torch

from attack.memory import free_memory
from attack.networks.files import load_network
from attack.networks.spec import parse_spec
from attack.objectives.gradient_facts import labels_from_bias, samples_in
from identify.errors import is_out_of_memory
from tests.attack.command.command_runs import finished_run, one_line
from tests.command_line import files, kkt

CASES = [("cross-entropy", 5, 1), ("cross-entropy", 5, 4), ("logistic", 1, 1), ("logistic", 1, 5)]


def batch(loss, outputs, count, seed=0):
    """An untrained network, labels in ascending order and the gradient of their batch."""
    network = parse_spec(f"12-30-{outputs},relu,bias=all").initialise(seed=seed)
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.random((count, 12)))
    parameters = [p.clone().requires_grad_() for p in network.parameters()]
    out = network.forward(x, parameters)
    if loss == "logistic":
        labels = np.sort(rng.choice([-1.0, 1.0], count))
        value = torch.nn.functional.softplus(-torch.tensor(labels) * out.squeeze(-1)).mean()
    else:
        labels = np.sort(rng.choice(outputs, count).astype(float))
        value = torch.nn.functional.cross_entropy(out, torch.tensor(labels).long())
    return network, labels, torch.autograd.grad(value, parameters)


def stored_labels(folder):
    """The labels in a run's settings, wherever they stand among the tables."""

    def search(table):
        for key, value in table.items():
            if key == "labels":
                yield value
            elif isinstance(value, dict):
                yield from search(value)

    (found,) = search(tomllib.loads((folder / "config.toml").read_text()))
    return found


class TestWhatTheGradientSays:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize(("loss", "outputs", "count"), CASES)
    def test_labels(self, loss, outputs, count, seed):
        network, labels, gradient = batch(loss, outputs, count, seed)
        np.testing.assert_array_equal(labels_from_bias(network, gradient, loss, count), labels)

    def test_no_labels_without_bias_or_with_other_losses(self):
        network, _, gradient = batch("logistic", 1, 2)
        assert labels_from_bias(network, gradient, "squared", 2) is None
        assert labels_from_bias(network, gradient, None, 2) is None
        bare = parse_spec("4-3-1,relu,bias=first").initialise(seed=0)
        assert labels_from_bias(bare, bare.parameters(), "logistic", 2) is None

    @pytest.mark.parametrize("count", [1, 3, 7])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_rank(self, count, dtype):
        _, _, gradient = batch("cross-entropy", 5, count)
        assert samples_in([part.to(dtype) for part in gradient]) == count

    def test_the_command_uses_both(self, tmp_path):
        _, labels, gradient = batch("cross-entropy", 5, 3)
        arguments = self.saved(tmp_path, gradient, steps=2)
        done = kkt(*arguments, "--option", "loss=cross-entropy", "--out", tmp_path / "run")
        assert done.code == 0, done.err
        config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
        assert config["count"] == 3
        np.testing.assert_array_equal(config["start"]["labels"], labels)

    def saved(self, folder, gradient, steps=60):
        network, _, _ = batch("cross-entropy", 5, 3)
        torch.save(dict(zip(network.names(), network.parameters(), strict=True)), folder / "m.pth")
        np.savez(folder / "g.npz", *[part.numpy() for part in gradient])
        return ("attack", folder / "m.pth", "--activation", "relu", "--objective",
                "gradient_matching", "--gradient", folder / "g.npz", "--steps", steps,
                "--splitting", "off")  # fmt: skip

    @pytest.mark.parametrize("form", ["list", "npz", "npy"])
    def test_labels_of_ones_own(self, tmp_path, form):
        _, labels, gradient = batch("cross-entropy", 5, 3)
        arguments = self.saved(tmp_path, gradient, steps=2)
        text = ",".join(f"{label:g}" for label in labels)
        if form == "npz":
            text = tmp_path / "l.npz"
            np.savez(text, y=labels[:, None].astype(np.int64))
        elif form == "npy":
            text = tmp_path / "l.npy"
            np.save(text, np.eye(5)[labels.astype(int)])
        more = ("--option", "loss=cross-entropy", "--labels", text, "--out", tmp_path / "run")
        assert kkt(*arguments, *more).code == 0
        assert stored_labels(tmp_path / "run") == labels.tolist()

    @pytest.mark.parametrize("labels", ["cat", "7", "0.5,1,2", "", "nan,0,1", "absent.npz"])
    def test_labels_that_are_none(self, tmp_path, labels):
        _, _, gradient = batch("cross-entropy", 5, 3)
        arguments = self.saved(tmp_path, gradient)
        more = ("--option", "loss=cross-entropy", "--count", 3, f"--labels={labels}")
        one_line(kkt(*arguments, *more, "--out", tmp_path / "run"), 2, "")

    def test_zeros_are_refused(self, tmp_path):
        _, _, gradient = batch("cross-entropy", 5, 3)
        arguments = self.saved(tmp_path, [0 * part for part in gradient])
        one_line(kkt(*arguments, "--out", tmp_path / "run"), 2, "zeros alone")


class TestNetworks:
    def test_an_affine_victim_needs_no_activation(self, tmp_path):
        for name, arrays in (("a", {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}),
                             ("b", {"weight": torch.ones(1, 3)})):  # fmt: skip
            torch.save(arrays, tmp_path / f"{name}.pt")
            assert load_network(tmp_path / f"{name}.pt").activation.name == "identity"
        torch.save({"1.weight": torch.ones(2, 3), "2.weight": torch.ones(1, 2)}, tmp_path / "c.pt")
        one_line(kkt("attack", tmp_path / "c.pt", "--out", tmp_path / "run"), 2, "activation")

    @pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 3, 5), (4, 3, 2, 2, 2)])
    def test_convolutions_are_called_so(self, tmp_path, shape):
        torch.save({"conv.weight": torch.ones(shape), "fc.weight": torch.ones(2, 4)},
                   tmp_path / "c.pt")  # fmt: skip
        one_line(kkt("attack", tmp_path / "c.pt", "--out", tmp_path / "run"), 2, "convolutions")


class TestFolders:
    def test_resume_needs_a_run(self, tmp_path):
        network = parse_spec("4-3-1,tanh").initialise(seed=0)
        torch.save(dict(zip(network.names(), network.parameters(), strict=True)), tmp_path / "m.pt")
        arguments = ("attack", tmp_path / "m.pt", "--activation", "tanh")
        (tmp_path / "empty").mkdir()
        for folder in ("absent", "empty"):
            outcome = kkt(*arguments, "--out", tmp_path / folder, "--resume")
            one_line(outcome, 2, "--resume: expected the folder of a run")
        one_line(kkt(*arguments, "--out", tmp_path / "a", "--resume", "--force"), 2, "--force")
        assert not (tmp_path / "absent").exists()

    def test_force_replaces_a_run_and_nothing_else(self, tmp_path):
        run = finished_run(tmp_path, np.random.default_rng(0).random((3, 4)), None)
        network = parse_spec("4-3-1,tanh").initialise(seed=0)
        torch.save(dict(zip(network.names(), network.parameters(), strict=True)), tmp_path / "m.pt")
        arguments = ("attack", tmp_path / "m.pt", "--activation", "tanh", "--count", 2,
                     "--steps", 2, "--splitting", "off", "--out", run)  # fmt: skip
        one_line(kkt(*arguments), 2, "--force")
        assert kkt(*arguments, "--force").code == 0
        assert json.loads((run / "report.json").read_text())["steps"] == 2
        (run / "diary.txt").write_text("mine")
        before = files(run)
        one_line(kkt(*arguments, "--force"), 2, "diary.txt")
        assert files(run) == before
        other = tmp_path / "other"
        other.mkdir()
        (other / "report.json").write_text("{}")
        one_line(kkt(*arguments[:-1], other, "--force"), 2, "something else")


class TestMemory:
    def test_too_many_candidates_are_refused_before_the_work(self, tmp_path, monkeypatch):
        network = parse_spec("4-3-1,tanh").initialise(seed=0)
        torch.save(dict(zip(network.names(), network.parameters(), strict=True)), tmp_path / "m.pt")
        arguments = ("attack", tmp_path / "m.pt", "--activation", "tanh", "--out", tmp_path / "run")
        for count in (10**9, 10**12, 10**15):
            one_line(kkt(*arguments, "--count", count), 2, "lower --count")
        for objective in ("buzaglo", "loo"):
            more = ("--initial", tmp_path / "m.pt") if objective == "loo" else ()
            found = kkt(*arguments, "--objective", objective, *more, "--count", 10**12)
            assert (found.code, len(found.lines)) == (2, 1)
        assert not (tmp_path / "run").exists()

        def fail(*_, **__):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

        monkeypatch.setattr("attack.command.attack.reconstruct", fail)
        one_line(kkt(*arguments, "--count", 3), 1, "not enough memory; lower --count")

    def test_what_the_errors_say(self):
        assert is_out_of_memory(MemoryError())
        assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
        assert not is_out_of_memory(RuntimeError("size mismatch"))
        assert (free_memory() or 1) > 0
