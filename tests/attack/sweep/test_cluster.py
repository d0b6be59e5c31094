"""Sweeps on a real cluster of processes: results, a worker that dies, a scheduler that does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from attack.sweep import cluster
from attack.sweep.cluster import Habits, Machines, connected, inputs_of, run_sweep
from attack.sweep.show import records_json
from attack.sweep.spec import Call, Sweep
from attack.sweep.store import Results
from attack.sweep.worker import run_task
from identify.errors import InvalidInputError, KktCertError
from tests.command_line import kkt

pytest.importorskip("distributed")

STEPS = 3000


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    made = kkt(
        "train", "digits", "--network", "64-12-1,tanh", "--per-class", 2, "--quiet",
        "--steps", 50, "--out", folder / "victim.safetensors",
    )  # fmt: skip
    assert made.code == 0, made.err
    return folder


@pytest.fixture(scope="module")
def client():
    with connected(Machines(workers=2, threads=1)) as found:
        yield found


def attacks(steps, seeds, **options):
    call = Call(
        "attack", ("victim.safetensors",),
        {"objective": "haim", "count": 4, "steps": steps, "solver": "adam", "splitting": "off",
         **options},
    )  # fmt: skip
    return Sweep(call, grid={"seed": seeds})


def kill_a_busy_worker(client, done):
    """Kill the process of a worker as soon as its run has left a checkpoint."""
    pids = client.run(os.getpid)
    while not done.wait(0.05):
        if client.run_on_scheduler(cluster._variables):
            busy = [worker for worker, keys in client.processing().items() if keys]
            if busy:
                os.kill(pids[busy[0]], signal.SIGKILL)
                return


@pytest.mark.medium
def test_the_run_of_a_killed_worker_goes_on_elsewhere(shop, client, tmp_path):
    sweep = attacks(STEPS, (0,))
    inputs = inputs_of(sweep, shop)
    assert set(inputs) == {"victim.safetensors"}
    address = client.scheduler.address
    done = threading.Event()
    killer = threading.Thread(target=kill_a_busy_worker, args=(client, done))
    with Results.create(tmp_path / "r.sqlite", sweep) as results:
        killer.start()
        habits = Habits(time_limit=100, every=0.2)
        run_sweep(results, inputs, Machines(scheduler=address), habits)
        done.set()
        killer.join()
        (row,) = results.rows()
    assert row.state == "done", row
    assert row.resumed
    alone = run_task(sweep.tasks()[0], inputs)
    found, whole = row.results["attack"], alone.results["attack"]
    assert found["steps"] == whole["steps"]
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6)


@pytest.mark.slow
def test_a_command_line_on_a_cluster_that_is_there(shop, client):
    spec = shop / "seeds.toml"
    spec.write_text(
        'command = "attack"\narguments = ["victim.safetensors"]\n'
        '[options]\nobjective = "haim"\ncount = 4\nsteps = 5\n'
        '[grid]\nseed = [0, 1, 2]\nsplitting = ["off", "nonsense"]\n'
        '[[then]]\ncommand = "evaluate"\narguments = ["{out}"]\n'
        'options = {truth = "victim.truth.npz"}\n'
    )
    given = ("--scheduler", client.scheduler.address, "--quiet")
    found = kkt("sweep", spec, *given, "--format", "json", "--keep-files")
    assert found.code == 1, found
    rows = json.loads(found.out)
    good, bad = rows[::2], rows[1::2]
    assert {row["state"] for row in good} == {"done"}
    assert {row["state"] for row in bad} == {"failed"}
    assert all("nonsense" in row["error"] for row in bad)
    assert all(set(row["results"]) == {"attack", "evaluate"} for row in good)
    target = shop / "seeds.sqlite"
    again = kkt("sweep", spec, *given, "--resume")
    assert again.code == 1
    assert "6 runs" in again.out
    shown = kkt("sweep", "show", target, "--columns", "loss", "--extract", shop / "files")
    assert shown.code == 0, shown
    assert (shop / "files" / "00001" / "candidates.safetensors").exists()
    assert kkt("sweep", spec, *given).code == 2
    assert kkt("sweep", "show", spec).code == 2


@pytest.mark.slow
def test_a_time_limit_keeps_what_ended_and_where_the_rest_stood(shop, tmp_path):
    sweep = attacks(10**7, (0,))
    inputs = inputs_of(sweep, shop)
    machines = Machines(workers=1)
    with Results.create(tmp_path / "r.sqlite", sweep) as results:
        run_sweep(results, inputs, machines, Habits(time_limit=8, every=0.2))
        assert [task.number for task in results.missing()] == [1]
        assert results.checkpoint(1)
        assert json.loads(records_json(results.rows()))[0]["state"] == "waiting"


def test_an_address_without_a_scheduler_is_refused(tmp_path):
    sweep = attacks(5, (0,))
    with (
        Results.create(tmp_path / "r.sqlite", sweep) as results,
        pytest.raises(InvalidInputError, match="--scheduler"),
    ):
        run_sweep(results, {}, Machines(scheduler="nonsense://x"))


@pytest.fixture
def foreign(tmp_path):
    """A scheduler and a worker as processes of their own, and the address."""
    file = tmp_path / "scheduler.json"
    line = [sys.executable, "-m", "distributed.cli.dask_"]
    common = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    started = [
        subprocess.Popen(
            [*line[:2], f"{line[2]}scheduler", "--port", "0", "--no-dashboard",
             "--scheduler-file", str(file)], **common,
        ),
        subprocess.Popen(
            [*line[:2], f"{line[2]}worker", "--scheduler-file", str(file), "--nthreads", "1",
             "--no-dashboard"], **common,
        ),
    ]  # fmt: skip
    waited = threading.Event()
    while not (file.exists() and file.read_text().endswith("}")):
        assert started[0].poll() is None
        waited.wait(0.1)
    yield started[0], json.loads(file.read_text())["address"]
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_lost_scheduler_leaves_what_was_known_and_resume_goes_on(shop, client, foreign, tmp_path):
    process, address = foreign
    sweep = attacks(200, (0, 1))
    inputs = inputs_of(sweep, shop)
    path = tmp_path / "r.sqlite"

    def lose(stage, share):
        if share > 0:
            process.kill()

    with (
        Results.create(path, sweep) as results,
        pytest.raises(KktCertError, match="scheduler is lost"),
    ):
        run_sweep(results, inputs, Machines(scheduler=address), Habits(every=0.2), progress=lose)
    with Results.resume(path, sweep) as results:
        assert len(results.missing()) < 2
        run_sweep(results, inputs, Machines(scheduler=client.scheduler.address))
        assert {row.state for row in results.rows()} == {"done"}
