"""Planted Hermite equations, and Newton's method on them at 60 digits."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np

from identify.proofs.balls import BallEquations
from identify.proofs.enclosure import enclose_terms

SHIFT = 44


@dataclass
class Problem:
    points: np.ndarray
    rhs: np.ndarray
    weights: np.ndarray
    degree: int
    terms: np.ndarray
    signs: np.ndarray
    shift: int = SHIFT

    def enclose(self, rho, terms=None, **options):
        terms = self.terms if terms is None else terms
        data = (self.points, self.shift, self.rhs, self.weights, self.degree)
        return enclose_terms(*data, terms, self.signs, rho, **options)

    def equations(self, rho):
        data = (self.points, self.shift, self.rhs, self.weights, self.degree)
        return BallEquations(*data, self.signs, rho)


def forward(points, weights, degree, terms, signs):
    return weights[:, None] * (((points @ terms.T) ** (degree - 1) * signs) @ terms)


def planted(degree, r, k, seed, *, members=None, mixed=False, noise=0.0):
    """Random unit points, samples and weights; `noise` moves every entry by up to it |rhs|."""
    rng = np.random.default_rng(seed)
    terms = rng.standard_normal((members or r, r))
    signs = rng.choice([-1.0, 1.0], len(terms)) if mixed else np.ones(len(terms))
    points = rng.standard_normal((k, r))
    points /= np.linalg.norm(points, axis=1)[:, None]
    weights = np.exp(rng.standard_normal(k))
    rhs = forward(points, weights, degree, terms, signs)
    rhs += noise * np.linalg.norm(rhs) * rng.uniform(-1, 1, rhs.shape)
    points = np.rint(np.ldexp(points, SHIFT)).astype(np.int64)
    return Problem(points, rhs, weights, degree, terms, signs)


def near_parallel(degree, r, closeness, seed, shift):
    """As many points as terms, and two terms that differ by 2^-closeness."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((r, r))
    points /= np.linalg.norm(points, axis=1)[:, None]
    points = np.rint(np.ldexp(points, shift)).astype(np.int64)
    terms = rng.standard_normal((r, r))
    terms /= np.linalg.norm(terms, axis=1)[:, None]
    terms[1] = terms[0] + 2.0**-closeness * terms[1]
    weights = np.exp(rng.standard_normal(r))
    rhs = forward(np.ldexp(points.astype(float), -shift), weights, degree, terms, np.ones(r))
    return Problem(points, rhs, weights, degree, terms, np.ones(r), shift)


def solve(problem, pivots, start, right, points):
    """Newton's method on the pivot equations at 60 digits; `right`, `points` are mpf tables."""
    r, power = len(start), problem.degree - 1
    z = mpmath.matrix(start.tolist())
    for _ in range(60):
        jacobian, value = mpmath.zeros(r * r), mpmath.zeros(r * r, 1)
        for n, row in enumerate(pivots.tolist()):
            j, axis = divmod(row, r)
            weight = mpmath.mpf(float(problem.weights[j]))
            value[n] = -right[j][axis]
            for i in range(r):
                along = mpmath.fsum(points[j][b] * z[i, b] for b in range(r))
                factor = weight * int(problem.signs[i])
                value[n] += factor * along**power * z[i, axis]
                for b in range(r):
                    slope = power * along ** (power - 1) * z[i, axis] * points[j][b]
                    jacobian[n, i * r + b] = factor * (slope + (b == axis) * along**power)
        step = mpmath.lu_solve(jacobian, value)
        for n in range(r * r):
            z[n // r, n % r] -= step[n]
        if mpmath.norm(step) < mpmath.mpf(10) ** -50:
            return z
    raise AssertionError("Newton's method did not converge")


def moved(problem, rho, sides, corners):
    """Data at the given corners (entries in [-1, 1]) of what is allowed."""
    size = mpmath.sqrt(mpmath.fsum(mpmath.mpf(x) ** 2 for x in problem.rhs.ravel().tolist()))
    radius = mpmath.mpf(rho) * size
    right = [
        [mpmath.mpf(x) + radius * mpmath.mpf(s) for x, s in zip(*pair, strict=True)]
        for pair in zip(problem.rhs.tolist(), sides.tolist(), strict=True)
    ]
    unit = mpmath.mpf(2) ** -problem.shift
    points = [
        [(mpmath.mpf(x) + mpmath.mpf(s)) * unit for x, s in zip(*pair, strict=True)]
        for pair in zip(problem.points.tolist(), corners.tolist(), strict=True)
    ]
    return right, points


def furthest(solution, box):
    """Largest distance from the centre in units of the radii: at most 1 inside."""
    r = len(box.centres)
    return max(
        abs(solution[i, b] - mpmath.mpf(float(box.centres[i, b])))
        / mpmath.mpf(float(box.radii[i, b]))
        for i in range(r)
        for b in range(r)
    )


def distances(problem, box, rho, seed, count=4):
    """How far solutions for random and adverse data in the ball are from the centre."""
    rng = np.random.default_rng(seed)
    found = []
    inverse = np.linalg.inv(problem.equations(rho).jacobian(box.centres)[box.pivots])
    with mpmath.workdps(60):
        for trial in range(count):
            sides = rng.choice([-1.0, 1.0], problem.rhs.shape)
            corners = rng.choice([-1.0, 1.0], problem.points.shape)
            if trial == 0:
                sides, corners = rng.uniform(-1, 1, (2, *problem.rhs.shape))
            if trial == 1:
                unknown = np.argmax(np.sum(np.abs(inverse), axis=1) / box.radii.ravel())
                sides.ravel()[box.pivots] = np.sign(inverse[unknown])
            data = moved(problem, rho, sides, corners)
            found.append(furthest(solve(problem, box.pivots, box.centres, *data), box))
    return [float(distance) for distance in found]
