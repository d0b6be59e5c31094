"""What a sweep runs: a command, the values that vary, and what follows each run."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from identify.errors import FileError, InvalidInputError, listed
from identify.model.tensor_file import PathLike, first_line

Value = str | int | float | bool
Option = Value | tuple[Value, ...]

FOLDER = "out"
"""The placeholder of the folder in which a run may write."""
COMMANDS = (
    "attack", "audit", "check", "evaluate", "member", "plant", "recover", "replay", "span",
    "train", "verify",
)  # fmt: skip
RESUMABLE = ("attack",)
"""Commands that write into a folder `--out` and go on there with `--resume`."""
LARGEST = 100_000
"""Most runs of a sweep."""
_PLACE = re.compile(r"\{([A-Za-z0-9_-]+)\}")
_KEYS = ("command", "arguments", "options", "grid", "random", "draws", "seed", "then")


@dataclass(frozen=True)
class Call:
    """One command: its `arguments` in their order and its `options` by name, with placeholders.

    Example:
        >>> call = Call("verify", ("{model}",), {"seed": "{seed}", "non-negative": True})
        >>> call.filled({"model": "a.npz", "seed": 3})
        ('verify', 'a.npz', '--seed', '3', '--non-negative')
    """

    command: str
    arguments: tuple[Value, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)

    def places(self) -> set[str]:
        """Return the names of the placeholders."""
        texts = [*self.arguments, *itertools.chain(*map(_parts, self.options.values()))]
        return {name for text in texts if isinstance(text, str) for name in _PLACE.findall(text)}

    def filled(self, values: Mapping[str, Value], **more: Option) -> tuple[str, ...]:
        """Return the words of the command line; `more` are options by name that come last."""
        words = [self.command, *(_fill(value, values) for value in self.arguments)]
        for name, option in {**self.options, **more}.items():
            for value in _parts(option):
                if isinstance(value, bool):
                    words += [f"--{name}"] if value else []
                else:
                    words += [f"--{name}", _fill(value, values)]
        return tuple(words)


@dataclass(frozen=True)
class Spread:
    """Random values: of a list, or from `low` to `high`, evenly or in the logarithm."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    choice: tuple[Value, ...] = ()

    def draw(self, generator: np.random.Generator) -> Value:
        """Draw one value.

        Example:
            >>> Spread(2, 5, integer=True).draw(np.random.default_rng(0)) in (2, 3, 4, 5)
            True
        """
        if self.choice:
            return self.choice[int(generator.integers(len(self.choice)))]
        if self.log:
            value = float(np.exp(generator.uniform(np.log(self.low), np.log(self.high))))
        elif self.integer:
            return int(generator.integers(int(self.low), int(self.high) + 1))
        else:
            value = float(generator.uniform(self.low, self.high))
        return round(value) if self.integer else value


@dataclass(frozen=True)
class Task:
    """One run: its `number`, the `values` that are its own, and the `calls` in their order."""

    number: int
    values: Mapping[str, Value]
    calls: tuple[Call, ...]

    @property
    def identity(self) -> str:
        """Return what tells the run from others, the same in every process."""
        facts = [dict(self.values), [_plain(call) for call in self.calls]]
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sweep:
    """A command with its followers, a grid of values and random draws of others.

    Every point of the grid is combined with every draw; the draws are the same at all points.

    Example:
        >>> sweep = Sweep(Call("verify", ("net.npz",)), grid={"seed": (0, 1), "noise": (0.0, 0.1)})
        >>> [dict(task.values) for task in sweep.tasks()][:2]
        [{'seed': 0, 'noise': 0.0}, {'seed': 0, 'noise': 0.1}]
        >>> sweep.tasks()[1].calls[0].filled(sweep.tasks()[1].values)
        ('verify', 'net.npz', '--seed', '0', '--noise', '0.1')
    """

    call: Call
    then: tuple[Call, ...] = ()
    grid: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    random: Mapping[str, Spread] = field(default_factory=dict)
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for call in (self.call, *self.then):
            if call.command not in COMMANDS:
                raise InvalidInputError("command", listed(COMMANDS), call.command)
            unknown = call.places() - {*self.grid, *self.random, FOLDER}
            if unknown:
                raise InvalidInputError(
                    "placeholder", f"one of {listed(sorted({*self.grid, *self.random, FOLDER}))}",
                    sorted(unknown)[0],
                )  # fmt: skip
        both = {*self.grid} & {*self.random}
        if both or FOLDER in {*self.grid, *self.random}:
            name = sorted(both)[0] if both else FOLDER
            raise InvalidInputError(name, "one list of values, and not the name out", "another")
        if self.size > LARGEST:
            raise InvalidInputError("sweep", f"at most {LARGEST:,} runs", f"{self.size:,}")

    @property
    def size(self) -> int:
        """Return the number of runs."""
        count = self.draws
        for values in self.grid.values():
            count *= len(values)
        return count

    def tasks(self) -> tuple[Task, ...]:
        """Return all runs, the last value of the grid changing first."""
        calls = (self._with_values(), *self.then)
        return tuple(
            Task(number, values, calls) for number, values in enumerate(self._points(), start=1)
        )

    def _points(self) -> Iterator[dict[str, Value]]:
        generator = np.random.default_rng(self.seed)
        drawn = [
            {name: spread.draw(generator) for name, spread in self.random.items()}
            for _ in range(self.draws)
        ]
        for chosen in itertools.product(*self.grid.values()):
            for more in drawn:
                yield {**dict(zip(self.grid, chosen, strict=True)), **more}

    def _with_values(self) -> Call:
        """The command with an option for every value that has no place."""
        places = set().union(*(call.places() for call in (self.call, *self.then)))
        own = {name: f"{{{name}}}" for name in (*self.grid, *self.random) if name not in places}
        twice = sorted({*own} & {*self.call.options})
        if twice:
            raise InvalidInputError(twice[0], "one value", "an option and a list of values")
        return Call(self.call.command, self.call.arguments, {**self.call.options, **own})


def read_sweep(path: PathLike) -> Sweep:
    """Read a specification in TOML.

    Keys: `command`, `arguments` (a list), `options` (a table; a list repeats the option, true is a
    switch), `grid` (a table of lists), `random` (a table of `{low, high, log, integer}` or lists),
    `draws`, `seed`, and tables `[[then]]` with command, arguments and options of their own.

    Raises FileError for a file that cannot be read, InvalidInputError for unknown or wrong keys.
    """
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(file, error.strerror or "cannot be read") from error
    except ValueError as error:
        raise FileError(file, f"is no TOML ({first_line(error)})") from error
    _known(content, _KEYS)
    grid = _table(content, "grid")
    random = _table(content, "random")
    return Sweep(
        _call(content),
        tuple(_call(_known(part, _KEYS[:3])) for part in _tables(content, "then")),
        {name: _values(name, values) for name, values in grid.items()},
        {name: _spread(name, given) for name, given in random.items()},
        _count(content, "draws", 1, least=1),
        _count(content, "seed", 0, least=0),
    )


def _call(content: Mapping[str, Any]) -> Call:
    arguments = content.get("arguments", [])
    arguments = _values("arguments", arguments) if arguments != [] else ()
    options = {
        name.lstrip("-"): _values(name, given) if isinstance(given, list) else _value(name, given)
        for name, given in _table(content, "options").items()
    }
    return Call(str(content.get("command", "")), arguments, options)


def _known(content: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    for name in content:
        if name not in keys:
            raise InvalidInputError(name, f"one of {listed(keys)}", "an unknown key")
    return content


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name, {})
    if not isinstance(found, dict):
        raise InvalidInputError(name, "a table", type(found).__name__)
    return found


def _tables(content: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = content.get(name, [])
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise InvalidInputError(name, f"tables [[{name}]]", type(found).__name__)
    return found


def _values(name: str, given: Any) -> tuple[Value, ...]:
    if not isinstance(given, list) or not given:
        raise InvalidInputError(name, "a list of values", given)
    return tuple(_value(name, value) for value in given)


def _value(name: str, given: Any) -> Value:
    if isinstance(given, str | int | float):
        return given
    raise InvalidInputError(name, "a text, a number, true or false", type(given).__name__)


def _spread(name: str, given: Any) -> Spread:
    if isinstance(given, list):
        return Spread(choice=_values(name, given))
    if not isinstance(given, dict):
        raise InvalidInputError(name, "a list, or low and high", given)
    _known(given, ("low", "high", "log", "integer"))
    low, high = (_number(name, given.get(bound)) for bound in ("low", "high"))
    log, integer = bool(given.get("log", False)), bool(given.get("integer", False))
    if not low <= high or (log and low <= 0):
        raise InvalidInputError(name, "low <= high, and positive ones with log", given)
    return Spread(low, high, log, integer)


def _number(name: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidInputError(name, "numbers low and high", given)
    return float(given)


def _count(content: Mapping[str, Any], name: str, default: int, *, least: int) -> int:
    found = content.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int) or found < least:
        raise InvalidInputError(name, f"a whole number of at least {least}", found)
    return found


def _parts(option: Option) -> tuple[Value, ...]:
    return option if isinstance(option, tuple) else (option,)


def _fill(value: Value, values: Mapping[str, Value]) -> str:
    return _PLACE.sub(lambda m: str(values.get(m[1], m[0])), str(value))


def _plain(call: Call) -> list[Any]:
    return [call.command, list(call.arguments), {k: v for k, v in call.options.items()}]
