"""Whether the layers' gradients belong together: Euler's identity between neighbours."""

from __future__ import annotations

import numpy as np

from ..outcome import require
from .case import Case

NAME = "layers agree"
BALANCE_LIMIT = 1e-2
DROWNED = 0.5
_SIGMAS = 10.0


def check_agreement(case: Case) -> str:
    """w_j . grad w_j + beta_j grad beta_j = sum_c W_cj grad W_cj behind every kinked activation.

    The limit is 1e-2 or ten times what the cleanest layer's noise makes of it, at most 1/2.
    """
    tails = [s.relative_noise for s in case.spectra.values() if s.rank < min(s.shape)]
    clean = min(tails, default=0.0)
    worst, limit, equations = 0.0, 0.0, 0
    for index in range(len(case.network.weights) - 1):
        pair = _pair(case, index)
        if pair is None:
            continue
        allowed = min(DROWNED, max(BALANCE_LIMIT, _SIGMAS * clean * pair[1]))
        equations += len(case.network.weights[index])
        if pair[0] / allowed >= worst / max(limit, 1e-300):
            worst, limit = pair[0], allowed
    require(worst <= limit, f"layers contradict each other: {worst:.1e}, {limit:.1e} is allowed")
    stated = case.report.check(NAME)
    if stated is not None and equations:
        require(case.is_near("checks.value", stated["value"], worst, 1.5, 1e-12),
                f"the layers differ by {worst:.1e}, not {stated['value']}")  # fmt: skip
        require(stated["equations"] == equations,
                f"{equations} equations between layers, not {stated['equations']}")  # fmt: skip
        require(stated["holds"] is True, "the layers agree, and the report does not say so")
    elif stated is not None:
        require(stated["value"] is stated["holds"] is None and stated["equations"] == 0,
                "no two layers compare")  # fmt: skip
    return f"{equations} equations between layers, the largest difference {worst:.1e}"


def _pair(case: Case, index: int) -> tuple[float, float] | None:
    """The relative difference between two layers, and what relative noise 1 would add to it."""
    network, gradient = case.network, case.gradient
    lower, upper = gradient.weights[index], gradient.weights[index + 1]
    bias, given = network.bias(index), gradient.biases[index]
    if lower is None or upper is None or network.kink(index) is None:
        return None
    if bias.any() and given is None:
        return None
    weight, above = network.weights[index], network.weights[index + 1]
    left = np.sum(weight * lower, axis=1) + (0.0 if given is None else bias * given)
    right = np.sum(above * upper, axis=0)
    size = max(float(np.linalg.norm(left)), float(np.linalg.norm(right)))
    if size == 0.0:
        return None
    random = np.linalg.norm(weight) * np.linalg.norm(lower) / np.sqrt(lower.size)
    random += np.linalg.norm(above) * np.linalg.norm(upper) / np.sqrt(upper.size)
    return float(np.linalg.norm(left - right)) / size, float(random) / size
