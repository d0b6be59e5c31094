"""Sample splitting: replace candidates at which the loss has negative curvature by two."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attack.objectives.base import Evaluation, Objective
from attack.objectives.candidates import Candidates
from attack.splitting.accept import FittedSteps, common_step, fit_steps
from attack.splitting.eigenpairs import (
    Eigenpairs,
    EigenSearch,
    Method,
    extreme_eigenpairs,
    smallest_eigenpairs,
)
from attack.splitting.plan import SplitPlan, auto_plan, joined, offspring, paper_choice
from attack.splitting.record import SplitRound, round_sentence
from attack.splitting.tidy import Tidied, tidy
from identify.errors import InvalidInputError

PAPER_PRODUCTS = 20
AUTO_PRODUCTS = 20


@dataclass(frozen=True)
class SplitRules:
    """The rules of a round, as `split_candidates` explains them.

    Raises InvalidInputError for an unknown mode and settings out of range.
    """

    mode: str = "auto"
    limit: int | None = None
    products: int = AUTO_PRODUCTS
    method: Method = "auto"
    minimum_gain: float = 1e-4
    merge_radius: float = 0.1
    rollback: bool = True
    prune_share: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "paper"):
            raise InvalidInputError("mode", "auto or paper", self.mode)
        if self.limit is not None and self.limit < 0:
            raise InvalidInputError("limit", "at least 0", self.limit)
        if self.products < 1:
            raise InvalidInputError("products", "at least 1", self.products)
        if not 0 <= self.minimum_gain < 1:
            raise InvalidInputError("minimum_gain", "a share in [0, 1)", self.minimum_gain)
        if not 0 <= self.merge_radius < math.inf:
            raise InvalidInputError("merge_radius", "a distance >= 0", self.merge_radius)
        if not 0 <= self.prune_share <= 1:
            raise InvalidInputError("prune_share", "a share in [0, 1]", self.prune_share)


def split_candidates(
    objective: Objective,
    candidates: Candidates,
    *,
    mode: str = "auto",
    seed: int = 0,
    limit: int | None = None,
    products: int = AUTO_PRODUCTS,
    method: Method = "auto",
    minimum_gain: float = 1e-4,
    merge_radius: float = 0.1,
    rollback: bool = True,
    prune_share: float = 1.0,
) -> tuple[Candidates, Tensor, SplitRound]:
    """Run one round of sample splitting and say where every candidate comes from.

    The splitting matrix of candidate i is S_i = lam_i <grad l, D^2 phi(x_i)>. Two halves at
    x_i +- eps v change the loss by eps^2/2 v.S_i v and fourth-order terms, plus what the penalties
    do. "auto" merges and prunes first, decides with S_i + 2 D^2 h and the jump of h, fits one step
    per split on the loss itself and uses opposite signs where multipliers may have any. "paper"
    is the authors' rule: no curvature of penalties, threshold -0.1 on normaliser * S_i, one
    step for all. In both a round that does not lower the loss is taken back.

    Args:
        objective: gives loss, gradients, products S_i v and penalties.
        candidates: m candidates, not changed.
        mode: "auto" or "paper".
        seed: of the random starts of the eigenvectors.
        limit: most candidates to split in "auto", 0 for the check alone; half unless given.
        products: batched products with the splitting matrices for "auto"; "paper" takes 20.
        method: of `EigenSearch`, for "auto".
        minimum_gain: least gain of a split in "auto", relative to the data loss per candidate.
        merge_radius: relative distance up to which candidates may be merged in "auto".
        prune_share: largest share of the candidates that "auto" prunes; merging is not pruning.
        rollback: whether "paper" takes rounds back that raise the loss; the authors keep them.

    Returns:
        New candidates, `origin` (m',) int64 (new index -> old index, of the heavier one for a
        merged pair), and the SplitRound.

    Raises:
        InvalidInputError: unknown mode, settings out of range, numbers that are not finite.

    Cost: `products` + 1 products (+ 1 where multipliers are signed) and about 10 gradients of up
    to 1.5 m candidates for "auto"; 21 products and about 25 gradients for "paper".

    Source: Shen, Wang, Qian & Lei (2026), "Data reconstruction: identifiability and optimization
    with sample splitting", algorithm 1, which carries Wu, Wang & Liu (2019), "Splitting steepest
    descent for growing neural architectures", over to samples; "auto" is ours.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import gradient_matching_objective
        >>> network = parse_spec("3-40-1,power3,bias=none").initialise(seed=0)
        >>> gradient = [torch.ones_like(p) for p in network.parameters()]
        >>> objective = gradient_matching_objective(network, gradient, normaliser=1)
        >>> start = objective.start(2, seed=0, scale=0.5)
        >>> new, origin, record = split_candidates(objective, start)
        >>> record.after < record.before, new.count == len(origin)
        (True, True)
    """
    rules = SplitRules(
        mode, limit, products, method, minimum_gain, merge_radius, rollback, prune_share
    )
    objective.check(candidates)
    given = candidates.detach()
    start = objective.value_and_gradients(given)
    if not bool(torch.isfinite(start.loss)):
        hint = "lower the learning rate"
        raise InvalidInputError("loss", "a finite number", float(start.loss), hint)
    split_round = _Round(objective, given, start, rules, seed)
    return split_round.paper() if rules.mode == "paper" else split_round.auto()


def rounding_level(objective: Objective, candidates: Candidates, loss: float) -> float:
    """How far the loss may be off by rounding: changes below are not changes.

    From the size of the terms that cancel where the data loss is quadratic in the multipliers;
    else from the order of summation.
    """
    eps = torch.finfo(candidates.x.dtype).eps
    if objective.quadratic:
        one = candidates.select(torch.zeros(1, dtype=torch.long, device=candidates.x.device))
        size = float(objective.multiplier_system(one).constant)
        return 8 * eps * (loss + math.sqrt(size * max(loss, 0.0)) + 8 * eps * size)
    turned = candidates.select(
        torch.arange(candidates.count - 1, -1, -1, device=candidates.x.device)
    )
    other = float(objective.value_and_gradients(turned).loss)
    return 8 * eps * abs(loss) + 4 * abs(other - loss)


@dataclass(frozen=True, eq=False)
class _Found:
    """What a round decided: candidates `kept` with their loss, eigenpairs and fitted splits."""

    kept: Tidied
    evaluation: Evaluation
    pairs: Eigenpairs
    fitted: FittedSteps
    evaluations: int
    idle: float = 0.0


@dataclass(frozen=True, eq=False)
class _Round:
    """One round at `given`, where the loss is `start`, by either rule."""

    objective: Objective
    given: Candidates
    start: Evaluation
    rules: SplitRules
    seed: int

    @property
    def before(self) -> float:
        return float(self.start.loss)

    def paper(self) -> tuple[Candidates, Tensor, SplitRound]:
        """Split by the authors' rule."""
        objective, given, before = self.objective, self.given, self.before
        pairs = smallest_eigenpairs(
            objective.splitting_operator(given), given.count, objective.dimension,
            search=EigenSearch("lanczos", PAPER_PRODUCTS, seed=self.seed), like=given.x,
        )  # fmt: skip
        chosen = paper_choice(objective.normaliser * pairs.values)
        halves = torch.zeros_like(chosen, dtype=torch.bool)
        plan = SplitPlan(chosen, pairs.vectors[chosen], pairs.values[chosen], halves)
        fitted = FittedSteps.nothing(plan, before, (), rising=False, evaluations=0)
        if len(chosen):
            step, after, evaluations = common_step(objective, given, plan)
            if self.rules.rollback and not after < before:
                undone = tuple(chosen.tolist())
                fitted = FittedSteps.nothing(plan, before, undone, True, evaluations)
            else:
                steps = torch.full_like(plan.curvatures, step)
                unknown = torch.full_like(steps, math.nan)
                fitted = FittedSteps(plan, steps, after, unknown, (), False, evaluations)
        everyone = torch.arange(given.count, device=given.x.device)
        untouched = Tidied(given, everyone, (), (), 0)
        return self._carried_out(_Found(untouched, self.start, pairs, fitted, 1))

    def auto(self) -> tuple[Candidates, Tensor, SplitRound]:
        """Tidy up, split what pays, and undo the rest."""
        objective, rules = self.objective, self.rules
        noise = rounding_level(objective, self.given, self.before)
        least = rules.minimum_gain * max(float(self.start.data_loss), 0.0) / self.given.count
        tidied = tidy(
            objective, self.given, self.before,
            radius=rules.merge_radius, least=least + noise, noise=noise,
            most=math.floor(rules.prune_share * self.given.count),
        )  # fmt: skip
        kept = tidied.candidates
        same = kept is self.given
        evaluation = self.start if same else objective.value_and_gradients(kept)
        low, high = self._extremes(kept)
        now, data_now = float(evaluation.loss), float(evaluation.data_loss)
        most = max(1, kept.count // 2) if rules.limit is None else rules.limit
        plan = auto_plan(objective, kept, low, high, data_now, most)
        fitted = FittedSteps.nothing(plan, now, (), rising=False, evaluations=0)
        if len(plan.chosen) and data_now > noise:
            fitted = fit_steps(objective, kept, plan, now, data_now, least, noise)
        idle, more = _idle_gradient(objective, kept)
        evaluations = 3 + tidied.evaluations + more
        low = low if high is None else replace(low, products=high.products)
        return self._carried_out(_Found(tidied, evaluation, low, fitted, evaluations, idle))

    def _extremes(self, kept: Candidates) -> tuple[Eigenpairs, Eigenpairs | None]:
        """The ends of the spectra of S_i + P_i, the upper one where signs are free."""
        objective, rules = self.objective, self.rules
        product = objective.split_operator(kept)
        size = kept.count, objective.dimension
        search = EigenSearch(rules.method, rules.products, seed=self.seed)
        if objective.signed:
            return extreme_eigenpairs(product, *size, search=search, like=kept.x)
        return smallest_eigenpairs(product, *size, search=search, like=kept.x), None

    def _carried_out(self, found: _Found) -> tuple[Candidates, Tensor, SplitRound]:
        """Split, translate indices to those of the given candidates, and report."""
        kept, origin = found.kept.candidates, found.kept.origin
        pairs, fitted, count = found.pairs, found.fitted, self.given.count
        new, parents = offspring(kept, fitted.plan, fitted.steps)
        norms = torch.linalg.vector_norm(found.evaluation.grad_x, dim=1)
        sizes = kept.lam.abs().sum(1)
        ratios = (pairs.values / sizes)[sizes > 0]
        record = SplitRound(
            mode=self.rules.mode,
            before=self.before,
            after=fitted.loss,
            eigenvalues=_spread(pairs.values, origin, count),
            residuals=_spread(pairs.residuals, origin, count),
            gradient_norms=_spread(norms, origin, count),
            smallest=float(pairs.values.min()),
            margin=float(pairs.margins.max()),
            relative_smallest=float(ratios.min()) if len(ratios) else 0.0,
            gradient_norm=math.hypot(float(norms.norm()), float(found.evaluation.grad_lam.norm())),
            idle_gradient=found.idle,
            chosen=origin[fitted.plan.chosen],
            steps=fitted.steps,
            gains=fitted.gains,
            opposite=fitted.plan.opposite,
            merged=found.kept.merged,
            pruned=found.kept.pruned,
            undone=tuple(int(origin[i]) for i in fitted.undone),
            accepted=len(fitted.steps) > 0,
            rolled_back=fitted.rising,
            products=pairs.products,
            evaluations=found.evaluations + fitted.evaluations,
            message="",
        )
        flat = not bool(pairs.scales.any())
        message = round_sentence(record, count, pairs.method, flat)
        return new, origin[parents], replace(record, message=message)


def _idle_gradient(objective: Objective, candidates: Candidates) -> tuple[float, int]:
    """The largest |D phi_k(x_i)^T grad l| over candidates with lam_i = 0, and evaluations.

    Multipliers 1 and -1 at the same points change no sum; the gradient at the former is it.
    """
    idle = (candidates.lam == 0).all(1).nonzero()[:, 0]
    if not len(idle):
        return 0.0, 0
    largest = 0.0
    extra = candidates.select(idle)
    for column in range(candidates.lam.shape[1]):
        one = torch.zeros_like(extra.lam)
        one[:, column] = 1
        pool = joined(candidates, extra.with_points(extra.x, one))
        pool = joined(pool, extra.with_points(extra.x, -one))
        _, slopes, _ = objective.data_value_and_gradients(pool)
        part = slopes[candidates.count : candidates.count + len(idle)]
        largest = max(largest, float(torch.linalg.vector_norm(part, dim=1).max()))
    return largest, candidates.lam.shape[1]


def _spread(values: Tensor, origin: Tensor, count: int) -> Tensor:
    result = torch.full((count,), math.nan, dtype=values.dtype, device=values.device)
    result[origin] = values
    return result
