"""Before a split: duplicates become one candidate, useless candidates go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.splitting.plan import joined

_GRAM_ROWS = 2500
"""Most rows of a Gram matrix; above, the moves are proposed by size and tried on the loss."""
_TRIES = 6
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True, eq=False)
class Tidied:
    """Fewer candidates at no higher loss.

    `origin` (m',) int64 new -> old; `merged` pairs (kept, other) and `pruned` are old indices.
    """

    candidates: Candidates
    origin: Tensor
    merged: tuple[tuple[int, int], ...]
    pruned: tuple[int, ...]
    evaluations: int


@dataclass(frozen=True, eq=False)
class _Move:
    """Candidate `gone` disappears, into `kept` = (x, lam) if there is a `partner`."""

    gone: int
    partner: int | None
    x: Tensor | None
    lam: Tensor | None
    mass: Tensor | None


def tidy(
    objective: Objective,
    candidates: Candidates,
    loss: float,
    *,
    radius: float,
    least: float,
    noise: float,
    most: int | None = None,
) -> Tidied:
    """Merge duplicates and prune useless candidates where the loss does not rise.

    Pairs of one label, closer than `radius` in direction or relative to the root mean square norm,
    nearest neighbours of each other and with multipliers of one sign, become one candidate with
    the sum of the multipliers at the weighted mean. A candidate is useless if the loss without it
    is no higher and if even its best multiplier would gain less than `least`; `most` such are
    pruned. Where the data
    loss is quadratic in the multipliers both are decided by its Gram matrix, one move after the
    other; else small multipliers are tried. The loss itself has the last word: more than `noise`
    above `loss`, half of the moves are taken back, and so on.

    Cost: one Gram matrix over m candidates and the pairs, and at most 6 gradients.

    Source: merging along one activation pattern, Refael, Smorodinsky, Lindenbaum & Safran (2025),
    "No prior, no leakage: revisiting reconstruction attacks in trained neural networks".

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import gradient_matching_objective
        >>> network = parse_spec("4-6-1,tanh").initialise(seed=0)
        >>> gradient = [torch.ones_like(p) for p in network.parameters()]
        >>> objective = gradient_matching_objective(network, gradient, normaliser=2)
        >>> one = objective.start(3, seed=0, scale=1.0)
        >>> twice = joined(one, one)
        >>> loss = objective.loss(twice).item()
        >>> found = tidy(objective, twice, loss, radius=0.1, least=0.0, noise=1e-12)
        >>> found.candidates.count, abs(objective.loss(found.candidates).item() - loss) < 1e-12
        (3, True)
    """
    pairs = near_pairs(candidates, radius)
    points = merged_points(candidates, pairs)
    rows = (candidates.count + len(pairs)) * objective.columns
    if objective.quadratic and rows <= _GRAM_ROWS:
        moves = _moves_by_gram(objective, candidates, pairs, points, least, most)
    else:
        moves = _moves_by_size(candidates, pairs, points, most)
    tries = 0
    while moves and tries < _TRIES:
        tries += 1
        kept, origin = _moved(candidates, moves)
        if float(objective.value_and_gradients(kept).loss) <= loss + noise:
            merged = tuple((m.partner, m.gone) for m in moves if m.partner is not None)
            pruned = tuple(m.gone for m in moves if m.partner is None)
            return Tidied(kept, origin, merged, pruned, tries)
        moves = moves[: len(moves) // 2]
    everyone = torch.arange(candidates.count, device=candidates.x.device)
    return Tidied(candidates, everyone, (), (), tries)


def near_pairs(candidates: Candidates, radius: float) -> Tensor:
    """Pairs (p, 2) of mutual nearest neighbours within `radius`, the heavier first, nearest first.

    The distance is the smaller of |x_i - x_j| over the root mean square norm and of the distance of
    the directions; labels must be equal and no two multipliers of opposite signs.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.01]])
        >>> near_pairs(Candidates(x, torch.tensor([[1.0], [1.0], [3.0]])), 0.1).tolist()
        [[2, 0]]
    """
    x, lam = candidates.x.detach(), candidates.lam.detach()
    tiny = torch.finfo(x.dtype).tiny
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    near = torch.cdist(x, x) / norms.square().mean().sqrt().clamp_min(tiny)
    unit = x / norms.clamp_min(tiny)
    distance = torch.minimum(near, torch.cdist(unit, unit))
    sign = lam.sign()
    clash = (sign @ sign.T) != (sign.abs() @ sign.abs().T)
    if candidates.labels is not None:
        clash |= candidates.labels[:, None] != candidates.labels
    distance = distance.masked_fill(clash, torch.inf).fill_diagonal_(torch.inf)
    least, neighbour = distance.min(1)
    index = torch.arange(len(x), device=x.device)
    mutual = (neighbour[neighbour] == index) & (index < neighbour) & (least <= radius)
    first = index[mutual][torch.argsort(least[mutual], stable=True)]
    second = neighbour[first]
    weight = lam.abs().sum(1)
    swap = weight[second] > weight[first]
    return torch.stack([torch.where(swap, second, first), torch.where(swap, first, second)], 1)


def merged_points(candidates: Candidates, pairs: Tensor) -> Candidates:
    """The candidates that would replace the pairs (p, 2).

    Example:
        >>> two = Candidates(torch.tensor([[0.0], [4.0]]), torch.tensor([[3.0], [1.0]]))
        >>> merged_points(two, torch.tensor([[0, 1]])).x.item()
        1.0
    """
    x, lam = candidates.x.detach(), candidates.lam.detach()
    weight = lam.abs().sum(1)[pairs]
    total = weight.sum(1, keepdim=True)
    even = torch.full_like(weight, 0.5)
    weight = torch.where(total > 0, weight / total.clamp_min(torch.finfo(x.dtype).tiny), even)
    point = (weight[:, :, None] * x[pairs]).sum(1)
    merged = candidates.select(pairs[:, 0]).with_points(point, lam[pairs].sum(1))
    return merged if candidates.mass is None else merged.with_mass(candidates.mass[pairs].sum(1))


def _moves_by_gram(
    objective: Objective,
    candidates: Candidates,
    pairs: Tensor,
    points: Candidates,
    least: float,
    most: int | None,
) -> list[_Move]:
    """Merges in the order of distance, then removals, each with its exact change of the loss."""
    walk = _Walk.begin(objective, candidates, points)
    moves = []
    for number, (kept, gone) in enumerate(pairs.tolist()):
        if walk.merge(kept, gone, number):
            moves.append(_merge(gone, kept, points, number))
    left = candidates.count - len(moves) - 1
    left = left if most is None else min(left, most)
    while left > 0:
        worst = walk.prune(least)
        if worst is None:
            break
        moves.append(_Move(worst, None, None, None, None))
        left -= 1
    return moves


@dataclass(eq=False)
class _Walk:
    """Moves one after the other on the quadratic form of the loss in the multipliers.

    The pool holds `count` candidates and, behind them, the points that would replace pairs, with
    multipliers `merged`. `lam` (p, K) and the `gradient` of the data loss in them follow the moves;
    `alive` (p,) are the candidates that no move has touched.
    """

    count: int
    signed: bool
    gram: Tensor
    penalty: Tensor
    merged: Tensor
    slack: float
    lam: Tensor
    gradient: Tensor
    alive: Tensor

    @staticmethod
    def begin(objective: Objective, candidates: Candidates, points: Candidates) -> _Walk:
        """Stand at the candidates, with multipliers 0 at the points."""
        count, columns = candidates.count, objective.columns
        pool = joined(candidates.detach(), points)
        system = objective.multiplier_system(pool)
        with torch.no_grad():
            penalty = objective.penalty_values(pool)
        size = len(pool.lam)
        gram = system.gram.reshape(size, columns, size, columns)
        lam = pool.lam.clone()
        lam[count:] = 0
        linear = system.linear.reshape(size, columns)
        gradient = 2 * (torch.einsum("iajb,jb->ia", gram, lam) - linear)
        slack = 64 * torch.finfo(lam.dtype).eps * float(system.constant)
        alive = torch.arange(size, device=lam.device) < count
        return _Walk(
            count, objective.signed, gram, penalty, points.lam, slack, lam, gradient, alive
        )

    @cached_property
    def own(self) -> Tensor:
        """The blocks (p, K, K) of the Gram matrix on its diagonal."""
        return torch.einsum("iaib->iab", self.gram)

    @cached_property
    def inverse(self) -> Tensor:
        """Their pseudo-inverses."""
        inverse: Tensor = torch.linalg.pinv(self.own, hermitian=True)
        return inverse

    def _shifted(self, rows: list[int], change: Tensor) -> Tensor:
        return 2 * torch.einsum("iajb,jb->ia", self.gram[:, :, rows], change)

    def merge(self, kept: int, gone: int, number: int) -> bool:
        """Merge a pair unless that raises the loss."""
        rows = [kept, gone, self.count + number]
        change = torch.stack([-self.lam[kept], -self.lam[gone], self.merged[number]])
        step = self._shifted(rows, change)
        rise = (self.gradient[rows] * change).sum() + 0.5 * (step[rows] * change).sum()
        rise = rise + self.penalty[rows[2]] - self.penalty[kept] - self.penalty[gone]
        if float(rise) > self.slack:
            return False
        self.gradient = self.gradient + step
        self.lam[rows[:2]], self.lam[rows[2]] = 0, self.merged[number]
        # A merged candidate is not pruned in the same round: it stands for two.
        self.alive[rows[:2]] = False
        return True

    def prune(self, least: float) -> int | None:
        """Take the most useless candidate away; None if there is none."""
        square = torch.einsum("iab,ib->ia", self.own, self.lam)
        rise = (self.lam * (square - self.gradient)).sum(1) - self.penalty
        without = self.gradient - 2 * square
        if not self.signed:
            without = without.clamp_max(0)
        best = 0.25 * torch.einsum("ia,iab,ib->i", without, self.inverse, without)
        useless = self.alive & (rise <= self.slack) & (best <= least)
        if not bool(useless.any()):
            return None
        worst = int(torch.where(useless, rise, torch.inf).argmin())
        self.gradient = self.gradient + self._shifted([worst], -self.lam[worst][None])
        self.lam[worst] = 0
        self.alive[worst] = False
        return worst


def _moves_by_size(
    candidates: Candidates, pairs: Tensor, points: Candidates, most: int | None
) -> list[_Move]:
    weight = candidates.lam.detach().abs().sum(1)
    small = weight <= _NEGLIGIBLE * weight.max()
    small[pairs.flatten()] = False
    order = torch.argsort(weight, stable=True)
    moves = [_Move(i, None, None, None, None) for i in order[small[order]].tolist()]
    moves = moves[: candidates.count - 1 if most is None else min(candidates.count - 1, most)]
    for number, (kept, gone) in enumerate(pairs.tolist()):
        moves.append(_merge(gone, kept, points, number))
    return moves


def _merge(gone: int, kept: int, points: Candidates, number: int) -> _Move:
    mass = None if points.mass is None else points.mass[number]
    return _Move(gone, kept, points.x[number], points.lam[number], mass)


def _moved(candidates: Candidates, moves: list[_Move]) -> tuple[Candidates, Tensor]:
    x, lam = candidates.x.detach().clone(), candidates.lam.detach().clone()
    mass = None if candidates.mass is None else candidates.mass.clone()
    stays = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for move in moves:
        stays[move.gone] = False
        if move.partner is not None and move.x is not None and move.lam is not None:
            x[move.partner], lam[move.partner] = move.x, move.lam
            if mass is not None and move.mass is not None:
                mass[move.partner] = move.mass
    origin = stays.nonzero()[:, 0]
    moved = candidates.with_points(x, lam)
    return (moved if mass is None else moved.with_mass(mass)).select(origin), origin
