"""The confirmations of recovered samples, each with its number of equations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.disaggregation.bounds import Bounds
from identify.disaggregation.completion import Known
from identify.disaggregation.depth import Descent
from identify.disaggregation.evidence import Signs
from identify.disaggregation.factor import Factor
from identify.disaggregation.records import Check
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import loss_slope
from identify.thresholds import LOOSE_LOSS, LOOSEST, SMALLEST_CONFIDENCE

IntArray = npt.NDArray[np.int64]

_NO_GRADIENT = (
    "a sample has several negative slopes, which cross-entropy never gives; if this is an update, "
    "minus the gradient, change its sign"
)


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels (n,), the margin of each decision over its error (n,), and the loss's targets.

    Targets are (n,) or (n, C), as `loss_slope` takes them; several positive outputs of a sample
    have targets and no label. ``reason`` says why there are none.
    """

    labels: IntArray | None = None
    confidence: FloatArray | None = None
    targets: npt.NDArray[np.generic] | None = None
    reason: str = ""


def relative_noise(factor: Factor) -> float:
    """Frobenius norm of the noise over that of the gradient."""
    rows, columns = factor.shape
    return float(factor.noise * np.sqrt(rows * columns) / np.linalg.norm(factor.values))


def layer_noise(index: int, factors: dict[int, Factor]) -> float:
    """The relative noise of a layer; without a clear rank that of the layers that have one.

    A gradient of full rank, of the output layer where a batch has as many samples as there are
    outputs, shows no noise of its own. Errors may be relative or absolute: the larger counts.
    """
    if index not in factors:
        return 1e-12
    own = factors[index]
    clear = [other for other in factors.values() if other.clear]
    if own.clear or not clear:
        return relative_noise(own)
    rows, columns = own.shape
    norm = float(np.linalg.norm(own.values))
    absolute = max(other.noise for other in clear) * float(np.sqrt(rows * columns)) / norm
    return min(relative_noise(own), max(absolute, *map(relative_noise, clear)))


def check_layers(
    network: DeepNetwork,
    gradient: DeepGradient,
    factors: dict[int, Factor],
    descent: Descent,
    bounds: Bounds,
    known: dict[int, Known] | None = None,
) -> list[Check]:
    """Every supplied gradient against a forward pass of the samples and their cotangents.

    The slopes behind the cotangents are those of the samples, but for entries of z within their
    error of a kink; `check_slopes` sees to that. Where only the largest entries are known these
    are compared. The limit is 10 times the layer's noise plus 3
    times the largest error bound; above `LOOSEST` the check holds for nothing and is None.
    """
    run = network.forward(descent.inputs, descent.layer)
    deltas = (*descent.deltas, descent.cotangents)
    checks = []
    count = len(descent.inputs)
    for index in range(network.depth):
        given = gradient.layer(index) if descent.scaled else gradient.weights[index]
        if given is None:
            continue
        name = f"gradient of layer {index + 1}"
        if index < descent.layer:
            checks.append(Check(name, None, None, None, 0, "below the samples"))
            continue
        delta, inputs = deltas[index - descent.layer], run.inputs[index - descent.layer]
        if given.shape[1] > inputs.shape[1]:
            inputs = np.column_stack([inputs, np.ones(count)])
        left = given - delta.T @ inputs
        part = (known or {}).get(index)
        if part is not None:
            kept = part.kept[:, : given.shape[1]]
            left, given = np.where(kept, left, 0.0), np.where(kept, given, 0.0)
        norm = float(np.linalg.norm(given))
        residual = float(np.linalg.norm(left)) / max(norm, 1e-300)
        noise = layer_noise(index, factors)
        if part is not None and not part.filled:
            # The tail of what was cut out says nothing about the entries that were sent.
            noise = 1e-9
        limit = 10.0 * noise + 3.0 * float(bounds.samples.max())
        rows = len(given) - (count if index in (descent.layer, network.depth - 2) else 0)
        holds = residual <= limit if limit <= LOOSEST or residual > limit else None
        checks.append(Check(name, holds, residual, limit, max(0, rows) * given.shape[1]))
    return checks


def check_slopes(network: DeepNetwork, descent: Descent, bounds: Bounds) -> Check:
    """The slopes that were used against those at the samples' own z, in every hidden layer.

    Entries of kinked layers may differ where |z| is within its error, |(w_j, beta_j)| |(h_i, 1)|
    times the bound; nothing may differ by more than that error elsewhere.
    """
    run = network.forward(descent.inputs, descent.layer)
    wrong = open_ = total = 0
    relative = np.maximum(bounds.samples, bounds.features)[:, None] + 1e-14
    for index, used in enumerate(descent.slopes):
        activation = network.activations[descent.layer + index]
        z = run.preactivations[index]
        if activation.kink is None:
            # Read from the same h by the inverse of the activation.
            continue
        bias = network.biases[descent.layer + index]
        weight = network.weights[descent.layer + index]
        size = np.sqrt(np.sum(weight**2, axis=1) + (0.0 if bias is None else bias**2))
        length = np.sqrt(np.sum(run.inputs[index] ** 2, axis=1) + 1.0)[:, None]
        different = used != activation.slope(z)
        near = np.abs(z) <= relative * length * size
        wrong += int((different & ~near).sum())
        open_ += int((different & near).sum())
        total += used.size
    note = f"{open_} entries open"
    return Check("masks of the samples", wrong == 0, float(wrong), 0.0, total, note)


def check_signs(signs: Signs, rank: int) -> Check:
    """Check (a): masks of the column space against the signs of W h + beta."""
    equations = signs.agreeing + signs.contradicting
    note = f"{signs.open} entries open, smallest |z| over its bound {signs.margin:.1e}"
    holds = signs.contradicting == 0 if equations > rank else None
    return Check("masks agree with signs", holds, float(signs.contradicting), 0.0, equations, note)


def check_ones(descent: Descent, bounds: Bounds) -> Check:
    """The coefficient that the bias makes 1, in every layer below the last hidden one."""
    known = [value for value in descent.ones if np.isfinite(value)]
    limit = 10.0 * float(bounds.samples.max()) + 1e-9
    if not known:
        return Check("coefficients of the biases", None, None, None, 0)
    worst = max(known)
    count = len(known) * len(descent.inputs)
    return Check("coefficients of the biases", worst <= max(limit, 1e-6), worst, limit, count)


def read_labels(network: DeepNetwork, descent: Descent, bounds: Bounds, loss: str | None) -> Labels:
    """Labels from p: its negative entries, for squared loss the class whose f - e_k is along p.

    The confidence is the margin over the error of p. Targets of squared loss that are not one-hot
    cannot be read: the loss fits any.
    """
    p = descent.cotangents
    size = np.linalg.norm(p, axis=1)
    error = size * np.maximum(bounds.slopes, bounds.samples) + 1e-300
    if loss == "cross_entropy" and p.shape[1] > 1:
        ordered = np.sort(p, axis=1)
        labels = np.argmin(p, axis=1).astype(np.int64)
        # softmax - e_k has one negative entry; an update, minus the gradient, all but one.
        if np.any(ordered[:, 1] < -SMALLEST_CONFIDENCE * error):
            return Labels(targets=labels, reason=_NO_GRADIENT)
        return Labels(labels, (ordered[:, 1] - ordered[:, 0]) / error, labels)
    if p.shape[1] == 1 and loss in (None, "logistic"):
        labels = -np.sign(p[:, 0]).astype(np.int64)
        return Labels(labels, np.abs(p[:, 0]) / error, labels if loss else None)
    if loss == "logistic":
        return _read_signs(p, error)
    if loss == "squared" and p.shape[1] > 1 and descent.scaled:
        return _read_one_hot(network, descent, bounds)
    if loss == "squared":
        return Labels(reason="squared loss fits any target, so none can be read")
    return Labels(reason="the loss is not known")


def _read_signs(p: FloatArray, error: FloatArray) -> Labels:
    """Logistic loss on every output: y_c = -sign p_c, and a class where one output is positive."""
    targets = np.where(p < 0.0, 1.0, -1.0)
    if np.any((targets > 0.0).sum(axis=1) != 1):
        return Labels(targets=targets, reason="samples have several positive outputs, or none")
    return Labels(targets.argmax(axis=1), np.abs(p).min(axis=1) / error, targets)


def _read_one_hot(network: DeepNetwork, descent: Descent, bounds: Bounds) -> Labels:
    """Squared loss with one-hot targets: p_i is a positive multiple of f_i - e_k."""
    p = descent.cotangents
    outputs = network.forward(descent.inputs, descent.layer).outputs
    slopes = outputs[:, None, :] - np.eye(p.shape[1])
    weights = np.einsum("ic,ikc->ik", p, slopes) / (np.sum(slopes**2, axis=2) + 1e-300)
    rest = np.linalg.norm(p[:, None, :] - weights[..., None] * slopes, axis=2)
    rest = np.where(weights > 0.0, rest / (np.linalg.norm(p, axis=1)[:, None] + 1e-300), 1.0)
    ordered = np.sort(rest, axis=1)
    error = bounds.slopes + bounds.samples + bounds.outputs + 1e-300
    if np.any(ordered[:, 0] > _allowed(bounds)):
        return Labels(reason="targets are not one-hot, and squared loss fits any others")
    labels = rest.argmin(axis=1)
    targets = np.eye(p.shape[1])[labels]
    return Labels(labels.astype(np.int64), (ordered[:, 1] - ordered[:, 0]) / error, targets)


def _allowed(bounds: Bounds) -> FloatArray:
    """How far slopes of the loss may be off, relative, shape (n,)."""
    return np.asarray(
        SMALLEST_CONFIDENCE * (bounds.slopes + bounds.samples + bounds.outputs) + 1e-9
    )


def check_loss(
    network: DeepNetwork,
    descent: Descent,
    bounds: Bounds,
    labels: Labels,
    loss: str | None,
    reduction: str | None,
) -> tuple[Check, FloatArray | None]:
    """Check (c): p_i = c_i dloss/df at the sample's own outputs, with one weight c for all.

    Returns the check and how often each sample counts, in units of the smallest weight, or of 1 if
    the loss is a sum.
    """
    name = "known loss"
    if loss is None or labels.targets is None:
        return Check(name, None, None, None, 0, labels.reason or "the loss is not known"), None
    if not descent.scaled:
        return Check(name, None, None, None, 0, "the length of the samples is not known"), None
    if loss == "logistic" and not np.all(labels.targets):
        return Check(name, None, None, None, 0, "a slope of 0"), None
    outputs = network.forward(descent.inputs, descent.layer).outputs
    count, width = outputs.shape
    if labels.reason == _NO_GRADIENT:
        return Check(name, False, None, None, count, labels.reason), None
    slope = loss_slope(loss, outputs, labels.targets)
    size = np.sum(slope**2, axis=1) + 1e-300
    weights = np.sum(descent.cotangents * slope, axis=1) / size
    rest = np.linalg.norm(descent.cotangents - weights[:, None] * slope, axis=1)
    rest /= np.linalg.norm(descent.cotangents, axis=1) + 1e-300
    allowed = _allowed(bounds)
    unit = 1.0 if reduction == "sum" else float(weights.min())
    if unit <= 0.0 or not np.isfinite(weights).all():
        return Check(name, False, None, None, count, "a weight that is not positive"), None
    counts = weights / unit
    off = np.abs(counts - 1.0)
    if reduction == "mean":
        off = np.append(off, abs(weights.sum() - 1.0))
        allowed_sum = np.append(allowed + allowed.max(), allowed.max())
    else:
        allowed_sum = allowed + (0.0 if reduction == "sum" else allowed.max())
    # Slopes of cross-entropy sum to 0.
    equations = count * (width - 1 - (loss == "cross_entropy")) + count - (reduction is None)
    worst = float(max((off / allowed_sum).max(), (rest / allowed).max() if width > 1 else 0.0))
    loosest = float(allowed.max())
    holds: bool | None = worst <= 1.0
    note = _count_note(counts, allowed)
    if equations == 0:
        holds, note = None, "one sample and no reduction: an average would look the same"
    elif holds and loosest > LOOSE_LOSS:
        holds, note = None, "the errors leave the weights open"
    if holds is False and reduction == "mean":
        note += _factor_note(loss, width, float(weights.sum()), float(allowed.max()))
    value = float(max(off.max(), rest.max() if width > 1 else 0.0))
    return Check(name, holds, value, loosest, equations, note), counts


def _factor_note(loss: str, width: int, total: float, allowed: float) -> str:
    """Say when the weights sum to what torch's average over the outputs too leaves of 1."""
    name, factor = ("MSELoss", 2.0 / width) if loss == "squared" else ("BCELoss", 1.0 / width)
    if loss == "cross_entropy" or factor == 1.0 or abs(total / factor - 1.0) > allowed:
        return ""
    return f"the weights sum to {factor:.4g}, as torch's {name} makes them: leave reduction out"


def _count_note(counts: FloatArray, allowed: FloatArray) -> str:
    heavy = np.flatnonzero(np.abs(counts - 1.0) > 2.0 * allowed + allowed.max())
    shown = ", ".join(f"sample {i + 1} counts {counts[i]:.3g} times" for i in heavy[:5])
    return shown + (f" and {len(heavy) - 5} more" if len(heavy) > 5 else "")
