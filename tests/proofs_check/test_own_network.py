"""Which hypotheses of the theorems a network satisfies."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from identify import Assumptions, HermiteData, TwoLayerNetwork, plant_network
from identify.errors import InvalidInputError
from proofs_check import check_network
from proofs_check.own_network import NOT_REACHED, RECONSTRUCTION, THEOREMS, UNIQUENESS

LIBRARY = Path(__file__).resolve().parents[2] / "docs" / "library.md"


def names(found, theorem, holds):
    return {entry.name for entry in found.of(theorem) if entry.holds is holds}


def random_network(width=40, dimension=6, degree=3, seed=0, **changes):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(width, dimension))
    return TwoLayerNetwork(weights, rng.normal(size=width), degree, **changes)


def balanced(network):
    """The network with |w_j|^2 = alpha a_j^2, which does not make it stationary."""
    heights = np.linalg.norm(network.hidden_weight, axis=1) / np.sqrt(network.degree)
    return replace(network, output_weight=heights)


@pytest.fixture(scope="module")
def planted():
    return plant_network(np.eye(4), degree=3, stationary="margin")


def test_planted_margin_network_satisfies_both_theorems(planted):
    found = check_network(HermiteData.from_kkt(planted.network))
    assert [found.applies(theorem) for theorem in THEOREMS] == [True, True]
    assert found["theorem-4.1", "multipliers"].found == 4
    assert found["theorem-4.1", "unit norms"].holds is True
    assert found["theorem-4.1", "whole space"].holds is True
    assert found["uniqueness", "redundancy"].found == 20 - 16
    rank = found["uniqueness", "I-hermite"]
    assert (rank.found, rank.required) == (20, 20)
    assert found["uniqueness", "independence"].found == pytest.approx(1.0)
    assert found.report.verdict.value == "globally"


def test_weight_decay_has_no_multipliers_and_no_margins(planted):
    found = check_network(HermiteData.from_weight_decay(planted.network))
    assert found.applies(RECONSTRUCTION) is True
    assert "multipliers" not in {entry.name for entry in found.conditions}
    assert found["theorem-4.1", "unit norms"].holds is None


def test_unequal_lengths_are_seen_at_equal_margins():
    samples = np.diag([1.0, 1.0, 2.0, 2.0])
    planted = plant_network(samples, degree=3, stationary="margin")
    found = check_network(HermiteData.from_kkt(planted.network))
    assert found["theorem-4.1", "unit norms"].holds is False
    # A convention costs the theorem nothing.
    assert found.applies(RECONSTRUCTION) is True


def test_unbalanced_weights_are_no_kkt_point():
    found = check_network(HermiteData.from_kkt(random_network()))
    assert names(found, RECONSTRUCTION, False) == {"balance", "stationarity"}
    assert found["theorem-4.1", "I-hermite"].detail == NOT_REACHED
    assert found.applies(RECONSTRUCTION) is False
    assert found.applies(UNIQUENESS) is None


def test_balance_alone_does_not_make_a_kkt_point():
    found = check_network(HermiteData.from_kkt(balanced(random_network())))
    assert found["theorem-4.1", "balance"].holds is True
    assert found["theorem-4.1", "stationarity"].holds is False
    assert found["theorem-4.1", "stationarity"].found > 0.1


def test_two_neurons_fit_anything():
    found = check_network(HermiteData.from_kkt(balanced(random_network(width=2))))
    assert found["theorem-4.1", "stationarity"].holds is None
    assert found["theorem-4.1", "whole space"].holds is False
    assert found["uniqueness", "redundancy"].holds is False
    assert found["uniqueness", "redundancy"].found == 0
    assert found.applies(RECONSTRUCTION) is None


def gradient_check(network, count, seed=1, **options):
    rng = np.random.default_rng(seed)
    batch = rng.normal(size=(count, network.dimension))
    if options.pop("unit", False):
        batch /= np.linalg.norm(batch, axis=1, keepdims=True)
    slopes = rng.uniform(0.5, 1.0, size=count)
    return check_network(
        HermiteData.from_gradient(network, network.gradient(batch, slopes)), **options
    )


def test_gradient_satisfies_the_uniqueness_theorem_and_is_no_kkt_point():
    found = gradient_check(random_network(), 4)
    assert found.applies(UNIQUENESS) is True
    assert found.applies(RECONSTRUCTION) is None
    assert {"balance", "stationarity"} <= names(found, RECONSTRUCTION, None)


def test_more_samples_than_dimensions_are_dependent():
    found = gradient_check(random_network(width=80), 9)
    assert found["uniqueness", "I-hermite"].holds is True
    assert found["uniqueness", "decomposition"].holds is False
    assert found["theorem-4.1", "independence"].holds is False
    assert found.applies(UNIQUENESS) is False


def test_too_few_neurons_fail_the_interpolation_condition():
    found = gradient_check(random_network(width=7), 6)
    for name in ("I-hermite", "I-flat", "I-value"):
        assert found["theorem-4.1", name].holds is False
    assert found.applies(UNIQUENESS) is False


def test_readings_of_the_interpolation_condition_differ():
    found = gradient_check(random_network(width=16), 5)
    assert {"I-hermite", "I-flat"} <= names(found, RECONSTRUCTION, True)
    value = found["theorem-4.1", "I-value"]
    assert (value.holds, value.counts, value.found, value.required) == (False, False, 16, 35)
    assert found.applies(UNIQUENESS) is True


@pytest.mark.parametrize("unit", [True, False])
def test_hidden_bias_fixes_the_norms(unit):
    network = random_network(hidden_bias=np.random.default_rng(5).normal(size=40))
    found = gradient_check(network, 4, unit=unit)
    assert found["theorem-4.1", "unit norms"].holds is unit
    assert found.applies(UNIQUENESS) is True


def test_arguments_are_those_of_the_assessment(planted):
    with pytest.raises(InvalidInputError, match="samples"):
        check_network(HermiteData.from_kkt(planted.network), samples=0)
    late = check_network(HermiteData.from_kkt(planted.network), time_limit=1e-9)
    assert late.report.verdict.value == "undecided"


def test_json_is_plain_and_complete(planted):
    for data in (
        HermiteData.from_kkt(planted.network),
        HermiteData.from_kkt(random_network()),
        HermiteData.from_kkt(balanced(random_network(width=2))),
    ):
        found = check_network(data)
        facts = json.loads(found.to_json())
        assert [entry["name"] for entry in facts["theorems"]] == list(THEOREMS)
        for theorem in facts["theorems"]:
            assert all(entry["sentence"] for entry in theorem["conditions"])
        assert facts["verdict"] == found.report.verdict.value


def test_text_names_every_condition(planted):
    found = check_network(HermiteData.from_kkt(planted.network))
    text = str(found)
    for entry in found.conditions:
        assert re.search(rf"^  {entry.name} +holds|^  {entry.name} +fails", text, re.MULTILINE)
    assert "(not required)" in text
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(KeyError):
        found["theorem-4.1", "nothing"]


def test_examples_of_the_library_page_run(capsys):
    text = LIBRARY.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = [block for block in blocks if "proofs_check" in block]
    assert len(blocks) == 2
    for block in blocks:
        scope = {}
        exec(compile(block, "<library page>", "exec"), scope)
        for name, value in scope.items():
            if name.startswith("test_"):
                value()
    assert capsys.readouterr().out.endswith("True True\n")


def test_assumptions_as_one_record():
    planted = plant_network(np.eye(3), degree=3)
    data = HermiteData.from_kkt(planted.network)
    loose = check_network(data, samples=3, scale="unit")
    given = check_network(data, assumptions=Assumptions(samples=3, scale="unit"))
    assert str(given) == str(loose)
    with pytest.raises(InvalidInputError, match="no samples beside it"):
        check_network(data, samples=3, assumptions=Assumptions())
