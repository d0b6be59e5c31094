"""Objectives by name: which network files each one needs, and which options it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from attack.arguments import tensors_sha256
from attack.networks.activations import Activation, parse_activation
from attack.networks.network import Network
from attack.objectives import (
    OBJECTIVES,
    Converged,
    LooPenalties,
    Objective,
    TemperatureSchedule,
    Unrolled,
    bilevel_objective,
    buzaglo_objective,
    gradient_matching_objective,
    gradient_norm_objective,
    haim_objective,
    loo_objective,
    pixel_box,
)
from attack.objectives.presets import Preset
from identify.errors import InvalidInputError

_COMMON = ("activation", "box", "normaliser")
#: The options of every objective, with the names of the functions that build it.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "haim": (*_COMMON, "floor"),
    "buzaglo": (*_COMMON, "floor", "task"),
    "loo": (*_COMMON, "features", "box_weight", "blur", "sparsity", "period"),
    "gradient_matching": (*_COMMON, "loss", "decay"),
    "gradient_norm": (*_COMMON, "loss", "decay"),
    "bilevel": (*_COMMON, "loss", "decay", "inner", "unrolled", "rate", "momentum", "tolerance"),
}
_WORDS = ("activation", "task", "features", "loss")
_PRESET_OPTIONS = ("activation", "floor", "features", "task", "normaliser")
_SOFTNESS = 20.0
_PERIOD = 300.0
"""Of the temperature of loo, in steps of lbfgs; as published 20,000, in steps of adam."""


@dataclass(frozen=True, eq=False)
class Victim:
    """What is known of the attacked training, on one device and in one dtype.

    ``initial`` is the network before training, ``gradient`` that of the loss of one batch, with the
    network's shapes; ``mean`` (D,) or a number is what was subtracted from pixels in [0, 1], None
    if it is not known.
    """

    network: Network
    initial: Network | None = None
    gradient: tuple[Tensor, ...] | None = None
    mean: float | Tensor | None = None

    def hashes(self) -> dict[str, Any]:
        """What a run folder keeps to recognise the inputs."""
        found: dict[str, Any] = {
            "network": {"form": repr(self.network), "sha256": self.network.sha256()},
        }
        if self.initial is not None:
            found["initial"] = {"sha256": self.initial.sha256()}
        if self.gradient is not None:
            found["gradient"] = {"sha256": tensors_sha256(self.gradient)}
        if isinstance(self.mean, Tensor):
            found["mean"] = {"sha256": tensors_sha256([self.mean])}
        elif self.mean is not None:
            found["mean"] = {"value": float(self.mean)}
        return found


def build_objective(
    name: str,
    victim: Victim,
    count: int,
    *,
    options: Mapping[str, Any] | None = None,
    preset: Preset | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> Objective:
    """Build an objective by its name, in the settings of a preset or with options.

    ``options`` are keyword arguments of the functions in `attack.objectives`; the steps of bilevel
    are ``unrolled``, an activation may be a word, a box a pair. ``normaliser`` is ``count`` unless
    given. Without an activation a relu victim is attacked by haim and buzaglo as soft_relu20, whose
    derivatives reach the points, and by loo with the growing temperature of its source, times 10
    every ``period`` steps, 300 unless given.

    Raises InvalidInputError for unknown names and options, and for what is missing.

    Example:
        >>> from attack.networks.spec import parse_spec
        >>> victim = Victim(parse_spec("4-6-1,relu").initialise(seed=0))
        >>> build_objective("haim", victim, 8, options={"floor": 0.1}).describe()["activation"]
        'soft_relu20'
    """
    if name not in OBJECTIVES:
        raise InvalidInputError("objective", f"one of {', '.join(OBJECTIVES)}", name)
    chosen = dict(options or {})
    known = OPTIONS[name] if preset is None else _PRESET_OPTIONS
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise InvalidInputError(
            "options", f"some of {', '.join(known)} for {preset.name if preset else name}",
            ", ".join(unknown),
        )  # fmt: skip
    _check_kinds(chosen)
    normaliser = float(chosen.pop("normaliser", count))
    if preset is not None:
        return _from_preset(name, victim, normaliser, chosen, preset, image_shape)
    activation = chosen.pop("activation", None)
    if isinstance(activation, str):
        activation = parse_activation(activation)
    if chosen.get("box") is not None:
        low, high = chosen["box"]
        chosen["box"] = (float(low), float(high))
    arguments = {
        **chosen, "normaliser": normaliser, "activation": activation, "image_shape": image_shape,
    }  # fmt: skip
    builders = {
        "haim": _haim,
        "buzaglo": _haim,
        "loo": _loo,
        "gradient_matching": _gradient,
        "gradient_norm": _norm,
        "bilevel": _bilevel,
    }
    return builders[name](name, victim, arguments)


def _check_kinds(options: Mapping[str, Any]) -> None:
    """Refuse words where numbers are due, and the reverse."""
    for name, value in options.items():
        if value is None or isinstance(value, Activation):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _WORDS:
            if not isinstance(value, str):
                raise InvalidInputError(f"option {name}", "a word", value)
        elif name == "box":
            pair = isinstance(value, list | tuple) and len(value) == 2
            if not pair or not all(isinstance(v, int | float) for v in value):
                raise InvalidInputError("option box", "two numbers [LOW, HIGH]", value)
        elif not number:
            raise InvalidInputError(f"option {name}", "a number", repr(value))


def _from_preset(
    name: str,
    victim: Victim,
    normaliser: float,
    options: dict[str, Any],
    preset: Preset,
    image_shape: tuple[int, int, int] | None,
) -> Objective:
    if preset.objective != name:
        raise InvalidInputError("preset", f"one for {name}", f"{preset.name}, {preset.objective}")
    if isinstance(options.get("activation"), Activation):
        options["activation"] = options["activation"].spec
    built = replace(preset, **options).build(
        victim.network,
        count=1,
        initial=victim.initial,
        mean=0.0 if victim.mean is None else victim.mean,
        image_shape=image_shape,
    )
    # Presets divide by a whole count of candidates; a normaliser may be any number.
    return replace(built, normaliser=built.normaliser * normaliser)


def _haim(name: str, victim: Victim, arguments: dict[str, Any]) -> Objective:
    if arguments["activation"] is None and victim.network.activation.name == "relu":
        arguments["activation"] = Activation("soft_relu", _SOFTNESS)
    build = haim_objective if name == "haim" else buzaglo_objective
    return build(victim.network, **arguments)


def _loo(name: str, victim: Victim, arguments: dict[str, Any]) -> Objective:
    period = float(arguments.pop("period", _PERIOD))
    if arguments["activation"] is None and victim.network.activation.name == "relu":
        arguments["schedule"] = TemperatureSchedule(period=period)
    if victim.mean is not None:
        arguments.setdefault("box", pixel_box(victim.mean))
    names = [name for name in ("box", "box_weight", "blur", "sparsity") if name in arguments]
    arguments["penalties"] = LooPenalties(**{name: arguments.pop(name) for name in names})
    return loo_objective(victim.initial, victim.network, **arguments)


def _gradient(name: str, victim: Victim, arguments: dict[str, Any]) -> Objective:
    if victim.gradient is None:
        raise InvalidInputError(
            "gradient", "the gradient of one batch", "none", "give it with --gradient"
        )
    return gradient_matching_objective(victim.network, victim.gradient, **arguments)


def _norm(name: str, victim: Victim, arguments: dict[str, Any]) -> Objective:
    return gradient_norm_objective(victim.network, **_with_loss(name, arguments))


def _bilevel(name: str, victim: Victim, arguments: dict[str, Any]) -> Objective:
    arguments = _with_loss(name, arguments)
    named = {"unrolled": "steps", "rate": "rate", "momentum": "momentum", "decay": "decay"}
    inner = arguments.pop("inner", "unrolled")
    if inner not in ("unrolled", "converged"):
        raise InvalidInputError("inner", "unrolled or converged", inner)
    kind = Unrolled if inner == "unrolled" else Converged
    if kind is Converged:
        named = {"tolerance": "tolerance", "decay": "decay"}
    given = {field: arguments.pop(key) for key, field in named.items() if key in arguments}
    others = {"unrolled", "rate", "momentum", "tolerance"} & set(arguments)
    if others:
        raise InvalidInputError(
            "options", f"some of {', '.join(named)} for inner={inner}", sorted(others)[0]
        )
    return bilevel_objective(victim.network, victim.initial, training=kind(**given), **arguments)


def _with_loss(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments.get("loss") is None:
        raise InvalidInputError(
            f"loss of {name}", "logistic, squared or cross-entropy", "none", "name the loss"
        )
    return arguments
