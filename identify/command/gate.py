"""The gate: which outcomes end with exit code 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from identify.errors import InvalidInputError
from identify.records import Verdict

BLOCKED = 3
CANDIDATES, NOT_COVERED = "candidates", "not-covered"


class Judged(Protocol):
    """A report of any kind."""

    @property
    def verdict(self) -> str: ...

    @property
    def candidates(self) -> bool: ...

    @property
    def covered(self) -> bool: ...


@dataclass(frozen=True)
class Gate:
    """The words of --fail-on: verdicts, `candidates`, `not-covered`."""

    words: frozenset[str]

    @property
    def blocks_uncovered(self) -> bool:
        """Whether files that the verifier does not cover are to end with exit code 3."""
        return NOT_COVERED in self.words

    def why_blocked(self, report: Judged) -> str | None:
        """The word that the report meets, or None.

        Example:
            >>> from types import SimpleNamespace
            >>> report = SimpleNamespace(verdict=Verdict.UNDECIDED, candidates=True, covered=True)
            >>> parse_gate("globally,candidates").why_blocked(report)
            'candidates'
        """
        verdict = str(report.verdict)
        if verdict in self.words:
            return verdict
        if CANDIDATES in self.words and report.candidates:
            return CANDIDATES
        if NOT_COVERED in self.words and not report.covered:
            return NOT_COVERED
        return None


def parse_gate(text: str | None) -> Gate:
    """The gate of a comma-separated list of words.

    Example:
        >>> sorted(parse_gate("undecided,not-covered").words)
        ['not-covered', 'undecided']
    """
    known = [*(verdict.value for verdict in Verdict), CANDIDATES, NOT_COVERED]
    return Gate(_words(text, known))


def parse_exposed(text: str | None) -> bool:
    """Whether an audit is to end with exit code 3 where a sample is exposed."""
    return bool(_words(text, ["exposed"]))


def _words(text: str | None, known: list[str]) -> frozenset[str]:
    words = [] if text is None else [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise InvalidInputError("--fail-on", f"words among {', '.join(known)}", repr(word))
    return frozenset(words)
