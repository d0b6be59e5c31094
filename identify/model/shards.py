"""Folders of weights and the indexes of sharded ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from identify.errors import FileError, listed
from identify.model.tensor_file import DAMAGE, AnyArray, PathLike, TensorFile, first_line

MAX_INDEX_BYTES = 2**26
MAX_SHARDS = 1000
_SHARDS = (".safetensors", ".bin", ".pt", ".pth")
# As the model hubs name them; the first that is there is the one that their loaders take.
_HUB_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def weights_in(folder: Path, suffixes: tuple[str, ...]) -> Path:
    """Find the file of weights in a folder: under the name of a model hub, or the only one.

    Raises FileError if there is none, or several.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "pytorch_model.bin").write_bytes(b"")
        >>> weights_in(folder, (".bin",)).name
        'pytorch_model.bin'
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise FileError(folder, f"cannot be opened: {error.strerror}", "check access") from error
    for name in _HUB_NAMES:
        if name in names:
            return folder / name
    found = [name for name in names if Path(name).suffix.lower() in suffixes]
    if len(found) != 1:
        problem = f"is a folder with the files {listed(found)}" if found else "is a folder"
        raise FileError(folder, problem + ("" if found else " without weights"), "name one file")
    return folder / found[0]


def read_index(path: Path, read_file: Callable[[PathLike], TensorFile]) -> TensorFile:
    """Read the arrays that an index ``{"weight_map": {NAME: FILE}}`` spreads over several files.

    The files lie beside the index and hold what it says. ``read_file`` opens one of them.

    Raises FileError for another structure, names that lead out of the folder, and arrays that are
    not where the index says. The cost is that of opening the files.
    """
    place = _weight_map(path)
    shards = {name: read_file(path.with_name(name)) for name in dict.fromkeys(place.values())}
    for shard, file in shards.items():
        expected = {name for name, where in place.items() if where == shard}
        wrong = sorted(expected.symmetric_difference(file.shapes))
        if wrong:
            raise FileError(path, f"contradicts {shard} on {listed(wrong)}", "download it again")
    settings: dict[str, object] = {}
    for shard, file in shards.items():
        for setting, value in file.settings.items():
            if settings.setdefault(setting, value) != value:
                raise FileError(path, f"has two values of {setting}, one in {shard}")

    def read(name: str) -> AnyArray:
        return shards[place[name]].read(name)

    return TensorFile(
        str(path),
        {name: shards[shard].shapes[name] for name, shard in place.items()},
        {name: shards[shard].dtypes[name] for name, shard in place.items()},
        settings,
        ordered=False,
        read=read,
    )


def _weight_map(path: Path) -> Mapping[str, str]:
    hint = 'expected {"weight_map": {NAME: FILE, ...}}'
    try:
        size = path.stat().st_size
        if size > MAX_INDEX_BYTES:
            raise FileError(path, f"has {size} bytes", f"at most {MAX_INDEX_BYTES} can be read")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileError:
        raise
    except DAMAGE as error:
        raise FileError(path, f"is no readable index ({first_line(error)})", hint) from error
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise FileError(path, "is no index of shards", hint)
    for shard in dict.fromkeys(str(value) for value in found.values()):
        # A plain name: an index must not lead to files elsewhere.
        plain = Path(shard).name == shard and "\\" not in shard and "\0" not in shard
        if not plain or Path(shard).suffix.lower() not in _SHARDS:
            raise FileError(path, f'names the shard "{shard}"', "expected a file beside the index")
    if len(set(map(str, found.values()))) > MAX_SHARDS:
        raise FileError(path, f"has more than {MAX_SHARDS} shards", "save it in fewer files")
    return {name: str(shard) for name, shard in found.items()}
