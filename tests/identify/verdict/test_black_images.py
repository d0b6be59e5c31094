"""A hidden bias makes a black image a sample like any other: judged by |(x, 1)|."""

import numpy as np
import pytest

from identify import HermiteData, TwoLayerNetwork, Verdict, assess_identifiability
from identify.exposure.compare import compare_recovery


@pytest.mark.parametrize(
    ("seed", "size", "dtype", "degree"),
    [
        (0, 0.0, np.float64, 3), (1, 0.0, np.float32, 3), (2, 0.0, np.float64, 4),
        (3, 1e-3, np.float32, 3), (4, 1e-8, np.float64, 3), (5, 0.0, np.float32, 5),
    ],
)  # fmt: skip
def test_black_image_is_answered(seed: int, size: float, dtype: type, degree: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.random((4, 8))
    x[0] = size * rng.random(8)
    net = TwoLayerNetwork(
        rng.normal(size=(60, 8)), rng.normal(size=60), degree, hidden_bias=rng.normal(size=60)
    )
    g = net.gradient(x, rng.choice([-1.0, 1.0], 4) * rng.uniform(0.3, 1.0, 4))
    gradient = TwoLayerNetwork(
        g.hidden_weight.astype(dtype), g.output_weight.astype(dtype), degree,
        hidden_bias=None if g.hidden_bias is None else g.hidden_bias.astype(dtype),
    )  # fmt: skip
    report = assess_identifiability(HermiteData.from_gradient(net, gradient))
    assert report.verdict is Verdict.GLOBALLY
    assert report.recovery is not None
    table = compare_recovery(report.recovery, x, degree, "bias")
    assert table.within_bounds == 4
    assert report.absolute_bounds is not None
    assert np.max(np.array(report.absolute_bounds, dtype=float)) < 0.1
    assert "absolute" in str(report)
