"""Every error a user can meet: what was found, what was expected, what to do. Caught once, in cli.py."""

from __future__ import annotations

import errno
from functools import partial
from typing import NamedTuple


class SymileClinError(Exception):
    """Base of all expected failures; its text is the one line a user reads.

    Args:
        found: what was found, as a sentence without its full stop.
        expected: what was expected instead, if that is not obvious.
        remedy: what the user can do now.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str | None = None, remedy: str | None = None) -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        parts = [found, f"Expected {expected}" if expected else None, remedy]
        super().__init__(" ".join(_sentence(part) for part in parts if part))

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (image and record readers run in workers): keyword arguments must survive.
        return _rebuild, (type(self), self.found, self.expected, self.remedy)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _rebuild(kind: type[SymileClinError], found: str, expected: str | None, remedy: str | None) -> SymileClinError:
    return kind(found, expected=expected, remedy=remedy)


class ConfigError(SymileClinError):
    """A spec, preset, option or argument that cannot be understood."""

    exit_code = 2


class NotFoundError(SymileClinError):
    """A cohort, run, checkpoint or preset that was asked for and is not there."""

    exit_code = 2


class SourceError(SymileClinError):
    """A MIMIC directory or table that is missing or is not what its format says."""

    exit_code = 3


class CohortError(SymileClinError):
    """A cohort that is empty, too small for its splits, or damaged."""

    exit_code = 3


class MismatchError(SymileClinError):
    """A checkpoint that does not fit a cohort, or files that do not belong together."""

    exit_code = 3


class BusyError(SymileClinError):
    """Another process is writing to the same place."""


class WorkerError(SymileClinError):
    """Worker processes that do not stay alive."""


class Refused(NamedTuple):
    """What a disk did not take, and why; for whoever knows more of what was to be written there."""

    place: str
    reason: str
    is_full: bool


class DiskError(SymileClinError):
    """A disk without room for what is to be written, or that does not take it for another reason.

    Args:
        refused: how that showed, where it was found out by writing.
    """

    def __init__(
        self, found: str, *, expected: str | None = None, remedy: str | None = None, refused: Refused | None = None
    ) -> None:
        super().__init__(found, expected=expected, remedy=remedy)
        self.refused = refused

    def __reduce__(self) -> tuple[object, ...]:
        kept = partial(DiskError, expected=self.expected, remedy=self.remedy, refused=self.refused)
        return kept, (self.found,)


class OutOfMemoryError(SymileClinError):
    """More memory than the machine or the device has."""


#: How allocators say that they have no more, where they raise nothing of their own.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "ALLOC_FAILED", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocator's: Python's, numpy's, torch's on any device, or the system's."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


class TrainingError(SymileClinError):
    """Training that cannot go on, such as a loss that is not finite."""


class TrackingError(SymileClinError):
    """The tracking store cannot be used where the user asked for it explicitly."""


class StoppedError(SymileClinError):
    """Training that a signal stopped; a checkpoint keeps what it had come to.

    Args:
        signal: its number; scripts read it off the exit code, as of a process that died of the signal.
    """

    def __init__(self, found: str, *, signal: int, expected: str | None = None, remedy: str | None = None) -> None:
        super().__init__(found, expected=expected, remedy=remedy)
        self.signal = signal
        self.exit_code = 128 + signal

    def __reduce__(self) -> tuple[object, ...]:
        return partial(StoppedError, signal=self.signal, expected=self.expected, remedy=self.remedy), (self.found,)
