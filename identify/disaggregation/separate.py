"""Samples at the last hidden layer: from a kernel of degree 2 or 3, or the list of masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.cp import decompose_kernel
from identify.disaggregation.cubic import (
    LARGEST_UNKNOWNS,
    build_cubic,
    count_rows,
    count_unknowns,
)
from identify.disaggregation.few_neurons import LATE, MaskList, Selection, list_masks, select_set
from identify.disaggregation.masks import Candidates, round_terms, settle
from identify.disaggregation.problem import Problem, scale_rows
from identify.disaggregation.records import KernelFacts
from identify.disaggregation.relu import Kernel, find_kernel
from identify.disaggregation.row_noise import row_exponents
from identify.errors import BudgetExceededError
from identify.thresholds import KERNEL_GAP, KERNEL_NOISE

SEPARABLE = 1.5
"""The gap of the kernel from which samples are looked for in it."""
_GUESSED = 30


@dataclass(frozen=True, eq=False)
class Examined:
    """The kernel of L: facts, its smallest value off the kernel, and its elements of degree 2."""

    facts: KernelFacts
    plain: float = 0.0
    elements: FloatArray | None = None
    interrupted: str = ""

    @property
    def decided(self) -> bool:
        """The kernel has dimension r above the noise."""
        return self.facts.gap >= KERNEL_GAP and self.facts.largest_kernel <= KERNEL_NOISE


@dataclass(frozen=True, eq=False)
class Separated:
    """What the kernel or the list of masks gave.

    ``even`` says that the candidates come from rows that were scaled to even errors.
    """

    method: str
    examined: Examined
    masks: MaskList | None
    selection: Selection | None
    candidates: Candidates | None
    even: bool = False


def separate(problem: Problem, *, seed: int = 0, budget: Budget = UNLIMITED) -> Separated:
    """The samples from the kernel of degree 2, else the list of masks, else that of degree 3.

    Args:
        problem: the last hidden layer.
        seed: of the random starts.
        budget: what it cuts is named as interrupted.

    Cost: m D^2 + D^3 / 3 operations for D unknowns of the last degree that is tried.
    """
    examined = _examine(problem, seed, budget)
    masks = selection = None
    if not examined.decided and not examined.interrupted and _listable(problem):
        masks, selection = _list(problem, budget)
        if LATE in (masks.reason, "" if selection is None else selection.reason):
            late = f"{LATE} before the list of masks was complete: nothing is decided"
            examined = replace(examined, interrupted=late)
        if selection is not None and selection.masks is not None:
            p = np.ones((problem.factor.rank, 1))
            candidates = settle(problem.layer, problem.factor, problem.top, selection.masks, p)
            return Separated("masks", examined, masks, selection, candidates)
    if not examined.decided and not examined.interrupted:
        examined = _examine_cubic(problem, examined, seed, budget)
    candidates = None
    if examined.elements is not None and examined.facts.gap >= SEPARABLE:
        candidates = _from_kernel(problem, examined.elements, seed, budget)
    doubtful = candidates is None or not examined.decided or _contradictions(candidates) > 0
    if doubtful and not examined.interrupted:
        even = _from_even_rows(problem, candidates, seed, budget)
        if even is not None:
            return Separated("kernel", examined, masks, selection, even, even=True)
    return Separated("kernel", examined, masks, selection, candidates)


def _from_even_rows(
    problem: Problem, plain: Candidates | None, seed: int, budget: Budget
) -> Candidates | None:
    """Samples from the kernel where rows are scaled to even errors, if their masks agree better.

    They are candidates: the verdict rests on the rows as they are.
    """
    if problem.known:
        return None
    even = scale_rows(problem, row_exponents(problem.top, problem.factor.rank, seed=seed))
    if even is problem:
        return None
    best, least = None, np.inf if plain is None else _contradictions(plain)
    for degree in (2, 3):
        if degree == 2:
            found = _examine(even, seed, budget)
        else:
            found = _examine_cubic(even, _no_kernel(even), seed, budget)
        if found.elements is None:
            continue
        other = _from_kernel(even, found.elements, seed, budget)
        if other is not None and _contradictions(other) < least:
            best, least = other, _contradictions(other)
        if least == 0:
            break
    return best


def _contradictions(candidates: Candidates) -> int:
    """Entries of the masks read from the column space that are not the signs of W h + beta."""
    return int((candidates.rounded != candidates.masks).sum())


def _examine(problem: Problem, seed: int, budget: Budget) -> Examined:
    r, nothing = problem.factor.rank, _no_kernel(problem)
    rows, needed = nothing.facts.rows, nothing.facts.rows_needed
    if rows < needed or 2 * r > len(problem.top):
        return nothing
    try:
        kernel = find_kernel(problem.operator, budget=budget, seed=seed)
    except BudgetExceededError as error:
        return replace(nothing, interrupted=str(error))
    facts = _measure(kernel, problem, rows, needed)
    return Examined(facts, kernel.plain, kernel.vectors[:, :r])


def _no_kernel(problem: Problem) -> Examined:
    """The rows that there are and those that the kernel of degree 2 asks for."""
    unknowns, rows = problem.operator.unknowns, _live_rows(problem)
    needed = unknowns - problem.factor.rank
    return Examined(KernelFacts(unknowns, rows, needed, np.inf, 0.0, 0.0))


def _examine_cubic(problem: Problem, quadratic: Examined, seed: int, budget: Budget) -> Examined:
    """The kernel of degree 3 where that of degree 2 does not decide and it does, or shows more."""
    r, q = problem.factor.rank, int(problem.layer.amplitudes.shape[1])
    leaky = bool(problem.layer.leak)
    size, needed = count_unknowns(r, q, leaky=leaky), count_rows(r, q, leaky=leaky)
    rows = _live_rows(problem)
    hopeful = problem.factor.clear and 2 * r <= len(problem.top) and r > 1
    if size > LARGEST_UNKNOWNS or not hopeful or needed >= quadratic.facts.rows_needed:
        return quadratic
    if rows < needed:
        facts = KernelFacts(size, rows, needed, np.inf, 0.0, 0.0, degree=3)
        return quadratic if quadratic.elements is not None else replace(quadratic, facts=facts)
    try:
        operator = build_cubic(problem.operator)
        kernel = find_kernel(operator, budget=budget, seed=seed)
    except BudgetExceededError as error:
        return replace(quadratic, interrupted=str(error))
    facts = replace(_measure(kernel, problem, rows, needed), degree=3)
    if quadratic.elements is not None and facts.gap <= quadratic.facts.gap:
        return quadratic
    elements = operator.to_quadratic(kernel.vectors[:, :r])
    return Examined(facts, kernel.plain, elements)


def _live_rows(problem: Problem) -> int:
    """Neurons with an output weight and a gradient above the noise."""
    strength = np.linalg.norm(problem.factor.columns * problem.factor.values, axis=1)
    live = strength > 5.0 * problem.factor.noise * np.sqrt(problem.factor.rank)
    return int((live & (problem.operator.weights > 0.0)).sum())


def _measure(kernel: Kernel, problem: Problem, rows: int, needed: int) -> KernelFacts:
    values, r = kernel.values / problem.factor.noise, problem.factor.rank
    last, other = float(values[r - 1]), float(values[r]) if len(values) > r else np.inf
    return KernelFacts(kernel.unknowns, rows, needed, last, other, other / max(last, 1.0))


def _listable(problem: Problem) -> bool:
    layer = problem.layer
    # Where the rank is a guess the list decides nothing, and a large guess takes minutes.
    worth = problem.factor.clear or problem.factor.rank <= _GUESSED
    return layer.amplitudes.shape[1] == 1 and layer.leak == 0.0 and layer.has_bias and worth


def _list(problem: Problem, budget: Budget) -> tuple[MaskList, Selection | None]:
    amplitudes = problem.layer.amplitudes[:, 0]
    masks = list_masks(problem.factor, amplitudes, budget=budget)
    if not masks.complete:
        return masks, None
    layer = problem.layer
    return masks, select_set(
        masks, problem.factor, amplitudes, layer.weight, layer.bias, budget=budget
    )


def _from_kernel(
    problem: Problem, elements: FloatArray, seed: int, budget: Budget
) -> Candidates | None:
    r = problem.factor.rank
    z, p, _ = problem.operator.unpack(elements)
    try:
        terms = decompose_kernel(z, p, seed=seed, budget=budget)
    except np.linalg.LinAlgError:
        return None
    masks, slopes = round_terms(problem.layer, problem.factor, terms)
    delta = problem.layer.cotangents(masks, slopes)
    if not masks.any(axis=0).all() or np.linalg.matrix_rank(delta) < r:
        return None
    return settle(problem.layer, problem.factor, problem.top, masks, slopes)
