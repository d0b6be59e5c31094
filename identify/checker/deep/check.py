"""Check a report on one gradient of a ReLU network without trusting the program that made it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ..outcome import (
    CONFIRMED,
    FLOAT,
    OPEN,
    REFUTED,
    CheckInputError,
    CheckResult,
    Claim,
    NotCheckableError,
    Progress,
    decide,
    require,
)
from . import agreement, confirm, listing, loss, printed, rules, shown, uniqueness
from .case import Case
from .kernel import Cut
from .network import (
    Layers,
    read_deep_gradient,
    read_deep_network,
    spelled,
    split_activations,
)
from .passes import build_network
from .report import DeepReport, read_deep_report
from .spectra import InTime

NOTES = (
    "reason", "single_rows", "completed", "search", "covered", "candidates",
    "smallest_visible_slope", "checks.note", "proof.method", "wording of assumptions", "caveats",
    "seed", "versions", "seconds",
)  # fmt: skip
"""What is written for readers: only its types are checked."""
ROUNDED = ("checks.value", "checks.limit")
"""Numbers beside the recomputed ones that decide; those of the layers' residuals are checked."""
UNCLAIMED = (
    "samples", "labels", "counts", "error_bounds", "kernel", "power", "checks", "proof",
    "data_statement",
)  # fmt: skip
"""What a verdict without a claim leaves unchecked."""

Check = Callable[[Case], str | tuple[str, str]]


def check_deep_report(
    content: object,
    model: object,
    *,
    gradient: object = None,
    activation: str | None = None,
    layers: object = None,
    key: str | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> CheckResult:
    """Make the claims of a gradient report again and say of each: confirmed, refuted or open.

    Singular values, the operator L and its kernel, all confirmations and the rules of the verdict
    are computed anew from the files; of the report only the samples, their slopes p and their masks
    are used, and these are held against the gradient.

    Args:
        content: plain data of the report.
        model: file of the network, as for `check_report`.
        gradient: file of the gradient.
        activation: name of the activation; that of the file or of the report without it.
        layers: names of the layers, first to last.
        key: name of the state_dict in a torch checkpoint.
        progress: called with a claim's name and a share in [0, 1].
        time_limit: seconds; claims not reached are "not checkable".

    Raises:
        CheckInputError: a report or file that cannot be read, with one line.

    Cost: a full SVD of every gradient; 2 m D^2 + 12 D^3 operations for D unknowns of L, at most
        3,000.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    report = read_deep_report(content)
    if gradient is None:
        raise CheckInputError("gradient", "a file, the source being gradient", "none")
    network, stored = read_deep_network(model, layers=layers, key=key, head=report.head)
    given = read_deep_gradient(gradient, network, layers=layers, key=key, head=report.head)
    said = [for_each(text, network) for text in (activation, stored) if text is not None]
    found: dict[str, Claim] = {}
    found["inputs"] = decide("inputs", "hash", lambda: _inputs(report, network, given))
    found["digest"] = decide("digest", "hash", lambda: _digest(report))
    found["problem"] = decide("problem", "hash", lambda: _problem(report, network, given, said))
    found["assumptions"] = decide("assumptions", "exact", lambda: rules.check_assumptions(report))
    found["scope"] = decide("scope", "exact", lambda: rules.check_scope(report))
    found["rules"] = decide("rules", "exact", lambda: rules.check_rules(report))
    kinds = said[0] if said else report.raw["problem"]["activations"]
    case: Case | None = None
    if found["inputs"].holds and found["problem"].holds:
        clean = given if report.decay is None else given.without(report.decay, network)
        case = Case(report, build_network(network, kinds), clean, clock(deadline, time_limit))
        run_checks(case, _checks(report), found, progress)
    else:
        _leave(report, found)
    found["verdict"] = _verdict(report, found)
    named = () if case is None else tuple(case.not_checked)
    return CheckResult(tuple(found.values()), _not_checked(report, named))


def for_each(text: str, network: Layers) -> list[str]:
    """The named activations, one for each layer but the last."""
    names = split_activations(text)
    return names * (len(network.weights) - 1) if len(names) == 1 else names


def clock(deadline: float | None, limit: float | None) -> InTime:
    """Ask for seconds before a deadline; ``limit`` is what the message names."""

    def in_time(seconds: float) -> None:
        if deadline is not None and time.monotonic() + seconds > deadline:
            more = f", about {seconds:.0f} s are missing" if seconds >= 1.0 else ""
            raise NotCheckableError(f"time limit of {limit:g} s reached{more}")

    return in_time


def _checks(report: DeepReport) -> list[tuple[str, str, Check]]:
    """What there is to check for the verdict: names, arithmetic, functions."""
    checks: list[tuple[str, str, Check]] = [("ranks", FLOAT, uniqueness.check_ranks)]
    if report.nonidentifiable:
        checks.append(("agreement", FLOAT, agreement.check_agreement))
        return [*checks, ("second sets", FLOAT, shown.check_second_sets)]
    if report.searched:
        return [("gradients", FLOAT, confirm.check_searched)] if report.locally else []
    return checks + confirmations(report) if report.globally and report.certified else checks


def confirmations(report: DeepReport) -> list[tuple[str, str, Check]]:
    """What confirms the samples of a verdict "globally", beside the ranks and the kernel."""
    checks: list[tuple[str, str, Check]] = [
        ("agreement", FLOAT, agreement.check_agreement),
        ("slopes", FLOAT, confirm.check_slopes),
        ("samples", FLOAT, confirm.check_samples),
        ("masks", FLOAT, confirm.check_masks),
        ("gradients", FLOAT, confirm.check_layers),
        ("error bounds", FLOAT, confirm.check_bounds),
        ("labels", FLOAT, loss.check_labels),
        ("loss", FLOAT, loss.check_loss),
        ("power", FLOAT, uniqueness.check_power),
        ("printed answer", "exact", printed.check_printed),
    ]
    if report.raw["method"] == "masks":
        checks.append(("mask list", FLOAT, listing.check_listing))
    return checks


def run_checks(
    case: Case,
    checks: list[tuple[str, str, Check]],
    found: dict[str, Claim],
    progress: Progress | None,
) -> None:
    """Make the checks in their order, then that of the kernel where the verdict rests on it."""
    for number, (name, how, check) in enumerate(checks):
        if progress is not None:
            progress(name, number / len(checks))
        found[name] = decide(name, how, partial(_in_time, case, check))
    if not (
        case.report.globally and case.report.certified and uniqueness.by_kernel(case.report.raw)
    ):
        return
    cut: list[Cut] = []

    def kernel() -> str:
        cut.append(uniqueness.measure(case))
        return uniqueness.check_kernel(case, cut[0])

    found["kernel"] = decide("kernel", FLOAT, kernel)
    if case.report.raw["data_statement"] is not None:
        if cut:
            data = decide("data", FLOAT, lambda: uniqueness.check_data(case, cut[0]))
        else:
            data = Claim("data", OPEN, FLOAT, found["kernel"].detail)
        found["data"] = data


def _in_time(case: Case, check: Check) -> str | tuple[str, str]:
    case.in_time(0.0)
    return check(case)


def _leave(report: DeepReport, found: dict[str, Claim]) -> None:
    for name, how, _ in _checks(report):
        found[name] = Claim(name, OPEN, how, "the files are not those of the report")


def _inputs(report: DeepReport, network: Layers, gradient: Layers) -> str:
    """Both hashes are those of the files."""
    head = " ".join(report.raw["problem"]["activations"])
    own = {"network": network.sha256(head), "gradient": gradient.sha256("gradient")}
    for entry in report.raw["inputs"]:
        role = entry["role"]
        require(entry["sha256"] == own[role], f"the {role} is not the one of the report")
    return "the network and the gradient are those of the report"


def _digest(report: DeepReport) -> str:
    if not report.certified:
        raise NotCheckableError("older report without certificate")
    stated = report.raw["certificate"]["digest"]
    require(stated == report.digest(), "the report was changed after it was made")
    return "the report is unchanged"


def _problem(report: DeepReport, network: Layers, gradient: Layers, said: list[list[str]]) -> str:
    """Sizes, biases, gradients and activations are those of the files."""
    problem = report.raw["problem"]
    weights = [weight for weight in network.weights if weight is not None]
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
    require(problem["sizes"] == sizes, f"the sizes are {sizes}")
    require(problem["biases"] == [b is not None for b in network.biases], "other biases")
    require(problem["gradients"] == [w is not None for w in gradient.weights], "other gradients")
    require(problem["loss"] != "cross_entropy" or sizes[-1] > 1, "cross-entropy of one output")
    for names in said:
        same = [spelled(name) for name in names] == problem["activations"]
        require(same, f"the activations are {', '.join(dict.fromkeys(names))}")
    last = spelled(problem["activations"][-1]) if problem["activations"] else ""
    kinked = last.startswith(("relu", "leaky_relu"))
    require(
        kinked or report.searched or not report.globally,
        "another activation before the output layer",
    )
    source = "as named" if said else "as the report says"
    return f"sizes {'-'.join(map(str, sizes))}, activations {source}"


def _verdict(report: DeepReport, found: dict[str, Claim]) -> Claim:
    """The verdict stands if everything that it needs is confirmed and nothing is refuted."""
    how = "the claims above"
    false = [name for name, claim in found.items() if claim.outcome == REFUTED]
    if false:
        return Claim("verdict", REFUTED, how, f"refuted: {', '.join(false)}")
    if report.nonidentifiable:
        return _shown_verdict(report, found)
    if report.locally:
        return Claim("verdict", OPEN, how, "the samples give the gradient; that none are near is "
                     "numerical and not redone")  # fmt: skip
    if not report.globally:
        return Claim("verdict", OPEN, how, "undecided claims nothing")
    if not report.certified:
        return Claim("verdict", OPEN, how, "older report without certificate")
    return globally(report, found, "the gradient")


def globally(report: DeepReport, found: dict[str, Claim], data: str) -> Claim:
    """Whether everything that "globally" needs is confirmed; ``data`` is what one set explains."""
    how = "the claims above"
    by_kernel = "kernel" in found
    optional = {"data"} | (set() if by_kernel else {"power", "printed answer"})
    proof = report.raw["proof"]
    if proof is None or proof["holds"] is None:
        # Nothing is claimed that the checker could not finish.
        optional.add("printed answer")
    missing = [c for name, c in found.items() if not c.holds and name not in optional]
    if not by_kernel and "mask list" not in found:
        missing.append(Claim("kernel", OPEN, FLOAT, "neither a kernel nor a list of masks"))
    if missing:
        detail = f"{missing[0].name} is not confirmed: {missing[0].detail}"
        return Claim("verdict", OPEN, how, detail)
    rank = report.raw["rank"]
    return Claim("verdict", CONFIRMED, how,
                 f"at most {rank} samples: exactly one set explains {data}")  # fmt: skip


def _shown_verdict(report: DeepReport, found: dict[str, Claim]) -> Claim:
    """Two sets that both explain the gradient need nothing but the files."""
    how = "the claims above"
    missing = [claim for claim in found.values() if not claim.holds]
    if missing:
        detail = f"{missing[0].name} is not confirmed: {missing[0].detail}"
        return Claim("verdict", OPEN, how, detail)
    rank = report.raw["rank"]
    return Claim("verdict", CONFIRMED, how,
                 f"two different sets of {rank} samples have the gradient")  # fmt: skip


def _not_checked(report: DeepReport, named: tuple[str, ...]) -> tuple[str, ...]:
    """The fields that no claim vouches for."""
    if not report.globally or not report.certified:
        return (*NOTES, *UNCLAIMED)
    by_list = ["kernel"] if report.raw["method"] == "masks" else []
    if report.raw["method"] == "masks" or report.raw["data_statement"] is None:
        by_list.append("data_statement")
    if not report.complete:
        by_list.append("certificate.format")
    if report.check(agreement.NAME) is None:
        by_list.append(f"checks.{agreement.NAME}")
    return tuple(dict.fromkeys((*NOTES, *ROUNDED, *by_list, *named)))
