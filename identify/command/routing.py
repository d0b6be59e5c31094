"""Which command answers where the verifier does not, as a line to type."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from identify.command.data_options import ModelOptions, SourceOptions
from identify.command.inspection import Inspection
from identify.command.names import SourceName
from identify.errors import (
    InvalidInputError,
    KktCertError,
    NotCoveredError,
    NotYetSupportedError,
    UnsupportableModelError,
    UnsupportedModelError,
)
from identify.model.layer_names import in_order
from identify.model.tensor_file import TensorFile
from identify.model.untrusted import read_tensors

WORDS = "relu, gelu, tanh and the like"


def attack_line(
    path: Path, source: SourceOptions, layout: ModelOptions, file: TensorFile | None = None
) -> str:
    """The line that attacks the network, or "" where `attack` does not cover it either.

    WORD stands for an activation that neither the file nor an option names.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "net.npz"
        >>> np.savez(path, **{"fc1.weight": np.ones((4, 3)), "fc2.weight": np.ones((1, 4))})
        >>> attack_line(Path("net.npz"), SourceOptions(), ModelOptions(layers="a,b"))
        ''
        >>> attack_line(path, SourceOptions(), ModelOptions()).replace(str(path), "net.npz")
        'kktcert attack net.npz --activation WORD --objective haim --out attack-run'
    """
    try:
        file = read_tensors(path if file is None else file, layout.key)
    except KktCertError:
        return ""
    activation = _activation(file, layout)
    if activation is None or not _attackable(file):
        return ""
    words = ["kktcert", "attack", str(path)]
    for name, value in (
        ("--activation", activation),
        ("--layers", layout.layers),
        ("--key", layout.key),
    ):
        words += [name, value] if value else []
    if source.source is SourceName.GRADIENT:
        words += ["--objective", "gradient_matching", "--gradient", str(source.gradient)]
    elif source.source is SourceName.FINE_TUNING:
        words += ["--objective", "loo", "--initial", str(source.initial)]
    else:
        words += ["--objective", "haim" if _outputs(file) == 1 else "buzaglo"]
    return shlex.join([*words, "--out", "attack-run"])


@contextmanager
def routed(path: Path, source: SourceOptions, layout: ModelOptions) -> Iterator[None]:
    """Add to what says that a network is not covered the line of the command that takes it."""
    try:
        yield
    except UnsupportedModelError as error:
        line = attack_line(path, source, layout)
        if not line:
            raise
        kind = type(error)
        assert kind in (UnsupportedModelError, UnsupportableModelError, NotYetSupportedError)
        hint = error.context["hint"]
        if source.initial is not None:
            span = shlex.join(["kktcert", "span", str(source.initial), str(path)])
            hint = f"{hint}; {span} says how many samples lie between the two"
        raise kind(error.context["what"], f"{hint}; try: {line}") from error
    except NotCoveredError as error:
        # The power that was given is wrong: the attack must not be given it, either.
        line = attack_line(path, source, replace(layout, degree=None, activation=None))
        if "WORD" not in line:
            raise
        facts = error.context
        hint = f"{facts['hint']}; for {WORDS} try: {line}"
        raise NotCoveredError(facts["name"], facts["expected"], facts["got"], hint) from error
    except InvalidInputError as error:
        facts = error.context
        if facts["name"] != "degree" or facts["got"] != "none":
            raise
        line = attack_line(path, source, layout)
        other = f"; for {WORDS} try: {line}" if line else ""
        if source.source is SourceName.GRADIENT:
            other = f"; give --activation relu for a ReLU network{other}"
        hint = f"give --degree A if it is the power A of its input{other}"
        raise type(error)(facts["name"], facts["expected"], facts["got"], hint) from error


def what_to_run(
    found: Inspection, path: Path, layout: ModelOptions, file: TensorFile
) -> tuple[str, ...]:
    """The lines to type next for a file that was inspected; capitals stand for other files."""
    name = shlex.quote(str(path))
    if found.kind == "data":
        return (f"kktcert audit MODEL {name}", f"kktcert plant {name} --degree 3 --out MODEL.npz")
    if found.kind == "gradient":
        line = f"kktcert verify MODEL --source gradient --gradient {name}"
        told = found.settings.get("degree") is not None
        return (line,) if told else (f"{line} --activation relu", f"{line} --degree A")
    if found.kind != "network":
        return ()
    if not found.covered:
        line = attack_line(path, SourceOptions(), layout, file)
        relu = f"kktcert verify {name}{_given(layout)} --source gradient --gradient FILE"
        lines = (f"{relu} --activation relu",) if found.chain else ()
        return (*lines, line) if line else lines
    options = _given(layout)
    beside = {"gradient": " --gradient FILE", "fine-tuning": " --initial FILE"}
    return tuple(
        f"kktcert verify {name}{options} --source {fit.source}{beside.get(fit.source, '')}"
        for fit in found.sources
        if fit.fits is not False
    )


def _given(layout: ModelOptions) -> str:
    """The options on the file that were given, as they are typed."""
    head = " --head" if layout.head else ""
    return head + "".join(
        f" {option} {shlex.quote(str(value))}"
        for option, value in (
            ("--degree", layout.degree),
            ("--activation", layout.activation),
            ("--layers", layout.layers),
            ("--key", layout.key),
        )
        if value is not None
    )


def _activation(file: TensorFile, layout: ModelOptions) -> str | None:
    """What --activation must say: "" where the file says it, None for a polynomial."""
    stored, degree = file.settings.get("activation"), file.settings.get("degree")
    given = layout.activation
    for said in (stored, given):
        if said is not None and not (isinstance(said, str) and said.strip()[:1].isalpha()):
            return None
    if degree is not None or (stored is not None and stored != "monomial"):
        return ""
    if layout.degree is not None:
        return f"power{layout.degree}"
    return given if given is not None and given != "monomial" else "WORD"


def _outputs(file: TensorFile) -> int:
    """Rows of the last layer: the one whose outputs no other layer takes."""
    shapes = [shape if len(shape) == 2 else (1, *shape) for name, shape in file.shapes.items()
              if len(shape) == 2 or (len(shape) == 1 and name == "output.weight")]  # fmt: skip
    taken = {shape[1] for shape in shapes}
    last = [shape[0] for shape in shapes if shape[0] not in taken]
    return last[-1] if last else shapes[-1][0]


def _attackable(file: TensorFile) -> bool:
    """Whether the arrays are those of fully connected layers."""
    if any(len(shape) > 2 for shape in file.shapes.values()):
        return False
    listed = in_order(file.shapes) is not None
    weights = [name for name, shape in file.shapes.items() if len(shape) == 2]
    rest = [n for n, s in file.shapes.items() if len(s) != 2 and not n.endswith(("bias", "weight"))]
    return bool(weights) and (listed or not rest)
