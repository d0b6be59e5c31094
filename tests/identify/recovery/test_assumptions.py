"""Assumptions as one record, and beside it the single keywords of the public functions."""

from __future__ import annotations

import numpy as np
import pytest

import identify
from identify.alternatives.find import find_alternative
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.model.two_layer import TwoLayerNetwork
from identify.recovery.assumptions import SCALES, Assumptions


def batch(seed=0, bias=False):
    """A network, a batch of four samples and its gradient."""
    rng = np.random.default_rng(seed)
    hidden_bias = rng.normal(size=12) if bias else None
    network = TwoLayerNetwork(
        rng.normal(size=(12, 6)), rng.normal(size=12), 3, hidden_bias=hidden_bias
    )
    x = rng.normal(size=(4, 6))
    return network, x, network.gradient(x, np.array([1.0, -2.0, 0.5, 1.5]))


def record(report):
    """A report without what differs between two equal runs."""
    return {name: value for name, value in report.to_dict().items() if name != "seconds"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0),
        ("samples", -3),
        ("scale", "norm"),
        ("noise", 0.0),
        ("noise", 1.0),
        ("noise", float("nan")),
        ("hidden_share", 0.0),
        ("hidden_share", 1.5),
        ("arithmetic", "float8"),
    ],
)
def test_a_value_out_of_range_is_refused_everywhere(name, value):
    network, x, gradient = batch()
    data = HermiteData.from_gradient(network, gradient)
    with pytest.raises(InvalidInputError, match=name):
        Assumptions(**{name: value})
    with pytest.raises(InvalidInputError, match=name):
        identify.assess_identifiability(data, **{name: value})
    audited = "count" if name == "samples" else name
    with pytest.raises(InvalidInputError, match=name):
        identify.audit(network, x, source="gradient", gradient=gradient, **{audited: value})
    if name not in ("hidden_share", "arithmetic"):
        with pytest.raises(InvalidInputError, match=name):
            find_alternative(network, "gradient", gradient=gradient, **{name: value})


@pytest.mark.parametrize(
    "loose",
    [{}, {"samples": 4}, {"samples": 5, "scale": "unit"}, {"noise": 1e-6, "hidden_share": 0.5}],
)
def test_a_record_says_the_same_as_the_keywords(loose):
    network, _, gradient = batch()
    data = HermiteData.from_gradient(network, gradient)
    given = Assumptions(**loose)
    first = identify.assess_identifiability(data, evidence="numerical", **loose)
    second = identify.assess_identifiability(data, evidence="numerical", assumptions=given)
    assert record(first) == record(second)


def test_the_other_functions_take_the_record():
    network, x, gradient = batch(1)
    data = HermiteData.from_gradient(network, gradient)
    given = Assumptions(samples=4, scale="unit")
    audits = [
        identify.audit(network, x, source="gradient", gradient=gradient, **options).identifiability
        for options in ({"count": 4, "scale": "unit"}, {"assumptions": given})
    ]
    assert record(audits[0]) == record(audits[1])
    assert find_alternative(network, "gradient", gradient=gradient, assumptions=given) == ()
    known = Assumptions(samples=4)
    recovery = identify.recover_samples(data, assumptions=known)
    assert np.array_equal(recovery.samples, identify.recover_samples(data, samples=4).samples)


def test_both_at_once_are_refused():
    network, x, gradient = batch()
    data = HermiteData.from_gradient(network, gradient)
    given = Assumptions(samples=4)
    with pytest.raises(InvalidInputError, match="no samples and no noise beside it"):
        identify.assess_identifiability(data, samples=4, noise=1e-3, assumptions=given)
    with pytest.raises(InvalidInputError, match="no scale beside it"):
        identify.audit(
            network, x, source="gradient", gradient=gradient, scale="unit", assumptions=given
        )
    with pytest.raises(InvalidInputError, match="no non_negative beside it"):
        find_alternative(
            network, "gradient", gradient=gradient, non_negative=True, assumptions=given
        )


@pytest.mark.parametrize("bias", [False, True])
def test_the_scale_in_force(bias):
    network, _, gradient = batch(2, bias)
    data = HermiteData.from_gradient(network, gradient)
    found = {}
    for scale in (*SCALES, "free"):
        try:
            found[scale] = Assumptions(scale=scale).resolved(data).scale
        except InvalidInputError:
            found[scale] = None
    if bias:
        assert found == {"auto": "bias", "unit": None, "margin": None, "bias": "bias", "free": None}
    else:
        assert found == {
            "auto": "free", "unit": "unit", "margin": "margin", "bias": None, "free": "free",
        }  # fmt: skip
