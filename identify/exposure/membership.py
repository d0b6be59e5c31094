"""Whether given samples took part: their traces in the changes of linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from identify.arrays import FloatArray
from identify.disaggregation.factor import EPSILON, Factor, factor
from identify.errors import InvalidInputError
from identify.markup import Shown
from identify.text import counted, number, table
from identify.thresholds import APART, OWN_ERRORS, SURE

_OPEN = "no clear gap"
_BELOW = "its rank is below another layer's, or that layer's is open"
_ONE_LAYER = (
    "One layer is used: a mixture of members, or without a bias a multiple, would count as one."
)


class Membership(StrEnum):
    """Whether a sample took part."""

    MEMBER = "member"
    NO_TRACE = "no trace"
    UNDECIDED = "undecided"


@dataclass(frozen=True, eq=False)
class Traces:
    """What n samples would leave in one layer: [h; 1] (n, t, k) at t positions.

    ``cotangents`` delta (n, t, m), up to scale, where the loss and the labels are known.

    Raises InvalidInputError for shapes that do not fit each other.

    Example:
        >>> Traces(np.ones((4, 1, 3))).inputs.shape
        (4, 1, 3)
    """

    inputs: FloatArray
    cotangents: FloatArray | None = None

    def __post_init__(self) -> None:
        for name, array in (("inputs", self.inputs), ("cotangents", self.cotangents)):
            if array is not None and (array.ndim != 3 or array.shape[:2] != self.inputs.shape[:2]):
                raise InvalidInputError(name, "shape (n, t, k)", array.shape)


@dataclass(frozen=True, eq=False)
class LayerMemory:
    """One linear layer: its change, what the samples would leave there, and what others would.

    ``change`` [dW | db] (m, k) is a sum of delta [h; 1]^T over the samples that took part, and over
    positions where weights are shared: a gradient, or a sum of several along a plain descent.
    ``held_out`` are samples that surely took no part.

    Example:
        >>> LayerMemory("fc", np.ones((2, 3)), Traces(np.ones((4, 1, 3)))).name
        'fc'
    """

    name: str
    change: FloatArray
    samples: Traces
    held_out: Traces | None = None

    def __post_init__(self) -> None:
        for traces in (self.samples, self.held_out):
            for array, axis in (
                () if traces is None else ((traces.inputs, 1), (traces.cotangents, 0))
            ):
                if array is not None and array.shape[2] != self.change.shape[axis]:
                    raise InvalidInputError(
                        self.name, f"(n, t, {self.change.shape[axis]})", array.shape
                    )  # fmt: skip


@dataclass(frozen=True)
class LayerFacts:
    """The rank of a layer's change, the gap that decided it, and why the layer is not used."""

    name: str
    shape: tuple[int, int]
    rank: int
    gap: float
    reason: str

    @property
    def used(self) -> bool:
        """Whether the layer can tell members from others."""
        return not self.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "rank": self.rank,
            "gap": self.gap,
            "used": self.used,
            "reason": self.reason,
        }


@dataclass(frozen=True, eq=False)
class Fit:
    """How well n samples fit a space: ``scores`` in expected errors of a member, of all positions.

    ``lowest`` are the scores of half of the positions, ``residuals`` the relative ones of all. A
    score is NaN where the error that a member would have hides what chance leaves.
    """

    scores: FloatArray
    lowest: FloatArray
    residuals: FloatArray

    @staticmethod
    def unknown(count: int) -> Fit:
        """No fit known yet."""
        nothing = np.full(count, np.nan)
        return Fit(nothing, nothing, nothing)

    def worst(self, other: Fit) -> Fit:
        """The worse of two fits, sample by sample; where one is hidden the other counts."""
        pairs = (
            (self.scores, other.scores),
            (self.lowest, other.lowest),
            (self.residuals, other.residuals),
        )
        return Fit(*(np.fmax(mine, theirs) for mine, theirs in pairs))


@dataclass(frozen=True, eq=False)
class MembershipReport(Shown):
    """For each sample whether it took part, its fit, and a p-value against held-out samples.

    ``p_values`` (n,) are (1 + the held-out samples that fit as well) / (1 + their number).
    """

    answers: tuple[Membership, ...]
    fit: Fit
    p_values: FloatArray | None
    held_out: Fit | None
    layers: tuple[LayerFacts, ...]
    reason: str

    @property
    def members(self) -> int:
        """How many samples took part."""
        return sum(answer is Membership.MEMBER for answer in self.answers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is not finite is None."""
        return {
            "members": self.members,
            "reason": self.reason,
            "samples": [
                {
                    "answer": answer.value,
                    "score": _finite(self.fit.scores[i]),
                    "residual": _finite(self.fit.residuals[i]),
                    "p_value": None if self.p_values is None else float(self.p_values[i]),
                }
                for i, answer in enumerate(self.answers)
            ],
            "held_out_scores": None
            if self.held_out is None
            else [_finite(score) for score in self.held_out.scores],
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def __str__(self) -> str:
        open_ = sum(answer is Membership.UNDECIDED for answer in self.answers)
        lines = [f"{self.members} of {len(self.answers)} samples took part"
                 + (f", {open_} undecided." if open_ else ".")]  # fmt: skip
        lines += [self.reason] if self.reason else []
        for layer in self.layers:
            used = "used" if layer.used else f"not used: {layer.reason}"
            lines.append(
                f"  {layer.name}: rank {layer.rank} of {min(layer.shape)}, "
                f"gap {number(layer.gap)}; {used}"
            )
        # Counted from 0, as arrays and audits do.
        header = ["sample", "answer", "residual", "score", "p"]
        rows = [
            [str(i), answer.value, *(number(float(v)) for v in values if v is not None)]
            for i, (answer, *values) in enumerate(
                zip(self.answers, self.fit.residuals, self.fit.scores, self._p(), strict=True)
            )
        ]
        lines += table(header[: len(rows[0])], rows)
        return "\n".join(lines)

    def _p(self) -> list[float | None]:
        return [None] * len(self.answers) if self.p_values is None else list(self.p_values)


def find_members(
    layers: Sequence[LayerMemory], *, noise: float | None = None, seed: int = 0
) -> MembershipReport:
    r"""Say of each sample whether its inputs lie in the row space of every layer's change.

    With change = sum_i delta_i [h_i; 1]^T and independent delta_i the row space, of rank r < k,
    holds the [h; 1] of every sample that took part; another input lies in it with probability 0.
    A member's residual \|(I - V V^T) [h; 1]\| / \|[h; 1]\| is the error of V alone, about
    noise sqrt(k) \|S^-1 V^T [h; 1]\| / \|[h; 1]\|; the score is their quotient. A member has
    scores up to 10 at all positions in all layers; no trace means scores from 100 at half of the
    positions of the lowest layer. Between the two nothing is decided. Where labels are known delta
    is tested against the column space likewise. A layer whose rank has no clear gap, is that of its
    width or below another layer's is left out. "No trace" is not absence: a sample whose loss has
    no slope leaves none. Mixtures of members lie in the lowest layer's space as members do, and
    without biases multiples too: where only that layer is used they count as members.

    Args:
        layers: what each layer remembers, and what the samples would leave in it.
        noise: the error of an entry of a change, relative to the root mean square of the change;
            without it what follows the gap, at least rounding.
        seed: of the range finder for large layers.

    Raises InvalidInputError for no layers, or layers of different numbers of samples.

    Cost: one truncated singular value decomposition a layer, and n t k r.

    Source: `factor` for the spaces; first-order perturbation of singular vectors for their error.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> batch, others = rng.normal(size=(2, 3, 1, 20))
        >>> change = rng.normal(size=(30, 3)) @ batch[:, 0]
        >>> both = Traces(np.concatenate([batch, others]))
        >>> [answer.value for answer in find_members([LayerMemory("fc", change, both)]).answers]
        ['member', 'member', 'member', 'no trace', 'no trace', 'no trace']
    """
    count, controls = _counts(layers)
    splits = [factor(x.change, seed=seed) if np.any(x.change) else None for x in layers]
    facts = _usable(layers, splits)
    told = [fact.used for fact in facts]
    sure = any(told)
    if not sure:
        told = [fact.reason in (_OPEN, _BELOW) for fact in facts]
    first: Fit | None = None
    fit, control = Fit.unknown(count), None if controls is None else Fit.unknown(controls)
    for layer, split, use in zip(layers, splits, told, strict=True):
        if split is None or not use:
            continue
        typical = float(np.sqrt(np.mean(layer.change**2)))
        error = _Error(max(split.noise, (noise or 0.0) * typical), typical)
        if first is None:
            first = _fit_space(layer.samples.inputs, split.rows, split.values, error)
        fit = fit.worst(_fit(layer.samples, split, error))
        if control is not None and layer.held_out is not None:
            control = control.worst(_fit(layer.held_out, split, error))
    p_values = None if control is None else _p_values(fit, control)
    reason = _doubt(sure, any(told), control)
    answers = (Membership.UNDECIDED,) * count
    if sure and first is not None:
        answers = tuple(
            _answer(float(whole), float(low), bool(reason))
            for whole, low in zip(fit.scores, first.lowest, strict=True)
        )
        reason = reason or _contradiction(answers, fit, first)
        backward = any(layer.samples.cotangents is not None for layer in layers)
        if not reason and sum(told) == 1 and not backward and Membership.MEMBER in answers:
            reason = _ONE_LAYER
    return MembershipReport(answers, fit, p_values, control, facts, reason)


def _contradiction(answers: Sequence[Membership], fit: Fit, first: Fit) -> str:
    """What it means that samples fit the lowest layer and not all that is above it."""
    undecided = np.array([answer is Membership.UNDECIDED for answer in answers])
    count = int(np.sum(undecided & (first.scores <= SURE) & (fit.scores >= APART)))
    if not count:
        return ""
    return (
        f"{counted(count, 'sample')} fit the lowest layer and not the layers above, or not the "
        "label: mixtures of members do, members with another label, and all members if the "
        "activation is not the network's."
    )


def _p_values(fit: Fit, control: Fit) -> FloatArray:
    """(1 + held-out samples that fit as well) / (1 + their number), by residuals."""
    theirs, mine = control.residuals, fit.residuals
    return np.asarray((1 + np.sum(~(theirs > mine[:, None]), axis=1)) / (1 + len(theirs)))


def _doubt(sure: bool, any_layer: bool, control: Fit | None) -> str:
    """Why nothing is decided, or nothing."""
    if not sure:
        more = " The residuals only order the samples." if any_layer else ""
        return f"Cannot tell: no layer's rank is below its width with a clear gap.{more}"
    if control is None:
        return ""
    close = int(np.sum(~(control.lowest >= APART)))
    if not close:
        return ""
    return (
        f"{close} of {len(control.scores)} held-out samples fit, or nearly: these layers do not "
        "tell members from others."
    )


def _counts(layers: Sequence[LayerMemory]) -> tuple[int, int | None]:
    counts = {len(layer.samples.inputs) for layer in layers}
    controls = {None if x.held_out is None else len(x.held_out.inputs) for x in layers}
    if len(counts) != 1 or len(controls) != 1:
        raise InvalidInputError(
            "layers", "at least one, with the same samples in each", f"{len(layers)} layers"
        )
    return counts.pop(), controls.pop()


def _usable(
    layers: Sequence[LayerMemory], splits: Sequence[Factor | None]
) -> tuple[LayerFacts, ...]:
    """The layers whose row space can hold every sample and is not the whole space.

    Cotangents of a softmax sum to 0, so that the rank of an output layer ends one below its width;
    a layer of a smaller rank than another has dependent cotangents: its row space lacks samples.
    So has one beside a layer that is full or has no gap, unless that layer is the narrower one.
    """
    found = []
    for layer, split in zip(layers, splits, strict=True):
        shape = (layer.change.shape[0], layer.change.shape[1])
        if split is None:
            found.append(LayerFacts(layer.name, shape, 0, 1.0, "its change is 0"))
            continue
        reason = "" if split.clear else _OPEN
        if split.rank >= min(shape) - 1:
            reason = "its rank is that of its width"
        found.append(LayerFacts(layer.name, shape, split.rank, split.gap, reason))
    # A layer without a gap may hold more samples than the others show.
    most = max(
        (min(fact.shape) if fact.reason == _OPEN else fact.rank for fact in found), default=0
    )
    return tuple(
        replace(fact, reason=_BELOW) if fact.used and fact.rank < most else fact for fact in found
    )


@dataclass(frozen=True)
class _Error:
    """The error of an entry of a change, and the root mean square of its entries."""

    entry: float
    typical: float

    def of_residuals(
        self, vectors: FloatArray, inside: FloatArray, values: FloatArray
    ) -> FloatArray:
        """The size of a member's residual: that of the space, and of the vector's own rounding.

        Who computed the gradient rounded the vectors as coarsely as the gradient itself, which
        moves the space without widening it.
        """
        dimension = vectors.shape[2]
        reach = np.linalg.norm(inside / values, axis=2) / _lengths(vectors)
        own = OWN_ERRORS * self.entry / self.typical + EPSILON * np.sqrt(dimension)
        return np.asarray(self.entry * np.sqrt(dimension) * reach + own)


def _fit(traces: Traces, split: Factor, error: _Error) -> Fit:
    """The worse fit of the two spaces; the column space only where cotangents are known."""
    fit = _fit_space(traces.inputs, split.rows, split.values, error)
    if traces.cotangents is None:
        return fit
    return fit.worst(_fit_space(traces.cotangents, split.columns, split.values, error))


def _fit_space(vectors: FloatArray, basis: FloatArray, values: FloatArray, error: _Error) -> Fit:
    inside = vectors @ basis
    residuals = np.linalg.norm(vectors - inside @ basis.T, axis=2) / _lengths(vectors)
    expected = error.of_residuals(vectors, inside, values)
    chance = np.sqrt(1.0 - basis.shape[1] / vectors.shape[2])
    scores = residuals / expected
    # A zero lies in every space.
    empty = ~np.any(vectors, axis=2)
    scores = np.where(empty | (expected * APART > chance), np.nan, scores)
    seen = ~np.isnan(scores).all(axis=1)
    lowest, whole = np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    lowest[seen], whole[seen] = (
        np.nanmedian(scores[seen], axis=1), np.nanmax(scores[seen], axis=1)
    )  # fmt: skip
    return Fit(whole, lowest, np.max(residuals, axis=1))


def _lengths(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=2)
    return np.where(lengths > 0.0, lengths, 1.0)


def _answer(whole: float, lowest: float, overlap: bool) -> Membership:
    """Member: everything fits. No trace: half of the lowest layer's positions do not."""
    if lowest >= APART:
        return Membership.NO_TRACE
    return Membership.MEMBER if whole <= SURE and not overlap else Membership.UNDECIDED


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def with_ones(inputs: FloatArray) -> FloatArray:
    """Append the 1 of the bias to inputs (..., k).

    Example:
        >>> with_ones(np.zeros((1, 2)))
        array([[0., 0., 1.]])
    """
    return np.concatenate([inputs, np.ones((*inputs.shape[:-1], 1))], axis=-1)
