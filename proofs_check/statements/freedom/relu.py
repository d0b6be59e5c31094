"""Merging and splitting of samples of homogeneous ReLU networks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.arithmetic import rational
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.freedom.relu_networks import (
    Layers,
    draw_layers,
    gradients,
    moduli,
    pattern,
    prove_linear,
    value,
)
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.splitting import by_attack

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

REFAEL = "Refael, Smorodinsky, Lindenbaum & Safran 2026 (merging and splitting of KKT points)"


@dataclass(frozen=True, eq=False)
class Change:
    """A ReLU network and samples with signed multipliers b_i = lambda_i y_i, to be changed."""

    layers: Layers
    samples: FloatArray
    coefficients: FloatArray
    seed: int

    def __repr__(self) -> str:
        widths = "-".join(str(weight.shape[1]) for weight in self.layers)
        return f"{type(self).__name__}(n={len(self.samples)}, {widths}-1, seed={self.seed})"


@dataclass(frozen=True, eq=False, repr=False)
class Split(Change):
    """A change of one sample into x + `there` v and x - `back` v."""

    direction: FloatArray
    there: float
    back: float


def merge(change: Change) -> tuple[FloatArray, FloatArray]:
    """One sample for two: (lambda_1 x_1 + lambda_2 x_2)/(lambda_1 + lambda_2), the sum of both.

    As the attack merges candidates before a split.
    Shapes (1, d) and (1,); the label is that of the first.
    """
    import torch

    from attack.objectives.candidates import Candidates
    from attack.splitting import tidy

    multipliers = torch.from_numpy(np.abs(change.coefficients))[:, None]
    labels = torch.from_numpy(np.sign(change.coefficients))
    pair = Candidates(torch.from_numpy(change.samples.copy()), multipliers, labels)
    merged = tidy.merged_points(pair, torch.tensor([[0, 1]]))
    return merged.x.numpy(), np.asarray(merged.labels) * merged.lam[:, 0].numpy()


def split(change: Split) -> tuple[FloatArray, FloatArray]:
    """x + alpha v and x - beta v for x, lambda beta/(alpha+beta) and lambda alpha/(alpha+beta).

    With alpha = beta these are the attack's halves.
    """
    v, alpha, beta = change.direction, change.there, change.back
    x, b = change.samples[0], float(change.coefficients[0])
    if alpha == beta:
        return by_attack.offspring_of_one(x, b, v, np.asarray(alpha))
    heights = b * np.array([beta, alpha]) / (alpha + beta)
    return np.stack([x + alpha * v, x - beta * v]), heights


def compare(
    change: Change, samples: FloatArray, heights: FloatArray, *, exactly: bool = False
) -> Check:
    """Whether sum_i b_i grad f(x_i) stays and all margins are those of before, which are 1.

    `exactly` evaluates the sums in fractions.
    """
    layers = change.layers
    numbers: Any = rational.exact if exactly else np.asarray
    weights = tuple(numbers(weight) for weight in layers)
    terms = 8.0 * (sum(max(weight.shape) for weight in layers) + 4 * len(layers)) * UNIT
    gap = 0.0
    sets = ((1.0, change.samples, change.coefficients), (-1.0, samples, heights))
    for depth in range(len(layers)):
        left: Any = 0 * weights[depth]
        bulk = np.zeros(layers[depth].shape)
        for sign, rows, b in sets:
            for x, height in zip(rows, b, strict=True):
                slope = gradients(weights, numbers(x))[1][depth]
                left = left + numbers([sign * height])[0] * slope
                bulk += abs(height) * moduli(layers, x)[depth]
        left = np.abs(rational.floats(left))
        gap = max(gap, float(np.max(left / (terms * bulk + 1e-300))))
    for x, height in zip(samples, heights, strict=True):
        bulk_value = float(np.sum(moduli(layers, x)[-1] * np.abs(layers[-1])))
        margin = np.sign(height) * value(weights, numbers(x))
        gap = max(gap, float(abs(margin - 1.0)) / (terms * bulk_value))
    return Check.compare(gap, 1.0)


def same_pattern(change: Change) -> bool:
    """Whether all samples, and those of a split, have one activation pattern."""
    rows = change.samples
    if isinstance(change, Split):
        rows = np.vstack([rows, split(change)[0]])
    return len({pattern(change.layers, x) for x in rows}) == 1


def on_margin(change: Change) -> bool:
    """Whether y_i f(x_i) = 1."""
    for x, b in zip(change.samples, change.coefficients, strict=True):
        bulk = float(np.sum(moduli(change.layers, x)[-1] * np.abs(change.layers[-1])))
        if abs(np.sign(b) * value(change.layers, x) - 1.0) > 256.0 * UNIT * bulk:
            return False
    return True


def _networks(
    build: Callable[[int, tuple[int, ...], int], Any],
    widths: tuple[tuple[int, ...], ...] = ((3,), (6,), (4, 3), (8, 5)),
) -> SearchStrategy[Any]:
    from hypothesis import strategies as st

    drawn = st.builds(
        build, st.integers(2, 5), st.sampled_from(widths), st.integers(0, strategies.SEEDS)
    )
    kept: SearchStrategy[Any] = drawn.filter(lambda change: change is not None)
    return kept


def _near(layers: Layers, x: FloatArray, step: FloatArray) -> FloatArray | None:
    """x + step, the step halved until the pattern is that of x."""
    wanted = pattern(layers, x)
    for _ in range(30):
        if pattern(layers, x + step) == wanted:
            return step
        step = 0.5 * step
    return None


def _finish(
    layers: Layers, rows: list[FloatArray], seed: int, margins: tuple[float, ...]
) -> Change | None:
    """Samples scaled to these margins, with random multipliers; None where f is too small."""
    outputs = [value(layers, x) for x in rows]
    if min(abs(output) for output in outputs) < 1e-2:
        return None
    samples = np.stack([m * x / abs(y) for m, x, y in zip(margins, rows, outputs, strict=True)])
    rng = np.random.default_rng([seed, 17])
    b = np.sign(outputs) * rng.uniform(0.2, 2.0, len(rows))
    return Change(layers, samples, b, seed)


# --- merging -----------------------------------------------------------------------------------


def _pairs(kind: str = "same") -> SearchStrategy[Change]:
    def build(dimension: int, widths: tuple[int, ...], seed: int) -> Change | None:
        rng = np.random.default_rng([seed, dimension])
        layers = draw_layers(dimension, widths, rng)
        cloud = rng.standard_normal((60, dimension))
        x = cloud[0]
        others = [row for row in cloud[1:] if value(layers, row) != 0.0]
        if kind == "pattern":
            fits = [
                row for row in others
                if pattern(layers, row) != pattern(layers, x)
                and value(layers, row) * value(layers, x) > 0.0
            ]  # fmt: skip
        elif kind == "label":
            fits = [
                row for row in others
                if pattern(layers, row) == pattern(layers, x)
                and value(layers, row) * value(layers, x) < 0.0
            ]  # fmt: skip
        else:
            step = _near(layers, x, cloud[1])
            fits = [] if step is None else [x + step]
            if fits and value(layers, fits[0]) * value(layers, x) <= 0.0:
                return None
        margins = (1.0, 1.5) if kind == "margin" else (1.0, 1.0)
        return _finish(layers, [x, fits[0]], seed, margins) if fits else None

    return _networks(build, ((2,), (3,)) if kind == "label" else ((3,), (6,), (4, 3), (8, 5)))


def _merged(change: Change) -> Check:
    return compare(change, *merge(change))


def _recheck_merged(change: Change) -> Check:
    return compare(change, *merge(change), exactly=True)


def _midpoint(change: Change) -> Check:
    samples, heights = merge(change)
    return compare(change, change.samples.mean(axis=0)[None] + 0.0 * samples, heights)


def _wrong_shares() -> AbstractContextManager[object]:
    """Each candidate weighted with the multiplier of the other."""
    from attack.splitting import tidy

    original = tidy.merged_points

    def broken(candidates: Any, pairs: Any) -> Any:
        return original(candidates.with_points(candidates.x, candidates.lam.flip(0)), pairs)

    return patch.object(tidy, "merged_points", broken)


MERGE = Statement(
    name="relu-merging",
    title="Two samples of one pattern become one",
    sentence=(
        "In a homogeneous ReLU network two samples of one label and one activation pattern may "
        "be replaced by their mean, weighted by the multipliers, with the sum of both: the "
        "stationarity equations and the margins 1 stay."
    ),
    formula=r"x = \tfrac{\lambda_1 x_1 + \lambda_2 x_2}{\lambda_1 + \lambda_2},\quad "
    r"\lambda = \lambda_1 + \lambda_2",
    source=REFAEL,
    hypotheses=(
        Hypothesis(
            "label",
            "both samples have the same label",
            lambda change: bool(np.ptp(np.sign(change.coefficients)) == 0.0),
            lambda: _pairs("label"),
        ),
        Hypothesis(
            "pattern",
            "both samples have the same activation pattern",
            same_pattern,
            lambda: _pairs("pattern"),
        ),
        Hypothesis("margin", "both are on the margin", on_margin, lambda: _pairs("margin")),
    ),
    instances=_pairs,
    conclusion=_merged,
    sabotages=(
        Sabotage("midpoint", "the plain mean", conclusion=_midpoint),
        Sabotage("shares", "shares exchanged", implementation=_wrong_shares),
    ),
    cost="light",
    recheck=_recheck_merged,
    algebra=prove_linear,
    algebra_note="two layers on one pattern, d = 2, two active neurons, symbolic multipliers",
    code=("attack.splitting.tidy.merged_points",),
    remark=(
        "Every depth without biases; the instances have one and two hidden layers. The attack "
        "merges this way, but by the distance of candidates: it knows no activation patterns."
    ),
)


# --- splitting ---------------------------------------------------------------------------------


def _splits(kind: str = "level") -> SearchStrategy[Split]:
    def build(dimension: int, widths: tuple[int, ...], seed: int) -> Split | None:
        rng = np.random.default_rng([seed, dimension, 1])
        layers = draw_layers(dimension, widths, rng)
        found = _finish(layers, [rng.standard_normal(dimension)], seed, (1.0,))
        if found is None:
            return None
        x = found.samples[0]
        slope = gradients(layers, x)[0]
        v = rng.standard_normal(dimension)
        if kind != "slope":
            for _ in range(2):
                v = v - slope * float(slope @ v) / float(slope @ slope)
        v *= float(np.linalg.norm(x)) / float(np.linalg.norm(v))
        if kind == "far":
            return _split_of(found, v, 4.0, 6.0)
        there, back = _near(layers, x, 2.0 * v), _near(layers, x, -3.0 * v)
        if there is None or back is None:
            return None
        lengths = float(np.linalg.norm(there)), float(np.linalg.norm(back))
        size = float(np.linalg.norm(v))
        if seed % 2:
            lengths = (min(lengths), min(lengths))
        return _split_of(found, v, lengths[0] / size, lengths[1] / size)

    return _networks(build)


def _split_of(change: Change, direction: FloatArray, there: float, back: float) -> Split:
    return Split(
        change.layers, change.samples, change.coefficients, change.seed, direction, there, back
    )


def _separated(change: Split) -> Check:
    return compare(change, *split(change))


def _recheck_separated(change: Split) -> Check:
    return compare(change, *split(change), exactly=True)


def _halves(change: Split) -> Check:
    samples, heights = split(change)
    return compare(change, samples, np.full(2, heights.sum() / 2.0))


def _is_level(change: Split) -> bool:
    """Whether the direction is orthogonal to the gradient of f, to rounding."""
    slope = gradients(change.layers, change.samples[0])[0]
    bulk = gradients(tuple(np.abs(w) for w in change.layers), np.abs(change.samples[0]))[0]
    v = change.direction
    return bool(abs(float(slope @ v)) <= 64.0 * len(v) * UNIT * float(bulk @ np.abs(v)))


def _exchanged() -> AbstractContextManager[object]:
    """The multipliers of the two halves exchanged."""
    import proofs_check.statements.freedom.relu as module

    original = module.split

    def broken(change: Split) -> tuple[FloatArray, FloatArray]:
        samples, heights = original(change)
        return samples, heights[::-1]

    return patch.object(module, "split", broken)


SPLIT = Statement(
    name="relu-splitting",
    title="One sample becomes two of its pattern",
    sentence=(
        "In a homogeneous ReLU network a sample may be replaced by x + alpha v and x - beta v "
        "with multipliers lambda beta/(alpha+beta) and lambda alpha/(alpha+beta) if both have its "
        "activation pattern; both are on the margin if f does not change along v."
    ),
    formula=r"(x, \lambda) \to (x + \alpha v, \tfrac{\lambda\beta}{\alpha+\beta}),\ "
    r"(x - \beta v, \tfrac{\lambda\alpha}{\alpha+\beta}),\qquad v \perp \nabla_x f(x)",
    source=REFAEL + "; the condition on the margins is ours",
    hypotheses=(
        Hypothesis(
            "pattern",
            "both halves have the activation pattern of the sample",
            same_pattern,
            lambda: _splits("far"),
        ),
        Hypothesis(
            "level",
            "v is orthogonal to the gradient of f in x",
            _is_level,
            lambda: _splits("slope"),
        ),
        Hypothesis(
            "margin",
            "the sample is on the margin",
            on_margin,
            lambda: _splits().map(lambda change: replace(change, samples=1.5 * change.samples)),
        ),
    ),
    instances=_splits,
    conclusion=_separated,
    sabotages=(
        Sabotage("halves", "half of the multiplier each", conclusion=_halves),
        Sabotage("exchanged", "multipliers exchanged", construction=_exchanged),
        Sabotage(
            "multipliers",
            "the attack's halves keep the multiplier",
            implementation=by_attack.kept_multipliers,
        ),
    ),
    cost="light",
    recheck=_recheck_separated,
    algebra=prove_linear,
    algebra_note="two layers on one pattern, d = 2, two active neurons, symbolic alpha and beta",
    code=("attack.splitting.plan.offspring",),
    remark=(
        "The pattern alone keeps stationarity; off the level set one half has a margin below 1 "
        "and the other, above it, may not have a multiplier. The attack splits with alpha = beta."
    ),
)

STATEMENTS = (MERGE, SPLIT)
