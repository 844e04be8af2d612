"""What holds for every command, whoever calls it.

What it writes is its user's alone, and it refuses a tracking store on another machine, unless its flag is given.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

from symile_clin.tracking.store import database_of, refuse_remote_artifacts

Result = TypeVar("Result")
#: Of this process and those that it starts: files get mode 0600, folders 0700.
UMASK = 0o077


def guarded(command: Callable[..., Result]) -> Callable[..., Result]:
    """The command, with private files, and refusing a store elsewhere before it starts instead of after an hour's work.

    The umask is the process's: whatever else the process writes meanwhile is private, too.

    Raises:
        TrackingError: in the command, if its tracking store or that store's artifacts may be on another machine and
            `allow_remote_tracking` is not given.
    """

    @functools.wraps(command)
    def run(**arguments: Any) -> Result:
        before = os.umask(UMASK)
        try:
            _refuse_elsewhere(**arguments)
            return command(**arguments)
        finally:
            os.umask(before)

    return run


def _refuse_elsewhere(
    *, tracking_uri: str | None = None, allow_remote_tracking: bool | None = None, **_others: object
) -> None:
    """Look at the store of a command that records; None for the flag is a command that has none."""
    if tracking_uri is not None and allow_remote_tracking is not None:
        database = database_of(tracking_uri, allow_remote=allow_remote_tracking)
        if database is not None and not allow_remote_tracking:
            refuse_remote_artifacts(database)
