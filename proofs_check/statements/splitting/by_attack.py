"""The problems of these statements as the attack sees them: its operators, offspring and steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from identify.arrays import FloatArray
from proofs_check.statements.splitting.families import Array
from proofs_check.statements.splitting.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor

    from attack.objectives.base import Objective
    from attack.objectives.candidates import Candidates
    from attack.splitting.plan import SplitPlan


@lru_cache(maxsize=1)
def _objective_class() -> Any:
    """The class of `objective`; torch is not loaded before a statement runs."""
    import torch

    from attack.objectives.base import Objective
    from attack.objectives.penalties import Penalty

    class ProblemObjective(Objective):
        """l(sum_i lam_i phi(x_i)), with the derivatives that autograd finds."""

        name = "problem"
        normaliser = 1.0
        image_shape = None

        def __init__(self, problem: Problem, penalties: tuple[Penalty, ...]) -> None:
            self.problem, self.penalties = problem, penalties

        columns = property(lambda self: 1)
        dimension = property(lambda self: self.problem.x.shape[1])
        signed = property(lambda self: True)
        dtype = property(lambda self: torch.float64)
        device = property(lambda self: torch.device("cpu"))
        quadratic = property(lambda self: False)

        def data_loss(self, candidates: Candidates) -> Tensor:
            total = (candidates.lam * _features(self.problem, candidates.x)).sum(0)
            return _loss(self.problem, total)

        def start_multipliers(self, count: int, generator: torch.Generator) -> Tensor:
            return torch.randn(count, 1, generator=generator, dtype=torch.float64)

        def start_labels(self, count: int) -> None:
            return None

        def check_labels(self, labels: Tensor | None, count: int) -> None:
            return None

        def describe(self) -> dict[str, Any]:
            return {"problem": repr(self.problem)}

    return ProblemObjective


def _features(problem: Problem, x: Tensor) -> Tensor:
    """phi at points (m, d), shape (m, p)."""
    import torch

    features = problem.features
    rows, offsets = tensor(features.directions), tensor(features.offsets)
    if features.kind == "gauss":
        return torch.exp(-0.5 * ((x[:, None] - rows) ** 2).sum(-1))
    z = x @ rows.T + offsets
    if features.kind == "sine":
        return torch.sin(z)
    if features.kind == "kink":
        return z.abs() ** features.exponent
    power = {"square": 2, "cubic": 3, "quartic": 4}[features.kind]
    return z**power / float(np.prod(np.arange(1, power + 1)))


def _loss(problem: Problem, total: Tensor) -> Tensor:
    import torch

    loss = problem.loss
    scale, shift = tensor(loss.scale), tensor(loss.shift)
    if loss.kind == "logistic":
        return torch.nn.functional.softplus(scale * total - shift, threshold=60.0).sum()
    if loss.kind == "wave":
        return (scale * torch.sin(total - shift)).sum()
    rest = total - shift
    return 0.5 * (rest @ tensor(loss.matrix) @ rest)


def tensor(array: Any) -> Tensor:
    """An array in float64, or complex where it is."""
    import torch

    kind = np.complex128 if np.iscomplexobj(array) else np.float64
    return torch.from_numpy(np.array(array, dtype=kind, order="C"))


def objective(problem: Problem, penalties: tuple[Any, ...] = ()) -> Objective:
    """The attack's view of a problem, in float64 whatever the problem is in."""
    found: Objective = _objective_class()(problem, penalties)
    return found


def candidates(problem: Problem) -> Candidates:
    """The candidates of a problem, each with its multiplier."""
    from attack.objectives.candidates import Candidates

    return Candidates(tensor(problem.x), tensor(problem.lam)[:, None])


def splitting_matrices(problem: Problem) -> FloatArray:
    """The S_i from the products that the attack works with, shape (n, d, d)."""
    import torch

    n, d = problem.x.shape
    products = objective(problem).splitting_operator(candidates(problem))
    axes = torch.eye(d, dtype=torch.float64)
    columns = [products(axis.expand(n, d).contiguous()) for axis in axes]
    return np.asarray(torch.stack(columns, dim=2).numpy())


def lowest_pairs(problem: Problem, *, largest: bool = False) -> tuple[FloatArray, FloatArray]:
    """Smallest (or largest) eigenvalues (n,) and eigenvectors (n, d) as the attack finds them."""
    from attack.splitting.eigenpairs import EigenSearch, extreme_eigenpairs, smallest_eigenpairs

    n, d = problem.x.shape
    search = EigenSearch(seed=problem.seed)
    products = objective(problem).splitting_operator(candidates(problem))
    if largest:
        pairs = extreme_eigenpairs(products, n, d, search=search)[1]
    else:
        pairs = smallest_eigenpairs(products, n, d, search=search)
    return pairs.values.numpy(), pairs.vectors.numpy()


def mixed(problem: Problem) -> FloatArray:
    """D phi(x_i)^T grad l of every candidate, shape (n, d), as the attack finds it where lam_i = 0.

    Multipliers 1 and -1 at the same points change no sum; the gradient at the former is it.
    """
    import torch

    from attack.splitting.plan import joined

    here = candidates(problem)
    one = torch.ones_like(here.lam)
    pool = joined(joined(here, here.with_points(here.x, one)), here.with_points(here.x, -one))
    _, slopes, _ = objective(problem).data_value_and_gradients(pool)
    return np.asarray(slopes[here.count : 2 * here.count].numpy())


def gradient(problem: Problem) -> FloatArray:
    """The gradient in X as the attack's objective gives it, shape (n, d)."""
    found = objective(problem).value_and_gradients(candidates(problem))
    return np.asarray(found.grad_x.numpy())


@lru_cache(maxsize=1)
def _penalty_class() -> Any:
    import torch

    from attack.objectives.penalties import Penalty

    class CasePenalty(Penalty):
        """A penalty h(x, lam) of one of these statements; its curvature at no multiplier."""

        def __init__(self, penalty: Any) -> None:
            self.penalty = penalty

        def values(self, x: Tensor, lam: Tensor) -> Tensor:
            return torch.from_numpy(self.penalty.value(x.numpy(), lam[:, 0].numpy()))

        def add_gradients(self, x: Tensor, lam: Tensor, grad_x: Tensor, grad_lam: Tensor) -> None:
            raise NotImplementedError("a split asks for no gradient of a penalty")

        def products(self, x: Tensor, v: Tensor) -> Tensor:
            bends = [self.penalty.curvature(point, 0.0) for point in x.numpy()]
            return torch.einsum("ijk,ik->ij", tensor(np.stack(bends)), v)

        def describe(self) -> dict[str, Any]:
            return {"kind": self.penalty.kind}

    return CasePenalty


def penalty_rises(
    problem: Problem,
    index: int,
    penalty: Any,
    directions: Array,
    steps: Array,
    *,
    mass: float | None = None,
) -> FloatArray:
    """What the attack expects the penalty of a candidate to grow by if it is halved, (k,).

    Every direction (k, d) with its step is a parent of its own, of the same place and multiplier.
    """
    from attack.splitting import plan as rules

    count = len(steps)
    parents = _copies(problem, index, count, mass)
    found = rules.penalty_rises(
        objective(problem, (_penalty_class()(penalty),)),
        parents,
        plan_of(np.arange(count), directions),
        tensor(steps),
    )
    return np.asarray(found.numpy())


def penalty_curvature(
    problem: Problem, index: int, penalty: Any, *, mass: float | None = None
) -> FloatArray:
    """The matrix P_i that the attack adds to S_i for a penalty, shape (d, d)."""
    import torch

    dimension = problem.x.shape[1]
    here = _copies(problem, index, dimension, mass)
    axes = torch.eye(dimension, dtype=torch.float64)
    found = objective(problem, (_penalty_class()(penalty),)).split_penalty_products(here, axes)
    return np.asarray(found.numpy())


def _copies(problem: Problem, index: int, count: int, mass: float | None) -> Candidates:
    import torch

    one = candidates(problem).select(torch.full((count,), index))
    return one if mass is None else one.with_mass(torch.full((count,), mass, dtype=torch.float64))


def plan_of(
    chosen: Any, directions: Array, *, curvatures: Any = None, opposite: bool = False
) -> SplitPlan:
    """A plan that splits these candidates along these directions (k, d)."""
    import torch

    from attack.splitting.plan import SplitPlan

    count = len(directions)
    values = np.zeros(count) if curvatures is None else curvatures
    turned = torch.full((count,), opposite)
    return SplitPlan(torch.as_tensor(chosen), tensor(directions), tensor(values), turned)


def offspring(
    x: Array, lam: Array, chosen: Any, directions: Array, steps: Array, *, opposite: bool = False
) -> tuple[Array, Array]:
    """Points (m', d) and multipliers (m',) after the attack's split of the chosen candidates."""
    from attack.objectives.candidates import Candidates
    from attack.splitting import plan as rules

    points = tensor(np.asarray(x, dtype=np.result_type(steps, np.float64)))
    parents = Candidates(points, tensor(lam)[:, None])
    plan = plan_of(chosen, directions, opposite=opposite)
    new, _ = rules.offspring(parents, plan, tensor(steps))
    return new.x.numpy(), new.lam[:, 0].numpy()


def offspring_of_one(
    x: Array, lam: float, directions: Array, steps: Array, *, opposite: bool = False
) -> tuple[Array, Array]:
    """The K offspring of one candidate for all steps and directions: (..., K, d) and (..., K).

    `directions` (..., d) and `steps` (...) broadcast: every pair is a parent of its own, so that
    the attack splits all of them at once.
    """
    shape = np.broadcast_shapes(np.shape(steps), directions.shape[:-1])
    moves = np.broadcast_to(directions, (*shape, len(x))).reshape(-1, len(x))
    lengths = np.broadcast_to(steps, shape).reshape(-1)
    count = len(moves)
    parents = np.repeat(np.asarray(x, dtype=np.float64)[None], count, axis=0)
    multipliers = np.full(count, float(lam))
    points, heights = offspring(
        parents, multipliers, np.arange(count), moves, lengths, opposite=opposite
    )
    born = np.moveaxis(points.reshape(-1, count, len(x)), 0, 1)
    parts = np.moveaxis(heights.reshape(-1, count), 0, 1)
    return born.reshape(*shape, -1, len(x)), parts.reshape(*shape, -1)


def split(
    problem: Problem, index: int, directions: Array, steps: Array, *, opposite: bool = False
) -> tuple[Array, Array]:
    """Candidates (..., m', d) and multipliers (..., m') once one is split; offspring come last."""
    others = np.delete(problem.x, index, axis=0)
    born, parts = offspring_of_one(
        problem.x[index], problem.lam[index], directions, steps, opposite=opposite
    )
    shape = born.shape[:-2]
    lam = np.delete(problem.lam, index)
    return (
        np.concatenate([np.broadcast_to(others, (*shape, *others.shape)), born], axis=-2),
        np.concatenate([np.broadcast_to(lam, (*shape, len(lam))), parts], axis=-1),
    )


@contextmanager
def broken_offspring(
    change: Callable[[Candidates, Candidates, Tensor], Candidates],
) -> Iterator[None]:
    """The attack's offspring gone through `change`(parents, new ones, origin)."""
    from attack.splitting import accept, plan

    right = plan.offspring

    def wrong(parents: Any, chosen: Any, steps: Any) -> tuple[Any, Any]:
        new, origin = right(parents, chosen, steps)
        return change(parents, new, origin), origin

    with patch.object(plan, "offspring", wrong), patch.object(accept, "offspring", wrong):
        yield


def kept_multipliers() -> AbstractContextManager[None]:
    """Offspring keep the multiplier of their parent."""
    return broken_offspring(
        lambda old, new, origin: new.with_points(new.x, old.lam.detach()[origin])
    )


def close_offspring(share: float) -> AbstractContextManager[None]:
    """Offspring at this share of their distance."""

    def closer(old: Candidates, new: Candidates, origin: Tensor) -> Candidates:
        start = old.x.detach()[origin]
        return new.with_points(start + share * (new.x - start), new.lam)

    return broken_offspring(closer)


def broken_products(factor: float) -> AbstractContextManager[object]:
    """The attack's products with splitting matrices, too large by a factor."""
    from attack.objectives import base

    right = base.doubled_products

    def wrong(*arguments: Any) -> Any:
        products = right(*arguments)
        return lambda v: factor * products(v)

    return patch.object(base, "doubled_products", wrong)


def broken_gradients(factor: float) -> AbstractContextManager[object]:
    """The attack's gradients by autograd, too large by a factor where no graph is asked for."""
    from attack.objectives import base

    right = base.gradients

    def wrong(output: Any, inputs: Any, graph: bool = False) -> Any:
        found = right(output, inputs, graph)
        return found if graph else [factor * part for part in found]

    return patch.object(base, "gradients", wrong)


def half_rises() -> AbstractContextManager[object]:
    """Half of what penalties grow by."""
    from attack.splitting import plan

    right = plan.penalty_rises
    return patch.object(plan, "penalty_rises", lambda *given: 0.5 * right(*given))
