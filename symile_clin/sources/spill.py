"""Private folders for what an engine cannot keep in memory; those of builds that were killed are cleared away."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from symile_clin import disk, files

PREFIX: Final = "spill-"


@contextmanager
def spill_folder(directory: Path) -> Iterator[Path]:
    """A folder below `directory` that only this user may look into (mode 0700), removed when the block ends.

    Its owner holds a lock on it for as long as the process lives, so that folders without an owner can be told.
    """
    with files.lock(directory / ".spill.lock", wait=True):
        for left in directory.glob(f"{PREFIX}*"):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # someone is building
            else:
                shutil.rmtree(left)
            finally:
                os.close(handle)
        with disk.writing(directory):
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        owned = os.open(folder, os.O_RDONLY)
        fcntl.flock(owned, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(owned)
