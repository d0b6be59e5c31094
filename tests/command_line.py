"""Run the command in this process, and files for it."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from unittest import mock

import numpy as np

import kktcert
from identify.command import output
from identify.command.config import FILE
from identify.model.loading import save_network
from identify.model.two_layer import TwoLayerNetwork

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.err.splitlines()


def kkt(*arguments):
    """Run kktcert with the arguments, paths and numbers as they are.

    A slow machine must not add lines of progress to what the tests read.
    """
    out, err = io.StringIO(), io.StringIO()
    late = mock.patch.object(output, "FIRST_LINE", 3600.0)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), late:
        code = kktcert.run([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def files(folder):
    """Everything below a folder: content of files, None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def results(folder):
    """What `files` gives but for the options that the command ran with."""
    return {name: content for name, content in files(folder).items() if name != FILE}


def random_network(seed=0, width=12, dimension=6, **options):
    rng = np.random.default_rng(seed)
    return TwoLayerNetwork(
        rng.normal(size=(width, dimension)),
        rng.normal(size=width),
        options.pop("degree", 3),
        **options,
    )


def stationary_network(dimension=4, samples=2, **options):
    """Two orthonormal samples and a neuron on each: exact, and without redundant equations."""
    height = 3.0**-0.5
    return TwoLayerNetwork(np.eye(dimension)[:samples], np.full(samples, height), 3, **options)


def gradient_pair(folder, seed=0, width=12, dimension=6, samples=4):
    """A network, the gradient of a batch at it, and the batch: (model, gradient, samples)."""
    rng = np.random.default_rng([seed, 1])
    network = random_network(seed, width, dimension)
    x = rng.normal(size=(samples, dimension))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    gradient = network.gradient(x, rng.choice([-1.0, 1.0], samples) * rng.uniform(1, 2, samples))
    model, file = folder / "model.safetensors", folder / "gradient.npz"
    save_network(network, model)
    save_network(gradient, file)
    return model, file, x


def stored(network, path):
    save_network(network, path)
    return path


def refused(folder, *arguments, words=""):
    """Run the command; assert the refusal and that the folder is as before."""
    before = files(folder)
    outcome = kkt(*arguments)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert len(outcome.lines) == 1, outcome.err
    assert outcome.err.startswith("kktcert: error: ")
    assert outcome.err.endswith("\n")
    assert outcome.lines[0].isprintable()
    assert words in outcome.err
    assert files(folder) == before
    return outcome


class Payload:
    """An object whose pickle makes a folder."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.mkdir, (str(self.flag),)
