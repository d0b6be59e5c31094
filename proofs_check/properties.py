"""Properties of networks and training sets, as assertions for anybody's test suite.

Each raises AssertionError with the numbers if the property fails. Together with `strategies`::

    from hypothesis import given
    from identify import HermiteData
    from proofs_check import properties, strategies

    @given(strategies.stationary_points())
    def test_samples_explain_the_weights(point):
        data = HermiteData.from_weight_decay(point.network)
        properties.assert_explains(data, point.data.samples, point.data.coefficients)

`tolerance` is relative and comes on top of what rounding of the stored numbers can do.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.exposure.compare import compare_recovery
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.records import Recovery, Verdict
from identify.report.report import IdentifiabilityReport

TOLERANCE = 1e-9
_FACTOR = 8.0


class SampleList(Protocol):
    """Anything with samples (n, d) and coefficients (n,): TrainingSet, Recovery, SampleSet."""

    @property
    def samples(self) -> FloatArray:
        """Shape (n, d)."""

    @property
    def coefficients(self) -> FloatArray:
        """Shape (n,), b_i."""


def assert_balance(network: TwoLayerNetwork, tolerance: float = TOLERANCE) -> None:
    """Assert |w_j|^2 = alpha a_j^2 for every neuron, a hidden bias counted into w_j.

    Args:
        network: monomial, one output.
        tolerance: allowed |left - right| / (left + right).

    Source: Du, Hu & Lee 2018, Theorem 2.1.

    Example:
        >>> import numpy as np
        >>> assert_balance(TwoLayerNetwork(np.eye(2), [3**-0.5, -(3**-0.5)], degree=3))
        >>> assert_balance(TwoLayerNetwork(np.eye(2), [1.0, 1.0], degree=3))
        Traceback (most recent call last):
        ...
        AssertionError: neuron 0 is not balanced: |w|^2 = 1, alpha a^2 = 3, relative gap 0.5
    """
    network.require_supported()
    left = np.sum(network.points**2, axis=1)
    right = network.degree * network.output_weight**2
    total = left + right
    gaps = np.abs(left - right) / np.where(total > 0.0, total, 1.0)
    worst = int(np.argmax(gaps))
    # Squares double the relative error of the stored numbers.
    allowed = tolerance + 4.0 * network.rounding
    _require(
        gaps[worst] <= allowed,
        f"neuron {worst} is not balanced: |w|^2 = {left[worst]:.6g}, "
        f"alpha a^2 = {right[worst]:.6g}, relative gap {gaps[worst]:.3g}",
    )


def assert_stationary(
    network: TwoLayerNetwork,
    samples: npt.ArrayLike,
    coefficients: npt.ArrayLike,
    tolerance: float = TOLERANCE,
) -> None:
    """Assert theta = sum_i b_i grad f(x_i), the stationarity equations of every neuron.

    For loss + mu/2 |theta|^2 the coefficients are b_i = -loss_i'/mu, for max margin
    b_i = lambda_i y_i.

    Args:
        network: monomial, one output.
        samples: (n, d).
        coefficients: (n,).
        tolerance: allowed error of a neuron, relative to (w_j, a_j).

    Source: Lyu & Li 2020 for the max-margin problem.

    Example:
        >>> import numpy as np
        >>> from identify import plant_network
        >>> planted = plant_network(np.eye(3), degree=3)
        >>> assert_stationary(planted.network, planted.samples, planted.coefficients)
    """
    network.require_supported()
    x, b = _set(network, samples, coefficients)
    gradient = network.gradient(x, b)
    rest = np.column_stack(
        [network.points - gradient.points, network.output_weight - gradient.output_weight]
    )
    weights = np.column_stack([network.points, network.output_weight])
    sizes = np.linalg.norm(weights, axis=1)
    gaps = np.linalg.norm(rest, axis=1)
    allowed = tolerance * sizes + _rounding(network, network.points, network.output_weight, x, b)
    worst = int(np.argmax(np.where(allowed > 0.0, gaps / np.where(allowed > 0.0, allowed, 1.0), 0)))
    _require(
        np.all(gaps <= allowed),
        f"neuron {worst} is not stationary: |theta_j - sum_i b_i grad_j f(x_i)| = "
        f"{gaps[worst]:.3g}, |theta_j| = {sizes[worst]:.3g}, allowed {allowed[worst]:.3g}",
    )


def assert_kkt_point(
    network: TwoLayerNetwork,
    samples: npt.ArrayLike,
    coefficients: npt.ArrayLike,
    tolerance: float = TOLERANCE,
) -> None:
    """Assert that a network is, up to scale, a KKT point of min |theta|^2/2, y_i f(x_i) >= 1.

    Beside the stationarity equations all b_i f(x_i) are positive (y_i is the sign of b_i) and all
    |f(x_i)| are equal: every sample of the set is active.

    Args:
        network, samples, coefficients: as for `assert_stationary`.
        tolerance: also the allowed relative spread of the margins.

    Example:
        >>> import numpy as np
        >>> from identify import plant_network
        >>> planted = plant_network(np.eye(3), degree=3, stationary="margin")
        >>> assert_kkt_point(planted.network, planted.samples, planted.coefficients)
    """
    x, b = _set(network, samples, coefficients)
    assert_stationary(network, x, b, tolerance)
    margins = np.sign(b) * network.value(x)
    _require(
        np.all(margins > 0.0),
        f"sample {int(np.argmin(margins))} has a negative multiplier: y f(x) = {margins.min():.3g}",
    )
    moduli = np.abs(network.lift(x) @ network.points.T) ** network.degree
    noise = (network.degree + 4) * network.rounding * (moduli @ np.abs(network.output_weight))
    spread = float(np.ptp(margins))
    allowed = tolerance * float(margins.max()) + _FACTOR * float(noise.max())
    _require(
        spread <= allowed,
        f"margins differ: from {margins.min():.9g} to {margins.max():.9g}, allowed {allowed:.3g}",
    )


def assert_explains(
    data: HermiteData,
    samples: npt.ArrayLike,
    coefficients: npt.ArrayLike,
    tolerance: float = TOLERANCE,
) -> None:
    """Assert that a training set satisfies the equations of any source.

    alpha a_j sum_i b_i (u_j . x_i)^(alpha-1) x_i is the row of neuron j, and where the source has
    values, sum_i b_i (u_j . x_i)^alpha is that of neuron j. For a fine-tuned pair the equations
    are of first order: give the tolerance that the movement allows.

    Args:
        data: from a constructor of `HermiteData`.
        samples: (n, d).
        coefficients: (n,); for weight decay without its constant, in units of it.
        tolerance: allowed error of all equations, relative to the norm of their right sides.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(9, 4)), rng.normal(size=9), degree=3)
        >>> batch, slopes = rng.normal(size=(2, 4)), np.array([0.5, -1.0])
        >>> data = HermiteData.from_gradient(net, net.gradient(batch, slopes))
        >>> assert_explains(data, 2 * batch, slopes / 8)
    """
    x, b = _set(data.network, samples, coefficients)
    lifted = data.network.lift(x)
    inner = data.points @ lifted.T
    rows = data.scales[:, None] * ((b * inner ** (data.degree - 1)) @ lifted)
    rest, sides = [rows - data.rows], [data.rows]
    if data.values is not None:
        rest.append((b * inner**data.degree).sum(axis=1)[:, None] - data.values[:, None])
        sides.append(data.values[:, None])
    gap = float(np.linalg.norm(np.hstack(rest)))
    size = float(np.linalg.norm(np.hstack(sides)))
    noise = _rounding(data.network, data.points, data.scales / data.degree, x, b)
    share = max(1.0, data.rounding / data.network.rounding)
    allowed = tolerance * size + share * float(np.linalg.norm(noise))
    _require(
        gap <= allowed,
        f"the set of {len(b)} does not explain the data: residual {gap:.3g} of {size:.3g}, "
        f"allowed {allowed:.3g}",
    )


def assert_same_training_set(
    first: SampleList,
    second: SampleList,
    degree: int,
    scale: str = "free",
    *,
    non_negative: bool = False,
    tolerance: float = 1e-6,
) -> None:
    """Assert that two training sets are equal up to the symmetries that the weights have.

    Order; for "free" and "unit" scale the sign, (x, b) ~ (-x, (-1)^alpha b); for "free" also the
    length, (x, b) ~ (c x, c^-alpha b). With "bias" samples are compared as they are.

    Args:
        first, second: with `samples` (n, d) and `coefficients` (n,), none of them 0.
        degree: alpha.
        scale: "free", "unit", "margin" or "bias", as in a report.
        non_negative: whether signs were chosen for non-negative samples.
        tolerance: allowed relative difference of a sample, and of its coefficient.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace as Set
        >>> one = Set(samples=np.eye(2), coefficients=np.array([1.0, 3.0]))
        >>> two = Set(samples=np.array([[0, -2.0], [1, 0]]), coefficients=np.array([-3 / 8, 1]))
        >>> assert_same_training_set(one, two, degree=3)
    """
    counts = len(first.samples), len(second.samples)
    _require(counts[0] == counts[1], f"the sets have {counts[0]} and {counts[1]} samples")
    guess = Recovery(
        np.asarray(first.samples, dtype=np.float64),
        np.asarray(first.coefficients, dtype=np.float64),
        np.full(counts[0], np.inf),
        {},
    )
    found = compare_recovery(
        guess,
        second.samples,
        degree,
        scale,
        coefficients=second.coefficients,
        non_negative=non_negative,
    )
    _require(
        found.max_error <= tolerance,
        f"the sets differ: a sample by {found.max_error:.3g} of its norm, allowed {tolerance:.3g}",
    )
    other = found.coefficient_error or 0.0
    _require(
        other <= (degree + 1) * tolerance,
        f"the sets differ: a coefficient by {other:.3g}, allowed {(degree + 1) * tolerance:.3g}",
    )


def assert_sound(
    report: IdentifiabilityReport,
    samples: npt.ArrayLike,
    scale: str = "free",
    *,
    non_negative: bool = False,
) -> None:
    """Assert that a report claims nothing false about data made by known samples.

    A verdict `globally` among at most r samples is false if the true set has at most r samples
    and one of them is not recovered within its printed bound. Other verdicts claim no samples.

    Args:
        report: of `assess_identifiability`.
        samples: (n, d), the samples that made the data: parallel ones merged, and without those
            of zero or invisible coefficient.
        scale: what the report assumed, "free", "unit", "margin", or "bias" with a hidden bias.
        non_negative: whether the report assumed non-negative samples.

    Raises:
        InvalidInputError: shapes do not fit.

    Example:
        >>> import numpy as np
        >>> from identify import assess_identifiability
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> batch = rng.normal(size=(4, 6))
        >>> sent = net.gradient(batch, [1.0, -2.0, 0.5, 1.5])
        >>> assert_sound(assess_identifiability(HermiteData.from_gradient(net, sent)), batch)
    """
    truth = np.asarray(samples, dtype=np.float64)
    if report.verdict is not Verdict.GLOBALLY or report.recovery is None or report.scope is None:
        return
    most = report.scope.samples
    if not isinstance(most, int) or len(truth) > most:
        return
    found = compare_recovery(
        report.recovery, truth, int(report.problem["degree"]), scale, non_negative=non_negative
    )
    _require(
        found.within_bounds == len(truth),
        f"globally among at most {most} samples, and {len(truth) - found.within_bounds} of "
        f"{len(truth)} true ones are not within their bounds (largest error {found.max_error:.3g})",
    )


def _require(holds: bool | np.bool_, message: str) -> None:
    """Raise AssertionError, also where assert statements are left out."""
    if not holds:
        raise AssertionError(message)


def _set(
    network: TwoLayerNetwork, samples: npt.ArrayLike, coefficients: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    x = np.asarray(samples, dtype=np.float64)
    b = np.asarray(coefficients, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != network.dimension:
        raise InvalidInputError("samples", f"shape (n, {network.dimension})", x.shape)
    if b.shape != (len(x),):
        raise InvalidInputError("coefficients", f"shape ({len(x)},)", b.shape)
    return x, b


def _rounding(
    network: TwoLayerNetwork, points: FloatArray, heights: FloatArray, x: FloatArray, b: FloatArray
) -> FloatArray:
    """What rounding of stored weights and of the sums does to the equations of each neuron, (m,).

    The unit roundoff of the weights times the number of operations and the sum of moduli of the
    terms of grad f: each weight enters with a power of at most alpha.
    """
    lifted = network.lift(x)
    inner = np.linalg.norm(points, axis=1)[:, None] * np.linalg.norm(lifted, axis=1)
    moduli = (np.abs(b) * inner ** (network.degree - 1)) @ np.linalg.norm(lifted, axis=1)
    values = (np.abs(b) * inner**network.degree).sum(axis=1)
    reach = network.degree * np.abs(heights) * moduli + values
    stored = 2.0 * (network.degree + 1) * network.rounding
    summed = (lifted.size + network.degree + 4) * 2.0**-53
    return np.asarray((stored + summed) * reach + 2.0 * network.rounding * np.abs(heights))
