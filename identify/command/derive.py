"""The command that writes the KKT system of a network in symbols."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from identify.command.limits import refuse_above
from identify.command.memory import DERIVE
from identify.command.options import LogOptions, MemoryOptions, ThreadOptions
from identify.errors import InvalidInputError


class SymbolFormat(StrEnum):
    """The form of a symbolic system."""

    TEXT = "text"
    LATEX = "latex"
    JSON = "json"


def derive(
    *,
    dimension: Annotated[int, typer.Option(metavar="D", help="Number of inputs.")],
    width: Annotated[int, typer.Option(metavar="M", help="Number of neurons.")],
    samples: Annotated[int, typer.Option(metavar="N", help="Number of samples.")],
    degree: Annotated[
        int | None,
        typer.Option(metavar="A", help="Power of the activation; not needed with --activation."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(metavar="C0,C1,...", help="Coefficients of a polynomial activation."),
    ] = None,
    bias: Annotated[bool, typer.Option("--bias", help="A bias in the hidden layer.")] = False,
    outputs: Annotated[int, typer.Option(metavar="C", help="Number of outputs.")] = 1,
    format: Annotated[SymbolFormat, typer.Option(help="Form of the result.")] = SymbolFormat.TEXT,
    threads: ThreadOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Derive the KKT system of a network in symbols, with its moment tensor."""
    coefficients = None if activation is None else _numbers(activation)
    if degree is None:
        if coefficients is None:
            raise InvalidInputError("--degree", "a degree or --activation", "neither")
        degree = len(coefficients) - 1
    refuse_above(memory.memory_limit, DERIVE, "the package sympy alone takes most of it")
    from identify.symbolic.derive import kkt_system

    system = kkt_system(
        dimension,
        width,
        samples,
        degree,
        activation=coefficients,
        bias=bias,
        outputs=outputs,
    )
    if format is SymbolFormat.JSON:
        print(json.dumps(system.to_json(), indent=2, allow_nan=False), flush=True)
    else:
        text = system.to_latex() if format is SymbolFormat.LATEX else system.to_text()
        print(text, end="", flush=True)
    return 0


def _numbers(text: str) -> list[float]:
    """The coefficients in a comma-separated list.

    Example:
        >>> _numbers("0, 1,0.5")
        [0.0, 1.0, 0.5]
    """
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InvalidInputError("--activation", "numbers C0,C1,...", repr(text)) from None
