"""The order of a training run: a function of its seed alone, so that any step can be found again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from symile_clin.data.store import Rows
from symile_clin.ranks import ALONE, Ranks
from symile_clin.rng import stream


@dataclass(frozen=True)
class Draw:
    """What one process fetches for one training step.

    Attributes:
        rows: its part of the batch.
        seed: of the run.
        epoch: 0-based; augmentation is a function of seed, epoch and row.
    """

    rows: Rows
    seed: int
    epoch: int


@dataclass(frozen=True)
class TrainingOrder:
    """Every batch of a run, epoch after epoch.

    An epoch is a fresh permutation cut into the fewest batches of at most `batch_size`, of sizes that differ by at
    most one. So every sample is seen once, and there is no small last batch, whose few negatives would make it easier.
    Several processes share each batch out in the same way: together they see what one would see.

    Attributes:
        rows: (n,) sample rows to train on.
        batch_size: largest batch, of all processes together.
        skip: batches at the start of the run to leave out.
        ranks: this process among those that share the batches out.
    """

    rows: Rows
    batch_size: int
    seed: int
    epochs: int
    skip: int = 0
    ranks: Ranks = field(default=ALONE)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.rows) / self.batch_size)

    def size(self, step: int) -> int:
        """Samples of a batch, of all processes together.

        Args:
            step: 0-based, of the run.
        """
        each, rest = divmod(len(self.rows), self.steps)
        return each + (step % self.steps < rest)

    def __len__(self) -> int:
        return self.epochs * self.steps - self.skip

    def __iter__(self) -> Iterator[Draw]:
        first, into = divmod(self.skip, self.steps)
        for epoch in range(first, self.epochs):
            order = stream(self.seed, "order", epoch).permutation(self.rows)
            for step, rows in enumerate(np.array_split(order, self.steps)):
                if epoch > first or step >= into:
                    yield Draw(rows=np.array_split(rows, self.ranks.size)[self.ranks.rank], seed=self.seed, epoch=epoch)
