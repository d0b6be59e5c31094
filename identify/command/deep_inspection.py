"""What `inspect` says about networks of any depth."""

from __future__ import annotations

from typing import Any

from identify.checkpoints.pair import check_pair
from identify.disaggregation.capacity import largest_batch, largest_smooth_batch
from identify.disaggregation.stationary import SOURCES, look_at
from identify.errors import KktCertError
from identify.model.deep import DeepNetwork
from identify.model.deep_files import load_deep_network
from identify.model.deep_layers import find_deep_layers
from identify.model.tensor_file import TensorFile
from identify.text import counted, number

Weights = tuple[bool | None, str, str]
"""Whether a source fits, the reason, and the option that it takes."""


def describe_deep(
    file: TensorFile,
    *,
    activation: str | None,
    layers: str | None,
    key: str | None,
    head: bool = False,
) -> dict[str, Any]:
    """The fields of an `Inspection` but for the arrays: kind, covered, reason, network, sizes.

    Raises what the reader of such networks raises.
    """
    network = load_deep_network(file, activation=activation, layers=layers, key=key, head=head)
    kinds = [str(kind) for kind in network.activations]
    known: dict[str, Any] = {
        "kind": "network",
        "network": {
            "sizes": [network.dimension, *network.widths, network.outputs],
            "activation": ", ".join(dict.fromkeys(kinds)) or "none",
            "layers": ", ".join(network.names),
            "biases": sum(bias is not None for bias in network.biases),
            "sha256": network.sha256(),
        },
    }
    reason = _not_covered(network)
    if reason:
        return {**known, "covered": False, "reason": reason}
    known["weights"] = {
        source.replace("_", "-"): _weights(network, source, head) for source in SOURCES
    }
    known["weights"]["fine-tuning"] = _pair(network, head)
    if network.activations[-1].kink is None:
        most = largest_smooth_batch(network.widths, network.outputs)
        return {
            **known,
            "covered": True,
            "reason": "a network with a smooth activation, for --source gradient",
            "gradient": f"--gradient FILE; batches of up to {most} by the count of equations of "
            "one sample, and no larger than the rank of the inputs",
            "sizes": {"largest_batch": most},
        }
    width = network.widths[-1]
    most = largest_batch(width, network.outputs)
    return {
        **known,
        "covered": True,
        "reason": "a ReLU network, for --source gradient"
        + (" and its weights" if any(fits for fits, *_ in known["weights"].values()) else ""),
        "gradient": f"--gradient FILE; batches of up to {most} if all {width} neurons of the last "
        "hidden layer are mixed: on for some samples, off for others",
        "sizes": {"mixed_neurons_at_most": width, "largest_batch": most},
    }


def chain_of(file: TensorFile, layers: str | None, *, head: bool = False) -> tuple[str, ...]:
    """The layers of a file without an activation that a ReLU network could have, else none."""
    shapes = file.shapes
    try:
        found = find_deep_layers(file.path, shapes, layers=layers, ordered=file.ordered, head=head)
    except KktCertError:
        return ()
    return tuple(layer.name for layer in found) if len(found) > 1 else ()


def _weights(network: DeepNetwork, source: str, head: bool) -> Weights:
    """Whether the weights can be asked about, why not, and the option that this takes."""
    if head:
        return False, "not with --head", ""
    try:
        seen = look_at(network, source)
    except KktCertError as error:
        return False, str(error.context.get("what", error)), ""
    if not seen.clear:
        return False, (
            f"the singular values of the hidden weights end nowhere (rank {seen.rank} is not "
            "clear): more samples than neurons or dimensions, or not stationary"
        ), ""  # fmt: skip
    enough = "enough for" if seen.directions >= seen.needed else "too few for"
    words = (
        f"rank {seen.rank}: as many samples; {counted(seen.directions, 'direction')} of neurons, "
        f"{enough} the {seen.needed} that the kernel asks for"
    )
    if seen.balanced:
        return True, f"{words}; |w_j| = |a_j| to {number(seen.balance)}: both layers trained", ""
    return True, (
        f"{words}; |w_j| = |a_j| is violated by {number(seen.balance)}: only if the output layer "
        "was fixed"
    ), "--trained hidden"  # fmt: skip


def _pair(network: DeepNetwork, head: bool) -> Weights:
    """Whether the samples between this network and another can be asked for, and why not."""
    if head:
        return False, "not with --head", ""
    try:
        check_pair(network, network)
    except KktCertError as error:
        return False, f"{error.context.get('what', error)}; see the command span", ""
    return None, "--initial FILE", ""


def _not_covered(network: DeepNetwork) -> str:
    if network.depth < 2:
        return "one layer; a hidden layer is needed"
    kink = network.activations[-1].kink
    if kink is not None and abs(kink) >= 1.0:
        return (
            f"the activation {network.activations[-1]} before the output layer is not covered yet"
        )
    return ""
