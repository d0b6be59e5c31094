"""Multipliers of given training samples: how well they explain a network, and which count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.optimize

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.reduction import distinct_directions, parallel_groups
from identify.hermite.stationarity import stationarity, target_of
from identify.thresholds import PARALLEL

IntArray = npt.NDArray[np.intp]

MAX_SAMPLES = 5000


@dataclass(frozen=True, eq=False)
class MultiplierFit:
    """Coefficients b_i of given samples, and how well they explain the data.

    `coefficients` (n,); `residual` |g - sum_i b_i grad f(x_i)| / |g| over all parameters but the
    output bias; `redundant` the equations beyond the unknowns, below 1 if any data would fit;
    `unique` whether the columns are independent once parallel samples are merged; `contributions`
    (n,) |b_i| |grad f(x_i)| of a sample together with its parallels, relative to |g|; `groups` (n,)
    the index of the first sample parallel to i; `sensitivities` (n,) how far the contribution moves
    at most for an error of the data of norm |g|: |row i of A^+| for unit columns A.
    """

    coefficients: FloatArray
    residual: float
    redundant: int
    unique: bool
    contributions: FloatArray
    groups: IntArray
    sensitivities: FloatArray


def fit_multipliers(
    data: HermiteData, samples: FloatArray, labels: FloatArray | None = None
) -> MultiplierFit:
    """Least-squares b_i of sum_i b_i grad f(x_i) = g, with b_i y_i >= 0 if labels are given.

    g is theta for KKT, decay theta for weight decay, the gradient, or the movement of a fine-tuned
    network; grad f is taken at the points of `data`. Works on the Gram matrix of the gradients,
    scaled to unit columns, whose entries need no gradient:

        <grad f(x_i), grad f(x_k)> = (x_i.x_k) sum_j s_j^2 (p_ij p_kj)^(alpha-1)
                                     + sum_j (p_ij p_kj)^alpha

    with p_ij = u_j.x_i, s_j = alpha a_j, followed by iterative refinement. Parallel samples share
    one column; their part is split evenly among those whose label fits, for KKT among the shortest
    of them (the others have a larger margin, so that complementary slackness makes theirs 0).

    Args:
        data: of any source.
        samples: (n, d) float64.
        labels: (n,) of +-1, or None for signs left free.

    Raises:
        InvalidInputError: samples of another dimension, more than 5,000, or beyond float64.

    Cost: 2 n^2 (d + 9 m) + 30 n^3 + m^2 d flops, n^2 + n m + n d numbers.
    Source: non-negative least squares (Lawson & Hanson 1974, algorithm NNLS); corrected normal
        equations (Bjorck 1996, section 2.9).

    Example:
        >>> from identify.model.two_layer import TwoLayerNetwork
        >>> net = TwoLayerNetwork(np.eye(2), [1.0, 1.0], degree=3)
        >>> samples = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
        >>> gradient = net.gradient(samples, [2.0, 0.0, 1.0])
        >>> fit = fit_multipliers(HermiteData.from_gradient(net, gradient), samples)
        >>> np.round(fit.coefficients, 12) + 0.0, fit.residual < 1e-12
        (array([2., 0., 1.]), True)
    """
    lifted = data.network.lift(samples)
    if len(lifted) > MAX_SAMPLES:
        raise InvalidInputError(
            "samples", f"at most {MAX_SAMPLES}", len(lifted), "give a part of the training data"
        )
    sizes = np.linalg.norm(lifted, axis=1)
    unit = lifted / np.where(sizes > 0.0, sizes, 1.0)[:, None]
    groups, flips = parallel_groups(unit, PARALLEL)
    heads, member = np.unique(groups, return_inverse=True)
    system = _System(data, unit[heads])
    odd = flips if data.degree % 2 else np.ones(len(flips))
    # A column for each group, or for each group and sign of its contribution.
    signs = odd if labels is None else odd * labels
    kinds = np.ones(len(flips)) if labels is None else signs
    columns, column = np.unique(np.stack([member, kinds], axis=1), axis=0, return_inverse=True)
    column = column.reshape(-1)
    owner = columns[:, 0].astype(np.intp)
    if labels is None:
        shares = system.solve(np.arange(len(heads)))
    else:
        shares = _non_negative(system, owner, columns[:, 1])
    sharing = _sharing(sizes, column, tight=data.source == "kkt")
    counts = np.bincount(column, sharing, len(owner))
    with np.errstate(all="ignore"):
        b = shares[column] * sharing / counts[column] * (odd if labels is None else labels)
        b = b * system.unit / sizes**data.degree / system.norms[member]
        b = np.where(shares[column] * sharing == 0.0, 0.0, b)
    if not np.isfinite(b).all():
        raise InvalidInputError(
            "samples", "multipliers in the range of float64", "an overflow", "rescale the samples"
        )
    total = np.zeros(len(heads))
    np.add.at(total, owner, shares * columns[:, 1])
    parts = np.where(b == 0.0, 0.0, np.abs(total)[member])
    return MultiplierFit(
        coefficients=b,
        residual=stationarity(data, samples, b),
        redundant=_equations(data) - system.rank,
        unique=system.rank == int(np.count_nonzero(system.norms)),
        contributions=parts,
        groups=groups,
        sensitivities=system.sensitivities()[member],
    )


def _sharing(sizes: FloatArray, column: IntArray, *, tight: bool) -> FloatArray:
    """1 for the samples that share in the part of their column, else 0."""
    if not tight:
        return np.ones(len(sizes))
    shortest = np.full(int(column.max()) + 1, np.inf)
    np.minimum.at(shortest, column, sizes)
    return np.where(sizes <= (1.0 + 1e-6) * shortest[column], 1.0, 0.0)


class _System:
    """Columns grad f(x_k)/norm for unit directions x_k, never formed; right-hand side of norm 1.

    `norms` (h,) of the columns, 0 where no neuron sees the direction; `unit` turns a coefficient
    of a normalised column into one of a unit direction.
    """

    def __init__(self, data: HermiteData, directions: FloatArray) -> None:
        power = data.degree - 1
        length = float(np.linalg.norm(data.points, axis=1).max()) or 1.0
        inner = (data.points / length) @ directions.T
        low = data.scales[:, None] * inner**power
        high = length * inner**data.degree
        gram = (directions @ directions.T) * (low.T @ low) + high.T @ high
        norms = np.sqrt(np.diag(gram))
        # Below this a direction is orthogonal to every neuron up to rounding.
        self.norms = np.where(norms > 1e-12**power * norms.max(), norms, 0.0)
        safe = np.where(self.norms > 0.0, self.norms, np.inf)
        self.directions, self.low, self.high = directions, low / safe, high / safe
        self.gram = gram / np.outer(safe, safe)
        rows, values = target_of(data)
        size = float(np.hypot(np.linalg.norm(rows), np.linalg.norm(values)))
        with np.errstate(over="ignore"):
            self.unit = float(np.float64(size) / np.float64(length) ** power)
        # Only the part of the rows in the span of the directions can be met.
        if directions.shape[0] < directions.shape[1]:
            basis = np.linalg.qr(directions.T)[0]
            rows, directions = rows @ basis, directions @ basis
        self.rows, self.values, self.directions = rows / size, values / size, directions
        self.slope = self.rest(np.zeros(len(norms)))
        self.spectrum = _spectrum(self.gram)
        self.rank = int(np.count_nonzero(self.spectrum[0]))

    def rest(self, shares: FloatArray) -> FloatArray:
        """A^T (g - A shares); the difference is formed first, which keeps weak columns exact."""
        rows = self.rows - (self.low * shares) @ self.directions
        heads: FloatArray = np.sum(self.low * (rows @ self.directions.T), axis=0)
        return heads + self.high.T @ (self.values - self.high @ shares)

    def solve(self, chosen: IntArray) -> FloatArray:
        """Least squares of least norm on the chosen columns, 0 elsewhere, refined."""
        whole = len(chosen) == len(self.norms)
        values, vectors = self.spectrum if whole else _spectrum(self.gram[np.ix_(chosen, chosen)])
        kept = values > 0.0
        values, vectors = values[kept], vectors[:, kept]
        shares, slope = np.zeros(len(self.norms)), self.slope
        error = np.inf
        for _ in range(6):
            trial = shares.copy()
            trial[chosen] += vectors @ ((vectors.T @ slope[chosen]) / values)
            slope = self.rest(trial)
            left = float(np.linalg.norm(vectors.T @ slope[chosen]))
            if left >= error:
                break
            shares, error = trial, left
        return shares

    def sensitivities(self) -> FloatArray:
        """Norms of the rows of the pseudo-inverse, the root of the diagonal of that of the Gram."""
        values, vectors = self.spectrum
        kept = values > 0.0
        return np.asarray(np.sqrt(np.sum(vectors[:, kept] ** 2 / values[kept], axis=1)))

    def root(self) -> tuple[FloatArray, FloatArray]:
        """F and h with F^T F the Gram matrix and F^T h = A^T g."""
        values, vectors = self.spectrum
        kept = values > 0.0
        roots = np.sqrt(values[kept])
        factor = roots[:, None] * vectors[:, kept].T
        return factor, (vectors[:, kept].T @ self.slope) / roots


def _spectrum(gram: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, with 0 for those within rounding of it, and eigenvectors."""
    values, vectors = scipy.linalg.eigh(gram, check_finite=False)
    floor = 1e-14 * max(len(values), 10) * float(values[-1])
    return np.where(values > floor, values, 0.0), vectors


def _non_negative(system: _System, owner: IntArray, signs: FloatArray) -> FloatArray:
    """Shares >= 0 of signed columns: the passive set by NNLS, its values by least squares."""
    factor, target = system.root()
    if factor.size == 0:
        return np.zeros(len(owner))
    signed = factor[:, owner] * signs
    try:
        shares, _ = scipy.optimize.nnls(signed, target, maxiter=max(100, 10 * len(owner)))
    except RuntimeError:  # out of iterations
        shares = scipy.optimize.lsq_linear(signed, target, bounds=(0.0, np.inf)).x
    for _ in range(10):
        passive = np.flatnonzero(shares > 0.0)
        if passive.size == 0 or len(np.unique(owner[passive])) < passive.size:
            break
        refined = system.solve(owner[passive])[owner[passive]] * signs[passive]
        if np.all(refined >= 0.0):
            shares = np.zeros(len(owner))
            shares[passive] = refined
            break
        # Negative only by rounding: such a sample was passive by rounding too.
        if float(refined.min()) < -1e-6 * float(np.abs(refined).max()):
            break
        shares[passive[refined < 0.0]] = 0.0
    return np.asarray(shares, dtype=np.float64)


def _equations(data: HermiteData) -> int:
    """Independent equations: a vector for each distinct live neuron, a number for a_j = 0.

    The output weight's own equation follows from the vector by Euler's identity.
    """
    distinct = distinct_directions(data, max(data.rounding, 1e-13))
    lone = 0 if data.values is None else int(np.count_nonzero(data.scales == 0.0))
    return distinct * int(data.points.shape[1]) + lone
