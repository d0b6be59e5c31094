"""Families of networks whose answer is known: not determined, seemingly determined, determined.

Every member is a `Case`: Hermite data as a user would hand them in, the true active set, and the
assumptions that are made. `judging` says when a verdict on one is false.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize

from identify import HermiteData, TwoLayerNetwork
from identify.planting.eigenvectors import real_eigenvectors
from identify.tensors import symmetric_dimension

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Case:
    """Data, the true samples (n, d) and coefficients (n,), None where there are none."""

    family: str
    data: HermiteData
    samples: FloatArray | None
    coefficients: FloatArray | None
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows of norm 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def gradient_case(
    family: str,
    hidden: FloatArray,
    output: FloatArray,
    samples: FloatArray,
    coefficients: FloatArray,
    degree: int,
    *,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    options: dict[str, Any] | None = None,
) -> Case:
    """One gradient with given dloss/df, and relative Gaussian noise on it."""
    network = TwoLayerNetwork(hidden, output, degree=degree)
    gradient = network.gradient(samples, coefficients)
    if noise > 0.0 and rng is not None:
        rows, values = gradient.hidden_weight, gradient.output_weight
        sigma = noise * float(
            np.sqrt((np.sum(rows**2) + np.sum(values**2)) / (rows.size + len(values)))
        )
        gradient = TwoLayerNetwork(
            rows + sigma * rng.standard_normal(rows.shape),
            values + sigma * rng.standard_normal(values.shape),
            degree=degree,
        )
    data = HermiteData.from_gradient(network, gradient)
    return Case(family, data, samples, coefficients, options or {})


def stationary_network(
    samples: FloatArray, coefficients: FloatArray, degree: int, seed: int
) -> TwoLayerNetwork | None:
    """The exact stationary network of all real eigenvectors that a few starts find."""
    points, values = real_eigenvectors(samples, coefficients, degree, starts=150, seed=seed)
    keep = np.abs(values) > 1e-8 * np.abs(values).max(initial=0.0)
    points, values = points[keep], values[keep]
    if len(points) == 0:
        return None
    heights = np.abs(degree ** (degree / 2) * values) ** (-1.0 / (degree - 1)) * np.sign(values)
    return TwoLayerNetwork(
        points * (np.sqrt(degree) * np.abs(heights))[:, None], heights, degree=degree
    )


def _shape(rng: np.random.Generator, low: int = 3, high: int = 6) -> tuple[int, int]:
    n = int(rng.integers(low, high + 1))
    return n, n + int(rng.integers(0, 5))


def _columns(degree: int, r: int) -> int:
    return symmetric_dimension(degree, r)


def _enough(degree: int, r: int, share: float = 1.3) -> int:
    return max(int(np.ceil(share * _columns(degree, r) / r)), r + 1)


def few_neurons(rng: np.random.Generator) -> Case:
    """m r < N."""
    degree = int(rng.integers(3, 6))
    n, d = _shape(rng)
    m = int(rng.integers(1, max(2, _columns(degree, n) // n)))
    return gradient_case(
        "few neurons",
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        rng.normal(size=(n, d)),
        rng.normal(size=n),
        degree,
    )


def repeated_neurons(rng: np.random.Generator) -> Case:
    """Many neurons, few directions."""
    degree = int(rng.integers(3, 5))
    n, d = _shape(rng)
    distinct = int(rng.integers(1, max(2, _columns(degree, n) // n)))
    base = rng.normal(size=(distinct, d))
    m = _enough(degree, n) + 10
    hidden = base[rng.integers(0, distinct, m)] * rng.normal(size=m)[:, None]
    return gradient_case(
        "repeated neurons",
        hidden,
        rng.normal(size=m),
        rng.normal(size=(n, d)),
        rng.normal(size=n),
        degree,
    )


def alexander_hirschowitz(rng: np.random.Generator) -> Case:
    """The four exceptional positions, where rank H is one less than counted."""
    degree, r, m = [(4, 3, 5), (4, 4, 9), (4, 5, 14), (3, 5, 7)][int(rng.integers(4))]
    d = r + int(rng.integers(0, 3))
    return gradient_case(
        "Alexander-Hirschowitz",
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        rng.normal(size=(r, d)),
        rng.normal(size=r),
        degree,
    )


def large_batch(rng: np.random.Generator) -> Case:
    """Batch at least as large as the width."""
    degree = int(rng.integers(3, 5))
    m = int(rng.integers(1, 6))
    n = m + int(rng.integers(0, 4))
    d = n + int(rng.integers(0, 4))
    return gradient_case(
        "large batch",
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        rng.normal(size=(n, d)),
        rng.normal(size=n),
        degree,
    )


def more_samples_than_dimensions(rng: np.random.Generator) -> Case:
    """n > d."""
    degree = int(rng.integers(3, 5))
    d = int(rng.integers(2, 6))
    n = d + int(rng.integers(1, 5))
    m = _enough(degree, d) + 3
    return gradient_case(
        "n > d",
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        rng.normal(size=(n, d)),
        rng.normal(size=n),
        degree,
    )


def coplanar(rng: np.random.Generator) -> Case:
    """Three coplanar samples at degree 3, the true number given."""
    n, d = _shape(rng, 3, 6)
    samples = rng.normal(size=(n, d))
    samples[2] = samples[:2].T @ rng.normal(size=2)
    m = _enough(3, n) + 3
    options = {"samples": n} if rng.random() < 0.7 else {}
    return gradient_case(
        "coplanar",
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        samples,
        rng.normal(size=n),
        3,
        options=options,
    )


def mixup(rng: np.random.Generator) -> Case:
    """Images, and convex mixtures of pairs of them, at degree 3."""
    n, d = _shape(rng, 3, 6)
    samples = np.abs(rng.normal(size=(n, d)))
    share = rng.uniform(0.2, 0.8, size=(n - 1, 1))
    mixed = share * samples[:-1] + (1 - share) * samples[1:]
    samples = np.vstack([samples, mixed[: int(rng.integers(1, n))]])
    m = _enough(3, n) + 3
    options = {"samples": len(samples)} if rng.random() < 0.5 else {}
    return gradient_case(
        "mixup",
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        samples,
        rng.normal(size=len(samples)),
        3,
        options=options,
    )


def parallel(rng: np.random.Generator) -> Case:
    """Parallel, opposite and cancelling samples."""
    degree = int(rng.integers(3, 5))
    n, d = _shape(rng, 2, 5)
    samples, b = rng.normal(size=(n, d)), rng.normal(size=n)
    factor = float(rng.choice([1.0, 2.0, -1.0, -0.5]))
    twin = samples[:1] * factor
    cancel = rng.random() < 0.5
    height = -b[0] / factor**degree if cancel else rng.normal()
    samples, b = np.vstack([samples, twin]), np.append(b, height)
    m = _enough(degree, n) + 3
    return gradient_case(
        "parallel", rng.normal(size=(m, d)), rng.normal(size=m), samples, b, degree
    )


def inactive(rng: np.random.Generator) -> Case:
    """Samples with b = 0 or far below the noise."""
    degree = int(rng.integers(3, 5))
    n, d = _shape(rng, 3, 6)
    b = rng.normal(size=n)
    b[: int(rng.integers(1, n))] *= 0.0 if rng.random() < 0.5 else 1e-15
    m = _enough(degree, n)
    return gradient_case(
        "inactive", rng.normal(size=(m, d)), rng.normal(size=m), rng.normal(size=(n, d)), b, degree
    )


def decades(rng: np.random.Generator) -> Case:
    """Coefficients over many decades, with noise."""
    degree = int(rng.integers(3, 5))
    n, d = _shape(rng, 3, 6)
    b = rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-14, 0, n)
    m = _enough(degree, n) + 2
    noise = float(10.0 ** rng.uniform(-15, -6))
    return gradient_case(
        "decades",
        rng.normal(size=(m, d)),
        rng.normal(size=m),
        rng.normal(size=(n, d)),
        b,
        degree,
        noise=noise,
        rng=rng,
    )


def low_rank_layer(rng: np.random.Generator) -> Case:
    """First layers of rank below n: points confined to a subspace."""
    degree = int(rng.integers(3, 5))
    n, d = _shape(rng, 3, 6)
    rank = int(rng.integers(1, n))
    m = _enough(degree, n) + 5
    hidden = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, d))
    return gradient_case(
        "low-rank layer",
        hidden,
        rng.normal(size=m),
        rng.normal(size=(n, d)),
        rng.normal(size=n),
        degree,
    )


def trained_layer(rng: np.random.Generator) -> Case:
    """Gradients at weights that have moved along a few directions of the data."""
    degree = 3
    n, d = _shape(rng, 3, 6)
    samples = rng.normal(size=(n, d))
    m = _enough(degree, n) + 5
    centres = rng.normal(size=(int(rng.integers(1, 4)), d))
    spread = 10.0 ** rng.uniform(-14, -3)
    hidden = centres[rng.integers(0, len(centres), m)] + spread * rng.normal(size=(m, d))
    return gradient_case(
        "trained layer", hidden, rng.normal(size=m), samples, rng.normal(size=n), degree
    )


def untrained_kkt(rng: np.random.Generator) -> Case:
    """Random weights handed in as a KKT point or a stationary point."""
    degree = int(rng.integers(3, 5))
    m, d = int(rng.integers(1, 40)), int(rng.integers(1, 8))
    hidden, output = rng.normal(size=(m, d)), rng.normal(size=m)
    if rng.random() < 0.5:  # balanced by force: only the tensor equations are violated
        output = np.sign(output) * np.linalg.norm(hidden, axis=1) / np.sqrt(degree)
    network = TwoLayerNetwork(hidden, output, degree=degree)
    source = HermiteData.from_kkt if rng.random() < 0.5 else HermiteData.from_weight_decay
    return Case("untrained as KKT", source(network), None, None)


def collapsed(rng: np.random.Generator) -> Case:
    """Trained cubic networks: stationary with as many live neurons as dimensions, few of them."""
    n, d = int(rng.integers(3, 8)), int(rng.integers(3, 9))
    samples = unit_rows(rng.normal(size=(n, d)))
    targets = rng.choice([-1.0, 1.0], n)
    decay = 10.0 ** rng.uniform(-2.5, -1.5)
    network = train_stationary(samples, targets, 3, decay, int(rng.integers(4, 9)), rng)
    if network is None:
        return untrained_kkt(rng)
    b = (targets - network.value(samples)) / n
    return Case("trained", HermiteData.from_weight_decay(network), samples, b)


def train_stationary(
    samples: FloatArray,
    targets: FloatArray,
    degree: int,
    decay: float,
    width: int,
    rng: np.random.Generator,
) -> TwoLayerNetwork | None:
    """Squared loss and decay, to stationarity by least squares on the gradient; None if dead."""
    n, d = samples.shape

    def unpack(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        return theta[:width], theta[width:].reshape(width, d)

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        a, hidden = unpack(theta)
        s = samples @ hidden.T
        error = s**degree @ a - targets
        value = 0.5 * float(error @ error) / n + 0.5 * decay * float(theta @ theta)
        ga = error @ s**degree / n
        gw = degree * ((error[:, None] * s ** (degree - 1)).T @ samples) * a[:, None] / n
        return value, np.concatenate([ga, gw.ravel()]) + decay * theta

    start = 0.7 * rng.normal(size=width * (d + 1))
    theta = scipy.optimize.minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 3000, "ftol": 1e-16, "gtol": 1e-12},
    ).x
    a, hidden = unpack(theta)
    live = np.abs(a) * np.linalg.norm(hidden, axis=1) ** degree > 1e-6
    if not np.any(live):
        return None
    width = int(np.count_nonzero(live))
    theta = np.concatenate([a[live], hidden[live].ravel()])
    found = scipy.optimize.root(lambda t: loss(t)[1], theta, method="lm", options={"xtol": 1e-15})
    a, hidden = unpack(found.x)
    if np.any(np.abs(a) * np.linalg.norm(hidden, axis=1) ** degree < 1e-6):
        return None
    return TwoLayerNetwork(hidden, a, degree=degree)


def planted_few(rng: np.random.Generator) -> Case:
    """Stationary networks with a few of the eigenvectors only."""
    n, d = _shape(rng, 3, 5)
    samples, b = unit_rows(rng.normal(size=(n, d))), rng.choice([-1.0, 1.0], n)
    network = stationary_network(samples, b, 3, int(rng.integers(1 << 30)))
    if network is None:
        return untrained_kkt(rng)
    keep = rng.permutation(network.width)[: int(rng.integers(1, n + 2))]
    network = TwoLayerNetwork(network.hidden_weight[keep], network.output_weight[keep], degree=3)
    source = HermiteData.from_kkt if rng.random() < 0.5 else HermiteData.from_weight_decay
    return Case("few eigenvectors", source(network), samples, b)


UNDETERMINED: tuple[Callable[[np.random.Generator], Case], ...] = (
    few_neurons,
    repeated_neurons,
    alexander_hirschowitz,
    large_batch,
    more_samples_than_dimensions,
    coplanar,
    mixup,
    parallel,
    inactive,
    decades,
    low_rank_layer,
    trained_layer,
    untrained_kkt,
    collapsed,
    planted_few,
)


def undetermined(seed: int) -> Case:
    """Case number `seed`: the families in turn."""
    rng = np.random.default_rng([seed, 2])
    return UNDETERMINED[seed % len(UNDETERMINED)](rng)


def determined(seed: int) -> Case:
    """m r >= 1.3 N, degrees 3-5, r 3-12, condition of J up to 1e6, residual up to 1e-10."""
    rng = np.random.default_rng([seed, 3])
    degree = int(rng.integers(3, 6))
    r = int(rng.integers(3, 13))
    d = r + int(rng.integers(0, 12))
    m = _enough(degree, r)
    base = unit_rows(rng.normal(size=(r, d)))
    b = rng.choice([-1.0, 1.0], r) * 10.0 ** rng.uniform(-1, 0, r)
    # Correlated samples and uneven neurons drive the condition up.
    mix = 10.0 ** rng.uniform(-2, 0)
    sizes = 10.0 ** rng.uniform(-1, 0, m) if rng.random() < 0.3 else np.ones(m)
    noise = float(10.0 ** rng.uniform(-16, -10))
    hidden, output = rng.normal(size=(m, d)) * sizes[:, None], rng.normal(size=m)
    while True:
        samples = unit_rows(mix * base + (1 - mix) * base[0])
        condition = _condition(samples, b, degree, hidden, output)
        if condition <= 1e6:
            break
        mix = min(1.0, 1.5 * mix)
    case = gradient_case("determined", hidden, output, samples, b, degree, noise=noise, rng=rng)
    note = f"degree {degree} r {r} m {m} mix {mix:.1e} noise {noise:.1e} cond {condition:.1e}"
    return Case(case.family, case.data, samples, b, {}, note)


def _condition(
    samples: FloatArray, b: FloatArray, degree: int, hidden: FloatArray, output: FloatArray
) -> float:
    """Condition number of the column-scaled Jacobian of the Hermite equations in (b, x)."""
    _, _, axes = np.linalg.svd(samples, full_matrices=False)
    x, u = samples @ axes.T, hidden @ axes.T
    weights = output[:, None] * np.ones_like(u)
    s = u @ x.T
    blocks = []
    for i in range(len(x)):
        for k in range(x.shape[1]):
            step = np.zeros(x.shape[1])
            step[k] = 1.0
            column = (degree - 1) * s[:, i, None] ** (degree - 2) * u[:, k, None] * x[i]
            column = (column + s[:, i, None] ** (degree - 1) * step) * b[i] * weights
            blocks.append(column.ravel() / np.linalg.norm(column))
    return float(np.linalg.cond(np.array(blocks)))
