"""Unit margins: move the coefficients of a stationary network until all margins agree.

A neuron on the eigenvector v of T(b) = sum_i b_i x_i^(alpha) with value mu contributes
a^2 = (alpha^(alpha/2) |mu|)^(-2/(alpha-1)), and its output at sample i is
-((alpha-1)/2) d(a^2)/d b_i by the envelope theorem. So the outputs are functions of b alone, their
Jacobian is symmetric, and only b remains unknown. One neuron couples to the others through b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.planting.eigenvectors import EigenSystem, refine, sensitivity

_STEPS = 250
_TURN = 0.15
"""Largest change of a unit eigenvector in one step."""
_SHORTEST = 5e-3
"""A step cut below this means that an eigenvector is about to merge with another."""
_VANISHING = 1e-3
"""Smallest coefficient, relative to their geometric mean, that is still followed."""


@dataclass(frozen=True, eq=False)
class Balanced:
    """Coefficients b (n,) and eigenvectors of T(b) whose neurons have the wanted outputs."""

    coefficients: FloatArray
    system: EigenSystem
    steps: int
    dropped: int


def outputs(degree: int, system: EigenSystem) -> FloatArray:
    """Outputs of each neuron at the samples, shape (k, n).

    kappa |mu|^(-p-1) sign(mu) (x_i . v)^alpha with p = 2/(alpha-1), kappa = alpha^(-alpha p/2).
    """
    power = 2.0 / (degree - 1)
    height = degree ** (-0.5 * degree * power)
    size = np.abs(system.values) ** (-power - 1.0) * np.sign(system.values)
    rows: FloatArray = height * size[:, None] * system.products**degree
    return rows


def balance(
    samples: FloatArray,
    labels: FloatArray,
    coefficients: FloatArray,
    degree: int,
    vectors: FloatArray,
    targets: FloatArray,
    *,
    fewest: int = 1,
    budget: Budget = UNLIMITED,
) -> Balanced | None:
    """Solve y_i f(x_i) = targets_i for b by damped Newton steps that carry the eigenvectors along.

    The path runs from the present outputs straight to the targets. A neuron whose eigenvector
    merges with another ends there and is dropped; the path then starts anew from the outputs of
    the remaining ones. The final point is an exact KKT point whatever path led to it.

    Args:
        samples: unit samples in an orthonormal basis of their span, shape (n, n).
        labels: y_i in {-1, +1}.
        coefficients: b_i to start from, of the signs y_i.
        degree: alpha >= 3.
        vectors: isolated eigenvectors of T(b), shape (k, n).
        targets: wanted margins, positive.
        fewest: give up below this number of neurons.
        budget: at whose end to give up.

    Returns:
        The balanced network, or None: a coefficient went to 0, or too few neurons remained.

    Cost: a few k linear solves of size n + 1 with n right-hand sides a step, up to 250 steps.

    Source: Newton with continuation, Allgower & Georg (1990), "Numerical continuation methods",
    chapters 2 and 6.
    """
    system = refine(samples, coefficients, degree, vectors)
    mean = float(np.mean(labels * np.sum(outputs(degree, system), axis=0) / targets))
    if mean <= 0.0:
        return None
    # The outputs are homogeneous in b, of degree -(alpha+1)/(alpha-1).
    b = coefficients * mean ** ((degree - 1) / (degree + 1))
    system = refine(samples, b, degree, system.vectors)
    worst, dropped = np.inf, 0
    for step in range(_STEPS):
        missing = labels * targets - np.sum(outputs(degree, system), axis=0)
        error = float(np.max(np.abs(missing) / targets))
        if error < 1e-15 or (error < 1e-11 and error > 0.25 * worst):
            return Balanced(b, system, step, dropped)
        worst = error
        lengths = np.abs(b)
        if np.min(lengths) < _VANISHING * np.exp(np.mean(np.log(lengths))):
            return None
        turn = sensitivity(samples, degree, system)
        change = _newton_step(_slopes(degree, samples, system, turn), missing, lengths)
        drift = turn @ change
        speed = np.linalg.norm(drift, axis=1)
        size = min(1.0, _TURN / max(float(speed.max()), 1e-300))
        size = min(size, 0.5 / max(float(np.max(-change / b)), 1e-300))
        # Half-way a loose tolerance is enough; the last steps are refined as far as float64 goes.
        tolerance = 1e-15 if error < 1e-4 else 1e-9
        moved, lost = _advance(samples, b, degree, system, change, drift, size, tolerance)
        if moved is None:
            failing = int(np.argmax(speed)) if lost is None else lost
            kept = np.arange(len(speed)) != failing
            system, dropped, worst = system.subset(kept), dropped + 1, np.inf
            if len(system.values) < fewest:
                return None
        else:
            b, system = moved
        if budget.expired:
            return None
    return None


def _slopes(degree: int, samples: FloatArray, system: EigenSystem, turn: FloatArray) -> FloatArray:
    """d f(x_i) / d b_k, shape (n, n), symmetric."""
    power = 2.0 / (degree - 1)
    height = degree ** (-0.5 * degree * power)
    size = np.abs(system.values)
    tall = system.products**degree
    first = -(power + 1.0) * (tall * (size ** (-power - 2.0))[:, None]).T @ tall
    weight = (size ** (-power - 1.0) * np.sign(system.values))[:, None]
    steep = degree * weight * system.products ** (degree - 1)
    second = np.einsum("ji,jik->ik", steep, samples @ turn)
    slopes: FloatArray = height * (first + second)
    return 0.5 * (slopes + slopes.T)


def _newton_step(slopes: FloatArray, missing: FloatArray, lengths: FloatArray) -> FloatArray:
    """Newton step in units of the coefficients; least squares where the slopes are singular."""
    scaled = slopes * lengths[:, None] * lengths
    step, *_ = np.linalg.lstsq(scaled, lengths * missing, rcond=1e-14)
    change: FloatArray = lengths * step
    return change


def _advance(
    samples: FloatArray,
    b: FloatArray,
    degree: int,
    system: EigenSystem,
    change: FloatArray,
    drift: FloatArray,
    size: float,
    tolerance: float,
) -> tuple[tuple[FloatArray, EigenSystem] | None, int | None]:
    """The state after a step short enough for every eigenvector; or the one that is lost."""
    lost = None
    while size >= _SHORTEST:
        trial = b + size * change
        ahead = system.vectors + size * drift
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        moved = refine(samples, trial, degree, ahead, tolerance=tolerance, steps=4)
        cosine = np.sum(moved.vectors * system.vectors, axis=1)
        failed = (moved.residuals > 1e-8) | (cosine < 0.97)
        failed |= np.sign(moved.values) != np.sign(system.values)
        if not np.any(failed):
            return (trial, moved), None
        lost = int(np.flatnonzero(failed)[0])
        size *= 0.3
    return None, lost
