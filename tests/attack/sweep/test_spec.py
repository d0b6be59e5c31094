"""What a specification says, and what it may not say."""

from __future__ import annotations

import numpy as np
import pytest

from attack.sweep.spec import Call, Spread, Sweep, read_sweep
from identify.errors import FileError, InvalidInputError

WHOLE = """
command = "attack"
arguments = ["{victim}"]
draws = 3
seed = 5
[options]
objective = "haim"
option = ["floor=0.1", "kind={kind}"]
force = true
quiet = false
[grid]
victim = ["a.safetensors", "b.safetensors"]
seed = [0, 1]
[random]
start-scale = {low = 1e-3, high = 1.0, log = true}
count = {low = 2, high = 4, integer = true}
kind = ["x", "y"]
[[then]]
command = "evaluate"
arguments = ["{out}"]
options = {truth = "truth.npz"}
"""


def written(folder, text):
    path = folder / "spec.toml"
    path.write_text(text)
    return path


def test_every_point_of_the_grid_meets_every_draw(tmp_path):
    sweep = read_sweep(written(tmp_path, WHOLE))
    tasks = sweep.tasks()
    assert len(tasks) == sweep.size == 2 * 2 * 3
    assert [task.number for task in tasks] == list(range(1, 13))
    assert len({task.identity for task in tasks}) == 12
    drawn = [tuple(t.values[n] for n in ("start-scale", "count", "kind")) for t in tasks]
    assert drawn[:3] == drawn[3:6] == drawn[9:]
    assert all(1e-3 <= scale <= 1 and count in (2, 3, 4) for scale, count, _ in drawn)


def test_values_take_their_place_or_become_options(tmp_path):
    task = read_sweep(written(tmp_path, WHOLE)).tasks()[0]
    words = task.calls[0].filled({**task.values, "out": "place"}, out="place")
    assert words[:2] == ("attack", "a.safetensors")
    assert words.count("--option") == 2
    assert f"kind={task.values['kind']}" in words
    assert "--force" in words
    assert "--quiet" not in words
    assert words[words.index("--seed") + 1] == "0"
    assert words[words.index("--count") + 1] == str(task.values["count"])
    assert "--kind" not in words
    assert "--victim" not in words
    assert task.calls[1].filled({"out": "place"}) == ("evaluate", "place", "--truth", "truth.npz")


def test_identities_do_not_depend_on_the_process_and_tell_runs_apart(tmp_path):
    first, again = (read_sweep(written(tmp_path, WHOLE)).tasks() for _ in range(2))
    assert [t.identity for t in first] == [t.identity for t in again]
    other = read_sweep(written(tmp_path, WHOLE.replace("floor=0.1", "floor=0.2"))).tasks()
    assert not {t.identity for t in first} & {t.identity for t in other}


@pytest.mark.parametrize(
    ("spread", "low", "high"),
    [
        (Spread(-1.0, 2.0), -1, 2),
        (Spread(1e-4, 1e2, log=True), 1e-4, 1e2),
        (Spread(3, 9, integer=True), 3, 9),
    ],
)
def test_draws_lie_in_their_range(spread, low, high):
    generator = np.random.default_rng(0)
    drawn = [spread.draw(generator) for _ in range(300)]
    assert low <= min(drawn)
    assert max(drawn) <= high
    middle = np.sqrt(low * high) if spread.log else (low + high) / 2
    assert 90 < sum(value < middle for value in drawn) < 210
    if spread.integer:
        assert set(drawn) == set(range(3, 10))


BROKEN = {
    'comand = "attack"': "comand",
    'command = "rm"': "rm",
    'command = "sweep"': "sweep",
    'command = "attack"\narguments = ["{victim}"]': "victim",
    'command = "attack"\narguments = "a"': "arguments",
    'command = "attack"\n[grid]\nseed = []': "seed",
    'command = "attack"\n[grid]\nseed = 3': "seed",
    'command = "attack"\n[grid]\nout = ["a"]': "out",
    'command = "attack"\n[grid]\nseed = [1]\n[random]\nseed = [2]': "seed",
    'command = "attack"\n[options]\nseed = 1\n[grid]\nseed = [1]': "seed",
    'command = "attack"\n[random]\nx = {low = 2, high = 1}': "x",
    'command = "attack"\n[random]\nx = {low = 0, high = 1, log = true}': "x",
    'command = "attack"\n[random]\nx = {low = "a", high = 1}': "x",
    'command = "attack"\n[random]\nx = {low = 0, hig = 1}': "hig",
    'command = "attack"\ndraws = 0': "draws",
    'command = "attack"\ndraws = true': "draws",
    'command = "attack"\nthen = 3': "then",
    'command = "attack"\n[[then]]\ncommand = "attack"\ngrid = {a = [1]}': "grid",
    'command = "attack"\n[options]\na = {b = 1}': "a",
    'command = "attack"\ndraws = 200000': "sweep",
}


@pytest.mark.parametrize("text", BROKEN)
def test_mistakes_are_named(text, tmp_path):
    with pytest.raises(InvalidInputError, match=BROKEN[text]):
        read_sweep(written(tmp_path, text)).tasks()


def test_files_that_are_no_toml_are_named(tmp_path):
    with pytest.raises(FileError, match="TOML"):
        read_sweep(written(tmp_path, "command = "))
    coded = tmp_path / "b.toml"
    coded.write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="TOML"):
        read_sweep(coded)
    with pytest.raises(FileError, match="No such file"):
        read_sweep(tmp_path / "absent.toml")


def test_a_sweep_made_in_python_needs_no_file():
    sweep = Sweep(Call("verify", ("net.npz",)), random={"noise": Spread(0, 1)}, draws=4, seed=1)
    assert len({task.values["noise"] for task in sweep.tasks()}) == 4
