"""The rules of the verdict, applied to the fields of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..outcome import check_possible, require
from .confirm import BOUND_LIMIT
from .report import FEATURES, INPUT, DeepReport
from .uniqueness import by_kernel


def check_rules(report: DeepReport) -> str:
    """The verdict is the one that the rules give for the fields of the report."""
    if report.nonidentifiable:
        obstacle = find_shown_obstacle(report.raw)
        require(not obstacle, f"not nonidentifiable: {obstacle}")
        return "nothing stands against two sets"
    require(not report.shown, "two sets are shown, and the verdict is another")
    if report.searched:
        obstacle = find_search_obstacle(report.raw)
        require(not report.globally, "a search is no proof of globally")
        require(report.locally != bool(obstacle),
                f"not locally: {obstacle}" if report.locally
                else "every rule for locally is met, and the verdict is undecided")  # fmt: skip
        return f"undecided: {obstacle}" if obstacle else "nothing stands against locally"
    require(not report.locally, "locally without a search")
    obstacle = find_obstacle(report.raw)
    if report.locally:
        check_possible(False, "the rules of a local verdict are not checked")
    if report.globally:
        require(not obstacle, f"not globally: {obstacle}")
        return "nothing stands against globally"
    require(bool(obstacle), "every rule for globally is met, and the verdict is undecided")
    return f"undecided: {obstacle}"


def find_shown_obstacle(raw: Mapping[str, Any]) -> str:
    """The first rule that forbids "nonidentifiable", or nothing."""
    obstacle = _rank(raw) or _whole(raw)
    if obstacle:
        return obstacle
    if raw["problem"]["loss"] is not None:
        return "the loss is named"
    if len(raw.get("alternatives", ())) != 2:
        return "two sets are not shown"
    if raw["samples_of"] is not None or raw["sample_count"] is not None:
        return "samples are separated"
    if any(check["holds"] is False for check in raw["checks"]):
        return "a check does not hold"
    return "" if raw["method"] == "kernel" else "another method"


def find_obstacle(raw: Mapping[str, Any]) -> str:
    """The first rule that forbids "globally", or nothing."""
    for rule in (_rank, _uniqueness, _samples, _checks, _proof, _whole):
        obstacle = rule(raw)
        if obstacle:
            return obstacle
    return ""


def find_search_obstacle(raw: Mapping[str, Any]) -> str:
    """The first rule that forbids "locally", or nothing."""
    for rule in (_search_ranks, _search_facts, _search_checks):
        obstacle = rule(raw)
        if obstacle:
            return obstacle
    return ""


def _search_ranks(raw: Mapping[str, Any]) -> str:
    if raw["interrupted"]:
        return "the run was interrupted"
    hidden = len(raw["problem"]["sizes"]) - 2
    ranks = [rank for rank in raw["ranks"] if rank["layer"] <= hidden]
    if any(rank["rank"] > raw["rank"] for rank in ranks):
        return "a layer has a larger rank"
    used = [rank for rank in ranks if rank["rank"] == raw["rank"]]
    if not used or not all(rank["clear"] for rank in used):
        return "a rank is not clear"
    assumed = raw["problem"]["samples"]
    return "another number of samples is assumed" if assumed not in (None, raw["rank"]) else ""


def _search_facts(raw: Mapping[str, Any]) -> str:
    facts = raw["search"]
    if facts["found"] != raw["rank"] or facts["missing"]:
        return "samples are missing"
    if raw["power"] is None or raw["power"] < 1:
        return "a sample meets no more equations than it has unknowns"
    bounds = raw["error_bounds"]
    if not bounds or any(bound is None or bound >= BOUND_LIMIT for bound in bounds):
        return f"an error bound of {BOUND_LIMIT} or more"
    if facts["others"] or facts["null_hits"] or not facts["null_starts"]:
        return "other points, or chance, are not excluded"
    above = [a > b for a, b in zip(facts["residuals"], facts["tolerances"], strict=True)]
    return "a residual above its tolerance" if any(above) else ""


def _search_checks(raw: Mapping[str, Any]) -> str:
    for check in raw["checks"]:
        needed = check["name"].startswith("gradient")
        open_loss = check["name"] == "known loss" and check["value"] is not None
        if check["holds"] is False or (check["holds"] is None and (needed or open_loss)):
            return f"the check '{check['name']}' does not hold"
    there = any(check["name"].startswith("gradient") for check in raw["checks"])
    return "" if there else "checks are left"


def _rank(raw: Mapping[str, Any]) -> str:
    if raw["interrupted"]:
        return "the run was interrupted"
    top = len(raw["problem"]["sizes"]) - 2
    entry = next((rank for rank in raw["ranks"] if rank["layer"] == top), None)
    if entry is None or entry["rank"] != raw["rank"] or not entry["clear"]:
        return "the rank of the last hidden layer's gradient is not clear"
    if any(rank["rank"] > entry["rank"] for rank in raw["ranks"]):
        return "another layer has a larger rank"
    assumed = raw["problem"]["samples"]
    return "another number of samples is assumed" if assumed not in (None, entry["rank"]) else ""


def _uniqueness(raw: Mapping[str, Any]) -> str:
    if by_kernel(raw) or raw["method"] == "masks":
        return ""
    return "neither the kernel of L nor a list of masks leaves one set"


def _samples(raw: Mapping[str, Any]) -> str:
    if raw["samples_of"] not in (INPUT, FEATURES):
        return "the samples do not reach the input"
    bounds = raw["error_bounds"]
    if not bounds or any(bound is None or bound > BOUND_LIMIT for bound in bounds):
        return f"an error bound above {BOUND_LIMIT}"
    few = by_kernel(raw) and raw["power"] is not None and raw["power"] < 1
    return "a sample meets no more equations than it has unknowns" if few else ""


def _checks(raw: Mapping[str, Any]) -> str:
    for check in raw["checks"]:
        needed = check["name"].startswith(("gradient", "masks"))
        open_loss = check["name"] == "known loss" and check["value"] is not None
        if check["holds"] is False or (check["holds"] is None and (needed or open_loss)):
            return f"the check '{check['name']}' does not hold"
    names = [check["name"] for check in raw["checks"]]
    needed = ["masks agree with signs", "masks of the samples", "coefficients of the biases",
              "known loss"]  # fmt: skip
    needed += [f"gradient of layer {k + 1}" for k, given in enumerate(raw["problem"]["gradients"])
               if given]  # fmt: skip
    missing = [name for name in needed if names.count(name) != 1]
    return f"the check '{missing[0]}' is not stated once" if missing else ""


def _proof(raw: Mapping[str, Any]) -> str:
    proof = raw["proof"]
    failed = proof is not None and proof["holds"] is False and by_kernel(raw)
    return "the printed masks admit other explanations" if failed else ""


def _whole(raw: Mapping[str, Any]) -> str:
    return "a gradient was filled in, and others are not excluded" if raw.get("completed") else ""


def check_assumptions(report: DeepReport) -> str:
    """What the report takes for granted about the batch stands among its assumptions."""
    problem, said = report.raw["problem"], report.raw["assumptions"]
    expected = []
    if problem["loss"] is not None:
        expected.append(f"the loss is {problem['loss'].replace('_', '-')}")
    if problem["reduction"] is not None:
        expected.append(f"the loss is the {problem['reduction']} over the batch")
    if problem["samples"] is not None:
        expected.append(f"the batch has {problem['samples']} sample")
    starts = ("the loss is", "the batch has")
    own = [line for line in said if line.startswith(starts)]
    require(len(own) == len(expected), f"{len(own)} assumptions on the batch, not {len(expected)}")
    for line, start in zip(own, expected, strict=True):
        require(line.startswith(start), f"the assumption '{start}' is not stated")
    for holds, words in ((report.decay is not None, "times the weights"),
                         (report.head, "features that enter"),
                         (report.nonidentifiable, "can be any numbers")):  # fmt: skip
        stated = any(words in line for line in said)
        require(holds == stated, f"the assumption on '{words}' is not that of the problem")
    others = len(said) - len(own)
    require(others >= 3, "the network, the gradient and its errors are assumed, and not stated")
    return f"{len(said)} stated"


def check_scope(report: DeepReport) -> str:
    """Scope, number of samples and lengths of lists go with the verdict."""
    raw, answer = report.raw, report.answer
    scope, count = raw["scope"], raw["sample_count"]
    own = None if answer is None else len(answer.samples)
    fits = count == own or not report.certified
    require(fits, f"{own} samples are in the certificate, not {count}")
    for name in ("labels", "label_confidence", "counts", "error_bounds"):
        require(raw[name] is None or len(raw[name]) == count, f"{name}: one for each sample")
    if report.locally:
        expected = {"kind": "exactly", "samples": raw["rank"]}
        fits = scope == expected and count == raw["rank"]
        require(fits, f"the claim is about exactly {raw['rank']} samples")
        require(raw["candidates"] is True and raw["covered"] is True,
                "locally leaves candidates and is covered")  # fmt: skip
        return f"exactly {raw['rank']} samples, near the printed ones"
    if report.nonidentifiable:
        sizes = [len(one.samples) for one in report.shown]
        require(scope == {"kind": "shown", "samples": sizes}, "the scope is not the sets shown")
        require(set(sizes) == {raw["rank"]}, f"the sets have not {raw['rank']} samples each")
        require(raw["candidates"] is True and raw["covered"] is True,
                "nonidentifiable leaves candidates and is covered")  # fmt: skip
        return f"the two sets shown, of {raw['rank']} samples each"
    if not report.globally:
        local = report.locally
        fits = scope == ({"kind": "exactly", "samples": raw["rank"]} if local else None)
        require(fits, "the scope is not the one of the verdict")
        return f"exactly {raw['rank']} samples" if local else "none"
    expected = {"kind": "at_most", "samples": raw["rank"]}
    fits = scope == expected and count == raw["rank"]
    require(fits, f"the claim is about at most {raw['rank']} samples, the scope says otherwise")
    require(raw["candidates"] is False and raw["covered"] is True,
            "globally leaves no candidates and is covered")  # fmt: skip
    return f"at most {raw['rank']} samples"
