"""The owner's view: which of the true training samples do the weights expose, and how exactly."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray, real_array
from identify.assess import assess_identifiability
from identify.budget import Progress
from identify.errors import InvalidInputError
from identify.exposure.affine import affine_note
from identify.exposure.compare import Matching, match_samples
from identify.exposure.notes import EXACT, data_notes, exposure_notes
from identify.exposure.report import AuditReport, Exposure
from identify.hermite.data import HermiteData
from identify.hermite.multipliers import MultiplierFit, fit_multipliers
from identify.model.dataset import as_signs, flat_labels, flat_samples
from identify.model.two_layer import TwoLayerNetwork
from identify.recovery.assumptions import Assumptions
from identify.text import number
from identify.thresholds import DIFFERENT, HIDDEN_SHARE, UNEXPLAINED


def audit(
    network: TwoLayerNetwork,
    samples: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    source: str = "kkt",
    gradient: TwoLayerNetwork | None = None,
    initial: TwoLayerNetwork | None = None,
    decay: float | None = None,
    loss: str | None = None,
    scale: str = "auto",
    non_negative: bool = False,
    noise: float | None = None,
    count: int | None = None,
    time_limit: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    hidden_share: float = HIDDEN_SHARE,
    arithmetic: str = "auto",
    assumptions: Assumptions | None = None,
) -> AuditReport:
    """Audit a network against the samples that trained it.

    The multipliers solve g = sum_i b_i grad f(x_i) in the least-squares sense, with lambda_i =
    b_i y_i >= 0 for KKT with labels; the residual is evaluated anew by `TwoLayerNetwork.gradient`.
    A sample is active if |b_i| |grad f(x_i)|, its parallels included, is more than ten times the
    noise level of the largest and more than that level moves it, |row i of A^+| times the level;
    the noise level is the largest of the residual, the rounding of the weights, `noise` and 1e-13.
    Exposed are the samples that `assess_identifiability`, which sees
    the weights alone, recovers to a relative error below 0.1: of the direction without a hidden
    bias (the weights do not fix its length), of the sample itself with one. The bounds that it
    prints are compared, not used. Parallel samples count as one.

    Args:
        network: the weights; for fine-tuning the final ones.
        samples: (n, d) or images (n, ...) with d numbers each.
        labels: (n,) of -1, +1 or 0, 1; needed for multipliers >= 0. Other labels are refused for
            KKT and left unused elsewhere.
        source: "kkt", "weight-decay", "gradient" or "fine-tuning".
        gradient, initial: for the two last sources.
        decay, loss: of the weight decay; without `decay` the b_i are in its units.
        scale, non_negative, noise, time_limit, progress, seed, hidden_share, arithmetic: as in
            `assess_identifiability`.
        count: the number of active samples that an attacker is taken to know.
        assumptions: scale, non_negative, noise, count (as `samples`), hidden_share and arithmetic
            as one record, in place of the single keywords.

    Raises:
        InvalidInputError: arrays that do not fit the network or each other, unknown words, more
            than 5,000 samples, a source without its file or a file without its source.
        UnsupportedModelError: polynomial activation or several outputs.

    Cost: that of `assess_identifiability` and of `fit_multipliers`.
    Source: stationarity, dual feasibility and complementary slackness of the max-margin problem
        (Lyu & Li 2020); non-negative least squares (Lawson & Hanson 1974).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> net = TwoLayerNetwork(rng.normal(size=(12, 6)), rng.normal(size=12), degree=3)
        >>> images = rng.normal(size=(4, 2, 3))
        >>> gradient = net.gradient(images.reshape(4, 6), [1.0, -2.0, 0.5, 1.5])
        >>> report = audit(net, images, source="gradient", gradient=gradient)
        >>> report.fit, np.round(report.multipliers, 9), [entry.index for entry in report.exposed]
        ('exact', array([ 1. , -2. ,  0.5,  1.5]), [0, 1, 2, 3])
    """
    started = time.monotonic()
    data = HermiteData.of(
        source, network, gradient=gradient, initial=initial, decay=decay, loss=loss
    )
    given = Assumptions.chosen(
        assumptions, samples=count, scale=scale, non_negative=non_negative, noise=noise,
        hidden_share=hidden_share, arithmetic=arithmetic,
    ).resolved(data)  # fmt: skip
    x = flat_samples(samples, network.dimension)
    y, notes = _two_classes(labels, len(x), source)
    fit = fit_multipliers(data, x, y if source == "kkt" else None)
    margins = network.value(x) * (1.0 if y is None else y)
    left = None if time_limit is None else max(time_limit - (time.monotonic() - started), 1e-3)
    report = assess_identifiability(
        data,
        time_limit=left if time_limit else time_limit,
        progress=progress,
        seed=seed,
        assumptions=given,
    )

    level = max(fit.residual, data.rounding, given.noise or 0.0, 1e-13)
    quality = _quality(fit, report.noise_level)
    active = None
    if fit.unique and quality in ("exact", "approximate"):
        largest = float(fit.contributions.max(initial=0.0))
        # Where gradients are nearly dependent the data's error moves the multipliers by more.
        floor = level * np.maximum(10.0 * largest, fit.sensitivities)
        strong = (fit.contributions > floor) & (fit.coefficients != 0.0)
        active = tuple(int(i) for i in np.flatnonzero(strong))
    parallel = _parallel(fit)
    bias = network.has_bias
    heads = np.unique(fit.groups)
    exposed: tuple[Exposure, ...] = ()
    recovered = 0
    if report.recovery is not None:
        recovered = len(report.recovery.samples)
        matching = match_samples(
            report.recovery.samples,
            x[heads],
            up_to_sign=not bias and not given.non_negative,
            up_to_scale=not bias,
        )
        exposed = _exposures(matching, heads, report.recovery.error_bounds, parallel)
    slackness = _slackness(source, fit.coefficients, y, margins, active)
    notes += data_notes(data, fit, x, y, margins, active, parallel, slackness)
    notes += exposure_notes(report, fit, exposed, active, recovered, quality == "exact")
    if report.recovery is not None:
        notes += affine_note(report.recovery.samples, x, len(exposed), fixed_scale=bias)
    if given.scale == "unit":
        norms = np.linalg.norm(x, axis=1)
        if np.ptp(norms) > 1e-6 * norms.max() or abs(norms.max() - 1.0) > 1e-6:
            notes.append(
                f"the samples have norms {number(float(norms.min()))} to "
                f"{number(float(norms.max()))}: the assumption of norm 1 is wrong"
            )
    moved = level * np.abs(fit.coefficients) * fit.sensitivities
    parts = np.where(fit.contributions > 0.0, fit.contributions, np.nan)
    lambdas = source == "kkt" and y is not None
    return AuditReport(
        source=source,
        kind="lambda" if lambdas else "b",
        multipliers=np.abs(fit.coefficients) if lambdas else fit.coefficients,
        coefficients=fit.coefficients,
        residual=None if quality == "not checkable" else fit.residual,
        redundant_equations=fit.redundant,
        fit=quality,
        active=active,
        margins=margins,
        labels=y,
        slackness=slackness,
        parallel=parallel,
        exposed=exposed,
        recovered=recovered,
        unmatched=recovered - len(exposed),
        identifiability=report,
        notes=tuple(notes),
        seconds=time.monotonic() - started,
        multiplier_bounds=moved / parts if fit.unique else np.full(len(x), np.nan),
    )


def _two_classes(
    labels: npt.ArrayLike | None, count: int, source: str
) -> tuple[FloatArray | None, list[str]]:
    """Labels as +-1, None if there are none that can be used, and what to say about it."""
    if labels is None:
        return None, []
    array = np.asarray(labels)
    y = real_array("labels", array.astype(np.float64) if array.dtype == np.bool_ else array)
    y = flat_labels(y, count)
    signs = as_signs(y)
    if signs is not None:
        return signs, []
    if source == "kkt":
        values = ", ".join(f"{value:g}" for value in np.unique(y)[:6])
        raise InvalidInputError("labels", "two classes", values, "one output separates two")
    return None, ["the labels are not two classes; they were not used"]


def _quality(fit: MultiplierFit, noise_level: float) -> str:
    if fit.redundant < 1 and fit.residual <= EXACT:
        return "not checkable"
    if fit.residual <= max(10.0 * noise_level, 1e-10) and fit.residual < UNEXPLAINED:
        return "exact"
    return "approximate" if fit.residual < UNEXPLAINED else "none"


def _parallel(fit: MultiplierFit) -> tuple[tuple[int, ...], ...]:
    sizes = np.bincount(fit.groups)
    return tuple(
        tuple(int(i) for i in np.flatnonzero(fit.groups == head))
        for head in np.flatnonzero(sizes > 1)
    )


def _exposures(
    matching: Matching,
    heads: npt.NDArray[np.intp],
    bounds: FloatArray,
    parallel: tuple[tuple[int, ...], ...],
) -> tuple[Exposure, ...]:
    others = {group[0]: group[1:] for group in parallel}
    entries = []
    for head, row, error in zip(heads, matching.indices, matching.errors, strict=True):
        if error >= DIFFERENT:
            continue
        bound = float(bounds[row])
        entries.append(
            Exposure(
                index=int(head),
                error=float(error),
                bound=bound if np.isfinite(bound) else None,
                recovered=int(row),
                parallel=others.get(int(head), ()),
            )
        )
    return tuple(entries)


def _slackness(
    source: str,
    coefficients: FloatArray,
    labels: FloatArray | None,
    margins: FloatArray,
    active: tuple[int, ...] | None,
) -> float | None:
    """Relative spread of y_i f(x_i) over the active samples of a KKT point, None without them."""
    if source != "kkt" or not active:
        return None
    chosen = list(active)
    signs = 1.0 if labels is not None else np.sign(coefficients[chosen])
    tight = margins[chosen] * signs
    size = float(np.abs(tight).max())
    return float(np.ptp(tight)) / size if size > 0.0 else None
