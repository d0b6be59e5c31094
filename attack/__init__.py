"""Reconstruct training data from the parameters of a trained network by optimisation.

Names are imported when they are first used: the command lists its options without torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attack.activations import Activation
    from attack.data import ImageData, load_images
    from attack.evaluate import Evaluation, EvaluationSettings, evaluate
    from attack.networks import (
        Network,
        NetworkSpec,
        from_module,
        load_network,
        parse_spec,
        save_network,
    )
    from attack.objectives import OBJECTIVES, Candidates, Objective
    from attack.presets import PRESETS, Preset, preset
    from attack.reconstruct import reconstruct
    from attack.runs import Run, Snapshot, load_run
    from attack.second_order import SecondOrder, check_second_order
    from attack.solve import Round, solve
    from attack.solve_settings import SolveSettings
    from attack.spans import AffineSpan
    from attack.splitting import SplitRound, split_candidates
    from attack.starts import StartImages, load_start, start_candidates
    from attack.train import TrainedNetwork, train_network

__all__ = [
    "OBJECTIVES",
    "PRESETS",
    "Activation",
    "AffineSpan",
    "Candidates",
    "Evaluation",
    "EvaluationSettings",
    "ImageData",
    "Network",
    "NetworkSpec",
    "Objective",
    "Preset",
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
    "activations": ("Activation",),
    "data": ("ImageData", "load_images"),
    "evaluate": ("Evaluation", "EvaluationSettings"),
    "networks": (
        "Network", "NetworkSpec", "from_module", "load_network", "parse_spec", "save_network",
    ),
    "objectives": ("OBJECTIVES", "Candidates", "Objective"),
    "presets": ("PRESETS", "Preset", "preset"),
    "runs": ("Run", "Snapshot", "load_run"),
    "second_order": ("SecondOrder", "check_second_order"),
    "solve": ("Round",),
    "solve_settings": ("SolveSettings",),
    "spans": ("AffineSpan",),
    "splitting": ("SplitRound", "split_candidates"),
    "starts": ("StartImages", "load_start", "start_candidates"),
    "train": ("TrainedNetwork", "train_network"),
}  # fmt: skip
_MODULE_OF = {name: f"attack.{module}" for module, names in _HOMES.items() for name in names}


def _function(name: str) -> property:
    """A function that has the name of its module, which the import system would put there."""

    def get(package: ModuleType) -> Any:
        return getattr(import_module(f"attack.{name}"), name)

    def ignore(package: ModuleType, module: Any) -> None:
        """Keep the function where an import binds the module."""

    return property(get, ignore)


class _Package(ModuleType):
    evaluate = _function("evaluate")
    reconstruct = _function("reconstruct")
    solve = _function("solve")

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULE_OF[name]), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
