"""Disks that do not take what is to be written: looked at before long work, and said in one line when they refuse."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from symile_clin.errors import DiskError, Refused, SymileClinError

#: No room, no more of this user's share, a file that may not grow any further.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: The same from libraries that pass on no number: safetensors and Spark have the system's words, NumPy counts what went
#: out, SQLite and DuckDB have words of their own.
_FULL_WORDS: Final = re.compile(
    "|".join([*map(os.strerror, sorted(FULL)), r"\d+ requested and \d+ written", "database or disk is full"])
)
#: What NumPy does not say why.
PARTLY: Final = "it was taken only in part"
#: How Rust's libraries pass it on.
_NUMBER: Final = re.compile(r"\(os error (\d+)\)")
#: Without a file's name these are a disk's still; others may be a socket's, a pipe's or a process's.
_OF_A_DISK: Final = frozenset({errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE})
#: Somebody is asking for these.
_OF_A_NAME: Final = frozenset({errno.EEXIST, errno.ENOENT})
FREE_SOME: Final = "Free some and run it again"


def require_space(folder: Path, needed: int, *, what: str = "what is to be written") -> None:
    """Look before writing whether a disk has room.

    Args:
        folder: where it is to be; it need not be there yet.
        needed: bytes.

    Raises:
        DiskError: it has not.
    """
    free = shutil.disk_usage(_existing(folder)).free
    if needed > free:
        raise DiskError(
            f"the disk of {folder} has {amount(free)} free", expected=f"{amount(needed)} for {what}", remedy=FREE_SOME
        )


@contextmanager
def writing(path: Path, *, temporary: Path | None = None, needed: int | None = None) -> Iterator[None]:
    """Let what a disk refuses while `path` is written become one line: what was not written, why, the room it takes.

    Whatever library wrote, a full disk is recognised. Of other refusals (no permission, a broken disk) those are taken
    for this write's that name no other file. A write inside this one names the file, this one the room of the whole.

    Args:
        temporary: where it is written before it gets its name; all in it belongs to `path`.
        needed: bytes that `path` takes, where that is known.

    Raises:
        DiskError: instead of what the writer raised.
    """
    try:
        yield
    except Exception as error:
        refused = _refusal(error, path, temporary)
        if refused is None:
            raise
        place = _renamed(refused.place, path, temporary)
        expected = remedy = None
        if refused.is_full:
            written = size(temporary) if temporary is not None else 0
            least = f"more than {amount(written)} of " if written else ""
            room = f"{amount(needed)} of " if needed is not None and needed > written else least
            expected, remedy = f"{room}room for {path}", FREE_SOME
        raise DiskError(
            f"{place} could not be written: {refused.reason}",
            expected=expected,
            remedy=remedy,
            refused=Refused(place, refused.reason, refused.is_full),
        ) from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Let what a disk refuses while `path` is read name that file; without one it would be taken for a write's."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def size(path: Path, *, on_disk: bool = False) -> int:
    """Bytes of a file, or of all files in a folder, one with several names once; what vanishes meanwhile is left out.

    Args:
        on_disk: count the blocks that they take: small files take more than they hold.
    """
    found: dict[tuple[int, int], int] = {}
    for one in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            status = one.stat()
            if stat.S_ISREG(status.st_mode):
                found[status.st_dev, status.st_ino] = status.st_blocks * 512 if on_disk else status.st_size
    return sum(found.values())


def amount(count: float) -> str:
    """Bytes in the unit a person would use."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{math.ceil(count / 1e3)} kB"


def _refusal(error: Exception, path: Path, temporary: Path | None) -> Refused | None:
    """What an error says that a disk refused, if it says so."""
    if isinstance(error, SymileClinError):
        return error.refused if isinstance(error, DiskError) else None
    for one in _chain(error):
        name = one.filename if isinstance(one, OSError) and isinstance(one.filename, str | bytes | Path) else None
        place = str(path) if name is None else os.fsdecode(name)
        number = one.errno if isinstance(one, OSError) else None
        if number is None and (found := _NUMBER.search(str(one))):
            number = int(found[1])
        if number is None and (found := _FULL_WORDS.search(str(one))):
            return Refused(place, PARTLY if found.group()[0].isdigit() else found.group(), is_full=True)
        if number in FULL:
            return Refused(place, os.strerror(number), is_full=True)
        if number is None or number in _OF_A_NAME:
            continue
        if number in _OF_A_DISK if name is None else _is_own(Path(place), path, temporary):
            return Refused(place, os.strerror(number), is_full=False)
    return None


def _is_own(place: Path, path: Path, temporary: Path | None) -> bool:
    """Whether a file is one that had to be made or opened to write `path`."""
    own = (path, *path.parents, path.with_name(f".{path.name}.lock"))
    return place in own or (temporary is not None and place.is_relative_to(temporary))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of."""
    seen = set[int]()
    before: BaseException | None = error
    while before is not None and id(before) not in seen:
        seen.add(id(before))
        yield before
        before = before.__cause__ or (None if before.__suppress_context__ else before.__context__)


def _renamed(place: str, path: Path, temporary: Path | None) -> str:
    """A file's name as it would have been."""
    if Path(place).name == f".{path.name}.lock":
        return str(path)
    if temporary is not None and Path(place).is_relative_to(temporary):
        return str(path / Path(place).relative_to(temporary))
    return place


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())
