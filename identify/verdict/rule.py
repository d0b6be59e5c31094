"""One rule of the verdict: the stage it needs, and the row and the sentence that it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from identify.hermite.data import HermiteData
from identify.proofs.prove import Proofs
from identify.records import Condition, Evidence
from identify.recovery.assumptions import Assumptions
from identify.recovery.stages import Stage

S_co = TypeVar("S_co", bound=Stage, covariant=True)
S = TypeVar("S", bound=Stage)


@dataclass(frozen=True, eq=False)
class Grounds(Generic[S_co]):
    """What a verdict rests on.

    `asked` is the level of evidence that was asked for; `ended` says why a run ended before its
    verdict, and is empty where it did not.
    """

    data: HermiteData
    given: Assumptions
    stage: S_co
    proofs: Proofs | None = None
    asked: str = "auto"
    ended: str = ""


@dataclass(frozen=True)
class Finding:
    """What a rule found: its row of the report, and the reason of the verdict where it fails.

    `holds` is None where it could not be checked. `needed` says that nothing is `globally` unless
    it holds; `searchable` that other training sets are worth looking for where it fails.
    """

    holds: bool | None
    required: float | None = None
    found: float | None = None
    source: str = ""
    evidence: Evidence = Evidence.NUMERICAL
    needed: bool = True
    sentence: str = ""
    searchable: bool = False

    @property
    def fails(self) -> bool:
        """Whether it decides against uniqueness."""
        return self.needed and self.holds is not True

    def row(self, name: str) -> Condition:
        """The row of a report."""
        return Condition(
            name, self.holds, self.required, self.found, self.evidence, self.source, self.needed
        )


@dataclass(frozen=True)
class Rule:
    """A named rule; `look` gives None where there is nothing of its kind to look at."""

    name: str
    look: Callable[[Grounds[Any]], Finding | None]


def rule(name: str, stage: type[S], look: Callable[[Grounds[S]], Finding | None]) -> Rule:
    """The rule that looks at measurements that came to `stage` or further.

    Example:
        >>> from types import SimpleNamespace
        >>> seen = rule("noise", Stage, lambda at: Finding(at.stage.noise_level < 0.1))
        >>> seen.look(SimpleNamespace(stage=Stage(0.5))).fails
        True
    """

    def look_if_reached(grounds: Grounds[Any]) -> Finding | None:
        return look(grounds) if isinstance(grounds.stage, stage) else None

    return Rule(name, look_if_reached)
