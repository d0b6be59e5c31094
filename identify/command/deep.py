"""The commands on one gradient of a network of any depth."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from identify.arrays import FloatArray
from identify.budget import Budget, Progress
from identify.command.data_options import AssumeOptions, ModelOptions, SourceOptions
from identify.command.formats import show_audit, show_verdict
from identify.command.gate import BLOCKED, Gate
from identify.command.groups import as_options
from identify.command.inputs import check_dimension, features_note
from identify.command.memory import refuse_gradient
from identify.command.names import (
    ArithmeticName,
    EvidenceName,
    ScaleName,
    SourceName,
    WhatIfName,
)
from identify.command.options import MemoryOptions, RunOptions
from identify.command.output import INTERRUPTED, Log, OutputFolder, say_error
from identify.command.page import AUDIT, check_line, write_page, write_report
from identify.command.sheet import Sheet
from identify.disaggregation.records import GLOBALLY, LOCALLY
from identify.errors import InvalidInputError, NotYetSupportedError
from identify.model.dataset import load_samples
from identify.model.deep import DeepGradient, DeepNetwork
from identify.model.deep_files import deep_activation, load_deep_gradient, load_deep_network
from identify.pictures import contact_sheet
from identify.report.gradient import GradientReport
from identify.text import number
from identify.thresholds import HIDDEN_SHARE

_SCOPE = "use --source gradient with --gradient FILE, the gradient of a batch's loss at the network"


@dataclass(frozen=True)
class DeepRequest:
    """A model with the options that say what is asked about it."""

    model: Path
    source: SourceOptions
    layout: ModelOptions
    assume: AssumeOptions
    run: RunOptions
    memory: MemoryOptions
    log: Log
    evidence: EvidenceName = EvidenceName.AUTO
    what_if: WhatIfName | None = None

    @property
    def loss(self) -> str | None:
        """The loss that is given."""
        return None if self.source.loss is None else self.source.loss.value

    def applies(self) -> bool:
        """Whether the file or the options name an activation such as relu."""
        kind = deep_activation(self.model, self.layout.activation, key=self.layout.key)
        return kind is not None

    def open(self) -> tuple[DeepNetwork, DeepGradient]:
        """Load both files.

        Raises NotYetSupportedError for another source, InvalidInputError for options that mean
        nothing here, and what the readers raise.
        """
        network = load_deep_network(
            self.model,
            activation=self.layout.activation,
            layers=self.layout.layers,
            key=self.layout.key,
            head=self.layout.head,
        )
        if self.source.source is not SourceName.GRADIENT or self.source.gradient is None:
            kinds = ", ".join(dict.fromkeys(map(str, network.activations)))
            raise NotYetSupportedError(
                f"{self.model}: a network with the activation {kinds or 'none'} is not covered "
                f"for --source {self.source.source.value}",
                _SCOPE,
            )
        refuse_deep_options(self, network)
        gradient = load_deep_gradient(
            self.source.gradient,
            network,
            layers=self.layout.layers,
            key=self.layout.key,
            head=self.layout.head,
        )
        refuse_gradient(self.memory.memory_limit, network, gradient)
        return network, gradient

    def check_line(self) -> str:
        """The command line that checks a report of this request."""
        return check_line(self.model, self.source, self.layout)

    def assess(self, network: DeepNetwork, gradient: DeepGradient) -> tuple[GradientReport, bool]:
        """The report, and whether Ctrl-C cut it short."""
        from identify.assess_batch import interrupted_gradient_report

        loss = self.loss
        started = time.monotonic()
        report = None
        try:
            with as_options():
                budget = Budget.of(self.run.time_limit)
            with self.log.progress() as show:
                report = self._judge(network, gradient, self.run.time_limit, show)
                if self.what_if is not None:
                    report = self._with_noise(network, gradient, report, budget, show)
        except KeyboardInterrupt:
            if report is not None:
                return replace(report, interrupted=True), True
            partial = interrupted_gradient_report(
                network,
                gradient,
                stage=self.log.stage,
                seconds=time.monotonic() - started,
                loss=None if loss is None else loss.replace("-", "_"),
                samples=self.assume.samples,
                seed=self.run.seed,
            )
            return partial, True
        return report, False

    def _judge(
        self,
        network: DeepNetwork,
        gradient: DeepGradient,
        time_limit: float | None,
        show: Progress | None = None,
    ) -> GradientReport:
        from identify.assess_batch import assess_gradient

        reduction = self.source.reduction
        return assess_gradient(
            network,
            gradient,
            self.loss,
            reduction=None if reduction is None else reduction.value,
            decay=self.source.gradient_decay(),
            head=self.layout.head,
            samples=self.assume.samples,
            time_limit=time_limit,
            prove=self.evidence is not EvidenceName.NUMERICAL,
            seed=self.run.seed,
            progress=show,
        )

    def _with_noise(
        self,
        network: DeepNetwork,
        gradient: DeepGradient,
        report: GradientReport,
        budget: Budget,
        show: Progress,
    ) -> GradientReport:
        from identify.exposure.noise_limit import with_noise_limit

        told = replace(budget, progress=show)
        return with_noise_limit(
            report,
            gradient,
            lambda noisy, seconds: self._judge(network, noisy, seconds),
            seed=self.run.seed,
            budget=told,
        )


def refuse_deep_options(request: DeepRequest, network: DeepNetwork) -> None:
    """Refuse options that mean nothing for these networks."""
    assume = request.assume
    kind = str(network.activations[-1]) if network.activations else "one layer"
    gradient = request.source.source is SourceName.GRADIENT
    share, arithmetic = assume.hidden_share, assume.arithmetic
    given = {
        "--degree": request.layout.degree,
        "--scale": None if assume.scale is ScaleName.AUTO else assume.scale.value,
        "--non-negative": "the option" if assume.non_negative else None,
        "--noise": assume.noise,
        "--hidden-share": None if share == HIDDEN_SHARE else share,
        "--arithmetic": None if arithmetic is ArithmeticName.AUTO else arithmetic.value,
        "--decay": request.source.decay,
        "--head": "the option" if request.layout.head and not gradient else None,
    }
    for option, value in given.items():
        if value is not None:
            expected = f"nothing for a network with {kind}"
            raise InvalidInputError(option, expected, value, "it is for powers; leave it out")
    if request.evidence in (EvidenceName.EXACT, EvidenceName.INTERVAL):
        expected = f"auto or numerical for a network with {kind}"
        raise InvalidInputError("--evidence", expected, request.evidence.value)


def verify_deep(request: DeepRequest, gate: Gate, folder: OutputFolder) -> int:
    """Decide whether the gradient determines its batch; the exit code."""
    report, interrupted = request.assess(*request.open())
    if folder:
        _write_alternatives(folder, report)
        write_report(folder, report, request.check_line())
    word = gate.why_blocked(report)
    show_verdict(report, request.run.format, folder, request.model, word)
    if interrupted:
        return INTERRUPTED
    return BLOCKED if word is not None else 0


def recover_deep(request: DeepRequest, images: Any, folder: OutputFolder) -> int:
    """Write the samples of the batch and draw them; the exit code."""
    network, gradient = request.open()
    sheet = Sheet.from_options(images, network.dimension)
    report, interrupted = request.assess(network, gradient)
    found = report.found
    if found.samples is not None and found.layer is not None:
        arrays: dict[str, Any] = {
            "samples": found.samples,
            "error_bounds": found.error_bounds,
            "layer": np.int64(found.layer),
        }
        if found.labels is not None:
            arrays["labels"] = found.labels
        if request.loss == "logistic" and network.outputs > 1 and found.cotangents is not None:
            arrays["targets"] = np.where(found.cotangents < 0.0, 1.0, -1.0)
        with folder.writing("samples.npz") as path:
            np.savez(path, **arrays)
        if found.layer == 0 and not request.layout.head:
            _draw(folder, sheet.settled(found.samples), found.samples, report, request.log)
    elif found.single_rows is not None:
        with folder.writing("samples.npz") as path:
            np.savez(path, single_rows=found.single_rows)
    _write_alternatives(folder, report)
    write_report(folder, report, request.check_line())
    show_verdict(report, request.run.format, folder, request.model)
    if interrupted:
        return INTERRUPTED
    if found.samples is None and found.single_rows is None:
        say_error(f"no samples to write: {report.verdict}: {report.reason}")
        return 1
    return 0


def audit_deep(
    request: DeepRequest,
    data: Path,
    pixels: tuple[str | None, str | None],
    folder: OutputFolder,
    *,
    gated: bool,
) -> int:
    """Say which samples of a file the gradient exposes; the exit code.

    ``pixels`` are --mean and --std.
    """
    from identify.exposure.affine import normalised
    from identify.exposure.batch import audit_gradient

    network, gradient = request.open()
    truth = load_samples(data)
    check_dimension(truth.samples, network.dimension, data)
    if request.layout.head:
        request.log.note(features_note(network.names[0]))
    report, interrupted = request.assess(network, gradient)
    found = audit_gradient(report, network, gradient, normalised(truth, *pixels), truth.labels)
    if folder:
        folder.write_text("audit.json", found.to_json())
        folder.write_text("report.json", report.to_json())
        write_page(folder, report.to_dict(), str(found), request.check_line(), AUDIT)
    show_audit(found, request.run.format, folder, request.model, len(truth.samples))
    if interrupted:
        return INTERRUPTED
    return BLOCKED if gated and found.exposed else 0


def _write_alternatives(folder: OutputFolder, report: GradientReport) -> None:
    """alternatives.npz: samples_1, cotangents_1, samples_2, cotangents_2, if there are any."""
    if not report.found.alternatives:
        return
    arrays: dict[str, Any] = {}
    for which, one in enumerate(report.found.alternatives, 1):
        arrays[f"samples_{which}"] = one.samples
        arrays[f"cotangents_{which}"] = one.cotangents
    with folder.writing("alternatives.npz") as path:
        np.savez(path, **arrays)


def _draw(
    folder: OutputFolder, sheet: Sheet, samples: FloatArray, report: GradientReport, log: Log
) -> None:
    if sheet.remark:
        log.note(sheet.remark)
    if sheet.shape is None:
        return
    found = report.found
    captions = []
    for index in range(len(samples)):
        label = "" if found.labels is None else f"label {int(found.labels[index])}\n"
        bound = np.nan if found.error_bounds is None else float(found.error_bounds[index])
        error = f"error < {number(bound)}" if np.isfinite(bound) else "no error bound"
        captions.append(f"{label}{error}")
    if report.verdict == GLOBALLY:
        title = f"GLOBALLY identifiable, {report.scope_sentence}: the batch behind one gradient"
    elif report.verdict == LOCALLY:
        title = f"LOCALLY identifiable, {report.scope_sentence}: the batch behind one gradient"
    else:
        title = f"UNDECIDED, no uniqueness: the samples below were separated ({report.reason})"
    images = sheet.images(samples)
    limits, words = sheet.grey([images], free_length=not found.scaled)
    notes = [words]
    if sheet.mean is not None:
        notes.append("mean image added")
    if not found.scaled:
        notes.append("the sign and the length of an image are not determined")
    notes.append("error: bound relative to the length of the sample")
    with folder.writing("contact.png") as path:
        rows = [("recovered from the gradient", images, captions)]
        contact_sheet(path, rows, title, limits=limits, footnote="; ".join(notes))
