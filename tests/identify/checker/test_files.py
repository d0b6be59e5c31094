"""The checker with damaged, foreign and hostile files and reports."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identify.checker.check import check_report
from identify.checker.outcome import CheckInputError
from identify.checker.reading.files import read_network
from tests.identify.checker.changes import put
from tests.identify.checker.problems import Problem, network_hash, outcome, sign


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A problem of three samples at degree 3, its report and its files."""
    problem = Problem(3, 3)
    return problem, problem.certify(), problem.save(tmp_path_factory.mktemp("planted"))


def test_perturbed_files_are_refuted(planted, tmp_path):
    problem, report, _ = planted
    for role in ("model", "gradient"):
        for name, array in getattr(problem, role).items():
            moved = array.copy()
            moved.flat[-1] += 1e-6 * np.abs(array).max()
            files = problem.save(tmp_path, **{role: {name: moved}})
            result = check_report(report, files[0], gradient=files[1])
            assert result["inputs"].outcome == "refuted"
            assert result.outcome == "refuted"
            forged = copy.deepcopy(report)
            for entry in forged["inputs"]:
                if entry["role"] == role:
                    arrays = getattr(problem, role) | {name: moved}
                    entry["sha256"] = network_hash(arrays, problem.degree)
            result = check_report(sign(forged), files[0], gradient=files[1])
            assert result["inputs"].holds
            assert result.outcome == "refuted", (role, name)


def test_other_shapes_are_refused_or_refuted(planted, tmp_path):
    problem, report, _ = planted
    for role in ("model", "gradient"):
        for name, array in getattr(problem, role).items():
            for changed in (array[:-1], array[..., None], array.ravel(), np.zeros((0, 3)), None):
                if changed is not None and changed.shape == array.shape:
                    continue
                files = problem.save(tmp_path, **{role: {name: changed}})
                assert outcome(report, files) in ("refuted", "input"), (role, name)


def test_damaged_files_are_refused(planted, tmp_path):
    problem, report, (model, gradient) = planted
    content = model.read_bytes()
    for length in (0, 1, 30, len(content) // 2, len(content) - 1):
        path = tmp_path / "model.npz"
        path.write_bytes(content[:length])
        assert outcome(report, (path, gradient)) == "input"
    bad = {
        "nan": problem.model["hidden.weight"] * np.nan,
        "integers": np.ones_like(problem.model["hidden.weight"], dtype=np.int64),
        "objects": np.array([[object()]], dtype=object),
        "text": np.array([["x"]]),
    }
    for array in bad.values():
        assert outcome(report, problem.save(tmp_path, model={"hidden.weight": array})) == "input"
    extra = problem.save(tmp_path, model={"third.weight": np.ones((2, 2))})
    assert outcome(report, extra) == "input"


def test_files_that_are_none(planted, tmp_path):
    pytest.importorskip("torch")
    _, report, (model, gradient) = planted
    shutil.copy(model, tmp_path / "model.pt")
    with pytest.raises(CheckInputError, match="expected a whole torch file"):
        check_report(report, tmp_path / "model.pt", gradient=gradient)
    for path in (tmp_path / "none.npz", tmp_path, 5, None):
        with pytest.raises(CheckInputError):
            check_report(report, path, gradient=gradient)
    with pytest.raises(CheckInputError, match="gradient: expected a file"):
        check_report(report, model)
    with pytest.raises(CheckInputError, match="initial: expected no file"):
        check_report(report, model, gradient=gradient, initial=model)
    with pytest.raises(CheckInputError, match="degree: expected one value, got 4 and 3"):
        check_report(report, model, gradient=gradient, degree=4)


def safetensors_bytes(tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {
            "dtype": kind, "shape": shape, "data_offsets": [offset, offset + len(data)]
        }  # fmt: skip
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(data for _, _, data in tensors.values())
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    ("kind", "rounding"), [("F64", 2**-53), ("F32", 2**-24), ("F16", 2**-11), ("BF16", 2**-8)]
)
def test_safetensors_of_every_dtype(kind, rounding, tmp_path):
    weights = np.array([[1.5, -2.0], [0.25, 3.0]])
    heights = np.array([[2.0, -0.5]])

    def encode(array):
        if kind == "BF16":
            return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        return array.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[kind]).tobytes()

    path = tmp_path / "net.safetensors"
    tensors = {
        "a.weight": (kind, [2, 2], encode(weights)),
        "b.weight": (kind, [1, 2], encode(heights)),
    }
    path.write_bytes(safetensors_bytes(tensors, {"degree": "3"}))
    network = read_network(path, layers="a,b")
    assert np.array_equal(network.hidden, weights)
    assert np.array_equal(network.output, heights[0])
    assert network.rounding == rounding
    assert network.sha256() == read_network(path, layers=["a", "b.weight"]).sha256()
    with pytest.raises(CheckInputError):
        read_network(path, layers=("a", "c"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckInputError):
        read_network(path, layers="a,b")


def test_the_hash_is_that_of_the_package(planted):
    from identify import load_network

    for path in planted[2]:
        assert read_network(path).sha256() == load_network(path).sha256()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "NaN", '{"a": Infinity}', '{"a": 1, "a": 2}', "1e999", "[" * 100000,
        '{"schema_version": 1e999}', '{"schema_version": true}', '"\\ud800"', "9" * 5000,
    ],
)  # fmt: skip
def test_malformed_json(text, planted, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(text)
    assert outcome(path, planted[2]) == "input"


def test_binary_and_missing_reports(planted, tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert outcome(path, planted[2]) == "input"
    assert outcome(tmp_path / "none.json", planted[2]) == "input"
    assert outcome(tmp_path, planted[2]) == "input"
    for value in (None, 5, {1: 2}, {"a": float("nan")}, {"a": object()}, [], ()):
        assert outcome(value, planted[2]) == "input"


def test_absurd_sizes_are_refused_quickly(planted):
    _, report, files = planted
    for path, value in (
        (("problem", "degree"), 1000),
        (("problem", "span_dimension"), 2**61),
        (("certificate", "rank", "neurons"), 2**61),
        (("certificate", "shift"), 2**61),
        (("certificate", "enclosure", "precision"), 2**61),
        (("noise_level",), 1e300),
        (("noise_level",), 0.0),
        (("certificate", "points", 0, 0), 2**61),
    ):
        assert outcome(sign(put(report, path, value)), files) in ("refuted", "input"), path
    wide = copy.deepcopy(report)
    wide["certificate"]["basis"] = [[0.0] * 2000] * 5
    wide["certificate"]["points"] = [[0] * 2000] * len(wide["certificate"]["neurons"])
    assert outcome(sign(wide), files) in ("refuted", "input")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.medium
@settings(max_examples=150)
@given(data=st.data())
def test_replaced_parts_never_crash(planted, data):
    _, report, files = planted
    forged, node = copy.deepcopy(report), None
    node = forged
    for _ in range(data.draw(st.integers(0, 5))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        below = [k for k in keys if isinstance(node[k], dict | list) and node[k]]
        if not below:
            break
        node = node[data.draw(st.sampled_from(below))]
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    node[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    if isinstance(forged.get("certificate"), dict) and data.draw(st.booleans()):
        try:
            sign(forged)
        except ValueError:
            return
    assert outcome(forged, files) in ("confirmed", "refuted", "not checkable", "input")


@settings(max_examples=60)
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".npz", ".safetensors"]))
def test_arbitrary_files_never_crash(planted, tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"model{suffix}"
    path.write_bytes(content)
    assert outcome(planted[1], (path, planted[2][1])) == "input"


@settings(max_examples=80)
@given(position=st.floats(0, 1), byte=st.integers(0, 255))
def test_flipped_bytes_never_confirm_and_never_crash(planted, tmp_path_factory, position, byte):
    content = bytearray(planted[2][0].read_bytes())
    place = min(int(position * len(content)), len(content) - 1)
    content[place] = byte
    path = tmp_path_factory.mktemp("fuzz") / "model.npz"
    path.write_bytes(bytes(content))
    found = outcome(planted[1], (path, planted[2][1]))
    assert found in ("input", "refuted", "confirmed")
    if found == "confirmed":  # a byte of the archive that is no part of any array
        with np.load(path) as read:
            for name, array in planted[0].model.items():
                assert read[name].tobytes() == array.tobytes()


def test_no_flipped_bit_of_an_array_is_confirmed(planted, tmp_path):
    problem, report, files = planted
    tensors = {n: ("F64", list(a.shape), a.tobytes()) for n, a in problem.model.items()}
    whole = safetensors_bytes(tensors, {"degree": str(problem.degree)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole)
    assert outcome(report, (path, files[1])) == "confirmed"
    data = sum(array.nbytes for array in problem.model.values())
    for place in range(len(whole) - data, len(whole), 5):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(bytes(content))
        assert outcome(report, (path, files[1])) == "refuted"
