"""What `Ranks` exchanges, by torch.distributed. Imported where there are several processes only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from symile_clin.errors import WorkerError

if TYPE_CHECKING:
    from symile_clin.ranks import Ranks

Found = TypeVar("Found")
#: Of a backend's reason, which may be a page.
REASON_SHOWN = 200


def gather(tensor: Tensor, ranks: Ranks, n: int) -> Tensor:
    """See `Ranks.gather`. Parts differ by at most one row: all are padded to the longest, and cut again."""
    sizes = ranks.sizes(n)
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    with _together():
        dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def reduced(tensor: Tensor, how: Literal["sum", "max"]) -> Tensor:
    """Elementwise over processes, as a new tensor without gradient."""
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    with _together():
        dist.all_reduce(total, dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX)
    return total


def from_first(find: Callable[[], Found], ranks: Ranks) -> Found:
    """See `Ranks.first`."""
    outcome: list[object] = [None, None]
    if ranks.is_first:
        try:
            outcome[0] = find()
        except Exception as error:  # every process is to end with it
            outcome[1] = error
    with _together():
        dist.broadcast_object_list(outcome)
    if isinstance(outcome[1], Exception):
        raise outcome[1]
    return cast(Found, outcome[0])


def overwrite_with_first(tensor: Tensor) -> None:
    """Put the first process's values into a tensor, in place."""
    values = tensor.detach().clone(memory_format=torch.contiguous_format)
    with _together():
        dist.broadcast(values, src=0)
    with torch.no_grad():
        tensor.copy_(values)


@contextmanager
def _together() -> Iterator[None]:
    """A backend that fails has lost another process; which one failed first, and why, that one says."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise WorkerError(
            f"another process of this training has ended or does not answer ({reason[:REASON_SHOWN]})",
            remedy="Go on from the last checkpoint with `symile-clin train --resume`, started as before",
        ) from error
