"""The rules of the verdict on weights, and the assumptions that it states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..deep.rules import find_obstacle
from ..deep.uniqueness import by_kernel
from ..outcome import require
from .report import BALANCE, KINKS, KKT, LAYERS, MARGINS, WeightsReport


def check_rules(report: WeightsReport) -> str:
    """The verdict is the one that the rules give for the fields of the report.

    With the output layer fixed those of a gradient decide, kinks and margins agreeing. With both
    layers trained its stationarity and the balance of the layers count too.
    """
    obstacle = find_obstacle(report.deep.raw) or _beside(report)
    if not report.deep.globally:
        require(bool(obstacle), "every rule for globally is met, and the verdict is undecided")
        return f"undecided: {obstacle}"
    names, expected = [check["name"] for check in report.raw["checks"]], _expected(report)
    require(names == expected, f"the checks are not those of a report: {', '.join(expected)}")
    require(not obstacle, f"not globally: {obstacle}")
    missing = by_kernel(report.raw) and report.raw["data_statement"] is None
    require(not missing, "there is no statement about the data")
    return "nothing stands against globally"


def _expected(report: WeightsReport) -> list[str]:
    """The checks of a report of globally, in their order."""
    names = ["masks agree with signs", "masks of the samples", LAYERS[0]]
    names += [LAYERS[1]] if report.both else []
    names += ["coefficients of the biases", "known loss", "layers agree"]
    names += [BALANCE] if report.both else []
    return [*names, KINKS, *([MARGINS] if report.margins else [])]


def _beside(report: WeightsReport) -> str:
    """The first check beside those of a gradient that forbids "globally", or nothing."""
    needed = [BALANCE] if report.both else []
    needed += [KINKS, *([MARGINS] if report.margins else [])]
    for name in needed:
        check = report.check(name)
        if check is None or check["holds"] is False:
            return f"the check '{name}' does not hold"
        if check["holds"] is None and (check["value"] is not None or name != MARGINS):
            return f"the check '{name}' is open"
    return ""


def check_assumptions(report: WeightsReport) -> str:
    """What is taken for granted of source, trained layers, outputs, bias, loss and number is said.

    The certificate names source and trained layers too.
    """
    problem, said = report.raw["problem"], report.raw["assumptions"]
    for name in ("source", "trained"):
        bound = report.raw["certificate"][name] == problem[name]
        require(bound, f"the certificate is of other weights: {name}")
    expected = _phrases(problem)
    require(len(said) == len(expected), f"{len(said)} assumptions, not {len(expected)}")
    for line, phrases in zip(said, expected, strict=True):
        for phrase in phrases:
            require(phrase in line, f"the assumption '{phrase}' is not stated in its place")
    return f"{len(said)} stated"


def _phrases(problem: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Words of every assumption, in their order."""
    kkt, loss, samples = problem["source"] == KKT, problem["loss"], problem["samples"]
    layers = "both layers" if problem["trained"] == "both" else "the hidden layer alone"
    found: list[tuple[str, ...]] = [("two linear layers", *problem["activations"])]
    if kkt:
        found.append(("a KKT point", layers))
        found += [("the difference of the two outputs",)] if problem["sizes"][-1] == 2 else []
    else:
        found.append(("plus a multiple of the weights is 0", layers))
    found += [("the hidden bias counts in the norm",)] if problem["biases"][0] else []
    found += [("on the kink of a neuron",), ("errors of the weights",)]
    if loss is not None and not kkt:
        found.append((f"the loss is {loss.replace('_', '-')}",))
    if samples is not None:
        found.append((f"{samples} active sample",))
    return found
