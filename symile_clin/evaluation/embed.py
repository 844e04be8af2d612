"""Encode a split once; every number of the evaluation is made from these embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_clin.errors import OutOfMemoryError, SymileClinError, TrainingError, is_out_of_memory
from symile_clin.model import MultimodalEncoder
from symile_clin.progress import Progress, Quiet

#: Rows of bad samples that an error shows.
ROWS_SHOWN = 10


def shown_rows(rows: Sequence[int]) -> str:
    """The first of some rows, for an error."""
    return ", ".join(map(str, rows[:ROWS_SHOWN])) + (", ..." if len(rows) > ROWS_SHOWN else "")


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
    rows: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """Embeddings of all samples of a dataset, in its order, normalised as the model does it.

    Args:
        model: maps inputs and presence by modality to embeddings by modality; its training mode is left as it was.
        rows: (n,) the samples' rows in their cohort, which an error then names.

    Raises:
        TrainingError: an embedding of a modality that is there is not finite.
        OutOfMemoryError: the encoders need more than there is.
    """
    return _encoded(model, model, dataset, batch_size=batch_size, device=device, rows=rows, progress=progress)


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
    rows: NDArray[np.int64] | None = None,
    progress: Progress | None,
) -> Embedded:
    parts = list(_batches(model, encode, dataset, batch_size=batch_size, device=device, progress=progress))
    names = parts[0].embeddings if parts else ()
    whole = Embedded(
        embeddings={name: np.concatenate([part.embeddings[name] for part in parts]) for name in names},
        present={name: np.concatenate([part.present[name] for part in parts]) for name in names},
    )
    require_finite(whole, rows)
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
                with _explained(len(batch), device), torch.inference_mode():
                    there = batch.to(device)
                    encoded = encode(dataset.inputs(there), there.present)
                yield Embedded(
                    embeddings={name: tensor.float().cpu().numpy() for name, tensor in encoded.items()},
                    present={name: batch.present[name].numpy() for name in encoded},
                )
                advance(len(batch))
    finally:
        model.train(was_training)


@contextmanager
def _explained(samples: int, device: torch.device | str) -> Iterator[None]:
    """Encoding that runs out of memory says of what."""
    try:
        yield
    except SymileClinError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory on {device} while encoding {samples:,} samples at once: the encoders' largest activations, "
            "beside their weights",
            remedy="Free memory there, or encode on a device that has more (--device; cpu takes the machine's own)",
        ) from None


def require_finite(encoded: Embedded, rows: NDArray[np.int64] | None = None) -> None:
    """Refuse embeddings of modalities that are there and that no score can use.

    Args:
        rows: see `embed`.

    Raises:
        TrainingError: one is not finite.
    """
    for name, array in encoded.embeddings.items():
        wrong = encoded.present[name] & ~np.isfinite(array).all(axis=1)
        bad = int(wrong.sum())
        if bad:
            raise TrainingError(
                f"{bad:,} of {len(array):,} embeddings of '{name}' are not finite"
                + (f" (rows {shown_rows(rows[wrong].tolist())})" if rows is not None else ""),
                remedy="Evaluate an earlier checkpoint, or train with a smaller learning rate",
            )
