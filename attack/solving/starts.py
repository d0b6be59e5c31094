"""Where candidates start: noise, images, mixtures of both, recovered samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.solving.multipliers import optimal_multipliers
from identify.arrays import FloatArray, real_array
from identify.errors import InvalidInputError
from identify.model.dataset import load_samples
from identify.model.tensor_file import PathLike
from identify.model.untrusted import read_tensors

MIXTURES = ("pixel", "blend")


@dataclass(frozen=True, eq=False)
class StartImages:
    """Points to start from: ``samples`` (n, D), with ``labels`` (n,) or ``coefficients`` (n,).

    Coefficients b_i = lam_i y_i are those of a recovery; they give signs to candidates that need
    labels, and say that multipliers are to start at their best.

    Raises InvalidInputError for shapes that do not fit and numbers that are not finite.

    Example:
        >>> StartImages(np.zeros((3, 4))).count
        3
    """

    samples: FloatArray
    labels: npt.NDArray[Any] | None = None
    coefficients: FloatArray | None = None

    def __post_init__(self) -> None:
        samples = real_array("start", self.samples)
        if samples.ndim < 2 or 0 in samples.shape:
            raise InvalidInputError("start", "shape (n, D), n, D >= 1", samples.shape)
        count = len(samples)
        object.__setattr__(self, "samples", samples.reshape(count, -1))
        for name in ("labels", "coefficients"):
            given = getattr(self, name)
            if given is None:
                continue
            if np.shape(given) != (count,):
                raise InvalidInputError(f"start {name}", f"shape ({count},)", np.shape(given))
            object.__setattr__(self, name, real_array(f"start {name}", given))

    @property
    def count(self) -> int:
        """The number n of points."""
        return len(self.samples)

    def sha256(self) -> str:
        """Hash all arrays as little-endian float64."""
        digest = hashlib.sha256()
        for name in ("samples", "labels", "coefficients"):
            array = getattr(self, name)
            if array is not None:
                digest.update(f"{name} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


def load_start(path: PathLike) -> StartImages:
    """Load ``samples`` or ``images``, with ``labels`` or ``coefficients``, from an ``.npz`` file.

    The samples.npz of a recovery is one. Images are taken as they are, no mean is removed.

    Raises FileError with one line for everything that cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "samples.npz"
        >>> np.savez(path, samples=np.ones((2, 3)), coefficients=[0.5, -0.25])
        >>> load_start(path).coefficients
        array([ 0.5 , -0.25])
    """
    data = load_samples(path)
    file = read_tensors(path)
    found = file.floats("coefficients") if "coefficients" in file.shapes else None
    return StartImages(data.samples, data.labels, found)


def start_candidates(
    objective: Objective,
    count: int,
    *,
    seed: int = 0,
    scale: float = 0.1,
    images: StartImages | None = None,
    share: float = 1.0,
    mixture: str = "pixel",
    labels: npt.ArrayLike | None = None,
) -> Candidates:
    """Draw or take the candidates at which an attack starts.

    Without images x = scale * N(0, 1). With images the first candidates start at them, in their
    order, or at `count` of them chosen by the seed if there are more; the others are noise. A
    ``share`` below 1 mixes every image with its noise: "pixel" keeps each pixel with that
    probability, "blend" takes share * image + (1 - share) * noise. Masks are nested: with one seed
    a pixel that is kept at some share is kept at every larger one. Multipliers start as the
    objective draws them, at recovered samples at their best.

    Args:
        objective: what the candidates are for.
        count: m.
        seed: of all draws.
        scale: of the noise.
        images: points in the coordinates of the candidates.
        share: of the image in a mixture, 0 to 1.
        mixture: "pixel" or "blend".
        labels: (m,) for all candidates, in place of those of the images and of equal blocks.

    Raises:
        InvalidInputError: another dimension, settings out of range, labels that do not suit.

    Source: mixtures as in Runkel, Gandikota, Geiping, Schoenlieb & Moeller (2024), "Training data
    reconstruction: privacy due to uncertainty?".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-6-1,relu").initialise(seed=0)
        >>> objective = haim_objective(network, normaliser=4)
        >>> found = start_candidates(objective, 4, images=StartImages(np.ones((2, 4))))
        >>> (found.x == 1).all(1).tolist()
        [True, True, False, False]
    """
    if not 0 <= share <= 1:
        raise InvalidInputError("share", "a number from 0 to 1", share)
    if mixture not in MIXTURES:
        raise InvalidInputError("mixture", f"one of {', '.join(MIXTURES)}", mixture)
    noise = objective.start(count, seed, scale)
    x, chosen_labels = noise.x, noise.labels
    rows: Tensor | None = None
    if images is not None:
        if images.samples.shape[1] != objective.dimension:
            raise InvalidInputError(
                "start", f"points of dimension {objective.dimension}", images.samples.shape[1]
            )
        # A second stream: the noise is that of a start without images.
        generator = torch.Generator().manual_seed(seed + 1)
        rows = torch.arange(images.count)
        if images.count > count:
            rows = torch.randperm(images.count, generator=generator)[:count].sort().values
        points = torch.from_numpy(images.samples)[rows].to(x)
        below = noise.x[: len(rows)]
        if share < 1:
            points = _mixed(points, below, share, mixture, generator)
        x = torch.cat([points, noise.x[len(rows) :]])
        chosen_labels = _image_labels(images, rows, noise.labels)
    if labels is not None:
        chosen_labels = _given_labels(labels, noise.labels)
    start = Candidates(x, noise.lam, chosen_labels)
    objective.check(start)
    if images is not None and images.coefficients is not None and objective.quadratic:
        start = start.with_points(x, optimal_multipliers(objective, start))
    return start


def _mixed(
    points: Tensor, noise: Tensor, share: float, mixture: str, generator: torch.Generator
) -> Tensor:
    if mixture == "blend":
        return share * points + (1 - share) * noise
    uniform = torch.rand(points.shape, generator=generator, dtype=torch.float64)
    return torch.where((uniform < share).to(points.device), points, noise)


def _image_labels(images: StartImages, rows: Tensor, blocks: Tensor | None) -> Tensor | None:
    """The labels of the images, or the signs of their coefficients; blocks for the others."""
    if blocks is None:
        return None
    found = images.labels
    if found is None and images.coefficients is not None and blocks.dtype.is_floating_point:
        found = np.where(images.coefficients < 0, -1.0, 1.0)
    if found is None:
        return blocks
    own = _like(torch.from_numpy(np.asarray(found, dtype=np.float64))[rows], blocks)
    return torch.cat([own, blocks[len(own) :]])


def _given_labels(labels: npt.ArrayLike, blocks: Tensor | None) -> Tensor:
    given = torch.from_numpy(real_array("labels", labels).copy())
    return given if blocks is None else _like(given, blocks)


def _like(labels: Tensor, blocks: Tensor) -> Tensor:
    if not blocks.dtype.is_floating_point:
        wrong = labels[labels != labels.round()]
        if len(wrong):
            raise InvalidInputError("labels", "class numbers", float(wrong[0]))
    return labels.to(blocks.device, blocks.dtype)
