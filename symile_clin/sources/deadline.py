"""A limit on how long one look may take, whatever it looks at: a pipe nobody writes to, a file server that is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


class Deadline:
    """Seconds that several looks share.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, most: float = float("inf")) -> float:
        """Seconds left, `most` at most."""
        return max(0.0, min(most, self._end - time.monotonic()))


def within(seconds: float, call: Callable[[], R]) -> R:
    """The result of `call`, or an error if it does not come in time.

    The call goes on in a thread that is given up: a read that the system never answers cannot be ended, but neither
    does it keep the program from going on, or from ending.

    Raises:
        TimeoutError: no answer in time; or whatever the call raises.
    """
    answer: list[R] = []
    failure: list[BaseException] = []

    def ask() -> None:
        try:
            answer.append(call())
        except BaseException as error:  # raised again where it was asked for
            failure.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if answer:
        return answer[0]
    raise TimeoutError(f"no answer within {seconds:.0f} s")
