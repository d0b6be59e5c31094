"""Types of every field of a report, held against the schema that the checker does not read."""

from __future__ import annotations

import copy
import json
from importlib import resources

import jsonschema
import pytest

from identify.assess import assess_identifiability
from identify.checker.outcome import CheckInputError
from identify.checker.reading.report import read_report
from identify.checker.reading.types import check_types
from identify.hermite.data import HermiteData
from tests.command_line import random_network, stationary_network

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((resources.files("identify") / "report.schema.json").read_text())
)


def gradient_report(**options):
    network = random_network(3, 14, 4)
    gradient = network.gradient(random_network(4, 3, 4).hidden_weight, [1.0, -2.0, 1.5])
    data = HermiteData.from_gradient(network, gradient)
    return assess_identifiability(data, **options)


def reports():
    """Plain data of a report of each kind, with and without proofs and certificate."""
    found = {
        "globally": gradient_report(),
        "numerical": gradient_report(evidence="numerical", samples=3),
        "nonidentifiable": assess_identifiability(
            HermiteData.from_weight_decay(stationary_network())
        ),
        "undecided": assess_identifiability(HermiteData.from_kkt(random_network())),
    }
    return {name: json.loads(report.to_json()) for name, report in found.items()}


@pytest.fixture(scope="module")
def examples():
    return reports()


def places(node, path=()):
    """Every place in plain data; of long lists the first and the last entry."""
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for index in sorted({0, len(node) - 1}) if node else ():
            yield from places(node[index], (*path, index))


def put(report, path, value):
    changed = copy.deepcopy(report)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def accepted(report):
    try:
        check_types(report)
    except CheckInputError:
        return False
    return True


@pytest.mark.medium
def test_the_checker_refuses_what_the_schema_refuses(examples):
    """Fields removed, added and of every other type."""
    others = (None, True, 3, -3, 2.5, "", "text", [], ["text"], {}, {"x": 1}, [[None]])
    tried, wrong, strict = 0, [], []
    for name, report in examples.items():
        assert SCHEMA.is_valid(report), name
        read_report(report)
        for path, value in places(report):
            changed = [put(report, path, other) for other in others if path]
            if isinstance(value, dict):
                changed += [put(report, (*path, "unheard_of"), 1)]
                for key in value:
                    shorter = copy.deepcopy(report)
                    node = shorter
                    for step in path:
                        node = node[step]
                    del node[key]
                    changed.append(shorter)
            for other in changed:
                tried += 1
                if accepted(other) and not SCHEMA.is_valid(other):
                    wrong.append((name, path))
    # Which kind of scope goes with which verdict is a claim, and checked as one.
    wrong = [place for place in wrong if place[1][:1] not in (("scope",), ("verdict",))]
    assert not wrong, wrong[:20]
    assert not strict, strict[:20]
    assert tried > 1500


@pytest.mark.parametrize("field", ["reason", "symmetries", "strengthen", "caveats", "seed",
                                   "versions", "seconds", "condition_number"])  # fmt: skip
@pytest.mark.parametrize("value", [{}, [1], [None], True])
def test_notes_have_types_too(field, value, examples):
    for report in examples.values():
        assert not accepted(put(report, (field,), value)), (field, value)


def test_what_the_schema_has_the_checker_knows(examples):
    """Every property of the schema is read: none is an unknown field."""

    def properties(schema):
        for key, inner in schema.items():
            if key == "properties":
                yield from inner
            if isinstance(inner, dict):
                yield from properties(inner)
            elif isinstance(inner, list):
                for part in inner:
                    if isinstance(part, dict):
                        yield from properties(part)

    names = set(properties(SCHEMA.schema)) - {"kktcert"}
    seen = {step for report in examples.values() for path, _ in places(report) for step in path}
    # Reports name a weight decay of the gradient only where one was subtracted.
    optional = {"gradient_decay"}
    assert names - optional <= seen
    for report in examples.values():
        assert accepted(report)
        if report["certificate"] is not None:
            assert accepted(put(report, ("certificate", "assumed", "gradient_decay"), 1e-3))
