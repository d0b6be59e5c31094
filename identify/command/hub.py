"""Models of the Hugging Face hub by their names, through the optional huggingface_hub."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import typer

from identify.errors import FileError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
# Written out: the reader that has them would load numpy, which `--help` does without.
_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt")
_WANTED = (
    ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"),
    tuple(f"*{suffix}" for suffix in _SUFFIXES),
)
"""Files that are asked for, in turn, until the folder has weights."""
_NAMES: dict[Path, str] = {}


def model_path(text: str) -> Path:
    """The path of a model: the text itself, or the folder of ``org/name`` from the hub's cache.

    A path that exists is taken as it is, and so is one with a suffix of a file of weights or in a
    folder that exists. ``org/name@revision`` names a revision. What the cache lacks is fetched,
    unless HF_HUB_OFFLINE is set.

    Raises FileError for a name that is neither here nor on the hub.

    Example:
        >>> model_path("model.safetensors").name
        'model.safetensors'
    """
    path = Path(text)
    if not _NAME.fullmatch(text) or _is_local(path):
        return path
    if importlib.util.find_spec("huggingface_hub") is None:
        hint = "for a model of the hub: pip install 'kktcert[hub]'"
        raise FileError(text, "cannot be opened: no such file", hint)
    folder = _fetched(*text.partition("@")[::2])
    _NAMES[folder] = text
    return folder


def take_model(context: typer.Context, value: Path | None) -> Path | None:
    """What an argument or option for a model becomes; a callback of typer."""
    return value if value is None or context.resilient_parsing else model_path(str(value))


def shown(path: Path) -> str:
    """The path as it was given: the name of a model of the hub, not where its cache lies."""
    return _NAMES.get(path, str(path))


def _is_local(path: Path) -> bool:
    return path.exists() or path.suffix.lower() in _SUFFIXES or path.parent.exists()


def _fetched(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    folder = Path()
    for patterns in _WANTED:
        try:
            found = snapshot_download(
                name, revision=revision or None, allow_patterns=list(patterns)
            )
        except (OSError, ValueError, HfHubHTTPError) as error:
            reason = " ".join(str(error).split()).partition(". ")[0][:200]
            raise FileError(
                name,
                f"is neither here nor a model of the hub that can be had ({reason})",
                "check the name; without a network it has to be in the cache",
            ) from error
        folder = Path(found)
        if any(part for pattern in patterns for part in folder.glob(pattern)):
            return folder
    raise FileError(name, f"has no file of weights ({', '.join(_SUFFIXES)})", "name another model")
