"""Files for the tests of the command."""

from __future__ import annotations

import pytest

from tests.command_line import gradient_pair, random_network, stationary_network, stored


@pytest.fixture
def pair(tmp_path):
    """Arguments for a determined batch of 4, and the batch."""
    model, gradient, samples = gradient_pair(tmp_path)
    return (model, "--source", "gradient", "--gradient", gradient), samples


@pytest.fixture
def open_case(tmp_path):
    """Arguments for a network that two and three samples explain."""
    return stored(stationary_network(), tmp_path / "two.npz"), "--source", "weight-decay"


@pytest.fixture
def random_case(tmp_path):
    """Arguments for weights that no data explain."""
    return (stored(random_network(), tmp_path / "random.npz"),)
