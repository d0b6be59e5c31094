"""The owner's view on the weights of a two-layer ReLU network: which true samples they expose.

The report comes from `assess_stationary`, which never sees the samples; here they are compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.disaggregation.stationary import KKT, one_margin, stationary_gradient
from identify.errors import InvalidInputError
from identify.exposure.affine import affine_note
from identify.exposure.batch import (
    LARGEST,
    equal_note,
    equal_to,
    find_exposed,
    fit_weights,
    quality_of,
)
from identify.exposure.weights_report import WeightsAudit
from identify.model.dataset import as_signs, flat_labels, flat_samples, spell_groups
from identify.model.deep import DeepNetwork
from identify.model.losses import loss_slope
from identify.report.stationary import StationaryReport

_INDEPENDENT = 1e-10


@dataclass(frozen=True, eq=False)
class _Fit:
    """What the true samples say about the weights: b (n,), their shares (n,), the residual.

    ``unique`` says whether no other b fits as well.
    """

    coefficients: FloatArray | None = None
    shares: FloatArray | None = None
    unique: bool = False
    residual: float | None = None


def audit_stationary(
    report: StationaryReport,
    network: DeepNetwork,
    samples: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
) -> WeightsAudit:
    """Compare what the weights of a ReLU network give away with the samples of their owner.

    Exposed are the samples that the report has to a relative error below 0.1, one to one; equal
    samples count as one. The multipliers solve [w_j, beta_j] = a_j sum_i b_i s'(z_ij) [x_i, 1],
    with both layers trained also a_j = sum_i b_i s(z_ij), in the least-squares sense; with labels
    b_i = lambda_i y_i, lambda_i >= 0, for a KKT point. For several outputs labels and a loss fix
    the direction of b_i.

    Args:
        report: of `assess_stationary` on the same network.
        samples: (n, d) or images (n, ...) with d numbers each, at most 5,000.
        labels: (n,) two classes for one output or a KKT point, else classes 0 to C - 1.

    Raises:
        InvalidInputError: arrays that do not fit the network or each other.

    Cost: n^2 times the width for the multipliers, (k + n)^3 for the matching of k samples.
    Source: stationarity of the max-margin problem (Lyu & Li 2020); non-negative least squares
        (Lawson & Hanson 1974).

    Example:
        >>> from identify.assess_weights import assess_stationary
        >>> from identify.planting.relu import equiangular_samples, plant_relu_network
        >>> images = equiangular_samples(4, 2, 6)
        >>> network = plant_relu_network(images, trained="both").network
        >>> more = np.vstack([np.ones((1, 6)), images])
        >>> audit = audit_stationary(assess_stationary(network), network, more)
        >>> [entry.index for entry in audit.exposed], audit.active
        ([1, 2, 3, 4], (1, 2, 3, 4))
    """
    started = time.monotonic()
    x = flat_samples(samples, network.dimension)
    if len(x) > LARGEST:
        raise InvalidInputError("samples", f"at most {LARGEST:,}", len(x), "audit fewer")
    source = str(report.problem["source"])
    if source == KKT:
        network = one_margin(network)
    y = _labels(labels, len(x), network, source)
    found, groups = report.found, equal_to(x)
    exposed, recovered, _ = find_exposed(report, network, x, y, groups)
    fit = _fit(report, network, x, y, groups)
    noise = max((rank.relative_noise for rank in found.ranks), default=0.0)
    quality = quality_of(fit.residual, noise)
    active = _active(fit, quality, noise)
    margins = _margins(network, x, y)
    notes = _inside(margins, active) if source == KKT and y is not None else []
    notes += equal_note(groups)
    if found.samples is not None:
        notes += affine_note(found.samples, x, len(exposed), fixed_scale=found.scaled)
    return WeightsAudit(
        report=report,
        labels=y,
        coefficients=fit.coefficients,
        lambdas=source == KKT and y is not None,
        residual=fit.residual,
        fit=quality,
        active=active,
        margins=margins,
        groups=groups,
        exposed=exposed,
        recovered=recovered,
        notes=tuple(notes),
        seconds=found.seconds + time.monotonic() - started,
    )


def _labels(
    labels: npt.ArrayLike | None, count: int, network: DeepNetwork, source: str
) -> FloatArray | None:
    """Signs for one output, else classes; None without any, or where they are of no use."""
    if labels is None:
        return None
    y = flat_labels(np.asarray(labels, dtype=np.float64), count)
    if network.outputs == 1:
        signs = as_signs(y)
        if signs is None and source == KKT:
            raise InvalidInputError("labels", "two classes", f"{len(np.unique(y))} values")
        return signs
    if not np.isin(y, np.arange(network.outputs)).all():
        raise InvalidInputError("labels", f"classes 0 to {network.outputs - 1}", "others")
    return y


def _fit(
    report: StationaryReport,
    network: DeepNetwork,
    x: FloatArray,
    y: FloatArray | None,
    groups: tuple[int, ...],
) -> _Fit:
    """The multipliers of the different samples, 0 for those that equal an earlier one."""
    heads = np.unique(groups)
    slopes = _slopes(report, network, x[heads], None if y is None else y[heads])
    if slopes is None:
        return _Fit()
    signed, p = slopes
    points = np.vstack([x[heads]] * 2) if signed else x[heads]
    gradient = stationary_gradient(network, str(report.problem["trained"]))
    weights, residual = fit_weights(network, gradient, points, np.vstack([p, -p]) if signed else p)
    if weights is None:
        return _Fit()
    if signed:
        weights = weights[: len(heads)] - weights[len(heads) :]
    b, shares = np.zeros(len(x)), np.zeros(len(x))
    b[heads] = weights if p.shape[1] > 1 else -weights * p[:, 0]
    lengths = np.sqrt(np.sum(x[heads] ** 2, axis=1) + (network.biases[0] is not None))
    delta = network.backward(network.forward(x[heads]), p)[0]
    shares[heads] = np.abs(weights) * np.linalg.norm(delta, axis=1) * lengths
    return _Fit(b, shares, _independent(network, x[heads], delta), residual)


def _slopes(
    report: StationaryReport, network: DeepNetwork, x: FloatArray, y: FloatArray | None
) -> tuple[bool, FloatArray] | None:
    """Slopes p (n, C) up to positive factors, or to factors of any sign where that is said."""
    kkt, loss = report.problem["source"] == KKT, report.problem["loss"]
    if network.outputs == 1:
        known = y is not None and (kkt or loss == "logistic")
        return (False, -y[:, None]) if known and y is not None else (True, -np.ones((len(x), 1)))
    if y is None or loss != "cross_entropy":
        return None
    return False, loss_slope(loss, network.value(x), y)


def _independent(network: DeepNetwork, x: FloatArray, delta: FloatArray) -> bool:
    """Whether the samples' gradients in the hidden layer are independent: then b is unique."""
    ones = np.ones((len(x), int(network.biases[0] is not None)))
    lifted = np.column_stack([x, ones])
    gram = (delta @ delta.T) * (lifted @ lifted.T)
    size = np.sqrt(np.diag(gram))
    if not size.all():
        return False
    values = np.linalg.eigvalsh(gram / size[:, None] / size)
    return bool(values[0] > _INDEPENDENT * values[-1])


def _active(fit: _Fit, quality: str, noise: float) -> tuple[int, ...] | None:
    """Rows whose share of the weights is above ten times the noise; None where b is not known."""
    if fit.shares is None or not fit.unique or quality not in ("exact", "approximate"):
        return None
    level = max(noise, fit.residual or 0.0, 1e-12)
    return tuple(int(i) for i in np.flatnonzero(fit.shares > 10.0 * level * fit.shares.max()))


def _margins(network: DeepNetwork, x: FloatArray, y: FloatArray | None) -> FloatArray | None:
    if network.outputs != 1:
        return None
    outputs = network.value(x)[:, 0]
    return np.asarray(outputs if y is None else y * outputs)


def _inside(margins: FloatArray | None, active: tuple[int, ...] | None) -> list[str]:
    """What samples with smaller margins than the active ones of a KKT point mean."""
    if margins is None or not active:
        return []
    inside = margins < 0.99 * float(np.median(margins[list(active)]))
    below = [(int(i),) for i in np.flatnonzero(inside) if i not in active]
    if not below:
        return []
    return [
        f"inactive samples {spell_groups(below)} have a smaller margin than the active ones: the "
        "margin constraint is violated, this is no KKT point of the max-margin problem on all of "
        "them"
    ]
