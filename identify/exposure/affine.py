"""Samples that agree with a recovery up to one scale and one shift of all pixel values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify.arrays import FloatArray
from identify.errors import InvalidInputError
from identify.model.dataset import Dataset
from identify.text import number

_ENTRIES, _CORRELATED, _AGREES, _HARDLY = 8, 0.95, 0.1, 0.25


@dataclass(frozen=True)
class AffineMatch:
    """Recovered = scale * samples + shift for `count` of the recovered samples.

    Example:
        >>> str(AffineMatch(0.5, 0.0, 2))
        '2 recovered samples are yours times 0.5'
    """

    scale: float
    shift: float
    count: int

    def __str__(self) -> str:
        verb = "samples are" if self.count > 1 else "sample is"
        plus = f" plus {number(self.shift)}" if self.shift else ""
        return f"{self.count} recovered {verb} yours times {number(self.scale)}{plus}"

    def hardly_moves(self, samples: FloatArray) -> bool:
        """Whether the map changes the entries by less than a quarter of their deviation.

        A good recovery that is not exact has such a map, and no other pixel values.

        Example:
            >>> rows = np.random.default_rng(0).random((3, 20))
            >>> [AffineMatch(s, 0.0, 3).hardly_moves(rows) for s in (1.027, 0.95, 0.5, 255.0)]
            [True, True, False, False]
        """
        moved = (self.scale - 1.0) * samples + self.shift
        return float(np.sqrt(np.mean(moved**2))) < _HARDLY * float(np.std(samples))


def match_affinely(
    recovered: FloatArray, samples: FloatArray, *, fixed_scale: bool
) -> AffineMatch | None:
    """Find one scale and shift of the pixel values that make samples those of a recovery.

    With `fixed_scale` the lengths of recovered samples mean something; without, each is known up to
    a factor and the scale is 1. Pairs are those of highest correlation; the medians over them are
    the scale and the shift, which then has to bring both within a tenth of the norm.

    Cost: one product of k n d. None for fewer than 8 entries, where chance would do.

    Example:
        >>> rows = np.random.default_rng(0).random((3, 20))
        >>> match_affinely(rows[::-1] / 255 - 0.5, rows, fixed_scale=True).count
        3
    """
    if recovered.shape[1] < _ENTRIES or not np.isfinite(recovered).all():
        return None
    theirs, mine = _centred(recovered), _centred(samples)
    cosines = theirs @ mine.T
    partner = np.abs(cosines).argmax(axis=1)
    best = cosines[np.arange(len(recovered)), partner]
    chosen = np.flatnonzero(np.abs(best) > _CORRELATED)
    if not len(chosen):
        return None
    x, r = samples[partner[chosen]], recovered[chosen]
    spread = np.sqrt(np.maximum(np.var(x, axis=1), 1e-300))
    slopes = best[chosen] * np.std(r, axis=1) / spread
    shifts = r.mean(axis=1) - slopes * x.mean(axis=1)
    if fixed_scale:
        scale, shift = float(np.median(slopes)), float(np.median(shifts))
        away = np.linalg.norm(scale * x + shift - r, axis=1) / np.linalg.norm(r, axis=1)
    else:
        scale, shift = 1.0, float(np.median(shifts / slopes))
        r = r / slopes[:, None]
        away = np.linalg.norm(x + shift - r, axis=1) / np.linalg.norm(r, axis=1)
    size = float(np.abs(x).max())
    if abs(shift) < 1e-6 * abs(scale) * size:
        shift = 0.0
    count = len(set(partner[chosen[away < _AGREES]].tolist()))
    return AffineMatch(scale, shift, count) if count else None


def affine_note(
    recovered: FloatArray, samples: FloatArray, exposed: int, *, fixed_scale: bool
) -> list[str]:
    """What to say to an owner whose file has other pixel values than the network saw."""
    found = match_affinely(recovered, samples, fixed_scale=fixed_scale)
    if found is None or found.count <= exposed or found.hardly_moves(samples):
        return []
    std = 1.0 / found.scale
    mean = 0.0 - found.shift * std
    return [
        f"{found}: the file has other pixel values than the network saw (such as 0..255 for 0..1, "
        f"or before a normalisation), and nothing else is wrong with it; --mean {mean:.6g} "
        f"--std {std:.6g} compares x -> (x - mean) / std"
    ]


def normalised(data: Dataset, mean: str | None, std: str | None) -> FloatArray:
    """Return (x - mean) / std; both are a number, or one for each of three channels.

    Raises InvalidInputError for other numbers of numbers, and a deviation that is not positive.

    Example:
        >>> data = Dataset(np.ones((1, 12)), None, (3, 2, 2))
        >>> normalised(data, "1,0,0", "1,1,2")[0, ::4]
        array([0. , 1. , 0.5])
    """
    centre, unit = pixel_values(data, mean, std)
    return np.asarray((data.samples - centre) / unit)


def pixel_values(data: Dataset, mean: str | None, std: str | None) -> tuple[FloatArray, FloatArray]:
    """The mean and the deviation of every entry of a sample, each of shape (d,).

    Raises InvalidInputError as `normalised`.

    Example:
        >>> centre, unit = pixel_values(Dataset(np.ones((1, 3)), None, None), None, "0.5")
        >>> centre.tolist(), unit.tolist()
        ([0.0, 0.0, 0.0], [0.5, 0.5, 0.5])
    """
    size = data.samples.shape[1]
    centre = np.broadcast_to(_spread("--mean", mean, data, 0.0), size)
    unit = np.broadcast_to(_spread("--std", std, data, 1.0), size)
    if not np.all(unit > 0.0):
        raise InvalidInputError("--std", "positive numbers", repr(std))
    return np.array(centre), np.array(unit)


def _spread(option: str, text: str | None, data: Dataset, default: float) -> FloatArray:
    if text is None:
        return np.array(default)
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise InvalidInputError(option, "a number, or one for each channel", repr(text)) from None
    if not np.isfinite(values).all():
        raise InvalidInputError(option, "finite numbers", repr(text))
    if len(values) == 1:
        return values
    shape = data.image_shape or ()
    if len(shape) == 3 and len(values) == 3 and 3 in (shape[0], shape[2]):
        first = shape[2] != 3
        full = values[:, None, None] if first else values
        return np.asarray(np.broadcast_to(full, shape).reshape(-1))
    raise InvalidInputError(option, "as many numbers as the images in the file have channels",
                            f"{len(values)} for the shape {shape or 'of a row'}")  # fmt: skip


def _centred(rows: FloatArray) -> FloatArray:
    parts = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(parts, axis=1, keepdims=True)
    return np.asarray(parts / np.where(norms > 0.0, norms, 1.0))
