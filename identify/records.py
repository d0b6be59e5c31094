"""Records that the package returns, and the words in which they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from identify.arrays import FloatArray
from identify.markup import pictures_html, square_side, table_html
from identify.text import counted, number


class Verdict(StrEnum):
    """The four answers to "do the data determine the training samples?"."""

    GLOBALLY = "globally"
    LOCALLY = "locally"
    NONIDENTIFIABLE = "nonidentifiable"
    UNDECIDED = "undecided"

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        return {
            Verdict.GLOBALLY: "GLOBALLY identifiable: the training samples are determined",
            Verdict.LOCALLY: "LOCALLY identifiable: no other training set nearby",
            Verdict.NONIDENTIFIABLE: "NOT identifiable: two different training sets are shown",
            Verdict.UNDECIDED: "UNDECIDED: neither uniqueness nor its failure is established",
        }[self]


class Evidence(StrEnum):
    """How a condition was established."""

    PROVED_EXACT = "proved_exact"
    PROVED_INTERVAL = "proved_interval"
    NUMERICAL = "numerical"


@dataclass(frozen=True)
class Scope:
    """The training sets among which a verdict speaks.

    Example:
        >>> Scope("at_most", 6).sentence
        'among all training sets of at most 6 samples'
    """

    kind: str
    samples: int | tuple[int, int]

    @property
    def sentence(self) -> str:
        """The scope as the phrase that follows a verdict."""
        if isinstance(self.samples, tuple):
            first, second = self.samples
            return f"shown by one set of {first} and another of {second} samples"
        words = {"at_most": "at most", "exactly": "exactly"}[self.kind]
        return f"among all training sets of {words} {counted(self.samples, 'sample')}"

    def to_dict(self) -> dict[str, Any]:
        """The scope as it stands in report.json."""
        count = list(self.samples) if isinstance(self.samples, tuple) else self.samples
        return {"kind": self.kind, "samples": count}


@dataclass(frozen=True)
class Condition:
    """One checked condition: what was required, what was found, by which evidence.

    `holds` is None where the condition could not be checked. `needed` says that nothing is
    `globally` unless it holds.
    """

    name: str
    holds: bool | None
    required: float | int | str | None
    found: float | int | str | None
    evidence: Evidence = Evidence.NUMERICAL
    source: str = ""
    needed: bool = True


@dataclass(frozen=True)
class Residual:
    """A relative residual and the number of equations that could have made it non-zero.

    `value` is None where nothing could be checked; it is never 0 for that reason.
    """

    value: float | None
    equations: int


@dataclass(frozen=True, eq=False)
class Recovery:
    """Recovered training samples, ordered by |b_i| |x_i|^alpha, largest first.

    `samples` (n, d) in the units of the scale convention, `coefficients` (n,) b_i,
    `error_bounds` (n,) relative to |x_i|, NaN where there is none, `residuals` relative.
    """

    samples: FloatArray
    coefficients: FloatArray
    error_bounds: FloatArray
    residuals: Mapping[str, float]
    absolute: FloatArray | None = None

    @property
    def absolute_bounds(self) -> FloatArray:
        """The error bounds in the units of the samples, shape (n,); also of a sample 0."""
        if self.absolute is not None:
            return self.absolute
        return np.asarray(self.error_bounds * np.linalg.norm(self.samples, axis=1))

    @property
    def labels(self) -> FloatArray:
        """Signs of the coefficients, shape (n,)."""
        return np.sign(self.coefficients)

    def _repr_html_(self) -> str:
        """A table for notebooks, above it the samples if they can be square grey images."""
        bounds = [number(float(b)) if np.isfinite(b) else "none" for b in self.error_bounds]
        rows = [
            [str(k), f"{b:.4g}", bound]
            for k, (b, bound) in enumerate(zip(self.coefficients, bounds, strict=True))
        ]
        side = square_side(self.samples.shape[1])
        images = ""
        if side is not None:
            captions = [f"sample {row[0]}, error bound {row[2]}" for row in rows]
            images = pictures_html(self.samples.reshape(-1, side, side), captions)
        return images + table_html(["sample", "coefficient", "error bound"], rows)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A training set that explains the data: samples (n, d), coefficients (n,), residual."""

    samples: FloatArray
    coefficients: FloatArray
    stationarity: float

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.samples.shape[0])
