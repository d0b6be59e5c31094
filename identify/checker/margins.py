"""The margins of a KKT point: every sample lies on its own side."""

from __future__ import annotations

import flint
import numpy as np

from .bounds import judged_lengths, stated_bounds
from .case import Case
from .enclosure import box_balls, power_of
from .outcome import FLOAT, NotCheckableError, RefutedError, require


def check_margins(case: Case) -> tuple[str, str]:
    """KKT: b_i f(x_i) > 0 for every sample, over the whole box where there is one."""
    terms, signs = case.terms
    box = case.certificate.enclosure
    data = case.data
    if box is None:
        bounds = stated_bounds(case)
        if bounds is None:
            raise NotCheckableError("there are no error bounds")
        full = terms @ case.basis.T
        inner = full @ data.points.T
        values = signs * (inner**data.degree @ data.scales)
        bulk = np.abs(inner) ** data.degree @ np.abs(data.scales)
        require(bool(np.all(values > 0.0)), "a sample lies on the wrong side")
        worst = float(np.max(bounds / judged_lengths(case)))
        if not np.all(values > 2.0 * data.degree * (worst + case.noise) * bulk):
            raise NotCheckableError("the error bounds do not exclude the wrong side")
        return FLOAT, "every sample lies on its side beyond the error bounds"
    with flint.ctx.workprec(max(128, box.precision)):
        length = float(np.linalg.norm(data.points, axis=1).max())
        points = flint.arb_mat([[flint.arb(x) / length for x in p] for p in data.points.tolist()])
        frame = points * flint.arb_mat([[flint.arb(x) for x in p] for p in case.basis.tolist()])
        top = float(np.abs(data.scales).max())
        lines = frame.tolist()
        for term, sign in zip(box_balls(box), signs.astype(int).tolist(), strict=True):
            total = flint.arb(0)
            for line, scale in zip(lines, data.scales.tolist(), strict=True):
                inner_ball = sum((a * b for a, b in zip(line, term, strict=True)), flint.arb(0))
                total += flint.arb(scale) / top * power_of(inner_ball, data.degree)
            if total * sign < 0:
                raise RefutedError("a sample lies on the wrong side over the whole box")
            if not total * sign > 0:
                raise NotCheckableError("the box does not exclude the wrong side")
    return "ball arithmetic", "b_i f(x_i) > 0 over the whole box"
