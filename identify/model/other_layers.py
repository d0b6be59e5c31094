"""What a file holds beside linear layers, and which of them can be read without the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from identify.errors import listed

NORMALISED, KERNELS, SCALED, OTHERS = (
    "batch normalisation", "convolution", "normalisation", "further arrays",
)  # fmt: skip
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class OtherLayers:
    """The layers of a file that are not linear.

    ``kinds`` lists them by kind. ``tail`` are the linear layers behind all of them, in order, if
    there are two or more; ``linear`` all linear ones. ``between`` are those that surely stand
    between linear layers or behind them.
    """

    kinds: Mapping[str, tuple[str, ...]]
    linear: tuple[str, ...]
    tail: tuple[str, ...]
    between: tuple[str, ...]

    def __str__(self) -> str:
        words = []
        for kind, names in self.kinds.items():
            plural = "s" if len(names) > 1 and kind != OTHERS else ""
            article = "" if kind == OTHERS else "the "
            words.append(f"{article}{kind}{plural} {listed(names)}")
        return " and ".join(words)

    @property
    def options(self) -> tuple[str, ...]:
        """The options that read the linear layers behind the others; none without such layers."""
        if not self.tail:
            return ()
        whole = self.tail == self.linear and not self.between
        return ("--head",) if whole else ("--head", "--layers", ",".join(self.tail))

    def advice(self) -> str:
        """What to do about them, in one line."""
        said = []
        if self.options:
            said.append(
                f"{' '.join(self.options)} reads {listed(self.tail)} alone from a gradient, and "
                "the samples are then the features that enter them"
            )
        norms = [name for name in self.kinds.get(NORMALISED, ()) if name in self.between]
        if norms:
            said.append(
                f"batch normalisation {listed(norms)} mixes the samples of a batch in train mode, "
                "which is not covered; in eval mode fold it into the layer before: each row times "
                "s = weight / sqrt(running_var + eps), and that row of the gradient divided by s"
            )
        return "; ".join(said)


def other_layers(shapes: Shapes, *, ordered: bool, begins: str | None = None) -> OtherLayers | None:
    """Sort the layers of a state_dict by what they are; None where all are linear, or for a list.

    ``ordered`` says that the names stand in the order of the network; else their numbers tell it if
    the names have nothing else. ``begins`` is the linear layer with which the network begins, by
    default the first.

    Example:
        >>> shapes = {"conv.weight": (8, 1, 3, 3), "bn.weight": (8,), "bn.running_mean": (8,),
        ...           "fc1.weight": (9, 64), "fc1.bias": (9,), "fc2.weight": (2, 9)}
        >>> found = other_layers(shapes, ordered=True)
        >>> print(found, found.options)
        the convolution conv and the batch normalisation bn ('--head',)
    """
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        layer, _, part = name.rpartition(".")
        parts.setdefault(layer, {})[part] = shape
    names = list(parts)
    if not ordered:
        names = _by_number(names)
    known = ordered or names != list(parts) or all(part.isdigit() for part in names)
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind = _kind(name, parts[name])
        arrays = [f"{name}.{part}".strip(".") for part in parts[name]]
        kinds.setdefault(kind, []).extend(arrays if kind == OTHERS else [name])
    linear = kinds.pop("", [])
    if not kinds or not linear:
        return None
    rest = [name for name in names if name not in linear]
    first, last = names.index(begins if begins in names else linear[0]), max(map(names.index, rest))
    tail = [name for name in linear if names.index(name) > last] if known else linear
    between = tuple(name for name in rest if known and names.index(name) > first)
    sizes = [parts[name]["weight"] for name in tail]
    fits = all(after[1] == before[0] for before, after in pairwise(sizes))
    return OtherLayers(
        {kind: tuple(found) for kind, found in kinds.items()}, tuple(linear),
        tuple(tail) if len(tail) > 1 and fits else (), between,
    )  # fmt: skip


def _kind(layer: str, parts: Mapping[str, tuple[int, ...]]) -> str:
    """The kind of a layer by the names and shapes of its arrays; "" for a linear one."""
    if any(name in parts for name in _STATISTICS):
        return NORMALISED
    weight = parts.get("weight")
    if weight is None or not set(parts) <= {"weight", "bias"}:
        return OTHERS
    if len(weight) == 2 or (len(weight) == 1 and layer == "output"):
        return ""
    return SCALED if len(weight) == 1 else KERNELS if len(weight) > 2 else OTHERS


def _by_number(names: Sequence[str]) -> list[str]:
    """The names by their numbers, where they are alike but for these; else as they are."""
    if len({re.sub(r"\d+", "#", name) for name in names}) > 1:
        return list(names)
    return sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
