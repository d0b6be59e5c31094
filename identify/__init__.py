"""Decide whether the weights of a network determine its training data, and recover them."""

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
from identify.loading import from_torch, load_gradient, load_network, save_network
from identify.network import TwoLayerNetwork

__all__ = [
    "BudgetExceededError",
    "Dataset",
    "FileError",
    "InvalidInputError",
    "KktCertError",
    "NotDeterminedError",
    "NotYetSupportedError",
    "TwoLayerNetwork",
    "UnsupportableModelError",
    "UnsupportedModelError",
    "from_torch",
    "load_gradient",
    "load_network",
    "load_samples",
    "save_network",
]
