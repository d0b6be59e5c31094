"""The monitor of a training loop: what it says against batches whose size is known."""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import attack
import identify
from identify.errors import InvalidInputError, UnsupportableModelError
from tests.benchmarks.monitor import measure

PAGE = Path(__file__).resolve().parents[2] / "docs" / "monitor.md"


def network(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for size, following in itertools.pairwise(sizes):
        parts += [nn.Linear(size, following), activation()]
    return nn.Sequential(*parts[:-1])


def read(net: nn.Module, x: torch.Tensor, **options: int) -> attack.Reading:
    monitor = attack.Monitor(net, every=1, tell=None, **options)
    net.zero_grad()
    outputs = net(x)
    labels = torch.arange(len(x)) % outputs.shape[1]
    nn.functional.cross_entropy(outputs, labels).backward()
    found = monitor.step(len(x))
    assert found is not None
    return found


@pytest.mark.parametrize("batch", [1, 4, 12])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_batch_shows(batch: int, seed: int) -> None:
    found = read(network(30, 200, 150, 4), torch.rand(batch, 30), seed=seed)
    assert found.shown == found.determined == batch


def test_what_is_determined_is_what_the_verifier_separates() -> None:
    net = network(20, 160, 3).double()
    x = torch.rand(5, 20, dtype=torch.float64)
    assert read(net, x).determined == 5
    weights = [part.weight.detach().numpy() for part in net if isinstance(part, nn.Linear)]
    biases = [part.bias.detach().numpy() for part in net if isinstance(part, nn.Linear)]
    slopes = [part.weight.grad.numpy() for part in net if isinstance(part, nn.Linear)]
    more = [part.bias.grad.numpy() for part in net if isinstance(part, nn.Linear)]
    report = identify.assess_gradient(
        identify.DeepNetwork(weights, biases, "relu"),
        identify.DeepGradient(slopes, more),
        "cross_entropy",
    )
    assert (report.verdict, len(report.found.samples)) == ("globally", 5)


def test_equal_samples_count_once() -> None:
    x = torch.rand(1, 20).repeat(4, 1)
    net = network(20, 90, 2)
    monitor = attack.Monitor(net, tell=None)
    net(x).square().sum().backward()
    found = monitor.step(4)
    assert found is not None
    assert found.shown == 1


def test_a_batch_beyond_the_rows_is_not_called_determined() -> None:
    found = read(network(40, 60, 10), torch.rand(16, 40))
    assert found.shown == 16
    assert found.reach < 16
    assert found.determined == 0
    assert "span is known" in str(found)


def test_a_smooth_activation_reaches_further() -> None:
    x = torch.rand(16, 40)
    assert read(network(40, 60, 10, activation=nn.GELU), x).determined == 16


def test_noise_hides_the_number() -> None:
    net = network(30, 200, 4)
    monitor = attack.Monitor(net, tell=None)
    noisy = {"0": torch.randn(200, 30)}
    found = monitor.read(noisy, 6)
    assert (found.shown, found.determined) == (0, 0)
    assert "not clear" in str(monitor)


def test_it_reads_when_it_is_due_and_tells() -> None:
    net, told = network(8, 40, 2), []
    monitor = attack.Monitor(net, every=3, tell=told.append)
    net(torch.rand(2, 8)).sum().backward()
    due = [monitor.step(2) is not None for _ in range(7)]
    assert due == [True, False, False, True, False, False, True]
    assert [reading.step for reading in told] == [0, 3, 6]
    assert monitor.readings == told


def test_an_update_of_one_step_is_read_by_the_names_of_a_state() -> None:
    net = network(8, 40, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.rand(3, 8)).square().sum().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.5 * parameter.grad
    update = {name: value - before[name] for name, value in net.state_dict().items()}
    assert attack.Monitor(net, tell=None).read(update, 3).shown == 3


def test_a_gradient_that_is_zero_or_not_finite_shows_nothing() -> None:
    net = network(8, 40, 2)
    monitor = attack.Monitor(net, tell=None)
    for value in (0.0, float("nan"), float("inf")):
        assert monitor.read({"0.weight": torch.full((40, 8), value)}, 3).shown == 0


def test_what_it_refuses() -> None:
    with pytest.raises(UnsupportableModelError, match="1 linear"):
        attack.Monitor(nn.Linear(3, 2))
    net = network(8, 40, 2)
    with pytest.raises(InvalidInputError, match="every"):
        attack.Monitor(net, every=0)
    monitor = attack.Monitor(net, tell=None)
    with pytest.raises(InvalidInputError, match="call backward"):
        monitor.step(2)
    with pytest.raises(InvalidInputError, match="0: expected"):
        monitor.read({"0": torch.ones(8, 40)}, 2)
    with pytest.raises(InvalidInputError, match="samples"):
        monitor.read({"0": torch.ones(40, 8)}, 0)


@pytest.mark.slow
def test_it_costs_less_than_a_tenth() -> None:
    """The limit of the issue; the median of steps and readings that alternate, at width 1000."""
    cost = measure(1000, 32, every=100, rounds=7)
    assert cost.shown == 32
    assert cost.share < 0.1


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_loop_of_the_page_runs() -> None:
    example = blocks()[0]
    assert sum("monitor" in line.lower() for line in example.splitlines()) <= 10
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(example, str(PAGE), "exec"), {})
    assert "of 8 samples" in out.getvalue()


def test_the_strategy_of_the_page_is_python() -> None:
    """Flower is no dependency, so that the example is parsed and not run."""
    tree = ast.parse(blocks()[1])
    assert any(isinstance(node, ast.ClassDef) for node in tree.body)
