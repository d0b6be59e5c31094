"""Reconstruction objectives: what candidates must satisfy to explain a network's parameters."""

from attack.objectives.base import (
    Evaluation,
    MultiplierSystem,
    Objective,
    Products,
    doubled_products,
)
from attack.objectives.bilevel import BilevelObjective, Converged, Unrolled, bilevel_objective
from attack.objectives.buzaglo import buzaglo_objective
from attack.objectives.candidates import Candidates
from attack.objectives.gradient_matching import gradient_matching_objective, gradient_norm_objective
from attack.objectives.haim import haim_objective
from attack.objectives.loo import LooPenalties, loo_objective, pixel_box
from attack.objectives.residual import Kernel, ResidualObjective
from attack.objectives.schedules import StartRange, TemperatureSchedule

#: The names by which the command and run folders know the objectives.
OBJECTIVES = ("haim", "buzaglo", "loo", "gradient_matching", "gradient_norm", "bilevel")

__all__ = [
    "OBJECTIVES",
    "BilevelObjective",
    "Candidates",
    "Converged",
    "Evaluation",
    "Kernel",
    "LooPenalties",
    "MultiplierSystem",
    "Objective",
    "Products",
    "ResidualObjective",
    "StartRange",
    "TemperatureSchedule",
    "Unrolled",
    "bilevel_objective",
    "buzaglo_objective",
    "doubled_products",
    "gradient_matching_objective",
    "gradient_norm_objective",
    "haim_objective",
    "loo_objective",
    "pixel_box",
]
