"""The demonstration: verdicts, errors and bounds of every part, its files and its pictures."""

import json
import sys

import numpy as np
import pytest

from identify import load_network
from identify.alternatives.admissible import largest_difference
from identify.assess import assess_identifiability
from identify.demo.demo import DemoResult, fine_tuned_parts, run_demo, trained_parts
from identify.demo.networks import (
    _Objective,
    batch_gradient,
    fine_tune,
    pick_digits,
    random_network,
    train_to_stationarity,
)
from identify.errors import InvalidInputError, KktCertError
from identify.hermite.data import HermiteData

pytestmark = pytest.mark.medium
DECAY = 1e-3


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> DemoResult:
    return run_demo(tmp_path_factory.mktemp("demo") / "new" / "folder")


def explains(network, samples, coefficients) -> float:
    """|theta - sum_i b_i grad f(x_i)| / |theta|, in a way of its own."""
    inner = samples @ network.hidden_weight.T
    slopes = coefficients[:, None] * 3 * inner**2 * network.output_weight
    hidden = network.hidden_weight - slopes.T @ samples
    output = network.output_weight - coefficients @ inner**3
    size = np.hypot(np.linalg.norm(network.hidden_weight), np.linalg.norm(network.output_weight))
    return float(np.hypot(np.linalg.norm(hidden), np.linalg.norm(output)) / size)


def test_planted_digits_are_recovered(demo):
    part = demo.part("a")
    assert part.report.verdict == "globally"
    assert part.report.scope.to_dict() == {"kind": "at_most", "samples": 8}
    assert part.report.problem["source"] == "weight-decay"
    assert part.report.redundant_equations > 0
    assert part.comparison.recovered == part.comparison.within_bounds == 8
    assert part.max_error <= part.bound < 1e-10
    assert part.truth_residual < 1e-12


@pytest.mark.parametrize(("name", "count"), [("b", None), ("b5", 5)])
def test_trained_weights_have_several_explanations(demo, name, count):
    part = demo.part(name)
    first, second = part.report.alternatives
    network = load_network(demo.folder / "b" / "model.safetensors")
    live = np.count_nonzero(np.any(network.hidden_weight, axis=1))
    rank = part.report.problem["span_dimension"]
    assert part.report.verdict == "nonidentifiable"
    assert part.report.scope.to_dict() == {"kind": "shown", "samples": [first.count, second.count]}
    assert 1 <= rank <= live < 5 < network.width
    if count is None:
        assert (first.count, second.count) in {(rank, rank), (rank, rank + 1)}
    else:
        assert first.count == second.count == count
        assert largest_difference(first.samples, second.samples) >= 0.1
    for found in (first, second):
        assert explains(network, found.samples, found.coefficients) < 1e-10
    assert part.truth_residual < 1e-12
    assert part.max_error is None


def test_digits_may_change_where_the_weights_cannot_see_it(demo):
    part = demo.part("b5")
    truth, twin = part.digits.samples, part.twin
    network = load_network(demo.folder / "b" / "model.safetensors")
    assert explains(network, twin.samples, twin.coefficients) < 1e-12
    np.testing.assert_allclose(network.value(twin.samples), network.value(truth), rtol=1e-10)
    np.testing.assert_allclose(
        np.linalg.norm(twin.samples, axis=1), np.linalg.norm(truth, axis=1), rtol=1e-12
    )
    assert largest_difference(truth, twin.samples) > 0.5


def test_a_batch_is_recovered_from_its_gradient(demo):
    part = demo.part("c")
    assert part.report.verdict == "globally"
    assert part.report.sample_count == 20
    assert part.comparison.within_bounds == 20
    assert part.max_error <= part.bound < 1e-9


def test_fine_tuned_digits_are_recovered_at_large_output_scale_only(demo):
    assert demo.part("d1").report.verdict == "undecided"
    assert demo.part("d10").report.verdict == "undecided"
    for name, limit in (("d100", 5e-3), ("d1000", 5e-4)):
        part = demo.part(name)
        assert part.report.verdict == "globally"
        assert part.comparison.within_bounds == part.comparison.recovered == 8
        assert part.max_error <= limit
        assert part.max_error <= part.bound
    assert demo.part("d100").max_error == pytest.approx(10 * demo.part("d1000").max_error, rel=0.3)


def test_files_ask_the_same_questions(demo):
    folder = demo.folder
    model = load_network(folder / "a" / "model.safetensors")
    again = assess_identifiability(HermiteData.from_weight_decay(model))
    saved = json.loads((folder / "a" / "report.json").read_text())
    assert again.verdict == saved["verdict"] == "globally"
    assert again.inputs[0]["sha256"] == saved["inputs"][0]["sha256"]
    initial = load_network(folder / "d" / "initial.safetensors")
    final = load_network(folder / "d" / "scale-100" / "final.safetensors")
    pair = HermiteData.from_fine_tuning(initial, final)
    np.testing.assert_array_equal(
        assess_identifiability(pair).recovery.samples, demo.part("d100").report.recovery.samples
    )
    for part in demo.parts:
        assert str(folder) in part.command
    with np.load(folder / "b" / "alternatives.npz") as sets:
        assert set(sets) == {"samples_1", "coefficients_1", "samples_2", "coefficients_2"}
    with np.load(folder / "a" / "truth.npz") as truth:
        np.testing.assert_array_equal(truth["samples"], demo.part("a").digits.samples)


def test_every_part_has_a_picture_of_some_size(demo):
    for name in ("a", "b", "b5", "c", "d", "overview"):
        content = (demo.folder / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000


def test_the_table_says_it_all_in_100_columns(demo):
    lines = str(demo).splitlines()
    table = lines[2:11]
    assert all(len(line) <= 100 for line in table)
    assert [line.split()[0] for line in table[1:]] == [part.name for part in demo.parts]
    assert "globally" in table[1]
    assert "8 of 8" in table[1]
    assert "undecided" in table[5]
    assert "overview.png" in str(demo)


def test_the_same_seed_gives_the_same_report(demo, tmp_path):
    (tmp_path / "b").mkdir()
    parts = list(trained_parts(tmp_path, 0)) + list(fine_tuned_parts(tmp_path, 0, (100,)))
    for part in parts:
        first, second = demo.part(part.name).report.to_dict(), part.report.to_dict()
        assert first.pop("seconds") >= 0.0
        assert second.pop("seconds") >= 0.0
        assert first == second
    for name in ("b/report.json", "d/scale-100/report.json"):
        first, second = (
            json.loads((folder / name).read_text()) for folder in (demo.folder, tmp_path)
        )
        assert first["inputs"] == second["inputs"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_ends_at_a_strict_minimum_with_few_neurons(seed):
    digits = pick_digits(5, seed)
    trained = train_to_stationarity(digits, decay=DECAY, seed=seed)
    assert trained.gradient <= 1e-13
    assert explains(trained.network, digits.samples, trained.coefficients) <= 1e-13
    assert trained.live <= 5
    assert trained.curvature > 1e-3
    assert np.all(trained.margins > 0)
    np.testing.assert_allclose(
        trained.coefficients, digits.labels / (5 * DECAY * (1 + np.exp(trained.margins)))
    )


def test_derivatives_of_the_training_loss_agree_with_differences():
    rng = np.random.default_rng(5)
    problem = _Objective(rng.normal(size=(4, 3)), np.array([1.0, -1.0, 1.0, -1.0]), 0.1)
    theta = 0.7 * rng.normal(size=(2, 4))
    step = 1e-6
    gradient, hessian = problem.value_and_gradient(theta.ravel())[1], problem.hessian(theta)
    for k in range(theta.size):
        move = np.zeros(theta.size)
        move[k] = step
        up, down = (problem.value_and_gradient(theta.ravel() + s * move) for s in (1, -1))
        assert (up[0] - down[0]) / (2 * step) == pytest.approx(gradient[k], abs=1e-8)
        np.testing.assert_allclose((up[1] - down[1]) / (2 * step), hessian[k], atol=1e-7)


def test_weights_move_by_one_over_the_output_scale():
    digits, initial = pick_digits(8, 3), random_network(60, 64, 3)
    moves = []
    for scale in (100.0, 1000.0):
        final, steps = fine_tune(initial, digits, scale)
        assert steps > 50
        change = final.value(digits.samples) - initial.value(digits.samples)
        assert np.mean(np.logaddexp(0, -scale * digits.labels * change)) <= 0.3
        moves.append(np.linalg.norm(final.hidden_weight - initial.hidden_weight))
    assert moves[0] == pytest.approx(10 * moves[1], rel=0.1)


def test_fine_tuning_with_absurd_steps_says_so():
    with pytest.raises(KktCertError, match="did not reach the loss"):
        fine_tune(random_network(60, 64, 3), pick_digits(8, 3), 1.0, step=1e4)


def test_the_batch_gradient_is_that_of_the_logistic_loss():
    digits, network = pick_digits(6, 1), random_network(7, 64, 1)
    gradient, coefficients = batch_gradient(network, digits)
    assert np.all(coefficients * digits.labels < 0)

    def loss(shift: float) -> float:
        hidden = network.hidden_weight + shift * direction
        values = (digits.samples @ hidden.T) ** 3 @ network.output_weight
        return float(np.sum(np.logaddexp(0, -digits.labels * values)))

    direction = np.random.default_rng(0).normal(size=network.hidden_weight.shape)
    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert np.sum(gradient.hidden_weight * direction) == pytest.approx(slope, rel=1e-5)


def test_digits_alternate_between_even_and_odd():
    digits = pick_digits(20, 4)
    assert sorted(digits.classes) == sorted(2 * list(range(10)))
    assert digits.labels.tolist() == [1.0, -1.0] * 10
    assert all(
        (label > 0) == (k % 2 == 0) for label, k in zip(digits.labels, digits.classes, strict=True)
    )
    pixels = digits.samples + digits.mean
    assert pixels.min() >= -1e-12
    assert pixels.max() <= 1 + 1e-12
    assert len(np.unique(pixels.round(9), axis=0)) == 20


def test_without_its_extra_the_demo_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InvalidInputError, match=r"kktcert\[demo\]") as caught:
        run_demo(tmp_path / "out")
    assert "\n" not in str(caught.value)
