"""One regular file, or why it is refused: what sources hold is not trusted to be a file of a sensible size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from symile_clin.modalities.base import Reason, Refusal


def read_whole(path: Path, *, limit: int) -> bytes | Refusal:
    """All bytes of a regular file.

    Args:
        limit: the most bytes it may have.

    Returns:
        Its bytes, or a refusal: it is not there, empty, larger than `limit`, may not be read, or is no regular file. A
        pipe or a device by that name neither answers nor hangs.
    """
    with open_regular(path, limit=limit) as file:
        if isinstance(file, Refusal):
            return file
        try:
            return file.read() or Refusal(Reason.TRUNCATED, "empty file")
        except OSError as error:
            return unreadable(error)


@contextmanager
def open_regular(path: Path, *, limit: int) -> Iterator[BinaryIO | Refusal]:
    """A regular file, open for reading, or why it is refused, as by `read_whole`."""
    try:
        # without O_NONBLOCK, a pipe would be waited for until somebody writes
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield Refusal(Reason.MISSING)
        return
    except OSError as error:
        yield unreadable(error)
        return
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        yield Refusal(Reason.WRONG_FORMAT, "no regular file")
        return
    with os.fdopen(handle, "rb") as file:
        if status.st_size > limit:
            yield Refusal(Reason.TOO_LARGE, f"more than {limit:,} bytes")
        elif status.st_size == 0:
            yield Refusal(Reason.TRUNCATED, "empty file")
        else:
            yield file


def unreadable(error: OSError) -> Refusal:
    """The refusal of a file that the system does not give."""
    return Refusal(Reason.UNREADABLE, error.strerror or "")
