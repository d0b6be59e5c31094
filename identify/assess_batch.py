"""From a network and one gradient to the batch, with a verdict and everything it rests on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from identify.arrays import zero_share
from identify.budget import Budget, Progress
from identify.disaggregation.decay import without_decay
from identify.disaggregation.disaggregate import disaggregate
from identify.disaggregation.records import UNDECIDED, Disaggregation
from identify.disaggregation.search.batch import search_batch
from identify.disaggregation.verdict import mark_late
from identify.errors import InvalidInputError
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.deep_files import take_deep_gradient
from identify.model.losses import read_loss
from identify.progress import logged
from identify.report.gradient import GradientReport
from identify.report.plain import versions
from identify.thresholds import EMPTY, SPARSE
from identify.verdict import sentences

_ZERO_SUM = "cross_entropy"
_GUESSED = 30
_LOG = logging.getLogger(__name__)


def assess_gradient(
    network: DeepNetwork,
    gradient: object,
    loss: str | None = None,
    *,
    reduction: str | None = None,
    decay: float | str | None = None,
    head: bool = False,
    samples: int | None = None,
    time_limit: float | None = None,
    prove: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> GradientReport:
    """Recover the batch behind one gradient and say whether it is the only one.

    With relu or leaky_relu before the outputs linear algebra decides ("globally"); with any other
    activation there the samples are found one by one by search ("locally").

    Args:
        network: any depth.
        gradient: a `DeepGradient`, a torch module after backward(), arrays by name, or a list.
        loss: "cross-entropy", "logistic", "squared", or None if unknown; it names the labels.
        reduction: "mean" or "sum" over the batch, if known.
        decay: of a weight decay inside the gradient, or "auto"; it is subtracted.
        head: whether other layers come before the network, whose inputs are then features.
        samples: the batch's size, if known; else the gap of the singular values decides.
        time_limit: seconds.
        prove: whether to prove the uniqueness of the printed answer by a rank (ReLU).
        seed: of the random starts.
        progress: called with a stage name and the share of it that is done.

    Raises:
        InvalidInputError: values out of range, a gradient of zeros.
        FileError: arrays that do not fit the network.
        NotYetSupportedError: no hidden layer.

    Cost: ReLU m D^2 + D^3 / 3 operations and D^2 numbers, D = r (r + 1) / 2 + r q; else r searches
    of some ten steps of 2 m r^2 operations.

    Source: the theorem on the page "One gradient gives the batch", and its section on smooth
        activations.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> network = DeepNetwork(
        ...     [rng.normal(size=(60, 20)), rng.normal(size=(1, 60))], [rng.normal(size=60), [0.0]],
        ...     "relu",
        ... )
        >>> batch = rng.normal(size=(3, 20))
        >>> report = assess_gradient(network, network.gradient(batch, [[0.3], [-0.5], [0.2]]))
        >>> report.verdict, report.scope_sentence
        ('globally', 'among all training sets of at most 3 samples')
    """
    if samples is not None and samples < 1:
        raise InvalidInputError("samples", "at least 1", samples)
    if seed < 0:
        raise InvalidInputError("seed", "at least 0", seed)
    budget = Budget.of(time_limit, logged(progress, _LOG))
    given = take_deep_gradient(gradient, network, head=head)
    taken, found_decay = without_decay(network, given, decay, seed=seed)
    kind = None if loss is None else read_loss(loss)
    _LOG.debug("one gradient of %s, loss %s", network, kind)

    def solve(count: int | None, named: str | None = kind) -> Disaggregation:
        if not _by_kernel(network):
            return search_batch(
                network, taken, named, reduction=reduction, samples=count, seed=seed,
                budget=budget,
            )  # fmt: skip
        return disaggregate(
            network, taken, named, reduction=reduction, samples=count, prove=prove, seed=seed,
            budget=budget,
        )  # fmt: skip

    # A number that is given must not hide what the gradient itself says.
    found = solve(None)
    clear = any(rank.clear and rank.rank == found.rank for rank in found.ranks)
    if samples is not None and samples != found.rank:
        if clear:
            told = f"{samples} samples are assumed (--samples), and the rank of the gradient"
            found = replace(
                found,
                verdict=UNDECIDED,
                reason=f"{told}, which is clear, is {found.rank}",
                alternatives=(),
            )
        else:
            found = solve(samples)
    found = mark_late(found, budget)
    if kind is None and network.outputs > 1 and _loss_may_help(found):
        found = _try_loss(found, mark_late(solve(None if clear else samples, _ZERO_SUM), budget))
    sent = [w for w in taken.weights if w is not None]
    share = max(map(zero_share, sent), default=0.0)
    empty = max((float(np.mean(w == 0.0)) for w in sent), default=0.0)
    many = empty > EMPTY or (share > SPARSE and not clear)
    if found.verdict == UNDECIDED and not found.completed and many:
        share = max(share, empty)
        found = replace(found, reason=found.reason + sentences.sparse(share))
    known = {"loss": kind, "reduction": reduction, "decay": found_decay, "head": head}
    _LOG.info("%s in %.1f s: %s", found.verdict, found.seconds, found.reason)
    return build_gradient_report(network, given, found, known, samples=samples, seed=seed)


def _loss_may_help(found: Disaggregation) -> bool:
    """Whether nothing was separated for want of equations, which slopes that sum to 0 would add."""
    if found.verdict != UNDECIDED or found.late or found.samples is not None:
        return False
    if found.method == "search":
        return (found.power or 0) < 1
    return any(rank.clear for rank in found.ranks) or found.rank <= _GUESSED


def _try_loss(found: Disaggregation, trial: Disaggregation) -> Disaggregation:
    """The result without a loss, with what cross-entropy would give; an attacker may know it."""
    if trial.samples is None:
        return replace(found, late=trial.late)
    count = len(trial.samples)
    plural = "sample is" if count == 1 else "samples are"
    said = f"; with --loss cross-entropy {count} {plural} separated ({trial.verdict})"
    return replace(found, by_loss=True, reason=found.reason + said)


def _by_kernel(network: DeepNetwork) -> bool:
    """Whether the last hidden activation is on or off, so that masks decide."""
    kink = network.activations[-1].kink if network.activations else 0.0
    return kink is not None and abs(kink) < 1.0


def build_gradient_report(
    network: DeepNetwork,
    gradient: DeepGradient,
    found: Disaggregation,
    known: Mapping[str, Any],
    *,
    samples: int | None = None,
    seed: int = 0,
    interrupted: bool = False,
) -> GradientReport:
    """Put what was found beside what was assumed; the cost is that of two hashes.

    ``known`` may have ``loss``, ``reduction``, ``decay`` and ``head``.
    """
    loss, reduction = known.get("loss"), known.get("reduction")
    problem: dict[str, Any] = {
        "sizes": [network.dimension, *network.widths, network.outputs],
        "activations": [str(kind) for kind in network.activations],
        "biases": [bias is not None for bias in network.biases],
        "gradients": [weight is not None for weight in gradient.weights],
        "loss": loss,
        "reduction": reduction,
        "samples": samples,
        "weight_decay": known.get("decay"),
        "head": bool(known.get("head")),
    }
    inputs = (
        {"role": "network", "sha256": network.sha256()},
        {"role": "gradient", "sha256": gradient.sha256()},
    )
    said = _assumptions(network, problem)
    if found.alternatives:
        said = (*said, "the slopes of the loss of each sample can be any numbers")
    return GradientReport(found, problem, said, inputs, seed, versions(), interrupted)


def interrupted_gradient_report(
    network: DeepNetwork,
    gradient: DeepGradient,
    *,
    stage: str,
    seconds: float,
    loss: str | None,
    samples: int | None,
    seed: int,
) -> GradientReport:
    """What is known without any work: "undecided" with its reason and the inputs."""
    during = f" while {stage}" if stage else ""
    reason = f"interrupted after {seconds:.1f} s{during}: nothing is decided"
    found = Disaggregation(UNDECIDED, reason, 0, (), "none", seconds=seconds)
    return build_gradient_report(
        network, gradient, found, {"loss": loss}, samples=samples, seed=seed, interrupted=True
    )


def _assumptions(network: DeepNetwork, problem: Mapping[str, Any]) -> tuple[str, ...]:
    loss, reduction, samples = (problem[name] for name in ("loss", "reduction", "samples"))
    decay, head = problem["weight_decay"], problem["head"]
    kinds = ", ".join(dict.fromkeys(str(kind) for kind in network.activations))
    inside = "weight decay, dropout or batch statistics in it"
    if decay is not None:
        inside = f"dropout or batch statistics in it, plus {decay:.6g} times the weights and biases"
    said = [
        f"the network is its {network.depth} linear layers one after the other with {kinds} "
        "between them, and nothing else",
        "the gradient is the sum or the mean over one batch at exactly these weights, without "
        + inside,
        "errors of the gradient are as large as the singular values behind its rank show",
    ]
    if head:
        said.append(
            "the samples are the features that enter the first of these layers; what comes before "
            "it treats each sample by itself"
        )
    if loss is not None:
        zero = ": the slopes of each sample sum to 0" if loss == "cross_entropy" else ""
        said.append(f"the loss is {loss.replace('_', '-')}{zero}")
    if reduction is not None:
        said.append(f"the loss is the {reduction} over the batch")
    if samples is not None:
        said.append(f"the batch has {samples} sample{'' if samples == 1 else 's'}")
    return tuple(said)
