"""Losses of one sample and their slopes with respect to the network's outputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from identify.arrays import FloatArray
from identify.errors import InvalidInputError

LOSSES = ("cross_entropy", "logistic", "squared")
"""Names of the losses."""


def loss_value(loss: str, outputs: FloatArray, targets: npt.ArrayLike) -> FloatArray:
    """Return the loss of every sample, shape (n,), for outputs f of shape (n, C).

    ``cross_entropy``: log sum_c exp(f_c) - f_y, targets y (n,) integers from 0 to C - 1.
    ``logistic``: sum_c log(1 + exp(-y_c f_c)), targets (n,) or (n, C) of -1 and 1.
    ``squared``: sum_c (f_c - t_c)^2 / 2, targets (n,) or (n, C).

    Raises InvalidInputError for an unknown loss and for targets that do not fit.

    Example:
        >>> loss_value("squared", np.array([[3.0]]), [1.0])
        array([2.])
    """
    target = _targets(loss, outputs, targets)
    if loss == "cross_entropy":
        chosen = outputs[np.arange(len(outputs)), target.astype(np.int64)]
        result: FloatArray = special.logsumexp(outputs, axis=1) - chosen
    elif loss == "logistic":
        result = np.logaddexp(0.0, -target * outputs).sum(axis=1)
    else:
        result = 0.5 * ((outputs - target) ** 2).sum(axis=1)
    return result


def loss_slope(loss: str, outputs: FloatArray, targets: npt.ArrayLike) -> FloatArray:
    """Return p = d loss / d f of every sample, shape (n, C); targets as in `loss_value`.

    Raises InvalidInputError for an unknown loss and for targets that do not fit.

    Example:
        >>> loss_slope("cross_entropy", np.array([[0.0, 0.0]]), [1])
        array([[ 0.5, -0.5]])
    """
    target = _targets(loss, outputs, targets)
    if loss == "cross_entropy":
        result: FloatArray = special.softmax(outputs, axis=1)
        result[np.arange(len(outputs)), target.astype(np.int64)] -= 1.0
    elif loss == "logistic":
        result = -target * special.expit(-target * outputs)
    else:
        result = outputs - target
    return result


def _targets(loss: str, outputs: FloatArray, targets: npt.ArrayLike) -> FloatArray:
    if loss not in LOSSES:
        raise InvalidInputError("loss", f"one of {', '.join(LOSSES)}", loss)
    target = np.asarray(targets, dtype=np.float64)
    count, width = outputs.shape
    if loss == "cross_entropy":
        if target.shape != (count,):
            raise InvalidInputError("targets", f"shape ({count},)", target.shape)
        if not np.isin(target, np.arange(width)).all():
            raise InvalidInputError("targets", f"integers from 0 to {width - 1}", "others")
        return target
    if target.shape == (count,) and width == 1:
        target = target[:, None]
    if target.shape != (count, width):
        raise InvalidInputError("targets", f"shape ({count}, {width})", target.shape)
    if loss == "logistic" and not (np.abs(target) == 1.0).all():
        raise InvalidInputError("targets", "-1 and 1", "others")
    return target
