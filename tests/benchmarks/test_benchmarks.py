"""The benchmark scripts of the attack at tiny size on the digits."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attack.training.images
from attack.arguments import tensors_sha256
from attack.objectives import Candidates
from attack.objectives.presets import preset
from attack.objectives.spans import SpanObjective
from attack.runs.folder import load_run
from identify import HermiteData, assess_identifiability
from tests.benchmarks import (
    attack_certified,
    attack_loo,
    attack_paper_scale,
    attack_speed,
    attack_splitting,
    bilevel,
    splitting_picture,
    splitting_table,
    trained_verdicts,
)

pytestmark = pytest.mark.medium
Row = dict[str, Any]
CERTIFIED = ["--problems", "2", "--sizes", "4", "--steps", "40"]
SPLITTING = [
    "--data", "digits", "--objectives", "haim", "loo", "--samples", "4", "--width", "16",
    "--steps", "4", "--training", "300", "--seeds", "0", "1", "--presets",
]  # fmt: skip
PAPER = [
    "--data", "digits", "--per-class", "3", "--width", "10", "--steps", "8", "--training", "120",
    "--device", "cpu",
]  # fmt: skip
SPEED = [
    "--data", "digits", "--methods", "haim", "--samples", "4", "--width", "16", "--steps", "100",
    "--training", "300",
]  # fmt: skip
LOO = ["--data", "digits", "--samples", "4", "--seeds", "0", "--steps", "4"]
ROUNDS = [*SPEED, "--round", "--candidates", "8", "--widths", "8"]
#: Script, arguments, its file of finished rows, the function that makes one row, number of rows.
SCRIPTS: dict[str, tuple[Any, list[str], str, str, int]] = {
    "certified": (attack_certified, CERTIFIED, "certified.jsonl", "measure", 2),
    "splitting": (attack_splitting, SPLITTING, "runs.jsonl", "measure", 12),
    "paper scale": (attack_paper_scale, PAPER, "paper_scale.jsonl", "measure", 6),
    "loo": (attack_loo, LOO, "runs.jsonl", "measure", 6),
    "speed": (attack_speed, SPEED, "runs.jsonl", "measure", 1),
    "rounds": (attack_speed, ROUNDS, "rounds.jsonl", "measure_round", 1),
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        # The scripts read the digits some hundred times.
        patch.setattr(
            attack.training.images,
            "read_images",
            functools.cache(attack.training.images.read_images),
        )
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The finished folder of every script, made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            script, arguments, *_ = SCRIPTS[name]
            made[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
            script.main(["--out", str(made[name]), *arguments])
        return made[name]

    return folder


def rows_of(name: str, folder: Path) -> list[Row]:
    lines = (folder / SCRIPTS[name][2]).read_text().splitlines()
    return [json.loads(line) for line in lines]


def printed(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[list[Row]]:
    """The tables that the script prints, each as rows by column."""
    capsys.readouterr()
    SCRIPTS[name][0].main(["--out", str(folder), *SCRIPTS[name][1]])
    return tables(capsys.readouterr().out)


def tables(text: str) -> list[list[Row]]:
    found: list[list[Row]] = []
    head: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            head = cells
            found.append([])
        elif set(line) != {"|", "-"}:
            assert len(cells) == len(head)
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("a finished row was made again")


# Every script ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_second_call_makes_nothing_anew(
    name: str, folders: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, _, file, maker, count = SCRIPTS[name]
    folder = folders(name)
    before = (folder / file).read_bytes()
    assert len(before.splitlines()) == count
    monkeypatch.setattr(script, maker, forbidden)
    first = printed(name, folder, capsys)
    assert first
    assert all(part for part in first)
    assert (folder / file).read_bytes() == before
    assert printed(name, folder, capsys) == first


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_line_that_was_cut_off_is_made_again(
    name: str, folders: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, _, file, maker, _ = SCRIPTS[name]
    target = folders(name) / file
    whole = target.read_bytes()
    rows, calls = rows_of(name, target.parent), []
    monkeypatch.setattr(script, maker, lambda *_, **__: calls.append(1) or rows[-1])
    shown = printed(name, target.parent, capsys)
    assert not calls
    try:
        target.write_bytes(whole[: -len(whole.splitlines()[-1]) // 2])
        assert printed(name, target.parent, capsys) == shown
        assert len(calls) == 1
    finally:
        target.write_bytes(whole)


def test_a_row_after_a_line_that_was_cut_off_counts(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    target.write_text('{"a": 1}\n{"a": 2, "b')
    splitting_table.keep(target, {"a": 3})
    assert set(splitting_table.finished(target, "a")) == {1, 3}


# Their tables ------------------------------------------------------------------------------------


def test_certified_table_counts_the_rows(folders: Any, capsys: Any) -> None:
    folder = folders("certified")
    (table,) = printed("certified", folder, capsys)
    rows = {row["source"]: row for row in rows_of("certified", folder)}
    assert [(line["source"], line["n"], line["problems"]) for line in table] == [
        ("gradient", "4", "1"), ("planted", "4", "1"), ("all", "", "2"),
    ]  # fmt: skip
    for line in table[:2]:
        row = rows[line["source"]]
        assert line["up to five starts"] == str(int(row["solved"]))
        assert line["one start, off"] == str(int(row["off"]["solved"]))
        assert line["most starts"] == str(len(row["starts"]))
        for outcome in (row["off"], row["splitting"], *row["starts"]):
            assert outcome["solved"] == (outcome["candidates"] == 4 and outcome["worst"] <= 1e-6)
            assert 0 <= outcome["matched"] <= 4
            assert outcome["steps"] > 0
    # Four digits in a planted network are found even at this size, and to rounding.
    assert rows["planted"]["solved"]
    assert rows["planted"]["worst"] < 1e-9
    assert table[2]["up to five starts"] == str(sum(row["solved"] for row in rows.values()))


def test_loo_table_follows_from_the_rows(folders: Any, capsys: Any) -> None:
    folder = folders("loo")
    (table,) = printed("loo", folder, capsys)
    rows = {row["way"]: row for row in rows_of("loo", folder)}
    assert [line["way"] for line in table] == list(attack_loo.WAYS) == list(rows)
    for line in table:
        row = rows[line["way"]]
        found = row["scores"]["found"]["matched_l2"]
        assert line["L2 < 3.16, of samples"] == f"{found['l2 < 3.16228']:.1f}"
        assert line["loss / true"] == f"{row['loss'] / row['true_loss']:.2f}"
        assert (row["ridge"] == 0) == (line["way"] in ("without ridge", "none of the three"))
        assert set(row["scores"]) == {"found", *attack_loo.NULLS}


def test_splitting_tables_follow_from_the_rows(folders: Any, capsys: Any) -> None:
    folder = folders("splitting")
    losses, counts = printed("splitting", folder, capsys)
    rows = rows_of("splitting", folder)
    wanted = [
        (objective, "digits", at, mode, "2")
        for objective in ("haim", "loo")
        for at in ("steps", "time")
        for mode in ("off", "paper", "auto")
    ]
    names = ("objective", "data", "at equal", "mode", "runs")
    for table in (losses, counts):
        assert [tuple(line[name] for name in names) for line in table] == wanted
    for line in losses:
        if line["at equal"] == "steps":
            ends = [
                row["curve"][-1]
                for row in rows
                if (row["objective"], row["mode"]) == (line["objective"], line["mode"])
            ]
            assert len(ends) == 2
            assert all(end["step"] == 4 and end["seconds"] > 0 for end in ends)
            assert line["loss, median"] == f"{np.median([end['loss'] for end in ends]):.4g}"
        assert 0 < float(line["loss, median"]) < 1e6
        if line["mode"] == "off":
            assert line["candidates"] == "8"
            assert line["p"] == ""
        else:
            ratio = float(line["over that of off, median"])
            assert 0 < ratio < 1e3
            low = int(line["candidates"].split(" to ")[0])
            assert 1 <= low <= 24
    for row in rows:
        rounds = len(row["rounds"])
        # The published schedule is fixed; `auto` waits until the solver is stuck.
        assert rounds in {"off": (0,), "paper": (3,), "auto": range(4)}[row["mode"]]
        assert [point["step"] for point in row["curve"]] == list(range(5))
        assert set(row["null"]) == set(splitting_table.NULLS)
        # The modes of a seed share their start.
        other = next(r for r in rows if (r["objective"], r["seed"]) == _pair(row))
        assert row["curve"][0]["loss"] == other["curve"][0]["loss"]


def test_the_pilot_takes_the_rate_of_the_lowest_loss(tmp_path: Path) -> None:
    grid = {"rate_x": (1e-9, 0.05, 1e12), "rate_lam": (1e-3,), "start_scale": (0.1,)}
    size = attack_splitting.Size(samples=4, width=16, training=300, steps=80, grid=grid)
    assert attack_splitting.choose_rates("haim", "digits", size, tmp_path)["rate_x"] == 0.05


def _pair(row: Row) -> tuple[str, int]:
    return row["objective"], row["seed"]


def test_paper_scale_table_holds_every_run(folders: Any, capsys: Any) -> None:
    folder = folders("paper scale")
    (table,) = printed("paper scale", folder, capsys)
    rows = rows_of("paper scale", folder)
    asked = [(o, "digits", m) for o in ("haim", "loo") for m in ("off", "paper", "auto")]
    assert [(line["objective"], line["data"], line["mode"]) for line in table] == asked
    assert [(row["objective"], row["data"], row["mode"]) for row in rows] == asked
    starts: dict[str, float] = {}
    for line, row in zip(table, rows, strict=True):
        assert "failed" not in row
        assert line["images"] == "6"
        assert line["steps"] == "8 (steps)"
        assert line["dtype"] == ("float64" if row["objective"] == "haim" else "float32")
        assert line["device"].startswith("cpu")
        assert line["torch"] == torch.__version__
        assert float(line["ms a step"]) > 0
        assert float(line["loss"]) == pytest.approx(row["loss"], rel=1e-4)
        assert 0 <= row["data_loss"] <= row["loss"] * (1 + 1e-6)
        assert set(row["null"]) == set(splitting_table.NULLS)
        found = int(line["SSIM > 0.4, L2 (held out, mean image, random)"].split(" ")[0])
        assert 0 <= found <= 6
        assert row["found"]["matched_l2"]["pairs"] == min(6, row["candidates"])
        if row["mode"] == "off":
            starts[row["objective"]] = row["loss"]
            assert row["candidates"] == 12
            assert row["rounds"] == []
        else:
            assert len(row["rounds"]) in ((3,) if row["mode"] == "paper" else range(4))
            assert row["candidates"] <= 36 or row["mode"] == "paper"
            assert not row["rounds"] or row["loss"] != starts[row["objective"]]
    haim, loo = rows[0]["victim"], rows[3]["victim"]
    assert haim["steps"] == 120
    assert haim["least_margin"] > 12
    assert loo["stopped"] == "target loss" or loo["steps"] == 120
    assert loo["log10_loss"] < -2


def test_paper_scale_candidates_are_those_of_the_row(folders: Any) -> None:
    folder = folders("paper scale")
    asked = {job.mode: job for job in jobs("--objectives", "haim")}
    rows = {row["mode"]: row for row in rows_of("paper scale", folder)[:3]}
    clock = attack_paper_scale.Clock(None)
    cell, _ = attack_paper_scale.victim(asked["off"], folder / "victims", "cpu", clock)
    outputs = cell.network(torch.from_numpy(cell.data.samples))[:, 0].numpy()
    assert float((cell.data.labels * outputs).min()) == pytest.approx(12.0)
    for mode in ("off", "auto"):
        run = load_run(folder / "runs" / asked[mode].folder)
        x, lam, y = (torch.from_numpy(t) for t in (run.candidates, run.multipliers, run.labels))
        assert tensors_sha256([x, lam]) == rows[mode]["sha256"]
        assert run.settings["objective"]["normaliser"] == 12
        assert run.settings["solver"]["rate_x"] == preset("haim-mnist-1").rate_x
        objective = attack_paper_scale.objective_of(cell, asked[mode], "cpu")
        value = float(objective.data_value(Candidates(x, lam, y)))
        assert value == pytest.approx(rows[mode]["data_loss"], rel=1e-9)


def jobs(*more: str) -> list[attack_paper_scale.Job]:
    """The runs of `PAPER`."""
    sizes = (3, 10, 8, 120)
    names = more[1:] or ("haim", "loo")
    kinds = {"haim": "float64", "loo": "float32"}
    return [
        attack_paper_scale.Job(name, "digits", mode, *sizes, kinds[name])
        for name in names
        for mode in ("off", "paper", "auto")
    ]


@pytest.mark.parametrize(("objective", "modes"), [("haim", ["paper", "auto"]), ("loo", ["paper"])])
def test_paper_scale_in_pieces_ends_with_the_same_candidates(
    objective: str, modes: list[str], folders: Any, tmp_path: Path, capsys: Any
) -> None:
    # Parts of a millisecond: every call takes one chunk of the training, or one step.
    few = [*PAPER, "--objectives", objective, "--modes", *modes, "--minutes", "0.000001"]
    target = tmp_path / "paper_scale.jsonl"
    calls, done = 0, 0
    while calls < 100:
        calls += 1
        attack_paper_scale.main(["--out", str(tmp_path), *few])
        text = capsys.readouterr().out
        done = len(target.read_text().splitlines()) if target.exists() else 0
        if "unfinished" not in text:
            break
        assert done < len(modes)
    assert done == len(modes)
    assert calls > 4 * len(modes)
    whole = {row["mode"]: row for row in rows_of("paper scale", folders("paper scale"))
             if row["objective"] == objective}  # fmt: skip
    for line in target.read_text().splitlines():
        row = json.loads(line)
        for name in ("sha256", "loss", "candidates", "rounds", "found", "null", "taken"):
            assert row[name] == whole[row["mode"]][name], name
        assert row["victim"]["log10_loss"] == whole[row["mode"]]["victim"]["log10_loss"]


def test_paper_scale_goes_on_after_a_crash_behind_a_round(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--out", str(tmp_path), *PAPER, "--objectives", "haim", "--modes", "paper"]
    real = attack_paper_scale.solve

    def crashing(objective: Any, state: Any, *rest: Any, **more: Any) -> Any:
        if state.last_round == 4:
            raise KeyboardInterrupt
        return real(objective, state, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(attack_paper_scale, "solve", crashing)
        with pytest.raises(KeyboardInterrupt):
            attack_paper_scale.main(few)
    attack_paper_scale.main(few)
    (row,) = rows_of("paper scale", tmp_path)
    assert row["sha256"] == rows_of("paper scale", folders("paper scale"))[1]["sha256"]


def test_speed_table_compares_both_sides(folders: Any, capsys: Any) -> None:
    folder = folders("speed")
    (table,) = printed("speed", folder, capsys)
    (row,) = rows_of("speed", folder)
    assert table[0]["side"].startswith("peer, haim-mnist-")
    assert [line["side"] for line in table[1:]] == [
        f"ours, {way}, at {words}"
        for way in ("off", "auto, whole", "auto, shared", "published, a tenth of the steps")
        for words in ("that loss", "its end")
    ]
    lowest = row["peer"]["lowest"]
    assert 0 < lowest <= row["peer"]["loss"] < 1e6
    for both in row["ours"].values():
        losses = [loss for _, _, loss in both["curve"]]
        assert losses[-1] < losses[0]
        assert (both["reached"] is not None) == (min(losses) <= lowest)
        if both["reached"] is not None:
            assert both["reached"]["loss"] <= lowest
            assert both["reached"]["seconds"] <= both["end"]["seconds"]


def test_round_table_is_in_steps(folders: Any, capsys: Any) -> None:
    folder = folders("rounds")
    (table,) = printed("rounds", folder, capsys)
    (row,) = rows_of("rounds", folder)
    (line,) = table
    assert (line["method"], line["victim"], line["candidates"]) == ("haim", "64-8", "8")
    for name, seconds in row["rounds"].items():
        assert seconds > 0
        assert line[f"round, {name}"].startswith(f"{seconds / row['step']:.0f} steps")


def test_the_picture_shows_every_run(folders: Any, tmp_path: Path, capsys: Any) -> None:
    from matplotlib.image import imread

    folder, target = folders("splitting"), tmp_path / "splitting.png"
    arguments = SCRIPTS["splitting"][1]
    training = arguments[arguments.index("--training") + 1]
    capsys.readouterr()
    splitting_picture.main(
        ["--out", str(folder), "--picture", str(target), "--data", "digits", "--training", training]
    )
    rows = rows_of("splitting", folder)
    drawn = [row for row in rows if row["mode"] != "wide"]
    assert capsys.readouterr().out == f"{target}: {len(drawn)} runs\n"
    # One colour at least of a line beside the background.
    assert len(np.unique(imread(target).reshape(-1, 4), axis=0)) > 10


@pytest.mark.parametrize("objective", ["haim", "buzaglo", "loo"])
def test_the_exact_control_has_its_truth_at_zero(objective: str, tmp_path: Path) -> None:
    size = attack_splitting.Size(samples=4, width=30, training=1000, steps=4)
    losses = []
    for data in ("digits", "digits-exact"):
        cell = attack_splitting.make_cell(objective, data, 0, size, tmp_path)
        attacked = cell.attacked(8).with_step(size.steps)
        at = cell.truth(attacked)
        losses.append(float(attacked.data_value(at)))
        assert bool((at.x.double().numpy() == cell.data.samples.astype("f4")).all())
        assert attack_splitting.loss_at_truth(cell, size) == float(attacked.value(at))
    none = at.with_points(at.x, 0 * at.lam)
    whole = float(attacked.data_value(none))
    assert losses[1] < 1e-9 * whole
    assert losses[0] > 1e-4 * whole


def test_loo_in_its_span_knows_its_victim_and_its_truth(tmp_path: Path) -> None:
    size = attack_splitting.Size(samples=4, width=30, training=1000, steps=40)
    plain, inside = (
        attack_splitting.make_cell(name, "digits", 0, size, tmp_path)
        for name in ("loo", "loo-span")
    )
    assert plain.network.sha256() == inside.network.sha256()
    objective = inside.attacked(8)
    assert isinstance(objective, SpanObjective)
    lifted = objective.lifted(inside.truth(objective)).x.double().numpy()
    assert np.allclose(lifted, inside.data.samples, atol=1e-5)
    row = attack_splitting.measure("loo-span", "digits", "paper", 0, size, {
        "rate_x": 1.0, "rate_lam": 1.0, "start_scale": 0.2,
    }, tmp_path)  # fmt: skip
    assert row["ridge"] > 0
    assert row["curve"][-1]["loss"] < row["curve"][0]["loss"]


@pytest.mark.slow
def test_the_study_of_bilevel_attacks_is_a_sweep(tmp_path: Path, capsys: Any) -> None:
    arguments = [
        "--out", str(tmp_path / "r.sqlite"), "--data", "digits", "--victims", "affine", "--seeds",
        "0", "--starts", "100% true", "other images", "--steps", "3", "--workers", "1",
        "--picture", str(tmp_path / "picture.png"),
    ]  # fmt: skip
    bilevel.main(arguments)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| affine")]
    assert len(lines) == 4
    exact = [line.split("|") for line in lines if "100% true" in line]
    assert all(float(cells[5]) < 1e-6 for cells in exact)
    assert (tmp_path / "picture.png").stat().st_size > 1000
    bilevel.main(arguments)
    assert "affine" in capsys.readouterr().out


def test_trained_verdicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A small run, and that its judge can find a false pair."""
    monkeypatch.delenv("KKTCERT_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["benchmark", "--count", "6"])
    trained_verdicts.main()
    text = capsys.readouterr().out
    last = next(line for line in text.splitlines() if line.startswith("| all |"))
    assert sum(int(cell) for cell in last.split("|")[2:5]) == 6
    assert "FALSE" not in text
    case = trained_verdicts.trained(0)
    report = assess_identifiability(HermiteData.from_weight_decay(case.network))
    assert trained_verdicts.judge(case, report, tmp_path) == []
    first, second = report.alternatives
    moved = replace(second, samples=second.samples * 1.01)
    false = replace(report, alternatives=(first, moved))
    assert any("residual" in text for text in trained_verdicts.judge(case, false, tmp_path))
