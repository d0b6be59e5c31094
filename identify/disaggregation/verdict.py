"""The rules of the verdict on a disaggregated gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from identify.budget import Budget
from identify.disaggregation.agreement import AGREEMENT
from identify.disaggregation.few_neurons import MaskList, Selection
from identify.disaggregation.records import (
    GLOBALLY,
    UNDECIDED,
    Check,
    Disaggregation,
    KernelFacts,
    LayerRank,
    PrintedProof,
)
from identify.text import drowned
from identify.thresholds import KERNEL_GAP, KERNEL_NOISE, LARGEST_BOUND


@dataclass(frozen=True)
class Findings:
    """Everything that the verdict looks at."""

    ranks: tuple[LayerRank, ...]
    last_hidden: int
    kernel: KernelFacts | None
    masks: MaskList | None
    selection: Selection | None
    power: int | None
    checks: tuple[Check, ...]
    largest_bound: float | None
    stopped: str
    printed: PrintedProof | None
    interrupted: str = ""
    cut: tuple[int, ...] = ()


def judge(findings: Findings) -> tuple[str, str]:
    """Return the verdict and its reason.

    "globally" only if the rank is clear, no layer has a larger one, the kernel or the complete
    list of masks leaves one set, the samples reach the network's input, and every check holds.
    """
    rules = (_interruption, _agreement, _rank, _layers, _uniqueness, _reach, _confirmations,
             _proof, _cut)  # fmt: skip
    for rule in rules:
        reason = rule(findings)
        if reason:
            return UNDECIDED, reason
    top = _top(findings)
    how = "the kernel of L" if _by_kernel(findings) else "the complete list of masks"
    return GLOBALLY, f"{how} leaves one set of at most {top.rank} samples, and it is confirmed"


def _cut(findings: Findings) -> str:
    """A completed matrix fits the entries that were sent; that no other one does is not shown."""
    if not findings.cut:
        return ""
    layers = ", ".join(str(index + 1) for index in findings.cut)
    return (
        f"only the largest entries of layer {layers} were sent; the others were filled in by their "
        "rank, and it is not shown that this is the only way"
    )


def _top(findings: Findings) -> LayerRank:
    return next(rank for rank in findings.ranks if rank.layer == findings.last_hidden)


def _interruption(findings: Findings) -> str:
    return findings.interrupted


def _agreement(findings: Findings) -> str:
    """Layers that contradict each other, where nothing was separated that could say more."""
    found = next((c for c in findings.checks if c.name == AGREEMENT and c.holds is False), None)
    if found is None or findings.largest_bound is not None:
        return ""
    value = "" if found.value is None else f" (violated by {found.value:.2g})"
    return (
        f"the gradients of the layers do not belong together{value}: {found.note}; noise, another "
        "batch or other changes in one of them, weight decay, or another activation"
    )


def _rank(findings: Findings) -> str:
    top = _top(findings)
    if top.clear:
        return ""
    return (
        f"noise, or a batch above the width or the rank of the inputs: the singular values of "
        f"layer {top.layer + 1}'s gradient fall by a factor of {top.gap:.3g} at rank {top.rank}, "
        f"100 and a tail like noise are asked for"
    )


def _layers(findings: Findings) -> str:
    r = _top(findings).rank
    larger = [rank for rank in findings.ranks if rank.rank > r]
    if larger:
        worst = max(larger, key=lambda rank: rank.rank)
        return (
            f"at least {worst.rank} samples: the gradient of layer {worst.layer + 1} has rank "
            f"{worst.rank}, that of the last hidden layer {r}; samples are merged there"
        )
    return ""


def _by_kernel(findings: Findings) -> bool:
    kernel = findings.kernel
    return kernel is not None and kernel.gap >= KERNEL_GAP and kernel.largest_kernel <= KERNEL_NOISE


def _uniqueness(findings: Findings) -> str:
    if _by_kernel(findings):
        return ""
    masks, selection = findings.masks, findings.selection
    if masks is not None and masks.complete and selection is not None and selection.decided:
        return ""
    kernel = findings.kernel
    if kernel is None:
        return "the last hidden layer was not examined"
    listed = ""
    if masks is not None and not masks.complete:
        listed = f"; the list of masks is not complete: {masks.reason}"
    elif selection is not None:
        listed = f"; {selection.reason}"
    if kernel.rows < kernel.rows_needed:
        missing = kernel.rows_needed - kernel.rows
        return (
            f"too few rows: {kernel.rows_needed} neurons that some samples activate and others do "
            f"not are asked for, {kernel.rows} are there, {missing} are missing{listed}"
        )
    if kernel.largest_kernel > KERNEL_NOISE:
        return (
            f"no {_top(findings).rank} samples of this network explain the column space: the "
            f"kernel of L lies {kernel.largest_kernel:.2g} times above the noise{listed}"
        )
    return (
        f"the kernel of L is not cut off: the next value is {kernel.gap:.2g} times as large, "
        f"{KERNEL_GAP:.0f} are asked for; equal or nested masks, or noise{listed}"
        f"{drowned(_top(findings).relative_noise)}"
    )


def _reach(findings: Findings) -> str:
    if findings.stopped:
        return f"the samples are known above the input only: {findings.stopped}"
    if findings.largest_bound is None:
        return "no samples were separated"
    if not findings.largest_bound <= LARGEST_BOUND:
        return f"noise: the error bound of a sample is {findings.largest_bound:.2g}"
    # A complete list of masks leaves nothing to chance, whatever the number of rows.
    counted = _by_kernel(findings) and (findings.power is None or findings.power < 1)
    if counted:
        return f"power {findings.power}: a sample meets no more equations than it has unknowns"
    return ""


def _confirmations(findings: Findings) -> str:
    return unconfirmed(findings.checks, ("gradient", "masks"))


def unconfirmed(checks: Sequence[Check], needed: tuple[str, ...]) -> str:
    """The first check that fails, that was needed and not made, or a loss that does not confirm.

    Example:
        >>> unconfirmed([Check("masks agree", None, None, None, 0)], ("masks",))
        "the check 'masks agree' could not be made"
    """
    for check in checks:
        if check.holds is False:
            value = "" if check.value is None else f": {check.value:.2g}"
            limit = "" if check.limit is None else f", limit {check.limit:.2g}"
            note = f" ({check.note})" if check.note else ""
            return f"the samples do not confirm the check '{check.name}'{value}{limit}{note}"
    for check in checks:
        if check.holds is None and check.name.startswith(needed):
            return f"the check '{check.name}' could not be made"
    loss = next((c for c in checks if c.name == "known loss"), None)
    if loss is not None and loss.holds is None and loss.value is not None:
        # The loss is given, so a set that it has not confirmed is not called the only one.
        return f"the loss does not confirm the samples: {loss.note}"
    return ""


def _proof(findings: Findings) -> str:
    printed = findings.printed
    if printed is not None and printed.holds is False and _by_kernel(findings):
        return (
            f"the printed masks admit other explanations: rank {printed.rank} of "
            f"{printed.required} ({printed.method})"
        )
    return ""


def mark_late(found: Disaggregation, budget: Budget) -> Disaggregation:
    """What was left undecided after the time is up, with that said; anything else as it is."""
    if found.verdict != UNDECIDED or not (found.late or budget.expired):
        return found
    said = "" if "time limit" in found.reason else "the time limit was reached; "
    return replace(found, late=True, reason=said + found.reason)
