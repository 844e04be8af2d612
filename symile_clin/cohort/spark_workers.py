"""The executors of a Spark cluster open files, as the processes of one machine do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar, final

from symile_clin.cohort.workers import CHUNK, SECONDS_PER_ITEM, Mapper, run_bounded
from symile_clin.errors import WorkerError

T = TypeVar("T")
R = TypeVar("R")
#: Chunks of one job for each of Spark's cores: so many that few cores wait for the last, so few that progress shows.
WAVE: Final = 4


@final
class SparkWorkers(Mapper):
    """Chunks of items as Spark's tasks.

    The sources, and the folder that functions write to, must lie where every executor sees them under one path. What
    functions return goes through the driver; what they write does not.

    Args:
        session: of Spark; left open.
    """

    def __init__(self, session: Any) -> None:
        self._context = session.sparkContext
        self.count: int = self._context.defaultParallelism

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def map(
        self,
        function: Callable[[Sequence[T]], list[R]],
        items: Sequence[T],
        *,
        chunk: int = CHUNK,
        died: Callable[[T], R] | None = None,
    ) -> Iterator[R]:
        """Chunks at which Spark gave a task up are tried again, the second time item by item, each alone.

        Raises:
            WorkerError: Spark gave a task up and there is no `died`, or it does nothing at all any more.
        """
        chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
        wave = self.count * WAVE
        for start in range(0, len(chunks), wave):
            some = chunks[start : start + wave]
            answers = self._run(function, some)
            for place, one in enumerate(some):
                yield from self._alone(function, one, died) if answers is None else answers[place]

    def _alone(
        self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T], died: Callable[[T], R] | None
    ) -> list[R]:
        answers = self._run(function, [items])
        if answers is not None:
            return answers[0]
        if died is None:
            raise WorkerError("Spark gave a task up", remedy="Do executors have enough memory, and see the sources?")
        if len(items) == 1:
            if self._run(_nothing, [items]) is None:
                raise WorkerError("Spark runs no tasks any more", remedy="Look at the cluster, and start again")
            return [died(items[0])]
        return [result for item in items for result in self._alone(function, [item], died)]

    def _run(self, function: Callable[[Sequence[T]], list[R]], chunks: Sequence[Sequence[T]]) -> list[list[R]] | None:
        """Results of each chunk, in order; None if Spark gave the job up. The function's own exceptions are raised."""
        seconds = SECONDS_PER_ITEM
        tasks = self._context.parallelize(chunks, len(chunks)).map(lambda one: _outcome(function, one, seconds))
        try:
            outcomes: list[tuple[list[R] | None, BaseException | None]] = tasks.collect()
        except Exception:  # py4j's, of a job that was given up after as many attempts as the cluster makes
            return None
        for _, error in outcomes:
            if error is not None:
                raise error
        return [results for results, _ in outcomes if results is not None]


def _outcome(
    function: Callable[[Sequence[T]], list[R]], items: Sequence[T], seconds: float
) -> tuple[list[R] | None, BaseException | None]:
    """In an executor: results, or the exception, which Spark would make a text of."""
    try:
        return run_bounded(function, items, seconds), None
    except Exception as error:
        return None, error


def _nothing(items: Sequence[Any]) -> list[Any]:
    return list(items)
