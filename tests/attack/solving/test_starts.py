"""Starts: noise, images, mixtures, recovered samples, and what is refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attack.objectives import Objective, haim_objective
from attack.solving.starts import StartImages, load_start, start_candidates
from identify.errors import FileError, InvalidInputError
from tests.attack import problems


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def haim(**form: Any) -> Objective:
    return problems.EVERY["haim"](activation="tanh", **form)


IMAGES = np.arange(20.0).reshape(4, 5) / 10


def test_noise_is_that_of_the_objective() -> None:
    objective = haim()
    found, plain = start_candidates(objective, 6, seed=3, scale=0.2), objective.start(6, 3, 0.2)
    assert torch.equal(found.x, plain.x)
    assert torch.equal(found.lam, plain.lam)
    assert found.labels is not None
    assert found.labels.tolist() == [-1, -1, -1, 1, 1, 1]


def test_images_come_first_and_noise_follows() -> None:
    objective = haim()
    noise = start_candidates(objective, 6, seed=3, scale=0.2)
    found = start_candidates(objective, 6, seed=3, scale=0.2, images=StartImages(IMAGES))
    assert np.array_equal(found.x[:4].numpy(), IMAGES)
    assert torch.equal(found.x[4:], noise.x[4:])


def test_some_of_many_images_by_the_seed() -> None:
    objective = haim()
    many = StartImages(np.arange(500.0).reshape(100, 5))
    found = [start_candidates(objective, 6, seed=seed, images=many).x for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    rows = found[0][:, 0] / 5
    assert torch.equal(rows, rows.round())
    assert len(set(rows.tolist())) == 6
    assert rows.tolist() == sorted(rows.tolist())


@pytest.mark.parametrize("mixture", ["pixel", "blend"])
def test_mixtures_run_from_noise_to_the_image(mixture: str) -> None:
    objective = haim()
    images = StartImages(np.full((4, 5), 7.0))
    noise = start_candidates(objective, 4, seed=1, scale=0.2).x
    shares, found = (0.0, 0.3, 0.6, 1.0), []
    for share in shares:
        found.append(
            start_candidates(
                objective, 4, seed=1, scale=0.2, images=images, share=share, mixture=mixture
            ).x
        )
    assert torch.equal(found[0], noise)
    assert bool((found[-1] == 7).all())
    if mixture == "pixel":
        kept = [x == 7 for x in found]
        assert all(bool((b | ~a).all()) for a, b in itertools.pairwise(kept))
        assert all(bool((x == 7).logical_or(x == noise).all()) for x in found)
        assert int(kept[1].sum()) < int(kept[2].sum())
    else:
        for share, x in zip(shares, found, strict=True):
            assert torch.allclose(x, share * 7 + (1 - share) * noise)


def test_labels_of_images_and_given_labels() -> None:
    objective = haim()
    images = StartImages(IMAGES, labels=np.array([1, 1, -1, 1]))
    found = start_candidates(objective, 5, images=images)
    assert found.labels is not None
    assert found.labels.tolist() == [1, 1, -1, 1, 1]
    found = start_candidates(objective, 5, images=images, labels=[-1] * 5)
    assert found.labels is not None
    assert found.labels.tolist() == [-1] * 5
    classes = problems.EVERY["multiclass"](activation="tanh")
    found = start_candidates(classes, 4, images=StartImages(IMAGES, labels=np.array([2, 0, 1, 2])))
    assert found.labels is not None
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == [2, 0, 1, 2]
    free = problems.EVERY["loo final"](activation="tanh")
    assert start_candidates(free, 4, images=images).labels is None


def test_a_recovery_starts_at_its_multipliers() -> None:
    network, truth = problems.planted_kkt_point(3, 5)
    objective = haim_objective(network, normaliser=3, floor=None, box=None)
    assert truth.labels is not None
    b = (truth.labels * truth.lam[:, 0]).numpy() / 3
    images = StartImages(truth.x.numpy(), coefficients=b)
    found = start_candidates(objective, 3, images=images)
    assert found.labels is not None
    assert torch.equal(found.labels, truth.labels)
    assert torch.allclose(found.lam / 3, torch.from_numpy(np.abs(b))[:, None] * 3, atol=1e-8)
    assert float(objective.value(found)) < 1e-16
    # Scaling a sample and its coefficient changes nothing.
    scaled = StartImages(2 * truth.x.numpy(), coefficients=b / 8)
    assert float(objective.value(start_candidates(objective, 3, images=scaled))) < 1e-16


def test_float32_and_other_labels() -> None:
    objective = haim(dtype=torch.float32)
    found = start_candidates(objective, 4, images=StartImages(IMAGES, labels=np.ones(4)))
    assert found.x.dtype == torch.float32
    assert found.labels is not None
    assert found.labels.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"share": 1.5, "images": StartImages(IMAGES)}, "share: expected a number from 0 to 1"),
        ({"mixture": "mean"}, "mixture: expected one of pixel, blend"),
        ({"images": StartImages(np.ones((2, 7)))}, "dimension 5, got 7"),
        ({"images": StartImages(IMAGES, labels=np.array([0, 1, 0, 1]))}, "labels"),
        ({"labels": [1.0, -1.0]}, "labels: expected 6"),
        ({"scale": -1.0}, "scale"),
        ({"scale": math.inf}, "scale"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        start_candidates(haim(), 6, **arguments)
    assert "\n" not in str(caught.value)


def test_no_candidates_and_fractions_as_classes() -> None:
    with pytest.raises(InvalidInputError, match="at least 1 candidate"):
        start_candidates(haim(), 0)
    classes = problems.EVERY["multiclass"](activation="tanh")
    with pytest.raises(InvalidInputError, match=r"class numbers, got 0\.5"):
        start_candidates(classes, 2, labels=[0.5, 1])


@pytest.mark.parametrize(
    "arguments",
    [
        {"samples": np.ones(3)},
        {"samples": np.full((2, 2), np.nan)},
        {"samples": np.ones((2, 0))},
        {"samples": np.ones((2, 2)), "labels": np.ones(3)},
        {"samples": np.ones((2, 2)), "coefficients": np.full(2, np.inf)},
    ],
)
def test_images_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="start"):
        StartImages(**arguments)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, samples=IMAGES, coefficients=[1, -1, 1.5, 2.0], error_bounds=np.zeros(4))
    found = load_start(path)
    assert np.array_equal(found.samples, IMAGES)
    assert found.coefficients is not None
    assert found.coefficients.tolist() == [1, -1, 1.5, 2.0]
    np.savez(path, images=np.full((3, 2, 2), 255, dtype=np.uint8), labels=[1, 2, 3])
    found = load_start(path)
    assert found.samples.shape == (3, 4)
    assert found.labels is not None
    hashes = {found.sha256(), StartImages(found.samples).sha256(), load_start(path).sha256()}
    assert len(hashes) == 2
    for bad in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(FileError):
            load_start(bad)
