"""What several processes need beyond one to train a model together: a connection, equal starts, summed gradients."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from symile_clin.errors import ConfigError, MismatchError
from symile_clin.model import MultimodalEncoder
from symile_clin.ranks import Ranks, launched

#: How long one process may keep the others waiting, as the first does while it writes. A process that ends is noticed
#: at once, for its connections close; this is for one that hangs, or whose machine is gone.
TIMEOUT: Final = timedelta(minutes=5)
#: Gradients travel together, in pieces of about this many bytes: few calls, and little memory beside the gradients.
BUCKET_BYTES: Final = 64 * 2**20
#: For the process that failed first to say why, before a launcher ends it because another has ended.
SECONDS_TO_SPEAK: Final = 1.0


@contextmanager
def joined() -> Iterator[Ranks]:
    """Inside the block this process is connected with all others that torchrun started; by itself, if nothing did.

    CPU tensors travel by gloo, CUDA tensors by NCCL. If several processes fail, the first one's error goes on, and the
    others end with their exit codes and without a word: they fail because of it, or of the same thing.
    """
    ranks = launched()
    if ranks.size == 1:
        yield ranks
        return
    # Optimizers load it in any case; loaded while a connection is there it holds on to it, and the threads of that
    # connection then outlive the interpreter, which now and then aborts a process that has done all its work.
    import torch._dynamo

    store, *_ = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=TIMEOUT)
    try:
        yield ranks
    except Exception as error:
        if not _is_first_failure(store):
            time.sleep(SECONDS_TO_SPEAK)
            raise SystemExit(getattr(error, "exit_code", 1)) from None
        raise
    dist.destroy_process_group()  # after a failure, the end of the process is what the others are to notice


def _is_first_failure(store: Store) -> bool:
    try:
        return int(store.add("failures", 1)) == 1
    except RuntimeError:  # the store's host is gone, and with it perhaps the only other message
        return True


def check_same(ranks: Ranks, what: str, value: object) -> None:
    """Refuse processes that would train different things.

    Args:
        value: picklable, compared by ==.

    Raises:
        MismatchError: this one's differs from the first's.
    """
    first = ranks.first(lambda: value)
    if first != value:
        raise MismatchError(
            f"process {ranks.rank} has another {what} than the first",
            expected=f"{first}, found {value}",
            remedy="Start every process with the same command on the same files",
        )


def check_divisible(ranks: Ranks, *, smallest: int) -> None:
    """Refuse batches that leave a process without a sample.

    Args:
        smallest: samples of the smallest batch, of all processes together.

    Raises:
        ConfigError: fewer than processes.
    """
    if smallest < ranks.size:
        raise ConfigError(
            f"the smallest batch has {smallest:,} samples, for {ranks.size:,} processes",
            expected="at least one sample for each",
            remedy="Set training.batch_size higher (it is of all processes together), or start fewer processes",
        )


def with_shared_statistics(
    model: MultimodalEncoder, ranks: Ranks, *, device: torch.device, embed_chunk: int | None
) -> MultimodalEncoder:
    """A model whose BatchNorm layers take their statistics over all processes; its names and values are the same.

    Raises:
        ConfigError: on a CPU, where torch has no such layers; or where not all processes would call each of them the
            same number of times, and so some would wait forever.
    """
    if ranks.size == 1:
        return model
    if device.type != "cuda":
        raise ConfigError(
            "training.sync_batchnorm needs CUDA devices",
            remedy="Leave it out: every process then has its own statistics",
        )
    if embed_chunk is not None or model.placeholders:
        raise ConfigError(
            "training.sync_batchnorm needs each process to encode all of its part at once, and every modality of it",
            remedy="Leave out training.embed_chunk and modalities that samples lack, or training.sync_batchnorm",
        )
    shared: MultimodalEncoder = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch
    return shared


def copy_from_first(tensors: Iterable[Tensor], ranks: Ranks) -> None:
    """Give every process the first one's values of its parameters or buffers."""
    if ranks.size == 1:
        return
    from symile_clin.exchange import overwrite_with_first

    for tensor in tensors:
        overwrite_with_first(tensor)


def sum_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Replace gradients by their sums over processes; a parameter that has one anywhere then has it everywhere.

    A process without a gradient of it, such as of an encoder none of whose samples had the modality, adds zeros. One
    that has none anywhere keeps none, as it would on one process: an optimizer then leaves it alone.
    """
    if ranks.size == 1:
        return
    found = ranks.sum(torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32))
    for bucket in _buckets([parameter for parameter, count in zip(parameters, found.tolist(), strict=True) if count]):
        for parameter in bucket:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        total = ranks.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(total, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one type, of about `BUCKET_BYTES` each."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and (
            parameter.dtype != bucket[0].dtype or sum(one.nbytes for one in bucket) + parameter.nbytes > BUCKET_BYTES
        ):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
