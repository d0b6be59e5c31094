"""The demonstration: what weights determine about handwritten digits, and what they do not."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from identify.alternatives.find import save_alternatives
from identify.alternatives.off_span import off_span_alternative
from identify.arrays import FloatArray
from identify.assess import assess_identifiability
from identify.demo.batch import BatchPart, batch_part, draw_batch
from identify.demo.networks import (
    DEGREE,
    Digits,
    batch_gradient,
    fine_tune,
    pick_digits,
    random_network,
    train_to_stationarity,
)
from identify.demo.pictures import draw_overview, draw_recovery, draw_scales, draw_sets, like_digits
from identify.exposure.compare import Comparison, compare_recovery
from identify.hermite.data import HermiteData
from identify.hermite.stationarity import stationarity
from identify.model.loading import save_network
from identify.pictures import require_drawing
from identify.planting.plant import plant_network
from identify.records import TrainingSet, Verdict
from identify.report.report import IdentifiabilityReport
from identify.text import number, table

Progress = Callable[[str, float], None]
SCALES = (1, 10, 100, 1000)
SHOWN_SCALE = 100
"""Output scale of the fine-tuned network that the demonstration is about."""
_FINE_TUNED, _GRADIENT_WIDTH = 60, 130


@dataclass(frozen=True, eq=False)
class DemoPart:
    """One line of the table: a network, the question put to it, the verdict, and the truth.

    `truth` holds the samples that made the network; `comparison` is None where nothing was
    recovered; `truth_residual` is the relative residual of the truth itself, None for data that
    are exact to first order only; `twin` is the truth changed where the weights cannot see it, if
    that was tried. `command` asks the same question from a shell.
    """

    name: str
    question: str
    report: IdentifiabilityReport
    digits: Digits
    comparison: Comparison | None
    truth_residual: float | None
    seconds: float
    command: str
    twin: TrainingSet | None = None

    @property
    def max_error(self) -> float | None:
        """Largest relative error of a recovered sample, None unless all were recovered."""
        found = self.comparison
        return found.max_error if found is not None and np.isfinite(found.max_error) else None

    @property
    def bound(self) -> float | None:
        """Largest error bound that the report prints, None if there is none."""
        bounds = self.report.error_bounds
        if not bounds or any(bound is None for bound in bounds):
            return None
        return max(bound for bound in bounds if bound is not None)

    def cells(self) -> list[str]:
        """The line of the table."""
        report, count = self.report, len(self.digits.samples)
        if report.alternatives:
            samples = " and ".join(str(found.count) for found in report.alternatives)
        else:
            samples = f"{0 if self.comparison is None else self.comparison.recovered} of {count}"
        scope = "-"
        if report.scope is not None:
            scope = report.scope.kind.replace("_", " ")
            scope += "" if isinstance(report.scope.samples, tuple) else f" {report.scope.samples}"
        return [
            self.name,
            self.question,
            report.verdict.value,
            scope,
            "-" if report.verdict is Verdict.UNDECIDED else report.evidence.value.split("_")[-1],
            samples,
            number(self.max_error),
            number(self.bound),
        ]


@dataclass(frozen=True, eq=False)
class DemoResult:
    """All parts of the demonstration; `str()` gives the table.

    `batch` is part e, whose report is of another kind.
    """

    parts: tuple[DemoPart, ...]
    batch: BatchPart
    folder: Path
    seconds: float

    def part(self, name: str) -> DemoPart:
        """The part of that name ("a", "b", "b5", "c", "d1" to "d1000")."""
        return next(part for part in self.parts if part.name == name)

    def __str__(self) -> str:
        header = ["", "question", "verdict", "scope", "evidence", "samples", "error", "bound"]
        lines = ["Do the weights determine the digits they were trained on?", ""]
        rows = [*(part.cells() for part in self.parts), self.batch.cells()]
        lines += table(header, rows, indent=0)
        lines += [
            "",
            "samples: true digits recovered; where the answer is nonidentifiable, the sizes of two",
            "different training sets, shown in the pictures, that both explain the weights.",
            "error, bound: largest true error and largest printed bound of a recovered digit, as a",
            "share of its norm, in a to d up to sign and length, which such networks never fix.",
            "evidence: interval is proved, numerical is not; `kktcert verify` lists each one.",
            "scale: the factor on the output in the loss; the larger, the less the weights move.",
            f"e: a classifier trained to {self.batch.accuracy:.0%} on all digits; the labels of "
            f"{self.batch.labels_right} of {len(self.batch.classes)} are read too.",
            f"e: `kktcert check` makes its claims again from the two files: {self.batch.checked}.",
            "",
        ]
        open_parts = [part for part in self.parts if part.report.verdict is not Verdict.GLOBALLY]
        for part in open_parts:
            text = f"{part.name}: {part.report.reason}"
            lines += textwrap.wrap(text, 100, subsequent_indent="    ", break_on_hyphens=False)
        lines += [
            "",
            f"Pictures: {self.folder / 'overview.png'} and one for each part. To ask again:",
        ]
        asked = [
            part for part in self.parts if part.name[0] != "d" or part.name == f"d{SHOWN_SCALE}"
        ]
        lines += [f"  {command}" for command in (*(p.command for p in asked), self.batch.command)]
        return "\n".join([*lines, "", f"{self.seconds:.0f} s in all"])


def run_demo(out: Path, *, seed: int = 0, progress: Progress | None = None) -> DemoResult:
    """Plant, train, fine-tune and take apart small networks of known digits.

    (a) A network that is exactly stationary for 8 digits; (b) one trained with weight decay on 5
    digits until nothing moves, without and with their number given; (c) one gradient of a batch of
    20 digits; (d) a network fine-tuned on 8 digits at output scales 1 to 1000; (e) one gradient of
    a ReLU classifier, trained on all digits, for a batch of 10. The truth is used to build the
    networks and to measure the errors, never to recover.

    Args:
        out: folder for pictures (PNG), networks (.safetensors) and reports; created if absent.
        seed: of the digits and of every network.
        progress: called with a stage and a share in [0, 1].

    Raises:
        InvalidInputError: scikit-learn or matplotlib (extra `demo`) is missing.

    Cost: about 15 seconds on one core.

    Example:
        >>> result = run_demo(folder)                                  # doctest: +SKIP
        >>> result.part("a").report.verdict.value                      # doctest: +SKIP
        'globally'
    """
    require_drawing("demo")
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    steps: tuple[tuple[str, Callable[[Path, int], Iterator[DemoPart]]], ...] = (
        ("planting a stationary network", planted_part),
        ("training with weight decay", trained_parts),
        ("taking one gradient apart", gradient_part),
        ("fine-tuning at four output scales", fine_tuned_parts),
    )
    parts: list[DemoPart] = []
    for k, (stage, run) in enumerate(steps):
        if progress is not None:
            progress(stage, k / (len(steps) + 2))
        parts += run(out, seed)
    if progress is not None:
        progress("taking the gradient of a classifier apart", len(steps) / (len(steps) + 2))
    batch = batch_part(out, seed)
    if progress is not None:
        progress("drawing", (len(steps) + 1) / (len(steps) + 2))
    result = DemoResult(tuple(parts), batch, out, 0.0)
    draw_pictures(result)
    draw_batch(out / "e.png", batch)
    return replace(result, seconds=time.monotonic() - started)


def planted_part(out: Path, seed: int) -> Iterator[DemoPart]:
    """(a): an exactly stationary network of 8 digits."""
    started = time.monotonic()
    digits = pick_digits(8, seed)
    planted = plant_network(
        digits.samples, degree=DEGREE, stationary="regression", determined=True, seed=seed
    )
    data = HermiteData.from_weight_decay(planted.network)
    report = assess_identifiability(data, seed=seed)
    folder = _folder(out / "a", report)
    save_network(planted.network, folder / "model.safetensors")
    np.savez(folder / "truth.npz", allow_pickle=False, **planted.truth())
    yield _part(
        "a",
        "8 digits, planted network",
        report,
        digits,
        stationarity(data, digits.samples, planted.coefficients),
        started,
        f"kktcert verify {_quoted(folder / 'model.safetensors')} --source weight-decay",
    )


def trained_parts(out: Path, seed: int) -> Iterator[DemoPart]:
    """(b): a network trained with weight decay on 5 digits, without and with their number."""
    started = time.monotonic()
    digits = pick_digits(5, seed)
    trained = train_to_stationarity(digits, seed=seed)
    data = HermiteData.from_weight_decay(trained.network)
    residual = stationarity(data, digits.samples, trained.coefficients)
    twin = off_span_alternative(data, digits.samples, trained.coefficients, seed=seed)
    folder = out / "b"
    command = f"kktcert verify {_quoted(folder / 'model.safetensors')} --source weight-decay"
    for name, samples in (("b", None), ("b5", 5)):
        report = assess_identifiability(data, samples=samples, seed=seed)
        own = _folder(out / name, report)
        if report.alternatives:
            save_alternatives(own / "alternatives.npz", report.alternatives)
        if samples is None:
            save_network(trained.network, folder / "model.safetensors")
            np.savez(
                folder / "truth.npz",
                allow_pickle=False,
                samples=digits.samples,
                labels=digits.labels,
                coefficients=trained.coefficients,
            )
            question = "5 digits, trained network"
        else:
            question, command = "the same, told they are 5", f"{command} --samples 5"
        yield _part(name, question, report, digits, residual, started, command, twin)
        started = time.monotonic()


def gradient_part(out: Path, seed: int) -> Iterator[DemoPart]:
    """(c): one gradient of the logistic loss of a batch of 20 digits."""
    started = time.monotonic()
    digits = pick_digits(20, seed)
    network = random_network(_GRADIENT_WIDTH, digits.samples.shape[1], seed)
    gradient, coefficients = batch_gradient(network, digits)
    data = HermiteData.from_gradient(network, gradient)
    report = assess_identifiability(data, seed=seed)
    folder = _folder(out / "c", report)
    save_network(network, folder / "model.safetensors")
    save_network(gradient, folder / "gradient.safetensors")
    np.savez(folder / "truth.npz", allow_pickle=False, samples=digits.samples, labels=digits.labels)
    yield _part(
        "c",
        "20 digits, one gradient",
        report,
        digits,
        stationarity(data, digits.samples, coefficients),
        started,
        f"kktcert verify {_quoted(folder / 'model.safetensors')} --source gradient "
        f"--gradient {_quoted(folder / 'gradient.safetensors')}",
    )


def fine_tuned_parts(out: Path, seed: int, scales: Sequence[float] = SCALES) -> Iterator[DemoPart]:
    """(d): a network fine-tuned on 8 digits, at several output scales."""
    digits = pick_digits(8, seed)
    initial = random_network(_FINE_TUNED, digits.samples.shape[1], seed)
    (out / "d").mkdir(exist_ok=True)
    save_network(initial, out / "d" / "initial.safetensors")
    np.savez(
        out / "d" / "truth.npz", allow_pickle=False, samples=digits.samples, labels=digits.labels
    )
    for scale in scales:
        started = time.monotonic()
        final, _ = fine_tune(initial, digits, scale)
        data = HermiteData.from_fine_tuning(initial, final, point="midpoint")
        report = assess_identifiability(data, seed=seed)
        folder = _folder(out / "d" / f"scale-{scale:g}", report)
        save_network(final, folder / "final.safetensors")
        yield _part(
            f"d{scale:g}",
            f"fine-tuned at scale {scale:g}",
            report,
            digits,
            None,
            started,
            f"kktcert verify {_quoted(folder / 'final.safetensors')} --source fine-tuning "
            f"--initial {_quoted(out / 'd' / 'initial.safetensors')}",
        )


def draw_pictures(result: DemoResult) -> None:
    """Draw a.png, b.png, b5.png, c.png, d.png and overview.png into the folder of the result."""
    folder = result.folder
    for name, title in (
        ("a", "Eight digits, recovered from nothing but the weights of a stationary network"),
        ("c", "Twenty digits of one batch, recovered from one gradient"),
    ):
        part = result.part(name)
        draw_recovery(folder / f"{name}.png", title, part.digits, _recovered(part), part.report)
    for name, title in (
        ("b", "Which digits trained this network? The weights cannot tell"),
        ("b5", "Which five digits trained this network? The weights cannot tell"),
    ):
        part = result.part(name)
        draw_sets(folder / f"{name}.png", title, part.digits, _sets(part), part.report)
    tuned = [part for part in result.parts if part.name.startswith("d")]
    draw_scales(
        folder / "d.png",
        "Eight digits, recovered from the small change of the weights in fine-tuning",
        tuned[0].digits,
        [
            (part.name[1:], part.report.verdict, _recovered(part), part.max_error or 0.0)
            for part in tuned
        ],
    )
    first, second = result.part("a"), result.part("b5")
    draw_overview(
        folder / "overview.png", first.digits, _recovered(first), second.digits, _sets(second)
    )


def _sets(part: DemoPart) -> list[tuple[str, FloatArray, float]]:
    """Training sets that explain the same weights, with captions and residuals, truth first."""
    sets = [("true images", part.digits.samples, part.truth_residual or 0.0)]
    # Nothing fixes length and sign of a sample, so a picture may choose them.
    for caption, found in zip(
        ("another training set, same weights", "and another"),
        part.report.alternatives,
        strict=False,
    ):
        sets.append((caption, like_digits(found.samples, part.digits), found.stationarity))
    if part.name == "b5" and part.twin is not None:
        sets.append(("true images, changed unseen", part.twin.samples, part.twin.stationarity))
    return sets


def _recovered(part: DemoPart) -> FloatArray | None:
    """The recovered samples in the order, sign and scale of the truth; None if any is missing."""
    found, recovery = part.comparison, part.report.recovery
    if found is None or recovery is None or not np.all(found.matching.factors):
        return None
    matched = recovery.samples[found.matching.indices]
    return np.asarray(matched / found.matching.factors[:, None])


def _folder(folder: Path, report: IdentifiabilityReport) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return folder


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _part(
    name: str,
    question: str,
    report: IdentifiabilityReport,
    digits: Digits,
    truth_residual: float | None,
    started: float,
    command: str,
    twin: TrainingSet | None = None,
) -> DemoPart:
    comparison = None
    if report.recovery is not None and report.verdict is not Verdict.NONIDENTIFIABLE:
        comparison = compare_recovery(report.recovery, digits.samples, DEGREE)
    seconds = time.monotonic() - started
    return DemoPart(
        name, question, report, digits, comparison, truth_residual, seconds, command, twin
    )
