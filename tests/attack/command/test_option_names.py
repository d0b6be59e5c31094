"""What `kktcert attack` refuses names the option that holds it; words where numbers are due."""

from __future__ import annotations

import numpy as np
import pytest

from attack.command.attack_options import ObjectiveName
from attack.objectives.by_name import OPTIONS
from tests.command_line import files, kkt
from tests.model_files import npz

RNG = np.random.default_rng(0)


def network(path, outputs=3, **more):
    arrays = {"0.weight": RNG.normal(size=(9, 4)), "2.weight": RNG.normal(size=(outputs, 9))}
    return npz(path, **arrays, **more)


def refused(folder, *options, model=None):
    model = model or network(folder / "m.npz", activation="relu")
    before = files(folder)
    done = kkt("attack", model, *options, "--steps", 1, "--count", 2, "--out", folder / "run")
    assert (done.code, done.out, len(done.lines)) == (2, "", 1), done
    assert files(folder) == before
    return done.err.removeprefix("kktcert: error: ")


@pytest.mark.parametrize("option", [(), ("--option", "activation=relu"), ("--objective", "loo")])
def test_a_missing_activation_names_its_option(tmp_path, option):
    said = refused(tmp_path, *option, model=network(tmp_path / "plain.npz"))
    assert said.startswith("--activation: expected a word such as relu, as ")
    assert "give --activation relu" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--option", "acti=relu"), "--option: expected some of "),
        (("--setting", "stal=1"), "--setting: expected some of "),
        (("--setting", "stall=abc"), "--setting stall: expected a number, got 'abc'"),
        (("--setting", "momentum=abc", "--solver", "sgd"), "--setting momentum: expected a number"),
        (("--setting", "target-loss=abc"), "--setting target_loss: expected a number"),
        (("--setting", "memory=1.5"), "--setting memory: expected a whole number"),
        (("--option", "box=3"), "--option box: expected two numbers [LOW, HIGH], got 3"),
        (("--option", "box=[1, 2, 3]"), "--option box: expected two numbers"),
        (("--option", "floor=abc"), "--option floor: expected a number, got 'abc'"),
        (("--option", "floor=true"), "--option floor: expected a number"),
        (("--option", "activation=3"), "--option activation: expected a word, got 3"),
        (("--option", "activation=rellu"), "--activation: expected one of relu, "),
        (("--objective", "gradient_matching"), "--gradient: expected the gradient of one batch"),
        (("--objective", "loo"), "--initial: expected the network before training"),
        (("--objective", "gradient_norm"), "give --option loss=cross-entropy"),
        (("--objective", "gradient_norm", "--option", "loss=hinge"), "loss: expected one of "),
        (("--preset", "nobody"), "--preset: expected "),
        (("--labels", "0,1,2"), "--labels: expected "),
    ],
)
def test_what_is_refused_names_its_option(tmp_path, options, words):
    assert words in refused(tmp_path, *options)


@pytest.mark.parametrize("value", ["abc", "[1]", "true"])
@pytest.mark.parametrize(
    ("objective", "name"),
    [(o, n) for o, names in OPTIONS.items() for n in names if n not in ("box", "activation")],
)
def test_no_option_breaks_on_a_word(tmp_path, objective, name, value):
    model = network(tmp_path / "m.npz", 1 if objective == "haim" else 3, activation="tanh")
    beside = {
        "loo": ("--initial", model), "bilevel": ("--initial", model),
        "gradient_matching": ("--gradient", model),
    }.get(objective, ())  # fmt: skip
    loss = ()
    if objective in ("gradient_norm", "bilevel") and name != "loss":
        loss = ("--option", "loss=cross-entropy")
    refused(tmp_path, "--objective", objective, *beside, *loss, "--option", f"{name}={value}",
            model=model)  # fmt: skip


@pytest.mark.parametrize(
    ("outputs", "beside", "objective"),
    [
        (1, (), "haim"),
        (3, (), "buzaglo"),
        (3, ("--gradient",), "gradient_matching"),
        (1, ("--initial",), "loo"),
    ],
)
def test_without_a_name_the_objective_is_that_for_what_is_given(
    tmp_path, outputs, beside, objective
):
    model = network(tmp_path / "m.npz", outputs, activation="tanh")
    given = (*beside, network(tmp_path / "o.npz", outputs)) if beside else ()
    done = kkt("attack", model, *given, "--steps", 1, "--count", 2, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"objective   {objective} by " in done.out
    assert objective in {str(name) for name in ObjectiveName}
