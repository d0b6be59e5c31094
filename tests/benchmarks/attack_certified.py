"""Certified networks from random starts with Gauss-Newton: how often splitting finds all samples.

Run from the root; finished problems are kept in the folder and skipped by the next call:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.attack_certified --out certified

Digits (scikit-learn, mean removed), degree 3, in the sources "gradient" (one gradient of a batch of
unit digits at normal weights) and "planted" (`identify.plant_network`, determined). The
attack knows the weights and how many samples they hold: the rank of the first layer. It starts
with that many random points in all 64 dimensions, seeded by problem and start, and does not see the
samples; `identify.match_samples` judges its last candidates. A start is solved if every
sample is matched to 1e-6, up to sign and scale, and no other candidate is left. Of up to five
starts the first with that many candidates and a loss at rounding is taken, else the lowest loss.

Three ways on the same first start: without splitting; with it (mode "auto"); with it and then a
reduction to as few candidates as the weights allow. Splitting leaves more candidates than samples,
and many such sets explain the weights; only the smallest set is unique.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attack import solve
from attack.networks.activations import Activation
from attack.networks.network import Network
from attack.objectives import Candidates, buzaglo_objective, gradient_matching_objective
from attack.objectives.residual import ResidualObjective
from attack.solving.settings import SolveSettings
from identify.arrays import FloatArray
from identify.errors import KktCertError
from identify.exposure.compare import match_samples
from identify.model.two_layer import TwoLayerNetwork
from identify.planting.plant import plant_network
from tests.benchmarks.planting import digits
from tests.benchmarks.splitting_table import finished, keep, markdown

ACCURACY = 1e-6
STARTS = 5
NEURONS = 60
ROUNDING = 1e-22
"""A loss of so much of |target|^2 ends an optimisation; at a root it goes on falling far below."""
SPARE = 4
"""So many candidates more than samples may be there while splitting."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What the attack is given (`objective`, `rank`), and the samples it is judged by."""

    name: str
    source: str
    objective: ResidualObjective
    rank: int
    samples: FloatArray

    @property
    def target_loss(self) -> float:
        return ROUNDING * sum(float(t.square().sum()) for t in self.objective.target)


@dataclass(frozen=True)
class Outcome:
    """One start: whether it explains the weights with `rank` candidates, and what it found."""

    loss: float
    explains: bool
    solved: bool
    matched: int
    worst: float
    candidates: int
    steps: int
    seconds: float


def problems(sources: list[str], sizes: list[int], count: int) -> Iterator[Problem]:
    """Yield `count` problems, sources and sizes in turn; planting that fails takes another draw."""
    kinds = [(source, n) for n in sizes for source in sources]
    for number in range(count):
        source, n = kinds[number % len(kinds)]
        yield make_problem(source, n, number // len(kinds))


def make_problem(source: str, n: int, index: int) -> Problem:
    """Draw digits and put them into weights, or into one gradient."""
    images = digits()
    rng = np.random.default_rng([index, n])
    while True:
        samples = images[rng.choice(len(images), n, replace=False)]
        if source == "gradient":
            samples = samples / np.linalg.norm(samples, axis=1, keepdims=True)
            normal = rng.standard_normal((NEURONS, 64)), rng.standard_normal(NEURONS)
            network = TwoLayerNetwork(*normal, degree=3)
            b = rng.uniform(0.5, 1.5, size=n) * rng.choice([-1.0, 1.0], size=n)
            target = network.gradient(samples, b)
            objective = gradient_matching_objective(
                victim(network), victim(target).parameters(), normaliser=1
            )
            break
        try:
            planted = plant_network(
                samples, stationary="regression", determined=True, seed=index, time_limit=30.0
            )
        except KktCertError:
            continue
        target = planted.network
        objective = buzaglo_objective(victim(target), normaliser=1, task="regression", box=None)
        break
    rank = int(np.linalg.matrix_rank(target.hidden_weight, tol=1e-9))
    return Problem(f"{source} {n} {index}", source, objective, rank, samples)


def victim(network: TwoLayerNetwork) -> Network:
    """The network of the verifier as one of the attack."""
    layers = (network.hidden_weight, network.output_weight[None])
    weights = tuple(torch.tensor(np.array(w)) for w in layers)
    return Network(weights, (None, None), Activation("power", 3))


def attempt(
    problem: Problem, start: int, steps: int, *, splitting: bool
) -> tuple[Outcome, Outcome | None]:
    """Optimise from one random start; with splitting also what a reduction makes of it."""
    objective, rank, target = problem.objective, problem.rank, problem.target_loss
    began = time.process_time()
    settings = SolveSettings(
        "gauss-newton",
        steps=steps,
        splitting="auto" if splitting else "off",
        limit=rank + SPARE if splitting else None,
        target_loss=target,
        seed=start,
    )
    first = objective.start(rank, seed=start, scale=objective.dimension**-0.5)
    found = solve(objective, first, settings)
    plain = judged(problem, found.candidates, found.loss, found.state.step, began)
    if not splitting:
        return plain, None
    candidates, loss, more = found.candidates, found.loss, 0
    if loss <= target:
        candidates, loss, more = reduced(objective, candidates, rank, settings)
    return plain, judged(problem, candidates, loss, found.state.step + more, began)


def judged(
    problem: Problem, candidates: Candidates, loss: float, steps: int, began: float
) -> Outcome:
    """Compare candidates with the samples; nothing is decided by it."""
    seconds = time.process_time() - began
    matching = match_samples(
        candidates.x.numpy(), problem.samples, up_to_sign=True, up_to_scale=True
    )
    worst = float(matching.errors.max())
    return Outcome(
        loss=loss,
        explains=candidates.count == problem.rank and loss <= problem.target_loss,
        solved=candidates.count == len(problem.samples) and worst <= ACCURACY,
        matched=int(np.count_nonzero(matching.errors <= ACCURACY)),
        worst=min(worst, 9.0),
        candidates=candidates.count,
        steps=steps,
        seconds=seconds,
    )


def reduced(
    objective: ResidualObjective, candidates: Candidates, rank: int, settings: SolveSettings
) -> tuple[Candidates, float, int]:
    """Drop candidates one at a time while the others can be brought back to a vanishing loss.

    First those without which the loss rises least at the best other multipliers, lam_i^2 over the
    i-th diagonal entry of the inverse Gram matrix. Never fewer than `rank`.
    """
    settings = replace(settings, splitting="off", limit=None, steps=60)
    loss, used = float(objective.value(candidates)), 0
    while candidates.count > rank:
        for index in torch.argsort(rises(objective, candidates)).tolist():
            others = [i for i in range(candidates.count) if i != index]
            found = solve(objective, candidates.select(torch.tensor(others)), settings)
            used += found.state.step
            if found.loss <= settings.target_loss:
                candidates, loss = found.candidates, found.loss
                break
        else:
            break
    return candidates, loss, used


def rises(objective: ResidualObjective, candidates: Candidates) -> torch.Tensor:
    """How much the loss rises without each candidate, at the best multipliers of the others."""
    system = objective.multiplier_system(candidates)
    scale = system.gram.diagonal().clamp_min(1e-300).sqrt()
    gram = system.gram / scale[:, None] / scale
    inverse = torch.linalg.inv(gram + 1e-10 * torch.eye(len(gram), dtype=gram.dtype))
    return (candidates.lam.flatten() * scale).square() / inverse.diagonal()


def measure(problem: Problem, steps: int) -> dict[str, Any]:
    """One start without splitting, and up to five with it."""
    tries: list[Outcome] = []
    for start in range(STARTS):
        plain, last = attempt(problem, start, steps, splitting=True)
        assert last is not None
        tries.append(last)
        if start == 0:
            splitting = plain
        if last.explains:
            break
    taken = tries[-1] if tries[-1].explains else min(tries, key=lambda outcome: outcome.loss)
    off, _ = attempt(problem, 0, steps, splitting=False)
    return {
        "problem": problem.name,
        "source": problem.source,
        "n": len(problem.samples),
        "off": asdict(off),
        "splitting": asdict(splitting),
        "starts": [asdict(outcome) for outcome in tries],
        "solved": taken.solved,
        "worst": taken.worst,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rates by source and size."""
    head = (
        "source", "n", "problems", "one start, off", "one start, splitting",
        "one start, splitting and reduction", "up to five starts", "most starts",
        "largest error", "CPU s a start, off", "with splitting and reduction",
    )  # fmt: skip
    lines = []
    for source, n in [*sorted({(row["source"], row["n"]) for row in rows}), ("all", "")]:
        part = [r for r in rows if source == "all" or (r["source"], r["n"]) == (source, n)]
        lines.append(
            (
                source, n, len(part),
                sum(r["off"]["solved"] for r in part),
                sum(r["splitting"]["solved"] for r in part),
                sum(r["starts"][0]["solved"] for r in part),
                sum(r["solved"] for r in part),
                max(len(r["starts"]) for r in part),
                f"{max(r['worst'] for r in part):.0e}",
                f"{np.mean([r['off']['seconds'] for r in part]):.1f}",
                f"{np.mean([s['seconds'] for r in part for s in r['starts']]):.1f}",
            )
        )  # fmt: skip
    return markdown(head, lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the problems that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of finished problems")
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6, 8, 10])
    parser.add_argument("--sources", nargs="+", default=["gradient", "planted"])
    parser.add_argument("--steps", type=int, default=400, help="Gauss-Newton steps of a start")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    target = options.out / "certified.jsonl"
    done = finished(target, "problem")
    rows = []
    for problem in problems(options.sources, options.sizes, options.problems):
        if problem.name not in done:
            row = measure(problem, options.steps)
            keep(target, row)
            done[problem.name] = row
            words = "solved" if row["solved"] else "NOT solved"
            print(f"{problem.name}: {words}, {len(row['starts'])} starts", flush=True)
        rows.append(done[problem.name])
    print(table(rows))


if __name__ == "__main__":
    main()
