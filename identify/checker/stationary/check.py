"""Check a report on the weights of a ReLU network without trusting the program that made it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from ..deep import check as gradients
from ..deep.case import Case
from ..deep.network import Layers, read_deep_network, spelled
from ..deep.passes import build_network
from ..deep.rules import check_scope
from ..deep.uniqueness import check_ranks
from ..outcome import (
    FLOAT,
    OPEN,
    REFUTED,
    CheckResult,
    Claim,
    Progress,
    decide,
    require,
)
from . import beside, rules
from .point import check_outputs, layers_of, own_gradient, read_margin
from .report import KKT, LAYERS, WeightsReport, read_stationary_report

UNCLAIMED = (
    *gradients.UNCLAIMED, "neuron_directions", "patterns_needed", "pattern_rank", "coefficients",
    "margins",
)  # fmt: skip
"""What a verdict without a claim leaves unchecked."""

_WORDS = {"the gradient of layer 1": "the hidden layer", "the gradient of layer 2":
          "the output layer", "gradient of layer 1": LAYERS[0],
          "gradient of layer 2": LAYERS[1], "this gradient": "these weights"}  # fmt: skip

_Check = Callable[[Case], str | tuple[str, str]]


def check_stationary_report(
    content: object,
    model: object,
    *,
    activation: str | None = None,
    layers: object = None,
    key: str | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> CheckResult:
    """Make the claims of a report on weights again and say of each: confirmed, refuted or open.

    The gradient that the weights are is formed here, and everything of it is checked as for a
    gradient that was sent; then what a stationary point shows beside it.

    Args: as for `check_deep_report`, without the gradient.

    Raises:
        CheckInputError: a report or file that cannot be read, or a report without a certificate,
            with one line.

    Cost: that of `check_deep_report`.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    report = read_stationary_report(content)
    network, stored = read_deep_network(model, layers=layers, key=key)
    said = [gradients.for_each(text, network) for text in (activation, stored) if text is not None]
    found: dict[str, Claim] = {}
    found["inputs"] = decide("inputs", "hash", lambda: _inputs(report, network))
    found["digest"] = decide("digest", "hash", lambda: _digest(report))
    found["problem"] = decide("problem", "hash", lambda: _problem(report, network, said))
    found["assumptions"] = decide("assumptions", "exact", lambda: rules.check_assumptions(report))
    found["scope"] = decide("scope", "exact", lambda: check_scope(report.deep))
    found["rules"] = decide("rules", "exact", lambda: rules.check_rules(report))
    case: Case | None = None
    if found["inputs"].holds and found["problem"].holds:
        kinds = said[0] if said else report.raw["problem"]["activations"]
        case = _case(report, network, kinds, gradients.clock(deadline, time_limit))
        gradients.run_checks(case, _checks(report), found, progress)
    else:
        for name, how, _ in _checks(report):
            found[name] = Claim(name, OPEN, how, "the files are not those of the report")
    found = {name: _worded(claim) for name, claim in found.items()}
    found["verdict"] = _verdict(report, found)
    named = () if case is None else tuple(case.not_checked)
    return CheckResult(tuple(found.values()), _not_checked(report, named))


def _case(
    report: WeightsReport, network: Layers, kinds: list[str], in_time: Callable[[float], None]
) -> Case:
    """The weights as a network and a gradient of it."""
    reduced = read_margin(network, report.source)
    gradient = own_gradient(reduced, both=report.both)
    return Case(report.deep, build_network(reduced, kinds), gradient, in_time)


def _checks(report: WeightsReport) -> list[tuple[str, str, _Check]]:
    """What there is to check for the verdict: names, arithmetic, functions."""
    checks: list[tuple[str, str, _Check]] = []
    if not report.raw["interrupted"]:
        checks.append(("ranks", FLOAT, check_ranks))
    if not report.deep.globally:
        return checks
    checks += [
        ("stationarity" if name == "gradients" else name, how, check)
        for name, how, check in gradients.confirmations(report.deep)
    ]
    own = [("balance", beside.check_balance)] if report.both else []
    own += [("kinks", beside.check_kinks), ("margins", beside.check_margins),
            ("patterns", beside.check_patterns)]  # fmt: skip
    for name, check in own:
        checks.append((name, FLOAT, partial(_at_point, report, check)))
    return checks


def _at_point(report: WeightsReport, check: Callable[[beside.Point], str], case: Case) -> str:
    return check(beside.Point(report, case))


def _worded(claim: Claim) -> Claim:
    """The claim with the weights in the place of a gradient."""
    detail = claim.detail
    for old, new in _WORDS.items():
        detail = detail.replace(old, new)
    return replace(claim, detail=detail)


def _inputs(report: WeightsReport, network: Layers) -> str:
    """The hash is that of the file."""
    own = network.sha256(" ".join(report.raw["problem"]["activations"]))
    stated = report.raw["inputs"][0]["sha256"]
    require(stated == own, "the network is not the one of the report")
    return "the network is that of the report"


def _digest(report: WeightsReport) -> str:
    stated = report.raw["certificate"]["digest"]
    require(stated == report.digest(), "the report was changed after it was made")
    return "the report is unchanged"


def _problem(report: WeightsReport, network: Layers, said: list[list[str]]) -> str:
    """Sizes, biases and activation are those of the file, and of a network with such points."""
    problem = report.raw["problem"]
    first, output = layers_of(network)
    sizes = [first.shape[1], len(first), len(output)]
    require(problem["sizes"] == sizes, f"the sizes are {sizes}")
    require(problem["biases"] == [b is not None for b in network.biases], "other biases")
    loss = None if report.source == KKT else problem["loss"]
    require(loss != "cross_entropy" or sizes[-1] > 1, "cross-entropy of one output")
    for names in said:
        same = [spelled(name) for name in names] == problem["activations"]
        require(same, f"the activation is {', '.join(dict.fromkeys(names))}")
    name, _, leak = spelled(problem["activations"][0]).partition(":")
    kinked = name == "relu" or (name == "leaky_relu" and abs(float(leak)) < 1.0)
    require(kinked, "an activation other than relu or leaky_relu")
    check_outputs(network, report.source, both=report.both)
    source = "as named" if said else "as the report says"
    return f"sizes {'-'.join(map(str, sizes))}, activation {source}"


def _verdict(report: WeightsReport, found: Mapping[str, Claim]) -> Claim:
    """The verdict stands if everything that it needs is confirmed and nothing is refuted."""
    how = "the claims above"
    false = [name for name, claim in found.items() if claim.outcome == REFUTED]
    if false:
        return Claim("verdict", REFUTED, how, f"refuted: {', '.join(false)}")
    if not report.deep.globally:
        return Claim("verdict", OPEN, how, "undecided claims nothing")
    point = "a KKT point" if report.source == KKT else "stationary with weight decay"
    layers = "both layers" if report.both else "the hidden layer alone"
    data = f"weights that are {point} in {layers}"
    return gradients.globally(report.deep, dict(found), data)


def _not_checked(report: WeightsReport, named: tuple[str, ...]) -> tuple[str, ...]:
    """The fields that no claim vouches for."""
    notes = tuple(name for name in gradients.NOTES if name not in ("single_rows", "search"))
    if not report.deep.globally:
        return (*notes, *UNCLAIMED)
    masks = report.raw["method"] == "masks"
    left = ["kernel", "data_statement"] if masks else []
    # A KKT point has no loss, and what is named is not used.
    ignored = report.source == KKT and report.raw["problem"]["loss"] is not None
    left += ["problem.loss"] if ignored else []
    return tuple(dict.fromkeys((*notes, *gradients.ROUNDED, *left, *named)))
