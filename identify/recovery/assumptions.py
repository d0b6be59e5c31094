"""What the caller takes for granted about the samples, and the scale it fixes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.recovery.data_error import ARITHMETIC
from identify.thresholds import HIDDEN_SHARE

SCALES = ("auto", "unit", "margin", "bias")
_FREE = "free"


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a verdict may take for granted; it is printed with it.

    Args:
        samples: the number of active samples, at least 1, if known.
        scale: what fixes the norm of a sample: "auto", "unit" (|x_i| = 1), "margin" (equal
            |f(x_i)|) or "bias" (the hidden bias). "auto" is "bias" with a hidden bias and "free"
            without: samples of unit norm, a convention.
        non_negative: no entry of a sample is negative.
        noise: relative size of Gaussian noise in the data, in (0, 1), or None.
        hidden_share: share of the data, in (0, 1], that a further sample may have unseen.
        arithmetic: the format in which the data were computed, one of
            `identify.recovery.data_error.ARITHMETIC`.

    Raises:
        InvalidInputError: a value out of range.

    Example:
        >>> Assumptions(samples=4, scale="unit").samples
        4
        >>> Assumptions(samples=0)
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: samples: expected at least 1, got 0; leave it out if unknown
    """  # noqa: E501

    samples: int | None = None
    scale: str = "auto"
    non_negative: bool = False
    noise: float | None = None
    hidden_share: float = HIDDEN_SHARE
    arithmetic: str = "auto"

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise InvalidInputError(
                "samples", "at least 1", self.samples, "leave it out if unknown"
            )
        if self.scale not in (*SCALES, _FREE):
            raise InvalidInputError("scale", f"one of {', '.join(SCALES)}", self.scale)
        if self.noise is not None and not 0.0 < self.noise < 1.0:
            raise InvalidInputError("noise", "a relative size in (0, 1)", self.noise)
        if not 0.0 < self.hidden_share <= 1.0:
            raise InvalidInputError("hidden_share", "a share in (0, 1]", self.hidden_share)
        if self.arithmetic not in ARITHMETIC:
            known = f"one of {', '.join(ARITHMETIC)}"
            raise InvalidInputError("arithmetic", known, repr(self.arithmetic))

    @classmethod
    def chosen(cls, given: Assumptions | None, **loose: object) -> Assumptions:
        """The assumptions of a call that takes them as one record or as single keywords.

        Raises:
            InvalidInputError: both are given, or a value is out of range.

        Example:
            >>> Assumptions.chosen(None, samples=3).samples
            3
            >>> Assumptions.chosen(Assumptions(), samples=3)
            Traceback (most recent call last):
            ...
            identify.errors.InvalidInputError: assumptions: expected no samples beside it, got both; put it into the record
        """  # noqa: E501
        if given is None:
            return cls(**loose)  # type: ignore[arg-type]
        usual = {entry.name: entry.default for entry in fields(cls)}
        beside = [name for name, value in loose.items() if value != usual[name]]
        if beside:
            expected = f"no {' and no '.join(beside)} beside it"
            raise InvalidInputError("assumptions", expected, "both", "put it into the record")
        return given

    def resolved(self, data: HermiteData) -> Assumptions:
        """The same with the scale convention in force: "bias", "unit", "margin" or "free".

        Raises:
            InvalidInputError: "bias" without a hidden bias, or another scale with one.
        """
        if self.scale == "auto":
            return replace(self, scale="bias" if data.has_bias else _FREE)
        if (self.scale == "bias") != data.has_bias:
            found = "a hidden bias" if data.has_bias else "no hidden bias"
            raise InvalidInputError(
                "scale", "'bias' exactly for networks with a hidden bias", found
            )
        return self
