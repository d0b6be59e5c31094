"""The command on membership: what took part, without reconstructing it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from identify.command.data_options import ModelOptions
from identify.command.hub import take_model
from identify.command.inputs import check_dimension, features_note, open_network
from identify.command.memory import refuse_files
from identify.command.names import Format, LossName
from identify.command.options import LogOptions, MemoryOptions, RunOptions
from identify.errors import InvalidInputError, KktCertError, UnsupportedModelError
from identify.exposure.affine import normalised
from identify.exposure.batch_members import GivenSamples, gradient_members
from identify.model.dataset import load_samples
from identify.model.deep import DeepNetwork
from identify.model.deep_files import deep_activation, load_deep_gradient, load_deep_network

HeldOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Samples that surely took no part; they give p-values."
    ),
]  # fmt: skip


@dataclass(frozen=True)
class PixelOptions:
    """How stored samples become the network's inputs."""

    mean: Annotated[
        str | None, typer.Option(metavar="M", help="Mean that the network's inputs had removed.")
    ] = None
    std: Annotated[
        str | None,
        typer.Option(metavar="S", help="What they were divided by: (x - M) / S is used."),
    ] = None

    def read(self, path: Path, dimension: int) -> GivenSamples:
        """Samples as the network takes them, with their labels."""
        data = load_samples(path)
        check_dimension(data.samples, dimension, path)
        return GivenSamples(normalised(data, self.mean, self.std), data.labels)


def member(
    *,
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="The network of the gradient.", callback=take_model),
    ],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Samples in question.")],
    gradient: Annotated[
        Path, typer.Option(metavar="FILE", help="Gradient of a batch's loss at MODEL.")
    ],
    held_out: HeldOut = None,
    loss: Annotated[
        LossName | None,
        typer.Option(help="With labels in the files: test the backward pass too."),
    ] = None,
    noise: Annotated[
        float | None, typer.Option(metavar="E", help="Relative error of the gradient's entries.")
    ] = None,
    pixels: PixelOptions,
    layout: ModelOptions,
    run: RunOptions,
    memory: MemoryOptions,
    log: LogOptions,
) -> int:
    """Say which given samples a gradient was computed on, without reconstructing any."""
    files = [path for path in (model, gradient, images, held_out) if path is not None]
    refuse_files(memory.memory_limit, files, layout.key, "ask about fewer samples at once")
    try:
        network, known = open_any(model, layout)
    except UnsupportedModelError as error:
        hint = f"{error.context['hint']}; in Python attack.module_members takes module and images"
        raise type(error)(error.context["what"], hint) from error
    if layout.head:
        log.log().note(features_note(network.names[0]))
    asked = pixels.read(images, network.dimension)
    others = None if held_out is None else pixels.read(held_out, network.dimension)
    found = gradient_members(
        network,
        load_deep_gradient(
            gradient, network, layers=layout.layers, key=layout.key, head=layout.head
        ),
        asked,
        held_out=others,
        loss=None if loss is None else loss.value.replace("-", "_"),
        first_layer=not known,
        noise=noise,
        seed=run.seed,
    )
    text = json.dumps(found.to_dict(), indent=2, allow_nan=False)
    print(text if run.format is Format.JSON else found, flush=True)
    return 0


def open_any(path: Path, layout: ModelOptions) -> tuple[DeepNetwork, bool]:
    """A network of linear layers, and whether its activation is known.

    Two-layer networks with powers are read as such; without an activation the layers are.
    """
    layers, key, head = layout.layers, layout.key, layout.head
    kind = deep_activation(path, layout.activation, key=key)
    name = layout.activation if kind is not None else "identity"
    if kind is not None or head:
        network = load_deep_network(path, activation=name, layers=layers, key=key, head=head)
        return network, kind is not None
    try:
        net = open_network(path, layout)
    except KktCertError:
        return load_deep_network(path, activation="identity", layers=layers, key=key), False
    if net.activation is not None:
        raise InvalidInputError(str(path), "one power or the name of an activation", "coefficients")
    output = net.output_weight if net.output_weight.ndim == 2 else net.output_weight[None, :]
    biases = [net.hidden_bias, net.output_bias]
    return DeepNetwork([net.hidden_weight, output], biases, f"monomial:{net.degree}"), True
