"""Checkpoints and updates as people have them: the same numbers give the same verdict and check."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import identify
import identify.checker.reading.arrays
from identify.hermite.data import HermiteData
from identify.model.gradients import load_gradient, take_gradient
from identify.model.loading import load_network
from identify.model.two_layer import TwoLayerNetwork
from tests.command_line import kkt, refused

torch = pytest.importorskip("torch")

SIZES = {"m": 24, "d": 4, "n": 3}


def problem(bias=False, outputs=1, seed=0):
    """Arrays of a cubic network and of a batch's gradient at it, as a torch module names them."""
    rng = np.random.default_rng(seed)
    m, d, n = SIZES.values()
    net = TwoLayerNetwork(
        rng.normal(size=(m, d)),
        rng.normal(size=(outputs, m)) / 10,
        3,
        hidden_bias=rng.normal(size=m) if bias else None,
        output_bias=rng.normal(size=outputs) if bias else None,
    )
    slopes = rng.uniform(1, 2, n) * [1, -1, 1]
    if outputs == 2:
        slopes = np.stack([-slopes, slopes], axis=1)
    gradient = net.gradient(rng.uniform(size=(n, d)), slopes)
    return named(net), named(gradient), net


def named(network):
    names = {"hidden": "fc1", "output": "fc2"}
    arrays = {}
    for name, array in network.arrays().items():
        layer, kind = name.split(".")
        shape = (network.outputs, network.width) if name == "output.weight" else array.shape
        arrays[f"{names[layer]}.{kind}"] = array.reshape(shape)
    order = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    return {name: arrays[name] for name in order if name in arrays}


def tensors(arrays, prefix=""):
    return {prefix + name: torch.tensor(array) for name, array in arrays.items()}


def save_pth(folder, arrays):
    torch.save(tensors(arrays), folder / "m.pth")
    return folder / "m.pth"


def save_checkpoint(folder, arrays):
    state = {"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": []}
    whole = {"epoch": 3, "model_state_dict": tensors(arrays), "optimizer_state_dict": state}
    torch.save(whole, folder / "m.pt")
    return folder / "m.pt"


def save_lightning(folder, arrays):
    torch.save({"state_dict": tensors(arrays, "model."), "loops": {}}, folder / "m.ckpt")
    return folder / "m.ckpt"


def save_parallel(folder, arrays):
    torch.save({"net": {"weights": tensors(arrays, "module.")}, "acc": torch.ones(())},
               folder / "m.bin")  # fmt: skip
    return folder / "m.bin"


def save_list(folder, arrays):
    np.savez(folder / "list.npz", *arrays.values())
    return folder / "list.npz"


def save_torch_list(folder, arrays):
    torch.save(list(tensors(arrays).values()), folder / "list.pt")
    return folder / "list.pt"


def save_shards(folder, arrays):
    place = {}
    for k, (name, array) in enumerate(arrays.items()):
        place[name] = f"model-{k}.safetensors"
        save_file({name: array}, folder / place[name])
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return path


def save_folder(folder, arrays):
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "training_args.bin").write_bytes(b"x")
    return folder


def save_sharded_folder(folder, arrays):
    return save_shards(folder, arrays).parent


FORMS = [save_pth, save_checkpoint, save_lightning, save_parallel, save_list, save_torch_list,
         save_shards, save_folder, save_sharded_folder]  # fmt: skip


def case(folder, save=save_pth, save_gradient=save_pth, **options):
    """Model and gradient in their forms, the options that name them, and the network."""
    arrays, gradient, net = problem(**options)
    for part in ("model", "gradient"):
        (folder / part).mkdir(parents=True)
    model = save(folder / "model", arrays)
    sent = save_gradient(folder / "gradient", gradient)
    return model, ("--source", "gradient", "--gradient", sent, "--degree", "3"), net


def verdict_and_check(folder, model, options, *more):
    """The report of verify, confirmed by check."""
    out = folder / "out"
    found = kkt("verify", model, *options, *more, "--out", out, "-q")
    assert found.code == 0, found.err
    report = json.loads((out / "report.json").read_text())
    plain = [word for word in options]
    checked = kkt("check", out / "report.json", model, *plain, *more, "-q")
    assert checked.code == 0, checked.out + checked.err
    if report["verdict"] == "globally":
        assert "outcome: confirmed" in checked.out, checked.out
    return report


class TestContainers:
    @pytest.mark.parametrize("save", FORMS)
    def test_verify_and_check_read_all_of_them(self, tmp_path, save):
        # The biases of a list have no names, so that their place has to be right.
        bias = save in (save_list, save_torch_list)
        model, options, _ = case(tmp_path, save, save, bias=bias)
        report = verdict_and_check(tmp_path, model, options)
        assert report["verdict"] == "globally"

    def test_several_networks_ask_for_a_key(self, tmp_path):
        arrays, gradient, net = problem()
        other = {name: 2 * array for name, array in arrays.items()}
        whole = {"generator": tensors(arrays), "ema": {"state": tensors(other)}}
        torch.save(whole, tmp_path / "gan.pt")
        sent = save_pth(tmp_path, gradient)
        options = ("--source", "gradient", "--gradient", sent, "--degree", "3")
        refused(tmp_path, "verify", tmp_path / "gan.pt", *options, words="generator, ema.state")
        refused(tmp_path, "verify", tmp_path / "gan.pt", *options, "--key", "net", words='"net"')
        loaded = load_network(tmp_path / "gan.pt", degree=3, key="generator")
        assert loaded.sha256() == net.sha256()
        doubled = load_network(tmp_path / "gan.pt", degree=3, key="ema.state")
        np.testing.assert_array_equal(doubled.hidden_weight, other["fc1.weight"])
        found = verdict_and_check(tmp_path, tmp_path / "gan.pt", options, "--key", "generator")
        assert found["verdict"] == "globally"
        assert "ema.state" in kkt("inspect", tmp_path / "gan.pt", "--key", "ema.state").out

    def test_a_key_where_there_is_nothing_to_choose(self, tmp_path):
        arrays, _, _ = problem()
        save_file(arrays, tmp_path / "m.safetensors")
        refused(tmp_path, "inspect", tmp_path / "m.safetensors", "--key", "a", words="--key")

    def test_names_without_their_prefix(self, tmp_path):
        arrays, _, net = problem()
        path = save_lightning(tmp_path, arrays)
        assert load_network(path, degree=3, layers="fc1,fc2").sha256() == net.sha256()

    def test_the_old_format_is_named(self, tmp_path):
        arrays, gradient, _ = problem()
        old = tmp_path / "old.pt"
        torch.save(tensors(arrays), old, _use_new_zipfile_serialization=False)
        for command in (("inspect", old), ("attack", old, "--out", tmp_path / "run")):
            refused(tmp_path, *command, words="old format, which is not read; save it again")
        new = save_pth(tmp_path, arrays)
        sent = save_pth(tmp_path / "model" if (tmp_path / "model").exists() else tmp_path, gradient)
        kkt("verify", new, "--source", "gradient", "--gradient", sent, "--degree", "3", "--out",
            tmp_path / "out", "-q")  # fmt: skip
        found = kkt("check", tmp_path / "out" / "report.json", old, "--degree", "3")
        assert (found.code, len(found.lines)) == (2, 1)
        assert "old" in found.err

    def test_classes_that_would_run_are_named(self, tmp_path):
        torch.save({"state_dict": {"w": torch.ones(2, 2)}, "args": np.float64(3)},
                   tmp_path / "m.ckpt")  # fmt: skip
        refused(tmp_path, "inspect", tmp_path / "m.ckpt", words="would run code (numpy")

    def test_views_shared_without_end(self, tmp_path):
        part = {f"k{k}": {} for k in range(50)}
        nested = {f"a{k}": part for k in range(50)}
        nested["net"] = tensors(problem()[0])
        torch.save({"x": nested, "y": nested}, tmp_path / "m.pt")
        assert load_network(tmp_path / "m.pt", degree=3).width == SIZES["m"]


class TestIndexes:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"fc2.weight": "../m.safetensors"}, "beside the index"),
            ({"fc2.weight": "/etc/passwd"}, "beside the index"),
            ({"fc2.weight": "model.safetensors.index.json"}, "beside the index"),
            ({"fc2.weight": "absent.safetensors"}, "No such file"),
            ({"fc9.weight": "model-0.safetensors"}, "contradicts model-0.safetensors"),
            ({"fc2.weight": 7}, "beside the index"),
        ],
    )
    def test_hostile_indexes(self, tmp_path, change, words):
        path = save_shards(tmp_path, problem()[0])
        content = json.loads(path.read_text())
        content["weight_map"] |= change
        path.write_text(json.dumps(content))
        refused(tmp_path, "inspect", path, words=words)
        with pytest.raises(identify.CheckInputError):
            identify.checker.reading.arrays.read_arrays(path)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "[" * 10**5, "\xff"])
    def test_no_index(self, tmp_path, text):
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(text, encoding="latin-1")
        refused(tmp_path, "inspect", path)
        with pytest.raises(identify.CheckInputError):
            identify.checker.reading.arrays.read_arrays(path)


class TestUpdates:
    @pytest.mark.parametrize(("save", "bias"), [(save_list, True), (save_torch_list, False)])
    def test_a_list_beside_a_state_dict(self, tmp_path, save, bias):
        model, options, net = case(tmp_path, save_pth, save, bias=bias)
        named_gradient = problem(bias=bias)[1]
        loaded = load_gradient(options[3], net)
        np.testing.assert_array_equal(loaded.hidden_weight, named_gradient["fc1.weight"])
        assert verdict_and_check(tmp_path, model, options)["verdict"] == "globally"

    def test_a_list_in_another_order_is_told_by_shapes(self, tmp_path):
        _, gradient, net = problem(bias=True)
        np.savez(tmp_path / "g.npz", *reversed(gradient.values()))
        loaded = load_gradient(tmp_path / "g.npz", net)
        for name, array in named(loaded).items():
            np.testing.assert_array_equal(array, gradient[name])

    @pytest.mark.parametrize("bias", [False, True])
    def test_a_withheld_head_is_filled(self, tmp_path, bias):
        model, options, net = case(tmp_path, bias=bias)
        _, gradient, _ = problem(bias=bias)
        part = {name: array for name, array in gradient.items() if name.startswith("fc1")}
        np.savez(options[3].with_name("part.npz"), **part)
        options = (*options[:3], options[3].with_name("part.npz"), *options[4:])
        loaded = load_gradient(options[3], net)
        np.testing.assert_allclose(loaded.output_weight, gradient["fc2.weight"][0], rtol=1e-9)
        report = verdict_and_check(tmp_path, model, options)
        assert report["verdict"] == "globally"
        assert report["residuals"]["balance"] == {"value": None, "equations": 0}
        assert "consistency" not in {row["name"] for row in report["conditions"]}

    def test_a_head_that_nothing_determines(self, tmp_path):
        arrays, gradient, _ = problem()
        arrays["fc2.weight"] = arrays["fc2.weight"] * (np.arange(SIZES["m"]) != 3)
        model = save_pth(tmp_path, arrays)
        np.savez(tmp_path / "g.npz", **{"fc1.weight": gradient["fc1.weight"]})
        options = ("--source", "gradient", "--gradient", tmp_path / "g.npz", "--degree", "3")
        refused(tmp_path, "verify", model, *options, words="neuron 3 has output weight 0")

    @pytest.mark.parametrize("names", [["fc2.weight"], ["fc1.bias", "fc2.weight"], ["fc1.weight"]])
    def test_layers_that_are_not_enough(self, tmp_path, names):
        model, options, _ = case(tmp_path, bias=True)
        gradient = problem(bias=True)[1]
        np.savez(options[3].with_name("part.npz"), **{name: gradient[name] for name in names})
        options = (*options[:3], options[3].with_name("part.npz"), *options[4:])
        refused(tmp_path, "verify", model, *options, words="no gradient of hidden")

    def test_python_takes_modules_mappings_and_lists(self):
        arrays, _, net = problem(bias=True)
        x = np.random.default_rng(1).uniform(size=(3, SIZES["d"]))
        module = torch.nn.Sequential(torch.nn.Linear(SIZES["d"], SIZES["m"]),
                                     torch.nn.Linear(SIZES["m"], 1)).double()  # fmt: skip
        with pytest.raises(identify.InvalidInputError, match="after backward"):
            take_gradient(module, net)
        with torch.no_grad():
            for parameter, array in zip(module.parameters(), arrays.values(), strict=True):
                parameter.copy_(torch.tensor(array))
        out = module[1](module[0](torch.tensor(x)) ** 3)
        (out.squeeze(-1) * torch.tensor([1.0, -2.0, 1.5])).sum().backward()
        expected = net.gradient(x, [1.0, -2.0, 1.5])
        forms = (module, {n: p.grad for n, p in module.named_parameters()},
                 [p.grad for p in module.parameters()], list(named(expected).values()))  # fmt: skip
        for form in forms:
            data = HermiteData.from_gradient(net, form)
            np.testing.assert_allclose(data.rows, expected.points, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(data.values, expected.output_weight, rtol=1e-12)
        for wrong in (5, "file", [None, np.ones(2)], {"a": None}, np.ones((2, 2))):
            with pytest.raises(identify.KktCertError):
                HermiteData.from_gradient(net, wrong)


class TestDecayInTheGradient:
    @pytest.mark.parametrize(
        ("bias", "outputs", "told"),
        [(False, 1, "auto"), (True, 1, "0.0005"), (True, 2, "auto"), (False, 2, "0.0005")],
    )
    def test_it_is_subtracted(self, tmp_path, bias, outputs, told):
        def decayed(folder, gradient):
            arrays = problem(bias=bias, outputs=outputs)[0]
            return save_pth(folder, {n: g + 5e-4 * arrays[n] for n, g in gradient.items()})

        model, options, _ = case(tmp_path, save_pth, decayed, bias=bias, outputs=outputs)
        plain = kkt("verify", model, *options, "-q")
        assert plain.code == 0
        more = ("--weight-decay-in-gradient", told)
        report = verdict_and_check(tmp_path, model, options, *more)
        assert report["verdict"] == "globally"
        assert report["certificate"]["assumed"]["gradient_decay"] == pytest.approx(5e-4)
        assert any("0.0005 times the weights" in line for line in report["assumptions"])

    def test_without_decay_auto_finds_none(self):
        _, _, net = problem()
        gradient = net.gradient(np.eye(SIZES["d"])[:2], [1.0, -1.0])
        found = HermiteData.from_gradient(net, gradient, decay="auto")
        assert found.gradient_decay == pytest.approx(0.0, abs=1e-12)

    def test_a_forged_constant_is_refuted(self, tmp_path):
        from tests.identify.checker.problems import sign

        model, options, _ = case(tmp_path)
        out = tmp_path / "out"
        kkt("verify", model, *options, "--weight-decay-in-gradient", "0", "--out", out, "-q")
        report = json.loads((out / "report.json").read_text())
        report["certificate"]["assumed"]["gradient_decay"] = 0.01
        (tmp_path / "forged.json").write_text(json.dumps(sign(report)))
        assert kkt("check", tmp_path / "forged.json", model, *options).code == 3

    @pytest.mark.parametrize("value", ["-1", "nan", "inf", "much", ""])
    def test_bad_constants(self, tmp_path, value):
        model, options, _ = case(tmp_path)
        more = (f"--weight-decay-in-gradient={value}",)
        refused(tmp_path, "verify", model, *options, *more, words="--weight-decay-in-gradient")
        refused(tmp_path, "verify", model, "--degree", 3, "--weight-decay-in-gradient", "auto",
                words="gradient with --weight-decay-in-gradient")  # fmt: skip

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_what_fits_no_batch_is_undecided_and_named(self, tmp_path, seed):
        rng = np.random.default_rng(seed)

        def noisy(folder, gradient):
            size = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
            return save_pth(folder, {
                n: g + 0.05 * size * rng.normal(size=g.shape) for n, g in gradient.items()
            })  # fmt: skip

        model, options, _ = case(tmp_path, save_pth, noisy)
        for more in ((), ("--noise", "0.01")):
            found = kkt("verify", model, *options, *more, "--fail-on", "globally")
            assert found.code == 0, found.err
            text = " ".join(found.out.split())
            assert "UNDECIDED" in text
            assert all(word in text for word in ("noise", "clipping", "weight decay"))

    def test_a_clean_gradient_of_another_degree_is_still_refused(self, tmp_path):
        model, options, _ = case(tmp_path)
        refused(tmp_path, "verify", model, *options[:5], "4", words="fits degree 3")


class TestTwoLogits:
    @pytest.mark.parametrize("bias", [False, True])
    def test_cross_entropy_reads_their_difference(self, tmp_path, bias):
        model, options, net = case(tmp_path, bias=bias, outputs=2)
        report = verdict_and_check(tmp_path, model, options)
        assert report["verdict"] == "globally"
        assert report["inputs"][0]["sha256"] == net.sha256()

    def test_the_data_are_those_of_one_output(self):
        _, _, net = problem(outputs=2)
        x, slopes = (
            np.random.default_rng(3).uniform(size=(4, SIZES["d"])),
            np.array([1.0, -1, 2, 3]),
        )
        data = HermiteData.from_gradient(net, net.gradient(x, np.stack([-slopes, slopes], axis=1)))
        one = TwoLayerNetwork(net.hidden_weight, net.output_weight[1] - net.output_weight[0], 3)
        same = HermiteData.from_gradient(one, one.gradient(x, slopes))
        np.testing.assert_allclose(data.rows, same.rows, rtol=1e-12)
        np.testing.assert_allclose(data.values, same.values, rtol=1e-12)
        np.testing.assert_array_equal(data.scales, same.scales)

    def test_another_loss_is_refused(self):
        _, _, net = problem(outputs=2)
        slopes = np.random.default_rng(5).normal(size=(4, 2))
        gradient = net.gradient(np.eye(SIZES["d"])[:4], slopes)
        with pytest.raises(identify.UnsupportedModelError, match="not opposite"):
            HermiteData.from_gradient(net, gradient)

    def test_a_withheld_head_is_filled_as_well(self, tmp_path):
        def part(folder, gradient):
            return save_pth(folder, {"fc1.weight": gradient["fc1.weight"]})

        model, options, _ = case(tmp_path, save_pth, part, outputs=2)
        assert verdict_and_check(tmp_path, model, options)["verdict"] == "globally"

    def test_weights_that_are_not_opposite_have_no_other_source(self, tmp_path):
        model, _, _ = case(tmp_path, outputs=2)
        refused(tmp_path, "verify", model, "--degree", 3, words="two outputs are not opposite")
