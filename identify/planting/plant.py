"""Exact stationary and KKT networks built from given samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from identify.arrays import FloatArray
from identify.budget import Budget
from identify.errors import BudgetExceededError, InvalidInputError, KktCertError
from identify.model.two_layer import TwoLayerNetwork
from identify.numerical_rank import decide_rank
from identify.planting.eigenvectors import EigenSystem, distinct
from identify.planting.margins import balance
from identify.planting.problem import TRIES, PlantingProblem
from identify.progress import logged
from identify.tensors import hermite_matrix

_LOG = logging.getLogger(__name__)

TOLERANCE = 1e-12
"""Largest relative residual of any equation of a planted network."""
_STEEP = (0.1, 0.4)
"""Smallest gaps of the neurons that start on the way to unit margins, one after the other."""
_RANK_THRESHOLD = 1e-8
"""Singular values of H above this count, so that float64 recovers the samples with ease."""
_WELL_CONDITIONED = 1e3
_MARGIN_TRIES_OF_AUTO = 8
_FURTHER = 3
"""Tries after the first determined network that is not well conditioned."""
DENSE_LIMIT = 30_000_000


class PlantingError(KktCertError):
    """No network of the wanted kind was found for these samples; the message says what to try.

    Example:
        >>> str(PlantingError("no network found", tries=24))
        'no network found'
    """


@dataclass(frozen=True, eq=False)
class PlantedNetwork:
    """A network that is exactly stationary for known samples, with everything that is true of it.

    theta = sum_i b_i grad f(x_i) with b_i = multipliers_i labels_i. `samples` (n, d), `labels`
    (n,) in {-1, +1}, `multipliers` (n,) > 0, `margins` (n,) y_i f(x_i). For `kind` "margin" all
    margins are 1: theta is a KKT point of min |theta|^2/2 subject to y_i f(x_i) >= 1. For
    "regression" it is a stationary point of sum_i (f(x_i) - targets_i)^2 / (2 n)
    + decay |theta|^2 / 2; `targets` and `decay` are None for "margin".

    `stationarity` is the largest relative residual of a neuron, measured through
    `TwoLayerNetwork.gradient` in the space of the samples. `rank` is the rank of the Hermite
    equations on the span of the samples (None if too large to compute), `required` the dimension
    N of the symmetric tensors there; `determined` says that they agree and that `redundant` =
    rank - n^2 is at least 1. `condition_number` is that of the Hermite matrix at unit points,
    `tries` the number of coefficient vectors tried.
    """

    network: TwoLayerNetwork
    samples: FloatArray
    labels: FloatArray
    multipliers: FloatArray
    margins: FloatArray
    targets: FloatArray | None
    decay: float | None
    loss: str | None
    kind: str
    stationarity: float
    determined: bool | None
    rank: int | None
    required: int
    condition_number: float | None
    tries: int
    seed: int

    @property
    def coefficients(self) -> FloatArray:
        """b_i, shape (n,)."""
        return self.multipliers * self.labels

    @property
    def redundant(self) -> int | None:
        """Hermite equations left over once the samples are fitted, rank - n^2."""
        return None if self.rank is None else self.rank - len(self.samples) ** 2

    def truth(self) -> Mapping[str, FloatArray]:
        """The arrays of the truth file: samples, labels, multipliers, margins, and any targets."""
        arrays = {
            "samples": self.samples,
            "labels": self.labels,
            "multipliers": self.multipliers,
            "margins": self.margins,
        }
        return arrays if self.targets is None else {**arrays, "targets": self.targets}


def plant_network(
    samples: npt.ArrayLike,
    *,
    degree: int = 3,
    labels: npt.ArrayLike | None = None,
    stationary: str = "auto",
    determined: bool = False,
    decay: float = 1e-2,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> PlantedNetwork:
    """Build a two-layer network that is exactly stationary for the given samples.

    Every neuron sits on a real eigenvector v of T = sum_i b_i x_i^(alpha), at the length where
    a = sum_i b_i (w . x_i)^alpha and w = alpha a sum_i b_i (w . x_i)^(alpha-1) x_i hold:
    |a|^(alpha-1) = 1 / (alpha^(alpha/2) |T(v^alpha)|), |w|^2 = alpha a^2. "regression" takes any
    b, "margin" moves b until all margins are 1. Unless labels are given their signs are chosen so
    that the samples y_i x_i are as negatively correlated as possible, which gives the most
    eigenvectors; for even degree all labels are 1. Both coefficients and the labels left free
    vary from try to try.

    Args:
        samples: linearly independent, shape (n, d).
        degree: alpha >= 3.
        labels: y_i in {-1, +1}, shape (n,); chosen unless given.
        stationary: "margin", "regression", or "auto": margin if that succeeds, else regression.
        determined: accept only a network whose Hermite equations determine T with equations to
            spare; of several the best conditioned is kept.
        decay: weight decay mu > 0 that the targets of "regression" refer to.
        seed: of the eigenvector search and of the tries.
        time_limit: in seconds.
        progress: called with a stage and the fraction of the tries used.

    Returns:
        A PlantedNetwork; its residuals were measured to be at most 1e-12 relative. Scale: margins
        1, or outputs f(x_i) of root mean square 1.

    Raises:
        InvalidInputError: dependent samples, labels other than -1 and 1, degree below 3.
        PlantingError: no such network found.
        BudgetExceededError: out of time; `partial` holds a network that is not determined, if any.

    Cost: one eigenvector search of 400 n starts a try; with `determined` one singular value
    decomposition of the Hermite matrix (k n x N) for each network found.

    Source: the KKT conditions of Lyu & Li (2020), "Gradient descent maximizes the margin of
    homogeneous neural networks"; eigenvectors of tensors, Cartwright & Sturmfels (2013), "The
    number of eigenvalues of a tensor". Neurons as scaled eigenvectors: this project.

    Example:
        >>> planted = plant_network(np.eye(3), determined=True)
        >>> planted.kind, planted.network, planted.rank, planted.required
        ('margin', TwoLayerNetwork(width=7, dimension=3, outputs=1, degree=3), 10, 10)
        >>> planted.margins.round(12)
        array([1., 1., 1.])
    """
    problem = PlantingProblem.from_input(samples, degree, labels, decay)
    if stationary not in ("auto", "margin", "regression"):
        raise InvalidInputError("stationary", "auto, margin or regression", repr(stationary))
    whole = Budget.of(time_limit, logged(progress, _LOG))
    count = problem.count
    if determined and problem.required <= count**2:
        raise PlantingError(
            f"{count} samples at degree {degree} leave no redundant equation "
            f"(N - n^2 = {problem.required - count**2}): no network of them counts as determined; "
            "use more samples or a higher degree",
            required=problem.required,
        )
    if determined and problem.required**2 > DENSE_LIMIT:
        raise PlantingError(
            f"N = {problem.required} is too large to check that the network is determined; "
            "use fewer samples or leave out determined",
            required=problem.required,
        )
    late = False
    best: PlantedNetwork | None = None
    for kind in ("margin", "regression") if stationary == "auto" else (stationary,):
        first = stationary == "auto" and kind == "margin"
        limit = _MARGIN_TRIES_OF_AUTO if first else TRIES
        share = 0.5 if first else 1.0
        budget = whole.part(share)
        found_at = limit
        for tries, (b, search_seed) in enumerate(problem.choices(seed), start=1):
            late = budget.expired
            if late or tries > min(limit, found_at + _FURTHER):
                break
            budget.tell(f"planting ({kind})", tries / limit)
            network = _attempt(
                problem,
                kind,
                b,
                determined=determined,
                tries=tries,
                search_seed=search_seed,
                seed=seed,
                budget=budget,
            )
            if network is None:
                continue
            if not determined:
                return network
            best = _better(best, network)
            if best.determined:
                found_at = min(found_at, tries)
                if (best.condition_number or 0.0) < _WELL_CONDITIONED:
                    return best
        if best is not None and best.determined:
            return best
    if late:
        raise BudgetExceededError(
            f"no network found within the time limit of {time_limit} s; allow more time, or use "
            "fewer samples",
            partial=best,
        )
    raise PlantingError(
        f"no {'determined ' if determined else ''}network found for {count} samples at degree "
        f"{degree} ({stationary}); try {_advice(stationary, labels is not None)}",
        stationary=stationary,
        determined=determined,
        best=best,
    )


def _attempt(
    problem: PlantingProblem,
    kind: str,
    b: FloatArray,
    *,
    determined: bool,
    tries: int,
    search_seed: int,
    seed: int,
    budget: Budget,
) -> PlantedNetwork | None:
    """One network for the coefficients b of the unit samples, if it holds to the tolerance."""
    # H stays small enough to be decomposed; m r >= N is necessary.
    most = DENSE_LIMIT // (problem.count * problem.required) if determined else None
    fewest = -(-problem.required // problem.count) if determined else 1
    system = problem.eigenvectors(b, search_seed, most)
    if kind == "regression":
        enough = len(system.values) >= fewest
        return _checked(problem, kind, b, system, tries, seed) if enough else None
    gaps = system.gaps
    for steep in _STEEP:
        chosen = system.vectors[gaps > steep]
        if len(chosen) < fewest:
            break
        result = balance(
            problem.coordinates,
            np.sign(b),
            b,
            problem.degree,
            chosen,
            problem.unit_targets,
            fewest=fewest,
            budget=budget,
        )
        if result is None:
            continue
        network = _checked(problem, kind, result.coefficients, result.system, tries, seed)
        if network is not None and (network.determined or not determined):
            return network
    return None


def _checked(
    problem: PlantingProblem,
    kind: str,
    b: FloatArray,
    system: EigenSystem,
    tries: int,
    seed: int,
) -> PlantedNetwork | None:
    """Weights in the space of the samples, accepted by an evaluation there."""
    x, degree, labels = problem.samples, problem.degree, np.sign(b)
    if not len(system.values) or len(distinct(system.vectors)) < len(system.values):
        return None
    size = (degree ** (degree / 2) * np.abs(system.values)) ** (-1.0 / (degree - 1))
    hidden = (np.sqrt(degree) * size[:, None] * system.vectors) @ problem.basis.T
    output = size * np.sign(system.values)
    values = TwoLayerNetwork(hidden, output, degree).value(x)
    margin = kind == "margin"
    height = float(np.mean(labels * values) if margin else np.sqrt(np.mean(values**2)))
    if not height > 0:
        return None
    scale = height ** (-1.0 / (degree + 1))
    network = TwoLayerNetwork(scale * hidden, scale * output, degree)
    multipliers = np.abs(b) * problem.norms ** (-float(degree)) * scale ** (1 - degree)
    values = network.value(x)
    stationarity = neuron_residual(network, x, labels * multipliers)
    if not stationarity <= TOLERANCE:
        return None
    if margin and not np.max(np.abs(labels * values - 1.0)) <= TOLERANCE:
        return None
    rank, condition = _hermite_rank(system.vectors, degree, problem.required)
    spare = rank is not None and rank - len(x) ** 2 >= 1
    return PlantedNetwork(
        network=network,
        samples=x,
        labels=labels,
        multipliers=multipliers,
        margins=labels * values,
        targets=None if margin else values + len(x) * problem.decay * labels * multipliers,
        decay=None if margin else problem.decay,
        loss=None if margin else "squared",
        kind=kind,
        stationarity=stationarity,
        determined=None if rank is None else rank == problem.required and spare,
        rank=rank,
        required=problem.required,
        condition_number=condition,
        tries=tries,
        seed=seed,
    )


def _hermite_rank(
    points: FloatArray, degree: int, required: int
) -> tuple[int | None, float | None]:
    """Rank of H at unit points (k, n) of the span, and its condition number if it is N."""
    if points.size * required > DENSE_LIMIT:
        return None, None
    matrix = hermite_matrix(points, degree)
    if len(matrix) > 1.5 * required:
        (triangle,) = scipy.linalg.qr(matrix, mode="r", check_finite=False)
        matrix = np.asarray(triangle[:required], dtype=np.float64)
    sigma = scipy.linalg.svdvals(matrix, check_finite=False)
    rank = decide_rank(sigma, _RANK_THRESHOLD).rank
    return rank, float(sigma[0] / sigma[-1]) if rank == required else None


def neuron_residual(
    network: TwoLayerNetwork, samples: FloatArray, coefficients: FloatArray
) -> float:
    """Largest over the neurons of |theta_j - sum_i b_i grad_j f(x_i)| / |theta_j|.

    It bounds the relative residual of the whole of theta.
    """
    gradient = network.gradient(samples, coefficients)
    hidden = np.linalg.norm(network.hidden_weight - gradient.hidden_weight, axis=1)
    defect = np.hypot(hidden, network.output_weight - gradient.output_weight)
    size = np.hypot(np.linalg.norm(network.hidden_weight, axis=1), network.output_weight)
    return float(np.max(defect / size))


def _better(first: PlantedNetwork | None, second: PlantedNetwork) -> PlantedNetwork:
    """Determined before not, then the smaller condition number, then the larger rank."""

    def order(network: PlantedNetwork) -> tuple[bool, float, int]:
        condition = network.condition_number
        worst = np.inf if condition is None else condition
        return (not network.determined, worst, -(network.rank or 0))

    return second if first is None or order(second) < order(first) else first


def _advice(stationary: str, labelled: bool) -> str:
    advice = ["another seed", "fewer or less correlated samples"]
    if labelled:
        advice.insert(0, "leaving the labels out")
    if stationary == "margin":
        advice.insert(0, "regression")
    return ", ".join(advice[:-1]) + " or " + advice[-1]
