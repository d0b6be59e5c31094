"""What a checked statement is: data for the reader, functions for the runner."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

EXAMPLES = {"light": 200, "medium": 50, "heavy": 10}
"""Instances that are tried by default, by cost class."""


@dataclass(frozen=True)
class Check:
    """What a conclusion says about one instance.

    `deviation` is how far the two sides are apart, `tolerance` how far rounding and conditioning
    may drive them, both derived from the instance; `holds` is the judgement.

    Example:
        >>> Check.compare(1e-16, 1e-15).holds
        True
    """

    holds: bool
    deviation: float
    tolerance: float
    detail: str = ""

    @classmethod
    def compare(cls, deviation: float, tolerance: float, detail: str = "") -> Check:
        """Hold where the deviation is a number of at most the tolerance."""
        return cls(bool(deviation <= tolerance), float(deviation), float(tolerance), detail)

    @classmethod
    def of(cls, holds: bool, detail: str = "") -> Check:
        """A judgement without a size, as for ranks and counts."""
        return cls(bool(holds), 0.0 if holds else 1.0, 0.5, detail)


@dataclass(frozen=True)
class Hypothesis:
    """A condition of a statement.

    `violating` generates instances that satisfy all other conditions and break this one; None
    where that is impossible, which `sentence` then explains. `necessary` is what is expected of a
    run without the condition: True for a counterexample, False for none, None if not known.
    """

    name: str
    sentence: str
    predicate: Callable[[Any], bool]
    violating: Callable[[], SearchStrategy[Any]] | None = None
    necessary: bool | None = True


@dataclass(frozen=True)
class Sabotage:
    """A deliberate mistake that the statement has to find: exactly one of three kinds.

    A wrong `conclusion` replaces the statement's own. A wrong `implementation` is a context in
    which code of identify or attack has a wrong sign, a wrong factor or a missing term. A wrong
    `construction` is a context that changes what the statement itself builds, for statements about
    a construction that neither package has.
    """

    name: str
    sentence: str
    conclusion: Callable[[Any], Check] | None = None
    implementation: Callable[[], AbstractContextManager[Any]] | None = None
    construction: Callable[[], AbstractContextManager[Any]] | None = None

    def __post_init__(self) -> None:
        """Refuse a sabotage that is nothing, or several things at once."""
        given = (self.conclusion, self.implementation, self.construction)
        if sum(part is not None for part in given) != 1:
            raise ValueError(
                f"sabotage {self.name}: expected a conclusion, an implementation or a construction"
            )

    @property
    def kind(self) -> str:
        """'conclusion', 'implementation' or 'construction'."""
        if self.conclusion is not None:
            return "conclusion"
        return "implementation" if self.implementation is not None else "construction"

    def context(self) -> AbstractContextManager[Any]:
        """Where the mistake is at work; nothing changes for a wrong conclusion."""
        mistake = self.implementation or self.construction
        return nullcontext() if mistake is None else mistake()


@dataclass(frozen=True)
class Statement:
    """A theorem, lemma or identity with everything needed to check it.

    `instances` generates what satisfies every hypothesis; `conclusion` judges one instance;
    `algebra` returns True where symbolic or exact arithmetic proves the statement for the sizes
    that `algebra_note` names; `recheck` judges a failing instance again in exact or high
    precision; `code` lists dotted names of identify and attack that the conclusion or the algebra
    runs, so that a change there is seen here (what only builds instances is judged by nothing and
    does not count); `remark` says what is worth knowing beside it.

    Example:
        >>> from hypothesis import strategies as st
        >>> squares = Statement(
        ...     name="squares", title="Squares", sentence="Squares of reals are not negative.",
        ...     formula="x^2", source="school", hypotheses=(),
        ...     instances=lambda: st.floats(-9, 9), conclusion=lambda x: Check.of(x * x >= 0),
        ...     sabotages=(Sabotage("strict", "x^2 > 0", lambda x: Check.of(x * x > 0)),))
        >>> from proofs_check.machinery.run_one import run_statement
        >>> run_statement(squares).status
        'no counterexample'
    """

    name: str
    title: str
    sentence: str
    formula: str
    source: str
    hypotheses: tuple[Hypothesis, ...]
    instances: Callable[[], SearchStrategy[Any]]
    conclusion: Callable[[Any], Check]
    sabotages: tuple[Sabotage, ...]
    cost: Literal["light", "medium", "heavy"] = "light"
    algebra: Callable[[], bool] | None = None
    algebra_note: str = ""
    recheck: Callable[[Any], Check] | None = None
    code: tuple[str, ...] = ()
    remark: str = ""

    def satisfied(self, instance: Any, without: str | None = None) -> bool:
        """Whether the instance satisfies every hypothesis, one of them left out."""
        return all(h.predicate(instance) for h in self.hypotheses if h.name != without)
