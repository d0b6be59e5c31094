"""Data reconstruction from random features: whose features have the weights in their span."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from identify.exposure.compare import match_samples
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness.explanations import draw_coefficients

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

CURVED = ("tanh", "softplus", "sine")
STARTS, STEPS = 5, 40


@dataclass(frozen=True, eq=False)
class Features:
    """p random features phi(x) = s(B x)/sqrt(p) and the weights theta = sum_i b_i phi(x_i)."""

    activation: str
    matrix: FloatArray
    samples: FloatArray
    coefficients: FloatArray
    kind: str
    seed: int

    def __repr__(self) -> str:
        count, dimension = self.samples.shape
        return (
            f"Features({self.activation}, {self.kind}, n={count}, d={dimension}, "
            f"p={len(self.matrix)}, seed={self.seed})"
        )

    @property
    def unknowns(self) -> int:
        """n (d + 1): samples and coefficients."""
        return self.samples.size + len(self.samples)

    @property
    def up_to_sign(self) -> bool:
        """Whether (x, b) and (-x, +-b) have the same features."""
        return self.activation != "softplus"

    @cached_property
    def stiffness(self) -> float:
        """The least singular value of the derivative of the features' sum, per relative change."""
        slopes = derivative(self, self.samples, self.coefficients)
        if slopes.shape[0] < slopes.shape[1]:
            return 0.0
        return float(np.linalg.svd(slopes * _scales(self), compute_uv=False)[-1])


def _scales(features: Features) -> FloatArray:
    lengths = np.linalg.norm(features.samples, axis=1)
    return np.concatenate([lengths.repeat(features.samples.shape[1]), np.ones(len(lengths))])


def shape(kind: str, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The activation and its derivative."""
    if kind == "tanh":
        return np.tanh(z), 1.0 - np.tanh(z) ** 2
    if kind == "softplus":
        return np.logaddexp(0.0, z), 0.5 * (1.0 + np.tanh(0.5 * z))
    if kind == "sine":
        return np.sin(z), np.cos(z)
    return z**2, 2.0 * z


def feature_rows(features: Features, samples: FloatArray) -> FloatArray:
    """phi(x_i), shape (n, p)."""
    value = shape(features.activation, samples @ features.matrix.T)[0]
    return np.asarray(value / np.sqrt(len(features.matrix)))


def weights_of(features: Features) -> FloatArray:
    """theta, shape (p,): what ridge-less regression on the features ends with."""
    return np.asarray(features.coefficients @ feature_rows(features, features.samples))


def derivative(features: Features, samples: FloatArray, b: FloatArray) -> FloatArray:
    """Of sum_i b_i phi(x_i) in (x, b), shape (p, n d + n)."""
    value, slope = shape(features.activation, samples @ features.matrix.T)
    root = np.sqrt(len(features.matrix))
    moves = (b[:, None] * slope)[:, :, None] * features.matrix
    columns = np.concatenate([block.T for block in moves.transpose(0, 2, 1)], axis=1)
    return np.asarray(np.concatenate([columns, value.T], axis=1) / root)


def law(features: Features, samples: FloatArray) -> float:
    """|P theta| / |theta|, P the projection off the features of the candidates.

    Example:
        >>> features = draw_features("tanh", "generic", 1, 2, 20, 0)
        >>> law(features, features.samples) < 1e-12
        True
    """
    theta = weights_of(features)
    rows = feature_rows(features, samples)
    fit = np.linalg.lstsq(rows.T, theta, rcond=None)[0]
    return float(np.linalg.norm(theta - fit @ rows) / np.linalg.norm(theta))


def draw_features(
    activation: str, kind: str, count: int, dimension: int, number: int, seed: int
) -> Features:
    """n samples of length 1 to 2 in R^d, n <= d or not, and p normal features."""
    rng = np.random.default_rng([seed, count, dimension, number])
    side = max(count, dimension)
    samples = strategies.draw_samples(kind, count, side, seed)[:, :dimension]
    lengths = np.linalg.norm(samples, axis=1, keepdims=True)
    units = np.where(lengths > 0.0, samples / np.where(lengths > 0.0, lengths, 1.0), 0.5)
    samples = units * rng.uniform(1.0, 2.0, size=(count, 1))
    b = draw_coefficients(count, seed)
    return Features(activation, rng.standard_normal((number, dimension)), samples, b, kind, seed)


def find_sets(features: Features) -> list[tuple[FloatArray, float]]:
    """Sets of n candidates at which the law vanishes, with its value; from random starts."""
    count, dimension = features.samples.shape
    rng = np.random.default_rng([features.seed, 27])
    theta = weights_of(features)
    size = float(np.linalg.norm(theta))
    found = []
    for start in range(STARTS):
        x = rng.standard_normal((count, dimension)) * (1.5 / np.sqrt(dimension))
        if start == 0:
            x = features.samples + 0.2 * x
        fit = np.linalg.lstsq(feature_rows(features, x).T, theta, rcond=1e-6)[0]
        b: FloatArray = np.asarray(fit, dtype=np.float64)
        rest = b @ feature_rows(features, x) - theta
        damping = 1e-2
        for _ in range(STEPS):
            slopes = derivative(features, x, b)
            bulk = slopes.T @ slopes
            bulk[np.diag_indices_from(bulk)] += damping * np.trace(bulk) / len(bulk)
            move = np.linalg.solve(bulk, slopes.T @ rest)
            x_new = x - move[: x.size].reshape(x.shape)
            b_new = b - move[x.size :]
            new = b_new @ feature_rows(features, x_new) - theta
            if not np.linalg.norm(new) < np.linalg.norm(rest):
                damping = min(10.0 * damping, 1e6)
                continue
            x, b, rest, damping = x_new, b_new, new, max(0.1 * damping, 1e-14)
            if np.linalg.norm(rest) < 1e-14 * size:
                break
        value = law(features, x)
        if value <= 1e-12 and np.all(np.isfinite(x)):
            found.append((x, value))
    return found


def _only_the_data(features: Features, *, signed: bool = False) -> Check:
    """The law vanishes at the samples, and at no other set that is found."""
    own = law(features, features.samples)
    rows = feature_rows(features, features.samples)
    noise = 32.0 * len(features.matrix) * UNIT
    grown = float(np.abs(features.coefficients) @ np.linalg.norm(rows, axis=1))
    grown /= float(np.linalg.norm(weights_of(features)))
    if own > noise * (1.0 + grown):
        return Check.compare(own, noise * (1.0 + grown), "the law at the samples")
    sets = find_sets(features)
    up_to_sign = features.up_to_sign and not signed
    gaps = [
        float(match_samples(x, features.samples, up_to_sign=up_to_sign, up_to_scale=False)
              .errors.max())
        for x, _ in sets
    ]  # fmt: skip
    size = float(np.linalg.norm(weights_of(features)))
    error = (max((0.0, *(value for _, value in sets))) + noise * (1.0 + grown)) * size
    allowed = min(1e-2, 8.0 * error / max(features.stiffness, 1e-300))
    return Check.compare(max((0.0, *gaps)), allowed, f"{len(gaps)} sets found")


def _with_signs(features: Features) -> Check:
    return _only_the_data(features, signed=True)


def _features(
    activations: tuple[str, ...] = CURVED,
    counts: tuple[int, int] = (1, 3),
    share: float = 4.0,
) -> SearchStrategy[Features]:
    """p = share times the number of unknowns, and a few more or (below 1) less."""
    from hypothesis import strategies as st

    def build(activation: str, kind: str, count: int, dimension: int, seed: int) -> Features:
        number = max(1, int(share * count * (dimension + 1)))
        return draw_features(activation, kind, count, dimension, number, seed)

    return st.builds(
        build,
        st.sampled_from(activations),
        st.sampled_from(strategies.present(("generic", "orthonormal", "integer", "digits"))),
        st.integers(*counts),
        st.integers(2, 4),
        st.integers(0, strategies.SEEDS),
    )


def _is_stiff(features: Features) -> bool:
    return features.stiffness > 1e-6


def _with_unused() -> SearchStrategy[Features]:
    """The last coefficient is zero."""

    def build(features: Features) -> Features:
        b = features.coefficients.copy()
        b[-1] = 0.0
        return replace(features, coefficients=b)

    return _features(counts=(2, 3)).map(build)


def _short_weights() -> AbstractContextManager[object]:
    """Weights that lack the last sample."""
    import proofs_check.statements.beyond.random_features as module

    original = module.weights_of

    def broken(features: Features) -> FloatArray:
        b = features.coefficients.copy()
        b[-1] = 0.0 if len(b) > 1 else b[-1]
        return original(replace(features, coefficients=b))

    return patch.object(module, "weights_of", broken)


LAW = Statement(
    name="reconstruction-law",
    title="Random features determine the data",
    sentence=(
        "With p much larger than n d random features of a curved activation, the part of the "
        "weights off the features of n candidates vanishes only if these are the n samples, up "
        "to order and the sign that an odd activation leaves open."
    ),
    formula=r"\lVert P^\perp_{\Phi(\hat X)}\,\theta\rVert = 0 \iff \hat X = X\quad (p \gg n d)",
    source="data reconstruction law for random features (arXiv 2509.22214); here at small size",
    hypotheses=(
        Hypothesis(
            "many-features",
            "p is at least twice the number n (d + 1) of unknowns",
            lambda features: len(features.matrix) >= 2 * features.unknowns,
            lambda: _features(counts=(2, 3), share=0.7),
        ),
        Hypothesis(
            "curved",
            "the activation is no polynomial of low degree",
            lambda features: features.activation in CURVED,
            lambda: _features(activations=("square",), counts=(2, 3)),
        ),
        Hypothesis(
            "used",
            "every sample has a coefficient",
            lambda features: bool(np.all(features.coefficients)),
            _with_unused,
        ),
    ),
    instances=lambda: _features().filter(_is_stiff),
    conclusion=_only_the_data,
    sabotages=(
        Sabotage("signs", "with the signs of the samples", conclusion=_with_signs),
        Sabotage("weights", "weights without a sample", construction=_short_weights),
    ),
    cost="medium",
    code=("identify.exposure.compare.match_samples",),
    remark="Candidates from random starts by Levenberg-Marquardt; what converges is judged.",
)

STATEMENTS = (LAW,)
