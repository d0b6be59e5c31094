"""The sentences of a report: reasons, assumptions, symmetries, caveats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData
from identify.records import TrainingSet
from identify.recovery.assumptions import Assumptions
from identify.recovery.data_error import roundings
from identify.recovery.hidden_share import HiddenShare
from identify.text import counted, drowned
from identify.thresholds import HIDDEN_SHARE

if TYPE_CHECKING:
    from identify.recovery.second_method import SecondMethod
    from identify.recovery.stages import Recovered


def plural(count: int) -> str:
    """'1 sample', '2 samples'."""
    return counted(count, "sample")


def not_stationary(balance: float) -> str:
    """Reason of rule 0."""
    return (
        f"not stationary for any data: the balance |w_j|^2 = alpha a_j^2 is violated by "
        f"{balance:.1e}, more than 1e-2"
    )


def inconsistent(data: HermiteData, limit: float) -> str:
    """Reason where the layers of a gradient or a movement contradict each other."""
    what, causes = (
        "gradient",
        "noise (DP-SGD), clipping of single entries or by layer, weight decay "
        "(--weight-decay-in-gradient auto), dropout",
    )
    if data.source == "fine-tuning":
        what, causes = "movement", "noise, weight decay, or a movement too long for first order"
    return (
        f"not covered: the {what} fits no batch at these weights: its two layers contradict each "
        f"other, alpha a_j (grad_a)_j = w_j . (grad_W)_j is violated by "
        f"{data.consistency or 0.0:.1e}, more than {limit:g}, as another activation than the power "
        f"{data.degree}, another network, {causes} would make them"
    )


def sparse(share: float) -> str:
    """What may be wrong with a gradient of many exact zeros; to follow another reason."""
    return (
        f"; {share:.0%} of its entries are exactly 0 where a batch has none: no batch fits if only "
        "the largest were sent (top-k sparsification)"
    )


def too_noisy(level: float, limit: float) -> str:
    """Reason where the noise drowns every rank."""
    return f"the noise level of the data, {level:.1e}, is above {limit:g}: no rank can be decided"


def unsettled(level: float, residual: float, rounds: int) -> str:
    """Reason where the noise level did not become stable."""
    return (
        f"the noise level does not settle: in {rounds} rounds it came to {level:.1e}, and the "
        f"equations still leave {residual:.1e}"
    )


def methods_disagree(second: SecondMethod) -> str:
    """Reason where two ways from the tensor end in different terms that both fit."""
    return (
        "two methods disagree: the terms of the pencil and those of tensorly's CP both fit to the "
        f"noise and differ by {second.distance or 0.0:.1e} of their norm, more than "
        f"{second.allowed or 0.0:.1e}"
    )


def span_unclear(reduced: ReducedData, noise: float) -> str:
    """Reason where dim V is not decided, at a relative noise of the data."""
    span = reduced.span
    if reduced.dimension == 0 or reduced.neurons == 0:
        return "no neuron stands out of the noise"
    return (
        f"the dimension of the samples' span is not clear: singular value {span.rank} is "
        f"{span.smallest:.1e} of the largest and the next {span.largest_uncounted or 0.0:.1e}, "
        f"less than a factor 100 apart{drowned(noise)}"
    )


def unique(stage: Recovered, samples: int | None) -> str:
    """Reason of `globally`, and what speaks for the number of samples."""
    r, count = stage.reduced.dimension, stage.redundancy
    support = "rows of rank 1 over several neurons agree with a single sample"
    if count >= 1:
        agree = "equation agrees" if count == 1 else "equations agree"
        support = f"{count} redundant {agree} with it"
    elif samples == r:
        support = f"the number of samples is given as {r}"
    return (
        f"the moment tensor is determined on {r} dimensions, is a sum of {r} independent terms, "
        f"and {support}"
    )


def hidden(share: HiddenShare, limit: float) -> str:
    """Reason where redundant equations are too weak to speak for the number of samples."""
    median, ninth = share.mixtures
    if share.lone:
        return (
            "the rows have rank 1, but at this noise level that does not speak for a single "
            "sample: half of the mixtures of the recovered sample with other directions could "
            f"carry {_all(median)} of the data unseen, and one in ten {_all(ninth)}; the median "
            f"may be {limit:g} (--hidden-share)"
        )
    return (
        "the redundant equations hold, but at this noise level they are too weak to speak for the "
        "number of samples: half of the mixtures of the recovered samples could carry "
        f"{_all(median)} of the data unseen, and one in ten {_all(ninth)}; the median may be "
        f"{limit:g} (--hidden-share)"
    )


def hidden_quantiles(share: HiddenShare, degree: int) -> str:
    """What a further sample could hide, by its kind, and what is never seen."""
    kind = "with other directions" if share.lone else "of all recovered samples"
    groups = [(f"mixtures {kind}", share.mixtures)]
    if share.triples is not None:
        groups.append(("mixtures of three", share.triples))
    groups.append(("any direction", share.anywhere))
    numbers = ", ".join(
        f"{name} {_all(median)} (one in ten {_all(ninth)})" for name, (median, ninth) in groups
    )
    planes = degree == 3 and not share.lone
    blind = "parallel samples" + (" and mixtures of two samples" if planes else "")
    return f"{numbers}; never seen: {blind}"


def _all(share: float) -> str:
    return "all" if share >= 1.0 else f"{share:.1e}" if share < 0.01 else f"{share:.2g}"


def two_sets(reason: str, sets: Sequence[TrainingSet], data: HermiteData) -> str:
    """Reason of `nonidentifiable`: the shown sets, and why they exist."""
    first, second = sets[0], sets[1]
    worst = max(first.stationarity, second.stationarity)
    what = "stationary on the network" if data.homogeneous else "exact for the data"
    if first.count == second.count:
        counts = f"of {counted(first.count, 'sample')} each"
    else:
        counts = f"of {first.count} and {second.count} samples"
    return f"two different training sets {counts} are both {what} to {worst:.1e}; {reason}"


def symmetries(degree: int, scale: str, non_negative: bool) -> tuple[str, ...]:
    """Transformations under which a training set explains the same data."""
    rows = ["order of the samples"]
    if scale != "bias" and not non_negative:
        image = "(-x_i, y_i)" if degree % 2 == 0 else "(-x_i, -y_i)"
        rows.append(f"sign: (x_i, y_i) and {image}")
    if scale == "free":
        rows.append(f"scale: (x_i, b_i) and (c x_i, c^-{degree} b_i); printed with |x_i| = 1")
    if scale == "margin":
        rows.append("one common scale of all samples; printed with largest norm 1")
    rows.append("parallel samples count as one, with the sum of their coefficients")
    rows.append("inactive samples and samples below the noise leave no trace")
    return tuple(rows)


def assumptions(data: HermiteData, given: Assumptions) -> tuple[str, ...]:
    """What the verdict takes for granted."""
    samples, scale, noise = given.samples, given.scale, given.noise
    rows = {
        "kkt": ["the weights are a KKT point of the max-margin problem, up to scale"],
        "weight-decay": ["the weights are stationary for loss + decay/2 |theta|^2, both layers"],
        "gradient": ["the gradient is that of the loss of one batch at these weights, undisturbed"],
        "fine-tuning": [
            "plain, mini-batch or momentum descent from the initial weights, short enough for "
            "first order"
        ],
    }[data.source]
    if data.source == "weight-decay" and data.decay is None:
        rows.append("coefficients b_i are in units of the decay constant")
    if scale == "unit":
        rows.append("all samples have norm 1 (--scale unit)")
    if scale == "margin":
        rows.append("all samples have the same |f(x_i)| (--scale margin)")
    if scale == "bias":
        rows.append("the hidden bias fixes the scale: x_i enters as (x_i, 1)")
    if samples is not None:
        rows.append(f"exactly {samples} active samples (--samples)")
    if given.non_negative:
        rows.append("all entries of the samples are non-negative (--non-negative)")
    if noise is not None:
        rows.append(f"Gaussian noise of relative size {noise:g} in the data (--noise)")
    if data.loss is not None:
        rows.append(f"the loss is {data.loss} (--loss)")
    if data.gradient_decay is not None:
        rows.append(
            f"the gradient holds {data.gradient_decay:g} times the weights, which is subtracted "
            "(--weight-decay-in-gradient)"
        )
    if data.stated_rounding is not None:
        rows.append(
            f"the file states a rounding of {data.stated_rounding:.2g} in its metadata, more than "
            "the type of its numbers"
        )
    if given.hidden_share != HIDDEN_SHARE:
        rows.append(
            f"a further sample may carry {given.hidden_share:g} of the data unseen (--hidden-share)"
        )
    rows.append(_arithmetic(data, given.arithmetic))
    return tuple(rows)


def _arithmetic(data: HermiteData, arithmetic: str) -> str:
    """How the data are taken to have been rounded."""
    if arithmetic == "exact":
        return "weights taken as exact, and so the arithmetic behind the data: exact (--arithmetic)"
    unit = roundings(data, arithmetic)
    words = "the stored numbers, auto" if arithmetic == "auto" else arithmetic
    return (
        f"data computed in the arithmetic of {words}, to {unit.products:.1e}, with weights rounded "
        f"to {unit.weights:.1e} (--arithmetic)"
    )


def caveats(data: HermiteData, stage: Recovered) -> tuple[str, ...]:
    """What `globally` does not say."""
    r, alpha, share = stage.reduced.dimension, data.degree, stage.hidden
    rows = [f"sets of more than {r} samples are never excluded by the equations"]
    if share is not None:
        breaks = "second sample leaves the line of the rows"
        if not share.lone:
            breaks = "further sample breaks the redundant equations"
        rows.append(
            f"a {breaks} only above a share of the data, which is, as a median: "
            f"{hidden_quantiles(share, alpha)}"
        )
    else:
        rows.append("further samples parallel to the recovered one are not seen")
    if alpha == 3:
        rows.append(
            "degree 3: three or more samples in one plane (mixtures of two, a common shift with a "
            "bias, three samples centred by their own mean) are replaced by two false ones that no "
            "redundant equation exposes; --samples would, and so would equal margins or a known "
            "loss where the length is fixed and no symmetry of the network exchanges the two"
        )
    if r < data.points.shape[1] and data.homogeneous:
        rows.append(
            "a sample may be split into two that differ by +-nu orthogonal to all neurons, and any "
            "part of the samples orthogonal to the neurons is invisible if there are more than "
            f"{r} of them"
        )
    if data.source == "fine-tuning":
        rows.append(
            "fine-tuning data are exact to first order only; the bounds come from the residual "
            "that this leaves"
        )
    if stage.linear.gram is not None:
        rows.append("rank and conditioning are estimates of an iterative method")
    return tuple(rows)
