"""What the caller takes for granted about the samples, and the scale it fixes."""

from __future__ import annotations

from dataclasses import dataclass

from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.thresholds import HIDDEN_SHARE


@dataclass(frozen=True)
class Assumptions:
    """What the caller takes for granted: `scale` resolved to free, unit, margin or bias.

    `hidden_share` is the share of the data that a further sample may have unseen.
    `arithmetic` is one of `identify.recovery.data_error.ARITHMETIC`.
    """

    samples: int | None
    scale: str
    non_negative: bool
    noise: float | None
    hidden_share: float = HIDDEN_SHARE
    arithmetic: str = "auto"


SCALES = ("auto", "unit", "margin", "bias")


def resolve_scale(data: HermiteData, scale: str) -> str:
    """The scale convention in force: "bias", "unit", "margin" or "free".

    `auto` is "bias" with a hidden bias and "free" without: samples of unit norm, a convention.

    Raises:
        InvalidInputError: unknown word, "bias" without a hidden bias, or another with one.
    """
    if scale not in SCALES:
        raise InvalidInputError("scale", f"one of {', '.join(SCALES)}", scale)
    if scale == "auto":
        return "bias" if data.has_bias else "free"
    if (scale == "bias") != data.has_bias:
        found = "a hidden bias" if data.has_bias else "no hidden bias"
        raise InvalidInputError("scale", "'bias' exactly for networks with a hidden bias", found)
    return scale
