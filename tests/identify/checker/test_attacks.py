"""The checker against reports and files that somebody made to deceive it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from identify import HermiteData, TwoLayerNetwork, assess_identifiability, save_network
from identify.checker import ties as check_tie
from identify.checker.check import check_report
from identify.checker.outcome import CheckInputError, Claim, decide
from identify.checker.pencil import _one_pencil, _terms
from identify.checker.reading.report import ShownSet
from identify.checker.sets import matched
from identify.checker.source import Data
from tests.identify.checker.changes import case_of, put
from tests.identify.checker.problems import Problem, claim, outcome, powers, sign


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A problem of three samples at degree 3, its report and its files."""
    problem = Problem(3, 3)
    return problem, problem.certify(), problem.save(tmp_path_factory.mktemp("planted"))


def add_neuron(problem, point, scale, row):
    """One more neuron, outside the equations, as the last."""
    problem.u, problem.rows = np.vstack([problem.u, point]), np.vstack([problem.rows, row])
    problem.scales = np.append(problem.scales, scale)
    inner = problem.u @ problem.samples.T
    values = inner**problem.degree @ problem.coefficients
    problem.model = {"hidden.weight": problem.u, "output.weight": problem.scales / problem.degree}
    problem.gradient = {"hidden.weight": problem.rows, "output.weight": values}
    problem.left += 1


def across(vector, other):
    """The part of a vector that is orthogonal to another."""
    return vector - other * (other @ vector) / (other @ other)


# Rows outside the equations.


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_neurons_orthogonal_to_the_samples_need_rows_of_zero(scale, tmp_path):
    problem = Problem(3, 3)
    away = np.linalg.svd(problem.samples)[2][-1]
    add_neuron(problem, away, scale, np.zeros(5))
    files, report = problem.save(tmp_path), problem.certify()
    result = check_report(report, files[0], gradient=files[1])
    assert result.outcome == "confirmed", str(result)
    assert result["leftover"].detail.startswith("1 neuron outside")
    shorter = copy.deepcopy(report)
    shorter["conditions"] = [row for row in report["conditions"] if row["name"] != "leftover"]
    assert claim(shorter, files, "conditions").outcome == "refuted"

    problem = Problem(3, 3)
    add_neuron(problem, away, scale, problem.samples[0])
    files, report = problem.save(tmp_path), problem.certify()
    for row in report["conditions"]:
        row["holds"] = True
    found = claim(report, files, "leftover")
    assert found.outcome == "refuted"
    assert "of the rows of 1 neuron outside the equations" in found.detail
    row = next(row for row in report["conditions"] if row["name"] == "leftover")
    row["found"] = 0.0
    assert claim(report, files, "conditions").outcome == "refuted"


def test_a_small_neuron_with_a_large_row_is_live(tmp_path):
    problem = Problem(3, 3)
    point = np.random.default_rng(5).normal(size=5)
    seen = point @ np.linalg.pinv(problem.samples) @ problem.samples
    add_neuron(problem, point, 1e-17, across(problem.samples[0], seen))
    found = claim(problem.certify(), problem.save(tmp_path), "points")
    assert found.outcome == "refuted"
    assert "neither listed nor parallel" in found.detail


def test_small_rows_outside_the_equations_may_show_the_noise(tmp_path):
    problem = Problem(3, 3)
    point = np.random.default_rng(5).normal(size=5)
    size = 2e-12 * np.abs(problem.rows).max()
    add_neuron(problem, point, 1e-17, size * across(np.ones(5), point))
    report, files = problem.certify(), problem.save(tmp_path)
    assert report["noise_level"] > 3e-13
    assert outcome(report, files) == "confirmed", check_report(report, files[0], gradient=files[1])


# The noise level, ties, balance.


def test_contradictions_of_parallel_neurons_are_noise(tmp_path):
    problem = Problem(3, 3)
    point, row = problem.u[0].copy(), problem.rows[0].copy()
    step = 1e-6 * across(problem.samples[1], point @ np.eye(5)) * np.linalg.norm(row)
    add_neuron(problem, point, problem.scales[0], row - step)
    problem.rows[0] += step
    problem.gradient["hidden.weight"] = problem.rows
    problem.left = 1
    report = problem.certify()
    rho = report["noise_level"] = 1e-13
    for entry in report["conditions"]:
        entry["required"] = 10.0 * rho if entry["name"] == "decomposition" else entry["required"]
    found = claim(report, problem.save(tmp_path), "noise level")
    assert found.outcome == "refuted"
    assert found.detail.startswith("it is at least")


def test_no_verdict_above_the_largest_noise(tmp_path):
    report, files = crowded(Problem(3, 3, extra=True), tmp_path)
    report["noise_level"] = report["certificate"]["assumed"]["noise"] = 0.05
    report["assumptions"].append("Gaussian noise of relative size 0.05 in the data (--noise)")
    found = claim(report, files, "noise level")
    assert (found.outcome, found.detail) == ("refuted", "5.00e-02 is above 0.03")


def logistic(folder, n, samples=None):
    """A report on a logistic gradient of n samples of norm 1, and its files."""
    rng = np.random.default_rng([n, 5])
    x = rng.normal(size=(n, 5))
    x /= np.linalg.norm(x, axis=1)[:, None]
    network = TwoLayerNetwork(rng.normal(size=(14, 5)), rng.normal(size=14) / 10, degree=3)
    y = np.resize([1.0, -1.0], n)
    gradient = network.gradient(x, -y / (1.0 + np.exp(y * network.value(x))))
    files = folder / "model.npz", folder / "gradient.npz"
    save_network(network, files[0])
    save_network(gradient, files[1])
    data = HermiteData.from_gradient(network, gradient, loss="logistic")
    report = assess_identifiability(data, samples, scale="unit", evidence="exact").to_dict()
    return report, files


def test_a_wide_tie_is_no_redundant_equation(tmp_path, monkeypatch):
    report, files = logistic(tmp_path, 3)
    assert report["redundant_equations"] == 3
    assert outcome(copy.deepcopy(report), files) == "confirmed"
    place = next(i for i, row in enumerate(report["conditions"]) if row["name"] == "tie")
    wider = put(report, ("conditions", place, "required"), 0.2)
    assert claim(copy.deepcopy(wider), files, "tie").outcome == "refuted"
    assert claim(wider, files, "redundancy").outcome == "refuted"
    assert claim(report, files, "redundancy").holds
    monkeypatch.setattr(check_tie, "TIE_LIMIT", 1e-20)
    found = claim(report, files, "redundancy")
    assert (found.outcome, found.detail) == ("refuted", "there are 1, not 3")


def test_what_only_a_tie_supports_is_numerical(tmp_path):
    report, files = logistic(tmp_path, 2, 2)
    assert report["redundant_equations"] == 1
    assert (report["verdict"], report["evidence"]) == ("globally", "proved_interval")
    assert outcome(copy.deepcopy(report), files) == "confirmed"
    report["certificate"]["assumed"]["samples"] = None
    report["assumptions"] = [line for line in report["assumptions"] if "--samples" not in line]
    of_number = ("number possible", "number covered")
    report["conditions"] = [row for row in report["conditions"] if row["name"] not in of_number]
    assert claim(copy.deepcopy(report), files, "evidence").outcome == "refuted"
    report["evidence"] = "numerical"
    place = next(i for i, row in enumerate(report["conditions"]) if row["name"] == "redundancy")
    assert claim(copy.deepcopy(report), files, "conditions").outcome == "refuted"
    report["conditions"][place]["evidence"] = "numerical"
    assert outcome(sign(report), files) == "confirmed"


@pytest.mark.parametrize("b", [[1.0, -1.0], [1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0, -1.0]])
def test_a_tie_between_samples_that_the_neurons_exchange_is_empty(tmp_path, b):
    tied = Problem.stationary(b, "unit")
    tied.given = 0
    files, report = tied.save(tmp_path), tied.certify()
    alone = len(b) == 2
    assert outcome(copy.deepcopy(report), files) == ("refuted" if alone else "confirmed")
    more = put(report, ("redundant_equations",), report["redundant_equations"] + len(b) - 1)
    place = next(i for i, row in enumerate(more["conditions"]) if row["name"] == "redundancy")
    more = put(more, ("conditions", place, "found"), more["redundant_equations"])
    found = claim(more, files, "redundancy")
    assert found.outcome == "refuted"
    assert found.detail.endswith(f"not {more['redundant_equations']}")


@pytest.mark.parametrize("part", ["found", "required", "holds"])
@pytest.mark.parametrize("rho", [1e-7, 1e-6, 1e-5])
def test_what_a_further_sample_could_hide_is_recomputed(planted, part, rho):
    """A hidden share stated too small, a limit that nobody assumed, a row that is turned round."""
    _, report, files = planted
    report = copy.deepcopy(report)
    place = next(i for i, row in enumerate(report["conditions"]) if row["name"] == "hidden share")
    row = report["conditions"][place]
    # The share grows with the noise level, which the report may overstate only if it is assumed.
    grown = min(1.0, row["found"] * rho / report["noise_level"])
    report["noise_level"] = report["certificate"]["assumed"]["noise"] = rho
    report["assumptions"].append(f"Gaussian noise of relative size {rho:g} in the data (--noise)")
    row |= {"found": grown, "holds": grown <= 0.1}
    honest = claim(copy.deepcopy(report), files, "conditions")
    assert "hidden share: it is" not in honest.detail
    row |= {
        "found": {"found": 0.2 * grown, "holds": 0.2 * grown <= 0.1},
        "required": {"required": 1.0, "holds": True},
        "holds": {"holds": grown > 0.1},
    }[part]
    name = "assumptions" if part == "required" else "conditions"
    assert claim(report, files, name).outcome == "refuted"


def test_a_report_that_does_not_weigh_is_not_checkable(planted):
    """Reports of earlier versions stay valid, and claim less."""
    _, report, files = planted
    rows = [row for row in report["conditions"] if row["name"] != "hidden share"]
    older = {**copy.deepcopy(report), "conditions": rows}
    found = claim(older, files, "conditions")
    assert found.outcome == "not checkable"
    assert "does not weigh" in found.detail


@pytest.mark.parametrize("source", ["kkt", "gradient"])
@pytest.mark.parametrize("factor", [1.0, 2.0**500, 2.0**-500, 2.0**900])
def test_consistency_has_no_scale(source, factor):
    rng = np.random.default_rng(0)
    points, rows, scales = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)), rng.normal(size=6)
    values = np.sum(points * rows, axis=1) / scales + 1e-3
    parts = {"source": source, "degree": 3, "rounding": 2.0**-53, "biased": False, "offset": 0.0}

    def data(u, g, s, v):
        return Data(points=u, rows=g, scales=s, values=v, output_rows=v, **parts)

    plain = data(points, rows, scales, values).consistency
    assert 1e-5 < plain < 1.0
    moved = data(points, rows * factor, scales, values * factor)
    if source == "kkt":
        moved = data(points * factor, rows, scales * factor, values)
    assert moved.consistency == pytest.approx(plain, rel=1e-12)
    if source == "gradient":
        # One neuron's product leaves float64 though no factor does.
        scales, values = scales.copy(), values.copy()
        scales[0], values[0] = 1e-200, 1e200
        wide = data(points, rows, scales, values).consistency
        assert 0.0 < wide <= 1.0


def test_values_below_float64_are_consistent_with_zero():
    points, rows = np.full((2, 2), 1e-200), np.full((2, 2), 1e-200)
    parts = {"source": "gradient", "degree": 3, "rounding": 2.0**-53, "biased": False}
    zero = np.zeros(2)
    data = Data(points=points, rows=rows, scales=np.ones(2), values=zero, output_rows=zero,
                offset=0.0, **parts)  # fmt: skip
    assert data.consistency == 0.0


def test_huge_gradients(tmp_path):
    for factor in (2.0**900, 2.0**-900):
        problem = Problem(3, 3)
        problem.rows = problem.rows * factor
        problem.coefficients = problem.coefficients * factor
        problem.gradient = {name: a * factor for name, a in problem.gradient.items()}
        assert outcome(problem.certify(), problem.save(tmp_path)) == "confirmed"


# Two shown sets.


def in_a_plane(first, second, b, angles):
    """b_1 x_1^3 + b_2 x_2^3 as four cubes in the plane of the x_i, at the given angles."""
    frame = np.linalg.qr(np.array([first, second]).T)[0]
    x = np.array([first, second]) @ frame
    y = np.column_stack([np.cos(angles), np.sin(angles)])
    return y @ frame.T, np.linalg.solve(powers(y, 3).T, powers(x, 3).T @ b)


def crowded(problem, folder, turn=None):
    """A report of two sets with two samples more each, the basis turned."""
    report = problem.certify()
    x, b = problem.everything
    part = report["certificate"]
    sets = []
    for angles in ((0.1, 0.9, 1.7, 2.5), (0.5, 1.3, 2.1, 2.9)):
        y, c = in_a_plane(x[0], x[1], b[:2], np.array(angles))
        samples, factors = np.vstack([y, x[2:]]), np.append(c, b[2:])
        sets.append({
            "samples": samples.tolist(), "coefficients": factors.tolist(), "residual": 1e-15,
        })  # fmt: skip
    if turn is not None:
        basis = np.array(part["basis"]) @ turn
        points = problem.u[part["neurons"]] @ basis
        points /= np.linalg.norm(points, axis=1)[:, None]
        part["basis"] = basis.tolist()
        part["points"] = np.round(points * 2.0**44).astype(np.int64).tolist()
    part |= {"sets": sets, "rank": None, "singular_value": None, "enclosure": None, "terms": None}
    count = len(sets[0]["samples"])
    report |= {
        "verdict": "nonidentifiable", "scope": {"kind": "shown", "samples": [count, count]},
        "sample_count": None, "evidence": "numerical", "error_bounds": None,
    }  # fmt: skip
    report["residuals"]["samples"]["value"] = 1e-3
    dropped = ("stable rank", "enclosure", "error bounds", "redundancy", "hidden share")
    report["conditions"] = [
        row | {"evidence": "numerical"}
        | ({"holds": False, "found": 1e-3} if row["name"] == "decomposition" else {})
        for row in report["conditions"] if row["name"] not in dropped
    ]  # fmt: skip
    return sign(report), problem.save(folder)


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_split_samples_are_refuted_in_every_basis(seed, tmp_path):
    problem = Problem(3, 4)
    turn = None
    if seed is not None:
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    report, files = crowded(problem, tmp_path, turn)
    result = check_report(report, files[0], gradient=files[1])
    assert result["sets"].outcome == "refuted", str(result)
    assert "a set of 4 samples explains the data too" in result["sets"].detail
    others = [c for c in result.claims if c.outcome == "refuted"]
    assert {c.name for c in others} == {"sets", "verdict"}


def test_more_samples_than_dimensions_are_confirmed(tmp_path):
    report, files = crowded(Problem(3, 4, extra=True), tmp_path)
    result = check_report(report, files[0], gradient=files[1])
    assert result.outcome == "confirmed", str(result)


def test_a_pencil_with_a_double_eigenvalue_decides_nothing(tmp_path):
    problem = Problem(3, 4)
    report, files = crowded(problem, tmp_path)
    case = case_of(report, files)
    part = report["certificate"]["sets"][0]
    shown = ShownSet(np.array(part["samples"]), np.array(part["coefficients"]), 0.0)
    units, weights = _terms(case, shown)
    rng = np.random.default_rng(0)
    inside = problem.samples @ case.basis
    second = rng.normal(size=4)
    # v - c v' is orthogonal to two samples: the same eigenvalue c belongs to both.
    blind = np.linalg.svd(inside[:2])[2][-1]
    for directions, expected in (
        (np.array([blind + 0.7 * second, second]), (None, True)),
        (rng.normal(size=(2, 4)), (True,)),
    ):
        found = _one_pencil(case, units, weights, directions, 1e-11, 1.0)
        assert found in expected


@pytest.mark.medium
def test_long_augmenting_paths(planted):
    case = case_of(planted[1], planted[2])
    count = 5000
    chain = [[i, i + 1] for i in range(count - 1)] + [[0]]
    assert matched(case, chain)
    assert not matched(case, [*chain[:-1], [1], [1]])
    rng = np.random.default_rng(0)
    for _ in range(50):
        near = rng.random((7, 7)) < rng.uniform(0.1, 0.5)
        full = np.all(maximum_bipartite_matching(csr_array(near.astype(int))) >= 0)
        assert matched(case, [np.flatnonzero(row).tolist() for row in near]) == full


def test_deep_recursion_is_no_crash():
    def deep():
        return deep()

    assert decide("x", "y", deep).outcome == "not checkable"


# Text that is printed.


def test_hostile_text_is_printed_as_plain_ascii(planted):
    _, report, files = planted
    escape = "x\x1b[1A\x1b[2K\nverdict  confirmed  exact\x1b[8m"
    for name in ("\ud800", escape, "\u202ex\x00", "\u00e9"):
        forged = copy.deepcopy(report)
        forged["conditions"].append(
            {
                "name": name,
                "holds": True,
                "required": 1,
                "found": 1,
                "evidence": "numerical",
                "source": "",
            }
        )
        result = check_report(sign(forged), files[0], gradient=files[1])
        text = str(result)
        assert text.isascii()
        assert all(line.isprintable() for line in text.splitlines())
        assert len(text.splitlines()) == len(result.claims) + 2
        assert result.outcome != "confirmed"
    assert Claim("a\nb", "refuted", "h", "\x1b[2K").detail == "[2K"


@pytest.mark.parametrize("text", ["", "\ud800" * 64, "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_hashes_are_hexadecimal(text, planted):
    _, report, files = planted
    forged = copy.deepcopy(report)
    forged["inputs"][0]["sha256"] = text
    with pytest.raises(CheckInputError, match=r"inputs\.sha256: expected 64 hexadecimal digits"):
        check_report(sign(forged), files[0], gradient=files[1])


@pytest.mark.parametrize("samples", [1, 2, 20, 12])
def test_assumed_numbers_are_whole_numbers(samples, tmp_path):
    problem = Problem(3, 2)
    files, report = problem.save(tmp_path), problem.certify()
    text = report["assumptions"][0]
    report["assumptions"] = [text, f"exactly {samples} active samples (--samples)"]
    assert claim(report, files, "assumptions").holds == (samples == 2)
    report["assumptions"] = report["assumptions"][1:]
    assert claim(report, files, "assumptions").outcome == "refuted"
    report["assumptions"] = []
    assert claim(report, files, "assumptions").outcome == "refuted"
