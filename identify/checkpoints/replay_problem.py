"""A training run as equations in the coordinates of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.checkpoints.recipe import Recipe
from identify.checkpoints.simulate import Sides, SpanNetwork, tangents, targets, train
from identify.checkpoints.span import CheckpointSpan
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork
from identify.model.losses import loss_slope


@dataclass(frozen=True, eq=False)
class ReplayProblem:
    """The training run as equations in the coordinates of the samples."""

    start: SpanNetwork
    final: tuple[FloatArray, ...]
    scales: tuple[float, ...]
    labels: FloatArray
    recipe: Recipe
    centre: FloatArray
    frame: FloatArray
    fit_rate: bool
    label_frame: FloatArray | None = None

    @property
    def unknowns(self) -> int:
        """The number of unknowns: points, soft labels where they are fitted, the rate."""
        soft = 0 if self.label_frame is None else self.label_frame.shape[1]
        return int(len(self.labels) * (self.frame.shape[1] + soft) + self.fit_rate)

    def wanted(self, u: FloatArray) -> FloatArray:
        """The labels, or soft labels (n, C) of the unknowns."""
        if self.label_frame is None:
            return self.labels
        n, width = len(self.labels), self.frame.shape[1]
        inner = u[n * width : n * (width + self.label_frame.shape[1])].reshape(n, -1)
        return np.asarray(self.labels + inner @ self.label_frame.T)

    def hardened(self, u: FloatArray) -> tuple[ReplayProblem, FloatArray]:
        """The problem with soft labels rounded to the nearest ones, and the unknowns that stay."""
        soft = self.wanted(u)
        if soft.shape[1] > 1:
            hard = np.eye(soft.shape[1])[soft.argmax(axis=1)]
        else:
            hard = (soft > 0.5).astype(np.float64)
        tail = u[len(u) - int(self.fit_rate) :]
        points = u[: len(hard) * self.frame.shape[1]]
        return replace(self, labels=hard, label_frame=None), np.concatenate([points, tail])

    def points(self, u: FloatArray) -> FloatArray:
        """Coordinates (n, r) of the unknowns."""
        inner = u[: len(self.labels) * self.frame.shape[1]].reshape(len(self.labels), -1)
        return np.asarray(self.centre + inner @ self.frame.T)

    def rated(self, u: FloatArray) -> Recipe:
        """The recipe with the rate of the unknowns."""
        if not self.fit_rate:
            return self.recipe
        return replace(self.recipe, rate=self.recipe.rate * float(np.exp(u[-1])))

    def residual(
        self, u: FloatArray, network: SpanNetwork | None = None, sides: Sides | None = None
    ) -> FloatArray:
        """Trained layers minus the final ones, each over the norm of its change."""
        got = train(network or self.start, self.points(u), self.wanted(u), self.rated(u), sides)
        return self.distances(got)

    def distances(self, got: Sequence[FloatArray]) -> FloatArray:
        """Layers minus the final ones, each over the norm of its change, in one vector."""
        return np.concatenate([
            ((a - b) * s).ravel() for a, b, s in zip(got, self.final, self.scales, strict=True)
        ])  # fmt: skip

    def jacobian(
        self, u: FloatArray, network: SpanNetwork | None = None, sides: Sides | None = None
    ) -> FloatArray:
        """The derivative of the residual, (equations, unknowns)."""
        n, width = len(self.labels), self.frame.shape[1]
        soft = 0 if self.label_frame is None else self.label_frame.shape[1]
        directions = np.zeros((n * (width + soft), n, len(self.centre)))
        for index in range(n):
            directions[index * width : (index + 1) * width, index] = self.frame.T
        turns = None
        if self.label_frame is not None:
            turns = np.zeros((len(directions), *self.labels.shape))
            for index in range(n):
                first = n * width + index * soft
                turns[first : first + soft, index] = self.label_frame.T
        chunks = tangents(
            network or self.start,
            self.points(u),
            self.wanted(u),
            self.rated(u),
            directions,
            rate=self.fit_rate,
            sides=sides,
            turns=turns,
        )
        rows = [
            np.concatenate(
                [(d * s).reshape(len(d), -1) for d, s in zip(part, self.scales, strict=True)],
                axis=1,
            )
            for part in chunks
        ]
        return np.asarray(np.concatenate(rows).T, dtype=np.float64)


def in_span(network: DeepNetwork, basis: FloatArray) -> SpanNetwork:
    layers = [
        weight if bias is None else np.column_stack([weight, bias])
        for weight, bias in zip(network.weights, network.biases, strict=True)
    ]
    layers[0] = layers[0] @ basis.T
    biased = tuple(bias is not None for bias in network.biases)
    return SpanNetwork(
        tuple(layers), (False, *biased[1:]), network.activations, (False,) * len(layers)
    )


def pose(
    initial: DeepNetwork,
    final: DeepNetwork,
    span: CheckpointSpan,
    recipe: Recipe,
    labels: FloatArray | None,
    fit_rate: bool,
) -> ReplayProblem:
    """The equations; without labels, soft ones are unknowns too."""
    if span.samples is None:
        raise InvalidInputError("span", "a span with a number of samples", span.reason)
    if (initial.biases[0] is not None) != span.has_bias:
        raise InvalidInputError("span", "first biases that were trained with the weights", "others")
    if labels is not None and len(labels) != span.samples:
        raise InvalidInputError("labels", f"{span.samples} of them, as the span says", len(labels))
    start, end = in_span(initial, span.basis), in_span(final, span.basis)
    changes = [float(np.linalg.norm(a - b)) for a, b in zip(end.layers, start.layers, strict=True)]
    frozen = tuple(change == 0.0 for change in changes)
    scales = tuple(0.0 if change == 0.0 else 1.0 / change for change in changes)
    if span.has_bias:
        last = span.basis[:, -1]
        centre = last / float(last @ last)
        frame = linalg.null_space(last[None, :])
    else:
        centre, frame = np.zeros(span.samples), np.eye(span.samples)
    turn = None
    if labels is None:
        labels, turn = _soft(span.samples, initial.outputs, recipe.loss)
    else:
        # Refuses labels that do not fit the loss.
        loss_slope(recipe.loss, np.zeros((span.samples, initial.outputs)), labels)
    wanted = targets(labels, recipe.loss, initial.outputs)
    return ReplayProblem(
        replace(start, frozen=frozen), end.layers, scales, wanted, recipe, centre, frame, fit_rate,
        turn,
    )  # fmt: skip


def _soft(count: int, outputs: int, loss: str) -> tuple[FloatArray, FloatArray]:
    """Soft labels to begin with, and the directions in which they may move."""
    if loss == "cross_entropy":
        everywhere = np.full((count, outputs), 1.0 / outputs)
        return everywhere, np.asarray(linalg.null_space(np.ones((1, outputs))))
    # Samples of one output need different labels, or they stay exchangeable.
    apart = np.where(np.arange(count) % 2 == 0, 0.1, 0.9)[:, None]
    return np.repeat(apart, outputs, axis=1), np.eye(outputs)


def begin_at(
    problem: ReplayProblem, span: CheckpointSpan, start: FloatArray | None, rng: np.random.Generator
) -> FloatArray:
    """Coordinates of the given samples, or of random points at a typical distance."""
    if start is not None:
        inner = (span.lifted(start) @ span.basis.T - problem.centre) @ problem.frame
    else:
        inner = rng.normal(size=(len(problem.labels), problem.frame.shape[1]))
        if inner.size:
            inner *= typical_distance(problem) / np.linalg.norm(inner, axis=1, keepdims=True)
    return np.concatenate([inner.ravel(), np.zeros(problem.unknowns - inner.size)])


def typical_distance(problem: ReplayProblem) -> float:
    """A sample's distance from the centre if the cotangents were uncorrelated: |dM N| / |dM v|."""
    change = problem.final[0] - problem.start.layers[0]
    centre = problem.centre / max(float(np.linalg.norm(problem.centre)), 1e-300)
    if not np.any(problem.centre):
        return float(np.sqrt(len(centre)))
    along = float(np.linalg.norm(change @ centre)) / float(np.linalg.norm(problem.centre))
    return float(np.linalg.norm(change @ problem.frame)) / max(along, 1e-300)


def largest_distance(problem: ReplayProblem, residual: FloatArray) -> float:
    """The largest relative distance of a layer."""
    ends = np.cumsum([layer.size for layer in problem.final])[:-1]
    sizes = [float(np.linalg.norm(part)) for part in np.split(residual, ends)]
    return max(size if np.isfinite(size) else np.inf for size in sizes)
