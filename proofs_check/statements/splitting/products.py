"""The splitting products of the attack, against automatic differentiation."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from proofs_check.machinery.statement import Check, Sabotage, Statement
from proofs_check.statements.splitting.kkt import (
    HALVES,
    KktProblem,
    form_rounding,
    kkt_problems,
    two_layer_form,
)

if TYPE_CHECKING:
    from torch import Tensor


def _network(problem: KktProblem) -> Any:
    import torch

    from attack.networks.activations import Activation
    from attack.networks.network import Network

    activation = Activation("power", 3.0) if problem.activation == "power3" else None
    return Network(
        (torch.from_numpy(problem.hidden), torch.from_numpy(problem.outer[None])),
        (torch.from_numpy(problem.bias), None),
        activation or Activation(problem.activation),
    )


def _autograd(problem: KktProblem, factor: float = 1.0) -> Check:
    """Products of the attack, the Hessian of its loss at two halves of everyone, the layers."""
    import torch

    from attack.objectives.base import doubled_products
    from attack.objectives.candidates import Candidates
    from attack.objectives.haim import haim_objective

    n, d = problem.x.shape
    objective = haim_objective(
        _network(problem), normaliser=problem.normaliser, floor=None, box=None
    )
    x, labels = torch.from_numpy(problem.x), torch.from_numpy(problem.labels)
    lam = torch.from_numpy(problem.lam)[:, None]
    candidates = Candidates(x, lam, labels)
    products = objective.splitting_operator(candidates)
    axes = torch.eye(d, dtype=torch.float64)
    columns = [products(axis.expand(n, d).contiguous()) for axis in axes]
    found = torch.stack(columns, dim=2).numpy()
    general = doubled_products(objective.data_loss, candidates)
    doubled = torch.stack([general(axis.expand(n, d).contiguous()) for axis in axes], dim=2).numpy()

    def halves(shift: Tensor) -> Tensor:
        moved = torch.cat([x + shift.reshape(n, d), x - shift.reshape(n, d)])
        parts = torch.cat([part * lam for part in problem.weights])
        return objective.loss(Candidates(moved, parts, torch.cat([labels, labels])))

    start = torch.zeros(n * d, dtype=torch.float64)
    start.requires_grad_()
    (slope,) = torch.autograd.grad(halves(start), start, create_graph=True)
    rows = [torch.autograd.grad(part, start, retain_graph=True)[0] for part in slope]
    whole = torch.stack(rows).numpy()
    worst, detail = 0.0, ""
    for i in range(n):
        noise = form_rounding(problem, i)
        block = whole.reshape(n, d, n, d)[i]
        own, others = block[:, i], np.delete(block, i, axis=1)
        layers = two_layer_form(problem, i)
        for name, other in (("autograd", own), ("doubling", doubled[i]), ("the layers", layers)):
            ratio = float(np.abs(factor * found[i] - other).max()) / noise
            if ratio > worst:
                worst, detail = ratio, f"S_{i} differs from {name} by {ratio * noise:.3g}"
        ratio = float(np.abs(others).max(initial=0.0)) / noise
        if ratio > worst:
            worst, detail = ratio, f"candidate {i} is coupled to others"
    return Check.compare(worst, 1.0, detail)


def _wrong_products() -> AbstractContextManager[object]:
    """The attack's product without its factor 2."""
    from attack.objectives.residual import ResidualObjective

    right = ResidualObjective.splitting_operator

    def broken(self: ResidualObjective, candidates: Any) -> Any:
        products = right(self, candidates)
        return lambda v: 0.5 * products(v)

    return patch.object(ResidualObjective, "splitting_operator", broken)


AUTOGRAD = Statement(
    name="splitting-kkt-autograd",
    title="The attack's splitting products",
    sentence=(
        "The products that the attack computes in closed form are those of the Hessian, by "
        "automatic differentiation, of the KKT loss of all candidates halved at x_i +- delta_i: "
        "block diagonal with the blocks S_i."
    ),
    formula=r"\nabla_\delta^2 L(x \pm \delta, \lambda/2) = \mathrm{diag}(S_1, \dots, S_n)",
    source="ours, after Wu, Wang & Liu 2019 (splitting steepest descent)",
    hypotheses=(HALVES,),
    instances=kkt_problems,
    conclusion=_autograd,
    sabotages=(
        Sabotage("factor", "twice S_i", conclusion=lambda p: _autograd(p, 2.0)),
        Sabotage("products", "half of S_i v", implementation=_wrong_products),
    ),
    cost="medium",
    code=(
        "attack.objectives.residual.ResidualObjective.splitting_operator",
        "attack.objectives.base.doubled_products",
        "attack.objectives.haim.haim_objective",
    ),
)

STATEMENTS = (AUTOGRAD,)
