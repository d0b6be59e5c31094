"""Values that follow what earlier runs found: Optuna's search in place of random draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attack.sweep.show import flat
from attack.sweep.spec import Search, Spread, Sweep, Value
from attack.sweep.store import DONE, Results
from identify.errors import KktCertError, listed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def propose(results: Results, sweep: Sweep, search: Search, count: int) -> list[dict[str, Value]]:
    """Choose the values of the next runs, from those that are on file.

    The tree-structured Parzen estimator sees every finished run; the same file leads to the same
    values. No run sees a truth unless its commands do: the objective is what they print.

    Raises KktCertError where no finished run has a number of the objective's name.

    Source: Bergstra, Bardenet, Bengio & Kegl (2011), "Algorithms for hyper-parameter optimization";
    Akiba et al. (2019), "Optuna: a next-generation hyperparameter optimization framework".
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {name: _distribution(spread) for name, spread in sweep.random.items()}
    rows = results.rows()
    study = optuna.create_study(
        direction=search.direction, sampler=optuna.samplers.TPESampler(seed=sweep.seed + len(rows))
    )
    done = [row for row in rows if row.state == DONE]
    found = {row.number: flat(row).get(search.objective) for row in done}
    known = {number: float(v) for number, v in found.items() if v is not None and _is_number(v)}
    if done and not known:
        names = sorted({name for row in done for name, v in flat(row).items() if _is_number(v)})
        raise KktCertError(
            f"no run has a number {search.objective!r}; there are {listed(names, 20)}"
        )
    for row in done:
        if row.number in known:
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(row.values), distributions=kinds, value=known[row.number]
                )
            )
    return [dict(study.ask(kinds).params) for _ in range(count)]


def best_of(results: Results, search: Search) -> Mapping[str, Any] | None:
    """Return the finished run with the best objective, as `flat` gives it."""
    rows = [flat(row) for row in results.rows() if row.state == DONE]
    rows = [row for row in rows if _is_number(row.get(search.objective))]
    sign = 1.0 if search.direction == "minimize" else -1.0
    return min(rows, key=lambda row: sign * float(row[search.objective]), default=None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distribution(spread: Spread) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if spread.choice:
        return CategoricalDistribution(spread.choice)
    if spread.integer:
        return IntDistribution(int(spread.low), int(spread.high), log=spread.log)
    return FloatDistribution(spread.low, spread.high, log=spread.log)
