"""The commands from files to files: exit codes, what is printed, what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from identify.assess import assess_identifiability
from identify.command.output import OutputFolder
from identify.model.loading import load_network
from identify.model.two_layer import TwoLayerNetwork
from tests.command_line import PNG, files, gradient_pair, kkt, results, stationary_network, stored
from tests.identify.reports import check_report
from tests.model_files import layers, npz


def same_directions(found, truth):
    """Largest error after matching, sign and length."""
    cosines = np.abs(found @ truth.T) / np.linalg.norm(found, axis=1)[:, None]
    cosines = cosines / np.linalg.norm(truth, axis=1)
    assert sorted(cosines.argmax(axis=1)) == list(range(len(truth)))
    return float(np.sqrt(np.max(2 - 2 * np.minimum(cosines.max(axis=1), 1.0))))


class TestVerify:
    def test_text(self, pair):
        outcome = kkt("verify", *pair[0])
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("Identifiability report\n======")
        assert "GLOBALLY identifiable" in outcome.out
        assert "among all training sets of at most 4 samples" in outcome.out

    def test_json(self, pair):
        outcome = kkt("verify", *pair[0], "--format", "json", "--seed", 7)
        assert (outcome.code, outcome.err) == (0, "")
        content = check_report(outcome.out)
        assert content["verdict"] == "globally"
        assert content["scope"] == {"kind": "at_most", "samples": 4}
        assert content["seed"] == 7
        assert [entry["role"] for entry in content["inputs"]] == ["model", "gradient"]

    def test_the_same_seed_gives_the_same_report(self, pair):
        first, second = (
            json.loads(kkt("verify", *pair[0], "--format", "json").out) for _ in range(2)
        )
        for content in (first, second):
            del content["seconds"], content["versions"]
        assert first == second

    def test_folder(self, pair, tmp_path):
        out = tmp_path / "a" / "out"
        outcome = kkt("verify", *pair[0], "--out", out)
        assert outcome.code == 0
        assert sorted(results(out)) == ["report.html", "report.json"]
        assert check_report((out / "report.json").read_text())["verdict"] == "globally"
        assert f"written to {out}: report.json" in outcome.out

    def test_folder_with_alternatives(self, open_case, tmp_path):
        assert kkt("verify", *open_case, "--out", tmp_path / "out").code == 0
        assert sorted(results(tmp_path / "out")) == [
            "alternatives.npz",
            "report.html",
            "report.json",
        ]
        content = check_report((tmp_path / "out" / "report.json").read_text())
        assert content["verdict"] == "nonidentifiable"
        with np.load(tmp_path / "out" / "alternatives.npz") as sets:
            counts = [len(sets[f"samples_{k}"]) for k in (1, 2)]
            assert sorted(sets) == ["coefficients_1", "coefficients_2", "samples_1", "samples_2"]
        assert content["scope"] == {"kind": "shown", "samples": counts}

    @pytest.mark.parametrize(
        ("words", "code"),
        [("globally", 3), ("undecided", 0), ("nonidentifiable,undecided", 0),
         ("undecided, globally", 3)],
    )  # fmt: skip
    def test_fail_on(self, pair, tmp_path, words, code):
        outcome = kkt("verify", *pair[0], "--fail-on", words, "--out", tmp_path / "out")
        assert (outcome.code, outcome.err) == (code, "")
        assert (tmp_path / "out" / "report.json").is_file()

    def test_undecided_is_a_result(self, random_case):
        outcome = kkt("verify", *random_case)
        assert outcome.code == 0
        assert "UNDECIDED" in outcome.out
        assert kkt("verify", *random_case, "--fail-on", "undecided").code == 3

    def test_assumptions_arrive(self, pair, random_case):
        options = ("--samples", 4, "--scale", "unit", "--non-negative", "--noise", 1e-9)
        content = check_report(kkt("verify", *pair[0], *options, "--format", "json").out)
        text = " ".join(content["assumptions"])
        for word in ("exactly 4 active samples", "--scale unit", "non-negative", "1e-09"):
            assert word in text

    def test_weight_decay_and_loss_arrive(self, open_case):
        options = ("--decay", 0.5, "--loss", "logistic", "--format", "json")
        content = check_report(kkt("verify", *open_case, *options).out)
        assert any("logistic" in text for text in content["assumptions"])
        assert not any("units of the decay" in text for text in content["assumptions"])

    def test_fine_tuning(self, tmp_path):
        model, gradient, _ = gradient_pair(tmp_path)
        start, slope = load_network(model), load_network(gradient)
        moved = TwoLayerNetwork(
            start.hidden_weight - 1e-7 * slope.hidden_weight,
            start.output_weight - 1e-7 * slope.output_weight,
            3,
        )
        final = stored(moved, tmp_path / "final.npz")
        # A file beside the model need not repeat the degree.
        initial = npz(tmp_path / "initial.npz", **start.arrays())
        outcome = kkt(
            "verify", final, "--source", "fine-tuning", "--initial", initial, "--format", "json"
        )
        content = check_report(outcome.out)
        assert content["problem"]["source"] == "fine-tuning"
        assert [entry["role"] for entry in content["inputs"]] == ["model", "initial"]

    def test_a_file_without_degree_or_names(self, tmp_path):
        height = 3.0**-0.5
        arrays = {"W": np.eye(4)[:2], "a": np.full(2, height)}
        model = npz(tmp_path / "bare.npz", **arrays)
        outcome = kkt("verify", model, "--degree", 3, "--layers", "W,a")
        assert outcome.code == 0
        assert "NOT identifiable" in outcome.out

    def test_time_limit(self, pair, monkeypatch):
        given = {}

        def watched(data, **options):
            given.update(options)
            return assess_identifiability(data)

        monkeypatch.setattr("identify.assess.assess_identifiability", watched)
        assert kkt("verify", *pair[0], "--time-limit", 2.5).code == 0
        assert given["time_limit"] == 2.5


class TestForce:
    def test_results_of_two_runs_are_not_mixed(self, pair, random_case, tmp_path):
        out = tmp_path / "out"
        assert kkt("recover", *pair[0], "--out", out).code == 0
        (out / "mine.txt").write_text("kept")
        assert (out / "samples.npz").is_file()
        assert kkt("verify", *random_case, "--out", out).code == 2
        assert kkt("verify", *random_case, "--out", out, "--force").code == 0
        assert sorted(results(out)) == ["mine.txt", "report.html", "report.json"]
        assert check_report((out / "report.json").read_text())["verdict"] == "undecided"

    def test_an_empty_folder_needs_no_force(self, random_case, tmp_path):
        (tmp_path / "out").mkdir()
        assert kkt("verify", *random_case, "--out", tmp_path / "out").code == 0

    def test_a_folder_of_the_user_outlives_a_refusal(self, tmp_path):
        (tmp_path / "out").mkdir()
        model = npz(tmp_path / "zeros.npz", **{k: 0 * a for k, a in layers().items()})
        assert kkt("verify", model, "--degree", 3, "--out", tmp_path / "out").code == 2
        assert (tmp_path / "out").is_dir()


class TestRecover:
    def test_the_samples_are_found(self, pair, tmp_path):
        arguments, truth = pair
        outcome = kkt("recover", *arguments, "--out", tmp_path / "out")
        assert outcome.code == 0
        with np.load(tmp_path / "out" / "samples.npz") as found:
            assert sorted(found) == ["absolute_bounds", "coefficients", "error_bounds", "samples"]
            samples, b, bounds = (found[k] for k in ("samples", "coefficients", "error_bounds"))
        assert samples.shape == truth.shape
        assert b.shape == bounds.shape == (4,)
        assert np.all(np.diff(np.abs(b) * np.linalg.norm(samples, axis=1) ** 3) <= 0)
        assert same_directions(samples, truth) < 1e-6
        assert np.all(bounds < 1e-6)
        check_report((tmp_path / "out" / "report.json").read_text())

    def test_without_a_picture_a_line_says_so(self, pair, tmp_path):
        outcome = kkt("recover", *pair[0], "--out", tmp_path / "out")
        assert outcome.lines == ["kktcert: no picture: give --image-shape for samples of 6 entries"]
        assert not (tmp_path / "out" / "contact.png").exists()
        quiet = kkt("recover", *pair[0], "--out", tmp_path / "out", "--force", "-q")
        assert (quiet.code, quiet.err) == (0, "")

    @pytest.mark.parametrize("shape", ["2,3", "2,3,1", "1,2,3", "2,1,3"])
    def test_picture(self, pair, tmp_path, shape):
        mean = npz(tmp_path / "mean.npz", mean=np.ones((2, 3)))
        options = ("--image-shape", shape, "--add-mean", mean, "--range", "0,2")
        outcome = kkt("recover", *pair[0], "--out", tmp_path / "out", *options)
        assert (outcome.code, outcome.err) == (0, "")
        assert (tmp_path / "out" / "contact.png").read_bytes().startswith(PNG)
        assert "samples.npz, contact.png, report.json" in outcome.out

    def test_a_square_is_guessed(self, tmp_path):
        model, gradient, _ = gradient_pair(tmp_path, width=20, dimension=16)
        options = ("--source", "gradient", "--gradient", gradient, "--out", tmp_path / "out")
        assert kkt("recover", model, *options).err == ""
        assert (tmp_path / "out" / "contact.png").is_file()

    def test_no_extra_no_picture(self, tmp_path, monkeypatch):
        monkeypatch.setattr("identify.command.sheet.can_draw", lambda: False)
        model, gradient, _ = gradient_pair(tmp_path, width=20, dimension=16)
        options = ("--source", "gradient", "--gradient", gradient, "--out", tmp_path / "out")
        outcome = kkt("recover", model, *options)
        assert outcome.code == 0
        assert outcome.lines == [
            "kktcert: no picture without matplotlib; pip install 'kktcert[demo]'"
        ]

    def test_nonidentifiable_gives_the_sets_and_no_samples(self, open_case, tmp_path):
        outcome = kkt("recover", *open_case, "--image-shape", "2,2", "--out", tmp_path / "out")
        assert outcome.code == 0
        assert sorted(results(tmp_path / "out")) == [
            "alternatives.npz",
            "contact.png",
            "report.html",
            "report.json",
        ]

    def test_undecided_with_a_recovery(self, tmp_path, monkeypatch):
        # Without its search the open case ends undecided, with a set that fits.
        monkeypatch.setattr("identify.assess._search", lambda *arguments: None)
        model = stored(stationary_network(), tmp_path / "two.npz")
        options = ("--source", "weight-decay", "--image-shape", "2,2", "--out", tmp_path / "out")
        outcome = kkt("recover", model, *options)
        assert (outcome.code, outcome.err) == (0, "")
        assert sorted(results(tmp_path / "out")) == [
            "contact.png",
            "report.html",
            "report.json",
            "samples.npz",
        ]
        with np.load(tmp_path / "out" / "samples.npz") as found:
            assert np.all(np.isnan(found["error_bounds"]))
        content = check_report((tmp_path / "out" / "report.json").read_text())
        assert content["verdict"] == "undecided"
        assert content["error_bounds"] == [None, None]

    def test_nothing_to_write(self, random_case, tmp_path):
        outcome = kkt("recover", *random_case, "--out", tmp_path / "out")
        assert outcome.code == 1
        assert len(outcome.lines) == 1
        assert outcome.err.startswith("kktcert: error: no samples to write: undecided: ")
        assert sorted(results(tmp_path / "out")) == ["report.html", "report.json"]

    def test_json(self, pair, tmp_path):
        outcome = kkt("recover", *pair[0], "--out", tmp_path / "out", "--format", "json", "-q")
        assert check_report(outcome.out)["sample_count"] == 4
        assert outcome.out == (tmp_path / "out" / "report.json").read_text()


class TestInterrupt:
    @pytest.fixture
    def interrupted(self, monkeypatch):
        def work(data, *, progress, **options):
            progress("solving for the moment tensor", 0.25)
            raise KeyboardInterrupt

        monkeypatch.setattr("identify.assess.assess_identifiability", work)

    @pytest.mark.parametrize("command", ["verify", "recover", "alternatives"])
    def test_the_partial_report_is_kept(self, pair, tmp_path, interrupted, command):
        outcome = kkt(command, *pair[0], "--samples", 4, "--out", tmp_path / "out")
        assert outcome.code == 130
        assert outcome.lines[-1] == "kktcert: interrupted"
        assert "UNDECIDED" in outcome.out
        assert sorted(results(tmp_path / "out")) == ["report.html", "report.json"]
        content = check_report((tmp_path / "out" / "report.json").read_text())
        assert content["verdict"] == "undecided"
        assert "while solving for the moment tensor" in content["reason"]
        assert content["residuals"]["linear"]["value"] is None
        assert any("exactly 4" in text for text in content["assumptions"])

    def test_while_planting(self, tmp_path, monkeypatch):
        def stop(*arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr("identify.planting.plant.plant_network", stop)
        data = npz(tmp_path / "data.npz", samples=np.eye(3))
        outcome = kkt("plant", data, "--degree", 3, "--out", tmp_path / "model.npz")
        assert (outcome.code, outcome.lines) == (130, ["kktcert: interrupted"])
        assert list(files(tmp_path)) == ["data.npz"]


class TestFailedRuns:
    @pytest.mark.parametrize(
        ("error", "words"),
        [(OSError(28, "No space left on device", "x"), "x: No space left on device"),
         (MemoryError("2 TiB"), "not enough memory; --memory-limit SIZE refuses such work "
          "beforehand")],
    )  # fmt: skip
    def test_one_line_and_exit_code_1(self, pair, tmp_path, monkeypatch, error, words):
        def work(*arguments, **options):
            raise error

        monkeypatch.setattr("identify.assess.assess_identifiability", work)
        outcome = kkt("verify", *pair[0], "--out", tmp_path / "out")
        assert (outcome.code, outcome.lines) == (1, [f"kktcert: error: {words}"])
        assert not (tmp_path / "out").exists()

    def write_half(self, output):
        with output as folder, folder.writing("report.json") as path:
            path.write_text("half")
            raise ZeroDivisionError

    def test_half_a_file_is_never_left(self, tmp_path):
        with pytest.raises(ZeroDivisionError):
            self.write_half(OutputFolder(tmp_path / "out", force=False))
        assert files(tmp_path) == {}

    def test_an_old_file_outlives_a_failed_replacement(self, tmp_path):
        (tmp_path / "report.json").write_text("old")
        with pytest.raises(ZeroDivisionError):
            self.write_half(OutputFolder(tmp_path, force=True, names=("report.json",)))
        assert files(tmp_path) == {"report.json": b"old"}
