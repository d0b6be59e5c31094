"""The rules of the verdict on a batch that was found by search."""

from __future__ import annotations

from dataclasses import dataclass

from identify.disaggregation.records import (
    LOCALLY,
    UNDECIDED,
    Check,
    LayerRank,
    SearchFacts,
)
from identify.disaggregation.verdict import unconfirmed
from identify.text import counted
from identify.thresholds import LARGEST_BOUND


@dataclass(frozen=True)
class Findings:
    """Everything that the verdict looks at.

    ``hidden`` is the number of hidden layers, ``spare`` what the joint equations of all samples
    have to spare, if these gave them.
    """

    rank: int
    ranks: tuple[LayerRank, ...]
    hidden: int
    power: int
    search: SearchFacts
    checks: tuple[Check, ...]
    largest_bound: float | None
    spare: int | None = None


def judge(findings: Findings) -> tuple[str, str]:
    """Return the verdict and its reason.

    "locally" only if the ranks are clear, all r samples are found, each meets more equations than
    it has unknowns, its error is bounded, every check holds, and neither new starts nor permuted
    spaces give another zero. Never "globally": that the solution set is complete is not proved.
    """
    for rule in (_ranks, _found, _power, _bounds, _others, _confirmations):
        reason = rule(findings)
        if reason:
            return UNDECIDED, reason
    count = findings.rank
    return LOCALLY, (
        f"{counted(count, 'sample')} found one by one give the gradient, each "
        f"isolated with {findings.power} equations to spare; others far away are not excluded"
    )


def _ranks(findings: Findings) -> str:
    for rank in findings.ranks:
        hidden = rank.layer < findings.hidden
        if hidden and rank.rank == findings.rank and not rank.clear:
            return (
                f"noise, or a batch above the width or the rank of the inputs: the singular values "
                f"of layer {rank.layer + 1}'s gradient fall by a factor of {rank.gap:.3g} at rank "
                f"{rank.rank}, 100 and a tail like noise are asked for"
            )
        if hidden and rank.rank > findings.rank:
            return (
                f"at least {rank.rank} samples: the gradient of layer {rank.layer + 1} has rank "
                f"{rank.rank}, that of the layers of the search {findings.rank}"
            )
    return ""


def _found(findings: Findings) -> str:
    facts = findings.search
    if facts.found == findings.rank:
        return ""
    rest = findings.rank - facts.found
    some = f"{facts.found} of {findings.rank} samples were found"
    if facts.found == 0:
        some = "no sample was found"
    return f"{some}, {rest} {'is' if rest == 1 else 'are'} missing: {facts.stopped}"


def _power(findings: Findings) -> str:
    if findings.power >= 1:
        return ""
    return (
        f"power {findings.power}: a sample meets no more equations than it has unknowns, so that "
        f"a zero need not be a sample"
        + (
            ""
            if findings.spare is None
            else f"; these solve the equations of all samples together, {findings.spare} or more "
            "of which are to spare, but that is evidence and no proof"
        )
    )


def _bounds(findings: Findings) -> str:
    bound = findings.largest_bound
    if bound is not None and bound < LARGEST_BOUND:
        return ""
    return f"noise: the error bound of a sample is {'unknown' if bound is None else f'{bound:.2g}'}"


def _others(findings: Findings) -> str:
    facts = findings.search
    if facts.others:
        return (
            f"{counted(facts.others, 'further point')} fit as the samples do and are not among them"
        )
    if facts.null_hits:
        return (
            f"{facts.null_hits} of {facts.null_starts} searches in permuted spaces, which no batch "
            f"explains, found a point: chance cannot be told from samples"
        )
    if facts.null_starts == 0:
        return "the time limit left no search in permuted spaces, so chance is not excluded"
    return ""


def _confirmations(findings: Findings) -> str:
    return unconfirmed(findings.checks, ("gradient",))
