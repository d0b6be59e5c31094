"""What a disaggregation returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

GLOBALLY = "globally"
LOCALLY = "locally"
NONIDENTIFIABLE = "nonidentifiable"
UNDECIDED = "undecided"


@dataclass(frozen=True)
class LayerRank:
    """The rank of one layer's gradient: layer index, rank, s_r / s_(r+1), root mean square noise.

    ``clear`` says whether the gap is large and the tail spread as noise is; ``relative_noise`` is
    the Frobenius norm of the noise over that of the gradient.
    """

    layer: int
    rank: int
    gap: float
    noise: float
    relative_noise: float
    clear: bool


@dataclass(frozen=True)
class KernelFacts:
    """The operator L: rows that some samples activate and others do not, rows needed, its kernel.

    Before the masks are known ``rows`` counts those that any sample activates.
    ``largest_kernel`` and ``smallest_other`` are generalised singular values in units of the
    gradient's noise; ``gap`` is the second over the first, the first taken as at least 1.
    ``degree`` 2 is that of the equations, 3 that of their products with each unknown.
    """

    unknowns: int
    rows: int
    rows_needed: int
    largest_kernel: float
    smallest_other: float
    gap: float
    degree: int = 2


@dataclass(frozen=True)
class Check:
    """One confirmation: a value, the limit it was held against, and its number of equations.

    ``holds`` is None where nothing could be checked.
    """

    name: str
    holds: bool | None
    value: float | None
    limit: float | None
    equations: int
    note: str = ""


@dataclass(frozen=True)
class PrintedProof:
    """A proof about the printed answer: no second explanation by at most r samples.

    ``rank`` of the ``required`` columns of the mask matrix, by ``method``: a rank modulo ``prime``
    or a Cholesky decomposition with a bound for its rounding. ``holds`` is None where it was left
    out.
    """

    holds: bool | None
    rank: int
    required: int
    prime: int | None
    method: str


@dataclass(frozen=True)
class DataStatement:
    """Whether every gradient within ``error`` has at most one explanation: eta < sigma.

    ``error`` bounds the spectral norm of the gradient's error if its tail is typical; ``sigma`` is
    the smallest singular value of L off its kernel, ``eta`` what the error can do to it; ``open``
    counts the mask entries that the error leaves open.
    """

    holds: bool
    error: float
    eta: float
    sigma: float
    open: int


@dataclass(frozen=True)
class SearchFacts:
    """A search for samples one by one: what it found, and what speaks for and against it.

    ``found`` samples and ``missing`` ones after ``starts`` starts and ``steps`` steps; ``others``
    points that fit as a sample does and are none of them. ``coverage_starts`` new starts in the
    full spaces find the share ``coverage_share`` of the samples, each at least ``least_hits``
    times; ``null_starts`` starts in permuted spaces have ``null_hits`` hits. ``residuals``,
    ``tolerances`` and ``conditions`` of the Jacobian are those of each sample.
    """

    found: int
    missing: int
    starts: int
    steps: int
    others: int
    coverage_starts: int
    coverage_share: float | None
    least_hits: int | None
    null_starts: int
    null_hits: int
    residuals: tuple[float, ...]
    tolerances: tuple[float, ...]
    conditions: tuple[float, ...]
    stopped: str = ""


@dataclass(frozen=True, eq=False)
class Listing:
    """What somebody else needs to make the list of masks again.

    ``pivots`` (r,) are the neurons whose values were enumerated. ``excluded`` has, for each mask
    that no sample can have, the mask (m,) and non-negative multipliers (m,) of its signs.
    """

    pivots: IntArray
    excluded: tuple[tuple[BoolArray, FloatArray], ...]


@dataclass(frozen=True, eq=False)
class ShownSet:
    """One of two batches that explain a gradient: samples (n, d) and slopes p (n, C).

    ``error_bounds`` (n,) relative to the samples. ``residual`` is the largest share of a layer's
    gradient that its own forward and backward pass leaves; ``margin`` the smallest |z| of a hidden
    neuron over its error.
    """

    samples: FloatArray
    cotangents: FloatArray
    error_bounds: FloatArray
    residual: float
    margin: float


@dataclass(frozen=True, eq=False)
class Disaggregation:
    """The samples behind one gradient, what confirms them, and whether they are the only ones.

    ``verdict`` is "globally" (no other set of at most ``rank`` samples), "locally" (no other set
    of ``rank`` samples near this one), "nonidentifiable" (the two sets of ``alternatives``, each
    of ``rank`` samples) or "undecided", with the ``reason``. ``samples`` (n, k), the
    largest share of the gradient first, enter linear layer
    ``layer``; 0 is the network's input. Without any bias they are directions (``scaled`` False).
    ``masks`` (m, n) and ``features`` (n, k) belong to the last hidden layer, ``cotangents`` p (n,
    C) to the outputs. ``labels`` (n,) with ``label_confidence`` (n,), the margin of the decision
    over its error; ``counts`` (n,) how often the loss says that each sample counts.
    ``error_bounds`` (n,) relative to the samples. ``patterns`` (n, m_l) say for the hidden layers
    from ``layer`` upwards where a kinked activation is on, None for a smooth one. Arrays are None
    where nothing was separated.
    ``single_rows`` (k, d) are then samples that rows of the first layer's gradient show by
    themselves, None if there are none. ``completed`` are layers of which only the largest entries
    were sent and whose others were filled in. ``alternatives`` are two different batches with the
    gradient, for "nonidentifiable". ``late`` says that the time limit cut a stage, ``by_loss`` that
    samples are separated if the loss is cross-entropy, which was not named.
    """

    verdict: str
    reason: str
    rank: int
    ranks: tuple[LayerRank, ...]
    method: str
    kernel: KernelFacts | None = None
    samples: FloatArray | None = None
    layer: int | None = None
    scaled: bool = True
    masks: BoolArray | None = None
    features: FloatArray | None = None
    cotangents: FloatArray | None = None
    labels: IntArray | None = None
    label_confidence: FloatArray | None = None
    counts: FloatArray | None = None
    error_bounds: FloatArray | None = None
    checks: tuple[Check, ...] = ()
    printed: PrintedProof | None = None
    data: DataStatement | None = None
    power: int | None = None
    visible: float | None = None
    search: SearchFacts | None = None
    patterns: tuple[BoolArray | None, ...] = ()
    listing: Listing | None = None
    single_rows: FloatArray | None = None
    completed: tuple[int, ...] = ()
    alternatives: tuple[ShownSet, ...] = ()
    late: bool = False
    by_loss: bool = False
    caveats: tuple[str, ...] = field(default=())
    seconds: float = 0.0

    @property
    def scope(self) -> tuple[str, int] | None:
        """The kind of training sets that the verdict speaks of, and their size; else None.

        "at_most" for "globally", "exactly" for "locally", "shown" for "nonidentifiable".
        """
        if self.verdict == NONIDENTIFIABLE:
            return ("shown", self.rank)
        if self.verdict == LOCALLY:
            return ("exactly", self.rank)
        return ("at_most", self.rank) if self.verdict == GLOBALLY else None

    @property
    def shared(self) -> FloatArray | None:
        """Samples (k, d) of the first set of ``alternatives`` that the second has too, or None."""
        if len(self.alternatives) != 2:
            return None
        one, two = self.alternatives
        apart = np.linalg.norm(one.samples[:, None] - two.samples[None], axis=2)
        reach = np.linalg.norm(one.samples, axis=1) * one.error_bounds
        other = np.linalg.norm(two.samples, axis=1) * two.error_bounds
        same = (apart <= reach[:, None] + other[None]).any(axis=1)
        return np.asarray(one.samples[same], dtype=np.float64)

    def check(self, name: str) -> Check | None:
        """The check of a name, or None."""
        return next((check for check in self.checks if check.name == name), None)
