"""Redo an enclosure: the Krawczyk test of a box in ball arithmetic, for all data within a radius.

Unknowns are the terms z_i. Weighted equations, for listed neuron j and axis a:

    w_j sum_i s_i (p_j . z_i)^(alpha-1) z_ia = rhs_ja,     rhs_ja within radius |rhs|_F

With K(Z) = c - Y F(c) + (1 - Y F'(Z)) (Z - c) for the pivot equations F: if K(Z) lies in the
interior of the box Z, every choice of data has exactly one solution in Z (Krawczyk 1969; Neumaier
1990, theorem 5.1.8).
"""

from __future__ import annotations

from dataclasses import dataclass

import flint
import numpy as np

from .arithmetic.timed import InTime, always, inverse, product
from .bounds import data_error, inverse_blocks
from .case import Case
from .outcome import (
    FloatArray,
    NotCheckableError,
    RefutedError,
    agrees,
    check_possible,
    require,
)
from .reading.report import MAX_PRECISION, Enclosure
from .terms import jacobian

_UNKNOWNS = 1100
_ENTRIES = 6_000_000
_WORK = 3e11
"""Most precision x r^6 that is begun, a minute or two."""
_SECONDS = 4e-10
BALLS = "ball arithmetic"
Balls = list[flint.arb]


@dataclass(frozen=True, eq=False)
class System:
    """The weighted equations with balls for points and weights; `sides` exact to the precision.

    `points`, `sides` (k lists of r), `weights` (k), `size` = |rhs|_F.
    """

    degree: int
    points: list[Balls]
    weights: Balls
    sides: list[Balls]
    size: flint.arb
    signs: list[int]


def check_enclosure(case: Case) -> tuple[str, str]:
    """The box holds exactly one solution for all data, and no equation excludes it."""
    box = case.certificate.enclosure
    if box is None:
        raise NotCheckableError("the certificate has no enclosure")
    _, signs = case.terms
    r, count = case.r, len(case.neurons)
    _check_numbers(case, box)
    check_possible(
        r * r <= _UNKNOWNS and count * len(case.basis) <= _ENTRIES,
        f"{r * r} unknowns are more than the checker encloses",
    )
    failure = ""
    retry = min(MAX_PRECISION, max(256, 2 * box.precision))
    for precision in sorted({box.precision, retry}):
        check_possible(
            precision * r**6 <= _WORK,
            f"{r * r} unknowns at {precision} bits are more than the checker encloses",
        )
        case.in_time(_SECONDS * precision * r**6)
        with flint.ctx.workprec(precision):
            system = build_system(case, signs.astype(int).tolist())
            failure = krawczyk(system, box, case.in_time)
            if not failure:
                _check_others(system, box, case.in_time)
                _check_independent(box)
                break
    if failure:
        raise NotCheckableError(failure)
    _check_conditions(case, box)
    bits = f"{precision} bits"
    if precision != box.precision:
        bits += f", for {box.precision} were too few"
    worst = float(box.relative.max())
    return BALLS, (
        f"one solution within {worst:.1e} for all data within {box.radius:.1e} ({bits}), "
        f"{count * r - r * r} more equations contain 0"
    )


def _check_numbers(case: Case, box: Enclosure) -> None:
    """Everything about a box that needs no ball arithmetic."""
    r = case.r
    total = len(case.neurons) * r
    pivots = box.pivots.tolist()
    require(
        len(set(pivots)) == r * r and min(pivots) >= 0 and max(pivots) < total,
        f"the pivots are not {r * r} distinct numbers from 0 to {total - 1}",
    )
    require(bool(np.all(box.radii > 0.0)), "a radius of the box is not positive")
    low, high = data_error(case, 1.0 / 8.0)[0], data_error(case, 8.0)[0]
    least = case.noise
    if case.certificate.assumed.arithmetic is not None:
        least = max(least, 0.95 * low)
    most = max(10.0 * case.noise, 1.05 * high)
    require(
        least * (1.0 - 1e-9) <= box.radius <= most * (1.0 + 1e-9),
        f"the radius {box.radius:.2e} of the data is not between {least:.2e}, by which they may be "
        f"off, and {most:.2e}",
    )
    terms, _ = case.terms
    require(
        bool(np.all(np.abs(terms - box.centres) <= 10.0 * box.radii)),
        "the terms are not near the box",
    )
    lengths = np.linalg.norm(box.radii, axis=1)
    rest = np.linalg.norm(box.centres, axis=1) - lengths
    require(bool(np.all(rest > 0.0)), "the box of a term contains zero")
    relative = lengths / rest
    require(
        bool(np.all(box.relative >= relative * (1.0 - 1e-9)))
        and bool(np.all(box.relative <= relative * (1.0 + 1e-6))),
        f"the relative sizes are {relative.max():.3g} at most, not {box.relative.max():.3g}",
    )


def _check_conditions(case: Case, box: Enclosure) -> None:
    """|rows i of J^+|_2 |rhs|_F / |z_i|, recomputed in float64 to 1 %."""
    r = case.r
    _, signs = case.terms
    listed = case.listed
    if len(case.neurons) * r**3 > 60_000_000:
        raise NotCheckableError("the Jacobian is too large to recompute the condition numbers")
    matrix = jacobian(listed.points, box.centres, signs, case.degree)
    blocks = inverse_blocks(np.repeat(listed.weights, r)[:, None] * matrix, r, case.in_time)
    size = float(np.linalg.norm(listed.sides))
    for i in range(r):
        own = float(np.linalg.norm(blocks[i], 2)) * size / float(np.linalg.norm(box.centres[i]))
        stated = float(box.conditions[i])
        require(
            agrees(stated, own, 0.005), f"condition number {i + 1} is {own:.4g}, not {stated:.4g}"
        )


def build_system(case: Case, signs: list[int]) -> System:
    """The equations of the listed neurons from the numbers of the files, in balls."""
    data, neurons = case.data, case.neurons
    basis = exact(case.basis)
    points, rows = exact(data.points[neurons]), exact(data.rows[neurons])
    norms = [_norm(line) for line in points.tolist()]
    largest = int(np.argmax(np.linalg.norm(data.points[neurons], axis=1)))
    height = float(np.abs(data.scales[neurons]).max())
    row = flint.arb(float(np.abs(data.rows[neurons]).max()))
    projected, sides = (points * basis).tolist(), (rows * basis).tolist()
    step = flint.arb(2.0**-case.shift)
    weights, aims = [], []
    for j, scale in enumerate(data.scales[neurons].tolist()):
        length = _norm(projected[j]) / norms[largest]
        weights.append(flint.arb(abs(scale)) / height * length ** (case.degree - 1))
        sign = 1 if scale > 0 else -1
        aims.append([entry * sign / row for entry in sides[j]])
    balls = [
        [flint.arb(flint.arb(entry) * step, step) for entry in line]
        for line in case.integers.tolist()
    ]
    size = _norm([entry for line in aims for entry in line])
    return System(case.degree, balls, weights, aims, size, signs)


def exact(values: FloatArray) -> flint.arb_mat:
    """A matrix of floats as it is."""
    return flint.arb_mat([[flint.arb(v) for v in line] for line in values.tolist()])


def _norm(values: Balls) -> flint.arb:
    total = flint.arb(0)
    for value in values:
        total += value * value
    return total.sqrt()


def _dot(left: Balls, right: Balls) -> flint.arb:
    total = flint.arb(0)
    for a, b in zip(left, right, strict=True):
        total += a * b
    return total


def evaluate(system: System, j: int, terms: list[Balls]) -> Balls:
    """w_j sum_i s_i (p_j.z_i)^(alpha-1) z_i - rhs_j over balls, for one neuron."""
    r = len(terms)
    total = [flint.arb(0)] * r
    for sign, term in zip(system.signs, terms, strict=True):
        high = power_of(_dot(system.points[j], term), system.degree - 1) * sign
        total = [value + high * entry for value, entry in zip(total, term, strict=True)]
    return [
        value * system.weights[j] - side for value, side in zip(total, system.sides[j], strict=True)
    ]


def power_of(ball: flint.arb, exponent: int) -> flint.arb:
    """ball^exponent by multiplication: the operator ** gives NaN for a ball around 0."""
    product = flint.arb(1)
    for _ in range(exponent):
        product *= ball
    return product


def _slopes(system: System, j: int, terms: list[Balls]) -> list[tuple[flint.arb, flint.arb]]:
    """For each term s_i w_j (p.z)^(alpha-1) and s_i w_j (alpha-1) (p.z)^(alpha-2)."""
    result = []
    for sign, term in zip(system.signs, terms, strict=True):
        inner = _dot(system.points[j], term)
        factor = system.weights[j] * sign
        low = factor * power_of(inner, system.degree - 2)
        result.append((low * inner, low * (system.degree - 1)))
    return result


def box_balls(box: Enclosure) -> list[list[flint.arb]]:
    """The box as balls, one list for each term."""
    return [
        [flint.arb(c, rad) for c, rad in zip(centre, radius, strict=True)]
        for centre, radius in zip(box.centres.tolist(), box.radii.tolist(), strict=True)
    ]


def krawczyk(system: System, box: Enclosure, in_time: InTime = always) -> str:
    """Empty if the test succeeds, else why not; RefutedError if some data have no solution in it.

    The inverse Y is that of the Jacobian at the centre; any Y would do.
    """
    r = len(box.centres)
    terms = box_balls(box)
    middle = [[flint.arb(c) for c in line] for line in box.centres.tolist()]
    spread = (system.size * flint.arb(box.radius)).abs_upper()
    pivots = [divmod(pivot, r) for pivot in box.pivots.tolist()]
    wide = _pivot_jacobian(system, pivots, terms, in_time)
    centre = flint.arb_mat(_pivot_jacobian(system, pivots, middle, in_time).mid())
    try:
        near = inverse(centre, in_time).mid()
    except ZeroDivisionError:
        return "the Jacobian of the pivot equations is singular"
    values = {j: evaluate(system, j, middle) for j in {j for j, _ in pivots}}
    centred = flint.arb_mat([[values[j][a]] for j, a in pivots])
    radii = [flint.arb(rad) for line in box.radii.tolist() for rad in line]
    in_time(0.0)
    steps = near * centred
    # The part of K that depends on the place in the box, and the part that depends on the data.
    left = product(near, wide, in_time)
    for i in range(r * r):
        left[i, i] -= 1
    rest = left * flint.arb_mat([[flint.arb(0, rad)] for rad in radii])
    ball = flint.arb(0, spread)
    noise = near * flint.arb_mat([[ball] for _ in radii])
    inside = True
    for i, radius in enumerate(radii):
        in_time(0.0)
        deviation = rest[i, 0] - steps[i, 0] + noise[i, 0]
        if not deviation.abs_upper() < radius:
            inside = False
            # Data at one end of their range push the solution of this coordinate out of the box.
            push = _reach(near, i) * spread.lower()
            far = abs(steps[i, 0].mid()) + push - steps[i, 0].rad() - rest[i, 0].abs_upper()
            if far.lower() > radius:
                raise RefutedError(
                    f"for some data within {box.radius:.1e} the solution is not in the box"
                )
    return "" if inside else "the Krawczyk test of the box does not succeed"


def _reach(inverse: flint.arb_mat, i: int) -> flint.arb:
    """Sum of the moduli of one row of an exact matrix, from below."""
    total = flint.arb(0)
    for j in range(inverse.ncols()):
        total += abs(inverse[i, j])
    return flint.arb(total.lower())


def _pivot_jacobian(
    system: System, pivots: list[tuple[int, int]], terms: list[Balls], in_time: InTime = always
) -> flint.arb_mat:
    slopes = {j: _slopes(system, j, terms) for j in {j for j, _ in pivots}}
    lines = []
    for j, a in pivots:
        in_time(0.0)
        line: Balls = []
        for (high, low), term in zip(slopes[j], terms, strict=True):
            factor = low * term[a]
            part = [factor * entry for entry in system.points[j]]
            part[a] = part[a] + high
            line += part
        lines.append(line)
    return flint.arb_mat(lines)


def _check_others(system: System, box: Enclosure, in_time: InTime = always) -> None:
    """No equation that is no pivot excludes the box: its range over box and data contains 0."""
    r = len(box.centres)
    terms = box_balls(box)
    middle = [[flint.arb(c) for c in line] for line in box.centres.tolist()]
    moves = [[flint.arb(0, rad) for rad in line] for line in box.radii.tolist()]
    spread = flint.arb(0, (system.size * flint.arb(box.radius)).abs_upper())
    pivots = set(box.pivots.tolist())
    for j in range(len(system.points)):
        if all(j * r + a in pivots for a in range(r)):
            continue
        in_time(0.0)
        centred = evaluate(system, j, middle)
        shifts = [flint.arb(0)] * r
        for (high, low), term, move in zip(_slopes(system, j, terms), terms, moves, strict=True):
            along = low * _dot(system.points[j], move)
            shifts = [
                shift + along * entry + high * step
                for shift, entry, step in zip(shifts, term, move, strict=True)
            ]
        for a in range(r):
            if j * r + a not in pivots and not (centred[a] + shifts[a] + spread).contains(0):
                raise RefutedError(f"equation {a + 1} of listed neuron {j + 1} excludes the box")


def _check_independent(box: Enclosure) -> None:
    """All terms in the box are linearly independent: 1 - X Z has a norm below 1."""
    r = len(box.centres)
    lengths = np.linalg.norm(box.centres, axis=1)
    inverse = np.linalg.inv(box.centres / lengths[:, None])
    scaled = flint.arb_mat(
        [[entry / flint.arb(size) for entry in line]
         for line, size in zip(box_balls(box), lengths.tolist(), strict=True)]
    )  # fmt: skip
    product = exact(inverse) * scaled
    for i in range(r):
        total = flint.arb(0)
        for j in range(r):
            total += abs(product[i, j] - int(i == j)).abs_upper()
        require(bool(total < 1), "the box holds terms that are linearly dependent")
