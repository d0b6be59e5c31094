"""Whether a statement runs the code that it names."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any

from proofs_check import strategies
from proofs_check.machinery.search import search
from proofs_check.machinery.statement import Check, Statement


def unreached(statement: Statement, examples: int = 4, seed: int = 0) -> tuple[str, ...]:
    """The names of `code` that neither the conclusion nor the algebra runs.

    A class or module is reached through any function that is defined in it. The algebra runs only
    if the conclusion left something out; what builds instances does not count.

    Example:
        >>> from proofs_check.machinery.registry import select
        >>> unreached(select("kkt-balance")[0])
        ()
    """
    wanted = {place: functions_of(place) for place in statement.code}
    seen: set[CodeType] = set()
    every = frozenset(code for codes in wanted.values() for code in codes)

    def missing() -> tuple[str, ...]:
        return tuple(place for place, codes in wanted.items() if not codes & seen)

    def conclusion(instance: Any) -> Check:
        if missing():
            strategies.forget()
            with _watched(every, seen):
                return statement.conclusion(instance)
        return Check.of(True)

    if wanted:
        search(statement.instances(), statement.satisfied, conclusion, examples, seed, shrink=False)
    if missing() and statement.algebra is not None:
        with _watched(every, seen):
            statement.algebra()
    return missing()


@contextmanager
def _watched(every: frozenset[CodeType], seen: set[CodeType]) -> Iterator[None]:
    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in every:
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def functions_of(place: str) -> frozenset[CodeType]:
    """The code of a function, of the methods of a class or of the functions of a module.

    Raises:
        ValueError: nothing of this name exists, or there is no code behind it.

    Example:
        >>> [code.co_name for code in functions_of("identify.tensors.monomials")]
        ['monomials']
    """
    parts = place.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name is None or not place.startswith(error.name):
                raise
            continue
        for name in parts[cut:]:
            found = getattr(found, name, None)
        codes = frozenset(function.__code__ for function in _functions(found))
        if codes:
            return codes
        break
    raise ValueError(f"code: expected the name of a function, class or module, got {place}")


def _functions(found: Any) -> Iterator[Callable[..., Any]]:
    if isinstance(found, ModuleType):
        for value in vars(found).values():
            if getattr(value, "__module__", None) == found.__name__:
                yield from _functions(value)
    elif inspect.isclass(found):
        for value in vars(found).values():
            # What a dataclass writes itself says nothing about a reached class.
            if not getattr(value, "__name__", "").startswith("__"):
                yield from _functions(value)
    else:
        for name in ("fget", "func", "__func__"):
            found = getattr(found, name, found)
        found = inspect.unwrap(found) if callable(found) else found
        if inspect.isfunction(found):
            yield found
