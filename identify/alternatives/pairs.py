"""Two different training sets that explain the same data: which may be shown, and the search."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np

from identify.alternatives.admissible import SetRules
from identify.alternatives.candidate_sets import Candidate, SetSource
from identify.alternatives.equations import SetEquations, padded
from identify.alternatives.off_span import (
    free_directions,
    nu_pair_alternative,
    off_span_alternative,
)
from identify.alternatives.signs import no_set_of_dimension
from identify.alternatives.solvers import walk
from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.hermite.reduction import ReducedData
from identify.interpolation.solvers import Interpolation
from identify.records import TrainingSet
from identify.tensors import monomials
from identify.thresholds import DIFFERENT

Pair = tuple[TrainingSet, TrainingSet]

_REPEATS = 24
"""So many starts that end in one set, and none in another, end a search."""


def search_sets(
    rules: SetRules,
    reduced: ReducedData,
    linear: Interpolation,
    *,
    decomposes: bool = False,
    seed: int = 0,
    starts: int | None = None,
    budget: Budget = UNLIMITED,
) -> Pair | None:
    """Two explicit, different training sets that both explain the data, or None.

    Which sizes count: with a known number n of samples, both of size n. Without: both of size r =
    dim V; or both of the smallest size above r at which a set is found, if none of r is found and
    no smaller set can be the only one of its size; or sizes r and r + 1, if no redundant equation
    is left. Each set is stationary on the network to max(1e-10, 2 rho), obeys every assumption
    (KKT: b_i f(x_i) > 0; ties of a fixed scale; `non_negative`), has no vanishing and no parallel
    samples.

    Sets come from Levenberg-Marquardt at random starts, second sets from a walk along the
    continuum of solutions where there are more unknowns than equations, else from other starts
    or from the freedom off V.

    Args:
        rules: what a set must satisfy: the data, their noise level rho and the assumptions.
        reduced, linear: what was measured on the data.
        decomposes: whether T_V is a sum of r independent terms that obey the assumptions.
        seed: of all starts.
        starts: random starts of each size; 48, or 4 where there are more equations than
            unknowns, and as few as fit a budget at large size.
        budget: of the search.

    Cost: tens of milliseconds to a second up to r = 8.
    """
    r, samples = reduced.dimension, rules.given.samples
    if r == 0 or reduced.neurons == 0 or (samples is not None and samples < r):
        return None
    source = SetSource(
        rules, reduced, linear, decomposes=decomposes, seed=seed, starts=starts,
        budget=budget,
    )  # fmt: skip
    search = _Search(source)
    with np.errstate(all="ignore"):
        if samples is not None:
            return search.pair(samples) or search.pair_off_span(samples)
        if linear.determined is True and not decomposes:
            return search.larger()
        pair = search.pair(r)
        if pair is not None:
            return pair
        if search.seen:
            return search.one_more() if search.redundancy() == 0 else None
        return search.beyond() if linear.determined is False else None


class _Search:
    """Pairs of sets by the rules, and the first valid set that was seen on the way."""

    def __init__(self, source: SetSource) -> None:
        self.source, self.rules, self.data = source, source.rules, source.data
        self.reduced, self.linear = source.reduced, source.linear
        self.equations, self.seed = source.equations, source.seed
        self.seen: list[Candidate] = []

    def redundancy(self) -> int:
        """rank H - r^2 + ties."""
        r = self.reduced.dimension
        return self.linear.rank - r * r + self.equations.rank_of_ties(r)

    def pair(self, count: int) -> Pair | None:
        """Two different sets of `count` samples; `seen` keeps the first valid one."""
        self.seen = []
        r = self.reduced.dimension
        if count == r and self.linear.determined is True:
            return self._two_of(self.source.decomposed())
        spare = count * r - self.linear.rank - self.equations.rank_of_ties(count)
        found: Pair | None = None
        if count > r:
            for first in self.source.decomposed():
                found = self._two_of(self.source.grown(first, count - r))
        return found or self._two_of(self.source.random(self.equations, count, spare))

    def beyond(self) -> Pair | None:
        """Two sets of more than r samples, if none of r was found and none can be the only one."""
        needed = self.reduced.dimension
        if not self.number_open(needed):
            proved = self.data.homogeneous and no_set_of_dimension(self.reduced, self.rules.level)
            if not (proved and self.number_open(needed + 1)):
                return None
        return self.larger()

    def number_open(self, needed: int) -> bool:
        """Whether no set may be the only one of its size, if every set has `needed` samples.

        With as few equations as unknowns a set has larger ones beside it, with fewer it lies in a
        continuum, of which known signs of all entries may leave a single point.
        """
        unknowns = needed * self.reduced.dimension
        left = self.linear.rank + self.equations.rank_of_ties(needed) - unknowns
        return left == 0 or (left < 0 and not self.rules.non_negative)

    def larger(self) -> Pair | None:
        """Two sets of the smallest size above r at which a set is found."""
        r, linear = self.reduced.dimension, self.linear
        last = max(ceil(linear.required / r) + 3, self.data.degree)
        for count in range(r + 1, last + 1):
            pair = self.pair(count)
            if pair is not None and count * r < linear.rank:
                pair = self.smaller(pair)
            if pair is not None and linear.determined is True:
                needed = self._needed(pair[0])
                if pair[0].count > needed and not self.number_open(needed):
                    return None
            if pair is not None or self.seen or self.source.budget.expired:
                return pair
        return None

    def _needed(self, found: TrainingSet) -> int:
        """How many samples a determined T takes at least: its flattening has no larger rank."""
        alpha = self.data.degree
        inside = self.data.network.lift(found.samples) @ self.reduced.basis
        norms = np.linalg.norm(inside, axis=1)
        units, weights = inside / norms[:, None], found.coefficients * norms**alpha
        left, right = (monomials(units, order) for order in (alpha // 2, (alpha + 1) // 2))
        sigma = np.linalg.svd((left.T * weights) @ right, compute_uv=False)
        error = 100.0 * self.rules.level * (self.linear.condition_number or 1e6)
        rank = int(np.count_nonzero(sigma > max(1e-6, error) * sigma[0]))
        return max(self.reduced.dimension + 1, rank)

    def smaller(self, pair: Pair) -> Pair | None:
        """The pair, or what is found of fewer samples by driving out those of its first set.

        With fewer unknowns than equations a continuum hints at samples too many.
        """
        while (
            len(self.seen[0].terms) > self.reduced.dimension + 1 and not self.source.budget.expired
        ):
            first, self.seen = self.seen[0], []
            found = self._two_of(self.source.shrunk(first))
            if found is None:
                return None if self.seen else pair
            pair = found
        return pair

    def pair_off_span(self, count: int) -> Pair | None:
        """A set with a part that no point sees, and its reflection there."""
        r, neurons = self.reduced.dimension, self.reduced.neurons
        if count <= r or self.rules.non_negative:
            return None
        # n samples on k neurons leave n - k parts off V free; more of them are hard to meet.
        wanted = max(1, min(count - r, count - neurons))
        free = free_directions(self.data, self.reduced.basis, wanted, seed=self.seed)
        if free.shape[1] == 0:
            return None
        equations = SetEquations(self.data, padded(self.source.few, free), self.rules.scale)
        mirror = np.concatenate([np.ones(r), -np.ones(free.shape[1])])
        for first in self.source.random(equations, count, 1):
            second = self.rules.accept(equations.reduced, first.terms * mirror, first.signs)
            if second is None or not self._different(first.shown, second):
                second = self._walk(equations, first)
            if second is not None:
                return first.shown, second
        return None

    def one_more(self) -> Pair | None:
        """A set of r samples and one of r + 1, the second grown from the first."""
        first = self.seen[0] if self.seen else None
        if first is None:
            return None
        found = next(self.source.grown(first, 1), None)
        grown = None if found is None else found.shown
        if grown is None and not self.rules.non_negative:
            pair = nu_pair_alternative(
                self.data, first.shown.samples, first.shown.coefficients,
                keep_norm=self.rules.scale == "unit", basis=self.reduced.basis,
                noise_level=self.rules.noise_level, seed=self.seed,
            )  # fmt: skip
            if pair is not None and pair.stationarity <= self.rules.level:
                grown = pair
        return None if grown is None else (first.shown, grown)

    def _two_of(self, sets: Iterator[Candidate]) -> Pair | None:
        """A walk from the first set or its freedom off V, else another set that differs."""
        repeats = 0
        for found in sets:
            if not self.seen:
                self.seen.append(found)
                second = self._walk(self.equations, found) or self._shifted(found)
                if second is not None:
                    return found.shown, second
                continue
            if self._different(self.seen[0].shown, found.shown):
                return self.seen[0].shown, found.shown
            repeats += 1
            if repeats >= _REPEATS:
                break
        return None

    def _different(self, first: TrainingSet, second: TrainingSet) -> bool:
        return self.rules.difference(first, second) >= DIFFERENT

    def _walk(self, equations: SetEquations, first: Candidate) -> TrainingSet | None:
        """The far end of a walk from a valid set, if it is different and valid."""
        if not self.source.affords(len(first.terms), equations):
            return None

        def examine(terms: FloatArray) -> float:
            other = self.rules.accept(equations.reduced, terms, first.signs)
            return -1.0 if other is None else self.rules.difference(first.shown, other)

        reached = walk(
            equations, first.terms, first.signs, examine,
            cut=self.rules.level, seed=self.seed, budget=self.source.budget,
        )  # fmt: skip
        if reached is None or reached.difference < DIFFERENT:
            return None
        return self.rules.accept(equations.reduced, reached.terms, first.signs)

    def _shifted(self, first: Candidate) -> TrainingSet | None:
        """A set moved off V by the kernel of b_i (w_j . x_i)^(alpha-1); that changes norms."""
        larger = len(first.terms) > self.reduced.dimension
        if not (self.data.homogeneous and larger):
            return None
        if self.rules.scale == "unit" or self.rules.non_negative:
            return None
        other = off_span_alternative(
            self.data, first.shown.samples, first.shown.coefficients,
            basis=self.reduced.basis, noise_level=self.rules.noise_level, seed=self.seed,
        )  # fmt: skip
        if other is None or not other.stationarity <= self.rules.level:
            return None
        return other if self._different(first.shown, other) else None
