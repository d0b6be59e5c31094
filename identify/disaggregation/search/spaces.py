"""What the gradients say about one sample, before and after others have been taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from identify.arrays import FloatArray
from identify.disaggregation.factor import Factor, IntArray
from identify.disaggregation.search.signals import Chain, Signals, maps_at


@dataclass(frozen=True, eq=False)
class Spaces:
    """The column and row spaces of the hidden layers from layer ``first`` upwards.

    A sample is a vector c (r,): V c is its input of layer ``first``, with a 1 below it if
    ``tail`` (r,), the bias row of V, is not None: then tail . c = 1. ``rows_map`` (m, r) and
    ``offset`` (m,) give z = offset + rows_map c; ``row_sizes`` (m,) are the lengths |w_j|.
    ``factors[i]`` is None for a layer whose rank is smaller than r; ``columns[i]`` its U, of the
    neurons ``subset`` alone if that is not None.
    ``lifted[i]`` says whether V has a bias row. ``homogeneous``: c counts up to a factor.
    ``two_sided``: -c has the same signals.
    """

    chain: Chain
    first: int
    factors: tuple[Factor | None, ...]
    columns: tuple[FloatArray | None, ...]
    lifted: tuple[bool, ...]
    rows_map: FloatArray
    offset: FloatArray
    row_sizes: FloatArray
    tail: FloatArray | None
    homogeneous: bool
    two_sided: bool = False
    subset: IntArray | None = None

    @property
    def rank(self) -> int:
        """r."""
        return int(self.rows_map.shape[1])

    @property
    def bottom(self) -> Factor:
        """The factorisation of layer ``first``."""
        factor = self.factors[0]
        assert factor is not None
        return factor

    @property
    def unknowns(self) -> int:
        """Unknowns of one sample: of c, and of p up to a factor."""
        fixed = int(self.tail is not None or self.homogeneous)
        return self.rank - fixed + max(0, self.chain.free - 1)

    def lift(self, index: int, feature: FloatArray) -> FloatArray:
        """The feature (m,) or its tangents (m, k), with the bias row if the layer has one."""
        if not self.lifted[index]:
            return feature
        below = np.ones(1) if feature.ndim == 1 else np.zeros((1, feature.shape[1]))
        return np.concatenate([feature, below])


@dataclass(frozen=True, eq=False)
class Coordinates:
    """One sample in the spaces of every layer: U^T delta and V^T h, (r,) each or None.

    ``delta`` and ``point`` are those of the first layer, whose spaces are always there.
    """

    deltas: tuple[FloatArray | None, ...]
    inputs: tuple[FloatArray | None, ...]
    delta: FloatArray
    point: FloatArray


def coordinates(spaces: Spaces, point: FloatArray, run: Signals) -> Coordinates:
    """Where a sample lies in the full spaces; ``point`` is c."""
    deltas: list[FloatArray | None] = []
    inputs: list[FloatArray | None] = []
    for i, factor in enumerate(spaces.factors):
        if factor is None:
            deltas.append(None)
            inputs.append(None)
            continue
        deltas.append(factor.columns.T @ run.deltas[i])
        lifted = None if i == 0 else spaces.lift(i, run.features[i - 1])
        inputs.append(point if lifted is None else factor.rows.T @ lifted)
    first = spaces.bottom.columns.T @ run.deltas[0]
    return Coordinates(tuple(deltas), tuple(inputs), first, point)


@dataclass(frozen=True, eq=False)
class View:
    """The spaces that are left, and the affine chart u of the samples in them.

    c = basis (centre + chart u); z = base + tangent u. ``left[i]`` is an orthonormal basis of
    what delta_i may be, ``right[i]`` of what the input of layer i may be, None where nothing is
    asked. ``references`` span the signals at the centre: the denominator leaves them out, since
    near the centre, where s' is nearly linear, everything fits.
    """

    spaces: Spaces
    basis: FloatArray
    centre: FloatArray
    chart: FloatArray
    base: FloatArray
    tangent: FloatArray
    left: tuple[FloatArray | None, ...]
    right: tuple[FloatArray | None, ...]
    references: tuple[FloatArray | None, ...] | None = None

    @property
    def dimension(self) -> int:
        """Unknowns of c in this view."""
        return int(self.chart.shape[1])

    def point(self, u: FloatArray) -> FloatArray:
        """c (r,) of u."""
        found: FloatArray = self.basis @ (self.centre + self.chart @ u)
        if self.spaces.homogeneous:
            found = found / np.linalg.norm(found)
        return found

    def chart_of(self, point: FloatArray) -> FloatArray:
        """u of c, if c lies in the view."""
        found: FloatArray = self.chart.T @ (self.basis.T @ point - self.centre)
        return found

    def preactivations(self, u: FloatArray) -> FloatArray:
        """z (m,) of the first layer."""
        found: FloatArray = self.base + self.tangent @ u
        return found


def full_view(spaces: Spaces) -> View:
    """The view before any sample is taken out, without references."""
    r = spaces.rank
    right = [None if f is None or i == 0 else f.rows for i, f in enumerate(spaces.factors)]
    return _view(spaces, np.eye(r), [_orthonormal(spaces, c) for c in spaces.columns], right)


def deflated_view(spaces: Spaces, found: Sequence[Coordinates]) -> View:
    """The view after samples have been taken out of every layer.

    With G = sum_i delta_i h_i^T of rank r, h_k^T G^+ delta_i = 0 for i unlike k: so delta_k lies
    in the complement of the h_i, and h_k in that of the delta_i, in the metric of G^+.

    Source: Wedderburn's rank reduction; Chu, Funderlic & Golub (1995).
    """
    if not found:
        return full_view(spaces)
    left: list[FloatArray | None] = []
    right: list[FloatArray | None] = []
    basis = np.eye(spaces.rank)
    for i, factor in enumerate(spaces.factors):
        whole = spaces.columns[i]
        if factor is None or whole is None:
            left.append(None)
            right.append(None)
            continue
        rows = _null([item.deltas[i] for item in found], factor.values)
        columns = whole @ _null([item.inputs[i] for item in found], factor.values)
        left.append(_orthonormal(spaces, columns))
        right.append(None if i == 0 else factor.rows @ rows)
        if i == 0:
            basis = rows
    return _view(spaces, basis, left, right)


def with_references(view: View, *, draws: Sequence[FloatArray] = ()) -> View:
    """The view with a denominator that leaves out the signals at its centre.

    Where the chart has no centre (``homogeneous``) the mean of the signals at ``draws`` stands for
    it.
    """
    chain = view.spaces.chain
    zero = np.zeros(view.dimension)
    points = list(draws) if draws else [zero]
    maps: list[list[FloatArray]] = []
    features: list[FloatArray] = []
    for u in points:
        here, features = maps_at(chain, view.preactivations(u))
        maps.append([m / max(float(np.linalg.norm(m)), 1e-300) for m in here])
    references: list[FloatArray | None] = []
    for i in range(len(view.left)):
        mean = np.asarray(sum(m[i] for m in maps))
        u_, s_, _ = np.linalg.svd(mean, full_matrices=False)
        references.append(u_[:, s_ > 1e-10 * s_[0]] if view.left[i] is not None else None)
    for i in range(1, len(view.left)):
        lifted = view.spaces.lift(i, features[i - 1])
        size = float(np.linalg.norm(lifted))
        there = view.right[i] is not None and not draws and size > 0.0
        references.append((lifted / size)[:, None] if there else None)
    return replace(view, references=tuple(references))


def _view(
    spaces: Spaces,
    basis: FloatArray,
    left: Sequence[FloatArray | None],
    right: Sequence[FloatArray | None],
) -> View:
    mapped = spaces.rows_map @ basis
    if spaces.tail is None:
        k = basis.shape[1]
        centre, chart = np.zeros(k), np.eye(k)
    else:
        tail = basis.T @ spaces.tail
        centre = tail / (tail @ tail)
        chart = np.linalg.svd(tail[None])[2][1:].T
    return View(
        spaces, basis, centre, chart, spaces.offset + mapped @ centre, mapped @ chart,
        tuple(left), tuple(right),
    )  # fmt: skip


def _orthonormal(spaces: Spaces, columns: FloatArray | None) -> FloatArray | None:
    if columns is None or spaces.subset is None:
        return columns
    return np.asarray(np.linalg.qr(columns)[0], dtype=np.float64)


def _null(rows: Sequence[FloatArray | None], values: FloatArray) -> FloatArray:
    """Orthonormal basis (r, r - k) of the vectors x with sum_j row_j x_j / s_j = 0 for k rows."""
    matrix = np.array([row for row in rows if row is not None]) / values
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-300)
    return np.asarray(np.linalg.svd(matrix)[2][len(matrix) :].T, dtype=np.float64)
