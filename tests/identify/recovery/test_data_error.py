"""The model of rounding against a slow one, and bounds and boxes against the truth in formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from identify import HermiteData, TwoLayerNetwork, Verdict, assess_identifiability
from identify.checker.check import check_report
from identify.errors import InvalidInputError
from identify.hermite.reduction import reduce_data
from identify.recovery.data_error import SPREAD, Roundings, model_error, roundings
from tests.benchmarks.bounds import KINDS, ask, box_excess, draw, error_ratios, study
from tests.identify.checker.problems import sign


def slow_model(
    data: HermiteData, terms: np.ndarray, signs: np.ndarray, basis: np.ndarray, unit: Roundings
) -> np.ndarray:
    """Squared error of every unweighted row, entry by entry."""
    power, degree = data.degree - 1, data.degree
    result = []
    for point in data.points:
        p = point / np.linalg.norm(basis.T @ point)
        total, row = 0.0, np.zeros(basis.shape[1])
        bend = np.zeros((basis.shape[1],) * 2)
        for term, sign_i in zip(terms, signs, strict=True):
            x = basis @ term
            s = float(p @ x)
            dot = np.sqrt(len(p)) * unit.sums * (np.linalg.norm(p * x) + abs(s))
            total += (power * s ** (power - 1) * np.linalg.norm(x) * dot) ** 2
            factor = (degree + 1) * unit.products + np.sqrt(len(terms)) * unit.sums
            total += (factor * s**power * np.linalg.norm(x)) ** 2
            bend += sign_i * power * s ** (power - 1) * np.outer(term, term)
            row += sign_i * s**power * term
        moved = sum((p[k] * basis[k]) @ (p[k] * basis[k]) for k in range(len(p)))
        total += (SPREAD * unit.weights) ** 2 * moved * float(np.sum(bend**2))
        result.append(total + (unit.rows**2 + unit.weights**2) * float(row @ row))
    return np.array(result)


@pytest.mark.parametrize("seed", range(5))
def test_model_against_the_slow_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    degree, r, m = 3 + seed % 3, 1 + seed % 4, 25
    d = r + seed
    net = TwoLayerNetwork(rng.normal(size=(m, d)), rng.normal(size=m), degree=degree)
    x, signs = rng.normal(size=(r, d)), np.where(rng.random(r) < 0.5, -1.0, 1.0)
    data = HermiteData.from_gradient(net, net.gradient(x, signs))
    reduced = reduce_data(data, 1e-13)
    terms = x @ reduced.basis / reduced.tensor_scale ** (1.0 / degree)
    unit = Roundings(1e-4, 3e-4, 2e-4, 1e-5)
    inside, off, rows = model_error(data, reduced, terms, signs, unit)
    squares = slow_model(data, terms, signs, reduced.basis, unit)[reduced.representatives]
    slow = np.sqrt(float(np.sum(reduced.weights**2 * squares))) / reduced.size
    assert inside == pytest.approx(slow, rel=1e-10)
    assert 0.0 < off < inside
    parts = reduced.weights**2 * squares
    assert rows == pytest.approx(float(parts.sum()) ** 2 / float((parts**2).sum()), rel=1e-9)
    assert model_error(data, reduced, terms, signs, Roundings(0.0, 0.0, 0.0, 0.0))[:2] == (0.0, 0.0)


def test_words_of_the_arithmetic() -> None:
    net = TwoLayerNetwork(np.eye(3, dtype="f4"), np.ones(3, dtype="f4"), degree=3)
    data = HermiteData.from_kkt(net)
    assert roundings(data, "auto") == Roundings(2.0**-24, 2.0**-24, 2.0**-24, 2.0**-24)
    assert roundings(data, "bfloat16").sums == 2.0**-24
    exact = assess_identifiability(data, arithmetic="exact")
    assert any("weights taken as exact" in line for line in exact.assumptions)
    with pytest.raises(InvalidInputError, match="arithmetic"):
        assess_identifiability(data, arithmetic="float8")


def computed_in_float32(
    seed: int, degree: int, r: int
) -> tuple[HermiteData, np.ndarray, np.ndarray]:
    """A gradient computed and stored in float32 at the float32 weights of the file."""
    rng = np.random.default_rng([4321, seed, degree])
    d, k = r + 1, degree + 1 if r == 2 else 3
    w, a, x, b = (rng.normal(size=q).astype("f4") for q in ((k, d), k, (r, d), r))
    z = x @ w.T
    p = z.copy()
    for _ in range(degree - 2):
        p = p * z
    rows = (np.float32(degree) * p * (b[:, None] * a)).T @ x
    net = TwoLayerNetwork(w, a, degree=degree)
    data = HermiteData.from_gradient(net, TwoLayerNetwork(rows, (p * z).T @ b, degree=degree))
    return data, x.astype(float), b.astype(float)


@pytest.mark.parametrize("degree", [3, 4, 5, 6])
def test_boxes_hold_the_truth_of_float32_arithmetic(degree: int) -> None:
    """With one or two samples and hardly a spare row; the arithmetic errs by several roundings."""
    from tests.benchmarks.bounds import Drawn

    proved = 0
    for seed in range(20):
        data, x, b = computed_in_float32(seed, degree, 1 + seed % 2)
        report = assess_identifiability(data, samples=len(x))
        excess = box_excess(Drawn("box", "", data, x, b, {}), report)
        if excess is not None and report.verdict is Verdict.GLOBALLY:
            proved += 1
            assert excess <= 1.0
    assert proved >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_no_bound_and_no_box_below_the_truth(kind: str) -> None:
    """The study of `tests.benchmarks.bounds`, small: every format, degree and scale."""
    tallies = study(range(3000, 3012), kind, show=False)
    assert sum(t.cases for t in tallies.values()) >= 8
    assert sum(t.wrong_bounds + t.wrong_boxes for t in tallies.values()) == 0
    assert sum(t.positive for t in tallies.values()) >= 3


@pytest.mark.parametrize("seed", [1, 3, 6, 11, 20])
def test_checker_redoes_what_bounds_allow_for(seed: int, tmp_path: Path) -> None:
    """Confirmed as it is; refuted with bounds, radius or level of another arithmetic."""
    case = next(
        found
        for number in range(seed, seed + 400, 8)
        if (found := draw(number)) is not None
        and (made := ask(found)).verdict is Verdict.GLOBALLY
        and made.certificate is not None
        and made.certificate["enclosure"] is not None
    )
    report = ask(case)
    files = {"model": case.data.network, "gradient": case.data.target}
    if case.data.source != "gradient":
        del files["gradient"]
    for role, net in files.items():
        assert net is not None
        words = {
            "activation": "monomial",
            "degree": str(net.degree),
            "rounding": repr(net.rounding),
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in net.arrays().items()}
        save_file(arrays, tmp_path / f"{role}.safetensors", metadata=words)
    second = {"gradient": tmp_path / "gradient.safetensors"} if len(files) > 1 else {}

    def outcome(changed: dict) -> str:
        return check_report(sign(changed), tmp_path / "model.safetensors", **second).outcome

    content = json.loads(report.to_json())
    assert outcome(content) == "confirmed"
    for name in ("error_bounds", "absolute_bounds"):
        changed = json.loads(report.to_json())
        changed[name] = [0.5 * b for b in changed[name]]
        assert outcome(changed) == "refuted"
    changed = json.loads(report.to_json())
    changed["data_error"] *= 0.5
    assert outcome(changed) == "refuted"
    changed = json.loads(report.to_json())
    changed["certificate"]["assumed"]["arithmetic"] = "bfloat16"
    assert outcome(changed) == "refuted"
    errors, bounds = error_ratios(case, report)
    assert np.all(errors <= bounds)
