"""Families of gradients that the other tests do not cover: structure, symmetry, scales, formats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from identify.arrays import FloatArray
from identify.tensors import symmetric_dimension
from tests.identify.new_problems import (
    EXACT,
    Draft,
    Family,
    Problem,
    Storage,
    draw_draft,
    draw_storage,
    fit_range,
    gradient_data,
    margin_scaled,
    posed,
    unit_rows,
)

Rng = np.random.Generator


def _gradient(
    family: str,
    draft: Draft,
    rng: Rng,
    storage: Storage | None = None,
    *,
    loss: str | None = None,
    fixed: dict[str, Any] | None = None,
    note: str = "",
) -> Problem:
    """The draft's gradient, exact or in a drawn storage, with drawn options."""
    storage = draw_storage(rng) if storage is None else storage
    draft = fit_range(draft, storage)
    data = gradient_data(draft, storage, rng, loss)
    return posed(
        family, data, draft, rng, noise=storage.noise, fixed=fixed, note=f"{storage} {note}"
    )


def structured_weights(rng: Rng) -> Problem:
    """Signs, shifts, unit vectors and their sums, orthogonal and sparse rows; few output values."""
    draft = draw_draft(rng)
    m, d = draft.hidden.shape
    kind = int(rng.integers(6))
    if kind == 0:
        hidden = rng.choice([-1.0, 1.0], (m, d))
    elif kind == 1:
        kernel = rng.normal(size=d)
        hidden = np.array([np.roll(kernel, k) * (1.0 + k // d) for k in range(m)])
    elif kind == 2:
        hidden = rng.integers(0, 2, (m, d)) + np.eye(d)[rng.integers(0, d, m)]
    elif kind == 3:
        blocks = [np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(m // d + 1)]
        hidden = np.vstack(blocks)[:m]
    elif kind == 4:
        hidden = rng.normal(size=(m, d)) * (rng.random((m, d)) < 0.4) + 1e-3 * np.eye(d)[0]
    else:
        nodes = np.cos(np.pi * (np.arange(m) + 0.5) / m)
        hidden = np.vander(nodes, d)
    output = rng.choice([-1.0, 1.0], m) if rng.random() < 0.5 else np.ones(m) / m
    draft = replace(draft, hidden=hidden.astype(float), output=output)
    return _gradient("structured weights", draft, rng, note=f"kind {kind}")


def quantised_weights(rng: Rng) -> Problem:
    """Weights on a grid of a few levels; in one of three the gradient too."""
    draft = draw_draft(rng)
    levels = int(rng.choice([1, 2, 7, 127]))

    def grid(array: FloatArray) -> FloatArray:
        step = float(np.abs(array).max()) / levels
        return np.asarray(np.round(array / step) * step)

    output = grid(draft.output)
    output[output == 0.0] = float(np.abs(output).max()) / max(levels, 2)
    hidden = grid(draft.hidden)
    dead = ~np.any(hidden, axis=1)
    hidden[dead, 0] = float(np.abs(hidden).max())
    draft = replace(draft, hidden=hidden, output=output)
    if rng.random() < 0.67:
        return _gradient("quantised weights", draft, rng, note=f"{levels} levels")
    levels = max(levels, 7)  # below, the data no longer speak of the samples
    data = gradient_data(draft, EXACT, rng)
    assert data.target is not None
    rows, values = grid(data.target.hidden_weight), grid(data.target.output_weight)
    coarse = replace(data.target, hidden_weight=rows, output_weight=values)
    if not np.any(rows):
        return _gradient("quantised weights", draft, rng, note=f"{levels} levels")
    held = type(data).from_gradient(draft.network(), coarse)
    return posed("quantised gradient", held, draft, rng, note=f"{levels} levels")


def mirrored(rng: Rng) -> Problem:
    """Samples and neurons closed under a reflection; equal or opposite b and outputs."""
    draft = draw_draft(rng, low=2)
    d = draft.hidden.shape[1]
    normal = np.eye(d)[0] if rng.random() < 0.5 else unit_rows(rng.normal(size=(1, d)))[0]
    mirror = np.eye(d) - 2.0 * np.outer(normal, normal)
    half = max(1, len(draft.samples) // 2)
    samples = np.vstack([draft.samples[:half], draft.samples[:half] @ mirror])
    sign = float(rng.choice([-1.0, 1.0]))
    b = np.concatenate([draft.coefficients[:half], sign * draft.coefficients[:half]])
    if rng.random() < 0.5 and len(draft.samples) > 2:
        middle = draft.samples[-1] - (draft.samples[-1] @ normal) * normal
        samples, b = np.vstack([samples, middle]), np.append(b, draft.coefficients[-1])
    hidden, output = draft.hidden, draft.output
    if rng.random() < 0.7:
        flip = 1.0 if rng.random() < 0.7 else -1.0
        hidden = np.vstack([hidden, hidden @ mirror])
        output = np.concatenate([output, flip * output])
    draft = replace(draft, hidden=hidden, output=output, samples=samples, coefficients=b)
    return _gradient("mirror symmetry", draft, rng)


def coplanar_triples(rng: Rng) -> Problem:
    """Three or more samples in a plane, mirror-symmetric or not; some with their logistic loss."""
    draft = draw_draft(rng, low=3, degrees=(3, 3, 3, 4, 5))
    samples, d = draft.samples.copy(), draft.hidden.shape[1]
    if rng.random() < 0.5:
        angle = rng.uniform(0.2, 1.5)
        plane = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
        turn = np.array(
            [[np.sin(angle), np.cos(angle)], [-np.sin(angle), np.cos(angle)], [0.0, 1.0]]
        )
        samples[:3] = turn @ plane
    else:
        samples[2] = rng.normal(size=2) @ samples[:2]
    if len(samples) > 3 and rng.random() < 0.3:
        samples[3] = rng.normal(size=2) @ samples[:2]
    samples = unit_rows(samples)
    draft = replace(draft, samples=samples, output=draft.output / len(draft.output))
    if rng.random() < 0.5:
        return _gradient("coplanar samples", draft, rng)
    labels = rng.choice([-1.0, 1.0], len(samples))
    b = -labels / (1.0 + np.exp(labels * draft.network().value(samples)))
    draft = replace(draft, coefficients=b)
    fixed = {"scale": "unit"}
    return _gradient("coplanar, loss known", draft, rng, EXACT, loss="logistic", fixed=fixed)


def near_identical(rng: Rng) -> Problem:
    """A sample and its near copy, or near opposite, at every distance; b may nearly cancel."""
    draft = draw_draft(rng, low=2)
    gap = float(10.0 ** rng.uniform(-9, -0.3))
    samples, b = draft.samples.copy(), draft.coefficients.copy()
    sign = float(rng.choice([1.0, 1.0, -1.0]))
    step = rng.normal(size=samples.shape[1])
    samples[1] = sign * samples[0] + gap * np.linalg.norm(samples[0]) * step / np.linalg.norm(step)
    if rng.random() < 0.3:
        b[1] = -b[0] * sign**draft.degree * (1.0 + gap * rng.normal())
    draft = replace(draft, samples=samples, coefficients=b)
    return _gradient("near-identical samples", draft, rng, note=f"gap {gap:.0e}")


def hidden_bias(rng: Rng) -> Problem:
    """Bias entries and samples of every size, a black image, shifts of brightness, logistic."""
    draft = draw_draft(rng)
    m, d = draft.hidden.shape
    size, large = float(10.0 ** rng.uniform(-5, 5)), float(10.0 ** rng.uniform(-3, 3))
    samples = large * draft.samples
    if len(samples) == d:  # the lifted samples must leave room in d + 1 dimensions
        draft = replace(draft, hidden=np.column_stack([draft.hidden, rng.normal(size=m)]))
        samples = np.column_stack([samples, large * rng.normal(size=len(samples))])
    kind = int(rng.integers(4))
    if kind == 1:
        samples[0] = 0.0 if rng.random() < 0.5 else 1e-3 * samples[0]
    elif kind == 2 and len(samples) > 1:
        samples[1] = samples[0] + large
    bias = size * rng.normal(size=m)
    if rng.random() < 0.2:
        bias = size * np.sign(bias)
    draft = replace(draft, samples=samples, bias=bias)
    loss = None
    if rng.random() < 0.2:
        draft = replace(
            draft, output=draft.output / (1.0 + np.abs(draft.network().value(samples)).max())
        )
        labels = np.sign(draft.coefficients)
        b = -labels / (1.0 + np.exp(labels * draft.network().value(samples)))
        draft, loss = replace(draft, coefficients=b), "logistic"
    note = f"bias {size:.0e} samples {large:.0e} kind {kind}"
    return _gradient("hidden bias", draft, rng, EXACT if loss else None, loss=loss, note=note)


def over_decades(rng: Rng) -> Problem:
    """Coefficients, sample norms, neurons or outputs over many decades."""
    draft = draw_draft(rng, low=2)
    span = float(rng.uniform(0.5, 10.0))

    def decades(count: int) -> FloatArray:
        return np.asarray(10.0 ** rng.uniform(-span, 0.0, count))

    kind = int(rng.integers(4))
    if kind == 0:
        draft = replace(draft, coefficients=draft.coefficients * decades(len(draft.samples)))
    elif kind == 1:
        lengths = decades(len(draft.samples)) ** (1.0 / draft.degree)
        draft = replace(draft, samples=draft.samples * lengths[:, None])
    elif kind == 2:
        draft = replace(draft, hidden=draft.hidden * decades(len(draft.hidden))[:, None] ** 0.3)
    else:
        draft = replace(draft, output=draft.output * decades(len(draft.output)))
    return _gradient("over decades", draft, rng, note=f"kind {kind} span {span:.1f}")


def extreme_units(rng: Rng) -> Problem:
    """Whole layers, all samples or all coefficients in units far from 1."""
    draft = draw_draft(rng)
    reach = 60.0 / draft.degree
    w, x, a, b = (float(10.0 ** rng.uniform(-reach, reach)) for _ in range(4))
    draft = replace(
        draft, hidden=w * draft.hidden, samples=x * draft.samples, output=a * draft.output,
        coefficients=b * draft.coefficients,
    )  # fmt: skip
    return _gradient("extreme units", draft, rng, EXACT, note=f"w {w:.0e} x {x:.0e} a {a:.0e}")


def coarse_formats(rng: Rng) -> Problem:
    """Every format of weights and gradient, weights rounded before or after."""
    draft = draw_draft(rng)
    names = ["float32", "float16", "bfloat16"]
    storage = Storage(
        str(rng.choice(["float64", *names])), str(rng.choice(names)), late=bool(rng.random() < 0.4)
    )
    return _gradient("formats", draft, rng, storage)


def low_arithmetic(rng: Rng) -> Problem:
    """Gradients computed in float32, float16 or bfloat16, few neurons above what is needed."""
    draft = draw_draft(rng)
    name = str(rng.choice(["float32", "float32", "float32", "float16", "bfloat16"]))
    held = "float64" if rng.random() < 0.3 and name == "float32" else name
    return _gradient("low arithmetic", draft, rng, Storage(name, held, name))


def every_option(rng: Rng) -> Problem:
    """Plain problems; the options carry the difficulty. A third has |f(x_i)| = 1."""
    draft = draw_draft(rng)
    fixed: dict[str, Any] = {}
    if rng.random() < 0.35:
        if rng.random() < 0.5:  # where the output is small against its slope
            many = unit_rows(rng.normal(size=(300, draft.hidden.shape[1])))
            flat = np.argsort(np.abs(draft.network().value(many)))
            draft = replace(draft, samples=many[flat[: len(draft.samples)]])
        draft = margin_scaled(draft)
        fixed = {"scale": "margin"}
    return _gradient("options", draft, rng, fixed=fixed)


def slightly_more_samples(rng: Rng) -> Problem:
    """One to three samples more than dimensions, of every weight."""
    draft = draw_draft(rng, low=2)
    r = len(draft.samples)
    extra = int(rng.integers(1, 4))
    mix = rng.normal(size=(extra, r)) @ draft.samples
    if np.all(draft.samples >= 0.0):
        mix = np.abs(rng.dirichlet(np.ones(r), extra)) @ draft.samples
    weight = float(10.0 ** rng.uniform(-7, 0)) if rng.random() < 0.5 else 1.0
    mix = unit_rows(mix)
    b = weight * rng.choice([-1.0, 1.0], extra)
    draft = replace(
        draft, samples=np.vstack([draft.samples, mix]),
        coefficients=np.concatenate([draft.coefficients, b]),
    )  # fmt: skip
    return _gradient("n slightly above r", draft, rng, note=f"{r}+{extra} of weight {weight:.0e}")


def parallel_samples(rng: Rng) -> Problem:
    """Multiples of one sample, opposite ones, and coefficients that cancel up to a share."""
    draft = draw_draft(rng)
    factor = float(rng.choice([1.0, -1.0, 2.0, -0.5, 0.25]))
    left = float(10.0 ** rng.uniform(-12, 0)) if rng.random() < 0.5 else 1.0
    height = (left - 1.0) * draft.coefficients[0] / factor**draft.degree
    samples = np.vstack([draft.samples, factor * draft.samples[:1]])
    b = np.append(draft.coefficients, height if left < 1.0 else rng.normal())
    draft = replace(draft, samples=samples, coefficients=b)
    return _gradient("parallel samples", draft, rng, note=f"factor {factor} left {left:.0e}")


def lone_sample(rng: Rng) -> Problem:
    """One sample, or a few that are nearly one, seen by two to five neurons."""
    degree = int(rng.integers(3, 7))
    d, m = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    count = int(rng.integers(1, 4))
    gap = float(10.0 ** rng.uniform(-9, 0))
    base = rng.normal(size=d)
    samples = base + (gap * rng.normal(size=(count, d)) if count > 1 else 0.0) * np.ones((count, 1))
    signs = rng.choice([-1.0, 1.0], count)
    draft = Draft(degree, rng.normal(size=(m, d)), rng.normal(size=m), samples, signs)
    return _gradient("nearly one sample", draft, rng, note=f"{count} samples gap {gap:.0e}")


def just_enough(rng: Rng) -> Problem:
    """As many neurons as rank N needs, or one more: no or few equations to spare."""
    draft = draw_draft(rng)
    r = len(draft.samples)
    need = -(-symmetric_dimension(draft.degree, r) // r)
    m = max(need + int(rng.integers(0, 2)), 2, r + int(rng.integers(0, 2)))
    hidden = rng.normal(size=(m, draft.hidden.shape[1]))
    draft = replace(draft, hidden=hidden, output=rng.normal(size=m))
    return _gradient("just enough neurons", draft, rng)


def near_neurons(rng: Rng) -> Problem:
    """Neurons in clusters of every width: copies, near copies, and all around one direction."""
    draft = draw_draft(rng)
    m, d = draft.hidden.shape
    gap = float(10.0 ** rng.uniform(-12, -0.5))
    distinct = int(rng.integers(1, m + 1))
    base = rng.normal(size=(distinct, d))
    hidden = base[rng.integers(0, distinct, m)] + gap * rng.normal(size=(m, d))
    draft = replace(draft, hidden=hidden)
    return _gradient("near neurons", draft, rng, note=f"{distinct} clusters gap {gap:.0e}")


def stated_noise(rng: Rng) -> Problem:
    """Gaussian noise of every size, stated truly, too large or too small."""
    draft = draw_draft(rng)
    noise = float(10.0 ** rng.uniform(-12, -2))
    return _gradient("stated noise", draft, rng, Storage(noise=noise))


GRADIENT_FAMILIES: tuple[Family, ...] = (
    structured_weights, quantised_weights, mirrored, coplanar_triples, near_identical, hidden_bias,
    over_decades, extreme_units, coarse_formats, low_arithmetic, every_option,
    slightly_more_samples, parallel_samples, lone_sample, just_enough, near_neurons, stated_noise,
)  # fmt: skip
