"""The confirmations of the samples: each is recomputed from the files and held to the report."""

from __future__ import annotations

import numpy as np

from ..outcome import FloatArray, NotCheckableError, check_possible, require
from .case import Case

BOUND_LIMIT = 0.1
LOOSEST = 0.03
_EPSILON = 2.0**-52
_ROUNDING = 1e-9
_ALONG = 3.0
_CLOSE = 1.25
_SMALLER = 1.5


def check_samples(case: Case) -> str:
    """Least squares on the stated masks and slopes give the stated samples, one by one."""
    answer, run = case.answer, case.run
    r = case.top.rank
    require(len(answer.samples) == r, f"{len(answer.samples)} samples, the rank is {r}")
    biased = any(b is not None for b in case.gradient.biases[answer.layer : case.network.top + 1])
    require(
        answer.scaled == biased, f"the length of the samples is {'' if biased else 'not '}known"
    )
    samples, features, _ = case.bounds
    top = case.network.top
    worst = 0.0
    for index in dict.fromkeys((answer.layer, top)):
        delta, h = run.deltas[index - answer.layer], run.inputs[index - answer.layer]
        g = case.gradient.joined(index)
        if g is None:
            raise NotCheckableError(f"the gradient of layer {index + 1} is not supplied")
        spread = np.linalg.svd(delta, compute_uv=False)
        require(len(delta) <= delta.shape[1] and spread[-1] > 1e-13 * spread[0],
                f"the samples' cotangents at layer {index + 1} are dependent")  # fmt: skip
        own = np.linalg.lstsq(delta.T, g, rcond=None)[0]
        size = np.maximum(np.linalg.norm(h, axis=1), 1e-300)
        width = h.shape[1]
        away = np.linalg.norm(own[:, :width] - h, axis=1) / size
        # At the layer reached the samples are this solution; above they are sent through layers.
        share = 0.3 * samples if index == answer.layer else 3.0 * (samples + features)
        allowed = share + _ROUNDING
        i = int(np.argmax(away / allowed))
        require((away <= allowed).all(),
                f"sample {i + 1} is {away[i]:.1e} off what layer {index + 1} says, its bound is "
                f"{samples[i]:.1e}")  # fmt: skip
        if own.shape[1] > width and answer.scaled:
            lifted = np.sqrt(1.0 + size**2)
            off = np.abs(own[:, -1] - 1.0)
            require((off <= (3.0 * (samples + features) + _ROUNDING) * lifted).all(),
                    f"the bias of layer {index + 1} does not give the samples' scale")  # fmt: skip
        worst = max(worst, float(away.max()))
    _check_ones(case)
    return f"{r} samples follow from masks and slopes, to {worst:.1e}"


def _check_ones(case: Case) -> None:
    """How many coefficients of biases have to be 1: one a sample and layer once a scale is known.

    At the layer reached they may count although its own bias gives the scale.
    """
    stated, biases = case.report.check("coefficients of the biases"), case.gradient.biases
    if stated is None:
        return
    reached, top, count = case.answer.layer, case.network.top, len(case.answer.samples)
    given = [k for k in range(reached, top) if biases[k] is not None]
    known = given if case.has_bias else given[:-1]
    sure = count * len(known)
    last = {count} if biases[reached] is not None and reached not in known else set()
    require(stated["equations"] in {sure, *(sure + more for more in last)},
            f"{sure} coefficients of biases, not {stated['equations']}")  # fmt: skip
    if last:
        case.not_checked["checks.equations"] = None
    require(stated["holds"] is (True if stated["equations"] else None),
            "whether the coefficients of the biases are 1 is misstated")  # fmt: skip


def check_slopes(case: Case) -> str:
    """delta of every sample lies in the column space, and p is what its mask admits."""
    top, delta = case.top, case.delta
    outside = np.linalg.norm(delta - top.left @ case.coordinates.T, axis=0)
    carried = top.noise * np.linalg.norm(case.coordinates / top.values, axis=1)
    allowed = 10.0 * carried * np.sqrt(len(delta)) + 1e-12 * np.linalg.norm(delta, axis=0)
    i = int(np.argmax(outside / allowed))
    away = (f"the error signal of sample {i + 1} is not in the column space: {outside[i]:.1e} of "
            f"it is outside, noise allows {allowed[i]:.1e}")  # fmt: skip
    # Errors along the samples leave no tail; the kernel may lie that far above the noise.
    require((outside <= _ALONG * allowed).all(), away)
    check_possible((outside <= allowed).all(), away)
    admitted = case.slopes @ case.space.T
    off = np.linalg.norm(admitted - case.answer.cotangents, axis=1)
    sizes = np.linalg.norm(case.answer.cotangents, axis=1)
    require((off <= 1e-9 * sizes).all(), "a slope that the loss does not admit")
    if case.slopes.shape[1] > 1:
        for k, p in enumerate(case.slopes):
            own = case.refit(k)[2][-1]
            unit = p / max(float(np.linalg.norm(p)), 1e-300)
            turned = float(np.linalg.norm(unit - own * float(own @ unit)))
            limit = 3.0 * case.slope_bounds[k] + 1e-7
            require(turned <= limit, f"the slope of sample {k + 1} is {turned:.1e} off its mask's")
    return f"{len(delta[0])} error signals in the column space"


def check_masks(case: Case) -> str:
    """Check (a): the masks are those of the column space and those of the signs of every layer."""
    answer, run, leak = case.answer, case.run, case.network.leak
    samples, features, _ = case.bounds
    amplitude = case.amplitudes @ case.slopes.T
    y = case.top.left @ case.coordinates.T
    share = y * np.sign(amplitude) / np.maximum(np.abs(amplitude), 1e-300)
    room = (share - 0.5 * (1.0 + leak)) / (1.0 - leak)
    read = np.abs(room) > 5.0 * case.entry_noise
    z = run.z[-2].T
    top = len(answer.masks) - 1
    seen = np.abs(z) > _kink_error(case, top, features + 8.0 * _EPSILON).T
    wrong = int(((room > 0.0) != case.masks)[read].sum())
    require(wrong == 0, f"{wrong} mask entries are not those of the column space")
    clash = int(((z > 0.0) != (room > 0.0))[read & seen].sum())
    require(clash == 0, f"{clash} mask entries contradict the signs of W h + beta")
    count, r = int((read & seen).sum()), case.top.rank
    check_possible(count > r, f"{count} mask entries can be read, {r + 1} are asked for")
    relative = np.maximum(samples, features) + 1e-14
    for k, mask in enumerate(answer.masks):
        if mask is not None:
            different = mask != (run.z[k] > 0.0)
            far = int((different & (np.abs(run.z[k]) > _kink_error(case, k, relative))).sum())
            layer = answer.layer + k + 1
            require(far == 0, f"{far} mask entries of layer {layer} contradict the samples")
    stated = case.report.check("masks agree with signs")
    if stated is not None:
        # Entries at the edge of their error may be read by one of two programs.
        require(case.is_near("checks.equations", float(stated["equations"]), count, 1.05, 20.0),
                f"{count} mask entries were compared, not {stated['equations']}")  # fmt: skip
        if stated["equations"] != count:
            case.not_checked["checks.equations"] = None
    used = case.report.check("masks of the samples")
    total = sum(mask.size for mask in answer.masks if mask is not None)
    require(used is None or used["equations"] == total, f"{total} entries of masks of the samples")
    return f"{count} entries of the last hidden layer agree with their signs"


def _kink_error(case: Case, k: int, relative: FloatArray) -> FloatArray:
    """The error of z at a layer for samples with that relative error, (n, m)."""
    index = case.answer.layer + k
    weight, bias = case.network.weights[index], case.network.bias(index)
    size = np.sqrt(np.sum(weight**2, axis=1) + bias**2)
    length = np.sqrt(np.sum(case.run.inputs[k] ** 2, axis=1) + 1.0)
    return np.asarray((relative * length)[:, None] * size)


def layer_residuals(case: Case) -> dict[int, tuple[float, float]]:
    """Checks (b), (d), (e): the relative residual of every supplied gradient, and its limit."""
    answer, run = case.answer, case.run
    largest = float(case.bounds[0].max())
    found = {}
    for index in range(answer.layer, len(case.network.weights)):
        g = case.gradient.joined(index) if answer.scaled else case.gradient.weights[index]
        if g is None:
            continue
        h = run.inputs[index - answer.layer]
        if g.shape[1] > h.shape[1]:
            h = np.column_stack([h, np.ones(len(h))])
        left = np.linalg.norm(g - run.deltas[index - answer.layer].T @ h)
        residual = float(left) / max(float(np.linalg.norm(g)), 1e-300)
        noise = layer_noise(case, index)
        found[index] = residual, 10.0 * noise + 3.0 * largest
    return found


def layer_noise(case: Case, index: int) -> float:
    """The relative noise of a gradient; without a clear rank at most that of the clear ones.

    Errors are relative or absolute: the larger counts.
    """
    if index not in case.spectra:
        return 1e-12
    own = case.spectra[index]
    clear = [spectrum for spectrum in case.spectra.values() if spectrum.clear]
    if own.clear or not clear:
        return own.relative_noise
    size = float(np.sqrt(own.shape[0] * own.shape[1]) / np.linalg.norm(own.values))
    least = max(max(s.noise * size, s.relative_noise) for s in clear)
    return min(own.relative_noise, least)


def check_layers(case: Case) -> str:
    """The samples give back the gradient of every layer, to the noise."""
    answer = case.answer
    below = [k for k in range(answer.layer) if case.gradient.weights[k] is not None]
    check_possible(not below, "gradients below the samples")
    found = layer_residuals(case)
    for index, (residual, limit) in found.items():
        require(residual <= limit,
                f"the samples leave {residual:.1e} of the gradient of layer {index + 1}, "
                f"{limit:.1e} is allowed")  # fmt: skip
        check_possible(limit <= LOOSEST, f"errors allow {limit:.1e} at layer {index + 1}")
        stated = case.report.check(f"gradient of layer {index + 1}")
        if stated is None:
            require(False, f"no check of the gradient of layer {index + 1} is stated")
        else:
            require(case.is_near("checks.value", stated["value"], residual, 1.5, 1e-13),
                    f"the residual of layer {index + 1} is {residual:.1e}, not "
                    f"{stated['value']}")  # fmt: skip
            g = case.gradient.joined(index) if answer.scaled else case.gradient.weights[index]
            solved = len(answer.samples) if index in (answer.layer, case.network.top) else 0
            rows, columns = (0, 0) if g is None else g.shape
            require(stated["equations"] == max(0, rows - solved) * columns,
                    f"{stated['equations']} equations at layer {index + 1}")  # fmt: skip
    worst = max(residual for residual, _ in found.values())
    return f"{len(found)} layers, the largest residual {worst:.1e}"


def check_searched(case: Case) -> str:
    """The samples of a search give back every supplied gradient from their layer upwards.

    Their residuals are held against the stated limits, and the limits against what can be called a
    confirmation.
    """
    answer, run = case.answer, case.run
    count = case.report.raw["rank"]
    require(len(answer.samples) == count, f"{len(answer.samples)} samples, the rank is {count}")
    worst, seen = 0.0, 0
    for index in range(answer.layer, len(case.network.weights)):
        g = case.gradient.weights[index]
        if g is None:
            continue
        k = index - answer.layer
        left = np.linalg.norm(g - run.deltas[k].T @ run.inputs[k])
        residual = float(left) / max(float(np.linalg.norm(g)), 1e-300)
        stated = case.report.check(f"gradient of layer {index + 1}")
        limit = None if stated is None else stated["limit"]
        if limit is None:
            require(False, f"no check of the gradient of layer {index + 1} is stated")
            continue
        require(limit <= LOOSEST, f"a limit of {limit} confirms nothing")
        # With its bias the layer has one column more, whose share of the norm may be large.
        require(residual <= 3.0 * limit + 1e-11,
                f"the samples leave {residual:.1e} of the gradient of layer {index + 1}, "
                f"{limit:.1e} is allowed")  # fmt: skip
        worst, seen = max(worst, residual), seen + 1
    return f"{seen} layers, the largest residual {worst:.1e}"


def check_bounds(case: Case) -> str:
    """The error bounds are those of the documented formula, and small enough."""
    own = case.bounds[0]
    stated = case.report.raw["error_bounds"]
    require(stated is not None and len(stated) == len(own), "an error bound for each sample")
    # At the level of rounding the noise is one of this computation.
    factor = 4.0 if case.top.rounded else _CLOSE
    for i, (said, mine) in enumerate(zip(stated, own, strict=True)):
        # A bound may be too large by more than it may be too small.
        close = case.is_near("error_bounds", said, float(mine), factor)
        require(close and said >= mine / min(factor, _SMALLER),
                f"the error bound of sample {i + 1} is {mine:.2e}, not {said}")  # fmt: skip
    require(own.max() <= BOUND_LIMIT or not case.report.globally,
            f"an error bound of {own.max():.2g}, {BOUND_LIMIT} is the limit")  # fmt: skip
    return f"{own.min():.1e} to {own.max():.1e}"
