"""Encode a split once; every number of the evaluation is made from these embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin.errors import TrainingError
from symile_clin.progress import Progress, Quiet


class InputBatch(Protocol):
    """The part of a batch that encoding needs."""

    @property
    def present(self) -> Mapping[str, Tensor]:
        """Which samples have each modality, (b,) bool."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on a device."""

    def __len__(self) -> int:
        """Number of samples."""


Data = TypeVar("Data", bound=InputBatch)


class InputDataset(Protocol[Data]):
    """Samples in a fixed order, read in batches; `data.dataset.CohortDataset` is one."""

    def __len__(self) -> int:
        """Number of samples."""

    def batches(self, batch_size: int) -> Iterator[Data]:
        """Every sample once, in order, without augmentation; the last batch may be smaller."""

    def inputs(self, batch: Data) -> Mapping[str, Tensor]:
        """Encoder inputs by modality, of the samples that have it."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of samples.

    Attributes:
        embeddings: by modality (n, d) float32; where a modality is absent, its learned placeholder, or NaN if the model
            has none.
        present: by modality (n,) bool.
    """

    embeddings: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, NDArray[np.bool_]]


def embed(
    *,
    model: nn.Module,
    dataset: InputDataset[Data],
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None = None,
) -> Embedded:
    """Embeddings of all samples of a dataset, in its order, normalised as the model does it.

    Args:
        model: maps inputs and presence by modality to embeddings by modality; its training mode is left as it was.

    Raises:
        TrainingError: an embedding of a modality that is there is not finite.
    """
    parts: dict[str, list[NDArray[np.float32]]] = {}
    present: dict[str, list[NDArray[np.bool_]]] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), (progress or Quiet()).track("encoding", len(dataset)) as advance:
            for batch in dataset.batches(batch_size):
                there = batch.to(device)
                encoded: Mapping[str, Tensor] = model(dataset.inputs(there), there.present)
                for name, tensor in encoded.items():
                    parts.setdefault(name, []).append(tensor.float().cpu().numpy())
                    present.setdefault(name, []).append(batch.present[name].numpy())
                advance(len(batch))
    finally:
        model.train(was_training)
    embeddings = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    here = {name: np.concatenate(arrays) for name, arrays in present.items()}
    for name, array in embeddings.items():
        bad = int((here[name] & ~np.isfinite(array).all(axis=1)).sum())
        if bad:
            raise TrainingError(
                f"{bad:,} of {len(array):,} embeddings of '{name}' are not finite",
                remedy="Evaluate an earlier checkpoint, or train with a smaller learning rate",
            )
    return Embedded(embeddings=embeddings, present=here)
