"""Families of weights that training made: stationary networks and fine-tuned pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.optimize

from identify import HermiteData
from identify.planting.plant import PlantingError, plant_network
from tests.identify.families import stationary_network
from tests.identify.new_families import GRADIENT_FAMILIES
from tests.identify.new_problems import (
    FORMATS,
    Draft,
    Family,
    Problem,
    Training,
    draw_draft,
    posed,
    stored,
    tuned_data,
    unit_rows,
)

Rng = np.random.Generator


def _stationary(family: str, samples: np.ndarray, degree: int, rng: Rng) -> Problem:
    """All or some eigenvectors of T as neurons."""
    b = np.ones(len(samples)) if degree % 2 == 0 else rng.choice([-1.0, 1.0], len(samples))
    b = b * rng.uniform(0.7, 1.4, len(samples)) ** float(rng.integers(0, 2))
    network = stationary_network(samples, b, degree, int(rng.integers(1 << 30)))
    while network is None or network.width < 2:
        samples = unit_rows(rng.normal(size=samples.shape))
        network = stationary_network(samples, b, degree, int(rng.integers(1 << 30)))
    keep = np.arange(network.width)
    if rng.random() < 0.3:
        keep = rng.permutation(network.width)[: int(rng.integers(1, network.width + 1))]
    draft = Draft(degree, network.hidden_weight[keep], network.output_weight[keep], samples, b)
    note = f"{len(keep)} of {network.width} neurons"
    return _as_trained(family, draft, rng, note, kkt=rng.random() < 0.5)


def _as_trained(family: str, draft: Draft, rng: Rng, note: str, kkt: bool) -> Problem:
    """A stationary draft in a format, perhaps short of convergence."""
    short = float(10.0 ** rng.uniform(-10, -2.5)) if rng.random() < 0.3 else 0.0
    hidden = draft.hidden * (1.0 + short * rng.normal(size=draft.hidden.shape))
    output = draft.output * (1.0 + short * rng.normal(size=draft.output.shape))
    name = str(rng.choice(["float64", "float64", "float32", "float16", "bfloat16"]))
    draft = stored(replace(draft, hidden=hidden, output=output), name)
    held = draft.network(FORMATS[name])
    if kkt:
        data = HermiteData.from_kkt(held)
    else:
        decay = float(10.0 ** rng.uniform(-4, 0)) if rng.random() < 0.5 else None
        data = HermiteData.from_weight_decay(held, decay=decay)
        draft = replace(draft, coefficients=draft.coefficients * (decay or 1.0))
    return posed(family, data, draft, rng, note=f"{name} {note} short {short:.0e}")


def stationary(rng: Rng) -> Problem:
    """Independent samples in general position."""
    degree = int(rng.choice([3, 3, 3, 4, 5]))
    n = int(rng.integers(2, 6 if degree == 3 else 4))
    samples = unit_rows(rng.normal(size=(n, n + int(rng.integers(0, 3)))))
    return _stationary("stationary", samples, degree, rng)


def planted(rng: Rng) -> Problem:
    """Determined stationary networks, KKT points with all margins 1 among them."""
    degree = int(rng.choice([3, 3, 3, 4]))
    n = int(rng.integers(3, 6)) if degree == 3 else 3
    samples = rng.normal(size=(n, n + int(rng.integers(0, 3))))
    if rng.random() < 0.5:
        samples = unit_rows(samples)
    try:
        made = plant_network(samples, degree=degree, determined=True, seed=int(rng.integers(99)))
    except PlantingError:
        return stationary(rng)
    network = made.network
    draft = Draft(degree, network.hidden_weight, network.output_weight, samples, made.coefficients)
    kkt = made.kind == "margin" and rng.random() < 0.7
    return _as_trained("planted", draft, rng, made.kind, kkt)


def symmetric_stationary(rng: Rng) -> Problem:
    """Orthonormal, mirrored, equiangular, coplanar and nearly equal samples."""
    degree = int(rng.choice([3, 3, 4, 5]))
    n = int(rng.integers(2, 5 if degree == 3 else 4))
    kind = int(rng.integers(5))
    d = n + int(rng.integers(0, 2))
    samples = np.linalg.qr(rng.normal(size=(d, n)))[0].T
    if kind == 1:
        samples = unit_rows(samples + float(rng.uniform(-0.3, 0.6)) * samples.sum(axis=0))
    elif kind == 2:
        angles = np.pi * np.arange(n) / n + (0.0 if rng.random() < 0.5 else 0.1)
        samples = np.column_stack([np.cos(angles), np.sin(angles)])
    elif kind == 3:
        angle = rng.uniform(0.2, 1.5)
        samples = np.array(
            [[np.sin(angle), np.cos(angle)], [-np.sin(angle), np.cos(angle)], [0, 1]]
        )
    elif kind == 4:
        samples[1] = samples[0] + float(10.0 ** rng.uniform(-6, -1)) * samples[1]
        samples = unit_rows(samples)
    return _stationary("symmetric stationary", samples, degree, rng)


def mirror_kkt(rng: Rng) -> Problem:
    """Exact KKT points of three mirror-symmetric samples in a plane, all margins equal.

    The samples stand at the angles t, -t and 0 with b = (1, 1, b_3), so that T is
    6 B u^2 v + C v^3; the neurons are the axis and copies of an outer pair, and t is where the
    margins meet.
    """
    copies, d = int(rng.integers(1, 8)), int(rng.integers(2, 5))
    frame = np.linalg.qr(rng.normal(size=(d, 2)))[0].T

    def build(angle: float, ratio: float) -> Draft:
        s, c = np.sin(angle), np.cos(angle)
        height = c * s * s
        outer = np.sqrt((12.0 - 3.0 * ratio) / 6.0)
        hidden, output = [], []
        for u in [0.0, *[outer, -outer] * copies]:
            w = np.array([u, 1.0])
            value = (12.0 * u * u + 6.0 * u * u + 3.0 * ratio) * height / 3.0 / float(w @ w)
            length = (np.sqrt(3.0) * np.linalg.norm(w) * abs(value)) ** -0.5
            hidden.append(length * w)
            output.append(np.sign(value) * np.linalg.norm(w) * length / np.sqrt(3.0))
        samples = np.array([[s, c], [-s, c], [0.0, 1.0]])
        b = np.array([1.0, 1.0, ratio * height - 2.0 * c**3])
        return Draft(3, np.array(hidden) @ frame, np.array(output), samples @ frame, b)

    def gap(angle: float, ratio: float) -> float:
        draft = build(angle, ratio)
        values = draft.network().value(draft.samples)
        return float(values[0] - values[2])

    angles = np.linspace(0.2, 1.5, 100)
    for ratio in rng.uniform(0.5, 3.9, 20):
        gaps = np.array([gap(angle, ratio) for angle in angles])
        for k in np.flatnonzero(gaps[:-1] * gaps[1:] < 0.0):
            draft = build(scipy.optimize.brentq(gap, angles[k], angles[k + 1], (ratio,)), ratio)
            if draft.coefficients[2] > 0.05:
                data = HermiteData.from_kkt(draft.network())
                fixed = {"scale": "unit"} if rng.random() < 0.8 else {}
                return posed("mirror KKT", data, draft, rng, fixed=fixed, note=f"{copies} copies")
    return stationary(rng)


def _tuned(family: str, rng: Rng, training: Training, low: int = 1) -> Problem:
    """A pair whose movement is a given share of the weights, at either point."""
    draft = draw_draft(rng, low, (3, 3, 4, 5))
    scale = len(draft.output) ** -0.5
    draft = replace(draft, output=scale * draft.output, samples=unit_rows(draft.samples))
    if rng.random() < 0.3:
        draft = replace(draft, bias=0.3 * rng.normal(size=len(draft.output)))
    name = str(rng.choice(["float64", "float64", "float32", "bfloat16"]))
    if name == "bfloat16":  # smaller movements do not leave the rounding
        training = replace(training, rate=min(1000.0 * training.rate, 0.1))
    point = str(rng.choice(["midpoint", "initial"]))
    if not training.adam:
        # Steps of about the same total length, so that long runs do not diverge.
        rate = training.rate * (1.0 - training.momentum) / training.steps
        training = replace(training, rate=rate)
    data = tuned_data(draft, training, name, point, rng)
    note = f"{training.steps} steps rate {training.rate:.0e} {name} {point} {training.loss}"
    return posed(family, data, draft, rng, first_order=True, note=note)


def fine_tuned(rng: Rng) -> Problem:
    """1 to 300 steps of descent, full batch or not, plain or with momentum."""
    steps = int(np.round(10.0 ** rng.uniform(0, 2.48)))
    momentum = float(rng.choice([0.0, 0.0, 0.9]))
    batch = None if rng.random() < 0.7 else int(rng.integers(1, 4))
    loss = str(rng.choice(["squared", "logistic"]))
    rate = float(10.0 ** rng.uniform(-6, -1))
    family = "fine-tuned, momentum" if momentum else "fine-tuned"
    return _tuned(family, rng, Training(steps, rate, momentum, False, batch, loss))


def adam_tuned(rng: Rng) -> Problem:
    """1 to 300 steps of Adam, whose movement no set of samples explains."""
    steps = int(np.round(10.0 ** rng.uniform(0, 2.48)))
    return _tuned("Adam", rng, Training(steps, float(10.0 ** rng.uniform(-6, -2)), adam=True))


FAMILIES: tuple[Family, ...] = (
    *GRADIENT_FAMILIES,
    stationary,
    planted,
    symmetric_stationary,
    mirror_kkt,
    fine_tuned,
    adam_tuned,
)


def draw(seed: int, family: str | None = None) -> Problem:
    """Problem number `seed`: the families in turn, or one by the name of its function."""
    functions = {make.__name__: make for make in FAMILIES}
    make = FAMILIES[seed % len(FAMILIES)] if family is None else functions[family]
    return make(np.random.default_rng([seed, 11]))
