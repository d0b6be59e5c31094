"""TwoLayerNetwork against a slow reference, finite differences and autograd."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from identify.errors import InvalidInputError, NotYetSupportedError, UnsupportableModelError
from identify.model.loading import from_torch
from identify.model.two_layer import TwoLayerNetwork

CASES = [
    pytest.param(seed, degree, bias, outputs, activation, id=f"{seed}-{degree}-{bias}-{outputs}")
    for seed, (degree, bias, outputs, activation) in enumerate(
        [(degree, bias, outputs, None) for degree in (3, 4, 5, 6) for bias in (False, True)
         for outputs in (1, 3)]
        + [(4, True, 2, (0.5, -1.0, 0.0, 2.0, 0.25)), (3, False, 1, (0.0, 0.0, 0.0, 2.0)),
           (1, True, 1, (0.5, -2.0))]
    )
]  # fmt: skip


def draw(seed, degree, bias, outputs, activation):
    """A random network of random size, samples and coefficients."""
    rng = np.random.default_rng(seed)
    m, d, n = (int(k) for k in rng.integers(1, 7, size=3))
    network = TwoLayerNetwork(
        hidden_weight=rng.normal(size=(m, d)),
        output_weight=rng.normal(size=(outputs, m) if outputs > 1 else m),
        degree=degree,
        activation=activation,
        hidden_bias=rng.normal(size=m) if bias else None,
        output_bias=rng.normal(size=outputs) if bias else None,
    )
    return network, rng.normal(size=(n, d)), rng.normal(size=(n, outputs) if outputs > 1 else n)


def slow_value(network, x):
    """Evaluate one sample, neuron by neuron, power by power."""
    coefficients = network.activation or (0.0,) * network.degree + (1.0,)
    a = network.output_weight.reshape(network.outputs, network.width)
    values = np.zeros(network.outputs) if network.output_bias is None else +network.output_bias
    for j in range(network.width):
        z = sum(network.hidden_weight[j, k] * x[k] for k in range(network.dimension))
        z += 0.0 if network.hidden_bias is None else network.hidden_bias[j]
        for power, coefficient in enumerate(coefficients):
            values += a[:, j] * coefficient * z**power
    return values


def slow_gradient(network, samples, coefficients):
    """Central differences of sum_i c_i . f(x_i) in every parameter, by name."""
    fields = {
        "hidden_weight": network.hidden_weight,
        "output_weight": network.output_weight,
        "hidden_bias": network.hidden_bias,
        "output_bias": network.output_bias,
    }
    c = np.reshape(coefficients, (len(samples), network.outputs))

    def objective(name, array):
        moved = TwoLayerNetwork(
            degree=network.degree, activation=network.activation, **{**fields, name: array}
        )
        return sum(float(ci @ slow_value(moved, x)) for ci, x in zip(c, samples, strict=True))

    result = {}
    for name, array in fields.items():
        if array is None:
            continue
        result[name] = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[index] = 1e-5
            slope = objective(name, array + step) - objective(name, array - step)
            result[name][index] = slope / 2e-5
    return result


@pytest.mark.parametrize(("seed", "degree", "bias", "outputs", "activation"), CASES)
def test_value_is_the_sum_over_neurons(seed, degree, bias, outputs, activation):
    network, samples, _ = draw(seed, degree, bias, outputs, activation)
    expected = np.array([slow_value(network, x) for x in samples])
    values = network.value(samples)
    assert values.shape == ((len(samples), outputs) if outputs > 1 else (len(samples),))
    np.testing.assert_allclose(values, expected.reshape(values.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("seed", "degree", "bias", "outputs", "activation"), CASES)
def test_gradient_agrees_with_finite_differences(seed, degree, bias, outputs, activation):
    network, samples, c = draw(seed, degree, bias, outputs, activation)
    gradient = network.gradient(samples, c)
    for name, expected in slow_gradient(network, samples, c).items():
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(getattr(gradient, name), expected, rtol=0, atol=1e-6 * scale)
    assert gradient.arrays().keys() == network.arrays().keys()


@pytest.mark.parametrize(("seed", "degree", "bias", "outputs", "activation"), CASES)
def test_gradient_agrees_with_autograd(seed, degree, bias, outputs, activation):
    torch = pytest.importorskip("torch")
    network, samples, c = draw(seed, degree, bias, outputs, activation)
    parameters = {
        name: torch.tensor(array, dtype=torch.float64, requires_grad=True)
        for name, array in network.arrays().items()
    }
    z = torch.tensor(samples) @ parameters["hidden.weight"].T + parameters.get("hidden.bias", 0.0)
    powers = network.activation or (0.0,) * degree + (1.0,)
    active = sum(coefficient * z**power for power, coefficient in enumerate(powers))
    values = active @ parameters["output.weight"].reshape(outputs, -1).T
    values = values + parameters.get("output.bias", 0.0)
    (values * torch.tensor(c).reshape(len(samples), outputs)).sum().backward()
    gradient = network.gradient(samples, c)
    for name, array in gradient.arrays().items():
        expected = parameters[name].grad.numpy()
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("bias", [False, True])
def test_points_and_lift_carry_the_bias(bias):
    network, samples, _ = draw(7, 3, bias, 1, None)
    z = network.lift(samples) @ network.points.T
    np.testing.assert_allclose(
        z**3 @ network.output_weight + (network.output_bias[0] if bias else 0.0),
        network.value(samples),
        rtol=1e-12,
    )
    assert network.points.shape == (network.width, network.dimension + bias)
    assert network.has_bias is bias


@pytest.mark.parametrize(("degree", "sign"), [(3, -1.0), (4, 1.0)])
def test_symmetry_of_a_neuron(degree, sign):
    network, samples, _ = draw(5, degree, False, 1, None)
    turned = TwoLayerNetwork(-network.hidden_weight, sign * network.output_weight, degree)
    np.testing.assert_allclose(turned.value(samples), network.value(samples), rtol=1e-12)


def test_arrays_are_copies_that_cannot_be_written():
    weight = np.ones((2, 3))
    network = TwoLayerNetwork(weight, np.ones(2), degree=3)
    weight[0, 0] = 7.0
    assert network.hidden_weight[0, 0] == 1.0
    for array in network.arrays().values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_one_output_has_one_form():
    wide = TwoLayerNetwork(np.ones((2, 3)), np.ones((1, 2)), degree=3)
    flat = TwoLayerNetwork(np.ones((2, 3)), np.ones(2), degree=3)
    assert wide.output_weight.shape == flat.output_weight.shape == (2,)
    assert wide.sha256() == flat.sha256()


def test_hash_sees_numbers_degree_activation_and_shape_only():
    base = TwoLayerNetwork(np.ones((2, 2)), np.ones(2), degree=3)
    single = TwoLayerNetwork(np.ones((2, 2), np.float32), np.ones(2, np.float32), degree=3)
    fortran = TwoLayerNetwork(np.ones((2, 2), order="F"), np.ones(2, dtype=">f8"), degree=3)
    assert base.sha256() == single.sha256() == fortran.sha256()
    others = [
        TwoLayerNetwork(np.ones((2, 2)), np.ones(2), degree=4),
        TwoLayerNetwork(np.ones((2, 2)), np.array([1.0, 1.0 + 2**-52]), degree=3),
        TwoLayerNetwork(np.ones((2, 2)), np.ones(2), degree=3, hidden_bias=np.zeros(2)),
        TwoLayerNetwork(np.ones((2, 2)), np.ones(2), degree=3, output_bias=np.zeros(1)),
        TwoLayerNetwork(np.ones((2, 2)), np.ones(2), degree=3, activation=(0, 0, 0, 2)),
        TwoLayerNetwork(np.ones((2, 2)), np.ones(2), degree=3, activation=(0, 0, 1, 1)),
    ]
    assert len({network.sha256() for network in [base, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.float64, 2**-53), (np.float32, 2**-24), (np.float16, 2**-11)],
)
def test_rounding_is_that_of_the_coarsest_array(dtype, expected):
    network = TwoLayerNetwork(np.ones((2, 2)), np.ones(2, dtype), degree=3)
    assert network.rounding == expected == np.finfo(dtype).eps / 2
    assert network.gradient(np.ones((1, 2)), [1.0]).rounding == expected


def test_unit_coefficients_are_the_monomial():
    network = TwoLayerNetwork(np.ones((1, 1)), np.ones(1), degree=3, activation=(0, 0, 0, 1))
    assert network.activation is None
    network.require_supported()


def test_what_the_verifier_does_not_cover_yet():
    scaled = TwoLayerNetwork(np.ones((1, 1)), np.ones(1), degree=3, activation=(0, 0, 0, 2))
    assert scaled.value([[3.0]]) == [54.0]
    with pytest.raises(NotYetSupportedError, match="polynomial"):
        scaled.require_supported()
    several = TwoLayerNetwork(np.ones((1, 1)), np.ones((2, 1)), degree=3)
    with pytest.raises(NotYetSupportedError, match="2 outputs"):
        several.require_supported()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_weight": np.ones(3)}, "hidden_weight: expected shape"),
        ({"hidden_weight": np.ones((0, 3))}, "hidden_weight: expected shape"),
        ({"hidden_weight": np.ones((2, 0))}, "hidden_weight: expected shape"),
        ({"hidden_weight": [[1.0], [1.0, 2.0]]}, "rectangular"),
        ({"hidden_weight": np.ones((2, 3)) * 1j}, "dtype complex128"),
        ({"hidden_weight": np.array([["a"] * 3] * 2)}, "dtype <U1"),
        ({"hidden_weight": np.full((2, 3), np.nan)}, "finite"),
        ({"output_weight": np.ones(3)}, r"expected shape \(2,\)"),
        ({"output_weight": np.array([1.0, -np.inf])}, "finite"),
        ({"output_weight": np.ones((0, 2))}, "output_weight"),
        ({"hidden_bias": np.ones(3)}, r"hidden_bias: expected shape \(2,\)"),
        ({"output_bias": np.ones(2)}, r"output_bias: expected shape \(1,\)"),
        ({"degree": 2}, "degree: expected 3 to"),
        ({"degree": 10**9}, "degree: expected 3 to"),
        ({"degree": 3.0}, "degree: expected an integer"),
        ({"degree": True}, "degree: expected an integer"),
        ({"activation": (1.0, 2.0)}, "expected 4 coefficients"),
        ({"activation": (1.0, 2.0, 0.0, 0.0)}, "last one not 0"),
        ({"activation": (np.nan, 2.0, 0.0, 1.0)}, "finite"),
        ({"rounding": 0.0}, "unit roundoff"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    good = {"hidden_weight": np.ones((2, 3)), "output_weight": np.ones(2), "degree": 3}
    TwoLayerNetwork(**good)
    with pytest.raises(InvalidInputError, match=message) as caught:
        TwoLayerNetwork(**{**good, **changes})
    assert "\n" not in str(caught.value)


def test_bad_samples_and_coefficients():
    network = TwoLayerNetwork(np.ones((2, 3)), np.ones((2, 2)), degree=3)
    for samples in (np.ones(3), np.ones((2, 4)), np.ones((0, 3)), np.full((1, 3), np.nan)):
        with pytest.raises(InvalidInputError, match="samples"):
            network.value(samples)
    for coefficients in (np.ones(2), np.ones((2, 1)), np.ones((3, 2)), 1.0):
        with pytest.raises(InvalidInputError, match=r"expected shape \(2, 2\)"):
            network.gradient(np.ones((2, 3)), coefficients)


def test_overflow_is_an_error_and_no_warning():
    network = TwoLayerNetwork(np.full((1, 1), 1e150), np.ones(1), degree=3)
    with pytest.raises(InvalidInputError, match="overflow"):
        network.value([[1.0]])
    with pytest.raises(InvalidInputError, match="overflow"):
        network.gradient([[1.0]], [1.0])


def test_errors_survive_pickling():
    error = InvalidInputError("samples", "at least 1", 0, "leave it out")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InvalidInputError
    assert str(copy) == str(error)
    assert copy.context == error.context


class TestFromTorch:
    def test_values_are_those_of_the_module(self):
        torch = pytest.importorskip("torch")

        class Cube(torch.nn.Module):
            def forward(self, z):
                return z**3

        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(5, 4), Cube(), torch.nn.Linear(4, 2))
        network = from_torch(module, degree=3)
        samples = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
        expected = module(torch.tensor(samples)).detach().numpy()
        np.testing.assert_allclose(network.value(samples), expected, rtol=1e-4, atol=1e-5)
        assert network.rounding == 2**-24

    def test_other_activations_and_depths_are_refused(self):
        torch = pytest.importorskip("torch")
        linear = torch.nn.Linear
        relu = torch.nn.Sequential(linear(5, 4), torch.nn.ReLU(), linear(4, 1))
        deep = torch.nn.Sequential(linear(5, 4), linear(4, 4), linear(4, 1))
        norm = torch.nn.Sequential(linear(5, 4), torch.nn.BatchNorm1d(4), linear(4, 1))
        for module, message in (
            (relu, "ReLU"),
            (deep, "3 weight"),
            (norm, "batch normalisation 1"),
        ):
            with pytest.raises(UnsupportableModelError, match=message):
                from_torch(module, degree=3)

    @pytest.mark.parametrize(("dtype", "rounding"), [("bfloat16", 2**-8), ("float16", 2**-11)])
    def test_half_precision_is_exact(self, dtype, rounding):
        torch = pytest.importorskip("torch")
        module = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 1))
        module = module.to(getattr(torch, dtype))
        network = from_torch(module, degree=4)
        assert network.rounding == rounding
        expected = module[0].weight.detach().to(torch.float64).numpy()
        np.testing.assert_array_equal(network.hidden_weight, expected)
