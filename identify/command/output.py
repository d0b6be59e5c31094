"""Where the commands write: standard error for the log, a folder or a file for the results."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from identify.command.config import write_config
from identify.errors import FileError, InvalidInputError, one_line

Progress = Callable[[str, float], None]

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
LOGGERS = ("identify", "attack", "proofs_check")
"""The loggers of the packages; -v prints what they say."""
FIRST_LINE, NEXT_LINE = 2.0, 60.0
"""Seconds until progress is told where there is no terminal, and between two lines of it."""


def say_error(message: str) -> None:
    """Print one line on standard error."""
    print(f"kktcert: error: {one_line(' '.join(message.split()))}", file=sys.stderr)


def require_extra(what: str, extra: str, packages: tuple[str, ...]) -> None:
    """Raise InvalidInputError unless all packages of an extra are installed.

    Example:
        >>> require_extra("demo", "demo", ("json", "nowhere"))
        Traceback (most recent call last):
        ...
        identify.errors.InvalidInputError: demo: expected the package nowhere, got no such package; pip install 'kktcert[demo]'
    """  # noqa: E501
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InvalidInputError(
                what,
                f"the package {package}",
                "no such package",
                f"pip install 'kktcert[{extra}]'",
            )


class Log:
    """Progress and remarks on standard error.

    On a terminal a bar shows the progress; elsewhere a line says after 2 s, and then once a minute,
    how far it is. `verbose` gives a line for every stage, `quiet` silences all but errors.
    """

    def __init__(self, *, verbose: bool = False, quiet: bool = False) -> None:
        self.verbose = verbose
        self.quiet = quiet
        self.stage = ""
        self.share = 0.0
        self._told = ""

    def note(self, text: str) -> None:
        """Say what the user should know, unless quiet."""
        if not self.quiet:
            print(f"kktcert: {one_line(text)}", file=sys.stderr)

    def detail(self, text: str) -> None:
        """Say what is worth knowing with -v."""
        if self.verbose:
            self.note(text)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Give a callback (stage, share in [0, 1]) that shows the progress while it lasts."""
        if self.quiet:
            yield self._plain
            return
        if self.verbose:
            with self._listening(), self._beating():
                yield self._plain
            return
        if not sys.stderr.isatty():
            with self._beating():
                yield self._plain
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Elapsed())
        console = Console(stderr=True)
        # Left alone, rich would send what is printed on standard output to its own console.
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task("starting", total=1.0)

            def show(stage: str, share: float) -> None:
                self.stage = stage
                bar.update(task, description=stage, completed=min(max(share, 0.0), 1.0))

            yield show

    def _plain(self, stage: str, share: float) -> None:
        # The library has often logged the stage before it tells the callback.
        if stage not in (self.stage, self._told):
            self.detail(stage)
        self.stage, self.share = stage, share

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Print what the packages log, one line a record."""
        handler = _Lines(self._record)
        loggers = [logging.getLogger(name) for name in LOGGERS]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)

    def _record(self, text: str) -> None:
        self._told = text
        self.detail(text)

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Say now and then how far the work is; a thread, as a stage may take an hour."""
        ended, started = threading.Event(), time.monotonic()

        def beat() -> None:
            wait = FIRST_LINE
            while not ended.wait(wait):
                share = f", {min(max(self.share, 0.0), 1.0):.0%}" if self.share > 0.0 else ""
                seconds = time.monotonic() - started
                self.note(f"{self.stage or 'starting'}{share}, {seconds:.0f} s")
                wait = NEXT_LINE

        thread = threading.Thread(target=beat, name="kktcert-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Lines(logging.Handler):
    """Hands every record on as text."""

    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.getMessage())


class OutputFolder:
    """A folder that is checked before the work and takes results one whole file at a time.

    As a context it creates the folder at the start and removes what it created if nothing was
    written. `names` are the files that the command may write: those of an earlier run that this
    one did not replace are removed at the end, so that no folder mixes two runs.

    Raises InvalidInputError for a path that is a file, a folder that is not empty (unless `force`),
    and one that cannot be written.
    """

    def __init__(self, path: Path | None, *, force: bool, names: tuple[str, ...] = ()) -> None:
        self.path = path
        self.names = names
        self.written: list[str] = []
        self._force = force
        self._created: list[Path] = []

    def __enter__(self) -> OutputFolder:
        if self.path is not None:
            self._prepare(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.path is not None and self.written:
            for name in self.names:
                if name not in self.written:
                    (self.path / name).unlink(missing_ok=True)
            if error is None:
                write_config(self.path)
        if not self.written:
            self._remove_created()

    def __bool__(self) -> bool:
        return self.path is not None

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give the path of a temporary file that takes its name when the block ends well."""
        if self.path is None:
            raise InvalidInputError("--out", "a folder to write to", "none")
        with replacing(self.path / name) as temporary:
            yield temporary
        self.written.append(name)

    def write_text(self, name: str, text: str) -> None:
        """Write one text file."""
        with self.writing(name) as path:
            path.write_text(text, encoding="utf-8")

    def _prepare(self, path: Path) -> None:
        option, hint = "--out", "choose another folder"
        try:
            if path.is_dir():
                if not self._force and next(path.iterdir(), None) is not None:
                    raise InvalidInputError(
                        option, "an absent or empty folder", f"{path}, not empty", "add --force"
                    )
            elif path.exists() or path.is_symlink():
                raise InvalidInputError(option, "a folder", f"the file {path}", hint)
            else:
                self._create(path)
            check_writable(path, option, hint)
        except (OSError, ValueError) as error:
            self._remove_created()
            if isinstance(error, InvalidInputError):
                raise
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidInputError(
                option, "a folder that can be written", f"{path} ({reason})", hint
            ) from error

    def _create(self, path: Path) -> None:
        missing = [path]
        while not missing[-1].parent.exists():
            missing.append(missing[-1].parent)
        for folder in reversed(missing):
            folder.mkdir()
            self._created.append(folder)

    def _remove_created(self) -> None:
        for folder in reversed(self._created):
            try:
                folder.rmdir()
            except OSError:
                return
        self._created.clear()


def check_writable(folder: Path, option: str, hint: str) -> None:
    """Raise InvalidInputError unless a file can be made in the folder."""
    try:
        handle, name = tempfile.mkstemp(prefix=".kktcert-", dir=folder)
    except OSError as error:
        raise InvalidInputError(
            option, "a folder that can be written", f"{folder} ({error.strerror})", hint
        ) from error
    os.close(handle)
    os.unlink(name)


def check_file_target(path: Path, suffixes: tuple[str, ...], *, force: bool) -> None:
    """Raise InvalidInputError unless `--out` names a file that can be written, and is absent.

    With `force` it may be there.
    """
    option = "--out"
    if path.suffix.lower() not in suffixes:
        raise InvalidInputError(option, f"a file name with {' or '.join(suffixes)}", str(path))
    try:
        if path.is_dir():
            raise InvalidInputError(option, "a file", f"the folder {path}")
        if path.exists() and not force:
            raise InvalidInputError(option, "an absent file", f"{path}", "add --force")
        if not path.parent.is_dir():
            raise InvalidInputError(option, "a file in a folder that exists", str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(option, "a file that can be written", repr(str(path))) from error
    check_writable(path.parent, option, "choose another folder")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target` that replaces it when the block ends well.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "a.txt") as path:
        ...     _ = path.write_text("whole")
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    # The suffix stays: it decides the format.
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except FileError as error:
        if error.context["path"] != str(temporary):
            raise
        raise FileError(target, error.context["problem"], error.context["hint"]) from error
    except OSError as error:
        # Such as a full disk, which Python reports without a name.
        if error.filename is None or str(error.filename) == str(temporary):
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
