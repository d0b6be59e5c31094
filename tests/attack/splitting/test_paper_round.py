"""Sample splitting by the authors' rule: which candidates split, the round, its step search."""

from __future__ import annotations

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import scipy.optimize
import torch
from hypothesis import given

from attack.objectives.penalties import FloorPenalty
from attack.splitting.accept import PAPER_STEPS
from attack.splitting.eigenpairs import EigenSearch, smallest_eigenpairs
from attack.splitting.plan import offspring, paper_choice
from attack.splitting.split_round import split_candidates
from tests.attack.problems import splitting_products
from tests.attack.split_problems import (
    everyone,
    loss_of,
    network_objectives,
)

torch.set_num_threads(1)


def slow_rule(values):
    """The selection in plain words, one candidate after the other."""
    count = len(values)
    growth = 0.3 if count < 1000 else 0.1
    negative = [i for i in range(count) if values[i] < 0]
    by_value = sorted(range(count), key=lambda i: (values[i], i))
    if len(negative) / count < growth:
        return [i for i in by_value if values[i] < 0]
    chosen = []
    for i in by_value[: math.ceil(count / 2)]:
        if values[i] < -0.1 and len(chosen) < 150:
            chosen.append(i)
    return chosen


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40))
def test_paper_rule_small(values):
    assert paper_choice(torch.tensor(values)).tolist() == slow_rule(values)


@pytest.mark.parametrize("count", [999, 1000, 1600])
@pytest.mark.parametrize("shift", [-1.0, -0.05, 0.3, 0.85, 0.95])
def test_paper_rule_large(count, shift):
    generator = torch.Generator().manual_seed(count)
    values = torch.rand(count, generator=generator, dtype=torch.float64) + shift
    values[: count // 2] = values[: count // 2].abs()
    assert paper_choice(values).tolist() == slow_rule(values.tolist())


@pytest.mark.parametrize("seed", range(6))
def test_paper_round(seed):
    objective = replace(network_objectives(seed)["haim"], penalties=())
    candidates = objective.start(6, seed, 0.7)
    columns = [
        splitting_products(objective, candidates, torch.eye(6).double()[j].expand(6, 6))
        for j in range(6)
    ]
    lowest = torch.linalg.eigvalsh(torch.stack(columns, 2))[:, 0]
    after, origin, record = split_candidates(objective, candidates, mode="paper", rollback=False)
    expected = slow_rule((objective.normaliser * lowest).tolist())
    assert torch.allclose(record.eigenvalues, lowest, atol=1e-8)
    assert record.chosen.tolist() == expected
    assert len(set(record.steps.tolist())) <= 1
    assert after.count == 6 + len(expected)
    assert origin.tolist() == list(range(6)) + expected
    assert record.merged == record.pruned == ()
    if expected:
        step = float(record.steps[0])
        assert PAPER_STEPS[0] <= step <= PAPER_STEPS[1]
        assert record.after == pytest.approx(loss_of(objective, after), rel=1e-12)
        # No other common step of a grid does better.
        values = record.eigenvalues[record.chosen]
        pairs = smallest_eigenpairs(
            objective.splitting_operator(candidates), 6, 6, search=EigenSearch("lanczos", 20)
        )
        plan = everyone(pairs).subset(torch.isin(torch.arange(6), record.chosen))
        for other in torch.linspace(*PAPER_STEPS, 9).tolist():
            split, _ = offspring(candidates, plan, torch.full_like(values, other))
            assert record.after <= loss_of(objective, split) + 1e-6 * record.before


def test_paper_round_is_rolled_back_unless_told_otherwise():
    objective = replace(network_objectives(0)["haim"], penalties=(FloorPenalty(1.0, 100.0),))
    candidates = objective.start(6, 0, 0.7)
    kept, origin, record = split_candidates(objective, candidates, mode="paper")
    assert record.rolled_back
    assert not record.accepted
    assert torch.equal(kept.x, candidates.x)
    assert origin.tolist() == list(range(6))
    _, _, record = split_candidates(objective, candidates, mode="paper", rollback=False)
    assert record.accepted
    assert record.after > record.before


def test_a_search_that_does_not_converge_gives_half_of_its_step(monkeypatch):
    objective = replace(network_objectives(0)["haim"], penalties=())
    candidates = objective.start(6, 0, 0.7)
    plain = scipy.optimize.minimize_scalar
    _, _, record = split_candidates(objective, candidates, mode="paper", rollback=False)

    def stopped(*arguments, **named):
        found = plain(*arguments, **named)
        found.success = False
        return found

    monkeypatch.setattr(scipy.optimize, "minimize_scalar", stopped)
    _, _, halved = split_candidates(objective, candidates, mode="paper", rollback=False)
    assert torch.allclose(2 * halved.steps, record.steps)
    assert halved.evaluations == record.evaluations + 1
