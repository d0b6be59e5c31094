"""The span to which the candidates of a run are kept: of two checkpoints, of a file, or none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attack.networks.network import Network
from attack.objectives.by_name import Victim
from attack.objectives.spans import AffineSpan
from identify.checkpoints.span import find_span, load_span
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork
from identify.model.tensor_file import PathLike

SpanLike = AffineSpan | PathLike
AUTO, OFF = "auto", "off"


@dataclass(frozen=True, eq=False)
class Restriction:
    """The span of a run, None for all pixels, and a line for a run that was asked for one.

    Example:
        >>> Restriction(None, "no gap").describe() is None
        True
    """

    span: AffineSpan | None
    note: str = ""

    def describe(self) -> dict[str, Any] | None:
        """Return what a run folder keeps to recognise the span."""
        return None if self.span is None else self.span.describe()


def take_span(given: SpanLike | None, victim: Victim, published: bool) -> Restriction:
    """Return the span that is asked for: "auto", "off", a file of `kktcert span`, or a span.

    "auto" is the row space of the first layer's change since ``victim.initial``, if a gap of its
    singular values decides the dimension; else there is none, and the note says why. None is
    "auto", and "off" for a ``published`` setting, whose source knows no span.

    Raises InvalidInputError for a span of another dimension, FileError for a file that is none.
    """
    if given is None:
        given = OFF if published else AUTO
    if isinstance(given, AffineSpan):
        return Restriction(given, f"{given.dimension} coordinates, given")
    if given == OFF:
        return Restriction(None)
    if given == AUTO:
        return _found(victim)
    basis, _, has_bias = load_span(given)
    wanted = victim.network.dimension
    if basis.shape[1] - has_bias != wanted:
        raise InvalidInputError(
            "span", f"points of dimension {wanted}", basis.shape[1] - has_bias,
            "give the span of this network's checkpoints",
        )  # fmt: skip
    span = AffineSpan.of_rows(basis, has_bias)
    return Restriction(span, f"{span.dimension} coordinates, of {os.path.basename(given)}")


def _found(victim: Victim) -> Restriction:
    """The span of the victim's own two checkpoints, if it shows."""
    if victim.initial is None:
        return Restriction(None)
    before, after = (_first_layer(n) for n in (victim.initial, victim.network))
    if all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
        return Restriction(None, "off: the first layer did not move")
    found = find_span(*(_single(layer) for layer in (before, after)))
    if found.samples is None:
        return Restriction(None, f"off: {found.reason}")
    if found.has_bias and found.samples < 2:
        return Restriction(None, "off: one sample, which the span itself gives")
    span = AffineSpan.of_rows(found.basis, found.has_bias)
    return Restriction(
        span, f"{span.dimension} coordinates: at least {found.samples} samples moved the network"
    )


Layer = tuple[np.ndarray[Any, Any], ...]


def _first_layer(network: Network) -> Layer:
    """The weights of the first layer, and its bias if it has one, in float64."""
    parts = [network.weights[0], network.biases[0]]
    return tuple(p.detach().to("cpu", torch.float64).numpy() for p in parts if p is not None)


def _single(layer: Layer) -> DeepNetwork:
    """A network with this first layer; only that enters a span."""
    biases = [layer[1] if len(layer) > 1 else None, None]
    return DeepNetwork([layer[0], np.ones((1, len(layer[0])))], biases, "relu")
