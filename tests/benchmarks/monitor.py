"""What `attack.Monitor` costs in a training loop: steps with and without it, side by side.

Run from the root:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.monitor [--width 1000] [--batch 32] [--every 100]

The steps of both loops alternate, so that whatever else runs slows both alike. The cost is that of
one reading over that of as many steps as lie between two readings.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from attack.monitor import Monitor


@dataclass(frozen=True)
class Cost:
    """Seconds of a step and of a reading, medians, and their share at ``every`` steps."""

    step: float
    reading: float
    every: int
    shown: int

    @property
    def share(self) -> float:
        """Seconds of the monitor over those of the training."""
        return self.reading / (self.every * self.step)


def measure(width: int, batch: int, every: int, rounds: int = 20, seed: int = 0) -> Cost:
    """Train width-width-10 with ReLU on random images of 784 pixels, and read at every step."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    monitor = Monitor(net, every=1, tell=None)
    steps, readings, shown = [], [], 0
    for _ in range(rounds):
        x, y = torch.rand(batch, 784), torch.randint(10, (batch,))
        began = time.perf_counter()
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
        between = time.perf_counter()
        reading = monitor.step(batch)
        assert reading is not None
        steps.append(between - began)
        readings.append(time.perf_counter() - between)
        shown = reading.shown
    return Cost(statistics.median(steps), statistics.median(readings), every, shown)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--every", type=int, default=100)
    given = parser.parse_args(arguments)
    cost = measure(given.width, given.batch, given.every)
    print(f"step      {1e3 * cost.step:8.2f} ms")
    print(f"reading   {1e3 * cost.reading:8.2f} ms, {cost.shown} of {given.batch} samples shown")
    print(f"every {given.every:4d} {100 * cost.share:8.2f} % of the training")


if __name__ == "__main__":
    main()
