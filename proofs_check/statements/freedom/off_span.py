"""Freedom off the span of the neurons: any linear map of what they do not see."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

import numpy as np

from identify import HermiteData
from identify.alternatives import off_span as alternatives
from identify.arrays import FloatArray
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.freedom.shadows import (
    Shadow,
    explains,
    is_stationary,
    leaves,
    roundings,
    shadows,
    shake,
    short_span,
)
from proofs_check.statements.kkt.balance import UNIT

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Map = Literal["any", "orthogonal", "zero"]
MAPS: tuple[Map, ...] = ("any", "orthogonal", "zero")


@dataclass(frozen=True, eq=False)
class OffSpan:
    """A shadow, and a map of what lies outside V; `leak` lets it reach into V as well.

    `loose` maps do not fix the coordinate of the bias.
    """

    shadow: Shadow
    kind: Map
    leak: bool = False
    loose: bool = False

    def __repr__(self) -> str:
        notes = (", leaking" if self.leak else "") + (", loose" if self.loose else "")
        return f"OffSpan({self.kind}{notes}, {self.shadow!r})"


def draw_map(case: OffSpan) -> FloatArray:
    """A (q, q) on the coordinates outside V.

    With a bias e . A = e for the part e of its axis outside V.
    """
    outside = case.shadow.outside
    size = outside.shape[1]
    rng = np.random.default_rng([case.shadow.data.seed, size, 15])
    matrix = 2.0 * rng.standard_normal((size, size))
    if case.kind == "orthogonal":
        matrix = np.linalg.qr(matrix)[0]
    if case.kind == "zero":
        matrix = np.zeros((size, size))
    axis = outside[-1]
    length = float(np.linalg.norm(axis))
    if not case.shadow.network.has_bias or case.loose or length < 1e-9:
        return np.asarray(matrix)
    axis = axis / length
    if case.kind == "orthogonal":
        rest = np.linalg.svd(axis[:, None], full_matrices=True)[0][:, 1:]
        turn = np.linalg.qr(rest.T @ matrix @ rest)[0]
        return np.asarray(np.outer(axis, axis) + rest @ turn @ rest.T)
    return np.asarray(matrix + np.outer(axis, axis - axis @ matrix))


def move_samples(case: OffSpan, matrix: FloatArray) -> FloatArray:
    """x_V + A x_perp for every sample, shape (n, d)."""
    shadow = case.shadow
    lifted = shadow.network.lift(shadow.data.samples)
    basis, outside = shadow.basis, shadow.outside
    moved = (lifted @ basis) @ basis.T + (lifted @ outside) @ matrix.T @ outside.T
    if case.leak:
        rng = np.random.default_rng([shadow.data.seed, 16])
        moved = moved + (lifted @ outside) @ rng.standard_normal((len(matrix), basis.shape[1])) @ (
            basis.T
        )
    return np.ascontiguousarray(moved[:, : shadow.network.dimension])


def _stays(case: OffSpan, lengths: bool | None = None, *, exactly: bool = False) -> Check:
    """Stationarity, outputs, for orthogonal maps the lengths; the map that is shown to users."""
    shadow, matrix = case.shadow, draw_map(case)
    network, b = shadow.network, shadow.data.coefficients
    x, moved = shadow.data.samples, move_samples(case, matrix)
    # Only rounding of sum_i b_i (w . x_i)^(alpha-1) x_i,perp = 0 goes through the map; the points
    # stick out of V by their own residual.
    factor = (2.0 + 2.0 * float(np.linalg.norm(matrix, 2))) * roundings(shadow)
    explained = explains(network, moved, b, factor, exactly=exactly)
    if not explained.holds:
        return explained
    bulk = sum(
        (np.abs(network.lift(s)) @ np.abs(network.points).T) ** network.degree
        @ np.abs(network.output_weight)
        for s in (x, moved)
    )
    unit = 4.0 * (network.width + network.dimension + 4 * network.degree) * UNIT
    # A sample that no neuron sees has the output 0 before and after.
    allowed = np.maximum(unit * bulk, 1e-300)
    gap = float(np.max(np.abs(network.value(moved) - network.value(x)) / allowed))
    if lengths if lengths is not None else case.kind == "orthogonal":
        sizes = np.linalg.norm(moved, axis=1) - np.linalg.norm(x, axis=1)
        scale = 16.0 * network.dimension * UNIT * np.linalg.norm(network.lift(x), axis=1)
        gap = max(gap, float(np.max(np.abs(sizes) / scale)))
    if leaves(shadow):
        # The same with A = 1 - t, which moves the farthest sample by t = 0.7 of its norm.
        data = HermiteData.from_weight_decay(network)
        found = alternatives.off_span_alternative(data, x, b, distance=0.7)
        if found is None:
            return Check.of(False, "no other set")
        shown = explains(network, found.samples, b, 8.0 * roundings(shadow), exactly=exactly)
        if not shown.holds:
            return shown
    return Check.compare(max(gap, explained.deviation), factor)


def _always_as_long(case: OffSpan) -> Check:
    return _stays(case, True)


def _cases(**options: Any) -> SearchStrategy[OffSpan]:
    from hypothesis import strategies as st

    biases = (True,) if options.get("loose") else (False, True)
    kinds = ("any",) if options.get("loose") else MAPS
    drawn = shadows(biases=biases)
    return st.builds(OffSpan, drawn, st.sampled_from(kinds), **_fixed(options))


def _fixed(options: dict[str, Any]) -> dict[str, Any]:
    from hypothesis import strategies as st

    return {name: st.just(value) for name, value in options.items()}


def _shaken() -> SearchStrategy[OffSpan]:
    return _cases().map(lambda case: replace(case, shadow=shake(case.shadow)))


def _fixes_bias(case: OffSpan) -> bool:
    if not case.shadow.network.has_bias:
        return True
    axis = case.shadow.outside[-1]
    return bool(np.allclose(axis @ draw_map(case), axis, atol=1e-9))


def _spilled() -> AbstractContextManager[object]:
    """Moved samples with a part in V that depends on what lies outside."""
    import proofs_check.statements.freedom.off_span as module

    original = module.move_samples

    def broken(case: OffSpan, matrix: FloatArray) -> FloatArray:
        return original(replace(case, leak=True), matrix)

    return patch.object(module, "move_samples", broken)


def _map_algebra() -> bool:
    """One neuron in V = span(e1), three dimensions, two samples, symbolic A."""
    import sympy as sp

    w, out = sp.symbols("w a")
    matrix = sp.Matrix(2, 2, sp.symbols("A1:5"))
    b = sp.symbols("b1:3")
    samples = [sp.Matrix(sp.symbols(f"x{i}_1:4")) for i in (1, 2)]

    def slope(x: sp.Matrix, degree: int) -> sp.Matrix:
        return degree * out * (w * x[0]) ** (degree - 1) * x

    for degree in (3, 4, 5):
        before, after = sp.zeros(3, 1), sp.zeros(3, 1)
        for coefficient, x in zip(b, samples, strict=True):
            moved = sp.Matrix([x[0], *(matrix * x[1:, :])])
            before += coefficient * slope(x, degree)
            after += coefficient * slope(moved, degree)
        rest = after[1:, :] - matrix * before[1:, :]
        if sp.expand(after[0] - before[0]) != 0 or sp.expand(rest) != sp.zeros(2, 1):
            return False
    return True


OFF_SPAN = Statement(
    name="off-span",
    title="Any linear map off the span",
    sentence=(
        "If (x_i, b_i) explain stationary weights, so do (x_i,V + A x_i,perp, b_i) for every "
        "linear map A of the complement of V (with a bias: one that fixes its coordinate), with "
        "the same outputs, and with the same norms if A is orthogonal."
    ),
    formula=r"0 = M\,\mathrm{diag}(b)\,X_\perp \implies 0 = M\,\mathrm{diag}(b)\,X_\perp A^T",
    source="linearity of the equations off V; ours",
    hypotheses=(
        Hypothesis(
            "stationary",
            "the weights are stationary, as for KKT points and weight decay",
            lambda case: is_stationary(case.shadow),
            _shaken,
        ),
        Hypothesis(
            "off-span",
            "the map changes nothing in V",
            lambda case: not case.leak,
            lambda: _cases(leak=True),
        ),
        Hypothesis(
            "bias",
            "with a hidden bias the map fixes its coordinate",
            _fixes_bias,
            lambda: _cases(loose=True),
        ),
    ),
    instances=_cases,
    conclusion=_stays,
    sabotages=(
        Sabotage("lengths", "the same norms for every map", conclusion=_always_as_long),
        Sabotage("spill", "a part off V added in V", construction=_spilled),
        Sabotage("span", "V a direction short", implementation=short_span),
    ),
    cost="light",
    recheck=lambda case: _stays(case, exactly=True),
    algebra=_map_algebra,
    algebra_note="one neuron in span(e1), d = 3, two samples, symbolic A, degrees 3 to 5",
    code=("identify.alternatives.off_span.off_span_alternative",),
    remark="A = 0 leaves n samples in V that explain the same weights.",
)

STATEMENTS = (OFF_SPAN,)
