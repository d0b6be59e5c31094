"""Findings as SARIF 2.1.0, which code-scanning pages of forges read."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from identify.report.findings import RULES, Finding, Findings, Severity

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {
    Severity.ERROR: ("fail", "error"),
    Severity.WARNING: ("fail", "warning"),
    Severity.NOTE: ("fail", "note"),
    # SARIF wants the level none for every kind but fail.
    Severity.PASSED: ("pass", "none"),
}


def to_sarif(found: Findings) -> str:
    """Return findings as a SARIF log of one run.

    A result lies in the file that was examined, at its first line, since forges show no result
    without a line. Its fingerprint depends on file, rule and subject alone, so that a forge
    knows the result again after the next run.

    Example:
        >>> text = to_sarif(Findings("verify", "m.npz", ()))
        >>> json.loads(text)["version"]
        '2.1.0'
    """
    names = list(RULES)
    rules = [
        {
            "id": name,
            "shortDescription": {"text": text},
            "defaultConfiguration": {"level": "warning"},
            "help": {"text": text + " See docs/ci.md."},
        }
        for name, text in RULES.items()
    ]
    driver = {
        "name": "kktcert",
        "version": metadata.version("kktcert"),
        "rules": rules,
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"kktcert/{found.command}/"},
        "invocations": [{"executionSuccessful": True}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(item, found.target, names) for item in found.items],
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _result(item: Finding, target: str, names: list[str]) -> dict[str, Any]:
    kind, level = _LEVELS[item.severity]
    mark = hashlib.sha256("\0".join((target, item.rule, item.subject)).encode("utf-8", "replace"))
    place = {"artifactLocation": {"uri": _uri(target)}, "region": {"startLine": 1}}
    return {
        "ruleId": item.rule,
        "ruleIndex": names.index(item.rule),
        "kind": kind,
        "level": level,
        "message": {"text": f"{item.subject}: {item.message}"},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"kktcert/v1": mark.hexdigest()[:32]},
    }


def _uri(target: str) -> str:
    """The path as a URI: relative where it is, as forges resolve it from the repository's root."""
    path = Path(target)
    if path.is_absolute():
        return "file://" + quote(path.as_posix(), errors="replace")
    return quote(path.as_posix(), errors="replace")
