"""How long is one step? Ours beside the published iteration, in both precisions.

Run from the root, without data and without other work on the core:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.attack_steps [--spec 784-1000-1000-1]
                     [--candidates 100 1000] [--methods haim loo] [--repeats 5]

The peer is `peers.Peer`: the gradient of the loss by automatic differentiation twice, with SGD or
Adam. Ours is the same solver on the gradient in closed form. Both start at the same candidates at
a random network (the time of dense products does not depend on the numbers), take the same steps,
and must end at the same candidates. They take turns in one process on one thread, a step each;
the first turn is not counted. Figures are medians of CPU time over the turns, ratios medians of the
ratios within a turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from attack.networks.network import Network
from attack.networks.spec import parse_spec
from attack.objectives import Candidates
from attack.objectives.presets import Preset, preset
from attack.solving.problem import Problem
from attack.solving.settings import SolveSettings
from tests.benchmarks.peers import Peer
from tests.benchmarks.splitting_table import markdown

METHODS = {"haim": ("haim-mnist-1", "first"), "loo": ("loo", "all")}


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one step on either side, turn by turn, and how far the ends are apart."""

    method: str
    dtype: str
    candidates: int
    peer: tuple[float, ...]
    ours: tuple[float, ...]
    apart: float

    def cells(self) -> list[object]:
        ratios = np.divide(self.peer, self.ours)
        return [
            self.method, self.candidates, self.dtype, f"{1e3 * np.median(self.peer):.0f}",
            f"{1e3 * np.median(self.ours):.0f}", f"{np.median(ratios):.2f}",
            f"{ratios.min():.2f} to {ratios.max():.2f}",
        ]  # fmt: skip


def _ours(
    setting: Preset, network: Network, initial: Network | None, mean: torch.Tensor, at: Candidates
) -> Iterator[Candidates]:
    """Our candidates after every step of the preset's solver."""
    dtype = at.x.dtype
    known = None if initial is None else initial.to("cpu", dtype)
    objective = setting.build(
        network.to("cpu", dtype), count=at.count, initial=known, mean=mean.to(dtype)
    )
    solver = SolveSettings(
        setting.optimiser, rate_x=setting.rate_x, rate_lam=setting.rate_lam, splitting="off"
    ).build()
    memory, step = solver.begin(at), 0
    while True:
        move = solver.advance(Problem(objective.with_step(step)), at, memory)
        at, memory, step = move.candidates, move.state, step + 1
        yield at


def _timed(step: Callable[[], object]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def measure(method: str, spec: str, count: int, dtype: str, repeats: int, seed: int = 0) -> Timing:
    """Time both sides in turn."""
    name, bias = METHODS[method]
    setting = replace(preset(name), dtype=dtype)
    form = parse_spec(f"{spec},relu,bias={bias}")
    network = form.initialise(seed + 1)
    initial = form.initialise(seed) if method == "loo" else None
    precision = torch.float64 if dtype == "float64" else torch.float32
    mean = torch.full((form.sizes[0],), 0.5, dtype=torch.float64)
    begun = setting.build(network, count=count, initial=initial, mean=mean).start(
        count, seed, setting.start_scale
    )
    labels = begun.labels
    if labels is not None and labels.is_floating_point():
        labels = labels.to(precision)
    start = Candidates(begun.x.to(precision), begun.lam.to(precision), labels)
    theirs = Peer(setting, network, initial, mean, start).steps()
    own = _ours(setting, network, initial, mean, start)
    peer: list[float] = []
    ours: list[float] = []
    for turn in range(repeats + 1):
        sides = [(peer, theirs), (ours, own)]
        for kept, side in sides if turn % 2 else reversed(sides):
            kept.append(_timed(lambda side=side: next(side)))  # type: ignore[misc]
    a, b = next(theirs), next(own)
    scale = float((b.x - start.x).norm())
    apart = float((a.x - b.x).norm()) / scale
    return Timing(method, dtype, count, tuple(peer[1:]), tuple(ours[1:]), apart)


def table(timings: list[Timing]) -> str:
    """One line per method, number of candidates and precision."""
    head = (
        "method", "candidates", "dtype", "peer, CPU ms a step", "ours", "peer over ours", "range",
    )  # fmt: skip
    return markdown(head, [timing.cells() for timing in timings])


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", default="784-1000-1000-1", help="sizes of the layers")
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    timings = []
    for method in options.methods:
        for count in options.candidates:
            for dtype in ("float32", "float64"):
                found = measure(method, options.spec, count, dtype, options.repeats)
                print(f"{method} {count} {dtype}: apart {found.apart:.1e}", flush=True)
                timings.append(found)
    print(table(timings))


if __name__ == "__main__":
    main()
