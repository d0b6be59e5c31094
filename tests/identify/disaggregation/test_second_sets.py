"""Two batches with one gradient are shown where samples share a mask, and nowhere else."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

import identify
from identify.budget import UNLIMITED, Budget
from identify.command.gate import parse_gate
from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.groups import find_groups
from identify.disaggregation.problem import pose
from identify.disaggregation.records import NONIDENTIFIABLE, ShownSet
from identify.disaggregation.second_set import is_different
from identify.model.deep import DeepGradient, DeepNetwork
from tests.identify.disaggregation.problems import change
from tests.identify.disaggregation.second_sets import FAMILIES, case, is_wrong, left, one_mask

SCHEMA = resources.files(identify).joinpath("deep_report.schema.json")
AMBIGUOUS = [name for name, (_, expected) in FAMILIES.items() if expected]
UNIQUE = [name for name in FAMILIES if name not in AMBIGUOUS]


@pytest.mark.parametrize("family", AMBIGUOUS)
def test_two_sets_of_the_smallest_size_have_the_gradient(family):
    shown = 0
    for seed in range(3):
        problem = case(family, seed)
        report = identify.assess_gradient(problem.network, problem.gradient)
        assert not is_wrong(problem, report)
        if report.verdict != NONIDENTIFIABLE:
            continue
        shown += 1
        found = report.found
        assert len(found.alternatives) == 2
        for one in found.alternatives:
            assert len(one.samples) == found.rank == len(problem.samples)
            limit = 1e-10 if "float32" not in family else 1e-6
            exact = problem.exact
            assert left(problem.network, exact, one.samples, one.cotangents) <= limit
            assert one.margin > 1.0
    assert shown >= 2


@pytest.mark.parametrize("family", UNIQUE)
@pytest.mark.parametrize("seed", range(2))
def test_where_one_set_explains_the_gradient_no_two_are_shown(family, seed):
    problem = case(family, seed)
    report = identify.assess_gradient(problem.network, problem.gradient, **problem.options)
    assert report.verdict != NONIDENTIFIABLE
    assert report.found.alternatives == ()


def test_samples_of_other_masks_are_in_both_sets():
    problem = case("two pairs", 0)
    one, two = identify.assess_gradient(problem.network, problem.gradient).found.alternatives
    others = problem.samples[2:3]
    for shown in (one, two):
        apart = np.linalg.norm(others[:, None] - shown.samples[None], axis=2).min(axis=1)
        assert apart.max() < 1e-8 * np.linalg.norm(others)


@pytest.mark.parametrize(("family", "sizes"), [
    ("two of one mask", [2]), ("three of one mask", [3, 1, 1]), ("two pairs", [2, 2, 1]),
])  # fmt: skip
def test_groups_are_the_masks_of_the_samples(family, sizes):
    problem = case(family, 1)
    posed = pose(problem.network, problem.gradient, None, None, samples=None, seed=0)
    found = find_groups(posed.operator, posed.factor, posed.layer, seed=0, budget=UNLIMITED)
    assert [group.size for group in found.groups][: len(sizes)] == sizes
    z = problem.network.forward(problem.samples).preactivations[-2]
    true = {tuple(row) for row in z > 0.0}
    assert {tuple(group.mask) for group in found.groups} == true
    small = found.values <= 30.0
    assert small.sum() == posed.factor.rank + sum(g.size * (g.size - 1) for g in found.groups)
    assert found.values[~small].min() > 100.0


def test_without_the_kernel_of_repeated_masks_there_are_no_groups():
    for family in ("different masks", "one neuron apart"):
        problem = case(family, 0)
        posed = pose(problem.network, problem.gradient, None, None, samples=None, seed=0)
        operator, factor, layer = posed.operator, posed.factor, posed.layer
        assert find_groups(operator, factor, layer, seed=0, budget=UNLIMITED) is None


@pytest.mark.parametrize("level", [1e-5, 1e-3])
def test_noise_leaves_it_undecided(level):
    problem = case("two of one mask", 1)
    rng = np.random.default_rng(0)
    noisy = change(problem.exact, lambda g: g + level * np.linalg.norm(g) / g.size**0.5
                   * rng.normal(size=g.shape))  # fmt: skip
    assert identify.assess_gradient(problem.network, noisy).verdict == "undecided"


def test_layers_that_are_left_out_or_without_biases_leave_it_undecided():
    network, x, p = one_mask(np.random.default_rng(3), [12, 30, 110, 5], 2)
    exact = network.gradient(x, p)
    assert identify.assess_gradient(network, exact).verdict == NONIDENTIFIABLE
    part = DeepGradient((None, *exact.weights[1:]), (None, *exact.biases[1:]))
    assert identify.assess_gradient(network, part).verdict == "undecided"
    part = DeepGradient(exact.weights, (exact.biases[0], None, exact.biases[2]))
    assert identify.assess_gradient(network, part).verdict == "undecided"
    part = DeepGradient((*exact.weights[:2], None), (*exact.biases[:2], None))
    assert identify.assess_gradient(network, part).verdict == NONIDENTIFIABLE
    smooth = DeepNetwork(network.weights, network.biases, ["tanh", "relu"])
    # Here the masks differ in two neurons, which the equations of degree 3 see.
    report = identify.assess_gradient(smooth, smooth.gradient(x, p))
    assert report.verdict == "globally"
    assert report.found.kernel.degree == 3
    apart = np.linalg.norm(report.found.samples[:, None] - x, axis=2)
    assert apart.min(axis=0).max() < 1e-9


def test_another_number_of_samples_and_no_time_leave_it_undecided():
    problem = case("two of one mask", 1)
    other = identify.assess_gradient(problem.network, problem.gradient, samples=9)
    assert other.verdict == "undecided"
    assert other.found.alternatives == ()
    late = disaggregate(problem.network, problem.gradient, budget=Budget(0.0))
    assert late.verdict == "undecided"
    assert late.alternatives == ()


def test_different_sets_have_a_sample_far_from_all_of_the_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5))

    def shown(samples, error=0.0):
        return ShownSet(samples, rng.normal(size=(3, 2)), np.full(3, error), 0.0, 2.0)

    assert not is_different(shown(x), shown(x[[2, 0, 1]]))
    moved = x.copy()
    moved[1] *= 1.05
    assert is_different(shown(x), shown(moved))
    assert not is_different(shown(x), shown(moved, 0.06))
    moved[1] = 1.005 * x[1]
    assert not is_different(shown(x), shown(moved))


def test_the_report_says_what_is_shown():
    problem = case("two of one mask", 1)
    report = identify.assess_gradient(problem.network, problem.gradient)
    content = json.loads(report.to_json())
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    rank = report.found.rank
    assert content["scope"] == {"kind": "shown", "samples": [rank, rank]}
    assert len(content["alternatives"]) == 2
    assert report.candidates
    assert report.covered
    assert report.scope_sentence == f"the two sets shown, of {rank} samples each"
    text = str(report)
    assert "NONIDENTIFIABLE" in text
    assert "can be any numbers" in text
    assert NONIDENTIFIABLE in parse_gate("nonidentifiable").words


def test_an_audit_sees_the_samples_that_both_sets_have():
    problem = case("two pairs", 0)
    report = identify.assess_gradient(problem.network, problem.gradient)
    found = identify.audit_gradient(report, problem.network, problem.gradient, problem.samples)
    assert [entry.index for entry in found.exposed] == [2]
    np.testing.assert_allclose(report.found.shared, problem.samples[2:3], rtol=1e-8)
