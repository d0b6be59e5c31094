"""Replay of fine-tuning runs: how often it is exact, and what a wrong recipe does.

`KKTCERT_DATA=DIR python -m tests.benchmarks.replays` prints one row for each network; `--wrong`
the table of wrong recipes instead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from identify.checkpoints.recipe import Recipe
from identify.checkpoints.replay import Replay, replay_samples
from identify.checkpoints.span import find_span
from identify.model.deep import DeepNetwork
from tests.benchmarks.fine_tuned import Pair, Run, errors, make_pair

NETWORKS = {
    "gelu 500-10": ("gelu", (500, 10)),
    "tanh 500-10": ("tanh", (500, 10)),
    "relu 300-10": ("relu", (300, 10)),
    "gelu 256-256-10": ("gelu", (256, 256, 10)),
    "gelu 500-1": ("gelu", (500, 1)),
    "relu 500-1": ("relu", (500, 1)),
    "relu 1000-1": ("relu", (1000, 1)),
}


def recipe_of(pair: Pair, run: Run) -> Recipe:
    """The recipe by which a pair was made."""
    loss = "logistic" if pair.initial.outputs == 1 else "cross_entropy"
    return Recipe(pair.steps, run.rate, run.momentum, loss=loss)


def row(name: str, options: argparse.Namespace) -> str:
    """Exact runs over the seeds, median error, seconds."""
    activation, sizes = NETWORKS[name]
    exact, worst, seconds, steps = 0, [], [], []
    for seed in range(options.seeds):
        run = Run(rate=options.rate, target=options.target)
        pair = make_pair(sizes, options.samples, run, seed, activation=activation)
        started = time.monotonic()
        found = replay_samples(
            pair.initial, pair.final, find_span(pair.initial, pair.final), recipe_of(pair, run),
            None if options.unlabelled else pair.y, time_limit=options.limit, seed=seed,
        )  # fmt: skip
        seconds.append(time.monotonic() - started)
        away = errors(found.samples, pair.x)
        exact += bool(found.determined and away.max() < 1e-6)
        worst.append(float(away.max()))
        steps.append(pair.steps)
        assert not (found.determined and away.max() > found.error_bounds.max()), (name, seed)
    labels = "unknown" if options.unlabelled else "known"
    return (
        f"| {name} | {options.samples} | {labels} | {min(steps)} to {max(steps)} | {exact} of "
        f"{options.seeds} | {np.median(worst):.1e} | {np.median(seconds):.0f} |"
    )


def wrong(pair: Pair, right: Recipe) -> Iterator[tuple[str, Recipe, np.ndarray, bool, Pair]]:  # type: ignore[type-arg]
    """Names and wrong recipes, with the labels, whether the rate is fitted, and the pair."""
    yield "right", right, pair.y, False, pair
    for share in (0.001, 0.01, 0.1, 1.0):
        other = replace(right, rate=right.rate * (1.0 + share))
        yield f"rate off by {100 * share:g} %", other, pair.y, False, pair
        yield f"rate off by {100 * share:g} %, fitted", other, pair.y, True, pair
    for off in (1, 5):
        other = replace(right, steps=right.steps + off)
        yield f"steps off by {off}, rate fitted", other, pair.y, True, pair
    labels = pair.y.copy()
    labels[0] = (labels[0] + 1) % 10 if pair.initial.outputs > 1 else -labels[0]
    yield "one label wrong", right, labels, False, pair
    yield "momentum 0.5 assumed, rate fitted", replace(right, momentum=0.5), pair.y, True, pair
    yield "weight decay 1e-3 assumed", replace(right, decay=1e-3), pair.y, False, pair
    yield "float32 weights", right, pair.y, False, _rounded(pair, np.float32)
    yield "bfloat16 weights", right, pair.y, False, _rounded(pair, None)


def _rounded(pair: Pair, kind: type | None) -> Pair:
    """The pair with its last checkpoint as stored."""

    def stored(array: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        if kind is not None:
            return array.astype(kind).astype(float)
        bits = array.astype(np.float32).view(np.uint32)
        return ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32).astype(float)

    final = DeepNetwork(
        [stored(w) for w in pair.final.weights],
        [None if b is None else stored(b) for b in pair.final.biases], pair.final.activations,
    )  # fmt: skip
    return replace(pair, final=final)


def wrong_row(name: str, options: argparse.Namespace) -> Iterator[str]:
    """A row for each wrong recipe, from samples that are 10 % off."""
    activation, sizes = NETWORKS[name]
    run = Run(rate=options.rate, target=options.target)
    pair = make_pair(sizes, options.samples, run, 0, activation=activation)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=pair.x.shape)
    start = pair.x + noise / np.linalg.norm(noise, axis=1, keepdims=True)
    for word, recipe, labels, fitted, files in wrong(pair, recipe_of(pair, run)):
        span = find_span(files.initial, files.final)
        if span.samples is None:
            yield f"| {name} | {word} | no span: {span.reason[:40]} | | | |"
            continue
        found: Replay = replay_samples(
            files.initial, files.final, span, recipe, labels, fit_rate=fitted, start=start,
            time_limit=options.limit,
        )  # fmt: skip
        away = errors(found.samples, pair.x)
        verdict = "locally" if found.determined else "undecided"
        bound = f"{np.max(found.error_bounds):.1e}" if found.determined else "-"
        yield (
            f"| {name} | {word} | {np.median(away):.1e} | {found.residual:.1e} | {bound} | "
            f"{verdict} |"
        )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--target", type=float, default=0.1)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--unlabelled", action="store_true")
    parser.add_argument("--wrong", action="store_true")
    options = parser.parse_args()
    if options.wrong:
        print("| network | recipe | median error | residual | largest bound | verdict |")
        print("|---" * 6 + "|")
        for name in options.networks:
            for line in wrong_row(name, options):
                print(line, flush=True)
        return
    print("| network | n | labels | steps | exact | median of the largest error | seconds |")
    print("|---" * 7 + "|")
    for name in options.networks:
        print(row(name, options), flush=True)


if __name__ == "__main__":
    main()
