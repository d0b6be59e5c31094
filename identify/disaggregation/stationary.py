"""Stationary points of two-layer ReLU networks, read as gradients.

At a stationary point [w_j, beta_j] = a_j sum_i b_i s'(z_ij) [x_i, 1]: the weights themselves have
the structure of one gradient with the loss slopes -b_i, up to the decay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from identify.arrays import FloatArray
from identify.budget import UNLIMITED, Budget
from identify.disaggregation.cubic import count_rows
from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.factor import factor
from identify.disaggregation.records import GLOBALLY, UNDECIDED, Check, Disaggregation
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.patterns import count_directions, pattern_rank
from identify.model.two_logits import SUM_LIMIT, common_share
from identify.thresholds import (
    BALANCE_LIMIT,
    LOOSEST,
    PARALLEL_NEURONS,
    SMALLEST_CONFIDENCE,
    STATIONARY_ROUNDINGS,
)

KKT = "kkt"
WEIGHT_DECAY = "weight_decay"
SOURCES = (KKT, WEIGHT_DECAY)
TRAINED = ("both", "hidden")
SCOPE = "covered is a network of two layers with relu or leaky_relu between them"

_NAMES = {
    "gradient of layer 1": "stationarity of the hidden layer",
    "gradient of layer 2": "stationarity of the output layer",
}
CAVEATS = (
    "sets of more samples are not excluded: two samples x + v and x - v of one pattern, with half "
    "the multiplier each, give the same weights",
    "samples of one label and one pattern are one sample: their mean is returned",
    "samples with multiplier 0, off the margin or fitted well, leave no trace",
    "sets with a sample exactly on the kink of a neuron are not excluded",
)


@dataclass(frozen=True, eq=False)
class StationaryFacts:
    """What is known of a stationary point beside its disaggregation.

    ``directions`` counts different directions among the hidden neurons, ``needed`` the patterns
    that the kernel asks for; ``patterns`` is the dimension that the found patterns span.
    ``balance`` is the largest | |w_j|^2 - |a_j|^2 | over the largest |a_j|^2, None if the output
    layer is fixed.
    ``margins`` (n,) are label times output of the found samples, None without labels or scale.
    """

    directions: int
    needed: int
    patterns: int | None
    balance: float | None
    margins: FloatArray | None


NO_FACTS = StationaryFacts(0, 0, None, None, None)


@dataclass(frozen=True)
class Stationary:
    """What is said about the weights: ``source`` "kkt" or "weight_decay", the layers ``trained``.

    ``trained`` is "both", or "hidden" with the output layer fixed; ``loss`` that of weight decay,
    if known, which ties the multipliers to the outputs; ``samples`` r, if known.
    """

    source: str
    trained: str = "both"
    loss: str | None = None
    samples: int | None = None


def check_stationary(network: DeepNetwork, source: str, trained: str) -> None:
    """Refuse what has no stationary point of this kind.

    Raises:
        InvalidInputError: an unknown word, a hidden layer of zeros, or an output bias for "kkt".
        NotYetSupportedError: another depth or activation, or for "kkt" more than two outputs or
            two whose weights are not opposite, both layers trained.
    """
    if source not in SOURCES:
        raise InvalidInputError("source", f"one of {', '.join(SOURCES)}", source)
    if trained not in TRAINED:
        raise InvalidInputError("trained", f"one of {', '.join(TRAINED)}", trained)
    if network.depth != 2:
        raise NotYetSupportedError(
            f"stationary points of {network.depth} linear layers are not yet covered", SCOPE
        )
    kink = network.activations[0].kink
    if kink is None or abs(kink) >= 1.0:
        kind = str(network.activations[0])
        raise NotYetSupportedError(f"stationary points with {kind} are not yet covered", SCOPE)
    if source == KKT and network.outputs > 2:
        raise NotYetSupportedError(
            f"KKT points of {network.outputs} outputs are not yet covered",
            f"{SCOPE} and one or two outputs; --source weight-decay takes several",
        )
    if source == KKT and network.outputs == 2 and trained == "both":
        share = common_share(network.weights[1])
        if share > SUM_LIMIT:
            raise NotYetSupportedError(
                f"the weights of the two outputs are not opposite (their sum is {share:.1e} of "
                "them), as at a KKT point of both layers they are",
                "give --trained hidden if the output layer was fixed",
            )
    bias = network.biases[1]
    if source == KKT and bias is not None and bias.any():
        raise InvalidInputError(
            "output bias", "0 for source kkt", float(np.abs(bias).max()),
            "a network with an output bias is not homogeneous",
        )  # fmt: skip
    if not network.weights[0].any() or not network.weights[1].any():
        raise InvalidInputError("network", "weights that are not all 0", "zeros")


def stationary_gradient(network: DeepNetwork, trained: str) -> DeepGradient:
    """Minus the weights: the gradient of the loss at a stationary point, in units of the decay.

    The output layer's is left out where it is fixed, and its bias always.

    Example:
        >>> stationary_gradient(DeepNetwork([[[2.0]], [[3.0]]], None, "relu"), "both").weights[1]
        array([[-3.]])
    """
    bias = network.biases[0]
    output = -network.weights[1] if trained == "both" else None
    return DeepGradient((-network.weights[0], output), (None if bias is None else -bias, None))


def one_margin(network: DeepNetwork) -> DeepNetwork:
    """Read two outputs as the one (f_1 - f_0) / sqrt(2), which margins are made of.

    (a_1 - a_0) / sqrt(2) is an orthonormal coordinate of the output layer, so that a KKT point
    stays one, with multipliers sqrt(2) times as large; see `one_output_head`.

    Example:
        >>> two = DeepNetwork([[[2.0]], [[-3.0], [3.0]]], None, "relu")
        >>> one_margin(two).weights[1] / 2**0.5
        array([[3.]])
    """
    if network.outputs != 2:
        return network
    first, last = network.weights
    bias = network.biases[0]
    head = (last[1:] - last[:1]) / 2.0**0.5
    return DeepNetwork([first, head], [bias, None], network.activations)


@dataclass(frozen=True)
class Outlook:
    """What weights show before any kernel: the ``rank`` of the hidden layer, and if it is clear.

    ``directions`` counts different directions of neurons, ``needed`` those that the kernel asks for
    at this rank. ``balance`` is the largest | |w_j|^2 - |a_j|^2 | over the largest |a_j|^2, and
    ``balanced`` whether both layers can have been trained.
    """

    rank: int
    clear: bool
    directions: int
    needed: int
    balance: float
    balanced: bool


def look_at(network: DeepNetwork, source: str) -> Outlook:
    """Measure rank, directions and balance of the weights of a two-layer ReLU network.

    Raises: as `check_stationary` with the output layer fixed.

    Cost: one singular value decomposition of the hidden layer.

    Example:
        >>> network = DeepNetwork([np.ones((5, 4)), np.full((1, 5), 2.0)], None, "relu")
        >>> look_at(network, "weight_decay").balanced
        True
    """
    check_stationary(network, source, "hidden")
    opposite = network.outputs != 2 or common_share(network.weights[1]) <= SUM_LIMIT
    if source == KKT:
        network = one_margin(network)
    lifted = _lifted(network)
    found = factor(lifted)
    noise = found.noise * np.sqrt(lifted.size) / float(np.linalg.norm(found.values))
    balance = _balance(network)
    return Outlook(
        found.rank,
        found.clear,
        count_directions(lifted, max(PARALLEL_NEURONS, STATIONARY_ROUNDINGS * noise)),
        min(
            _needed(found.rank, network.outputs),
            count_rows(found.rank, network.outputs, leaky=bool(network.activations[0].kink)),
        ),
        balance,
        balance <= BALANCE_LIMIT and (source != KKT or opposite),
    )


def examine_stationary(
    network: DeepNetwork,
    given: Stationary,
    *,
    prove: bool = True,
    seed: int = 0,
    budget: Budget = UNLIMITED,
) -> tuple[Disaggregation, StationaryFacts]:
    """Recover the samples of a stationary point and say whether they are the only ones.

    Args:
        network: two layers, relu or leaky_relu.
        given: what is said about the weights.
        prove, seed, budget: as for `disaggregate`.

    Raises: as `check_stationary`.

    Cost: that of `disaggregate`.

    Source: the module; the verdict is that of `disaggregate` and the checks here.

    Example:
        >>> x = np.array([[2.0, 0.0, 1.0, 0.0], [-1.0, 2.0, 0.0, 1.0], [-1.0, -2.0, 0.0, 1.0]])
        >>> on = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
        >>> rows = np.repeat(on, 2, axis=0) @ np.column_stack([x, np.ones(3)])
        >>> a = np.array([0.5, 0.4] * 6)
        >>> weights = a[:, None] * rows
        >>> network = DeepNetwork([weights[:, :-1], a[None]], [weights[:, -1], None], "relu")
        >>> examine_stationary(network, Stationary("weight_decay", "hidden"))[0].rank
        3
    """
    trained = given.trained
    check_stationary(network, given.source, trained)
    if given.source == KKT:
        network = one_margin(network)
    gradient = stationary_gradient(network, trained)
    known = given.loss if given.source == WEIGHT_DECAY else None
    found = disaggregate(
        network, gradient, known, samples=given.samples, prove=prove, seed=seed,
        budget=budget,
    )  # fmt: skip
    facts = _facts(network, trained, found)
    checks = tuple(replace(c, name=_NAMES.get(c.name, c.name)) for c in found.checks)
    checks += _further(network, given.source, found, facts)
    found = replace(found, checks=checks, caveats=CAVEATS)
    verdict, reason = _judge(found, facts, trained)
    return replace(found, verdict=verdict, reason=reason), facts


def _facts(network: DeepNetwork, trained: str, found: Disaggregation) -> StationaryFacts:
    lifted = _lifted(network)
    needed = _needed(found.rank, network.outputs)
    if found.kernel is not None and found.kernel.degree == 3:
        needed = found.kernel.rows_needed
    noise = found.ranks[0].relative_noise if found.ranks else 0.0
    directions = count_directions(lifted, max(PARALLEL_NEURONS, STATIONARY_ROUNDINGS * noise))
    balance = None
    if trained == "both":
        balance = _balance(network)
    patterns = None
    if found.masks is not None and network.outputs == 1:
        patterns = pattern_rank(found.masks)
    margins = None
    if found.samples is not None and found.scaled and found.labels is not None:
        outputs = network.value(found.samples)
        if outputs.shape[1] == 1:
            margins = np.asarray(found.labels * outputs[:, 0], dtype=np.float64)
    return StationaryFacts(directions, needed, patterns, balance, margins)


def _needed(rank: int, outputs: int) -> int:
    """Different patterns that the kernel asks for."""
    return rank * (rank - 1) // 2 + rank * outputs


def _balance(network: DeepNetwork) -> float:
    """The largest | |w_j|^2 - |a_j|^2 | over the largest |a_j|^2."""
    squares = np.sum(network.weights[1] ** 2, axis=0)
    return float(np.abs(np.sum(_lifted(network) ** 2, axis=1) - squares).max() / squares.max())


def _lifted(network: DeepNetwork) -> FloatArray:
    bias = network.biases[0]
    return network.weights[0] if bias is None else np.column_stack([network.weights[0], bias])


def _further(
    network: DeepNetwork, source: str, found: Disaggregation, facts: StationaryFacts
) -> tuple[Check, ...]:
    noise = max((rank.relative_noise for rank in found.ranks), default=0.0)
    checks = []
    if facts.balance is not None:
        limit = STATIONARY_ROUNDINGS * noise + 1e-12
        checks.append(
            Check("balance of the layers", facts.balance <= limit, facts.balance, limit,
                  network.widths[0])
        )  # fmt: skip
    if found.samples is None or found.error_bounds is None or found.masks is None:
        return tuple(checks)
    checks.append(_off_the_kinks(network, found.samples, found.error_bounds))
    if source == KKT:
        checks.append(_equal_margins(network, found, facts, noise))
    return tuple(checks)


def _off_the_kinks(network: DeepNetwork, samples: FloatArray, bounds: FloatArray) -> Check:
    """The smallest |z_ij| over its error; neurons of norm 0 are left out."""
    sizes = np.linalg.norm(_lifted(network), axis=1)
    live = sizes > 1e-12 * sizes.max()
    z = network.forward(samples).preactivations[0][:, live]
    lengths = np.sqrt(np.sum(samples**2, axis=1) + 1.0)
    error = lengths[:, None] * sizes[live] * (bounds[:, None] + 1e-14)
    ratio = float((np.abs(z) / error).min())
    return Check("samples off the kinks", ratio >= SMALLEST_CONFIDENCE, ratio,
                 SMALLEST_CONFIDENCE, z.size, "the smallest |z| over its error")  # fmt: skip


def _equal_margins(
    network: DeepNetwork, found: Disaggregation, facts: StationaryFacts, noise: float
) -> Check:
    """All label times output are equal and positive: the active samples lie on the margin."""
    name = "equal margins"
    margins, samples, bounds = facts.margins, found.samples, found.error_bounds
    if margins is None or samples is None or bounds is None or found.masks is None:
        return Check(name, None, None, None, 0, "the scale of the samples is not known")
    if not (margins > 0.0).all():
        return Check(name, False, float(margins.min()), 0.0, len(margins), "a sample is misfitted")
    slopes = network.activations[0].slope(network.forward(samples).preactivations[0])
    reach = np.abs(slopes * network.weights[1][0]) @ np.linalg.norm(_lifted(network), axis=1)
    error = (
        reach
        * np.sqrt(np.sum(samples**2, axis=1) + 1.0)
        * (bounds + STATIONARY_ROUNDINGS * noise + 1e-14)
    )
    limit = float(3.0 * error.max() / margins.min())
    value = float(np.ptp(margins) / margins.min())
    holds = None if value <= limit and limit > LOOSEST else value <= limit
    return Check(name, holds, value, limit, len(margins) - 1)


def _judge(found: Disaggregation, facts: StationaryFacts, trained: str) -> tuple[str, str]:
    if facts.balance is not None and facts.balance > BALANCE_LIMIT:
        return UNDECIDED, (
            f"not stationary for any data with both layers trained: |w_j| = |a_j| is violated by "
            f"{facts.balance:.2g}; if the output layer was fixed, give --trained hidden"
        )
    if found.verdict != GLOBALLY:
        return UNDECIDED, _undecided(found, facts, trained)
    for check in found.checks[-3:]:
        if check.name not in ("balance of the layers", "samples off the kinks", "equal margins"):
            continue
        if check.holds is False or (check.holds is None and check.value is not None):
            return UNDECIDED, (
                f"the samples do not confirm the check '{check.name}': {check.value:.2g}, limit "
                f"{check.limit:.2g}" + (f" ({check.note})" if check.note else "")
            )
    return GLOBALLY, found.reason


def _undecided(found: Disaggregation, facts: StationaryFacts, trained: str) -> str:
    top = found.ranks[0]
    if not top.clear:
        return (
            f"more samples than neurons or dimensions, noise, or weights that are not stationary: "
            f"the singular values of the hidden layer fall by a factor of {top.gap:.3g} at rank "
            f"{top.rank}, 100 and a tail like noise are asked for"
        )
    if found.alternatives:
        return (
            f"two different sets of {found.rank} samples explain these weights: samples share a "
            "pattern, and their multipliers are free; what both sets have in common is given away"
        )
    few = facts.directions < facts.needed
    reason = found.reason
    for old, new in _NAMES.items():
        reason = reason.replace(old, new)
    if few:
        reason = (
            f"too few patterns: {facts.needed} different ones are asked for by "
            f"{found.rank} samples, the neurons have {facts.directions} different directions"
        )
    if few and trained == "both":
        reason += (
            "; with both layers trained each pattern that occurs costs one equation |v_S| = 1, so "
            f"that data in general position have at most {found.rank} independent ones"
        )
    return reason
