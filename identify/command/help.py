"""How commands are added, so that `--help` shows an example and the exit codes."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from identify.command.groups import flat

USUAL = "0 done, 1 the run failed, 2 wrong usage or unusable input"


class Command(TyperCommand):
    """A command whose own `--help` is shown without a type."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option


class Group(TyperGroup):
    """The application, likewise."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option


def add_command(
    app: typer.Typer, function: Callable[..., int], example: str, more: str = ""
) -> None:
    """Add a command with its groups of options flat; `more` names exit codes of its own."""
    codes = USUAL + (f", {more}" if more else "") + ", 130 interrupted"
    run = flat(function)
    signature = inspect.signature(run)
    shown = [_readable(parameter) for parameter in signature.parameters.values()]
    run.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    epilog = f"Example: kktcert {example}\n\nExit codes: {codes}."
    app.command(cls=Command, epilog=epilog)(run)


def _readable(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter; no type for a switch, and choices in the text, where words stay whole."""
    if get_origin(parameter.annotation) is not Annotated:
        return parameter
    kind, *notes = get_args(parameter.annotation)
    members = [part for part in get_args(kind) if part is not types.NoneType]
    base = members[0] if get_origin(kind) in (Union, types.UnionType) else kind
    changed = []
    for note in notes:
        if isinstance(note, OptionInfo) and note.metavar is None and isinstance(base, type):
            note = copy.copy(note)
            if base is bool:
                note.metavar = ""
            elif issubclass(base, Enum):
                note.metavar = "WORD"
                words = ", ".join(str(word.value) for word in base)
                note.help = f"{note.help} Words: {words}."
        changed.append(note)
    annotation = Annotated[(kind, *changed)]  # type: ignore[valid-type]
    return parameter.replace(annotation=annotation)
