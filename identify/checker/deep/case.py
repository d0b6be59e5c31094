"""The last hidden layer of a network with its gradient and the samples of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..outcome import BoolArray, FloatArray, NotCheckableError, check_possible, require
from .kernel import Operator, build_operator
from .network import Layers
from .passes import READABLE, Network, Run, run_answer
from .report import Answer, DeepReport
from .spectra import InTime, Spectrum, find_spectra

_SIGMAS = 4.0
_EPSILON = 2.0**-52
_MOST_OUTPUTS = 32
_SAME = 1.02


def near(stated: float | None, own: float, factor: float, floor: float = 0.0) -> bool:
    """Whether two numbers agree to a factor, or both lie below what rounding decides.

    Example:
        >>> near(1.1, 1.0, 1.25), near(None, 1.0, 1.25), near(1e-16, 3e-16, 1.25, 1e-15)
        (True, False, True)
    """
    if stated is None or not (np.isfinite(stated) and np.isfinite(own)):
        return False
    if max(abs(stated), abs(own)) <= floor:
        return True
    return own / factor <= stated <= own * factor


@dataclass(frozen=True, eq=False)
class Case:
    """A report beside what its files say; everything in it is computed from these once."""

    report: DeepReport
    network: Network
    gradient: Layers
    in_time: InTime
    not_checked: dict[str, None] = field(default_factory=dict)
    """Fields whose numbers are not those found here, but as near as rounding and chance leave."""

    def is_near(
        self, name: str, stated: float | None, own: float, factor: float, floor: float = 0.0
    ) -> bool:
        """Whether a field agrees to a factor; one that differs by 2 % or more is named."""
        if not near(stated, own, factor, floor):
            return False
        if not near(stated, own, _SAME):
            self.not_checked[name] = None
        return True

    @cached_property
    def spectra(self) -> dict[int, Spectrum]:
        """The spectrum of every gradient; a number of samples decides only where nothing is clear.

        Raises NotCheckableError for gradients that are too large.
        """
        top, assumed = self.network.top, self.report.raw["problem"]["samples"]
        check_possible(self.gradient.weights[top] is not None, "no gradient of the last hidden one")
        found = find_spectra(self.gradient, top, None, self.in_time)
        rank = found[top].rank
        clear = any(s.clear and s.rank == rank for s in found.values())
        if assumed is not None and assumed != rank and not clear:
            found = find_spectra(self.gradient, top, assumed, self.in_time)
        return found

    @property
    def top(self) -> Spectrum:
        """The spectrum of the last hidden layer's gradient."""
        return self.spectra[self.network.top]

    @property
    def answer(self) -> Answer:
        """The samples of the report; NotCheckableError without."""
        found = self.report.answer
        if found is None:
            raise NotCheckableError("the report has no samples")
        return found

    @cached_property
    def space(self) -> FloatArray:
        """A basis (C, q) of the slopes p that the loss admits and the output layer sees."""
        outputs = self.network.weights[-1]
        count = len(outputs)
        space = np.eye(count)
        if self.report.loss == "cross_entropy":
            space = np.linalg.qr(np.column_stack([np.ones(count), np.eye(count)]))[0][:, 1:count]
        _, values, turn = np.linalg.svd(outputs.T @ space, full_matrices=False)
        check_possible(values[0] > 0.0, "an output layer of zeros")
        seen = values > 1e-10 * values[0]
        return np.asarray(space if seen.all() else space @ turn[seen].T)

    @cached_property
    def amplitudes(self) -> FloatArray:
        """A (m, q): the weights from the neurons to the outputs, in that basis."""
        return np.asarray(self.network.weights[-1].T @ self.space)

    @property
    def has_bias(self) -> bool:
        """Whether the last column of the last hidden layer's gradient is that of its bias."""
        return self.gradient.biases[self.network.top] is not None

    @cached_property
    def run(self) -> Run:
        """The samples sent through the network."""
        answer = self.answer
        names = {name for name, _ in self.network.kinds[answer.layer :]}
        check_possible(names <= set(READABLE), f"activations other than {', '.join(READABLE)}")
        run = run_answer(self.network, answer)
        finite = all(np.isfinite(part).all() for part in (*run.z, *run.deltas))
        require(finite, "the samples leave the range of float64 in the network")
        return run

    @property
    def masks(self) -> BoolArray:
        """The masks at the last hidden layer, (m, n)."""
        found = self.answer.masks[-1]
        if found is None:
            raise NotCheckableError("a smooth activation before the output layer")
        return np.asarray(found.T)

    @cached_property
    def slopes(self) -> FloatArray:
        """p in the basis of the admissible slopes, (n, q)."""
        return np.asarray(self.answer.cotangents @ np.linalg.pinv(self.space.T))

    @property
    def delta(self) -> FloatArray:
        """delta of the last hidden layer, (m, n)."""
        return np.asarray(self.run.deltas[-2].T)

    @cached_property
    def coordinates(self) -> FloatArray:
        """z with delta nearest to U z, one row a sample, (n, r)."""
        return np.asarray((self.top.left.T @ self.delta).T)

    @cached_property
    def operator(self) -> Operator:
        """L of the last hidden layer."""
        return build_operator(self.top, self.amplitudes, self.network.leak)

    @property
    def degree(self) -> int:
        """That of the equations of the report: 2, or 3 with their products with each unknown."""
        kernel = self.report.raw["kernel"]
        return 2 if kernel is None else int(kernel.get("degree", 2))

    @cached_property
    def entry_noise(self) -> FloatArray:
        """Noise of an entry of delta over the distance of its two values, (m, n)."""
        carried = self.top.noise * np.linalg.norm(self.coordinates / self.top.values, axis=1)
        apart = np.abs(self.amplitudes @ self.slopes.T) * (1.0 - self.network.leak)
        return np.asarray(carried / np.maximum(apart, 1e-300))

    @cached_property
    def slope_bounds(self) -> FloatArray:
        """Relative error of p, up to its scale, (n,)."""
        errors = np.zeros(len(self.slopes))
        if self.slopes.shape[1] == 1:
            return errors
        for i, p in enumerate(self.slopes):
            z, values, _ = self.refit(i)
            unit = p / max(float(np.linalg.norm(p)), 1e-300)
            carried = self.top.noise * float(np.linalg.norm((z @ unit) / self.top.values))
            small = np.maximum(values[:-1], 1e-300)
            errors[i] = _SIGMAS * carried * float(np.sqrt(np.sum(small**-2.0)))
        return errors

    def refit(self, sample: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What the mask of a sample says about p: U^T (mask A), and how far mask A p leaves U.

        Returns (r, q), the singular values (q,) of the part outside, and their vectors (q, q).
        """
        target = self.amplitudes * self.run.slopes[-1][sample][:, None]
        z = self.top.left.T @ target
        _, values, turn = np.linalg.svd(target - self.top.left @ z, full_matrices=False)
        return np.asarray(z), values, turn

    @cached_property
    def bounds(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Relative error bounds of samples and features, and of the outputs, absolute; each (n,).

        h_i moves by the pseudo-inverse of Delta times the noise, and by what the errors of the p_j
        make of the delta_j; four standard deviations, first order.
        """
        layer, top, run = self.answer.layer, self.network.top, self.run
        units = self._units()
        size = np.linalg.norm(self.answer.cotangents, axis=1)
        inverse = np.linalg.pinv(run.deltas[-2].T)
        scale = _SIGMAS * self.top.noise * np.linalg.norm(inverse, axis=1)
        found = []
        for index in (layer, top):
            h, spectrum = run.inputs[index - layer], self.spectra[index]
            inverse = np.linalg.pinv(run.deltas[index - layer].T)
            turned = np.sqrt(sum((inverse @ unit[index - layer].T) ** 2 for unit in units))
            lifted = np.sqrt(np.sum(h**2, axis=1) + 1.0)
            relative = self.slope_bounds + (0.0 if index == top else scale)
            moved = np.linalg.norm(turned * (relative * size * lifted), axis=1)
            noise = spectrum.noise * (np.sqrt(spectrum.shape[1]) + _SIGMAS)
            total = np.linalg.norm(inverse, axis=1) * noise + moved + scale * lifted
            length = np.maximum(np.linalg.norm(h, axis=1), 1e-300)
            found.append(total / length + 16.0 * _EPSILON)
        weight = self.network.weights[layer]
        gain = np.sqrt(sum(np.sum((unit[0] @ weight) ** 2, axis=1) for unit in units))
        outputs = found[0] * np.linalg.norm(self.answer.samples, axis=1) * gain
        return found[0], found[1], outputs

    def _units(self) -> list[tuple[FloatArray, ...]]:
        """delta of every layer for unit slopes p, or for p itself where the outputs are many."""
        run, outputs = self.run, self.network.weights[-1].shape[0]
        if outputs > _MOST_OUTPUTS:
            size = np.maximum(np.linalg.norm(self.answer.cotangents, axis=1), 1e-300)[:, None]
            return [tuple(delta / size for delta in run.deltas[:-1])]
        result = []
        for c in range(outputs):
            delta = np.zeros((len(run.inputs[0]), outputs))
            delta[:, c] = 1.0
            deltas = []
            for k in range(len(run.slopes) - 1, -1, -1):
                delta = run.slopes[k] * (delta @ self.network.weights[self.answer.layer + k + 1])
                deltas.append(delta)
            result.append(tuple(reversed(deltas)))
        return result
