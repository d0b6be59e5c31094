"""A search whose values follow what earlier runs found."""

from __future__ import annotations

import pytest

from attack.sweep.outcome import Outcome
from attack.sweep.search import best_of, propose
from attack.sweep.spec import Call, Search, Spread, Sweep, read_sweep
from attack.sweep.store import Results
from identify.errors import InvalidInputError, KktCertError

pytest.importorskip("optuna")

SPREADS = {
    "x": Spread(-3.0, 5.0),
    "kind": Spread(choice=("a", "b")),
    "n": Spread(1, 4, integer=True),
}


def made(folder, objective="bowl.loss", draws=40, seed=0):
    search = Search(objective)
    sweep = Sweep(Call("bowl"), random=SPREADS, draws=draws, seed=seed, search=search)
    return Results.create(folder / "r.sqlite", sweep), sweep, search


def bowl(task):
    """A run whose loss is least at x = 1, kind b."""
    x, kind = task.values["x"], task.values["kind"]
    loss = (x - 1.0) ** 2 + (0.5 if kind == "a" else 0.0) + 0.01 * task.values["n"]
    return Outcome(task.number, 0, {"bowl": {"loss": loss}}, "", 0.0, "here", "2026-01-01")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_search_ends_nearer_than_its_first_draws(tmp_path, seed):
    opened, sweep, search = made(tmp_path, seed=seed)
    with opened as results:
        for _ in range(20):
            tasks = results.add(propose(results, sweep, search, 2))
            results.record([bowl(task) for task in tasks])
        losses = [row.results["bowl"]["loss"] for row in results.rows()]
        assert len(losses) == 40
        assert min(losses[20:]) < min(losses[:10])
        assert sum(losses[20:]) < 0.7 * sum(losses[:20])
        assert best_of(results, search)["bowl.loss"] == min(losses)
        assert {row.values["kind"] for row in results.rows()} == {"a", "b"}


def test_the_same_file_leads_to_the_same_values(tmp_path):
    opened, sweep, search = made(tmp_path)
    with opened as results:
        results.record([bowl(task) for task in results.add(propose(results, sweep, search, 5))])
        first, again = (propose(results, sweep, search, 3) for _ in range(2))
        assert first == again
    with Results.resume(tmp_path / "r.sqlite", sweep) as results:
        assert propose(results, sweep, search, 3) == first
        (waiting,) = results.add(first[:1])
        assert results.missing() == (waiting,)
    other = Sweep(Call("bowl"), random=SPREADS, draws=41, search=search)
    with (
        pytest.raises(InvalidInputError, match="another"),
        Results.resume(tmp_path / "r.sqlite", other),
    ):
        pass


def test_an_objective_that_no_run_has_is_named(tmp_path):
    opened, sweep, search = made(tmp_path, "bowl.height")
    with opened as results:
        results.record([bowl(task) for task in results.add(propose(results, sweep, search, 2))])
        with pytest.raises(KktCertError, match=r"bowl\.loss"):
            propose(results, sweep, search, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[search]\nobjective = "a"', "random"),
        ('[random]\nx = [1]\n[grid]\nseed = [1]\n[search]\nobjective = "a"', "grid"),
        ("[random]\nx = [1]\n[search]\nobjective = 3", "objective"),
        ('[random]\nx = [1]\n[search]\nobjective = "a"\ndirection = "up"', "minimize"),
        ('[random]\nx = [1]\n[search]\nobjectve = "a"', "objectve"),
    ],
)
def test_mistakes_in_a_search_are_named(tmp_path, text, words):
    path = tmp_path / "s.toml"
    path.write_text(f'command = "attack"\n{text}\n')
    with pytest.raises(InvalidInputError, match=words):
        read_sweep(path)
