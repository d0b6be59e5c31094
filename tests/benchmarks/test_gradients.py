"""The benchmarks of gradients still call what they measure."""

from __future__ import annotations

import pytest

from tests.benchmarks import (
    disaggregation,
    gradient_check,
    second_sets,
    stationary_check,
    stationary_soundness,
)
from tests.identify.disaggregation.problems import plant


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_a_row_of_the_table_of_sizes(kind: str) -> None:
    row = disaggregation.row("16-24-60-1", kind, 0, plant([16, 24, 60, 1], 4, 0), 30.0)
    assert "globally" in row


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (gradient_check, ["--honest", "1", "--forged", "1", "--lies", "1", "--no-sizes"]),
        (second_sets, ["--seeds", "1"]),
        (stationary_check, ["--honest", "2", "--forged", "2", "--lies", "8", "--no-sizes"]),
        (stationary_soundness, ["--count", "12", "--determined", "2"]),
    ],
)
def test_a_small_run(module, arguments, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
    module.main()
    assert "WRONG" not in capsys.readouterr().out
