"""How stationary a set of candidates is: the (eps, gamma) check at the end of an attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from attack.objectives.base import Objective
from attack.objectives.candidates import Candidates
from attack.solving.problem import Problem
from attack.splitting.eigenpairs import EigenSearch, smallest_eigenpairs


@dataclass(frozen=True)
class SecondOrder:
    """|grad L| = ``epsilon`` and lambda_min(S_i + 2 D^2 h) >= -``gamma`` for every candidate.

    The gradient is that in points and free multipliers, projected where these are bounded. The
    least eigenvalue found may be undercut by up to ``margin``, with probability 0.99 over the
    random starts, infinite where nothing is known. ``products`` is the cost; `str()` the sentence.
    """

    epsilon: float
    gamma: float
    margin: float
    smallest: float
    products: int

    def __str__(self) -> str:
        sure = f"by at most {self.margin:.2g}" if math.isfinite(self.margin) else "by an unknown"
        return (
            f"(eps, gamma) = ({self.epsilon:.3g}, {self.gamma:.3g}): |grad L| = eps, "
            f"lambda_min(S_i) >= -gamma, undercut {sure}"
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy; an infinite margin is None."""
        margin = self.margin if math.isfinite(self.margin) else None
        return {**vars(self), "margin": margin}


def check_second_order(
    problem: Problem, candidates: Candidates, *, seed: int = 0, products: int = 24
) -> SecondOrder:
    """Measure gradient and smallest curvature under splitting; candidates are not changed.

    Args:
        problem: objective and treatment of the multipliers.
        candidates: where to measure.
        seed: of the random starts of the eigenvectors.
        products: bound on the products with all splitting matrices.

    Cost: one gradient and `products` + 1 products with the splitting matrices.

    Source: an approximate second-order stationary point as in Shen, Wang, Qian & Lei (2026), "Data
    reconstruction: identifiability and optimization with sample splitting", definition 5.1, with
    the curvature of penalties added.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-6-1,tanh").initialise(seed=0)
        >>> problem = Problem(haim_objective(network, normaliser=3))
        >>> found = check_second_order(problem, problem.objective.start(3, seed=0, scale=1.0))
        >>> found.epsilon > 0, found.gamma >= 0
        (True, True)
    """
    objective: Objective = problem.objective
    point = problem.evaluate(candidates)
    at = point.candidates
    grad_lam = point.grad_lam
    if problem.bounded:
        grad_lam = torch.where(at.lam <= 0, grad_lam.clamp_max(0), grad_lam)
    pairs = smallest_eigenpairs(
        objective.split_operator(at), at.count, objective.dimension,
        search=EigenSearch(iterations=products, seed=seed), like=at.x,
    )  # fmt: skip
    smallest = float(pairs.values.min())
    return SecondOrder(
        epsilon=math.hypot(float(point.grad_x.norm()), float(grad_lam.norm())),
        gamma=max(0.0, -smallest),
        margin=float(pairs.margins.max()),
        smallest=smallest,
        products=pairs.products,
    )
