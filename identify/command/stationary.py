"""The commands on the weights of a two-layer ReLU network trained to the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from identify.command.deep import (
    DeepRequest,
    audit_deep,
    recover_deep,
    refuse_deep_options,
    verify_deep,
)
from identify.command.formats import show_audit, show_verdict
from identify.command.gate import BLOCKED, Gate
from identify.command.inputs import check_dimension
from identify.command.names import EvidenceName, SourceName
from identify.command.output import INTERRUPTED, OutputFolder, say_error
from identify.command.page import AUDIT, write_page, write_report
from identify.command.pair import PairRequest, recover_pair, verify_pair
from identify.command.routing import attack_line
from identify.command.sheet import Sheet
from identify.disaggregation.records import GLOBALLY
from identify.model.dataset import load_samples
from identify.model.deep import DeepNetwork
from identify.model.deep_files import load_deep_network
from identify.pictures import as_images, contact_sheet
from identify.report.stationary import StationaryReport
from identify.text import number

SOURCES = (SourceName.KKT, SourceName.WEIGHT_DECAY)


@dataclass(frozen=True)
class StationaryRequest:
    """A request about the weights themselves."""

    deep: DeepRequest

    def open(self) -> DeepNetwork:
        """Load the network.

        Raises InvalidInputError for options that mean nothing here, NotYetSupportedError for
        networks that are not covered, and what the reader raises.
        """
        from identify.disaggregation.stationary import check_stationary

        network = load_deep_network(
            self.deep.model,
            activation=self.deep.layout.activation,
            layers=self.deep.layout.layers,
            key=self.deep.layout.key,
        )
        check_stationary(network, self.source, self.trained)
        refuse_deep_options(self.deep, network)
        return network

    @property
    def source(self) -> str:
        """The source in the words of the library."""
        return self.deep.source.source.value.replace("-", "_")

    @property
    def trained(self) -> str:
        """Which layers were trained."""
        return self.deep.assume.trained.value

    def assess(self, network: DeepNetwork) -> tuple[StationaryReport, bool]:
        """The report, and whether Ctrl-C cut it short."""
        from identify.assess_weights import assess_stationary, interrupted_stationary_report

        deep = self.deep
        loss = None if deep.source.loss is None else deep.source.loss.value
        started = time.monotonic()
        try:
            with deep.log.progress() as show:
                report = assess_stationary(
                    network,
                    self.source,
                    trained=self.trained,
                    loss=loss,
                    samples=deep.assume.samples,
                    time_limit=deep.run.time_limit,
                    prove=deep.evidence is not EvidenceName.NUMERICAL,
                    seed=deep.run.seed,
                    progress=show,
                )
        except KeyboardInterrupt:
            partial = interrupted_stationary_report(
                network,
                stage=deep.log.stage,
                seconds=time.monotonic() - started,
                source=self.source,
                trained=self.trained,
                loss=None if loss is None else loss.replace("-", "_"),
                samples=deep.assume.samples,
                seed=deep.run.seed,
            )
            return partial, True
        return report, False

    def note_attack(self, report: StationaryReport) -> None:
        """Say what else can be tried where the weights are no such stationary point."""
        deep = self.deep
        line = attack_line(deep.model, deep.source, deep.layout)
        if line and not report.covered:
            deep.log.note(f"not covered; try: {line}")


def verify_relu(deep: DeepRequest, gate: Gate, folder: OutputFolder) -> int:
    """Decide about weights, a gradient or a pair of a ReLU network; the exit code."""
    if deep.source.source in SOURCES:
        return verify_stationary(StationaryRequest(deep), gate, folder)
    if deep.source.source is SourceName.FINE_TUNING:
        deep.assume.require_both("for --source fine-tuning")
        return verify_pair(PairRequest(deep), gate, folder)
    deep.assume.require_both(f"for --source {deep.source.source.value}")
    return verify_deep(deep, gate, folder)


def recover_relu(deep: DeepRequest, images: Any, folder: OutputFolder) -> int:
    """Recover the samples behind weights, a gradient or a pair of a ReLU network; the exit code."""
    if deep.source.source in SOURCES:
        return recover_stationary(StationaryRequest(deep), images, folder)
    if deep.source.source is SourceName.FINE_TUNING:
        deep.assume.require_both("for --source fine-tuning")
        return recover_pair(PairRequest(deep), images, folder)
    deep.assume.require_both(f"for --source {deep.source.source.value}")
    return recover_deep(deep, images, folder)


def audit_relu(
    deep: DeepRequest,
    data: Path,
    pixels: tuple[str | None, str | None],
    folder: OutputFolder,
    *,
    gated: bool,
) -> int:
    """Say which samples of a file weights or a gradient expose; the exit code.

    ``pixels`` are --mean and --std.
    """
    if deep.source.source in SOURCES:
        return audit_stationary_point(StationaryRequest(deep), data, pixels, folder, gated=gated)
    deep.assume.require_both(f"for --source {deep.source.source.value}")
    return audit_deep(deep, data, pixels, folder, gated=gated)


def verify_stationary(request: StationaryRequest, gate: Gate, folder: OutputFolder) -> int:
    """Decide whether the weights determine the training samples; the exit code."""
    report, interrupted = request.assess(request.open())
    if folder:
        write_report(folder, report, request.deep.check_line())
    word = gate.why_blocked(report)
    show_verdict(report, request.deep.run.format, folder, request.deep.model, word)
    if interrupted:
        return INTERRUPTED
    request.note_attack(report)
    return BLOCKED if word is not None else 0


def recover_stationary(request: StationaryRequest, images: Any, folder: OutputFolder) -> int:
    """Write the samples with their multipliers and draw them; the exit code."""
    network = request.open()
    sheet = Sheet.from_options(images, network.dimension)
    report, interrupted = request.assess(network)
    found, b = report.found, report.coefficients
    if found.samples is not None and b is not None:
        arrays: dict[str, Any] = {"samples": found.samples, "coefficients": b}
        if found.error_bounds is not None:
            arrays["error_bounds"] = found.error_bounds
        if found.labels is not None:
            arrays["labels"] = found.labels
        with folder.writing("samples.npz") as path:
            np.savez(path, **arrays)
        _draw(folder, sheet.settled(found.samples), report, request.deep)
    write_report(folder, report, request.deep.check_line())
    show_verdict(report, request.deep.run.format, folder, request.deep.model)
    if interrupted:
        return INTERRUPTED
    request.note_attack(report)
    if found.samples is None:
        say_error(f"no samples to write: {report.verdict}: {report.reason}")
        return 1
    return 0


def audit_stationary_point(
    request: StationaryRequest,
    data: Path,
    pixels: tuple[str | None, str | None],
    folder: OutputFolder,
    *,
    gated: bool,
) -> int:
    """Say which samples of a file the weights expose; the exit code."""
    from identify.exposure.affine import normalised
    from identify.exposure.weights import audit_stationary

    network = request.open()
    truth = load_samples(data)
    check_dimension(truth.samples, network.dimension, data)
    report, interrupted = request.assess(network)
    found = audit_stationary(report, network, normalised(truth, *pixels), truth.labels)
    if folder:
        folder.write_text("audit.json", found.to_json())
        folder.write_text("report.json", report.to_json())
        write_page(folder, report.to_dict(), str(found), request.deep.check_line(), AUDIT)
    show_audit(found, request.deep.run.format, folder, request.deep.model, len(truth.samples))
    if interrupted:
        return INTERRUPTED
    request.note_attack(report)
    return BLOCKED if gated and found.exposed else 0


def _draw(folder: OutputFolder, sheet: Sheet, report: StationaryReport, deep: DeepRequest) -> None:
    if sheet.remark:
        deep.log.note(sheet.remark)
    found = report.found
    if sheet.shape is None or found.samples is None:
        return
    captions = []
    for index in range(len(found.samples)):
        label = "" if found.labels is None else f"label {int(found.labels[index])}\n"
        bound = np.nan if found.error_bounds is None else float(found.error_bounds[index])
        captions.append(f"{label}error bound {number(bound)}")
    if report.verdict == GLOBALLY:
        title = f"GLOBALLY identifiable, {report.scope_sentence}: the samples behind the weights"
    else:
        title = f"UNDECIDED, no uniqueness: the samples below were separated ({report.reason})"
    notes = ["every image from its smallest to its largest value"]
    if sheet.limits is not None:
        notes = [f"black {sheet.limits[0]:g}, white {sheet.limits[1]:g}"]
    if sheet.mean is not None:
        notes.append("mean image added")
    if not found.scaled:
        notes.append("the sign and scale of an image are not determined")
    rows = [("recovered", as_images(found.samples, sheet.shape, sheet.mean), captions)]
    with folder.writing("contact.png") as path:
        contact_sheet(path, rows, title, limits=sheet.limits, footnote="; ".join(notes))
