"""The first lines of a report, for readers who decide and do not compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from identify.records import Condition, Evidence, Recovery, Scope, TrainingSet, Verdict
from identify.text import counted

_WHAT = {
    "kkt": "these weights",
    "weight-decay": "these weights",
    "gradient": "this gradient",
    "fine-tuning": "these two checkpoints",
}
_PREMISE = {
    "kkt": "the weights being those of a network trained to the end without weight decay",
    "weight-decay": "the weights being those of a network trained to the end with weight decay",
    "gradient": "the gradient being that of one batch, without noise",
    "fine-tuning": "a fine-tuning so short that the movement is a sum of gradients",
}
NO_PROOF = "no single training set found: this is no proof of privacy"


class Facts(Protocol):
    """The part of a report that the plain words are made of."""

    @property
    def verdict(self) -> Verdict: ...

    @property
    def scope(self) -> Scope | None: ...

    @property
    def problem(self) -> Mapping[str, Any]: ...

    @property
    def recovery(self) -> Recovery | None: ...

    @property
    def alternatives(self) -> tuple[TrainingSet, ...]: ...

    @property
    def error_bounds(self) -> tuple[float | None, ...] | None: ...

    @property
    def evidence(self) -> Evidence: ...

    @property
    def conditions(self) -> tuple[Condition, ...]: ...

    @property
    def candidates(self) -> bool: ...

    @property
    def covered(self) -> bool: ...


def headline(report: Facts) -> str:
    """The verdict in words; a positive one names the training sets among which it holds.

    Example:
        >>> from types import SimpleNamespace
        >>> from identify.records import Scope
        >>> found = SimpleNamespace(verdict=Verdict.GLOBALLY, scope=Scope("at_most", 6))
        >>> headline(found)
        'GLOBALLY identifiable among all training sets of at most 6 samples'
    """
    if report.scope is None or isinstance(report.scope.samples, tuple):
        return report.verdict.sentence
    positive, _, _ = report.verdict.sentence.partition(":")
    return f"{positive} {report.scope.sentence}"


def summary(report: Facts) -> list[tuple[str, str]]:
    """Four labelled sentences: what can be reconstructed, how exactly, on what it rests, what to do.

    Example:
        >>> import numpy as np
        >>> from identify.assess import assess_identifiability
        >>> from identify.hermite.data import HermiteData
        >>> from identify.model.two_layer import TwoLayerNetwork
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> gradient = net.gradient(rng.normal(size=(4, 6)), [1.0, -2.0, 0.5, 1.5])
        >>> report = assess_identifiability(HermiteData.from_gradient(net, gradient))
        >>> for row in summary(report)[::3]: print(": ".join(row))
        in short: 4 training samples can be reconstructed from this gradient
        what to do: do not release this gradient to anyone who must not see the samples
    """  # noqa: E501
    source = str(report.problem.get("source", "kkt"))
    what = _WHAT.get(source, "these data")
    rows = [
        ("in short", _result(report, what)),
        ("how exactly", _exactness(report)),
        ("rests on", _basis(report, source)),
        ("what to do", _advice(report, what)),
    ]
    return [(label, text) for label, text in rows if text]


def remark_on_conditions(report: Facts) -> str:
    """Why a condition that fails stands under a positive verdict; "" where none does."""
    unused = [c.name for c in report.conditions if c.holds is False and c.name[:2] == "I-"]
    if not unused or report.verdict not in (Verdict.GLOBALLY, Verdict.LOCALLY):
        return ""
    names, verb = " and ".join(unused), "is" if len(unused) == 1 else "are"
    return (
        f"{names} {verb} not required: a stronger condition than I-hermite, which holds and is the "
        "one that the verdict uses; nothing is lost by its failure."
    )


def _result(report: Facts, what: str) -> str:
    found = None if report.recovery is None else len(report.recovery.samples)
    if report.verdict is Verdict.GLOBALLY and found is not None:
        return f"{counted(found, 'training sample')} can be reconstructed from {what}"
    if report.verdict is Verdict.LOCALLY:
        return f"{what} pin the training samples down up to sets far away from the one found"
    if report.verdict is Verdict.NONIDENTIFIABLE:
        return (
            f"two different training sets explain {what} equally well: which of them, or of "
            "others, was used cannot be told"
        )
    if any(c.name == "finished" for c in report.conditions):
        return f"no statement: the time ended before {what} were examined in full"
    if not report.covered:
        return f"no statement: the verifier does not cover {what}"
    if report.candidates and found is not None:
        return (
            f"{NO_PROOF}; {counted(found, 'candidate')} that explain {what} can be reconstructed, "
            "perhaps among others"
        )
    return NO_PROOF


def _exactness(report: Facts) -> str:
    if report.recovery is None or report.verdict is Verdict.NONIDENTIFIABLE or report.alternatives:
        return ""
    bounds = report.error_bounds or ()
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return "no error bound is known for any of them"
    largest = max(known)
    words = f"to within {100.0 * largest:.2g} % of its length"
    if len(known) == len(bounds):
        return f"every sample {words}" if len(known) > 1 else f"the sample {words}"
    return f"{len(known)} of {len(bounds)} samples, each {words}; the others without a bound"


def _basis(report: Facts, source: str) -> str:
    if report.verdict is Verdict.UNDECIDED:
        return ""
    parts = [_PREMISE.get(source, "the assumptions below")]
    if report.verdict is Verdict.NONIDENTIFIABLE:
        return f"{parts[0]}; both sets were checked against the data"
    if report.scope is not None:
        parts.append(f"there being {_count(report.scope)}")
    if report.evidence.value == "numerical":
        parts.append("computation in floating point, without a proof")
    else:
        parts.append("conditions of which those named below are proved")
    return "; ".join(parts)


def _count(scope: Scope) -> str:
    words = {"at_most": "no more than"}.get(scope.kind, "exactly")
    samples = scope.samples
    return f"{words} {samples} training sample{'' if samples == 1 else 's'} that left a trace"


def _advice(report: Facts, what: str) -> str:
    if report.verdict is Verdict.GLOBALLY:
        return f"do not release {what} to anyone who must not see the samples"
    if report.verdict is Verdict.LOCALLY:
        return f"do not release {what}: an attacker with a good guess finds the samples"
    if report.verdict is Verdict.NONIDENTIFIABLE and report.candidates:
        return (
            f"do not release {what} before the sets have been compared with the samples: with "
            "their number known (--samples), one of the sets would be the only one"
        )
    if report.verdict is Verdict.NONIDENTIFIABLE:
        return (
            f"take this for no proof of privacy: the sets may share samples, and whoever knows "
            f"more than {what} may tell them apart"
        )
    if report.candidates:
        return f"do not release {what} before the candidates have been compared with the samples"
    return "do not take this for privacy; read the reason, and try an attack (kktcert attack)"
