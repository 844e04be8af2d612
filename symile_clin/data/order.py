"""The order of a training run: a function of its seed alone, so that any step can be found again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from symile_clin.data.store import Rows
from symile_clin.rng import stream


@dataclass(frozen=True)
class Draw:
    """What to fetch for one training step.

    Attributes:
        rows: of the batch.
        augmentation: name of the random stream of its augmentation.
    """

    rows: Rows
    augmentation: tuple[int, str, int, int]


@dataclass(frozen=True)
class TrainingOrder:
    """Every batch of a run, epoch after epoch.

    An epoch is a fresh permutation cut into the fewest batches of at most `batch_size`, of sizes that differ by at
    most one. So every sample is seen once, and there is no small last batch, whose few negatives would make it easier.

    Attributes:
        rows: (n,) sample rows to train on.
        batch_size: largest batch.
        skip: batches at the start of the run to leave out.
    """

    rows: Rows
    batch_size: int
    seed: int
    epochs: int
    skip: int = 0

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.rows) / self.batch_size)

    def __len__(self) -> int:
        return self.epochs * self.steps - self.skip

    def __iter__(self) -> Iterator[Draw]:
        first, into = divmod(self.skip, self.steps)
        for epoch in range(first, self.epochs):
            order = stream(self.seed, "order", epoch).permutation(self.rows)
            for step, rows in enumerate(np.array_split(order, self.steps)):
                if epoch > first or step >= into:
                    yield Draw(rows=rows, augmentation=(self.seed, "augmentation", epoch, step))
