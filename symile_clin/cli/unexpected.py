"""Errors that nobody foresaw, told without their own words: a library's message may quote a value, an id or a path."""

from __future__ import annotations

import re
import traceback
from itertools import groupby
from pathlib import Path
from typing import Final

#: MIMIC's ids: eight digits, and images' names.
_ID: Final = re.compile(r"\d{8}|[0-9a-f]{8}-[0-9a-f]{8}")
#: Errors whose words are of packages and sizes.
OF_NO_PATIENT: Final = (ImportError, MemoryError)


def told(error: Exception) -> str:
    """Kind and place of an error and of what it came from, as one line that may be shown to anyone."""
    kinds: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(kinds) < 5:
        kinds.append(type(cause).__name__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    shown = " > ".join(place for place, _ in groupby(map(_place, frames[-8:])))
    said = f"an error that was not foreseen: {' from '.join(kinds)} at {shown}."
    if isinstance(error, OF_NO_PATIENT):
        return f"{said} {error}"
    return (
        f"{said} Its own words are withheld: they may be of patients. `symile-clin --traceback ...` shows them to you; "
        "report it without them (SECURITY.md)."
    )


def without_ids(path: str | Path) -> str:
    """A path in which what may name a patient is left out."""
    return str(Path(*("..." if _ID.search(part) else part for part in Path(path).parts)))


def _place(frame: traceback.FrameSummary) -> str:
    """File and line, without the folders of this machine."""
    parts = Path(frame.filename).parts
    own = [at for at, part in enumerate(parts) if part in ("site-packages", "symile_clin")]
    return f"{'/'.join(parts[own[-1] + (parts[own[-1]] != 'symile_clin') :]) if own else parts[-1]}:{frame.lineno}"
