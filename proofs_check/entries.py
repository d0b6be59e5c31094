"""The command of this package, by name; it is not imported here."""

from __future__ import annotations

from identify.command.lazy import Entry

COMMANDS = (
    Entry(
        "proofs_check.commands:proofs",
        "Check every statement of the theory, or those named.",
        "proofs uniqueness --examples 0.1",
        "3 a statement is refuted",
    ),
)
