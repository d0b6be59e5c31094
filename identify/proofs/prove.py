"""From a numerical `globally` to proofs: which are tried, what they show, what is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.decomposition.decompose import order_by_size
from identify.hermite.data import HermiteData
from identify.proofs import enclosure as boxes
from identify.proofs import rank as exact
from identify.proofs import singular_value as singular
from identify.proofs.balls import MAX_DEGREE
from identify.proofs.certificate import ProofData, proof_data
from identify.proofs.enclosure import Enclosure
from identify.proofs.lengths import sample_sizes
from identify.proofs.rank import RankProof
from identify.proofs.singular_value import SingularValueBound
from identify.records import Evidence
from identify.recovery.assumptions import Assumptions
from identify.recovery.data_error import Roundings, point_movement, roundings
from identify.recovery.stages import Recovered
from identify.tensors import symmetric_dimension
from identify.thresholds import BOX_LIMIT

LEVELS = ("auto", "exact", "interval", "numerical")
PATIENCE = 5.0
"""Seconds that one proof may take, by its estimate, where nothing was asked for."""


@dataclass(frozen=True, eq=False)
class Proofs:
    """What was proved about recovered terms; None where a proof was not tried.

    `terms` (r, r) and `signs` (r,) in the units of `data`; `tolerance` is the distance that the
    points may be off; `movement` (r,) the proved first-order bound |dz_i|/|z_i| or None;
    `strengthen` says what would strengthen the evidence; `tied` that only a tie, a numerical
    finding, speaks for the number of samples. `sizes` (r,) are the proved relative sizes of the
    boxes of the samples where their length depends on their direction, else None.
    """

    data: ProofData
    terms: FloatArray
    signs: FloatArray
    tolerance: float
    rank: RankProof | None
    singular: SingularValueBound | None
    enclosure: Enclosure | None
    movement: FloatArray | None
    strengthen: tuple[str, ...]
    tied: bool = False
    sizes: FloatArray | None = None

    @property
    def rank_evidence(self) -> Evidence:
        """How I-hermite is established."""
        if self.rank is not None and self.rank.outcome == "full" and self.rank.prime is not None:
            return Evidence.PROVED_EXACT
        return Evidence.PROVED_INTERVAL if self.stable else Evidence.NUMERICAL

    @property
    def stable(self) -> bool:
        """Whether every set of points as near as the noise level is proved to have full rank."""
        found = self.singular
        return bool(found is not None and found.bound > 0.0 and found.radius >= self.tolerance)

    @property
    def enclosed(self) -> bool:
        """Whether exactly one solution is proved to lie in the box, and to fit all equations."""
        box = self.enclosure
        return bool(box is not None and box.outcome == "proved" and self.largest < BOX_LIMIT)

    @property
    def largest(self) -> float:
        """Largest relative size of a box, of a term or of the sample that it stands for."""
        if self.enclosure is None:
            return np.inf
        sizes = self.enclosure.relative
        return float(np.max(sizes if self.sizes is None else np.maximum(sizes, self.sizes)))

    @property
    def number_evidence(self) -> Evidence:
        """How the number of samples is established: by the rank, unless only a tie speaks."""
        return Evidence.NUMERICAL if self.tied else self.rank_evidence

    @property
    def sample_evidence(self) -> Evidence:
        """How the samples are established."""
        return Evidence.PROVED_INTERVAL if self.enclosed else Evidence.NUMERICAL

    @property
    def level(self) -> Evidence:
        """The weakest evidence for the rank, the samples and their number.

        What no proof is about, the span and what the data themselves show, is not counted.
        """
        order = (Evidence.PROVED_EXACT, Evidence.PROVED_INTERVAL, Evidence.NUMERICAL)
        parts = (self.rank_evidence, self.sample_evidence, self.number_evidence)
        return max(parts, key=order.index)

    def reaches(self, level: str) -> bool:
        """Whether the proofs are those that `level` asks for: "exact" is about the rank alone."""
        if level not in ("exact", "interval"):
            return True
        rank = self.rank_evidence
        enough = rank is Evidence.PROVED_EXACT or (level == "interval" and self.stable)
        return enough and self.level is not Evidence.NUMERICAL

    @property
    def conflict(self) -> str | None:
        """What contradicts the numerical verdict, if anything does."""
        if self.rank is not None and self.rank.outcome == "deficient":
            return f"the rank is proved to be {self.rank.rank}, below {self.rank.required}"
        if self.enclosure is not None and self.enclosure.outcome == "contradicted":
            return f"the enclosure excludes the recovered set ({self.enclosure.reason})"
        return None


def prove(
    data: HermiteData,
    given: Assumptions,
    stage: Recovered,
    *,
    level: str = "auto",
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> Proofs:
    """Try to prove the conditions of uniqueness for recovered terms.

    exact: rank of the integer points modulo a prime; interval: sigma_min(H) of the unit points and
    an enclosure of the terms; auto: each proof that its estimate says is done in `PATIENCE`
    seconds, or in the time that is left if there is a limit.

    Args:
        given: scale and arithmetic.
        stage: what was recovered from the data; the box is for all data within the `data_error` of
            its bounds.
        level: one of `LEVELS`, not "numerical".
        seed: of the choice of primes.
        budget: as in `assess_identifiability`.

    Cost: O(m r N^2) for the rank, O(N^3) for the singular value, O(r^6) for the enclosure.
    """
    reduced, found, bounds = stage.reduced, stage.decomposition, stage.bounds
    noise_level = stage.noise_level
    proof = proof_data(data, reduced)
    ordered, signs, _ = order_by_size(found.terms, found.signs, data.degree)
    terms = proof.convert_terms(reduced, ordered)
    columns = symmetric_dimension(data.degree, proof.dimension)
    rows = proof.points.size
    remarks: list[str] = []

    def worth(seconds: float, asked: bool, name: str, flag: str) -> bool:
        limit = budget.remaining if asked or budget.limited else PATIENCE
        if seconds <= limit:
            return True
        remarks.append(f"--evidence {flag}: {name}, about {_duration(seconds)}")
        return False

    box: Enclosure | None = None
    if data.degree > MAX_DEGREE:
        remarks.append(f"no enclosure of the samples above degree {MAX_DEGREE}")
    elif worth(
        boxes.estimate_seconds(proof.dimension, len(proof.points)),
        level in ("exact", "interval"),
        "an enclosure of the samples",
        "interval",
    ):
        box = boxes.enclose_terms(
            proof.points,
            proof.shift,
            proof.right_sides,
            proof.weights,
            data.degree,
            terms,
            signs,
            max(noise_level, found.residual, bounds.data_error),
            budget=budget,
        )
        if box.outcome != "proved":
            remarks.append(f"no enclosure of the samples: {box.reason}")
    smallest: SingularValueBound | None = None
    movement: FloatArray | None = None
    unit = roundings(data, given.arithmetic)
    used = len(proof.neurons)
    if level != "exact" and worth(
        singular.estimate_seconds(rows, columns),
        level == "interval",
        "a proved bound for the smallest singular value",
        "interval",
    ):
        smallest = singular.bound_smallest_singular_value(
            proof.points, proof.shift, data.degree, budget=budget
        )
        if smallest.bound > 0.0:
            used = smallest.neurons
            movement = first_order_bounds(proof, smallest, terms, signs, bounds.data_error)
        if smallest.bound == 0.0 or smallest.radius < _tolerance(
            data, proof, unit, noise_level, used
        ):
            remarks.append(f"no proved bound for the smallest singular value: {smallest.method}")
    rank: RankProof | None = None
    if level != "interval" and worth(
        exact.estimate_seconds(rows, columns), level == "exact", "the rank modulo a prime", "exact"
    ):
        rank = exact.prove_rank(proof.points, data.degree, seed=seed, budget=budget)
        if rank.outcome == "undecided":
            remarks.append(f"no rank proof: {rank.method}")
    sizes: FloatArray | None = None
    if given.scale == "margin" and box is not None and box.outcome == "proved":
        sizes = sample_sizes(data, proof.basis, box, unit.weights, noise_level)
        if not np.all(sizes < BOX_LIMIT):
            remarks.append("no enclosure of the lengths: f is not separated from 0 over the boxes")
    return Proofs(
        proof,
        terms,
        signs,
        _tolerance(data, proof, unit, noise_level, used),
        rank,
        smallest,
        box,
        movement,
        tuple(dict.fromkeys(remarks)),
        sizes=sizes,
    )


def _tolerance(
    data: HermiteData, proof: ProofData, unit: Roundings, noise_level: float, used: int
) -> float:
    """How far the first `used` unit points may be off: by the noise, by rounding, by ours."""
    moved = point_movement(data.points[proof.neurons[:used]], proof.basis, unit)
    return float(max(noise_level, moved, 2.0**-proof.shift * np.sqrt(proof.dimension)))


def first_order_bounds(
    proof: ProofData,
    smallest: SingularValueBound,
    terms: FloatArray,
    signs: FloatArray,
    data_error: float,
) -> FloatArray:
    """|dz_i|/|z_i| <= |M_i^+| |dT|/|z_i|, |dT| <= e |y|/(sigma_min(H) min w): shape (r,).

    M maps the dz_i to dT; M^T M has blocks alpha [c^(alpha-1) I + (alpha-1) c^(alpha-2) z_k z_i^T],
    c = z_i . z_k. sigma_min(H) is proved, M^+ is computed in float64. Infinite where M is singular.

    Source: condition number of the decomposition (Breiding & Vannieuwenhoven 2018).
    """
    count, r = terms.shape
    used = smallest.neurons
    error = data_error * float(np.linalg.norm(proof.right_sides))
    tensor = error / (smallest.bound * float(proof.weights[:used].min()))
    values, vectors = np.linalg.eigh(tangent_gram(terms, signs, proof.degree))
    if values[0] <= 1e-12 * values[-1]:
        return np.full(count, np.inf)
    half = (vectors / np.sqrt(values)).reshape(count, r, -1)
    norms = np.array([np.linalg.norm(block, 2) for block in half])
    return np.asarray(norms * tensor / np.linalg.norm(terms, axis=1))


def tangent_gram(terms: FloatArray, signs: FloatArray, degree: int) -> FloatArray:
    """Inner products of the tangent vectors d(s_i z_i^(alpha)), shape (n r, n r).

    Example:
        >>> import numpy as np
        >>> tangent_gram(np.array([[2.0]]), np.array([1.0]), 3)
        array([[144.]])
    """
    count, r = terms.shape
    cosines = terms @ terms.T
    first = degree * cosines ** (degree - 1)
    second = degree * (degree - 1) * cosines ** (degree - 2)
    blocks = np.einsum("ik,ab->iakb", first, np.eye(r))
    blocks = blocks + np.einsum("ik,ka,ib->iakb", second, terms, terms)
    blocks = blocks * (signs[:, None] * signs[None, :])[:, None, :, None]
    return np.asarray(blocks.reshape(count * r, count * r))


def _duration(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.0f} h"
