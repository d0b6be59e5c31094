"""The sentence that ends an evaluation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attack.evaluation.conclusion import conclude
from attack.evaluation.evaluate import evaluate

SHAPES = [(8, 8), (9, 10), (6, 8, 3), (12,)]


def images(count, shape, seed):
    return np.random.default_rng(seed).random((count, int(np.prod(shape))))


def conclusion(candidates, truth, shape, **more):
    return conclude(evaluate(candidates, truth, shape, **more))


def enumerated(gain):
    """The two-sided p of the signed-rank test, over every choice of signs; no ties, no zeros."""
    ranks = np.argsort(np.argsort(np.abs(gain))) + 1.0
    middle = ranks.sum() / 2.0
    seen = abs(ranks[gain > 0].sum() - middle)
    signs = np.array(list(itertools.product((0, 1), repeat=len(gain))))
    return float(np.mean(np.abs(signs @ ranks - middle) >= seen - 1e-9))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_the_truth_is_better_and_noise_is_not(shape, seed):
    truth, others = images(9, shape, seed), images(9, shape, seed + 50)
    noise = images(9, shape, seed + 100)
    found = conclusion(truth + 0.01 * noise, truth, shape, held_out=others)
    assert found.word == "better"
    assert "better on 9 of 9" in str(found)
    assert conclusion(noise, truth, shape, held_out=others).word != "better"


@pytest.mark.parametrize("shape", SHAPES)
def test_p_is_that_of_every_choice_of_signs(shape):
    truth, others = images(8, shape, 1), images(8, shape, 2)
    judged = evaluate(truth + images(8, shape, 3), truth, shape, held_out=others)
    name, measure = ("matched_l2", "l2") if len(shape) == 1 else ("matched_ncc", "correlation")
    found = getattr(judged.found.scores[name], measure)
    for row in conclude(judged).comparisons:
        null = getattr(judged.null[row.name].scores[name], measure)
        assert row.p == pytest.approx(enumerated(found - null))
        assert row.found == pytest.approx(np.median(found))


def test_worse_than_a_null_is_said():
    truth = images(10, (8, 8), 4)
    found = conclusion(images(10, (8, 8), 5), truth, (8, 8), held_out=truth + 0.01)
    assert found.word == "worse"
    assert found.comparisons[0].name == "held_out"
    assert str(found).startswith("Conclusion: worse than the held-out images")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_samples_are_called_too_few(count):
    truth = images(count, (8, 8), 6)
    found = conclusion(truth, truth, (8, 8), held_out=images(count, (8, 8), 7))
    assert found.word == "equal"
    assert "Fewer than 6 samples" in str(found)
