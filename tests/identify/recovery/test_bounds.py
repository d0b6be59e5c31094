"""Error bounds where they are hardest: few equations, near-parallel samples, coarse rounding."""

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork, Verdict, assess_identifiability
from tests.identify.families import Case, gradient_case, unit_rows
from tests.identify.judging import is_wrong


def rounded(case: Case, dtype: type) -> Case:
    """The same gradient in a coarser dtype."""
    target = case.data.target
    assert target is not None
    gradient = TwoLayerNetwork(
        target.hidden_weight.astype(dtype), target.output_weight.astype(dtype),
        degree=case.data.degree,
    )  # fmt: skip
    data = HermiteData.from_gradient(case.data.network, gradient)
    return Case(case.family, data, case.samples, case.coefficients)


@pytest.mark.medium
@pytest.mark.parametrize("shape", [(1, 2, 2, 3), (1, 3, 3, 3), (2, 4, 9, 5), (3, 5, 4, 3)])
@pytest.mark.parametrize("kind", ["gaussian", "float16", "float32"])
def test_few_equations(shape: tuple[int, int, int, int], kind: str) -> None:
    """r = 1 to 3, hardly a spare row: V and the residual are small by luck, the bound is not."""
    n, d, m, degree = shape
    wrong = []
    for seed in range(25):
        rng = np.random.default_rng([seed, n, m])
        noise = 1e-6 if kind == "gaussian" else 0.0
        case = gradient_case(
            "few", rng.normal(size=(m, d)), rng.normal(size=m), rng.normal(size=(n, d)),
            rng.normal(size=n), degree, noise=noise, rng=rng,
        )  # fmt: skip
        if kind != "gaussian":
            case = rounded(case, np.float16 if kind == "float16" else np.float32)
        problem = is_wrong(case, assess_identifiability(case.data))
        if problem:
            wrong.append(f"{seed}: {problem}")
    assert not wrong


@pytest.mark.medium
@pytest.mark.parametrize("degree", [3, 4, pytest.param(5, marks=pytest.mark.slow)])
def test_near_parallel_samples(degree: int) -> None:
    """Two samples that nearly coincide: their coefficients are open before their directions."""
    wrong, answered = [], 0
    for seed in range(40):
        rng = np.random.default_rng([seed, degree])
        n, m = 3, 30
        samples = unit_rows(rng.normal(size=(n, 5)))
        samples[1] = samples[0] + 10.0 ** rng.uniform(-4, -1) * rng.normal(size=5)
        case = gradient_case(
            "near", rng.normal(size=(m, 5)), rng.normal(size=m), samples, rng.normal(size=n),
            degree, noise=float(10.0 ** rng.uniform(-14, -9)), rng=rng,
        )  # fmt: skip
        report = assess_identifiability(case.data)
        answered += report.verdict is Verdict.GLOBALLY
        problem = is_wrong(case, report)
        if problem:
            wrong.append(f"{seed}: {problem}")
    assert not wrong
    assert answered >= 10


def test_time_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dense second opinion after the limit."""
    rng = np.random.default_rng(0)
    case = gradient_case(
        "late", rng.normal(size=(200, 30)), rng.normal(size=200), rng.normal(size=(30, 30)),
        rng.normal(size=30), 3,
    )  # fmt: skip
    for name in (
        "identify.interpolation.solvers.hermite_matrix",
        "identify.alternatives.candidate_sets.minimise",
    ):
        monkeypatch.setattr(name, lambda *given, **options: pytest.fail("begun after the limit"))
    report = assess_identifiability(case.data, time_limit=1e-9)
    assert report.verdict is Verdict.UNDECIDED
    assert "time limit" in report.reason
    assert "exceeds" not in report.reason
