"""The verdict rules one by one, the scale conventions, the bounds."""

import numpy as np
import pytest

from identify import (
    HermiteData,
    InvalidInputError,
    NotDeterminedError,
    TwoLayerNetwork,
    Verdict,
    assess_identifiability,
    compare_recovery,
    plant_network,
    recover_samples,
)
from tests.identify.families import gradient_case, stationary_network, unit_rows


def gradient(seed: int, n: int, m: int, d: int, degree: int = 3) -> tuple[HermiteData, np.ndarray]:
    rng = np.random.default_rng(seed)
    samples = unit_rows(rng.normal(size=(n, d)))
    case = gradient_case(
        "plain", rng.normal(size=(m, d)), rng.normal(size=m), samples,
        rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 1, n), degree,
    )  # fmt: skip
    return case.data, samples


def worst(data: HermiteData, truth: np.ndarray, **options: object) -> float:
    """Largest error of an accepted recovery, each within its bound."""
    report = assess_identifiability(data, **options)  # type: ignore[arg-type]
    assert report.verdict is Verdict.GLOBALLY, report.reason
    assert report.recovery is not None
    score = compare_recovery(report.recovery, truth, degree=data.degree)
    assert score.within_bounds == len(truth)
    return float(score.max_error)


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_gradient(degree: int) -> None:
    data, samples = gradient(degree, 4, 40, 8, degree)
    assert worst(data, samples) < 1e-10


@pytest.mark.parametrize(("degree", "seed"), [(3, [3]), (3, [3, 1]), (4, [4, 1]), (4, [4, 3])])
def test_stationary_network(degree: int, seed: list[int]) -> None:
    samples = unit_rows(np.random.default_rng(seed).normal(size=(5, 9)))
    network = stationary_network(samples, np.ones(5), degree, 0)
    assert network is not None
    assert worst(HermiteData.from_weight_decay(network), samples) < 1e-9


@pytest.mark.parametrize(("degree", "neurons"), [(3, 6), (4, 10)])
def test_stationary_network_of_too_few_neurons(degree: int, neurons: int) -> None:
    samples = unit_rows(np.random.default_rng(3).normal(size=(5, 9)))
    whole = stationary_network(samples, np.ones(5), degree, 0)
    assert whole is not None
    network = TwoLayerNetwork(
        whole.hidden_weight[:neurons], whole.output_weight[:neurons], degree=degree
    )
    report = assess_identifiability(HermiteData.from_weight_decay(network))
    assert report.verdict is not Verdict.GLOBALLY
    assert "I-hermite fails" in report.reason
    assert report.problem["rank"] == 5 * neurons < report.problem["unknowns"]


def test_margin_network_with_its_tie() -> None:
    """A max-margin network: equal margins add n - 1 equations where the norm is known."""
    rng = np.random.default_rng(1)
    samples = unit_rows(rng.normal(size=(4, 8)))
    planted = plant_network(samples, stationary="margin", determined=True, seed=0)
    data = HermiteData.from_kkt(planted.network)
    free = assess_identifiability(data)
    tied = assess_identifiability(data, scale="unit")
    assert free.verdict is tied.verdict is Verdict.GLOBALLY, tied.reason
    assert free.redundant_equations is not None
    assert tied.redundant_equations == free.redundant_equations + 3
    stretched = plant_network(
        samples * np.array([[1.0], [1.3], [0.8], [1.1]]), stationary="margin", determined=True
    )
    wrong = assess_identifiability(HermiteData.from_kkt(stretched.network), scale="unit")
    assert wrong.verdict is Verdict.UNDECIDED
    assert "assumption fails" in wrong.reason
    ratio = assess_identifiability(HermiteData.from_kkt(stretched.network), scale="margin")
    assert ratio.recovery is not None
    lengths = np.sort(np.linalg.norm(ratio.recovery.samples, axis=1))
    assert np.allclose(lengths, np.array([0.8, 1.0, 1.1, 1.3]) / 1.3, rtol=1e-8)


def test_unbalanced_weights_are_not_stationary() -> None:
    rng = np.random.default_rng(2)
    network = TwoLayerNetwork(rng.normal(size=(20, 4)), rng.normal(size=20), degree=3)
    report = assess_identifiability(HermiteData.from_kkt(network))
    assert report.verdict is Verdict.UNDECIDED
    assert "not stationary" in report.reason
    assert report.scope is None


def test_the_number_of_samples() -> None:
    """Two samples at degree 3 leave no redundant equation: only their number decides."""
    data, samples = gradient(3, 2, 8, 5)
    open_number = assess_identifiability(data)
    assert open_number.redundant_equations == 0
    assert open_number.verdict is not Verdict.GLOBALLY
    assert worst(data, samples, samples=2) < 1e-10
    contradiction = assess_identifiability(data, samples=1)
    assert contradiction.verdict is Verdict.UNDECIDED
    assert "contradicts" in contradiction.reason
    more = assess_identifiability(data, samples=3)
    assert more.verdict is Verdict.NONIDENTIFIABLE
    assert more.alternatives is not None
    for found in more.alternatives:
        assert (found.count, found.stationarity < 1e-10) == (3, True)


def test_one_sample() -> None:
    """Rows of rank one over several neurons are the redundancy; one neuron has none."""
    data, samples = gradient(4, 1, 6, 5)
    assert worst(data, samples) < 1e-12
    alone, _ = gradient(4, 1, 1, 5)
    assert assess_identifiability(alone).verdict is not Verdict.GLOBALLY


def test_batch_as_large_as_the_width() -> None:
    """r = m = 2 passes every rank condition and is still refused."""
    data, _ = gradient(5, 2, 2, 6)
    report = assess_identifiability(data, samples=2)
    assert report.verdict is not Verdict.GLOBALLY
    assert "width" in report.reason


@pytest.mark.parametrize("degree", [3, 4])
def test_hidden_bias_fixes_length_and_sign(degree: int) -> None:
    rng = np.random.default_rng(6)
    samples = rng.normal(size=(4, 6)) * 2.0
    m = 60
    network = TwoLayerNetwork(
        rng.normal(size=(m, 6)), rng.normal(size=m), degree=degree, hidden_bias=rng.normal(size=m)
    )
    b = np.array([1.0, -0.5, 0.7, -1.2])
    report = assess_identifiability(
        HermiteData.from_gradient(network, network.gradient(samples, b))
    )
    assert report.verdict is Verdict.GLOBALLY
    assert report.recovery is not None
    distance = np.linalg.norm(report.recovery.samples[:, None] - samples[None], axis=2)
    match = distance.argmin(axis=0)
    errors = distance.min(axis=0) / np.linalg.norm(samples, axis=1)
    assert np.all(errors <= report.recovery.error_bounds[match])
    assert errors.max() < 1e-10
    assert np.allclose(report.recovery.coefficients[match], b, rtol=1e-8)


def test_non_negative_chooses_the_sign_and_can_fail() -> None:
    rng = np.random.default_rng(7)
    hidden, output = rng.normal(size=(30, 6)), rng.normal(size=30)
    positive = unit_rows(rng.uniform(size=(4, 6)))
    case = gradient_case("positive", hidden, output, positive, -np.ones(4), 3)
    report = assess_identifiability(case.data, non_negative=True)
    assert report.verdict is Verdict.GLOBALLY
    assert report.recovery is not None
    assert report.recovery.samples.min() > -1e-9
    assert np.all(report.recovery.coefficients < 0)
    mixed = gradient_case("mixed", hidden, output, rng.normal(size=(4, 6)), np.ones(4), 3)
    failed = assess_identifiability(mixed.data, non_negative=True)
    assert failed.verdict is Verdict.UNDECIDED
    assert "negative entries" in failed.reason


@pytest.mark.parametrize(
    ("dtype", "seeds", "fewest"), [(np.float32, range(8, 11), 3), (np.float16, range(8, 15), 2)]
)
def test_rounded_weights_raise_the_noise_level(dtype: type, seeds: range, fewest: int) -> None:
    decided = 0
    for seed in seeds:
        samples = unit_rows(np.random.default_rng(seed).normal(size=(4, 7)))
        exact = stationary_network(samples, np.ones(4), 3, 0)
        assert exact is not None
        network = TwoLayerNetwork(
            exact.hidden_weight.astype(dtype), exact.output_weight.astype(dtype), degree=3
        )
        report = assess_identifiability(HermiteData.from_weight_decay(network))
        assert report.noise_level >= np.finfo(dtype).eps / 2
        if report.verdict is Verdict.GLOBALLY:
            assert report.recovery is not None
            score = compare_recovery(report.recovery, samples, degree=3)
            assert score.within_bounds == 4
            decided += 1
    assert decided >= fewest


@pytest.mark.medium
@pytest.mark.parametrize("noise", [1e-9, 1e-6])
def test_stated_noise_gives_statistical_bounds(noise: float) -> None:
    """Stated or not, the bounds are above the error over twenty draws."""
    rng = np.random.default_rng(9)
    hidden, output = rng.normal(size=(40, 9)), rng.normal(size=40)
    samples, b = unit_rows(rng.normal(size=(5, 9))), rng.choice([-1.0, 1.0], 5)
    below = 0
    for _ in range(20):
        case = gradient_case("noisy", hidden, output, samples, b, 3, noise=noise, rng=rng)
        plain = assess_identifiability(case.data)
        stated = assess_identifiability(case.data, noise=noise)
        assert plain.recovery is not None
        assert stated.recovery is not None
        for report in (plain, stated):
            score = compare_recovery(report.recovery, samples, degree=3)
            below += 5 - score.within_bounds
    assert below == 0


def test_fine_tuning_bound_covers_the_first_order_remainder() -> None:
    rng = np.random.default_rng(10)
    samples = unit_rows(rng.normal(size=(4, 6)))
    start = TwoLayerNetwork(rng.normal(size=(40, 6)), rng.normal(size=40), degree=3)
    b = np.array([1.0, -0.6, 0.8, -1.0])
    for size in (3e-4, 3e-5):
        now = start
        for _ in range(30):
            step = now.gradient(samples, -size / 30 * b)
            now = TwoLayerNetwork(
                now.hidden_weight - step.hidden_weight, now.output_weight - step.output_weight,
                degree=3,
            )  # fmt: skip
        data = HermiteData.from_fine_tuning(start, now)
        error = worst(data, samples)
        assert error < 100 * size


def test_recover_samples_raises_with_the_report() -> None:
    data, samples = gradient(11, 4, 30, 7)
    assert recover_samples(data).samples.shape == samples.shape
    few, _ = gradient(11, 6, 8, 7)
    with pytest.raises(NotDeterminedError) as caught:
        recover_samples(few)
    assert caught.value.report.verdict is not Verdict.GLOBALLY


def test_time_limit_gives_a_partial_report() -> None:
    data, _ = gradient(12, 25, 190, 40)
    report = assess_identifiability(data, time_limit=1e-9)
    assert report.verdict is Verdict.UNDECIDED
    assert "time limit" in report.reason
    assert report.to_json()


@pytest.mark.medium
def test_progress_is_called_and_seed_recorded() -> None:
    data, _ = gradient(13, 10, 50, 16)
    stages: list[tuple[str, float]] = []
    report = assess_identifiability(data, progress=lambda *a: stages.append(a), seed=5)
    assert stages
    assert all(0.0 <= share <= 1.0 for _, share in stages)
    assert report.seed == 5


@pytest.mark.parametrize(
    "options",
    [{"samples": 0}, {"noise": 0.0}, {"noise": 1.5}, {"time_limit": -1.0}, {"scale": "bias"},
     {"scale": "norm"}],
)  # fmt: skip
def test_bad_arguments(options: dict[str, object]) -> None:
    data, _ = gradient(14, 3, 20, 5)
    with pytest.raises(InvalidInputError):
        assess_identifiability(data, **options)  # type: ignore[arg-type]


def test_every_globally_has_scope_evidence_and_caveats() -> None:
    data, _ = gradient(15, 4, 30, 7)
    report = assess_identifiability(data)
    assert report.scope is not None
    assert report.scope.sentence == "among all training sets of at most 4 samples"
    assert report.sample_count == 4
    assert any("more than 4" in caveat for caveat in report.caveats)
    assert any("degree 3" in caveat for caveat in report.caveats)
    assert {c.name for c in report.conditions} >= {"I-hermite", "I-flat", "I-value", "redundancy"}
    assert not report.spans_input_space
