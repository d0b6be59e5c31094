"""How large a part of the data one more sample could have without being seen.

A further sample x of V adds a multiple of phi(x) = (w_j (u_j.x)^(alpha-1) x)_j to the weighted
data. The recovered samples move and absorb what lies in the range of their Jacobian J; the rest
shows once it exceeds the residual 10 rho that a refined set is allowed. So the share

    s(x) = 10 rho |phi(x)| / |(I - P) phi(x)|,     P the projection to the range of J

of the data stays unseen. It is infinite on the blind set: parallel samples, and for alpha = 3 the
planes of two samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse.linalg

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.decomposition.equations import HermiteEquations, column_scale
from identify.hermite.reduction import ReducedData
from identify.thresholds import HIDDEN_SHARE

DENSE_UNKNOWNS = 600
DENSE_NUMBERS = 12_000_000
_MIXTURES, _OTHERS = 384, 128
_FEW_MIXTURES, _FEW_OTHERS = 16, 8
_FEWEST = 9
_BLIND = 1e-12
_SEED = 5


@dataclass(frozen=True)
class HiddenShare:
    """Medians and 90 % quantiles of s(x), each in (0, 1]: 1 stands for all of the data and more.

    `mixtures` over convex mixtures of all recovered samples, `triples` of three of them (None for
    r <= 3), `anywhere` over uniform directions of V. `method` says how; `exact` is False where
    the numbers are upper estimates. `lone`: r = 1, the mixtures are with any other direction.
    """

    mixtures: tuple[float, float]
    triples: tuple[float, float] | None
    anywhere: tuple[float, float]
    method: str
    exact: bool = True
    lone: bool = False


def hidden_share(
    reduced: ReducedData,
    found: tuple[FloatArray, FloatArray],
    samples: FloatArray,
    noise_level: float,
    *,
    condition_number: float | None = None,
    ties: FloatArray | None = None,
    limit: float = HIDDEN_SHARE,
    budget: Budget = UNLIMITED,
) -> HiddenShare:
    """The share of the data that a further sample of V could have unseen.

    The directions are fixed, so that anybody finds the same numbers: mixtures with the weights
    default_rng(5).dirichlet(ones(r), 384), or 16 at large size, then random ones.

    Args:
        found: the refined terms (r, r) and their signs (r,).
        samples: the recovered samples in V, lifted where there is a bias, (r, r).
        noise_level: rho.
        condition_number: of the weighted Hermite matrix, for the estimate at large size.
        ties: rows (k, r^2) of the derivatives of ties, in units of their widths; where given they
            count as equations, a further sample shifting none of them by itself.
        limit: the size that matters; upper estimates above it are sharpened.
        budget: at whose end nothing more is sharpened.

    Cost: one QR of J, O(E r^4), and O(E r^2) a direction up to 600 unknowns and 1.2e7 entries of J.
    Beyond, s(x) <= 10 rho cond(H) / dist(x^alpha, tangent space), O(r^3) a product.
    """
    terms, signs = found
    r = terms.shape[1]
    level = 10.0 * noise_level
    dense = terms.size <= DENSE_UNKNOWNS and reduced.equations * terms.size <= DENSE_NUMBERS
    many, few = (_MIXTURES, _OTHERS) if dense else (_FEW_MIXTURES, _FEW_OTHERS)
    rng = np.random.default_rng(_SEED)
    groups = [_units(rng.dirichlet(np.ones(r), many) @ samples)]
    groups.append(_units(rng.standard_normal((few, r))))
    if r > 3:
        groups.append(_triples(samples, few, rng))
    probes = np.concatenate(groups)
    if dense:
        seen = _seen_dense(reduced, terms, signs, probes, level, ties)
        method = "Jacobian of the recovered samples"
    else:
        seen = _seen_by_tensor(terms, probes, reduced.degree) / (condition_number or np.inf)
        method = "at most, by the distance of tensors and the condition number"
        if level > limit * float(np.median(seen[:many])) and not budget.expired:
            seen[:many] = _sharpened(reduced, terms, signs, probes[:many], seen[:many], budget)
            method = "at most, by least squares"
    with np.errstate(divide="ignore"):
        shares = np.minimum(level / seen, 1.0)
    parts = np.split(shares, np.cumsum([len(group) for group in groups])[:-1])
    sizes = [(float(np.median(part)), float(np.quantile(part, 0.9))) for part in parts]
    return HiddenShare(sizes[0], sizes[2] if r > 3 else None, sizes[1], method, dense)


def _units(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0.0, norms, 1.0))


def _triples(samples: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Directions of convex mixtures of three of the samples."""
    chosen: npt.NDArray[np.intp] = np.argsort(rng.random((count, len(samples))), axis=1)
    weights = rng.dirichlet(np.ones(3), count)
    return _units(np.einsum("pk,pka->pa", weights, samples[chosen[:, :3]]))


def _rows(reduced: ReducedData, probes: FloatArray) -> FloatArray:
    """phi(x) for each probe, a column of the weighted data each: shape (E, P)."""
    inner = reduced.points @ probes.T
    heights = reduced.weights[:, None] * inner ** (reduced.degree - 1)
    rows = np.einsum("jp,pa->jap", heights, probes).reshape(-1, len(probes))
    values = (reduced.value_points @ probes.T) ** reduced.degree * reduced.value_weights[:, None]
    return np.vstack([rows, values])


def _seen_dense(
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    probes: FloatArray,
    level: float,
    ties: FloatArray | None,
) -> FloatArray:
    """|(I - P) phi| / |phi| by the orthonormal factor of J."""
    system = HermiteEquations(reduced, signs)
    jacobian = system.jacobian(terms)
    if ties is not None:
        # A tie is missed by less than its width where the equations are by less than 10 rho.
        jacobian = np.vstack([jacobian, level * reduced.size * ties])
    basis = np.linalg.qr(jacobian / column_scale(system, terms))[0]
    seen = np.empty(len(probes))
    for start in range(0, len(probes), 64):
        part = slice(start, start + 64)
        rows = _rows(reduced, probes[part])
        extra = np.zeros((len(jacobian) - len(rows), rows.shape[1]))
        size = np.linalg.norm(rows, axis=0)
        rows = np.vstack([rows, extra])
        rest = rows - basis @ (basis.T @ rows)
        seen[part] = np.linalg.norm(rest, axis=0) / np.where(size > 0.0, size, np.inf)
    return np.where(seen > _BLIND, seen, 0.0)


def _seen_by_tensor(terms: FloatArray, probes: FloatArray, degree: int) -> FloatArray:
    """Distance of x^(alpha) to the tangent space of the terms, by conjugate gradients.

    All probes form one block-diagonal system with the Gram matrix of z_i^(alpha-1) e_a.
    """
    units, power = _units(terms), degree - 1
    cosines = units @ units.T
    low = cosines ** (power - 1)
    high = low * cosines
    shape = (len(probes), *units.shape)

    def product(x: FloatArray) -> FloatArray:
        step = x.reshape(shape)
        mixed = (low * (units @ step.transpose(0, 2, 1))) @ units
        return np.asarray((high @ step + power * mixed) / (power + 1.0)).ravel()

    sides = ((probes @ units.T) ** power)[:, :, None] * probes[:, None, :]
    size = int(np.prod(shape))
    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
    found, _ = scipy.sparse.linalg.cg(operator, sides.ravel(), rtol=1e-7, maxiter=300)
    inside = np.einsum("pia,pia->p", found.reshape(shape), sides)
    return np.asarray(np.sqrt(np.maximum(1.0 - inside, 0.0)))


def _sharpened(
    reduced: ReducedData,
    terms: FloatArray,
    signs: FloatArray,
    probes: FloatArray,
    seen: FloatArray,
    budget: Budget,
) -> FloatArray:
    """The same by least squares over the weighted rows, for a few probes that stand for all."""
    system = HermiteEquations(reduced, signs)
    scale = column_scale(system, terms)
    operator = system.operator(terms)
    scaled = scipy.sparse.linalg.LinearOperator(
        operator.shape,
        matvec=lambda y: operator.matvec(y / scale),
        rmatvec=lambda y: operator.rmatvec(y) / scale,
        dtype=np.float64,
    )
    few = []
    for probe in probes[:_FEWEST]:
        rows = _rows(reduced, probe[None])[:, 0]
        found = scipy.sparse.linalg.lsqr(scaled, rows, atol=1e-6, btol=1e-6, iter_lim=200)
        few.append(float(found[3]) / float(np.linalg.norm(rows)))
        if budget.expired:
            return seen
    return np.resize(np.array(few), len(probes))
