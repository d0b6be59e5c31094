"""The work of `kktcert train`: from options to a trained network and its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attack.command.compute import device_and_dtype
from attack.command.training_options import (
    ComputeOptions,
    DataOptions,
    FileOptions,
    TaskName,
    TrainingLoss,
    TrainingOptions,
    parse_classes,
)
from attack.memory import training_bytes
from attack.networks.files import load_network, save_network
from attack.networks.network import Network
from attack.networks.spec import NetworkSpec, parse_spec
from attack.training.images import ImageData, load_images
from attack.training.train import TrainedNetwork, train_network
from identify.command.limits import refuse_above
from identify.command.options import MemoryOptions, RunOptions
from identify.command.output import check_file_target, replacing
from identify.errors import FileError, InvalidInputError
from identify.model import loading
from identify.model.two_layer import TwoLayerNetwork

_LOSS_OF = {
    TaskName.BINARY: TrainingLoss.LOGISTIC,
    TaskName.MULTICLASS: TrainingLoss.CROSS_ENTROPY,
    TaskName.REGRESSION: TrainingLoss.SQUARED,
    TaskName.ONE_HOT: TrainingLoss.SQUARED,
}
_TASK_OF = {
    TrainingLoss.LOGISTIC: TaskName.BINARY,
    TrainingLoss.EXPONENTIAL: TaskName.BINARY,
    TrainingLoss.CROSS_ENTROPY: TaskName.MULTICLASS,
    TrainingLoss.SQUARED: TaskName.REGRESSION,
}


@dataclass(frozen=True)
class VictimFiles:
    """The files of a trained network, named after `--out`: with or without .safetensors.

    Example:
        >>> VictimFiles.beside(Path("victim.safetensors")).truth.name
        'victim.truth.npz'
        >>> VictimFiles.beside(Path("victim")).model.name
        'victim.safetensors'
    """

    model: Path
    initial: Path
    truth: Path
    held_out: Path
    record: Path

    @classmethod
    def beside(cls, out: Path) -> VictimFiles:
        """Name the files."""
        stem = out.name.removesuffix(".safetensors")
        if not stem or Path(stem).suffix in (".npz", ".pt"):
            raise InvalidInputError("--out", "a name with .safetensors or without suffix", str(out))
        ends = (".safetensors", ".initial.safetensors", ".truth.npz", ".held-out.npz", ".json")
        return cls(*(out.with_name(stem + end) for end in ends))

    def check(self, *, force: bool) -> None:
        """Raise InvalidInputError unless all of them can be written."""
        for path in (self.model, self.initial, self.truth, self.held_out, self.record):
            check_file_target(path, (path.suffix,), force=force)


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained network with its data; `held_out` are the next images, None without."""

    trained: TrainedNetwork
    data: ImageData
    held_out: ImageData | None


@dataclass(frozen=True)
class TrainingCall:
    """What `kktcert train` was given: where the data are, and its groups of options."""

    source: str
    chosen: DataOptions
    training: TrainingOptions
    file: FileOptions
    compute: ComputeOptions
    run: RunOptions
    memory: MemoryOptions

    def form(self) -> tuple[Network | NetworkSpec, Network | None]:
        """The network to train, and the saved start if there is one."""
        training, file = self.training, self.file
        saved = None
        if training.initial is not None:
            saved = load_network(
                training.initial, layers=file.layers, activation=file.activation, key=file.key
            )
        elif (file.layers, file.activation, file.key) != (None, None, None):
            names = "--activation, --layers and --key"
            raise InvalidInputError(names, "--initial beside them", "none")
        if training.network is not None:
            return parse_spec(training.network), saved
        if saved is None:
            raise InvalidInputError("--network", "a specification", "none", "or give --initial")
        return saved, saved


def train_victim(call: TrainingCall, progress: Callable[[str, float], None] | None) -> Victim:
    """Load the data, train, and take the next images of the same kind for comparison."""
    chosen, training, run = call.chosen, call.training, call.run
    device, dtype = device_and_dtype(call.compute)
    # A specification that cannot be read is refused before the data are.
    form, saved = call.form()
    outputs = form.outputs if isinstance(form, Network) else form.sizes[-1]
    task, loss = _task_and_loss(chosen.task, training.loss, outputs)
    data, held_out = _images(call.source, chosen, task, run.seed)
    widths = form.widths if isinstance(form, Network) else form.sizes
    needed = training_bytes(widths, len(data.samples))
    refuse_above(call.memory.memory_limit, needed, "train a smaller network")
    trained = train_network(
        form,
        data,
        loss=loss.value,
        decay=training.decay,
        steps=training.steps,
        rate=training.rate,
        momentum=training.momentum,
        batch=training.batch,
        target_loss=training.target_loss,
        scale=training.scale,
        scheme=training.scheme.value,
        initial=saved,
        seed=run.seed,
        dtype=dtype or torch.float64,
        device=device,
        time_limit=run.time_limit,
        progress=progress,
        interruptible=True,
    )
    return Victim(trained, data, held_out)


def write_victim(victim: Victim, files: VictimFiles) -> list[str]:
    """Write network, start, truth, held-out images and record, each whole or not at all."""
    with ExitStack() as stack:

        def into(path: Path) -> Path:
            return stack.enter_context(replacing(path))

        _save(victim.trained.network, into(files.model))
        _save(victim.trained.initial, into(files.initial))
        np.savez(into(files.truth), **sample_arrays(victim.data))
        if victim.held_out is not None:
            np.savez(into(files.held_out), **sample_arrays(victim.held_out))
        record = {"data": victim.data.describe(), "training": victim.trained.to_dict()}
        text = json.dumps(record, indent=2, allow_nan=False)
        into(files.record).write_text(text + "\n", encoding="utf-8")
    written = [files.model, files.initial, files.truth, files.record]
    if victim.held_out is None:
        # That of an earlier run would belong to other data.
        files.held_out.unlink(missing_ok=True)
    else:
        written.insert(3, files.held_out)
    return [path.name for path in written]


def sample_arrays(data: ImageData) -> dict[str, Any]:
    """The arrays of a truth file: samples as the network sees them, labels, the removed mean.

    One-hot targets become class numbers in `labels` and stay in `targets`.

    Example:
        >>> arrays = sample_arrays(load_images("digits", task="one-hot", per_class=1))
        >>> arrays["samples"].shape, arrays["labels"].shape, arrays["mean"].shape
        ((10, 8, 8), (10,), (8, 8))
    """
    samples = data.samples.reshape(len(data.images), *data.image_shape)
    arrays: dict[str, Any] = {
        "samples": samples,
        "mean": data.mean.reshape(data.image_shape),
        "indices": data.indices,
    }
    if data.labels is not None and data.labels.ndim == 2:
        return arrays | {"labels": data.labels.argmax(axis=1), "targets": data.labels}
    return arrays if data.labels is None else arrays | {"labels": data.labels}


def summary(victim: Victim, files: VictimFiles, written: list[str]) -> dict[str, Any]:
    """What is printed with `--format json`."""
    record = victim.trained.to_dict()
    del record["history"], record["margins"]
    record["data"] = victim.data.describe()
    return record | {"folder": str(files.model.parent), "written": written}


def _images(
    source: str, chosen: DataOptions, task: TaskName, seed: int
) -> tuple[ImageData, ImageData | None]:
    settings: dict[str, Any] = {
        "task": task.value,
        "per_class": chosen.per_class,
        "count": chosen.count,
        "split": chosen.split.value,
        "classes": parse_classes("--classes", chosen.classes),
        "positive": parse_classes("--positive", chosen.positive),
        "draw": chosen.draw.value,
        "seed": seed,
    }
    data = load_images(source, skip=chosen.skip, mean=chosen.mean.value, **settings)
    return data, _held_out(source, chosen, settings, data)


def _held_out(
    source: str, chosen: DataOptions, settings: dict[str, Any], data: ImageData
) -> ImageData | None:
    """The next images, if possible four times as many: attacks have more candidates than samples.

    None if too few are left.
    """
    name = "count" if chosen.per_class is None else "per_class"
    taken = settings[name]
    if taken is None:
        return None
    for times in (4, 2, 1):
        wanted = settings | {name: times * taken}
        if chosen.count is not None:
            wanted["count"] = times * chosen.count
        try:
            return load_images(source, skip=chosen.skip + taken, mean=data.mean, **wanted)
        except (InvalidInputError, FileError):
            continue  # too few are left
    return None


def _task_and_loss(
    task: TaskName | None, loss: TrainingLoss | None, outputs: int
) -> tuple[TaskName, TrainingLoss]:
    if loss is None:
        task = task or (TaskName.BINARY if outputs == 1 else TaskName.MULTICLASS)
        return task, _LOSS_OF[task]
    return task or _TASK_OF[loss], loss


def _save(network: Network, path: Path) -> None:
    """Save a network; one that the verifier covers under the names that the verifier reads."""
    degree = network.activation.parameter
    if network.activation.name != "power" or len(network.weights) != 2 or (degree or 0) < 3:
        save_network(network, path)
        return

    def array(tensor: torch.Tensor | None) -> Any:
        return None if tensor is None else tensor.detach().cpu().double().numpy()

    weight = array(network.weights[1])
    rounding = 2.0**-53 if network.dtype == torch.float64 else 2.0**-24
    two = TwoLayerNetwork(
        array(network.weights[0]),
        weight[0] if len(weight) == 1 else weight,
        int(degree or 0),
        hidden_bias=array(network.biases[0]),
        output_bias=array(network.biases[1]),
        rounding=rounding,
    )
    loading.save_network(two, path)
