"""How a network was trained from one checkpoint to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from identify.errors import InvalidInputError
from identify.model.losses import read_loss

_WORDS = "steps=T,rate=ETA,momentum=M,decay=MU,loss=NAME"


@dataclass(frozen=True)
class Recipe:
    """Full-batch descent on a mean loss: v <- momentum v + grad + decay theta, theta -= rate v.

    This is `torch.optim.SGD` with the loss averaged over the samples. ``loss`` is "cross_entropy",
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


def parse_recipe(text: str) -> Recipe:
    """Read a recipe from words ``name=value``, separated by commas.

    Raises InvalidInputError for other words and values.

    Example:
        >>> parse_recipe("steps=50,rate=0.1,momentum=0.9,loss=cross-entropy")
        Recipe(steps=50, rate=0.1, momentum=0.9, decay=0.0, loss='cross_entropy')
    """
    kinds: dict[str, Callable[[str], object]] = {
        "steps": int,
        "rate": float,
        "momentum": float,
        "decay": float,
        "loss": read_loss,
    }
    found: dict[str, object] = {}
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or name not in kinds or name in found:
            raise InvalidInputError("recipe", _WORDS, repr(word))
        try:
            found[name] = kinds[name](value)
        except InvalidInputError:
            raise
        except ValueError:
            raise InvalidInputError("recipe", f"a number for {name}", repr(value)) from None
    for name in ("steps", "rate"):
        if name not in found:
            raise InvalidInputError("recipe", _WORDS, f"no {name}")
    return Recipe(**found)  # type: ignore[arg-type]
