"""Every statement of the theory as an executable check.

`check` runs the statements, `check_network` asks which conditions of the theorems a network
satisfies; `strategies` and `properties` are for test suites of one's own. Running statements and
drawing instances need the extra `proofs`.

Names are imported when they are first used: the command lists its commands without this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proofs_check import properties, strategies
    from proofs_check.machinery.registry import all_statements
    from proofs_check.machinery.results import Necessity, Result, Table
    from proofs_check.machinery.run_many import check, check_sabotages
    from proofs_check.machinery.run_one import run_statement
    from proofs_check.machinery.self_tests import Found, SelfTest
    from proofs_check.machinery.statement import Check, Hypothesis, Sabotage, Statement
    from proofs_check.own_network import NetworkCheck, NetworkCondition, check_network

__all__ = [
    "Check",
    "Found",
    "Hypothesis",
    "Necessity",
    "NetworkCheck",
    "NetworkCondition",
    "Result",
    "Sabotage",
    "SelfTest",
    "Statement",
    "Table",
    "all_statements",
    "check",
    "check_network",
    "check_sabotages",
    "properties",
    "run_statement",
    "strategies",
]

_HOMES = {
    "machinery.registry": ("all_statements",),
    "machinery.results": ("Necessity", "Result", "Table"),
    "machinery.run_many": ("check", "check_sabotages"),
    "machinery.run_one": ("run_statement",),
    "machinery.self_tests": ("Found", "SelfTest"),
    "machinery.statement": ("Check", "Hypothesis", "Sabotage", "Statement"),
    "own_network": ("NetworkCheck", "NetworkCondition", "check_network"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("properties", "strategies"):
        return import_module(f"proofs_check.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"proofs_check.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
