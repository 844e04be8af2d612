"""Encode a split once; every number of the evaluation is made from these embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin.errors import TrainingError
from symile_clin.progress import Progress, Quiet


class InputBatch(Protocol):
    """The part of a batch that an encoder sees."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """Encoder inputs by modality, each (b, ...)."""


class InputDataset(Protocol):
    """Samples in a fixed order, read in batches; `data.dataset.CohortDataset` is one."""

    def __len__(self) -> int:
        """Number of samples."""

    def batches(self, batch_size: int) -> Iterator[InputBatch]:
        """Every sample once, in order, without augmentation; the last batch may be smaller."""


def embed(
    *,
    model: nn.Module,
    dataset: InputDataset,
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Embeddings of all samples of a dataset, normalised as the model does it.

    Args:
        model: maps inputs by modality to embeddings by modality; its training mode is left as it was.

    Returns:
        By modality (n, d) float32, rows in the dataset's order.

    Raises:
        TrainingError: an embedding is not finite.
    """
    parts: dict[str, list[NDArray[np.float32]]] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), (progress or Quiet()).track("encoding", len(dataset)) as advance:
            for batch in dataset.batches(batch_size):
                inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
                encoded: Mapping[str, Tensor] = model(inputs)
                for name, tensor in encoded.items():
                    parts.setdefault(name, []).append(tensor.float().cpu().numpy())
                advance(len(next(iter(inputs.values()))))
    finally:
        model.train(was_training)
    embeddings = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    for name, array in embeddings.items():
        bad = len(array) - int(np.isfinite(array).all(axis=1).sum())
        if bad:
            raise TrainingError(
                f"{bad:,} of {len(array):,} embeddings of '{name}' are not finite",
                remedy="Evaluate an earlier checkpoint, or train with a smaller learning rate",
            )
    return embeddings
