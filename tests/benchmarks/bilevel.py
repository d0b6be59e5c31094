"""Privacy due to uncertainty? The bilevel attack and DecoReco from different starts.

Run from the root, whole or in parts; finished runs are kept in the folder and skipped:

    KKTCERT_DATA=... OMP_NUM_THREADS=1 python -m tests.benchmarks.bilevel --out bilevel
                     [--victims affine] [--seeds 0 1] [--picture docs/images/bilevel.png] [--table]

Victims: classifiers of CIFAR-10 on 10 images, one of each class, drawn by the seed, with weight
decay 1e-2: affine (3072-10), and with 32 hidden units of tanh. Both are trained from an
initialisation by the seed until the gradient is below 1e-8. Attacks know the victim, its
initialisation, loss, decay, labels and the number of images. "bilevel" asks that training on the
candidates ends at the victim: implicit gradient at the solution of the inner problem. "DecoReco"
asks that the victim is stationary for them (`gradient_norm`). 100 steps of L-BFGS in float64,
every sample of weight 1.

Starts: the true images with a share of their pixels replaced by noise (100 % true to 0 %, which is
noise alone), and other images of the same classes.

Afterwards the network is trained on the candidates from the same initialisation. Columns: distance
of the two networks over the way of the training; L2 distance of a candidate to the image of its
label over that of a held-out image to it; SSIM with it; how many of the candidates have a training
image as nearest neighbour among training and 300 held-out images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import attack
from attack.evaluation.metrics import ssim
from attack.networks.network import Network
from attack.networks.spec import parse_spec
from attack.solving.starts import StartImages
from attack.training.images import ImageData, load_images
from attack.training.losses import TrainingProblem
from attack.training.to_stationarity import polish
from identify.arrays import FloatArray
from tests.benchmarks.splitting_table import Row, finished, keep, markdown

VICTIMS = {"affine": "-10,identity", "two-layer": "-32-10,tanh"}
OBJECTIVES = {"bilevel": "bilevel", "DecoReco": "gradient_norm"}
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
STARTS = (*(f"{share:.0%} true" for share in SHARES), "other images")
KEYS = ("victim", "objective", "start", "seed", "steps", "data")
DECAY, TOLERANCE, LOSS = 1e-2, 1e-8, "cross-entropy"
HELD_OUT = 30
"""Held-out images of each class."""


@dataclass(frozen=True, eq=False)
class Case:
    """One victim, the images that it was trained on, and others of the same classes."""

    initial: Network
    victim: Network
    data: ImageData
    others: ImageData


def trained(initial: Network, samples: Tensor, labels: Tensor) -> tuple[Network, float]:
    """Train to the end; the network and the norm of the gradient there."""
    problem = TrainingProblem(initial, samples, labels, LOSS, DECAY)
    done = polish(problem, initial.parameters(), tolerance=TOLERANCE)
    return initial.with_parameters(done.parameters), done.gradient_norm


def make_case(victim: str, data: str, seed: int) -> Case:
    """Draw the images and train the victim."""
    options: dict[str, Any] = {"task": "multiclass", "draw": "random", "seed": seed}
    chosen = load_images(data, per_class=1, mean="scalar", **options)
    others = load_images(data, per_class=HELD_OUT, skip=1, mean=chosen.mean, **options)
    shape = f"{chosen.samples.shape[1]}{VICTIMS[victim]}"
    initial = parse_spec(shape).initialise(seed=seed)
    network, norm = trained(initial, *_tensors(chosen))
    assert norm <= TOLERANCE, f"the victim of seed {seed} is not stationary: {norm:.1e}"
    return Case(initial, network, chosen, others)


def started(case: Case, start: str, seed: int) -> dict[str, Any]:
    """The arguments of `attack.reconstruct` for a start."""
    labels = case.data.labels
    if start == "other images":
        first = [int(np.flatnonzero(case.others.labels == label)[0]) for label in labels]
        return {"start": StartImages(case.others.samples[first], labels)}
    share = float(start.split("%")[0]) / 100
    if share == 0.0:
        return {"start": "noise", "start_scale": float(case.data.samples.std()), "labels": labels}
    return {"start": StartImages(case.data.samples, labels), "share": share}


def measure(victim: str, objective: str, start: str, seed: int, steps: int, data: str) -> Row:
    """One attack as a JSON-ready row; it does not see the truth but for its start."""
    case = make_case(victim, data, seed)
    name = OBJECTIVES[objective]
    options: dict[str, Any] = {"loss": LOSS, "decay": DECAY}
    if name == "bilevel":
        options |= {"inner": "converged", "tolerance": TOLERANCE}
    began = time.process_time()
    run = attack.reconstruct(
        case.victim, name, initial=case.initial if name == "bilevel" else None, options=options,
        count=len(case.data.labels), splitting="off", steps=steps, seed=seed,
        dtype=torch.float64, **started(case, start, seed),
    )  # fmt: skip
    seconds = time.process_time() - began
    key = dict(zip(KEYS, (victim, objective, start, seed, steps, data), strict=True))
    return {**key, "seconds": seconds, "loss": run.loss, **judged(case, run.candidates)}


def judged(case: Case, candidates: FloatArray) -> dict[str, Any]:
    """Compare networks and images; candidate i has the label of sample i."""
    labels = _tensors(case.data)[1]
    again, _ = trained(case.initial, torch.from_numpy(candidates), labels)
    way = _distance(case.victim, case.initial)
    truth, others = case.data.samples, case.others.samples
    own = np.linalg.norm(candidates - truth, axis=1)
    rest = np.linalg.norm(candidates[:, None] - others, axis=2).min(axis=1)
    near = np.linalg.norm(candidates[:, None] - truth, axis=2).min(axis=1)
    null = np.array([
        np.median(np.linalg.norm(others[case.others.labels == label] - image, axis=1))
        for image, label in zip(truth, case.data.labels, strict=True)
    ])  # fmt: skip
    pictures = [_pictures(case, rows) for rows in (candidates, truth)]
    return {
        "parameters": _distance(case.victim, again) / way,
        "images": float(np.median(own / null)),
        "ssim": float(np.median(ssim(*pictures, case.data.image_shape))),
        "nearest": float(np.mean(near < rest)),
    }


def _pictures(case: Case, rows: FloatArray) -> FloatArray:
    return np.clip(rows + np.asarray(case.data.mean).reshape(-1), 0.0, 1.0)


def _distance(first: Network, second: Network) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return float(torch.stack([(p - q).square().sum() for p, q in pairs]).sum().sqrt())


def _tensors(data: ImageData) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(data.samples), torch.from_numpy(np.asarray(data.labels)).long()


def table(rows: Iterable[Row]) -> str:
    """Medians over the seeds, a line for each start."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["victim"], row["objective"], row["start"]), []).append(row)
    head = (
        "victim", "attack", "start", "runs", "parameter distance", "image distance", "SSIM",
        "nearest is a training image", "loss", "CPU s",
    )  # fmt: skip
    lines = []
    for key, part in groups.items():
        middle = {
            name: float(np.median([row[name] for row in part]))
            for name in ("parameters", "images", "ssim", "loss", "seconds")
        }
        lines.append([
            *key, len(part), f"{middle['parameters']:.1e}", f"{middle['images']:.2f}",
            f"{middle['ssim']:.2f}", f"{np.mean([row['nearest'] for row in part]):.0%}",
            f"{middle['loss']:.1e}", f"{middle['seconds']:.1f}",
        ])  # fmt: skip
    return markdown(head, lines)


def draw(rows: Sequence[Row], target: Path) -> None:
    """Parameter and image distance against the share of true pixels, every seed a thin line."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    victims = [name for name in VICTIMS if any(row["victim"] == name for row in rows)]
    colours = dict(zip(OBJECTIVES, ("tab:blue", "tab:orange"), strict=True))
    with mpl.rc_context({"svg.hashsalt": "kktcert", "font.size": 8}):
        figure = Figure(figsize=(3.2 * len(victims) + 0.4, 4.2), layout="constrained")
        axes: Any = figure.subplots(2, len(victims), sharex=True, squeeze=False)
        for column, victim in zip(axes.T, victims, strict=True):
            column[0].set_title(victim)
            for axis, name in zip(column, ("parameters", "images"), strict=True):
                for objective, colour in colours.items():
                    part = [r for r in rows if (r["victim"], r["objective"]) == (victim, objective)]
                    _lines(axis, part, name, colour, objective)
            column[0].set_yscale("log")
            column[1].set_xlabel("% of the pixels true at the start")
        axes[0, 0].set_ylabel("parameter distance\nover the way of training")
        axes[1, 0].set_ylabel("image distance\nover that of held-out images")
        axes[0, 0].legend(frameon=False)
        figure.savefig(target, dpi=90, metadata={"Software": None})


def _lines(axis: Any, rows: list[Row], name: str, colour: str, label: str) -> None:
    curves = []
    for seed in sorted({row["seed"] for row in rows}):
        found = {row["start"]: row[name] for row in rows if row["seed"] == seed}
        values = [found.get(f"{share:.0%} true", np.nan) for share in SHARES]
        axis.plot([100 * share for share in SHARES], values, color=colour, linewidth=0.5, alpha=0.4)
        curves.append(values)
    if curves:
        middle = np.median(curves, axis=0)
        axis.plot([100 * share for share in SHARES], middle, color=colour, label=label)


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of finished runs")
    parser.add_argument("--victims", nargs="+", default=list(VICTIMS), choices=VICTIMS)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--data", default="cifar10", help="or digits, mnist")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    target = options.out / "runs.jsonl"
    done = finished(target, *KEYS)
    wanted = [
        (victim, objective, start, seed, options.steps, options.data)
        for seed in options.seeds
        for victim in options.victims
        for objective in options.objectives
        for start in options.starts
    ]
    for key in [] if options.table else [key for key in wanted if key not in done]:
        done[key] = measure(*key)
        keep(target, done[key])
        print({name: done[key][name] for name in (*KEYS[:4], "parameters", "images", "seconds")},
              flush=True)  # fmt: skip
    rows = sorted((done[key] for key in wanted if key in done), key=lambda row: _order(row))
    print(table(rows))
    if options.picture is not None:
        draw(rows, options.picture)


def _order(row: Row) -> tuple[int, int, int]:
    return (
        list(VICTIMS).index(row["victim"]),
        list(OBJECTIVES).index(row["objective"]),
        STARTS.index(row["start"]),
    )


if __name__ == "__main__":
    main()
