"""From Hermite data to a verdict with everything it rests on."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from identify.alternatives.admissible import SetRules
from identify.alternatives.pairs import search_sets
from identify.arrays import zero_share
from identify.budget import Budget, Progress
from identify.errors import InvalidInputError, NotDeterminedError
from identify.hermite.data import HermiteData
from identify.progress import logged
from identify.proofs.prove import LEVELS, Proofs, prove
from identify.records import Recovery, Scope, TrainingSet, Verdict
from identify.recovery.assumptions import Assumptions
from identify.recovery.measure import METHODS, measure
from identify.recovery.stages import Interpolated, Recovered
from identify.report.build import build_report
from identify.report.report import IdentifiabilityReport
from identify.thresholds import HIDDEN_SHARE, SPARSE
from identify.verdict import sentences
from identify.verdict.rule import Grounds
from identify.verdict.rules import judge

_LOG = logging.getLogger(__name__)


def assess_identifiability(
    data: HermiteData,
    samples: int | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    evidence: str = "auto",
    hidden_share: float = HIDDEN_SHARE,
    arithmetic: str = "auto",
    method: str = "pencil",
    *,
    assumptions: Assumptions | None = None,
) -> IdentifiabilityReport:
    """Decide whether the data determine the training samples, and recover them.

    With I-hermite on V, r = dim V, and T_V a sum of r independent terms, every set of at most r
    samples that explains the data is the recovered one, up to the listed symmetries. Nothing is
    said about larger sets; redundant equations are what speaks for r.

    Args:
        data: from one of the constructors of `HermiteData`.
        samples: the number of active samples, if known.
        scale: "auto", "unit", "margin" or "bias"; "unit" and "bias" are assumptions that add ties.
        non_negative: assume that all entries of the samples are non-negative.
        noise: relative size of Gaussian noise in the data, in (0, 1).
        time_limit: seconds; when reached the verdict is `undecided`.
        progress: called with a stage name and a share in [0, 1].
        seed: of every random choice; recorded.
        evidence: "exact" (rank modulo a prime, samples in ball arithmetic), "interval" (both in
            rigorous floating-point and ball arithmetic), "numerical", or "auto": what is proved in
            `time_limit`, or without one in a few seconds a proof. A level that was asked for and
            not reached makes the verdict `undecided`.
        hidden_share: the share of the data, in (0, 1], that a further sample may have unseen: the
            median over mixtures of the recovered samples, see `HiddenShare`.
        arithmetic: the format in which the data were computed, "float64", "float32", "float16" or
            "bfloat16"; "auto" takes that of the stored numbers, "exact" takes weights and
            arithmetic as exact. Error bounds and boxes allow for it.
        method: how the tensor is decomposed: "pencil", "tensorly" (alternating least squares, up to
            20 terms), or "auto": the pencil, with tensorly as a second opinion up to 8 terms. Both
            are refined, and judged by our own residual.
        assumptions: `samples`, `scale`, `non_negative`, `noise`, `hidden_share` and `arithmetic` as
            one record, in place of the single keywords.

    Returns:
        An `IdentifiabilityReport`; a negative verdict is never an exception.

    Raises:
        InvalidInputError: an argument out of range.

    Cost: dense, O(m r N^2), up to 700 unknowns of T; beyond, a few hundred products of 6 m^2 r
        flops. Proofs: see `prove`.
    Source: uniqueness of a decomposition into independent terms (Kruskal 1977); interpolation by
        values and gradients of forms (Alexander & Hirschowitz 1995).

    Example:
        >>> import numpy as np
        >>> from identify import HermiteData, TwoLayerNetwork
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> x = rng.normal(size=(4, 6))
        >>> gradient = net.gradient(x, np.array([1.0, -2.0, 0.5, 1.5]))
        >>> assess_identifiability(HermiteData.from_gradient(net, gradient)).verdict.value
        'globally'
    """
    started = time.monotonic()
    budget = Budget.of(time_limit, logged(progress, _LOG))
    given = Assumptions.chosen(
        assumptions, samples=samples, scale=scale, non_negative=non_negative, noise=noise,
        hidden_share=hidden_share, arithmetic=arithmetic,
    ).resolved(data)  # fmt: skip
    if evidence not in LEVELS:
        raise InvalidInputError("evidence", f"one of {', '.join(LEVELS)}", repr(evidence))
    if method not in METHODS:
        raise InvalidInputError("method", f"one of {', '.join(METHODS)}", repr(method))
    _LOG.debug("source %s, degree %d, %d neurons", data.source, data.degree, data.network.width)
    stage = measure(data, given, seed=seed, budget=budget, method=method)
    grounds = Grounds(data, given, stage, asked=evidence)
    outcome = judge(grounds)
    late = isinstance(stage, Interpolated) and stage.timed_out
    sets: tuple[TrainingSet, ...] = ()
    searched = outcome.verdict is Verdict.UNDECIDED and outcome.searchable
    provable = outcome.verdict is Verdict.GLOBALLY and evidence != "numerical" and not late
    if searched and isinstance(stage, Interpolated):
        sets = _search(data, given, stage, seed, budget) or ()
    elif provable and isinstance(stage, Recovered):
        proofs = _prove(data, given, stage, evidence, seed, budget)
        grounds = replace(grounds, proofs=proofs)
        outcome = judge(grounds)
    if late or (budget.expired and outcome.verdict is Verdict.UNDECIDED and not sets):
        ended = f"time limit of {time_limit:g} s reached"
        grounds = replace(grounds, ended=ended if late else f"{ended}; {outcome.reason}")
        outcome, sets = judge(grounds), ()
    elif sets:
        outcome = replace(
            outcome,
            verdict=Verdict.NONIDENTIFIABLE,
            reason=sentences.two_sets(outcome.reason, sets, data),
            scope=Scope("shown", (sets[0].count, sets[1].count)),
        )
    share = zero_share(data.rows, rows=True) if data.source == "gradient" else 0.0
    if outcome.verdict is Verdict.UNDECIDED and share > SPARSE:
        outcome = replace(outcome, reason=outcome.reason + sentences.sparse(share))
    seconds = time.monotonic() - started
    _LOG.info("%s in %.1f s: %s", outcome.verdict.value, seconds, outcome.reason)
    return build_report(grounds, outcome, seed=seed, seconds=seconds, sets=sets, searched=searched)


def recover_samples(
    data: HermiteData,
    samples: int | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    evidence: str = "numerical",
    hidden_share: float = HIDDEN_SHARE,
    arithmetic: str = "auto",
    method: str = "pencil",
    *,
    assumptions: Assumptions | None = None,
) -> Recovery:
    """The samples that `assess_identifiability` recovers, if its verdict is `globally`.

    The arguments are the same; proofs are tried only if `evidence` asks for them.

    Raises:
        NotDeterminedError: any other verdict; `.report` holds it, with a recovery if there is one.
    """
    report = assess_identifiability(
        data,
        samples,
        scale,
        non_negative,
        noise,
        time_limit,
        progress,
        seed,
        evidence,
        hidden_share,
        arithmetic,
        method,
        assumptions=assumptions,
    )
    if report.verdict is not Verdict.GLOBALLY or report.recovery is None:
        raise NotDeterminedError(f"{report.verdict.value}: {report.reason}", report=report)
    return report.recovery


def _search(
    data: HermiteData,
    given: Assumptions,
    stage: Interpolated,
    seed: int,
    budget: Budget,
) -> tuple[TrainingSet, TrainingSet] | None:
    return search_sets(
        SetRules(data, stage.noise_level, given),
        stage.reduced,
        stage.linear,
        decomposes=isinstance(stage, Recovered),
        seed=seed,
        budget=budget,
    )


def _prove(
    data: HermiteData,
    given: Assumptions,
    stage: Recovered,
    evidence: str,
    seed: int,
    budget: Budget,
) -> Proofs:
    proofs = prove(data, given, stage, level=evidence, seed=seed, budget=budget)
    r = stage.reduced.dimension
    if stage.tied and given.samples != r and not (r == 1 and not data.homogeneous):
        missing = "a redundant equation of the rank, or --samples: only a tie speaks for the number"
        return replace(proofs, tied=True, strengthen=(*proofs.strengthen, missing))
    return proofs
