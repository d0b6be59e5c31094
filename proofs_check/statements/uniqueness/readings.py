"""The same explanation read otherwise: with a bias, by its margins, in single precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check.statements.uniqueness.explanations import Explained


def with_bias(instance: Explained) -> Explained:
    """The gradient of the same network with a random hidden bias."""
    data = instance.data
    rng = np.random.default_rng([instance.seed, 11])
    network = replace(data.network, hidden_bias=rng.standard_normal(data.network.width))
    gradient = network.gradient(instance.samples, instance.coefficients)
    return replace(instance, data=HermiteData.from_gradient(network, gradient))


def with_margins(instance: Explained) -> Explained | None:
    """The same data for lengths at which all |f(x_i)| agree, the largest length 1."""
    outputs = np.abs(instance.data.network.value(instance.samples))
    if outputs.min() < 1e-3 * outputs.max():
        return None
    lengths = outputs ** (-1.0 / instance.data.degree)
    lengths = lengths / float(np.max(lengths * np.linalg.norm(instance.samples, axis=1)))
    return replace(
        instance,
        samples=instance.samples * lengths[:, None],
        coefficients=instance.coefficients / lengths**instance.data.degree,
        scale="margin",
    )


def in_single_precision(instance: Explained) -> Explained:
    """What was read, the weights or the gradient, rounded to float32."""
    data = instance.data
    read = data.network if data.target is None else data.target

    def single(array: FloatArray) -> Any:
        return array.astype(np.float32)

    coarse = TwoLayerNetwork(
        single(read.hidden_weight),
        single(read.output_weight),
        data.degree,
        hidden_bias=None if read.hidden_bias is None else single(read.hidden_bias),
    )
    if data.source == "gradient":
        return replace(instance, data=HermiteData.from_gradient(data.network, coarse))
    again = HermiteData.from_kkt if data.source == "kkt" else HermiteData.from_weight_decay
    return replace(instance, data=again(coarse))
