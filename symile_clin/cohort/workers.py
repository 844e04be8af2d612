"""A pool of processes that open files; results come back in order, so that their number changes nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")
CHUNK: Final = 32
#: Chunks in flight per worker: enough to keep it busy, few enough to hold no more than that in memory.
AHEAD: Final = 4
#: Work that would take less than this in one process is not worth starting others for.
WORTH_STARTING_SECONDS = 5.0


class Workers(AbstractContextManager["Workers"]):
    """Maps functions over items in worker processes, started where the first items show that it is worth it.

    Args:
        count: of processes; None takes one per core this process may use.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = len(os.sched_getaffinity(0)) if count is None else count
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> Iterator[R]:
        """`function` of chunks of `items`; its results one by one, in order."""
        chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
        if chunks and self._pool is None:
            started = time.monotonic()
            yield from function(chunks.pop(0))
            seconds = (time.monotonic() - started) * len(chunks)
            if self.count == 1 or seconds < WORTH_STARTING_SECONDS:
                for chunk in chunks:
                    yield from function(chunk)
                return
        if not chunks:
            return
        pool = self._start()
        waiting: deque[Future[list[R]]] = deque()
        for chunk in chunks:
            if len(waiting) == self.count * AHEAD:
                yield from waiting.popleft().result()
            waiting.append(pool.submit(function, chunk))
        while waiting:
            yield from waiting.popleft().result()

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: the table engine's threads would not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_leave_interrupts_to_parent)
        return self._pool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
