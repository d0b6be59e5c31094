"""Bad files: every refusal is one line, typed, allocates little and runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identify.errors import FileError, InvalidInputError, KktCertError, UnsupportableModelError
from identify.model.loading import load_network, save_network
from identify.model.untrusted import read_tensors
from tests.model_files import layers, network, npz, raw_npz, raw_safetensors, same


class TestTorchFiles:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def test_state_dict_of_two_layers_needs_no_names(self, tmp_path, torch):
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)).bfloat16()
        torch.save(module.state_dict(), tmp_path / "n.pt")
        loaded = load_network(tmp_path / "n.pt", degree=3)
        expected = module[0].weight.detach().double().numpy()
        np.testing.assert_array_equal(loaded.hidden_weight, expected)
        assert (loaded.has_bias, loaded.rounding) == (True, 2**-8)
        named = load_network(tmp_path / "n.pt", degree=3, layers="0,1")
        same(loaded, named)

    def test_settings_may_lie_beside_the_tensors(self, tmp_path, torch):
        state = {name: torch.tensor(array) for name, array in layers().items()}
        torch.save({**state, "degree": 3, "activation": "monomial"}, tmp_path / "a.pt")
        torch.save({**state, "degree": torch.tensor(3)}, tmp_path / "b.pt")
        same(load_network(tmp_path / "a.pt"), load_network(tmp_path / "b.pt"))

    def test_bare_parameters_can_be_named(self, tmp_path, torch):
        torch.save({"W": torch.ones(4, 3), "a": torch.ones(4)}, tmp_path / "n.pt")
        assert load_network(tmp_path / "n.pt", degree=3, layers="W,a").width == 4

    def test_pickled_code_is_not_run(self, tmp_path, torch):
        flag = tmp_path / "flag"

        class Payload:
            def __reduce__(self):
                return (os.mkdir, (str(flag),))

        torch.save({"hidden.weight": Payload()}, tmp_path / "n.pt")
        with pytest.raises(FileError, match="would run code"):
            load_network(tmp_path / "n.pt", degree=3)
        torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
        with pytest.raises(FileError, match="state_dict"):
            load_network(tmp_path / "module.pt", degree=3)
        (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload()))
        with pytest.raises(FileError, match="no readable"):
            load_network(tmp_path / "plain.pt", degree=3)
        assert not flag.exists()

    def test_views_that_repeat_numbers_do_not_allocate(self, tmp_path, torch):
        huge = torch.ones(1).expand(2**20, 2**20)
        torch.save({"hidden.weight": huge, "output.weight": torch.ones(1)}, tmp_path / "n.pt")
        with pytest.raises(FileError, match="more than the file holds"):
            load_network(tmp_path / "n.pt", degree=3)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([1, 2], "holds a list and no state_dict"),
            ({"epoch": 3}, "holds no tensors but epoch"),
            ({}, "holds no tensors but none"),
        ],
    )
    def test_other_contents(self, tmp_path, torch, content, message):
        torch.save(content, tmp_path / "n.pt")
        with pytest.raises(FileError, match=message):
            load_network(tmp_path / "n.pt", degree=3)

    def test_nested_and_sparse_tensors(self, tmp_path, torch):
        torch.save({"state_dict": {"w": {"x": 1}}}, tmp_path / "n.pt")
        with pytest.raises(FileError, match=r"no tensors but state_dict; .*state_dict\(\)"):
            load_network(tmp_path / "n.pt", degree=3)
        sparse = torch.ones(4, 3).to_sparse()
        torch.save({"hidden.weight": sparse, "output.weight": torch.ones(4)}, tmp_path / "s.pt")
        with pytest.raises(FileError):
            load_network(tmp_path / "s.pt", degree=3)

    def test_compressed_archive(self, tmp_path, torch):
        torch.save(dict.fromkeys(["w"], torch.ones(2)), tmp_path / "n.pt")
        with (
            zipfile.ZipFile(tmp_path / "n.pt") as source,
            zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as target,
        ):
            for entry in source.infolist():
                target.writestr(entry.filename, source.read(entry))
        with pytest.raises(FileError, match="compressed"):
            load_network(tmp_path / "c.pt", degree=3)


class TestBadNumbers:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["hidden.weight", "output.weight", "hidden.bias"])
    def test_not_finite(self, tmp_path, name, value):
        arrays = {**layers(), "hidden.bias": np.ones(4)}
        arrays[name].flat[-1] = value
        with pytest.raises(FileError, match=f'"{name}" holds NaN or infinity, first at index'):
            load_network(npz(tmp_path / "n.npz", **arrays), degree=3)

    @pytest.mark.parametrize(
        "dtype", [np.int64, np.uint8, bool, np.complex128, "U1", "V2", "M8[s]"]
    )
    def test_dtypes(self, tmp_path, dtype):
        arrays = layers()
        arrays["hidden.weight"] = np.zeros((4, 3), dtype=dtype)
        with pytest.raises(FileError, match=r'"hidden.weight" has dtype .*; expected float64'):
            load_network(npz(tmp_path / "n.npz", **arrays), degree=3)

    def test_dtypes_of_safetensors(self, tmp_path):
        for code, size in (("I64", 8), ("BOOL", 1), ("F8_E4M3", 1), ("C64", 8)):
            header = {
                "hidden.weight": {"dtype": code, "shape": [1, 1], "data_offsets": [0, size]},
                "output.weight": {"dtype": "F64", "shape": [1], "data_offsets": [size, size + 8]},
            }
            path = raw_safetensors(tmp_path / "n.safetensors", header, bytes(size + 8))
            with pytest.raises(FileError, match="has dtype"):
                load_network(path, degree=3)

    @pytest.mark.parametrize(
        ("hidden", "output", "extra"),
        [
            ((4, 3), (1, 5), {}),
            ((4, 3), (3,), {}),
            ((4,), (1, 4), {}),
            ((0, 3), (1, 0), {}),
            ((4, 0), (1, 4), {}),
            ((4, 3), (0, 4), {}),
            ((4, 3, 1), (1, 4), {}),
            ((4, 3), (1, 4), {"hidden.bias": np.ones(3)}),
            ((4, 3), (1, 4), {"hidden.bias": np.ones((4, 1))}),
            ((4, 3), (1, 4), {"output.bias": np.ones(4)}),
            ((4, 3), (2, 4), {"output.bias": np.ones(1)}),
        ],
    )
    def test_shapes(self, tmp_path, hidden, output, extra):
        path = npz(tmp_path / "n.npz", **layers(hidden, output), **extra)
        with pytest.raises(FileError, match=r"has shape .* expected"):
            load_network(path, degree=3)


class TestBadFiles:
    @pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
    def test_missing_directory_empty_and_garbage(self, tmp_path, suffix):
        path = tmp_path / f"n{suffix}"
        with pytest.raises(FileError, match="No such file"):
            load_network(path, degree=3)
        path.mkdir()
        with pytest.raises(FileError, match="is a folder without weights"):
            load_network(path, degree=3)
        path.rmdir()
        path.write_bytes(b"")
        with pytest.raises(FileError, match="is empty"):
            load_network(path, degree=3)
        path.write_bytes(b"neither one nor the other" * 10)
        with pytest.raises(FileError, match="no readable"):
            load_network(path, degree=3)

    @pytest.mark.parametrize("name", ["n.pkl", "n.npy", "n", "n.gguf", "n.h5"])
    def test_unknown_suffix(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(FileError, match="unknown suffix"):
            load_network(tmp_path / name, degree=3)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_pipe_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "n.npz")
        with pytest.raises(FileError, match="no regular file"):
            load_network(tmp_path / "n.npz", degree=3)

    def test_a_name_that_no_system_allows(self):
        with pytest.raises(FileError, match="cannot be opened"):
            load_network("a\0b.npz", degree=3)

    def test_objects_are_refused(self, tmp_path):
        flag = tmp_path / "flag"

        class Payload:
            def __reduce__(self):
                return (os.mkdir, (str(flag),))

        path = npz(tmp_path / "n.npz", **layers(), degree=np.array([Payload()], dtype=object))
        with pytest.raises(FileError, match="objects"):
            load_network(path)
        arrays = {**layers(), "output.weight": np.array([Payload()] * 4, dtype=object)}
        with pytest.raises(FileError, match="dtype object"):
            load_network(npz(tmp_path / "m.npz", **arrays), degree=3)
        assert not flag.exists()

    def test_absurd_shapes_of_npz(self, tmp_path):
        for shape in ("(1099511627776, 1024)", "(-1, 3)", f"({'9' * 4000}, 1)", "(2, 3)"):
            header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
            path = raw_npz(tmp_path / "n.npz", "hidden.weight", header, bytes(8))
            with pytest.raises(FileError, match=r'"hidden\.weight"'):
                load_network(path, degree=3)

    @pytest.mark.parametrize(
        "header",
        ["{", "1", "{'descr': 'x'}", "{[]: 1}", "'''", "(" * 100, "import os", "\x00" * 50],
    )
    def test_absurd_headers_of_npz(self, tmp_path, header):
        with pytest.raises(FileError, match='"w" is unreadable'):
            load_network(raw_npz(tmp_path / "n.npz", "w", header), degree=3)

    def test_zip_bombs_are_refused_by_their_declared_size(self, tmp_path, monkeypatch):
        monkeypatch.setattr("identify.model.untrusted.MAX_EXPANSION_BYTES", 10**6)
        arrays = {**layers(), "hidden.weight": np.zeros((4, 10**5))}
        np.savez_compressed(tmp_path / "n.npz", **arrays)
        with pytest.raises(FileError, match="would grow to"):
            load_network(tmp_path / "n.npz", degree=3)
        np.savez(tmp_path / "n.npz", **arrays)
        assert load_network(tmp_path / "n.npz", degree=3).dimension == 10**5

    def test_a_bomb_that_lies_about_its_size(self, tmp_path):
        data = np.zeros(10**6).tobytes()
        header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 3)}"
        path = raw_npz(
            tmp_path / "n.npz", "hidden.weight", header, data, compression=zipfile.ZIP_DEFLATED
        )
        content = path.read_bytes()
        true_size, lie = struct.pack("<I", len(data) + 129), struct.pack("<I", 128 + 1 + 24)
        assert content.count(true_size) == 2
        path.write_bytes(content.replace(true_size, lie))
        with pytest.raises(FileError, match="unreadable"):
            read_tensors(path).floats("hidden.weight")

    def test_absurd_safetensors(self, tmp_path):
        entry = {"dtype": "F64", "shape": [2**40, 2**20], "data_offsets": [0, 8]}
        path = tmp_path / "n.safetensors"
        good = {"w": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}
        for file in (
            lambda: raw_safetensors(path, {"w": entry}, bytes(8)),
            lambda: raw_safetensors(path, {"w": {**entry, "data_offsets": [0, 2**63]}}, bytes(8)),
            lambda: raw_safetensors(path, {"w": {**entry, "shape": [-1]}}, bytes(8)),
            lambda: raw_safetensors(path, b"{}", length=2**60),
            lambda: raw_safetensors(path, b"[1]"),
            lambda: raw_safetensors(path, b"\xff\xfe"),
            lambda: raw_safetensors(path, good, bytes(4)),
        ):
            with pytest.raises(FileError, match="no readable safetensors"):
                load_network(file(), degree=3)

    @pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
    def test_truncated_at_every_length(self, tmp_path, suffix):
        original = tmp_path / f"n{suffix}"
        if suffix == ".pt":
            torch = pytest.importorskip("torch")
            torch.save({name: torch.tensor(a) for name, a in layers().items()}, original)
        else:
            save_network(network(), original)
        content = original.read_bytes()
        for length in range(1, len(content) - 1, max(1, len(content) // 60)):
            original.write_bytes(content[:length])
            with pytest.raises(FileError):
                load_network(original, degree=3)

    def test_other_members_of_the_archive(self, tmp_path):
        path = npz(tmp_path / "n.npz", **layers())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("readme.txt", "hello")
        with pytest.raises(FileError, match=r'"readme.txt", which is no array'):
            load_network(path, degree=3)

    def test_the_same_name_twice(self, tmp_path):
        path = npz(tmp_path / "n.npz", **layers())
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("hidden.weight.npy", b"")
        with pytest.raises(FileError, match="twice"):
            load_network(path, degree=3)

    def test_names_from_the_file_cannot_break_the_line(self, tmp_path):
        names = {f"a\n\x1b[2J{k}{'x' * 100}": np.ones(1) for k in range(20)}
        with pytest.raises(FileError, match="and 12 more") as caught:
            load_network(npz(tmp_path / "n.npz", **names), degree=3)
        assert str(caught.value).isprintable()

    def test_saving_where_nothing_can_be_written(self, tmp_path):
        with pytest.raises(FileError, match=r"expected \.safetensors or \.npz"):
            save_network(network(), tmp_path / "n.pt")
        with pytest.raises(FileError, match="cannot be written"):
            save_network(network(), tmp_path / "absent" / "n.npz")

    def test_torch_is_needed_for_its_own_format_only(self, tmp_path):
        pytest.importorskip("torch").save({"w": None}, tmp_path / "n.pt")
        code = (
            "import sys; sys.modules['torch'] = None; import identify\n"
            "try: identify.load_network(sys.argv[1], degree=3)\n"
            "except identify.FileError as error: print(error)"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "n.pt")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "cannot be read without torch; pip install 'kktcert[attack]'" in run.stdout
        assert run.stderr == ""


@st.composite
def damaged(draw, good):
    """The bytes of a good file with a few of them changed, removed or repeated."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["change", "remove", "repeat"]))
        if kind == "change":
            content[start] = draw(st.integers(0, 255))
        elif kind == "remove":
            del content[start : start + draw(st.integers(1, 16))]
        else:
            content[start:start] = content[start : start + draw(st.integers(1, 16))]
        if not content:
            break
    return bytes(content)


def good_file(suffix):
    buffer = io.BytesIO()
    if suffix == ".npz":
        np.savez_compressed(buffer, **layers(), degree=3, activation="monomial")
    elif suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.tensor(a) for name, a in layers().items()}, buffer)
    else:
        from safetensors.numpy import save

        return save(layers(), metadata={"degree": "3", "activation": "monomial"})
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_damage_never_escapes_as_another_error(tmp_path, suffix):
    path = tmp_path / f"n{suffix}"
    outcomes = []

    @settings(max_examples=200)
    @given(damaged(good_file(suffix)))
    def check(content):
        path.write_bytes(content)
        outcomes.append(outcome(path))

    check()
    kinds = {kind for kind, _ in outcomes}
    assert FileError in kinds
    assert kinds <= {None, FileError, InvalidInputError, UnsupportableModelError}
    assert all(message.isprintable() for _, message in outcomes)


def outcome(path):
    """The kind and the text of the refusal, or None and nothing for a network."""
    try:
        loaded = load_network(path, degree=3)
    except KktCertError as error:
        return type(error), str(error)
    return None, "" if np.isfinite(loaded.hidden_weight).all() else "\n"
