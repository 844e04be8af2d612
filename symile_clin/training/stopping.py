"""Stopping on purpose: a signal is noted, the step in hand is finished, a checkpoint is written."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import torch

from symile_clin.progress import Progress
from symile_clin.ranks import Ranks

#: Asked before each step's end: the number of the signal that asks training to stop, or 0.
Stop = Callable[[], int]
#: From terminals and schedulers; SLURM sends the last one before a time limit if asked to.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
#: A terminal, a launcher and a scheduler may each pass on one and the same wish.
SECONDS_APART: Final = 2.0


def never() -> int:
    """No one asks training to stop."""
    return 0


@contextlib.contextmanager
def noted_signals(progress: Progress) -> Iterator[Stop]:
    """Inside the block the first signal is only noted; a later one does what it did outside, at once.

    Outside the main thread, where Python cannot handle signals, they do what they did all along.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    noted, since = 0, 0.0
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the signature of a handler
        nonlocal noted, since
        if not noted:
            noted, since = number, time.monotonic()
            with contextlib.suppress(RuntimeError):  # it came in the middle of another line
                progress.say(f"{signal.Signals(number).name}: stopping after this step; another signal ends at once.")
        elif time.monotonic() - since > SECONDS_APART:
            restore()
            signal.raise_signal(number)

    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, note)
        yield lambda: noted
    finally:
        restore()


def agreed(noted: int, *, ranks: Ranks, device: torch.device) -> int:
    """What all processes that train together do after the step in hand: the same, whichever of them got a signal."""
    if ranks.size == 1:
        return noted
    return int(ranks.max(torch.tensor(noted, device=device)))
