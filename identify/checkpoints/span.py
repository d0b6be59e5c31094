"""The span of the data from two checkpoints, and how many samples there are at least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.disaggregation.factor import EPSILON, Factor, factor
from identify.errors import FileError, InvalidInputError
from identify.markup import Shown
from identify.model.deep import DeepNetwork
from identify.model.tensor_file import AnyArray, PathLike
from identify.model.untrusted import read_tensors
from identify.text import counted, number
from identify.thresholds import ALIKE, BETTER_GAP, CLIFF, GAP_SHARE, SPAN_ROUNDINGS

_COMPRESSED = 300
_CLUSTER = 1e-3
_REFINEMENTS = 4
WEIGHTS = "weights"
_KEYS = ("basis", "singular_values", "has_bias")


@dataclass(frozen=True, eq=False)
class CheckpointSpan(Shown):
    """The row space of the first layer's change [dW | db], if a gap decides its dimension.

    ``basis`` (r, k) orthonormal rows, ``singular_values`` (r,) of the change; k counts the bias
    where ``has_bias``. ``kept`` is the scalar c of the change W_T - c W_0, below 1 with weight
    decay. Without a gap ``basis`` is empty and ``reason`` says so. ``source`` is "weights", or the
    name of the optimiser's moments that were taken for the change.
    """

    basis: FloatArray
    singular_values: FloatArray
    has_bias: bool
    kept: float
    gap: float
    reason: str
    change: FloatArray
    initial_sha256: str
    final_sha256: str
    source: str = WEIGHTS

    @property
    def samples(self) -> int | None:
        """The number of samples that took part at least."""
        return len(self.basis) or None

    @property
    def noise(self) -> float:
        """What follows the gap, relative to the largest singular value."""
        if not len(self.basis):
            return np.inf
        return float(self.singular_values[-1] / self.singular_values[0] / self.gap)

    @property
    def weights(self) -> FloatArray:
        """The change of the weights alone, (m, d)."""
        return self.change[:, : self.change.shape[1] - self.has_bias]

    def lifted(self, samples: FloatArray) -> FloatArray:
        """[x; 1] (n, k) of samples (n, d), or x without a bias.

        Raises InvalidInputError for samples of another dimension.
        """
        wanted = self.weights.shape[1]
        if samples.ndim != 2 or samples.shape[1] != wanted:
            raise InvalidInputError("samples", f"shape (n, {wanted})", samples.shape)
        return np.hstack([samples, np.ones((len(samples), int(self.has_bias)))])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the basis."""
        return {
            "samples_at_least": self.samples,
            "dimension": self.change.shape[1],
            "gap": self.gap,
            "kept": self.kept,
            "reason": self.reason,
            "source": self.source,
            "singular_values": [float(value) for value in self.singular_values],
            "initial_sha256": self.initial_sha256,
            "final_sha256": self.final_sha256,
        }

    def __str__(self) -> str:
        if self.samples is None:
            return f"No number and no span: {self.reason}."
        head = (
            f"At least {counted(self.samples, 'sample')}, in a space of {self.samples} dimensions."
        )
        if self.source != WEIGHTS:
            return "\n".join([
                head,
                f"  from the optimiser's {self.source} in the last checkpoint, a sum of gradients;",
                "  the weights alone have no gap. Samples that left nothing in it are not counted",
                f"  gap of its singular values in the first layer: {number(self.gap)}",
            ])  # fmt: skip
        lines = [
            head,
            "  assuming plain descent, with momentum or local steps, on the whole layer: no Adam",
            "  or other steps scaled entry by entry, and no merged adapters (LoRA)",
            f"  gap of the singular values of the first layer's change: {number(self.gap)}",
        ]
        if self.kept != 1.0:
            lines.append(f"  weight decay: {self.kept:.10g} of the initial weights is left")
        return "\n".join(lines)


def find_span(
    initial: DeepNetwork,
    final: DeepNetwork,
    *,
    kept: float | None = None,
    moments: Moments | None = None,
    seed: int = 0,
) -> CheckpointSpan:
    r"""Find the span of the training samples from the change of the first layer's weights.

    Each step of plain or momentum descent adds sum_i delta_i [x_i; 1]^T, so that the row space of
    W_T - c W_0 is spanned by the samples, and its rank r is at most their number; c = 1, or with
    decoupled or coupled weight decay the only scalar at which the rank falls. r needs a gap of 100;
    optimisers that rescale every entry, such as Adam, leave none.

    Args:
        initial, final: the two checkpoints.
        kept: c in (0, 1], found from the data unless given.
        moments: the optimiser's first moments of the first layer at the end, if they are known;
            used where the weights have no gap, as after Adam, whose moments are sums of gradients.
        seed: of the compression that finds c, and of the range finder.

    Returns:
        A `CheckpointSpan`; ``samples`` None is an answer, not an error.

    Raises InvalidInputError for networks of different shapes and equal weights.

    Cost: a truncated singular value decomposition of the first layer.

    Source: the first layer's gradient is a sum of outer products with the samples; c is the
    eigenvalue of the pencil (W_T, W_0) of multiplicity min(m, k) - r.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> start = DeepNetwork([rng.normal(size=(20, 9)), rng.normal(size=(1, 20))], None, "relu")
        >>> x, p = rng.normal(size=(4, 9)), rng.normal(size=(4, 1))
        >>> step = start.gradient(x, p).weights
        >>> moved = [0.9 * w - 0.1 * g for w, g in zip(start.weights, step)]
        >>> end = DeepNetwork(moved, None, "relu")
        >>> found = find_span(start, end)
        >>> found.samples, round(found.kept, 9)
        (4, 0.9)
    """
    before, after = initial.weights[0], final.weights[0]
    if before.shape != after.shape:
        raise InvalidInputError("final", f"a first layer of shape {before.shape}", after.shape)
    if kept is not None and not 0.0 < kept <= 1.0:
        raise InvalidInputError("kept", "a share in (0, 1]", kept)
    if np.array_equal(before, after):
        raise InvalidInputError("final", "weights that moved", "the same first layer")
    scalar = 1.0 if kept is None else kept
    found = _gap(before, after, after - scalar * before, seed)
    if kept is None:
        guess = _kept(before, after, seed) if found.reason else 1.0
        better = None if guess is None else _refined(before, after, guess, seed)
        if better is not None:
            other = _gap(before, after, after - better * before, seed)
            if not other.reason and (found.reason or other.gap > BETTER_GAP * found.gap):
                scalar, found = better, other
    moved = _moved_biases(initial, final, scalar)
    both = [_gap(before, after, np.column_stack([found.change, part]), seed) for part in moved]
    # Decay may leave biases out: the wrong reading of them adds a direction.
    there = [part for part in both if not part.reason]
    if there and not found.reason:
        found = min(there, key=lambda part: part.split.rank)
    if found.reason and moments is not None:
        matrix = moments.matrix
        level = stored_precision(matrix) * float(np.sqrt(np.mean(matrix**2)))
        split = factor(matrix, seed=seed)
        summed = _Gap(matrix, split, _undecided(matrix, split, level, _kinds(matrix)))
        if not summed.reason:
            return CheckpointSpan(
                summed.basis(), summed.split.values, moments.has_bias, 1.0, summed.gap, "",
                summed.change, initial.sha256(), final.sha256(), moments.name,
            )  # fmt: skip
    return CheckpointSpan(
        basis=found.basis(),
        singular_values=np.empty(0) if found.reason else found.split.values,
        has_bias=bool(there) and not found.reason,
        kept=scalar,
        gap=found.gap,
        reason=found.reason,
        change=found.change,
        initial_sha256=initial.sha256(),
        final_sha256=final.sha256(),
    )


@dataclass(frozen=True, eq=False)
class Moments:
    """An optimiser's first moments of the first layer (m, k), its bias's as the last column."""

    name: str
    matrix: FloatArray
    has_bias: bool


def first_moments(name: str, arrays: Sequence[AnyArray], network: DeepNetwork) -> Moments | None:
    """The first layer's among the moments of all parameters in order, or None.

    The layer is the first array of its shape, and its bias may follow.

    Example:
        >>> net = DeepNetwork([np.eye(2, 3), np.ones((1, 2))], [np.ones(2), None], "relu")
        >>> found = first_moments("exp_avg", [np.eye(2, 3), np.ones(2), np.ones((1, 2))], net)
        >>> found.matrix.shape, found.has_bias
        ((2, 4), True)
    """
    shape = network.weights[0].shape
    for index, array in enumerate(arrays):
        if array.shape != shape:
            continue
        matrix = np.asarray(array, dtype=np.float64)
        after = arrays[index + 1] if index + 1 < len(arrays) else None
        if network.biases[0] is not None and after is not None and after.shape == shape[:1]:
            matrix = np.column_stack([matrix, np.asarray(after, dtype=np.float64)])
        if not np.isfinite(matrix).all() or not matrix.any():
            return None
        return Moments(name, matrix, matrix.shape != shape)
    return None


def _moved_biases(initial: DeepNetwork, final: DeepNetwork, kept: float) -> list[FloatArray]:
    """The change of the first biases, decayed as the weights are or not at all; none if frozen."""
    before, after = initial.biases[0], final.biases[0]
    if before is None or after is None or np.array_equal(before, after):
        return []
    plain = after - before
    return [plain] if kept == 1.0 else [after - kept * before, plain]


@dataclass(frozen=True, eq=False)
class _Gap:
    """A change, its factors, and why they decide nothing."""

    change: FloatArray
    split: Factor
    reason: str

    @property
    def gap(self) -> float:
        return self.split.gap

    def basis(self) -> FloatArray:
        """Orthonormal rows (r, k); none without a gap."""
        if self.reason:
            return np.empty((0, self.change.shape[1]))
        return np.ascontiguousarray(self.split.rows.T)


def _gap(before: FloatArray, after: FloatArray, change: FloatArray, seed: int) -> _Gap:
    """The factors of a change of weights, held to the rounding of the weights."""
    split = factor(change, seed=seed)
    level = stored_precision(after) * float(np.sqrt(np.mean(after**2)))
    return _Gap(change, split, _undecided(change, split, level, _kinds(after - before)))


def _kinds(moved: FloatArray) -> int:
    """The number of different columns that moved, to six digits."""
    digits = np.round(moved[:, moved.any(axis=0)] / (1e-6 * float(np.abs(moved).max())))
    return int(np.unique(digits, axis=1).shape[1])


def _undecided(change: FloatArray, split: Factor, level: float, kinds: int) -> str:
    if split.rank >= min(change.shape):
        return "the change has the full rank of the layer"
    rows, columns = change.shape
    floor = level * (np.sqrt(rows) + np.sqrt(columns))
    digits = max(float(split.values[0]) / floor, 1.0)
    # Values that fall slowly, as after Adam, reach the rounding too and end with a small step.
    slow = split.gap < digits**GAP_SHARE or (
        2 * split.rank > min(change.shape) and split.gap < CLIFF
    )
    if not split.clear or slow or split.noise > SPAN_ROUNDINGS * level:
        return (
            "the singular values of the first layer's change have no gap above the rounding of the "
            "weights, as after Adam, or with more samples than the layer can hold, or samples "
            "whose loss has no slope"
        )
    # Few grey levels leave few different columns, which steps scaled entry by entry nearly fill.
    if split.rank > 1 and 4 * split.rank > 3 * min(kinds, rows):
        return "the change nearly has the rank of its different columns, as after Adam"
    sizes = np.abs(change[change != 0.0])
    if float(np.median(sizes)) > ALIKE * float(np.sqrt(np.mean(sizes**2))):
        return "the entries moved by like amounts, as after Adam or steps of signs"
    return ""


def stored_precision(array: FloatArray) -> float:
    """The unit of the coarsest floating-point format that holds every number.

    Example:
        >>> stored_precision(np.array([0.1], np.float32).astype(float)) == 2.0**-23
        True
    """
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
        if not np.array_equal(narrow, array):
            return EPSILON
        if np.array_equal(array.astype(np.float16), array):
            return float(np.finfo(np.float16).eps)
    if not np.any(narrow.view(np.uint32) & 0xFFFF):
        return 2.0**-7
    return float(np.finfo(np.float32).eps)


def _kept(before: FloatArray, after: FloatArray, seed: int) -> float | None:
    """Where after - c before loses rank, about: most of the eigenvalues of a compressed pencil."""
    rng = np.random.default_rng(seed)
    size = min(_COMPRESSED, *before.shape)
    left = np.linalg.qr(rng.normal(size=(before.shape[0], size)))[0]
    right = np.linalg.qr(rng.normal(size=(before.shape[1], size)))[0]
    small_before, small_after = left.T @ before @ right, left.T @ after @ right
    values = np.asarray(linalg.eigvals(small_after, small_before), dtype=np.complex128)
    real = values[np.isfinite(values)].real
    if not len(real):
        return None
    guess = float(np.median(real))
    if (
        np.sum(np.abs(values - guess) <= _CLUSTER * abs(guess)) < 0.1 * size
        or not 0.0 < guess <= 1.0
    ):
        return None
    return guess


def _refined(before: FloatArray, after: FloatArray, guess: float, seed: int) -> float | None:
    """The scalar by least squares on what the spaces of the change do not hold."""
    for _ in range(_REFINEMENTS):
        split = factor(after - guess * before, seed=seed)
        if split.rank >= min(before.shape):
            return None
        outer, inner = _outside(after, split), _outside(before, split)
        size = float(np.sum(inner**2))
        if size == 0.0:
            return None
        guess = float(np.sum(outer * inner)) / size
    return guess if 0.0 < guess < 1.0 else None


def _outside(matrix: FloatArray, split: Factor) -> FloatArray:
    """The part of a matrix that the factors' spaces do not hold."""
    part = matrix - split.columns @ (split.columns.T @ matrix)
    return np.asarray(part - (part @ split.rows) @ split.rows.T)


def save_span(path: PathLike, span: CheckpointSpan) -> None:
    """Write basis, singular values and the hashes of both networks as safetensors.

    Raises InvalidInputError for a span without a gap.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> start = DeepNetwork([np.eye(9)[:8], np.ones((1, 8))], None, "relu")
        >>> rng = np.random.default_rng(0)
        >>> change = rng.normal(size=(8, 2)) @ rng.normal(size=(2, 9))
        >>> end = DeepNetwork([start.weights[0] + change, np.ones((1, 8))], None, "relu")
        >>> path = Path(tempfile.mkdtemp()) / "span.safetensors"
        >>> save_span(path, find_span(start, end))
        >>> load_span(path)[0].shape
        (2, 9)
    """
    from safetensors.numpy import save_file

    if span.samples is None:
        raise InvalidInputError("span", "a span that a gap decides", span.reason)
    arrays = {
        "basis": np.ascontiguousarray(span.basis),
        "singular_values": np.ascontiguousarray(span.singular_values),
        "has_bias": np.array([span.has_bias], dtype=np.int64),
    }
    hashes = {"initial_sha256": span.initial_sha256, "final_sha256": span.final_sha256}
    save_file(arrays, str(path), hashes)


def load_span(path: PathLike) -> tuple[FloatArray, FloatArray, bool]:
    """Read basis (r, k), singular values (r,) and whether k counts a bias, as `save_span` wrote.

    Raises FileError for anything else.
    """
    file = read_tensors(path)
    missing = [key for key in _KEYS if key not in file.shapes]
    if missing:
        raise FileError(file.path, f"has no {missing[0]!r}", "give what `kktcert span` wrote")
    basis, values = file.floats("basis"), file.floats("singular_values")
    if basis.ndim != 2 or values.shape != basis.shape[:1]:
        raise FileError(file.path, "holds no basis (r, k) with r singular values")
    return basis, values, bool(np.any(file.floats("has_bias", integers=True)))
