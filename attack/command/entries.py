"""The commands of this package, by name; none is imported here."""

from __future__ import annotations

from identify.command.lazy import Entry

COMMANDS = (
    Entry(
        "attack.command.commands:train",
        "Train a network to attack, and keep its start and its data.",
        "train digits --network 64-50-10,tanh --per-class 1 --out victim",
    ),
    Entry(
        "attack.command.commands:attack",
        "Reconstruct training data by optimisation, splitting candidates where it pays.",
        "attack victim.safetensors --objective haim --count 20 --out run",
    ),
    Entry(
        "attack.command.commands:evaluate",
        "Compare the candidates of a run with the truth, beside what knows nothing of it.",
        "evaluate run --truth victim.truth.npz --held-out victim.held-out.npz",
    ),
    Entry(
        "attack.command.commands:figures",
        "Draw finished runs: pairs beside the truth, splitting, counts, shares, trajectories.",
        "figures run --out pictures",
    ),
    Entry(
        "attack.command.sweep:sweep",
        "Run a command over a grid of values or random ones, on all cores or a cluster.",
        "sweep seeds.toml --out seeds.sqlite",
    ),
)
