"""The second method: agreement, silence, and a disagreement that decides."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from identify import Verdict, assess_identifiability, recover_samples
from identify.checker.check import check_report
from identify.errors import InvalidInputError
from identify.hermite.data import HermiteData
from identify.model.loading import save_network
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.recovery.second_method import SecondMethod
from identify.verdict.rule import Grounds
from identify.verdict.rules import judge
from tests.identify.checker.problems import sign
from tests.identify.families import gradient_case, unit_rows

FREE = Assumptions(scale="free")


def batch(seed, n, m, degree=3):
    rng = np.random.default_rng([seed, 77])
    signs = rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 2.0, n)
    return gradient_case(
        "batch", rng.normal(size=(m, n + 2)), rng.normal(size=m),
        unit_rows(rng.normal(size=(n, n + 2))), signs, degree,
    )  # fmt: skip


@pytest.mark.parametrize(("n", "m", "degree"), [(2, 12, 3), (4, 24, 3), (7, 50, 3), (3, 30, 4)])
@pytest.mark.parametrize("seed", range(2))
def test_both_methods_give_the_same_samples(n, m, degree, seed):
    case = batch(seed, n, m, degree)
    pencil = measure(case.data, FREE)
    assert pencil.second is None
    both = measure(case.data, FREE, method="auto")
    alone = measure(case.data, FREE, method="tensorly")
    assert both.second is not None
    assert both.second.agrees is not False
    if both.second.agrees:
        cosines = np.abs(unit_rows(alone.samples.samples) @ unit_rows(pencil.samples.samples).T)
        assert cosines.max(axis=0).min() > 1.0 - 1e-9


def test_most_determined_batches_get_a_second_opinion():
    heard = [measure(batch(seed, 4, 24).data, FREE, method="auto").second for seed in range(8)]
    assert sum(second is not None and second.agrees is True for second in heard) >= 4


def test_a_disagreement_makes_the_verdict_undecided():
    case = batch(0, 4, 24)
    findings = measure(case.data, FREE, method="auto")
    assert judge(Grounds(case.data, FREE, findings)).verdict is Verdict.GLOBALLY
    other = replace(findings, second=SecondMethod(1e-15, 0.3, 1e-6))
    outcome = judge(Grounds(case.data, FREE, other))
    assert outcome.verdict is Verdict.UNDECIDED
    assert "two methods disagree" in outcome.reason
    silent = replace(findings, second=SecondMethod(0.2))
    assert judge(Grounds(case.data, FREE, silent)).verdict is Verdict.GLOBALLY


def test_the_public_front():
    case = batch(1, 4, 24)
    found = recover_samples(case.data, method="tensorly")
    expected = recover_samples(case.data)
    assert np.allclose(found.samples, expected.samples, atol=1e-8)
    with pytest.raises(InvalidInputError, match="auto, pencil, tensorly"):
        assess_identifiability(case.data, method="magic")
    large = batch(1, 21, 200)
    with pytest.raises(InvalidInputError, match="use the pencil"):
        assess_identifiability(large.data, method="tensorly")


def test_the_checker_vouches_for_no_second_opinion(tmp_path):
    case = batch(2, 4, 24)
    network, gradient = case.data.network, case.data.target
    paths = tmp_path / "model.npz", tmp_path / "gradient.npz"
    for part, path in zip((network, gradient), paths, strict=True):
        save_network(part, path)
    data = HermiteData.from_gradient(network, gradient)
    report = assess_identifiability(data, method="auto").to_dict()
    names = [row["name"] for row in report["conditions"]]
    result = check_report(copy.deepcopy(report), paths[0], gradient=paths[1])
    assert result.outcome == "confirmed", str(result)
    assert "conditions.second method.found" in result.not_checked
    row = report["conditions"][names.index("second method")]
    row |= {"found": 1.0, "required": 1e-6, "holds": False}
    assert check_report(sign(report), paths[0], gradient=paths[1]).outcome == "refuted"
