"""This process among those that train one model together: its place, and what they exchange.

Contract of every exchange, so that N processes give the loss and the gradients of one: each process computes its share
of the loss, the shares add up to the loss, and gradients are summed over processes, never averaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from symile_clin.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Found = TypeVar("Found")


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
        """All processes' rows, in order, without gradient.

        The gradient of this process's rows is `sum(gradient)[mine(n)]`, where each process has the gradient of its
        share of the loss. It is not taken inside autograd: processes whose graphs differ would wait for each other.

        Args:
            tensor: (rows, ...) of this process, `sizes(n)[rank]` of them.
            n: rows of all processes together.

        Returns:
            (n, ...).
        """
        if self.size == 1:
            return tensor.detach()
        from symile_clin.exchange import gather

        return gather(tensor, self, n)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes, without gradient; the same bits on each."""
        if self.size == 1:
            return tensor.detach()
        from symile_clin.exchange import reduced

        return reduced(tensor, "sum")

    def max(self, tensor: Tensor) -> Tensor:
        """The largest over processes, elementwise, without gradient."""
        if self.size == 1:
            return tensor.detach()
        from symile_clin.exchange import reduced

        return reduced(tensor, "max")

    def first(self, find: Callable[[], Found]) -> Found:
        """What the first process finds, on every process; the others do not look. An error is raised on all of them."""
        if self.size == 1:
            return find()
        from symile_clin.exchange import from_first

        return from_first(find, self)


#: A process on its own.
ALONE: Final = Ranks()


def launched() -> Ranks:
    """This process's place among those that torchrun started; `ALONE` if nothing did.

    Raises:
        ConfigError: the environment tells of several processes, and not how they find each other.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) <= 1:
        return ALONE
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size} but {', '.join(missing)} is not set",
            remedy="Start several processes with torchrun (docs/scaling.md), or unset WORLD_SIZE",
        )
    return Ranks(rank=int(os.environ["RANK"]), size=int(size))


def on_this_machine() -> int:
    """How many processes torchrun started here, which share its cores; 1 if nothing did."""
    count = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(count)) if count.isdecimal() else 1
