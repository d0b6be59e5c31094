"""Contact sheets: shapes of images, and what is on the page."""

from __future__ import annotations

import numpy as np
import pytest

from identify.errors import InvalidInputError
from identify.pictures import (
    as_images,
    contact_sheet,
    guess_image_shape,
    parse_image_shape,
    parse_range,
)

image = pytest.importorskip("matplotlib.image")


@pytest.mark.parametrize(
    ("dimension", "shape"),
    [(64, (8, 8)), (784, (28, 28)), (3072, (32, 32, 3)), (192, (8, 8, 3)), (16, (4, 4)),
     (1, None), (9, None), (10, None), (48, None), (0, None)],
)  # fmt: skip
def test_guesses(dimension, shape):
    assert guess_image_shape(dimension) == shape


@pytest.mark.parametrize("text", ["", "8", "8,8,2", "8,-8", "8;8", "4,4,4", "8.0,8"])
def test_shapes_that_are_none(text):
    with pytest.raises(InvalidInputError, match="--image-shape"):
        parse_image_shape(text, 64)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "2,1", "1,1", "inf,1", "a,b"])
def test_ranges_that_are_none(text):
    with pytest.raises(InvalidInputError, match="--range"):
        parse_range(text)


class TestAsImages:
    def test_channels_first_and_last_are_the_same_pictures(self):
        pixels = np.random.default_rng(0).random((2, 4, 5, 3))
        last = as_images(pixels.reshape(2, -1), (4, 5, 3))
        first = as_images(np.moveaxis(pixels, -1, 1).reshape(2, -1), (3, 4, 5))
        np.testing.assert_array_equal(last, pixels)
        np.testing.assert_array_equal(first, pixels)

    def test_one_channel_is_grey(self):
        rows = np.arange(12.0).reshape(2, 6)
        for shape in ((2, 3), (2, 3, 1)):
            np.testing.assert_array_equal(as_images(rows, shape), rows.reshape(2, 2, 3))

    def test_the_mean_is_added(self):
        found = as_images(np.zeros((2, 6)), (2, 3), mean=np.arange(6.0))
        np.testing.assert_array_equal(found, [np.arange(6.0).reshape(2, 3)] * 2)

    def test_wrong_sizes(self):
        with pytest.raises(InvalidInputError, match="rows of 6 numbers"):
            as_images(np.zeros((2, 5)), (2, 3))


class TestContactSheet:
    def draw(self, path, rows, **options):
        contact_sheet(path, rows, "Title", **options)
        return image.imread(path)

    def test_white_and_black_are_the_limits(self, tmp_path):
        images = np.stack([np.zeros((4, 4)), np.full((4, 4), 0.5), np.ones((4, 4))])
        page = self.draw(tmp_path / "sheet.png", [("row", images)], limits=(0.0, 1.0))
        # A line through the middle of the images meets black, grey and white squares.
        middle = page[page.shape[0] // 2, :, 0]
        runs = [np.count_nonzero(np.abs(middle - value) < 0.01) for value in (0.0, 0.5)]
        assert min(runs) > 80
        assert np.all(page[:2, :, :3] == 1.0)

    def test_colours(self, tmp_path):
        red = np.zeros((2, 4, 4, 3))
        red[..., 0] = 1.0
        page = self.draw(tmp_path / "sheet.png", [("red", red)])
        painted = (page[..., 0] > 0.99) & (page[..., 1] < 0.01) & (page[..., 2] < 0.01)
        assert np.count_nonzero(painted) > 2 * 80**2

    def test_long_rows_wrap_and_stay_together(self, tmp_path):
        rows = [("a", np.ones((3, 4, 4))), ("b", np.ones((3, 4, 4)), ["x", "y\nz", ""])]
        short = self.draw(tmp_path / "short.png", rows)
        long = self.draw(tmp_path / "long.png", [("a", np.ones((25, 4, 4)))])
        longest = self.draw(tmp_path / "longest.png", [("a", np.ones((300, 4, 4)))])
        assert long.shape[1] > short.shape[1]
        assert 3.0 < longest.shape[0] / long.shape[0] < 3.6

    def test_constant_images_and_missing_ones(self, tmp_path):
        rows = [("a", np.zeros((2, 4, 4))), ("b", np.zeros((0, 4, 4)))]
        assert self.draw(tmp_path / "sheet.png", rows).ndim == 3

    def test_the_same_page_twice(self, tmp_path):
        rows = [("row", np.random.default_rng(0).random((3, 4, 4)))]
        for name in "ab":
            contact_sheet(tmp_path / name, rows, "Title")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    @pytest.mark.parametrize(
        "rows",
        [
            [],
            [("row", np.zeros((0, 4, 4)))],
            [("row", np.zeros((4, 4)))],
            [("row", np.zeros((2, 4, 4, 2)))],
            [("row", np.full((2, 4, 4), np.nan))],
            [("row", np.zeros((2, 4, 4)), ["one"])],
        ],
    )
    def test_bad_rows(self, tmp_path, rows):
        with pytest.raises(InvalidInputError):
            contact_sheet(tmp_path / "sheet.png", rows, "Title")
        assert not (tmp_path / "sheet.png").exists()
