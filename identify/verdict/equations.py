"""Rules about the data and their equations: what Theorem 4.1 asks before there are samples."""

from __future__ import annotations

from identify.hermite.data import HermiteData
from identify.hermite.reduction import in_range
from identify.records import Evidence
from identify.recovery.stages import Decomposed, Interpolated, Reduced, Stage
from identify.thresholds import BALANCE_LIMIT, GAP, NOISE_LIMIT, ROUNDS
from identify.verdict import sentences
from identify.verdict.rule import Finding, Grounds


def finished(at: Grounds[Stage]) -> Finding | None:
    """Listed only where the run ended before its verdict."""
    if not at.ended:
        return None
    return Finding(False, source="the run came to its end", sentence=at.ended)


def balance(at: Grounds[Stage]) -> Finding | None:
    """|w_j|^2 = alpha a_j^2, for points that are their own rows."""
    if not at.data.homogeneous:
        return None
    found = at.data.consistency or 0.0
    return Finding(
        is_covered(at.data),
        BALANCE_LIMIT,
        found,
        "|w_j|^2 = alpha a_j^2 at a stationary point",
        sentence=sentences.not_stationary(found),
    )


def representable(at: Grounds[Stage]) -> Finding:
    """Whether float64 holds the moment tensor."""
    return Finding(
        in_range(at.data),
        source="the moment tensor is in the range of float64",
        sentence=f"at degree {at.data.degree} the moment tensor of these data leaves the range of "
        "float64; rescale the weights towards norm 1",
    )


def consistency(at: Grounds[Stage]) -> Finding | None:
    """Euler's identity, for the other sources."""
    if at.data.homogeneous or at.data.consistency is None:
        return None
    return Finding(
        is_covered(at.data),
        NOISE_LIMIT,
        at.data.consistency,
        "Euler's identity between the two layers",
        sentence=sentences.inconsistent(at.data, NOISE_LIMIT),
    )


def is_covered(data: HermiteData) -> bool:
    """Whether the identity between the layers holds that every network of the source obeys."""
    limit = BALANCE_LIMIT if data.homogeneous else NOISE_LIMIT
    return (data.consistency or 0.0) <= limit


def noise_level(at: Grounds[Stage]) -> Finding:
    """A level at which ranks can be told."""
    rho = at.stage.noise_level
    return Finding(
        rho <= NOISE_LIMIT,
        NOISE_LIMIT,
        rho,
        "what the data and their equations leave, relative",
        sentence=sentences.too_noisy(rho, NOISE_LIMIT),
    )


def settled(at: Grounds[Reduced]) -> Finding:
    """A level that explains what the equations leave at it."""
    rho, left = at.stage.noise_level, at.stage.unsettled
    return Finding(
        left is None,
        rho,
        left,
        f"the noise level explains what is left, within {ROUNDS} rounds",
        sentence=sentences.unsettled(rho, left or 0.0, ROUNDS),
    )


def span(at: Grounds[Reduced]) -> Finding:
    """dim V, by a gap."""
    reduced = at.stage.reduced
    gap = reduced.span
    ratio = gap.smallest / gap.largest_uncounted if gap.largest_uncounted else None
    return Finding(
        gap.clear and reduced.dimension > 0 and reduced.neurons > 0,
        GAP,
        ratio,
        "gap in the singular values of the rows",
        sentence=sentences.span_unclear(reduced, at.stage.noise_level),
    )


def number_possible(at: Grounds[Interpolated]) -> Finding | None:
    """A given number of samples that can span V."""
    samples, r = at.given.samples, at.stage.reduced.dimension
    if samples is None:
        return None
    return Finding(
        samples >= r,
        r,
        samples,
        "--samples is at least the dimension of the span",
        sentence=f"--samples {samples} contradicts the data: every set that explains them has "
        f"at least {r} samples",
    )


def neurons(at: Grounds[Interpolated]) -> Finding | None:
    """More neurons than dimensions: the rows of a gradient then span all samples."""
    found, r = at.stage.neurons, at.stage.reduced.dimension
    if at.data.homogeneous:
        return None
    return Finding(
        found > r,
        r + 1,
        found,
        "distinct neurons: no sample lies outside the span of the rows",
        sentence=f"the rows of the gradient span {r} dimensions and there are {found} "
        "distinct neurons: the batch may be as large as the width or larger, so that samples "
        "outside the span are not excluded",
        searchable=True,
    )


def hermite(at: Grounds[Interpolated]) -> Finding:
    """I-hermite: the linear equations determine T on V."""
    linear, r = at.stage.linear, at.stage.reduced.dimension
    open_rank = linear.determined is None
    return Finding(
        linear.determined,
        linear.required,
        linear.rank,
        "rank of the Hermite matrix, " + linear.method,
        Evidence.NUMERICAL if at.proofs is None else at.proofs.rank_evidence,
        sentence="the rank of the Hermite matrix is not clear at noise level "
        f"{at.stage.noise_level:.1e} ({linear.method})"
        if open_rank
        else f"I-hermite fails: {at.stage.neurons} distinct neurons give rank {linear.rank} of the "
        f"{linear.required} that determine the moment tensor on {r} dimensions",
        searchable=not open_rank,
    )


def flat(at: Grounds[Interpolated]) -> Finding:
    """I-flat, for comparison."""
    return _spread(at.stage.linear.flat, "points to the power alpha - 1 span")


def value(at: Grounds[Interpolated]) -> Finding:
    """I-value, for comparison."""
    return _spread(at.stage.linear.value, "points to the power alpha span")


def _spread(count: tuple[int, int | None], meaning: str) -> Finding:
    needed, rank = count
    holds = None if rank is None else rank >= needed
    return Finding(holds, needed, rank, meaning + "; not required", needed=False)


def number_covered(at: Grounds[Interpolated]) -> Finding | None:
    """A given number of samples that the theorem covers."""
    samples, r = at.given.samples, at.stage.reduced.dimension
    if samples is None:
        return None
    ambient = at.data.points.shape[1] - int(at.data.has_bias)
    independent = at.data.homogeneous and r < ambient
    return Finding(
        samples <= r,
        r,
        samples,
        "--samples is at most the dimension of the span",
        sentence=f"{samples} samples in {r} dimensions are more than the theorem covers"
        + (
            "; for a stationary network with linearly independent samples there is no uniqueness"
            if independent
            else ""
        ),
        searchable=True,
    )


def decomposition(at: Grounds[Interpolated]) -> Finding:
    """T is a sum of r independent terms, to the noise."""
    stage, r = at.stage, at.stage.reduced.dimension
    residual, best = None, "none was found"
    if isinstance(stage, Decomposed):
        residual = stage.decomposition.residual
        best = f"best residual {residual:.1e}"
    return Finding(
        stage.fits if isinstance(stage, Decomposed) else None,
        10.0 * stage.noise_level,
        residual,
        f"residual of {r} refined terms; independent terms are unique (Kruskal 1977)",
        Evidence.NUMERICAL if at.proofs is None else at.proofs.sample_evidence,
        sentence=f"the moment tensor is determined, but no decomposition into {r} independent "
        f"terms was found ({best}): there are more than {r} samples, or nearly parallel ones",
        searchable=True,
    )
