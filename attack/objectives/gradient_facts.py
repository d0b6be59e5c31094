"""What the gradient of a batch says before any attack: its number of samples and their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attack.networks.network import Network
from identify.errors import InvalidInputError


def samples_in(gradient: Sequence[Tensor]) -> int:
    """Return the numerical rank of the first layer's gradient: at least as many samples made it.

    Singular values below the rounding of the dtype times the larger side count as 0.

    Raises InvalidInputError for a gradient of zeros.

    Example:
        >>> samples_in([torch.ones(3, 2), torch.ones(3)])
        1
    """
    if not any(bool(torch.any(part != 0)) for part in gradient):
        raise InvalidInputError("gradient", "a gradient that is not zero", "zeros alone")
    first = gradient[0]
    unit = torch.finfo(first.dtype).eps
    sizes = torch.linalg.svdvals(first.detach().to("cpu", torch.float64)).numpy()
    # Gradients are often stored more coarsely than they are computed with here.
    limit = max(unit, torch.finfo(torch.float32).eps) * max(first.shape) * sizes[0]
    return max(1, int(np.count_nonzero(sizes > limit)))


def labels_from_bias(
    network: Network, gradient: Sequence[Tensor], loss: str | None, count: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """Read the labels of a batch off the gradient of the last bias; None where that is not there.

    For cross-entropy that gradient is the mean of p_ic - [y_i = c], and for the logistic loss that
    of sigma(f_i) - [y_i = 1]: with p of the network at 0 for the unknown p_i the numbers of samples
    of each class follow, and for one sample its class alone has a negative entry. For the squared
    loss nothing follows.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> net = parse_spec("2-3-3,tanh,bias=all").initialise(seed=0)
        >>> parts = [torch.zeros_like(p) for p in net.parameters()]
        >>> parts[-1] = torch.tensor([0.2, -0.9, 0.7])
        >>> labels_from_bias(net, parts, "cross-entropy", 1)
        array([1.])
    """
    if network.biases[-1] is None or loss not in ("cross-entropy", "logistic"):
        return None
    # Parameters are ordered layer by layer, weight before bias.
    slope = gradient[-1].detach().to("cpu", torch.float64).numpy().reshape(-1)
    zero = torch.zeros(1, network.dimension, dtype=network.dtype, device=network.device)
    output = network(zero).detach().to("cpu", torch.float64).numpy().reshape(-1)
    if loss == "logistic":
        share = np.array([1.0 / (1.0 + np.exp(-np.clip(output[0], -700.0, 700.0)))])
        share, slope = np.append(1.0 - share, share), np.append(-slope, slope)
    else:
        share = np.exp(output - output.max())
        share /= share.sum()
    wanted = count * (share - slope)
    if count == 1:
        wanted = -slope
    numbers = np.zeros(len(slope), dtype=np.intp)
    for _ in range(count):
        numbers[np.argmax(wanted - numbers)] += 1
    labels = np.repeat(np.arange(len(slope), dtype=np.float64), numbers)
    return np.where(labels > 0, 1.0, -1.0) if loss == "logistic" else labels
