"""The owner's view on one gradient of a deep network: which of the true samples it exposes.

The report comes from `assess_gradient`, which never sees the samples; here they are compared.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from scipy import optimize

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.exposure.affine import affine_note
from identify.exposure.batch_report import BatchAudit, BatchExposure
from identify.exposure.compare import match_samples
from identify.model.dataset import as_signs, equal_rows, flat_labels, flat_samples, spell_groups
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope
from identify.report.gradient import GradientReport
from identify.thresholds import DIFFERENT, UNEXPLAINED

LARGEST = 5_000
"""Samples that are audited at once."""
_SAME = 1e-12


def audit_gradient(
    report: GradientReport,
    network: DeepNetwork,
    gradient: DeepGradient,
    samples: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
) -> BatchAudit:
    """Compare what a gradient gives away with the samples of its owner.

    Exposed are the samples that the report has to a relative error below 0.1, one to one; equal
    samples count as one. Where the report stops above the input, the features of that layer are
    compared; where it shows two sets, the samples that both have; where it separated nothing, the
    single rows that are samples. With a loss and labels
    the weights c >= 0 of gradient = sum_i c_i grad loss(x_i, y_i) over all supplied layers say
    which samples are in the batch, 1/n each for a mean over n.

    Args:
        report: of `assess_gradient` on the same network and gradient.
        samples: (n, d) or images (n, ...) with d numbers each, at most 5,000.
        labels: (n,) classes 0 to C - 1, or two classes for one output.

    Raises:
        InvalidInputError: arrays that do not fit the network or each other.

    Cost: n^2 times the widths for the weights, (k + n)^3 for the matching of k samples.
    Source: non-negative least squares (Lawson & Hanson 1974).

    Example:
        >>> from identify.assess_batch import assess_gradient
        >>> rng = np.random.default_rng(0)
        >>> network = DeepNetwork(
        ...     [rng.normal(size=(60, 20)), rng.normal(size=(1, 60))], [rng.normal(size=60), [0.0]],
        ...     "relu",
        ... )
        >>> images = rng.normal(size=(5, 20))
        >>> gradient = network.gradient(images[1:4], [[0.3], [-0.5], [0.2]])
        >>> report = assess_gradient(network, gradient)
        >>> [entry.index for entry in audit_gradient(report, network, gradient, images).exposed]
        [1, 2, 3]
    """
    started = time.monotonic()
    x = flat_samples(samples, network.dimension)
    if len(x) > LARGEST:
        raise InvalidInputError("samples", f"at most {LARGEST:,}", len(x), "audit fewer")
    loss = report.problem["loss"]
    y = _classes(labels, len(x), network, loss)
    weights, residual = _weights(network, gradient, x, y, loss)
    groups = equal_to(x)
    exposed, recovered, place = find_exposed(report, network, x, y, groups)
    found = report.found
    notes = [_place_note(place)] if place else []
    notes += equal_note(groups)
    if found.samples is not None and found.layer == 0:
        notes += affine_note(found.samples, x, len(exposed), fixed_scale=found.scaled)
    noise = max((rank.relative_noise for rank in found.ranks), default=0.0)
    return BatchAudit(
        report=report,
        labels=y,
        weights=weights,
        residual=residual,
        fit=quality_of(residual, noise),
        groups=groups,
        exposed=exposed,
        recovered=recovered,
        notes=tuple(notes),
        seconds=found.seconds + time.monotonic() - started,
    )


def equal_note(groups: tuple[int, ...]) -> list[str]:
    """That samples of the owner are equal, where some are."""
    same = equal_rows(groups)
    return [f"samples of yours are equal and count as one: {spell_groups(same)}"] if same else []


def _classes(
    labels: npt.ArrayLike | None, count: int, network: DeepNetwork, loss: str | None
) -> FloatArray | None:
    """Labels as the loss takes them: classes, or signs for one output; None without any."""
    if labels is None:
        return None
    y = flat_labels(np.asarray(labels, dtype=np.float64), count)
    if network.outputs == 1:
        signs = as_signs(y)
        if signs is None and loss == "logistic":
            raise InvalidInputError("labels", "two classes", f"{len(np.unique(y))} values")
        return y if signs is None else signs
    whole = np.isin(y, np.arange(network.outputs)).all()
    if not whole and loss == "cross_entropy":
        raise InvalidInputError("labels", f"classes 0 to {network.outputs - 1}", "others")
    return y


def _weights(
    network: DeepNetwork,
    gradient: DeepGradient,
    x: FloatArray,
    y: FloatArray | None,
    loss: str | None,
) -> tuple[FloatArray | None, float | None]:
    """c (n,) and the relative residual over the supplied layers, each scaled to its norm."""
    usable = loss == "cross_entropy" or (loss == "logistic" and network.outputs == 1)
    if y is None or loss is None or not usable:
        return None, None
    return fit_weights(network, gradient, x, loss_slope(loss, network.value(x), y))


def fit_weights(
    network: DeepNetwork, gradient: DeepGradient, x: FloatArray, slopes: FloatArray
) -> tuple[FloatArray | None, float | None]:
    """Weights c (n,) >= 0 of gradient = sum_i c_i grad at x_i with slopes p_i (n, C).

    Returns them with the relative residual; every supplied layer is scaled to its norm. None for a
    gradient of zeros.
    """
    run = network.forward(x)
    deltas = network.backward(run, slopes)
    products = np.zeros((len(x), len(x)))
    right = np.zeros(len(x))
    layers = 0
    for index in range(network.depth):
        given = gradient.layer(index)
        if given is None or not given.any():
            continue
        h, delta = run.inputs[index], deltas[index]
        if given.shape[1] > h.shape[1]:
            h = np.column_stack([h, np.ones(len(h))])
        size = float(np.sum(given**2))
        products += (delta @ delta.T) * (h @ h.T) / size
        right += np.einsum("ij,jk,ik->i", delta, given, h, optimize=True) / size
        layers += 1
    if not layers:
        return None, None
    weights = _non_negative(products, right)
    return weights, _residual(network, gradient, x, slopes, weights)


def _non_negative(products: FloatArray, right: FloatArray) -> FloatArray:
    """Least squares with c >= 0 from the normal equations, by a root of the Gram matrix."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(products), 1e-300))
    values, vectors = np.linalg.eigh(products * scale[:, None] * scale[None, :])
    kept = values > 1e-13 * values[-1]
    root = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    target = (vectors[:, kept].T @ (scale * right)) / np.sqrt(values[kept])
    return np.asarray(optimize.nnls(root, target)[0] * scale, dtype=np.float64)


def _residual(
    network: DeepNetwork,
    gradient: DeepGradient,
    x: FloatArray,
    slopes: FloatArray,
    weights: FloatArray,
) -> float:
    used = weights > 0.0
    if not used.any():
        return 1.0
    mine = network.gradient(x[used], slopes[used] * weights[used, None])
    parts = []
    for index in range(network.depth):
        given, own = gradient.layer(index), mine.layer(index)
        if given is None or own is None or not given.any():
            continue
        left = given - own[:, : given.shape[1]]
        parts.append(float(np.linalg.norm(left) / np.linalg.norm(given)))
    return float(np.sqrt(np.mean(np.square(parts))))


def quality_of(residual: float | None, noise: float) -> str:
    """Whether a residual is within ten times the noise, explains anything, or nothing."""
    if residual is None:
        return "not checkable"
    if residual <= max(10.0 * noise, 1e-6):
        return "exact"
    return "approximate" if residual < UNEXPLAINED else "none"


def equal_to(x: FloatArray) -> tuple[int, ...]:
    """For each sample the first one that equals it."""
    size = float(np.abs(x).max()) or 1.0
    kinds = np.unique(np.round(x / size / _SAME), axis=0, return_index=True, return_inverse=True)
    first, inverse = kinds[1], kinds[2].ravel()
    return tuple(int(first[kind]) for kind in inverse)


def find_exposed(
    report: GradientReport,
    network: DeepNetwork,
    x: FloatArray,
    y: FloatArray | None,
    groups: tuple[int, ...],
) -> tuple[tuple[BatchExposure, ...], int, str]:
    """Exposed samples, the number recovered, and what was compared if not samples."""
    found = report.found
    place = ""
    if found.samples is None and found.shared is not None and len(found.shared):
        rows, truth, scaled, place = found.shared, x, True, "shared"
    elif found.samples is None:
        if found.single_rows is None:
            return (), 0, ""
        rows, truth, scaled, place = found.single_rows, x, True, "rows"
    else:
        layer = found.layer or 0
        place = f"layer {layer + 1}" if layer else ""
        rows, truth = found.samples, network.forward(x).inputs[layer]
        scaled = found.scaled
    heads = np.unique(groups)
    matching = match_samples(rows, truth[heads], up_to_sign=not scaled, up_to_scale=not scaled)
    entries = []
    for head, row, error in zip(heads, matching.indices, matching.errors, strict=True):
        if not error < DIFFERENT:
            continue
        own = found.samples is not None
        label = int(found.labels[row]) if own and found.labels is not None else None
        bound = float(found.error_bounds[row]) if own and found.error_bounds is not None else None
        entries.append(
            BatchExposure(
                index=int(head),
                error=float(error),
                bound=bound,
                recovered=int(row),
                label=label,
                label_right=None if y is None or label is None else bool(label == y[head]),
                equal=tuple(i for i, g in enumerate(groups) if g == head and i != head),
            )
        )
    return tuple(entries), len(rows), place


def _place_note(place: str) -> str:
    if place == "shared":
        return "two batches have the gradient; compared are the samples that both of them have"
    if place == "rows":
        return (
            "no set of samples was separated; compared are rows of the first layer's gradient, "
            "which give single samples away"
        )
    return f"compared are the features that enter {place}: the samples are exposed that far only"
