"""Find the layers of a network of any depth, and their order, in what a file holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from identify.errors import FileError, InvalidInputError, UnsupportableModelError, listed
from identify.model.layer_names import in_order
from identify.model.other_layers import other_layers

SCOPE = (
    "linear layers with one activation between them are read; save these alone if the rest is no "
    "part of the network"
)
_STEPS = 10_000
_NUMBER = re.compile(r"\d+")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class StoredLayer:
    """The names under which a file holds one layer.

    Example:
        >>> StoredLayer("net.0.weight", "net.0.bias").name
        'net.0'
    """

    weight: str
    bias: str | None

    @property
    def name(self) -> str:
        """The name of the layer: that of its weight without ``.weight``."""
        return self.weight.removesuffix(".weight")


def find_deep_layers(
    path: str,
    shapes: Shapes,
    *,
    layers: str | None = None,
    ordered: bool = True,
    head: bool = False,
) -> tuple[StoredLayer, ...]:
    """Decide which arrays are the layers of a network and in which order they follow each other.

    ``layers="A,B,..."`` decides; in a list (``arr_0``, ``arr_1``, ...) each bias follows its
    matrix; else every matrix ``NAME.weight`` is a layer and ``NAME.bias`` its bias. The order is
    the one in which the shapes fit; where several do, numbers in the names ascend, and then the
    order of the file counts if it is ``ordered``. Nothing may be left over, unless ``head`` says
    that what is left comes before the layers.

    Raises UnsupportableModelError for arrays that are no layers, InvalidInputError for names that
    are absent, FileError for shapes that fit in no order or in several.

    Example:
        >>> shapes = {"net.2.weight": (1, 5), "net.0.weight": (5, 3), "net.0.bias": (5,)}
        >>> [layer.name for layer in find_deep_layers("net.pt", shapes)]
        ['net.0', 'net.2']
    """
    listing = in_order(shapes)
    if layers is not None:
        found = [_named(name.strip(), shapes, path) for name in layers.split(",")]
        if len({layer.weight for layer in found}) < len(found):
            raise InvalidInputError("layers", "different names A,B,...", repr(layers))
    elif listing is not None:
        found = _from_list(listing, shapes)
    else:
        found = [
            StoredLayer(name, bias if (bias := _bias_name(name)) in shapes else None)
            for name in shapes
            if name.endswith(".weight") and _is_matrix(name, shapes)
        ]
    _check_left(path, shapes, found, ordered=ordered, head=head)
    if layers is None and listing is None:
        found = _put_in_order(path, shapes, found, ordered)
    _check_chain(path, shapes, found)
    return tuple(found)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a weight as a matrix: a flat one is a single output.

    Example:
        >>> matrix_shape((5,)), matrix_shape((5, 3))
        ((1, 5), (5, 3))
    """
    return (1, *shape) if len(shape) == 1 else shape


def _bias_name(weight: str) -> str:
    return f"{weight.removesuffix('.weight')}.bias"


def _is_matrix(name: str, shapes: Shapes) -> bool:
    return len(shapes[name]) == 2 or (name == "output.weight" and len(shapes[name]) == 1)


def _named(name: str, shapes: Shapes, path: str) -> StoredLayer:
    for candidate in (f"{name}.weight", name):
        ends = [key for key in shapes if key == candidate or key.endswith(f".{candidate}")]
        chosen = candidate if candidate in shapes else ends[0] if len(ends) == 1 else None
        if name and chosen is not None:
            bias = _bias_name(chosen)
            return StoredLayer(chosen, bias if bias in shapes and bias != chosen else None)
    present = dict.fromkeys(key.removesuffix(".weight").removesuffix(".bias") for key in shapes)
    raise InvalidInputError("layers", f"names among {listed(present)} in {path}", repr(name))


def _from_list(listing: Sequence[str], shapes: Shapes) -> list[StoredLayer]:
    found: list[StoredLayer] = []
    for name in listing:
        shape = shapes[name]
        if len(shape) == 2:
            found.append(StoredLayer(name, None))
        elif len(shape) == 1 and found and found[-1].bias is None:
            found[-1] = StoredLayer(found[-1].weight, name)
    return found


def _check_left(
    path: str, shapes: Shapes, found: Sequence[StoredLayer], *, ordered: bool, head: bool
) -> None:
    taken = {name for layer in found for name in (layer.weight, layer.bias)}
    left = [name for name in shapes if name not in taken]
    if not found:
        raise FileError(path, "has no matrices of linear layers", f"it holds {listed(shapes)}")
    names = listed([layer.name for layer in found])
    first = found[0].name
    others = other_layers(shapes, ordered=ordered, begins=first) if left else None
    if others is not None and head and others.between:
        raise UnsupportableModelError(
            f"{path}: --head is for layers before {names}, and {listed(others.between)} "
            f"{'stands' if len(others.between) == 1 else 'stand'} between or behind them",
            others.advice() or SCOPE,
        )
    if left and not head:
        what = listed(left) if others is None else str(others)
        raise UnsupportableModelError(
            f"{path}: besides the layers {names} the network has {what}",
            SCOPE if others is None else others.advice() or SCOPE,
        )


def _put_in_order(
    path: str, shapes: Shapes, found: list[StoredLayer], ordered: bool
) -> list[StoredLayer]:
    rank = {layer.weight: _place(layer.weight) for layer in found}
    chains = []
    for chain in _chains(path, shapes, found, rank):
        chains.append(chain)
        if len(chains) == 2:
            break
    if len(chains) == 1:
        return chains[0]
    if not chains:
        return found
    if ordered and _fits(shapes, found) and _ascends(found, rank):
        return found
    raise FileError(
        path,
        f"does not say in which order the layers {listed([f.name for f in found])} follow",
        "give --layers A,B,...",
    )


def _place(name: str) -> tuple[str, tuple[int, ...]]:
    """The name without its numbers, and the numbers."""
    return _NUMBER.sub("#", name), tuple(int(part[:18]) for part in _NUMBER.findall(name))


def _fits(shapes: Shapes, chain: Sequence[StoredLayer]) -> bool:
    sizes = [matrix_shape(shapes[layer.weight]) for layer in chain]
    return all(sizes[k + 1][1] == sizes[k][0] for k in range(len(sizes) - 1))


def _ascends(chain: Sequence[StoredLayer], rank: Mapping[str, tuple[str, tuple[int, ...]]]) -> bool:
    last: dict[str, tuple[int, ...]] = {}
    for layer in chain:
        pattern, numbers = rank[layer.weight]
        if pattern in last and numbers < last[pattern]:
            return False
        last[pattern] = numbers
    return True


def _chains(
    path: str,
    shapes: Shapes,
    found: list[StoredLayer],
    rank: Mapping[str, tuple[str, tuple[int, ...]]],
) -> Iterator[list[StoredLayer]]:
    """Every order in which the shapes fit and the numbers of like names ascend."""
    groups: dict[str, list[StoredLayer]] = {}
    for layer in sorted(found, key=lambda layer: rank[layer.weight][1]):
        groups.setdefault(rank[layer.weight][0], []).append(layer)
    queues = list(groups.values())
    steps = 0

    def extend(chain: list[StoredLayer], used: list[int]) -> Iterator[list[StoredLayer]]:
        nonlocal steps
        steps += 1
        if steps > _STEPS:
            raise FileError(path, "has too many layers to be put in order", "give --layers A,B,...")
        if len(chain) == len(found):
            yield chain
            return
        for index, queue in enumerate(queues):
            if used[index] == len(queue):
                continue
            layer = queue[used[index]]
            below = shapes[chain[-1].weight] if chain else None
            above = matrix_shape(shapes[layer.weight])
            if below is None or above[1] == matrix_shape(below)[0]:
                used[index] += 1
                yield from extend([*chain, layer], used)
                used[index] -= 1

    if len(found) > 200:
        raise FileError(path, f"has {len(found)} layers", "at most 200 are read")
    yield from extend([], [0] * len(queues))


def _check_chain(path: str, shapes: Shapes, found: Sequence[StoredLayer]) -> None:
    sizes = [matrix_shape(shapes[layer.weight]) for layer in found]
    problem = None
    for k, (layer, size) in enumerate(zip(found, sizes, strict=True)):
        if len(size) != 2 or 0 in size:
            problem = f"{layer.weight} has shape {shapes[layer.weight]}, expected a matrix"
        elif k and size[1] != sizes[k - 1][0]:
            problem = (
                f"{layer.weight} has shape {shapes[layer.weight]}, expected {sizes[k - 1][0]} "
                f"columns after {found[k - 1].weight}"
            )
        elif layer.bias is not None and shapes[layer.bias] != (size[0],):
            problem = f"{layer.bias} has shape {shapes[layer.bias]}, expected ({size[0]},)"
        if problem:
            raise FileError(path, problem, "the arrays belong to no network of linear layers")
