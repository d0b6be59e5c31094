"""A lone sample against a second one; movements against their path; sets of an open rank."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from identify import HermiteData, IdentifiabilityReport, TwoLayerNetwork, Verdict
from identify import assess_identifiability as assess
from identify.checker.check import check_report
from identify.hermite.reduction import reduce_data
from identify.planting.plant import plant_network
from identify.recovery.data_error import movement_error
from identify.recovery.second_sample import _directions, lone_share, pair_distance
from tests.identify.checker.problems import sign
from tests.identify.new_judge import faults, least_residual
from tests.identify.new_trained import draw
from tests.identify.verdict.test_hidden_share import coarse


def pair(seed: int, m: int, d: int, degree: int, rounding: str, angle: float = 0.3) -> HermiteData:
    """The gradient of two samples of equal weight at a moderate angle, and few neurons."""
    rng = np.random.default_rng([3, seed])
    hidden, output, x = rng.normal(size=(m, d)), rng.normal(size=m), rng.normal(size=(2, d))
    x[1] = x[0] + angle * x[1]
    network = coarse(TwoLayerNetwork(hidden, output, degree=degree), rounding)
    gradient = network.gradient(x, np.array([1.0, 1.0]))
    data = HermiteData.from_gradient(network, coarse(gradient, rounding))
    object.__setattr__(data, "_truth", x)
    return data


def nearest(data: HermiteData, report: IdentifiabilityReport) -> float:
    """Distance of the recovered direction to the nearer of the two, over the bound."""
    assert report.recovery is not None
    found, truth = report.recovery.samples[0], data._truth  # type: ignore[attr-defined]
    units = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    away = min(min(np.linalg.norm(found - s * x) for s in (1, -1)) for x in units)
    return float(away / report.recovery.error_bounds[0])


@pytest.mark.parametrize(
    ("m", "d", "degree", "rounding", "angle"),
    [
        (3, 4, 3, "float16", 0.3),
        (2, 4, 3, "float16", 0.1),
        (4, 6, 4, "float16", 0.3),
        (3, 4, 3, "float32", 0.01),
        (3, 5, 5, "bfloat16", 0.5),
    ],
)
def test_two_samples_are_not_one(m: int, d: int, degree: int, rounding: str, angle: float) -> None:
    for seed in range(40):
        data = pair(seed, m, d, degree, rounding, angle)
        report = assess(data, evidence="numerical")
        if report.verdict is Verdict.GLOBALLY and report.scope.samples == 1:
            assert nearest(data, report) <= 1.0, seed


def test_tiny_samples_next_to_a_large_bias() -> None:
    """Three samples of size 0.01 behind biases of size 1000 look like one to the digits."""
    for seed in range(30):
        rng = np.random.default_rng([4, seed])
        x = 0.01 * rng.normal(size=(3, 6))
        parts = [rng.normal(size=(12, 6)), rng.normal(size=12), 1e3 * rng.normal(size=12)]
        w, a, c = (part.astype("f4") for part in parts)
        net = TwoLayerNetwork(w, a, degree=3, hidden_bias=c)
        g = net.gradient(x, np.full(3, 1e-6))
        assert g.hidden_bias is not None
        g = TwoLayerNetwork(
            g.hidden_weight.astype("f4"), g.output_weight.astype("f4"), 3,
            hidden_bias=g.hidden_bias.astype("f4"),
        )  # fmt: skip
        report = assess(HermiteData.from_gradient(net, g), evidence="numerical")
        if report.verdict is Verdict.GLOBALLY and report.scope.samples == 1:
            assert report.recovery is not None
            away = np.linalg.norm(report.recovery.samples - x, axis=1).min()
            sizes = np.linalg.norm(report.recovery.samples, axis=1)
            assert away <= (report.recovery.error_bounds * sizes)[0], seed


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_at_the_distance_leaves_the_level(seed: int) -> None:
    """Slowly: the rows of the pair q +- theta v, and what of them no single sample explains."""
    rng = np.random.default_rng(seed)
    d, degree = 4 + seed, 3 + seed
    net = TwoLayerNetwork(rng.normal(size=(7, d)), rng.normal(size=7), degree=degree)
    x = rng.normal(size=(1, d))
    data = HermiteData.from_gradient(net, net.gradient(x, np.ones(1)))
    reduced = reduce_data(data, 1e-13)
    level = 1e-8
    theta = pair_distance(data, reduced, level)
    q, others = reduced.basis[:, 0], _directions(d)[0]
    left = []
    for other in others:
        v = other - (other @ q) * q
        v /= np.linalg.norm(v)
        rows = net.gradient(np.array([q + theta * v, q - theta * v]), np.full(2, 0.5)).points
        sigma = np.linalg.svd(rows, compute_uv=False)
        left.append(sigma[1] / sigma[0])
    assert np.quantile(left, 0.01) == pytest.approx(level, rel=1e-3)
    share = lone_share(data, reduced, 1e-4)
    slow = []
    own = data.scales * (data.points @ q) ** (degree - 1)
    for other in others:
        psi = data.scales * (data.points @ other) ** (degree - 1)
        rest = psi - (psi @ own) / (own @ own) * own
        across = np.linalg.norm(other - (other @ q) * q)
        slow.append(1e-3 * np.linalg.norm(psi) / (across * np.linalg.norm(rest)))
    assert share.anywhere[0] == pytest.approx(float(np.median(slow)), rel=1e-9)
    assert share.lone


def test_the_number_given_is_believed() -> None:
    data = pair(2, 3, 4, 3, "float16")
    free, given = assess(data, evidence="numerical"), assess(data, samples=1, evidence="numerical")
    assert given.recovery is not None
    assert free.recovery is not None
    assert given.recovery.error_bounds[0] < 0.5 * free.recovery.error_bounds[0]


def test_a_pair_in_coarse_numbers_is_weighed() -> None:
    """One bfloat16 sample: a second one could hide, and --samples 1 is the way out."""
    rng = np.random.default_rng(1)
    net = coarse(TwoLayerNetwork(rng.normal(size=(2, 4)), rng.normal(size=2), degree=3), "bfloat16")
    g = coarse(net.gradient(rng.normal(size=(1, 4)), np.ones(1)), "bfloat16")
    data = HermiteData.from_gradient(net, g)
    report = assess(data, hidden_share=0.001)
    assert report.verdict is Verdict.UNDECIDED
    assert "does not speak for a single sample" in report.reason
    assert assess(data, samples=1, hidden_share=0.001).verdict is Verdict.GLOBALLY


def checked(report: IdentifiabilityReport, nets: dict[str, TwoLayerNetwork], folder: Path) -> str:
    for role, net in nets.items():
        words = {"activation": "monomial", "degree": str(net.degree)}
        words["rounding"] = repr(net.rounding)
        arrays = {name: np.ascontiguousarray(array) for name, array in net.arrays().items()}
        save_file(arrays, folder / f"{role}.safetensors", metadata=words)
    paths = {role: folder / f"{role}.safetensors" for role in nets}
    model = paths.pop("model")
    first = check_report(json.loads(report.to_json()), model, **paths)
    halved = json.loads(report.to_json())
    for name in ("error_bounds", "absolute_bounds"):
        halved[name] = [0.4 * b for b in halved[name]]
    assert check_report(sign(halved), model, **paths).outcome == "refuted"
    assert all(first[name].holds for name in ("error bounds", "conditions", "residuals")), str(
        first
    )
    return first.outcome


@pytest.mark.parametrize("seed", range(4))
def test_checker_redoes_a_lone_sample(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng([11, seed])
    rounding = ["float32", "float16", "float32", "float16"][seed]
    net = coarse(TwoLayerNetwork(rng.normal(size=(9, 5)), rng.normal(size=9), degree=3), rounding)
    g = coarse(net.gradient(rng.normal(size=(1, 5)), np.ones(1)), rounding)
    report = assess(HermiteData.from_gradient(net, g))
    assert report.verdict is Verdict.GLOBALLY, report.reason
    assert checked(report, {"model": net, "gradient": g}, tmp_path) == "confirmed"


@pytest.mark.parametrize("seed", [15, 19, 31, 62, 105, 151])
def test_a_movement_errs_by_no_more_than_its_path(seed: int, tmp_path: Path) -> None:
    """Two and more steps, momentum: the error lies in the range of J, where nothing shows it."""
    problem = draw(seed, "fine_tuned")
    data = problem.data
    report = assess(data, **{**problem.options, "evidence": "numerical"})
    assert report.verdict is Verdict.GLOBALLY, report.reason
    assert report.data_error is not None
    assert least_residual(problem) <= report.data_error
    assert faults(problem, report, 0.0) == []
    assert data.initial is not None
    assert data.target is not None
    files = {"model": data.target, "initial": data.initial}
    # Where the ball of the data is too large there is no box to confirm.
    assert checked(assess(data, **problem.options), files, tmp_path) != "refuted"


def test_one_step_at_its_point_has_no_path() -> None:
    rng = np.random.default_rng(8)
    net = TwoLayerNetwork(rng.normal(size=(12, 5)), rng.normal(size=12), degree=3)
    x, b = rng.normal(size=(3, 5)), rng.normal(size=3)
    g = net.gradient(x, b)
    after = TwoLayerNetwork(
        net.hidden_weight - 1e-3 * g.hidden_weight, net.output_weight - 1e-3 * g.output_weight, 3
    )
    for point, small in (("initial", True), ("midpoint", False)):
        data = HermiteData.from_fine_tuning(net, after, point=point)
        reduced = reduce_data(data, 1e-4)
        terms = (x * np.cbrt(b / reduced.tensor_scale)[:, None]) @ reduced.basis
        found = movement_error(data, reduced, terms, np.ones(3))
        assert (found < 1e-9) is small, (point, found)


@pytest.mark.parametrize("seed", range(8))
def test_no_bound_where_the_rank_is_open(seed: int) -> None:
    """A network in float16: what the truncated solve leaves out is neither noise nor a bound."""
    rng = np.random.default_rng([7, seed])
    net = coarse(
        plant_network(rng.normal(size=(4, 5)), degree=3, determined=True, seed=seed).network,
        "float16",
    )
    report = assess(HermiteData.from_weight_decay(net), evidence="numerical")
    assert "noise level" not in report.reason or "rank" in report.reason
    if "rank of the Hermite matrix is not clear" in report.reason:
        assert report.recovery is None or np.all(np.isnan(report.recovery.error_bounds))


@pytest.mark.parametrize("seed", [0, 5, 11, 22])
def test_a_search_that_failed_does_not_count_the_samples(seed: int) -> None:
    rng = np.random.default_rng([8, seed])
    hidden, output, x = rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=4)
    samples = np.array([x, x + 1e-3 * rng.normal(size=4)])
    net = TwoLayerNetwork(hidden, output, degree=5)
    data = HermiteData.from_gradient(net, net.gradient(samples, np.array([1.0, -1.0])))
    report = assess(data, evidence="numerical")
    assert "exceeds" not in report.reason
