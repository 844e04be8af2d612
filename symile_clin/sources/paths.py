"""Paths that a source's tables name, kept inside that source."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

MAX_LENGTH: Final = 1024
MAX_PART_BYTES: Final = 255


def inside(root: Path, relative: str) -> Path | None:
    """The file below `root` that `relative` names, whether it is there or not.

    Returns:
        None for a path that is absolute, empty or too long, climbs with `..`, holds a NUL or leaves `root` by a link.
    """
    if not relative or len(relative) > MAX_LENGTH or "\0" in relative:
        return None
    parts = PurePosixPath(relative)
    try:
        if parts.is_absolute() or any(part == ".." or len(part.encode()) > MAX_PART_BYTES for part in parts.parts):
            return None
        resolved = (root / parts).resolve()
        return resolved if resolved.is_relative_to(root.resolve()) else None
    except (OSError, RuntimeError, UnicodeError):  # a loop of links, a name too long or not to be encoded
        return None
