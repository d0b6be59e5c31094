"""All samples at once: odd powers with fewer neurons than one sample alone needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.factor import EPSILON
from identify.disaggregation.search.spaces import Spaces
from identify.thresholds import SINGULAR

STAGE = "solving for all samples"
_PROBES = 40
_SIGMAS = 4.0
# Rounding is larger in large rows than what the tail of the singular values shows; other minima
# lie many orders higher.
_KAPPA = 30.0
_WORK = 4e9
_STARTS = (30, 400)
_STEPS, _LAST_STEPS = 40, 600
_STOP, _GAIN, _PATIENCE = 1e-28, 1e-4, 12
_LARGEST_DAMPING = 1e8
_SPREAD = (0.15, 0.6)


@dataclass(frozen=True, eq=False)
class Joint:
    """The equations sum_i b_j (u_j . z_i)^(alpha-1) z_i = g_j of one output and an odd power.

    ``rows`` (m, r) are the u_j in a basis in which they are orthonormal as columns, ``factors``
    (m,) the b_j = alpha a_j, ``data`` (m, r) the g_j of norm 1. z_i = ``back`` (r, r) times a
    column of the unknowns. ``noise`` is that of an entry of ``data``.
    """

    rows: FloatArray
    factors: FloatArray
    data: FloatArray
    back: FloatArray
    power: int
    noise: float

    def residual(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What z (r, k) leaves of the data, (m, r), and u_j . z_i, (m, k)."""
        t = self.rows @ z
        return self.data - (self.factors[:, None] * t ** (self.power - 1)) @ z.T, t

    def jacobian(self, z: FloatArray, t: FloatArray) -> FloatArray:
        """Derivative (m r, k r) of the model by the samples, one after another."""
        m, r, k = len(self.rows), self.rows.shape[1], z.shape[1]
        alpha = self.power
        slope = (alpha - 1) * self.factors[:, None] * t ** (alpha - 2)
        full = np.einsum("ji,jb,ai->jaib", slope, self.rows, z)
        level = self.factors[:, None] * t ** (alpha - 1)
        for a in range(r):
            full[:, a, :, a] += level
        return np.asarray(full.reshape(m * r, k * r), dtype=np.float64)


def joint_of(spaces: Spaces) -> Joint | None:
    """The joint equations, or None but for one hidden layer, one output and an odd power.

    For even powers the signs of the weights would be unknowns too.
    """
    chain, bottom = spaces.chain, spaces.bottom
    kind = chain.activations[0]
    single = len(chain.activations) == 1 and len(chain.space) == 1 and spaces.homogeneous
    if not single or kind.name != "monomial" or spaces.subset is not None:
        return None
    alpha = int(kind.parameters[0])
    if alpha % 2 == 0 or alpha < 3 or len(spaces.rows_map) < spaces.rank:
        return None
    left, values, right = np.linalg.svd(spaces.rows_map, full_matrices=False)
    if values[-1] <= 1e-10 * values[0]:
        return None
    data = (bottom.columns * bottom.values) @ (right.T * values)
    size = max(float(np.linalg.norm(data)), 1e-300)
    turned = bottom.noise * float(values[0]) / size
    back = (right.T / values) * size ** (1.0 / alpha)
    amplitudes = np.asarray(chain.weights[0][0] * chain.space[0, 0], dtype=np.float64)
    return Joint(left, alpha * amplitudes, data / size, back, alpha, turned)


def joint_power(joint: Joint, count: int, *, seed: int = 0) -> int:
    """Equations of all samples together beyond their unknowns, by rank; at most 40.

    The rank of count * r + 40 random terms b_j (u_j . z)^(alpha-1) z, less count * r.

    Cost: m r (count r)^2.
    """
    rng = np.random.default_rng([seed, 5])
    r = joint.rows.shape[1]
    z = rng.normal(size=(r, count * r + _PROBES))
    t = joint.factors[:, None] * (joint.rows @ z) ** (joint.power - 1)
    terms = (t[:, None, :] * z[None]).reshape(-1, z.shape[1])
    terms /= np.linalg.norm(terms, axis=0)
    values = np.linalg.svd(terms, compute_uv=False)
    level = max(1e-10, 30.0 * joint.noise * np.sqrt(terms.shape[0]))
    independent = int(np.sum(values > level * values[0]))
    return int(independent - count * r)


@dataclass(frozen=True, eq=False)
class JointFound:
    """Samples (n, r) in the coordinates of V, with relative error bounds (n,), or none."""

    points: FloatArray
    bounds: FloatArray
    condition: float
    starts: int
    steps: int
    stopped: str = ""


def solve_joint(
    joint: Joint, count: int, rng: np.random.Generator, budget: Budget = UNLIMITED
) -> JointFound:
    """All samples together, by Levenberg-Marquardt from random starts and from grown ones.

    A grown start begins with one sample. What it leaves says which sample is best split, and along
    which direction: the most negative eigenvalue of the splitting matrix.

    Cost: a start takes some hundred steps of m r (count r)^2 operations.
    """
    m, r = joint.data.shape
    most = int(np.clip(_WORK / (m * r * (count * r) ** 2), *_STARTS))
    limit = (_KAPPA * joint.noise) ** 2 * m * r + (1e3 * EPSILON) ** 2
    steps = 0
    for start in range(1, most + 1):
        budget.tell(STAGE, (start - 1) / most)
        if budget.expired:
            return _none(r, start - 1, steps, "the time limit ended the search")
        z = _grown(joint, count, rng) if start % 2 == 0 else _random(joint, count, rng)
        z, cost, taken = minimise_joint(joint, z, _LAST_STEPS)
        steps += taken
        if cost <= limit:
            bounds, condition = _bounds(joint, z, cost)
            points = (joint.back @ z).T
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            return JointFound(points, bounds, condition, start, steps)
    return _none(r, most, steps, f"no solution of the joint equations in {most} starts")


def _none(r: int, starts: int, steps: int, why: str) -> JointFound:
    return JointFound(np.zeros((0, r)), np.zeros(0), 0.0, starts, steps, why)


def _random(joint: Joint, count: int, rng: np.random.Generator) -> FloatArray:
    z = rng.normal(size=(joint.rows.shape[1], count))
    t = joint.rows @ z
    model = (joint.factors[:, None] * t ** (joint.power - 1)) @ z.T
    return np.asarray(z / float(np.linalg.norm(model)) ** (1.0 / joint.power))


def _grown(joint: Joint, count: int, rng: np.random.Generator) -> FloatArray:
    z = _random(joint, 1, rng) * rng.choice([-1.0, 1.0])
    while True:
        z, _, _ = minimise_joint(joint, z, _STEPS)
        if z.shape[1] == count:
            return z
        z = _split(joint, z, rng)


def _split(joint: Joint, z: FloatArray, rng: np.random.Generator) -> FloatArray:
    """One sample more: that with the most negative eigenvalue becomes two.

    S_i = -D^2 <residual, b (u . z)^(alpha-1) z> at z_i.
    """
    residual, t = joint.residual(z)
    alpha, u, b = joint.power, joint.rows, joint.factors
    best = (np.inf, 0, np.zeros(len(z)))
    for i in range(z.shape[1]):
        along = b * (alpha - 1) * (alpha - 2) * t[:, i] ** (alpha - 3) * (residual @ z[:, i])
        cross = (u.T * (b * (alpha - 1) * t[:, i] ** (alpha - 2))) @ residual
        values, vectors = np.linalg.eigh(-((u.T * along) @ u + cross + cross.T))
        if values[0] < best[0]:
            best = (float(values[0]), i, vectors[:, 0])
    _, i, direction = best
    move = rng.uniform(*_SPREAD) * np.linalg.norm(z[:, i]) * direction
    share = 2.0 ** (-1.0 / alpha)
    halves = [share * (z[:, i] + move), share * (z[:, i] - move)]
    return np.column_stack([np.delete(z, i, axis=1), *halves])


def minimise_joint(joint: Joint, z: FloatArray, most: int) -> tuple[FloatArray, float, int]:
    """Levenberg-Marquardt on |residual|^2; z, its value and the steps."""
    r, k = z.shape
    residual, t = joint.residual(z)
    cost, damping, slow = float(np.sum(residual**2)), 1e-2, 0
    for step in range(most):
        jacobian = joint.jacobian(z, t)
        gram, slope = jacobian.T @ jacobian, jacobian.T @ residual.ravel()
        scale = np.diag(gram) + 1e-12 * np.trace(gram) / len(gram)
        moved = None
        while moved is None and damping < _LARGEST_DAMPING:
            try:
                factor = linalg.cho_factor(gram + damping * np.diag(scale), check_finite=False)
            except linalg.LinAlgError:
                damping = max(10.0 * damping, 1e-12)
                continue
            move = linalg.cho_solve(factor, slope, check_finite=False).reshape(k, r).T
            rest, inner = joint.residual(z + move)
            value = float(np.sum(rest**2))
            if value < cost:
                moved = z + move
            else:
                damping *= 4.0
        if moved is None:
            return z, cost, step
        slow = slow + 1 if cost - value < _GAIN * cost else 0
        z, residual, t, cost = moved, rest, inner, value
        damping = max(damping / 5.0, 1e-14)
        if cost < _STOP or slow >= _PATIENCE:
            return z, cost, step + 1
    return z, cost, most


def _bounds(joint: Joint, z: FloatArray, cost: float) -> tuple[FloatArray, float]:
    """Relative bounds at four standard deviations, and the condition of the joint Jacobian."""
    r, k = z.shape
    _, t = joint.residual(z)
    jacobian = joint.jacobian(z, t)
    norms = np.linalg.norm(jacobian, axis=0)
    _, values, right = np.linalg.svd(jacobian / norms, full_matrices=False)
    condition = float(values[-1] / values[0])
    if condition < SINGULAR:
        return np.full(k, np.inf), condition
    spare = max(joint.data.size - z.size, 1)
    noise = max(joint.noise, float(np.sqrt(cost / spare)), EPSILON)
    spread = (right.T / values) / norms[:, None]
    bounds = []
    for i in range(k):
        own = joint.back @ spread[i * r : (i + 1) * r]
        moved = _SIGMAS * noise * float(np.linalg.norm(own))
        bounds.append(moved / float(np.linalg.norm(joint.back @ z[:, i])))
    return np.array(bounds) + 16.0 * EPSILON, condition
