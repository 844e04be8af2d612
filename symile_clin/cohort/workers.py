"""A pool of processes that open files; results come back in order, so that their number changes nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, TypeVar, final

from symile_clin.errors import WorkerError

T = TypeVar("T")
R = TypeVar("R")
CHUNK: Final = 32
#: Chunks in flight per worker: enough to keep it busy, few enough to hold no more than that in memory.
AHEAD: Final = 4
#: Work that would take less than this in one process is not worth starting others for.
WORTH_STARTING_SECONDS = 5.0
#: A worker that is at one item for longer is taken for hung, and dies.
SECONDS_PER_ITEM = 60.0
#: The same in a worker; None in any other process.
_seconds_per_item: float | None = None


class Mapper(AbstractContextManager["Mapper"]):
    """Applies functions to chunks of items, wherever there is room for it."""

    @abstractmethod
    def map(
        self,
        function: Callable[[Sequence[T]], list[R]],
        items: Sequence[T],
        *,
        chunk: int = CHUNK,
        died: Callable[[T], R] | None = None,
    ) -> Iterator[R]:
        """`function` of chunks of `items`; its results one by one, in the order of the items.

        Args:
            function: picklable; one result for each item. Its exceptions are raised here.
            chunk: items at a time, but for the last: item i is always in chunk i // chunk.
            died: the result of an item at which the process died or hung, when it was given that item alone.
        """


@final
class Workers(Mapper):
    """Processes of this machine, started where the first items show that it is worth it.

    Args:
        count: of processes; None takes one per core this process may use.
        cautious: never work in this process, which may have died of a file the last time.
    """

    def __init__(self, count: int | None = None, *, cautious: bool = False) -> None:
        self.count = len(os.sched_getaffinity(0)) if count is None else count
        self._cautious = cautious
        self._pool: ProcessPoolExecutor | None = None

    def map(
        self,
        function: Callable[[Sequence[T]], list[R]],
        items: Sequence[T],
        *,
        chunk: int = CHUNK,
        died: Callable[[T], R] | None = None,
    ) -> Iterator[R]:
        """Chunks that a process died at are tried again, the second time item by item, each alone.

        Raises:
            WorkerError: a process died and there is no `died`, or no process stays alive.
        """
        chunks = deque(items[i : i + chunk] for i in range(0, len(items), chunk))
        if chunks and self._pool is None and not self._cautious:
            started = time.monotonic()
            yield from function(chunks.popleft())
            seconds = (time.monotonic() - started) * len(chunks)
            if self.count == 1 or seconds < WORTH_STARTING_SECONDS:
                while chunks:
                    yield from function(chunks.popleft())
                return
        waiting: deque[tuple[Sequence[T], Future[list[R]]]] = deque()
        while chunks or waiting:
            try:
                while chunks and len(waiting) < self.count * AHEAD:
                    waiting.append((chunks[0], self._submit(function, chunks[0])))
                    chunks.popleft()
                results = waiting[0][1].result()
            except BrokenProcessPool:
                # Whose fault it was cannot be told: all that was under way is done again, one chunk at a time.
                for suspect, _ in waiting:
                    yield from self._alone(function, suspect, died)
                waiting.clear()
                self._restart()
            else:
                waiting.popleft()
                yield from results

    def _alone(
        self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T], died: Callable[[T], R] | None
    ) -> list[R]:
        """The results of a chunk while nothing else is under way."""
        self._restart()
        try:
            return self._submit(function, items).result()
        except BrokenProcessPool:
            self._restart()
            if died is None:
                raise WorkerError(
                    "a worker process died", remedy="Is there enough memory? Try fewer --workers"
                ) from None
            if len(items) == 1:
                return [died(items[0])]
        return [result for item in items for result in self._alone(function, [item], died)]

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: the table engine's threads would not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=context, initializer=_start_worker, initargs=(SECONDS_PER_ITEM,)
            )
        return self._pool

    def _submit(self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> Future[list[R]]:
        return self._start().submit(_bounded, function, items)

    def _restart(self) -> None:
        """Have a pool that works.

        Raises:
            WorkerError: even a process that does nothing dies.
        """
        try:
            self._start().submit(os.getpid).result()
        except BrokenProcessPool:
            self._stop()
            try:
                self._start().submit(os.getpid).result()
            except BrokenProcessPool:
                raise WorkerError("worker processes cannot be started", remedy="Is there enough memory?") from None

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def begin_item() -> None:
    """Functions of a map say so before each of their items: from here on, a worker has so long before it is killed."""
    if _seconds_per_item is not None:
        signal.setitimer(signal.ITIMER_REAL, _seconds_per_item)


def _bounded(function: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """In a worker: results of items, or death where one takes too long. Code that hangs cannot be asked to stop."""
    begin_item()
    try:
        return function(items)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_bounded(function: Callable[[Sequence[T]], list[R]], items: Sequence[T], seconds_per_item: float) -> list[R]:
    """In a process of another's pool: results of items, or its death where one takes too long."""
    global _seconds_per_item
    _seconds_per_item = seconds_per_item
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return _bounded(function, items)


def _start_worker(seconds_per_item: float) -> None:
    global _seconds_per_item
    _seconds_per_item = seconds_per_item
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are the parent's
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
