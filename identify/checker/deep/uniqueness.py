"""Ranks of all layers, the cut of the kernel, the statement about the data, and the power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..outcome import FloatArray, NotCheckableError, check_possible, require
from .case import Case, near
from .cubic import Cubic
from .kernel import Cut, Equations, cut_kernel
from .spectra import GAP

KERNEL_GAP = GAP
KERNEL_NOISE = 30.0
_PROBES = 40
_CLOSE = 1.25


def check_ranks(case: Case) -> str:
    """Rank, gap and noise of every gradient are those of its singular values."""
    if case.report.raw.get("completed"):
        raise NotCheckableError("gradients that were filled in are not filled in again here")
    stated = {entry["layer"] - 1: entry for entry in case.report.raw["ranks"]}
    own = case.spectra
    require(set(stated) == set(own) and len(stated) == len(case.report.raw["ranks"]),
            "the layers with a rank are not those of the gradient")  # fmt: skip
    for index, found in own.items():
        entry, name = stated[index], f"layer {index + 1}"
        require(entry["rank"] == found.rank,
                f"the gradient of {name} has rank {found.rank}, not {entry['rank']}")  # fmt: skip
        factor = 3.0 if found.rounded else _CLOSE
        for field, value in (("noise", found.noise), ("relative_noise", found.relative_noise)):
            require(case.is_near(f"ranks.{field}", entry[field], value, factor),
                    f"{field} of {name} is {value:.2e}, not {entry[field]}")  # fmt: skip
        # The verifier estimates the next value of a large matrix from below.
        loose = 1.6 if min(found.shape) > 400 else factor
        require(case.is_near("ranks.gap", entry["gap"], found.gap, max(factor, loose)),
                f"the gap of {name} is {found.gap:.3g}, not {entry['gap']}")  # fmt: skip
        if entry["clear"] != found.clear:
            sure = found.flat and not 0.6 * GAP < found.gap < 1.6 * GAP
            require(not (sure or (entry["clear"] and found.gap < 0.6 * GAP)),
                    f"whether the rank of {name} is clear is misstated")  # fmt: skip
            check_possible(False, f"whether the rank of {name} is clear is a matter of rounding")
    r = case.top.rank
    require(case.report.raw["rank"] == r, f"the rank is {r}, not {case.report.raw['rank']}")
    if case.report.globally:
        require(case.top.clear, f"rank {r} is not clear: gap {case.top.gap:.3g}")
        larger = [k for k, found in own.items() if found.rank > r]
        require(not larger, f"layers {larger} have a larger rank than the last hidden one")
    return f"rank {r} of the last hidden layer, gap {case.top.gap:.2g}; {len(own)} layers"


def by_kernel(raw: Mapping[str, Any]) -> bool:
    """Whether the fields of a report rest on the kernel of L, and not on a list of masks."""
    kernel = raw["kernel"]
    if kernel is None or kernel["gap"] is None or kernel["largest_kernel"] is None:
        return False
    return bool(kernel["gap"] >= KERNEL_GAP and kernel["largest_kernel"] <= KERNEL_NOISE)


def measure(case: Case) -> Cut:
    """The cut of the kernel by the stated samples; NotCheckableError where it is too large."""
    equations: Equations = case.operator if case.degree == 2 else Cubic(case.operator)
    return cut_kernel(equations, case.coordinates, case.slopes, case.top.noise, case.in_time)


def check_kernel(case: Case, cut: Cut) -> str:
    """The kernel of L has dimension r, cut off from the rest by a factor of 100."""
    stated = case.report.raw["kernel"]
    check_possible(stated is not None, "the report has no kernel")
    operator, r = case.operator, case.top.rank
    strength = np.linalg.norm(case.top.left * case.top.values, axis=1)
    live = strength > 5.0 * case.top.noise * np.sqrt(r)
    rows, unknowns, each = int((live & (operator.weights > 0.0)).sum()), operator.unknowns, 1
    if case.degree == 3:
        unknowns, each = Cubic(operator).unknowns, r + operator.amplitudes.shape[1]
    needed = -(-(unknowns - r) // each)
    require(stated["unknowns"] == unknowns, f"L has {unknowns} unknowns")
    require(stated["rows_needed"] == needed, f"{needed} rows are needed")
    on = case.masks.sum(axis=1)
    mixed = int(((on > 0) & (on < r)).sum())
    # Before the masks are known the verifier counts the rows that any sample activates.
    close = any(abs(stated["rows"] - own) <= max(2, 0.02 * own) for own in (rows, mixed))
    same = stated["rows"] == mixed
    require(same or (close and not case.report.complete),
            f"{mixed} rows are mixed, not {stated['rows']}")  # fmt: skip
    if not same:
        case.not_checked["kernel.rows"] = None
    require(rows >= needed, f"{rows} rows of {needed}")
    gap = f"the kernel is cut off by {cut.gap:.3g}"
    require(cut.gap >= 0.8 * KERNEL_GAP, f"{gap}, {KERNEL_GAP:g} is asked for")
    require(case.is_near("kernel.smallest_other", stated["smallest_other"], cut.other,
                         _CLOSE * _room(case)),
            f"the next value is {cut.other:.3g}, not {stated['smallest_other']}")  # fmt: skip
    low = stated["largest_kernel"]
    require(low >= 0.0 and case.is_near("kernel.largest_kernel", low, cut.largest, 3.0, 10.0),
            f"the kernel reaches {cut.largest:.3g}, not {stated['largest_kernel']}")  # fmt: skip
    ratio = stated["smallest_other"] / max(stated["largest_kernel"], 1.0)
    require(near(stated["gap"], ratio, 1.001), f"the gap of these values is {ratio:.4g}")
    check_possible(cut.gap >= KERNEL_GAP, f"{gap}: a matter of rounding")
    check_possible(cut.largest <= KERNEL_NOISE, f"the kernel lies {cut.largest:.2g} above noise")
    return f"dimension {r}, {cut.gap:.2g} below the next value; {mixed} mixed rows, {needed} needed"


def _room(case: Case) -> float:
    return 2.4 if case.top.rounded else 1.0


def check_data(case: Case, cut: Cut) -> str:
    """eta < sigma: every gradient within the error has at most one explanation by r samples."""
    stated = case.report.raw["data_statement"]
    top, operator = case.top, case.operator
    room = float(top.values[-1]) - top.error
    require(room > 0.0, "the error exceeds the smallest singular value")
    tau = top.error / room
    u = np.linalg.norm(operator.basis, axis=1)
    a = (1.0 + operator.leak) * np.linalg.norm(operator.amplitudes, axis=1)
    rows = operator.weights * np.hypot(2.0 * u + np.sqrt(2.0) * tau, a)
    eta = float(tau * np.sqrt(2.0 * top.rank) * rows.max())
    factor = _CLOSE * _room(case)
    for name, value, close in (
        ("error", top.error, factor), ("eta", eta, factor), ("sigma", cut.sigma, _CLOSE)
    ):  # fmt: skip
        found = case.is_near(f"data_statement.{name}", stated[name], value, close)
        require(found, f"{name} is {value:.2e}, not {stated[name]}")
    holds = eta < cut.sigma
    if stated["holds"] != holds:
        check_possible(not near(eta, cut.sigma, factor), "eta and sigma are equal to rounding")
        require(False, f"eta is {eta:.1e} and sigma {cut.sigma:.1e}")
    open_ = int((case.entry_noise * 5.0 > 0.5).sum())
    require(abs(stated["open"] - open_) <= max(3.0, 0.05 * open_), f"{open_} mask entries are open")
    if stated["open"] != open_:
        case.not_checked["data_statement.open"] = None
    return f"eta {eta:.1e}, sigma {cut.sigma:.1e}: {'holds' if holds else 'does not hold'}"


def check_power(case: Case) -> str:
    """A sample meets more equations than it has unknowns, at random points of its space."""
    stated = case.report.raw["power"]
    own = _power(case)
    # Both count at random points.
    close = stated is not None and abs(stated - own) <= max(8, 0.5 * abs(own))
    require(close, f"the power is {own}, not {stated}")
    if stated != own or own < _PROBES:
        # Below the limit one more or less is a matter of the points.
        case.not_checked["power"] = None
    check_possible(
        own >= 1 or not by_kernel(case.report.raw), f"the power is {own} at other points"
    )
    return f"{own} equations beyond the unknowns of one sample, counted up to {_PROBES}"


def _power(case: Case) -> int:
    rng = np.random.default_rng(2)
    h, top = case.run.inputs[-2], case.top
    r, q = top.rank, int(case.amplitudes.shape[1])
    unknowns = r + q - 2
    count = min(len(top.left), unknowns + _PROBES)
    if r == 1:
        # The row space is one point: points as long as it are taken instead.
        size = float(np.linalg.norm(h)) / h.shape[1] ** 0.5
        points = rng.normal(size=(count, h.shape[1])) * size
    else:
        shares = rng.normal(size=(count, r)) / np.sqrt(r)
        points = (shares + (1.0 - shares.sum(axis=1, keepdims=True)) / r) @ h
    index = case.network.top
    on = points @ case.network.weights[index].T + case.network.bias(index) > 0.0
    slopes: FloatArray = np.where(on, 1.0, case.network.leak)
    delta = (slopes * (rng.normal(size=(count, q)) @ case.amplitudes.T)).T
    delta = delta / np.maximum(np.linalg.norm(delta, axis=0), 1e-300)
    outside = delta - top.left @ (top.left.T @ delta)
    level = max(1e-9, 30.0 * top.error / float(top.values[-1]))
    return int((np.linalg.svd(outside, compute_uv=False) > level).sum()) - unknowns
