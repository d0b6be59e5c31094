"""How much of a batch one gradient of a trained GELU classifier gives away, by the size of p.

    KKTCERT_DATA=DIR python -m tests.benchmarks.smooth_trained [--draws 5] [--epochs 1 2 3]
        [--batches 16 32] [--precision float32 float64] [--seconds 60]

A classifier 784-256-256-10 is trained on MNIST digits with Adam. Batches of training images, the
gradient of the mean loss, cross-entropy, labels unknown. A sample counts as recovered if its
relative error is below 1e-2. Columns count recovered of all samples by |p_i| over the largest of
its batch; *false* counts printed points that are no samples of the batch, *wrong* verdicts
`locally` with such a point or without one of |p_i| above 1e-6 of the largest.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import numpy as np

import identify
from identify.model.deep import DeepNetwork
from tests.benchmarks.disaggregation import images, spoil
from tests.benchmarks.gradient_trained import share_of
from tests.identify.disaggregation.problems import distances, loss_of, plant_batch

SIZES = (784, 256, 256, 10)
DECADES = (-1, -2, -3, -4, -6, -9)
RECOVERED = 1e-2
VISIBLE = 1e-6


def trained(epochs: int, seed: int) -> tuple[DeepNetwork, float]:
    """A GELU classifier after so many epochs of Adam (1e-3, batches of 64), and its accuracy."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    x, y = (torch.tensor(np.array(part)) for part in images(SIZES[0]))
    x, y = x.float(), y.long()
    layers: list[torch.nn.Module] = []
    for index in range(len(SIZES) - 1):
        layers += [torch.nn.Linear(SIZES[index], SIZES[index + 1]), torch.nn.GELU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimiser.step()
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == y).double().mean().item()
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    weights = [layer.weight.detach().numpy() for layer in linear]
    biases = [layer.bias.detach().numpy() for layer in linear]
    return DeepNetwork(weights, biases, "gelu"), accuracy


def study(
    network: DeepNetwork, count: int, draws: int, precision: str, seconds: float
) -> list[str]:
    """One row."""
    x, y = images(network.dimension)
    bins: dict[int, list[bool]] = defaultdict(list)
    visible: list[bool] = []
    complete = false = locally = wrong = 0
    times: list[float] = []
    for draw in range(draws):
        rng = np.random.default_rng([16, draw])
        chosen = rng.choice(len(x), count, replace=False)
        problem = plant_batch(network, x[chosen], y[chosen].astype(np.int64))
        started = time.process_time()
        found = identify.assess_gradient(
            network, spoil(problem, precision, 0), loss_of(network), reduction="mean",
            time_limit=seconds,
        ).found  # fmt: skip
        times.append(time.process_time() - started)
        good, strangers = np.zeros(count, dtype=bool), 0
        if found.samples is not None and found.layer == 0:
            good = distances(found.samples, problem.samples) < RECOVERED
            strangers = int((distances(problem.samples, found.samples) > 0.1).sum())
        size = np.linalg.norm(problem.cotangents, axis=1)
        share = size / size.max()
        for part, ok in zip(share, good, strict=True):
            bins[next((d for d in DECADES if part >= 10.0**d), -99)].append(bool(ok))
        seen = good[share > VISIBLE]
        visible += seen.tolist()
        complete += bool(good.all())
        false += strangers
        locally += found.verdict == "locally"
        wrong += found.verdict == "locally" and (strangers > 0 or not bool(seen.all()))
    return [
        str(count), precision, f"{complete} of {draws}", share_of(visible),
        *(share_of(bins[d]) for d in (*DECADES, -99)), str(false), str(locally), str(wrong),
        f"{np.median(times):.1f}",
    ]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--precision", nargs="+", default=["float32", "float64"])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    steps = [f"p above 1e{d}" for d in DECADES]
    head = (
        "epochs", "accuracy", "n", "gradient", "complete", "above 1e-6", *steps, "below",
        "false", "`locally`", "wrong", "s",
    )  # fmt: skip
    print(f"| {' | '.join(head)} |\n" + "|---" * len(head) + "|", flush=True)
    for epochs in options.epochs:
        network, accuracy = trained(epochs, 0)
        for count in options.batches:
            for precision in options.precision:
                row = study(network, count, options.draws, precision, options.seconds)
                print(f"| {epochs} | {accuracy:.3f} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
