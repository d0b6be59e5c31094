"""A recovery without rank and verdict: what the benchmarks and the speed tests time."""

from __future__ import annotations

from identify.arrays import FloatArray
from identify.budget import UNLIMITED
from identify.decomposition.decompose import decompose_tensor
from identify.hermite.data import HermiteData
from identify.hermite.reduction import ReducedData, reduce_data
from identify.interpolation.interpolate import DENSE_COLUMNS, DENSE_LIMIT, interpolate
from identify.interpolation.solvers import Interpolation, WeightedEquations
from identify.recovery.measure import measure_large
from identify.recovery.samples import to_samples
from identify.recovery.stages import Decomposed, Reduced
from identify.tensors import symmetric_dimension
from identify.thresholds import NOISE_FLOOR


def minimum_norm(data: ReducedData, noise_level: float) -> Interpolation:
    """T without any statement about rank: dense at small size, else ready for `solve_tensor`."""
    required = symmetric_dimension(data.degree, data.dimension)
    if data.equations * required <= DENSE_LIMIT and required <= DENSE_COLUMNS:
        return interpolate(data, noise_level, method="dense")
    equations = WeightedEquations.of(data, noise_level)
    return Interpolation(
        required=required,
        rank=min(data.equations, required),
        decision=None,
        determined=None,
        method="not decided",
        tensor=None,
        residual=None,
        redundant=max(0, data.equations - required),
        condition_number=None,
        condition_method=None,
        flat=(symmetric_dimension(data.degree - 1, data.dimension), None),
        value=(required, None),
        gram=equations.gram(),
        row_noise=equations.noise,
    )


def estimate_samples(data: HermiteData, *, seed: int = 0) -> FloatArray:
    """The samples (n, d) that the data would have if they are determined: no rank, no verdict.

    Cost: one solve with the Gram operator and a few refinement steps, about half of an assessment.
    """
    rho = max(data.consistency or 0.0, data.rounding, NOISE_FLOOR)
    reduced = reduce_data(data, rho, seed=seed)
    linear = minimum_norm(reduced, rho)
    if linear.gram is not None:
        found = measure_large(Reduced(rho, reduced, reduced.neurons), linear, seed, UNLIMITED)
        assert isinstance(found, Decomposed)
        decomposition = found.decomposition
    else:
        assert linear.tensor is not None
        tried = decompose_tensor(reduced, linear.tensor, accept=10.0 * rho, seed=seed)
        assert tried is not None
        decomposition = tried
    scale = "bias" if data.has_bias else "free"
    return to_samples(data, reduced, decomposition.terms, decomposition.signs, scale).samples
