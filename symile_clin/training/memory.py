"""Training that runs out of memory says what takes it, by the objective's own formula, and what takes less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from symile_clin.errors import OutOfMemoryError, SymileClinError, WorkerError, is_out_of_memory
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives.base import Objective
from symile_clin.ranks import Ranks

GIB: Final = 2**30
#: How torch says that a worker has no room to hand a batch over.
NO_SHARED_MEMORY: Final = ("shared memory(shm)", "workers are out of shared memory")
#: What a parameter takes in float32: itself, its gradient and AdamW's two moments.
BYTES_PER_PARAMETER: Final = 16


@contextmanager
def memory_explained(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    n: int,
    embed_chunk: int | None,
    device: torch.device,
    ranks: Ranks,
    place: str,
) -> Iterator[None]:
    """Inside the block memory that runs out ends in one message; so does a process that fetched batches and is gone.

    Args:
        n: samples of the batch, of all processes together.
        embed_chunk: samples that are encoded at once, None for all of a process's part.
        place: where in the run this is.

    Raises:
        OutOfMemoryError: memory of the device, or of the machine, ran out.
        WorkerError: a process that fetches batches was ended, as the system does where memory runs out, or had no
            shared memory to hand one over.
    """
    try:
        yield
    except SymileClinError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_SHARED_MEMORY):
            error.__traceback__ = None  # its frames hold the workers, for which the program would then wait at its end
            raise WorkerError(
                f"shared memory (/dev/shm) ran out at {place}: processes that fetch batches hand them over in it",
                remedy="Give more of it (docker run --shm-size=8g), or lower training.workers (0 takes none) or "
                "training.batch_size",
            ) from None
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            raise WorkerError(
                f"a process that fetches batches was ended by another at {place}, as the system does where memory runs "
                "out",
                remedy="Lower training.workers or training.batch_size; the last checkpoint is as it was",
            ) from None
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(
            model=model, objective=objective, n=n, embed_chunk=embed_chunk, device=device, ranks=ranks, place=place
        ) from None


def _out_of_memory(
    *,
    model: MultimodalEncoder,
    objective: Objective,
    n: int,
    embed_chunk: int | None,
    device: torch.device,
    ranks: Ranks,
    place: str,
) -> OutOfMemoryError:
    k, at_once = len(model.encoders), min(embed_chunk or n, max(ranks.sizes(n)))
    loss = objective.memory(n, model.dim, k, device=device, processes=ranks.size)
    parameters = sum(one.numel() for module in (model, objective) for one in module.parameters())
    smaller = max(1, at_once // 2)
    ways = [
        f"training.embed_chunk={smaller} (fewer activations, the same loss)",
        "training.batch_size (fewer negatives, too)",
        loss.remedy,
        "training.precision=bf16 (half the activations)" if device.type == "cuda" else "",
        "a smaller model.dim or encoders",
    ]
    return OutOfMemoryError(
        f"out of memory on {device} at {place}: the loss of {objective.name} takes {loss.formula} bytes, which is "
        f"{_size(loss.bytes)} for n = {n:,}, d = {model.dim:,}, k = {k}; weights, gradients and moments take 16 bytes "
        f"for each of {parameters:,} parameters, {_size(BYTES_PER_PARAMETER * parameters)}; the rest are the encoders' "
        f"activations of {at_once:,} samples at once",
        remedy=f"Train anew with less, by --set {', or '.join(way for way in ways if way)}; "
        "the last checkpoint is as it was",
    )


def _size(count: float) -> str:
    return f"{count / GIB:,.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:,.1f} MiB"
