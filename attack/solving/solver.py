"""One step of an attack: gradient descent with momentum, Adam, and what every solver shares."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attack.objectives.candidates import Candidates
from attack.solving.problem import Move, Problem, Solver, State, shares


@dataclass(frozen=True)
class MomentumDescent(Solver):
    """v <- momentum v + gradient, x <- x - rate v, with rates of their own for x and lam.

    Source: the solver of Haim et al. (2022), "Reconstructing training data from trained neural
    networks"; heavy ball, Polyak (1964).

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-6-1,tanh").initialise(seed=0)
        >>> problem = Problem(haim_objective(network, normaliser=4))
        >>> solver, at = MomentumDescent(1e-2, 1e-2), problem.objective.start(4, 0, 0.1)
        >>> move = solver.advance(problem, at, solver.begin(at))
        >>> problem.evaluate(move.candidates).loss < move.at.loss
        True
    """

    rate_x: float
    rate_lam: float
    momentum: float = 0.9
    name: str = field(default="sgd", init=False)
    hold: int = field(default=1, init=False)
    window: int = field(default=250, init=False)
    interval: int = field(default=2_500, init=False)

    def begin(self, candidates: Candidates) -> State:
        return {"x": torch.zeros_like(candidates.x), "lam": torch.zeros_like(candidates.lam)}

    def advance(self, problem: Problem, candidates: Candidates, state: State) -> Move:
        at = problem.evaluate(candidates)
        new = {
            "x": torch.add(at.grad_x, state["x"], alpha=self.momentum),
            "lam": torch.add(at.grad_lam, state["lam"], alpha=self.momentum),
        }
        x = torch.add(at.candidates.x, new["x"], alpha=-self.rate_x)
        lam = torch.add(at.candidates.lam, new["lam"], alpha=-self.rate_lam)
        return Move(at, problem.moved(at.candidates, x, lam), new)

    def carry(self, state: State, old: Candidates, new: Candidates, origin: Tensor) -> State:
        # Offspring go on with the velocity of the parent, and so does the sum of its multipliers.
        share = shares(old, new, origin)
        return {"x": state["x"][origin], "lam": share * state["lam"][origin]}


@dataclass(frozen=True)
class Adam(Solver):
    """Adam with rates of their own for x and lam.

    Source: Kingma & Ba (2015), "Adam: a method for stochastic optimization", algorithm 1; the
    solver of Loo et al. (2024).

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> from attack.objectives import haim_objective
        >>> network = parse_spec("4-6-1,tanh").initialise(seed=0)
        >>> problem = Problem(haim_objective(network, normaliser=4))
        >>> solver, at = Adam(0.01, 0.01), problem.objective.start(4, 0, 0.1)
        >>> move = solver.advance(problem, at, solver.begin(at))
        >>> bool(((move.candidates.x - at.x).abs() < 0.01).all())  # at most the rate, per pixel
        True
    """

    rate_x: float
    rate_lam: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    name: str = field(default="adam", init=False)
    hold: int = field(default=1, init=False)
    window: int = field(default=250, init=False)
    interval: int = field(default=2_500, init=False)

    def begin(self, candidates: Candidates) -> State:
        x, lam = candidates.x, candidates.lam
        return {
            "x": torch.zeros_like(x),
            "lam": torch.zeros_like(lam),
            "x2": torch.zeros_like(x),
            "lam2": torch.zeros_like(lam),
            "steps": torch.zeros((), dtype=torch.float64),
        }

    def advance(self, problem: Problem, candidates: Candidates, state: State) -> Move:
        at = problem.evaluate(candidates)
        count = float(state["steps"]) + 1
        new = {"steps": torch.tensor(count, dtype=torch.float64)}
        points = {}
        for name, gradient, rate in (
            ("x", at.grad_x, self.rate_x),
            ("lam", at.grad_lam, self.rate_lam),
        ):
            first = torch.lerp(gradient, state[name], self.beta_1)
            second = torch.lerp(gradient.square(), state[f"{name}2"], self.beta_2)
            size = second.sqrt().div_((1 - self.beta_2**count) ** 0.5).add_(self.epsilon)
            here = getattr(at.candidates, name)
            points[name] = torch.addcdiv(here, first, size, value=-rate / (1 - self.beta_1**count))
            new[name], new[f"{name}2"] = first, second
        return Move(at, problem.moved(at.candidates, points["x"], points["lam"]), new)

    def carry(self, state: State, old: Candidates, new: Candidates, origin: Tensor) -> State:
        # The gradient of an offspring in x is its share of the parent's, that in lam is the same.
        share = shares(old, new, origin)
        return {
            "x": share * state["x"][origin],
            "lam": state["lam"][origin],
            "x2": share.square() * state["x2"][origin],
            "lam2": state["lam2"][origin],
            "steps": state["steps"],
        }
