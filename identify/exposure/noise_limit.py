"""What if noise were added to this gradient: the smallest noise that leaves nothing decided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.records import UNDECIDED
from identify.model.deep import DeepGradient
from identify.report.gradient import GradientReport
from identify.report.noise_limit import NoiseLimit, NoiseTrial

STAGE = "adding noise"
_COARSE = (-8.0, -6.0, -4.0, -2.0, 0.0)
_LEAST = -16.0
_FINE = 0.125
_TRIALS = 9


def with_noise_limit(
    report: GradientReport,
    gradient: DeepGradient,
    judge: Callable[[DeepGradient, float | None], GradientReport],
    *,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> GradientReport:
    """The report with the smallest noise that makes its gradient "undecided".

    One draw E of Gaussian noise is scaled: every array g becomes g + e |g| E / |E|. The level e
    goes up by factors of 100 until nothing is decided, and is then bisected to a factor of 1.33.
    Levels below 1e-16, the rounding of float64, are not told apart.

    Args:
        report: on the gradient as it is.
        gradient: what the report is about.
        judge: called with a gradient and the seconds that are left (or None), gives its report.
        seed: of the noise.
        budget: at its end the levels tried by then are returned, with the reason.

    Cost: at most 9 times what the report took, of which gradients with much noise often take
    more, since a search that finds nothing goes on to its last start.

    Example:
        >>> import identify
        >>> rng = np.random.default_rng(0)
        >>> network = identify.DeepNetwork(
        ...     [rng.normal(size=(60, 20)), rng.normal(size=(1, 60))], [rng.normal(size=60), [0.0]],
        ...     "relu",
        ... )
        >>> batch = rng.normal(size=(3, 20))
        >>> gradient = network.gradient(batch, [[0.3], [-0.5], [0.2]])
        >>> report = identify.assess_gradient(network, gradient)
        >>> found = with_noise_limit(
        ...     report, gradient, lambda noisy, _: identify.assess_gradient(network, noisy)
        ... ).noise_limit
        >>> found.decided_up_to < found.undecided_from < 1.4 * found.decided_up_to
        True
    """
    if report.verdict == UNDECIDED:
        why = "the gradient is undecided without added noise"
        return replace(report, noise_limit=NoiseLimit(0.0, (), why))
    draw = _Draw(gradient, seed)
    trials: list[NoiseTrial] = []
    below, above = _LEAST, math.inf
    while True:
        exponent = _following(below, above)
        if exponent is None:
            return _result(report, below, trials, "")
        if budget.expired:
            return _result(report, below, trials, "the time limit ended the trials")
        budget.tell(STAGE, len(trials) / _TRIALS)
        level = 10.0**exponent
        found = judge(draw.at(level), budget.remaining if budget.limited else None)
        if found.found.late or found.interrupted:
            why = f"the time limit ended the trial at noise {level:.2g}"
            return _result(report, below, trials, why)
        count = 0 if found.found.samples is None else len(found.found.samples)
        trials.append(NoiseTrial(level, found.verdict, found.candidates, count))
        if found.verdict == UNDECIDED:
            above = exponent
        else:
            below = exponent


def _following(below: float, above: float) -> float | None:
    """The exponent to try next, between what is decided and what is not; None at the end."""
    if math.isinf(above):
        return next((step for step in _COARSE if step > below), None)
    return (below + above) / 2.0 if above - below > _FINE else None


def _result(
    report: GradientReport, below: float, trials: list[NoiseTrial], why: str
) -> GradientReport:
    decided = 10.0**below if any(t.verdict != UNDECIDED for t in trials) else 0.0
    ordered = tuple(sorted(trials, key=lambda t: t.noise))
    return replace(report, noise_limit=NoiseLimit(decided, ordered, why))


class _Draw:
    """A gradient, and one draw of noise of the norm of each of its arrays."""

    def __init__(self, gradient: DeepGradient, seed: int) -> None:
        self._gradient = gradient
        rng = np.random.default_rng([seed, 2])
        self._weights = [None if w is None else _like(w, rng) for w in gradient.weights]
        self._biases = [None if b is None else _like(b, rng) for b in gradient.biases]

    def at(self, level: float) -> DeepGradient:
        """The gradient with noise of this relative size in every array."""

        def moved(array: FloatArray | None, noise: FloatArray | None) -> FloatArray | None:
            return None if array is None or noise is None else array + level * noise

        given = self._gradient
        return DeepGradient(
            tuple(map(moved, given.weights, self._weights)),
            tuple(map(moved, given.biases, self._biases)),
        )


def _like(array: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Gaussian numbers of the shape and the Frobenius norm of an array."""
    noise = rng.normal(size=array.shape)
    return np.asarray(noise * (np.linalg.norm(array) / max(float(np.linalg.norm(noise)), 1e-300)))
