"""Part e of the demonstration: the batch behind one gradient of a trained classifier."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("sklearn")

from identify.demo.batch import SIZES, batch_part, draw_batch, train_classifier
from identify.demo.networks import all_digits
from tests.command_line import PNG, kkt

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module", params=[0, 1])
def part(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return batch_part(folder, request.param), folder


def test_every_digit_and_label_comes_back(part):
    found, _ = part
    assert found.report.verdict == "globally"
    assert found.recovered == found.labels_right == 10
    assert found.checked == "confirmed"
    bounds = found.report.found.error_bounds[found.order]
    assert (found.errors <= bounds).all()
    assert found.cells()[:6] == [
        "e", "10 digits, ReLU network", "globally", "at most 10", "numerical", "10 of 10",
    ]  # fmt: skip


def test_files_ask_the_same_question(part):
    found, folder = part
    arguments = found.command.split()[1:-2]
    again = kkt("verify", *arguments[1:], "--format", "json")
    assert again.code == 0
    saved = json.loads((folder / "e/report.json").read_text())
    assert json.loads(again.out)["verdict"] == saved["verdict"] == "globally"
    draw_batch(folder / "e.png", found)
    assert (folder / "e.png").read_bytes().startswith(PNG)
    with np.load(folder / "e/gradient.npz") as gradient:
        assert {array.dtype for array in gradient.values()} == {np.dtype(np.float32)}


def test_the_classifier_is_trained():
    images, classes = all_digits()
    network, accuracy = train_classifier(images, classes, 5)
    assert (network.dimension, *network.widths, network.outputs) == SIZES
    assert accuracy > 0.85
