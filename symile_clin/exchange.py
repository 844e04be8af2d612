"""What `Ranks` exchanges, by torch.distributed. Imported where there are several processes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from symile_clin.ranks import Ranks


def gather(tensor: Tensor, ranks: Ranks, n: int) -> Tensor:
    """See `Ranks.gather`."""
    return cast(Tensor, _Gather.apply(tensor, ranks, n))


def reduced(tensor: Tensor, how: Literal["sum", "max"]) -> Tensor:
    """Elementwise over processes, as a new tensor without gradient."""
    total = tensor.detach().clone()
    dist.all_reduce(total, dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX)
    return total


class _Gather(torch.autograd.Function):
    """Parts differ by at most one row: all are padded to the longest, and cut again."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks, n: int) -> Tensor:
        sizes = ranks.sizes(n)
        ctx.rows = ranks.mine(n)
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rows], None, None
