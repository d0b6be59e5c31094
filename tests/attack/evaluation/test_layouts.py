"""What is compared: tables, one image, channels first or last, other pixel values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from attack.evaluation.evaluate import evaluate
from attack.runs.finished import in_order, read_results
from tests.attack.command.command_runs import finished_run
from tests.command_line import kkt
from tests.model_files import npz


class TestTables:
    @pytest.mark.parametrize("dimension", [2, 7, 30])
    def test_distances_and_no_pixels(self, dimension):
        rng = np.random.default_rng(dimension)
        truth = 10 * rng.normal(size=(4, dimension))
        result = evaluate(truth[::-1], truth, (dimension,))
        np.testing.assert_array_equal(result.found.scores["matched_l2"].indices, [3, 2, 1, 0])
        table = result.found.scores["matched_l2"].summary(result.settings)
        assert table["median l2"] == 0.0
        assert table["median ssim"] is None
        assert table["ssim > 0.4"] is None
        text = str(result)
        assert "ssim" not in text.lower()
        assert f"rows of {dimension} numbers" in text
        json.dumps(result.to_dict(), allow_nan=False)


class TestFewSamples:
    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("mean", [None, 0.25])
    def test_no_null_is_the_truth(self, count, mean):
        image = np.random.default_rng(1).random((1, 64))
        truth = np.tile(image, (count, 1)) - (mean or 0.0)
        result = evaluate(truth, truth, (8, 8), mean=mean)
        assert "mean_image" not in result.null
        found, null = result.found.scores["matched_l2"], result.null["random"].scores["matched_l2"]
        assert found.l2.max() < 1e-9
        assert null.l2.min() > 1.0
        assert "would be the truth" in str(result)

    def test_with_held_out_images_there_is_a_mean(self):
        rng = np.random.default_rng(2)
        truth = rng.random((1, 64))
        result = evaluate(truth, truth, (8, 8), held_out=rng.random((5, 64)))
        assert set(result.null) == {"held_out", "mean_image", "random"}


class TestOrders:
    @pytest.mark.parametrize("side", [4, 8])
    def test_rows_in_either_order(self, side):
        images = np.random.default_rng(side).random((2, side, side, 3))
        last = images.reshape(2, -1)
        first = np.moveaxis(images, 3, 1).reshape(2, -1)
        np.testing.assert_array_equal(in_order(last, (side, side, 3), (3, side, side)), first)
        np.testing.assert_array_equal(in_order(first, (3, side, side), (side, side, 3)), last)
        for stored in ((side, side, 3), None, (3 * side, side), (side, 3, side)):
            assert in_order(last, stored, (side, side, 3)) is last

    def test_a_truth_stored_channels_last_beside_a_run_channels_first(self, tmp_path):
        images = np.random.default_rng(0).random((3, 8, 8, 3))
        first = np.moveaxis(images, 3, 1)
        run = finished_run(tmp_path, first.reshape(3, -1), (3, 8, 8))
        plain = npz(tmp_path / "first.npz", images=first)
        other = npz(tmp_path / "last.npz", images=images)
        texts = []
        for truth in (plain, other):
            done = kkt("evaluate", run, "--truth", truth, "--format", "json")
            assert done.code == 0, done.err
            texts.append(json.loads(done.out))
        assert texts[0]["found"] == texts[1]["found"]
        assert texts[0]["found"]["scores"]["matched_l2"]["summary"]["median l2"] < 1e-6
        assert "8,8,3 and was brought to the run's 3,8,8" in " ".join(texts[1]["remarks"])

    def test_figures_keep_the_order_that_evaluate_was_told(self, tmp_path):
        images = np.random.default_rng(0).random((3, 8, 8, 3))
        first = np.moveaxis(images, 3, 1)
        run = finished_run(tmp_path, first.reshape(3, -1), None)
        truth = npz(tmp_path / "t.npz", samples=first.reshape(3, -1))
        done = kkt("evaluate", run, "--truth", truth, "--image-shape", "3,8,8")
        assert done.code == 0, done.err
        result = read_results([run])[0]
        np.testing.assert_allclose(result.images, images.reshape(3, -1), atol=1e-6)
        assert result.shape == (8, 8, 3)

    def test_an_order_that_nothing_tells_is_asked_for(self, tmp_path):
        rows = np.random.default_rng(0).random((3, 192))
        run = finished_run(tmp_path, rows, None)
        done = kkt("evaluate", run, "--truth", npz(tmp_path / "t.npz", samples=rows))
        assert done.code == 2
        assert "--image-shape" in done.err


@pytest.mark.parametrize("more", [(), ("--range", "0,255")])
def test_other_pixel_values_are_named(tmp_path, more):
    rows = np.random.default_rng(0).random((3, 64))
    run = finished_run(tmp_path, rows, (8, 8))
    truth = npz(tmp_path / "t.npz", images=np.round(255 * rows).astype(np.uint8).reshape(3, 8, 8))
    done = kkt("evaluate", run, "--truth", truth, *more)
    assert done.code == (0 if more else 2)
    assert "3 candidates are the truth times 0.0039" in done.out + done.err


class TestNormalisedInputs:
    """The network saw (x - M) / S, and the truth holds x."""

    def found(self, run, truth, *options):
        done = kkt("evaluate", run, "--truth", truth, "--format", "json", *options)
        assert done.code == 0, done.err
        return json.loads(done.out)

    @pytest.mark.parametrize("std", ["1", "0.25", "3"])
    @pytest.mark.parametrize("seed", range(2))
    def test_candidates_are_compared_as_pixels(self, tmp_path, std, seed):
        pixels = np.random.default_rng(seed).random((4, 64))
        noise = 0.05 * np.random.default_rng(seed + 9).normal(size=pixels.shape)
        seen = (pixels + noise - 0.4) / float(std)
        run = finished_run(tmp_path, seen, (8, 8))
        truth = npz(tmp_path / "t.npz", images=pixels.reshape(4, 8, 8))
        got = self.found(run, truth, "--mean", "0.4", "--std", std)
        stored = npz(tmp_path / "c.npz", samples=pixels - 0.4, mean=np.full(64, 0.4))
        (tmp_path / "plain").mkdir()
        plain = finished_run(tmp_path / "plain", pixels + noise - 0.4, (8, 8))
        expected = self.found(plain, stored)["found"]["scores"]
        for name in ("matched_l2", "matched_ncc"):
            summary, wanted = got["found"]["scores"][name]["summary"], expected[name]["summary"]
            assert set(summary) == set(wanted)
            for key, value in summary.items():
                assert value == pytest.approx(wanted[key], rel=1e-4, abs=1e-4), (name, key)
        result = read_results([run])[0]
        shown = result.pixels(result.images) + result.pictures["mean"].ravel()
        np.testing.assert_allclose(shown, pixels + noise, atol=1e-5)

    def test_a_number_for_each_channel(self, tmp_path):
        pixels = np.random.default_rng(0).random((3, 8, 8, 3))
        mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25])
        seen = np.moveaxis((pixels - mean) / std, 3, 1).reshape(3, -1)
        run = finished_run(tmp_path, seen, (3, 8, 8))
        truth = npz(tmp_path / "t.npz", images=pixels)
        got = self.found(run, truth, "--mean", "0.5,0.4,0.3", "--std", "0.2,0.3,0.25")
        assert got["found"]["scores"]["matched_l2"]["summary"]["median l2"] < 1e-5

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--mean", "0.5"), "leave one of them out"),
            (("--std", "0.5"), "leave one of them out"),
            (("--std", "0"), "positive numbers"),
            (("--mean", "a"), "a number, or one for each channel"),
        ],
    )
    def test_two_means_and_bad_numbers_are_refused(self, tmp_path, options, words):
        rows = np.random.default_rng(0).random((3, 64))
        run = finished_run(tmp_path, rows, (8, 8))
        stored = {"mean": np.zeros(64)} if "leave" in words else {}
        done = kkt(
            "evaluate", run, "--truth", npz(tmp_path / "t.npz", samples=rows, **stored), *options
        )
        assert done.code == 2
        assert words in done.err
