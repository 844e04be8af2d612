"""New directories under names that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from symile_clin import files
from symile_clin.errors import BusyError, ConfigError
from symile_clin.sources import paths

#: What a spreadsheet takes for the start of a formula, and a command line for that of an option.
FORMULA: Final = "=+-@"


@contextmanager
def new_directory(
    root: Path, name: str | None, *, defaults: Iterator[str], kind: str, taken: str
) -> Iterator[tuple[Path, Path]]:
    """What will be `root/name`, or without a name the first of `root/<defaults>` that is free, and where to fill it.

    Nothing has that name before the block ends well: a process that is killed leaves no name without content.

    Args:
        defaults: names without end.
        kind: of what the directory will hold, for the error.
        taken: what to do where the name is.

    Raises:
        ConfigError: the name is taken, or is not a plain name.
        DiskError: the disk does not take it.
    """
    if name is not None and (not paths.is_plain_name(name) or name[0] in FORMULA):
        remedy = "Give one without slashes and control characters that begins with a letter or number"
        raise ConfigError(f"--name {name!r} is not a plain name", remedy=remedy)
    for one in defaults if name is None else [name]:
        path, is_ours = root / one, False
        if _is_free(path):
            try:
                with files.atomic_directory(path) as folder:
                    if not _is_free(path):
                        raise BusyError(f"{path} was made meanwhile")
                    is_ours = True
                    yield path, folder
                    return
            except BusyError:  # another process fills it
                if is_ours:
                    raise
    raise ConfigError(f"there is a {kind} called '{name}' already", remedy=taken)


def _is_free(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
