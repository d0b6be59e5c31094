"""The commands of this package; `kktcert` mounts them."""

from __future__ import annotations

import typer

from identify.command.audit import audit
from identify.command.check import check
from identify.command.checkpoints import replay, span
from identify.command.construct import alternatives, plant
from identify.command.decide import recover, verify
from identify.command.derive import derive
from identify.command.help import add_command
from identify.command.membership import member
from identify.command.page import report
from identify.command.show import demo, inspect


def mount(app: typer.Typer) -> None:
    """Add the commands of this package to the application."""
    add_command(app, demo, "demo --out demo-output")
    add_command(app, inspect, "inspect model.safetensors")
    add_command(
        app,
        verify,
        "verify model.safetensors --source gradient --gradient gradient.npz",
        "3 a word of --fail-on is met",
    )
    add_command(app, recover, "recover model.safetensors --source weight-decay --out results")
    add_command(
        app,
        audit,
        "audit model.safetensors data.npz --source weight-decay --fail-on exposed",
        "3 a sample is exposed, with --fail-on",
    )
    add_command(app, alternatives, "alternatives model.safetensors --from data.npz --out other")
    add_command(
        app,
        check,
        "check results/report.json model.safetensors --require confirmed",
        "3 a claim is refuted, 4 the verdict is not confirmed, with --require",
    )
    add_command(app, report, "report client-1 client-2 --out clients.html")
    add_command(app, span, "span initial.safetensors final.safetensors --out span.safetensors")
    add_command(
        app,
        replay,
        "replay initial.pt final.pt --activation gelu --recipe steps=40,rate=0.05 "
        "--labels 3,1,4 --out replay",
    )
    add_command(app, member, "member model.pt images.npz --gradient gradient.npz")
    add_command(app, plant, "plant data.npz --degree 3 --out model.safetensors")
    add_command(app, derive, "derive --degree 3 --width 2 --dimension 2 --samples 2")
