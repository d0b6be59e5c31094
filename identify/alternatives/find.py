"""Other training sets that explain the same weights: the public entry."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from identify.alternatives.admissible import SetRules, largest_difference
from identify.alternatives.constrained import moved_set, read_keep
from identify.alternatives.off_span import nu_pair_alternative, off_span_alternative
from identify.alternatives.pairs import Pair, search_sets
from identify.arrays import FloatArray
from identify.budget import Budget, Progress
from identify.errors import FileError, InvalidInputError
from identify.hermite.data import HermiteData
from identify.hermite.stationarity import stationarity
from identify.model.dataset import Dataset
from identify.model.two_layer import TwoLayerNetwork
from identify.progress import logged
from identify.records import TrainingSet
from identify.thresholds import DIFFERENT

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from identify.recovery.assumptions import Assumptions
    from identify.recovery.stages import Stage


__all__ = [
    "Pair",
    "find_alternative",
    "largest_difference",
    "nu_pair_alternative",
    "off_span_alternative",
    "save_alternatives",
    "search_sets",
    "stationarity",
]


def find_alternative(
    network: TwoLayerNetwork,
    source: str = "kkt",
    samples: int | None = None,
    distance: float | None = None,
    keep: Sequence[str] = (),
    start: Dataset | None = None,
    *,
    gradient: TwoLayerNetwork | None = None,
    initial: TwoLayerNetwork | None = None,
    decay: float | None = None,
    loss: str | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Progress | None = None,
    findings: Stage | None = None,
    assumptions: Assumptions | None = None,
) -> tuple[TrainingSet, ...]:
    """Training sets that explain the same weights: two different ones, or none.

    Without `start` they are those of `search_sets`. With it the first set is the active part of
    the given data, with multipliers fitted to the weights, and the second the same data moved
    off the span of the neurons, or with one sample split in two.

    Args:
        network: the weights (for fine-tuning: the final ones).
        source: "kkt", "weight-decay", "gradient" or "fine-tuning".
        samples: number of active samples, if known.
        distance: how far the second set is from the first, in norms of the largest sample.
        keep: what the second set keeps of the first, words of `KEEP`.
        start: data that explain the weights, with labels or without.
        gradient, initial, decay, loss: what the source needs, as in `HermiteData`.
        scale, non_negative, noise: assumptions, as in `assess_identifiability`.
        seed: of every random choice.
        time_limit: seconds for the search.
        progress: called with a stage name and a share in [0, 1].
        findings: of a report on the same data under the same assumptions, not to be measured
            again.
        assumptions: `samples`, `scale`, `non_negative` and `noise` as one record, in place of the
            single keywords.

    Returns:
        Two sets, or an empty tuple where none were found, which proves nothing.

    Raises:
        InvalidInputError: an argument out of range; `start` does not explain the weights to
            max(1e-10, 2 rho), or breaks an assumption.

    Example:
        >>> neurons = np.eye(4)[:2]
        >>> net = TwoLayerNetwork(neurons, np.full(2, 3.0**-0.5), degree=3)
        >>> [found.count for found in find_alternative(net, "weight-decay")]
        [2, 3]
    """
    from identify.recovery.assumptions import Assumptions
    from identify.recovery.measure import measure
    from identify.recovery.stages import Interpolated, Recovered

    wanted = Move(distance, tuple(read_keep(keep)), seed)
    data = HermiteData.of(
        source, network, gradient=gradient, initial=initial, decay=decay, loss=loss
    )
    given = Assumptions.chosen(
        assumptions, samples=samples, scale=scale, non_negative=non_negative, noise=noise
    ).resolved(data)
    budget = Budget.of(time_limit, logged(progress, _LOG))
    if findings is None:
        findings = measure(data, given, seed=seed, budget=budget)
    if start is not None:
        return _from_start(data, start, findings.noise_level, given, wanted)
    if not isinstance(findings, Interpolated):
        return ()
    rules = SetRules(data, findings.noise_level, given)
    found = search_sets(
        rules,
        findings.reduced,
        findings.linear,
        decomposes=isinstance(findings, Recovered),
        seed=seed,
        budget=budget,
    )
    if found is None:
        return ()
    return _moved(rules, found[0], wanted) if wanted.asked else found


@dataclass(frozen=True)
class Move:
    """What the second set is to be beside the first: see `moved_set`."""

    distance: float | None
    keep: tuple[str, ...]
    seed: int

    @property
    def asked(self) -> bool:
        """Whether anything is."""
        return self.distance is not None or bool(self.keep)


def _moved(rules: SetRules, own: TrainingSet, wanted: Move) -> tuple[TrainingSet, ...]:
    other = moved_set(
        rules.data, own, distance=wanted.distance, keep=wanted.keep,
        noise_level=rules.noise_level, seed=wanted.seed,
    )  # fmt: skip
    if other is None or rules.broken(other.samples, other.coefficients):
        return ()
    return own, other


def _from_start(
    data: HermiteData, start: Dataset, noise_level: float, given: Assumptions, wanted: Move
) -> tuple[TrainingSet, ...]:
    """The given data with their multipliers, and the same data changed where nothing sees it."""
    from identify.hermite.multipliers import fit_multipliers

    if start.samples.shape[1] != data.network.dimension:
        raise InvalidInputError(
            "start", f"samples of dimension {data.network.dimension}", start.samples.shape[1]
        )
    labels = _signs(start.labels) if data.source == "kkt" else None
    fit = fit_multipliers(data, start.samples, labels)
    active = (fit.coefficients != 0.0) & (fit.contributions > noise_level)
    rules = SetRules(data, noise_level, given)
    x, b = start.samples[active], fit.coefficients[active]
    own = TrainingSet(x, b, stationarity(data, x, b) if np.any(active) else np.inf)
    if not own.stationarity <= rules.level:
        raise InvalidInputError(
            "start",
            f"samples that explain the weights to {rules.level:.1e}",
            f"relative residual {fit.residual:.1e}",
            "check that weights and data belong together, or state how exact they are as noise",
        )
    broken = rules.broken(x, b)
    if broken:
        raise InvalidInputError("start", "samples that obey the assumptions", broken)
    if wanted.asked:
        return _moved(rules, own, wanted)
    moved, seed = None, wanted.seed
    if data.homogeneous:
        moved = off_span_alternative(data, x, b, noise_level=noise_level, seed=seed)
    keep_norm = given.scale == "unit"
    split = nu_pair_alternative(data, x, b, keep_norm=keep_norm, noise_level=noise_level, seed=seed)
    for other in (moved, split):
        if other is None or not other.stationarity <= rules.level:
            continue
        if rules.broken(other.samples, other.coefficients):
            continue
        if rules.difference(own, other) >= DIFFERENT:
            return own, other
    return ()


def _signs(labels: FloatArray | None) -> FloatArray | None:
    """Labels as -1 and 1."""
    if labels is None:
        return None
    values = set(np.unique(labels).tolist())
    if not values <= {-1.0, 1.0} and not values <= {0.0, 1.0}:
        raise InvalidInputError(
            "labels", "-1 and 1, or 0 and 1", sorted(values)[:5], "leave them out if unknown"
        )
    return np.where(labels > 0.0, 1.0, -1.0)


def save_alternatives(path: str | Path, sets: Sequence[TrainingSet]) -> None:
    """Write alternatives.npz: samples_1 (n, d), coefficients_1 (n,), samples_2, ...

    Raises:
        InvalidInputError: no sets.
        FileError: the path cannot be written.
    """
    if not sets:
        raise InvalidInputError("sets", "at least one training set", "none")
    arrays: dict[str, FloatArray] = {}
    for number, found in enumerate(sets, 1):
        arrays[f"samples_{number}"] = found.samples
        arrays[f"coefficients_{number}"] = found.coefficients
    try:
        with Path(path).open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror}", "check the path") from error
