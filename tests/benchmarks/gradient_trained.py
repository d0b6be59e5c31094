"""How much of a batch one gradient of a trained classifier gives away, against the size of p.

    KKTCERT_DATA=DIR python -m tests.benchmarks.gradient_trained [--draws 50] [--out FOLDER]

Classifiers 784-512-10 and 784-256-256-10 are trained on MNIST digits with Adam until a share of the
training images is right. Batches of training images, float32 gradients of the mean loss, labels
unknown. A sample counts as recovered if its relative error is below 1e-3. The second table sorts
the samples by |p_i| over the largest of its batch. With --out both are written as CSV, too.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from identify.budget import Budget
from identify.disaggregation.disaggregate import disaggregate
from identify.model.deep import DeepNetwork
from tests.benchmarks.disaggregation import errors, images, spoil
from tests.identify.disaggregation.problems import loss_of, plant_batch

NETWORKS = ([784, 512, 10], [784, 256, 256, 10])
GOALS = (0.91, 0.99)
BATCHES = (5, 10, 20)
DECADES = range(0, -8, -1)
RECOVERED = 1e-3
HEAD = (
    "network", "accuracy", "batch", "complete batches", "images", "with p above 1e-5",
    "of these with enough mixed rows", "`globally`", "wrong", "s",
)  # fmt: skip


def train(sizes: list[int], goal: float, seed: int) -> tuple[DeepNetwork, float]:
    """A classifier trained with Adam (1e-3, batches of 64) until the share of right images."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    x, y = (torch.tensor(np.array(part)) for part in images(sizes[0]))
    x, y = x.float(), y.long()
    layers: list[torch.nn.Module] = []
    for index in range(len(sizes) - 1):
        layers += [torch.nn.Linear(sizes[index], sizes[index + 1]), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    accuracy, step = 0.0, 0
    while accuracy < goal:
        for part in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimiser.step()
            step += 1
            if step % 10 == 0:
                with torch.no_grad():
                    accuracy = (model(x).argmax(1) == y).double().mean().item()
                if accuracy >= goal:
                    break
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    weights = [layer.weight.detach().numpy() for layer in linear]
    biases = [layer.bias.detach().numpy() for layer in linear]
    return DeepNetwork(weights, biases, "relu"), accuracy


def study(
    network: DeepNetwork, count: int, draws: int, decades: dict[int, list[bool]]
) -> list[str]:
    """One row: `draws` batches of `count` images; |p_i| by decade goes into ``decades``."""
    x, y = images(network.dimension)
    complete = globally = wrong = 0
    every: list[bool] = []
    seen: list[bool] = []
    ample: list[bool] = []
    started = time.process_time()
    for draw in range(draws):
        rng = np.random.default_rng([11, draw])
        chosen = rng.choice(len(x), count, replace=False)
        problem = plant_batch(network, x[chosen], y[chosen].astype(np.int64))
        result = disaggregate(network, spoil(problem, "float32", 0), loss_of(network),
                              reduction="mean", budget=Budget.of(60.0))  # fmt: skip
        relative, _ = errors(problem, result)
        good = relative < RECOVERED
        size = np.linalg.norm(problem.cotangents, axis=1)
        share = size / size.max()
        masks = network.forward(problem.samples).preactivations[-2] > 0.0
        mixed = int((masks.any(axis=0) & ~masks.all(axis=0)).sum())
        q = network.outputs - 1
        enough = mixed >= count * (count + 1) // 2 + count * (q - 1)
        complete += bool(good.all())
        every += good.tolist()
        seen += good[share > 1e-5].tolist()
        ample += good[(share > 1e-5) & enough].tolist()
        globally += result.verdict == "globally"
        wrong += result.verdict == "globally" and not (relative[share > 1e-5] < 1e-2).all()
        for part, ok in zip(share, good, strict=True):
            decades[max(DECADES[-1], int(np.ceil(np.log10(max(part, 1e-300)))))].append(bool(ok))
    seconds = (time.process_time() - started) / draws
    return [
        str(count), f"{complete} of {draws}", share_of(every), share_of(seen), share_of(ample),
        str(globally), str(wrong), f"{seconds:.1f}",
    ]  # fmt: skip


def share_of(good: list[bool]) -> str:
    """How many of how many."""
    return f"{sum(good)} of {len(good)}"


def rows(rows: list[list[str]], head: tuple[str, ...], path: Path | None) -> None:
    """Print a table, and write it."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    print("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]), flush=True)
    if path is not None:
        path.write_text("\n".join([",".join(head), *(",".join(row) for row in rows)]) + "\n")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    table: list[list[str]] = []
    spread: list[list[str]] = []
    for sizes in NETWORKS:
        for goal in GOALS:
            network, accuracy = train(list(sizes), goal, 0)
            name = ["-".join(map(str, sizes)), f"{accuracy:.3f}"]
            decades: dict[int, list[bool]] = defaultdict(list)
            for count in options.batches:
                table.append([*name, *study(network, count, options.draws, decades)])
                print(table[-1], flush=True)
            spread.append([*name, *(share_of(decades[d]) for d in DECADES)])
    out = options.out
    rows(table, HEAD, None if out is None else out / "trained.csv")
    steps = tuple(f"1e{d - 1} to 1e{d}" for d in DECADES[:-1])
    head = ("network", "accuracy", *steps, f"below 1e{DECADES[-1]}")
    rows(spread, head, None if out is None else out / "trained-by-slope.csv")


if __name__ == "__main__":
    main()
