"""Options of `kktcert train` and of networks; importing this imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from identify.command.groups import in_panel
from identify.errors import InvalidInputError

_data, _train = in_panel("Choice of the data"), in_panel("Training")
_model, _compute = in_panel("Network file"), in_panel("Computation")


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
        _data(help="The targets; by default those of the loss."),
    ] = None
    per_class: Annotated[
        int | None,
        _data(metavar="N", help="Images of each target value."),
    ] = None
    count: Annotated[int | None, _data(metavar="N", help="Images at most.")] = None
    skip: Annotated[
        int,
        _data(
            metavar="N", help="Images to pass over first, with --per-class of each."
        ),
    ] = 0  # fmt: skip
    split: Annotated[SplitName, _data(help="Part of the data set.")] = SplitName.TRAIN
    classes: Annotated[
        str | None,
        _data(metavar="K,...", help="Use only these classes."),
    ] = None
    positive: Annotated[
        str | None,
        _data(metavar="K,...", help="Classes with target +1."),
    ] = None
    mean: Annotated[MeanName, _data(help="The mean to remove.")] = MeanName.PIXEL
    draw: Annotated[
        DrawName,
        _data(help="In the order of the file, or by the seed."),
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
        _train(metavar="SPEC", help="Such as 784-1000-1000-1,relu,bias=first."),
    ] = None
    loss: Annotated[
        TrainingLoss | None,
        _train(help="By default that of the task."),
    ] = None
    decay: Annotated[
        float,
        _train(metavar="MU", help="Weight decay: adds MU/2 |theta|^2."),
    ] = 0.0
    steps: Annotated[int, _train(metavar="K", help="Steps at most.")] = 20_000
    rate: Annotated[float, _train(metavar="R", help="First step size.")] = 0.01
    momentum: Annotated[float, _train(metavar="B", help="Heavy-ball momentum.")] = 0.0
    batch: Annotated[
        int | None,
        _train(metavar="N", help="Size of minibatches; else all."),
    ] = None
    target_loss: Annotated[
        float | None,
        _train(metavar="L", help="Stop at this mean loss."),
    ] = None
    scale: Annotated[
        float | None,
        _train(metavar="S", help="Deviation of the first layer at the start."),
    ] = None
    scheme: Annotated[SchemeName, _train(help="How weights are drawn.")] = SchemeName.UNIFORM
    initial: Annotated[
        Path | None,
        _train(metavar="FILE", help="Saved network to start from."),
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
        _model(
            metavar="WORD", help="Activation, for files that do not name it."
        ),
    ] = None  # fmt: skip
    layers: Annotated[
        str | None,
        _model(metavar="A,B,...", help="Names of the layers in the file."),
    ] = None
    key: Annotated[
        str | None,
        _model(
            metavar="NAME", help="The state_dict in a checkpoint that holds several."
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how precisely is computed."""

    device: Annotated[
        str,
        _compute(metavar="cpu|cuda|cuda:K", help="Device."),
    ] = "cpu"
    dtype: Annotated[
        PrecisionName | None,
        _compute(help="Floating-point type of the computation."),
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
