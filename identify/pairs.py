"""Two different training sets that explain the same data: which may be shown, and the search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from identify.decompose import decompose_tensor
from identify.freedom import (
    free_directions,
    nu_pair_alternative,
    off_span_alternative,
)
from identify.hermite import HermiteData
from identify.interpolation import Interpolation
from identify.reduction import ReducedData
from identify.results import FloatArray, TrainingSet
from identify.search import (
    batch_size,
    draw_starts,
    eliminate,
    minimise,
    polish,
    start_cost,
    walk,
)
from identify.set_equations import SetEquations, padded
from identify.validity import DIFFERENT, SetRules

Progress = Callable[[str, float], None]
Pair = tuple[TrainingSet, TrainingSet]

_STARTS, _HOPELESS_STARTS = 48, 4
_BUDGET = 4e9
"""Flops that the starts of one size may take unless their number is given."""
_REPEATS = 24
"""So many starts that end in one set, and none in another, end a search."""
_HASTE, _PATIENCE = (12, 0.5), (25, 0.9)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A set in coordinates of V, and as it is shown."""

    terms: FloatArray
    signs: FloatArray
    shown: TrainingSet


def search_sets(
    data: HermiteData,
    reduced: ReducedData,
    linear: Interpolation,
    noise_level: float,
    *,
    samples: int | None,
    scale: str,
    non_negative: bool,
    decomposes: bool = False,
    seed: int = 0,
    starts: int | None = None,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Pair | None:
    """Two explicit, different training sets that both explain the data, or None.

    Which sizes count: with `samples` n, both of size n. Without: both of size r = dim V; or both
    of the smallest size found, if T is determined and is no sum of r independent terms; or sizes
    r and r + 1, if no redundant equation is left. Each set is stationary on the network to
    max(1e-10, 2 rho), obeys every assumption (KKT: b_i f(x_i) > 0; ties of a fixed scale;
    `non_negative`), has no vanishing and no parallel samples.

    Sets come from Levenberg-Marquardt at random starts, second sets from a walk along the
    continuum of solutions where there are more unknowns than equations, else from other starts
    or from the freedom off V.

    Args:
        data, reduced, linear, noise_level: the data and what was measured on them.
        samples: number of active samples, if known.
        scale: "free", "unit", "margin" or "bias" ("auto" is resolved).
        non_negative: whether all entries of the samples are known to be non-negative.
        decomposes: whether T_V is a sum of r independent terms that obey the assumptions.
        seed: of all starts.
        starts: random starts of each size; 48, or 4 where there are more equations than
            unknowns, and as few as fit a budget at large size.
        deadline: `time.monotonic()` value at which the search ends.
        progress: called with a stage name and a share in [0, 1].

    Cost: tens of milliseconds to a second up to r = 8.
    """
    r = reduced.dimension
    if r == 0 or reduced.neurons == 0 or (samples is not None and samples < r):
        return None
    rules = SetRules(data, noise_level, scale, non_negative)
    search = _Search(rules, reduced, linear, decomposes, seed, starts, deadline, progress)
    with np.errstate(all="ignore"):
        if samples is not None:
            return search.pair(samples) or search.pair_off_span(samples)
        if linear.determined is True and not decomposes:
            last = max(ceil(linear.required / r) + 1, data.degree)
            for count in range(r + 1, last + 1):
                pair = search.pair(count)
                if pair is not None or search.seen or search.late():
                    return pair
            return None
        pair = search.pair(r)
        if pair is None and search.redundancy() == 0:
            return search.one_more()
        return pair


class _Search:
    """The state of one search: equations, rules, budget, and the valid sets seen last."""

    def __init__(
        self,
        rules: SetRules,
        reduced: ReducedData,
        linear: Interpolation,
        decomposes: bool,
        seed: int,
        starts: int | None,
        deadline: float | None,
        progress: Progress | None,
    ) -> None:
        self.rules, self.data = rules, rules.data
        self.reduced, self.linear, self.decomposes = reduced, linear, decomposes
        self.seed, self.starts = seed, starts
        self.deadline, self.progress = deadline, progress
        self.equations = SetEquations(rules.data, reduced, rules.scale)
        self.seen: list[_Candidate] = []

    def late(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def redundancy(self) -> int:
        """rank H - r^2 + ties."""
        r = self.reduced.dimension
        return self.linear.rank - r * r + self.equations.rank_of_ties(r)

    def pair(self, count: int) -> Pair | None:
        """Two different sets of `count` samples; `seen` keeps the first valid one."""
        self.seen = []
        r = self.reduced.dimension
        if count == r and self.linear.determined is True:
            return self._two_of(self._decomposed())
        spare = count * r - self.linear.rank - self.equations.rank_of_ties(count)
        found: Pair | None = None
        if count > r:
            for first in self._decomposed():
                found = self._two_of(self._grown(first, count - r))
        return found or self._two_of(self._random(self.equations, count, spare))

    def pair_off_span(self, count: int) -> Pair | None:
        """A set with a part off V, and its reflection there (KKT and weight decay)."""
        r, neurons = self.reduced.dimension, self.reduced.neurons
        if count <= r or not self.data.homogeneous or self.rules.non_negative:
            return None
        # n samples on k neurons leave n - k parts off V free; more of them are hard to meet.
        wanted = max(1, min(count - r, count - neurons))
        free = free_directions(self.data, self.reduced.basis, wanted, seed=self.seed)
        if free.shape[1] == 0:
            return None
        equations = SetEquations(self.data, padded(self.reduced, free), self.rules.scale)
        mirror = np.concatenate([np.ones(r), -np.ones(free.shape[1])])
        for first in self._random(equations, count, 1):
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
        found = next(self._grown(first, 1), None)
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

    def _two_of(self, sets: Iterator[_Candidate]) -> Pair | None:
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

    def _walk(self, equations: SetEquations, first: _Candidate) -> TrainingSet | None:
        """The far end of a walk from a valid set, if it is different and valid."""
        if start_cost(equations, len(first.terms)) > _BUDGET:
            return None

        def examine(terms: FloatArray) -> float:
            other = self.rules.accept(equations.reduced, terms, first.signs)
            return -1.0 if other is None else self.rules.difference(first.shown, other)

        reached = walk(
            equations, first.terms, first.signs, examine,
            cut=self.rules.level, seed=self.seed, deadline=self.deadline,
        )  # fmt: skip
        if reached is None or reached.difference < DIFFERENT:
            return None
        return self.rules.accept(equations.reduced, reached.terms, first.signs)

    def _shifted(self, first: _Candidate) -> TrainingSet | None:
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

    def _grown(self, first: _Candidate, more: int) -> Iterator[_Candidate]:
        """Sets of `more` further samples in V: small ones are added and the others give way.

        At degree 3 every other try adds them in planes of two samples, where two cubes are three
        cubes in a two-parameter family, whatever the data.
        """
        count, r = first.terms.shape
        if r == 1 or self.late() or start_cost(self.equations, count + more) > _BUDGET:
            return
        rng = np.random.default_rng([self.seed, 0x6E])
        tries, alpha = 8, self.data.degree
        extra = rng.standard_normal((tries, more, r))
        if alpha == 3:
            for number in range(0, tries, 2):
                for new in range(more):
                    chosen = rng.choice(count, 2, replace=False)
                    extra[number, new] = rng.standard_normal(2) @ first.terms[chosen]
        # The strength of a new sample, |z|^alpha, is a tenth to a half of the mean.
        sizes = np.mean(np.linalg.norm(first.terms, axis=1) ** alpha)
        strength = (rng.uniform(0.1, 0.5, (tries, more, 1)) * sizes) ** (1.0 / alpha)
        extra *= strength / np.linalg.norm(extra, axis=2, keepdims=True)
        added = rng.choice([-1.0, 1.0], (tries, more))
        if self.data.source == "kkt":
            added = np.where(self.equations.outputs(extra) < 0.0, -1.0, 1.0)
        if alpha % 2:
            extra, added = extra * added[..., None], np.ones((tries, more))
        terms = np.concatenate([np.repeat(first.terms[None], tries, axis=0), extra], axis=1)
        signs = np.concatenate([np.repeat(first.signs[None], tries, axis=0), added], axis=1)
        terms, norms = minimise(
            self.equations, terms, signs, goal=1e-13, max_steps=60, deadline=self.deadline
        )
        yield from self._valid(self.equations, terms, signs, norms)

    def _decomposed(self) -> Iterator[_Candidate]:
        """The set of r samples that the tensor decomposes into."""
        if self.linear.tensor is None or not self.decomposes:
            return
        if start_cost(self.equations, self.reduced.dimension) > _BUDGET:
            return
        found = decompose_tensor(
            self.reduced, self.linear.tensor, accept=10.0 * self.rules.noise_level,
            seed=self.seed, deadline=self.deadline,
        )  # fmt: skip
        if found is not None:
            shown = self.rules.accept(self.reduced, found.terms, found.signs)
            if shown is not None:
                yield _Candidate(found.terms, found.signs, shown)

    def _random(self, equations: SetEquations, count: int, spare: int) -> Iterator[_Candidate]:
        """Valid sets of `count` samples from random starts.

        Without unknowns to spare, sets of one sample more follow whose samples are driven out.
        """
        number = self.starts
        if number is None:
            number = _STARTS if spare >= 0 else _HOPELESS_STARTS
            number = min(number, int(_BUDGET / start_cost(equations, count)))
        rng = np.random.default_rng([self.seed, count, equations.reduced.dimension])
        # A few starts with little patience first: mostly they are enough.
        done, size, patience = 0, 4, _HASTE
        while done < number and not self.late():
            if self.progress is not None:
                self.progress(f"looking for other sets of {count} samples", done / number)
            size = min(size, number - done, batch_size(equations, count))
            yield from self._valid(equations, *self._solve(equations, count, size, patience, rng))
            done, size = done + size, 3 * size
            if done >= 16:
                patience = _PATIENCE
        if spare != 0 or number < _STARTS or self.late():
            return
        size = min(_STARTS, batch_size(equations, count + 1))
        terms, signs, norms = self._solve(equations, count + 1, size, _PATIENCE, rng)
        solved = norms < 1e-9
        if np.any(solved):
            ends = eliminate(
                equations, terms[solved], signs[solved], limit=size, rng=rng,
                deadline=self.deadline,
            )  # fmt: skip
            yield from self._valid(equations, *ends)

    def _solve(
        self,
        equations: SetEquations,
        count: int,
        size: int,
        patience: tuple[int, float],
        rng: np.random.Generator,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Ends of random starts: terms, signs and relative residuals."""
        terms, signs = draw_starts(equations, count, size, self.data.source == "kkt", rng)
        terms, norms = minimise(
            equations, terms, signs, goal=1e-13, patience=patience, deadline=self.deadline
        )
        return terms, signs, norms

    def _valid(
        self, equations: SetEquations, terms: FloatArray, signs: FloatArray, norms: FloatArray
    ) -> Iterator[_Candidate]:
        """Those ends that are solutions and break no assumption, to the last digits."""
        near = norms < max(1e-6, 4.0 * self.rules.level)
        for z, s in zip(terms[near], signs[near], strict=True):
            z, _ = polish(equations, z, s)
            shown = self.rules.accept(equations.reduced, z, s)
            if shown is not None:
                yield _Candidate(z, s, shown)
