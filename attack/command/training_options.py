"""Options of `kktcert train` and of networks; importing this imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from identify.errors import InvalidInputError

_DATA, _TRAIN, _MODEL = "Choice of the data", "Training", "Network file"
_COMPUTE = "Computation"


class TaskName(StrEnum):
    """What the targets of a training set are."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    ONE_HOT = "one-hot"


class TrainingLoss(StrEnum):
    """The losses that a victim is trained on."""

    LOGISTIC = "logistic"
    SQUARED = "squared"
    CROSS_ENTROPY = "cross-entropy"
    EXPONENTIAL = "exponential"


class SplitName(StrEnum):
    """Parts of a data set."""

    TRAIN = "train"
    TEST = "test"


class MeanName(StrEnum):
    """What is removed from the images."""

    PIXEL = "pixel"
    SCALAR = "scalar"
    CHANNEL = "channel"
    NONE = "none"


class DrawName(StrEnum):
    """Which images of a class are taken."""

    FIRST = "first"
    RANDOM = "random"


class SchemeName(StrEnum):
    """How parameters are drawn."""

    UNIFORM = "uniform"
    LECUN = "lecun"


class PrecisionName(StrEnum):
    """Floating-point types of a computation."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


@dataclass(frozen=True)
class DataOptions:
    """Which images of DATA are taken, their targets, and the mean that is removed."""

    task: Annotated[
        TaskName | None,
        typer.Option(help="The targets; by default those of the loss.", rich_help_panel=_DATA),
    ] = None
    per_class: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images of each target value.", rich_help_panel=_DATA),
    ] = None
    count: Annotated[
        int | None, typer.Option(metavar="N", help="Images at most.", rich_help_panel=_DATA)
    ] = None
    skip: Annotated[
        int,
        typer.Option(
            metavar="N", help="Images to pass over first, with --per-class of each.",
            rich_help_panel=_DATA,
        ),
    ] = 0  # fmt: skip
    split: Annotated[
        SplitName, typer.Option(help="Part of the data set.", rich_help_panel=_DATA)
    ] = SplitName.TRAIN
    classes: Annotated[
        str | None,
        typer.Option(metavar="K,...", help="Use only these classes.", rich_help_panel=_DATA),
    ] = None
    positive: Annotated[
        str | None,
        typer.Option(metavar="K,...", help="Classes with target +1.", rich_help_panel=_DATA),
    ] = None
    mean: Annotated[MeanName, typer.Option(help="The mean to remove.", rich_help_panel=_DATA)] = (
        MeanName.PIXEL
    )
    draw: Annotated[
        DrawName,
        typer.Option(help="In the order of the file, or by the seed.", rich_help_panel=_DATA),
    ] = DrawName.FIRST

    def check(self) -> None:
        """Refuse values out of range."""
        for name, value in (("--per-class", self.per_class), ("--count", self.count)):
            if value is not None and value < 1:
                raise InvalidInputError(name, "at least 1", value)
        if self.skip < 0:
            raise InvalidInputError("--skip", "at least 0", self.skip)
        parse_classes("--classes", self.classes)
        parse_classes("--positive", self.positive)


@dataclass(frozen=True)
class TrainingOptions:
    """The network, the loss and the descent."""

    network: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="Such as 784-1000-1000-1,relu,bias=first.", rich_help_panel=_TRAIN
        ),
    ] = None
    loss: Annotated[
        TrainingLoss | None,
        typer.Option(help="By default that of the task.", rich_help_panel=_TRAIN),
    ] = None
    decay: Annotated[
        float,
        typer.Option(
            metavar="MU", help="Weight decay: adds MU/2 |theta|^2.", rich_help_panel=_TRAIN
        ),
    ] = 0.0
    steps: Annotated[
        int, typer.Option(metavar="K", help="Steps at most.", rich_help_panel=_TRAIN)
    ] = 20_000
    rate: Annotated[
        float, typer.Option(metavar="R", help="First step size.", rich_help_panel=_TRAIN)
    ] = 0.01
    momentum: Annotated[
        float, typer.Option(metavar="B", help="Heavy-ball momentum.", rich_help_panel=_TRAIN)
    ] = 0.0
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", help="Size of minibatches; else all.", rich_help_panel=_TRAIN),
    ] = None
    target_loss: Annotated[
        float | None,
        typer.Option(metavar="L", help="Stop at this mean loss.", rich_help_panel=_TRAIN),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Deviation of the first layer at the start.", rich_help_panel=_TRAIN
        ),
    ] = None
    scheme: Annotated[
        SchemeName, typer.Option(help="How weights are drawn.", rich_help_panel=_TRAIN)
    ] = SchemeName.UNIFORM
    initial: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Saved network to start from.", rich_help_panel=_TRAIN),
    ] = None

    def check(self) -> None:
        """Refuse a training without a network, and a scale for a saved start."""
        if self.network is None and self.initial is None:
            raise InvalidInputError(
                "--network", "a specification such as 64-100-1,relu", "none", "or give --initial"
            )
        if self.initial is not None and self.scale is not None:
            raise InvalidInputError("--scale", "none with --initial", self.scale)
        for name, value, least in (("--decay", self.decay, 0.0), ("--rate", self.rate, 1e-300)):
            if not least <= value < math.inf:
                raise InvalidInputError(name, "a positive number", value)
        if self.steps < 0:
            raise InvalidInputError("--steps", "at least 0", self.steps)


@dataclass(frozen=True)
class FileOptions:
    """What a file of a network may leave open."""

    activation: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="Activation, for files that do not name it.",
            rich_help_panel=_MODEL,
        ),
    ] = None  # fmt: skip
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Names of the layers in the file.", rich_help_panel=_MODEL
        ),
    ] = None
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The state_dict in a checkpoint that holds several.",
            rich_help_panel=_MODEL,
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how precisely is computed."""

    device: Annotated[
        str,
        typer.Option(metavar="cpu|cuda|cuda:K", help="Device.", rich_help_panel=_COMPUTE),
    ] = "cpu"
    dtype: Annotated[
        PrecisionName | None,
        typer.Option(help="Floating-point type of the computation.", rich_help_panel=_COMPUTE),
    ] = None


def parse_classes(option: str, text: str | None) -> list[int] | None:
    """Read class numbers separated by commas.

    Example:
        >>> parse_classes("--classes", "3, 1")
        [3, 1]
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise InvalidInputError(option, "class numbers such as 0,1,8", repr(text))
    return [int(word) for word in words]
