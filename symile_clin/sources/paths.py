"""What others wrote is kept inside its own folder: paths that a source's tables name, and files of a directory.

docs/cohort_spec.md says whose paths are followed, and whose are not.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

from symile_clin.errors import MismatchError

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


def refuse_link(directory: Path, name: str) -> None:
    """Refuse a file of a directory of ours that may have come from elsewhere if it is a link out of it.

    A link to the directory itself is the user's own, and fine.

    Raises:
        MismatchError: it is one.
    """
    entry = directory / name
    if entry.is_symlink() and inside(directory.resolve(), name) is None:
        raise MismatchError(
            f"{entry} is a link that leads out of {directory}",
            expected="a directory that holds what it is made of",
            remedy="Put the file itself there; to keep it on another disk, move the directory and link to that",
        )


def refuse_links(directory: Path) -> None:
    """`refuse_link` for everything in a directory."""
    for entry in sorted(directory.rglob("*")):
        refuse_link(directory, entry.relative_to(directory).as_posix())


def is_plain_name(name: object) -> bool:
    """Whether a file or folder may be called so: one part, not hidden, all of it to be seen."""
    return (
        isinstance(name, str)
        and name == PurePosixPath(name).name
        and name.isprintable()
        and not name.startswith(".")
        and 0 < len(name.encode(errors="replace")) <= MAX_PART_BYTES
    )
