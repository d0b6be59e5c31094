"""What confirms recovered samples, and what proves that there are no others."""

from __future__ import annotations

import time
from dataclasses import dataclass

import flint
import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.factor import EPSILON, Factor
from identify.disaggregation.masks import Candidates, Layer
from identify.disaggregation.records import DataStatement, PrintedProof
from identify.disaggregation.relu import Operator

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

PRIMES = (2147483647, 2147483629)
_MODULAR_COLUMNS = 500
_MODULAR_SECONDS = 1.2e-9
_FILL_SECONDS = 4e-7
_PROBES = 40
_LATE = "the time limit passed"
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class Signs:
    """Masks against the signs of W h + beta: entries that contradict, that agree, that are open.

    ``margin`` is the smallest |z_ij| over its error bound, among the entries decided by sign.
    """

    contradicting: int
    agreeing: int
    open: int
    margin: float


def compare_signs(
    layer: Layer,
    candidates: Candidates,
    features: FloatArray,
    noise: FloatArray,
    bounds: FloatArray,
) -> Signs:
    """Compare masks read from the column space with the signs of W h + beta.

    An entry of the masks is read if its room exceeds 5 times its noise ``noise`` (m, n), which is
    in units of the distance of the two values; a sign is read if |z_ij| exceeds its error
    |(w_j, beta_j)| |(h_i, 1)| bound_i.

    Args:
        features: h (n, k).
        bounds: relative error of every h, (n,).
    """
    z = layer.preactivations(features)
    sizes = np.sqrt(np.sum(layer.weight**2, axis=1) + layer.bias**2)
    lengths = np.sqrt(np.sum(features**2, axis=1) + 1.0)
    error = sizes[:, None] * (lengths * (bounds + 8.0 * EPSILON))
    by_mask = candidates.room > 5.0 * noise
    by_sign = np.abs(z) > error
    different = (z > 0.0) != candidates.rounded
    both = by_mask & by_sign
    margin = float((np.abs(z) / np.maximum(error, 1e-300))[by_sign].min()) if by_sign.any() else 0.0
    return Signs(
        int((different & both).sum()),
        int((~different & both).sum()),
        int((~by_mask & ~by_sign).sum()),
        margin,
    )


def entry_noise(layer: Layer, factor: Factor, masks: BoolArray, p: FloatArray) -> FloatArray:
    """Noise of y_ji = (U z_i)_j over the distance |A_j . p_i| (1 - s) of its two values, (m, n)."""
    delta = layer.cotangents(masks, p)
    z = factor.columns.T @ delta
    carried = factor.noise * np.linalg.norm(z / factor.values[:, None], axis=0)
    apart = np.abs(layer.amplitudes @ p.T) * (1.0 - layer.leak)
    result: FloatArray = carried / np.maximum(apart, 1e-300)
    return result


def power(layer: Layer, factor: Factor, features: FloatArray, *, seed: int = 0) -> int:
    """R: equations beyond the unknowns of one sample, by rank and not by counting rows.

    The rank of (I - U U^T) [delta(h_k, p_k)] over random h_k of the affine row space and random
    p_k, above the noise, minus r - 1 and q - 1; at most 40, where it is cut. For r = 1 the h_k are
    drawn with the norm of h, since the affine row space is a point.

    Cost: m K^2, K the unknowns plus 40.
    """
    rng = np.random.default_rng(seed)
    r, q = factor.rank, int(layer.amplitudes.shape[1])
    unknowns = r - 1 + q - 1
    count = min(len(layer.weight), unknowns + _PROBES)
    weights = rng.normal(size=(count, r)) / np.sqrt(r)
    weights += (1.0 - weights.sum(axis=1, keepdims=True)) / r
    points = weights @ features
    if r == 1:
        # The row space is one point; what else would be seen is asked of points like it.
        points = rng.normal(size=points.shape) * np.linalg.norm(features) / features.shape[1] ** 0.5
    masks = layer.preactivations(points) > 0.0
    delta = layer.cotangents(masks, rng.normal(size=(count, q)))
    delta = delta / np.maximum(np.linalg.norm(delta, axis=0), 1e-300)
    outside = delta - factor.columns @ (factor.columns.T @ delta)
    values = np.linalg.svd(outside, compute_uv=False)
    level = max(1e-9, 30.0 * factor.error / float(factor.values[-1]))
    return int((values > level).sum()) - unknowns


def data_statement(
    operator: Operator, factor: Factor, plain: float, noise: FloatArray
) -> DataStatement:
    """eta < sigma: every gradient within the error has at most one explaining set of r samples.

    eta = tau root(2 r) max_j w_j root((2 |u_j| + root 2 tau)^2 + (1 + s)^2 |A_j|^2), with
    tau = e / (s_r - e), e the error of the gradient and w_j the weight of row j.
    """
    error = factor.error
    room = float(factor.values[-1]) - error
    tau = error / room if room > 0.0 else np.inf
    u = np.linalg.norm(operator.basis, axis=1)
    a = (1.0 + operator.leak) * np.linalg.norm(operator.amplitudes, axis=1)
    with np.errstate(invalid="ignore"):
        rows = operator.weights * np.sqrt((2.0 * u + np.sqrt(2.0) * tau) ** 2 + a**2)
    eta = float(tau * np.sqrt(2.0 * factor.rank) * rows.max()) if np.isfinite(tau) else np.inf
    return DataStatement(eta < plain, error, eta, plain, int((noise * 5.0 > 0.5).sum()))


def prove_printed(
    amplitudes: FloatArray,
    p: FloatArray,
    masks: BoolArray,
    leak: float,
    *,
    zero_sum: bool = False,
    budget: Budget = UNLIMITED,
) -> PrintedProof:
    """Prove that Delta H as printed has no second explanation by at most r samples.

    With x_ji = (A_j . p_i) s_ji the matrix of the columns x_ji x_jk (i < k), x_ji A_jc and, for a
    leaky ReLU, A_jc A_jd (c <= d) has to have full column rank. One output: the columns are
    divided by a_j^2, so that they depend on the masks alone. The numbers are those printed, exact
    dyadic fractions; full rank modulo a prime is full rank. With one output and a ReLU the matrix
    is 0/1 and a Cholesky decomposition of its exact Gram matrix, less a bound for its rounding,
    proves the same at size.

    Args:
        amplitudes: A (m, C).
        p: (n, C).
        masks: (m, n).
        leak: s.
        zero_sum: the admissible p have sum 0, so that A_j . p = sum_(c < C) p_c (A_jc - A_jC);
            then q = C - 1 and the differences are taken modulo the prime, without rounding.
        budget: whose time is held against an estimate.

    Source: the theorem of the module; Rump (2006), "Verification of positive definiteness", for
        the Cholesky decomposition.
    """
    n, q = len(p), p.shape[1] - int(zero_sum)
    single = p.shape[1] == 1
    required = n * (n - 1) // 2 + n * q + (q * (q + 1) // 2 if leak else 0)
    live = np.abs(amplitudes).max(axis=1) > 0.0
    masks, amplitudes = masks[live], amplitudes[live]
    if len(masks) < required:
        return PrintedProof(False, len(masks), required, None, "fewer rows than columns")
    if single and leak == 0.0 and required > _MODULAR_COLUMNS:
        return _prove_by_cholesky(masks, required, budget)
    seconds = len(masks) * required * (_FILL_SECONDS + _MODULAR_SECONDS * required)
    if not budget.allows(seconds):
        method = f"a rank modulo a prime takes about {seconds:.0f} s, more than the time left"
        return PrintedProof(None, 0, required, None, method)
    best = 0
    for turn, prime in enumerate(PRIMES):
        budget.tell("rank modulo a prime", turn / len(PRIMES))
        if single:
            x = np.where(masks, 1, int(_modulo(np.array([leak]), prime)[0]))
            a = np.ones((len(masks), 1), dtype=np.int64)
        else:
            a = _modulo(amplitudes, prime)
            if zero_sum:
                a = (a[:, :-1] - a[:, -1:]) % prime
            x = _product(a, _modulo(p[:, :q], prime).T, prime)
            x = x * np.where(masks, 1, int(_modulo(np.array([leak]), prime)[0])) % prime
        matrix = _columns(x, a, leak != 0.0, prime)
        best = max(best, _rank(matrix, prime))
        if best == required:
            return PrintedProof(True, best, required, prime, "rank modulo a prime")
    return PrintedProof(False, best, required, None, "rank modulo two primes")


def _prove_by_cholesky(masks: BoolArray, required: int, budget: Budget) -> PrintedProof:
    method = "Cholesky decomposition of the exact Gram matrix with a bound for its rounding"
    x = masks.astype(np.float64)
    n = x.shape[1]
    gram = np.zeros((required, required), order="F")
    step = max(1, _CHUNK // required)
    began = time.monotonic()
    for start in range(0, len(x), step):
        budget.tell("proof", 0.8 * start / len(x))
        if budget.expired:
            return PrintedProof(None, 0, required, None, f"{method}: {_LATE}")
        part = x[start : start + step]
        blocks = [part] + [part[:, i : i + 1] * part[:, i + 1 :] for i in range(n - 1)]
        # Entries are counts of rows, so the float64 product is exact.
        gram = blas.dsyrk(1.0, np.hstack(blocks).T, beta=1.0, c=gram, lower=1, overwrite_c=1)
    # dpotrf does a third of the multiplications a row of the Gram matrix, and cannot be stopped.
    seconds = (time.monotonic() - began) * required / (3.0 * len(x))
    budget.tell("proof", 0.8)
    if not budget.allows(seconds):
        method = f"{method} takes about {seconds:.0f} s more, which are not left"
        return PrintedProof(None, 0, required, None, method)
    rounding = (required + 2) * EPSILON / (1.0 - (required + 2) * EPSILON)
    gram[np.diag_indices(required)] -= 2.0 * rounding * float(np.trace(gram)) + 1e-9
    if lapack.dpotrf(gram, lower=1, clean=0, overwrite_a=1)[1]:
        return PrintedProof(None, 0, required, None, method)
    return PrintedProof(True, required, required, None, method)


def _modulo(values: FloatArray, prime: int) -> IntArray:
    """Residues of float64 numbers, which are integers times powers of 2."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64) % prime
    powers = {int(e): pow(2, int(e) - 53, prime) for e in np.unique(exponent)}
    factors = np.array([powers[int(e)] for e in exponent.ravel()], dtype=np.int64)
    result: IntArray = whole * factors.reshape(values.shape) % prime
    return result


def _product(left: IntArray, right: IntArray, prime: int) -> IntArray:
    total = np.zeros((left.shape[0], right.shape[1]), dtype=np.int64)
    for c in range(left.shape[1]):
        total = (total + left[:, c : c + 1] * right[c] % prime) % prime
    return total


def _columns(x: IntArray, a: IntArray, leaky: bool, prime: int) -> IntArray:
    n, q = x.shape[1], a.shape[1]
    parts = [x[:, i : i + 1] * x[:, i + 1 :] % prime for i in range(n - 1)]
    parts += [x * a[:, c : c + 1] % prime for c in range(q)]
    if leaky:
        parts += [a[:, c : c + 1] * a[:, c:] % prime for c in range(q)]
    return np.hstack(parts)


def _rank(matrix: IntArray, prime: int) -> int:
    rows, columns = matrix.shape
    most = min(rows, columns + 50)
    for count in dict.fromkeys((most, rows)):
        entries = [int(value) for value in matrix[:count].ravel()]
        rank = int(flint.nmod_mat(count, columns, entries, prime).rank())
        if rank == columns:
            break
    return rank
