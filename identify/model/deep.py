"""Networks of any depth: linear layers with elementwise activations between them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.model.activations import Activation, parse_activation


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass of n samples.

    ``inputs[l]`` (n, k_l) enters linear layer l, ``preactivations[l]`` (n, m_l) leaves it; the
    last of these are the network's outputs.
    """

    inputs: tuple[FloatArray, ...]
    preactivations: tuple[FloatArray, ...]

    @property
    def outputs(self) -> FloatArray:
        """The outputs f, shape (n, C)."""
        return self.preactivations[-1]


@dataclass(frozen=True, eq=False, repr=False)
class DeepGradient:
    """The gradient of a batch's loss, layer by layer; None for what is not known.

    ``weights[l]`` (m_l, k_l) and ``biases[l]`` (m_l,) belong to linear layer l. Arrays are copied
    to float64 and read-only.

    Raises InvalidInputError for numbers that are not finite or real, and shapes that do not fit.

    Example:
        >>> DeepGradient([[[1.0, 2.0]], [[3.0]]], [[4.0], None]).layer(0)
        array([[1., 2., 4.]])
    """

    weights: tuple[FloatArray | None, ...]
    biases: tuple[FloatArray | None, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.biases):
            raise InvalidInputError("biases", f"{len(self.weights)} entries", len(self.biases))
        weights = tuple(_optional(f"weights[{i}]", w, 2) for i, w in enumerate(self.weights))
        biases = tuple(_optional(f"biases[{i}]", b, 1) for i, b in enumerate(self.biases))
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            if weight is not None and bias is not None and len(bias) != len(weight):
                raise InvalidInputError(f"biases[{index}]", f"shape ({len(weight)},)", bias.shape)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    def __repr__(self) -> str:
        shapes = ", ".join("None" if w is None else str(w.shape) for w in self.weights)
        return f"DeepGradient({shapes})"

    def sha256(self) -> str:
        """Hash the arrays that are there as little-endian float64, whatever file they came from.

        Example:
            >>> DeepGradient([[[2.0]]], [None]).sha256()[:12]
            '29c398a7150b'
        """
        return _digest("gradient", self.weights, self.biases)

    def layer(self, index: int) -> FloatArray | None:
        """Return [grad_W | grad_beta] of a layer, shape (m, k + 1), or (m, k) without a bias."""
        weight, bias = self.weights[index], self.biases[index]
        if weight is None or bias is None:
            return weight
        return np.column_stack([weight, bias])


@dataclass(frozen=True, eq=False, repr=False)
class DeepNetwork:
    """A network f(x) = W_L s_(L-1)(... s_1(W_1 x + b_1) ...) + b_L in float64.

    ``weights[l]`` (m_l, k_l) with k_(l+1) = m_l; ``biases[l]`` (m_l,) or None; ``activations`` one
    for each layer but the last, or one for all of them, as an `Activation` or its text. One layer
    without an activation is a linear classifier. ``names`` are those of the layers in files,
    ``layers.0``, ``layers.1``, ... by default. Arrays are copied and read-only.

    Raises InvalidInputError for shapes that do not fit and numbers that are not finite or real.

    Example:
        >>> network = DeepNetwork([[[1.0, -1.0], [2.0, 0.0]], [[1.0, 1.0]]], None, "relu")
        >>> network
        DeepNetwork(2-2-1, relu)
        >>> network.value([[1.0, 3.0]])
        array([[2.]])
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray | None, ...]
    activations: tuple[Activation, ...]
    names: tuple[str, ...]

    def __init__(
        self,
        weights: Sequence[npt.ArrayLike],
        biases: Sequence[npt.ArrayLike | None] | None,
        activations: str | Activation | Sequence[str | Activation],
        names: Sequence[str] | None = None,
    ) -> None:
        if len(weights) == 0:
            raise InvalidInputError("weights", "at least one layer", "none")
        matrices = tuple(_real(f"weights[{i}]", w, 2) for i, w in enumerate(weights))
        for index, (below, above) in enumerate(itertools.pairwise(matrices)):
            if above.shape[1] != below.shape[0]:
                raise InvalidInputError(
                    f"weights[{index + 1}]", f"{below.shape[0]} columns", above.shape
                )
        if biases is None:
            biases = [None] * len(matrices)
        if len(biases) != len(matrices):
            raise InvalidInputError("biases", f"{len(matrices)} entries", len(biases))
        vectors = tuple(_optional(f"biases[{i}]", b, 1) for i, b in enumerate(biases))
        for index, (weight, bias) in enumerate(zip(matrices, vectors, strict=True)):
            if bias is not None and len(bias) != len(weight):
                raise InvalidInputError(f"biases[{index}]", f"shape ({len(weight)},)", bias.shape)
        object.__setattr__(self, "weights", matrices)
        object.__setattr__(self, "biases", vectors)
        object.__setattr__(self, "activations", _activations(activations, len(matrices) - 1))
        known = [f"layers.{i}" for i in range(len(matrices))] if names is None else list(names)
        if len(known) != len(matrices):
            raise InvalidInputError("names", f"{len(matrices)} entries", len(known))
        object.__setattr__(self, "names", tuple(known))

    def __repr__(self) -> str:
        sizes = "-".join(str(size) for size in (self.dimension, *self.widths, self.outputs))
        kinds = ", ".join(dict.fromkeys(map(str, self.activations)))
        return f"DeepNetwork({sizes}{', ' + kinds if kinds else ''})"

    @property
    def depth(self) -> int:
        """The number L of linear layers."""
        return len(self.weights)

    @property
    def dimension(self) -> int:
        """The dimension of a sample."""
        return int(self.weights[0].shape[1])

    @property
    def outputs(self) -> int:
        """The number C of outputs."""
        return len(self.weights[-1])

    def sha256(self) -> str:
        """Hash activations and arrays as little-endian float64, whatever file they came from.

        Example:
            >>> DeepNetwork([[[2.0]]], None, "relu").sha256()[:12]
            '8f5f20121162'
        """
        return _digest(" ".join(map(str, self.activations)), self.weights, self.biases)

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the hidden layers."""
        return tuple(len(weight) for weight in self.weights[:-1])

    def forward(self, samples: npt.ArrayLike, first: int = 0) -> Pass:
        """Run samples (n, d) through the network, or inputs (n, k) of layer ``first`` upwards.

        Entries of the result below layer ``first`` are left out.

        Raises InvalidInputError for a wrong shape. Cost: n sum_l m_l k_l multiplications.

        Example:
            >>> DeepNetwork([[[2.0]], [[1.0]]], None, "relu").forward([[3.0]]).outputs
            array([[6.]])
        """
        h = _real("samples", samples, 2)
        if h.shape[1] != self.weights[first].shape[1]:
            raise InvalidInputError("samples", f"{self.weights[first].shape[1]} columns", h.shape)
        inputs, preactivations = [], []
        for index in range(first, self.depth):
            bias = self.biases[index]
            z = h @ self.weights[index].T
            z = z if bias is None else z + bias
            inputs.append(h)
            preactivations.append(z)
            if index < self.depth - 1:
                h = self.activations[index].value(z)
        return Pass(tuple(inputs), tuple(preactivations))

    def value(self, samples: npt.ArrayLike) -> FloatArray:
        """Return the outputs f, shape (n, C); see `forward`."""
        return self.forward(samples).outputs

    def backward(self, run: Pass, cotangents: npt.ArrayLike) -> tuple[FloatArray, ...]:
        """Return delta_l = d loss / d z_l of every sample, (n, m_l), for the layers of ``run``.

        ``cotangents`` p = d loss / d f, shape (n, C). delta_L = p and
        delta_l = s_l'(z_l) * (delta_(l+1) W_(l+1)).

        Raises InvalidInputError for a wrong shape. Cost: as `forward`.

        Source: the chain rule; autograd agrees in the tests.

        Example:
            >>> network = DeepNetwork([[[2.0]], [[5.0]]], None, "relu")
            >>> network.backward(network.forward([[3.0]]), [[1.0]])[0]
            array([[5.]])
        """
        delta = _real("cotangents", cotangents, 2)
        if delta.shape != run.outputs.shape:
            raise InvalidInputError("cotangents", f"shape {run.outputs.shape}", delta.shape)
        first = self.depth - len(run.preactivations)
        deltas = [delta]
        for index in range(self.depth - 2, first - 1, -1):
            slope = self.activations[index].slope(run.preactivations[index - first])
            delta = slope * (delta @ self.weights[index + 1])
            deltas.append(delta)
        return tuple(reversed(deltas))

    def gradient(self, samples: npt.ArrayLike, cotangents: npt.ArrayLike) -> DeepGradient:
        """Return sum_i delta_i h_i^T and sum_i delta_i of every layer, for p_i = ``cotangents``.

        Layers without a bias have None there.

        Raises InvalidInputError for wrong shapes. Cost: 3 n sum_l m_l k_l multiplications.

        Example:
            >>> network = DeepNetwork([[[2.0]], [[5.0]]], None, "relu")
            >>> network.gradient([[3.0]], [[1.0]]).weights[0]
            array([[15.]])
        """
        run = self.forward(samples)
        deltas = self.backward(run, cotangents)
        weights = tuple(delta.T @ h for delta, h in zip(deltas, run.inputs, strict=True))
        biases = tuple(
            None if bias is None else delta.sum(axis=0)
            for delta, bias in zip(deltas, self.biases, strict=True)
        )
        return DeepGradient(weights, biases)

    def jvp(self, run: Pass, tangents: npt.ArrayLike) -> tuple[FloatArray, ...]:
        """Return d z_l along tangents (n, k) of the inputs of ``run``, (n, m_l) for every layer.

        Raises InvalidInputError for a wrong shape. Cost: as `forward`.

        Example:
            >>> network = DeepNetwork([[[2.0]], [[5.0]]], None, "monomial:2")
            >>> network.jvp(network.forward([[3.0]]), [[1.0]])[-1]
            array([[120.]])
        """
        tangent = _real("tangents", tangents, 2)
        if tangent.shape != run.inputs[0].shape:
            raise InvalidInputError("tangents", f"shape {run.inputs[0].shape}", tangent.shape)
        first = self.depth - len(run.preactivations)
        moved = []
        for index in range(first, self.depth):
            change = tangent @ self.weights[index].T
            moved.append(change)
            if index < self.depth - 1:
                z = run.preactivations[index - first]
                tangent = self.activations[index].slope(z) * change
        return tuple(moved)


def _activations(
    given: str | Activation | Sequence[str | Activation], count: int
) -> tuple[Activation, ...]:
    one = isinstance(given, str | Activation)
    several = [given] * count if isinstance(given, str | Activation) else list(given)
    if len(several) != count:
        raise InvalidInputError(
            "activations", f"{count} of them, one for each layer but the last", len(several),
            "--activation takes one name for all layers, or one for each with commas",
        )  # fmt: skip
    parsed = tuple(a if isinstance(a, Activation) else parse_activation(a) for a in several)
    if one and not parsed and isinstance(given, str):
        parse_activation(given)
    return parsed


def _digest(
    head: str, weights: Sequence[FloatArray | None], biases: Sequence[FloatArray | None]
) -> str:
    digest = hashlib.sha256(f"{head}\n".encode())
    for kind, arrays in (("weight", weights), ("bias", biases)):
        for index, array in enumerate(arrays):
            if array is not None:
                digest.update(f"{kind} {index} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def _real(name: str, value: npt.ArrayLike, dimensions: int) -> FloatArray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(name, "a rectangular array", "rows of several lengths") from error
    if array.dtype.kind not in "fiu":
        raise InvalidInputError(name, "real numbers", f"dtype {array.dtype}")
    if array.ndim != dimensions or 0 in array.shape:
        raise InvalidInputError(name, f"{dimensions} dimensions, none of them 0", array.shape)
    array = np.array(array, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InvalidInputError(name, "finite numbers", "NaN or infinity")
    array.setflags(write=False)
    return array


def _optional(name: str, value: npt.ArrayLike | None, dimensions: int) -> FloatArray | None:
    return None if value is None else _real(name, value, dimensions)
