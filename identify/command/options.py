"""The options that the commands share, each group a record."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from identify.budget import Budget
from identify.command.config import read_config
from identify.command.groups import as_options, in_panel
from identify.command.help import read_word
from identify.command.limits import parse_bytes
from identify.command.names import Format, PlainFormat
from identify.command.output import Log
from identify.errors import InvalidInputError

_common, _image = in_panel("Common options"), in_panel("Images")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"kktcert {metadata.version('kktcert')}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    _common(
        "--version", metavar="", help="Print the version.", callback=_show_version, is_eager=True
    ),
]


@dataclass(frozen=True)
class LogOptions:
    """How much is said on standard error, and options from a file."""

    verbose: Annotated[
        bool,
        _common("-v", "--verbose", help="Log every stage."),
    ] = False
    quiet: Annotated[
        bool,
        _common("-q", "--quiet", help="No progress, no log."),
    ] = False
    config: Annotated[
        Path | None,
        _common(
            metavar="FILE.toml",
            help="Options from a file; those of the command line win.",
            callback=read_config,
            is_eager=True,
        ),
    ] = None
    version: VersionOption = False

    def log(self) -> Log:
        """Where progress and remarks go."""
        return Log(verbose=self.verbose, quiet=self.quiet)

    def check(self) -> None:
        """Refuse -v with -q."""
        if self.verbose and self.quiet:
            raise InvalidInputError("-v", "no -q beside it", "both", "drop one of them")


THREADS = _common(
    min=1, metavar="N", help="Threads; unless given as many as the libraries take."
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
        _common(metavar="SIZE", help="Refuse work whose estimate is above it, such as 8GB."),
    ] = None

    def check(self) -> None:
        """Refuse what is no size."""
        if self.memory_limit is not None:
            parse_bytes(self.memory_limit)


def _plain_format(text: str) -> Format:
    return Format(read_word(PlainFormat, text).value)


PLAIN_FORMAT = {
    "metavar": "WORD",
    "help": "Form of the result. Words: text, json.",
    "parser": _plain_format,
}
"""What `typer.Option` takes for --format of a command without a gate."""


@dataclass(frozen=True)
class RunOptions:
    """Form of the output, seed and time."""

    format: Annotated[Format, _common(**PLAIN_FORMAT)] = Format.TEXT
    seed: Annotated[
        int,
        _common(metavar="S", help="Seed of every random choice."),
    ] = 0
    time_limit: Annotated[
        float | None,
        _common(metavar="S", help="Seconds after which the result so far is printed."),
    ] = None
    threads: Annotated[int | None, THREADS] = None

    def check(self) -> None:
        """Refuse values out of range."""
        if self.seed < 0:
            raise InvalidInputError("--seed", "at least 0", self.seed)
        with as_options():
            Budget.of(self.time_limit)


@dataclass(frozen=True)
class GateOptions(RunOptions):
    """The same for a command with a gate, whose result CI systems read too."""

    format: Annotated[Format, _common(help="Form of the result; sarif and junit are for CI.")] = (
        Format.TEXT
    )


_FORCE = _common("--force", help="Replace results that are already there.")
_OUT = "Folder for the results; absent or empty, unless --force."


@dataclass(frozen=True)
class OutputOptions:
    """An optional folder for the results."""

    out: Annotated[Path | None, _common(metavar="DIR", help=_OUT)] = None
    force: Annotated[bool, _FORCE] = False


@dataclass(frozen=True)
class RequiredOutput:
    """A folder for the results that the command cannot do without."""

    out: Annotated[Path, _common(metavar="DIR", help=_OUT)]
    force: Annotated[bool, _FORCE] = False


@dataclass(frozen=True)
class ImageOptions:
    """How samples are drawn as images."""

    image_shape: Annotated[
        str | None,
        _image(metavar="H,W,C", help="Shape of an image; guessed if square."),
    ] = None
    add_mean: Annotated[
        Path | None,
        _image(
            metavar="FILE",
            help="Mean image to add before drawing: .npz with `mean`, or with images to average.",
        ),
    ] = None
    range: Annotated[
        str | None,
        _image(
            metavar="LO,HI",
            help="Values drawn black and white; otherwise each image uses its own range.",
        ),
    ] = None
    no_images: Annotated[
        bool,
        _image("--no-images", help="Draw no picture."),
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
