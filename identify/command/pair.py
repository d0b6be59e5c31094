"""The commands on two checkpoints of a fine-tuning run whose recipe is not known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from identify.checkpoints.pair import PairSamples, check_pair, separate_pair
from identify.checkpoints.span import find_span
from identify.command.deep import DeepRequest, refuse_deep_options
from identify.command.formats import show_verdict
from identify.command.gate import BLOCKED, Gate
from identify.command.limits import PROCESS, refuse_above
from identify.command.output import OutputFolder, say_error
from identify.command.page import write_page
from identify.command.sheet import Sheet
from identify.model.deep import DeepNetwork
from identify.model.deep_files import load_deep_network
from identify.pictures import contact_sheet
from identify.report.plain import plain, versions
from identify.text import number

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PairRequest:
    """A request about the change between two checkpoints."""

    deep: DeepRequest

    def open(self) -> tuple[DeepNetwork, DeepNetwork]:
        """Load both networks.

        Raises InvalidInputError for options that mean nothing here, NotYetSupportedError for other
        networks, and what the readers raise.
        """
        deep = self.deep
        assert deep.source.initial is not None
        final, initial = (
            load_deep_network(
                path,
                activation=deep.layout.activation,
                layers=deep.layout.layers,
                key=deep.layout.key,
            )
            for path in (deep.model, deep.source.initial)
        )
        refuse_deep_options(deep, final)
        check_pair(initial, final)
        return initial, final

    def assess(self, initial: DeepNetwork, final: DeepNetwork) -> PairSamples:
        """Find the span, then the samples in it."""
        deep = self.deep
        span = find_span(initial, final, seed=deep.run.seed)
        count = span.samples or 0
        unknowns = count * (count + 1) // 2 + 2 * initial.outputs * count
        refuse_above(
            deep.memory.memory_limit,
            PROCESS + 8 * unknowns * (initial.widths[0] + 4 * unknowns),
            "the kernel that separates the samples takes it",
        )
        with deep.log.progress() as show:
            return separate_pair(
                initial,
                final,
                span,
                seed=deep.run.seed,
                time_limit=deep.run.time_limit,
                progress=show,
            )


def verify_pair(request: PairRequest, gate: Gate, folder: OutputFolder) -> int:
    """Say what two checkpoints show of the data; the exit code."""
    found = request.assess(*request.open())
    if folder:
        _write(folder, found)
    word = gate.why_blocked(found)
    _show(found, request, folder, word)
    return BLOCKED if word is not None else 0


def recover_pair(request: PairRequest, images: Any, folder: OutputFolder) -> int:
    """Write the candidates with their labels and draw them; the exit code."""
    initial, final = request.open()
    sheet = Sheet.from_options(images, initial.dimension)
    found = request.assess(initial, final)
    if found.candidates and found.samples is not None and found.labels is not None:
        with folder.writing("samples.npz") as path:
            np.savez(path, samples=found.samples, labels=found.labels)
        _draw(sheet.settled(found.samples), folder, found)
    _write(folder, found)
    _show(found, request, folder)
    if not found.candidates:
        say_error(f"no samples to write: {found.reason}")
        return 1
    return 0


def _write(folder: OutputFolder, found: PairSamples) -> None:
    folder.write_text("report.json", _json(found))
    write_page(folder, _content(found), str(found), title="What do two checkpoints give away?")


def _content(found: PairSamples) -> dict[str, Any]:
    content = {"schema_version": SCHEMA_VERSION, **found.to_dict(), "versions": versions()}
    return dict(plain(content))


def _json(found: PairSamples) -> str:
    return json.dumps(_content(found), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class _Told:
    """The candidates with what a report has."""

    found: PairSamples

    def to_dict(self) -> dict[str, Any]:
        return _content(self.found)

    def to_json(self) -> str:
        return _json(self.found)

    def __str__(self) -> str:
        return str(self.found)


def _show(
    found: PairSamples, request: PairRequest, folder: OutputFolder, word: str | None = None
) -> None:
    show_verdict(_Told(found), request.deep.run.format, folder, request.deep.model, word)


def _draw(sheet: Sheet, folder: OutputFolder, found: PairSamples) -> None:
    if sheet.shape is None or found.samples is None or found.labels is None:
        return
    pictures = sheet.images(found.samples)
    limits, words = sheet.grey([pictures], free_length=False)
    captions = [f"label {number(float(label))}" for label in found.labels]
    with folder.writing("contact.png") as path:
        contact_sheet(
            path, [("candidates from two checkpoints", pictures, captions)],
            f"UNDECIDED: candidates that leave {100.0 * found.residual:.2g} % of the change",
            limits=limits, footnote=words,
        )  # fmt: skip
