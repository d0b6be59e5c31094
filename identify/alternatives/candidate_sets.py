"""Sources of candidate sets: the decomposition, random starts, larger and smaller sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from identify.alternatives.admissible import SetRules
from identify.alternatives.equations import SetEquations, thinned
from identify.alternatives.solvers import (
    batch_size,
    draw_starts,
    eliminate,
    minimise,
    polish,
    start_cost,
)
from identify.arrays import FloatArray
from identify.budget import Budget
from identify.decomposition.decompose import decompose_tensor
from identify.hermite.reduction import ReducedData
from identify.interpolation.solvers import Interpolation
from identify.records import TrainingSet

_STARTS, _HOPELESS_STARTS = 48, 4
_FLOPS, _ALL_FLOPS = 4e9, 1e10
"""Flops that the starts of one size, and of all sizes, may take unless their number is given."""
_HASTE, _PATIENCE = (12, 0.5), (25, 0.9)
_HASTY_SHARE = 0.2
_FADING = 1e-2
_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Candidate:
    """A valid set in coordinates of V, and as it is shown."""

    terms: FloatArray
    signs: FloatArray
    shown: TrainingSet


class SetSource:
    """Valid sets of a given size, one after the other, within a budget.

    `equations` are those of the strongest neurons, as many as a search needs; what leaves here
    has been accepted by the `rules`, on the network itself. The other arguments are those of
    `search_sets`.
    """

    def __init__(
        self,
        rules: SetRules,
        reduced: ReducedData,
        linear: Interpolation,
        *,
        decomposes: bool,
        seed: int,
        starts: int | None,
        budget: Budget,
    ) -> None:
        self.rules, self.data = rules, rules.data
        self.reduced, self.linear, self.decomposes = reduced, linear, decomposes
        self.seed, self.starts, self.budget = seed, starts, budget
        enough = 2 * ceil(linear.required / reduced.dimension) + 2
        self.few = thinned(reduced, enough)
        self.equations = SetEquations(rules.data, self.few, rules.scale)
        self._left = _ALL_FLOPS

    def affords(self, count: int, equations: SetEquations | None = None) -> bool:
        """Whether work on one set of `count` samples fits the budget."""
        return start_cost(equations or self.equations, count) <= _FLOPS

    def decomposed(self) -> Iterator[Candidate]:
        """The set of r samples that the tensor decomposes into."""
        if self.linear.tensor is None or not self.decomposes:
            return
        if not self.affords(self.reduced.dimension):
            return
        found = decompose_tensor(
            self.reduced, self.linear.tensor, accept=10.0 * self.rules.noise_level,
            seed=self.seed, budget=self.budget,
        )  # fmt: skip
        if found is not None:
            shown = self.rules.accept(self.reduced, found.terms, found.signs)
            if shown is not None:
                yield Candidate(found.terms, found.signs, shown)

    def random(self, equations: SetEquations, count: int, spare: int) -> Iterator[Candidate]:
        """Valid sets of `count` samples from random starts.

        Without unknowns to spare, sets of one sample more follow whose samples are driven out.
        """
        number, cost = self.starts, start_cost(equations, count)
        if number is None:
            number = _STARTS if spare >= 0 else _HOPELESS_STARTS
            number = min(number, int(min(_FLOPS, self._left) / cost))
        rng = np.random.default_rng([self.seed, count, equations.reduced.dimension])
        # A few starts with little patience first: mostly they are enough.
        done, size, patience = 0, 4, _HASTE
        while done < number and not self.budget.expired:
            self.budget.tell(f"looking for other sets of {count} samples", done / number)
            size = min(size, number - done, batch_size(equations, count))
            yield from self._valid(equations, *self._solve(equations, count, size, patience, rng))
            self._left -= size * cost * (_HASTY_SHARE if patience == _HASTE else 1.0)
            done, size = done + size, 3 * size
            if done >= 16:
                patience = _PATIENCE
        if spare != 0 or number < _STARTS or self.budget.expired:
            return
        size = min(_STARTS, batch_size(equations, count + 1))
        terms, signs, norms = self._solve(equations, count + 1, size, _PATIENCE, rng)
        solved = norms < 1e-9
        for _ in range(_ROUNDS if np.any(solved) else 0):
            ends = eliminate(
                equations, terms[solved], signs[solved], limit=size, rng=rng,
                budget=self.budget,
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
            equations, terms, signs, goal=1e-13, patience=patience, budget=self.budget
        )
        return terms, signs, norms

    def _valid(
        self, equations: SetEquations, terms: FloatArray, signs: FloatArray, norms: FloatArray
    ) -> Iterator[Candidate]:
        """Those ends that are solutions and break no assumption, to the last digits."""
        near = norms < max(1e-6, 4.0 * self.rules.level)
        for z, s in zip(terms[near], signs[near], strict=True):
            z, _ = polish(equations, z, s)
            shown = self.rules.accept(equations.reduced, z, s)
            if shown is None and equations is self.equations and self.few is not self.reduced:
                # With noise the equations left out say where among near solutions.
                z, _ = polish(SetEquations(self.data, self.reduced, self.rules.scale), z, s)
                shown = self.rules.accept(self.reduced, z, s)
            if shown is not None:
                yield Candidate(z, s, shown)

    def grown(self, first: Candidate, more: int) -> Iterator[Candidate]:
        """Sets of `more` further samples in V: small ones are added and the others give way.

        At degree 3 every other try adds them in planes of two samples, where two cubes are three
        cubes in a two-parameter family, whatever the data.
        """
        count, r = first.terms.shape
        if r == 1 or self.budget.expired or not self.affords(count + more):
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
            self.equations, terms, signs, goal=1e-13, max_steps=60, budget=self.budget
        )
        yield from self._valid(self.equations, terms, signs, norms)

    def shrunk(self, first: Candidate) -> Iterator[Candidate]:
        """Sets of fewer samples: each sample of a set is driven out, with those that follow it."""
        terms, signs, norms = eliminate(
            self.equations, first.terms[None], first.signs[None], limit=len(first.terms),
            rng=np.random.default_rng([self.seed, 0xE1]), budget=self.budget,
        )  # fmt: skip
        yield from self._valid(self.equations, terms, signs, norms)
        yield from self._pruned(terms, signs)

    def _pruned(self, terms: FloatArray, signs: FloatArray) -> Iterator[Candidate]:
        """Valid sets without the terms that were on their way to zero."""
        sizes = np.linalg.norm(terms, axis=2)
        kept = (sizes / sizes.max(axis=1, keepdims=True)) ** self.data.degree > _FADING
        for z, s, large in zip(terms, signs, kept, strict=True):
            if self.reduced.dimension < np.count_nonzero(large) < len(large):
                part = s[None, large]
                ends, norms = minimise(
                    self.equations, z[None, large], part, goal=1e-13, budget=self.budget
                )
                yield from self._valid(self.equations, ends, part, norms)
