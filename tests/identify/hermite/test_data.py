"""Hermite data of every source, and their reduction to V."""

import numpy as np
import pytest

from identify import (
    HermiteData,
    InvalidInputError,
    NotYetSupportedError,
    TwoLayerNetwork,
    Verdict,
    assess_identifiability,
)
from identify.hermite.reduction import distinct_directions, reduce_data
from identify.numerical_rank import row_space
from identify.tensors import symmetric_dimension
from tests.identify.families import gradient_case, stationary_network, unit_rows


def tensor_rows(points: np.ndarray, samples: np.ndarray, b: np.ndarray, degree: int) -> np.ndarray:
    """T(u^(degree-1), .), sample by sample."""
    rows = np.zeros_like(points)
    for j, u in enumerate(points):
        for x, height in zip(samples, b, strict=True):
            rows[j] += height * float(u @ x) ** (degree - 1) * x
    return rows


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("degree", [3, 4, 5])
def test_gradient_rows_are_the_tensor(degree: int, bias: bool) -> None:
    rng = np.random.default_rng(degree)
    m, d, n = 9, 5, 3
    network = TwoLayerNetwork(
        rng.normal(size=(m, d)), rng.normal(size=m), degree=degree,
        hidden_bias=rng.normal(size=m) if bias else None,
    )  # fmt: skip
    samples, b = rng.normal(size=(n, d)), rng.normal(size=n)
    data = HermiteData.from_gradient(network, network.gradient(samples, b))
    lifted = network.lift(samples)
    expected = tensor_rows(data.points, lifted, b, degree) * data.scales[:, None]
    assert np.allclose(data.rows, expected)
    assert data.values is not None
    assert np.allclose(data.values, (data.points @ lifted.T) ** degree @ b)
    assert data.consistency is not None
    assert data.consistency < 1e-13


@pytest.mark.parametrize("degree", [3, 4])
@pytest.mark.parametrize("decay", [None, 0.03])
def test_stationary_rows_are_the_tensor(degree: int, decay: float | None) -> None:
    rng = np.random.default_rng(degree)
    samples = unit_rows(rng.normal(size=(4, 6)))
    b = np.ones(4)
    network = stationary_network(samples, b, degree, 0)
    assert network is not None
    data = HermiteData.from_weight_decay(network, decay=decay)
    unit = 1.0 if decay is None else decay
    expected = tensor_rows(data.points, samples, b * unit, degree) * data.scales[:, None]
    assert np.allclose(data.rows, expected, atol=1e-12)
    assert data.consistency is not None
    assert data.consistency < 1e-13


def test_fine_tuning_is_first_order() -> None:
    """The remainder falls with the movement; the midpoint is exact to second order in time."""
    rng = np.random.default_rng(0)
    samples = unit_rows(rng.normal(size=(3, 5)))
    start = TwoLayerNetwork(rng.normal(size=(12, 5)), rng.normal(size=12), degree=3)
    b = np.array([1.0, -0.7, 0.4])
    errors: dict[str, list[float]] = {"midpoint": [], "initial": []}
    for size in (1e-3, 1e-4):
        now = start
        total = np.zeros(3)
        for _ in range(20):
            step = now.gradient(samples, -size / 20 * b)
            total += size / 20 * b
            now = TwoLayerNetwork(
                now.hidden_weight - step.hidden_weight, now.output_weight - step.output_weight,
                degree=3,
            )  # fmt: skip
        for point in errors:
            data = HermiteData.from_fine_tuning(start, now, point=point)
            rows = tensor_rows(data.points, samples, total, 3) * data.scales[:, None]
            errors[point].append(
                float(np.linalg.norm(data.rows - rows) / np.linalg.norm(data.rows))
            )
    assert errors["initial"][0] / errors["initial"][1] == pytest.approx(10, rel=0.2)
    assert errors["midpoint"][0] < errors["initial"][0] / 2


@pytest.mark.parametrize("degree", [3, 4])
def test_reduction_keeps_the_tensor(degree: int) -> None:
    """Unit points, targets, merging of parallel and dropping of dead neurons."""
    rng = np.random.default_rng(1)
    n, d, m = 3, 7, 12
    hidden, output = rng.normal(size=(m, d)), rng.normal(size=m)
    hidden[4], output[5] = -2.0 * hidden[3], 1e-15
    samples, b = rng.normal(size=(n, d)), rng.normal(size=n)
    case = gradient_case("plain", hidden, output, samples, b, degree)
    data = reduce_data(case.data, 1e-13)
    assert data.dimension == n
    assert data.dropped == 1
    assert data.merged == 1
    assert data.neurons == m - 2
    assert np.allclose(np.linalg.norm(data.points, axis=1), 1.0)
    inside = samples @ data.basis
    expected = tensor_rows(data.points, inside, b, degree) / data.tensor_scale
    assert np.allclose(data.targets, expected, rtol=1e-9, atol=1e-12)
    assert data.off_span < 1e-13
    assert data.merge_residual < 1e-13


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_extreme_scales_of_the_weights(scale: float) -> None:
    """|u|^alpha leaves float64 long before the weights do."""
    rng = np.random.default_rng(2)
    samples = unit_rows(rng.normal(size=(4, 6)))
    network = stationary_network(samples, np.ones(4), 3, 0)
    assert network is not None
    scaled = TwoLayerNetwork(network.hidden_weight * scale, network.output_weight * scale, degree=3)
    plain = reduce_data(HermiteData.from_weight_decay(network), 1e-13)
    moved = reduce_data(HermiteData.from_weight_decay(scaled), 1e-13)
    assert np.allclose(np.abs(plain.points @ plain.points.T), np.abs(moved.points @ moved.points.T))
    assert np.allclose(plain.weights, moved.weights)


def test_row_space_sees_weak_directions() -> None:
    """The range finder keeps singular values of 1e-9 that powers of the matrix would lose."""
    rng = np.random.default_rng(3)
    left, _ = np.linalg.qr(rng.normal(size=(700, 20)))
    right, _ = np.linalg.qr(rng.normal(size=(900, 20)))
    values = np.logspace(0, -9, 20)
    basis, decision = row_space((left * values) @ right.T, 1e-12, 0)
    assert decision.rank == 20
    assert decision.clear
    assert decision.smallest == pytest.approx(1e-9, rel=1e-3)
    assert np.linalg.norm(right - basis @ (basis.T @ right)) < 1e-5


def test_unclear_gap_is_said() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(30, 10)) * np.logspace(0, -16, 10)
    _, decision = row_space(rows, 1e-9, 0)
    assert not decision.clear


def test_distinct_directions_counts_in_the_input_space() -> None:
    """Neurons that coincide in V count as many as they are."""
    rng = np.random.default_rng(5)
    case = gradient_case(
        "r = 1", rng.normal(size=(6, 4)), rng.normal(size=6), rng.normal(size=(1, 4)),
        np.ones(1), 3,
    )  # fmt: skip
    assert reduce_data(case.data, 1e-13).neurons == 1
    assert distinct_directions(case.data, 1e-13) == 6
    assert symmetric_dimension(3, 1) == 1


def network(**changes: object) -> TwoLayerNetwork:
    rng = np.random.default_rng(7)
    fields = {"hidden_weight": rng.normal(size=(9, 4)), "output_weight": rng.normal(size=9)}
    return TwoLayerNetwork(**{**fields, "degree": 3, **changes})  # type: ignore[arg-type]


def test_bad_data_are_refused() -> None:
    plain = network()
    samples, b = np.eye(4)[:3], np.array([1.0, -1.0, 0.5])
    gradient = plain.gradient(samples, b)
    zero = network(hidden_weight=np.zeros((9, 4)), output_weight=np.zeros(9))
    with pytest.raises(InvalidInputError, match="non-zero gradient"):
        HermiteData.from_gradient(plain, zero)
    with pytest.raises(InvalidInputError, match="all zeros"):
        HermiteData.from_gradient(network(output_weight=np.zeros(9)), gradient)
    with pytest.raises(InvalidInputError, match="shape"):
        HermiteData.from_gradient(network(hidden_weight=np.ones((9, 5))), gradient)
    with pytest.raises(InvalidInputError, match="fits degree"):
        HermiteData.from_gradient(network(degree=4), gradient)
    with pytest.raises(InvalidInputError, match="all neurons dead"):
        HermiteData.from_kkt(zero)
    with pytest.raises(InvalidInputError, match="differ"):
        HermiteData.from_fine_tuning(plain, plain)
    with pytest.raises(InvalidInputError, match="decay"):
        HermiteData.from_weight_decay(plain, decay=-1.0)
    with pytest.raises(NotYetSupportedError):
        HermiteData.from_kkt(network(output_weight=np.ones((3, 9))))


@pytest.mark.parametrize("size", [1e-310, 1e-300, 1e-200, 1e200, 1e300])
@pytest.mark.parametrize("part", ["network", "gradient", "both"])
def test_sizes_that_no_square_holds_are_no_error(size: float, part: str) -> None:
    plain = network()
    gradient = plain.gradient(np.eye(4)[:3], [1.0, -1.0, 0.5])
    rows = gradient.hidden_weight * (1.0 if part == "network" else size)
    points = plain.hidden_weight * (1.0 if part == "gradient" else size)
    data = HermiteData.from_gradient(
        network(hidden_weight=points),
        network(hidden_weight=rows, output_weight=gradient.output_weight),
    )
    assert 0.0 <= (data.consistency or 0.0) <= 1.0


def descended(seed: int, steps: int, degree: int) -> tuple[TwoLayerNetwork, TwoLayerNetwork]:
    """Gradient descent on the logistic loss of three samples, all at once."""
    rng = np.random.default_rng([seed, degree])
    start = TwoLayerNetwork(rng.normal(size=(30, 6)) / 2.5, rng.normal(size=30), degree=degree)
    x, y = rng.normal(size=(3, 6)), np.array([1.0, -1.0, 1.0])
    x /= np.abs(start.value(x))[:, None] ** (1.0 / degree)
    net = start
    for _ in range(steps):
        g = net.gradient(x, -y / (1.0 + np.exp(y * net.value(x))))
        net = TwoLayerNetwork(
            net.hidden_weight - 1e-3 / steps * g.hidden_weight,
            net.output_weight - 1e-3 / steps * g.output_weight,
            degree=degree,
        )
    return start, net


@pytest.mark.parametrize("degree", [3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("steps", "point"), [(1, "initial"), (200, "midpoint")])
def test_fine_tuning_is_read_where_it_fits_better(
    steps: int, point: str, seed: int, degree: int
) -> None:
    start, net = descended(seed, steps, degree)
    data = HermiteData.from_fine_tuning(start, net)
    assert data.point == point
    other = "midpoint" if point == "initial" else "initial"
    worse = HermiteData.from_fine_tuning(start, net, point=other)
    assert data.consistency is not None
    assert worse.consistency is not None
    assert data.consistency < 0.1 * worse.consistency
    if steps == 1:
        assert assess_identifiability(data, evidence="numerical").verdict is Verdict.GLOBALLY


class TestByName:
    """`HermiteData.of` is the constructor of its source, and refuses what belongs to another."""

    def test_the_same_as_the_constructors(self) -> None:
        rng = np.random.default_rng(0)
        network, other = (
            TwoLayerNetwork(rng.normal(size=(9, 4)), rng.normal(size=9), degree=3) for _ in "ab"
        )
        gradient = network.gradient(rng.normal(size=(3, 4)), np.ones(3))
        planted = stationary_network(np.eye(3), np.ones(3), 3, 0)
        assert planted is not None
        for found, made in (
            (HermiteData.of("kkt", planted), HermiteData.from_kkt(planted)),
            (
                HermiteData.of("weight-decay", planted, decay=0.5, loss="logistic"),
                HermiteData.from_weight_decay(planted, 0.5, "logistic"),
            ),
            (
                HermiteData.of("gradient", network, gradient=gradient, gradient_decay=0.0),
                HermiteData.from_gradient(network, gradient, decay=0.0),
            ),
            (
                HermiteData.of("fine-tuning", other, initial=network),
                HermiteData.from_fine_tuning(network, other),
            ),
        ):
            assert found.source == made.source
            assert np.array_equal(found.rows, made.rows)
            assert (found.decay, found.loss, found.inputs) == (made.decay, made.loss, made.inputs)

    @pytest.mark.parametrize(
        ("source", "extra", "message"),
        [
            ("magic", {}, "source: expected one of kkt"),
            ("gradient", {}, "gradient: expected a network exactly"),
            ("fine-tuning", {}, "initial: expected a network exactly"),
            ("kkt", {"gradient": True}, "gradient: .* got one with source kkt"),
            ("gradient", {"gradient": True, "initial": True}, "initial: "),
            ("kkt", {"decay": 0.1}, "decay: expected none"),
            ("gradient", {"gradient": True, "decay": 0.1}, "decay: expected none"),
            ("weight-decay", {"gradient_decay": 0.1}, "gradient_decay: expected none"),
        ],
    )
    def test_what_does_not_belong_together(self, source, extra, message) -> None:
        network = TwoLayerNetwork(np.eye(3), np.ones(3), degree=3)
        given = {name: network if value is True else value for name, value in extra.items()}
        with pytest.raises(InvalidInputError, match=message):
            HermiteData.of(source, network, **given)
