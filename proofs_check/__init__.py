"""Every statement of the theory as an executable check.

`check` runs the statements, `check_network` asks which conditions of the theorems a network
satisfies; `strategies` and `properties` are for test suites of one's own. Running statements and
drawing instances need the extra `proofs`.
"""

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
