"""Every leaf field of reports of three verdicts, changed: none that matters is still confirmed."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from identify.assess import assess_identifiability
from identify.checker.check import NOTES, UNCLAIMED, check_report
from identify.checker.outcome import CONFIRMED, REFUTED, CheckInputError
from identify.hermite.data import HermiteData
from identify.model.loading import save_network
from identify.model.two_layer import TwoLayerNetwork
from tests.command_line import random_network, stationary_network
from tests.identify.checker.problems import sign

FREE = {"seconds", "versions"}


def batch(seed, width, dimension, count, degree=3, noise=0.0):
    rng = np.random.default_rng([3, seed])
    network = TwoLayerNetwork(rng.normal(size=(width, dimension)), rng.normal(size=width), degree)
    b = rng.choice([-1.0, 1.0], count) * rng.uniform(1.0, 2.0, count)
    gradient = network.gradient(rng.normal(size=(count, dimension)), b)
    rows = np.asarray(gradient.hidden_weight)
    rows = rows + noise * np.abs(rows).max() * rng.normal(size=rows.shape)
    return network, TwoLayerNetwork(rows, gradient.output_weight, degree)


def cases(folder):
    """(report, arguments of the check) by name."""
    found = {}
    for name, parts in {
        "globally": batch(0, 12, 6, 4),
        "globally, noisy": batch(1, 14, 5, 3, noise=1e-10),
        "globally, whole space": batch(2, 12, 3, 3, degree=4),
        "nonidentifiable": batch(3, 5, 4, 2),
        "nonidentifiable, crowded": batch(4, 14, 4, 6),
        "undecided": batch(4, 12, 6, 4, noise=3e-3),
    }.items():
        paths = [folder / f"{name}.{role}.npz" for role in ("model", "gradient")]
        for network, path in zip(parts, paths, strict=True):
            save_network(network, path)
        report = assess_identifiability(HermiteData.from_gradient(*parts))
        found[name] = (report, (paths[0],), {"gradient": paths[1]})
    for name, network, build in (
        ("nonidentifiable, weights", stationary_network(), HermiteData.from_weight_decay),
        ("undecided, weights", random_network(), HermiteData.from_kkt),
    ):
        save_network(network, folder / f"{name}.npz")
        report = assess_identifiability(build(network))
        found[name] = (report, (folder / f"{name}.npz",), {})
    for name, (report, *_) in found.items():
        assert report.verdict.value == name.split(",")[0], report.reason
    return {name: (json.loads(r.to_json()), args, more) for name, (r, args, more) in found.items()}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return cases(tmp_path_factory.mktemp("mutations"))


def leaves(node, path=()):
    """Paths of all plain values; of the long lists of a certificate the first and the last."""
    if isinstance(node, dict):
        for key, value in node.items():
            if path or key not in FREE:
                yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        short = path[:1] == ("certificate",) and len(node) > 2
        for index in (0, len(node) - 1) if short else range(len(node)):
            yield from leaves(node[index], (*path, index))
    else:
        yield path, node


def mutants(value):
    """Halved, doubled, zero, negated, of another type."""
    if isinstance(value, bool):
        return [not value, None, int(value), str(value)]
    if isinstance(value, int | float):
        same_kind = [
            2 * value,
            0 * value,
            -value,
            value // 2 if isinstance(value, int) else value / 2,
        ]
        return [*same_kind, None, str(value), [value], bool(value)]
    if value is None:
        return [0, 1, 1e-3, "x", True, [], {}]
    return ["", value + "x", "globally", "numerical", "proved_exact", None, 1, [value]]


def changed(report, path, *value):
    """The report with one field replaced, or removed, and the digest made anew."""
    result = copy.deepcopy(report)
    node = result
    for key in path[:-1]:
        node = node[key]
    if value:
        node[path[-1]] = value[0]
    else:
        del node[path[-1]]
    return sign(result) if path != ("certificate", "digest") else result


def named(path, report):
    """The name by which a result speaks of a field."""
    if path[0] == "conditions":
        if path[-1] == "source":
            return "conditions.source"
        row = report["conditions"][path[1]]["name"] if isinstance(path[1], int) else ""
        return f"conditions.{row}.{path[2]}" if len(path) > 2 else "conditions"
    if path[0] in (
        "assumptions", "symmetries", "caveats", "strengthen", "error_bounds", "absolute_bounds"
    ):  # fmt: skip
        return "wording of assumptions" if path[0] == "assumptions" else path[0]
    return ".".join(map(str, path))


def excused(path, report, result):
    """Whether the result says itself that it vouches for no such field."""
    name = named(path, report)
    return any(name == field or name.startswith(f"{field}.") for field in result.not_checked)


def also_true(path, value, other):
    """Changes after which the field says something that is true as well."""
    if other == value and type(other) is type(value):
        return True
    if path[-2:] == ("assumed", "point") and value is None and other is ...:
        return True  # missing and null both say: no point, or the midpoint
    if path[-3:] == ("certificate", "rank", "neurons"):
        return isinstance(other, int) and other >= value  # more points have full rank, too
    if isinstance(value, float) and abs(value) < 1e-300:
        return isinstance(other, float) and abs(other) < 1e-300  # -0.0
    # Rounding errors in a point or a term: the proofs are redone about the changed one.
    numbers = isinstance(value, int | float) and isinstance(other, int | float)
    return numbers and abs(other - value) < 1e-14 and path[0] == "certificate"


@pytest.mark.medium
@pytest.mark.parametrize("name", [
    "globally", "globally, noisy", "nonidentifiable", "nonidentifiable, weights", "undecided",
])  # fmt: skip
def test_no_changed_leaf_is_confirmed(name, examples):
    report, arguments, options = examples[name]
    whole = check_report(report, *arguments, **options)
    decided = not name.startswith("undecided")
    assert whole.outcome == (CONFIRMED if decided else "not checkable"), str(whole)
    tried, refused, wrong = 0, 0, []
    for path, value in leaves(report):
        for other in [*mutants(value), ...]:
            if also_true(path, value, other):
                continue
            forged = changed(report, path) if other is ... else changed(report, path, other)
            tried += 1
            try:
                result = check_report(forged, *arguments, **options)
            except CheckInputError:
                refused += 1
                continue
            if result.outcome == REFUTED or excused(path, report, result):
                continue
            # An undecided report is never confirmed, but its claims could be.
            if decided and result.outcome != CONFIRMED:
                continue
            wrong.append((path, value, other))
    assert not wrong, "\n".join(map(str, wrong[:30]))
    assert tried > 300
    assert refused > 100


def test_notes_and_nothing_else_are_excused_without_a_reason(examples):
    report, arguments, options = examples["globally, noisy"]
    found = set(check_report(report, *arguments, **options).not_checked)
    assert found >= set(NOTES)
    # What is left of the noise: Euler's identity is exact for this gradient's second layer.
    assert not found & set(UNCLAIMED)
    claims = {"residuals.linear.value", "residuals.samples.value", "error_bounds", "noise_level"}
    assert not found & claims


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", ["globally", "globally, noisy", "globally, whole space"])
def test_error_bounds_changed_together_with_their_condition(name, factor, examples):
    report, arguments, options = examples[name]
    forged = copy.deepcopy(report)
    forged["error_bounds"] = [factor * bound for bound in report["error_bounds"]]
    for row in forged["conditions"]:
        if row["name"] == "error bounds":
            row["found"] *= factor
    result = check_report(sign(forged), *arguments, **options)
    assert not result["error bounds"].holds or "error_bounds" in result.not_checked


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("residual", ["balance", "off_span", "linear", "samples"])
@pytest.mark.parametrize("name", ["globally", "globally, noisy", "nonidentifiable, weights"])
def test_residuals_changed_together_with_their_condition(name, residual, factor, examples):
    report, arguments, options = examples[name]
    value = report["residuals"][residual]["value"]
    if not value:
        return
    forged = changed(report, ("residuals", residual, "value"), factor * value)
    rows = {"balance": ("balance", "consistency"), "samples": ("decomposition",)}
    for row in forged["conditions"]:
        if row["name"] in rows.get(residual, ()):
            row["found"] = factor * value
    result = check_report(sign(forged), *arguments, **options)
    assert result.outcome != CONFIRMED or f"residuals.{residual}.value" in result.not_checked


@pytest.mark.parametrize("name", ["globally", "nonidentifiable", "nonidentifiable, weights"])
def test_conditions_turned_round(name, examples):
    report, arguments, options = examples[name]
    forged = report | {"conditions": report["conditions"][::-1]}
    result = check_report(sign(copy.deepcopy(forged)), *arguments, **options)
    assert result["conditions"].outcome == REFUTED
    for index, row in enumerate(report["conditions"]):
        for holds in {True, False, None} - {row["holds"]}:
            turned = changed(report, ("conditions", index, "holds"), holds)
            found = check_report(turned, *arguments, **options)
            unsaid = f"conditions.{row['name']}.holds" in found.not_checked and holds is None
            assert found.outcome == REFUTED or unsaid, (row, holds)
