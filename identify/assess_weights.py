"""From the weights of a two-layer ReLU network to the samples that trained it, with a verdict."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from identify.budget import Budget, Progress
from identify.disaggregation.records import UNDECIDED, Disaggregation
from identify.disaggregation.stationary import Stationary, StationaryFacts, examine_stationary
from identify.disaggregation.verdict import mark_late
from identify.errors import InvalidInputError
from identify.model.deep import DeepNetwork
from identify.model.losses import read_loss
from identify.progress import logged
from identify.report.plain import versions
from identify.report.stationary import StationaryReport
from identify.text import counted

_LOG = logging.getLogger(__name__)
_HIDDEN_BIAS = "the hidden bias counts in the norm, like the weights"


def assess_stationary(
    network: DeepNetwork,
    source: str = "kkt",
    *,
    trained: str = "both",
    loss: str | None = None,
    samples: int | None = None,
    time_limit: float | None = None,
    prove: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> StationaryReport:
    """Recover the samples of a stationary ReLU network and say if they are the only ones.

    At a stationary point [w_j, beta_j] = a_j sum_i b_i s'(z_ij) [x_i, 1], so that the weights are
    one gradient of themselves, up to a factor.

    Args:
        network: two layers with relu or leaky_relu between them.
        source: "kkt", a KKT point of the max-margin problem up to scale, or "weight-decay".
        trained: "both" layers, or the "hidden" one with the output layer as it was.
        loss: of weight decay, if known: "logistic" or "cross-entropy" ties the multipliers to the
            outputs.
        samples: the number of active samples, if known; else the gap of the singular values
            decides.
        time_limit: seconds.
        prove: whether to prove the uniqueness of the printed answer by a rank.
        seed: of the random starts.
        progress: called with a stage name and the share of it that is done.

    Raises:
        InvalidInputError: values out of range, a network of zeros, an output bias for "kkt".
        NotYetSupportedError: another depth or activation; for "kkt" more than two outputs, or two
            whose weights are not opposite.

    Cost: that of `assess_gradient`.

    Source: the KKT system of Lyu & Li (2020) with the theorem on the page "One gradient gives the
        batch".

    Example:
        >>> import numpy as np
        >>> from identify.planting.relu import plant_relu_network
        >>> samples = np.random.default_rng(0).normal(size=(4, 8))
        >>> samples -= samples.mean(axis=0)
        >>> planted = plant_relu_network(samples)
        >>> report = assess_stationary(planted.network, trained="hidden")
        >>> report.verdict, report.scope_sentence
        ('globally', 'among all training sets of at most 4 samples')
    """
    if samples is not None and samples < 1:
        raise InvalidInputError("samples", "at least 1", samples)
    if seed < 0:
        raise InvalidInputError("seed", "at least 0", seed)
    budget = Budget.of(time_limit, logged(progress, _LOG))
    word = None if loss is None else read_loss(loss)
    given = Stationary(source.replace("-", "_"), trained, word, samples)

    def solve(count: int | None) -> tuple[Disaggregation, StationaryFacts]:
        asked = replace(given, samples=count)
        return examine_stationary(network, asked, prove=prove, seed=seed, budget=budget)

    # A number that is given must not hide what the weights themselves say.
    found, facts = solve(None)
    if samples is not None and samples != found.rank:
        if any(rank.clear and rank.rank == found.rank for rank in found.ranks):
            told = f"{samples} samples are assumed, and the rank of the hidden layer"
            reason = f"{told}, which is clear, is {found.rank}"
            found = replace(found, verdict=UNDECIDED, reason=reason)
        else:
            found, facts = solve(samples)
    found = mark_late(found, budget)
    return build_stationary_report(network, found, facts, given, seed=seed)


def build_stationary_report(
    network: DeepNetwork,
    found: Disaggregation,
    facts: StationaryFacts,
    given: Stationary,
    *,
    seed: int,
    interrupted: bool = False,
) -> StationaryReport:
    """Put what was found beside what was assumed; the cost is that of a hash."""
    problem: dict[str, Any] = {
        "sizes": [network.dimension, *network.widths, network.outputs],
        "activations": [str(kind) for kind in network.activations],
        "biases": [bias is not None for bias in network.biases],
        **vars(given),
    }
    inputs = ({"role": "network", "sha256": network.sha256()},)
    said = _assumptions(network, given)
    return StationaryReport(
        found, problem, said, inputs, seed, versions(), interrupted, facts=facts
    )


def interrupted_stationary_report(
    network: DeepNetwork,
    *,
    stage: str,
    seconds: float,
    source: str,
    trained: str,
    loss: str | None,
    samples: int | None,
    seed: int,
) -> StationaryReport:
    """What is known without any work: "undecided" with its reason and the input."""
    during = f" while {stage}" if stage else ""
    reason = f"interrupted after {seconds:.1f} s{during}: nothing is decided"
    found = Disaggregation(UNDECIDED, reason, 0, (), "none", seconds=seconds)
    facts = StationaryFacts(0, 0, None, None, None)
    return build_stationary_report(
        network, found, facts, Stationary(source, trained, loss, samples), seed=seed,
        interrupted=True,
    )  # fmt: skip


def _assumptions(network: DeepNetwork, given: Stationary) -> tuple[str, ...]:
    source, samples = given.source, given.samples
    kinds = ", ".join(dict.fromkeys(str(kind) for kind in network.activations))
    layers = "both layers" if given.trained == "both" else "the hidden layer alone"
    said = [f"the network is its two linear layers with {kinds} between them, and nothing else"]
    if source == "kkt":
        said.append(
            f"the weights are, up to a factor, a KKT point of the smallest norm of {layers} with "
            "margins of at least 1"
        )
        if network.outputs == 2:
            said.append(
                "the margins are of the difference of the two outputs, label 1 for the second; "
                "outputs and multipliers are those of the difference over the root of 2"
            )
    else:
        said.append(
            f"the gradient of the loss plus a multiple of the weights is 0 in {layers}, with one "
            "multiple for all"
        )
    if network.biases[0] is not None:
        said.append(_HIDDEN_BIAS)
    said.append("no sample lies exactly on the kink of a neuron")
    said.append("errors of the weights are as large as the singular values behind the rank show")
    if given.loss is not None and source != "kkt":
        said.append(f"the loss is {given.loss.replace('_', '-')}")
    if samples is not None:
        there = "is" if samples == 1 else "are"
        said.append(f"there {there} {counted(samples, 'active sample')}")
    return tuple(said)
