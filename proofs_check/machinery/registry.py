"""All statements, in the order in which they are printed."""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Mapping, Sequence
from functools import lru_cache

from identify.errors import InvalidInputError, one_line
from proofs_check.machinery.statement import Statement

TOPICS: Mapping[str, str] = {
    "kkt": "Stationary points and the data that they give",
    "tensors": "Moment tensors and their decompositions",
    "interpolation": "When the linear equations determine the tensor",
    "uniqueness": "What exactly is unique, and what is not",
    "freedom": "Freedom that is left",
    "batches": "ReLU networks, sample by sample: one gradient, stationary points",
    "splitting": "Splitting of candidates",
    "beyond": "Trained networks, low rank, fine-tuning, other activations",
}
"""Topics in the order in which they are printed, with their headings: folders of statements."""

_STATEMENTS = "proofs_check.statements"


@lru_cache(maxsize=1)
def all_statements() -> tuple[Statement, ...]:
    """Every statement of the modules in `proofs_check.statements`, by topic, then as listed.

    Raises:
        ValueError: two statements have one name.

    Example:
        >>> "kkt-balance" in [statement.name for statement in all_statements()]
        True
    """
    found = [statement for _, statement in _modules()]
    names = [statement.name for statement in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"statement names: expected each once, got {sorted(twice)} twice")
    return tuple(found)


def _modules() -> list[tuple[str, Statement]]:
    """Named by a string, so that statements import the machinery and not the reverse."""
    found = []
    for topic in TOPICS:
        folder = importlib.import_module(f"{_STATEMENTS}.{topic}")
        for name in sorted(m.name for m in pkgutil.iter_modules(folder.__path__)):
            loaded = importlib.import_module(f"{folder.__name__}.{name}")
            found += [(loaded.__name__, entry) for entry in getattr(loaded, "STATEMENTS", ())]
    return found


@lru_cache(maxsize=1)
def _places() -> dict[str, str]:
    return {statement.name: module for module, statement in _modules()}


def module_of(statement: Statement) -> str:
    """The dotted name of the module that holds a statement.

    Example:
        >>> module_of(select("kkt-balance")[0])
        'proofs_check.statements.kkt.balance'
    """
    return _places()[statement.name]


def topic_of(name: str) -> str:
    """The folder that the statement of this name lies in, "" for one of your own.

    Example:
        >>> topic_of("kkt-balance")
        'kkt'
    """
    return _places().get(name, "..").split(".")[-2]


def select(names: str | Sequence[str], examples: float = 1.0) -> tuple[Statement, ...]:
    """The statements of these names, or of the topics among them; "all" for every one.

    Raises:
        InvalidInputError: an unknown name, or a factor that is not positive and finite.

    Example:
        >>> [statement.name for statement in select(["dead-neurons", "kkt-balance"])]
        ['dead-neurons', 'kkt-balance']
    """
    if not (math.isfinite(examples) and examples > 0.0):
        raise InvalidInputError("examples", "a positive factor", examples)
    words = [names] if isinstance(names, str) else list(names)
    if not words:
        raise InvalidInputError("statement", "at least one name, or all", "none")
    known = {statement.name: statement for statement in all_statements()}
    chosen: list[Statement] = []
    for word in words:
        if word in known:
            chosen.append(known[word])
        elif word in TOPICS:
            chosen += [s for s in all_statements() if topic_of(s.name) == word]
        elif word == "all":
            chosen += all_statements()
        else:
            near = difflib.get_close_matches(word, [*known, *TOPICS], n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else "see kktcert proofs --list"
            got = one_line(repr(word))
            raise InvalidInputError("statement", "a name of a statement or topic", got, hint)
    return tuple(dict.fromkeys(chosen))
