"""Sharpness of uniqueness at degree 3: one sample more, or two in place of many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from identify.alternatives import pairs
from identify.alternatives.admissible import SetRules
from identify.alternatives.candidate_sets import Candidate, SetSource
from identify.arrays import FloatArray
from identify.hermite.reduction import reduce_data
from identify.hermite.stationarity import stationarity
from identify.interpolation.interpolate import interpolate
from identify.recovery.assumptions import Assumptions
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.statements.uniqueness import explanations as base
from proofs_check.statements.uniqueness.explanations import Explained
from proofs_check.statements.uniqueness.planes import (
    binary_cubic,
    coplanar_data,
    false_set,
    two_cubes,
)
from proofs_check.statements.uniqueness.recovery import low_power, recovers

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

APART = 5.0
"""Condition number of unit samples up to which the search has to find sets of r + 1."""
SYLVESTER = "Sylvester 1851 (canonical forms of binary cubics)"

# --- one sample more ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Surplus:
    """Data explained by r samples of which two are to become three.

    `angle` of the third in their plane; `fixed` says that lengths are known to be 1.
    """

    explained: Explained
    angle: float
    fixed: bool = False

    def __repr__(self) -> str:
        note = "unit lengths, " if self.fixed else ""
        return f"Surplus({note}angle={self.angle:.3g}, {self.explained!r})"


def _surpluses(
    counts: tuple[int, int] = (2, 4),
    degrees: tuple[int, ...] = (3,),
    *,
    fixed: bool = False,
) -> SearchStrategy[Surplus]:
    from hypothesis import strategies as st

    sources = [base.gradients(counts, degrees)]
    if counts[1] > 1 and degrees == (3,):
        sources.append(base.plantings(("kkt",), counts))
    drawn = base.plantings(("kkt",), counts) if fixed else st.one_of(*sources)
    angles = st.integers(1, 12).map(lambda k: np.pi * (k - 0.37) / 12.0)
    return st.builds(Surplus, drawn, angles, st.just(fixed))


def one_more(surplus: Surplus) -> tuple[FloatArray, FloatArray, float] | None:
    """A set of r + 1 samples in V in place of r, and the conditioning of its construction.

    A small cube in the plane of two samples is taken off, and what is left is the sum of two
    others. For a KKT point the sign of the small one is that of a positive margin, and it shrinks
    until all margins are positive; then all lengths are such that the margins are 1.
    """
    explained = surplus.explained
    data, degree = explained.data, explained.data.degree
    if len(explained.samples) < 2:
        return None
    x, b = explained.samples, explained.coefficients
    axes, corner = np.linalg.qr(x[:2].T)
    pairs = corner.T
    third = np.array([np.cos(surplus.angle), np.sin(surplus.angle)])
    cubic = binary_cubic(pairs, b[:2])
    label = np.sign(data.network.value((third @ axes.T)[None])[0]) or 1.0
    for halvings in range(1, 40):
        share = 0.5**halvings * float(np.linalg.norm(cubic)) * label
        found = two_cubes(cubic - binary_cubic(third[None], np.array([share])))
        if found is None:
            continue
        points = np.vstack([found[0], third]) @ axes.T
        samples = np.vstack([points, x[2:]])
        heights = np.concatenate([found[1], [share], b[2:]])
        if surplus.explained.data.source != "kkt":
            return samples, heights, found[2]
        margins = np.sign(heights) * data.network.value(samples)
        if margins.min() > 1e-6:
            lengths = np.ones(len(samples)) if surplus.fixed else margins ** (-1.0 / degree)
            return samples * lengths[:, None], heights / lengths**degree, found[2]
    return None


def _three_for_two(surplus: Surplus, *, exactly: bool = False) -> Check:
    explained = surplus.explained
    found = one_more(surplus)
    if found is None:
        return Check.of(False, "no plane, or no real cubes")
    samples, heights, grown = found
    if len(samples) != len(explained.samples) + 1 or not np.all(heights):
        return Check.of(False, "not one sample more")
    network = explained.data.network
    if explained.data.source == "kkt":
        margins = np.sign(heights) * network.value(samples)
        bulk = (np.abs(samples) @ np.abs(network.hidden_weight).T) ** network.degree
        noise = 8.0 * (network.width + network.dimension + 8) * UNIT
        noise *= float(np.max(bulk @ np.abs(network.output_weight)))
        if not np.all(np.abs(margins - 1.0) <= noise):
            return Check.compare(float(np.max(np.abs(margins - 1.0))), noise, "margins")
    # A plane spanned by close samples loses digits as its angle; planted weights hold to 1e-12.
    close = float(np.linalg.cond(base.unit_rows(explained.samples[:2])))
    before = explained.samples, explained.coefficients
    allowed = 64.0 * (1.0 + grown * close)
    check = base.compare_sets(network, before, (samples, heights), allowed, exactly=exactly)
    # Close samples may be more than a search from few starts can resolve.
    apart = float(np.linalg.cond(base.unit_rows(explained.samples))) <= APART
    return _searched(explained) if check.holds and apart else check


def _searched(explained: Explained) -> Check:
    """Two different sets of r + 1 samples by the search that is shown to users."""
    count = len(explained.samples) + 1
    reduced = reduce_data(explained.data, base.NOISE)
    linear = interpolate(reduced, base.NOISE, seed=explained.seed)
    pair = pairs.search_sets(
        SetRules(explained.data, base.NOISE, Assumptions(samples=count, scale="free")), reduced,
        linear, decomposes=True, seed=explained.seed,
    )  # fmt: skip
    if pair is None:
        return Check.of(False, f"the search finds no sets of {count} samples")
    left = max(stationarity(explained.data, one.samples, one.coefficients) for one in pair)
    sizes = {len(one.samples) for one in pair}
    if sizes != {count}:
        return Check.of(False, f"the search finds sets of {sorted(sizes)}")
    return Check.compare(left, 1e-9, "sets of the search do not explain the data")


def _no_growth() -> AbstractContextManager[object]:
    """A search that adds no sample to a set, neither grown nor from random starts."""
    original = SetSource.random

    def fixed(self: SetSource, equations: Any, count: int, spare: int) -> Iterator[Candidate]:
        return original(self, equations, min(count, self.reduced.dimension), spare)

    def none(self: SetSource, first: Candidate, more: int) -> Iterator[Candidate]:
        return iter(())

    return patch.multiple(SetSource, random=fixed, grown=none)


def _two_for_two(surplus: Surplus) -> Check:
    """The claim that the two samples stay where they are when the third is added."""
    found = one_more(surplus)
    if found is None:
        return Check.of(False, "no plane, or no real cubes")
    gap = np.linalg.norm(base.unit_rows(found[0])[:, None] - surplus.explained.samples[:2], axis=2)
    return Check.compare(float(gap.min(axis=0).max()), 1e-6)


def _flat_cubic() -> AbstractContextManager[object]:
    """Coefficients of the cubic with a wrong sign in the middle."""
    import proofs_check.statements.uniqueness.sharpness as module

    original = binary_cubic

    def broken(pairs: FloatArray, coefficients: FloatArray) -> FloatArray:
        found = original(pairs, coefficients)
        found[1] *= -1.0
        return found

    return patch.object(module, "binary_cubic", broken)


ONE_MORE = Statement(
    name="one-sample-more",
    title="Two cubes are three",
    sentence=(
        "At degree 3 with r >= 2 and free lengths, whatever r independent samples explain is "
        "explained by r + 1 samples in V as well; for a KKT point with all margins 1 and all "
        "multipliers positive."
    ),
    formula=r"b_1 x_1^{\otimes 3} + b_2 x_2^{\otimes 3} = c_1 y_1^{\otimes 3} + "
    r"c_2 y_2^{\otimes 3} + c_3 y_3^{\otimes 3},\quad y_i \in \mathrm{span}(x_1, x_2)",
    source=SYLVESTER + "; ours for KKT points",
    hypotheses=(
        Hypothesis(
            "cubic",
            "alpha = 3",
            lambda surplus: surplus.explained.data.degree == 3,
            lambda: _surpluses(degrees=(4, 5)),
        ),
        Hypothesis(
            "plane",
            "r >= 2",
            lambda surplus: len(surplus.explained.samples) >= 2,
            lambda: _surpluses(counts=(1, 1)),
        ),
        Hypothesis(
            "free-lengths",
            "the lengths of the samples are not known",
            lambda surplus: not surplus.fixed,
            lambda: _surpluses(fixed=True),
        ),
    ),
    instances=_surpluses,
    conclusion=_three_for_two,
    sabotages=(
        Sabotage("kept", "the two samples stay", conclusion=_two_for_two),
        Sabotage("sign", "a wrong sign in the cubic", construction=_flat_cubic),
        Sabotage("grown", "a search that adds no sample", implementation=_no_growth),
    ),
    cost="medium",
    recheck=lambda surplus: _three_for_two(surplus, exactly=True),
    code=(
        "identify.alternatives.pairs.search_sets",
        "identify.alternatives.candidate_sets.SetSource.grown",
    ),
    remark=(
        "A two-parameter family. From degree 4 on there is none: a sum of two powers of a plane "
        "is no sum of three with all coefficients non-zero. Known lengths break the margins."
    ),
)


# --- coplanar samples --------------------------------------------------------------------------


def _planes(*, real: bool | None = True, degrees: tuple[int, ...] = (3,)) -> SearchStrategy[Any]:
    from hypothesis import strategies as st

    drawn = st.builds(
        coplanar_data,
        st.integers(3, 6),
        st.integers(0, 2),
        st.sampled_from(degrees),
        st.integers(0, strategies.SEEDS),
    )
    return drawn if real is None else drawn.filter(lambda found: _is_one_line(found) is real)


def _plane_pairs(explained: Explained) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """The plane of the first two samples (d, 2), the pairs in it, and which samples lie in it."""
    x = explained.samples
    axes = np.linalg.qr(x[:2].T)[0]
    inside = x @ axes
    away = np.linalg.norm(x - inside @ axes.T, axis=1)
    return axes, inside, away <= 64.0 * UNIT * np.linalg.norm(x, axis=1)


def _is_one_line(explained: Explained) -> bool:
    """Whether the cubic of the plane has one real line only, with a clear discriminant."""
    _, inside, chosen = _plane_pairs(explained)
    found = two_cubes(binary_cubic(inside[chosen], explained.coefficients[chosen]))
    return bool(found is not None and found[2] < 1e4)


def _three_apart() -> SearchStrategy[Explained]:
    return base.gradients(counts=(3, 3), degrees=(3,), kinds=("generic", "orthonormal"))


def _two_instead(explained: Explained, *, exactly: bool = False) -> Check:
    """Two false samples in place of all those of the plane."""
    axes, inside, chosen = _plane_pairs(explained)
    found = two_cubes(binary_cubic(inside[chosen], explained.coefficients[chosen]))
    if found is None:
        return Check.of(False, "the two cubes are not real")
    samples = np.vstack([found[0] @ axes.T, explained.samples[~chosen]])
    heights = np.concatenate([found[1], explained.coefficients[~chosen]])
    if len(samples) >= len(explained.samples):
        return Check.of(False, "no sample is saved")
    before = explained.samples, explained.coefficients
    network = explained.data.network
    allowed = 64.0 * (1.0 + found[2])
    check = base.compare_sets(network, before, (samples, heights), allowed, exactly=exactly)
    shown = false_set(explained)
    # The two false samples, and not the true ones, are what a report recovers.
    return recovers(shown) if check.holds and shown is not None else check


def _two_of_them(explained: Explained) -> Check:
    """The claim that the two samples are among the true ones."""
    axes, inside, chosen = _plane_pairs(explained)
    found = two_cubes(binary_cubic(inside[chosen], explained.coefficients[chosen]))
    if found is None:
        return Check.of(False)
    cosines = np.abs((found[0] @ axes.T) @ base.unit_rows(explained.samples).T)
    return Check.compare(1.0 - float(cosines.max(axis=1).min()), 1e-9)


COPLANAR = Statement(
    name="coplanar-cubes",
    title="Samples of a plane are replaced by two",
    sentence=(
        "At degree 3 three or more samples of one plane are explained by two others of that plane "
        "if the binary cubic of their moments has one real line only; all linear conditions hold."
    ),
    formula=r"\textstyle\sum_{i} b_i x_i^{\otimes 3} = c_1 y_1^{\otimes 3} + c_2 y_2^{\otimes 3}"
    r"\ \text{on a plane} \iff \Delta < 0",
    source=SYLVESTER,
    hypotheses=(
        Hypothesis(
            "cubic",
            "alpha = 3",
            lambda explained: explained.data.degree == 3,
            lambda: _planes(degrees=(4,)),
        ),
        Hypothesis(
            "coplanar",
            "three or more samples lie in one plane",
            lambda explained: int(np.count_nonzero(_plane_pairs(explained)[2])) >= 3,
            _three_apart,
        ),
        Hypothesis(
            "one-line",
            "the binary cubic sum_i b_i (x_i . u)^3 of the plane has one real line, not three",
            _is_one_line,
            lambda: _planes(real=False),
        ),
    ),
    instances=_planes,
    conclusion=_two_instead,
    sabotages=(
        Sabotage("members", "the two are among the samples", conclusion=_two_of_them),
        Sabotage("sign", "a wrong sign in the cubic", construction=_flat_cubic),
        Sabotage("power", "Hermite equations of degree alpha - 1", implementation=low_power),
    ),
    cost="light",
    recheck=lambda explained: _two_instead(explained, exactly=True),
    code=("identify.recovery.measure.measure",),
    remark=(
        "With three real lines the two cubes are complex conjugates: the samples of the plane "
        "are then seen to be more than two."
    ),
)

STATEMENTS = (ONE_MORE, COPLANAR)
