"""Data files in the layouts that people have."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from identify.command.inputs import two_classes
from identify.errors import FileError, InvalidInputError
from identify.exposure.affine import match_affinely, normalised
from identify.model.dataset import Dataset, as_signs, flat_labels, load_samples
from identify.pictures import recognise_image_shape
from tests.model_files import npz

RNG = np.random.default_rng(0)
SIGNS = np.array([-1.0, 1.0, 1.0, -1.0, 1.0])
ROWS = RNG.random((5, 12))


@pytest.mark.parametrize(
    "labels",
    [
        SIGNS,
        SIGNS[:, None],
        (SIGNS > 0),
        (SIGNS > 0)[:, None].astype(np.uint8),
        (SIGNS + 1) / 2,
        ((SIGNS + 3) / 2).astype(np.int64),
        np.where(SIGNS > 0, 7, 3),
        np.eye(2)[(SIGNS > 0).astype(int)],
        np.eye(2, dtype=bool)[(SIGNS > 0).astype(int)],
        2 * np.eye(2, dtype=np.float32)[(SIGNS > 0).astype(int)] - 1,
    ],
)
def test_two_classes_in_any_spelling(tmp_path, labels):
    for keys in (("samples", "labels"), ("x_train", "y_train"), ("X", "y")):
        data = load_samples(npz(tmp_path / "d.npz", **dict(zip(keys, (ROWS, labels), strict=True))))
        np.testing.assert_array_equal(as_signs(data.labels), SIGNS)
        np.testing.assert_array_equal(two_classes(data.labels), SIGNS)


def test_labels_that_are_no_labels():
    for wrong in (np.ones((5, 2)), np.ones((4,)), np.eye(5)[:, :3], np.ones((5, 1, 1)),
                  np.array([[0, 1], [1, 0], [0, 2], [1, 0], [0, 1]])):  # fmt: skip
        with pytest.raises(InvalidInputError, match="labels: expected shape"):
            flat_labels(wrong, 5)
    np.testing.assert_array_equal(flat_labels(np.eye(4)[[2, 0, 3]], 3), [2, 0, 3])
    assert as_signs([1, 2, 3]) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, bool])
@pytest.mark.parametrize("key", ["samples", "images", "x_train", "X", "data", "train_images"])
def test_names_and_types(tmp_path, key, dtype):
    images = (RNG.random((4, 2, 3)) * 255).astype(dtype)
    data = load_samples(npz(tmp_path / "d.npz", **{key: images}, x_test=np.ones((1, 2, 3))))
    np.testing.assert_array_equal(data.samples, images.reshape(4, 6).astype(float))
    assert data.image_shape == (2, 3)
    assert data.labels is None


class TestNpy:
    def test_samples_alone(self, tmp_path):
        np.save(tmp_path / "s.npy", np.asfortranarray(ROWS))
        np.testing.assert_array_equal(load_samples(tmp_path / "s.npy").samples, ROWS)

    def test_hostile_files(self, tmp_path):
        path = tmp_path / "s.npy"
        np.save(path, ROWS)
        good = path.read_bytes()
        objects = np.array([[print]], dtype=object)
        np.save(path, objects, allow_pickle=True)
        bad = path.read_bytes()
        huge = good.replace(b"(5, 12)", b"(9, 12)")
        for content in (b"", b"x", good[:-8], good[:30], bad, huge, pickle.dumps(ROWS)):
            path.write_bytes(content)
            with pytest.raises(FileError):
                load_samples(path)


class TestOrderOfChannels:
    def smooth(self, side, seed):
        """Two coloured blobs on a coloured ground."""
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:side, 0:side] / side
        images = []
        for _ in range(4):
            image = np.zeros((side, side, 3)) + rng.random(3) * x[..., None]
            for _ in range(2):
                a, b = rng.random(2)
                image += rng.random(3) * np.exp(-30 * ((x - a) ** 2 + (y - b) ** 2))[..., None]
            images.append(image)
        return np.array(images)

    @pytest.mark.parametrize("side", [8, 12, 32])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_pictures_are_never_taken_for_the_other_order(self, side, seed):
        images = self.smooth(side, seed)
        last = recognise_image_shape(images.reshape(4, -1))[0]
        first = recognise_image_shape(np.moveaxis(images, 3, 1).reshape(4, -1))[0]
        assert last in ((side, side, 3), None)
        assert first in ((3, side, side), None)
        assert (last, first) != (None, None)

    @pytest.mark.parametrize("seed", range(5))
    def test_noise_is_not_recognised(self, seed):
        rows = np.random.default_rng(seed).random((3, 192))
        shape, remark = recognise_image_shape(rows)
        assert shape is None
        assert "8,8,3 or 3,8,8" in remark

    def test_grey_and_other_sizes(self):
        assert recognise_image_shape(np.ones((2, 64))) == ((8, 8), "")
        assert recognise_image_shape(np.ones((2, 65)))[0] is None


class TestPixelValues:
    @pytest.mark.parametrize(("scale", "shift"), [(1 / 255, 0.0), (3.2, -0.4), (-1.0, 1.0)])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_one_scale_and_shift_are_found(self, scale, shift, seed):
        rng = np.random.default_rng(seed)
        x = rng.random((6, 30))
        found = match_affinely(scale * x[[4, 1, 2]] + shift, x, fixed_scale=True)
        assert (found.scale, found.shift) == pytest.approx((scale, shift), abs=1e-12)
        assert found.count == 3

    def test_lengths_that_mean_nothing(self):
        x = np.random.default_rng(3).random((6, 30))
        factors = np.array([0.3, -2.0, 5.0, 0.1, 1.0, -1.0])[:, None]
        found = match_affinely((x - 0.5) * factors, x, fixed_scale=False)
        assert found.shift == pytest.approx(-0.5)
        assert found.count == 6

    @pytest.mark.parametrize("seed", range(4))
    def test_others_are_not_found(self, seed):
        rng = np.random.default_rng(seed)
        assert match_affinely(rng.random((5, 30)), rng.random((8, 30)), fixed_scale=True) is None
        assert match_affinely(np.ones((2, 30)), np.ones((2, 30)), fixed_scale=True) is None
        assert match_affinely(rng.random((2, 3)), rng.random((2, 3)), fixed_scale=True) is None

    def test_mean_and_std(self):
        data = Dataset(RNG.random((2, 12)), None, (2, 2, 3))
        images = data.samples.reshape(2, 2, 2, 3)
        expected = (images - [0.1, 0.2, 0.3]) / [1.0, 2.0, 4.0]
        np.testing.assert_allclose(
            normalised(data, "0.1,0.2,0.3", "1,2,4"), expected.reshape(2, 12), rtol=1e-15
        )
        first = Dataset(data.samples, None, (3, 2, 2))
        assert normalised(first, "1,0,0", None)[0, 4] == data.samples[0, 4]
        np.testing.assert_array_equal(normalised(data, None, None), data.samples)
        for mean, std in (("a", None), ("1,2", None), (None, "0"), (None, "-1"), ("nan", None)):
            with pytest.raises(InvalidInputError):
                normalised(data, mean, std)
