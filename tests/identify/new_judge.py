"""What a report says against the truth: every fault of it.

Plain and slow on purpose; of the product it uses the report and the network's own value only.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import scipy.optimize

from identify import HermiteData, IdentifiabilityReport, Verdict
from identify.arrays import FloatArray
from tests.identify.new_problems import Problem

FAULTS = (
    "wrong", "bound", "bound, no globally", "box", "movement", "false pair", "false reason",
    "useless", "late", "exception", "refused",
)  # fmt: skip
"""The kinds of fault, in the columns of the table; "useless" and "refused" are no false words."""
SLACK = 1e-14
"""Relative rounding that the truth and this comparison have themselves."""
DIFFERENT = 0.1
PATIENCE = 1.0
"""Seconds over a time limit that count as kept."""


def merged_truth(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Distinct visible samples (n, d) and their b: parallel ones are one, cancelled ones none."""
    x, alpha = problem.samples, problem.data.degree
    b = np.ones(len(x)) if problem.coefficients is None else problem.coefficients
    lifted = problem.data.network.lift(x)
    heads: list[int] = []
    heights: list[float] = []
    for i, row in enumerate(lifted):
        size = float(np.linalg.norm(row))
        if size == 0.0 or b[i] == 0.0:
            continue
        for k, head in enumerate(heads):
            other = lifted[head]
            # Of a sample that is there twice the coefficients add up without another rounding.
            same = np.array_equal(row, other)
            share = 1.0 if same else float(row @ other) / float(other @ other)
            if np.linalg.norm(row - share * other) <= 1e-15 * size:
                heights[k] += b[i] * share**alpha
                break
        else:
            heads.append(i)
            heights.append(float(b[i]))
    chosen, total = x[heads], np.array(heights)
    sizes = np.abs(total) * np.linalg.norm(lifted[heads], axis=1) ** alpha
    live = sizes > 1e-14 * sizes.max(initial=0.0)
    return chosen[live], total[live]


def least_residual(problem: Problem) -> float:
    """Relative residual of the true set in the rows; with b fitted where it is not known."""
    data, b = problem.data, problem.coefficients
    if b is None:
        b = fitted(data, problem.samples)
    system, goal = system_of(data, problem.samples), data.rows.ravel()
    return float(np.linalg.norm(system @ b - goal) / np.linalg.norm(goal))


def fitted(data: HermiteData, samples: FloatArray) -> FloatArray:
    """The coefficients of least residual."""
    system = system_of(data, samples)
    sizes = np.linalg.norm(system, axis=0)
    sizes = np.where(sizes > 0.0, sizes, 1.0)
    return np.asarray(np.linalg.lstsq(system / sizes, data.rows.ravel(), rcond=None)[0] / sizes)


def system_of(data: HermiteData, samples: FloatArray) -> FloatArray:
    """Rows of the data that each sample with b = 1 makes, one column a sample."""
    return np.array([_rows_of(data, row) for row in data.network.lift(samples)]).T


def _rows_of(data: HermiteData, lifted: FloatArray) -> FloatArray:
    inner = data.points @ lifted
    return np.asarray(((data.scales * inner ** (data.degree - 1))[:, None] * lifted).ravel())


# Faults ------------------------------------------------------------------------------------------


def faults(problem: Problem, report: IdentifiabilityReport, seconds: float) -> list[str]:
    """Every fault as "kind: what is seen"."""
    found: list[str] = []
    limit = problem.options.get("time_limit")
    if limit is not None and seconds > limit + PATIENCE:
        found.append(f"late: {seconds:.1f} s of {limit:.2g} s")
    if len(merged_truth(problem)[0]) == 0:
        return found  # all samples cancel: what is left is rounding
    if problem.options.get("noise") is None or stated_truly(problem):
        found += _bound_faults(problem, report) + _box_faults(problem, report)
    found += _scope_faults(problem, report)
    found += [f"false pair: {text}" for text in pair_faults(problem, report)]
    found += _reason_faults(problem, report)
    return found


def _reason_faults(problem: Problem, report: IdentifiabilityReport) -> list[str]:
    """A number of samples that is said to be exceeded where it is not."""
    said = re.search(r"true number of samples exceeds (\d+)", report.reason)
    if said is None or ", or " in report.reason[said.end() :]:
        return []
    count = len(merged_truth(problem)[0])
    return [f"false reason: {count} samples; {said[0]}"] if count <= int(said[1]) else []


def stated_truly(problem: Problem) -> bool:
    """Whether stated Gaussian noise covers what is in the data."""
    stated = float(problem.options["noise"])
    if problem.noise > stated * (1.0 + 1e-9):
        return False
    other = max(problem.data.rounding, 0.0 if problem.noise else least_residual(problem))
    return other <= 0.01 * stated


def miss_table(problem: Problem, report: IdentifiabilityReport) -> tuple[FloatArray, FloatArray]:
    """Errors (true, recovered) in the units of the bounds, and the bounds (recovered,)."""
    recovery = report.recovery
    assert recovery is not None
    truth, _ = merged_truth(problem)
    found, bounds = recovery.samples, np.nan_to_num(recovery.error_bounds, nan=np.inf)
    sizes = np.linalg.norm(found, axis=1)
    if problem.data.has_bias:
        return np.linalg.norm(truth[:, None] - found, axis=2), bounds * sizes
    lengths = np.linalg.norm(truth, axis=1)
    sign = not (problem.options.get("non_negative") and np.all(truth >= 0.0))
    if problem.options.get("scale") == "margin" and equal_outputs(problem, truth):
        # One factor is common to all: the one that spares the bounds most.
        tables = [
            _distances(c * truth, found, sign) for c in (sizes[None, :] / lengths[:, None]).ravel()
        ]
        table = min(tables, key=lambda t: _assigned(t, bounds * sizes)[2])
        return table, bounds * sizes
    return _distances(truth / lengths[:, None], found / sizes[:, None], sign), bounds


def _distances(first: FloatArray, second: FloatArray, sign: bool) -> FloatArray:
    plus = np.linalg.norm(first[:, None] - second, axis=2)
    return np.minimum(plus, np.linalg.norm(first[:, None] + second, axis=2)) if sign else plus


def equal_outputs(problem: Problem, truth: FloatArray) -> bool:
    outputs = np.abs(problem.data.network.value(truth))
    return bool(np.ptp(outputs) <= 1e-9 * outputs.max()) and problem.data.rounding < 1e-15


def _assigned(table: FloatArray, bounds: FloatArray) -> tuple[Any, Any, float]:
    """The matching that breaks the fewest bounds, and its largest error over bound."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(table / (bounds + SLACK), nan=0.0)
    ratio = np.where(np.isfinite(bounds), ratio, 1e-3 * table / (1.0 + table))
    cost = np.where(ratio > 1.0 + 1e-9, 1e6, 0.0) + np.minimum(ratio, 1e5)
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    worst = float(ratio[rows, columns].max(initial=0.0))
    return rows, columns, worst


def _bound_faults(problem: Problem, report: IdentifiabilityReport) -> list[str]:
    """Bounds below the error, where the recovered set stands for the whole true one."""
    truth, _ = merged_truth(problem)
    if report.recovery is None or len(truth) != len(report.recovery.samples):
        return []
    table, bounds = miss_table(problem, report)
    rows, columns, worst = _assigned(table, bounds)
    faults = []
    if worst > 1.0 + 1e-9:
        k = int(np.argmax((table / (bounds + SLACK))[rows, columns]))
        error, bound = table[rows[k], columns[k]], bounds[columns[k]]
        kind = "bound" if report.verdict is Verdict.GLOBALLY else "bound, no globally"
        faults.append(f"{kind}: error {error:.2e}, bound {bound:.2e} ({report.evidence.value})")
    return faults


def _scope_faults(problem: Problem, report: IdentifiabilityReport) -> list[str]:
    """A `globally` that the truth contradicts, or that misses a sample of weight."""
    if report.verdict is not Verdict.GLOBALLY:
        return []
    assert report.scope is not None
    truth, b = merged_truth(problem)
    count = report.scope.samples
    table, bounds = miss_table(problem, report)
    if isinstance(count, int) and len(truth) <= count:
        if problem.options.get("noise") is not None and not stated_truly(problem):
            bounds = np.maximum(bounds, DIFFERENT)  # what was stated is false; directions count
        _, _, worst = _assigned(table, bounds)
        missed = f"{len(truth)} of {count}, worst {worst:.1e} bounds"
        return [f"wrong: {missed}"] if worst > 1.0 + 1e-9 else []
    if problem.options.get("samples") is not None:
        return []  # the number was stated, falsely
    if problem.coefficients is None:
        return []
    data = problem.data
    sizes = np.linalg.norm(truth, axis=1) if data.has_bias else np.ones(len(truth))
    missed = table.min(axis=1) > DIFFERENT * sizes
    # Samples that cancel among each other hide nothing.
    hidden = system_of(data, truth[missed]) @ b[missed] if np.any(missed) else np.zeros(1)
    share = float(np.linalg.norm(hidden) / np.linalg.norm(data.rows))
    return [f"useless: {len(truth)} samples, at most {count}; {share:.2f} hidden"] * (share > 0.1)


def _true_terms(
    problem: Problem, certificate: dict[str, Any]
) -> tuple[FloatArray, FloatArray] | None:
    """True z_i (n, r) and signs of b in the units of a certificate; None without any."""
    truth, b = merged_truth(problem)
    data, basis = problem.data, np.array(certificate["basis"])
    chosen = np.array(certificate["neurons"])
    points, scales, rows = data.points[chosen], data.scales[chosen], data.rows[chosen]
    length = float(np.linalg.norm(points, axis=1).max())
    unit, height = float(np.abs(rows).max()), float(np.abs(scales).max())
    scale = unit / height / length ** (data.degree - 1)
    inside = data.network.lift(truth) @ basis
    if len(truth) != basis.shape[1] or not np.all(np.isfinite(inside)):
        return None
    if problem.coefficients is None:
        return inside, np.ones(len(b))
    return inside * (np.abs(b) / scale)[:, None] ** (1.0 / data.degree), np.sign(b)


def _box_faults(problem: Problem, report: IdentifiabilityReport) -> list[str]:
    """Proved boxes and proved movements that the true terms leave."""
    certificate = report.certificate
    if report.verdict is not Verdict.GLOBALLY or not certificate or not certificate["terms"]:
        return []
    terms = _true_terms(problem, dict(certificate))
    if terms is None:
        return []
    z, found = terms[0], []
    box = certificate["enclosure"]
    if box is not None:
        centres, radii = np.array(box["centres"]), np.array(box["radii"])
        table = np.array(
            [[_outside(problem, v, c, q) for c, q in zip(centres, radii, strict=True)] for v in z]
        )
        cost = np.where(table > 1.0, 1e6, 0.0) + np.minimum(table, 1e5)
        worst = float(table[scipy.optimize.linear_sum_assignment(cost)].max())
        if worst > 1.0:
            known = f"data within {box['radius']:.1e}, truth off by {least_residual(problem):.1e}"
            found.append(f"box: truth at {worst:.2f} radii ({report.evidence.value}; {known})")
    for row in report.conditions:
        if row.name == "first-order bounds" and isinstance(row.found, float):
            if problem.coefficients is None:
                continue
            values = np.array(certificate["terms"]["values"])
            gaps = _distances(z, values, True) / np.linalg.norm(values, axis=1)
            bound = np.full(len(values), max(row.found, 8.0 * 2.0**-53))
            worst = _assigned(gaps, bound)[2]
            if worst > 1.0 + 1e-9:
                found.append(f"movement: {worst:.2f} times the bound {row.found:.1e}")
    return found


def _outside(problem: Problem, term: FloatArray, centre: FloatArray, radius: FloatArray) -> float:
    """Distance of a term from the centre in radii, with what the symmetries leave free."""
    radius = radius + SLACK * np.abs(centre)
    if problem.coefficients is not None:
        return float(min(np.max(np.abs(s * term - centre) / radius) for s in (1.0, -1.0)))
    start = float(term @ centre) / float(term @ term)

    def distance(t: float) -> float:
        return float(np.max(np.abs(t * term - centre) / radius))

    width = 10.0 * float(np.max(radius)) / float(np.linalg.norm(term))
    best = scipy.optimize.minimize_scalar(
        distance, bounds=(start - width, start + width), method="bounded",
        options={"xatol": 1e-6 * width},
    )  # fmt: skip
    return min(float(best.fun), distance(start))


def pair_faults(problem: Problem, report: IdentifiabilityReport) -> list[str]:
    """What is false about the two sets of a `nonidentifiable`."""
    if report.verdict is not Verdict.NONIDENTIFIABLE:
        return []
    if len(report.alternatives) != 2:
        return [f"{len(report.alternatives)} sets are shown"]
    level = max(1e-10, 2.0 * report.noise_level)
    found = []
    for other in report.alternatives:
        residual = set_residual(problem.data, other.samples, other.coefficients)
        if not residual <= level * (1.0 + 1e-3):
            found.append(f"residual {residual:.1e} of a set, {level:.1e} allowed")
        if not _as_assumed(problem, other.samples, other.coefficients):
            found.append("a set breaks an assumption")
    first, second = (other.samples for other in report.alternatives)
    stated = problem.options.get("samples")
    if stated is not None and {len(first), len(second)} != {stated}:
        found.append(f"sets of {len(first)} and {len(second)} samples where {stated} are stated")
    if len(first) == len(second) and not _differ(problem, first, second):
        found.append("the sets are equal")
    if abs(len(first) - len(second)) > 1:
        found.append(f"sets of {len(first)} and {len(second)} samples")
    return found


def set_residual(data: HermiteData, samples: FloatArray, b: FloatArray) -> float:
    """|goal - sum b_i grad f(x_i)| / |goal| over both layers, by the formulas themselves."""
    lifted = data.network.lift(samples)
    inner = data.points @ lifted.T
    rows = (data.scales[:, None] * inner ** (data.degree - 1) * b) @ lifted
    heights = inner**data.degree @ b
    if data.values is not None:
        goal = data.values
    else:
        goal = data.network.output_weight * (1.0 if data.decay is None else data.decay)
    miss = np.hypot(np.linalg.norm(rows - data.rows), np.linalg.norm(heights - goal))
    return float(miss / np.hypot(np.linalg.norm(data.rows), np.linalg.norm(goal)))


def _as_assumed(problem: Problem, samples: FloatArray, b: FloatArray) -> bool:
    """Non-negative entries, unit norms, the right side of the margin; no vanishing, no twins."""
    data, options = problem.data, problem.options
    top = float(np.abs(samples).max())
    if options.get("non_negative") and samples.min() < -1e-8 * top:
        return False
    if options.get("scale") == "unit" and not np.allclose(np.linalg.norm(samples, axis=1), 1.0):
        return False
    if data.source == "kkt" and np.any(b * data.network.value(samples) <= 0.0):
        return False
    units = data.network.lift(samples)
    sizes = np.abs(b) * np.linalg.norm(units, axis=1) ** data.degree
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    cosines = np.abs(units @ units.T) - np.eye(len(units))
    return bool(sizes.min() > 1e-7 * sizes.max() and cosines.max(initial=0.0) < 1.0 - 1e-9)


def _differ(problem: Problem, first: FloatArray, second: FloatArray) -> bool:
    """Whether every matching leaves a sample that differs by a tenth of its norm."""
    if problem.data.has_bias:
        top = np.maximum(np.linalg.norm(first, axis=1)[:, None], np.linalg.norm(second, axis=1))
        gaps = np.linalg.norm(first[:, None] - second, axis=2) / np.where(top > 0, top, 1.0)
    else:
        units = [q / np.linalg.norm(q, axis=1, keepdims=True) for q in (first, second)]
        gaps = _distances(units[0], units[1], True)
    far = (gaps >= DIFFERENT * (1.0 - 1e-6)).astype(float)
    return bool(far[scipy.optimize.linear_sum_assignment(far)].any())
