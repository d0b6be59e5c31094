"""Fine-tuning as a source, to which order: midpoint, initial weights, and the second-order form."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

import numpy as np

from identify import HermiteData, TwoLayerNetwork
from identify.arrays import FloatArray
from proofs_check import strategies
from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
from proofs_check.statements.kkt.balance import UNIT
from proofs_check.strategies import GradientProblem

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

HALVINGS = 4
FLOW_STEPS = 16
"""Runge-Kutta steps of a flow: an error of (movement/16)^4, below the remainders."""
DIRECTIONS = (1.0, -1.0)
"""Forward and backward: in both together remainders of two orders cannot cancel."""


def slopes(theta: FloatArray, x: FloatArray, degree: int) -> tuple[FloatArray, FloatArray]:
    """f(x_i), shape (n,), and grad f(x_i), shape (n, m, d + 1); theta_j = (a_j, w_j)."""
    z = x @ theta[:, 1:].T
    powers = z ** (degree - 1)
    outputs = (powers * z) @ theta[:, 0]
    rows = np.concatenate(
        [(powers * z)[..., None], (degree * powers * theta[:, 0])[..., None] * x[:, None]], axis=2
    )
    return outputs, rows


def bends(theta: FloatArray, x: FloatArray, degree: int, moves: FloatArray) -> FloatArray:
    """D^2 f(x_i) applied to each move (k, m, d + 1), shape (n, k, m, d + 1)."""
    z = x @ theta[:, 1:].T
    first, second = degree * z ** (degree - 1), degree * (degree - 1) * z ** (degree - 2)
    along = np.einsum("kmd,nd->nkm", moves[:, :, 1:], x)
    result = np.empty((len(x), *moves.shape))
    result[..., 0] = first[:, None] * along
    scale = first[:, None] * moves[None, :, :, 0] + (second * theta[:, 0])[:, None] * along
    result[..., 1:] = scale[..., None] * x[:, None, None]
    return result


def order_of(errors: list[float], noise: float) -> float:
    """The exponent q of errors ~ 2^(-q k) at the last two halvings that rounding does not hide.

    Infinite where fewer than two errors are seen.
    """
    seen = [error for error in errors if error > 16.0 * noise][-3:]
    if len(seen) < 2:
        return np.inf
    return float(np.log2(seen[0] / seen[-1]) / (len(seen) - 1))


# --- where to read the data --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Flow:
    """Training of a network on squared losses (c f - t_i)^2/2, by a flow or a few steps.

    short: ever shorter times, c = 1; lazy: ever larger c for a time of 1/c^2, so that the movement
    shrinks as well. `steps` 0 is the flow itself.
    """

    problem: GradientProblem
    regime: Literal["short", "lazy"] = "short"
    steps: int = 0

    def __repr__(self) -> str:
        how = "flow" if self.steps == 0 else f"{self.steps} steps"
        return f"Flow({self.regime}, {how}, {self.problem!r})"


def follow(
    flow: Flow, halving: int, direction: float = 1.0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """theta before and after, shape (m, d + 1), and the coefficients B_i of the whole movement.

    The movement is about 2^(-halving) hundredths of theta, against the flow for direction -1.
    """
    net, x, b = flow.problem.network, flow.problem.data.samples, flow.problem.data.coefficients
    degree = net.degree
    theta = np.column_stack([net.output_weight, net.hidden_weight])
    start = theta.copy()
    outputs, rows = slopes(theta, x, degree)
    size = float(np.linalg.norm(theta))
    pull = float(np.linalg.norm(np.tensordot(b, rows, 1)))
    # The outputs, and with them the coefficients, move little as well.
    kernel = rows.reshape(len(x), -1)
    top = float(np.linalg.norm(kernel @ kernel.T, 2))
    reach = min(0.01 * size / pull, 0.05 / top)
    scale, time = 1.0, reach * 0.5**halving
    if flow.regime == "lazy":
        # For a time in which the coefficients decay by a fixed factor.
        scale = 2.0**halving / (reach * top)
        time = 2.0 / (scale**2 * top)
    targets = scale * outputs + b

    def change(point: FloatArray) -> tuple[FloatArray, FloatArray]:
        values, gradient = slopes(point, x, degree)
        heights = scale * (targets - scale * values)
        return np.tensordot(heights, gradient, 1), heights

    total = np.zeros(len(x))
    count = flow.steps or FLOW_STEPS
    step = direction * time / count
    for _ in range(count):
        first, drop = change(theta)
        if flow.steps:
            theta, total = theta + step * first, total + step * drop
            continue
        second, drop2 = change(theta + 0.5 * step * first)
        third, drop3 = change(theta + 0.5 * step * second)
        last, drop4 = change(theta + step * third)
        theta = theta + step / 6.0 * (first + 2.0 * second + 2.0 * third + last)
        total = total + step / 6.0 * (drop + 2.0 * drop2 + 2.0 * drop3 + drop4)
    return start, theta, total


def reading_errors(flow: Flow) -> tuple[list[float], list[float], float]:
    """|rows - scales T(u^(alpha-1), .)| / |rows| for movements that halve, T with the true B_i.

    At the midpoint, at the initial weights, and the rounding of the smallest movement: every
    step rounds the weights once.
    """
    x, degree = flow.problem.data.samples, flow.problem.network.degree
    middle, early, noise = [0.0] * HALVINGS, [0.0] * HALVINGS, 0.0
    for halving, direction in product(range(HALVINGS), DIRECTIONS):
        start, end, total = follow(flow, halving, direction)
        pair = [TwoLayerNetwork(theta[:, 1:], theta[:, 0], degree) for theta in (start, end)]
        for point, errors in (("midpoint", middle), ("initial", early)):
            data = HermiteData.from_fine_tuning(pair[0], pair[1], point=point)
            inner = (data.points @ x.T) ** (degree - 1) * total
            gap = np.linalg.norm(data.rows - data.scales[:, None] * (inner @ x))
            size = float(np.linalg.norm(data.rows))
            errors[halving] = float(np.hypot(errors[halving], gap / size))
        noise = FLOW_STEPS * UNIT * float(np.linalg.norm(data.points)) / size
    return middle, early, noise


def _reading_orders(flow: Flow) -> tuple[float, float]:
    """Orders at the midpoint and at the initial weights."""
    middle, early, noise = reading_errors(flow)
    return order_of(middle, noise), order_of(early, noise)


def _midpoint_is_second(flow: Flow, wanted: float = 2.0) -> Check:
    middle, first = _reading_orders(flow)
    short = max(wanted - middle, 1.0 - first, 0.0)
    return Check.compare(short, 0.5, f"orders {middle:.2f} and {first:.2f}")


def _midpoint_is_third(flow: Flow) -> Check:
    return _midpoint_is_second(flow, 3.0)


def _problems() -> SearchStrategy[GradientProblem]:
    kinds = ("generic", "orthonormal", "integer", "digits")
    return strategies.gradient_problems(3, 4, (3, 4, 5), kinds, (2, 6)).filter(_is_calm)


def _is_calm(problem: GradientProblem) -> bool:
    """Whether the second derivative is not much larger than the first over the size of theta."""
    net, data = problem.network, problem.data
    theta = np.column_stack([net.output_weight, net.hidden_weight])
    _, rows = slopes(theta, data.samples, net.degree)
    pull = np.tensordot(data.coefficients, rows, 1)
    bent = bends(theta, data.samples, net.degree, pull[None])[:, 0]
    turn = np.tensordot(data.coefficients, bent, 1)
    ratio = np.linalg.norm(turn) * np.linalg.norm(theta) / np.linalg.norm(pull) ** 2
    return bool(ratio < 20.0)


def _flows(
    regime: Literal["short", "lazy"] = "short", steps: tuple[int, ...] = (0,)
) -> SearchStrategy[Flow]:
    from hypothesis import strategies as st

    return st.builds(Flow, _problems(), st.just(regime), st.sampled_from(steps))


def _early_point() -> AbstractContextManager[object]:
    """Data read at four tenths of the way."""
    original = HermiteData.from_fine_tuning

    def broken(initial: TwoLayerNetwork, final: TwoLayerNetwork, **options: Any) -> HermiteData:
        found = original(initial, final, **options)
        if options.get("point") == "initial":
            return found
        return replace(found, points=initial.points + 0.4 * (final.points - initial.points))

    return patch.object(HermiteData, "from_fine_tuning", broken)


MIDPOINT = Statement(
    name="midpoint-order",
    title="Where fine-tuning data are read",
    sentence=(
        "For gradient flow over a short time the equations hold at the midpoint of the weights up "
        "to O(s^2), s the relative movement, and at the initial weights up to O(s)."
    ),
    formula=r"\frac{w_j^T - w_j^0}{\alpha a_j} = T(u_j^{\alpha-1},\cdot)\,(1 + O(s^2))\ "
    r"\text{at the midpoint},\quad 1 + O(s)\ \text{at}\ w_j^0",
    source="midpoint rule along the flow; ours",
    hypotheses=(
        Hypothesis(
            "flow",
            "the steps are small against the movement",
            lambda flow: flow.steps == 0,
            lambda: _flows(steps=(1, 2, 3)),
        ),
        Hypothesis(
            "short",
            "the movement is small because the time is, not because the outputs are scaled up",
            lambda flow: flow.regime == "short",
            lambda: _flows(regime="lazy"),
        ),
    ),
    instances=_flows,
    conclusion=_midpoint_is_second,
    sabotages=(
        Sabotage("third", "third order at the midpoint", conclusion=_midpoint_is_third),
        Sabotage("early", "read at 0.4 of the way", implementation=_early_point),
    ),
    cost="medium",
    code=("identify.hermite.data.HermiteData.from_fine_tuning",),
    remark=(
        "With a fixed number of steps, or trained to convergence at a large output scale, the "
        "midpoint is of first order too, with a smaller constant; one step is exact at w^0."
    ),
)


# --- the second-order form ---------------------------------------------------------------------


Rule = Literal["descent", "momentum", "mini-batch", "adam"]


@dataclass(frozen=True, eq=False)
class Tuning:
    """A few steps of a rule on logistic losses, `decay` of weight decay in it."""

    problem: GradientProblem
    rule: Rule
    steps: int
    decay: float = 0.0

    def __repr__(self) -> str:
        note = f", decay={self.decay:g}" if self.decay else ""
        return f"Tuning({self.rule}, {self.steps} steps{note}, {self.problem!r})"


def tune(tuning: Tuning, halving: int, direction: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """theta before and after, shape (m, d + 1), for a rate halved so many times, or against it."""
    net, data = tuning.problem.network, tuning.problem.data
    x, labels = data.samples, np.sign(data.coefficients)
    rng = np.random.default_rng([data.seed, 24])
    theta = np.column_stack([net.output_weight, net.hidden_weight])
    start, velocity = theta.copy(), np.zeros(theta.shape)
    squares = np.zeros(theta.shape)
    outputs, rows = slopes(theta, x, net.degree)
    # Losses log(1 + exp(-y f/tau)), tau so large that none of them is over.
    temperature = float(np.abs(outputs).max())
    share = 0.01 * float(np.linalg.norm(theta)) * 0.5**halving / tuning.steps
    reach = float(np.linalg.norm(rows.reshape(len(x), -1), axis=1).sum())
    rate = direction * share / (np.sqrt(theta.size) if tuning.rule == "adam" else reach)
    for step in range(tuning.steps):
        outputs, rows = slopes(theta, x, net.degree)
        pull = labels / (1.0 + np.exp(labels * outputs / temperature))
        if tuning.rule == "mini-batch":
            pull = pull * (rng.random(len(x)) < 0.6)
        gradient = np.tensordot(pull, rows, 1)
        gradient = gradient - tuning.decay * theta * (np.linalg.norm(gradient) / 10.0)
        if tuning.rule == "momentum":
            gradient = velocity = 0.9 * velocity + gradient
        if tuning.rule == "adam":
            velocity = 0.9 * velocity + 0.1 * gradient
            squares = 0.99 * squares + 0.01 * gradient**2
            gradient = (velocity / (1.0 - 0.9 ** (step + 1))) / (
                np.sqrt(squares / (1.0 - 0.99 ** (step + 1))) + 1e-12
            )
        theta = theta + rate * gradient
    return start, theta


def second_order_rest(tuning: Tuning, halving: int) -> float:
    """What of the movements there and back is left after fitting B_i and C_ik, over |theta|."""
    data, degree = tuning.problem.data, tuning.problem.network.degree
    start = tune(tuning, halving)[0]
    _, first = slopes(start, data.samples, degree)
    second = bends(start, data.samples, degree, first)
    columns = np.vstack([first.reshape(len(first), -1), second.reshape(len(first) ** 2, -1)]).T
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    ends = [tune(tuning, halving, direction)[1] for direction in DIRECTIONS]
    moves = np.stack([(end - start).ravel() for end in ends], axis=1)
    found = np.linalg.lstsq(columns, moves, rcond=1e-12)[0]
    return float(np.linalg.norm(moves - columns @ found) / np.linalg.norm(start))


def _third_order(tuning: Tuning, wanted: float = 3.0) -> Check:
    rests = [second_order_rest(tuning, halving) for halving in range(HALVINGS + 2)]
    # Rounding of the weights at every step, and of the fit to their movement.
    order = order_of(rests, 64.0 * (tuning.steps + 2) * UNIT)
    if not wanted - order <= 0.5:
        return Check.compare(wanted - order, 0.5, f"order {order:.2f}, not {wanted:g}")
    start, end = tune(tuning, 0)
    move = (end - start)[:, 1:]
    basis = np.linalg.qr(tuning.problem.data.samples.T)[0]
    outside = float(np.linalg.norm(move - (move @ basis) @ basis.T))
    # Every step rounds the weights once.
    allowed = 8.0 * (tuning.steps + 2) * move.shape[1] * UNIT * float(np.linalg.norm(start))
    return Check.compare(outside, allowed, "part off the span of the samples")


def _fourth_order(tuning: Tuning) -> Check:
    return _third_order(tuning, 4.0)


def _tunings(
    rules: tuple[Rule, ...] = ("descent", "momentum", "mini-batch"), decay: float = 0.0
) -> SearchStrategy[Tuning]:
    from hypothesis import strategies as st

    kinds = ("generic", "orthonormal", "integer", "digits")
    problems = strategies.gradient_problems(3, 4, (3, 4, 5), kinds, (5, 8)).filter(_is_calm)
    return st.builds(Tuning, problems, st.sampled_from(rules), st.integers(2, 6), st.just(decay))


def _flat_bends() -> AbstractContextManager[object]:
    """D^2 f without the second derivative of the activation."""
    import proofs_check.statements.beyond.finetuning_orders as module

    original = module.bends

    def broken(theta: FloatArray, x: FloatArray, degree: int, moves: FloatArray) -> FloatArray:
        still = moves.copy()
        still[:, :, 0] = 0.0
        return original(theta, x, degree, still)

    return patch.object(module, "bends", broken)


SECOND_ORDER = Statement(
    name="second-order-form",
    title="Fine-tuning to second order",
    sentence=(
        "After steps of descent, with momentum or on mini-batches, the movement of the weights is "
        "a combination of the gradients of f at the samples and of D^2 f(x_i) applied to them, up "
        "to third order; every row of the first layer stays in the span of the samples."
    ),
    formula=r"\Delta\theta = \textstyle\sum_i B_i \nabla f_i + \sum_{ik} C_{ik} D^2 f_i \nabla f_k "
    r"+ O(\lVert\Delta\theta\rVert^3)",
    source="Taylor expansion of the steps; ours",
    hypotheses=(
        Hypothesis(
            "linear-rule",
            "a step is a combination of past gradients, the same for every weight",
            lambda tuning: tuning.rule != "adam",
            lambda: _tunings(("adam",)),
        ),
        Hypothesis(
            "no-decay",
            "there is no weight decay",
            lambda tuning: tuning.decay == 0.0,
            lambda: _tunings(decay=1.0),
        ),
    ),
    instances=_tunings,
    conclusion=_third_order,
    sabotages=(
        Sabotage("fourth", "up to fourth order", conclusion=_fourth_order),
        Sabotage("bends", "D^2 f without its mixed part", construction=_flat_bends),
    ),
    cost="medium",
    remark="n + n^2 unknowns, linear given the samples.",
)

STATEMENTS = (MIDPOINT, SECOND_ORDER)
