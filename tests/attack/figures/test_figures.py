"""Figures from run results: which are drawn of what, and the numbers behind them."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest

import attack.figures.figures
from attack.command.evaluate import Judged, record_of
from attack.evaluation.evaluate import evaluate
from attack.figures.figures import FIGURES, Drawn, _ranks, draw_figures
from attack.figures.plots import Panel, Series, panels
from attack.figures.trajectory import Skipped, ancestry, trajectory
from attack.runs.finished import History, RunResult, Snapshot, legend_names

SHAPE = (8, 8)
PNG = b"\x89PNG\r\n\x1a\n"


def images(count, seed):
    """Smooth images in [0, 1]: bright squares at random places."""
    rng = np.random.default_rng(seed)
    found = 0.1 * rng.random((count, *SHAPE))
    for image in found:
        i, j = rng.integers(0, 4, 2)
        image[i : i + 4, j : j + 4] += 0.8
    return found.reshape(count, -1)


TRUTH, HELD_OUT = images(6, 1), images(12, 2)
MEAN = np.full(64, 0.25)


def run_result(folder, name="run", *, noise=0.03, count=8, judged=True, **changes):
    """A run whose candidates are the truth and noise, most of them split in one round."""
    rng = np.random.default_rng(5)
    before = rng.normal(size=(count, 64))
    origin = np.concatenate([np.arange(count), [1, 1]])
    x = np.vstack([TRUTH - MEAN, HELD_OUT - MEAN])[np.arange(count + 2) % 18]
    x = x + noise * rng.normal(size=x.shape)
    (folder / name).mkdir(exist_ok=True)
    fields = {
        "path": folder / name, "name": name, "objective": "haim", "splitting": "off", "seed": 0,
        "count": count, "share": None, "image_shape": SHAPE, "loss": 0.5, "steps": 30,
        "x": x, "weights": np.arange(count + 2.0), "start": None,
        "history": History(np.arange(0.0, 30.0, 10.0), np.arange(3.0), np.array([3.0, 1.0, 0.5])),
        "split_steps": (), "rounds": 0, "snapshots": (), "identity": "same",
    }  # fmt: skip
    if changes.get("splitting", "off") != "off":
        fields |= {
            "split_steps": (15,), "rounds": 1,
            "snapshots": (
                Snapshot(0, before, np.arange(count)),
                Snapshot(15, before + 1, np.arange(count)),
                Snapshot(30, x, origin),
            ),
        }  # fmt: skip
    run = RunResult(**(fields | changes))
    if not judged:
        return run

    def scores(candidates):
        return evaluate(candidates, TRUTH - MEAN, SHAPE, mean=MEAN, held_out=HELD_OUT - MEAN)

    start = None if run.start is None else scores(run.start)
    record = record_of(run, Judged(scores(run.x), start, ()), truth="truth", held_out=None)
    pictures = {"truth": TRUTH - MEAN, "mean": MEAN, "nearest_held_out": HELD_OUT[:6] - MEAN}
    return replace(run, evaluation=json.loads(json.dumps(record)), pictures=pictures)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def draw(runs, out, *kinds):
    """All figures, or those named; checks that exactly the drawn ones are written, as pictures."""

    @contextlib.contextmanager
    def writing(name):
        temporary = out / f"{name}.tmp.png"
        yield temporary
        os.replace(temporary, out / name)

    with pytest.MonkeyPatch.context() as patch:
        if kinds:
            patch.setattr(
                attack.figures.figures, "FIGURES", {kind: FIGURES[kind] for kind in kinds}
            )
        drawn, skipped = draw_figures(runs, writing)
    assert sorted(part.name for part in drawn) == sorted(path.name for path in out.iterdir())
    for path in out.iterdir():
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size > 5000
    json.dumps([part.to_dict() for part in drawn], allow_nan=False)
    json.dumps([part.to_dict() for part in skipped], allow_nan=False)
    return {part.name: part for part in drawn}, skipped


class TestDrawn:
    def test_one_plain_run_gives_pairs_loss_and_curve(self, tmp_path, out):
        drawn, skipped = draw([run_result(tmp_path)], out)
        assert sorted(drawn) == ["curve.png", "loss.png", "pairs-run.png"]
        assert {part.reason for part in skipped} == {
            "the run does not split",
            "no two evaluated runs differ in --splitting alone, one of them off",
            "the evaluated runs do not differ in --count",
            "the evaluated runs do not differ in --share",
        }

    def test_without_an_evaluation_only_the_loss_is_drawn(self, tmp_path, out):
        drawn, skipped = draw([run_result(tmp_path, judged=False)], out)
        assert sorted(drawn) == ["loss.png"]
        assert any("kktcert evaluate" in part.reason for part in skipped)

    def test_nothing_to_draw(self, tmp_path, out):
        empty = History(np.zeros(1), np.zeros(1), np.ones(1))
        drawn, skipped = draw([run_result(tmp_path, judged=False, history=empty)], out)
        assert drawn == {}
        assert len(skipped) == len(FIGURES)

    def test_pairs_rank_by_the_scores_of_the_evaluation(self, tmp_path, out):
        run = run_result(tmp_path)
        drawn, _ = draw([run], out, "pairs")
        numbers = drawn["pairs-run.png"].numbers
        ssim = run.evaluation["found"]["scores"]["matched_ncc"]["ssim"]
        assert numbers["ssim"] == sorted(ssim, reverse=True)
        assert [ssim[k] for k in numbers["samples"]] == numbers["ssim"]
        # Six samples that have found themselves, and strangers beside them.
        assert np.mean(numbers["ssim"]) > np.mean(numbers["held_out_ssim"]) + 0.2

    def test_splitting_pairs_runs_that_differ_in_nothing_else(self, tmp_path, out):
        off = run_result(tmp_path, "off", noise=0.3)
        auto = run_result(tmp_path, "auto", splitting="auto")
        other = run_result(tmp_path, "other", splitting="paper", identity="another seed")
        drawn, _ = draw([off, auto, other], out, "splitting")
        figure = drawn["splitting.png"]
        assert figure.runs == (str(off.path), str(auto.path))
        rows = {row["metric"]: row for row in figure.numbers}
        assert {row["after"] for row in figure.numbers} == {"auto"}
        for key, pipeline in (("ssim", "matched_ncc"), ("l2", "matched_l2")):
            x, y = (np.array(r.evaluation["found"]["scores"][pipeline][key]) for r in (off, auto))
            better = (y > x) if key == "ssim" else (y < x)
            assert rows[key]["better"] == better.sum() == 6
            assert rows[key]["samples"] == 6
            np.testing.assert_allclose(rows[key]["mean_before"], x.mean())
            assert rows[key]["held_out"] is not None

    def test_runs_against_different_truths_are_no_pair(self, tmp_path, out):
        off = run_result(tmp_path, "off")
        auto = run_result(tmp_path, "auto", splitting="auto")
        auto.evaluation["truth"]["sha256"] = "another"
        drawn, _ = draw([off, auto], out, "splitting")
        assert "splitting.png" not in drawn

    def test_counts(self, tmp_path, out):
        runs = [
            run_result(tmp_path, f"{mode}{count}", count=count, splitting=mode)
            for mode in ("off", "auto") for count in (7, 9)
        ]  # fmt: skip
        drawn, _ = draw(runs, out, "count")
        rows = drawn["count.png"].numbers
        assert [row["group"] for row in rows] == ["without splitting"] * 2 + ["splitting auto"] * 2
        assert [row["candidates at the start"] for row in rows] == [7.0, 9.0, 7.0, 9.0]
        key = "samples with SSIM > 0.4, one to one"
        assert all(row[key] == 6 for row in rows)
        assert all(row[f"{key}, held-out images"] < 6 for row in rows)

    def test_shares_stand_beside_the_start_and_name_what_is_missing(self, tmp_path, out):
        runs = []
        for objective in ("buzaglo", "bilevel"):
            for share in (0.0, 0.5, 1.0):
                start = share * (TRUTH - MEAN) + (1 - share) * images(6, 9)
                name = f"{objective}{share}"
                runs.append(
                    run_result(tmp_path, name, objective=objective, share=share, start=start)
                )
        drawn, _ = draw(runs, out, "share")
        rows = drawn["share.png"].numbers
        assert {row["group"] for row in rows} == {"buzaglo", "bilevel"}
        key = "L2 distance, median of all, start"
        assert rows[2][key] == 0.0
        assert rows[0][key] > rows[1][key] > 0

    def test_trajectory_is_of_the_candidate_that_was_split(self, tmp_path, out):
        run = run_result(tmp_path, splitting="auto")
        drawn, _ = draw([run], out, "trajectory")
        figure = drawn["trajectory-run.png"]
        assert figure.numbers["candidate"] == 1
        assert figure.numbers["splits"] == 1
        assert sorted(figure.numbers["ends"]) == [1, 8, 9]
        assert "split in 1 of 1 rounds" in figure.title
        assert "without" not in figure.numbers

    def test_trajectory_stands_beside_the_run_without_splitting(self, tmp_path, out):
        off = run_result(tmp_path, "off")
        auto = run_result(tmp_path, "auto", splitting="auto")
        drawn, _ = draw([off, auto], out, "trajectory")
        assert drawn["trajectory-auto.png"].numbers["without"] == "off"

    def test_equal_names_do_not_overwrite_each_other(self, tmp_path, out):
        drawn, _ = draw([run_result(tmp_path, "a"), run_result(tmp_path, "b")], out, "pairs")
        assert {"pairs-a.png", "pairs-b.png"} == set(drawn)


class TestTrajectory:
    def test_without_splits(self, tmp_path):
        run = run_result(tmp_path, splitting="auto", judged=False)
        still = replace(run, snapshots=run.snapshots[:1])
        found = trajectory(still, lambda: tmp_path / "never.png")
        assert isinstance(found, Skipped)
        pruned = replace(run, snapshots=(*run.snapshots[:2], Snapshot(30, run.x[:8], np.arange(8))))
        assert isinstance(trajectory(pruned, lambda: tmp_path / "never.png"), Skipped)
        assert not (tmp_path / "never.png").exists()

    def test_two_rounds_of_one_family(self):
        zero = np.zeros
        chain = (
            Snapshot(0, zero((2, 1)), np.arange(2)),
            Snapshot(5, zero((3, 1)), np.array([0, 1, 1])),
            Snapshot(9, zero((4, 1)), np.array([0, 1, 2, 2])),
        )
        rows = ancestry(chain, np.arange(4))
        assert [row.tolist() for row in rows] == [[0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]

    def test_many_offspring_are_cut_to_the_heaviest(self, tmp_path):
        run = run_result(tmp_path, splitting="auto", judged=False)
        last = Snapshot(30, run.x, np.ones(10, dtype=int))
        path = tmp_path / "tree.png"
        _, numbers = trajectory(replace(run, snapshots=(*run.snapshots[:2], last)), lambda: path)
        assert sorted(numbers["ends"]) == [4, 5, 6, 7, 8, 9]
        assert path.read_bytes().startswith(PNG)


@pytest.mark.parametrize("count", range(1, 30))
def test_ranks_take_each_pair_once(count):
    parts = _ranks(count, 4)
    taken = [k for part in parts.values() for k in part]
    assert taken == sorted(set(taken))
    assert taken[0] == 0
    assert taken[-1] == count - 1
    assert len(taken) == min(count, 12)


def test_a_log_scale_leaves_out_what_it_cannot_show(tmp_path):
    path = tmp_path / "page.png"
    page = Panel("t", "x", "y", [Series("a", [1, 2], [0.0, np.nan])], ("linear", "log"))
    panels(path, "Nothing to show", [page, page, page, page])
    assert path.read_bytes().startswith(PNG)


def test_drawn_is_json_ready():
    assert Drawn("a.png", "t", ("r",), [1]).to_dict() == {
        "file": "a.png", "title": "t", "runs": ["r"], "numbers": [1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([{}], ["without splitting"]),
        ([{}, {"splitting": "auto"}], ["without splitting", "splitting auto"]),
        (
            [{"count": 8}, {"count": 16, "splitting": "paper"}],
            ["without splitting, candidates 8", "splitting paper, candidates 16"],
        ),
        (
            [{"objective": "loo", "seed": 1}, {"seed": 2}],
            ["without splitting, loo, seed 1", "without splitting, haim, seed 2"],
        ),
        ([{}, {}], ["without splitting (run0)", "without splitting (run1)"]),
    ],
)
def test_legends_name_modes_and_what_differs(tmp_path, changes, names):
    runs = [
        run_result(tmp_path, f"run{k}", judged=False, **change) for k, change in enumerate(changes)
    ]
    assert legend_names(runs) == names
