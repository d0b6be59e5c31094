"""Which command answers where the verifier does not, as a line to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from identify.command.data_options import ModelOptions, SourceOptions
from identify.command.deep_inspection import chain_of
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
from identify.model.activations import plain_activation
from identify.model.deep_files import deep_activation
from identify.model.layer_names import in_order
from identify.model.other_layers import other_layers
from identify.model.tensor_file import TensorFile
from identify.model.untrusted import read_tensors

WORDS = "relu, gelu, tanh and the like"
ATTACKED = ("relu", "soft_relu", "gelu", "tanh", "softplus", "power", "identity")
"""The activations that `kktcert attack` knows."""
POWER = "give --degree A if it is the power A of its input"


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


def verify_line(
    path: Path, source: SourceOptions, layout: ModelOptions, file: TensorFile | None = None
) -> str:
    """The line that asks the verifier about a ReLU network, or "" where that word does not help.

    FILE stands for a gradient where none is given: weights are covered for two layers, as KKT
    points with one output. Layers that are not linear are left out where they come first.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "net.npz"
        >>> np.savez(path, **{"fc1.weight": np.ones((4, 3)), "fc2.weight": np.ones((2, 4))})
        >>> verify_line(path, SourceOptions(), ModelOptions()).replace(str(path), "net.npz")
        'kktcert verify net.npz --activation relu --source gradient --gradient FILE'
    """
    try:
        file = read_tensors(path if file is None else file, layout.key)
    except KktCertError:
        return ""
    head = () if layout.layers or layout.head else behind(file)
    layers = head[-1] if "--layers" in head else layout.layers
    found = chain_of(file, layers, head=layout.head or bool(head))
    given, word = source.source, _word(file, layout)
    if not found or not word or (given is SourceName.FINE_TUNING and (head or len(found) != 2)):
        return ""
    outputs = file.shapes[f"{found[-1]}.weight"][0] if f"{found[-1]}.weight" in file.shapes else 2
    weights = given is SourceName.WEIGHT_DECAY or (given is SourceName.KKT and outputs == 1)
    if given is not SourceName.FINE_TUNING and (
        len(found) != 2 or head or layout.head or not weights
    ):
        given = SourceName.GRADIENT
    words = ["kktcert", "verify", str(path), *head]
    words += ["--head"] if layout.head and not head else []
    for name, value in (("--layers", layout.layers), ("--key", layout.key)):
        words += [name, value] if value and name not in head else []
    words += ["--activation", word, "--source", given.value]
    if given is SourceName.GRADIENT:
        words += ["--gradient", str(source.gradient or "FILE")]
    if given is SourceName.FINE_TUNING:
        words += ["--initial", str(source.initial or "FILE")]
    return shlex.join(words)


def behind(file: TensorFile) -> tuple[str, ...]:
    """The options that read the linear layers behind convolutions and the like, if there are any.

    Example:
        >>> import numpy as np
        >>> shapes = {"conv.weight": (8, 1, 3, 3), "fc1.weight": (9, 64), "fc2.weight": (2, 9)}
        >>> behind(TensorFile("a.pt", shapes, {}, {}, True, np.zeros))
        ('--head',)
    """
    others = other_layers(file.shapes, ordered=file.ordered)
    return () if others is None else others.options


def _word(file: TensorFile, layout: ModelOptions) -> str:
    """The activation that an option names, relu where nothing is said, "" for powers."""
    if deep_activation(file, layout.activation) is not None:
        return layout.activation or "relu"
    said = (layout.activation, layout.degree, *map(file.settings.get, ("activation", "degree")))
    return "relu" if all(value is None for value in said) else ""


@contextmanager
def routed(path: Path, source: SourceOptions, layout: ModelOptions) -> Iterator[None]:
    """Add to what says that a network is not covered the line of the command that takes it."""
    try:
        yield
    except UnsupportedModelError as error:
        _ask_activation(error, path, source, layout)
        line = _next_line(path, source, layout)
        if not line:
            raise
        kind = type(error)
        assert kind in (UnsupportedModelError, UnsupportableModelError, NotYetSupportedError)
        hint = error.context["hint"]
        hint += _span_hint(path, source)
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
        said, hint = f"its name, in {path} or as an option", _activation_hint(path, source, layout)
        if hint:
            hint = f"{hint[0]}; {POWER}{_span_hint(path, source)}{hint[1]}"
            raise type(error)("activation", said, "none", hint) from error
        line = attack_line(path, source, layout)
        hint = f"{POWER}{_span_hint(path, source)}"
        hint = f"{hint}; for {WORDS} try: {line}" if line else hint
        raise type(error)(facts["name"], facts["expected"], facts["got"], hint) from error


def _span_hint(path: Path, source: SourceOptions) -> str:
    """The command for two checkpoints of any activation, where there are two."""
    if source.initial is None:
        return ""
    span = shlex.join(["kktcert", "span", str(source.initial), str(path)])
    return f"; {span} says how many samples lie between the two"


def _activation_hint(
    path: Path, source: SourceOptions, layout: ModelOptions
) -> tuple[str, str] | None:
    """What to type where no activation is named: for the verifier, and for the attack."""
    line, attack = verify_line(path, source, layout), attack_line(path, source, layout)
    if not line or (attack and "WORD" not in attack):
        return None
    first = f"type {line} for relu, or the word that it has, such as gelu or tanh"
    return first, f"; to search by optimisation try: {attack}" if attack else ""


def _ask_activation(
    error: UnsupportedModelError, path: Path, source: SourceOptions, layout: ModelOptions
) -> None:
    """Raise in place of what says that a network is no power, where no activation is named."""
    try:
        others = behind(read_tensors(path, layout.key))
    except KktCertError:
        return
    hint = None if others else _activation_hint(path, source, layout)
    if hint and layout.activation is None:
        what = f"{path}: nothing says which activation stands between the layers"
        raise type(error)(what, "".join(hint)) from error


def _next_line(path: Path, source: SourceOptions, layout: ModelOptions) -> str:
    """The line for a network that is not covered as it was asked about."""
    try:
        head = behind(read_tensors(path, layout.key))
    except KktCertError:
        return ""
    if head and not layout.head and layout.layers is None:
        return verify_line(path, source, layout)
    return attack_line(path, source, layout)


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
        sources = (SourceName.WEIGHT_DECAY, SourceName.GRADIENT) if found.chain else ()
        lines = [verify_line(path, SourceOptions(source=s), layout, file) for s in sources]
        if found.chain and in_order(file.shapes) is not None:
            # The list of a client's arrays is as often its gradient.
            lines.append(
                f"kktcert verify MODEL --activation relu --source gradient --gradient {name}"
            )
        lines.append(attack_line(path, SourceOptions(), layout, file))
        return tuple(dict.fromkeys(line for line in lines if line))
    options = _given(layout)
    beside = {"gradient": " --gradient FILE", "fine-tuning": " --initial FILE"}
    return tuple(
        f"kktcert verify {name}{options} --source {fit.source}{beside.get(fit.source, '')}"
        + (f" {fit.options}" if fit.options else "")
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
    if isinstance(stored, str) and stored.strip().startswith("{"):
        stored = plain_activation(stored).replace("monomial:", "power")
    given = layout.activation
    for said in (stored, given):
        if said is not None and not (isinstance(said, str) and said.strip()[:1].isalpha()):
            return None
        if said is not None and said != "monomial" and _letters(said) not in ATTACKED:
            return None
    if degree is not None or (stored is not None and stored != "monomial"):
        return ""
    if layout.degree is not None:
        return f"power{layout.degree}"
    return given if given is not None and given != "monomial" else "WORD"


def _letters(word: str) -> str:
    """The name of an activation without its number.

    Example:
        >>> _letters("softplus20"), _letters("soft_relu:50"), _letters(" GELU")
        ('softplus', 'soft_relu', 'gelu')
    """
    return re.split(r"[^a-z_]", word.strip().lower())[0]


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
