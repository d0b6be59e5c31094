"""Losses of one sample and their slopes with respect to the network's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from identify.arrays import FloatArray
from identify.errors import InvalidInputError

LOSSES = ("cross_entropy", "logistic", "squared")
"""Names of the losses."""
_SPELLINGS = {
    "crossentropy": ("ce", "nll", "softmaxcrossentropy", "categoricalcrossentropy",
                     "sparsecategoricalcrossentropy"),
    "logistic": ("bce", "bcewithlogits", "binarycrossentropy", "binarycrossentropywithlogits",
                 "log"),
    "squared": ("mse", "l2", "square", "squarederror", "meansquarederror"),
    "exponential": ("exp",),
}  # fmt: skip
_WORDS = {spelling: word for word, known in _SPELLINGS.items() for spelling in (word, *known)}


def read_loss(name: str, known: Sequence[str] = LOSSES) -> str:
    """The word among `known` for a loss as it is called elsewhere, such as CrossEntropyLoss.

    Case, hyphens, underscores, a module in front and the word loss do not count; "mse" is
    "squared", "bce" and "bce_with_logits" are "logistic". Losses are meant up to a factor: torch
    averages (f - t)^2 over the outputs too, 2/C times the "squared" of here.

    Raises InvalidInputError for a name that means none of them.

    Example:
        >>> read_loss("torch.nn.CrossEntropyLoss"), read_loss("mse_loss"), read_loss("BCE")
        ('cross_entropy', 'squared', 'logistic')
        >>> read_loss("cross_entropy", ("logistic", "cross-entropy"))
        'cross-entropy'
    """
    if isinstance(name, str):
        word = _fold(name.rpartition(".")[2])
        word = _WORDS.get(word.removesuffix("loss"), word)
        for one in known:
            if _fold(one) == word:
                return one
    raise InvalidInputError("loss", f"one of {', '.join(known)}", name)


def _fold(name: str) -> str:
    return "".join(c for c in name.lower() if c not in "-_ ")


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
    loss = read_loss(loss)
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
    loss = read_loss(loss)
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
