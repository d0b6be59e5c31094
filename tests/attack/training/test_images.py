"""Image files as their publishers write them, choices by class, targets, the mean."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest

from attack.training.image_files import read_idx, read_images
from attack.training.images import ImageData, load_images
from identify.errors import FileError, InvalidInputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, size=(40, 6, 5), dtype=np.uint8)
LABELS = RNG.permutation(np.arange(40) % 10).astype(np.uint8)

HEADER = bytes([0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 6, 0, 0, 0, 5])
TRUNCATED = gzip.compress(HEADER + IMAGES.tobytes(), mtime=0)[:900]


def idx(path: Path, array, kind=8):
    """Write an idx file, compressed if its name says so."""
    content = bytes([0, 0, kind, array.ndim])
    content += np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def mnist_folder(folder: Path, end=""):
    idx(folder / f"train-images-idx3-ubyte{end}", IMAGES)
    idx(folder / f"train-labels-idx1-ubyte{end}", LABELS)
    idx(folder / f"t10k-images-idx3-ubyte{end}", IMAGES[:7])
    idx(folder / f"t10k-labels-idx1-ubyte{end}", LABELS[:7])
    return folder


def cifar_records(count, seed=0, classes=10):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, size=(count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count) % classes
    return records


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


class TestFiles:
    @pytest.mark.parametrize("end", ["", ".gz"])
    def test_mnist_folder(self, tmp_path, end):
        folder = mnist_folder(tmp_path, end)
        for spec in (str(folder), f"mnist:{folder}", str(folder / f"train-images-idx3-ubyte{end}")):
            data = load_images(spec, mean="none")
            np.testing.assert_array_equal(data.images, IMAGES / 255.0)
            assert data.images.dtype == np.float64
            assert data.labels.tolist() == LABELS.tolist()
            assert data.image_shape == (6, 5)
        assert len(load_images(str(folder), split="test").images) == 7

    def test_idx_images_without_labels(self, tmp_path):
        path = idx(tmp_path / "train-images.idx3-ubyte", IMAGES)
        assert load_images(str(path), count=3).labels is None
        assert load_images(str(tmp_path), count=3).images.shape == (3, 6, 5)
        with pytest.raises(InvalidInputError, match=r"task: expected labels in .*got none"):
            load_images(str(path), task="binary")
        with pytest.raises(InvalidInputError, match="per_class: expected labels"):
            load_images(str(path), per_class=3)

    def test_cifar_batches(self, tmp_path):
        first, second = cifar_records(20), cifar_records(10, seed=1)
        (tmp_path / "data_batch_1.bin").write_bytes(first.tobytes())
        (tmp_path / "data_batch_2.bin").write_bytes(second.tobytes())
        (tmp_path / "test_batch.bin").write_bytes(second[:4].tobytes())
        data = load_images(str(tmp_path), mean="none")
        assert data.images.shape == (30, 32, 32, 3)
        # Row 3, column 7 of the red, green and blue plane of record 21.
        pixel = [second[1, 1 + 1024 * plane + 3 * 32 + 7] / 255.0 for plane in range(3)]
        assert data.images[21, 3, 7].tolist() == pixel
        assert load_images(f"cifar10:{tmp_path}", split="test").labels.tolist() == [0, 1, 2, 3]
        one = load_images(str(tmp_path / "data_batch_2.bin"), task="binary")
        assert one.labels.tolist() == [-1, -1, 1, 1, 1, 1, 1, 1, -1, -1]

    def test_npz(self, tmp_path):
        path = npz(
            tmp_path / "d.npz", images=IMAGES, labels=LABELS, test_images=IMAGES[:3] / 255.0,
            test_labels=LABELS[:3], names=np.array(["x"]),
        )  # fmt: skip
        data = load_images(str(path), mean="none")
        np.testing.assert_array_equal(data.images, IMAGES / 255.0)
        # Numbers that are no bytes stay as they are.
        test = load_images(str(path), split="test", mean="none")
        np.testing.assert_array_equal(test.images, data.images[:3])
        assert test.labels.tolist() == LABELS[:3].tolist()
        rows = npz(tmp_path / "r.npz", samples=np.eye(4), labels=np.array([0.5, -0.5, 1, 2]))
        data = load_images(str(rows), task="regression", mean="none")
        assert data.image_shape == (4,)
        assert data.labels.tolist() == [0.5, -0.5, 1.0, 2.0]
        np.testing.assert_array_equal(data.samples, np.eye(4))

    def test_the_folder_of_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.delenv("KKTCERT_DATA", raising=False)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileError, match="mnist: has no path, and KKTCERT_DATA is not set"):
            load_images("mnist")
        monkeypatch.setenv("KKTCERT_DATA", str(tmp_path))
        npz(tmp_path / "mnist_subset.npz", images=IMAGES, labels=LABELS)
        (tmp_path / "data_batch_1.bin").write_bytes(cifar_records(10).tobytes())
        assert load_images("mnist", task="binary").settings["positive"] == [1, 3, 5, 7, 9]
        assert load_images("cifar10").image_shape == (32, 32, 3)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a-idx3-ubyte", b"", "is no idx file"),
            ("a-idx3-ubyte", b"\x1f\x8b\x08\x00plain", "is no idx file"),
            ("a-idx3-ubyte", bytes([0, 0, 13, 1, 0, 0, 0, 1, 7]), "idx type 0x0d"),
            ("a-idx3-ubyte", bytes([0, 0, 8, 3, 0, 0, 0, 1]), "declares shape"),
            ("a-idx3-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 9, 7]), "holds only 1"),
            ("a-idx3-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 1, 7, 7]), "holds more"),
            ("a-idx3-ubyte", bytes([0, 0, 8, 2, *[255] * 8, 7]), "declares shape"),
            ("a-idx3-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]), "array of shape"),
            ("a.gz", b"no gzip", "cannot be read"),
            ("a.gz", TRUNCATED, "cannot be read: Compressed file ended"),
            ("a.bin", b"", "has 0 bytes"),
            ("a.bin", bytes(3074), "has 3074 bytes"),
            ("a.bin", bytes([10, *bytes(3072)]), "class 10 in record 0"),
            ("a.png", b"x", "unknown suffix"),
            ("a.npz", b"x", "a.npz"),
        ],
    )
    def test_damaged_files(self, tmp_path, name, content, message):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FileError, match=message) as caught:
            load_images(str(path))
        assert "\n" not in str(caught.value)

    def test_missing_and_mixed_files(self, tmp_path):
        with pytest.raises(FileError, match="does not exist"):
            load_images(str(tmp_path / "absent"))
        with pytest.raises(FileError, match="holds no train images"):
            load_images(str(tmp_path))
        (tmp_path / "data_batch_1.bin").write_bytes(cifar_records(3).tobytes())
        (tmp_path / "data_batch_3.bin").write_bytes(cifar_records(3).tobytes())
        with pytest.raises(FileError, match=r"data_batch_2\.bin: cannot be read"):
            load_images(str(tmp_path))
        with pytest.raises(FileError, match="idx files of MNIST"):
            load_images(f"mnist:{tmp_path}")
        idx(tmp_path / "b-images-idx3-ubyte", IMAGES)
        idx(tmp_path / "b-labels-idx1-ubyte", LABELS[:9])
        with pytest.raises(FileError, match="holds 9 labels; expected 40"):
            load_images(str(tmp_path / "b-images-idx3-ubyte"))
        path = npz(tmp_path / "c.npz", w=np.ones((2, 2)))
        with pytest.raises(FileError, match="neither samples nor images"):
            load_images(str(path))

    def test_idx_is_not_limited_to_images(self, tmp_path):
        array = RNG.integers(0, 256, size=(2, 3, 4, 5), dtype=np.uint8)
        np.testing.assert_array_equal(read_idx(idx(tmp_path / "x-idx4", array)), array)


class TestOpenMl:
    def fetch(self, monkeypatch, answer):
        from sklearn import datasets

        calls = []

        def fetch_openml(name, **options):
            calls.append((name, options))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "fetch_openml", fetch_openml)
        return calls

    @pytest.mark.parametrize(
        "error",
        [URLError("no network"), TimeoutError("timed out"), ValueError("No known data set")],
    )
    def test_without_a_network(self, monkeypatch, error):
        self.fetch(monkeypatch, error)
        with pytest.raises(FileError, match="openml:mnist_784: cannot be fetched") as caught:
            load_images("openml:mnist_784")
        assert "\n" not in str(caught.value)

    def test_a_table(self, monkeypatch):
        values = RNG.integers(0, 256, size=(12, 784)).astype(float)
        target = np.array([str(k % 10) for k in range(12)], dtype=object)
        calls = self.fetch(monkeypatch, SimpleNamespace(data=values, target=target))
        data = load_images("openml:mnist_784:1", task="binary", mean="none")
        assert data.image_shape == (28, 28)
        np.testing.assert_array_equal(data.samples, values / 255.0)
        assert data.labels[:4].tolist() == [-1, 1, -1, 1]
        assert (calls[0][0], calls[0][1]["version"]) == ("mnist_784", 1)
        names = np.array(["cat", "ant"] * 6, dtype=object)
        self.fetch(monkeypatch, SimpleNamespace(data=values[:, :9] / 255.0, target=names))
        data = load_images("openml:insects", task="binary")
        assert data.image_shape == (9,)
        assert data.labels[:2].tolist() == [1, -1]

    @pytest.mark.parametrize("spec", ["openml:", "openml:x:y"])
    def test_bad_names(self, spec):
        with pytest.raises(InvalidInputError, match="openml:NAME"):
            load_images(spec)


class TestChoice:
    def expected(self, per_class, targets, skip=0):
        """The first of each target in the order of the file, by walking through it."""
        seen, kept = {}, []
        for position, target in enumerate(targets):
            seen[target] = seen.get(target, 0) + 1
            if skip < seen[target] <= skip + per_class:
                kept.append(position)
        return kept

    def test_binary_takes_the_first_of_each_side(self):
        raw = read_images("digits")
        data = load_images("digits", task="binary", per_class=20)
        assert data.indices.tolist() == self.expected(20, raw.labels % 2)
        assert data.labels.tolist() == (2.0 * (raw.labels[data.indices] % 2) - 1.0).tolist()
        later = load_images("digits", task="binary", per_class=20, skip=20, mean=data.mean)
        assert later.indices.tolist() == self.expected(20, raw.labels % 2, skip=20)
        assert np.array_equal(later.mean, data.mean)

    def test_multiclass_takes_the_first_of_each_class(self):
        raw = read_images("digits")
        data = load_images("digits", task="multiclass", per_class=5)
        assert data.indices.tolist() == self.expected(5, raw.labels)
        assert data.labels.dtype == np.int64
        assert data.labels.tolist() == raw.labels[data.indices].tolist()
        mixed = load_images("digits", task="multiclass", per_class=5, shuffle=True, seed=1)
        assert sorted(mixed.indices) == data.indices.tolist()
        assert mixed.indices.tolist() != data.indices.tolist()
        assert mixed.labels.tolist() == raw.labels[mixed.indices].tolist()
        np.testing.assert_array_equal(mixed.images * 16.0, raw.images[mixed.indices])

    def test_classes_and_their_order(self):
        raw = read_images("digits")
        data = load_images("digits", task="multiclass", per_class=3, classes=(7, 2, 4))
        assert np.array([7, 2, 4])[data.labels].tolist() == raw.labels[data.indices].tolist()
        pair = load_images("digits", task="binary", per_class=3, classes=(4, 6))
        assert set(raw.labels[pair.indices][pair.labels > 0]) == {6}
        chosen = load_images("digits", task="binary", per_class=3, positive=(0, 8))
        assert set(raw.labels[chosen.indices][chosen.labels > 0]) <= {0, 8}
        hot = load_images("digits", task="one-hot", per_class=2, classes=(3, 5))
        assert hot.labels.shape == (4, 2)
        assert set(hot.labels.ravel()) == {0.5, -0.5}
        assert (hot.labels.argmax(axis=1) == (raw.labels[hot.indices] == 5)).all()

    def test_vehicles_and_animals(self, tmp_path):
        (tmp_path / "data_batch_1.bin").write_bytes(cifar_records(30).tobytes())
        haim = load_images(str(tmp_path), task="binary", per_class=4)
        classes = haim.indices % 10
        assert haim.labels.tolist() == [1.0 if 2 <= k <= 7 else -1.0 for k in classes]
        assert haim.settings["positive"] == [2, 3, 4, 5, 6, 7]
        loo = load_images(str(tmp_path), task="binary", per_class=4, positive=(0, 1, 8, 9))
        assert np.array_equal(loo.indices, haim.indices)
        assert np.array_equal(loo.labels, -haim.labels)
        buzaglo = load_images(str(tmp_path), task="regression", per_class=4)
        assert np.array_equal(buzaglo.labels, haim.labels)

    def test_a_random_draw_follows_the_seed_and_held_out_is_disjoint(self):
        options = {"task": "binary", "per_class": 15, "draw": "random"}
        one, two, three = (load_images("digits", **options, seed=s) for s in (3, 3, 4))
        assert one.indices.tolist() == two.indices.tolist() != three.indices.tolist()
        assert one.describe()["sha256"] == two.describe()["sha256"] != three.describe()["sha256"]
        held_out = load_images("digits", **options, seed=3, skip=15)
        assert not set(one.indices) & set(held_out.indices)
        assert one.labels.sum() == held_out.labels.sum() == 0.0

    def test_counts(self):
        assert load_images("digits", count=7).indices.tolist() == list(range(7))
        assert load_images("digits", count=7, skip=5).indices.tolist() == list(range(5, 12))
        both = load_images("digits", task="multiclass", per_class=2, count=5)
        assert both.indices.tolist() == [0, 1, 2, 3, 4]
        assert len(load_images("digits", task="binary").images) == 1797

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"task": "ternary"}, "task: expected one of None, binary"),
            ({"split": "test"}, "split: expected train"),
            ({"split": "all"}, "split: expected train or test"),
            ({"draw": "last"}, "draw"),
            ({"mean": "median"}, "mean: expected one of"),
            ({"mean": np.ones(5)}, "mean: expected numbers that broadcast"),
            ({"per_class": 0}, "per_class: expected at least 1"),
            ({"per_class": 500}, "per_class: expected at most 1.., which class 0"),
            ({"count": 2000}, "count: expected at most 1797"),
            ({"skip": 1797}, "count: expected at most 0"),
            ({"skip": -1}, "skip"),
            ({"classes": (1, 11)}, "classes: expected different ones of 0"),
            ({"classes": (1, 1)}, "classes"),
            ({"classes": ()}, "classes"),
            ({"task": "binary", "classes": (1, 3, 5)}, "task: expected two classes, got 3"),
            ({"task": "binary", "positive": (12,)}, "classes"),
            ({"task": "multiclass", "positive": (1,)}, "positive: expected the task binary"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(InvalidInputError, match=message):
            load_images("digits", **options)


class TestMean:
    def test_every_reduction(self, tmp_path):
        colours = RNG.integers(0, 256, size=(9, 4, 5, 3), dtype=np.uint8)
        path = str(npz(tmp_path / "c.npz", images=colours))
        pixels = colours / 255.0
        expected = {
            "pixel": pixels.mean(axis=0),
            "scalar": np.full((4, 5, 3), pixels.mean()),
            "channel": np.broadcast_to(pixels.mean(axis=(0, 1, 2)), (4, 5, 3)),
            "none": np.zeros((4, 5, 3)),
        }
        for word, mean in expected.items():
            data = load_images(path, mean=word)
            np.testing.assert_allclose(data.mean, mean.ravel(), atol=1e-12)
            np.testing.assert_allclose(data.samples, (pixels - mean).reshape(9, -1), atol=1e-12)
            assert data.settings["mean"] == word
            np.testing.assert_array_equal(data.images, pixels)
        given = load_images(path, mean=[0.1, 0.2, 0.3])
        assert given.mean[:3].tolist() == [0.1, 0.2, 0.3]
        assert given.settings["mean"] == "given"

    def test_the_mean_is_that_of_the_chosen_images(self):
        data = load_images("digits", per_class=2)
        np.testing.assert_allclose(data.samples.mean(axis=0), 0.0, atol=1e-12)

    def test_the_record(self):
        data = load_images("digits", task="binary", per_class=4, mean="scalar")
        record = json.loads(json.dumps(data.describe(), allow_nan=False))
        assert record["labels"] == {"-1": 4, "1": 4}
        assert (record["count"], record["image_shape"]) == (8, [8, 8])
        assert record["mean"] == "scalar"
        hot = load_images("digits", task="one-hot", per_class=1).describe()
        assert "labels" not in hot

    def test_the_container(self):
        data = load_images("digits", count=3)
        for change in (
            {"images": data.images[:0]},
            {"images": data.images[:, :4]},
            {"labels": np.ones(2)},
            {"mean": np.ones(3)},
        ):
            fields = {name: getattr(data, name) for name in data.__dataclass_fields__} | change
            with pytest.raises(InvalidInputError):
                ImageData(**fields)


@pytest.mark.skipif(not os.environ.get("KKTCERT_DATA"), reason="KKTCERT_DATA is not set")
@pytest.mark.parametrize(("name", "shape"), [("mnist", (28, 28)), ("cifar10", (32, 32, 3))])
def test_real_images(name, shape):
    data = load_images(name, task="binary", per_class=10)
    assert data.image_shape == shape
    assert 0.0 <= data.images.min() < 0.1 < 0.9 < data.images.max() <= 1.0
    assert data.labels.sum() == 0.0
