"""The owner's view on networks whose multipliers and samples are known in closed form."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json

import numpy as np
import pytest

from identify.errors import InvalidInputError, NotYetSupportedError, UnsupportableModelError
from identify.exposure.audit import audit
from identify.model.two_layer import TwoLayerNetwork


def plant(n=5, d=12, seed=0, largest=2):
    """A cubic KKT point of the max-margin problem for n orthonormal samples, in closed form.

    One neuron for every support of at most `largest` samples; all margins 1, all lambda equal.
    """
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(d, n)))[0].T.copy()
    y = np.where(np.arange(n) % 2, -1.0, 1.0)
    supports = [list(s) for k in range(1, largest + 1) for s in itertools.combinations(range(n), k)]
    multiplier = 3.0**-0.75 * sum(len(s) ** -0.5 for s in supports if 0 in s) ** 0.5
    b = multiplier * y
    w = np.array(
        [
            (3 * len(s) / multiplier**2) ** -0.25 * np.sum(x[s] / b[s, None], axis=0)
            for s in supports
        ]
    )
    return TwoLayerNetwork(w, (w @ x.T) ** 3 @ b, 3), x, y, multiplier


def draw(seed=0, degree=3, bias=False, m=14, d=6):
    """A random network."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=m) if bias else None
    return TwoLayerNetwork(rng.normal(size=(m, d)), rng.normal(size=m), degree, hidden_bias=hidden)


def indices(report):
    return [entry.index for entry in report.exposed]


def test_a_planted_network_exposes_every_sample():
    network, x, y, multiplier = plant()
    report = audit(network, x, y)
    assert report.kind == "lambda"
    assert np.allclose(report.multipliers, multiplier, rtol=1e-12)
    assert report.residual < 1e-13
    assert report.fit == "exact"
    assert report.active == (0, 1, 2, 3, 4)
    assert np.allclose(report.margins, 1.0, rtol=1e-12)
    assert report.slackness < 1e-12
    assert report.verdict.value == "globally"
    assert indices(report) == [0, 1, 2, 3, 4]
    assert all(entry.error <= entry.bound < 1e-12 for entry in report.exposed)
    assert (report.recovered, report.unmatched) == (5, 0)
    assert report.notes == ()


def test_labels_of_two_classes_and_images_of_any_shape():
    network, x, y, multiplier = plant()
    for labels in ((y + 1) / 2, (y > 0), y.astype(np.int64)):
        report = audit(network, x.reshape(5, 2, 2, 3), labels)
        assert np.allclose(report.multipliers, multiplier)
        assert np.array_equal(report.labels, y)


def test_inactive_samples_are_not_exposed():
    network, x, y, multiplier = plant()
    rng = np.random.default_rng(1)
    # Five times a mixture: margins above 1, multipliers 0.
    others = 5.0 * np.sign(y[:3, None]) * np.abs(rng.normal(size=(3, 5))) * y @ x
    labels = np.sign(network.value(others))
    report = audit(network, np.vstack([others, x]), np.concatenate([labels, y]))
    assert report.margins[:3].min() > 1.0
    assert np.allclose(report.multipliers, [0, 0, 0, *[multiplier] * 5], atol=1e-12)
    assert report.active == (3, 4, 5, 6, 7)
    assert indices(report) == [3, 4, 5, 6, 7]
    assert report.slackness < 1e-12
    assert report.notes == ()


def test_a_violated_margin_is_reported():
    network, x, y, _ = plant()
    report = audit(network, np.vstack([x, 0.5 * np.roll(x[0], 1)]), [*y, 1.0])
    assert report.active == (0, 1, 2, 3, 4)
    assert any("inactive samples 5 have a smaller margin" in note for note in report.notes)


def test_parallel_samples_count_as_one():
    network, x, y, multiplier = plant()
    report = audit(network, np.vstack([x, -x[1], 2.0 * x[0]]), [*y, -y[1], y[0]])
    assert report.parallel == ((0, 6), (1, 5))
    assert indices(report) == [0, 1, 2, 3, 4]
    assert [entry.parallel for entry in report.exposed[:3]] == [(6,), (5,), ()]
    # The longer one has margin 8, so that its multiplier is 0; the opposite one shares equally.
    assert np.allclose(report.multipliers[[0, 6]], [multiplier, 0.0])
    assert np.allclose(report.multipliers[[1, 5]], multiplier / 2)
    assert report.active == (0, 1, 2, 3, 4, 5)
    assert "exposed     5 of 5 samples" in str(report)


def test_wrong_data_wrong_labels_and_a_part_of_the_data():
    network, x, y, _ = plant()
    wrong = audit(network, np.random.default_rng(2).normal(size=(5, 12)), y)
    assert wrong.residual > 0.5
    assert (wrong.fit, wrong.active, wrong.exposed, wrong.unmatched) == ("none", None, (), 5)
    assert "the weights are not stationary for these samples" in str(wrong)
    flipped = audit(network, x, -y)
    assert flipped.fit == "none"
    assert any("multipliers of any sign" in note for note in flipped.notes)
    assert indices(flipped) == [0, 1, 2, 3, 4]
    part = audit(network, x[:3], y[:3])
    assert part.fit == "none"
    assert indices(part) == [0, 1, 2]
    assert part.unmatched == 2


def test_without_labels_and_as_weight_decay():
    network, x, y, multiplier = plant()
    report = audit(network, x)
    assert report.kind == "b"
    assert np.allclose(report.multipliers, multiplier * y)
    assert np.allclose(report.margins, y)
    assert report.slackness < 1e-12
    report = audit(network, x, y, source="weight-decay", decay=0.1)
    assert np.allclose(report.multipliers, 0.1 * multiplier * y)
    assert np.allclose(report.margins, 1.0)
    assert report.slackness is None


def test_rounded_weights():
    network, x, y, multiplier = plant(n=4)
    rounded = TwoLayerNetwork(
        network.hidden_weight.astype(np.float32), network.output_weight.astype(np.float32), 3
    )
    report = audit(rounded, np.vstack([x, np.roll(x, 1, axis=1)[:2]]), [*y, 1.0, 1.0])
    assert 1e-9 < report.residual < 1e-6
    assert report.fit == "exact"
    assert report.active == (0, 1, 2, 3)
    assert np.allclose(report.multipliers[:4], multiplier, rtol=1e-5)
    assert indices(report) == [0, 1, 2, 3]
    assert all(1e-9 < entry.error <= entry.bound < 1e-4 for entry in report.exposed)


@pytest.mark.parametrize("bias", [False, True])
def test_a_gradient(bias):
    network = draw(1, bias=bias, m=20)
    x = np.random.default_rng(4).normal(size=(4, 6))
    b = np.array([1.0, -2.0, 0.5, 1e-9])
    gradient = network.gradient(x, b)
    report = audit(network, x, source="gradient", gradient=gradient)
    assert np.allclose(report.multipliers, b, rtol=1e-5)
    assert report.active == (0, 1, 2, 3)
    assert indices(report)[:3] == [0, 1, 2]
    assert max(entry.error for entry in report.exposed[:3]) < 1e-7
    # The sign and length of a sample are exposed with a bias only.
    moved = audit(network, -3.0 * x, source="gradient", gradient=gradient)
    assert (indices(moved) == []) == bias


def test_more_samples_than_dimensions():
    network = draw(2, m=40, d=4)
    x = np.random.default_rng(5).normal(size=(8, 4))
    report = audit(network, x, source="gradient", gradient=network.gradient(x, np.ones(8)))
    assert np.allclose(report.multipliers, 1.0)
    assert report.active == tuple(range(8))
    assert report.fit == "exact"
    assert report.verdict.value != "globally"
    assert report.exposed == ()
    assert any("nothing is exposed by this method" in note for note in report.notes)
    text = str(report)
    assert "none of 8 samples, by this method" in text
    assert json.loads(report.to_json())["exposed"] == []


def test_mixtures_are_none_of_the_samples():
    # Three coplanar samples look like two others at degree 3; the owner is told.
    network = draw(6, m=30)
    x = np.random.default_rng(9).normal(size=(4, 6))
    x[2] = x[0] + 0.7 * x[1]
    report = audit(network, x, source="gradient", gradient=network.gradient(x, [1, 2, 1.5, -1]))
    assert report.active == (0, 1, 2, 3)
    assert report.recovered == 3
    assert 3 in indices(report)
    assert report.unmatched >= 1
    assert any("4 distinct samples are active, more than the 3" in note for note in report.notes)
    assert not any("bug" in note for note in report.notes)


def test_non_negative_samples():
    network = draw(7, degree=4, m=40)
    x = np.random.default_rng(10).uniform(size=(4, 6))
    gradient = network.gradient(x, np.ones(4))
    options = {"source": "gradient", "gradient": gradient, "non_negative": True}
    assert indices(audit(network, x, **options)) == [0, 1, 2, 3]
    assert indices(audit(network, -x, **options)) == []


def test_more_samples_than_equations():
    network = draw(3, m=5, d=3)
    x = np.random.default_rng(6).normal(size=(60, 3))
    gradient = network.gradient(x[:4], np.ones(4))
    report = audit(network, x, source="gradient", gradient=gradient, loss="logistic")
    assert report.active is None
    assert any("not unique" in note for note in report.notes)
    assert "and 20 more" in str(report)
    tiny = draw(3, m=1, d=3)
    report = audit(tiny, x, source="gradient", gradient=tiny.gradient(x[:4], np.ones(4)))
    assert (report.fit, report.residual) == ("not checkable", None)
    assert "any samples would fit" in str(report)


def test_fine_tuning():
    initial = draw(4, m=20)
    x, b = np.random.default_rng(7).normal(size=(4, 6)), 1e-7 * np.array([1.0, -2.0, 1.5, 3.0])
    step = initial.gradient(x, b)
    final = TwoLayerNetwork(
        initial.hidden_weight + step.hidden_weight, initial.output_weight + step.output_weight, 3
    )
    report = audit(final, x, source="fine-tuning", initial=initial)
    assert np.allclose(report.multipliers, b, rtol=1e-3)
    assert indices(report) == [0, 1, 2, 3]
    # One step is exact at the weights before it: what is left is the rounding of a small movement.
    assert all(entry.error <= entry.bound < 1e-2 for entry in report.exposed)
    assert all(entry.error < 1e-6 for entry in report.exposed)
    assert report.fit in ("exact", "approximate")


def test_signs_under_the_logistic_loss():
    network = draw(5)
    x = np.random.default_rng(8).normal(size=(3, 6))
    y = np.array([1.0, -1.0, 1.0])
    gradient = network.gradient(x, -0.3 * y)
    options = {"source": "gradient", "gradient": gradient, "loss": "logistic"}
    assert audit(network, x, y, **options).notes == ()
    notes = audit(network, x, y * [1, 1, -1], **options).notes
    assert any("samples 2 have the wrong sign" in note for note in notes)


def test_the_assumption_of_unit_norm_is_checked():
    network, x, y, _ = plant()
    assert audit(network, x, y, scale="unit").notes == ()
    notes = audit(network, 1.5 * x, y, scale="unit").notes
    assert any("the assumption of norm 1 is wrong" in note for note in notes)


def test_a_wrong_verdict_would_be_reported(monkeypatch):
    network, x, y, _ = plant()
    module = importlib.import_module("identify.exposure.audit")
    honest = module.assess_identifiability

    def lying(*arguments, **options):
        report = honest(*arguments, **options)
        samples = report.recovery.samples.copy()
        samples[0] += 1e-3 * np.roll(samples[0], 1)
        recovery = dataclasses.replace(report.recovery, samples=samples)
        return dataclasses.replace(report, recovery=recovery)

    monkeypatch.setattr(module, "assess_identifiability", lying)
    report = audit(network, x, y)
    assert len(report.exposed) == 5
    assert any("`globally` is wrong here" in note for note in report.notes)


def test_an_attacker_who_knows_too_little_and_a_time_limit():
    network, x, y, _ = plant()
    report = audit(network, x, y, count=3)
    assert report.verdict.value == "undecided"
    assert indices(report) == [0, 1, 2, 3, 4]
    assert any("it does not follow" in note for note in report.notes)
    late = audit(network, x, y, time_limit=1e-9)
    assert late.verdict.value == "undecided"
    assert np.allclose(late.multipliers, audit(network, x, y).multipliers)


def test_the_files_form():
    network, x, y, _ = plant()
    report = audit(network, np.vstack([x, np.roll(x[0], 1)]), [*y, 1.0], seed=3)
    found = json.loads(report.to_json())
    assert list(found)[:5] == ["multipliers", "residual", "active", "margins", "exposed"]
    assert len(found["multipliers"]) == len(found["margins"]) == 6
    assert found["active"] == [0, 1, 2, 3, 4]
    assert found["exposed"][0].keys() >= {"index", "error"}
    assert (found["verdict"], found["seed"], found["source"]) == ("globally", 3, "kkt")
    assert found["scope"] == {"kind": "at_most", "samples": 5}
    assert max(len(line) for line in str(report).splitlines()) <= 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": np.ones((2, 11))}, "samples: expected .*12 numbers a sample"),
        ({"samples": np.ones((2, 3, 5))}, "samples: expected .*12 numbers a sample"),
        ({"samples": np.ones(12)}, "samples: "),
        ({"samples": np.ones((0, 12))}, "samples: "),
        ({"samples": np.full((2, 12), np.nan)}, "samples: expected finite"),
        ({"labels": [1, -1, 1]}, "labels: expected shape"),
        ({"labels": [0, 1, 2, 3, 4]}, "labels: expected two classes, got 0, 1, 2, 3, 4"),
        ({"labels": [0, 1, -1, 1, 1]}, "labels: "),
        ({"source": "magic"}, "source: expected one of"),
        ({"source": "gradient"}, "gradient: expected a network exactly for source gradient"),
        ({"source": "fine-tuning"}, "initial: expected"),
        ({"gradient": "network"}, "gradient: expected .* got one with source kkt"),
        ({"decay": 0.1}, "decay: expected none"),
        ({"scale": "bias"}, "scale: "),
        ({"count": 0}, "samples: expected at least 1"),
    ],
)
def test_bad_input_is_one_line(changes, message):
    network, x, y, _ = plant()
    arguments = {"samples": x, "labels": y} | changes
    if arguments.get("gradient") == "network":
        arguments["gradient"] = network
    with pytest.raises(InvalidInputError, match=message) as caught:
        audit(network, **arguments)
    assert "\n" not in str(caught.value)


def test_labels_of_other_kinds_are_left_unused_where_none_are_needed():
    network, x, _, _ = plant()
    report = audit(network, x, [0, 1, 2, 3, 9], source="weight-decay")
    assert report.labels is None
    assert report.notes[0] == "the labels are not two classes; they were not used"


def test_several_outputs_are_not_yet_supported():
    with pytest.raises(NotYetSupportedError):
        audit(TwoLayerNetwork(np.eye(3), np.ones((3, 3)), 3), np.eye(3))
    with pytest.raises(UnsupportableModelError, match="not opposite"):
        audit(TwoLayerNetwork(np.eye(3), np.ones((2, 3)), 3), np.eye(3))


@pytest.mark.parametrize("gap", [1e-3, 1e-4, 1e-5])
def test_multipliers_of_nearly_dependent_gradients_have_wide_bounds(gap: float) -> None:
    """The stated error of the multipliers holds the true ones, and none is called active for it."""
    rng = np.random.default_rng(7)
    net = TwoLayerNetwork(rng.normal(size=(30, 5)), rng.normal(size=30), degree=3)
    x = rng.normal(size=(3, 5))
    x[1] = x[0] + gap * rng.normal(size=5)
    b = np.array([1.0, 0.0, -1.0])
    g = net.gradient(x, b)
    gradient = TwoLayerNetwork(g.hidden_weight.astype("f4"), g.output_weight.astype("f4"), degree=3)
    found = audit(net, x, source="gradient", gradient=gradient)
    bounds = found.multiplier_bounds
    assert np.all(np.abs(found.multipliers - b) <= np.where(np.isfinite(bounds), bounds, 0.0))
    assert found.active is not None
    assert 1 not in found.active
    assert 2 in found.active
    assert len(found.to_dict()["multiplier_bounds"]) == 3
