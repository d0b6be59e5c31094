"""From options to data: networks, gradients, mean images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.arrays import FloatArray
from identify.command.data_options import POWERS, AssumeOptions, ModelOptions, SourceOptions
from identify.command.options import RunOptions
from identify.command.routing import routed
from identify.errors import FileError, InvalidInputError, NotYetSupportedError
from identify.hermite.data import HermiteData
from identify.model.dataset import as_signs, load_samples
from identify.model.deep_files import deep_activation
from identify.model.gradients import load_gradient
from identify.model.loading import load_network
from identify.model.two_layer import TwoLayerNetwork
from identify.model.untrusted import read_tensors


def open_network(path: Path, layout: ModelOptions) -> TwoLayerNetwork:
    """Load a network with what the options say about it."""
    return load_network(
        path,
        degree=layout.degree,
        activation=layout.activation,
        layers=layout.layers,
        key=layout.key,
    )


def open_data(model: Path, source: SourceOptions, layout: ModelOptions) -> HermiteData:
    """Load all files of a source.

    A file beside the model may leave out degree and activation; if it has them they must agree.
    """
    with routed(model, source, layout):
        kind = deep_activation(model, layout.activation, key=layout.key)
        if kind is not None:
            named = ", ".join(map(str, kind if isinstance(kind, tuple) else (kind,)))
            raise NotYetSupportedError(
                f"{model}: networks with the activation {named} are covered by verify, "
                "recover and audit alone",
                "with --source gradient and --out DIR, verify writes alternatives.npz where two "
                "batches have the gradient",
            )
        for option, given in (("--head", layout.head), ("--reduction", source.reduction)):
            if given:
                raise InvalidInputError(
                    option, "none for a power as activation", "one", f"leave {option} out"
                )
        return _open_data(model, source, layout)


def _open_data(model: Path, source: SourceOptions, layout: ModelOptions) -> HermiteData:
    network = open_network(model, layout)
    if network.outputs != 2 or network.activation is not None:
        network.require_supported()
    loss = None if source.loss is None else source.loss.value
    gradient = initial = None
    if source.gradient is not None:
        gradient = load_gradient(source.gradient, network, layers=layout.layers, key=layout.key)
    if source.initial is not None:
        initial = load_network(
            source.initial,
            degree=network.degree,
            activation="monomial" if network.activation is None else network.activation,
            layers=layout.layers,
            key=layout.key,
            need_key=False,
        )
    return HermiteData.of(
        source.source.value,
        network,
        gradient=gradient,
        initial=initial,
        decay=source.decay,
        loss=loss,
        gradient_decay=source.gradient_decay(),
    )


def search_arguments(data: HermiteData, assume: AssumeOptions, run: RunOptions) -> dict[str, Any]:
    """What functions that start from a network take about source, assumptions, seed and time."""
    assume.require_both(POWERS)
    return {
        "source": data.source,
        "gradient": data.target if data.source == "gradient" else None,
        "initial": data.initial,
        "decay": data.decay,
        "loss": data.loss,
        "assumptions": assume.assumptions(),
        "seed": run.seed,
        "time_limit": run.time_limit,
    }


def check_dimension(samples: npt.NDArray[np.float64], dimension: int, path: Path) -> None:
    """Raise InvalidInputError unless the samples of a file fit the network."""
    if samples.shape[1] != dimension:
        raise InvalidInputError(
            str(path), f"samples of {dimension} numbers, as the network takes", samples.shape[1]
        )


def features_note(layer: str) -> str:
    """What --head means for the samples that are given."""
    return (
        f"with --head the samples are taken for the features that enter {layer}; images of that "
        "size would seem to have left no trace"
    )


def open_mean(path: Path, dimension: int) -> npt.NDArray[np.float64]:
    """Load a mean image (d,): the array `mean`, or the average of `samples` or `images`."""
    file = read_tensors(path)
    if "mean" in file.shapes:
        mean = file.floats("mean", integers=file.dtypes["mean"] == "uint8").ravel()
    elif path.suffix.lower() == ".npz":
        mean = load_samples(path).samples.mean(axis=0)
    else:
        raise FileError(path, "has no array mean", "save it with np.savez(path, mean=...)")
    if mean.shape != (dimension,):
        raise InvalidInputError(
            "--add-mean", f"{dimension} numbers, as a sample has", f"{mean.size} in {path}"
        )
    return mean


def two_classes(labels: FloatArray | None) -> FloatArray | None:
    """Labels -1 and 1; any two values are taken for them, the smaller for -1."""
    if labels is None:
        return None
    signs = as_signs(labels)
    return labels if signs is None else signs
