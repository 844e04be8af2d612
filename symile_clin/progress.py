"""What a person sees while work goes on: bars on a terminal, plain lines elsewhere, nothing when quiet.

Everything goes to stderr; stdout belongs to results. Nothing that files hold is obeyed by a terminal.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


def visible(text: str) -> str:
    """The text with control characters, and those that turn its direction, written out: a terminal obeys them.

    Line feeds and tabs stay.
    """
    return "".join(
        one if one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cf", "Cs") else f"\\u{ord(one):04x}"
        for one in text
    )


class Progress(Protocol):
    """Told what happens; decides how to show it."""

    def say(self, text: str) -> None:
        """Show one line."""

    def track(self, description: str, total: int) -> AbstractContextManager[Advance]:
        """Show the way to `total`; the block calls what it is given with the number of steps done."""


class Quiet:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:  # noqa: ARG002  part of the protocol
        """Show nothing."""
        yield lambda _steps: None


class Console:
    """Rich bars on a terminal; a line every few seconds where there is none."""

    SECONDS_BETWEEN_LINES = 10.0

    def say(self, text: str) -> None:
        """Print one line to stderr."""
        print(visible(text), file=sys.stderr, flush=True)

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """A bar that vanishes when done, or plain lines."""
        if not sys.stderr.isatty():
            with self._plain(description, total) as advance:
                yield advance
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with RichProgress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
            task = bars.add_task(description, total=total)
            yield lambda steps: bars.advance(task, steps)

    @contextmanager
    def _plain(self, description: str, total: int) -> Iterator[Advance]:
        done, last = 0, time.monotonic()

        def advance(steps: int) -> None:
            nonlocal done, last
            done += steps
            if time.monotonic() - last >= self.SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                self.say(f"  {description}: {done:,} of {total:,}")

        yield advance
