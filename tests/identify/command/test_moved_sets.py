"""`alternatives --from DATA --distance X --keep WORDS`, from the command line."""

from __future__ import annotations

import numpy as np
import pytest

from tests.command_line import kkt, stored
from tests.identify.alternatives.training_sets import stationary, unit_rows


@pytest.fixture
def files(tmp_path):
    x = 1.5 * unit_rows(np.random.default_rng(3).normal(size=(5, 20)))
    np.savez(tmp_path / "data.npz", samples=x)
    network = stationary(x, np.ones(5), 3, neurons=3, bias=False)
    return stored(network, tmp_path / "model.safetensors"), tmp_path / "data.npz", tmp_path / "out"


def moved(files, *options):
    model, data, out = files
    return kkt("alternatives", model, "--source", "weight-decay", "--from", data, "--out", out,
               *options)  # fmt: skip


@pytest.mark.parametrize("distance", [0.1, 1.0, 10.0])
def test_both_sets_are_written_and_lie_that_far_apart(files, distance):
    outcome = moved(files, "--distance", str(distance), "--keep", "count,margins")
    assert outcome.code == 0, outcome.err
    sets = np.load(files[2] / "alternatives.npz")
    first, second = sets["samples_1"], sets["samples_2"]
    gap = np.linalg.norm(second - first, axis=1).max() / np.linalg.norm(first, axis=1).max()
    assert gap == pytest.approx(distance, rel=1e-5)


def test_none_exists_only_where_it_is_proved(files):
    outcome = moved(files, "--distance", "3", "--keep", "norms")
    assert outcome.code == 1
    assert "none exists" in outcome.err
    outcome = moved(files, "--distance", "50", "--keep", "box,count", "--force")
    assert outcome.code == 1
    assert "none exists" not in outcome.err
    assert "undecided" in outcome.err
