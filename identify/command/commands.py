"""The commands of this package, by name; none is imported here."""

from __future__ import annotations

from identify.command.lazy import Entry

COMMANDS = (
    Entry(
        "identify.command.show:demo",
        "Show on handwritten digits what weights determine and what they do not.",
        "demo --out demo-output",
    ),
    Entry(
        "identify.command.show:inspect",
        "Say what a file holds, which sources fit it, and what the verifier would need.",
        "inspect model.safetensors",
    ),
    Entry(
        "identify.command.decide:verify",
        "Decide whether the data determine the training samples.",
        "verify model.safetensors --source gradient --gradient gradient.npz",
        "3 a word of --fail-on is met",
    ),
    Entry(
        "identify.command.decide:recover",
        "Recover the training samples and draw them.",
        "recover model.safetensors --source weight-decay --out results",
    ),
    Entry(
        "identify.command.audit:audit",
        "Show the owner of the data which samples the weights expose, and how exactly.",
        "audit model.safetensors data.npz --source weight-decay --fail-on exposed",
        "3 a sample is exposed, with --fail-on",
    ),
    Entry(
        "identify.command.construct:alternatives",
        "Find other training sets that explain the same data.",
        "alternatives model.safetensors --from data.npz --out other",
    ),
    Entry(
        "identify.command.check:check",
        "Redo every proof of a report without the code that made it.",
        "check results/report.json model.safetensors --require confirmed",
        "3 a claim is refuted, 4 the verdict is not confirmed, with --require",
    ),
    Entry(
        "identify.command.page:report",
        "Make one page of many runs, the exposed ones first.",
        "report client-1 client-2 --out clients.html",
    ),
    Entry(
        "identify.command.checkpoints:span",
        "Say how many samples two checkpoints show at least, and in which space they lie.",
        "span initial.safetensors final.safetensors --out span.safetensors",
    ),
    Entry(
        "identify.command.checkpoints:replay",
        "Find the samples whose training by a known recipe leads from INITIAL to FINAL.",
        "replay initial.pt final.pt --activation gelu --recipe steps=40,rate=0.05 "
        "--labels 3,1,4 --out replay",
    ),
    Entry(
        "identify.command.membership:member",
        "Say which given samples a gradient was computed on, without reconstructing any.",
        "member model.pt images.npz --gradient gradient.npz",
    ),
    Entry(
        "identify.command.construct:plant",
        "Build a network that is exactly stationary for given samples.",
        "plant data.npz --degree 3 --out model.safetensors",
    ),
    Entry(
        "identify.command.derive:derive",
        "Derive the KKT system of a network in symbols, with its moment tensor.",
        "derive --degree 3 --width 2 --dimension 2 --samples 2",
    ),
)
