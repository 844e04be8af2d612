"""Cohort samples as batches of tensors, fetched a batch at a time from memory-mapped arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from symile_clin.data import fetching
from symile_clin.data.order import Draw, TrainingOrder
from symile_clin.data.store import Cohort, Rows, StoredArray
from symile_clin.modalities.base import Modality
from symile_clin.ranks import on_this_machine
from symile_clin.rng import stream
from symile_clin.schema import present_column


@dataclass(frozen=True)
class Batch:
    """Samples as they are stored, small enough to travel; `CohortDataset.inputs` makes encoder inputs of them.

    Attributes:
        arrays: by modality, its stored arrays and input columns, each (b', ...), of the b' samples that have it.
        draws: by augmented modality (b', augmentation_draws) float64; empty without augmentation.
        present: by modality (b,) bool, which samples have it.
        row: (b,) int64, rows of samples.parquet.
    """

    arrays: Mapping[str, Mapping[str, Tensor]]
    draws: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    row: Tensor

    def __len__(self) -> int:
        return len(self.row)

    def part(self, start: int, stop: int) -> Batch:
        """Samples `start` to `stop`, as views."""
        if start <= 0 and stop >= len(self):
            return self
        rows = {}
        for name, here in self.present.items():
            before = int(here[:start].sum())
            rows[name] = slice(before, before + int(here[start:stop].sum()))
        return Batch(
            arrays={name: {key: one[rows[name]] for key, one in own.items()} for name, own in self.arrays.items()},
            draws={name: one[rows[name]] for name, one in self.draws.items()},
            present={name: here[start:stop] for name, here in self.present.items()},
            row=self.row[start:stop],
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device; copies from pinned memory do not wait."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory; a DataLoader calls it."""
        return self._each(Tensor.pin_memory)

    def share_memory(self) -> Batch:
        """The same batch in memory that other processes can map."""

        def share(tensor: Tensor) -> Tensor:
            if tensor.numel():
                tensor.share_memory_()  # type: ignore[no-untyped-call]  # torch has no types for it
            return tensor

        return self._each(share)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            arrays={
                name: {key: change(tensor) for key, tensor in arrays.items()} for name, arrays in self.arrays.items()
            },
            draws={name: change(tensor) for name, tensor in self.draws.items()},
            present={name: change(tensor) for name, tensor in self.present.items()},
            row=change(self.row),
        )


class CohortDataset(Dataset[Batch]):
    """Samples of a cohort, in the order of `rows`.

    Args:
        cohort: an opened cohort.
        modalities: by name; inputs come in this order.
        rows: (n,) int64 sample rows, such as a split's.
    """

    def __init__(self, cohort: Cohort, modalities: Mapping[str, Modality], rows: Rows) -> None:
        self.cohort = cohort
        self.modalities = dict(modalities)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> Batch:
        """The augmented batch of one training step."""
        batch = self.fetch(draw.rows, augment=(draw.seed, draw.epoch))
        # At once, for an error to be raised here: of one while it is handed over, training would never hear, and wait.
        return batch if get_worker_info() is None else batch.share_memory()

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, in order, without augmentation; the last batch may be smaller."""
        for start in range(0, len(self.rows), batch_size):
            yield self.fetch(self.rows[start : start + batch_size])

    def fetch(self, rows: Rows, *, augment: tuple[int, int] | None = None) -> Batch:
        """Samples `rows` in that order.

        Args:
            augment: seed and epoch, from which with the row itself each sample's augmentation follows, whatever batch,
                process or machine it is in; None does not augment.
        """
        arrays, draws, present = {}, {}, {}
        for name, modality in self.modalities.items():
            here = self._columns[present_column(name)][rows].astype(np.bool_)
            own = {key: array.take(rows[here]) for key, array in self._arrays[name].items()}
            own |= {column: self._columns[column][rows[here]] for column in modality.input_columns}
            arrays[name] = {key: torch.from_numpy(values) for key, values in own.items()}
            present[name] = torch.from_numpy(here)
            if augment is not None and modality.augmentation_draws:
                draws[name] = torch.from_numpy(self._draws(name, *augment)[rows[here]])
        return Batch(arrays=arrays, draws=draws, present=present, row=torch.from_numpy(rows))

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Encoder inputs of a batch by modality, (b', ...) of the b' samples that have it, on the batch's device."""
        return {
            name: modality.to_input(batch.arrays[name], batch.draws.get(name))
            for name, modality in self.modalities.items()
        }

    def _draws(self, name: str, seed: int, epoch: int) -> NDArray[np.float64]:
        """(samples of the cohort, augmentation_draws) in [0, 1): those of one epoch, kept until the next."""
        if self._drawn.get(name, (None, None))[0] != (seed, epoch):
            shape = (len(self.cohort.samples), self.modalities[name].augmentation_draws)
            self._drawn[name] = ((seed, epoch), stream(seed, "augmentation", name, epoch).random(shape))
        return self._drawn[name][1]

    @cached_property
    def _drawn(self) -> dict[str, tuple[tuple[int, int], NDArray[np.float64]]]:
        return {}

    @cached_property
    def _arrays(self) -> dict[str, dict[str, StoredArray]]:
        return {
            name: {key: self.cohort.array(name, key) for key in modality.arrays}
            for name, modality in self.modalities.items()
        }

    @cached_property
    def _columns(self) -> dict[str, np.ndarray[Any, Any]]:
        names = [column for modality in self.modalities.values() for column in modality.input_columns]
        names += [present_column(name) for name in self.modalities]
        # null where the modality is absent, and there it is not asked for
        return {name: self.cohort.samples[name].fillna(0).to_numpy() for name in names}

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes open the arrays themselves: a pickled memory map would carry all of its data.
        kept = ("cohort", "modalities", "rows", "_columns")
        return {name: value for name, value in self.__dict__.items() if name in kept}


def training_loader(
    dataset: CohortDataset, order: TrainingOrder, *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """Batches of a whole training run in its order, fetched ahead by worker processes if there are any.

    Args:
        workers: processes, at most one per core of this process's share; 0 fetches in this one. They live as long as
            the run, and do not stop between epochs. Their number changes no batch.
        pin_memory: copy to pinned memory, for a CUDA device.
    """
    workers = min(workers, max(1, len(os.sched_getaffinity(0)) // on_this_machine()))
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        pin_memory=pin_memory,
        multiprocessing_context=fetching.context(preload=__name__) if workers else None,
        worker_init_fn=fetching.begin,
    )
