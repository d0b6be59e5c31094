"""When a verdict on a `Case` of the families is false."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from identify import IdentifiabilityReport, Verdict
from tests.identify.families import Case, FloatArray, unit_rows


def true_set(case: Case) -> tuple[FloatArray, FloatArray]:
    """The true active set with parallel samples merged and vanishing ones dropped."""
    assert case.samples is not None
    assert case.coefficients is not None
    degree = case.data.degree
    lifted = case.data.network.lift(case.samples)
    sizes = np.linalg.norm(lifted, axis=1)
    heads: list[FloatArray] = []
    heights: list[float] = []
    for x, b, size in zip(lifted, case.coefficients, sizes, strict=True):
        if size == 0.0 or b == 0.0:
            continue
        for k, head in enumerate(heads):
            cosine = float(head @ x) / size
            if abs(cosine) > 1.0 - 4e-16:
                heights[k] += b * size**degree * np.sign(cosine) ** degree
                break
        else:
            heads.append(x / size)
            heights.append(b * size**degree)
    if not heads:
        return np.zeros((0, lifted.shape[1])), np.zeros(0)
    weights = np.array(heights)
    live = np.abs(weights) > 1e-14 * np.abs(weights).max()
    return np.array(heads)[live], weights[live]


def recovered_directions(case: Case, report: IdentifiabilityReport) -> FloatArray:
    """Unit directions of the recovered samples, lifted with a bias."""
    assert report.recovery is not None
    return unit_rows(case.data.network.lift(report.recovery.samples))


def is_wrong(case: Case, report: IdentifiabilityReport) -> str:
    """Why a printed `globally` or a shown pair is false; empty where nothing false is said."""
    if report.verdict is Verdict.NONIDENTIFIABLE:
        return _overlooked(case, report)
    if report.verdict is not Verdict.GLOBALLY:
        return ""
    assert report.scope is not None
    assert report.recovery is not None
    if case.samples is None:
        return "globally for weights that no training set explains"
    truth, _ = true_set(case)
    count = report.scope.samples
    assert isinstance(count, int)
    if len(truth) > count:
        return ""
    found = recovered_directions(case, report)
    plus = np.linalg.norm(found[:, None] - truth[None], axis=2)
    errors = np.minimum(plus, np.linalg.norm(found[:, None] + truth[None], axis=2))
    bounds = report.recovery.error_bounds
    # One to one, so that near-parallel samples do not share a partner. With a bias the bound is
    # for x, the error here for (x, 1) / |(x, 1)|, which is smaller.
    rows, columns = scipy.optimize.linear_sum_assignment(errors / (1e-12 + errors))
    for i, k in zip(rows, columns, strict=True):
        if not errors[i, k] <= bounds[i]:
            return f"sample {k} missed by {errors[i, k]:.1e}, bound {bounds[i]:.1e}"
    return ""


def _overlooked(case: Case, report: IdentifiabilityReport) -> str:
    """A true set smaller than the shown ones, for which redundant equations speak."""
    if case.samples is None or "samples" in case.options:
        return ""
    assert report.scope is not None
    truth, _ = true_set(case)
    counts, rank = report.scope.samples, report.problem["rank"]
    assert isinstance(counts, tuple)
    assert isinstance(rank, int)
    unknowns = len(truth) * int(report.problem["span_dimension"])  # type: ignore[arg-type]
    if min(counts) <= len(truth) or unknowns >= rank:
        return ""
    return f"{counts} samples are shown, {len(truth)} explain {rank - unknowns} equations too many"
