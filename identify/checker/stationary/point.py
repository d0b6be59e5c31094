"""The network that a stationary point is read as, and the gradient that its weights are.

At a stationary point [w_j, beta_j] = a_j sum_i b_i s'(z_ij) [x_i, 1]: minus the weights are the
gradient of a loss with the slopes -b_i at the outputs, up to the decay.
"""

from __future__ import annotations

import numpy as np

from ..deep.network import Layers
from ..outcome import FloatArray, NotCheckableError, require
from .report import KKT

SUM_LIMIT = 0.1
_ROOT2 = float(np.sqrt(2.0))


def layers_of(network: Layers) -> tuple[FloatArray, FloatArray]:
    """The two weights; NotCheckableError for another depth."""
    if len(network.weights) != 2 or network.weights[0] is None or network.weights[1] is None:
        raise NotCheckableError("a network of other than two layers")
    return network.weights[0], network.weights[1]


def check_outputs(network: Layers, source: str, *, both: bool) -> None:
    """Refute what has no such stationary point.

    A KKT point has one or two outputs and no output bias. Both layers trained, the weights of two
    outputs are opposite.
    """
    if source != KKT:
        return
    output = layers_of(network)[1]
    require(len(output) <= 2, f"a KKT point of {len(output)} outputs")
    bias = network.biases[1]
    require(bias is None or not bias.any(), "a KKT point with an output bias")
    if len(output) == 2 and both:
        total = float(np.linalg.norm(output))
        share = float(np.linalg.norm(output[0] + output[1])) / _ROOT2 / max(total, 1e-300)
        require(share <= SUM_LIMIT, f"the weights of two outputs whose sum is {share:.1e} of them")


def read_margin(network: Layers, source: str) -> Layers:
    """For a KKT point of two outputs the network of the one (f_1 - f_0) / sqrt(2)."""
    first, output = layers_of(network)
    if source != KKT or len(output) != 2:
        return network
    head = np.asarray((output[1:] - output[:1]) / _ROOT2)
    return Layers((first, head), (network.biases[0], None), network.names)


def own_gradient(network: Layers, *, both: bool) -> Layers:
    """Minus the weights; without the output layer's where it is fixed, and never with its bias."""
    first, output = layers_of(network)
    bias = network.biases[0]
    return Layers((-first, -output if both else None), (None if bias is None else -bias, None))


def lifted(network: Layers) -> FloatArray:
    """[W, beta] of the hidden layer, or W without a bias."""
    first, bias = layers_of(network)[0], network.biases[0]
    return first if bias is None else np.column_stack([first, bias])
