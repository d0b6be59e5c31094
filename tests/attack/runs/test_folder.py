"""The files of a run as text and bytes, networks that are none, and the public list."""

from __future__ import annotations

import string
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attack
from attack.runs.checkpoints import pack, unpack
from attack.runs.toml import to_toml, without_none
from identify.errors import FileError, InvalidInputError, UnsupportedModelError


def test_networks_that_are_none() -> None:
    with pytest.raises(InvalidInputError, match="network"):
        attack.reconstruct(3)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError):
        attack.reconstruct(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))
    with pytest.raises(FileError):
        attack.reconstruct("absent.safetensors")


# Text and files ---------------------------------------------------------------------------------

SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.printable, max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), VALUES))
def test_toml_round_trip(settings: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(settings)) == settings


def test_toml_leaves_none_out_and_refuses_the_rest() -> None:
    settings = {"a": None, "b": {"c": None, "d": (1, 2)}, "e": [{"f": None, "g": "x"}]}
    assert tomllib.loads(to_toml(settings)) == without_none(settings)
    for bad in (float("nan"), 2**70, object(), "\ud800"):
        with pytest.raises(InvalidInputError):
            to_toml({"a": bad})


def test_packing_is_the_same_in_every_order(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.zeros(2, 2, dtype=torch.float64).T}
    facts = {"y": 1, "x": [None, "é"]}
    first = pack(tensors, facts)
    second = pack(dict(reversed(tensors.items())), dict(reversed(facts.items())))
    assert first == second
    (tmp_path / "a").write_bytes(first)
    found, known = unpack(tmp_path / "a")
    assert known == facts
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


IMPORTED = """
import sys
import attack
assert "torch" not in sys.modules
assert "reconstruct" in dir(attack)
"""


def test_the_public_list() -> None:
    for name in attack.__all__:
        assert getattr(attack, name) is not None
    for name in ("evaluate", "reconstruct", "solve"):
        assert callable(getattr(attack, name))
    with pytest.raises(AttributeError):
        _ = attack.nothing  # type: ignore[attr-defined]
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, cwd=Path(__file__).parents[3])
