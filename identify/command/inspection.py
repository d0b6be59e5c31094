"""What a file holds, which sources fit it, and what the verifier would cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from identify.command.deep_inspection import chain_of, describe_deep
from identify.errors import InvalidInputError, UnsupportedModelError, listed, one_line
from identify.hermite.data import HermiteData
from identify.model.activations import plain_activation
from identify.model.dataset import equal_rows, load_samples, spell_groups
from identify.model.deep_files import deep_activation
from identify.model.layer_names import SCOPE, find_layers, in_order
from identify.model.loading import load_network
from identify.model.other_layers import other_layers
from identify.model.tensor_file import ROUNDING, PathLike, TensorFile
from identify.model.two_layer import TwoLayerNetwork
from identify.model.untrusted import read_tensors
from identify.tensors import symmetric_dimension
from identify.text import counted, number, table

_NO_NETWORK = ("data", "gradient")
_WEIGHTS = ("kkt", "weight-decay", "fine-tuning")
_DEGREES = (3, 4, 5)
# Degree and dimension where one neuron more is needed than counting says.
_EXCEPTIONS = {(3, 5), (4, 3), (4, 4), (4, 5)}


@dataclass(frozen=True)
class SourceFit:
    """Whether a file can serve as one source: yes, no, or None where another file decides.

    ``options`` are those that it takes.
    """

    source: str
    fits: bool | None
    reason: str
    options: str = ""


@dataclass(frozen=True)
class Inspection:
    """What `kktcert inspect` says about a file.

    `kind` is "network", "gradient", "data" or "arrays"; `chain` says whether the layers, or those
    behind the others, could be those of a ReLU network, once options say so.
    """

    path: str
    kind: str
    arrays: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    key: str | None
    covered: bool
    reason: str
    network: Mapping[str, Any] | None = None
    sources: tuple[SourceFit, ...] = ()
    sizes: Mapping[str, Any] | None = None
    cost: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None
    run: tuple[str, ...] = ()
    chain: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "path": self.path,
            "kind": self.kind,
            "arrays": [dict(entry) for entry in self.arrays],
            "settings": dict(self.settings),
            "key": self.key,
            "covered": self.covered,
            "reason": self.reason,
            "network": None if self.network is None else dict(self.network),
            "sources": [
                {"source": s.source, "fits": s.fits, "reason": s.reason} for s in self.sources
            ],
            "sizes": None if self.sizes is None else dict(self.sizes),
            "cost": None if self.cost is None else dict(self.cost),
            "data": None if self.data is None else dict(self.data),
            "run": list(self.run),
        }

    def __str__(self) -> str:
        part = "" if self.key is None else f", {self.key}"
        title = one_line(f"{self.path}{part}: {self.kind}")
        lines = [title, "=" * len(title)]
        rows = [
            [
                one_line(str(a["name"])) or '""',
                " x ".join(map(str, a["shape"])) or "scalar",
                str(a["dtype"]),
            ]
            for a in self.arrays
        ]
        lines += table(["array", "shape", "dtype"], rows)
        for name, value in self.settings.items():
            shown = plain_activation(value) if isinstance(value, str) else value
            lines.append(one_line(f"  {name} = {shown}"))
        lines += _block("Network", self.network)
        lines += _block("Samples", self.data)
        word = "covered if told more: " if self.chain else "not covered: "
        word = "covered: " if self.covered else word
        lines += ["", f"Verifier: {'' if self.kind in _NO_NETWORK else word}{self.reason}"]
        if self.sources:
            words = {True: "fits", False: "does not fit", None: "needs another file"}
            fits = [[s.source, words[s.fits], s.reason] for s in self.sources]
            lines += ["", "Sources", *table(["", "", ""], fits)[1:]]
        lines += _block("Sizes", self.sizes)
        lines += _block("Cost of the verifier", self.cost)
        if self.run:
            lines += ["", "What to run", *(one_line(f"  {line}") for line in self.run)]
            lines += _placeholders(self.run, named=self.covered)
        return "\n".join(lines)


def inspect_file(
    path: PathLike | TensorFile,
    *,
    degree: int | None = None,
    activation: str | None = None,
    layers: str | None = None,
    key: str | None = None,
    seed: int = 0,
    head: bool = False,
) -> Inspection:
    """List the arrays of a file and say what the verifier can do with it.

    A network that the verifier does not cover is described, too; a file that cannot be trusted to
    hold what it declares is not.

    Raises what `load_network` and `load_samples` raise for unusable files. The cost is one singular
    value decomposition of the points, O(m d min(m, d)).

    Example:
        >>> import pathlib, tempfile
        >>> from identify.model.loading import save_network
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.npz"
        >>> save_network(TwoLayerNetwork(np.eye(3), np.full(3, 3**-0.5), degree=3), path)
        >>> inspect_file(path).sizes["neurons_needed"]
        4
    """
    file = read_tensors(path, key)
    arrays = tuple(
        {"name": name, "shape": list(shape), "dtype": file.dtypes[name]}
        for name, shape in file.shapes.items()
    )
    common: dict[str, Any] = {
        "path": file.path,
        "arrays": arrays,
        "settings": dict(file.settings),
        "key": file.key,
    }
    if layers is None and ("samples" in file.shapes or "images" in file.shapes):
        return Inspection(
            **common,
            kind="data",
            covered=False,
            reason="samples and no weights; see the commands audit and plant",
            data=_describe_data(file.path),
        )
    if _looks_like_gradient(file.path, key):
        _check_numbers(file)
        return Inspection(
            **common,
            kind="gradient",
            covered=False,
            reason="a gradient, by its name, which is judged together with its network",
        )
    if degree is None and deep_activation(file, activation, key=key) is not None:
        _check_numbers(file)
        try:
            found = describe_deep(file, activation=activation, layers=layers, key=key, head=head)
        except UnsupportedModelError as error:
            others = None if layers else other_layers(file.shapes, ordered=file.ordered)
            return Inspection(
                **common, kind="network", covered=False, reason=str(error),
                chain=bool(others is not None and others.options and not head),
            )  # fmt: skip
        note, weights = found.pop("gradient", None), found.pop("weights", {})
        fits = [SourceFit(name, *weights[name]) for name in _WEIGHTS if name in weights]
        sources = () if note is None else (*fits, SourceFit("gradient", None, note))
        return Inspection(**common, **found, sources=sources)
    if layers is None and not _names_layers(file):
        _check_numbers(file)
        return Inspection(
            **common,
            kind="arrays",
            covered=False,
            reason="the names do not say which arrays are the two layers of a network; give "
            "--layers HIDDEN,OUTPUT",
        )
    if degree is None and activation is None and not file.settings:
        return _without_degree(file, common, layers)
    described: dict[str, Any] | None = None
    try:
        network = load_network(file, degree=degree, activation=activation, layers=layers, key=key)
        described = _describe_network(network)
        if network.outputs != 2 or network.activation is not None:
            network.require_supported()
    except UnsupportedModelError as error:
        _check_numbers(file)
        return Inspection(
            **common, kind="network", covered=False, reason=str(error), network=described
        )
    return Inspection(
        **common,
        kind="network",
        covered=True,
        reason="a two-layer monomial network with "
        + ("one output" if network.outputs == 1 else "two outputs, read as their difference"),
        network=described,
        **_describe_sources(network, seed),
    )


def neurons_needed(degree: int, dimension: int) -> int:
    """Fewest generic neurons whose gradients determine a form of that degree on R^r.

    ceil(N/r) with N = C(r + degree - 1, degree), and one more in the exceptional cases.

    Source: Alexander & Hirschowitz (1995), "Polynomial interpolation in several variables".

    Example:
        >>> neurons_needed(3, 8), neurons_needed(3, 5)
        (15, 8)
    """
    count = -(-symmetric_dimension(degree, dimension) // dimension)
    return count + ((degree, dimension) in _EXCEPTIONS)


def samples_determined(degree: int, neurons: int, dimension: int) -> int:
    """Largest batch whose gradient at generic neurons determines a form on its span.

    Example:
        >>> samples_determined(3, 60, 64)
        17
    """
    most = 0
    for count in range(1, min(dimension, neurons - 1) + 1):
        if neurons_needed(degree, count) > neurons:
            break
        most = count
    return most


def _names_layers(file: TensorFile) -> bool:
    if "hidden.weight" in file.shapes and "output.weight" in file.shapes:
        return True
    listed = in_order(file.shapes) is not None
    weights = [name for name, shape in file.shapes.items()
               if (listed or name.endswith(".weight")) and len(shape) > 1]  # fmt: skip
    return len(weights) >= 2


def _check_numbers(file: TensorFile) -> None:
    for name, dtype in file.dtypes.items():
        if dtype in ROUNDING:
            file.floats(name)


def _without_degree(file: TensorFile, common: Mapping[str, Any], layers: str | None) -> Inspection:
    reason = (
        "the file does not say which activation the network has; give --degree A if it is the "
        "power A of its input, or --activation NAME"
    )
    _check_numbers(file)
    chain = chain_of(file, layers)
    others = None if layers else other_layers(file.shapes, ordered=file.ordered)
    if others is not None:
        said = f"besides the layers {listed(others.linear)} the network has {others}"
        return Inspection(
            **common, kind="network", covered=False, chain=bool(others.options),
            reason=f"{said}; {others.advice() or SCOPE}",
        )  # fmt: skip
    try:
        find_layers(file.path, file.shapes, layers=layers, ordered=file.ordered)
    except (UnsupportedModelError, InvalidInputError) as error:
        if not chain and isinstance(error, InvalidInputError):
            raise
        reason = str(error)
        if chain:
            names = ", ".join(f"{name}.weight" for name in chain)
            reason = (
                f"the network has the layers {names}, and the file does not say which activation "
                "stands between them; give --activation NAME"
            )
    return Inspection(**common, kind="network", covered=False, reason=reason, chain=bool(chain))


def _looks_like_gradient(path: PathLike, key: str | None) -> bool:
    """Whether the name of a file, or of its part, says that it holds a gradient.

    Example:
        >>> [_looks_like_gradient(name, None) for name in ("a/client-gradient.npz", "graded.pt")]
        [True, False]
    """
    words = re.split(r"[^a-z]+", f"{Path(path).stem} {key or ''}".lower())
    return any(word in ("grad", "grads", "gradient", "gradients") for word in words)


def _describe_network(network: TwoLayerNetwork) -> dict[str, Any]:
    coefficients = network.activation
    return {
        "width": network.width,
        "dimension": network.dimension,
        "outputs": network.outputs,
        "activation": "monomial" if coefficients is None else list(coefficients),
        "degree": network.degree,
        "hidden_bias": network.has_bias,
        "output_bias": network.output_bias is not None,
        "rounding": network.rounding,
        "sha256": network.sha256(),
    }


def _describe_sources(network: TwoLayerNetwork, seed: int) -> dict[str, Any]:
    """Fields `sources`, `sizes` and `cost` of a network that the verifier covers."""
    from identify.hermite.reduction import reduce_data
    from identify.thresholds import BALANCE_LIMIT, NOISE_FLOOR

    level = max(network.rounding, NOISE_FLOOR)
    try:
        data = HermiteData.from_weight_decay(network)
    except InvalidInputError as error:
        dead = tuple(SourceFit(name, False, str(error)) for name in ("kkt", "weight-decay"))
        return {"sources": dead}
    except UnsupportedModelError as error:
        words = error.context["what"]
        dead = tuple(SourceFit(name, False, words) for name in ("kkt", "weight-decay"))
        other = (("gradient", "--gradient FILE"), ("fine-tuning", "--initial FILE"))
        return {"sources": dead + tuple(SourceFit(name, None, words) for name, words in other)}
    network = data.network
    balance = data.consistency or 0.0
    stationary = balance <= BALANCE_LIMIT
    words = f"balance residual {number(balance)}, {'at most' if stationary else 'above'} 1e-2"
    offset = network.output_bias is not None and bool(np.any(network.output_bias))
    bias_words = "; the output bias is not 0" if offset else ""
    full = network.dimension + network.has_bias
    batch = samples_determined(network.degree, network.width, full)
    reach = f"generic weights determine batches of up to {counted(batch, 'sample')}"
    sources = (
        SourceFit("kkt", stationary and not offset, words + bias_words),
        SourceFit("weight-decay", stationary, words),
        SourceFit("gradient", None, f"--gradient FILE; {reach}"),
        SourceFit("fine-tuning", None, f"--initial FILE; {reach}"),
    )
    if not stationary:
        # Nothing is known of a gradient's span but what the weights could determine at best.
        assumed = f"gradient of {batch} samples, in general position"
        sizes = {"assumed": assumed, **_size(network.degree, batch, network.width)}
        return {"sources": sources, "sizes": sizes, "cost": _cost(network, network.width, batch)}
    reduced = reduce_data(data, max(level, balance), seed=seed)
    r, neurons = reduced.dimension, reduced.neurons
    sizes = {"assumed": "a stationary network", "span_clear": reduced.span.clear}
    sizes |= _size(network.degree, r, neurons)
    return {"sources": sources, "sizes": sizes, "cost": _cost(network, neurons, r)}


def _size(degree: int, dimension: int, neurons: int) -> dict[str, Any]:
    """Unknowns on the span and the neurons that the three conditions need there."""
    if dimension == 0:
        return {"span_dimension": 0, "distinct_neurons": neurons}
    needed = neurons_needed(degree, dimension)
    return {
        "span_dimension": dimension,
        "distinct_neurons": neurons,
        "unknowns": symmetric_dimension(degree, dimension),
        "neurons_needed": needed,
        "neurons_needed_flat": symmetric_dimension(degree - 1, dimension),
        "neurons_needed_value": symmetric_dimension(degree, dimension),
        "enough_neurons": neurons >= needed,
    }


def _cost(network: TwoLayerNetwork, neurons: int, dimension: int) -> dict[str, Any] | None:
    """Work and memory of the linear equations on the span."""
    from identify.interpolation.interpolate import DENSE_LIMIT

    if dimension == 0 or neurons == 0:
        return None
    unknowns = symmetric_dimension(network.degree, dimension)
    dense = neurons * dimension * unknowns
    return {
        "equations": neurons * dimension,
        "unknowns": unknowns,
        "flops_per_product": 6 * neurons**2 * dimension,
        "kernel_bytes": 8 * 3 * neurons**2,
        "dense_bytes": 8 * dense,
        "dense_allowed": dense <= DENSE_LIMIT,
    }


def _describe_data(path: PathLike) -> dict[str, Any]:
    data = load_samples(path)
    samples = data.samples
    norms = np.linalg.norm(samples, axis=1)
    rank = int(np.linalg.matrix_rank(samples))
    spread = float(np.linalg.norm(samples - samples.mean(axis=0)))
    total = float(np.linalg.norm(samples))
    found: dict[str, Any] = {
        "samples": len(samples),
        "dimension": int(samples.shape[1]),
        "image_shape": None if data.image_shape is None else list(data.image_shape),
        "labels": _label_counts(data.labels),
        "smallest_entry": float(samples.min()),
        "largest_entry": float(samples.max()),
        "smallest_norm": float(norms.min()),
        "largest_norm": float(norms.max()),
        "share_of_mean": 1.0 - (spread / total) ** 2 if total > 0 else None,
        "span_dimension": rank,
    }
    same = equal_rows(samples)
    if same:
        found["equal_samples"] = f"{spell_groups(same)} (counted from 0)"
    for degree in _DEGREES:
        if rank:
            found[f"neurons_needed_degree_{degree}"] = max(
                neurons_needed(degree, rank), len(samples) + 1
            )
    return found


def _label_counts(labels: Any) -> dict[str, int] | None:
    if labels is None:
        return None
    values, counts = np.unique(labels, return_counts=True)
    if len(values) > 20:
        return {"distinct values": len(values)}
    return {f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)}


def _placeholders(lines: Sequence[str], *, named: bool) -> list[str]:
    """Say what the capitals in lines to type stand for."""
    meanings = {
        "FILE": "the gradient of a batch's loss, or for --initial the network before training"
        if any("--initial FILE" in line for line in lines)
        else "the gradient of a batch's loss",
        "WORD": "the activation: relu, gelu, tanh and the like",
        "MODEL": "the file of the network",
        "A": "the power",
        "MODEL.npz": "a new file",
    }
    used = dict.fromkeys(word for line in lines for word in line.split() if word in meanings)
    said = [f"{word}: {meanings[word]}" for word in used]
    if not named and any("--activation relu" in line for line in lines):
        said.append("relu: or the word that the network has")
    return [f"  ({'; '.join(said)})"] if said else []


def _block(title: str, entries: Mapping[str, Any] | None) -> list[str]:
    if not entries:
        return []
    rows = [[name.replace("_", " "), _spell(value)] for name, value in entries.items()]
    return ["", title, *table(["", ""], rows)[1:]]


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {count}" for name, count in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " x ".join(str(part) for part in value)
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else number(value)
