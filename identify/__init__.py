"""Decide whether the weights of a network determine its training data, and recover them.

Names are imported when they are first used: the checker runs without the rest of the package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from identify.alternatives.find import find_alternative, save_alternatives
    from identify.assess import assess_identifiability, recover_samples
    from identify.assess_batch import assess_gradient
    from identify.assess_weights import assess_stationary
    from identify.budget import Budget
    from identify.checker.check import check_report
    from identify.checker.outcome import CheckInputError, CheckResult, Claim
    from identify.checkpoints.pair import PairSamples, separate_pair
    from identify.checkpoints.recipe import OpenRecipe, Recipe
    from identify.checkpoints.replay import Replay, replay_samples, retrain
    from identify.checkpoints.replay_search import search_recipe
    from identify.checkpoints.span import CheckpointSpan, find_span, load_span, save_span
    from identify.disaggregation.records import Disaggregation
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
    from identify.exposure.audit import audit
    from identify.exposure.batch import audit_gradient
    from identify.exposure.batch_members import GivenSamples, gradient_members, span_members
    from identify.exposure.batch_report import BatchAudit
    from identify.exposure.compare import Comparison, Matching, compare_recovery, match_samples
    from identify.exposure.membership import Membership, MembershipReport
    from identify.exposure.noise_limit import with_noise_limit
    from identify.exposure.report import AuditReport
    from identify.exposure.weights import audit_stationary
    from identify.exposure.weights_report import WeightsAudit
    from identify.hermite.data import HermiteData
    from identify.model.activations import Activation
    from identify.model.dataset import Dataset, load_samples
    from identify.model.deep import DeepGradient, DeepNetwork
    from identify.model.deep_files import load_deep_gradient, load_deep_network
    from identify.model.gradients import load_gradient
    from identify.model.loading import (
        from_torch,
        load_network,
        save_network,
        save_relu_network,
    )
    from identify.model.two_layer import TwoLayerNetwork
    from identify.planting.plant import PlantedNetwork, PlantingError, plant_network
    from identify.planting.relu import (
        PlantedRelu,
        centred_samples,
        equiangular_samples,
        plant_relu_network,
    )
    from identify.proofs.enclosure import Enclosure, enclose_terms
    from identify.proofs.rank import RankProof, prove_rank
    from identify.proofs.singular_value import SingularValueBound, bound_smallest_singular_value
    from identify.records import (
        Condition,
        Evidence,
        Recovery,
        Residual,
        Scope,
        TrainingSet,
        Verdict,
    )
    from identify.recovery.assumptions import Assumptions
    from identify.report.gradient import GradientReport
    from identify.report.report import IdentifiabilityReport
    from identify.report.stationary import StationaryReport
    from identify.symbolic.derive import kkt_system
    from identify.symbolic.solution_set import ExactTrainingSet, SolutionSet
    from identify.symbolic.solve import (
        exact_gradient,
        solve_gradient,
        solve_stationary,
        three_cubes,
    )
    from identify.symbolic.system import KKTSystem

__all__ = [
    "Activation",
    "Assumptions",
    "AuditReport",
    "BatchAudit",
    "Budget",
    "BudgetExceededError",
    "CheckInputError",
    "CheckResult",
    "CheckpointSpan",
    "Claim",
    "Comparison",
    "Condition",
    "Dataset",
    "DeepGradient",
    "DeepNetwork",
    "Disaggregation",
    "Enclosure",
    "Evidence",
    "ExactTrainingSet",
    "FileError",
    "GivenSamples",
    "GradientReport",
    "HermiteData",
    "IdentifiabilityReport",
    "InvalidInputError",
    "KKTSystem",
    "KktCertError",
    "Matching",
    "Membership",
    "MembershipReport",
    "NotDeterminedError",
    "NotYetSupportedError",
    "OpenRecipe",
    "PairSamples",
    "PlantedNetwork",
    "PlantedRelu",
    "PlantingError",
    "RankProof",
    "Recipe",
    "Recovery",
    "Replay",
    "Residual",
    "Scope",
    "SingularValueBound",
    "SolutionSet",
    "StationaryReport",
    "TrainingSet",
    "TwoLayerNetwork",
    "UnsupportableModelError",
    "UnsupportedModelError",
    "Verdict",
    "WeightsAudit",
    "assess_gradient",
    "assess_identifiability",
    "assess_stationary",
    "audit",
    "audit_gradient",
    "audit_stationary",
    "bound_smallest_singular_value",
    "centred_samples",
    "check_report",
    "compare_recovery",
    "enclose_terms",
    "equiangular_samples",
    "exact_gradient",
    "find_alternative",
    "find_span",
    "from_torch",
    "gradient_members",
    "kkt_system",
    "load_deep_gradient",
    "load_deep_network",
    "load_gradient",
    "load_network",
    "load_samples",
    "load_span",
    "match_samples",
    "plant_network",
    "plant_relu_network",
    "prove_rank",
    "recover_samples",
    "replay_samples",
    "retrain",
    "save_alternatives",
    "save_network",
    "save_relu_network",
    "save_span",
    "search_recipe",
    "separate_pair",
    "solve_gradient",
    "solve_stationary",
    "span_members",
    "three_cubes",
    "with_noise_limit",
]

_HOMES = {
    "alternatives.find": (
        "find_alternative",
        "save_alternatives",
    ),
    "assess": (
        "assess_identifiability",
        "recover_samples",
    ),
    "assess_batch": ("assess_gradient",),
    "assess_weights": ("assess_stationary",),
    "budget": ("Budget",),
    "checker.check": ("check_report",),
    "checker.outcome": (
        "CheckInputError",
        "CheckResult",
        "Claim",
    ),
    "checkpoints.pair": ("PairSamples", "separate_pair"),
    "checkpoints.recipe": ("OpenRecipe", "Recipe"),
    "checkpoints.replay": (
        "Replay",
        "replay_samples",
        "retrain",
    ),
    "checkpoints.replay_search": ("search_recipe",),
    "checkpoints.span": (
        "CheckpointSpan",
        "find_span",
        "load_span",
        "save_span",
    ),
    "disaggregation.records": ("Disaggregation",),
    "errors": (
        "BudgetExceededError",
        "FileError",
        "InvalidInputError",
        "KktCertError",
        "NotDeterminedError",
        "NotYetSupportedError",
        "UnsupportableModelError",
        "UnsupportedModelError",
    ),
    "exposure.audit": ("audit",),
    "exposure.batch": ("audit_gradient",),
    "exposure.batch_report": ("BatchAudit",),
    "exposure.batch_members": (
        "GivenSamples",
        "gradient_members",
        "span_members",
    ),
    "exposure.compare": (
        "Comparison",
        "Matching",
        "compare_recovery",
        "match_samples",
    ),
    "exposure.noise_limit": ("with_noise_limit",),
    "exposure.membership": (
        "Membership",
        "MembershipReport",
    ),
    "exposure.report": ("AuditReport",),
    "exposure.weights": ("audit_stationary",),
    "exposure.weights_report": ("WeightsAudit",),
    "hermite.data": ("HermiteData",),
    "model.activations": ("Activation",),
    "model.dataset": (
        "Dataset",
        "load_samples",
    ),
    "model.deep": (
        "DeepGradient",
        "DeepNetwork",
    ),
    "model.deep_files": (
        "load_deep_gradient",
        "load_deep_network",
    ),
    "model.gradients": ("load_gradient",),
    "model.loading": (
        "from_torch",
        "load_network",
        "save_network",
        "save_relu_network",
    ),
    "model.two_layer": ("TwoLayerNetwork",),
    "planting.plant": (
        "PlantedNetwork",
        "PlantingError",
        "plant_network",
    ),
    "planting.relu": (
        "PlantedRelu",
        "centred_samples",
        "equiangular_samples",
        "plant_relu_network",
    ),
    "proofs.enclosure": (
        "Enclosure",
        "enclose_terms",
    ),
    "proofs.rank": (
        "RankProof",
        "prove_rank",
    ),
    "proofs.singular_value": (
        "SingularValueBound",
        "bound_smallest_singular_value",
    ),
    "records": (
        "Condition",
        "Evidence",
        "Recovery",
        "Residual",
        "Scope",
        "TrainingSet",
        "Verdict",
    ),
    "recovery.assumptions": ("Assumptions",),
    "report.gradient": ("GradientReport",),
    "report.report": ("IdentifiabilityReport",),
    "report.stationary": ("StationaryReport",),
    "symbolic.derive": ("kkt_system",),
    "symbolic.solution_set": (
        "ExactTrainingSet",
        "SolutionSet",
    ),
    "symbolic.solve": (
        "exact_gradient",
        "solve_gradient",
        "solve_stationary",
        "three_cubes",
    ),
    "symbolic.system": ("KKTSystem",),
}


def _warn_of_another() -> None:
    """The package identify of the index, which pre-commit installs, writes into this folder."""
    from importlib import metadata
    from warnings import warn

    try:
        other = metadata.version("identify")
    except metadata.PackageNotFoundError:
        return
    warn(
        f"the distribution identify {other} writes into the same folder as kktcert (pre-commit "
        "installs it); install kktcert into an environment of its own",
        RuntimeWarning,
        stacklevel=3,
    )


_warn_of_another()

_MODULE_OF = {name: f"identify.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
