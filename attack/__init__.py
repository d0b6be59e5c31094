"""Reconstruct training data from the parameters of a trained network by optimisation.

Names are imported when they are first used: the command lists its options without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attack.evaluation.evaluate import evaluate
    from attack.evaluation.scores import Evaluation, EvaluationSettings
    from attack.membership import GivenInputs, module_members
    from attack.monitor import Monitor, Reading
    from attack.networks.activations import Activation
    from attack.networks.files import load_network, save_network
    from attack.networks.network import Network
    from attack.networks.spec import NetworkSpec, from_module, parse_spec
    from attack.objectives import OBJECTIVES, Candidates, Objective
    from attack.objectives.presets import PRESETS, Preset, preset
    from attack.objectives.spans import AffineSpan
    from attack.reconstruction import reconstruct
    from attack.runs.folder import load_run
    from attack.runs.run import Run, Snapshot
    from attack.solving.loop import solve
    from attack.solving.second_order import SecondOrder, check_second_order
    from attack.solving.settings import SolveSettings
    from attack.solving.starts import StartImages, load_start, start_candidates
    from attack.solving.state import Round
    from attack.splitting.record import SplitRound
    from attack.splitting.split_round import split_candidates
    from attack.training.images import ImageData, load_images
    from attack.training.train import TrainedNetwork, train_network

__all__ = [
    "OBJECTIVES",
    "PRESETS",
    "Activation",
    "AffineSpan",
    "Candidates",
    "Evaluation",
    "EvaluationSettings",
    "GivenInputs",
    "ImageData",
    "Monitor",
    "Network",
    "NetworkSpec",
    "Objective",
    "Preset",
    "Reading",
    "Round",
    "Run",
    "SecondOrder",
    "Snapshot",
    "SolveSettings",
    "SplitRound",
    "StartImages",
    "TrainedNetwork",
    "check_second_order",
    "evaluate",
    "from_module",
    "load_images",
    "load_network",
    "load_run",
    "load_start",
    "module_members",
    "parse_spec",
    "preset",
    "reconstruct",
    "save_network",
    "solve",
    "split_candidates",
    "start_candidates",
    "train_network",
]

_HOMES = {
    "evaluation.evaluate": ("evaluate",),
    "evaluation.scores": (
        "Evaluation",
        "EvaluationSettings",
    ),
    "membership": (
        "GivenInputs",
        "module_members",
    ),
    "monitor": ("Monitor", "Reading"),
    "networks.activations": ("Activation",),
    "networks.files": (
        "load_network",
        "save_network",
    ),
    "networks.network": ("Network",),
    "networks.spec": (
        "NetworkSpec",
        "from_module",
        "parse_spec",
    ),
    "objectives": (
        "OBJECTIVES",
        "Candidates",
        "Objective",
    ),
    "objectives.presets": (
        "PRESETS",
        "Preset",
        "preset",
    ),
    "objectives.spans": ("AffineSpan",),
    "reconstruction": ("reconstruct",),
    "runs.folder": ("load_run",),
    "runs.run": (
        "Run",
        "Snapshot",
    ),
    "solving.loop": ("solve",),
    "solving.second_order": (
        "SecondOrder",
        "check_second_order",
    ),
    "solving.settings": ("SolveSettings",),
    "solving.starts": (
        "StartImages",
        "load_start",
        "start_candidates",
    ),
    "solving.state": ("Round",),
    "splitting.record": ("SplitRound",),
    "splitting.split_round": ("split_candidates",),
    "training.images": (
        "ImageData",
        "load_images",
    ),
    "training.train": (
        "TrainedNetwork",
        "train_network",
    ),
}
_MODULE_OF = {name: f"attack.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
