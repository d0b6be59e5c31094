"""From a network and its gradient to the spaces of the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from identify.arrays import FloatArray
from identify.disaggregation.checks import relative_noise
from identify.disaggregation.factor import Factor, factor
from identify.disaggregation.problem import admissible_space
from identify.disaggregation.records import LayerRank
from identify.disaggregation.search.signals import Chain
from identify.disaggregation.search.spaces import Spaces
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.activations import Activation
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import LOSSES

SCOPE = (
    "give a network with at least one hidden layer and an activation that is not piecewise linear"
)
REDUCTIONS = ("mean", "sum")
_ROWS = 4
_MOST_LABELS = 64


@dataclass(frozen=True, eq=False)
class Posed:
    """The search's spaces with the factors of every hidden layer and of the output layer."""

    network: DeepNetwork
    gradient: DeepGradient
    factors: dict[int, Factor]
    spaces: Spaces

    @property
    def ranks(self) -> tuple[LayerRank, ...]:
        """The rank of every supplied layer."""
        return tuple(
            LayerRank(index, f.rank, f.gap, f.noise, relative_noise(f), f.clear)
            for index, f in sorted(self.factors.items())
        )

    @property
    def bias_slope(self) -> FloatArray | None:
        """The gradient of the output layer's bias, (C,), or None."""
        return self.gradient.biases[-1]


def pose(
    network: DeepNetwork,
    gradient: DeepGradient,
    loss: str | None,
    *,
    samples: int | None,
    seed: int,
) -> Posed:
    """Check the input, factorise every layer's gradient and choose the layers of the search.

    p is free: one vector a sample. `labelled` ties it to the cross-entropy instead.

    r is the largest rank of a hidden layer's gradient. The search begins at the lowest layer from
    which every hidden layer up to the last has its gradient, and has rank r itself; layers of
    smaller rank give no equations.

    Raises:
        InvalidInputError: shapes that do not fit, a gradient of zeros, an unknown loss.
        NotYetSupportedError: no hidden layer.
    """
    _validate(network, gradient, loss)
    factors: dict[int, Factor] = {}
    for index in range(network.depth):
        g = gradient.layer(index)
        if g is not None and g.any():
            known = None if samples is None else min(samples, *g.shape)
            known = None if index == network.depth - 1 else known
            factors[index] = factor(g, rank=known, seed=seed)
    top = network.depth - 2
    if top not in factors:
        raise InvalidInputError("gradient", f"the gradient of layer {top + 1}, not 0", "none")
    lowest = top
    while lowest - 1 in factors:
        lowest -= 1
    rank = max(factors[i].rank for i in range(lowest, top + 1))
    first = next(i for i in range(lowest, top + 1) if factors[i].rank == rank)
    spaces = _spaces(network, gradient, loss, factors, first)
    return Posed(network, gradient, factors, spaces)


def _validate(network: DeepNetwork, gradient: DeepGradient, loss: str | None) -> None:
    if loss is not None and loss not in LOSSES:
        raise InvalidInputError("loss", f"one of {', '.join(LOSSES)}", loss)
    if network.depth < 2:
        raise NotYetSupportedError("a network without a hidden layer is not yet covered", SCOPE)
    if loss == "cross_entropy" and network.outputs < 2:
        raise InvalidInputError("loss", "at least 2 outputs for cross_entropy", network.outputs)
    if len(gradient.weights) != network.depth:
        raise InvalidInputError("gradient", f"{network.depth} layers", len(gradient.weights))
    for index, weight in enumerate(gradient.weights):
        shape = network.weights[index].shape
        if weight is not None and weight.shape != shape:
            name = f"gradient of layer {index + 1}"
            raise InvalidInputError(name, f"shape {shape}", weight.shape)
        if gradient.biases[index] is not None and network.biases[index] is None:
            name = f"gradient of layer {index + 1}"
            raise InvalidInputError(name, "no bias", "a bias gradient")


def _spaces(
    network: DeepNetwork,
    gradient: DeepGradient,
    loss: str | None,
    factors: dict[int, Factor],
    first: int,
) -> Spaces:
    top = network.depth - 2
    bottom = factors[first]
    used = [factors[i] if factors[i].rank == bottom.rank else None for i in range(first, top + 1)]
    lifted = tuple(gradient.biases[i] is not None for i in range(first, top + 1))
    weight, bias = network.weights[first], network.biases[first]
    offset = np.zeros(len(weight))
    if lifted[0] and bias is not None:
        weight = np.column_stack([weight, bias])
    elif bias is not None:
        offset = np.asarray(bias)
    space = admissible_space(network, loss)
    powers = all(a.name == "monomial" for a in network.activations[first:])
    plain = all(bias is None for bias in network.biases[first : top + 1])
    offset_free = not offset.any() and not lifted[0]
    chain = Chain(
        network.weights[first + 1 :], network.biases[first + 1 :], network.activations[first:],
        space, False,
    )  # fmt: skip
    return Spaces(
        chain, first, tuple(used), tuple(None if f is None else f.columns for f in used), lifted,
        weight @ bottom.rows, offset, np.linalg.norm(network.weights[first], axis=1),
        bottom.rows[-1] if lifted[0] else None,
        powers and plain, plain and offset_free and _two_sided(chain.activations),
    )  # fmt: skip


def _two_sided(activations: Sequence[Activation]) -> bool:
    """Whether h and -h have one error signal: s' even, and s odd in the layers below the last."""
    z = np.linspace(0.1, 3.0, 9)
    even = all(np.allclose(a.slope(z), a.slope(-z), rtol=1e-12) for a in activations)
    return even and all(np.allclose(a.value(z), -a.value(-z)) for a in activations[:-1])


def labelled(spaces: Spaces) -> Spaces | None:
    """The spaces with p = softmax(f) - e_y for a label that is tried; None for too many labels."""
    if len(spaces.chain.space) > _MOST_LABELS:
        return None
    return replace(
        spaces, chain=replace(spaces.chain, labelled=True), homogeneous=False, two_sided=False
    )


def thinned(spaces: Spaces, rng: np.random.Generator) -> Spaces:
    """The spaces of four neurons an unknown, drawn at random, of a network with one hidden layer.

    A network that is not wider than that, or deeper, or whose outputs are needed for p, stays as
    it is. A zero of the whole is a zero
    of the part; the part decides where starts go, never what is accepted.
    """
    count = _ROWS * (spaces.rank + spaces.chain.free)
    columns = spaces.columns[0]
    whole = len(spaces.factors) > 1 or spaces.chain.labelled
    if whole or columns is None or len(columns) <= count:
        return spaces
    chosen = np.sort(rng.choice(len(columns), count, replace=False))
    chain = replace(
        spaces.chain, weights=(spaces.chain.weights[0][:, chosen], *spaces.chain.weights[1:])
    )
    return replace(
        spaces, chain=chain, columns=(columns[chosen],), rows_map=spaces.rows_map[chosen],
        offset=spaces.offset[chosen], row_sizes=spaces.row_sizes[chosen], subset=chosen,
    )  # fmt: skip


def permuted(spaces: Spaces, rng: np.random.Generator) -> Spaces:
    """Spaces that no batch explains: the rows of every U, and of V above, in a random order."""
    factors: list[Factor | None] = []
    for i, factor_ in enumerate(spaces.factors):
        if factor_ is None:
            factors.append(None)
            continue
        rows = factor_.rows if i == 0 else factor_.rows[_shuffle(factor_.rows, spaces, i, rng)]
        factors.append(
            replace(factor_, columns=rng.permutation(factor_.columns, axis=0), rows=rows)
        )
    columns = tuple(None if f is None else f.columns for f in factors)
    return replace(spaces, factors=tuple(factors), columns=columns)


def _shuffle(
    rows: FloatArray, spaces: Spaces, index: int, rng: np.random.Generator
) -> Sequence[int]:
    """An order of the rows of V in which a bias row stays the last."""
    count = len(rows) - int(spaces.lifted[index])
    return [*(int(i) for i in rng.permutation(count)), *range(count, len(rows))]
