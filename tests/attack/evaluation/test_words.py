"""What a person reads of an evaluation: rows, dashes, remarks, tables whose width is a square."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from attack.evaluation.evaluate import evaluate
from attack.evaluation.scores import EvaluationSettings
from identify.exposure.affine import affine_note
from tests.attack.command.command_runs import finished_run
from tests.command_line import kkt
from tests.model_files import npz


def judged(folder, rows, truth, *options, shape=None):
    folder.mkdir(exist_ok=True)
    run = finished_run(folder, rows, shape)
    return kkt("evaluate", run, "--truth", npz(folder / "t.npz", samples=truth), *options)


class TestRemarks:
    @pytest.mark.parametrize("scale", [1.027, 0.95, 1.1, 0.9])
    @pytest.mark.parametrize("removed", [0.0, 0.4])
    def test_a_scale_near_one_is_no_remark(self, tmp_path, scale, removed):
        pixels = np.random.default_rng(0).random((5, 64))
        truth = npz(tmp_path / "t.npz", images=(pixels - removed).reshape(5, 8, 8),
                    mean=np.full((8, 8), removed))  # fmt: skip
        run = finished_run(tmp_path, scale * (pixels - removed), (8, 8))
        done = kkt("evaluate", run, "--truth", truth)
        assert done.code == 0, done.err
        assert "other pixel values" not in done.out

    @pytest.mark.parametrize(("scale", "shift"), [(1 / 255, 0.0), (2.0, -1.0), (3.2, -0.42)])
    def test_other_pixel_values_still_are(self, tmp_path, scale, shift):
        pixels = np.random.default_rng(0).random((5, 64))
        done = judged(tmp_path, scale * pixels + shift, pixels, shape=(8, 8))
        assert "5 candidates are the truth times" in done.out

    def test_nor_does_an_audit_remark_it(self):
        rows = np.random.default_rng(0).random((3, 30))
        assert affine_note(1.02 * rows, rows, 0, fixed_scale=True) == []
        assert len(affine_note(rows / 255, rows, 0, fixed_scale=True)) == 1


class TestRows:
    @pytest.mark.parametrize(("count", "word"), [(3, "mean"), (9, "mean"), (10, "top 10")])
    @pytest.mark.parametrize("shape", [(8, 8), (64,)])
    def test_the_best_of_few_are_all(self, count, word, shape):
        truth = np.random.default_rng(count).random((count, 64))
        lines = [line.strip() for line in str(evaluate(truth, truth, shape)).splitlines()]
        other = "mean" if word == "top 10" else "top"
        assert any(line.startswith(f"{word} l2") for line in lines)
        assert not any(line.startswith(f"{other} ") for line in lines)

    def test_as_many_as_were_asked_for(self):
        truth = np.random.default_rng(0).random((4, 64))
        text = str(evaluate(truth, truth, (8, 8), settings=EvaluationSettings(top=4)))
        assert "top 4 l2" in text
        assert "mean l2" not in text

    @pytest.mark.parametrize("count", [4, 12])
    def test_a_dash_is_explained(self, count):
        truth = np.random.default_rng(count).random((count, 64))
        text = str(evaluate(truth[:2], truth, (8, 8)))
        few = min(10, count)
        assert f"(-: fewer than {few} samples are the nearest one of a candidate)" in text

    def test_without_dashes_there_is_nothing_to_explain(self):
        truth = np.random.default_rng(0).random((3, 8, 8))
        text = str(evaluate(np.concatenate([truth] * 9), truth, (8, 8), held_out=truth + 0.0))
        dashes = [line for line in text.splitlines() if line.endswith(" -") or " - " in line]
        assert bool(dashes) == ("(-: " in text)


class TestTables:
    @pytest.mark.parametrize("dimension", [9, 16, 64, 192])
    def test_rows_whose_number_is_that_of_pictures(self, tmp_path, dimension):
        rows = 5 * np.random.default_rng(dimension).normal(size=(7, dimension))
        done = judged(tmp_path, rows, rows)
        assert done.code == 0, done.err
        assert f"rows of {dimension} numbers" in done.out
        if dimension > 9:
            assert f"Rows of {dimension} numbers are taken for rows of a table" in done.out

    @pytest.mark.parametrize("dimension", [16, 192])
    def test_within_the_range_they_can_be_named(self, tmp_path, dimension):
        rows = np.random.default_rng(dimension).random((7, dimension))
        done = judged(tmp_path / "told", rows, rows, "--image-shape", "none")
        assert f"rows of {dimension} numbers" in done.out
        assert "are taken for" not in done.out
        guessed = judged(tmp_path / "guessed", rows, rows)
        assert "--image-shape none" in guessed.out + guessed.err

    def test_pictures_in_rows_are_pictures(self, tmp_path):
        pixels = load_digits().data[:7] / 16
        inside = judged(tmp_path / "inside", pixels, pixels)
        assert "images of 8 x 8" in inside.out
        assert "are taken for" not in inside.out
        # The mean is removed and nobody said so: no table, but a question.
        removed = judged(tmp_path / "removed", pixels - 0.3, pixels - 0.3)
        assert removed.code == 2
        assert "give the mean that was removed, or the pixel range" in removed.err

    def test_json_keeps_its_names(self, tmp_path):
        rows = 5 * np.random.default_rng(0).normal(size=(7, 16))
        done = judged(tmp_path, rows, rows, "--format", "json")
        summary = json.loads(done.out)["found"]["scores"]["matched_l2"]["summary"]
        assert summary["top 10 l2"] == pytest.approx(0.0, abs=1e-5)
