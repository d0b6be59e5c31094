"""Ranks modulo a prime against exact ranks, the power figure, the statement about the data."""

from __future__ import annotations

from fractions import Fraction

import flint
import numpy as np
import pytest

from identify.disaggregation import printed
from identify.disaggregation.evidence import power
from identify.disaggregation.factor import factor
from identify.disaggregation.masks import Layer
from identify.disaggregation.printed import prove_printed

from .problems import plant


def exact_rank(amplitudes, p, masks, leak) -> tuple[int, int]:
    """Rank over the rational numbers of (x_j x_k (j <= k), x_j A_c, A_c A_d), and D - r."""
    a = [[Fraction(float(v)) for v in row] for row in amplitudes]
    c = [[Fraction(float(v)) for v in row] for row in p]
    s, rows = Fraction(float(leak)), []
    n, q = p.shape
    for j in range(len(a)):
        x = [sum(a[j][t] * c[i][t] for t in range(q)) * (1 if masks[j, i] else s) for i in range(n)]
        row = [x[i] * x[k] for i in range(n) for k in range(i, n)]
        row += [x[i] * a[j][t] for i in range(n) for t in range(q)]
        if leak:
            row += [a[j][t] * a[j][u] for t in range(q) for u in range(t, q)]
        rows.append([flint.fmpq(v.numerator, v.denominator) for v in row])
    unknowns = len(rows[0])
    return flint.fmpq_mat(rows).rank(), unknowns - n


@pytest.mark.parametrize("leak", [0.0, 0.25])
@pytest.mark.parametrize(("n", "q", "rows"), [(2, 1, 8), (3, 1, 20), (3, 2, 30), (4, 3, 50)])
@pytest.mark.parametrize("equal", [False, True])
def test_modular_rank_is_the_exact_rank(n, q, rows, leak, equal):
    rng = np.random.default_rng(n)
    a, p = rng.normal(size=(rows, q)), rng.normal(size=(n, q))
    masks = rng.random((rows, n)) < 0.5
    if equal:
        masks[:, 1] = masks[:, 0]
        if q == 1:
            p[1] = 2 * p[0]
    rank, required = exact_rank(a, p, masks, leak)
    proof = prove_printed(a, p, masks, leak)
    assert proof.required == required
    assert proof.holds == (rank == required)
    assert proof.rank == rank
    assert (proof.prime is not None) == proof.holds


def test_differences_of_outputs_are_exact():
    """p of sum 0: the rank is that with A_c - A_C taken before any rounding."""
    rng = np.random.default_rng(0)
    a, p = rng.normal(size=(60, 4)), rng.normal(size=(3, 4))
    masks = rng.random((60, 3)) < 0.5
    proof = prove_printed(a, p, masks, 0.0, zero_sum=True)
    assert (proof.holds, proof.required) == (True, 3 * 2 // 2 + 3 * 3)


@pytest.mark.parametrize("kind", ["random", "equal", "union", "few"])
def test_cholesky_agrees_with_the_rank(kind, monkeypatch):
    rng = np.random.default_rng(1)
    masks = rng.random((60, 6)) < 0.5
    if kind == "equal":
        masks[:, 1] = masks[:, 0]
    if kind == "union":
        masks[:, 1] &= ~masks[:, 0]
        masks[:, 2] = masks[:, 0] | masks[:, 1]
    if kind == "few":
        masks = masks[:21]
    a, p = np.ones((len(masks), 1)), np.ones((6, 1))
    modular = prove_printed(a, p, masks, 0.0)
    monkeypatch.setattr(printed, "_MODULAR_COLUMNS", 0)
    other = prove_printed(a, p, masks, 0.0)
    if kind == "random":
        assert modular.holds
        assert other.holds
        assert other.method != modular.method
    elif kind in ("equal", "union"):
        assert modular.holds is False
        assert other.holds is None
    else:
        # One square matrix may be regular; the two then agree.
        assert other.holds in (None, modular.holds)


def test_power_counts_different_neurons_only():
    """Copies of neurons are rows, not equations."""
    problem = plant([10, 40, 1], 3, 0)

    def layer_and_power(rows):
        weight, bias = problem.network.weights[0][rows], problem.network.biases[0][rows]
        a = problem.network.weights[1][:, rows]
        z = problem.samples @ weight.T + bias
        delta = (problem.cotangents @ a) * (z > 0)
        g = delta.T @ np.column_stack([problem.samples, np.ones(3)])
        layer = Layer(weight, bias, a.T, 0.0, True)
        return power(layer, factor(g, rank=3), problem.samples)

    alone = layer_and_power(np.arange(8))
    assert layer_and_power(np.tile(np.arange(8), 5)) <= max(alone, 8 - 3 - 2)
    assert layer_and_power(np.arange(40)) > 20
