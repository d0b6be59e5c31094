"""Error signals at the last hidden layer of a ReLU network, in integers.

A batch is masks, amplitudes and loss slopes: delta_i = mask_i * (A p_i), G = sum_i delta_i
[h_i, 1]^T. Masks need not be those of weights: what is said here holds for all of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from identify.arrays import FloatArray
from identify.disaggregation import cp, relu
from proofs_check import strategies
from proofs_check.arithmetic.integers import PRIMES, IntegerArray, modular_rank
from proofs_check.machinery.statement import Check
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, eq=False)
class Signals:
    """Masks (m, n), amplitudes A (m, q), loss slopes p (n, q), lifted inputs (n, k), integers."""

    masks: IntegerArray
    amplitudes: IntegerArray
    slopes: IntegerArray
    inputs: IntegerArray
    seed: int

    def __repr__(self) -> str:
        (m, n), q = self.masks.shape, self.slopes.shape[1]
        return f"Signals(m={m}, n={n}, q={q}, seed={self.seed})"

    @property
    def delta(self) -> IntegerArray:
        """The error signals (m, n)."""
        found: IntegerArray = self.masks * (self.amplitudes @ self.slopes.T)
        return found

    @property
    def gradient(self) -> IntegerArray:
        """G (m, k)."""
        found: IntegerArray = self.delta @ self.inputs
        return found

    @property
    def unknowns(self) -> int:
        """D = r (r + 1) / 2 + r q, r the rank of G."""
        r, q = rank(self.gradient), int(self.slopes.shape[1])
        return r * (r + 1) // 2 + r * q


def rank(matrix: IntegerArray) -> int:
    """Rank modulo a prime, at most that over Q and equal to it but for an accident."""
    return int(modular_rank(matrix % PRIMES[0], PRIMES[0]))


def basis(batch: Signals) -> IntegerArray:
    """Columns of the error signals that are a basis of the column space of G, (m, r)."""
    chosen: list[int] = []
    delta = batch.delta
    for column in range(delta.shape[1]):
        if rank(delta[:, [*chosen, column]]) > len(chosen):
            chosen.append(column)
    return delta[:, chosen]


def kernel_dimension(batch: Signals) -> int:
    """The dimension of ker L, from a rank modulo a prime."""
    u, a = basis(batch), batch.amplitudes
    r, q = u.shape[1], a.shape[1]
    columns = [u[:, i] * u[:, k] for i in range(r) for k in range(i, r)]
    columns += [u[:, i] * a[:, c] for i in range(r) for c in range(q)]
    return len(columns) - rank(np.column_stack(columns))


def product_operator(batch: Signals) -> tuple[relu.Operator, FloatArray]:
    """The operator of the product for this gradient, and its U."""
    u, s, _ = np.linalg.svd(batch.gradient.astype(np.float64), full_matrices=False)
    r = rank(batch.gradient)
    amplitudes = batch.amplitudes.astype(np.float64)
    return relu.build_operator(u[:, :r], s[:r], amplitudes, 0.0), u[:, :r]


def product_kernel_dimension(batch: Signals) -> int:
    """The dimension of the kernel of the product's operator, by its singular values."""
    operator, _ = product_operator(batch)
    rows = np.concatenate([block for _, block in operator.chunks()])
    values = np.linalg.svd(rows, compute_uv=False)
    return operator.unknowns - int((values > 1e-9 * values[0]).sum())


def signals_of(batch: Signals) -> list[FloatArray] | None:
    """All error signals in the column space of G up to scale, by trying every mask.

    None if a mask has a continuum of them.
    """
    m = len(batch.amplitudes)
    u = np.linalg.qr(basis(batch).astype(np.float64))[0]
    found: list[FloatArray] = []
    for bits in itertools.product((0.0, 1.0), repeat=m):
        if not any(bits):
            continue
        signal = np.array(bits)[:, None] * batch.amplitudes
        left, values, _ = np.linalg.svd(signal, full_matrices=False)
        left = left[:, values > 1e-9 * max(float(values[0]), 1.0)]
        outside = left - u @ (u.T @ left)
        sizes, turn = np.linalg.svd(outside)[1:]
        free = np.flatnonzero(np.append(sizes, np.zeros(left.shape[1] - len(sizes))) < 1e-9)
        if len(free) > 1:
            return None
        found += [left @ turn[index] for index in free]
    return different(found)


def different(directions: list[FloatArray]) -> list[FloatArray]:
    """Unit vectors without repetitions up to sign."""
    kept: list[FloatArray] = []
    for vector in directions:
        unit = vector / np.linalg.norm(vector)
        if all(apart(unit, other) > 1e-7 for other in kept):
            kept.append(unit)
    return kept


def apart(first: FloatArray, second: FloatArray) -> float:
    """The distance of two unit vectors up to sign."""
    return float(min(np.linalg.norm(first - second), np.linalg.norm(first + second)))


def only_these(batch: Signals) -> Check:
    """Whether the column space holds the batch's error signals and no other one."""
    found = signals_of(batch)
    if found is None:
        return Check.of(False, "a mask with a continuum of error signals")
    true = different(list(batch.delta.T.astype(np.float64)))
    if len(found) != len(true) or len(true) != batch.masks.shape[1]:
        return Check.of(False, f"{len(found)} error signals, {batch.masks.shape[1]} samples")
    gaps = [min(apart(one, other) for other in true) for one in found]
    return Check.of(max(gaps) < 1e-6, "another error signal")


def by_product(batch: Signals) -> Check:
    """Whether the kernel of the product's operator gives the batch's (delta_i, p_i)."""
    operator, u = product_operator(batch)
    if len(operator.basis) < operator.unknowns - u.shape[1]:
        return Check.of(False, "fewer rows than the kernel needs")
    kernel = relu.find_kernel(operator)
    z, p, _ = operator.unpack(kernel.vectors[:, : u.shape[1]])
    terms = cp.decompose_kernel(z, p)
    found = np.vstack([u @ terms.vectors, terms.cotangents.T])
    true = np.vstack([batch.delta, batch.slopes.T]).astype(np.float64)
    gaps = [
        min(apart(one / np.linalg.norm(one), other / np.linalg.norm(other)) for other in found.T)
        for one in true.T
    ]
    allowed = min(1e-2, 1e5 * UNIT / max(kernel.plain, 1e-300))
    return Check.compare(max(gaps), allowed, "terms of the kernel")


def draw(
    neurons: int, count: int, outputs: int, seed: int, *, masks: Any = None, spare: int = 2
) -> Signals:
    """A random batch; small integers, no amplitude 0, every sample on somewhere."""
    rng = np.random.default_rng([seed, neurons, count, outputs])
    if masks is None:
        masks = rng.integers(0, 2, (neurons, count))
        masks[rng.integers(0, neurons, count), np.arange(count)] = 1
    amplitudes = rng.integers(1, 6, (neurons, outputs)) * rng.choice([-1, 1], (neurons, outputs))
    slopes = rng.integers(1, 6, (count, outputs)) * rng.choice([-1, 1], (count, outputs))
    inputs = rng.integers(-4, 5, (count, count + spare))
    inputs[:, -1] = 1
    return Signals(np.asarray(masks), amplitudes, slopes, inputs, seed)


def batches(
    neurons: tuple[int, int] = (3, 9), counts: tuple[int, ...] = (1, 2, 3), outputs: Any = (1, 1, 2)
) -> SearchStrategy[Signals]:
    """Random batches of all sizes."""
    from hypothesis import strategies as st

    return st.builds(
        draw,
        st.integers(*neurons),
        st.sampled_from(counts),
        st.sampled_from(outputs),
        st.integers(0, strategies.SEEDS),
    )
