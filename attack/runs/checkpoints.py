"""Files that are whole or absent, and the state of a loop as one of them."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attack.objectives.candidates import Candidates
from attack.solving.state import COLUMNS, LoopState, Round
from identify.errors import FileError
from identify.model.tensor_file import first_line

_NUMBERS = ("step", "last_round", "wait", "since", "evaluations")
_FLOATS = ("mark", "best", "seconds")
_KEY = "kktcert"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it holds the old content or the new one, whatever happens.

    The content goes to a temporary file in the same folder, is flushed to the disk, and replaces
    the file by a rename.

    Raises FileError if it cannot be written; the old file is then still there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> write_whole(path, b"whole")
        >>> [file.name for file in path.parent.iterdir()]
        ['a.txt']
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        kept = "the previous one is intact" if path.exists() else "nothing was written"
        raise FileError(
            path, f"cannot be written ({error.strerror or error}), {kept}",
            "make room or check access, then resume",
        ) from error  # fmt: skip


def _sync_folder(folder: Path) -> None:
    # The rename itself must reach the disk; not every system can open a folder.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Write tensors and JSON-ready facts as safetensors; the same input gives the same bytes."""
    from safetensors.torch import save

    # One key: the order of several is not the same in every process.
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return bytes(save(plain, metadata={_KEY: text}))


def unpack(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `pack` wrote.

    Raises FileError for everything that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    damaged = "the file is damaged; nothing was changed"
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            # Copies: memory that torch allocates is aligned, so that results repeat bit for bit.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise FileError(path, "is missing", "start a new run") from error
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise FileError(path, f"cannot be read ({first_line(error)})", damaged) from error
    if not isinstance(facts, dict):
        raise FileError(path, "holds no facts", damaged)
    return tensors, facts


def save_state(path: Path, state: LoopState, facts: Mapping[str, Any]) -> None:
    """Write the state of a loop, with facts that `load_state` gives back.

    Raises FileError if it cannot be written; an earlier checkpoint then stays as it was.
    """
    at = state.candidates
    tensors = {"x": at.x, "lam": at.lam, "generator": state.generator}
    if at.labels is not None:
        tensors["labels"] = at.labels
    if at.mass is not None:
        tensors["mass"] = at.mass
    tensors |= {f"memory.{name}": t for name, t in state.memory.items()}
    rows = np.asarray(state.history, dtype=np.float64).reshape(-1, len(COLUMNS))
    tensors["history"] = torch.from_numpy(rows)
    content = {
        **facts,
        "memory": sorted(state.memory),
        "rounds": [r.to_dict() for r in state.rounds],
        "stuck": state.stuck,
        "ended": state.ended,
        **{name: getattr(state, name) for name in _NUMBERS},
        # Infinity is no JSON.
        **{name: repr(getattr(state, name)) for name in _FLOATS},
    }
    write_whole(path, pack(tensors, content))


def load_state(path: Path, device: torch.device) -> tuple[LoopState, dict[str, Any]]:
    """Read the state of a loop and all facts.

    Raises FileError for a missing or damaged file.
    """
    tensors, facts = unpack(path)
    try:
        labels, mass = tensors.get("labels"), tensors.get("mass")
        history = tensors["history"]
        if history.ndim != 2 or history.shape[1] != len(COLUMNS):
            raise ValueError(f"history of shape {tuple(history.shape)}")
        # Scalars and the random stream live on the host wherever the candidates are.
        memory = {
            name: t if t.ndim == 0 or name == "losses" else t.to(device)
            for name, t in ((name, tensors[f"memory.{name}"]) for name in facts["memory"])
        }
        numbers: dict[str, Any] = {name: int(facts[name]) for name in _NUMBERS}
        numbers |= {name: float(facts[name]) for name in _FLOATS}
        if any(math.isnan(value) for value in numbers.values()):
            raise ValueError("NaN among the numbers")
        state = LoopState(
            candidates=Candidates(
                tensors["x"].to(device),
                tensors["lam"].to(device),
                None if labels is None else labels.to(device),
                None if mass is None else mass.to(device),
            ),
            memory=memory,
            generator=tensors["generator"],
            rounds=tuple(Round.from_dict(fields) for fields in facts["rounds"]),
            history=tuple(tuple(row) for row in history.tolist()),
            stuck=str(facts["stuck"]),
            ended=str(facts["ended"]),
            **numbers,
        )
        torch.Generator().set_state(state.generator)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(
            path, f"is no checkpoint of a run ({first_line(error)})", "start a new run"
        ) from error
    return state, facts
