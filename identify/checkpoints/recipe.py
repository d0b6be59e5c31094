"""How a network was trained from one checkpoint to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from identify.errors import InvalidInputError
from identify.model.losses import read_loss

_WORDS = "steps=T,rate=ETA,momentum=M,decay=MU,loss=NAME"
_MOST_STEPS = 200


@dataclass(frozen=True)
class Recipe:
    """Descent on a mean loss: v <- momentum v + grad + decay theta, theta -= rate v.

    This is `torch.optim.SGD` with the loss averaged over the samples of a step: all of them, or
    with ``order`` (steps, batch) those with the indices of its row. ``loss`` is "cross_entropy",
    "logistic" or "squared".

    Raises InvalidInputError for numbers out of range.

    Example:
        >>> Recipe(steps=50, rate=0.1).momentum
        0.0
    """

    steps: int
    rate: float
    momentum: float = 0.0
    decay: float = 0.0
    loss: str = "cross_entropy"
    order: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInputError("steps", "at least 1", self.steps)
        if not 0.0 < self.rate < np.inf:
            raise InvalidInputError("rate", "a positive number", self.rate)
        if not 0.0 <= self.momentum < 1.0:
            raise InvalidInputError("momentum", "a number in [0, 1)", self.momentum)
        if not 0.0 <= self.decay < np.inf:
            raise InvalidInputError("decay", "a number of at least 0", self.decay)
        object.__setattr__(self, "loss", read_loss(self.loss))
        order = self.order
        if order is not None and (order.ndim != 2 or len(order) != self.steps or order.min() < 0):
            raise InvalidInputError(
                "order", f"indices of shape ({self.steps}, batch)", f"shape {order.shape}"
            )

    def batch(self, step: int) -> slice | npt.NDArray[np.int64]:
        """The samples of a step.

        Example:
            >>> Recipe(2, 0.1, order=np.array([[0, 2], [1, 3]])).batch(1)
            array([1, 3])
        """
        return slice(None) if self.order is None else self.order[step]


@dataclass(frozen=True)
class OpenRecipe:
    """A recipe whose steps lie in a range, both ends included, and whose rate may be unknown.

    ``fit_rate`` says that a rate which is given is where the fit begins.

    Example:
        >>> OpenRecipe((10, 20), None).with_steps(15).steps
        15
    """

    steps: tuple[int, int]
    rate: float | None
    momentum: float = 0.0
    decay: float = 0.0
    loss: str = "cross_entropy"
    fit_rate: bool = True

    def __post_init__(self) -> None:
        low, high = self.steps
        if not 1 <= low <= high:
            raise InvalidInputError("steps", "a range A-B with 1 <= A <= B", f"{low}-{high}")
        self.with_steps(low)

    def with_steps(self, steps: int) -> Recipe:
        """The recipe with so many steps, and a rate of 1 where none is known."""
        rate = 1.0 if self.rate is None else self.rate
        return Recipe(steps, rate, self.momentum, self.decay, self.loss)

    @property
    def complete(self) -> bool:
        """Whether nothing is open."""
        return self.steps[0] == self.steps[1] and self.rate is not None


def parse_recipe(text: str) -> Recipe:
    """Read a recipe from words ``name=value``, separated by commas.

    Raises InvalidInputError for other words and values.

    Example:
        >>> parse_recipe("steps=50,rate=0.1,momentum=0.9,loss=cross-entropy")
        Recipe(steps=50, rate=0.1, momentum=0.9, decay=0.0, loss='cross_entropy')
    """
    found = _words(text)
    for name in ("steps", "rate"):
        if name not in found:
            raise InvalidInputError("recipe", _WORDS, f"no {name}")
    return Recipe(**_numbers(found, _KINDS))  # type: ignore[arg-type]


def parse_open_recipe(text: str) -> OpenRecipe:
    """Read a recipe that may lack the rate and the steps, or have a range of steps A-B.

    Raises InvalidInputError for other words and values.

    Example:
        >>> parse_open_recipe("steps=20-60,momentum=0.9").steps
        (20, 60)
        >>> parse_open_recipe("rate=0.1").steps
        (1, 200)
    """
    found = _words(text)
    found.setdefault("steps", f"1-{_MOST_STEPS}")
    numbers = _numbers(found, _KINDS | {"steps": _range})
    return OpenRecipe(**({"rate": None} | numbers))  # type: ignore[arg-type]


def _words(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or name not in _KINDS or name in found:
            raise InvalidInputError("recipe", _WORDS, repr(word))
        found[name] = value
    return found


def _numbers(
    found: dict[str, str], kinds: Mapping[str, Callable[[str], object]]
) -> dict[str, object]:
    numbers: dict[str, object] = {}
    for name, value in found.items():
        try:
            numbers[name] = kinds[name](value)
        except InvalidInputError:
            raise
        except ValueError:
            raise InvalidInputError("recipe", f"a number for {name}", repr(value)) from None
    return numbers


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    return (int(low), int(high)) if dash else (int(text), int(text))


_KINDS: dict[str, Callable[[str], object]] = {
    "steps": int,
    "rate": float,
    "momentum": float,
    "decay": float,
    "loss": read_loss,
}
