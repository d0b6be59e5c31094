"""The words that options take: one enumeration each, for all commands."""

from __future__ import annotations

from enum import StrEnum


class SourceName(StrEnum):
    """Where the data about the samples come from."""

    KKT = "kkt"
    WEIGHT_DECAY = "weight-decay"
    GRADIENT = "gradient"
    FINE_TUNING = "fine-tuning"


class LossName(StrEnum):
    """The losses whose derivative gives ties between coefficients."""

    LOGISTIC = "logistic"
    SQUARED = "squared"
    CROSS_ENTROPY = "cross-entropy"


class ScaleName(StrEnum):
    """How the norms of the samples are fixed."""

    AUTO = "auto"
    UNIT = "unit"
    MARGIN = "margin"
    BIAS = "bias"


class ArithmeticName(StrEnum):
    """The arithmetic in which the data were computed."""

    AUTO = "auto"
    EXACT = "exact"
    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class ReductionName(StrEnum):
    """How the losses of a batch are put together."""

    MEAN = "mean"
    SUM = "sum"


class Format(StrEnum):
    """The form of what is printed; SARIF and JUnit are for the commands with a gate."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"


class PlainFormat(StrEnum):
    """The form of what a command without a gate prints."""

    TEXT = "text"
    JSON = "json"


class EvidenceName(StrEnum):
    """How the conditions are to be established."""

    AUTO = "auto"
    EXACT = "exact"
    INTERVAL = "interval"
    NUMERICAL = "numerical"


class TrainedName(StrEnum):
    """The layers that were trained."""

    BOTH = "both"
    HIDDEN = "hidden"


class MethodName(StrEnum):
    """How the moment tensor is decomposed."""

    AUTO = "auto"
    PENCIL = "pencil"
    TENSORLY = "tensorly"


class WhatIfName(StrEnum):
    """What else is asked about the same data."""

    NOISE = "noise"
