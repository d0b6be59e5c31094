"""Findings as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from identify.report.findings import Findings, Severity

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(found: Findings) -> str:
    """Return findings as one test suite.

    An error is a failed test; what is open, and what is no alarm but no proof either, is a skipped
    one with its message: JUnit has no warning, and a passed test would claim privacy.

    Example:
        >>> print(to_junit(Findings("verify", "m.npz", ())).splitlines()[0])
        <?xml version='1.0' encoding='utf-8'?>
    """
    severities = [item.severity for item in found.items]
    counts = {
        "tests": len(severities),
        "failures": severities.count(Severity.ERROR),
        "errors": 0,
        "skipped": sum(s in (Severity.WARNING, Severity.NOTE) for s in severities),
    }
    totals = {name: str(value) for name, value in counts.items()}
    suites = ET.Element("testsuites", {"name": "kktcert", **totals})
    name = _clean(f"kktcert {found.command} {found.target}")
    suite = ET.SubElement(suites, "testsuite", {"name": name, **totals})
    for item in found.items:
        place = {"classname": f"kktcert.{found.command}.{item.rule}", "name": _clean(item.subject)}
        case = ET.SubElement(suite, "testcase", place)
        message = _clean(item.message)
        if item.severity is Severity.ERROR:
            failure = {"message": message, "type": item.rule}
            ET.SubElement(case, "failure", failure).text = message
        elif item.severity in (Severity.WARNING, Severity.NOTE):
            ET.SubElement(case, "skipped", {"message": message})
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text.decode("utf-8") + "\n"


def _clean(text: str) -> str:
    """The text without what XML cannot hold: hostile names may have control characters."""
    return _UNPRINTABLE.sub("?", text)
