"""A KKT system in symbols as text, LaTeX and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from identify.errors import InvalidInputError
from identify.text import counted

if TYPE_CHECKING:
    import sympy

_SYMBOL = re.compile(r"([a-zA-Z]+)\[([\d,]+)\]")


class System(Protocol):
    """What is written of a KKT system: `KKTSystem`, which itself calls these functions."""

    @property
    def dimension(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def degree(self) -> int: ...
    @property
    def bias(self) -> bool: ...
    @property
    def outputs(self) -> int: ...
    @property
    def activation(self) -> tuple[sympy.Expr, ...] | None: ...
    @property
    def classes(self) -> tuple[int, ...] | None: ...
    @property
    def symbols(self) -> Mapping[str, tuple[sympy.Symbol, ...]]: ...
    @property
    def network(self) -> tuple[sympy.Expr, ...]: ...
    @property
    def lagrangian(self) -> sympy.Expr: ...
    @property
    def coefficients(self) -> sympy.ImmutableMatrix: ...
    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]: ...
    def count(self) -> dict[str, int]: ...
    def orders(self) -> tuple[int, ...]: ...
    def hermite_matrix(self, order: int | None = None) -> sympy.ImmutableMatrix: ...
    def moment_tensor(
        self, order: int | None = None, output: int = 1
    ) -> dict[tuple[int, ...], sympy.Expr]: ...


class _Line(NamedTuple):
    """``left relation right``; ``name`` is what the line belongs to."""

    name: str
    left: Any
    relation: str
    right: Any


class _Part(NamedTuple):
    key: str
    title: str
    lines: list[_Line]


def to_text(system: System) -> str:
    """Lines of text, one condition on each, below underlined titles."""
    title = f"KKT system: {_sizes(system)}"
    lines = [title, "=" * len(title), *(f"{note}." for note in _notes(system))]
    for part in _parts(system):
        lines += ["", part.title, "-" * len(part.title)]
        for line in part.lines:
            relation = {"ge": ">=", "eq": "="}[line.relation]
            lines.append(f"{line.left} {relation} {line.right}")
    return "\n".join(lines) + "\n"


def to_latex(system: System) -> str:
    """Paragraphs and ``align*`` environments."""
    import sympy

    def write(expression: Any) -> str:
        if isinstance(expression, str):
            return _latex_name(expression)
        names = {s: _latex_name(s.name) for s in expression.free_symbols}
        return str(sympy.latex(expression, symbol_names=names))

    blocks = [f"KKT system: {_sizes(system)}.", *(f"{note}." for note in _notes(system, write))]
    for part in _parts(system):
        rows = [
            f"  {write(line.left)} &{ {'ge': chr(92) + 'ge', 'eq': '='}[line.relation] } "
            f"{write(line.right)}"
            for line in part.lines
        ]
        body = " \\\\\n".join(rows)
        blocks.append(f"{part.title}\n\\begin{{align*}}\n{body}\n\\end{{align*}}")
    return "\n\n".join(blocks) + "\n"


def to_json(system: System) -> dict[str, Any]:
    """A dict that json can write; parts that are too large are null."""
    found: dict[str, Any] = {
        name: getattr(system, name)
        for name in ("dimension", "width", "samples", "degree", "bias", "outputs")
    }
    found["activation"] = system.activation and [str(c) for c in system.activation]
    found["classes"] = system.classes and list(system.classes)
    found["count"] = system.count()
    for name in ("parameters", "unknowns", "labels", "inputs"):
        found[name] = [str(symbol) for symbol in getattr(system, name)]
    found["network"] = [str(expression) for expression in system.network]
    found["lagrangian"] = str(system.lagrangian)
    for part in _conditions(system):
        found[part.key] = [{"name": line.name, "expression": str(line.left)} for line in part.lines]
    found["coefficients"] = [[str(b) for b in row] for row in system.coefficients.tolist()]
    found["moment_tensors"] = [
        {"order": order, "output": output, "entries": _entries(system, order, output)}
        for order in system.orders()
        for output in range(1, system.outputs + 1)
    ]
    found["hermite_matrices"] = []
    for order in system.orders():
        matrix = _or_none(system.hermite_matrix, order)
        rows = None if matrix is None else [[str(e) for e in row] for row in matrix.tolist()]
        found["hermite_matrices"].append({"order": order, "rows": rows})
    return found


def _entries(system: System, order: int, output: int) -> list[dict[str, Any]] | None:
    tensor = _or_none(system.moment_tensor, order, output)
    if tensor is None:
        return None
    return [{"index": list(index), "expression": str(value)} for index, value in tensor.items()]


def _or_none(function: Callable[..., Any], *arguments: int) -> Any:
    """None for what is too large to be written out."""
    try:
        return function(*arguments)
    except InvalidInputError:
        return None


def _parts(system: System) -> list[_Part]:
    one = system.outputs == 1
    network = [
        _Line("network", "f(x)" if one else f"f[{c}](x)", "eq", expression)
        for c, expression in enumerate(system.network, start=1)
    ]
    parts = [
        _Part("network", "Network", network),
        _Part("lagrangian", "Lagrangian", [_Line("L", "L", "eq", system.lagrangian)]),
        *_conditions(system),
    ]
    for order in system.orders():
        for output in range(1, system.outputs + 1):
            title = f"Moment tensor of order {order}" + ("" if one else f", output {output}")
            tensor = _or_none(system.moment_tensor, order, output)
            lines = [
                _Line("T", f"T[{','.join(map(str, index))}]", "eq", value)
                for index, value in (tensor or {}).items()
            ]
            parts.append(_Part("moment", title + ("" if lines else ": too large"), lines))
        matrix = _or_none(system.hermite_matrix, order)
        title = f"Hermite matrix of order {order}"
        if matrix is None:
            parts.append(_Part("hermite", f"{title}: too large", []))
            continue
        lines = [
            _Line("H", f"H[{i + 1},{k + 1}]", "eq", matrix[i, k])
            for i in range(matrix.rows)
            for k in range(matrix.cols)
            if matrix[i, k] != 0
        ]
        size = f"{matrix.rows} x {matrix.cols}, entries that are not 0"
        parts.append(_Part("hermite", f"{title} ({size})", lines))
    return [part for part in parts if part.lines or part.title.endswith("too large")]


def _conditions(system: System) -> list[_Part]:
    multipliers = [str(s) for s in system.symbols["lambda"]]
    margins = [name.replace("lambda", "margin") for name in multipliers]
    parts = (
        ("stationarity", "Stationarity", [str(s) for s in system.parameters], "eq"),
        ("primal", "Primal feasibility", margins, "ge"),
        ("dual", "Dual feasibility", multipliers, "ge"),
        ("slackness", "Complementary slackness", multipliers, "eq"),
    )
    return [
        _Part(
            key,
            title,
            [
                _Line(name, expression, relation, "0")
                for name, expression in zip(names, getattr(system, key), strict=True)
            ],
        )
        for key, title, names, relation in parts
    ]


def _sizes(system: System) -> str:
    sizes = [
        counted(system.dimension, "input"),
        counted(system.width, "neuron"),
        counted(system.outputs, "output"),
        counted(system.samples, "sample"),
        f"degree {system.degree}",
    ]
    return ", ".join(sizes) + (", hidden bias" if system.bias else "")


def _notes(system: System, write: Callable[[sympy.Expr], str] | None = None) -> list[str]:
    count = system.count()
    notes = [
        f"{count['stationarity']} + {count['slackness']} equations, "
        f"{count['primal']} + {count['dual']} inequalities, "
        f"{count['parameters']} weights, {count['unknowns']} unknowns"
    ]
    if system.classes is not None:
        notes.append("The classes of the samples are " + ", ".join(map(str, system.classes)))
    if system.activation is not None:
        notes.append(
            "A network that is not homogeneous need not be driven to such points by training"
        )
    return notes


def _latex_name(name: str) -> str:
    r"""``w[2,1]`` as ``w_{2,1}``.

    Example:
        >>> _latex_name("lambda[1]")
        '\\lambda_{1}'
    """
    return _SYMBOL.sub(
        lambda found: ("\\lambda" if found[1] == "lambda" else found[1]) + f"_{{{found[2]}}}", name
    )
