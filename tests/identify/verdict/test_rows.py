"""The rows of a report and its verdict cannot disagree: they come from the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork, Verdict, assess_identifiability, plant_network
from identify.checker.rows import CHECKS
from identify.records import Condition
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import measure
from identify.report.build import interrupted_report
from identify.report.report import IdentifiabilityReport
from identify.verdict.rule import Grounds
from identify.verdict.rules import RULES, judge
from tests.identify.families import unit_rows

Case = tuple[HermiteData, dict[str, Any]]

_ASSUMED = ("samples", "scale", "non_negative", "noise", "hidden_share")


def batch(
    seed: int, n: int, m: int, d: int = 6, degree: int = 3, *, bias: bool = False, noise: float = 0
) -> HermiteData:
    rng = np.random.default_rng([seed, n, m, degree])
    network = TwoLayerNetwork(
        rng.normal(size=(m, d)), rng.normal(size=m), degree,
        hidden_bias=rng.normal(size=m) if bias else None,
    )  # fmt: skip
    b = rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 1.0, n)
    gradient = network.gradient(unit_rows(rng.normal(size=(n, d))), b)
    rows = gradient.hidden_weight
    rows = rows + noise * np.sqrt(np.mean(rows**2)) * rng.normal(size=rows.shape)
    return HermiteData.from_gradient(network, replace(gradient, hidden_weight=rows), "logistic")


OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"evidence": "exact"}, {"non_negative": True}, {"scale": "unit"}, {"method": "auto"},
    {"evidence": "interval"}, {"noise": 1e-3}, {"time_limit": 1e-9}, {"hidden_share": 1e-12},
)  # fmt: skip


def gradients() -> Iterator[Case]:
    """One to four samples, from one neuron to forty, with what may be assumed about them."""
    for degree in (3, 4):
        for n, m in ((1, 6), (1, 1), (2, 8), (2, 2), (4, 40), (4, 5)):
            data = batch(n, n, m, degree=degree)
            numbers = [{"samples": k} for k in (max(1, n - 1), n, n + 1)]
            for options in (*OPTIONS[: 9 if degree == 3 else 2], *numbers):
                yield data, options
        for noise in (1e-6, 1e-3, 1e-2, 1e-1):
            yield batch(0, 4, 40, degree=degree, noise=noise), {}
        yield batch(7, 3, 40, degree=degree, bias=True), {}


def networks() -> Iterator[Case]:
    """Planted networks under the right source and scale and under wrong ones; cut and random."""
    samples = unit_rows(np.random.default_rng(0).normal(size=(4, 8)))
    longer = samples * np.array([[1.0], [1.3], [0.8], [1.1]])
    rng = np.random.default_rng(3)
    yield HermiteData.from_kkt(TwoLayerNetwork(rng.normal(size=(9, 4)), rng.normal(size=9), 3)), {}
    for x in (samples, longer):
        for kind in ("margin", "regression"):
            network = plant_network(x, stationary=kind, determined=True).network
            for scale in ("auto", "unit", "margin"):
                yield HermiteData.from_kkt(network), {"scale": scale}
                data = HermiteData.from_weight_decay(network, loss="logistic")
                yield data, {"scale": scale}
            for width in (2, 5):
                hidden, output = network.hidden_weight[:width], network.output_weight[:width]
                cut = TwoLayerNetwork(hidden, output, 3)
                yield HermiteData.from_kkt(cut), {}
                yield HermiteData.from_weight_decay(cut), {"samples": 2}


def wrong() -> Iterator[Case]:
    """A gradient of another network; movements from none to far too long."""
    first, second = batch(1, 4, 40), batch(2, 4, 40)
    assert first.target is not None
    yield HermiteData.from_gradient(second.network, first.target), {}
    network, step = first.network, first.target
    for length in (1e-6, 1e-3, 1e-1):
        moved = replace(
            network,
            hidden_weight=network.hidden_weight - length * step.hidden_weight,
            output_weight=network.output_weight - length * step.output_weight,
        )
        yield HermiteData.from_fine_tuning(network, moved), {}


@pytest.fixture(scope="module")
def reports() -> list[IdentifiabilityReport]:
    drawn = (*gradients(), *networks(), *wrong())
    return [assess_identifiability(data, **options) for data, options in drawn]


def failing(rows: tuple[Condition, ...]) -> list[str]:
    return [row.name for row in rows if row.needed and row.holds is not True]


def test_globally_is_that_every_needed_row_holds(reports: list[IdentifiabilityReport]) -> None:
    for report in reports:
        wrong_rows = failing(report.conditions)
        assert (report.verdict is Verdict.GLOBALLY) is (not wrong_rows), (report.reason, wrong_rows)
    for verdict in (Verdict.GLOBALLY, Verdict.NONIDENTIFIABLE, Verdict.UNDECIDED):
        assert sum(report.verdict is verdict for report in reports) > 20


def test_the_reason_is_the_sentence_of_the_first_failing_row(
    reports: list[IdentifiabilityReport],
) -> None:
    """The rule of that name, asked again, says the same; and many rules decide somewhere."""
    decided = set()
    drawn = (*gradients(), *networks(), *wrong())
    for (data, options), report in zip(drawn, reports, strict=True):
        if report.verdict is Verdict.GLOBALLY or "time_limit" in options:
            continue
        name = failing(report.conditions)[0]
        decided.add(name)
        if name in ("agreement", "evidence"):
            assert report.reason.startswith("--evidence")
            continue
        assumed = {name: options[name] for name in _ASSUMED if name in options}
        given = Assumptions(**assumed).resolved(data)
        stage = measure(data, given, method=options.get("method", "pencil"))
        found = next(rule for rule in RULES if rule.name == name).look(Grounds(data, given, stage))
        assert found is not None
        assert report.reason.endswith(found.sentence)
    assert len(decided) >= 12, decided


def test_rows_are_listed_once_in_the_order_of_the_rules(
    reports: list[IdentifiabilityReport],
) -> None:
    order = [rule.name for rule in RULES]
    assert len(set(order)) == len(order)
    seen = set()
    for report in reports:
        places = [order.index(row.name) for row in report.conditions]
        assert places == sorted(set(places))
        seen |= {row.name for row in report.conditions}
    assert set(order) - seen <= {"second method", "leftover"}
    # The checker has a judgement of its own on each, in the same order.
    assert list(CHECKS) == order


def test_a_run_that_ends_early_says_so_in_a_row() -> None:
    data = batch(4, 4, 40)
    for report in (
        assess_identifiability(data, time_limit=1e-9),
        interrupted_report(data, Assumptions(), stage="rank", seconds=1.0, seed=0),
    ):
        assert failing(report.conditions)[0] == "finished"
        assert report.verdict is Verdict.UNDECIDED
    given = Assumptions().resolved(data)
    grounds = Grounds(data, given, measure(data, given))
    assert judge(grounds).verdict is Verdict.GLOBALLY
    assert judge(replace(grounds, ended="stopped")).reason == "stopped"
