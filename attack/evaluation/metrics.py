"""Distances and similarities between images, pair by pair and as blockwise matrices.

Images are rows (k, D) in the order of ``image_shape``: (H, W) or (H, W, C), channel last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from identify.arrays import FloatArray
from identify.errors import InvalidInputError

Shape = tuple[int, ...]
SSIM_WINDOWS = ("gaussian-3", "gaussian-11")
MAX_PSNR = 200.0
"""Decibels reported for images that agree to within 1e-20 in mean square."""
_SIGMA, _C1, _C2 = 1.5, 1e-4, 9e-4
_BLOCK = 2_000_000
# Cubic convolution (Keys 1981, a = -3/4) half way between two pixels.
_BICUBIC = (-3 / 32, 19 / 32, 19 / 32, -3 / 32)


def check_image_shape(shape: Shape, dimension: int | None = None) -> tuple[int, int, int]:
    """Return (H, W, C) of an image shape (H, W) or (H, W, C); (D, 1, 1) for rows (D,) of a table.

    Raises InvalidInputError for other shapes, sides below 2, and shapes without `dimension` pixels.

    Example:
        >>> check_image_shape((28, 28), 784)
        (28, 28, 1)
    """
    sides = tuple(int(side) for side in shape)
    if len(sides) == 1 and sides[0] >= 2 and dimension in (None, sides[0]):
        return sides[0], 1, 1
    if len(sides) not in (2, 3) or min(sides[:2]) < 2 or min(sides) < 1:
        raise InvalidInputError("image_shape", "(H, W) or (H, W, C), H, W >= 2", shape)
    if dimension is not None and math.prod(sides) != dimension:
        raise InvalidInputError(
            "image_shape", f"{dimension} numbers, as in a sample", shape, "give H,W or H,W,C"
        )
    return sides[0], sides[1], sides[2] if len(sides) == 3 else 1


def as_images(rows: FloatArray, shape: Shape) -> FloatArray:
    """View rows (k, D) as images (k, H, W, C)."""
    return rows.reshape(len(rows), *check_image_shape(shape, rows.shape[1]))


def l2_matrix(rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Euclidean distances (n, m) between rows (n, D) and columns (m, D).

    |a - b|^2 is expanded, so distances below 1e-8 of the norms drown in rounding; the distances of
    chosen pairs are computed again by `l2`.

    Cost: one product of n m D.

    Example:
        >>> l2_matrix(np.array([[3.0, 0.0]]), np.array([[0.0, 4.0], [3.0, 0.0]]))
        array([[5., 0.]])
    """
    squares = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", columns, columns)
    products = rows @ columns.T
    products *= -2.0
    products += squares
    return np.sqrt(np.maximum(products, 0.0, out=products), out=products)


def l2(a: FloatArray, b: FloatArray) -> FloatArray:
    """Euclidean distances (k,) of pairs of rows (k, D)."""
    return np.asarray(np.linalg.norm(a - b, axis=1))


def standardise(rows: FloatArray, shape: Shape) -> FloatArray:
    """N(x): every channel of every image minus its mean, over its unbiased standard deviation.

    A constant channel becomes 0, so its correlation with everything counts as 0.

    Source: Haim et al. (2022), "Reconstructing training data from trained neural networks".

    Example:
        >>> N = standardise(np.arange(8.0)[None], (2, 4))
        >>> round(float(N.mean()), 12), round(float((N**2).sum()), 12)
        (0.0, 7.0)
    """
    images = as_images(rows, shape)
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    pixels = images.shape[1] * images.shape[2]
    deviations = np.sqrt(np.sum(centred**2, axis=(1, 2), keepdims=True) / (pixels - 1))
    # Rounding of the mean leaves a constant channel at this size, not at 0.
    floor = 1e-14 * np.abs(images).max(axis=(1, 2), keepdims=True)
    flat = deviations <= floor
    centred /= np.where(flat, 1.0, deviations)
    centred[np.broadcast_to(flat, centred.shape)] = 0.0
    return np.asarray(centred.reshape(len(rows), -1))


def ncc_matrix(rows: FloatArray, columns: FloatArray, shape: Shape) -> FloatArray:
    """NCC distances |N(a) - N(b)|^2 (n, m), in [0, 4 (HW - 1) C].

    For channels that are not constant it is 2 (HW - 1) sum_c (1 - rho_c), rho_c the Pearson
    correlation of channel c.

    Cost: one product of n m D. Source: Haim et al. (2022), as `standardise`.

    Example:
        >>> a = np.array([[0.0, 1.0, 2.0, 5.0]])
        >>> ncc_matrix(a, np.vstack([3 * a + 1, -a]), (2, 2)).round(9)
        array([[ 0., 12.]])
    """
    return l2_matrix(standardise(rows, shape), standardise(columns, shape)) ** 2


def correlation(a: FloatArray, b: FloatArray, shape: Shape) -> FloatArray:
    """Mean over the channels of the Pearson correlations (k,) of pairs of rows, in [-1, 1]."""
    height, width, channels = check_image_shape(shape, a.shape[1])
    products = np.einsum("ij,ij->i", standardise(a, shape), standardise(b, shape))
    return np.asarray(products / ((height * width - 1) * channels))


def half_size(rows: FloatArray, shape: Shape) -> tuple[FloatArray, Shape]:
    """Images at half their size, rounded down, and the new shape.

    Bicubic interpolation half way between the pixels 2i and 2i + 1, without smoothing, borders
    repeated: what `torch.nn.functional.interpolate(scale_factor=1/2, mode="bicubic")` computes.

    Raises InvalidInputError for a side below 4. Source: Keys (1981), "Cubic convolution
    interpolation for digital image processing", with a = -3/4.

    Example:
        >>> half_size(np.ones((3, 30)), (5, 6))[1]
        (2, 3)
    """
    images = as_images(rows, shape)
    if min(images.shape[1:3]) < 4:
        raise InvalidInputError("image_shape", "sides of at least 4 to halve", shape)
    for axis in (1, 2):
        length = images.shape[axis]
        starts = 2 * np.arange(length // 2)
        taps = [np.clip(starts + shift, 0, length - 1) for shift in (-1, 0, 1, 2)]
        parts = [w * images.take(t, axis=axis) for w, t in zip(_BICUBIC, taps, strict=True)]
        images = np.asarray(parts[0] + parts[1] + parts[2] + parts[3])
    small = (images.shape[1], images.shape[2], *shape[2:])
    return images.reshape(len(rows), -1), small


def min_max(rows: FloatArray) -> FloatArray:
    """Every image stretched to [0, 1], all channels together; a constant image becomes 0.

    Example:
        >>> min_max(np.array([[-1.0, 0.0, 3.0], [2.0, 2.0, 2.0]]))
        array([[0.  , 0.25, 1.  ],
               [0.  , 0.  , 0.  ]])
    """
    low = rows.min(axis=1, keepdims=True)
    span = rows.max(axis=1, keepdims=True) - low
    return np.asarray((rows - low) / np.where(span > 0.0, span, 1.0))


def psnr(a: FloatArray, b: FloatArray) -> FloatArray:
    """Peak signal-to-noise ratio (k,) in dB of pairs with pixels in [0, 1], at most 200.

    Example:
        >>> psnr(np.array([[0.5, 0.5]]), np.array([[0.4, 0.6]])).round(6)
        array([20.])
    """
    error = np.mean((a - b) ** 2, axis=1)
    return np.asarray(-10.0 * np.log10(np.maximum(error, 10.0 ** (-MAX_PSNR / 10.0))))


def ssim(a: FloatArray, b: FloatArray, shape: Shape, window: str = "gaussian-3") -> FloatArray:
    """Structural similarity (k,) of pairs with pixels in [0, 1]: mean of the map over pixels.

    (2 mu_a mu_b + C1)(2 s_ab + C2) / ((mu_a^2 + mu_b^2 + C1)(s_a^2 + s_b^2 + C2)) with local
    moments under a Gaussian window of sigma 1.5, C1 = 1e-4, C2 = 9e-4, borders reflected.
    "gaussian-3", 3 x 3, is the window of the published reconstruction attacks; "gaussian-11",
    11 x 11, is the original one, by torchmetrics, whose Gaussian window is always that large. The
    two differ much: never compare values of one with values of the other.

    Raises:
        InvalidInputError: unknown window, images too small, or torchmetrics missing.

    Cost: about 60 k D flops for "gaussian-3".
    Source: Wang, Bovik, Sheikh & Simoncelli (2004), "Image quality assessment"; 3 x 3 in Haim et
        al. (2022), "Reconstructing training data from trained neural networks".

    Example:
        >>> a = np.linspace(0.0, 1.0, 16)[None]
        >>> ssim(a, a, (4, 4)), bool(ssim(a, 1.0 - a, (4, 4))[0] < 0)
        (array([1.]), True)
    """
    if a.shape != b.shape:
        raise InvalidInputError("b", f"shape {a.shape}", b.shape)
    if window not in SSIM_WINDOWS:
        raise InvalidInputError("ssim_window", f"one of {', '.join(SSIM_WINDOWS)}", window)
    values = np.empty(len(a))
    for part in _blocks(len(a), a.shape[1]):
        first, second = as_images(a[part], shape), as_images(b[part], shape)
        if window == "gaussian-3":
            values[part] = _ssim(first, second, _moments(first), _moments(second))
        else:
            values[part] = _ssim_torchmetrics(first, second)
    return values


def dssim(similarity: FloatArray) -> FloatArray:
    """Structural dissimilarity (1 - SSIM) / 2, in [0, 1]."""
    return np.asarray((1.0 - similarity) / 2.0)


def _moments(images: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = _blur(images)
    return mean, _blur(images**2) - mean**2


def _ssim(
    a: FloatArray,
    b: FloatArray,
    of_a: tuple[FloatArray, FloatArray],
    of_b: tuple[FloatArray, FloatArray],
) -> FloatArray:
    means = of_a[0] * of_b[0]
    covariance = _blur(a * b) - means
    ratio = (2.0 * means + _C1) * (2.0 * covariance + _C2)
    ratio /= (of_a[0] ** 2 + of_b[0] ** 2 + _C1) * (of_a[1] + of_b[1] + _C2)
    return np.asarray(ratio.mean(axis=(1, 2, 3)))


def _blur(images: FloatArray) -> FloatArray:
    """3 x 3 Gaussian means of images (k, H, W, C), reflected without repeating the border."""
    side = math.exp(-0.5 / _SIGMA**2)
    middle = 1.0 / (1.0 + 2.0 * side)
    side *= middle
    for axis in (1, 2):
        moved = np.moveaxis(images, axis, 0)
        result = middle * moved
        result[1:] += side * moved[:-1]
        result[:-1] += side * moved[1:]
        result[0] += side * moved[1]
        result[-1] += side * moved[-2]
        images = np.moveaxis(result, 0, axis)
    return images


def _ssim_torchmetrics(a: FloatArray, b: FloatArray) -> FloatArray:
    try:
        import torch
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise InvalidInputError(
            "ssim_window", "torch and torchmetrics for gaussian-11", "no such package",
            "pip install 'kktcert[attack]'",
        ) from error  # fmt: skip
    if min(a.shape[1:3]) < 6:
        raise InvalidInputError("image_shape", "sides of at least 6 for gaussian-11", a.shape[1:])
    planes = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, 3, 1))) for x in (a, b)]
    values = structural_similarity_index_measure(
        planes[0], planes[1], sigma=_SIGMA, data_range=1.0, reduction="none"
    )
    assert isinstance(values, torch.Tensor)
    return np.asarray(values.numpy().reshape(len(a)))


def _blocks(count: int, dimension: int) -> Iterator[slice]:
    step = max(1, _BLOCK // dimension)
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))
