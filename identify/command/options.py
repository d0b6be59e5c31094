"""The options that the commands share, each group a record, and how typer gets to see them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from identify.budget import Budget
from identify.command.limits import parse_bytes, threads
from identify.command.names import (
    ArithmeticName,
    Format,
    LossName,
    ReductionName,
    ScaleName,
    SourceName,
    TrainedName,
)
from identify.command.output import Log
from identify.errors import InvalidInputError
from identify.thresholds import HIDDEN_SHARE

if TYPE_CHECKING:
    from identify.recovery.assumptions import Assumptions

_SOURCE, _ASSUME, _COMMON = "Source of the data", "Assumptions", "Common options"


POWERS = "for networks with a power as activation"
"""Where --trained means nothing."""


ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Network: .safetensors, .npz, .pt or a folder.")
]
DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA.npz", help="Samples: .npz with `samples` or `images`.")
]


@dataclass(frozen=True)
class ModelOptions:
    """What a network file may leave open."""

    degree: Annotated[
        int | None,
        typer.Option(
            metavar="A",
            help="Power of the activation, for files that do not carry it.",
            rich_help_panel=_SOURCE,
        ),
    ] = None
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|C0,C1,...",
            help="The activation for files without it: relu, one for each layer, or coefficients.",
            rich_help_panel=_SOURCE,
        ),
    ] = None
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Names of the layers in the file, first to last.",
            rich_help_panel=_SOURCE,
        ),
    ] = None
    head: Annotated[
        bool,
        typer.Option(
            "--head",
            help="Other layers come first: the samples are the features that leave them.",
            rich_help_panel=_SOURCE,
        ),
    ] = False
    key: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The state_dict in a checkpoint that holds several.",
            rich_help_panel=_SOURCE,
        ),
    ] = None


@dataclass(frozen=True)
class SourceOptions:
    """SOURCE: what the numbers in the files are."""

    source: Annotated[
        SourceName, typer.Option(help="What the weights are.", rich_help_panel=_SOURCE)
    ] = SourceName.KKT
    decay: Annotated[
        float | None,
        typer.Option(
            metavar="MU", help="Constant of the weight decay, if known.", rich_help_panel=_SOURCE
        ),
    ] = None
    gradient: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Gradient of a batch's loss at MODEL.", rich_help_panel=_SOURCE
        ),
    ] = None
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Network before fine-tuning to MODEL.", rich_help_panel=_SOURCE
        ),
    ] = None
    loss: Annotated[
        LossName | None,
        typer.Option(
            help="The loss, if known; for kkt it changes nothing.", rich_help_panel=_SOURCE
        ),
    ] = None
    reduction: Annotated[
        ReductionName | None,
        typer.Option(help="Mean or sum of the losses, for a gradient.", rich_help_panel=_SOURCE),
    ] = None
    weight_decay_in_gradient: Annotated[
        str | None,
        typer.Option(
            metavar="MU|auto",
            help="Weight decay that the gradient holds; it is subtracted.",
            rich_help_panel=_SOURCE,
        ),
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
                    "--source", f"{source.value} with {name}", self.source.value, f"drop {name}"
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
        typer.Option(metavar="N", help="Number of active samples.", rich_help_panel=_ASSUME),
    ] = None
    scale: Annotated[
        ScaleName,
        typer.Option(
            help="What fixes the norm of a sample: the hidden bias, norm 1, or equal margins.",
            rich_help_panel=_ASSUME,
        ),
    ] = ScaleName.AUTO
    non_negative: Annotated[
        bool,
        typer.Option(
            "--non-negative", help="No entry of a sample is negative.", rich_help_panel=_ASSUME
        ),
    ] = False
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="EPS",
            help="Relative size of Gaussian noise in the data.",
            rich_help_panel=_ASSUME,
        ),
    ] = None
    hidden_share: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Share of the data that one more sample may have unseen.",
            rich_help_panel=_ASSUME,
        ),
    ] = HIDDEN_SHARE
    arithmetic: Annotated[
        ArithmeticName,
        typer.Option(
            help="Arithmetic that computed the data; auto: the format of the stored numbers.",
            rich_help_panel=_ASSUME,
        ),
    ] = ArithmeticName.AUTO

    trained: Annotated[
        TrainedName,
        typer.Option(help="Layers of ReLU weights that were trained.", rich_help_panel=_ASSUME),
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


@contextmanager
def as_options() -> Iterator[None]:
    """Let the library's refusal of an argument name the option: `time_limit` is `--time-limit`.

    Example:
        >>> with as_options():
        ...     Budget.of(-1.0)
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: --time-limit: expected a positive number of seconds, got -1.0
    """  # noqa: E501
    try:
        yield
    except InvalidInputError as error:
        said = error.context
        name = "--" + said["name"].replace("_", "-")
        raise type(error)(name, said["expected"], said["got"], said["hint"]) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"kktcert {metadata.version('kktcert')}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version",
        metavar="",
        help="Print the version.",
        callback=_show_version,
        is_eager=True,
        rich_help_panel=_COMMON,
    ),
]


@dataclass(frozen=True)
class LogOptions:
    """How much is said on standard error."""

    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", help="Log every stage.", rich_help_panel=_COMMON),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", help="No progress, no log.", rich_help_panel=_COMMON),
    ] = False
    version: VersionOption = False

    def log(self) -> Log:
        """Where progress and remarks go."""
        return Log(verbose=self.verbose, quiet=self.quiet)

    def check(self) -> None:
        """Refuse -v with -q."""
        if self.verbose and self.quiet:
            raise InvalidInputError("-v", "no -q beside it", "both", "drop one of them")


THREADS = typer.Option(
    min=1, metavar="N", help="Threads; unless given as many as the libraries take.",
    rich_help_panel=_COMMON,
)  # fmt: skip


@dataclass(frozen=True)
class ThreadOptions:
    """Threads, for commands without the other options of a run."""

    threads: Annotated[int | None, THREADS] = None


@dataclass(frozen=True)
class MemoryOptions:
    """How much memory the work may take."""

    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Refuse work whose estimate is above it, such as 8GB.",
            rich_help_panel=_COMMON,
        ),
    ] = None

    def check(self) -> None:
        """Refuse what is no size."""
        if self.memory_limit is not None:
            parse_bytes(self.memory_limit)


@dataclass(frozen=True)
class RunOptions:
    """Form of the output, seed and time."""

    format: Annotated[Format, typer.Option(help="Form of the result.", rich_help_panel=_COMMON)] = (
        Format.TEXT
    )
    seed: Annotated[
        int,
        typer.Option(metavar="S", help="Seed of every random choice.", rich_help_panel=_COMMON),
    ] = 0
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Seconds after which the result so far is printed.",
            rich_help_panel=_COMMON,
        ),
    ] = None
    threads: Annotated[int | None, THREADS] = None

    def check(self) -> None:
        """Refuse values out of range."""
        if self.seed < 0:
            raise InvalidInputError("--seed", "at least 0", self.seed)
        with as_options():
            Budget.of(self.time_limit)


_FORCE = typer.Option(
    "--force", help="Replace results that are already there.", rich_help_panel=_COMMON
)
_OUT = "Folder for the results; absent or empty, unless --force."


@dataclass(frozen=True)
class OutputOptions:
    """An optional folder for the results."""

    out: Annotated[Path | None, typer.Option(metavar="DIR", help=_OUT, rich_help_panel=_COMMON)] = (
        None
    )
    force: Annotated[bool, _FORCE] = False


@dataclass(frozen=True)
class RequiredOutput:
    """A folder for the results that the command cannot do without."""

    out: Annotated[Path, typer.Option(metavar="DIR", help=_OUT, rich_help_panel=_COMMON)]
    force: Annotated[bool, _FORCE] = False


@dataclass(frozen=True)
class ImageOptions:
    """How samples are drawn as images."""

    image_shape: Annotated[
        str | None,
        typer.Option(
            metavar="H,W,C", help="Shape of an image; guessed if square.", rich_help_panel="Images"
        ),
    ] = None
    add_mean: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mean image to add before drawing: .npz with `mean`, or with images to average.",
            rich_help_panel="Images",
        ),
    ] = None
    range: Annotated[
        str | None,
        typer.Option(
            metavar="LO,HI",
            help="Values drawn black and white; otherwise each image uses its own range.",
            rich_help_panel="Images",
        ),
    ] = None
    no_images: Annotated[
        bool,
        typer.Option("--no-images", help="Draw no picture.", rich_help_panel="Images"),
    ] = False

    def check(self) -> None:
        """Refuse options for pictures beside --no-images."""
        given = [
            name
            for name, value in (
                ("--image-shape", self.image_shape),
                ("--add-mean", self.add_mean),
                ("--range", self.range),
            )
            if value is not None
        ]
        if self.no_images and given:
            raise InvalidInputError(given[0], "none beside --no-images", "both", "drop one of them")


def flat(command: Callable[..., int]) -> Callable[..., int]:
    """Replace every parameter that is a group of options by the options, for typer to see.

    The command is called with the groups, each checked. Options without default come first.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    kind = inspect.Parameter.KEYWORD_ONLY
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if not (isinstance(hint, type) and is_dataclass(hint)):
            parameters.append(parameter.replace(annotation=hint, kind=kind))
            continue
        groups[parameter.name] = hint
        members = get_type_hints(hint, include_extras=True)
        own = inspect.signature(hint).parameters
        parameters += [
            own[field.name].replace(annotation=members[field.name], kind=kind)
            for field in fields(hint)
        ]

    @wraps(command)
    def run(**values: Any) -> int:
        arguments: dict[str, Any] = {}
        for name, group in groups.items():
            arguments[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        for group_value in arguments.values():
            check = getattr(group_value, "check", None)
            if check is not None:
                check()
        counts = [getattr(group, "threads", None) for group in arguments.values()]
        with threads(next((count for count in counts if count is not None), None)):
            return command(**arguments, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__
    return run
