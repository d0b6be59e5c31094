"""Redundant equations count by what a further sample could hide from them."""

import numpy as np
import pytest

from identify import (
    HermiteData,
    InvalidInputError,
    TwoLayerNetwork,
    Verdict,
    assess_identifiability,
)
from identify.decomposition.equations import HermiteEquations
from identify.recovery import hidden_share as module
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.recovery.stages import Recovered
from tests.identify.families import gradient_case, unit_rows


def coarse(network: TwoLayerNetwork, rounding: str) -> TwoLayerNetwork:
    """The network as it is read back from a file of that type."""
    if rounding == "bfloat16":
        bits = [
            (np.asarray(part, dtype=np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000)
            .astype(np.uint32)
            .view(np.float32)
            .astype(np.float64)
            for part in (network.hidden_weight, network.output_weight)
        ]
        return TwoLayerNetwork(*bits, degree=network.degree, rounding=2.0**-8)
    hidden, output = network.hidden_weight.astype(rounding), network.output_weight.astype(rounding)
    return TwoLayerNetwork(hidden, output, degree=network.degree)


def one_too_many(seed: int, r: int, m: int, degree: int, rounding: str) -> HermiteData:
    """r + 1 samples of equal weight in general position in r dimensions, in a coarse format."""
    rng = np.random.default_rng([9, seed])
    d = 2 * r
    hidden, output = rng.normal(size=(m, d)), rng.normal(size=m)
    frame = np.linalg.qr(rng.normal(size=(d, r)))[0]
    samples = unit_rows(rng.normal(size=(r + 1, r)) @ frame.T)
    b = rng.choice([-1, 1], r + 1) * rng.uniform(0.5, 1.5, r + 1)
    network = TwoLayerNetwork(hidden, output, degree=degree)
    b = b * 20 / np.abs(network.gradient(samples, b).points).max()
    gradient = network.gradient(samples, b)
    return HermiteData.from_gradient(coarse(network, rounding), coarse(gradient, rounding))


@pytest.mark.parametrize(
    ("r", "m", "degree", "rounding"),
    [(3, 12, 3, "float16"), (3, 9, 3, "bfloat16"), (2, 10, 4, "float16"), (3, 20, 3, "float16")],
)
def test_a_sample_of_a_quarter_of_the_data_is_not_missed(
    r: int, m: int, degree: int, rounding: str
) -> None:
    """Coarse numbers and few redundant equations confirm almost any set."""
    for seed in (6, 16, 17, 27, 46):
        report = assess_identifiability(
            one_too_many(seed, r, m, degree, rounding), evidence="numerical"
        )
        assert report.verdict is not Verdict.GLOBALLY, (seed, report.conditions)


def findings_of(r: int, m: int, degree: int, seed: int) -> Recovered:
    rng = np.random.default_rng([seed, r])
    case = gradient_case(
        "plain", rng.normal(size=(m, r + 3)), rng.normal(size=m), rng.normal(size=(r, r + 3)),
        rng.choice([-1.0, 1.0], r), degree,
    )  # fmt: skip
    found = measure(case.data, Assumptions(scale="free"))
    assert isinstance(found, Recovered)
    return found


@pytest.mark.parametrize(("r", "m", "degree"), [(3, 8, 3), (5, 12, 3), (3, 9, 4), (8, 25, 3)])
def test_the_share_by_a_plain_reference(r: int, m: int, degree: int) -> None:
    """One probe at a time by least squares; and what is below the share does stay unseen."""
    found = findings_of(r, m, degree, 1)
    reduced, known = found.reduced, found.decomposition
    rng = np.random.default_rng(2)
    probes = unit_rows(rng.normal(size=(7, r)))
    seen = module._seen_dense(reduced, known.terms, known.signs, probes, 1e-3, None)
    jacobian = HermiteEquations(reduced, known.signs).jacobian(known.terms)
    for probe, value in zip(probes, seen, strict=True):
        inner = reduced.points @ probe
        row = ((reduced.weights * inner ** (degree - 1))[:, None] * probe).ravel()
        rest = row - jacobian @ np.linalg.lstsq(jacobian, row, rcond=None)[0]
        assert value == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(row), rel=1e-6)


def test_the_blind_set() -> None:
    """Parallel samples are never seen; mixtures of two only at degree 3."""
    for degree, m in ((3, 20), (4, 30)):
        found = findings_of(4, m, degree, 3)
        reduced, known = found.reduced, found.decomposition
        pair = known.terms[0] + 0.7 * known.terms[1]
        probes = unit_rows(np.stack([known.terms[2], pair, pair + 0.5 * known.terms[3]]))
        seen = module._seen_dense(reduced, known.terms, known.signs, probes, 1e-3, None)
        assert seen[0] == 0.0
        assert bool(seen[1] == 0.0) is (degree == 3)
        assert seen[2] > 1e-4


@pytest.mark.parametrize("r", [6, 9])
def test_the_estimate_at_large_size_is_above(r: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings_of(r, 6 * r, 3, 4)
    assert found.hidden is not None
    assert found.hidden.exact
    monkeypatch.setattr(module, "DENSE_UNKNOWNS", 0)
    again = findings_of(r, 6 * r, 3, 4).hidden
    assert again is not None
    assert not again.exact
    for above, exact in ((again.mixtures, found.hidden.mixtures),
                         (again.anywhere, found.hidden.anywhere)):  # fmt: skip
        assert above[0] > 0.9 * exact[0]
        assert above[0] < 1e4 * exact[0]


def test_the_limit_is_an_option_and_exempt_with_the_number() -> None:
    """Three samples in float16: too weak by default, and what may be hidden can be stated."""
    rng = np.random.default_rng(5)
    network = TwoLayerNetwork(rng.normal(size=(30, 6)), rng.normal(size=30), degree=3)
    samples = unit_rows(rng.normal(size=(3, 6)))
    gradient = network.gradient(samples, [1.0, -1.0, 1.0])
    data = HermiteData.from_gradient(coarse(network, "float16"), coarse(gradient, "float16"))
    report = assess_identifiability(data, hidden_share=0.01)
    assert report.verdict is Verdict.UNDECIDED
    assert "too weak" in report.reason
    assert report.candidates
    assert report.recovery is not None
    row = next(row for row in report.conditions if row.name == "hidden share")
    assert row.holds is False
    assert row.required == 0.01
    assert "never seen: parallel samples and mixtures of two" in row.source
    assert any("--hidden-share" in line for line in report.assumptions)
    wide = assess_identifiability(data, hidden_share=1.0)
    assert wide.verdict is Verdict.GLOBALLY, wide.reason
    given = assess_identifiability(data, samples=3, hidden_share=0.01)
    assert given.verdict is Verdict.GLOBALLY, given.reason
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(InvalidInputError, match="hidden_share"):
            assess_identifiability(data, hidden_share=wrong)


def test_a_lone_sample_is_weighed_unless_it_is_stated() -> None:
    rng = np.random.default_rng(6)
    network = TwoLayerNetwork(rng.normal(size=(9, 5)), rng.normal(size=9), degree=3)
    gradient = network.gradient(rng.normal(size=(1, 5)), [1.0])
    data = HermiteData.from_gradient(coarse(network, "float16"), coarse(gradient, "float16"))
    report = assess_identifiability(data)
    assert report.verdict is Verdict.GLOBALLY, report.reason
    row = next(row for row in report.conditions if row.name == "hidden share")
    assert row.holds is True
    assert "mixtures with other directions" in row.source
    low = 0.5 * float(row.found or 0.0)
    strict = assess_identifiability(data, hidden_share=low)
    assert strict.verdict is Verdict.UNDECIDED
    assert "single sample" in strict.reason
    assert strict.candidates
    stated = assess_identifiability(data, hidden_share=low, samples=1)
    assert stated.verdict is Verdict.GLOBALLY, stated.reason
