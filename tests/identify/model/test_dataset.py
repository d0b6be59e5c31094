"""Samples, images and labels from files."""

from __future__ import annotations

import os

import numpy as np
import pytest

from identify.errors import FileError, InvalidInputError
from identify.model.dataset import Dataset, load_samples
from tests.model_files import npz


class TestSamples:
    def test_samples(self, tmp_path):
        rng = np.random.default_rng(0)
        samples = rng.normal(size=(5, 4)).astype(np.float32)
        data = load_samples(npz(tmp_path / "d.npz", samples=samples, other=np.array([None])))
        np.testing.assert_array_equal(data.samples, samples)
        assert data.samples.dtype == np.float64
        assert data.labels is None
        assert data.image_shape is None

    def test_images_keep_their_shape_and_their_range(self, tmp_path):
        images = np.arange(2 * 4 * 3 * 3).reshape(2, 4, 3, 3).astype(np.uint8)
        data = load_samples(
            npz(tmp_path / "d.npz", images=images, labels=np.array([1, -1], dtype=np.int8))
        )
        assert data.image_shape == (4, 3, 3)
        np.testing.assert_array_equal(data.samples, images.reshape(2, 36))
        np.testing.assert_array_equal(data.labels, [1.0, -1.0])

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"w": np.ones((2, 2))}, "neither samples nor images; .* it holds w"),
            ({"samples": np.ones((2, 2)), "images": np.ones((2, 2))}, "both"),
            ({"samples": np.ones(3)}, "expected"),
            ({"samples": np.ones((0, 3))}, "is empty"),
            ({"samples": np.array([["a", "b"]])}, "has dtype"),
            ({"images": np.array([[None, 1]])}, "has dtype object"),
            ({"images": np.ones((2, 3), dtype=complex)}, "has dtype complex128"),
            ({"samples": np.full((2, 3), np.nan)}, "NaN"),
            ({"samples": np.ones((2, 3)), "labels": np.ones(3)}, r"expected \(2,\)"),
            ({"samples": np.ones((2, 3)), "labels": np.array([1, np.nan])}, "NaN"),
            ({"samples": np.ones((2, 3)), "labels": np.array(["a", "b"])}, "labels are numbers"),
        ],
    )
    def test_bad_data(self, tmp_path, arrays, message):
        with pytest.raises(FileError, match=message):
            load_samples(npz(tmp_path / "d.npz", **arrays))

    def test_other_formats(self, tmp_path):
        with pytest.raises(FileError, match=r"no \.npz file"):
            load_samples(tmp_path / "d.csv")

    def test_contract_of_the_container(self):
        for options in (
            {"samples": np.ones(3)},
            {"samples": np.ones((2, 3)), "labels": np.ones(3)},
            {"samples": np.ones((2, 3)), "image_shape": (2, 2)},
        ):
            with pytest.raises(InvalidInputError):
                Dataset(**options)

    def test_real_images(self):
        folder = os.environ.get("KKTCERT_DATA")
        if not folder:
            pytest.skip("KKTCERT_DATA is not set")
        data = load_samples(os.path.join(folder, "cifar10_subset.npz"))
        assert data.image_shape == (32, 32, 3)
        assert data.samples.shape[1] == 3072
        assert data.samples.max() == 255.0


def test_labels_that_nobody_needs_are_not_read(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, samples=np.ones((2, 3)), labels=np.array(["cat", "dog"]))
    found = load_samples(path, with_labels=False)
    assert found.labels is None
    assert found.samples.shape == (2, 3)
