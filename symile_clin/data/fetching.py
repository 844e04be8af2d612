"""Processes that fetch batches. They leave signals to the training process, and end when it does.

A Ctrl-C goes to every process of a terminal's job, a scheduler's signal to every process of its own: training then
finishes the step in hand, for which it may still need a batch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from typing import Final

#: Long enough for a step in hand; then a worker gives in, so that no process waits for it forever.
SECONDS_AFTER_TERM: Final = 60
_HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def context(preload: str) -> ForkServerContext:
    """Where worker processes come from.

    They are not forked from this process, which may hold threads and a CUDA context: those do not survive a fork. The
    server they are forked from has imported `preload`, for each worker would otherwise do so while the next one waits.
    """
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([preload])
    # What is started while signals are blocked here has them blocked for good. None is lost: here they come afterwards.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        for start in (resource_tracker.ensure_running, forkserver.ensure_running):
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)  # the tracker's start unblocks them
            start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return found


def begin(worker: int) -> None:  # noqa: ARG001  what a DataLoader passes
    """Called first in every worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_TERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    # A DataLoader's worker watches its own parent, which here is the server, and that waits for its children.
    threading.Thread(target=_end_with_training, daemon=True).start()


def _end_with_training() -> None:
    training = multiprocessing.parent_process()
    if training is not None:
        training.join()
        os._exit(1)
