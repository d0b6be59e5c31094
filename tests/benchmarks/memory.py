"""The estimates of --memory-limit beside the measured peak of every command.

    python -m tests.benchmarks.memory [--only WORD,...] [--large]

Each command runs twice in a process of its own: with a limit of one byte, which it refuses with its
estimate, and without, for its peak resident memory. A ratio below 1 is an estimate that is too
small. `--large` adds sizes that take minutes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from identify.model.deep import DeepNetwork
from identify.model.loading import save_network
from identify.model.two_layer import TwoLayerNetwork
from tests.identify.disaggregation.problems import plant

UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
NEEDED_BY = {
    "verify": ("check",),
    "train": ("attack", "evaluate", "figures"),
    "attack": ("evaluate", "figures"),
    "evaluate": ("figures",),
}
"""Commands whose files others read."""
PROGRAM = Path(sys.executable).parent / "kktcert"


def gradient_files(folder: Path, width: int, dimension: int, samples: int) -> tuple[str, ...]:
    """A cubic network and the gradient of a batch, as arguments of verify."""
    rng = np.random.default_rng(width)
    network = TwoLayerNetwork(
        rng.normal(size=(width, dimension)), rng.normal(size=width) / width, degree=3
    )
    gradient = network.gradient(rng.normal(size=(samples, dimension)), rng.normal(size=samples))
    name = f"{width}-{dimension}"
    model, given = folder / f"{name}.safetensors", folder / f"{name}.gradient.safetensors"
    save_network(network, model)
    save_network(gradient, given)
    return str(model), "--source", "gradient", "--gradient", str(given)


def relu_files(folder: Path, sizes: list[int], count: int) -> tuple[str, ...]:
    """A ReLU network and the gradient of a batch, as arguments of verify."""
    planted = plant(sizes, count, 0)
    name = "-".join(map(str, sizes))
    for part, path in ((planted.network, name), (planted.gradient, f"{name}.gradient")):
        arrays = {f"{k}.weight": w for k, w in enumerate(part.weights)}
        arrays |= {f"{k}.bias": b for k, b in enumerate(part.biases)}
        np.savez(folder / f"{path}.npz", **arrays)
    given = str(folder / f"{name}.gradient.npz")
    kind = ("--activation", "relu", "--loss", "cross-entropy")
    return str(folder / f"{name}.npz"), "--source", "gradient", "--gradient", given, *kind


def smooth_files(folder: Path, sizes: list[int], count: int) -> tuple[str, ...]:
    """A GELU network and the gradient of a batch, as arguments of verify."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(b, a)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    network = DeepNetwork(weights, [0.1 * rng.normal(size=b) for b in sizes[1:]], "gelu")
    slopes = rng.normal(size=(count, sizes[-1]))
    slopes -= slopes.mean(axis=1, keepdims=True)
    gradient = network.gradient(rng.normal(size=(count, sizes[0])), slopes)
    name = "smooth-" + "-".join(map(str, sizes))
    for path, part in ((name, network), (f"{name}.gradient", gradient)):
        pairs = zip(part.weights, part.biases, strict=True)
        arrays = {f"{k}.{kind}": array for k, pair in enumerate(pairs)
                  for kind, array in zip(("weight", "bias"), pair, strict=True)}  # fmt: skip
        np.savez(folder / f"{path}.npz", **arrays)
    given = str(folder / f"{name}.gradient.npz")
    kind = ("--activation", "gelu", "--loss", "cross-entropy")
    return str(folder / f"{name}.npz"), "--source", "gradient", "--gradient", given, *kind


def data_file(folder: Path, samples: int, dimension: int) -> str:
    """Samples to plant."""
    path = folder / f"data-{samples}-{dimension}.npz"
    rng = np.random.default_rng(samples)
    np.savez(path, samples=rng.normal(size=(samples, dimension)))
    return str(path)


def commands(folder: Path, *, large: bool) -> Iterator[tuple[str, ...]]:
    """Every command that has the option, at sizes that take more than its start."""
    sizes = [(150, 64, 12), (400, 784, 20), (1200, 784, 10)]
    for width, dimension, samples in [*sizes, (3000, 3072, 12)] if large else sizes:
        arguments = gradient_files(folder, width, dimension, samples)
        yield "inspect", arguments[0]
        out = folder / f"out-{width}"
        yield "verify", *arguments, "--out", str(out), "--force"
        yield "check", str(out / "report.json"), *arguments
    for widths, count in (([64, 128, 512, 10], 8), ([784, 400, 900, 10], 20)):
        yield "verify", *relu_files(folder, widths, count)
    yield "verify", *relu_files(folder, [784, 1000, 4000, 10], 50)
    for widths, count in (([64, 100, 5], 4), ([784, 1000, 10], 6), ([784, 300, 600, 10], 4)):
        yield "verify", *smooth_files(folder, widths, count)
    for count in (6, 10, 14):
        out = str(folder / f"planted-{count}.safetensors")
        yield "plant", data_file(folder, count, 64), "--degree", "3", "--out", out, "--force"
    yield "derive", "--degree", "3", "--dimension", "6", "--width", "6", "--samples", "6"
    yield "demo", "--out", str(folder / "demo"), "--force"
    yield "proofs", "--examples", "0.05"
    yield "proofs", "--examples", "0.05", "--processes", "1"
    for width, count in ((50, 20), (1000, 200)):
        victim = str(folder / f"victim-{width}")
        yield (
            "train", "digits", "--network", f"64-{width}-{width}-1,relu", "--count", str(count),
            "--steps", "30", "--out", victim, "--force",
        )  # fmt: skip
        run = str(folder / f"run-{width}")
        model = f"{victim}.safetensors"
        yield (
            "attack", model, "--count", str(2 * count), "--steps", "40", "--out", run, "--force",
        )  # fmt: skip
        yield "evaluate", run, "--truth", f"{victim}.truth.npz"
        yield "figures", run, "--out", str(folder / f"figures-{width}"), "--force"


def estimate(command: tuple[str, ...]) -> float | None:
    """Bytes that the command names when one byte is allowed, None where it names none."""
    done = subprocess.run(
        [str(PROGRAM), *command, "--memory-limit", "1"], capture_output=True, text=True, check=False
    )
    found = re.search(r"at least ([\d.]+) (\w+), the estimate", done.stderr)
    first = None if found is None else float(found[1]) * UNITS[found[2]]
    # Estimates in steps: what is allowed by the first may be refused by the next.
    while found is not None:
        limit = str(int(float(found[1]) * UNITS[found[2]] * 1.02))
        done = subprocess.run(
            [str(PROGRAM), *command, "--memory-limit", limit],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.search(r"at least ([\d.]+) (\w+), the estimate", done.stderr)
        if found is not None:
            first = float(found[1]) * UNITS[found[2]]
    return first


def peak(command: tuple[str, ...]) -> float:
    """The peak resident memory of the command and its children, in bytes."""
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        child = subprocess.Popen([str(PROGRAM), *command], stdout=nothing, stderr=nothing)
        _, _, usage = os.wait4(child.pid, 0)
    return 1024.0 * usage.ru_maxrss


def main() -> None:
    """Print one line a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORD,...", help="commands, all unless given")
    parser.add_argument("--large", action="store_true", help="sizes that take minutes")
    chosen = parser.parse_args()
    wanted = set(filter(None, chosen.only.split(",")))
    print(f"{'estimate':>10} {'peak':>8} {'ratio':>6}  command")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command in commands(folder, large=chosen.large):
            if wanted and command[0] not in wanted:
                if wanted & set(NEEDED_BY.get(command[0], ())):
                    peak(command)
                continue
            guess = estimate(command)
            measured = peak(command)
            shown = " ".join(Path(word).name for word in command)
            if guess is None:
                print(f"{'none':>10} {measured / 1e6:7.0f}M {'':>6}  {shown}", flush=True)
                continue
            ratio = guess / measured
            print(f"{guess / 1e6:9.0f}M {measured / 1e6:7.0f}M {ratio:6.2f}  {shown}", flush=True)


if __name__ == "__main__":
    main()
