"""A planted network of two layers with ReLU, as a command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from identify.arrays import FloatArray
from identify.command.inputs import two_classes
from identify.command.limits import PROCESS, refuse_above
from identify.command.names import TrainedName
from identify.command.options import MemoryOptions, RunOptions
from identify.command.output import replacing
from identify.command.run import show_facts
from identify.errors import InvalidInputError
from identify.model.dataset import load_samples

if TYPE_CHECKING:
    from identify.planting.relu import PlantedRelu

_COUNT, _DIMENSION = 4, 16
_MOST_PATTERNS = 8192
_SPARE = 32 * 2**20


@dataclass(frozen=True)
class ReluPlan:
    """What is to be planted: given or drawn samples, and the size of the network."""

    data: Path | None
    samples: int | None
    dimension: int | None
    width: int | None
    trained: TrainedName
    stationary: str
    determined: bool

    def points(self, seed: int) -> tuple[FloatArray, FloatArray | None]:
        """Samples (n, d), and their labels if the file has any; InvalidInputError for both."""
        from identify.planting.relu import centred_samples, equiangular_samples

        if self.data is not None:
            for option, value in (("--samples", self.samples), ("--dimension", self.dimension)):
                if value is not None:
                    raise InvalidInputError(option, "nothing beside DATA.npz", value)
            given = load_samples(self.data)
            return given.samples, two_classes(given.labels)
        count = _COUNT if self.samples is None else self.samples
        dimension = max(_DIMENSION, count) if self.dimension is None else self.dimension
        if count < 2 or dimension < count:
            expected = "at least 2 samples and as many dimensions"
            raise InvalidInputError("--samples, --dimension", expected, f"{count}, {dimension}")
        if self.trained is TrainedName.BOTH:
            size = (count - 1) // 2 + 1
            return equiangular_samples(count, size, dimension, seed=seed), None
        return centred_samples(count, dimension, seed=seed), None

    def plant(self, points: FloatArray, labels: FloatArray | None, seed: int) -> Any:
        """The network; PlantingError where none is found, or it does not determine its samples."""
        from identify.planting.plant import PlantingError
        from identify.planting.relu import plant_relu_network

        kinds = ["margin", "regression"] if self.stationary == "auto" else [self.stationary]
        for kind in kinds:
            try:
                planted = plant_relu_network(
                    points, labels=labels, kind=kind, trained=self.trained.value, width=self.width,
                    seed=seed,
                )  # fmt: skip
            except PlantingError:
                if kind == kinds[-1]:
                    raise
                continue
            if not self.determined or _determine(planted):
                return planted
        raise PlantingError(
            f"the patterns found are too few or too alike to determine {len(points)} samples; take "
            "fewer samples, more neurons or another --seed"
        )


def _determine(planted: PlantedRelu) -> bool:
    """Whether the patterns leave one set, by the equations of degree 2 or those of degree 3."""
    from identify.disaggregation.cubic import LARGEST_UNKNOWNS, count_unknowns
    from identify.disaggregation.printed import prove_printed

    (m, n), on = planted.patterns.shape, planted.patterns
    if planted.determined or count_unknowns(n, 1, leaky=False) > LARGEST_UNKNOWNS:
        return planted.determined
    return prove_printed(np.ones((m, 1)), np.ones((n, 1)), on, 0.0, degree=3).holds is True


def plant_relu(
    plan: ReluPlan, out: Path, truth: Path, run: RunOptions, memory: MemoryOptions
) -> int:
    """Plant a ReLU network, write it with its truth, and say what it is; the exit code."""
    from identify.disaggregation.cubic import count_rows
    from identify.model.loading import save_relu_network
    from identify.model.patterns import count_patterns

    points, labels = plan.points(run.seed)
    count, dimension = points.shape
    neurons = max(plan.width or 0, 2 * min(2 ** min(count, 13) * 2, _MOST_PATTERNS))
    needed = PROCESS + _SPARE + 8 * 8 * neurons * (dimension + count)
    refuse_above(memory.memory_limit, needed, "plant fewer samples")
    planted = plan.plant(points, labels, run.seed)
    with replacing(out) as path, replacing(truth) as beside:
        save_relu_network(planted.network, path)
        np.savez(beside, **planted.truth())
    facts = {
        "model": str(out),
        "truth": str(truth),
        "activation": "relu",
        "stationary": planted.kind,
        "trained": planted.trained,
        "neurons": planted.network.widths[0],
        "samples": count,
        "dimension": dimension,
        "patterns": count_patterns(planted.patterns),
        "patterns_needed": min(count * (count + 1) // 2, count_rows(count, 1, leaky=False)),
        "determined": _determine(planted),
        "seed": planted.seed,
    }
    show_facts("Planted network", facts, run.format)
    return 0
