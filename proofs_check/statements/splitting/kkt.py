"""The splitting matrix of the KKT loss |theta - (1/N) sum_i lam_i y_i grad f(x_i)|^2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.splitting import by_attack
from proofs_check.statements.splitting.families import UNIT, Array
from proofs_check.statements.splitting.problems import taylor

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

ACTIVATIONS = ("tanh", "softplus", "gelu", "power3")
SOFTNESS = 5.0
DIRECTIONS = 3
SHEN = "Shen, Wang, Qian & Lei 2026 (section 5)"


def jet(name: str, z: Array) -> list[Array]:
    """The activation and what stands for its first three derivatives, real or complex.

    soft_relu has the value max(z, 0) with the derivatives of a softplus (Haim et al. 2022).
    """
    if name == "tanh":
        t = np.tanh(z)
        slope = 1.0 - t * t
        return [t, slope, -2.0 * t * slope, slope * (6.0 * t * t - 2.0)]
    if name == "power3":
        return [z**3, 3.0 * z**2, 6.0 * z, 6.0 + 0.0 * z]
    if name == "gelu":
        from scipy.special import erf

        share = 0.5 * (1.0 + erf(z / np.sqrt(2.0)))
        density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
        second, third = density * (2.0 - z * z), density * (z**3 - 4.0 * z)
        return [z * share, share + z * density, second, third]
    soft = SOFTNESS if name == "soft_relu" else 1.0
    s = 1.0 / (1.0 + np.exp(-soft * z))
    value = np.where(z.real > 0.0, z, 0.0) if name == "soft_relu" else np.log1p(np.exp(z))
    slope = s * (1.0 - s)
    return [value, s, soft * slope, soft**2 * slope * (1.0 - 2.0 * s)]


@dataclass(frozen=True, eq=False)
class KktProblem:
    """f(x) = sum_j a_j sigma(w_j . x + b_j) with candidates, multipliers and labels.

    `hidden` (m, d), `bias` (m,), `outer` (m,), `x` (n, d), `lam` (n,), `labels` (n,). `weights`
    are those of the two offspring; `follows` lets the count N grow with every split.
    """

    activation: str
    hidden: FloatArray
    bias: FloatArray
    outer: FloatArray
    x: FloatArray
    lam: FloatArray
    labels: FloatArray
    normaliser: float
    kind: str
    seed: int
    weights: tuple[float, float] = (0.5, 0.5)
    follows: bool = False

    def __repr__(self) -> str:
        (n, d), m = self.x.shape, len(self.outer)
        return (
            f"KktProblem({self.activation}, {self.kind}, n={n}, d={d}, m={m}, "
            f"N={self.normaliser:g}, weights={self.weights}, N follows={self.follows}, "
            f"seed={self.seed})"
        )


Residual = tuple[Array, Array, Array]


def residual(problem: KktProblem, x: Array, signed: Array) -> Residual:
    """theta - sum_i c_i grad f(x_i) for x (..., n, d), c (n,): layers a, W, b."""
    z = x @ problem.hidden.T + problem.bias
    value, slope = jet(problem.activation, z)[:2]
    inner = signed[:, None] * problem.outer * slope
    outer = problem.outer - (signed[:, None] * value).sum(axis=-2)
    hidden = problem.hidden - np.swapaxes(inner, -1, -2) @ x
    return outer, hidden, problem.bias - inner.sum(axis=-2)


def kkt_loss(problem: KktProblem, x: Array, signed: Array) -> Array:
    """The loss for x (..., n, d), without conjugates."""
    outer, hidden, bias = residual(problem, x, signed)
    flat = (hidden**2).sum(axis=(-1, -2))
    return np.asarray((outer**2).sum(axis=-1) + flat + (bias**2).sum(axis=-1))


def signed_multipliers(problem: KktProblem, normaliser: float | None = None) -> FloatArray:
    """c_i = lam_i y_i / N."""
    return problem.lam * problem.labels / (normaliser or problem.normaliser)


def factors(problem: KktProblem, index: int, rest: Residual) -> tuple[Array, Array]:
    """The diagonals of D and E: c (r_a sigma'' + a sigma''' (R x + r_b)) and c a sigma''."""
    point = problem.x[index]
    _, _, second, third = jet(problem.activation, problem.hidden @ point + problem.bias)
    outer, hidden, bias = rest
    scale = -2.0 * signed_multipliers(problem)[index]
    drift = hidden @ point + bias
    first = scale * (outer * second + problem.outer * third * drift)
    return np.asarray(first), np.asarray(scale * problem.outer * second)


def two_layer_form(problem: KktProblem, index: int) -> Array:
    """W^T D W + W^T E R + R^T E W, shape (d, d)."""
    rest = residual(problem, problem.x, signed_multipliers(problem))
    diagonal, cross = factors(problem, index, rest)
    half = (problem.hidden.T * cross) @ rest[1]
    return np.asarray((problem.hidden.T * diagonal) @ problem.hidden + half + half.T)


def form_rounding(problem: KktProblem, index: int) -> float:
    """Unit roundoff times the number of terms times the moduli of the terms."""
    moduli = np.abs(signed_multipliers(problem))
    heights = [float(np.abs(part).max()) for part in jet(problem.activation, _inner(problem))]
    inputs = float(np.abs(problem.x).max()) + 1.0
    weight = float(np.abs(problem.outer).max())
    sums = float(moduli.sum()) * (heights[0] + weight * heights[1] * inputs)
    layers = weight + float(np.abs(problem.hidden).max()) + float(np.abs(problem.bias).max())
    drift = problem.x.shape[1] * inputs + 1.0
    row = float(np.sum(np.abs(problem.hidden)) + problem.x.size) ** 2
    each = heights[2] * (1.0 + weight) + weight * heights[3] * drift
    terms = problem.x.size + problem.hidden.size
    return float(16.0 * terms * UNIT * moduli[index] * each * row * (sums + layers))


def _inner(problem: KktProblem) -> Array:
    return np.asarray(problem.x @ problem.hidden.T + problem.bias)


def frozen(problem: KktProblem, index: int, direction: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Taylor coefficients of -2 c_i sum_p r_p df/dtheta_p(x_i + eps v), the residual held fixed."""
    rest = residual(problem, problem.x, signed_multipliers(problem))
    outer, hidden, bias = (np.asarray(part) for part in rest)
    scale = -2.0 * signed_multipliers(problem)[index]

    def line(step: Array) -> Array:
        point = problem.x[index] + step[:, None] * direction
        value, slope = jet(problem.activation, point @ problem.hidden.T + problem.bias)[:2]
        drift = point @ hidden.T + bias
        return np.asarray(scale * (value @ outer + (problem.outer * slope * drift).sum(axis=-1)))

    return taylor(line)


def halved(problem: KktProblem, index: int, direction: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Taylor coefficients in eps of the change of the loss by a split along +-v.

    Halves are those of the attack; other weights are none of its.
    """
    parts = np.asarray(problem.weights)
    count = len(problem.lam)
    normaliser = problem.normaliser * ((count + 1.0) / count if problem.follows else 1.0)
    signed = signed_multipliers(problem, normaliser)
    attacked = problem.weights == (0.5, 0.5)
    new = np.concatenate([np.delete(signed, index), parts * signed[index]])
    before = kkt_loss(problem, problem.x, signed_multipliers(problem))

    def line(step: Array) -> Array:
        others = np.delete(problem.x, index, axis=0)
        lam = new
        born = problem.x[index] + step[:, None, None] * np.stack([direction, -direction])
        if attacked:
            born, heights = by_attack.offspring_of_one(
                problem.x[index], float(signed[index]), direction, step
            )
            lam = np.concatenate([np.delete(signed, index), heights[0]])
        shape = (len(step), *others.shape)
        x = np.concatenate([np.broadcast_to(others, shape), born], axis=1)
        return kkt_loss(problem, x, lam) - before

    return taylor(line)


def _compare(problem: KktProblem, factor: float = 1.0) -> Check:
    """The matrix by layers, the Hessian of <r, grad f>, and the change of the loss itself."""
    rng = np.random.default_rng([problem.seed, 19])
    n, d = problem.x.shape
    index = problem.seed % n
    matrix = factor * two_layer_form(problem, index)
    noise = form_rounding(problem, index)
    worst, detail = 0.0, ""
    for direction in rng.standard_normal((DIRECTIONS, d)):
        unit = direction / np.linalg.norm(direction)
        bent = float(unit @ matrix @ unit)
        for name, (found, errors) in (
            ("<r, grad f>", frozen(problem, index, unit)),
            ("the loss", halved(problem, index, unit)),
        ):
            ratio = abs(2.0 * found[2] - bent) / (2.0 * errors[2] + noise)
            if ratio > worst:
                worst, detail = ratio, f"{name} bends by {2 * found[2]:.6g}, not {bent:.6g}"
            ratio = 0.0 if name == "<r, grad f>" else max(abs(found[:2]) / (errors[:2] + noise))
            if ratio > worst:
                worst, detail = float(ratio), f"{name} changes at order 0 or 1: {found[:2]}"
    return Check.compare(worst, 1.0, detail)


def build(
    activation: str,
    kind: str,
    count: int,
    dimension: int,
    width: int,
    seed: int,
    weights: tuple[float, float] = (0.5, 0.5),
    follows: bool = False,
) -> KktProblem:
    """A random network and candidates of a kind.

    Example:
        >>> build("tanh", "generic", 2, 3, 4, 0).hidden.shape
        (4, 3)
    """
    rng = np.random.default_rng([seed, count, dimension, width])
    side = max(count, dimension)
    x = strategies.draw_samples(kind, count, side, seed)[:, :dimension]
    x = x / max(1.0, float(np.linalg.norm(x, axis=1).max()) / 1.5)
    return KktProblem(
        activation,
        rng.standard_normal((width, dimension)) / np.sqrt(dimension),
        rng.uniform(-0.5, 0.5, size=width),
        rng.standard_normal(width),
        x,
        rng.uniform(0.3, 2.0, size=count),
        rng.choice([-1.0, 1.0], size=count),
        float(count),
        kind,
        seed,
        weights,
        follows,
    )


def kkt_problems(
    activations: tuple[str, ...] = ACTIVATIONS,
    weights: tuple[float, float] = (0.5, 0.5),
    follows: bool = False,
) -> SearchStrategy[KktProblem]:
    from hypothesis import strategies as st

    return st.builds(
        build,
        st.sampled_from(activations),
        st.sampled_from(strategies.present(strategies.KINDS)),
        st.integers(1, 3),
        st.integers(1, 5),
        st.integers(1, 6),
        st.integers(0, strategies.SEEDS),
        st.just(weights),
        st.just(follows),
    )


def _layers_algebra() -> bool:
    """One and two neurons in two dimensions, sigma a symbolic function."""
    import sympy as sp

    x = sp.Matrix(sp.symbols("x1:3"))
    sigma, t = sp.Function("sigma"), sp.Symbol("t")
    total, form = sp.Integer(0), sp.zeros(2, 2)
    for j in (1, 2):
        w, rows = sp.Matrix(sp.symbols(f"w{j}_1:3")), sp.Matrix(sp.symbols(f"r{j}_1:3"))
        a, b, outer, bias = sp.symbols(f"a{j} b{j} ra{j} rb{j}")
        z, drift = w.dot(x) + b, rows.dot(x) + bias
        slope, second, third = (sp.diff(sigma(t), t, k).subs(t, z) for k in (1, 2, 3))
        total += outer * sigma(z) + a * slope * drift
        form += (outer * second + a * third * drift) * w * w.T
        form += a * second * (w * rows.T + rows * w.T)
    found = sp.hessian(total, list(x))
    return all(sp.expand((found - form)[p, q].doit()) == 0 for p in (0, 1) for q in (0, 1))


HALVES = Hypothesis(
    "halves",
    "the offspring are two halves",
    lambda problem: problem.weights == (0.5, 0.5),
    lambda: kkt_problems(weights=(0.75, 0.25)),
)

MATRIX = Statement(
    name="splitting-kkt-matrix",
    title="The splitting matrix of the KKT loss",
    sentence=(
        "For |theta - (1/N) sum_i lam_i y_i grad f(x_i)|^2 with residual r the splitting matrix is "
        "S_i = -(2/N) lam_i y_i sum_p r_p D^2_x (df/dtheta_p)(x_i), which for two layers is "
        "W^T D W + W^T E R + R^T E W with diagonal D, E and the residual R of the hidden layer."
    ),
    formula=(
        r"S_i = -\tfrac{2}{N} \lambda_i y_i \sum_p r_p D_x^2 \tfrac{\partial f}{\partial \theta_p}"
        r" = W^T D W + W^T E R + R^T E W"
    ),
    source="ours, after " + SHEN,
    hypotheses=(
        Hypothesis(
            "derivatives",
            "sigma', sigma'', sigma''' are the derivatives of sigma",
            lambda problem: problem.activation != "soft_relu",
            lambda: kkt_problems(("soft_relu",)),
        ),
        Hypothesis(
            "count",
            "N does not follow the number of candidates",
            lambda problem: not problem.follows,
            lambda: kkt_problems(follows=True),
        ),
        HALVES,
    ),
    instances=kkt_problems,
    conclusion=_compare,
    sabotages=(
        Sabotage("factor", "1 in place of 2", conclusion=lambda p: _compare(p, 0.5)),
        Sabotage(
            "distance",
            "the attack's offspring at half of their distance",
            implementation=lambda: by_attack.close_offspring(0.5),
        ),
    ),
    algebra=_layers_algebra,
    algebra_note="the Hessian of <r, grad f> by layers for d = m = 2, sigma a symbolic function",
    code=("attack.splitting.plan.offspring",),
    remark=(
        "With soft_relu (the value of relu, derivatives of a softplus) S_i belongs to the "
        "surrogate, not to the loss whose values a line search sees."
    ),
)


STATEMENTS = (MATRIX,)
