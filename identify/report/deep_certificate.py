"""The certificate of a gradient report: what somebody else needs to make its claims again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from identify.disaggregation.records import Disaggregation

FORMAT = 2
"""From 2 on all checks are listed, and the statement about the data is there."""


def certificate_of(found: Disaggregation) -> dict[str, Any]:
    """The certificate as plain data, without its digest.

    Example:
        >>> certificate_of(Disaggregation("undecided", "too few rows", 3, (), "kernel"))["masks"]
        []
    """
    listing = found.listing
    excluded = None
    if listing is not None:
        excluded = [
            {
                "mask": _bits(mask),
                "neurons": np.flatnonzero(multipliers).tolist(),
                "multipliers": multipliers[np.flatnonzero(multipliers)].tolist(),
            }
            for mask, multipliers in listing.excluded
        ]
    return {
        "format": FORMAT,
        "samples": found.samples,
        "cotangents": found.cotangents,
        "masks": [
            None if pattern is None else [_bits(mask) for mask in pattern]
            for pattern in found.patterns
        ],
        "pivots": None if listing is None else listing.pivots,
        "excluded": excluded,
    }


def _bits(mask: npt.NDArray[np.bool_]) -> str:
    """Eight neurons a byte, the first one in its highest bit, as hexadecimal digits."""
    return np.packbits(mask).tobytes().hex()
