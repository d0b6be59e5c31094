"""The smallest noise that leaves a gradient undecided: record, plain data and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from identify.disaggregation.records import UNDECIDED
from identify.text import labelled, number, table


@dataclass(frozen=True)
class NoiseTrial:
    """The verdict at one level of noise, relative to the norm of each array.

    ``candidates`` as in the report, ``samples`` how many were separated.
    """

    noise: float
    verdict: str
    candidates: bool
    samples: int


@dataclass(frozen=True)
class NoiseLimit:
    """Levels of noise with their verdicts, in rising order.

    ``decided_up_to`` is the largest level of the search below which nothing was undecided, 0 if
    none was tried or decided. ``stopped`` says why the search ended early, or is empty.

    Example:
        >>> low = NoiseTrial(1e-4, "globally", False, 5)
        >>> high = NoiseTrial(1e-2, "undecided", True, 5)
        >>> NoiseLimit(1e-4, (low, high)).undecided_from
        0.01
    """

    decided_up_to: float
    trials: tuple[NoiseTrial, ...]
    stopped: str = ""

    @property
    def undecided_from(self) -> float | None:
        """The smallest level that was tried and left nothing decided, None if there is none."""
        return next((t.noise for t in self.trials if t.verdict == UNDECIDED), None)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data."""
        return {
            "decided_up_to": self.decided_up_to,
            "undecided_from": self.undecided_from,
            "stopped": self.stopped or None,
            "trials": [dict(vars(trial)) for trial in self.trials],
        }


def noise_lines(found: NoiseLimit | None) -> list[str]:
    """The section of the text report, empty if it was not asked for."""
    if found is None:
        return []
    level = found.undecided_from
    if level is not None:
        still = next(t for t in found.trials if t.noise == level)
        text = (
            f"the smallest noise that leaves this gradient undecided is {number(level)} of each "
            f"array's norm; up to {number(found.decided_up_to)} it is decided"
        )
        if still.candidates:
            text += f"; {still.samples} samples are still separated there, so it is no protection"
    else:
        text = f"decided up to noise {number(found.decided_up_to)}"
    if found.stopped:
        text += f"; {found.stopped}"
    rows = [
        [number(t.noise), t.verdict, str(t.samples), "yes" if t.candidates else "no"]
        for t in found.trials
    ]
    lines = labelled("noise", text)
    return [*lines, *table(["noise", "verdict", "samples", "candidates"], rows)] if rows else lines
