"""Typed errors, each with a message of one line: expected, got, what to try."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


class KktCertError(Exception):
    """Base of every error this project raises on purpose.

    ``context`` holds the facts behind the message by name. Control characters are escaped, so that
    text from an untrusted file can neither break the line nor drive a terminal.

    Example:
        >>> str(KktCertError("two\\nlines", path="a.npz"))
        'two\\\\nlines'
    """

    context: dict[str, Any]

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(one_line(message))
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors below take other arguments than the message that ends in ``args``.
        return _rebuild, (type(self), self.args, self.__dict__)


class InvalidInputError(KktCertError, ValueError):
    """An argument or array that breaks its contract.

    Example:
        >>> print(InvalidInputError("samples", "at least 1", -2, "leave it out if unknown"))
        samples: expected at least 1, got -2; leave it out if unknown
    """

    def __init__(self, name: str, expected: str, got: object, hint: str = "") -> None:
        message = _with_hint(f"{name}: expected {expected}, got {got}", hint)
        super().__init__(message, name=name, expected=expected, got=got, hint=hint)


class NotCoveredError(InvalidInputError):
    """Data that contradict the network they are said to come from: another activation or file.

    Example:
        >>> issubclass(NotCoveredError, InvalidInputError)
        True
    """


class UnsupportedModelError(KktCertError, ValueError):
    """A well-formed network that the verifier does not cover.

    Example:
        >>> print(UnsupportedModelError("3 layers", "two layers are covered"))
        3 layers; two layers are covered
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(_with_hint(what, hint), what=what, hint=hint)


class UnsupportableModelError(UnsupportedModelError):
    """A network outside the theory: no later version of the verifier will cover it.

    Example:
        >>> issubclass(UnsupportableModelError, UnsupportedModelError)
        True
    """


class NotYetSupportedError(UnsupportedModelError):
    """A network that the theory covers and this version does not.

    Example:
        >>> issubclass(NotYetSupportedError, UnsupportedModelError)
        True
    """


class FileError(KktCertError, ValueError):
    """A file that is missing, unreadable, unsafe, truncated or without the arrays it should hold.

    Example:
        >>> print(FileError("a.npz", "is empty", "write it again"))
        a.npz: is empty; write it again
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, hint: str = "") -> None:
        message = _with_hint(f"{os.fspath(path)}: {problem}", hint)
        super().__init__(message, path=os.fspath(path), problem=problem, hint=hint)


class NotDeterminedError(KktCertError):
    """The data do not determine the samples; ``report`` says why and what is known.

    Example:
        >>> NotDeterminedError("undecided: too few neurons", report=None).report is None
        True
    """

    report: Any

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report


class BudgetExceededError(KktCertError, TimeoutError):
    """The time limit ended the work; ``partial`` holds what was reached.

    Example:
        >>> BudgetExceededError("time limit of 1 s", partial=[1]).partial
        [1]
    """

    partial: Any

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


def one_line(text: str) -> str:
    """Escape every character that is not printable, line breaks included.

    Example:
        >>> one_line("a\\tb")
        'a\\\\tb'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def listed(names: Iterable[str], limit: int = 8) -> str:
    """List names for a message: at most ``limit`` of them, each cut at 60 characters.

    Example:
        >>> listed(["b", "a", "c"], limit=2)
        'b, a and 1 more'
    """
    every = [(name if len(name) <= 60 else name[:57] + "...") or '""' for name in names]
    if not every:
        return "none"
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def _with_hint(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message


def _rebuild(kind: type[KktCertError], args: tuple[Any, ...], state: dict[str, Any]) -> object:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch or Python says that memory ran out.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("shape mismatch"))
        False
    """
    text = str(error).lower()
    words = (
        "can't allocate memory",
        "not enough memory",
        "out of memory",
        "cannot allocate memory",
    )
    return isinstance(error, MemoryError) or any(word in text for word in words)
