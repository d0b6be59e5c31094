"""Statements about the linear equations for the moment tensor."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from identify.tensors import hermite_matrix, symmetric_dimension
from proofs_check.arithmetic import integers
from proofs_check.statements.interpolation import conditions as interpolation
from proofs_check.statements.interpolation import generic_rank, gradient_span
from tests.proofs_check import helpers


@pytest.mark.parametrize("dropped", generic_rank.EXCEPTIONS)
def test_table_needs_every_exception(dropped):
    kept = tuple(entry for entry in generic_rank.EXCEPTIONS if entry != dropped)
    with patch.object(generic_rank, "EXCEPTIONS", kept):
        degree, dimension, count = dropped
        entry = generic_rank._build(degree, dimension, count, "random", 1)
        assert not generic_rank.GENERIC.conclusion(entry).holds


def test_table_has_no_further_exceptions():
    wrong = (*generic_rank.EXCEPTIONS, (5, 4, 14))
    with patch.object(generic_rank, "EXCEPTIONS", wrong):
        assert not generic_rank.prove_generic_ranks.__wrapped__()


def test_quadric_through_fourteen_points_is_in_the_kernel():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((14, 5))
    sigma = np.linalg.svd(hermite_matrix(points, 4), compute_uv=False)
    assert symmetric_dimension(4, 5) == len(sigma) == 70
    assert sigma[-1] < 1e-12 * sigma[0] < 1e-6 * sigma[-2]


def test_determined_without_flat():
    """I-hermite is weaker: four points determine a ternary cubic, Sym^2 needs six."""
    points = np.random.default_rng(0).integers(-9, 10, size=(4, 3))
    entry = interpolation.IntegerPoints(points, 3, 0)
    assert integers.hermite_rank(points, 3) == symmetric_dimension(3, 3) == 10
    assert not interpolation._one_spans(entry)


def test_too_few_points_determine_nothing():
    points = np.array([[1, 0, 2], [3, 1, -1], [0, 1, 1]])
    entry = interpolation.IntegerPoints(points, 3, 0)
    helpers.assert_counterexample(interpolation.CHAIN, "spans", entry)


def test_dependent_samples_lie_in_the_span_of_few_rows():
    samples = np.array([[1, 0], [0, 1], [1, 1], [1, -1], [2, 1]], dtype=object)
    points = np.array([[1, 2], [3, 1]], dtype=object)
    batch = gradient_span.IntegerBatch(points, samples, np.ones(5, dtype=object), 3, 0)
    helpers.assert_counterexample(gradient_span.SPAN, "independent", batch)


def test_residues_have_the_rank_of_the_matrix():
    points = np.random.default_rng(3).integers(-3, 4, size=(5, 3))
    for degree in (3, 4):
        sigma = np.linalg.svd(hermite_matrix(points.astype(float), degree), compute_uv=False)
        expected = int(np.count_nonzero(sigma > 1e-10 * sigma[0]))
        assert integers.hermite_rank(points, degree) == expected


def test_rank_modulo_a_prime_can_fall():
    matrix = np.array([[1, 2], [1, 9]])
    assert integers.rational_rank(matrix) == 2
    assert integers.modular_rank(matrix, 7) == 1
    assert integers.modular_rank(matrix, 11) == 2
