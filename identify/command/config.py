"""Options from a TOML file, and the file that says with which options a command ran."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from identify.command.hub import shown
from identify.errors import FileError, InvalidInputError, listed

FILE = "command.toml"
"""What a command writes into its folder."""
_LARGEST = 1_000_000
_LEFT_OUT = ("config", "version", "force", "help")
_RUNNING: ContextVar[tuple[str, Mapping[str, Any]] | None] = ContextVar("running", default=None)


def key_of(parameter: Any) -> str:
    """The name of an option, or of an argument as `--help` shows it, in a file.

    Example:
        >>> from types import SimpleNamespace
        >>> key_of(SimpleNamespace(opts=["-v", "--verbose"]))
        'verbose'
        >>> key_of(SimpleNamespace(opts=["data"], metavar="DATA.npz"))
        'data'
    """
    long = [name[2:] for name in parameter.opts if name.startswith("--")]
    if long:
        return str(long[0])
    found = re.match(r"\[?([A-Za-z-]+)", parameter.metavar or parameter.opts[0])
    return found[1].lower() if found else str(parameter.opts[0])


def read_config(context: typer.Context, value: Path | None) -> Path | None:
    """Take what a file says where the command line says nothing; a callback of typer.

    Raises FileError for a file that is no TOML, InvalidInputError for a name or a value that the
    command does not take.
    """
    if value is None or context.resilient_parsing:
        return value
    content = _load(value)
    name = str(context.command.name)
    if content.pop("command", name) != name:
        raise InvalidInputError("--config", f"a file for {name}", f"{value}, for another command")
    known = {key_of(p): p for p in context.command.params if p.name not in _LEFT_OUT}
    given: dict[str, Any] = {}
    for key, part in content.items():
        parameter = known.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise InvalidInputError(
                "--config", f"names of options of {name}", repr(key),
                f"such as {listed(sorted(known))}",
            )  # fmt: skip
        given[parameter.name] = _value(key, part, parameter)
    context.default_map = {**(context.default_map or {}), **given}
    return value


@contextmanager
def running(context: typer.Context) -> Iterator[None]:
    """Remember the options of the command that runs, for `config_text`."""
    kept: dict[str, Any] = {}
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name not in _LEFT_OUT and value is not None and value is not False:
            kept[key_of(parameter)] = _plain(value)
    token = _RUNNING.set((str(context.command.name), kept))
    try:
        yield
    finally:
        _RUNNING.reset(token)


def config_text() -> str | None:
    """The file that `--config` takes for the command that runs, None where none does."""
    import tomli_w

    found = _RUNNING.get()
    if found is None:
        return None
    name, options = found
    content = {"command": name, **{key: part for key, part in options.items() if part != []}}
    return f"# kktcert {metadata.version('kktcert')}\n{tomli_w.dumps(content)}"


def write_config(folder: Path) -> None:
    """Write the file into a folder that a run has filled."""
    text = config_text()
    if text is not None and folder.is_dir():
        (folder / FILE).write_text(text, encoding="utf-8")


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise FileError(path, f"is larger than {_LARGEST:,} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileError(path, "is no TOML") from error
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})") from error


def _value(key: str, given: Any, parameter: Any) -> Any:
    """The value as words of a command line, which the option then reads; switches stay as is."""
    many = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    if many:
        parts = given if isinstance(given, list) else [given]
        return [_word(key, part) for part in parts]
    if getattr(parameter, "is_flag", False):
        if not isinstance(given, bool):
            raise InvalidInputError(f"--config: {key}", "true or false", repr(given))
        return given
    return _word(key, given)


def _word(key: str, given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise InvalidInputError(f"--config: {key}", "a text or a number", repr(given))
    return str(given)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Path):
        value = shown(value)
    # A name of a file may hold bytes that are no text.
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
