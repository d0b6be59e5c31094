"""The options that say what the numbers in the files are, and what is assumed about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from identify.command.groups import as_options, in_panel
from identify.command.hub import take_model
from identify.command.names import (
    ArithmeticName,
    LossName,
    ReductionName,
    ScaleName,
    SourceName,
    TrainedName,
)
from identify.errors import InvalidInputError
from identify.thresholds import HIDDEN_SHARE

if TYPE_CHECKING:
    from identify.recovery.assumptions import Assumptions

_source, _assume = in_panel("Source of the data"), in_panel("Assumptions")

POWERS = "for networks with a power as activation"
"""Where --trained means nothing."""


ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="Network: .safetensors, .npz, .pt, a folder, or org/name of the hub.",
        callback=take_model,
    ),
]
DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA.npz", help="Samples: .npz with `samples` or `images`.")
]


@dataclass(frozen=True)
class ModelOptions:
    """What a network file may leave open."""

    degree: Annotated[
        int | None,
        _source(metavar="A", help="Power of the activation, for files that do not carry it."),
    ] = None
    activation: Annotated[
        str | None,
        _source(
            metavar="NAME|C0,C1,...",
            help="The activation for files without it: relu, one for each layer, or coefficients.",
        ),
    ] = None
    layers: Annotated[
        str | None,
        _source(metavar="NAME,NAME,...", help="Names of the layers in the file, first to last."),
    ] = None
    head: Annotated[
        bool,
        _source(
            "--head", help="Other layers come first: the samples are the features that leave them."
        ),
    ] = False
    key: Annotated[
        str | None,
        _source(metavar="NAME", help="The state_dict in a checkpoint that holds several."),
    ] = None


@dataclass(frozen=True)
class SourceOptions:
    """SOURCE: what the numbers in the files are."""

    source: Annotated[SourceName, _source(help="What the weights are.")] = SourceName.KKT
    decay: Annotated[
        float | None,
        _source(metavar="MU", help="Constant of the weight decay, if known."),
    ] = None
    gradient: Annotated[
        Path | None,
        _source(metavar="FILE", help="Gradient of a batch's loss at MODEL."),
    ] = None
    initial: Annotated[
        Path | None,
        _source(metavar="FILE", help="Network before fine-tuning to MODEL.", callback=take_model),
    ] = None
    loss: Annotated[
        LossName | None,
        _source(help="The loss, if known; for kkt it changes nothing."),
    ] = None
    reduction: Annotated[
        ReductionName | None,
        _source(help="Mean or sum of the losses, for a gradient."),
    ] = None
    weight_decay_in_gradient: Annotated[
        str | None,
        _source(metavar="MU|auto", help="Weight decay that the gradient holds; it is subtracted."),
    ] = None

    def gradient_decay(self) -> float | str | None:
        """The weight decay in the gradient, as a number or the word auto."""
        text = self.weight_decay_in_gradient
        if text is None or text == "auto":
            return text
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0.0 <= value < math.inf:
            raise InvalidInputError(
                "--weight-decay-in-gradient", "a number of at least 0, or auto", repr(text)
            )
        return value

    def check(self) -> None:
        """Refuse options that contradict the source."""
        if self.gradient_decay() is not None and self.source is not SourceName.GRADIENT:
            raise InvalidInputError(
                "--source",
                "gradient with --weight-decay-in-gradient",
                self.source.value,
                "drop --weight-decay-in-gradient",
            )
        if self.reduction is not None and self.source is not SourceName.GRADIENT:
            raise InvalidInputError(
                "--source", "gradient with --reduction", self.source.value, "drop --reduction"
            )
        pairs = (
            ("--gradient", self.gradient, SourceName.GRADIENT),
            ("--initial", self.initial, SourceName.FINE_TUNING),
        )
        for name, value, source in pairs:
            if value is not None and self.source is not source:
                raise InvalidInputError(
                    "--source",
                    f"{source.value} with {name}",
                    self.source.value,
                    f"add --source {source.value}, or drop {name}",
                )
            if value is None and self.source is source:
                raise InvalidInputError(
                    name, f"a file, for --source {source.value}", "none", f"give {name} FILE"
                )
        if self.decay is not None and self.source is not SourceName.WEIGHT_DECAY:
            raise InvalidInputError(
                "--source", "weight-decay with --decay", self.source.value, "drop --decay"
            )
        if self.decay is not None and not (math.isfinite(self.decay) and self.decay > 0):
            raise InvalidInputError(
                "--decay", "a positive number", self.decay, "leave it out if unknown"
            )
        if self.loss is LossName.SQUARED and self.source is SourceName.KKT:
            raise InvalidInputError(
                "--loss",
                "logistic or cross-entropy for --source kkt",
                "squared",
                "only losses with an exponential tail lead to the max-margin problem",
            )


@dataclass(frozen=True)
class AssumeOptions:
    """ASSUME: what the verdict may take for granted; printed with it."""

    samples: Annotated[
        int | None,
        _assume(metavar="N", help="Number of active samples."),
    ] = None
    scale: Annotated[
        ScaleName,
        _assume(help="What fixes the norm of a sample: the hidden bias, norm 1, or equal margins."),
    ] = ScaleName.AUTO
    non_negative: Annotated[
        bool,
        _assume("--non-negative", help="No entry of a sample is negative."),
    ] = False
    noise: Annotated[
        float | None,
        _assume(metavar="EPS", help="Relative size of Gaussian noise in the data."),
    ] = None
    hidden_share: Annotated[
        float,
        _assume(metavar="X", help="Share of the data that one more sample may have unseen."),
    ] = HIDDEN_SHARE
    arithmetic: Annotated[
        ArithmeticName,
        _assume(help="Arithmetic that computed the data; auto: the format of the stored numbers."),
    ] = ArithmeticName.AUTO

    trained: Annotated[
        TrainedName,
        _assume(help="Layers of ReLU weights that were trained."),
    ] = TrainedName.BOTH

    def require_both(self, where: str) -> None:
        """Refuse --trained hidden where it means nothing."""
        if self.trained is not TrainedName.BOTH:
            raise InvalidInputError("--trained", f"both {where}", "hidden", "leave it out")

    def assumptions(self) -> Assumptions:
        """The record of the library."""
        from identify.recovery.assumptions import Assumptions

        return Assumptions(
            samples=self.samples,
            scale=self.scale.value,
            non_negative=self.non_negative,
            noise=self.noise,
            hidden_share=self.hidden_share,
            arithmetic=self.arithmetic.value,
        )

    def check(self) -> None:
        """Refuse values out of range."""
        with as_options():
            self.assumptions()
