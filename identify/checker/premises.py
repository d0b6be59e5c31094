"""The claims about files, basis, points, rank and counting."""

from __future__ import annotations

import re
from collections.abc import Mapping

import flint
import numpy as np

from .arithmetic.ranks import dimension, modular_rank, require_size, smallest_above
from .case import Case
from .hidden_share import HIDDEN_SHARE
from .linear import NOISE_LIMIT
from .outcome import (
    FLOAT,
    TINY,
    FloatArray,
    NotCheckableError,
    available,
    check_possible,
    finite,
    require,
)
from .reading.files import Network
from .reading.report import Report
from .terms import check_non_negative
from .ties import tie_equations, tie_expected

BALANCE_LIMIT = 1e-2
SOURCE_WORDS = {
    "kkt": "the weights are a KKT point",
    "weight-decay": "the weights are stationary",
    "gradient": "the gradient is that of the loss",
    "fine-tuning": "plain, mini-batch or momentum descent from the initial weights",
}
"""How the assumption about the source begins, which no test of the numbers can replace."""
_SINGULAR_COLUMNS = 2500


def check_inputs(report: Report, files: Mapping[str, Network]) -> str:
    """Every file has the hash that the report states."""
    require(
        set(report.inputs) == set(files),
        f"the report is about {', '.join(report.inputs)}, not {', '.join(files)}",
    )
    for role, network in files.items():
        found = network.sha256()
        require(
            found == report.inputs[role],
            f"the {role} has the hash {found[:12]}..., not {report.inputs[role][:12]}...",
        )
    return f"the {' and the '.join(files)} hash to what the report states"


def check_digest(report: Report) -> str:
    """The report is as it was written."""
    certificate = available(report.certificate, "the report carries no certificate")
    require(report.digest() == certificate.digest, "the report was changed")
    return "the report is as it was written"


def check_problem(report: Report, model: Network) -> str:
    """Sizes and counts of the problem are those of the files."""
    width, d = model.hidden.shape
    stated = (report.width, report.dimension, report.degree)
    require(
        stated == (width, d, model.degree),
        f"the model has width, dimension, degree {(width, d, model.degree)}, not {stated}",
    )
    r, certificate = report.span, report.certificate
    if certificate is not None and certificate.basis is not None:
        found = certificate.basis.shape[1]
        require(r == found, f"the basis has {found} columns, the span dimension is {r}")
    if r is not None:
        require(r <= d + 1, f"a span of {r} dimensions in {d}")
        count = dimension(model.degree, r)
        require(
            report.unknowns == count or (report.unknowns is None and report.rank is None),
            f"{count} unknowns, not {report.unknowns}",
        )
    if report.rank is not None and report.unknowns is not None:
        require(report.rank <= report.unknowns, "the rank exceeds the number of unknowns")
    return f"width {width}, dimension {d}, degree {model.degree}"


def check_assumptions(case: Case) -> tuple[str, str]:
    """The stated assumptions are those of the certificate, and the recovered set obeys them."""
    assumed, report = case.certificate.assumed, case.report
    require(
        (assumed.scale == "bias") == case.data.biased,
        f"the scale is assumed as {assumed.scale} for a network "
        + ("with" if case.data.biased else "without")
        + " a hidden bias",
    )
    text = "\n".join(report.assumptions)
    weighed = report.row("hidden share")
    share = None if weighed is None else weighed.required
    source = SOURCE_WORDS[case.data.source]
    require(
        any(line.startswith(source) for line in report.assumptions),
        f'the assumptions do not name the source: "{source}..."',
    )
    given = {
        "(--samples)": None if assumed.samples is None else f"exactly {assumed.samples}",
        "(--scale unit)": "" if assumed.scale == "unit" else None,
        "(--scale margin)": "" if assumed.scale == "margin" else None,
        "(--non-negative)": "" if assumed.non_negative else None,
        "(--noise)": None if assumed.noise is None else f"{assumed.noise:g}",
        "(--arithmetic)": assumed.arithmetic,
        "(--loss)": None if assumed.loss is None else assumed.loss,
        "(--hidden-share)": None if share in (None, HIDDEN_SHARE) else f"{share:g}",
        "(--weight-decay-in-gradient)": None
        if assumed.gradient_decay is None
        else f"{assumed.gradient_decay:g}",
    }
    for option, value in given.items():
        lines = [line for line in text.split("\n") if option in line]
        require(
            bool(lines) == (value is not None) and all(_says(line, value or "") for line in lines),
            f"the certificate assumes otherwise than the report says about {option}",
        )
    require(
        (case.data.source == "weight-decay" or assumed.decay is None)
        and (case.data.source == "gradient" or assumed.gradient_decay is None),
        "a decay is assumed for another source",
    )
    unitless = "units of the decay" in text
    require(
        unitless == (case.data.source == "weight-decay" and assumed.decay is None),
        "the certificate assumes otherwise than the report says about the decay",
    )
    if report.verdict == "globally":
        require(
            assumed.samples in (None, case.r),
            f"{assumed.samples} samples are assumed, {case.r} dimensions are spanned",
        )
        if assumed.non_negative:
            check_non_negative(case)
    return FLOAT, "the assumptions are those that the report prints"


def _says(line: str, value: str) -> bool:
    """Whether the line holds the word or number, and not as a part of a longer one."""
    return bool(re.search(rf"(?<![\w.+-]){re.escape(value)}(?![\w+-]|\.\d)", line))


def check_basis(case: Case) -> str:
    """Q is orthonormal, and the live rows have the numerical rank r and lie in its span."""
    basis, r = case.basis, case.r
    away = float(np.abs(basis.T @ basis - np.eye(r)).max())
    require(away <= 1e-10, f"the basis is not orthonormal: {away:.1e}")
    require(
        case.report.spans is (r == len(basis)),
        f"{r} of {len(basis)} dimensions are spanned, the report says otherwise",
    )
    check_possible(len(case.live) > 0, "no neuron stands out of the noise")
    smallest, largest_out = span_gap(case)
    level = max(10.0 * case.noise, 1e-12)
    require(
        smallest > 0.9 * level, f"the rows span fewer dimensions: singular value {smallest:.1e}"
    )
    # A wide gap is not enough: what is outside and no noise is a further sample.
    require(
        largest_out <= min(1.1 * level, smallest / 50.0),
        f"the rows span more dimensions: {largest_out:.1e} of them lies outside, where "
        f"{level:.1e} is noise",
    )
    stated = case.report.residuals["off_span"][0]
    own = case.off_span[0]
    if stated is not None:
        require(r < len(basis), "nothing can lie outside the span")
        require(
            case.matches("residuals.off_span.value", stated, own, 0.05, TINY),
            f"{own:.2e} of the rows lies outside the span, the report says {stated:.2e}",
        )
    else:
        require(r == len(basis), "the report does not say what lies outside the span")
    return f"orthonormal to {away:.0e}, {own:.1e} of the rows outside its {r} dimensions"


def span_gap(case: Case) -> tuple[float, float]:
    """Smallest singular value of the rows in V and largest outside, relative to the largest."""
    rows = case.data.rows[case.live] / case.units[2]
    sigma = np.linalg.svd(finite(rows @ case.basis), compute_uv=False)
    if len(sigma) < case.r:
        return 0.0, 1.0
    outside = _largest(case.off_span[1]) if len(case.basis) > case.r else 0.0
    return float(sigma[-1] / sigma[0]), outside / float(sigma[0])


def _largest(matrix: FloatArray) -> float:
    """Largest singular value. A power iteration could be led astray by who knows its start."""
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    return float(np.sqrt(max(float(np.linalg.eigvalsh(finite(gram))[-1]), 0.0)))


def check_points(case: Case) -> str:
    """The integer points are the rounded projections of the listed neurons, and none is missing."""
    away = float(np.abs(case.rounded - case.listed.points).max())
    # Half a unit, and what float64 leaves open about the point itself.
    allowed = min(1.0, 0.5 + 4e-16 * np.sqrt(len(case.basis)) * 2.0**case.shift) * 2.0**-case.shift
    require(away <= allowed, f"a point differs by {away:.1e} from that of its neuron")
    require(
        bool(np.all(case.standing(5.0)[case.neurons])),
        "a listed neuron does not stand out of the noise",
    )
    nearest = _closest_pair(case.listed.points)
    require(nearest > 0.1 * case.tolerance, f"two listed neurons are parallel to {nearest:.1e}")
    chosen, _, gaps = case.groups
    stray = int(np.count_nonzero(gaps > 2.1 * case.tolerance + 1e-9))
    require(stray == 0, f"{stray} live neurons are neither listed nor parallel to a listed one")
    if not case.data.homogeneous and case.report.verdict == "globally":
        count = len(case.neurons)
        if count <= case.r:
            # Parallel inside V, they may still differ outside.
            count = case.directions
        require(
            count > case.r,
            f"{count} neurons do not exclude samples outside {case.r} dimensions",
        )
    return f"{len(case.neurons)} distinct points of {len(chosen)} live neurons"


def _closest_pair(points: FloatArray) -> float:
    """Distance of the two directions that are nearest to each other, up to sign."""
    best = np.inf
    for start in range(0, len(points), 512):
        part = points[start : start + 512]
        cosines = part @ points.T
        cosines[np.arange(len(part)), start + np.arange(len(part))] = 0.0
        for i, j in np.argwhere(np.abs(cosines) > 1.0 - 1e-9):
            sign = np.sign(cosines[i, j])
            best = min(best, float(np.linalg.norm(part[i] - sign * points[j])))
        best = min(best, float(np.sqrt(max(0.0, 2.0 - 2.0 * np.abs(cosines).max()))) + 1e-7)
    return best


def check_rank(case: Case) -> tuple[str, str]:
    """H of the listed integer points has rank N modulo the prime."""
    claim = case.certificate.rank
    if claim is None:
        raise NotCheckableError("no rank modulo a prime is claimed")
    prime, count, unknowns = claim
    expected = dimension(case.degree, case.r)
    require(unknowns == expected, f"{expected} unknowns, not {unknowns}")
    require(case.report.rank == unknowns, f"the report says rank {case.report.rank}")
    require(count <= len(case.neurons), f"{count} of {len(case.neurons)} neurons")
    require(count * case.r >= unknowns, f"{count * case.r} equations for {unknowns} unknowns")
    check_possible(2**20 < prime < 2**63, f"the modulus {prime} is not between 2^20 and 2^63")
    require(bool(flint.fmpz(prime).is_prime()), f"{prime} is no prime")
    require_size(count, case.r, case.degree)
    require(case.rounded.size > 0, "there are no points")
    rank = modular_rank(case.integers[:count], case.degree, prime)
    require(rank == unknowns, f"rank {rank} modulo {prime}, not {unknowns}")
    return "exact", f"rank {rank} modulo {prime} with {count} neurons"


def check_singular(case: Case) -> tuple[str, str]:
    """sigma_min(H) is at least the stated bound, and points within the radius keep full rank."""
    claim = case.certificate.singular
    if claim is None:
        raise NotCheckableError("no bound for a singular value is claimed")
    bound, count, radius = claim
    require(bound > 0.0 and radius > 0.0, "bound and radius are not both positive")
    require(count <= len(case.neurons), f"{count} of {len(case.neurons)} neurons")
    unknowns = dimension(case.degree, case.r)
    require(count * case.r >= unknowns, f"{count * case.r} equations for {unknowns} unknowns")
    require_size(count, case.r, case.degree)
    check_possible(unknowns <= _SINGULAR_COLUMNS, f"{unknowns} unknowns are too many")
    points = case.rounded[:count]
    move = perturbation(points, case.degree, radius)
    require(
        float(move.lower()) < bound,
        f"points within {radius:.2e} change H by up to {float(move.mid()):.2e}, "
        f"not less than {bound:.2e}",
    )
    check_possible(bool(move < bound), "the radius is too close to the bound")
    above, how = smallest_above(points, case.degree, bound)
    require(above is not False, f"the smallest singular value is below {bound:.4g}")
    check_possible(above is True, f"the bound {bound:.4g} is neither proved nor disproved")
    return how, f"at least {bound:.3g}, so that points within {radius:.1e} keep full rank"


def perturbation(points: FloatArray, degree: int, radius: float) -> flint.arb:
    """Bound for |H' - H|_2 if every point moves by at most `radius`.

    T(p'^(alpha-1), .) - T(p^(alpha-1), .) telescopes into alpha - 1 terms of norm at most
    radius max(|p|, |p'|)^(alpha-2) |T|.
    """
    with flint.ctx.workprec(128):
        squares = [sum((flint.arb(x) ** 2 for x in p), flint.arb(0)) for p in points.tolist()]
        square = max(squares, key=float)
        longest = square.sqrt() + flint.arb(2) ** -60
        growth = (longest + flint.arb(radius)) ** (degree - 2)
        return flint.arb(len(points)).sqrt() * (degree - 1) * flint.arb(radius) * growth


def check_balance(case: Case) -> str:
    """Balance of the layers, or Euler's identity, recomputed."""
    own = case.data.consistency
    require(
        not case.data.filled or case.report.residuals["balance"] == (None, 0),
        "nothing is left to compare where the output layer's gradient is missing",
    )
    if case.data.filled:
        return "the output layer's gradient is missing, so that there is nothing to compare"
    stated = available(case.report.residuals["balance"][0], "the report states no residual")
    require(
        case.matches("residuals.balance.value", stated, own, 0.01, TINY),
        f"it is {own:.2e}, not {stated:.2e}",
    )
    limit = BALANCE_LIMIT if case.data.homogeneous else NOISE_LIMIT
    require(own <= limit, f"it is {own:.2e}, above {limit}")
    return f"relative residual {own:.1e}"


def lone_sample(case: Case) -> bool:
    """Whether rows of rank 1 over two or more directions speak for a single sample."""
    if case.data.homogeneous or case.r != 1:
        return False
    return case.directions >= 2 and case.data.samples_dimension >= 2


def check_redundancy(case: Case) -> tuple[str, str]:
    """The number of redundant equations, and that something speaks for r samples."""
    report, r = case.report, case.r
    rank = available(report.rank, "the report does not count them")
    stated = available(report.redundant, "the report does not count them")
    tie = report.row("tie") is not None
    count = rank - r * r + tie_equations(case)
    require(stated == count, f"there are {count}, not {stated}")
    if report.verdict != "globally":
        return "exact", f"{count} by counting"
    require(tie == tie_expected(case), "the report counts ties that the assumptions do not make")
    require(rank == dimension(case.degree, r), f"rank {rank} does not determine the tensor")
    lone = lone_sample(case)
    given = case.certificate.assumed.samples == r
    require(count >= 1 or given or lone, "nothing speaks for the number of samples")
    if count >= 1:
        return "exact", f"{count} by counting"
    return "exact", f"{r} samples are " + ("assumed" if given else "the rank of the rows")
