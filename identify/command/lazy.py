"""Commands that are loaded when they are run: the list of all of them costs no import."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand

from identify.command.help import Group, add_command


@dataclass(frozen=True)
class Entry:
    """A command: the function as ``module:name``, its first line of help, and its example.

    `more` names exit codes of its own.
    """

    function: str
    summary: str
    example: str
    more: str = ""

    @property
    def name(self) -> str:
        """The word by which it is called."""
        return self.function.rpartition(":")[2]

    def load(self) -> TyperCommand:
        """Import the function and build its command."""
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        add_command(alone, pkgutil.resolve_name(self.function), self.example, self.more)
        built = typer.main.get_command(alone)
        assert isinstance(built, TyperCommand)
        built.name = self.name
        return built


class _Commands(Mapping[str, Any]):
    """The commands by name, each loaded when it is asked for."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._loaded: dict[str, TyperCommand] = {}

    def __getitem__(self, name: str) -> TyperCommand:
        if name not in self._loaded:
            self._loaded[name] = self._entries[name].load()
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def lazy_group(entries: Sequence[Entry]) -> type[Group]:
    """The class of an application whose commands are loaded when they are run.

    `--help` lists names and summaries without importing a command.

    Example:
        >>> entry = Entry("identify.command.derive:derive", "Derive.", "derive --degree 3")
        >>> app = typer.Typer(cls=lazy_group([entry]), invoke_without_command=True)
        >>> _ = app.callback()(lambda: None)
        >>> group = typer.main.get_command(app)
        >>> list(group.commands), group.get_command(None, "derive").help
        (['derive'], 'Derive.')
    """

    class Lazy(Group):
        """The application."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            # typer would let commands be added here; these are all.
            self.commands = _Commands(entries)  # type: ignore[assignment]

        def list_commands(self, ctx: Any) -> list[str]:
            """The names, in the order of the entries."""
            return list(self.commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """What the list of commands shows of one."""
            for entry in entries:
                if entry.name == cmd_name:
                    return TyperCommand(entry.name, help=entry.summary)
            return None

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """The command that is run, loaded."""
            name, found, rest = super().resolve_command(ctx, args)
            return name, None if name is None or found is None else self.commands[name], rest

    return Lazy
