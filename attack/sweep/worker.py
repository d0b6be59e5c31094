"""One run of a sweep, on a worker: files in, commands, results out, checkpoints on the way."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pkgutil
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attack.sweep.outcome import Outcome, versions
from attack.sweep.spec import FOLDER, RESUMABLE, Task
from identify.command.limits import OWNER_ONLY, threads

ENTRY = "kktcert:run"
"""The function that runs a command line; found by name, since it imports this package."""
OUTPUT = 500
"""Characters of a message of an error that are kept."""
_DONE = (0, 3)
"""Exit codes of a command that did its work; 3 says that a word of --fail-on is met."""

Keep = Callable[[bytes], None]


def run_task(
    task: Task,
    files: Mapping[str, bytes],
    *,
    count: int | None = None,
    checkpoint: bytes | None = None,
    keep: Keep | None = None,
    every: float = 10.0,
    with_files: bool = False,
    entry: str = ENTRY,
) -> Outcome:
    """Run the commands of a task one after the other in a folder of its own, which is removed.

    Args:
        task: the calls and their values.
        files: input files and folders by the words that name them, each as an archive.
        count: threads of the libraries.
        checkpoint: an archive of the folder of an earlier attempt, to go on from.
        keep: takes such an archive every `every` seconds, if the command can go on from it.
        with_files: return the folder in the end.
        entry: the function that runs a command line, as ``module:name``.

    Cost: that of the commands, and a few milliseconds.
    """
    run: Callable[[Sequence[str]], int] = pkgutil.resolve_name(entry)
    began, started = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    results: dict[str, Any] = {}
    code, error = 0, ""
    with _folder() as place, threads(count):
        paths = {word: _unpacked(data, place / f"in{k}") for k, (word, data) in _numbered(files)}
        out = place / FOLDER
        if checkpoint is not None:
            unpack_folder(checkpoint, out)
        with _kept(out, keep, every):
            for call in task.calls:
                more = _own_options(call.command, out, checkpoint is not None, every)
                words = call.filled({**task.values, FOLDER: str(out)}, **more)
                code, printed, error = _captured(run, [paths.get(w, w) for w in words])
                if code not in _DONE:
                    break
                results[call.command] = printed
        archive = pack_folder(out) if with_files and out.exists() else None
    return Outcome(
        task.number, 0 if code in _DONE else code, results, error if code not in _DONE else "",
        time.perf_counter() - began, f"{socket.gethostname()}:{os.getpid()}", started,
        checkpoint is not None, dict(versions()), archive,
    )  # fmt: skip


def pack_folder(path: Path) -> bytes:
    """Return an archive of a file, or of a folder with all that is in it.

    Example:
        >>> place = Path(tempfile.mkdtemp())
        >>> _ = (place / "a.txt").write_text("whole")
        >>> unpack_folder(pack_folder(place), place / "copy")
        >>> (place / "copy" / "a.txt").read_text()
        'whole'
    """
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        if path.is_dir():
            for part in sorted(path.rglob("*")):
                # A file that is being replaced has gone when its turn comes.
                with contextlib.suppress(FileNotFoundError):
                    archive.add(part, part.relative_to(path).as_posix(), recursive=False)
        else:
            archive.add(path, path.name, recursive=False)
    return target.getvalue()


def unpack_folder(data: bytes, target: Path) -> None:
    """Write the content of an archive into a folder, which is made."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(target, filter="data")


def _unpacked(data: bytes, target: Path) -> str:
    """The path of an input: the one file of its archive, or the folder."""
    unpack_folder(data, target)
    found = list(target.iterdir())
    return str(found[0] if len(found) == 1 and found[0].is_file() else target)


def _numbered(files: Mapping[str, bytes]) -> Iterator[tuple[int, tuple[str, bytes]]]:
    return enumerate(sorted(files.items()))


def _own_options(command: str, out: Path, resume: bool, every: float) -> dict[str, Any]:
    """What the sweep adds to a command line."""
    more: dict[str, Any] = {"quiet": True, "format": "json"}
    if command in RESUMABLE:
        more |= {"out": str(out), "resume": resume, "save-seconds": every}
    return more


def _captured(run: Callable[[Sequence[str]], int], words: Sequence[str]) -> tuple[int, Any, str]:
    """Exit code, what was printed as JSON, and the last line of what was said."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = run(words)
    lines = said.getvalue().strip().splitlines()
    try:
        result = json.loads(printed.getvalue())
    except ValueError:
        result = None
    return code, result, lines[-1].removeprefix("kktcert: error: ")[:OUTPUT] if lines else ""


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one run; on a worker below its own, which is removed if the worker is killed."""
    import distributed

    try:
        above = distributed.get_worker().local_directory
    except ValueError:
        above = None
    before = os.umask(OWNER_ONLY)
    try:
        with tempfile.TemporaryDirectory(prefix="kktcert-", dir=above) as name:
            yield Path(name)
    finally:
        os.umask(before)


@contextlib.contextmanager
def _kept(folder: Path, keep: Keep | None, every: float) -> Iterator[None]:
    """Hand on an archive of the folder now and then, if anything in it has changed."""
    if keep is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        last = None
        while not ended.wait(every):
            stamp = _stamp(folder)
            if stamp and stamp != last:
                last = stamp
                keep(pack_folder(folder))

    thread = threading.Thread(target=watch, name="kktcert-checkpoints", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _stamp(folder: Path) -> tuple[tuple[str, int], ...]:
    found = []
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_mtime_ns))
    return tuple(found)
