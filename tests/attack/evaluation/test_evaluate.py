"""Metrics against plain loops, matchings against brute force, evaluation beside its nulls."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

from attack.evaluation import metrics
from attack.evaluation.evaluate import evaluate
from attack.evaluation.matching import assign, best_per_sample, greedy, nearest, one_to_one
from attack.evaluation.scores import METRICS, PIPELINES, Evaluation, EvaluationSettings
from identify.errors import InvalidInputError
from identify.exposure.compare import match_samples

SHAPES = [(4, 4), (5, 7), (8, 6, 3), (9, 4, 1), (2, 3, 2)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def slow_ssim(a, b, shape, size):
    """Wang et al. (2004) pixel by pixel, the border mirrored without repeating it."""
    height, width = shape[:2]
    a, b = a.reshape(height, width, -1), b.reshape(height, width, -1)
    half = size // 2
    weights = {
        (u, v): math.exp(-(u * u + v * v) / (2 * 1.5**2))
        for u in range(-half, half + 1)
        for v in range(-half, half + 1)
    }
    total = sum(weights.values())

    def mirrored(index, length):
        index = abs(index)
        return index if index < length else 2 * (length - 1) - index

    values = []
    for i, j, c in itertools.product(range(height), range(width), range(a.shape[2])):
        sums = np.zeros(5)
        for (u, v), weight in weights.items():
            x = a[mirrored(i + u, height), mirrored(j + v, width), c]
            y = b[mirrored(i + u, height), mirrored(j + v, width), c]
            sums += weight / total * np.array([x, y, x * x, y * y, x * y])
        mx, my, xx, yy, xy = sums
        top = (2 * mx * my + 1e-4) * (2 * (xy - mx * my) + 9e-4)
        values.append(top / ((mx * mx + my * my + 1e-4) * (xx - mx * mx + yy - my * my + 9e-4)))
    return np.mean(values)


def images(seed, count, shape, low=0.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, (count, math.prod(shape)))


class TestMetrics:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_ssim_of_the_published_window(self, shape):
        a, b = images(0, 3, shape), images(1, 3, shape)
        b[1] = 0.7 * a[1] + 0.3 * b[1]
        b[2] = 0.5
        expected = [slow_ssim(x, y, shape, 3) for x, y in zip(a, b, strict=True)]
        assert metrics.ssim(a, b, shape) == pytest.approx(expected, abs=1e-12)

    def test_ssim_of_the_original_window(self):
        shape = (9, 8, 3)
        a, b = images(0, 2, shape), images(1, 2, shape)
        b[1] = 0.8 * a[1]
        expected = [slow_ssim(x, y, shape, 11) for x, y in zip(a, b, strict=True)]
        assert metrics.ssim(a, b, shape, "gaussian-11") == pytest.approx(expected, abs=1e-10)
        # Not a detail: values of the two windows cannot be compared.
        assert abs(metrics.ssim(a, b, shape)[0] - expected[0]) > 0.02

    def test_blocks_change_nothing(self, monkeypatch):
        a, b = images(0, 7, (4, 5)), images(1, 7, (4, 5))
        whole = metrics.ssim(a, b, (4, 5))
        monkeypatch.setattr(metrics, "_BLOCK", 45)
        assert np.array_equal(metrics.ssim(a, b, (4, 5)), whole)

    @pytest.mark.parametrize("shape", [(4, 4), (5, 6), (8, 9, 3), (28, 28)])
    def test_half_size_is_bicubic(self, shape):
        a = images(0, 2, shape, -1.0, 1.0)
        planes = torch.from_numpy(np.moveaxis(metrics.as_images(a, shape), 3, 1).copy())
        expected = torch.nn.functional.interpolate(planes, scale_factor=0.5, mode="bicubic")
        small, small_shape = metrics.half_size(a, shape)
        assert small_shape == (shape[0] // 2, shape[1] // 2, *shape[2:])
        got = np.moveaxis(metrics.as_images(small, small_shape), 3, 1)
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-12)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_ncc_against_loops(self, shape):
        a, b = images(0, 3, shape), images(1, 4, shape)
        height, width, channels = metrics.check_image_shape(shape)
        planes = [metrics.as_images(x, shape) for x in (a, b)]
        for i, j in itertools.product(range(3), range(4)):
            rho = [
                np.corrcoef(planes[0][i, ..., c].ravel(), planes[1][j, ..., c].ravel())[0, 1]
                for c in range(channels)
            ]
            expected = 2 * (height * width - 1) * sum(1 - r for r in rho)
            assert metrics.ncc_matrix(a, b, shape)[i, j] == pytest.approx(expected)
            if i == j:
                got = metrics.correlation(a[i : i + 1], b[j : j + 1], shape)
                assert got[0] == pytest.approx(np.mean(rho))

    def test_a_constant_channel_correlates_with_nothing(self):
        a = images(0, 1, (4, 4, 3)).reshape(1, 4, 4, 3)
        flat = np.full_like(a, 0.3)
        assert metrics.correlation(a.reshape(1, -1), flat.reshape(1, -1), (4, 4, 3))[0] == 0.0
        flat[..., 0] = a[..., 0]
        got = metrics.correlation(a.reshape(1, -1), flat.reshape(1, -1), (4, 4, 3))[0]
        assert got == pytest.approx(1 / 3)

    def test_l2_psnr_min_max(self):
        a, b = images(0, 3, (4, 5)), images(1, 3, (4, 5))
        expected = [[np.linalg.norm(x - y) for y in b] for x in a]
        np.testing.assert_allclose(metrics.l2_matrix(a, b), expected, rtol=1e-12)
        np.testing.assert_allclose(metrics.l2(a, b), np.diagonal(expected), rtol=1e-12)
        mean_square = np.mean((a - b) ** 2, axis=1)
        np.testing.assert_allclose(metrics.psnr(a, b), 10 * np.log10(1 / mean_square))
        assert metrics.psnr(a, a).tolist() == [200.0] * 3
        stretched = metrics.min_max(5.0 * a - 3.0)
        assert stretched.min(axis=1).tolist() == [0.0] * 3
        assert stretched.max(axis=1).tolist() == [1.0] * 3
        np.testing.assert_allclose(stretched, metrics.min_max(a), atol=1e-12)

    @pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 4, 0), (2, 2, 2, 2), (3, 3)])
    def test_shapes_that_are_no_images(self, shape):
        with pytest.raises(InvalidInputError, match="image_shape"):
            metrics.check_image_shape(shape, 16)

    def test_images_too_small(self):
        with pytest.raises(InvalidInputError, match="at least 4 to halve"):
            metrics.half_size(np.ones((1, 9)), (3, 3))
        with pytest.raises(InvalidInputError, match="at least 6"):
            metrics.ssim(np.ones((1, 25)), np.ones((1, 25)), (5, 5), "gaussian-11")
        with pytest.raises(InvalidInputError, match="ssim_window"):
            metrics.ssim(np.ones((1, 25)), np.ones((1, 25)), (5, 5), "uniform-7")


class TestMatching:
    @pytest.mark.parametrize("seed", range(10))
    def test_one_to_one_is_the_best(self, seed):
        rng = np.random.default_rng(seed)
        n, m = (int(v) for v in rng.integers(1, 6, size=2))
        d, scale = rng.exponential(size=(n, m)), rng.uniform(0.2, 2.0, size=n)
        chosen = one_to_one(d, scale)
        paired = np.flatnonzero(chosen >= 0)
        assert len(paired) == min(n, m) == len(set(chosen[paired]))
        cost = d / (d + scale[:, None])
        table = cost if n <= m else cost.T
        best = min(
            sum(table[i, j] for i, j in enumerate(order))
            for order in itertools.permutations(range(max(n, m)), min(n, m))
        )
        assert cost[paired, chosen[paired]].sum() == pytest.approx(best)

    @pytest.mark.parametrize("seed", range(4))
    def test_it_agrees_with_the_matching_of_recovered_samples(self, seed):
        rng = np.random.default_rng(seed)
        truth, found = rng.normal(size=(6, 5)), rng.normal(size=(9, 5))
        found[:4] = truth[2:] + 0.1 * rng.normal(size=(4, 5))
        expected = match_samples(found, truth, up_to_sign=False, up_to_scale=False)
        norms = np.linalg.norm(truth, axis=1)
        chosen = one_to_one(metrics.l2_matrix(truth, found), norms)
        assert chosen.tolist() == expected.indices.tolist()

    @pytest.mark.parametrize("seed", range(8))
    def test_greedy_against_removing_rows_and_columns(self, seed):
        rng = np.random.default_rng(seed)
        n, m = (int(v) for v in rng.integers(1, 9, size=2))
        d = rng.random((n, m))
        expected, left = np.full(n, -1), d.copy()
        for _ in range(min(n, m)):
            i, j = np.unravel_index(left.argmin(), left.shape)
            expected[i], left[i, :], left[:, j] = j, np.inf, np.inf
        assert greedy(d).tolist() == expected.tolist()

    def test_nearest_and_best_per_sample(self):
        d = np.random.default_rng(0).random((5, 8))
        assert nearest(d).tolist() == [int(np.argmin(row)) for row in d]
        best = best_per_sample(d)
        for i in range(5):
            own = [d[i, j] for j in range(8) if d[:, j].argmin() == i]
            assert best[i] == (min(own) if own else np.inf)

    def test_odd_matrices(self):
        assert nearest(np.zeros((2, 0))).tolist() == [-1, -1]
        assert one_to_one(np.zeros((2, 3))).tolist() == [0, 1]
        with pytest.raises(InvalidInputError, match="distances"):
            greedy(np.array([[np.nan]]))
        with pytest.raises(InvalidInputError, match="scale"):
            one_to_one(np.ones((2, 2)), scale=0.0)
        with pytest.raises(InvalidInputError, match="matching"):
            assign(np.ones((2, 2)), "best")


SHAPE = (8, 8, 3)


def problem(seed=0, n=12, shape=SHAPE):
    """Smooth-ish images: samples and held-out ones without their mean, and the mean."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((3 * n, shape[0] // 2, shape[1] // 2, *shape[2:]))
    pixels = coarse.repeat(2, axis=1).repeat(2, axis=2).reshape(3 * n, -1)
    mean = pixels[:n].mean(axis=0)
    return pixels[:n] - mean, pixels[n:] - mean, mean


class TestEvaluate:
    def test_perfect_candidates(self):
        truth, held_out, mean = problem()
        order = np.random.default_rng(1).permutation(12)
        result = evaluate(truth[order], truth, SHAPE, mean=mean, held_out=held_out)
        for name, scores in result.found.scores.items():
            assert np.array_equal(order[scores.indices], np.arange(12)), name
            assert scores.l2.max() == 0.0
            assert scores.correlation.min() == pytest.approx(1.0)
            if scores.pixels == "clip":
                assert scores.ssim.min() == pytest.approx(1.0)
                assert scores.dssim.max() == pytest.approx(0.0, abs=1e-12)
                assert scores.psnr.min() == 200.0
        assert result.found.extraction["l2_squared"] < 1e-13
        assert result.curve.tolist() == [0.0] * 12
        for part in result.null.values():
            assert part.scores["matched_l2"].l2.min() > 1.0
        assert set(result.null) == {"held_out", "mean_image", "random"}

    def test_the_order_of_candidates_does_not_matter_and_nothing_is_changed(self):
        truth, held_out, mean = problem()
        rng = np.random.default_rng(2)
        found = np.concatenate([truth[:5] + 0.1 * rng.normal(size=(5, 192)), held_out[:20]])
        order = rng.permutation(len(found))
        copies = [a.copy() for a in (found, truth, held_out, mean)]
        one = evaluate(found, truth, SHAPE, mean=mean, held_out=held_out)
        two = evaluate(found[order], truth, SHAPE, mean=mean, held_out=held_out)
        for before, after in zip(copies, (found, truth, held_out, mean), strict=True):
            assert np.array_equal(before, after)
        for name in PIPELINES:
            a, b = one.found.scores[name], two.found.scores[name]
            assert np.array_equal(order[b.indices], a.indices)
            for metric in METRICS:
                np.testing.assert_allclose(getattr(a, metric), getattr(b, metric), rtol=1e-12)
        assert one.found.extraction == pytest.approx(two.found.extraction)

    def test_values_of_a_pair_one_by_one(self):
        truth, _, mean = problem()
        rng = np.random.default_rng(3)
        found = 2.0 * truth[:6] + 0.2 * rng.normal(size=(6, 192))
        scores = evaluate(found, truth, SHAPE, mean=mean).found.scores["nearest_ncc"]
        small = [metrics.half_size(x, SHAPE)[0] for x in (truth, found)]
        for i in range(12):
            distances = metrics.ncc_matrix(small[0][i : i + 1], small[1], (4, 4, 3))[0]
            j = int(distances.argmin())
            assert scores.indices[i] == j
            shown = found[j] + mean
            shown = (shown - shown.min()) / (shown.max() - shown.min())
            pixels = truth[i] + mean
            assert scores.ssim[i] == pytest.approx(slow_ssim(shown, pixels, SHAPE, 3), abs=1e-10)
            assert scores.dssim[i] == pytest.approx((1 - scores.ssim[i]) / 2)
            assert scores.l2[i] == pytest.approx(np.linalg.norm(found[j] - truth[i]))
            mse = np.mean((shown - pixels) ** 2)
            assert scores.psnr[i] == pytest.approx(-10 * math.log10(mse))

    def test_copies_of_one_sample_count_once_one_to_one(self):
        truth, _, mean = problem(n=6)
        # Five near copies in the truth, as of one digit: replacement counts all of them.
        rng = np.random.default_rng(4)
        truth[1:5] = truth[0] + 0.005 * rng.normal(size=(4, 192))
        truth = np.clip(truth + mean, 0.0, 1.0) - mean
        found = np.concatenate([truth[:1], 0.3 * rng.normal(size=(9, 192))])
        result = evaluate(found, truth, SHAPE, mean=mean)
        tables = {k: s.summary(result.settings) for k, s in result.found.scores.items()}
        assert tables["nearest_ncc"]["ssim > 0.4"] >= 5
        assert result.found.scores["nearest_ncc"].distinct < 6
        for name in ("matched_ncc", "matched_l2", "greedy_l2"):
            assert tables[name]["ssim > 0.4"] == 1
            assert tables[name]["distinct"] == 6

    def test_fewer_candidates_than_samples(self):
        truth, held_out, mean = problem()
        result = evaluate(truth[3:5], truth, SHAPE, mean=mean, held_out=held_out)
        scores = result.found.scores["matched_l2"]
        assert scores.indices.tolist() == [-1, -1, -1, 0, 1, *[-1] * 7]
        assert scores.pairs == 2
        assert np.isnan(scores.ssim[:3]).all()
        assert len(result.curve) == 2
        assert result.found.extraction["ncc"] is None
        assert result.null["held_out"].candidates == 2
        table = scores.summary(result.settings)
        assert table["ssim > 0.4"] == 2
        assert table["l2 < 3.16228"] == 2
        assert table["top 10 l2"] == 0.0
        text = json.dumps(result.to_dict(), allow_nan=False)
        assert json.loads(text)["found"]["scores"]["matched_l2"]["ssim"][:3] == [None] * 3

    def test_thresholds_are_arguments(self):
        truth, _, mean = problem()
        rng = np.random.default_rng(5)
        found = truth + np.linspace(0.0, 0.4, 12)[:, None] * rng.normal(size=truth.shape)
        settings = EvaluationSettings(ssim_above=(0.3, 0.9), l2_below=(1.0, 4.0), top=3)
        result = evaluate(found, truth, SHAPE, mean=mean, settings=settings)
        scores = result.found.scores["matched_l2"]
        table = scores.summary(settings)
        for limit in (0.3, 0.9):
            assert table[f"ssim > {limit:g}"] == int(np.sum(scores.ssim > limit))
        assert table["l2 < 1"] == int(np.sum(scores.l2 < 1.0)) < table["l2 < 4"]
        assert table["top 3 psnr"] == pytest.approx(np.sort(scores.psnr)[-3:].mean())
        assert table["top 3 l2"] == pytest.approx(np.sort(scores.l2)[:3].mean())

    def test_nulls(self):
        truth, held_out, mean = problem()
        found = np.zeros((30, 192)) + 0.1 * np.random.default_rng(6).normal(size=(30, 192))
        result = evaluate(found, truth, SHAPE, mean=mean, held_out=held_out)
        null = result.null
        assert null["held_out"].candidates == len(held_out) == 24
        direct = evaluate(held_out, truth, SHAPE, mean=mean).found.scores["greedy_l2"]
        assert np.array_equal(null["held_out"].scores["greedy_l2"].l2, direct.l2)
        expected = np.linalg.norm(truth - held_out.mean(axis=0), axis=1)
        np.testing.assert_allclose(null["mean_image"].scores["matched_l2"].l2, expected)
        # Without held-out images the mean is that of the samples: 0, with no correlation.
        alone = evaluate(found, truth, SHAPE, mean=mean)
        assert set(alone.null) == {"mean_image", "random"}
        assert not alone.null["mean_image"].scores["matched_l2"].correlation.any()
        sizes = np.linalg.norm(truth, axis=1)
        np.testing.assert_allclose(alone.null["mean_image"].scores["matched_l2"].l2, sizes)
        # Noise of the samples' size is sqrt(2) times as far as the mean image.
        ratio = alone.null["random"].scores["matched_l2"].l2.mean() / sizes.mean()
        assert 1.2 < ratio < 1.5
        fewer = evaluate(found[:5], truth, SHAPE, mean=mean, held_out=held_out)
        assert fewer.null["held_out"].candidates == 5
        assert fewer.held_out_given == 24

    def test_the_seed_moves_the_random_null_only(self):
        truth, held_out, mean = problem()
        given = {"mean": mean, "held_out": held_out[:12]}
        runs = [
            evaluate(truth, truth, SHAPE, settings=EvaluationSettings(seed=s), **given).to_dict()
            for s in (0, 0, 1)
        ]
        assert runs[0] == runs[1]
        assert runs[0]["null"]["random"] != runs[2]["null"]["random"]
        assert runs[0]["null"]["held_out"] == runs[2]["null"]["held_out"]
        assert runs[0]["found"] == runs[2]["found"]

    def test_means_of_every_form(self):
        truth, _, mean = problem()
        for form in (mean, mean.reshape(SHAPE)):
            result = evaluate(truth, truth, SHAPE, mean=form)
            assert result.found.scores["matched_l2"].ssim.min() == pytest.approx(1.0)
        pixels = truth + mean
        for form in (0.4, [0.4], [0.3, 0.4, 0.5]):
            shift = np.broadcast_to(form, SHAPE).reshape(-1)
            result = evaluate(pixels - shift, pixels - shift, SHAPE, mean=form)
            assert result.found.scores["greedy_l2"].ssim.min() == pytest.approx(1.0)
        bytes_ = evaluate(
            255 * pixels, 255 * pixels, SHAPE, settings=EvaluationSettings(pixel_range=(0, 255))
        )
        assert bytes_.found.scores["matched_l2"].ssim.min() == pytest.approx(1.0)

    def test_grey_images_in_their_own_shape(self):
        truth, _, mean = problem(shape=(8, 8))
        result = evaluate(truth.reshape(-1, 8, 8), truth.reshape(-1, 8, 8), (8, 8), mean=mean)
        assert result.found.scores["matched_ncc"].indices.tolist() == list(range(12))
        full = EvaluationSettings(half_size=False, ssim_window="gaussian-11")
        other = evaluate(truth, truth, (8, 8), mean=mean, settings=full)
        assert other.found.scores["matched_l2"].ssim.min() == pytest.approx(1.0)
        assert "gaussian-11" in str(other)

    def test_the_table(self):
        truth, held_out, mean = problem()
        result = evaluate(truth, truth, SHAPE, mean=mean, held_out=held_out)
        lines = str(result).splitlines()
        assert lines[0] == "12 candidates against 12 samples, images of 8 x 8 x 3"
        assert max(map(len, lines)) <= 100
        assert [row.split()[-4:] for row in lines if "ssim > 0.4" in row][1][0] == "12"
        assert "held-out" in lines[2]
        assert "strongest null is missing" in str(evaluate(truth, truth, SHAPE, mean=mean))
        assert isinstance(result, Evaluation)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"candidates": np.ones((3, 5))}, "candidates: expected shape"),
            ({"candidates": np.zeros((0, 192))}, "candidates: expected shape"),
            ({"candidates": np.full((3, 192), np.nan)}, "candidates: expected finite"),
            ({"truth": np.ones(192)}, "truth: expected shape"),
            ({"held_out": np.ones((3, 191))}, "held_out: expected shape"),
            ({"mean": np.ones(7)}, "mean: expected 192 numbers"),
            ({"mean": None}, "truth: expected pixels in .* give the mean"),
            ({"image_shape": (64, 3)}, "image_shape|half"),
            ({"image_shape": (191,)}, "truth|candidates"),
        ],
    )
    def test_arrays_that_do_not_fit(self, change, message):
        truth, _, mean = problem()
        given = {"candidates": truth, "truth": truth, "image_shape": SHAPE, "mean": mean}
        with pytest.raises(InvalidInputError, match=message):
            evaluate(**(given | change))

    @pytest.mark.parametrize(
        "options",
        [{"ssim_window": "x"}, {"top": 0}, {"seed": -1}, {"pixel_range": (1.0, 0.0)}],
    )
    def test_settings_out_of_range(self, options):
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            EvaluationSettings(**options)


def test_candidates_of_a_span_are_scored_beside_what_knows_the_span():
    rng = np.random.default_rng(4)
    shape, count = (6, 6), 8
    truth, others = rng.random((count, 36)), rng.random((12, 36))
    point, rows = truth[0], truth[1:] - truth[0]
    result = evaluate(truth, truth, shape, held_out=others, span=(point, rows))
    assert list(result.null) == [
        "held_out", "mean_image", "random", "span_random", "span_held_out",
    ]  # fmt: skip
    plain = evaluate(truth, truth, shape, held_out=others)
    for name, part in plain.null.items():
        assert part.extraction == result.null[name].extraction
    assert "in span" in str(result)
    # In all of the space the projection changes nothing.
    whole = evaluate(truth, truth, shape, held_out=others, span=(np.zeros(36), np.eye(36)))
    inside, outside = whole.null["span_held_out"], whole.null["held_out"]
    assert np.allclose(inside.scores["matched_l2"].l2, outside.scores["matched_l2"].l2)
    without = evaluate(truth, truth, shape, span=(point, rows))
    assert "span_held_out" not in without.null
    for bad in ((point[:-1], rows), (point, rows[:, :-1]), (point, rows[0])):
        with pytest.raises(InvalidInputError, match="span"):
            evaluate(truth, truth, shape, span=bad)
