"""Claims, their outcomes, and the error for unusable input: shared by the parts of the checker."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[str, float], None]
T = TypeVar("T")

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "not checkable"
FLOAT = "recomputed in float64"
TINY = 1e-12
"""Relative residuals below this are rounding errors, which nobody reproduces exactly."""


def printable(value: object, length: int = 400) -> str:
    """One line of printable ASCII: a hostile name may hold line breaks, escapes, surrogates.

    Example:
        >>> printable("one\\ntwo \\x1b[1m")
        'one two [1m'
    """
    text = "".join(c if c.isascii() and c.isprintable() else " " for c in str(value))
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


class CheckInputError(ValueError):
    """A report or a file that cannot be checked at all; the message is one line.

    Example:
        >>> raise CheckInputError("report", "an object", "a list")
        Traceback (most recent call last):
        ...
        identify.checker.outcome.CheckInputError: report: expected an object, got a list
    """

    def __init__(self, name: object, expected: str, got: object, hint: str = "") -> None:
        text = f"{name}: expected {expected}, got {got}" + (f"; {hint}" if hint else "")
        super().__init__(printable(text))


@dataclass(frozen=True)
class Claim:
    """One claim of a report: `outcome` is confirmed, refuted or not checkable.

    `how` says by which arithmetic, `detail` is one sentence; all are kept as printable ASCII.
    """

    name: str
    outcome: str
    how: str
    detail: str

    def __post_init__(self) -> None:
        for part in ("name", "outcome", "how", "detail"):
            object.__setattr__(self, part, printable(getattr(self, part)))

    @property
    def holds(self) -> bool:
        """Whether the claim is confirmed."""
        return self.outcome == CONFIRMED


@dataclass(frozen=True)
class CheckResult:
    """Every claim of a report with its outcome; `str()` gives a plain table.

    `not_checked` names the fields that no claim vouches for: notes, and numbers that rounding
    errors decide.

    Example:
        >>> claim = Claim("verdict", "refuted", "hash", "the digest differs")
        >>> print(CheckResult((claim,), ("reason",)))
        verdict  refuted  hash  the digest differs
        not checked: reason
        outcome: refuted
    """

    claims: tuple[Claim, ...]
    not_checked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "not_checked", tuple(map(printable, self.not_checked)))

    @property
    def outcome(self) -> str:
        """Refuted if any claim is, confirmed if the verdict is, else not checkable."""
        if any(claim.outcome == REFUTED for claim in self.claims):
            return REFUTED
        return CONFIRMED if self["verdict"].holds else OPEN

    def __getitem__(self, name: str) -> Claim:
        """Return the claim of that name; KeyError if the report does not make it."""
        for claim in self.claims:
            if claim.name == name:
                return claim
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data for JSON."""
        rows = [
            {"name": c.name, "outcome": c.outcome, "how": c.how, "detail": c.detail}
            for c in self.claims
        ]
        return {
            "outcome": self.outcome,
            "claims": rows,
            "not_checked": list(self.not_checked),
        }

    def __str__(self) -> str:
        cells = [(c.name, c.outcome, c.how, c.detail) for c in self.claims]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
            for row in cells
        ]
        lines = [line.rstrip() for line in lines]
        if self.not_checked:
            lines.append(f"not checked: {', '.join(self.not_checked)}")
        return "\n".join([*lines, f"outcome: {self.outcome}"])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


class NotCheckableError(Exception):
    """Raised inside the check of one claim that cannot be decided; the message says why."""


class RefutedError(Exception):
    """Raised inside the check of one claim that is false; the message says why."""


def require(condition: bool | np.bool_, detail: str) -> None:
    """Raise RefutedError unless the condition is true; NaN makes every comparison false."""
    if not condition:
        raise RefutedError(detail)


def check_possible(condition: bool | np.bool_, detail: str) -> None:
    """Raise NotCheckableError unless the condition is true."""
    if not condition:
        raise NotCheckableError(detail)


def required(value: T | None, detail: str) -> T:
    """The value, or RefutedError if there is none."""
    if value is None:
        raise RefutedError(detail)
    return value


def available(value: T | None, detail: str) -> T:
    """The value, or NotCheckableError if there is none."""
    if value is None:
        raise NotCheckableError(detail)
    return value


def finite(matrix: FloatArray) -> FloatArray:
    """The matrix, or NotCheckableError if it holds NaN or infinity."""
    check_possible(bool(np.isfinite(matrix).all()), "numbers leave the range of float64")
    return matrix


def decide(name: str, how: str, check: Callable[[], str | tuple[str, str]]) -> Claim:
    """Run the check of one claim; it returns the sentence, or `how` and the sentence."""
    try:
        with np.errstate(all="ignore"):
            result = check()
    except RefutedError as error:
        return Claim(name, REFUTED, how, str(error))
    except NotCheckableError as error:
        return Claim(name, OPEN, how, str(error))
    except (
        ArithmeticError, ValueError, MemoryError, RecursionError, np.linalg.LinAlgError
    ) as error:  # fmt: skip
        if isinstance(error, CheckInputError):
            raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        return Claim(name, OPEN, how, f"the arithmetic breaks down ({reason})")
    if isinstance(result, tuple):
        how, result = result
    return Claim(name, CONFIRMED, how, result)


def agrees(stated: float, own: float, tolerance: float = 0.01, floor: float = 0.0) -> bool:
    """Whether two numbers agree to a relative tolerance, or are both at most `floor`.

    Example:
        >>> agrees(1.001, 1.0), agrees(2.0, 1.0), agrees(3e-16, 1e-16, floor=1e-12)
        (True, False, True)
    """
    if not (np.isfinite(stated) and np.isfinite(own)):
        return False
    if max(abs(stated), abs(own)) <= floor:
        return True
    return abs(stated - own) <= tolerance * max(abs(stated), abs(own))
