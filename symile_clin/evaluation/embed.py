"""Encode a split once; every number of the evaluation is made from these embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin.errors import TrainingError
from symile_clin.model import MultimodalEncoder
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
    return _encoded(model, model, dataset, batch_size=batch_size, device=device, progress=progress)


def encoder_states(
    *,
    model: MultimodalEncoder,
    dataset: InputDataset[Data],
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None = None,
) -> Embedded:
    """What the encoders give before it is normalised, so that its length is still there; NaN where there is nothing.

    Args:
        model: its training mode is left as it was.

    Raises:
        TrainingError: a state of a modality that is there is not finite.
    """

    def states(inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, tensor in inputs.items():
            whole = torch.full((len(present[name]), model.dim), torch.nan, device=tensor.device)
            if len(tensor):
                whole[present[name]] = model.encoders[name](tensor).float()
            found[name] = whole
        return found

    return _encoded(model, states, dataset, batch_size=batch_size, device=device, progress=progress)


def embed_batches(
    *,
    model: nn.Module,
    dataset: InputDataset[Data],
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None = None,
) -> Iterator[Embedded]:
    """As `embed`, a batch at a time, whether finite or not, for what need not be in memory whole."""
    return _batches(model, model, dataset, batch_size=batch_size, device=device, progress=progress)


Encode = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]


def _encoded(
    model: nn.Module,
    encode: Encode,
    dataset: InputDataset[Data],
    *,
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None,
) -> Embedded:
    parts = list(_batches(model, encode, dataset, batch_size=batch_size, device=device, progress=progress))
    names = parts[0].embeddings if parts else ()
    whole = Embedded(
        embeddings={name: np.concatenate([part.embeddings[name] for part in parts]) for name in names},
        present={name: np.concatenate([part.present[name] for part in parts]) for name in names},
    )
    require_finite(whole)
    return whole


def _batches(
    model: nn.Module,
    encode: Encode,
    dataset: InputDataset[Data],
    *,
    batch_size: int,
    device: torch.device | str,
    progress: Progress | None,
) -> Iterator[Embedded]:
    was_training = model.training
    model.eval()
    try:
        with (progress or Quiet()).track("encoding", len(dataset)) as advance:
            for batch in dataset.batches(batch_size):
                with torch.inference_mode():
                    there = batch.to(device)
                    encoded = encode(dataset.inputs(there), there.present)
                yield Embedded(
                    embeddings={name: tensor.float().cpu().numpy() for name, tensor in encoded.items()},
                    present={name: batch.present[name].numpy() for name in encoded},
                )
                advance(len(batch))
    finally:
        model.train(was_training)


def require_finite(encoded: Embedded) -> None:
    """Refuse embeddings of modalities that are there and that no score can use.

    Raises:
        TrainingError: one is not finite.
    """
    for name, array in encoded.embeddings.items():
        bad = int((encoded.present[name] & ~np.isfinite(array).all(axis=1)).sum())
        if bad:
            raise TrainingError(
                f"{bad:,} of {len(array):,} embeddings of '{name}' are not finite",
                remedy="Evaluate an earlier checkpoint, or train with a smaller learning rate",
            )
