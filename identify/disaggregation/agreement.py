"""Whether the gradients of a network's layers belong together, and what single rows give away.

Both ask for no solution: they hold, or show samples, where the theorem has no say.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.disaggregation.checks import relative_noise
from identify.disaggregation.factor import EPSILON, Factor
from identify.disaggregation.records import Check
from identify.model.deep import DeepGradient, DeepNetwork
from identify.thresholds import AGREEMENT_SIGMAS, BALANCE_LIMIT, CLEAR, DROWNED, FOREIGN_NOISE, SEEN

BoolArray = npt.NDArray[np.bool_]

AGREEMENT = "layers agree"
_SPARE = 2
_LARGEST_RANK = 30
_ROUNDED = 1e-12
_EQUAL = 1e-3
_TOGETHER = 3
_NEAR = 0.1
_READABLE = 20.0
_TAIL = 1.5
_STEP = 3.0


def check_agreement(
    network: DeepNetwork,
    gradient: DeepGradient,
    factors: dict[int, Factor],
    *,
    exempt: frozenset[int] = frozenset(),
) -> Check:
    """Euler's identity between neighbouring layers, and their noise beside each other.

    A homogeneous activation (ReLU, leaky ReLU) between layers l and l + 1 has, for every neuron j,

        w_j . grad w_j + beta_j grad beta_j = sum_c (W_(l+1))_cj (grad W_(l+1))_cj

    The value is the largest |left - right| / max(|left|, |right|) over the pairs. The limit is 1e-2
    or, if larger, ten times what the noise of the cleanest layer makes of it, so that noise in one
    layer does not excuse itself; at most 1/2. A last hidden layer without a clear rank, and with
    100 times the noise of a layer that has one, fails too, whatever the activations.

    Args:
        exempt: layers of which only a part is known.

    Source: Euler's theorem on homogeneous functions; Du, Hu & Lee (2018) for the two layers.
    """
    pairs = [_pair(network, gradient, index) for index in range(network.depth - 1)
             if not {index, index + 1} & exempt]  # fmt: skip
    found = [pair for pair in pairs if pair is not None]
    foreign = _foreign_noise(network, factors)
    if not found:
        holds = False if foreign else None
        return Check(AGREEMENT, holds, None, None, 0, foreign or "no two layers can be compared")
    tails = [relative_noise(f) for f in factors.values() if f.rank < min(f.shape)]
    clean = min(tails, default=0.0)
    worst = limit = 0.0
    note, equations = "", 0
    for layer, value, share in found:
        allowed = min(DROWNED, max(BALANCE_LIMIT, AGREEMENT_SIGMAS * clean * share))
        equations += network.widths[layer]
        if value / allowed >= worst / max(limit, 1e-300):
            worst, limit = value, allowed
            note = f"between layers {layer + 1} and {layer + 2}"
    holds = worst <= limit and not foreign
    return Check(AGREEMENT, holds, worst, limit, equations, foreign or note)


def _pair(
    network: DeepNetwork, gradient: DeepGradient, index: int
) -> tuple[int, float, float] | None:
    """Layer, relative violation, and what relative noise 1 would add to it at random."""
    lower, upper = gradient.weights[index], gradient.weights[index + 1]
    own, given = network.biases[index], gradient.biases[index]
    if lower is None or upper is None or network.activations[index].kink is None:
        return None
    if own is not None and own.any() and given is None:
        return None
    weight, above = network.weights[index], network.weights[index + 1]
    left = np.sum(weight * lower, axis=1)
    if own is not None and given is not None:
        left = left + own * given
    right = np.sum(above * upper, axis=0)
    size = max(float(np.linalg.norm(left)), float(np.linalg.norm(right)))
    if size == 0.0:
        return None
    random = np.linalg.norm(weight) * np.linalg.norm(lower) / np.sqrt(lower.size)
    random += np.linalg.norm(above) * np.linalg.norm(upper) / np.sqrt(upper.size)
    return index, float(np.linalg.norm(left - right)) / size, float(random) / size


def _foreign_noise(network: DeepNetwork, factors: dict[int, Factor]) -> str:
    top = network.depth - 2
    own = factors.get(top)
    clean = [(relative_noise(f), index) for index, f in factors.items() if f.clear and index != top]
    if own is None or own.clear or not clean:
        return ""
    least, index = min(clean)
    if relative_noise(own) <= FOREIGN_NOISE * max(least, EPSILON):
        return ""
    times = relative_noise(own) / max(least, EPSILON)
    return f"layer {top + 1} has {times:.1g} times the noise of layer {index + 1}"


def single_rows(
    network: DeepNetwork, gradient: DeepGradient, factors: dict[int, Factor]
) -> FloatArray | None:
    """Samples (k, d) that rows of the first layer's gradient show, each confirmed by a rank.

    A neuron that one sample alone activates has the gradient row delta_j [x; 1]. With x read off a
    row, the rows of the neurons that are off at x hold the other samples only: of the rank r of
    the layer they have r - 1 at most, and leave a direction v that no other sample has. So G v is
    the sample's delta up to a factor, and it has to be 0 exactly where x leaves a neuron off.
    Counted are rows with at least two equations more than r - 1. A row that has a part along the
    direction v of another sample is an average, and left out. None where the layer does not allow
    the question: another activation, no bias, or no clear rank.

    Cost: m r^2 for each row, and a singular value decomposition for the few that pass. Above 30
    samples no neuron is likely to have one of them alone, and nothing is looked for.

    Example:
        >>> from identify.disaggregation.factor import factor
        >>> rng = np.random.default_rng(0)
        >>> network = DeepNetwork(
        ...     [rng.normal(size=(60, 9)), rng.normal(size=(1, 60))], [rng.normal(size=60), [0.0]],
        ...     "relu",
        ... )
        >>> batch = rng.normal(size=(2, 9))
        >>> gradient = network.gradient(batch, [[0.3], [-0.5]])
        >>> found = single_rows(network, gradient, {0: factor(gradient.layer(0))})
        >>> bool(np.abs(found[:, None] - batch).max(axis=2).min(axis=0).max() < 1e-9)
        True
    """
    known, bias = factors.get(0), network.biases[0]
    if network.depth < 2 or network.activations[0].kink != 0.0 or bias is None:
        return None
    lower, given = gradient.weights[0], gradient.biases[0]
    if known is None or not known.clear or known.rank > _LARGEST_RANK:
        return None
    if lower is None or given is None:
        return None
    r = known.rank
    coordinates = np.column_stack([lower, given]) @ known.rows
    size = np.linalg.norm(coordinates, axis=1)
    noise = known.noise * np.sqrt(r)
    scale = coordinates @ known.rows[-1]
    lengths = np.sqrt(np.sum(network.weights[0] ** 2, axis=1) + bias**2)
    readable = (size > CLEAR * noise) & (np.abs(scale) > CLEAR * known.noise)
    kept: list[FloatArray] = []
    points: list[FloatArray] = []
    own: list[FloatArray] = []
    for row in np.flatnonzero(readable)[np.argsort(-size[readable], kind="stable")]:
        lifted = coordinates[row] / scale[row]
        sample = known.rows[:-1] @ lifted
        if any(np.linalg.norm(sample - one) <= _EQUAL * np.linalg.norm(one) for one in kept):
            continue
        z = network.weights[0] @ sample + bias
        error = lengths * np.linalg.norm(lifted) * CLEAR * noise / size[row]
        direction = _own_direction(coordinates[(z < 0.0) & (size > 0.0)], lifted, noise)
        if direction is None:
            continue
        delta = coordinates @ direction
        near = (np.abs(z) <= error) | (np.abs(np.abs(delta) - CLEAR * noise) <= CLEAR * noise / 2)
        if (near | ((np.abs(delta) > CLEAR * noise) == (z > 0.0))).all():
            kept.append(sample)
            points.append(lifted / np.linalg.norm(lifted))
            own.append(direction)
    if not kept:
        return None
    return np.array(kept)[_pure(np.array(points), np.array(own))]


def _pure(points: FloatArray, own: FloatArray) -> BoolArray:
    """Which rows have no part along the direction of another sample."""
    other = np.abs(own @ own.T) < 1.0 - _EQUAL
    impure = np.any(other & (np.abs(points @ own.T) > _EQUAL), axis=1)
    return np.asarray(~impure, dtype=np.bool_)


def _own_direction(others: FloatArray, lifted: FloatArray, noise: float) -> FloatArray | None:
    """The direction (r,) that the rows of neurons that are off leave to the sample alone."""
    rank = others.shape[1]
    if len(others) < rank - 1 + _SPARE:
        return None
    squares = np.linalg.eigvalsh(others.T @ others)
    if squares[0] > max(_ROUNDED * squares[-1], (CLEAR * noise) ** 2):
        return None
    _, values, turn = np.linalg.svd(others, full_matrices=False)
    least = float(values[-1])
    if least > CLEAR * noise or (rank > 1 and least > _EQUAL * values[-2]):
        return None
    if abs(float(turn[-1] @ lifted)) <= _EQUAL * float(np.linalg.norm(lifted)):
        return None
    return np.asarray(turn[-1], dtype=np.float64)


def noisy_rows(
    network: DeepNetwork, gradient: DeepGradient, factors: dict[int, Factor]
) -> FloatArray | None:
    """Samples (k, d) that three rows or more of the first layer's gradient show, to its noise.

    For noise that `single_rows` finds too large. Rows of neurons that one sample alone activates
    agree once they are divided by their last entry, to 3 sigma sqrt(r) (1 / |g_j| + 1 / |g_k|) for
    noise sigma in each entry, and to a tenth. Their mean x has to turn these neurons on, and the
    rows of those that it turns off have to lack one of the r directions: their r-th singular value
    is at most 1.5 sigma (sqrt(rows) + sqrt(r)), that of all rows at least 3 sigma (sqrt(m) +
    sqrt(r)), and the group's rows have a part of 10 sigma along that direction. An average of
    samples turns off too few neurons for that. None where there are none, or the layer does not
    allow the question: another activation, no bias, or a tail unlike noise.

    Cost: m^2 r, and a singular value decomposition for each group.

    Example:
        >>> from identify.disaggregation.factor import factor
        >>> rng = np.random.default_rng(0)
        >>> network = DeepNetwork(
        ...     [rng.normal(size=(60, 9)), rng.normal(size=(1, 60))], [rng.normal(size=60), [0.0]],
        ...     "relu",
        ... )
        >>> batch = rng.normal(size=(2, 9))
        >>> exact = network.gradient(batch, [[0.3], [-0.5]]).layer(0)
        >>> noisy = exact + 1e-3 * rng.normal(size=exact.shape)
        >>> given = DeepGradient([noisy[:, :-1], None], [noisy[:, -1], None])
        >>> found = noisy_rows(network, given, {0: factor(noisy)})
        >>> bool(np.abs(found[:, None] - batch).max(axis=2).min(axis=0).max() < 0.05)
        True
    """
    known, bias, whole = factors.get(0), network.biases[0], gradient.layer(0)
    if network.depth < 2 or network.activations[0].kink != 0.0 or bias is None:
        return None
    if known is None or not known.flat or known.rank > _LARGEST_RANK or whole is None:
        return None
    if gradient.biases[0] is None or known.rank >= min(known.shape):
        return None
    r, noise = known.rank, known.noise
    coordinates = whole @ known.rows
    if known.values[-1] < _STEP * noise * (np.sqrt(len(whole)) + np.sqrt(r)):
        return None
    size = np.linalg.norm(coordinates, axis=1)
    readable = (size > _READABLE * noise * np.sqrt(r)) & (np.abs(whole[:, -1]) > SEEN * noise)
    turned = coordinates * np.sign(whole[:, -1:])
    left = np.flatnonzero(readable)[np.argsort(-size[readable], kind="stable")]
    found: list[FloatArray] = []
    while len(left) >= _TOGETHER:
        first = left[0]
        unit = turned[left] / size[left, None]
        allowed = SEEN * noise * np.sqrt(r) * (1.0 / size[left] + 1.0 / size[first])
        near = np.linalg.norm(unit - unit[0], axis=1) <= np.minimum(allowed, _NEAR)
        group, left = left[near], left[~near]
        lifted = known.rows @ turned[group].sum(axis=0)
        if len(group) < _TOGETHER or lifted[-1] <= 0.0:
            continue
        sample = lifted[:-1] / lifted[-1]
        z = network.weights[0] @ sample + bias
        others = coordinates[z < 0.0]
        if (z[group] <= 0.0).any() or len(others) < r - 1 + _SPARE:
            continue
        _, values, turn = np.linalg.svd(others, full_matrices=False)
        # What the others leave free is the sample's own, and these neurons have it.
        own = np.abs(coordinates[group] @ turn[-1])
        alone = values[-1] <= _TAIL * noise * (np.sqrt(len(others)) + np.sqrt(r))
        if alone and (own > AGREEMENT_SIGMAS * noise).all():
            found.append(sample)
    return np.array(found) if found else None
