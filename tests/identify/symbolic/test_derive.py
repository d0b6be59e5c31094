"""The KKT system in symbols against the numbers that the verifier computes."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations_with_replacement

import numpy as np
import pytest
import sympy

import identify
from identify.errors import InvalidInputError
from identify.model.two_layer import TwoLayerNetwork
from identify.symbolic.derive import kkt_system
from identify.tensors import hermite_matrix
from tests.command_line import kkt, refused

CASES = {
    "cubic": (3, {}),
    "quartic": (4, {}),
    "quintic": (5, {}),
    "bias": (3, {"bias": True}),
    "polynomial": (4, {"activation": [0.5, -1.0, 0.25, 0.0, 0.1]}),
    "two outputs": (3, {"outputs": 2}),
    "all": (3, {"activation": [0.3, 1.0, 0.0, -2.0], "bias": True, "outputs": 3}),
}
DIMENSION, WIDTH, SAMPLES = 3, 2, 4


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """A system, and a random network, samples, multipliers and labels for it."""
    degree, options = request.param
    system = kkt_system(DIMENSION, WIDTH, SAMPLES, degree, **options)
    rng = np.random.default_rng(7)
    outputs = system.outputs
    network = TwoLayerNetwork(
        rng.normal(size=(WIDTH, DIMENSION)),
        rng.normal(size=(outputs, WIDTH)),
        degree,
        activation=options.get("activation"),
        hidden_bias=rng.normal(size=WIDTH) if system.bias else None,
    )
    values = {
        "a": network.output_weight,
        "w": network.hidden_weight,
        "x": rng.normal(size=(SAMPLES, DIMENSION)),
        "multipliers": rng.uniform(0.1, 1.0, size=(SAMPLES, max(1, outputs - 1))),
    }
    if system.bias:
        values["h"] = network.hidden_bias
    if outputs == 1:
        values["y"] = rng.choice([-1.0, 1.0], SAMPLES)
    return system, network, values


def expected_coefficients(system, values):
    """b (n, C) by hand: lambda y, or plus for the class and minus for the others."""
    if system.outputs == 1:
        return values["multipliers"] * values["y"][:, None]
    b = np.zeros((SAMPLES, system.outputs))
    for i, own in enumerate(system.classes):
        others = [c for c in range(system.outputs) if c != own - 1]
        b[i, others] = -values["multipliers"][i]
        b[i, own - 1] = values["multipliers"][i].sum()
    return b


@pytest.mark.medium
def test_stationarity_is_the_residual_of_the_network(case):
    system, network, values = case
    step = network.gradient(values["x"], expected_coefficients(system, values))
    parts = [(network.output_weight, step.output_weight)]
    parts.append((network.hidden_weight, step.hidden_weight))
    if system.bias:
        parts.append((network.hidden_bias, step.hidden_bias))
    residual = np.concatenate([(theta - g).ravel() for theta, g in parts])
    found = system.lambdify()(**values)
    np.testing.assert_allclose(found, residual, rtol=0, atol=1e-12 * abs(residual).max())


def test_stationarity_is_the_gradient_of_the_printed_lagrangian():
    for outputs in (1, 2):
        system = kkt_system(2, 2, 2, 3, outputs=outputs, bias=True)
        for s, equation in zip(system.parameters, system.stationarity, strict=True):
            assert sympy.expand(system.lagrangian.diff(s) - equation) == 0


def test_constraints_are_margins_of_the_network(case):
    system, network, values = case
    f = network.value(values["x"])
    if system.outputs == 1:
        margins = values["y"] * f
    else:
        margins = np.concatenate(
            [f[i, k - 1] - np.delete(f[i], k - 1) for i, k in enumerate(system.classes)]
        )
    primal = system.lambdify(system.primal)(**values)
    np.testing.assert_allclose(primal, margins - 1, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(
        system.lambdify(system.slackness)(**values),
        values["multipliers"].ravel() * primal,
        rtol=1e-12,
    )
    multipliers = system.lambdify(system.dual)(multipliers=values["multipliers"])
    np.testing.assert_array_equal(multipliers, values["multipliers"].ravel())


def test_hermite_matrix_is_the_numerical_one(case):
    system, network, values = case
    weights = {name: values[name] for name in ("w", "h") if name in values}
    for order in system.orders():
        matrix = system.lambdify(system.hermite_matrix(order))(**weights)
        identity = np.tile(np.eye(system.point_dimension), (WIDTH, 1))  # T(w^0, .) = T
        expected = identity if order == 1 else hermite_matrix(network.points, order)
        np.testing.assert_allclose(matrix, expected, atol=1e-12)


@pytest.mark.medium
def test_moment_tensor_is_the_numerical_one(case):
    system, network, values = case
    lifted = network.lift(values["x"])
    b = expected_coefficients(system, values)
    del values["a"], values["w"]
    values.pop("h", None)
    for order in system.orders():
        factor = 1.0 if network.activation is None else network.activation[order]
        for output in range(1, system.outputs + 1):
            tensor = system.moment_tensor(order, output)
            indices = [tuple(np.array(k) - 1) for k in tensor]
            assert indices == list(combinations_with_replacement(range(lifted.shape[1]), order))
            entries = [
                factor * b[:, output - 1] @ np.prod(lifted[:, list(index)], axis=1)
                for index in indices
            ]
            found = system.lambdify(list(tensor.values()))(**values)
            np.testing.assert_allclose(found, entries, rtol=1e-12, atol=1e-12)


def test_stationarity_is_linear_in_the_moment_tensor():
    """w_j - a_j sum_k k T_k(w_j^(k-1), .) = 0, with T in Bombieri-Weyl coordinates."""
    system = kkt_system(2, 2, 2, 3, activation=[1, 0, 2, 5])
    total = sympy.zeros(4, 1)
    for order in system.orders():
        coordinates = []
        for index, entry in system.moment_tensor(order).items():
            ones = index.count(1)
            coordinates.append(sympy.sqrt(sympy.binomial(order, ones)) * entry)
        total += order * system.hermite_matrix(order) * sympy.Matrix(coordinates)
    a, w = system.symbols["a"], system.symbols["w"]
    for row in range(4):
        equation = w[row] - a[row // 2] * total[row]
        assert sympy.expand(equation - system.stationarity[2 + row]) == 0


@pytest.mark.parametrize("degree", [1, 2, 3, 6])
def test_balance_holds_for_the_degree_asked_for(degree):
    """w . dL/dw = degree * a dL/da up to |w|^2 - degree a^2, by Euler: wrong for another degree."""
    system = kkt_system(2, 1, 1, degree)
    (a,), w = system.symbols["a"], system.symbols["w"]
    first, *others = system.stationarity
    combined = sum(u * e for u, e in zip(w, others, strict=True)) - degree * a * first
    square = sum(u**2 for u in w)
    assert sympy.expand(combined - square + degree * a**2) == 0
    other = kkt_system(2, 1, 1, degree + 1)
    assert sympy.expand(other.stationarity[0] - first) != 0
    assert sympy.expand(other.stationarity[1] - others[0]) != 0


def test_floats_are_decimals_and_a_monomial_is_a_polynomial():
    system = kkt_system(1, 1, 1, 3, activation=[0, 0, 0, 0.1])
    plain = kkt_system(1, 1, 1, 3)
    assert sympy.expand(10 * system.network[0] - plain.network[0]) == 0
    assert system.orders() == plain.orders() == (3,)


def test_classes_choose_the_constraints():
    system = kkt_system(1, 1, 2, 3, outputs=3, classes=[3, 3])
    assert [s.name for s in system.symbols["lambda"]] == [
        "lambda[1,1]", "lambda[1,2]", "lambda[2,1]", "lambda[2,2]",
    ]  # fmt: skip
    assert sum(system.coefficients.row(0)) == 0
    assert kkt_system(1, 1, 4, 3, outputs=3).classes == (1, 2, 3, 1)


def test_count_and_names():
    system = kkt_system(3, 2, 4, 3, bias=True)
    count = system.count()
    assert count["stationarity"] == count["parameters"] == 2 + 6 + 2
    assert count["primal"] == count["dual"] == count["slackness"] == 4
    assert (count["equations"], count["inequalities"]) == (14, 8)
    assert count["unknowns"] == 4 * 3 + 4
    names = {s.name for s in (*system.parameters, *system.unknowns, *system.labels)}
    assert {"w[2,1]", "x[1,3]", "lambda[1]", "a[1]", "h[2]", "y[4]"} <= names
    assert system.stationarity.free_symbols <= {
        *system.parameters, *system.unknowns, *system.labels
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((0, 1, 1, 3), {}, "dimension: expected an integer from 1"),
        ((1, True, 1, 3), {}, "width"),
        ((1, 1, 1, 0), {}, "degree"),
        ((1, 1, 1, 3), {"activation": [1, 2]}, "4 coefficients for degree 3, got 2"),
        ((1, 1, 1, 1), {"activation": [1, 0]}, "the last one not 0"),
        ((1, 1, 1, 1), {"activation": [1, float("nan")]}, "finite"),
        ((1, 1, 2, 3), {"outputs": 2, "classes": [1, 3]}, "classes"),
        ((1, 1, 2, 3), {"outputs": 2, "classes": [1]}, "classes"),
        ((1, 1, 2, 3), {"classes": [1, 1]}, "none for one output"),
        ((3072, 1000, 100, 3), {}, "got 3,073,300"),
        ((9, 90, 9, 3), {}, "2,000 terms"),
    ],
)
def test_refused(arguments, options, words):
    with pytest.raises(InvalidInputError, match=words):
        kkt_system(*arguments, **options)


def test_refused_parts():
    system = kkt_system(2, 1, 1, 3)
    with pytest.raises(InvalidInputError, match="order"):
        system.moment_tensor(2)
    with pytest.raises(InvalidInputError, match="output"):
        system.moment_tensor(output=2)
    with pytest.raises(InvalidInputError, match="entries"):
        kkt_system(10, 1, 1, 30).hermite_matrix()
    with pytest.raises(InvalidInputError, match="arrays: expected a, multipliers, w, x, y"):
        system.lambdify()(a=[1.0])
    with pytest.raises(InvalidInputError, match="a: expected 1 numbers, got 2"):
        system.lambdify(system.symbols["a"])(a=[1.0, 2.0])


@pytest.mark.medium
def test_library_loads_sympy_only_when_asked():
    code = "import sys, identify, kktcert; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert identify.kkt_system is kkt_system


SIZES = ("--dimension", 2, "--width", 2, "--samples", 2)


class TestCommand:
    def test_text(self):
        outcome = kkt("derive", *SIZES, "--degree", 3)
        assert outcome.code == 0
        assert outcome.err == ""
        system = kkt_system(2, 2, 2, 3)
        assert outcome.out == str(system)
        for equation in (*system.stationarity, *system.slackness):
            assert f"\n{equation} = 0\n" in outcome.out
        assert "lambda[2] >= 0\n" in outcome.out
        assert "T[1,1,2] = " in outcome.out

    def test_latex(self):
        outcome = kkt("derive", *SIZES, "--degree", 3, "--bias", "--format", "latex")
        assert outcome.code == 0
        out = outcome.out
        assert out.count(r"\begin{align*}") == out.count(r"\end{align*}") == 8
        assert out.count("{") == out.count("}")
        assert r"\lambda_{1} &\ge 0" in out
        assert "w_{2,1}" in out
        assert "[" not in out.replace(r"\left[", "")

    def test_json(self):
        options = ("--activation", "0,1,0,0.5", "--outputs", 2, "--format", "json")
        outcome = kkt("derive", *SIZES, *options)
        assert outcome.code == 0
        content = json.loads(outcome.out)
        system = kkt_system(2, 2, 2, 3, activation=[0, 1, 0, 0.5], outputs=2)
        assert content == json.loads(json.dumps(system.to_json()))
        assert content["count"] == system.count()
        assert content["classes"] == [1, 2]
        assert content["activation"] == ["0", "1", "0", "1/2"]
        assert [entry["name"] for entry in content["stationarity"]] == content["parameters"]
        assert [(t["order"], t["output"]) for t in content["moment_tensors"]] == [
            (1, 1), (1, 2), (3, 1), (3, 2),
        ]  # fmt: skip
        assert [len(h["rows"]) for h in content["hermite_matrices"]] == [4, 4]

    def test_parts_that_are_too_large_are_named(self):
        sizes = ("--dimension", 6, "--width", 1, "--samples", 1, "--degree", 20)
        outcome = kkt("derive", *sizes)
        assert outcome.code == 0
        assert "Moment tensor of order 20: too large\n" in outcome.out
        content = json.loads(kkt("derive", *sizes, "--format", "json").out)
        assert content["moment_tensors"][0]["entries"] is None
        assert content["hermite_matrices"][0]["rows"] is None

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ((), "--degree"),
            (("--degree", 3, "--format", "html"), "html"),
            (("--degree", 3, "--width", 10**9), "equations and inequalities"),
            (("--degree", 3, "--samples", 0), "samples"),
            (("--activation", "1,x"), "--activation"),
            (("--activation", "1,inf"), "finite"),
            (("--activation", "1,2,3", "--degree", 3), "4 coefficients"),
        ],
    )
    def test_refused(self, tmp_path, options, words):
        refused(tmp_path, "derive", *SIZES, *options, words=words)
