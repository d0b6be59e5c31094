"""Options of `kktcert attack` and of what judges its runs; importing this imports no torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from identify.command.groups import in_panel
from identify.command.names import Format
from identify.command.options import PLAIN_FORMAT, THREADS
from identify.errors import InvalidInputError

_attack, _score = in_panel("Attack"), in_panel("Scores")
_common = in_panel("Common options")


class WindowName(StrEnum):
    """Windows of SSIM."""

    GAUSSIAN_3 = "gaussian-3"
    GAUSSIAN_11 = "gaussian-11"


@dataclass(frozen=True)
class ScoreOptions:
    """How candidates become images, and how images are compared."""

    image_shape: Annotated[
        str | None,
        _score(
            metavar="H,W,C", help="Shape of an image, by default the run's; none: rows of a table."
        ),
    ] = None  # fmt: skip
    add_mean: Annotated[
        Path | None,
        _score(
            metavar="FILE", help="Mean image, unless the truth file holds it."
        ),
    ] = None  # fmt: skip
    mean: Annotated[
        str | None,
        _score(
            metavar="M", help="Mean that the network's inputs had removed; DATA.npz has it."
        ),
    ] = None  # fmt: skip
    std: Annotated[
        str | None,
        _score(
            metavar="S", help="What they were divided by then."
        ),
    ] = None  # fmt: skip
    range: Annotated[
        str,
        _score(
            metavar="LO,HI", help="Darkest and brightest pixel, mean added."
        ),
    ] = "0,1"  # fmt: skip
    ssim_window: Annotated[WindowName, _score(help="Window of SSIM.")] = WindowName.GAUSSIAN_3
    top: Annotated[int, _score(metavar="N", help="Best pairs in the means.")] = 10
    full_size: Annotated[
        bool,
        _score(
            "--full-size", help="Search by NCC at full instead of half size."
        ),
    ] = False  # fmt: skip

    def check(self) -> None:
        """Refuse values out of range."""
        if self.top < 1:
            raise InvalidInputError("--top", "at least 1", self.top)


@dataclass(frozen=True)
class NullOptions:
    """Form of the result and the seed of the null."""

    format: Annotated[Format, _common(**PLAIN_FORMAT)] = Format.TEXT
    seed: Annotated[
        int,
        _common(metavar="S", help="Seed of the random candidates."),
    ] = 0
    threads: Annotated[int | None, THREADS] = None

    def check(self) -> None:
        """Refuse a negative seed."""
        if self.seed < 0:
            raise InvalidInputError("--seed", "at least 0", self.seed)


class ObjectiveName(StrEnum):
    """What candidates must satisfy."""

    HAIM = "haim"
    BUZAGLO = "buzaglo"
    LOO = "loo"
    GRADIENT_MATCHING = "gradient_matching"
    GRADIENT_NORM = "gradient_norm"
    BILEVEL = "bilevel"


class SplittingName(StrEnum):
    """How candidates are split."""

    OFF = "off"
    PAPER = "paper"
    AUTO = "auto"


class SolverName(StrEnum):
    """What minimises the objective."""

    LBFGS = "lbfgs"
    SGD = "sgd"
    ADAM = "adam"
    GAUSS_NEWTON = "gauss-newton"


class MixtureName(StrEnum):
    """How an image of the start is mixed with noise."""

    PIXEL = "pixel"
    BLEND = "blend"


@dataclass(frozen=True)
class ObjectiveOptions:
    """The objective and what it needs."""

    objective: Annotated[
        ObjectiveName | None,
        _attack(help="By default that of the preset, or the one for what is given."),
    ] = None
    preset: Annotated[
        str | None,
        _attack(metavar="NAME", help="Published settings."),
    ] = None
    initial: Annotated[
        Path | None,
        _attack(
            metavar="FILE", help="Network before training: for loo, bilevel."
        ),
    ] = None  # fmt: skip
    gradient: Annotated[
        Path | None,
        _attack(
            metavar="FILE", help="Gradient of a batch's loss: for gradient_matching."
        ),
    ] = None  # fmt: skip
    add_mean: Annotated[
        Path | None,
        _attack(
            metavar="FILE", help="Mean that was removed from pixels in [0, 1]: the box of loo."
        ),
    ] = None  # fmt: skip
    span: Annotated[
        str | None,
        _attack(
            metavar="auto|off|FILE",
            help="Keep candidates in the span of the data: that of --initial, or of kktcert span."
        ),
    ] = None  # fmt: skip
    ridge: Annotated[
        str | None,
        _attack(
            metavar="X|auto|off", help="Weight of the squares of signed multipliers."
        ),
    ] = None  # fmt: skip
    option: Annotated[
        list[str] | None,
        _attack(
            metavar="NAME=VALUE", help="An option of the objective, such as floor=0.05."
        ),
    ] = None  # fmt: skip

    @property
    def ridge_value(self) -> float | str | None:
        """The ridge as a number where it is one; other words are judged later.

        Example:
            >>> [ObjectiveOptions(ridge=text).ridge_value for text in ("1e-4", "auto")]
            [0.0001, 'auto']
        """
        try:
            return None if self.ridge is None else float(self.ridge)
        except ValueError:
            return self.ridge


@dataclass(frozen=True)
class SearchOptions:
    """Candidates, where they start, how they are optimised and split."""

    count: Annotated[
        int | None,
        _attack(metavar="N", help="Candidates at the start."),
    ] = None
    labels: Annotated[
        str | None,
        _attack(
            metavar="FILE|K,...", help="Labels of the candidates, one each."
        ),
    ] = None  # fmt: skip
    start: Annotated[
        str,
        _attack(metavar="noise|DATA.npz", help="Where they start."),
    ] = "noise"
    start_scale: Annotated[
        float | None,
        _attack(metavar="S", help="Deviation of the noise."),
    ] = None
    share: Annotated[
        float,
        _attack(
            metavar="P", help="Share of every given image, the rest noise."
        ),
    ] = 1.0  # fmt: skip
    mixture: Annotated[MixtureName, _attack(help="Pixel by pixel, or blended.")] = MixtureName.PIXEL
    splitting: Annotated[SplittingName, _attack(help="Sample splitting.")] = SplittingName.AUTO
    solver: Annotated[
        SolverName | None,
        _attack(help="By default that of the preset, or lbfgs."),
    ] = None
    steps: Annotated[int | None, _attack(metavar="K", help="Steps at most.")] = None
    save_seconds: Annotated[
        float, _attack(metavar="S", help="Seconds between two checkpoints at most.")
    ] = 30.0
    setting: Annotated[
        list[str] | None,
        _attack(
            metavar="NAME=VALUE", help="A setting of the solver, such as interval=2500."
        ),
    ] = None  # fmt: skip
    image_shape: Annotated[
        str | None,
        _attack(metavar="H,W,C", help="Shape of a candidate."),
    ] = None

    def check(self) -> None:
        """Refuse values out of range, and a share of nothing."""
        if self.count is not None and self.count < 1:
            raise InvalidInputError("--count", "at least 1", self.count)
        if self.steps is not None and self.steps < 0:
            raise InvalidInputError("--steps", "at least 0", self.steps)
        if not self.save_seconds > 0:
            raise InvalidInputError(
                "--save-seconds", "a positive number of seconds", self.save_seconds
            )
        if not 0.0 <= self.share <= 1.0:
            raise InvalidInputError("--share", "a number from 0 to 1", self.share)
        if self.start == "noise" and self.share != 1.0:
            raise InvalidInputError("--share", "--start DATA.npz beside it", "noise")


def parse_assignments(option: str, texts: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE: numbers, true, false and [lists] as in TOML, other values as words.

    Example:
        >>> parse_assignments("--option", ["floor=0.05", "task=regression", "box=[-1, 1]"])
        {'floor': 0.05, 'task': 'regression', 'box': [-1, 1]}
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        name = name.replace("-", "_")
        if not equals or not name.isidentifier() or not value:
            raise InvalidInputError(option, "NAME=VALUE", repr(text))
        if name in found:
            raise InvalidInputError(option, f"{name} once", "twice")
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, KeyError, RecursionError):
            found[name] = value
    return found
