"""One file's bytes, or why it is refused: what sources hold is not trusted to be a file of a sensible size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from symile_clin.modalities.base import Reason, Refusal


def read_whole(path: Path, *, limit: int) -> bytes | Refusal:
    """All bytes of a regular file.

    Args:
        limit: the most bytes it may have.

    Returns:
        Its bytes, or a refusal: it is not there, empty, larger than `limit`, may not be read, or is no regular file. A
        pipe or a device by that name neither answers nor hangs.
    """
    try:
        # without O_NONBLOCK, a pipe would be waited for until somebody writes
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Refusal(Reason.MISSING)
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or "")
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return Refusal(Reason.WRONG_FORMAT, "no regular file")
        if status.st_size > limit:
            return Refusal(Reason.TOO_LARGE, f"more than {limit:,} bytes")
        with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
            data = file.readall()
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or "")
    finally:
        os.close(handle)
    return data or Refusal(Reason.TRUNCATED, "empty file")
