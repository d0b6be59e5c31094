"""Problems with a known truth: the numbers of a draft become data of a source, in a format.

A `Draft` is what really happened: weights, samples, coefficients. `gradient_data`,
`stationary_data` and `tuned_data` turn it into what a user holds; `posed` adds the options that he
gives, true and false ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.arrays import FloatArray
from identify.tensors import symmetric_dimension

FORMATS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LARGEST = {3: 6, 4: 4, 5: 4, 6: 3}
"""Largest number of independent samples by degree, so that a problem takes a part of a second."""


@dataclass(frozen=True, eq=False)
class Draft:
    """hidden (m, d), output (m,), bias (m,) or None, samples (n, d), coefficients (n,)."""

    degree: int
    hidden: FloatArray
    output: FloatArray
    samples: FloatArray
    coefficients: FloatArray
    bias: FloatArray | None = None

    def network(self, rounding: float = FORMATS["float64"]) -> TwoLayerNetwork:
        """The draft's network."""
        return TwoLayerNetwork(
            self.hidden, self.output, self.degree, hidden_bias=self.bias, rounding=rounding
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """Data, the truth behind them, and the options that are given.

    `coefficients` is None where b is known to first order only. `noise` is the relative size of
    the Gaussian noise that was added.
    """

    family: str
    data: HermiteData
    samples: FloatArray
    coefficients: FloatArray | None
    options: dict[str, Any] = field(default_factory=dict)
    noise: float = 0.0
    note: str = ""


def rounded(array: FloatArray, name: str) -> FloatArray:
    """The nearest numbers of a format, ties to even, as float64.

    Example:
        >>> rounded(np.array([1.0 + 2.0**-9, 3.14159]), "bfloat16").tolist()
        [1.0, 3.140625]
    """
    if name == "bfloat16":
        bits = np.asarray(array, dtype=np.float32).view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return np.asarray(array, dtype=name).astype(np.float64)


def stored(draft: Draft, name: str) -> Draft:
    """The draft with weights rounded to a format."""
    bias = None if draft.bias is None else rounded(draft.bias, name)
    return replace(
        draft, hidden=rounded(draft.hidden, name), output=rounded(draft.output, name), bias=bias
    )


def gradient_of(draft: Draft, arithmetic: str) -> TwoLayerNetwork:
    """sum_i b_i grad f(x_i), every operation rounded to the arithmetic's format.

    Sums of float16 and bfloat16 products are kept in float32, as accelerators do.
    """
    if arithmetic == "float64":
        return draft.network().gradient(draft.samples, draft.coefficients)
    single = np.float32

    def cut(array: FloatArray) -> Any:
        return rounded(array, arithmetic).astype(single)

    w, a, x, b = (cut(q) for q in (draft.hidden, draft.output, draft.samples, draft.coefficients))
    z = cut(x @ w.T)
    if draft.bias is not None:
        z = cut(z + cut(draft.bias))
    power = z
    for _ in range(draft.degree - 2):
        power = cut(power * z)
    delta = cut(cut(power * single(draft.degree)) * cut(b[:, None] * a))
    bias = cut(delta.sum(axis=0)) if draft.bias is not None else None
    return TwoLayerNetwork(
        cut(delta.T @ x), cut(b @ cut(power * z)), draft.degree, hidden_bias=bias,
        rounding=FORMATS[arithmetic],
    )  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """Formats of weights and gradient, the arithmetic between, and whether weights round late.

    `late`: the gradient was taken at the weights before they were rounded. `noise` is Gaussian.
    """

    weights: str = "float64"
    gradient: str = "float64"
    arithmetic: str = "float64"
    late: bool = False
    noise: float = 0.0

    def __str__(self) -> str:
        when = " late" if self.late else ""
        noise = f" noise {self.noise:.0e}" if self.noise else ""
        return f"{self.weights}{when}/{self.gradient} in {self.arithmetic}{noise}"


EXACT = Storage()


def gradient_data(
    draft: Draft, storage: Storage, rng: np.random.Generator, loss: str | None = None
) -> HermiteData:
    """One gradient as it is stored; coefficients are scaled so that no format overflows."""
    final = stored(draft, storage.weights)
    # Samples and coefficients of a low arithmetic are those that it can hold.
    gradient = gradient_of(draft if storage.late else final, storage.arithmetic)
    parts = [gradient.points, gradient.output_weight]
    if storage.noise > 0.0:
        energy = sum(float(np.sum(part**2)) for part in parts)
        sigma = storage.noise * np.sqrt(energy / sum(part.size for part in parts))
        parts = [part + sigma * rng.standard_normal(part.shape) for part in parts]
    rows, values = (rounded(part, storage.gradient) for part in parts)
    cut = draft.hidden.shape[1]
    held = TwoLayerNetwork(
        rows[:, :cut], values, draft.degree,
        hidden_bias=None if draft.bias is None else rows[:, cut],
        rounding=FORMATS[storage.gradient],
    )  # fmt: skip
    return HermiteData.from_gradient(final.network(FORMATS[storage.weights]), held, loss=loss)


def fit_range(draft: Draft, storage: Storage) -> Draft:
    """Samples and coefficients that the storage can hold, the largest row entry near 10."""
    x = draft.samples
    if storage.arithmetic != "float64":
        x = rounded(x, storage.arithmetic)
    draft = replace(draft, samples=x)
    if storage == EXACT:
        return draft
    gradient = draft.network().gradient(x, draft.coefficients)
    top = max(float(np.abs(gradient.points).max()), float(np.abs(gradient.output_weight).max()))
    most = 1e4 / float(np.abs(draft.coefficients).max())
    b = draft.coefficients * (min(10.0 / top, most) if top > 0.0 else 1.0)
    return replace(
        draft, coefficients=b if storage.arithmetic == "float64" else rounded(b, storage.arithmetic)
    )


@dataclass(frozen=True)
class Training:
    """How a network was fine-tuned: by descent, with momentum, or by Adam."""

    steps: int
    rate: float
    momentum: float = 0.0
    adam: bool = False
    batch: int | None = None
    loss: str = "squared"


def tuned_data(
    draft: Draft, training: Training, name: str, point: str, rng: np.random.Generator
) -> HermiteData:
    """Weights before and after; the draft's coefficients are targets. Both rounded to a format."""
    first = stored(draft, name)
    parts = [first.hidden.copy(), first.output.copy()]
    if first.bias is not None:
        parts.append(first.bias.copy())
    slow = [np.zeros_like(part) for part in parts]
    square = [np.zeros_like(part) for part in parts]
    for step in range(training.steps):
        now = replace(first, hidden=parts[0], output=parts[1], bias=(parts[2:] or [None])[0])
        gradients = _loss_gradient(now, training, rng)
        for k, slope in enumerate(gradients):
            if training.adam:
                slow[k] = 0.9 * slow[k] + 0.1 * slope
                square[k] = 0.999 * square[k] + 0.001 * slope**2
                mean = slow[k] / (1 - 0.9 ** (step + 1))
                spread = np.sqrt(square[k] / (1 - 0.999 ** (step + 1)))
                parts[k] = parts[k] - training.rate * mean / (spread + 1e-8)
            else:
                slow[k] = training.momentum * slow[k] + slope
                parts[k] = parts[k] - training.rate * slow[k]
    last = stored(
        replace(first, hidden=parts[0], output=parts[1], bias=(parts[2:] or [None])[0]), name
    )
    unit = FORMATS[name]
    return HermiteData.from_fine_tuning(first.network(unit), last.network(unit), point=point)


def _loss_gradient(
    draft: Draft, training: Training, rng: np.random.Generator
) -> tuple[FloatArray, ...]:
    x, targets = draft.samples, draft.coefficients
    if training.batch is not None and training.batch < len(x):
        chosen = rng.permutation(len(x))[: training.batch]
        x, targets = x[chosen], targets[chosen]
    network = draft.network()
    values = network.value(x)
    if training.loss == "squared":
        c = (values - targets) / len(x)
    else:
        labels = np.sign(targets)
        c = -labels * np.exp(-np.logaddexp(0.0, labels * values)) / len(x)
    found = network.gradient(x, c)
    if found.hidden_bias is None:
        return found.hidden_weight, found.output_weight
    return found.hidden_weight, found.output_weight, found.hidden_bias


# Draws -------------------------------------------------------------------------------------------


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows of norm 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def draw_shape(
    rng: np.random.Generator, low: int = 1, degrees: tuple[int, ...] = (3, 3, 3, 4, 4, 5, 6)
) -> tuple[int, int, int, int]:
    """Degree, number r of independent samples, inputs d, neurons m around what determines T."""
    degree = int(rng.choice(degrees))
    r = int(rng.integers(min(low, LARGEST[degree]), LARGEST[degree] + 1))
    d = r + int(rng.integers(0, 4))
    share = float(rng.choice([0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0]))
    m = max(int(np.ceil(share * symmetric_dimension(degree, r) / r)), r + 1, 2)
    return degree, r, d, m


def draw_draft(rng: np.random.Generator, low: int = 1, degrees: Any = None) -> Draft:
    """Gaussian weights, samples and coefficients; some samples of norm 1, some non-negative."""
    degree, r, d, m = draw_shape(rng, low) if degrees is None else draw_shape(rng, low, degrees)
    samples = rng.normal(size=(r, d))
    if rng.random() < 0.3:
        samples = np.abs(samples)
    if rng.random() < 0.5:
        samples = unit_rows(samples)
    b = rng.choice([-1.0, 1.0], r) * rng.uniform(0.3, 1.5, r)
    return Draft(degree, rng.normal(size=(m, d)), rng.normal(size=m), samples, b)


def draw_storage(rng: np.random.Generator) -> Storage:
    """Exact in one of three, else a format with its faults."""
    if rng.random() < 0.35:
        return EXACT
    name = str(rng.choice(["float32", "float32", "float32", "float16", "bfloat16"]))
    arithmetic = name if rng.random() < 0.4 else "float64"
    held = name if rng.random() < 0.8 else "float32"
    noise = float(10.0 ** rng.uniform(-9, -3)) if rng.random() < 0.15 else 0.0
    return Storage(name, held, arithmetic, bool(rng.random() < 0.3), noise)


def margin_scaled(draft: Draft) -> Draft:
    """Samples scaled so that |f(x_i)| = 1, the terms b_i x_i^(alpha) unchanged."""
    outputs = np.abs(draft.network().value(draft.samples))
    if not np.all(outputs > 0.0):
        return draft
    factor = outputs ** (-1.0 / draft.degree)
    return replace(
        draft,
        samples=draft.samples * factor[:, None],
        coefficients=draft.coefficients * factor ** -float(draft.degree),
    )


def posed(
    family: str,
    data: HermiteData,
    draft: Draft,
    rng: np.random.Generator,
    *,
    noise: float = 0.0,
    first_order: bool = False,
    fixed: dict[str, Any] | None = None,
    note: str = "",
) -> Problem:
    """The problem with options drawn: none in half of them, else each of them, true and false.

    `noise` is the relative Gaussian noise in the data, `fixed` options that are not drawn.
    """
    problem = Problem(
        family, data, draft.samples, None if first_order else draft.coefficients,
        dict(fixed or {}), noise, f"degree {draft.degree} {note}".strip(),
    )  # fmt: skip
    if rng.random() < 0.5 and noise == 0.0:
        return problem
    for change in (_samples, _scale, _non_negative, _effort):
        problem = change(problem, rng)
    options = dict(problem.options)
    if noise > 0.0 or rng.random() < 0.1:
        share = float(rng.choice([1.0, 1.0, 3.0, 0.1]))
        options["noise"] = min(share * (noise or float(10.0 ** rng.uniform(-9, -3))), 0.5)
    return replace(problem, options=options)


def _samples(problem: Problem, rng: np.random.Generator) -> Problem:
    if "samples" in problem.options or rng.random() < 0.5:
        return problem
    shift = int(rng.choice([0, 0, 0, 0, 1, -1, 2]))
    stated = max(1, len(problem.samples) + shift)
    return replace(problem, options={**problem.options, "samples": stated})


def _scale(problem: Problem, rng: np.random.Generator) -> Problem:
    if "scale" in problem.options or rng.random() < 0.4:
        return problem
    words = ["bias"] if problem.data.has_bias else ["unit", "unit", "margin"]
    return replace(problem, options={**problem.options, "scale": str(rng.choice(words))})


def _non_negative(problem: Problem, rng: np.random.Generator) -> Problem:
    if rng.random() < 0.7:
        return problem
    return replace(problem, options={**problem.options, "non_negative": True})


def _effort(problem: Problem, rng: np.random.Generator) -> Problem:
    options = dict(problem.options)
    if rng.random() < 0.3:
        options["evidence"] = str(rng.choice(["numerical", "interval", "exact"]))
    if rng.random() < 0.1:
        options["time_limit"] = float(10.0 ** rng.uniform(-2, 0))
    return replace(problem, options=options)


Family = Callable[[np.random.Generator], Problem]
