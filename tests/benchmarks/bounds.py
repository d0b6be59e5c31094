"""Printed bounds and proved boxes against the truth, over formats, degrees, sizes and scales.

    python -m tests.benchmarks.bounds [--count 2000] [--first 0] [--kind KIND]

Every case draws a network, samples and coefficients, computes the data in one format, stores them
in another, and asks with the arithmetic named where the file does not show it. A bound is wrong if
it is finite and below the error of its sample, a box if it is proved and does not hold the true
term. Seconds a case on one core.
"""

from __future__ import annotations

import argparse
import inspect
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from identify import (
    HermiteData,
    IdentifiabilityReport,
    TwoLayerNetwork,
    Verdict,
    assess_identifiability,
    plant_network,
)
from identify.errors import KktCertError
from identify.exposure.compare import compare_recovery

FloatArray = npt.NDArray[np.float64]
FORMATS = ("float64", "float32", "float16", "bfloat16")
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
KINDS = ("gradient", "margin", "unit", "bias", "few", "structured", "kkt", "kkt-margin")


@dataclass(frozen=True, eq=False)
class Drawn:
    """Data, the truth behind them, and the options that go with them."""

    kind: str
    words: str
    data: HermiteData
    samples: FloatArray
    coefficients: FloatArray
    options: dict[str, Any] = field(default_factory=dict)


def rounded(values: npt.ArrayLike, name: str) -> FloatArray:
    """The nearest numbers of a format, as float64."""
    array = np.asarray(values, dtype=np.float64)
    if name == "bfloat16":
        bits = array.astype(np.float32).view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return array.astype(name).astype(np.float64)


def stored(hidden: FloatArray, output: FloatArray, degree: int, name: str, **bias: Any) -> Any:
    """A network, or a gradient, whose numbers went through a format."""
    if bias.get("hidden_bias") is not None:
        bias["hidden_bias"] = rounded(bias["hidden_bias"], name)
    return TwoLayerNetwork(
        rounded(hidden, name), rounded(output, name), degree, rounding=ROUNDING[name], **bias
    )


def gradient_in(
    name: str, points: FloatArray, output: FloatArray, x: FloatArray, b: FloatArray, degree: int
) -> tuple[FloatArray, FloatArray]:
    """Gradient by points and output weights in the arithmetic of a format, summed in float32
    where that is the finer one."""
    kind = np.float64 if name == "float64" else np.float32

    def cut(values: npt.ArrayLike) -> Any:
        return rounded(values, name).astype(kind)

    w, a, x, b = (cut(part) for part in (points, output, x, b))
    z = cut(x @ w.T)
    power = z.copy()
    for _ in range(degree - 2):
        power = cut(power * z)
    heads = cut(cut(kind(degree) * power) * cut(b[:, None] * a))
    return cut(heads.T @ x).astype(np.float64), cut(cut(power * z).T @ b).astype(np.float64)


def draw(seed: int, kind: str | None = None) -> Drawn | None:
    """One case; None where no stationary network was found."""
    rng = np.random.default_rng([20, seed])
    kind = KINDS[seed % len(KINDS)] if kind is None else kind
    degree = int(rng.integers(3, 6))
    r = int(rng.integers(1, 6 if degree == 3 else 4))
    if kind.startswith("kkt"):
        return _stationary(rng, kind)
    d = r + int(rng.choice([0, 1, 4, 20]))
    points, output, x, b, weights = _network(rng, kind, degree, r, d)
    biased = kind == "bias"
    # Weights as they were used, and as the file has them.
    exact = bool(rng.integers(2))
    used = (rounded(points, weights), rounded(output, weights)) if exact else (points, output)
    arithmetic = str(rng.choice(FORMATS[: 1 + FORMATS.index(weights)] if exact else FORMATS[:2]))
    if arithmetic != "float64":
        used = tuple(rounded(part, arithmetic) for part in used)  # type: ignore[assignment]
        x = rounded(x, arithmetic)
    lifted = np.column_stack([x, np.ones(len(x))]) if biased else x
    if kind == "margin":
        values = (lifted @ used[0].T) ** degree @ used[1]
        x = lifted = x * np.abs(values)[:, None] ** (-1.0 / degree)
    with np.errstate(all="ignore"):
        rows, values = gradient_in(arithmetic, *used, lifted, b, degree)
    if not (np.isfinite(rows).all() and np.isfinite(values).all()):
        return None
    saved = str(rng.choice(FORMATS))
    split = (lambda p: (p[:, :d], {"hidden_bias": p[:, d]})) if biased else (lambda p: (p, {}))
    parts = [split(p) for p in (points if not exact else used[0], rows)]
    if not np.isfinite(rounded(rows, saved)).all() or not np.any(rounded(rows, saved)):
        return None
    network = stored(parts[0][0], output if not exact else used[1], degree, weights, **parts[0][1])
    gradient = stored(parts[1][0], values, degree, saved, **parts[1][1])
    options: dict[str, Any] = {"scale": kind if kind in ("margin", "unit") else "auto"}
    if kind == "few" or rng.random() < 0.3:
        options["samples"] = len(x)
    if FORMATS.index(saved) < FORMATS.index(arithmetic):
        options["arithmetic"] = arithmetic
    words = f"degree {degree} r {r} d {d} m {len(points)} weights {weights}"
    words += f"{'' if exact else ' rounded'} computed {arithmetic} saved {saved}"
    return Drawn(kind, words, HermiteData.from_gradient(network, gradient), x, b, options)


def _network(
    rng: np.random.Generator, kind: str, degree: int, r: int, d: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, str]:
    """Points, output weights, samples, coefficients, and the format of the file."""
    weights = str(rng.choice(FORMATS))
    side = d + (kind == "bias")
    needed = {3: 1, 4: 1, 5: 1}[degree] + degree * r
    count = needed if kind == "few" else needed + int(rng.choice([2, 10, 60]))
    points, output = rng.normal(size=(count, side)), rng.normal(size=count)
    x = rng.normal(size=(r, d))
    if kind == "structured":
        # Quantised weights, non-negative samples, sizes over decades.
        points = np.round(2.0 * points) / 2.0 + 0.25 * rng.integers(0, 2, points.shape)
        output = output * 10.0 ** rng.uniform(-2.0, 0.0, count)
        x = np.abs(x)
    if kind == "bias":
        x = x * 10.0 ** rng.uniform(-3.0, 0.5, (r, 1))
        x[0] *= rng.integers(0, 2)
    if kind == "unit":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    b = rng.choice([-1.0, 1.0], r) * 10.0 ** rng.uniform(-1.0, 0.0, r)
    if kind != "bias":
        b = b / np.linalg.norm(x, axis=1) ** degree
    return points, output, x, b, weights


def _stationary(rng: np.random.Generator, kind: str) -> Drawn | None:
    """A KKT point or a regression with weight decay, rounded."""
    r = int(rng.integers(2, 5))
    x = rng.normal(size=(r, r + int(rng.choice([0, 1, 6]))))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x *= 10.0 ** rng.uniform(-0.3, 0.3, (r, 1))
    try:
        wanted = "margin" if kind == "kkt-margin" else "auto"
        planted = plant_network(x, degree=3, stationary=wanted, seed=int(rng.integers(1000)))
    except KktCertError:
        return None
    net = planted.network
    name = str(rng.choice(FORMATS[:3]))
    network = stored(net.hidden_weight, net.output_weight, 3, name)
    kkt = planted.kind == "margin"
    data = HermiteData.from_kkt(network) if kkt else HermiteData.from_weight_decay(network)
    live = planted.multipliers != 0.0
    options: dict[str, Any] = {"samples": int(live.sum())}
    options["scale"] = "margin" if kind == "kkt-margin" else "auto"
    b = (planted.multipliers * planted.labels)[live]
    words = f"degree 3 r {r} d {x.shape[1]} m {network.width} weights {name}"
    return Drawn(kind, words, data, planted.samples[live], b, options)


def ask(case: Drawn) -> IdentifiabilityReport:
    """The report, with options that this version knows."""
    known = inspect.signature(assess_identifiability).parameters
    options = {name: value for name, value in case.options.items() if name in known}
    return assess_identifiability(case.data, **options)


def error_ratios(case: Drawn, report: IdentifiabilityReport) -> tuple[FloatArray, FloatArray]:
    """Errors of the recovered samples and their bounds, over one length; NaN where none."""
    assert report.recovery is not None
    scale = str(case.options["scale"])
    scale = "bias" if case.data.has_bias else ("free" if scale == "auto" else scale)
    table = compare_recovery(report.recovery, case.samples, case.data.degree, scale)
    found = table.matching.indices
    errors = table.matching.errors
    bounds = np.where(found >= 0, report.recovery.error_bounds[found], np.nan)
    absolute = getattr(report.recovery, "absolute_bounds", None)
    if scale == "bias" and absolute is not None:
        norms = np.linalg.norm(case.samples, axis=1)
        errors = errors * np.where(norms > 0.0, norms, norms.max() or 1.0)
        bounds = np.where(found >= 0, absolute[found], np.nan)
    return errors, bounds


def box_excess(case: Drawn, report: IdentifiabilityReport) -> float | None:
    """Distance of the true terms from the centres of a proved box, over its radii; None without."""
    certificate = report.certificate
    if certificate is None or certificate["enclosure"] is None:
        return None
    box, data = certificate["enclosure"], case.data
    basis, chosen = np.array(certificate["basis"]), np.array(certificate["neurons"])
    lengths = np.linalg.norm(data.points[chosen], axis=1)
    unit = np.abs(data.rows[chosen]).max() / np.abs(data.scales[chosen]).max()
    unit = unit / lengths.max() ** (data.degree - 1)
    lifted = data.network.lift(case.samples) @ basis
    b = case.coefficients
    size = (np.abs(b) / unit) ** (1.0 / data.degree)
    terms = lifted * size[:, None]
    if data.degree % 2:
        terms = terms * np.sign(b)[:, None]
    signs = (1.0,) if data.degree % 2 else (1.0, -1.0)
    centres, radii = np.array(box["centres"]), np.array(box["radii"])
    worst = 0.0
    for term in terms:
        near = [np.max(np.abs(s * term - c) / w) for c, w in zip(centres, radii, strict=True)
                for s in signs]  # fmt: skip
        worst = max(worst, float(min(near)))
    return worst


@dataclass
class Tally:
    """What a row of the table counts."""

    cases: int = 0
    positive: int = 0
    fewer: int = 0
    proved: int = 0
    wrong_bounds: int = 0
    wrong_boxes: int = 0
    ratios: list[float] = field(default_factory=list)


def study(seeds: range, kind: str | None, show: bool = True) -> dict[str, Tally]:
    """Run the cases of the seeds."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    verdicts: Counter[str] = Counter()
    for seed in seeds:
        case = draw(seed, kind)
        if case is None:
            continue
        report = ask(case)
        tally = tallies[case.kind]
        tally.cases += 1
        verdicts[report.verdict.value] += 1
        tally.positive += report.verdict is Verdict.GLOBALLY
        # Where the verdict speaks of fewer samples, as two that are parallel to the noise leave
        # it, or is none, nobody says that the recovered samples are these.
        if report.recovery is None or report.verdict is not Verdict.GLOBALLY:
            continue
        if len(report.recovery.samples) < len(case.samples):
            tally.fewer += 1
            continue
        errors, bounds = error_ratios(case, report)
        wrong = np.isfinite(bounds) & ~(errors <= bounds)
        excess = box_excess(case, report)
        tally.proved += excess is not None
        tally.wrong_bounds += bool(np.any(wrong))
        tally.wrong_boxes += excess is not None and excess > 1.0
        known = np.isfinite(bounds) & (errors > 0.0)
        tally.ratios += (bounds[known] / errors[known]).tolist()
        if show and (np.any(wrong) or (excess or 0.0) > 1.0):
            worst = float(np.max(np.where(wrong, errors / bounds, 0.0)))
            print(f"seed {seed} {case.kind} {case.words}: error/bound {worst:.3g} box {excess}")
    return tallies


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_args()
    tallies = study(range(options.first, options.first + options.count), options.kind)
    print(
        "| kind | cases | globally | of fewer samples | boxes | bounds below the error "
        "| boxes without the truth | median bound / error |\n|---|---|---|---|---|---|---|---|"
    )
    for name, t in sorted(tallies.items()):
        median = float(np.median(t.ratios)) if t.ratios else float("nan")
        print(f"| {name} | {t.cases} | {t.positive} | {t.fewer} | {t.proved} | {t.wrong_bounds} "
              f"| {t.wrong_boxes} | {median:.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
