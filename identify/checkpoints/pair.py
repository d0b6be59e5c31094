"""The samples between two checkpoints of an ordinary fine-tuning run, with no recipe known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from identify.arrays import FloatArray
from identify.budget import Budget, Progress
from identify.checkpoints.pair_masks import Separated, separate_masks
from identify.checkpoints.pair_problem import SCOPE, PairProblem, pose_pair
from identify.checkpoints.span import WEIGHTS, CheckpointSpan
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.markup import Shown
from identify.model.deep import DeepNetwork
from identify.text import counted
from identify.thresholds import PAIR_FITS

KIND = "pair"
_TRAINING = "plain descent, with momentum or local steps, in both layers: no Adam, no adapters"


@dataclass(frozen=True, eq=False)
class PairSamples(Shown):
    """Candidates (n, d) for the samples between two checkpoints; the verdict is "undecided".

    ``residual`` is what they leave of the first layer's change, relative to it. It is the error of
    the model, not noise: output weights and masks are followed along the run to second order only.
    ``free_entries`` of the cotangents were fitted, and ``redundancy`` counts the equations that are
    left. ``labels`` (n,) are +1 and -1 for one output, else classes; ``span`` the dimension of the
    span, None without a gap, and then there are no candidates.
    """

    samples: FloatArray | None
    labels: FloatArray | None
    residual: float
    free_entries: int
    redundancy: int
    span: int | None
    reason: str
    problem: dict[str, Any]
    inputs: tuple[dict[str, str], ...]
    seed: int
    timed_out: bool

    @property
    def verdict(self) -> str:
        """Always "undecided": that other samples fit as well is never excluded here."""
        return "undecided"

    @property
    def candidates(self) -> bool:
        """Whether the model fits with equations left over, so that the samples can be the data."""
        return self.samples is not None and self.residual <= PAIR_FITS and self.redundancy > 0

    @property
    def covered(self) -> bool:
        """Whether the first layer's change shows a number of samples."""
        return self.span is not None

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the number and the candidates rest on."""
        kinds = ", ".join(dict.fromkeys(self.problem["activations"]))
        return (
            f"the network is its two linear layers with {kinds} between them, and nothing else",
            _TRAINING,
            f"as many samples as the span has dimensions: {self.span}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the samples; what is infinite is None."""
        return {
            "kind": KIND,
            "verdict": self.verdict,
            "reason": self.reason,
            "scope": None,
            "candidates": self.candidates,
            "covered": self.covered,
            "samples_at_least": self.span,
            "sample_count": None if self.samples is None else len(self.samples),
            "labels": None if self.labels is None else [float(label) for label in self.labels],
            "residual": self.residual if np.isfinite(self.residual) else None,
            "free_entries": self.free_entries,
            "redundancy": self.redundancy,
            "assumptions": list(self.assumptions),
            "problem": self.problem,
            "inputs": list(self.inputs),
            "seed": self.seed,
            "timed_out": self.timed_out,
        }

    def __str__(self) -> str:
        if self.span is None:
            return f"undecided: {self.reason}."
        lines = [
            f"undecided: at least {counted(self.span, 'sample')}, all in one affine space of "
            f"{counted(self.span - 1, 'dimension')}."
        ]
        if self.candidates and self.samples is not None:
            lines.append(
                f"  {counted(len(self.samples), 'candidate')}: they explain the first layer's "
                f"change but for {100.0 * self.residual:.2g} %"
            )
        else:
            lines.append(f"  no candidates: {self.reason}")
        if np.isfinite(self.residual):
            lines.append(
                f"  {self.free_entries} entries were fitted freely, {self.redundancy} equations "
                "are left over"
            )
        lines += ["  assuming", *(f"  - {text}" for text in self.assumptions)]
        return "\n".join(lines)


def separate_pair(
    initial: DeepNetwork,
    final: DeepNetwork,
    span: CheckpointSpan,
    *,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> PairSamples:
    r"""Separate the samples between two checkpoints of a fine-tuning run whose recipe is unknown.

    The first layer's change is sum_i D_i [x_i; 1]^T with D_ji = sum_t p_i(t) a_j(t) s'(z_ji(t)).
    Where a neuron has one side for a sample in both checkpoints, by more than the sample can be
    wrong, D_ji is 0 or the amplitude sum_t p_i(t) a_j(t). The amplitudes lie in the span of the
    output weights and of every sample's features, since a_j moves by sum_k p_k relu(z_jk). All
    other entries are free between the two. Alternating least squares begins at the kernel that
    separates one gradient.

    Args:
        initial, final: two linear layers with relu or leaky_relu between them.
        span: of the two, from `find_span`.
        seed: of the random pencils.
        time_limit: seconds; looked at between the starts.
        progress: called with a stage name and a share.

    Returns:
        A `PairSamples`. It claims no uniqueness; `replay_samples` does, for a known recipe.

    Raises NotYetSupportedError for other networks, InvalidInputError for a pair that does not fit.

    Cost: five starts at most, each about 60 (m r^3 + m r^2) operations and an eigenproblem of
    r (r + 1) / 2 + 2 r unknowns.

    Source: the kernel as in `disaggregate`; the amplitudes are the run's expansion to second order.

    Example:
        >>> from identify.checkpoints.recipe import Recipe
        >>> from identify.checkpoints.replay import retrain
        >>> from identify.checkpoints.span import find_span
        >>> rng = np.random.default_rng(0)
        >>> net = DeepNetwork(
        ...     [rng.normal(size=(200, 30)) / 5, rng.normal(size=(1, 200)) / 14],
        ...     [rng.normal(size=200) / 10, [0.0]], "relu")
        >>> x, y = rng.normal(size=(4, 30)), np.array([1.0, -1.0, 1.0, -1.0])
        >>> end = retrain(net, x, y, Recipe(steps=10, rate=0.1, loss="logistic"))
        >>> found = separate_pair(net, end, find_span(net, end))
        >>> away = np.linalg.norm(found.samples[:, None] - x, axis=2).min(axis=0)
        >>> found.candidates, bool(np.all(away < 0.05 * np.linalg.norm(x, axis=1)))
        (True, True)
    """
    if seed < 0:
        raise InvalidInputError("seed", "at least 0", seed)
    budget = Budget.of(time_limit, progress)
    leak = check_pair(initial, final)
    problem: dict[str, Any] = {
        "source": "fine-tuning",
        "sizes": [initial.dimension, *initial.widths, initial.outputs],
        "activations": [str(kind) for kind in initial.activations],
    }
    inputs = (
        {"role": "initial", "sha256": initial.sha256()},
        {"role": "network", "sha256": final.sha256()},
    )
    if span.samples is None:
        return PairSamples(
            None, None, np.inf, 0, 0, None, f"no span: {span.reason}", problem, inputs, seed, False
        )
    if span.source != WEIGHTS:
        why = f"the span is of the optimiser's {span.source}: the change of the weights has no gap"
        return PairSamples(
            None, None, np.inf, 0, 0, span.samples, why, problem, inputs, seed, False
        )  # fmt: skip
    pair = pose_pair(initial, final, span)
    found = separate_masks(pair, leak, budget, seed)
    if found is None:
        why = "no start separates the change"
        return PairSamples(
            None, None, np.inf, 0, 0, span.samples, why, problem, inputs, seed, budget.expired
        )
    left = redundancy(pair, found)
    return PairSamples(
        samples=found.points @ span.basis[:, :-1],
        labels=_labels(pair, found),
        residual=found.residual,
        free_entries=found.free,
        redundancy=left,
        span=span.samples,
        reason=_reason(found, left),
        problem=problem,
        inputs=inputs,
        seed=seed,
        timed_out=budget.expired,
    )


def check_pair(initial: DeepNetwork, final: DeepNetwork) -> float:
    """Refuse networks whose pairs are not covered; the slope of the activation's other side.

    Raises NotYetSupportedError for another depth or activation or no first bias, InvalidInputError
    for networks of different shapes.
    """
    if initial.depth != 2 or final.depth != 2:
        depth = max(initial.depth, final.depth)
        raise NotYetSupportedError(
            f"samples between two networks of {depth} linear layers are not yet covered", SCOPE
        )
    if [w.shape for w in initial.weights] != [w.shape for w in final.weights]:
        raise InvalidInputError("initial", f"the shapes of {final}", initial)
    kind = initial.activations[0]
    if kind.kink is None or abs(kind.kink) >= 1.0:
        raise NotYetSupportedError(
            f"samples between two networks with {kind} are not yet covered", SCOPE
        )
    if initial.biases[0] is None or final.biases[0] is None:
        raise NotYetSupportedError(
            "samples between two networks without a first bias are not yet covered", SCOPE
        )
    return float(kind.kink)


def redundancy(problem: PairProblem, found: Separated) -> int:
    """m r equations less the points, the amplitudes' coefficients and the free entries."""
    count = problem.count
    per_sample = 2 * problem.outer_before.shape[1] + 2 * count
    return int(problem.width * count - count * (count - 1) - per_sample * count - found.free)


def _reason(found: Separated, left: int) -> str:
    if left <= 0:
        return "as many free entries as equations: anything fits"
    if found.residual > PAIR_FITS:
        return (
            f"the samples that fit best leave {100.0 * found.residual:.2g} % of the first layer's "
            "change"
        )
    return "the recipe is unknown: other samples may explain the change as well"


def _labels(problem: PairProblem, found: Separated) -> FloatArray:
    """The class whose output each sample pushes up, or the sign for one output."""
    outer = 0.5 * (problem.outer_before + problem.outer_after)
    if outer.shape[1] == 1:
        return np.where(outer[:, 0] @ found.amplitudes < 0.0, -1.0, 1.0)
    centre = linalg.null_space(np.ones((1, outer.shape[1])))
    inner = np.linalg.lstsq(outer @ centre, found.amplitudes, rcond=None)[0]
    return np.asarray(np.argmax(centre @ inner, axis=0), dtype=np.float64)
