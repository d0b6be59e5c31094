"""The report on one gradient of a network of any depth: record, JSON and text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from identify.disaggregation.records import (
    GLOBALLY,
    LOCALLY,
    NONIDENTIFIABLE,
    Disaggregation,
    KernelFacts,
    LayerRank,
    SearchFacts,
    ShownSet,
)
from identify.report.deep_certificate import certificate_of
from identify.report.noise_limit import NoiseLimit, noise_lines
from identify.report.plain import plain
from identify.report.report import digest
from identify.text import bullets, counted, labelled, number, section, table
from identify.thresholds import KERNEL_NOISE, SEEN

SCHEMA_VERSION = 1
KIND = "gradient"
COVERED = 5
"""Hits of new starts that a sample needs before its coverage means anything."""
CLEAR_LABEL = 3.0
"""A label counts as read if its margin is at least this many times its error."""


@dataclass(frozen=True, eq=False)
class GradientReport:
    """The verdict on one gradient with everything that it rests on; `str()` gives the text form.

    ``found`` holds the arrays: samples (n, d), labels, error bounds, masks, loss slopes.
    ``problem`` says which network, loss and reduction were assumed; ``inputs`` hashes the arrays.
    ``noise_limit`` is there if the smallest noise that leaves nothing decided was asked for.

    Example:
        >>> from identify.disaggregation.records import UNDECIDED
        >>> found = Disaggregation(UNDECIDED, "too few rows", 3, (), "kernel")
        >>> GradientReport(found, {}, (), (), 0, {}).scope_sentence
        'none: the verdict claims nothing'
    """

    found: Disaggregation
    problem: Mapping[str, Any]
    assumptions: tuple[str, ...]
    inputs: tuple[Mapping[str, str], ...]
    seed: int
    versions: Mapping[str, str]
    interrupted: bool = False
    noise_limit: NoiseLimit | None = None

    @property
    def verdict(self) -> str:
        """ "globally", "locally", "nonidentifiable" or "undecided"."""
        return self.found.verdict

    @property
    def reason(self) -> str:
        """One sentence."""
        return self.found.reason

    @property
    def candidates(self) -> bool:
        """Whether samples are at hand though the verdict is not "globally".

        They were separated, or would be if the loss is cross-entropy, or two sets of them are
        shown, or rows of the first layer's gradient are samples: all of them where its rank is one,
        or those of neurons that one sample alone activates.
        """
        found = self.found
        single = any(_is_lone(rank) for rank in found.ranks)
        single = single or found.single_rows is not None
        single = single or bool(found.alternatives)
        separated = found.samples is not None or found.features is not None
        return self.verdict != GLOBALLY and (separated or single or found.by_loss)

    @property
    def covered(self) -> bool:
        """Whether the gradient can be one of this network.

        False where the time limit ended the examination before it could say, where rows suffice and
        no samples explain the gradient above its noise, where no sample is found though equations
        suffice, where what was separated fails a check, and where the layers contradict each other,
        by their ranks or by Euler's identity: another activation, another network, or data of
        another kind.
        """
        found = self.found
        if self.verdict in (GLOBALLY, NONIDENTIFIABLE):
            return True
        if found.late:
            return False
        kernel = found.kernel
        unexplained = (
            kernel is not None
            and kernel.rows >= kernel.rows_needed
            and kernel.largest_kernel > KERNEL_NOISE
        )
        if found.search is not None and (found.power or 0) >= 1 and found.search.found == 0:
            unexplained = True
        larger = any(rank.clear and rank.rank > found.rank for rank in found.ranks)
        return not (unexplained or larger or any(c.holds is False for c in found.checks))

    @property
    def scope_sentence(self) -> str:
        """Which training sets the verdict speaks of."""
        if self.found.scope is None:
            return "none: the verdict claims nothing"
        kind, count = self.found.scope
        samples = counted(count, "sample")
        if kind == "shown":
            return f"the two sets shown, of {samples} each"
        if kind == "exactly":
            return f"among the training sets of exactly {samples} near this one"
        return f"among all training sets of at most {samples}"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, in the fixed order of report.json."""
        found = self.found
        scope = found.scope
        kernel, proof, data = found.kernel, found.printed, found.data
        report: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "verdict": found.verdict,
            "reason": found.reason,
            "scope": None if scope is None else _scope(*scope),
            "candidates": self.candidates,
            "covered": self.covered,
            "interrupted": self.interrupted,
            "rank": found.rank,
            "sample_count": None if found.samples is None else len(found.samples),
            "samples_of": None
            if found.layer is None
            else _place(found.layer, head=bool(self.problem.get("head"))),
            "scaled": None if found.samples is None else found.scaled,
            "labels": found.labels,
            "label_confidence": found.label_confidence,
            "counts": found.counts,
            "error_bounds": found.error_bounds,
            "ranks": [
                {
                    "layer": rank.layer + 1,
                    "rank": rank.rank,
                    "gap": rank.gap,
                    "noise": rank.noise,
                    "relative_noise": rank.relative_noise,
                    "clear": rank.clear,
                }
                for rank in found.ranks
            ],
            "method": found.method,
            "kernel": None if kernel is None else _kernel(kernel),
            "power": found.power,
            "single_rows": None if found.single_rows is None else len(found.single_rows),
            "completed": [index + 1 for index in found.completed],
            "search": None if found.search is None else _search(found.search),
            "alternatives": [_shown(one) for one in found.alternatives],
            "smallest_visible_slope": found.visible,
            "what_if_noise": None if self.noise_limit is None else self.noise_limit.to_dict(),
            "checks": [
                {
                    "name": check.name,
                    "holds": check.holds,
                    "value": check.value,
                    "limit": check.limit,
                    "equations": check.equations,
                    "note": check.note,
                }
                for check in found.checks
            ],
            "proof": None if proof is None else vars(proof),
            "data_statement": None if data is None else vars(data),
            "assumptions": list(self.assumptions),
            "caveats": list(found.caveats),
            "problem": dict(self.problem),
            "inputs": [dict(entry) for entry in self.inputs],
            "certificate": certificate_of(found),
            "seed": self.seed,
            "versions": dict(self.versions),
            "seconds": found.seconds,
        }
        content = {name: plain(value) for name, value in report.items()}
        content["certificate"]["digest"] = digest(content)
        return content

    def to_json(self) -> str:
        """report.json as text; NaN and infinity never occur in it."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def __str__(self) -> str:
        title = "Gradient report"
        lines = [title, "=" * len(title), *_head(self), *_evidence(self.found)]
        lines += section("Samples", _samples(self.found))
        lines += section("Checks", _checks(self.found))
        lines += section("What if there were noise", noise_lines(self.noise_limit))
        lines += section("Ranks of the gradients", _ranks(self.found.ranks))
        lines += section("Network", _problem(self.problem))
        lines += section("Assumptions", bullets(self.assumptions))
        lines += section("Caveats", bullets(self.found.caveats))
        lines += ["", f"seed {self.seed}, {self.found.seconds:.1f} s"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from identify.report.page.fragment import report_fragment

        return report_fragment(self.to_dict(), str(self))


def _kernel(kernel: KernelFacts) -> dict[str, Any]:
    facts: dict[str, Any] = dict(vars(kernel))
    if not np.isfinite(kernel.largest_kernel):
        facts |= {"largest_kernel": None, "smallest_other": None, "gap": None}
    return facts


def _scope(kind: str, count: int) -> dict[str, Any]:
    return {"kind": kind, "samples": [count, count] if kind == "shown" else count}


def _shown(found: ShownSet) -> dict[str, Any]:
    return {name: getattr(found, name) for name in
            ("samples", "cotangents", "error_bounds", "residual", "margin")}  # fmt: skip


def _search(facts: SearchFacts) -> dict[str, Any]:
    return {name: value for name, value in vars(facts).items() if name != "stopped"} | {
        "stopped": facts.stopped or None
    }


def _place(layer: int, *, head: bool) -> str:
    if layer == 0:
        return "features before the first layer" if head else "input"
    return f"input of layer {layer + 1}"


def _head(report: GradientReport) -> list[str]:
    found = report.found
    if found.verdict == GLOBALLY:
        verdict = "GLOBALLY identifiable: the gradient determines its batch"
    elif found.verdict == LOCALLY:
        verdict = "LOCALLY identifiable: no other batch near this one has the gradient"
    elif found.verdict == NONIDENTIFIABLE:
        verdict = "NONIDENTIFIABLE: two different batches have this gradient"
    else:
        verdict = "UNDECIDED: nothing is claimed"
    lines = _in_short(report)
    lines += labelled("verdict", verdict) + labelled("scope", report.scope_sentence)
    lines += labelled("recovered", _recovered(found, head=bool(report.problem.get("head"))))
    lines += labelled("labels", _labels(found, report.problem.get("loss")))
    lines += labelled("reason", found.reason)
    return lines


def _in_short(report: GradientReport) -> list[str]:
    """What somebody needs who reads no further."""
    found = report.found
    if report.verdict == GLOBALLY:
        short = f"this gradient gives away the {found.rank} training samples of its batch"
        todo = "do not send this gradient to anyone who must not see the samples"
    elif report.verdict == LOCALLY:
        short = (
            f"this gradient gives away {found.rank} samples that explain it; others far away are "
            f"not excluded"
        )
        todo = "do not send this gradient to anyone who must not see the samples"
    elif report.verdict == NONIDENTIFIABLE:
        short = f"two different batches of {found.rank} samples have this gradient"
        todo = "do not take it as safe: samples that both batches share are given away"
    elif report.candidates:
        short = "samples can be read off this gradient; whether they are the only ones is open"
        todo = "do not send this gradient to anyone who must not see the samples"
    elif found.late:
        short = "the time limit ended the examination: nothing is known about the batch"
        todo = "give it more time (--time-limit); do not take it as safe"
    elif not report.covered:
        short = "this gradient does not fit this network, so nothing is known about its batch"
        todo = "check --activation and that both files belong together; do not take it as safe"
    else:
        short = "no samples were separated"
        todo = "this is no proof of privacy: the rank and the span of the batch are seen"
    return [*labelled("in short", short), *labelled("what to do", todo), ""]


def _is_lone(rank: LayerRank) -> bool:
    """Whether the first layer's rows are parallel, not only more so than in other directions."""
    return rank.layer == 0 and rank.rank == 1 and (rank.clear or rank.gap >= SEEN)


def _recovered(found: Disaggregation, *, head: bool) -> str:
    if found.samples is None and not found.rank:
        return "nothing"
    if found.alternatives:
        one, two = found.alternatives
        same = 0 if found.shared is None else len(found.shared)
        return (
            f"two sets of {len(one.samples)} samples that share {same}; residuals "
            f"{number(one.residual)} and {number(two.residual)}"
        )
    lone = [rank for rank in found.ranks if _is_lone(rank)]
    if found.samples is None and lone:
        if not lone[0].clear:
            return (
                f"no samples; the first layer's gradient is {number(lone[0].gap)} times as large "
                "in one direction as in the next: an average of samples, or the only one"
            )
        return (
            "no samples; the first layer's gradient has rank one, so each of its rows is the "
            "sample up to a factor, or an average of samples"
        )
    if found.samples is None and found.single_rows is not None:
        count = len(found.single_rows)
        rows = "a row" if count == 1 else f"{count} rows"
        return (
            f"{rows} of the first layer's gradient, each of a neuron that, by the rank of the "
            "others, one sample alone activates: such a row is the sample up to a factor and noise"
        )
    if found.samples is None:
        rank = f"the gradient of the last hidden layer has rank {found.rank}"
        if not any(r.clear and r.rank == found.rank for r in found.ranks):
            return f"no samples; {rank} by the largest gap, which is not clear"
        return f"no samples; {rank}, so the batch has at least {found.rank}"
    count, bounds = len(found.samples), found.error_bounds
    text = counted(count, "sample")
    if found.search is not None and found.search.missing:
        text = f"{count} of {found.rank} samples, the others' span"
    if found.layer:
        text += f", as they enter layer {found.layer + 1} and not as images"
    elif head:
        text += ", as the features that enter the first of these layers and not as images"
    if not found.scaled:
        text += ", up to their length"
    if bounds is not None:
        text += f", error bounds {number(float(bounds.min()))} to {number(float(bounds.max()))}"
    if found.verdict not in (GLOBALLY, LOCALLY):
        text += "; candidates, not known to be the only ones"
    return text


def _labels(found: Disaggregation, loss: object) -> str:
    if found.samples is None:
        return ""
    if found.labels is None or found.label_confidence is None:
        notes = [c.note for c in found.checks if c.name == "known loss"]
        if loss is None or not notes:
            return "not read: give --loss cross-entropy, logistic or squared if it is the loss"
        return f"not read: {notes[0]}"
    clear = int((found.label_confidence >= CLEAR_LABEL).sum())
    least = number(float(found.label_confidence.min()))
    return (
        f"{clear} of {len(found.labels)} read clearly, the smallest margin {least} times its error"
    )


def _evidence(found: Disaggregation) -> list[str]:
    if found.search is not None:
        return _search_evidence(found, found.search)
    return proof_lines(found, "gradient", "every gradient within {} of this one has")


def proof_lines(found: Disaggregation, printed_as: str, within: str) -> list[str]:
    """The two statements: about the printed answer, and about all data near those given.

    ``within`` has a place for the size of the error.
    """
    if found.samples is None:
        return []
    proof, data = found.printed, found.data
    if proof is None:
        printed = "the printed answer: no proof was made"
    elif proof.holds:
        modulo = "" if proof.prime is None else f" modulo {proof.prime}"
        printed = (
            f"the printed answer: proved that no other set of at most {found.rank} samples has "
            f"exactly its {printed_as} (rank {proof.rank} of {proof.required}{modulo})"
        )
    elif proof.holds is None:
        printed = f"the printed answer: not proved ({proof.method})"
    else:
        printed = (
            f"the printed answer: the rank is {proof.rank} of {proof.required}, so others are "
            f"not excluded ({proof.method})"
        )
    stated = ""
    if data is not None:
        word = "at most one" if data.holds else "not shown to have at most one"
        stated = (
            f"the data: {within.format(number(data.error))} {word} explanation (eta "
            f"{number(data.eta)}, sigma {number(data.sigma)}), if the error is of the size that "
            f"the singular values show; {data.open} mask entries open"
        )
    return labelled("evidence", printed) + (labelled("", stated) if stated else [])


def _search_evidence(found: Disaggregation, facts: SearchFacts) -> list[str]:
    lines = [f"{facts.found} of {found.rank} samples in {facts.starts} starts"]
    if facts.coverage_starts:
        share = f"{100 * (facts.coverage_share or 0.0):.0f} %"
        few = facts.least_hits is None or facts.least_hits < COVERED
        least = "coverage none" if few else f"each at least {facts.least_hits} times"
        lines.append(
            f"{facts.coverage_starts} new starts find {share} of them again ({least}) and "
            f"{facts.others} other points"
        )
    if facts.null_starts:
        lines.append(
            f"{facts.null_hits} of {facts.null_starts} searches in permuted spaces find a point"
        )
    lines.append("this is evidence and no proof that there are no other samples")
    names = ["evidence"] + [""] * (len(lines) - 1)
    return [line for name, text in zip(names, lines, strict=True) for line in labelled(name, text)]


def _samples(found: Disaggregation) -> list[str]:
    if found.samples is None or found.cotangents is None:
        return []
    slopes = np.linalg.norm(found.cotangents, axis=1)
    header = ["sample", "error bound", "|p|", "label", "margin / error", "counts"]
    rows = []
    for i, slope in enumerate(slopes):
        label = "-" if found.labels is None else str(int(found.labels[i]))
        margin = None if found.label_confidence is None else float(found.label_confidence[i])
        bound = None if found.error_bounds is None else float(found.error_bounds[i])
        times = "-" if found.counts is None else f"{found.counts[i]:.3g}"
        rows.append([str(i + 1), number(bound), number(float(slope)), label, number(margin), times])
    # A column of nothing but dashes says nothing: labels without a loss, say.
    kept = [k for k in range(len(header)) if k == 0 or any(row[k] != "-" for row in rows)]
    header, rows = [header[k] for k in kept], [[row[k] for k in kept] for row in rows]
    shown = 50
    lines = table(header, rows[:shown])
    return [*lines, f"  and {len(rows) - shown} more"] if len(rows) > shown else lines


def _checks(found: Disaggregation) -> list[str]:
    words = {True: "holds", False: "FAILS", None: "open"}
    rows = [
        [c.name, words[c.holds], number(c.value), number(c.limit), f"{c.equations:,}", c.note]
        for c in found.checks
    ]
    if found.kernel is not None:
        k = found.kernel
        rows += [["rows", "", str(k.rows), f"{k.rows_needed} needed", "", ""]]
    if found.kernel is not None and np.isfinite(found.kernel.largest_kernel):
        rows += [
            ["kernel of L", "", f"gap {number(k.gap)}", "100", f"{k.unknowns:,}",
             "unknowns; values in units of the noise: "
             f"{number(k.largest_kernel)} and {number(k.smallest_other)}"],
        ]  # fmt: skip
    if found.power is not None:
        rows.append(["power", "", str(found.power), "1", "", "equations left for each sample"])
    return table(["check", "", "value", "limit", "equations", ""], rows) if rows else []


def _ranks(ranks: tuple[LayerRank, ...]) -> list[str]:
    rows = [
        [str(r.layer + 1), str(r.rank), number(r.gap), "yes" if r.clear else "NO",
         number(r.relative_noise)]
        for r in ranks
    ]  # fmt: skip
    return table(["layer", "rank", "gap", "clear", "relative noise"], rows) if rows else []


def _problem(problem: Mapping[str, Any]) -> list[str]:
    rows = [[name.replace("_", " "), _spell(value)] for name, value in problem.items()]
    return table(["", ""], rows)[1:] if rows else []


def _spell(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list):
        words = {True: "yes", False: "no"}
        if all(type(part) is int for part in value):
            return "-".join(map(str, value))
        return ", ".join(dict.fromkeys(words.get(part, str(part)) for part in value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "cross-entropy" if value == "cross_entropy" else str(value)
