"""A report built by hand, and the schema of every report."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import numpy as np

from identify.records import Condition, Recovery, Residual, Scope, TrainingSet, Verdict
from identify.report.report import IdentifiabilityReport

SCHEMA = json.loads(resources.files("identify").joinpath("report.schema.json").read_text())


def check_report(content):
    """Hold a report, as text or as data, against the schema; NaN is no JSON."""
    if isinstance(content, str):
        content = json.loads(content, parse_constant=lambda name: pytest_fail(name))
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    return content


def pytest_fail(name):
    raise AssertionError(f"{name} in a report")


def training_set(count, seed=0):
    rng = np.random.default_rng(seed)
    return TrainingSet(rng.normal(size=(count, 4)), rng.normal(size=count), 1e-15)


def report(**changes):
    fields = {
        "verdict": Verdict.GLOBALLY,
        "reason": "the moment tensor is determined on 2 dimensions",
        "scope": Scope("at_most", 2),
        "spans_input_space": False,
        "symmetries": ("order of the samples",),
        "sample_count": 2,
        "conditions": (
            Condition("balance", True, 1e-2, 1.25e-15, source="stationary"),
            Condition("I-hermite", True, 10, 10, source="rank"),
            Condition("I-flat", False, 6, 4, source="spans; not required", needed=False),
            Condition("I-value", None, 10, None, source="spans; not required", needed=False),
        ),
        "residuals": {
            "balance": Residual(1.25e-15, 7),
            "off_span": Residual(None, 0),
            "linear": Residual(3e-14, 1),
            "samples": Residual(2e-15, 17),
        },
        "redundant_equations": 6,
        "condition_number": 123.4,
        "condition_method": "singular values",
        "error_bounds": (1e-13, 4e-12),
        "assumptions": ("the weights are a KKT point",),
        "caveats": ("sets of more than 2 samples are never excluded",),
        "noise_level": 1e-13,
        "problem": {
            "source": "kkt",
            "degree": 3,
            "width": 7,
            "dimension": 4,
            "distinct_neurons": 5,
            "span_dimension": 2,
            "unknowns": 10,
            "rank": 10,
            "rank_method": "singular values",
        },
        "inputs": ({"role": "model", "sha256": "0123456789abcdef" * 4},),
        "seed": 5,
        "versions": {"kktcert": "1.2.3"},
        "seconds": 0.25,
        "recovery": Recovery(
            np.eye(2, 4), np.array([1.0, -2.0]), np.array([1e-13, 4e-12]), {"samples": 2e-15}
        ),
    }
    return IdentifiabilityReport(**{**fields, **changes})
