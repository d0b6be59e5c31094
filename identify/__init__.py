"""Decide whether the weights of a network determine its training data, and recover them."""

from identify.alternatives import find_alternative, save_alternatives
from identify.assess import assess_identifiability, recover_samples
from identify.audit import AuditReport, audit
from identify.compare import Comparison, Matching, compare_recovery, match_samples
from identify.dataset import Dataset, load_samples
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
from identify.symbolic import KKTSystem, kkt_system

__all__ = [
    "AuditReport",
    "BudgetExceededError",
    "Comparison",
    "Condition",
    "Dataset",
    "Evidence",
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
    "Recovery",
    "Residual",
    "Scope",
    "TrainingSet",
    "TwoLayerNetwork",
    "UnsupportableModelError",
    "UnsupportedModelError",
    "Verdict",
    "assess_identifiability",
    "audit",
    "compare_recovery",
    "find_alternative",
    "from_torch",
    "kkt_system",
    "load_gradient",
    "load_network",
    "load_samples",
    "match_samples",
    "plant_network",
    "recover_samples",
    "save_alternatives",
    "save_network",
]
