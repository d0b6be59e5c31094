"""The candidates of an attack: points and multipliers that an objective scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Candidates:
    """The points of an attack: ``x`` (m, D), multipliers ``lam`` (m, K), ``labels`` (m,) or None.

    Labels are never optimised: -1 and 1 in the dtype of ``x``, targets, or class numbers (int64).
    ``mass`` (m,) > 0 is the part of a penalty that each bears, None for a whole one each.

    Example:
        >>> Candidates(torch.zeros(3, 4), torch.ones(3, 1)).count
        3
    """

    x: Tensor
    lam: Tensor
    labels: Tensor | None = None
    mass: Tensor | None = None

    @property
    def count(self) -> int:
        """The number m of candidates."""
        return len(self.x)

    def select(self, index: Tensor) -> Candidates:
        """Return the candidates at the given positions, repeats allowed.

        Example:
            >>> Candidates(torch.eye(3), torch.ones(3, 1)).select(torch.tensor([2, 2])).x
            tensor([[0., 0., 1.],
                    [0., 0., 1.]])
        """
        labels, mass = (p if p is None else p[index] for p in (self.labels, self.mass))
        return Candidates(self.x[index], self.lam[index], labels, mass)

    def with_points(self, x: Tensor, lam: Tensor) -> Candidates:
        """Return the same labels and masses with other points and multipliers."""
        return Candidates(x, lam, self.labels, self.mass)

    def with_mass(self, mass: Tensor | None = None) -> Candidates:
        """Return the same candidates with other masses, 1 each unless given.

        Example:
            >>> Candidates(torch.zeros(2, 4), torch.ones(2, 1)).with_mass().mass
            tensor([1., 1.])
        """
        mass = torch.ones_like(self.x[:, 0]) if mass is None else mass
        return Candidates(self.x, self.lam, self.labels, mass)

    def detach(self) -> Candidates:
        """Return the candidates cut from any autograd graph."""
        return Candidates(self.x.detach(), self.lam.detach(), self.labels, self.mass)
