"""Networks and gradients from files: round trips, layers, degree, activation, shapes."""

from __future__ import annotations

import numpy as np
import pytest

from identify.errors import FileError, InvalidInputError, UnsupportableModelError
from identify.model.gradients import load_gradient
from identify.model.loading import load_network, save_network
from tests.model_files import layers, network, npz, raw_safetensors, same


class TestRoundTrip:
    @pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("outputs", [1, 3])
    @pytest.mark.parametrize("activation", [None, (0.1, -1 / 3, 0.0, 2.0)])
    def test_every_bit_comes_back(self, tmp_path, suffix, bias, outputs, activation):
        original = network(1, outputs=outputs, bias=bias, activation=activation)
        path = tmp_path / f"network{suffix}"
        save_network(original, path)
        same(load_network(path), original)
        same(load_network(str(path), degree=3), original)

    @pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
    def test_rounding_is_kept(self, tmp_path, suffix):
        path = tmp_path / f"network{suffix}"
        save_network(network(rounding=2**-11), path)
        assert load_network(path).rounding == 2**-11

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
    @pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
    def test_rounding_of_the_dtype(self, tmp_path, dtype, suffix):
        from safetensors.numpy import save_file

        arrays = layers(dtype=dtype)
        path = tmp_path / f"network{suffix}"
        if suffix == ".npz":
            np.savez(path, **arrays, degree=5)
        else:
            save_file(arrays, path, metadata={"degree": "5"})
        loaded = load_network(path)
        assert loaded.rounding == np.finfo(dtype).eps / 2
        assert loaded.degree == 5
        assert loaded.hidden_weight.dtype == np.float64

    def test_bfloat16_is_decoded_without_torch(self, tmp_path):
        values = np.array([[1.0, -2.5, 3.140625]], dtype=np.float32)
        upper = (values.view(np.uint32) >> 16).astype("<u2")
        ones = np.array([0x3F80], dtype="<u2")
        header = {
            "__metadata__": {"activation": "monomial", "degree": "3"},
            "hidden.weight": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]},
            "output.weight": {"dtype": "BF16", "shape": [1], "data_offsets": [6, 8]},
        }
        path = raw_safetensors(tmp_path / "n.safetensors", header, upper.tobytes() + ones.tobytes())
        loaded = load_network(path)
        np.testing.assert_array_equal(loaded.hidden_weight, values)
        assert loaded.rounding == 2**-8

    def test_torch_loads_what_was_saved(self, tmp_path):
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.hidden = torch.nn.Linear(3, 4)
                self.output = torch.nn.Linear(4, 1)

        original = network(bias=True)
        save_network(original, tmp_path / "n.safetensors")
        module = Module().double()
        module.load_state_dict(load_file(tmp_path / "n.safetensors"))
        torch.save(module.state_dict(), tmp_path / "n.pt")
        same(load_network(tmp_path / "n.pt", degree=3), original)


class TestLayers:
    def test_order_is_found_from_the_shapes(self, tmp_path):
        arrays = layers(names=("z", "a"))
        path = npz(tmp_path / "n.npz", **dict(reversed(list(arrays.items()))))
        assert load_network(path, degree=3).dimension == 3

    def test_order_of_appearance_decides_between_two_readings(self, tmp_path):
        arrays = {"b.weight": np.ones((4, 1)), "a.weight": np.ones((1, 4))}
        assert load_network(npz(tmp_path / "n.npz", **arrays), degree=3).width == 4

    def test_safetensors_has_no_order_of_appearance(self, tmp_path):
        from safetensors.numpy import save_file

        path = tmp_path / "n.safetensors"
        save_file({"b.weight": np.ones((4, 1)), "a.weight": np.ones((1, 4))}, path)
        with pytest.raises(FileError, match="--layers"):
            load_network(path, degree=3)
        assert load_network(path, degree=3, layers="b,a").width == 4

    @pytest.mark.parametrize("names", ["fc1,fc9", "fc9,fc2"])
    def test_unknown_layers_are_listed(self, tmp_path, names):
        path = npz(tmp_path / "n.npz", **layers(names=("fc1", "fc2")))
        with pytest.raises(InvalidInputError, match=r"fc1, fc2 in .*got 'fc9'"):
            load_network(path, degree=3, layers=names)

    @pytest.mark.parametrize("names", ["fc1", "fc1,fc2,fc3", ",", "", "fc1,fc1"])
    def test_layers_are_two_names(self, tmp_path, names):
        path = npz(tmp_path / "n.npz", **layers(names=("fc1", "fc2")))
        with pytest.raises(InvalidInputError, match="HIDDEN,OUTPUT"):
            load_network(path, degree=3, layers=names)

    @pytest.mark.parametrize("chosen", [None, "layers.0,layers.1"])
    def test_deeper_networks(self, tmp_path, chosen):
        arrays = {f"layers.{k}.weight": np.ones((4, 4)) for k in range(3)}
        path = npz(tmp_path / "n.npz", **arrays)
        with pytest.raises(UnsupportableModelError, match="two-layer monomial"):
            load_network(path, degree=3, layers=chosen)

    @pytest.mark.parametrize(
        "extra",
        [
            ({"conv.weight": np.ones((2, 2, 2, 2))}, "the convolution conv"),
            ({"norm.scale": np.ones(4)}, "further arrays norm.scale"),
            ({"norm.weight": np.ones(4)}, "the normalisation norm"),
            ({"bn.running_mean": np.ones(4)}, "the batch normalisation bn"),
            ({"scale": np.ones(4)}, "further arrays scale"),
        ],
    )
    def test_nothing_is_left_over(self, tmp_path, extra):
        with pytest.raises(UnsupportableModelError, match=extra[1]):
            load_network(npz(tmp_path / "n.npz", **layers(), **extra[0]), degree=3)

    def test_names_are_missing(self, tmp_path):
        with pytest.raises(FileError, match=r"no hidden.weight .* it holds W"):
            load_network(npz(tmp_path / "n.npz", W=np.ones((2, 2))), degree=3)


class TestDegreeAndActivation:
    @pytest.mark.parametrize("degree", [3, np.int32(3), [3], 3.0, "3"])
    def test_forms_of_the_degree(self, tmp_path, degree):
        assert load_network(npz(tmp_path / "n.npz", **layers(), degree=degree)).degree == 3

    @pytest.mark.parametrize(
        "degree", ["three", 3.5, np.nan, np.inf, [3, 3], True, 3j, "9" * 5000, "", b"\xff"]
    )
    def test_no_degree(self, tmp_path, degree):
        with pytest.raises(InvalidInputError, match="degree: expected an integer"):
            load_network(npz(tmp_path / "n.npz", **layers(), degree=degree))

    def test_missing(self, tmp_path):
        with pytest.raises(InvalidInputError, match=r"degree: .* got none; give --degree"):
            load_network(npz(tmp_path / "n.npz", **layers()))

    @pytest.mark.parametrize("degree", [2, 0, -3, 10**12])
    def test_out_of_range(self, tmp_path, degree):
        with pytest.raises(InvalidInputError, match="degree: expected 3 to 1000"):
            load_network(npz(tmp_path / "n.npz", **layers(), degree=degree))

    @pytest.mark.parametrize(
        ("stored", "options"),
        [
            ({"degree": 3}, {"degree": 4}),
            ({"degree": 3, "activation": "0,0,0,0,1"}, {}),
            ({"activation": [0.0, 1.0, 0.0, 2.0]}, {"degree": 4}),
            ({"degree": 3}, {"activation": "0,0,0,0,2"}),
        ],
    )
    def test_contradicting_degree(self, tmp_path, stored, options):
        with pytest.raises(InvalidInputError, match="degree: expected one value"):
            load_network(npz(tmp_path / "n.npz", **layers(), **stored), **options)

    def test_contradicting_activation(self, tmp_path):
        path = npz(tmp_path / "n.npz", **layers(), degree=3, activation="monomial")
        with pytest.raises(InvalidInputError, match="activation: expected monomial"):
            load_network(path, activation="0,0,0,2")

    @pytest.mark.parametrize(
        "activation", ["0, 1,0,-2", [0.0, 1.0, 0.0, -2.0], np.array([0, 1, 0, -2])]
    )
    def test_forms_of_the_activation(self, tmp_path, activation):
        expected = (0.0, 1.0, 0.0, -2.0)
        stored = npz(tmp_path / "a.npz", **layers(), activation=activation)
        assert load_network(stored).activation == expected
        bare = npz(tmp_path / "b.npz", **layers())
        assert load_network(bare, activation=activation).activation == expected
        assert load_network(stored, activation=expected, degree=3).degree == 3

    @pytest.mark.parametrize("activation", ["monomial", " Monomial ", "0,0,0,1", b"monomial"])
    def test_monomial_in_other_words(self, tmp_path, activation):
        path = npz(tmp_path / "n.npz", **layers(), degree=3, activation=activation)
        assert load_network(path).activation is None
        assert load_network(path, activation="monomial").activation is None

    @pytest.mark.parametrize("activation", ["relu", "gelu,1", ["relu", "relu"], 5.0])
    def test_other_activations(self, tmp_path, activation):
        path = npz(tmp_path / "n.npz", **layers(), degree=3, activation=activation)
        with pytest.raises(UnsupportableModelError, match="two-layer monomial"):
            load_network(path)

    @pytest.mark.parametrize("activation", ["1", "nan,1", "0,inf", "1,2,0"])
    def test_bad_coefficients(self, tmp_path, activation):
        path = npz(tmp_path / "n.npz", **layers())
        with pytest.raises(InvalidInputError, match="activation"):
            load_network(path, activation=activation)

    def test_rounding_must_be_one(self, tmp_path):
        for rounding in ("x", 0.0, 2.0, np.nan, [1.0, 2.0]):
            path = npz(tmp_path / "n.npz", **layers(), degree=3, rounding=rounding)
            with pytest.raises(FileError, match="rounding"):
                load_network(path)

    def test_settings_are_small(self, tmp_path):
        path = npz(tmp_path / "n.npz", **layers(), degree=np.ones(10**4))
        with pytest.raises(FileError, match="expected one value"):
            load_network(path)


class TestGradient:
    def test_names_and_shapes_of_the_network(self, tmp_path):
        model = network(bias=True)
        gradient = model.gradient(np.ones((2, 3)), [1.0, -1.0])
        save_network(gradient, tmp_path / "g.npz")
        same(load_gradient(tmp_path / "g.npz", model), gradient)

    def test_torch_names_and_no_degree(self, tmp_path):
        gradient = layers(names=("fc1", "fc2"))
        path = npz(tmp_path / "g.npz", **gradient, **{"fc2.bias": np.ones(1)})
        loaded = load_gradient(path, network(), layers="fc1,fc2")
        np.testing.assert_array_equal(loaded.output_bias, [1.0])

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (network(m=5), "hidden.weight has shape"),
            (network(d=2), "hidden.weight has shape"),
            (network(outputs=2), "output.weight has shape"),
            (network(bias=True), "hidden.bias has shape .* network's has none"),
        ],
    )
    def test_gradient_of_another_network(self, tmp_path, other, message):
        save_network(other, tmp_path / "g.npz")
        with pytest.raises(FileError, match=message):
            load_gradient(tmp_path / "g.npz", network())

    def test_missing_bias(self, tmp_path):
        save_network(network(), tmp_path / "g.npz")
        with pytest.raises(FileError, match=r"no gradient of hidden.bias"):
            load_gradient(tmp_path / "g.npz", network(bias=True))

    def test_other_degree_or_activation(self, tmp_path):
        save_network(network(degree=4), tmp_path / "g.npz")
        with pytest.raises(InvalidInputError, match="degree"):
            load_gradient(tmp_path / "g.npz", network())
        with pytest.raises(InvalidInputError, match="activation"):
            load_gradient(tmp_path / "g.npz", network(activation=(0, 1, 0, 2)))
