"""Hypothesis strategies for networks, samples and stationary points, for anybody's test suite.

Everything is built from drawn sizes and one drawn integer seed, so that a failing example shrinks
to small sizes and its description, `SampleSet(generic, n=2, d=3, degree=3, seed=7)`, is enough to
build it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from identify import TwoLayerNetwork
from identify.arrays import FloatArray
from identify.planting.eigenvectors import real_eigenvectors

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

KINDS = ("generic", "orthonormal", "integer", "close", "digits")
"""Kinds of samples, see `draw_samples`."""
SEEDS = 2**20


@lru_cache(maxsize=1)
def digits() -> FloatArray:
    """Handwritten digits as centred unit vectors, shape (1797, 64).

    Raises:
        ModuleNotFoundError: scikit-learn, which holds the images, is not installed.

    Example:
        >>> digits().shape
        (1797, 64)
    """
    from sklearn.datasets import load_digits

    images = np.asarray(load_digits().data, dtype=np.float64)
    centred = images - images.mean(axis=0)
    rows: FloatArray = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    rows.setflags(write=False)
    return rows


def present(kinds: tuple[str, ...] = KINDS) -> tuple[str, ...]:
    """The kinds that can be drawn here: digits need scikit-learn, which this loads.

    Loading it while an example is drawn would count as slow drawing.

    Example:
        >>> present(("generic", "integer"))
        ('generic', 'integer')
    """
    if "digits" in kinds:
        try:
            digits()
        except ModuleNotFoundError:
            return tuple(kind for kind in kinds if kind != "digits") or ("generic",)
    return kinds


def draw_samples(kind: str, count: int, dimension: int, seed: int) -> FloatArray:
    """Linearly independent samples (count, dimension) of a kind, count <= dimension.

    generic: normal. orthonormal. integer: small entries. close: two at an angle of 1e-1 to 1e-3.
    digits: random projections of images to this dimension.

    Example:
        >>> draw_samples("orthonormal", 2, 3, 0).shape
        (2, 3)
    """
    rng = np.random.default_rng([seed, count, dimension, KINDS.index(kind)])
    normal = rng.standard_normal((count, dimension))
    if kind == "orthonormal":
        axes, triangle = np.linalg.qr(rng.standard_normal((dimension, count)))
        return np.asarray((axes * np.sign(np.diag(triangle))).T)
    if kind == "integer":
        return np.eye(count, dimension) * 2.0 + rng.integers(-1, 2, size=(count, dimension)) / 4.0
    if kind == "close" and count > 1:
        normal[1] = normal[0] + 10.0 ** -rng.uniform(1.0, 3.0) * normal[1]
        return normal
    if kind == "digits":
        images = digits()
        chosen = images[rng.choice(len(images), count, replace=False)]
        return np.asarray(chosen @ rng.standard_normal((images.shape[1], dimension)))
    return normal


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Samples (n, d) with coefficients (n,), and how they were drawn."""

    kind: str
    samples: FloatArray
    coefficients: FloatArray
    degree: int
    seed: int

    def __repr__(self) -> str:
        count, dimension = self.samples.shape
        return (
            f"SampleSet({self.kind}, n={count}, d={dimension}, degree={self.degree}, "
            f"seed={self.seed})"
        )


def sample_sets(
    max_samples: int = 4,
    max_dimension: int = 5,
    degrees: tuple[int, ...] = (3, 4, 5),
    kinds: tuple[str, ...] = KINDS,
) -> SearchStrategy[SampleSet]:
    """Independent samples of every kind, coefficients of modulus 1/2 to 2 and both signs.

    Example:
        >>> from hypothesis import find
        >>> find(sample_sets(), lambda s: len(s.samples) == 2).samples.shape
        (2, 2)
    """
    from hypothesis import strategies as st

    drawable = present(kinds)

    def build(kind: str, count: int, spare: int, degree: int, seed: int) -> SampleSet:
        dimension = min(count + spare, max_dimension)
        rng = np.random.default_rng([seed, 1])
        signs = rng.choice([-1.0, 1.0], size=count)
        return SampleSet(
            kind,
            draw_samples(kind, count, dimension, seed),
            signs * rng.uniform(0.5, 2.0, size=count),
            degree,
            seed,
        )

    return st.builds(
        build,
        st.sampled_from(drawable),
        st.integers(1, min(max_samples, max_dimension)),
        st.integers(0, max_dimension - 1),
        st.sampled_from(degrees),
        st.integers(0, SEEDS),
    )


@dataclass(frozen=True, eq=False)
class StationaryPoint:
    """A network that is exactly stationary for its samples, up to rounding.

    `network` has one neuron for every real eigenvector of T that was found, scaled so that
    |w_j|^2 = alpha a_j^2; `residual` is what rounding left of the eigenvector equations.
    """

    network: TwoLayerNetwork
    data: SampleSet
    residual: float

    def __repr__(self) -> str:
        return f"StationaryPoint(m={self.network.width}, {self.data!r})"


def stationary_point(data: SampleSet) -> StationaryPoint | None:
    """The network of the real eigenvectors of T = sum_i b_i x_i^(alpha), None without any.

    An eigenvector v with T(v^(alpha-1), .) = mu v gives w = s v, a = +-s/sqrt(alpha) with
    s^(alpha-1) = 1/(sqrt(alpha) |mu|).

    Example:
        >>> import numpy as np
        >>> data = SampleSet("generic", np.eye(2), np.ones(2), 3, 0)
        >>> stationary_point(data).network.width
        3
    """
    samples = np.ascontiguousarray(data.samples, dtype=np.float64)
    heights = np.ascontiguousarray(data.coefficients, dtype=np.float64)
    found = _solve(samples.tobytes(), samples.shape, heights.tobytes(), data.degree, data.seed)
    return None if found is None else StationaryPoint(found[0], data, found[1])


@lru_cache(maxsize=4096)
def _solve(
    samples: bytes, shape: tuple[int, int], coefficients: bytes, alpha: int, seed: int
) -> tuple[TwoLayerNetwork, float] | None:
    """The network and the defect of its equations; by content, since many runs share instances."""
    x = np.frombuffer(samples).reshape(shape)
    b = np.frombuffer(coefficients)
    vectors, values = real_eigenvectors(x, b, alpha, starts=60, seed=seed)
    keep = np.abs(values) > 1e-6 * np.max(np.abs(values), initial=0.0)
    vectors, values = vectors[keep], values[keep]
    if not len(vectors):
        return None
    sizes = (np.sqrt(alpha) * np.abs(values)) ** (-1.0 / (alpha - 1))
    network = TwoLayerNetwork(
        sizes[:, None] * vectors, np.sign(values) * sizes / np.sqrt(alpha), degree=alpha
    )
    slopes = (b * (vectors @ x.T) ** (alpha - 1)) @ x
    defect = np.linalg.norm(slopes - values[:, None] * vectors, axis=1) / np.abs(values)
    return network, float(defect.max())


def forget() -> None:
    """Drop what is kept of earlier stationary points, as when a function underneath changes.

    Example:
        >>> forget()
    """
    _solve.cache_clear()


def stationary_points(
    max_samples: int = 4,
    max_dimension: int = 5,
    degrees: tuple[int, ...] = (3, 4, 5),
    kinds: tuple[str, ...] = KINDS,
) -> SearchStrategy[StationaryPoint]:
    """Exact stationary points of weight decay, of all kinds of samples.

    Every sample set has its network of eigenvectors; the arguments are those of `sample_sets`.

    Example:
        >>> from hypothesis import find
        >>> point = find(stationary_points(), lambda p: p.network.width >= 3)
        >>> point.data.degree >= 3 and point.residual < 1e-10
        True
    """
    from hypothesis import reject
    from hypothesis import strategies as st

    @st.composite
    def points(draw: st.DrawFn) -> StationaryPoint:
        point = stationary_point(draw(drawn))
        if point is None:
            reject()
        return point

    drawn = sample_sets(max_samples, max_dimension, degrees, kinds)
    return points()


@dataclass(frozen=True, eq=False)
class GradientProblem:
    """A network with random weights and the batch whose gradient is taken."""

    network: TwoLayerNetwork
    data: SampleSet

    def __repr__(self) -> str:
        return f"GradientProblem(m={self.network.width}, {self.data!r})"


def gradient_problems(
    max_samples: int = 4,
    max_dimension: int = 5,
    degrees: tuple[int, ...] = (3, 4, 5),
    kinds: tuple[str, ...] = KINDS,
    neurons: tuple[int, int] = (1, 30),
) -> SearchStrategy[GradientProblem]:
    """Random networks with batches of every kind.

    `neurons` is the range of the width; the other arguments are those of `sample_sets`.

    Example:
        >>> from hypothesis import find
        >>> find(gradient_problems(), lambda p: p.network.width == 5).network.width
        5
    """
    from hypothesis import strategies as st

    def build(data: SampleSet, width: int) -> GradientProblem:
        rng = np.random.default_rng([data.seed, width, 2])
        network = TwoLayerNetwork(
            rng.standard_normal((width, data.samples.shape[1])),
            rng.choice([-1.0, 1.0], size=width) * rng.uniform(0.5, 2.0, size=width),
            degree=data.degree,
        )
        return GradientProblem(network, data)

    return st.builds(
        build, sample_sets(max_samples, max_dimension, degrees, kinds), st.integers(*neurons)
    )
