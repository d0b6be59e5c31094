"""How commands are added, so that `--help` shows an example and the exit codes."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import OptionInfo

from identify.command.config import running
from identify.command.groups import flat
from identify.model.losses import read_loss

USUAL = "0 done, 1 the run failed, 2 wrong usage or unusable input"


class Command(TyperCommand):
    """A command whose `--help` shows no types: not of `--help`, and not of files."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                _without_type(parameter)

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it writes can say with which options."""
        with running(ctx):
            return super().invoke(ctx)


class Group(TyperGroup):
    """The application, likewise."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option `--help`."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option


def _without_type(argument: Any) -> None:
    """Show an argument as MODEL, not as {MODEL} <path>."""
    name = argument.display_name_raw
    shown = name if argument.required or name.startswith("[") else f"[{name}]"
    argument.display_type_rich = lambda ctx: None
    argument.get_usage_pieces = lambda ctx: [shown]


def read_word(words: type[Enum], text: str) -> Enum:
    """The word that a text means; case counts as little as hyphen or underscore.

    Words of losses may be those of other libraries, see `read_loss`.

    Raises ValueError for others, which typer puts behind the name of the option.

    Example:
        >>> from identify.command.names import LossName, SourceName
        >>> read_word(SourceName, "weight_decay").value, read_word(LossName, "nn.MSELoss").value
        ('weight-decay', 'squared')
    """
    named = {str(word.value): word for word in words}
    for name, word in named.items():
        if text.strip().lower().replace("_", "-") == name.replace("_", "-"):
            return word
    try:
        return named[read_loss(text, tuple(named))] if "cross-entropy" in named else words(text)
    except ValueError:
        expected = ", ".join(named)
        raise ValueError(f"expected one of {expected}, got {text!r}") from None


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
                note.parser = note.parser or partial(read_word, base)
                words = ", ".join(str(word.value) for word in base)
                note.help = f"{note.help} Words: {words}."
        changed.append(note)
    annotation = Annotated[(kind, *changed)]  # type: ignore[valid-type]
    return parameter.replace(annotation=annotation)
