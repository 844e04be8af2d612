"""This process among those that train one model together: its place, and what they exchange.

Contract of every exchange, so that N processes give the loss and the gradients of one: each process computes its share
of the loss, the shares add up to the loss, and gradients of parameters are summed over processes, never averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """A process's place among `size` of them; torch.distributed's default group connects them, where there are several.

    Attributes:
        rank: 0-based; the first writes files and tracks.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all of them found."""
        return self.rank == 0

    def sizes(self, n: int) -> list[int]:
        """How many of `n` rows each process has; they differ by at most one, larger ones first."""
        return [len(part) for part in np.array_split(np.arange(n), self.size)]

    def mine(self, n: int) -> slice:
        """Which of `n` rows this process has."""
        ends = np.cumsum(self.sizes(n))
        return slice(int(ends[self.rank]) - self.sizes(n)[self.rank], int(ends[self.rank]))

    def gather(self, tensor: Tensor, n: int) -> Tensor:
        """All processes' rows, in order, with gradient: each gets the sum of all processes' gradients of its own rows.

        Args:
            tensor: (rows, ...) of this process, `sizes(n)[rank]` of them.
            n: rows of all processes together.

        Returns:
            (n, ...).
        """
        if self.size == 1:
            return tensor
        from symile_clin.exchange import gather

        return gather(tensor, self, n)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes, without gradient; the same bits on each."""
        if self.size == 1:
            return tensor
        from symile_clin.exchange import reduced

        return reduced(tensor, "sum")

    def max(self, tensor: Tensor) -> Tensor:
        """The largest over processes, elementwise, without gradient."""
        if self.size == 1:
            return tensor
        from symile_clin.exchange import reduced

        return reduced(tensor, "max")


#: A process on its own.
ALONE: Final = Ranks()
