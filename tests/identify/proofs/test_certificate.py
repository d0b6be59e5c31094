"""Certificates, the levels of evidence, and what becomes of a verdict without its proofs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from identify import (
    Evidence,
    HermiteData,
    InvalidInputError,
    TwoLayerNetwork,
    Verdict,
    assess_identifiability,
    recover_samples,
)
from identify.hermite.reduction import reduce_data
from identify.proofs import prove as proving
from identify.proofs.certificate import SHIFT, proof_data
from identify.proofs.enclosure import Enclosure
from identify.proofs.prove import first_order_bounds, tangent_gram
from identify.proofs.rank import RankProof
from identify.proofs.singular_value import bound_smallest_singular_value
from identify.report.report import digest
from tests.identify.reports import check_report

EXACT, INTERVAL = Evidence.PROVED_EXACT, Evidence.PROVED_INTERVAL


def gradient_data(
    r: int, neurons: int, degree: int, seed: int, *, bias: bool = False, noise: float = 0.0
) -> tuple[HermiteData, np.ndarray]:
    """One gradient at random weights, relative Gaussian noise on its first layer."""
    rng = np.random.default_rng([seed, r, degree])
    d = r + 3
    network = TwoLayerNetwork(
        rng.standard_normal((neurons, d)),
        rng.standard_normal(neurons),
        degree=degree,
        hidden_bias=rng.standard_normal(neurons) if bias else None,
    )
    samples = rng.standard_normal((r, d))
    b = rng.choice([-1.0, 1.0], r) * rng.uniform(0.5, 2.0, r)
    gradient = network.gradient(samples, b)
    if noise:
        spread = (
            noise * np.linalg.norm(gradient.hidden_weight) / np.sqrt(gradient.hidden_weight.size)
        )
        gradient = replace(
            gradient,
            hidden_weight=gradient.hidden_weight
            + spread * rng.standard_normal(gradient.hidden_weight.shape),
        )
    return HermiteData.from_gradient(network, gradient), samples


class TestProofData:
    @pytest.mark.parametrize("degree", [3, 4, 5])
    @pytest.mark.parametrize("bias", [False, True])
    def test_terms_of_the_report_satisfy_the_equations(self, degree, bias):
        data, _ = gradient_data(3, 24, degree, 0, bias=bias)
        report = assess_identifiability(data, evidence="numerical")
        part = report.to_dict()["certificate"]
        z, s = np.array(part["terms"]["values"]), np.array(part["terms"]["signs"])
        proof = proof_data(data, reduce_data(data, report.noise_level))
        p = np.array(part["points"]) / 2.0 ** part["shift"]
        left = proof.weights[:, None] * (((p @ z.T) ** (degree - 1) * s) @ z)
        size = np.linalg.norm(proof.right_sides)
        assert np.linalg.norm(left - proof.right_sides) < 1e-11 * size

    def test_terms_give_the_samples_back(self):
        data, samples = gradient_data(3, 12, 3, 1)
        part = assess_identifiability(data).to_dict()["certificate"]
        directions = np.array(part["terms"]["values"]) @ np.array(part["basis"]).T
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        cosines = np.abs(directions @ samples.T) / np.linalg.norm(samples, axis=1)
        assert np.allclose(np.sort(cosines.max(axis=1)), 1.0, atol=1e-12)
        assert sorted(cosines.argmax(axis=1)) == [0, 1, 2]

    def test_points_are_the_rounded_directions(self):
        data, _ = gradient_data(4, 20, 3, 2)
        proof = proof_data(data, reduce_data(data, 1e-13))
        inside = data.points[proof.neurons] @ proof.basis
        inside /= np.linalg.norm(inside, axis=1, keepdims=True)
        assert np.max(np.abs(proof.points / 2.0**SHIFT - inside)) <= 2.0**-SHIFT

    def test_merged_neurons_are_represented_by_the_heaviest(self):
        data, _ = gradient_data(3, 12, 3, 3)
        net = data.network
        weights = np.vstack([net.hidden_weight, -2.0 * net.hidden_weight[4:6]])
        wide = TwoLayerNetwork(weights, np.append(net.output_weight, [1.0, 1e-3]), 3)
        samples = np.random.default_rng(5).standard_normal((3, 6))
        whole = HermiteData.from_gradient(wide, wide.gradient(samples, [1.0, -1.0, 0.5]))
        reduced = reduce_data(whole, 1e-13)
        assert len(reduced.representatives) == reduced.neurons == 12
        heavy = np.abs(wide.output_weight) * np.linalg.norm(weights, axis=1) ** 2
        for first, second in ((4, 12), (5, 13)):
            chosen = {first, second} & set(reduced.representatives.tolist())
            assert chosen == {first if heavy[first] > heavy[second] else second}
        assert assess_identifiability(whole).evidence in (EXACT, INTERVAL)

    def test_scales_far_from_one_change_no_proof(self):
        data, _ = gradient_data(3, 12, 3, 4)
        net, target = data.network, data.target
        assert target is not None
        small = TwoLayerNetwork(net.hidden_weight * 1e-90, net.output_weight * 1e60, 3)
        other = TwoLayerNetwork(target.hidden_weight * 1e-120, target.output_weight * 1e-270, 3)
        report = assess_identifiability(HermiteData.from_gradient(small, other))
        assert report.verdict is Verdict.GLOBALLY
        assert report.evidence in (EXACT, INTERVAL)


class TestLevels:
    def test_a_small_problem_is_proved_without_asking(self):
        data, _ = gradient_data(4, 16, 3, 0)
        report = assess_identifiability(data)
        # The rank is exact and the samples are in a box: the weaker of the two counts.
        assert report.evidence is INTERVAL
        rows = {c.name: c for c in report.conditions}
        assert rows["I-hermite"].evidence is EXACT
        assert rows["decomposition"].evidence is INTERVAL
        assert rows["stable rank"].holds
        assert rows["enclosure"].holds
        assert rows["consistency"].evidence is Evidence.NUMERICAL
        check_report(report.to_json())

    @pytest.mark.parametrize(
        ("asked", "rank"), [("exact", EXACT), ("interval", INTERVAL), ("numerical", None)]
    )
    @pytest.mark.parametrize("degree", [3, 4])
    def test_a_level_that_is_asked_for(self, asked, rank, degree):
        data, _ = gradient_data(3, 14, degree, 1)
        report = assess_identifiability(data, evidence=asked)
        assert report.verdict is Verdict.GLOBALLY
        assert report.evidence is (INTERVAL if rank else Evidence.NUMERICAL)
        rows = {c.name: c for c in report.conditions}
        assert rows["I-hermite"].evidence is (rank or Evidence.NUMERICAL)
        part = report.to_dict()["certificate"]
        assert (part["rank"] is not None) == (asked == "exact")
        assert (part["singular_value"] is not None) == (asked == "interval")
        assert (part["enclosure"] is not None) == (asked != "numerical")
        assert bool(report.strengthen) == (asked == "numerical")

    @pytest.mark.parametrize("asked", ["auto", "exact", "interval", "numerical"])
    @pytest.mark.parametrize(("samples", "noise"), [(3, 0.0), (4, 0.0), (4, 1e-10), (4, 1e-4)])
    def test_the_evidence_is_the_weakest_of_rank_samples_and_number(self, asked, samples, noise):
        data, _ = gradient_data(samples, 24, 3, 4, noise=noise)
        report = assess_identifiability(data, evidence=asked)
        order = (EXACT, INTERVAL, Evidence.NUMERICAL)
        rows = {c.name: order.index(c.evidence) for c in report.conditions}
        counted = ("I-hermite", "decomposition", "redundancy")
        if report.verdict is Verdict.GLOBALLY:
            assert report.evidence is order[max(rows[name] for name in counted)]
        assert report.evidence is not EXACT

    def test_noise_that_leaves_no_enclosure_leaves_a_numerical_verdict(self):
        data, _ = gradient_data(5, 40, 3, 2, noise=1e-4)
        report = assess_identifiability(data)
        assert report.verdict is Verdict.GLOBALLY
        assert report.evidence is Evidence.NUMERICAL
        assert any("enclosure" in words for words in report.strengthen)

    @pytest.mark.parametrize("asked", ["exact", "interval"])
    def test_a_level_that_is_not_reached_is_undecided(self, asked):
        data, _ = gradient_data(5, 40, 3, 2, noise=1e-4)
        report = assess_identifiability(data, evidence=asked)
        assert report.verdict is Verdict.UNDECIDED
        assert report.scope is None
        assert f"--evidence {asked} is not reached" in report.reason
        assert "it would be globally" in report.reason

    def test_an_undecided_report_claims_no_evidence(self):
        data, _ = gradient_data(4, 3, 3, 3)
        report = assess_identifiability(data)
        assert report.verdict is not Verdict.GLOBALLY
        assert report.evidence is Evidence.NUMERICAL
        assert report.strengthen == ()
        check_report(report.to_json())

    def test_an_unknown_level(self):
        data, _ = gradient_data(2, 8, 3, 4)
        with pytest.raises(InvalidInputError, match="evidence: expected one of auto"):
            assess_identifiability(data, evidence="faith")

    def test_recovery_can_insist_on_proofs(self):
        data, _ = gradient_data(3, 12, 3, 5)
        assert len(recover_samples(data, evidence="exact").samples) == 3

    def test_what_takes_too_long_is_named(self, monkeypatch):
        data, _ = gradient_data(3, 12, 3, 6)
        monkeypatch.setattr(proving, "PATIENCE", 0.0)
        report = assess_identifiability(data)
        assert report.evidence is Evidence.NUMERICAL
        assert sum("--evidence exact" in words for words in report.strengthen) == 1
        assert sum("--evidence interval" in words for words in report.strengthen) == 2

    def test_the_same_seed_gives_the_same_certificate(self):
        data, _ = gradient_data(4, 16, 3, 7)
        first, second = (assess_identifiability(data, seed=3).to_dict() for _ in range(2))
        assert first["certificate"] == second["certificate"]


class TestConflicts:
    """A proof that contradicts the numerical decision is never outvoted."""

    def test_a_deficient_rank(self, monkeypatch):
        data, _ = gradient_data(3, 12, 3, 0)
        real = proving.exact.prove_rank

        def deficient(*args: object, **options: object) -> RankProof:
            found = real(*args, **options)
            return replace(found, outcome="deficient", rank=found.required - 1)

        monkeypatch.setattr(proving.exact, "prove_rank", deficient)
        report = assess_identifiability(data)
        assert report.verdict is Verdict.UNDECIDED
        assert "disagree" in report.reason

    def test_an_enclosure_that_excludes_the_recovered_set(self, monkeypatch):
        data, _ = gradient_data(3, 12, 3, 0)
        real = proving.boxes.enclose_terms

        def contradicted(*args: object, **options: object) -> Enclosure:
            return replace(real(*args, **options), outcome="contradicted", reason="for a test")

        monkeypatch.setattr(proving.boxes, "enclose_terms", contradicted)
        report = assess_identifiability(data)
        assert report.verdict is Verdict.UNDECIDED
        assert "for a test" in report.reason

    def test_a_coplanar_triple_is_not_proved_by_more_evidence(self):
        # Degree 3: three samples in a plane look like two false ones, and every proof holds.
        rng = np.random.default_rng(0)
        net = TwoLayerNetwork(rng.standard_normal((20, 6)), rng.standard_normal(20), degree=3)
        x = rng.standard_normal((4, 6))
        x[2] = 0.5 * x[0] + 0.7 * x[1]
        data = HermiteData.from_gradient(net, net.gradient(x, [1.0, 0.8, 1.2, 0.9]))
        report = assess_identifiability(data)
        assert report.verdict is Verdict.GLOBALLY
        assert report.scope is not None
        assert report.scope.samples == 3
        assert any("one plane" in words for words in report.caveats)


class TestFirstOrder:
    @pytest.mark.parametrize("degree", [3, 4, 5])
    def test_tangent_gram_is_that_of_finite_differences(self, degree):
        from identify.tensors import monomials

        rng = np.random.default_rng(degree)
        z, s = rng.standard_normal((3, 3)), np.array([1.0, -1.0, 1.0])
        columns = []
        for i in range(3):
            for axis in range(3):
                step = np.zeros((3, 3))
                step[i, axis] = 1e-6
                above, below = (s @ monomials(z + sign * step, degree) for sign in (1.0, -1.0))
                columns.append((above - below) / 2e-6)
        plain = np.array(columns) @ np.array(columns).T
        assert np.allclose(tangent_gram(z, s, degree), plain, rtol=1e-7, atol=1e-7)

    @pytest.mark.parametrize("seed", range(5))
    def test_bounds_hold_for_perturbed_data(self, seed):
        data, _ = gradient_data(3, 12, 3, seed)
        clean = assess_identifiability(data, evidence="numerical").to_dict()["certificate"]
        z, s = np.array(clean["terms"]["values"]), np.array(clean["terms"]["signs"], dtype=float)
        proof = proof_data(data, reduce_data(data, 1e-13))
        bound = bound_smallest_singular_value(proof.points, proof.shift, 3)
        level = 1e-8
        limits = first_order_bounds(proof, bound, z, s, level)
        rng = np.random.default_rng(seed)
        p = proof.points / 2.0**proof.shift
        size = np.linalg.norm(proof.right_sides)
        for _ in range(5):
            noise = rng.standard_normal(proof.right_sides.shape)
            sides = proof.right_sides + level * size * noise / np.linalg.norm(noise)
            moved = _least_squares(p, proof.weights, sides, z, s)
            assert np.all(np.linalg.norm(moved - z, axis=1) / np.linalg.norm(z, axis=1) <= limits)


def _least_squares(p, weights, sides, z, s):
    """Gauss-Newton from z on the weighted equations, degree 3, with a plain Jacobian."""
    found = z.copy()
    count, r = z.shape
    for _ in range(6):
        inner = p @ found.T
        residual = weights[:, None] * ((inner**2 * s) @ found) - sides
        jacobian = np.zeros((len(p), r, count, r))
        for i in range(count):
            outer = 2.0 * inner[:, i, None, None] * found[i][None, :, None] * p[:, None, :]
            jacobian[:, :, i, :] = s[i] * (outer + inner[:, i, None, None] ** 2 * np.eye(r))
        jacobian *= weights[:, None, None, None]
        step = np.linalg.lstsq(
            jacobian.reshape(len(p) * r, count * r), residual.ravel(), rcond=None
        )[0]
        found = found - step.reshape(count, r)
    return found


class TestDigest:
    def test_it_covers_everything_but_time_and_versions(self):
        data, _ = gradient_data(3, 12, 3, 0)
        report = json.loads(assess_identifiability(data).to_json())
        value = report["certificate"]["digest"]
        assert digest(report) == value
        assert digest(report | {"seconds": 1e9, "versions": {}}) == value
        for name in report.keys() - {"seconds", "versions"}:
            assert digest(report | {name: "something else"}) != value, name

    def test_it_survives_a_file(self, tmp_path: Path):
        data, _ = gradient_data(3, 12, 4, 0)
        path = tmp_path / "report.json"
        path.write_text(assess_identifiability(data).to_json(), encoding="utf-8")
        report = json.loads(path.read_text(encoding="utf-8"))
        assert digest(report) == report["certificate"]["digest"]
