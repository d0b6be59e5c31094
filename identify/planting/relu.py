"""Exact stationary points of two-layer ReLU networks, built from given samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork
from identify.model.patterns import pattern_rank
from identify.planting.plant import PlantingError

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

KINDS = ("margin", "regression")
TRAINED = ("hidden", "both")
_ENUMERATED = 13
_DRAWS = 4000
_ROUNDS = 30
_TRIES = 40
_KINK = 1e-3
_UNIT = 1e-10
_SPREAD = 0.2


@dataclass(frozen=True, eq=False)
class PlantedRelu:
    """A two-layer ReLU network that is exactly stationary for known samples.

    [w_j, beta_j] = a_j sum_i b_i [w_j . x_i + beta_j > 0] [x_i, 1] with b_i = multipliers_i
    labels_i; for ``trained`` "both" also a_j = sum_i b_i relu(w_j . x_i + beta_j). ``patterns``
    (m, n) says which neuron is on for which sample. For ``kind`` "margin" every
    labels_i f(x_i) is 1; for "regression" the outputs are free. ``determined`` says that the
    patterns span all symmetric n x n matrices, so that no other n samples explain the weights.
    """

    network: DeepNetwork
    samples: FloatArray
    labels: FloatArray
    multipliers: FloatArray
    patterns: BoolArray
    kind: str
    trained: str
    determined: bool
    tries: int
    seed: int

    @property
    def coefficients(self) -> FloatArray:
        """b_i, shape (n,)."""
        return self.multipliers * self.labels

    def truth(self) -> Mapping[str, FloatArray]:
        """The arrays of a truth file."""
        return {"samples": self.samples, "labels": self.labels, "multipliers": self.multipliers}


def plant_relu_network(
    samples: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    kind: str = "margin",
    trained: str = "hidden",
    copies: int = 2,
    width: int | None = None,
    bias: bool = True,
    seed: int = 0,
) -> PlantedRelu:
    """Build a two-layer ReLU network that is a stationary point for the given samples.

    A neuron of pattern S is a_j v_S with v_S = sum_(i in S) b_i [x_i, 1]; S has to be the pattern
    of that neuron. All such patterns are used, for both signs of a_j. With the output layer fixed
    the a_j are free; for "margin" they solve sum_S c_S v_S . [x_i, 1] = labels_i, c_S the sum of
    a_j^2. With both layers trained only patterns with |v_S| = 1 are used, which need special
    samples: see `equiangular_samples`.

    Args:
        samples: (n, d); the more negative their inner products, the more patterns.
        labels: (n,) of -1 and 1; all 1 by default, which gives the most patterns.
        kind: "margin" for a KKT point of the max-margin problem, "regression" for weight decay.
        trained: "hidden" if the output layer is fixed, "both" if not.
        copies: neurons of each pattern.
        width: the number of neurons in place of the copies, shared out evenly; of more patterns
            than that some are drawn.
        bias: whether the hidden layer has a bias, whose square counts in the norm.
        seed: of multipliers and sizes.

    Raises:
        InvalidInputError: values out of range.
        PlantingError: no multipliers were found for which the margins can be 1.

    Cost: 2^n n operations a try for n up to 13, else a few thousand fixed points.

    Source: the KKT system of Lyu & Li (2020), solved for the weights.

    Example:
        >>> planted = plant_relu_network([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
        >>> len(planted.network.weights[0]), planted.determined
        (14, True)
    """
    x = np.asarray(samples, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape or not np.isfinite(x).all():
        raise InvalidInputError("samples", "a finite array (n, d)", f"shape {x.shape}")
    y = np.ones(len(x)) if labels is None else np.asarray(labels, dtype=np.float64)
    if y.shape != (len(x),) or not np.isin(y, (-1.0, 1.0)).all():
        raise InvalidInputError("labels", f"{len(x)} numbers -1 or 1", y.shape)
    if kind not in KINDS or trained not in TRAINED:
        raise InvalidInputError("kind, trained", f"{KINDS} and {TRAINED}", (kind, trained))
    if copies < 1:
        raise InvalidInputError("copies", "at least 1", copies)
    if width is not None and width < 1:
        raise InvalidInputError("width", "at least 1", width)
    rng = np.random.default_rng(seed)
    lifted = np.column_stack([x, np.ones(len(x))]) if bias else x
    for attempt in range(1, _TRIES + 1):
        equal = attempt == 1 or trained == "both"
        multipliers = np.ones(len(x)) if equal else rng.uniform(0.5, 2.0, len(x))
        found = _find(lifted, multipliers, y, kind, trained, width, rng)
        if found is not None:
            multipliers, patterns, signs, shares = found
            counts = _counts(len(patterns), copies, width)
            rows, a = _neurons(lifted, multipliers * y, patterns, signs, shares, counts, rng)
            hidden, offsets = (rows[:, :-1], rows[:, -1]) if bias else (rows, None)
            network = DeepNetwork([hidden, a[None]], [offsets, None], "relu")
            on = np.repeat(patterns, counts, axis=0)
            full = pattern_rank(on) == len(x) * (len(x) + 1) // 2
            return PlantedRelu(network, x, y, multipliers, on, kind, trained, full, attempt, seed)
        if trained == "both" and width is None:
            break
    raise PlantingError(
        f"no multipliers give {'margins 1' if kind == 'margin' else 'any neuron'} "
        f"in {attempt} tries; take samples with more negative inner products",
        tries=attempt,
    )


def equiangular_samples(
    count: int, size: int, dimension: int, *, spread: float = 2.0, seed: int = 0
) -> FloatArray:
    """Return samples (n, d) for which a network with both layers trained can be determined.

    With u_i = [x_i, 1] all |u_i| are equal and u_i . u_k = -|u_i|^2 / (2 s), so that |v_S| is the
    same for all S of s or s + 1 samples of one label: these patterns can occur together. They span
    all symmetric matrices for n = 4, s = 2 (10 patterns) and n = 8, s = 4 (126).

    |u_i|^2 is ``spread`` times n / (1 - (n - 1) / (2 s)), the least that leaves room for the 1.

    Raises InvalidInputError unless 2 s > n - 1, d >= n and spread > 1.

    Example:
        >>> u = np.column_stack([equiangular_samples(4, 2, 5), np.ones(4)])
        >>> np.round(4 * u @ u.T / (u @ u.T)[0, 0])[0]
        array([ 4., -1., -1., -1.])
    """
    if count < 1 or size < 1 or 2 * size <= count - 1 or dimension < count or spread <= 1.0:
        raise InvalidInputError(
            "count, size, dimension, spread",
            "2 size > count - 1, dimension >= count and spread > 1",
            (count, size, dimension, spread),
        )
    square = spread * count / (1.0 - (count - 1) / (2.0 * size))
    gram = np.full((count, count), -square / (2.0 * size)) + np.eye(count) * (
        square * (1.0 + 1.0 / (2.0 * size))
    )
    values, vectors = np.linalg.eigh(gram - 1.0)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, count)))[0]
    result: FloatArray = (vectors * np.sqrt(values)) @ vectors.T @ turn.T
    return result


def centred_samples(count: int, dimension: int, *, seed: int = 0) -> FloatArray:
    """Return random samples (n, d) of one norm whose mean is almost 0.

    They are nearly at equal angles, with inner products negative enough for [x_i, 1], so that a
    network with the output layer fixed has many patterns. |x_i|^2 is 4 n.

    Raises InvalidInputError unless n >= 2 and d >= n.

    Example:
        >>> u = np.column_stack([centred_samples(4, 9), np.ones(4)])
        >>> bool((u @ u.T < 0.0)[np.triu_indices(4, 1)].all())
        True
    """
    if count < 2 or dimension < count:
        raise InvalidInputError(
            "count, dimension", "count at least 2 and dimension >= count", (count, dimension)
        )
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(dimension, count)))[0].T
    x = x + _SPREAD / np.sqrt(dimension) * rng.normal(size=x.shape)
    x -= 0.95 * x.mean(axis=0)
    return np.asarray(2.0 * np.sqrt(count) * x / np.linalg.norm(x, axis=1, keepdims=True))


def _find(
    lifted: FloatArray, multipliers: FloatArray, y: FloatArray, kind: str, trained: str,
    most: int | None, rng: np.random.Generator,
) -> tuple[FloatArray, BoolArray, FloatArray, FloatArray] | None:  # fmt: skip
    """Multipliers, patterns (k, n), signs (k,) of a_j and the sums of a_j^2 (k,)."""
    patterns, signs = consistent_patterns(lifted, multipliers * y, rng)
    if len(patterns) == 0:
        return None
    if trained == "both":
        lengths = np.linalg.norm((patterns * (multipliers * y)) @ lifted, axis=1)
        # The multipliers are scaled so that most patterns have |v_S| = 1.
        counts = (np.abs(lengths[:, None] / lengths - 1.0) < _UNIT).sum(axis=1)
        unit = lengths[int(np.argmax(counts))]
        multipliers = multipliers / unit
        kept = np.abs(lengths / unit - 1.0) < _UNIT
        patterns, signs = patterns[kept], signs[kept]
    if most is not None and len(patterns) > most:
        chosen = np.sort(rng.choice(len(patterns), most, replace=False))
        patterns, signs = patterns[chosen], signs[chosen]
    if kind == "regression":
        return multipliers, patterns, signs, rng.uniform(0.5, 2.0, len(patterns))
    values = (patterns * (multipliers * y)) @ lifted @ lifted.T
    shares = _margins_of_one(np.where(patterns, values, 0.0).T, y)
    return None if shares is None else (multipliers, patterns, signs, shares)


def consistent_patterns(
    lifted: FloatArray, coefficients: FloatArray, rng: np.random.Generator
) -> tuple[BoolArray, FloatArray]:
    """Patterns S (k, n) and signs s (k,) with s v_S . u_i > 0 for i in S, and < 0 for the others.

    All of them for n up to 13, else those that a few thousand starts reach; patterns within a
    thousandth of a kink are left out.
    """
    n = len(lifted)
    gram = lifted @ lifted.T
    if n <= _ENUMERATED:
        starts = (np.arange(1, 1 << n)[:, None] >> np.arange(n)) & 1 > 0
    else:
        starts = rng.random((_DRAWS, n)) < rng.uniform(0.05, 0.95, (_DRAWS, 1))
    found: dict[tuple[bytes, float], BoolArray] = {}
    for sign in (1.0, -1.0):
        current = starts
        for _ in range(1 if n <= _ENUMERATED else _ROUNDS):
            values = sign * (current * coefficients) @ gram
            sizes = np.abs(current * coefficients) @ np.abs(gram) + 1e-300
            good = ((values > 0.0) == current).all(axis=1) & current.any(axis=1)
            good &= (np.abs(values) > _KINK * sizes).all(axis=1)
            for row in current[good]:
                found[row.tobytes(), sign] = row
            current = values > 0.0
    if not found:
        return np.zeros((0, n), dtype=bool), np.zeros(0)
    return np.array(list(found.values())), np.array([sign for _, sign in found])


def _margins_of_one(values: FloatArray, y: FloatArray) -> FloatArray | None:
    """c >= t with values c = y and t as large as it can be, or None without t > 0."""
    count = values.shape[1]
    solved: Any = optimize.linprog(
        np.r_[np.zeros(count), -1.0],
        A_ub=np.column_stack([-np.eye(count), np.ones(count)]),
        b_ub=np.zeros(count),
        A_eq=np.column_stack([values, np.zeros(len(y))]),
        b_eq=y,
        bounds=[(0.0, None)] * count + [(0.0, None)],
        method="highs",
    )
    if solved.status != 0 or solved.x[-1] <= 1e-9:
        return None
    shares = np.asarray(solved.x[:-1], dtype=np.float64)
    # The linear program is exact to 1e-9 only; what is left goes by least squares.
    shares = shares + np.linalg.lstsq(values, y - values @ shares, rcond=None)[0]
    return shares if shares.min() > 0.0 else None


def _neurons(
    lifted: FloatArray, b: FloatArray, patterns: BoolArray, signs: FloatArray, shares: FloatArray,
    counts: IntArray, rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """[W, beta] and a, the sum of a_j^2 of each pattern split among its neurons."""
    part = rng.uniform(0.5, 1.5, int(counts.sum()))
    first = np.cumsum(counts) - counts
    part /= np.repeat(np.add.reduceat(part, first), counts)
    a = np.asarray(np.repeat(signs, counts) * np.sqrt(np.repeat(shares, counts) * part))
    rows: FloatArray = a[:, None] * np.repeat((patterns * b) @ lifted, counts, axis=0)
    return rows, a


def _counts(patterns: int, copies: int, width: int | None) -> IntArray:
    """How many neurons each pattern has, (k,)."""
    counts = np.full(patterns, copies if width is None else width // patterns)
    if width is not None:
        counts[: width % patterns] += 1
    return counts
