"""Decide whether the weights of a network determine its training data, and recover them."""

from identify.alternatives import find_alternative, save_alternatives
from identify.assess import assess_identifiability, recover_samples
from identify.audit import AuditReport, audit
from identify.check import CheckInputError, CheckResult, check_report
from identify.check_base import Claim
from identify.compare import Comparison, Matching, compare_recovery, match_samples
from identify.dataset import Dataset, load_samples
from identify.enclosure import Enclosure, enclose_terms
from identify.errors import (
    BudgetExceededError,
    FileError,
    InvalidInputError,
    KktCertError,
    NotDeterminedError,
    NotYetSupportedError,
    UnsupportableModelError,
    UnsupportedModelError,
)
from identify.exact import RankProof, prove_rank
from identify.hermite import HermiteData
from identify.loading import from_torch, load_gradient, load_network, save_network
from identify.network import TwoLayerNetwork
from identify.plant import PlantedNetwork, PlantingError, plant_network
from identify.results import (
    Condition,
    Evidence,
    IdentifiabilityReport,
    Recovery,
    Residual,
    Scope,
    TrainingSet,
    Verdict,
)
from identify.singular import SingularValueBound, bound_smallest_singular_value
from identify.solution_sets import ExactTrainingSet, SolutionSet
from identify.solutions import exact_gradient, solve_gradient, solve_stationary, three_cubes
from identify.symbolic import KKTSystem, kkt_system

__all__ = [
    "AuditReport",
    "BudgetExceededError",
    "CheckInputError",
    "CheckResult",
    "Claim",
    "Comparison",
    "Condition",
    "Dataset",
    "Enclosure",
    "Evidence",
    "ExactTrainingSet",
    "FileError",
    "HermiteData",
    "IdentifiabilityReport",
    "InvalidInputError",
    "KKTSystem",
    "KktCertError",
    "Matching",
    "NotDeterminedError",
    "NotYetSupportedError",
    "PlantedNetwork",
    "PlantingError",
    "RankProof",
    "Recovery",
    "Residual",
    "Scope",
    "SingularValueBound",
    "SolutionSet",
    "TrainingSet",
    "TwoLayerNetwork",
    "UnsupportableModelError",
    "UnsupportedModelError",
    "Verdict",
    "assess_identifiability",
    "audit",
    "bound_smallest_singular_value",
    "check_report",
    "compare_recovery",
    "enclose_terms",
    "exact_gradient",
    "find_alternative",
    "from_torch",
    "kkt_system",
    "load_gradient",
    "load_network",
    "load_samples",
    "match_samples",
    "plant_network",
    "prove_rank",
    "recover_samples",
    "save_alternatives",
    "save_network",
    "solve_gradient",
    "solve_stationary",
    "three_cubes",
]
