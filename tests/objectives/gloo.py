"""Runs a function in several processes that torch.distributed connects (gloo)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from symile_clin.ranks import Ranks


def in_processes(function: Callable[[Ranks], Any], *, sizes: Sequence[int], folder: Path) -> dict[int, list[Any]]:
    """What the function returns in each of so many processes, for every size of group, tensors in plain containers.

    Args:
        function: of a module; processes are spawned, and import it.
        folder: empty; the processes meet and leave their results there.
    """
    spawn(_run, args=(function, sizes, folder), nprocs=max(sizes))  # type: ignore[no-untyped-call]  # torch does not type it
    return {
        size: [torch.load(folder / f"{rank} of {size}.pt", weights_only=True) for rank in range(size)] for size in sizes
    }


def _run(rank: int, function: Callable[[Ranks], Any], sizes: Sequence[int], folder: Path) -> None:
    torch.set_num_threads(1)
    for size in sizes:
        if rank < size:
            meeting = f"file://{folder / f'meeting of {size}'}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
            torch.save(function(Ranks(rank, size)), folder / f"{rank} of {size}.pt")
            dist.destroy_process_group()
