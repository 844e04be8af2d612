"""Processes that share work by gloo, for tests: the same function in each, their results in order."""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, Final

import torch
import torch.distributed as dist

from symile_clin.ranks import Ranks

SECONDS: Final = 300
#: Loaded once, by the server that the processes are forked from.
PRELOADED: Final = ["torch.distributed", "symile_clin.training.fit"]


def in_processes(size: int, function: Callable[..., Any], *arguments: object) -> list[Any]:
    """What `function(ranks, *arguments)` returns in each of `size` processes.

    Args:
        function: of a module, not of another function; arguments and results are anything that torch.save takes.

    Raises:
        AssertionError: one failed, with its traceback, or took more than `SECONDS`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_run, args=(Ranks(rank, size), folder, sender, function, arguments), daemon=True)
            for rank, (_, sender) in enumerate(pipes)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        deadline = time.monotonic() + SECONDS
        try:
            return [_result(rank, receiver, deadline) for rank, (receiver, _) in enumerate(pipes)]
        finally:
            for process, (receiver, _) in zip(processes, pipes, strict=True):
                process.kill()
                process.join()
                receiver.close()


def _result(rank: int, receiver: Connection, deadline: float) -> Any:
    if not receiver.poll(max(0.0, deadline - time.monotonic())):
        raise AssertionError(f"process {rank} takes more than {SECONDS} s")
    try:
        is_good, content = receiver.recv()
    except EOFError:
        raise AssertionError(f"process {rank} ended without a word") from None
    if not is_good:
        raise AssertionError(f"process {rank} failed:\n{content}")
    return torch.load(io.BytesIO(content), weights_only=False)  # our own bytes


def _run(
    ranks: Ranks, folder: str, sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=timedelta(seconds=SECONDS),
    )
    try:
        result = io.BytesIO()
        torch.save(function(ranks, *arguments), result)
        sender.send((True, result.getvalue()))
    except BaseException:  # whatever it is, the test shows it
        sender.send((False, traceback.format_exc()))
    sender.close()
    dist.destroy_process_group()
