"""The last hidden layer of a network with its gradient, checked and factorised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.checks import relative_noise
from identify.disaggregation.completion import Known, complete
from identify.disaggregation.factor import Factor, factor
from identify.disaggregation.masks import Layer
from identify.disaggregation.records import LayerRank
from identify.disaggregation.relu import Operator, build_operator
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.losses import LOSSES
from identify.thresholds import CLEAR

IntArray = npt.NDArray[np.int64]

SCOPE = "the last hidden activation must be relu or leaky_relu"
REDUCTIONS = ("mean", "sum")
_SAME_NOISE = 10.0


@dataclass(frozen=True, eq=False)
class Problem:
    """The last hidden layer with its gradient, and the ranks of all layers.

    ``known`` says what was sent of layers whose small entries were left out.

    ``space`` (C, q) spans the admissible p; p in its coordinates has shape (n, q).
    """

    network: DeepNetwork
    gradient: DeepGradient
    layer: Layer
    top: FloatArray
    factors: dict[int, Factor]
    space: FloatArray
    operator: Operator
    known: dict[int, Known]

    @property
    def factor(self) -> Factor:
        """The factorisation of the last hidden layer's gradient."""
        return self.factors[self.network.depth - 2]

    @property
    def ranks(self) -> tuple[LayerRank, ...]:
        """The rank of every supplied layer."""
        return tuple(
            LayerRank(index, f.rank, f.gap, f.noise, relative_noise(f), f.clear)
            for index, f in sorted(self.factors.items())
        )


def pose(
    network: DeepNetwork,
    gradient: DeepGradient,
    loss: str | None,
    reduction: str | None,
    *,
    samples: int | None,
    seed: int,
    budget: Budget = UNLIMITED,
) -> Problem:
    """Check the input and factorise every layer's gradient; see `disaggregate`."""
    _validate(network, gradient, loss, reduction)
    top = network.depth - 2
    gradient, known = complete(gradient, seed=seed, budget=budget)
    g = gradient.layer(top)
    if g is None:
        raise InvalidInputError("gradient", f"the gradient of layer {top + 1}", "none")
    given = None if samples is None else min(samples, *g.shape)
    found = factor(g, rank=given, seed=seed)
    if top in known:
        found = replace(found, noise=max(found.noise, known[top].noise))
    factors = {top: found} | _other_layers(gradient, top, found, seed)
    for index, part in known.items():
        if index in factors and part.filled:
            own = factors[index]
            factors[index] = replace(own, noise=max(own.noise, part.noise))
        elif index in factors and index != top:
            # What was cut out is no rank of the samples'.
            other = gradient.layer(index)
            assert other is not None
            factors[index] = factor(other, rank=min(found.rank, *other.shape), seed=seed)
    space = admissible_space(network, loss)
    bias = network.biases[top]
    weight = network.weights[top]
    amplitudes = network.weights[-1].T @ space
    if top in known:
        # Nothing is known of these rows, so they ask for nothing.
        amplitudes[known[top].dropped] = 0.0
    layer = Layer(
        weight,
        np.zeros(len(weight)) if bias is None else bias,
        amplitudes,
        float(network.activations[-1].kink or 0.0),
        bias is not None and gradient.biases[top] is not None,
    )
    operator = build_operator(found.columns, found.values, layer.amplitudes, layer.leak)
    return Problem(network, gradient, layer, g, factors, space, operator, known)


def scale_rows(problem: Problem, exponents: IntArray) -> Problem:
    """The problem with row j of the last hidden layer's gradient, and A_j, over 2^(e_j), exactly.

    Masks, slopes p and inputs h are the same. The problem itself where all exponents are 0.
    """
    if not exponents.any():
        return problem
    factors, rank = dict(problem.factors), problem.factor.rank
    top = np.ldexp(problem.top, -exponents[:, None])
    found = factor(top, rank=rank)
    factors[problem.network.depth - 2] = found
    amplitudes = np.ldexp(problem.layer.amplitudes, -exponents[:, None])
    layer = replace(problem.layer, amplitudes=amplitudes)
    operator = build_operator(found.columns, found.values, amplitudes, layer.leak)
    return replace(problem, layer=layer, top=top, factors=factors, operator=operator)


def _other_layers(gradient: DeepGradient, top: int, found: Factor, seed: int) -> dict[int, Factor]:
    """Factorise the other layers; what exceeds r only at the last hidden layer's noise is noise.

    Rounding errors of a small layer can have a rank of their own.
    """
    factors = {}
    for index in range(len(gradient.weights)):
        g = gradient.layer(index)
        if index == top or g is None or not g.any():
            continue
        chosen = factor(g, seed=seed)
        if found.rank < chosen.rank:
            trial = factor(g, rank=found.rank, seed=seed)
            allowed = _SAME_NOISE * relative_noise(found)
            if trial.gap >= CLEAR and trial.flat and relative_noise(trial) <= allowed:
                chosen = trial
        factors[index] = chosen
    return factors


def _validate(
    network: DeepNetwork, gradient: DeepGradient, loss: str | None, reduction: str | None
) -> None:
    if loss is not None and loss not in LOSSES:
        raise InvalidInputError("loss", f"one of {', '.join(LOSSES)}", loss)
    if reduction is not None and reduction not in REDUCTIONS:
        raise InvalidInputError("reduction", f"one of {', '.join(REDUCTIONS)}", reduction)
    if network.depth < 2:
        raise NotYetSupportedError("a network without a hidden layer is not yet covered", SCOPE)
    kink = network.activations[-1].kink
    if kink is None or abs(kink) >= 1.0:
        kind = str(network.activations[-1])
        raise NotYetSupportedError(f"{kind} before the output layer is not yet covered", SCOPE)
    if loss == "cross_entropy" and network.outputs < 2:
        raise InvalidInputError("loss", "at least 2 outputs for cross_entropy", network.outputs)
    if len(gradient.weights) != network.depth:
        raise InvalidInputError("gradient", f"{network.depth} layers", len(gradient.weights))
    for index, weight in enumerate(gradient.weights):
        shape = network.weights[index].shape
        if weight is not None and weight.shape != shape:
            raise InvalidInputError(
                f"gradient of layer {index + 1}", f"shape {shape}", weight.shape
            )
        if gradient.biases[index] is not None and network.biases[index] is None:
            raise InvalidInputError(f"gradient of layer {index + 1}", "no bias", "a bias gradient")


def admissible_space(network: DeepNetwork, loss: str | None) -> FloatArray:
    """An orthonormal basis (C, q) of the admissible p, without what the output layer cannot see.

    Raises InvalidInputError for an output layer of zeros.

    Example:
        >>> network = DeepNetwork([[[1.0], [2.0]], [[1.0, 0.0], [0.0, 1.0]]], None, "relu")
        >>> admissible_space(network, "cross_entropy").shape, admissible_space(network, None).shape
        ((2, 1), (2, 2))
    """
    outputs = network.outputs
    space = np.eye(outputs)
    if loss == "cross_entropy":
        space = np.linalg.svd(np.ones((1, outputs)))[2][1:].T
    _, values, turn = np.linalg.svd(network.weights[-1].T @ space, full_matrices=False)
    if values[0] == 0.0:
        raise InvalidInputError("output layer", "weights that are not all 0", "zeros")
    seen = values > 1e-10 * values[0]
    if seen.all() and len(seen) == space.shape[1]:
        return np.asarray(space, dtype=np.float64)
    return np.asarray(space @ turn[seen].T, dtype=np.float64)
