"""Rules about a recovered set: assumptions, support for its number, error bounds."""

from __future__ import annotations

import numpy as np

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.records import Evidence
from identify.recovery.stages import Decomposed, Recovered
from identify.text import counted
from identify.thresholds import BOUND_LIMIT
from identify.verdict import sentences
from identify.verdict.rule import Finding, Grounds


def finite(at: Grounds[Recovered]) -> Finding:
    """Every term has a sample in the scale convention."""
    return Finding(
        at.stage.samples.finite,
        source="every recovered sample is finite under the assumed scale",
        sentence="a recovered sample is infinite under the assumed scale",
    )


def second_method(at: Grounds[Recovered]) -> Finding | None:
    """Another way to the terms; one that finds none says nothing."""
    second = at.stage.second
    if second is None:
        return None
    return Finding(
        second.agrees,
        second.allowed,
        second.distance,
        "no start of tensorly's CP ended in terms that fit: it says nothing"
        if second.agrees is None
        else "distance of the terms that tensorly's CP found, over their norms",
        needed=second.agrees is not None,
        sentence=sentences.methods_disagree(second),
    )


def leftover(at: Grounds[Recovered]) -> Finding | None:
    """The rows outside the equations are explained too."""
    left = at.stage.leftover
    if left is None:
        return None
    return Finding(
        left.holds,
        left.limit,
        left.residual,
        f"rows of {left.neurons} neurons that the equations leave out, as the recovered samples "
        "explain them",
        sentence=f"{counted(left.neurons, 'neuron')} that the "
        "equations leave out, too small or without a part in the span, have rows that the "
        f"recovered samples do not explain ({left.residual:.1e} of all rows, more than "
        f"{left.limit:.1e})",
    )


def tie(at: Grounds[Recovered]) -> Finding | None:
    """Equal margins, or the coefficients of the loss, where the scale is fixed."""
    found = at.stage.tie
    if found is None:
        return None
    count = int(found.classes.max()) + 1
    seen = f"{found.name}; the neurons tell {count} of {len(found.classes)} samples apart"
    return Finding(
        found.holds,
        found.tolerance,
        found.spread,
        seen + ("; the common factor is the known one" if found.factor else ""),
        sentence=f"the assumption fails: {found.name} differ by {found.spread:.1e} (logarithm) "
        f"where the error bounds allow {found.tolerance:.1e}; the true number of samples exceeds "
        f"{at.stage.reduced.dimension}, or the scale is not as assumed",
    )


def non_negative(at: Grounds[Recovered]) -> Finding | None:
    """No entry is negative beyond its bound, where that is assumed."""
    if not at.given.non_negative:
        return None
    lowest = at.stage.samples.samples.min(axis=1)
    margin = np.nan_to_num(at.stage.bounds.absolute, nan=0.0)
    worst = float(lowest.min())
    return Finding(
        not np.any(lowest < -margin - 1e-12),
        0.0,
        worst,
        "smallest entry of a recovered sample, to its error bound",
        sentence="the assumption fails: a recovered sample has negative entries "
        f"({worst:.1e}) under --non-negative",
    )


def right_side(at: Grounds[Recovered]) -> Finding | None:
    """KKT: b_i f(x_i) > 0."""
    outputs = _outputs(at)
    if outputs is None:
        return None
    r = at.stage.reduced.dimension
    wrong = int(np.count_nonzero(at.stage.samples.coefficients * outputs <= 0.0))
    return Finding(
        wrong == 0,
        r,
        r - wrong,
        "samples with b_i f(x_i) > 0",
        sentence=f"{wrong} of the {r} recovered samples lie on the wrong side of their margin "
        f"(b_i f(x_i) <= 0): the true number of samples exceeds {r}, or the source is "
        "weight decay",
    )


def redundancy(at: Grounds[Decomposed]) -> Finding:
    """Something speaks for the number r."""
    stage, r = at.stage, at.stage.reduced.dimension
    count = stage.redundancy if isinstance(stage, Recovered) else stage.surplus
    return Finding(
        count >= 1 or at.given.samples == r or is_lone(at.data, stage),
        1,
        count,
        "count: rank H - r^2 + ties, or the number of samples given"
        + (", or rows of rank 1" if r == 1 and not at.data.homogeneous else ""),
        Evidence.NUMERICAL if at.proofs is None else at.proofs.number_evidence,
        sentence=f"no redundant equation speaks for {sentences.plural(r)}: {r**2} unknowns are "
        f"fitted to {r**2 + count} equations, so the number of samples itself is open",
        searchable=True,
    )


def is_lone(data: HermiteData, stage: Decomposed) -> bool:
    """Whether rows of rank 1 over several neurons speak for a single sample."""
    single = not data.homogeneous and stage.reduced.dimension == 1
    return single and stage.neurons >= 2 and data.network.dimension >= 2


def hidden_share(at: Grounds[Recovered]) -> Finding | None:
    """What speaks for the number is strong enough at this noise level."""
    hidden, limit = at.stage.hidden, at.given.hidden_share
    if hidden is None:
        return None
    share = hidden.mixtures[0]
    return Finding(
        share <= limit or at.given.samples == at.stage.reduced.dimension,
        limit,
        share,
        "part of the data that a further sample could carry unseen, median: "
        f"{sentences.hidden_quantiles(hidden, at.data.degree)} ({hidden.method})",
        sentence=sentences.hidden(hidden, limit),
    )


def error_bounds(at: Grounds[Recovered]) -> Finding:
    """Every sample and its term are known."""
    bounds = at.stage.bounds
    # The size of a term counts too: where it is open, near-parallel terms trade places.
    worst = float(np.max([bounds.judged, bounds.terms]))
    known = bool(np.isfinite(worst))
    return Finding(
        worst < BOUND_LIMIT if known else None,
        BOUND_LIMIT,
        worst if known else None,
        bounds.method,
        sentence=f"the largest error bound of a sample or its term is {worst:.1e}, relative, "
        f"above {BOUND_LIMIT}"
        if known
        else f"a sample has no error bound ({bounds.method})",
    )


def separate_margins(at: Grounds[Recovered]) -> Finding | None:
    """KKT: no f(x_i) is 0 within |grad f| |dx_i| and the network's own error."""
    outputs = _outputs(at)
    if outputs is None:
        return None
    stage, r = at.stage, at.stage.reduced.dimension
    network, found, bounds = at.data.network, stage.samples, stage.bounds
    slopes = network.slopes(found.samples)
    if not at.data.has_bias:
        # The length of a sample does not change the sign.
        units = found.samples / found.sizes[:, None]
        slopes = slopes - np.sum(slopes * units, axis=1)[:, None] * units
    error = np.linalg.norm(slopes, axis=1) * bounds.absolute
    if bounds.outputs is not None:
        error = error + bounds.outputs * np.abs(outputs)
    clear = int(np.count_nonzero(error < np.abs(outputs)))
    return Finding(
        clear == r,
        r,
        clear,
        "samples whose f(x_i) is not 0 within the error bounds",
        sentence=f"{r - clear} of the {r} recovered samples have a margin that is not separated "
        "from 0 within the error bounds: on which side they lie is open",
    )


def _outputs(at: Grounds[Recovered]) -> FloatArray | None:
    """f(x_i) for KKT points, whose samples have a side."""
    found = at.stage.samples
    if at.data.source != "kkt" or not found.finite:
        return None
    return at.data.network.value(found.samples)
