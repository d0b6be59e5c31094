"""Groups of options: how they are declared, checked, and shown to typer one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial, wraps
from typing import Any, get_type_hints

import typer

from identify.command.limits import threads
from identify.errors import InvalidInputError


def in_panel(panel: str) -> Callable[..., Any]:
    """`typer.Option` for the options of one panel of `--help`.

    Example:
        >>> in_panel("Images")(help="Draw no picture.").rich_help_panel
        'Images'
    """
    return partial(typer.Option, rich_help_panel=panel)


@contextmanager
def as_options() -> Iterator[None]:
    """Let the library's refusal of an argument name the option: `time_limit` is `--time-limit`.

    Example:
        >>> from identify.budget import Budget
        >>> with as_options():
        ...     Budget.of(-1.0)
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: --time-limit: expected a positive number of seconds, got -1.0
    """  # noqa: E501
    try:
        yield
    except InvalidInputError as error:
        said = error.context
        name = "--" + said["name"].replace("_", "-")
        raise type(error)(name, said["expected"], said["got"], said["hint"]) from error


def flat(command: Callable[..., int]) -> Callable[..., int]:
    """Replace every parameter that is a group of options by the options, for typer to see.

    The command is called with the groups, each checked. Options without default come first.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    kind = inspect.Parameter.KEYWORD_ONLY
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if not (isinstance(hint, type) and is_dataclass(hint)):
            parameters.append(parameter.replace(annotation=hint, kind=kind))
            continue
        groups[parameter.name] = hint
        members = get_type_hints(hint, include_extras=True)
        own = inspect.signature(hint).parameters
        parameters += [
            own[field.name].replace(annotation=members[field.name], kind=kind)
            for field in fields(hint)
        ]

    @wraps(command)
    def run(**values: Any) -> int:
        arguments: dict[str, Any] = {}
        for name, group in groups.items():
            arguments[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
        for group_value in arguments.values():
            check = getattr(group_value, "check", None)
            if check is not None:
                check()
        counts = [getattr(group, "threads", None) for group in arguments.values()]
        with threads(next((count for count in counts if count is not None), None)):
            return command(**arguments, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__
    return run
