"""Find the two layers of a network, its activation and its degree in what a file holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from identify.errors import FileError, InvalidInputError, UnsupportableModelError, listed, one_line
from identify.model.activations import plain_activation
from identify.model.other_layers import other_layers

SCOPE = (
    "the verifier covers two-layer monomial networks with one output and, with --activation relu "
    "(or gelu, tanh, ...), one gradient of networks of linear layers; with relu also the weights "
    "of two layers"
)
_MONOMIAL: tuple[float, ...] = ()


@dataclass(frozen=True)
class LayerNames:
    """The names under which the arrays of a two-layer network are stored.

    Example:
        >>> LayerNames("fc1.weight", "fc2.weight", "fc1.bias", None).present()
        ('fc1.weight', 'fc2.weight', 'fc1.bias')
    """

    hidden: str
    output: str
    hidden_bias: str | None
    output_bias: str | None

    def present(self) -> tuple[str, ...]:
        """Return the names that are there."""
        names = (self.hidden, self.output, self.hidden_bias, self.output_bias)
        return tuple(name for name in names if name is not None)


def find_layers(
    path: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layers: str | None = None,
    ordered: bool = True,
) -> LayerNames:
    """Decide which arrays are the hidden and the output layer.

    ``layers="HIDDEN,OUTPUT"`` decides; else the names ``hidden.weight`` and ``output.weight``; else
    exactly two matrices, in the only order that fits their shapes, or in the order of the file if
    both fit and ``ordered``. Names may be given without what precedes them in the file, such as
    ``model.``. In a list (``arr_0``, ``arr_1``, ...) a bias follows its matrix. Nothing may be left
    over: a third layer would change the function.

    Raises UnsupportableModelError for more layers, InvalidInputError for names that are absent,
    FileError for shapes that do not fit together. The cost is linear in the number of names.

    Example:
        >>> find_layers("net.pt", {"0.weight": (5, 3), "0.bias": (5,), "2.weight": (1, 5)})
        LayerNames(hidden='0.weight', output='2.weight', hidden_bias='0.bias', output_bias=None)
    """
    if layers is not None:
        hidden, output = (_layer_weight(name, shapes, path) for name in _two_names(layers))
    elif "hidden.weight" in shapes and "output.weight" in shapes:
        hidden, output = "hidden.weight", "output.weight"
    else:
        hidden, output = _by_shape(path, shapes, ordered)
    biases = [_bias_of(weight, shapes, other) for weight, other in
              ((hidden, output), (output, hidden))]  # fmt: skip
    names = LayerNames(hidden, output, *biases)
    left = [name for name in shapes if name not in names.present()]
    if left:
        others = other_layers(shapes, ordered=ordered)
        what = listed(left) if others is None else str(others)
        rest = f"{SCOPE}; save the two layers alone if the rest is no part of the network"
        raise UnsupportableModelError(
            f"{path}: besides the layers {hidden} and {output} the network has {what}",
            rest if others is None else others.advice() or rest,
        )
    _check_shapes(path, shapes, names)
    return names


def resolve_activation(
    path: str,
    settings: Mapping[str, object],
    *,
    degree: int | None,
    activation: str | Sequence[float] | None,
) -> tuple[int, tuple[float, ...] | None]:
    """Combine what a file says about activation and degree with the caller's options.

    Returns the degree and the coefficients c_0 ... c_degree, or None for the monomial t^degree.

    Raises InvalidInputError if the degree is missing or contradicted, UnsupportableModelError for
    an activation that is no polynomial.

    Example:
        >>> resolve_activation("a.npz", {"degree": 3}, degree=None, activation=None)
        (3, None)
        >>> resolve_activation("a.npz", {}, degree=None, activation="0,1,0.5")
        (2, (0.0, 1.0, 0.5))
    """
    degrees: dict[str, int] = {}
    kinds: dict[str, tuple[float, ...]] = {}
    given = {"the file": (settings.get("degree"), settings.get("activation")),
             "the option": (degree, activation)}  # fmt: skip
    for source, (power, kind) in given.items():
        if power is not None:
            degrees[f"degree of {source}"] = _whole(power, path)
        if kind is not None:
            kinds[source], implied = _coefficients(kind, path)
            if implied is not None:
                degrees[f"activation of {source}"] = implied
    if len(set(kinds.values())) > 1:
        raise InvalidInputError(
            "activation",
            f"{spell_activation(kinds['the file'])} as {path} says",
            spell_activation(kinds["the option"]),
            "leave the option out",
        )
    if not degrees:
        raise InvalidInputError(
            "degree",
            f"the power of the activation, in {path} or as an option",
            "none",
            "give --degree A (in Python degree=A), or --activation relu for a gradient of a ReLU "
            "network",
        )
    if len(set(degrees.values())) > 1:
        said = ", ".join(f"{value} from the {source}" for source, value in degrees.items())
        raise InvalidInputError("degree", "one value", said, f"correct the option or {path}")
    coefficients = next(iter(kinds.values()), _MONOMIAL)
    return next(iter(degrees.values())), coefficients or None


def _two_names(layers: str) -> tuple[str, str]:
    names = [name.strip() for name in layers.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise InvalidInputError(
            "layers", "two different names HIDDEN,OUTPUT", repr(layers), "for example fc1,fc2"
        )
    return names[0], names[1]


def _layer_weight(name: str, shapes: Mapping[str, tuple[int, ...]], path: str) -> str:
    for candidate in (f"{name}.weight", name):
        if candidate in shapes:
            return candidate
        ends = [key for key in shapes if key.endswith(f".{candidate}")]
        if len(ends) == 1:
            return ends[0]
    present = dict.fromkeys(key.removesuffix(".weight").removesuffix(".bias") for key in shapes)
    raise InvalidInputError("layers", f"names among {listed(present)} in {path}", repr(name))


def _by_shape(path: str, shapes: Mapping[str, tuple[int, ...]], ordered: bool) -> tuple[str, str]:
    listing = in_order(shapes)
    weights = [n for n in listing or shapes
               if (listing or n.endswith(".weight")) and len(shapes[n]) >= 2]  # fmt: skip
    kernels = [name for name in weights if len(shapes[name]) > 2]
    if kernels:
        others = other_layers(shapes, ordered=ordered)
        named = f"convolutions {listed(kernels)}" if others is None else str(others)
        raise UnsupportableModelError(
            f"{path}: the network has {named}, which are not covered",
            SCOPE if others is None else others.advice() or SCOPE,
        )
    if len(weights) > 2:
        raise UnsupportableModelError(
            f"{path}: the network has the layers {listed(weights)}",
            f"{SCOPE}; save the two layers alone if the rest is no part of the network",
        )
    if len(weights) < 2 and {"samples", "images"} & set(shapes):
        raise FileError(
            path, f"holds {listed(shapes)}: samples, and no network", "give the network's file"
        )
    if len(weights) < 2:
        raise FileError(
            path,
            "has no hidden.weight and output.weight",
            f"name the two layers with --layers HIDDEN,OUTPUT; it holds {listed(shapes)}",
        )
    first, second = weights
    forward = shapes[second][1] == shapes[first][0]
    backward = shapes[first][1] == shapes[second][0]
    if forward and backward and not ordered:
        raise FileError(
            path,
            f"does not say which of {first} and {second} comes first",
            "give --layers HIDDEN,OUTPUT",
        )
    return (second, first) if backward and not forward else (first, second)


def in_order(shapes: Mapping[str, tuple[int, ...]]) -> list[str] | None:
    """Return the names of a list of arrays, arr_0 to arr_N, in order; None for other files.

    Example:
        >>> in_order({"arr_1": (2,), "arr_0": (1,)}), in_order({"arr_0": (1,), "w": (1,)})
        (['arr_0', 'arr_1'], None)
    """
    names = [f"arr_{k}" for k in range(len(shapes))]
    return names if names and set(names) == set(shapes) else None


def _bias_of(weight: str, shapes: Mapping[str, tuple[int, ...]], other: str) -> str | None:
    listing = in_order(shapes)
    if listing:
        after = listing[listing.index(weight) + 1 :][:1]
        return after[0] if after and after[0] != other and len(shapes[after[0]]) == 1 else None
    bias = f"{weight.removesuffix('.weight')}.bias"
    return bias if bias in shapes else None


def _check_shapes(path: str, shapes: Mapping[str, tuple[int, ...]], names: LayerNames) -> None:
    hidden, output = shapes[names.hidden], shapes[names.output]
    problem = None
    if len(hidden) != 2 or 0 in hidden:
        problem = f"{names.hidden} has shape {hidden}, expected (m, d)"
    elif len(output) not in (1, 2) or 0 in output or output[-1] != hidden[0]:
        problem = f"{names.output} has shape {output}, expected (C, {hidden[0]}) or ({hidden[0]},)"
    else:
        outputs = output[0] if len(output) == 2 else 1
        for bias, length in ((names.hidden_bias, hidden[0]), (names.output_bias, outputs)):
            if bias is not None and shapes[bias] != (length,):
                problem = f"{bias} has shape {shapes[bias]}, expected ({length},)"
    if problem:
        raise FileError(path, problem, "the arrays belong to no two-layer network")


def _whole(value: object, path: str) -> int:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        if isinstance(value, str | bytes):
            return int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise InvalidInputError("degree", f"an integer in {path} or as an option", _cut(value))


def _coefficients(value: object, path: str) -> tuple[tuple[float, ...], int | None]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        value = plain_activation(value)
        if value.strip().lower() == "monomial":
            return _MONOMIAL, None
        value = value.split(",")
    try:
        numbers = tuple(float(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        name = ",".join(value) if isinstance(value, list) and _all_text(value) else value
        word = str(name).strip()
        what = "is not known" if word[:1].isalpha() and "," not in word else "is no polynomial"
        raise UnsupportableModelError(
            f"{path}: the activation {_cut(name)} {what}",
            f"{SCOPE}; for others expected monomial, or the coefficients C0,C1,...",
        ) from None
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)) or numbers[-1] == 0:
        raise InvalidInputError(
            "activation",
            "finite coefficients C0,C1,... with a last one that is not 0",
            _cut(value),
        )
    implied = len(numbers) - 1
    return (_MONOMIAL if is_monomial(numbers) else numbers), implied


def is_monomial(coefficients: Sequence[float]) -> bool:
    """Tell whether the coefficients are those of t^k with k >= 3.

    Example:
        >>> is_monomial((0, 0, 0, 1)), is_monomial((0, 0, 0, 2))
        (True, False)
    """
    return len(coefficients) > 3 and coefficients[-1] == 1 and not any(coefficients[:-1])


def _all_text(parts: list[object]) -> bool:
    return all(isinstance(part, str) for part in parts)


def spell_activation(coefficients: Sequence[float]) -> str:
    """Write an activation as files do: ``monomial`` without coefficients, else all their digits.

    Example:
        >>> spell_activation(()), spell_activation((0.0, 0.1))
        ('monomial', '0.0,0.1')
    """
    return ",".join(repr(float(c)) for c in coefficients) or "monomial"


def _cut(value: object) -> str:
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."
