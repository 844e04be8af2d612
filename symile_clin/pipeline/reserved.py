"""New directories under names that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from symile_clin import disk
from symile_clin.errors import ConfigError


def reserve(root: Path, name: str | None, *, defaults: Iterator[str], kind: str, taken: str) -> Path:
    """Make `root/name`, or without a name the first of `root/<defaults>` that is free.

    Args:
        defaults: names without end.
        kind: of what the directory will hold, for the error.
        taken: what to do where the name is.

    Raises:
        ConfigError: the name is taken, or is not a plain name.
    """
    with disk.writing(root):
        root.mkdir(parents=True, exist_ok=True)
    if name is not None:
        if not name or Path(name).name != name or name.startswith("."):
            raise ConfigError(
                f"--name {name!r} is not a plain name", remedy="Give one without slashes and leading dots"
            )
        try:
            with disk.writing(root / name):
                (root / name).mkdir()
        except FileExistsError:
            raise ConfigError(f"there is a {kind} called '{name}' already", remedy=taken) from None
        return root / name
    while True:
        path = root / next(defaults)
        try:
            with disk.writing(path):
                path.mkdir()
        except FileExistsError:
            continue
        return path
