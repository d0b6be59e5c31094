"""What a report carries so that a third party can redo its proofs.

Every proof is about these numbers, all computed from the files: an orthonormal basis Q of V, unit
points p_j = Q^T u_j / |Q^T u_j| of listed neurons, rounded to integers P_j = round(2^k p_j), and
right-hand sides y_j with

    w_j sum_i s_i (p_j . z_i)^(alpha-1) z_i = y_j,     T = scale sum_i s_i (Q z_i)^(alpha).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData
from identify.proofs.rank import RankProof, round_points
from identify.proofs.singular_value import SingularValueBound
from identify.records import TrainingSet
from identify.recovery.assumptions import Assumptions

FORMAT = 2
"""From 2 on every rule that decides has its row in the conditions, with `needed`."""
SHIFT = 44
"""Bits of the integer points: rounding stays below every noise level, |P_j| below 2^53."""
_MOST_NUMBERS = 4_000_000


@dataclass(frozen=True, eq=False)
class ProofData:
    """The numbers that proofs are about.

    `neurons` (k,) rows of the file, `basis` (D, r), `points` (k, r) int64 in units of 2^-shift,
    `weights` (k,) w_j, `right_sides` (k, r) y_j, `tensor_scale` as in the module's formula.
    """

    degree: int
    neurons: npt.NDArray[np.intp]
    basis: FloatArray
    shift: int
    points: npt.NDArray[np.int64]
    weights: FloatArray
    right_sides: FloatArray
    tensor_scale: float

    @property
    def dimension(self) -> int:
        """r, the dimension of V."""
        return int(self.basis.shape[1])

    def convert_terms(self, reduced: ReducedData, terms: FloatArray) -> FloatArray:
        """Terms of reduced data in the units of these."""
        ratio: float = reduced.tensor_scale / self.tensor_scale
        return np.asarray(terms * ratio ** (1.0 / self.degree))


def proof_data(data: HermiteData, reduced: ReducedData) -> ProofData:
    """Collect what proofs are about: one file row for every distinct live neuron, heaviest first.

    Rows are taken as they stand in the file, none averaged. Cost: O(k D r).
    """
    chosen = reduced.representatives
    points, scales, rows = data.points[chosen], data.scales[chosen], data.rows[chosen]
    length = float(np.linalg.norm(points, axis=1).max())
    height = float(np.abs(scales).max())
    unit = float(np.abs(rows).max())
    inside = (points / length) @ reduced.basis
    lengths = np.linalg.norm(inside, axis=1)
    weights = np.abs(scales) / height * lengths ** (data.degree - 1)
    order = np.argsort(-weights, kind="stable")
    sides = np.sign(scales)[:, None] * ((rows / unit) @ reduced.basis)
    return ProofData(
        degree=data.degree,
        neurons=chosen[order],
        basis=reduced.basis,
        shift=SHIFT,
        points=round_points((inside / lengths[:, None])[order], SHIFT),
        weights=weights[order],
        right_sides=sides[order],
        tensor_scale=unit / height / length ** (data.degree - 1),
    )


def build_certificate(
    data: HermiteData,
    given: Assumptions,
    proof: ProofData | None,
    *,
    rank: RankProof | None = None,
    singular: SingularValueBound | None = None,
    terms: tuple[FloatArray, FloatArray] | None = None,
    enclosure: Any = None,
    sets: Sequence[TrainingSet] = (),
) -> dict[str, Any]:
    """The certificate as plain data, without its digest.

    A part that is too long for a report (above 4e6 numbers) is left out, and what rests on it is
    then not checkable.
    """
    parts: dict[str, Any] = dict.fromkeys(
        ("basis", "neurons", "shift", "points", "rank", "singular_value", "terms", "enclosure"),
    )
    assumed = {
        "samples": given.samples,
        "scale": given.scale,
        "non_negative": given.non_negative,
        "noise": given.noise,
        "loss": data.loss,
        "decay": data.decay,
        "arithmetic": given.arithmetic,
        "point": data.point,
    }
    if data.gradient_decay is not None:
        assumed["gradient_decay"] = data.gradient_decay
    if proof is not None and proof.basis.size + proof.points.size <= _MOST_NUMBERS:
        parts["basis"] = proof.basis.tolist()
        parts["neurons"] = proof.neurons.tolist()
        parts["shift"] = proof.shift
        parts["points"] = proof.points.tolist()
        if rank is not None and rank.outcome == "full" and rank.prime is not None:
            parts["rank"] = {
                "prime": rank.prime,
                "neurons": rank.neurons,
                "unknowns": rank.required,
            }
        if singular is not None and singular.bound > 0.0:
            parts["singular_value"] = {
                "bound": singular.bound,
                "neurons": singular.neurons,
                "radius": singular.radius,
            }
        if terms is not None:
            values, signs = terms
            parts["terms"] = {"values": values.tolist(), "signs": [int(s) for s in signs]}
        if enclosure is not None and enclosure.outcome == "proved":
            parts["enclosure"] = {
                "precision": int(enclosure.precision),
                "radius": float(enclosure.radius),
                "pivots": [int(index) for index in enclosure.pivots],
                "centres": enclosure.centres.tolist(),
                "radii": enclosure.radii.tolist(),
                "relative": enclosure.relative.tolist(),
                "conditions": enclosure.conditions.tolist(),
            }
    shown = None
    if sets and sum(other.samples.size for other in sets) <= _MOST_NUMBERS:
        shown = [
            {
                "samples": other.samples.tolist(),
                "coefficients": other.coefficients.tolist(),
                "residual": other.stationarity,
            }
            for other in sets
        ]
    return {"format": FORMAT, "assumed": assumed, **parts, "sets": shown}
