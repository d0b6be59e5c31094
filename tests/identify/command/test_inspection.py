"""The command inspect: networks, samples, and what the verifier does not cover."""

from __future__ import annotations

import json

import numpy as np
import pytest

from identify.command.inspection import neurons_needed, samples_determined
from tests.command_line import kkt, random_network, stationary_network, stored
from tests.model_files import layers, npz


class TestInspect:
    def inspect(self, path, *options):
        outcome = kkt("inspect", path, *options, "--format", "json")
        assert (outcome.code, outcome.err) == (0, "")
        text = kkt("inspect", path, *options)
        assert (text.code, text.err) == (0, "")
        assert str(path) in text.out
        assert not any(line != line.rstrip() for line in text.out.splitlines())
        return json.loads(outcome.out), text.out

    def test_a_stationary_network(self, tmp_path):
        content, text = self.inspect(stored(stationary_network(), tmp_path / "m.npz"))
        assert content["covered"] is True
        assert content["network"]["width"] == 2
        assert {s["source"]: s["fits"] for s in content["sources"]} == {
            "kkt": True, "weight-decay": True, "gradient": None, "fine-tuning": None,
        }  # fmt: skip
        sizes = content["sizes"]
        assert (sizes["span_dimension"], sizes["unknowns"], sizes["neurons_needed"]) == (2, 4, 2)
        assert content["cost"]["flops_per_product"] == 6 * 2**2 * 2
        assert "hidden.weight  2 x 4  float64" in text

    def test_random_weights_fit_gradients_alone(self, tmp_path):
        model = stored(random_network(width=60, dimension=64), tmp_path / "m.safetensors")
        content, text = self.inspect(model)
        assert [s["fits"] for s in content["sources"]] == [False, False, None, None]
        assert "batches of up to 17 samples" in text
        assert content["sizes"]["enough_neurons"] is True
        assert content["sizes"]["span_dimension"] == 17

    def test_an_output_bias_excludes_kkt(self, tmp_path):
        network = stationary_network(output_bias=np.ones(1))
        content, _ = self.inspect(stored(network, tmp_path / "m.npz"))
        assert [s["fits"] for s in content["sources"][:2]] == [False, True]

    def test_dead_networks_fit_nothing(self, tmp_path):
        dead = {name: 0 * array for name, array in layers().items()}
        content, _ = self.inspect(npz(tmp_path / "m.npz", **dead), "--degree", 3)
        assert [s["fits"] for s in content["sources"]] == [False, False]

    @pytest.mark.parametrize(
        ("arrays", "options", "words"),
        [
            (layers(), (), "give --degree A"),
            (layers((4, 3), (3, 4)), ("--degree", 3), "3 outputs are not yet supported"),
            (layers(), ("--activation", "0,1,0.5"), "polynomial activations"),
            ({**layers(), "activation": "relu"}, ("--degree", 3), "relu"),
            ({f"{k}.weight": np.ones((4, 4)) for k in range(3)}, ("--degree", 3), "0.weight"),
            ({f"{k}.weight": np.ones((4, 4)) for k in range(3)}, (), "0.weight"),
            ({"a": np.ones((4, 3)), "b": np.ones(4)}, (), "--layers HIDDEN,OUTPUT"),
        ],
    )
    def test_what_the_verifier_does_not_cover(self, tmp_path, arrays, options, words):
        content, text = self.inspect(npz(tmp_path / "m.npz", **arrays), *options)
        assert content["covered"] is False
        assert words in content["reason"]
        shown = {entry["name"]: tuple(entry["shape"]) for entry in content["arrays"]}
        assert shown == {k: np.shape(v) for k, v in arrays.items() if k != "activation"}
        assert all(name in text for name in shown)

    def test_data(self, tmp_path):
        images = np.random.default_rng(0).random((5, 2, 3))
        data = npz(tmp_path / "data.npz", images=images, labels=[0, 1, 1, 1, 0])
        content, text = self.inspect(data)
        assert content["kind"] == "data"
        assert content["data"]["image_shape"] == [2, 3]
        assert content["data"]["labels"] == {"0": 2, "1": 3}
        assert content["data"]["span_dimension"] == 5
        assert content["data"]["neurons_needed_degree_3"] == 8
        assert "0: 2, 1: 3" in text

    def test_neurons_needed(self):
        assert [neurons_needed(3, r) for r in (1, 2, 4, 5, 8)] == [1, 2, 5, 8, 15]
        assert [neurons_needed(4, r) for r in (3, 4, 5)] == [6, 10, 15]
        assert samples_determined(3, 7, 5) == 4
        assert samples_determined(3, 8, 5) == 5
        assert samples_determined(3, 1, 5) == 0
