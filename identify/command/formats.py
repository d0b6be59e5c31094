"""The form in which a command with a gate prints its result."""

from __future__ import annotations

from collections.abc import Callable

from identify.command.names import Format
from identify.command.output import OutputFolder
from identify.command.page import Told
from identify.command.run import show_written
from identify.report.findings import Findings, audit_findings, report_findings


def show(
    told: Told,
    form: Format,
    folder: OutputFolder | None,
    findings: Callable[[], Findings],
) -> None:
    """Print a report, and in text form what was written.

    ``findings`` gives what SARIF and JUnit show; it is called for these alone.
    """
    if form is Format.JSON:
        print(told.to_json(), end="", flush=True)
    elif form is Format.TEXT:
        print(told, flush=True)
        if folder is not None:
            show_written(folder)
    else:
        show_findings(findings(), form)


def show_findings(found: Findings, form: Format) -> None:
    """Print findings as SARIF or JUnit; nothing in the other forms."""
    if form is Format.SARIF:
        from identify.report.sarif import to_sarif

        print(to_sarif(found), end="", flush=True)
    elif form is Format.JUNIT:
        from identify.report.junit import to_junit

        print(to_junit(found), end="", flush=True)


def show_verdict(
    told: Told, form: Format, folder: OutputFolder, target: object, blocked: str | None = None
) -> None:
    """Print a report with a verdict; ``blocked`` is the word of --fail-on that is met."""
    show(
        told,
        form,
        folder,
        lambda: report_findings("verify", str(target), told.to_dict(), blocked),
    )


def show_audit(told: Told, form: Format, folder: OutputFolder, target: object, count: int) -> None:
    """Print an audit of the ``count`` samples of the owner."""
    show(told, form, folder, lambda: audit_findings(str(target), told.to_dict(), count))
