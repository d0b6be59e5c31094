"""One thread, and two small sets of digits, for the tests of victims."""

from __future__ import annotations

import pytest
import torch

from attack.training.images import load_images


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", task="binary", per_class=5)


@pytest.fixture(scope="module")
def classes():
    return load_images("digits", task="multiclass", per_class=3, classes=(0, 1, 2))
