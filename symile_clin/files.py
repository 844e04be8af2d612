"""Atomic IO: a file or stage directory is either whole under its final name or not there."""

from __future__ import annotations

import ctypes
import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from symile_clin import __version__, disk
from symile_clin.errors import BusyError, ConfigError, MismatchError
from symile_clin.schema import MANIFEST


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary sibling to write to; fsynced and renamed to `path` when the block ends well, removed otherwise.

    Raises:
        ConfigError: a device or pipe has its name.
        DiskError: the disk does not take it.
    """
    _refuse_special(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
    try:
        with disk.writing(path, temporary=temporary):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_special(path: Path) -> None:
    """Never put anything in the place of a device or pipe: root could replace /dev/null itself."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ConfigError(f"{path} is a device or pipe", remedy="Choose another name")


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A private folder beside `path`, for what it is made of; removed when the block ends."""
    folder = path.with_name(f".{path.name}.parts.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that were killed left half-written for `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = left.name.removesuffix(".tmp").rpartition(".")[2]
        if number.isdigit() and not _lives(int(number)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with suppress(OSError):  # another user's, in a folder that they share
                    left.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks only
    except (ProcessLookupError, OverflowError):  # no process has so large a number
        return False
    except OSError:  # another user's
        return True
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, keys sorted, so that equal values are equal bytes. NaN is an error."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MismatchError: not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a number of too many digits and bytes that are no text, too
        raise MismatchError(f"{path} is not valid JSON: {error}", remedy="Rebuild the directory it is in") from None


@contextmanager
def atomic_directory(path: Path, *, keep: str | None = None, needed: int | None = None) -> Iterator[Path]:
    """A private sibling directory to fill; renamed to `path` (replacing an old one) when the block ends well.

    Args:
        keep: a folder in it whose content outlives a block that fails or is killed, for the next one to go on with.
            After a block that ends well it is gone.
        needed: bytes that it will hold, where that is known.

    Raises:
        BusyError: another process is filling the same directory.
        ConfigError: a link, file or device has its name.
        DiskError: the disk does not take it.
    """
    _refuse_special(path)
    if path.is_symlink():
        raise ConfigError(f"{path} is a link to {path.resolve()}", remedy="Name the directory itself")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file", expected="a directory")
    temporary = building(path)
    with ExitStack() as held:
        with disk.writing(path, needed=needed):
            held.enter_context(lock(path.with_name(f".{path.name}.lock")))
        recover(path)
        _clear(temporary, keep)
        try:
            with disk.writing(path, temporary=temporary, needed=needed):
                temporary.mkdir(exist_ok=True)
                yield temporary
                if keep is not None and (temporary / keep).exists():
                    # at once: what is left when a removal is cut short would be taken for whole by the next one
                    gone = (temporary / keep).rename(temporary / f".{keep}.gone")
                    shutil.rmtree(gone, ignore_errors=True)
                # A disk takes many flushes at once far better than thousands one by one.
                with ThreadPoolExecutor(16) as threads:
                    within = [entry for entry in temporary.rglob("*") if entry.is_file() or entry.is_dir()]
                    list(threads.map(_sync, [*within, temporary]))
                if path.exists():
                    _replace(path, temporary)
                else:
                    temporary.rename(path)
                _sync(path.parent)
        finally:
            _clear(temporary, keep)


def tidy(path: Path) -> None:
    """Take away what a process left that was killed just after it had replaced `path`; nothing while one is at it."""
    with suppress(BusyError), lock(path.with_name(f".{path.name}.lock")):
        recover(path)
        if (building(path) / MANIFEST).exists():  # whole: what was replaced, for nothing else is finished there
            shutil.rmtree(building(path))


def building(path: Path) -> Path:
    """Where `atomic_directory` fills what will be `path`."""
    return path.with_name(f".{path.name}.building")


def _clear(temporary: Path, keep: str | None) -> None:
    """Remove a half-made directory, all but what is to be kept."""
    if keep is None or not (temporary / keep).is_dir() or not any((temporary / keep).iterdir()):
        shutil.rmtree(temporary, ignore_errors=True)
        return
    for entry in temporary.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            if entry.name != keep:
                shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def _replace(path: Path, new: Path) -> None:
    """Put the directory `new` in the place of `path`, and remove the old one."""
    old = moved_away(path)
    if _exchange(path, new):
        new.rename(old)
    else:
        path.rename(old)  # a process that is killed here leaves `old`: the next one recovers it
        new.rename(path)
    # NFS keeps what somebody still reads; the new one is in its place all the same, and the next one takes `old` away
    shutil.rmtree(old, ignore_errors=True)


def moved_away(path: Path) -> Path:
    """Where an old directory is while a new one takes its place, where the disk cannot exchange them at once."""
    return path.with_name(f".{path.name}.old")


def recover(path: Path) -> None:
    """Undo a replacement that was cut short; for a process that no other one writes `path` beside."""
    old = moved_away(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step; false where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done: int = libc.renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange)
    return done == 0


@contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock file; it is released even when the process dies.

    Raises:
        BusyError: someone else holds it and `wait` is false.
        DiskError: the disk does not take it.
    """
    name = path.name.removeprefix(".").removesuffix(".lock")
    with disk.writing(path.with_name(name)):
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("w")
    with opened as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BusyError(
                f"another process is writing {path.parent / name}", remedy="Wait for it or choose another place"
            ) from None
        yield


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with disk.reading(path), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def listing(directory: Path, *, leave_out: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every file in a directory, by its path in it; links are not followed.

    Args:
        leave_out: names of entries at the top.
    """
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink()]
    names = [path.relative_to(directory) for path in paths]
    found = {name.as_posix(): path for name, path in zip(names, paths, strict=True) if name.parts[0] not in leave_out}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        digests = list(threads.map(sha256, found.values()))
    return {
        name: {"bytes": path.stat().st_size, "sha256": one}
        for (name, path), one in zip(found.items(), digests, strict=True)
    }


def digest(value: object) -> str:
    """Hex digest of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False, default=str).encode()).hexdigest()


def write_manifest(directory: Path, *, stage: str, content: Mapping[str, Any]) -> None:
    """Write a stage's manifest.json, the last file of the stage."""
    write_json(directory / MANIFEST, {"stage": stage, "version": __version__, **content})


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """A stage's manifest, or None where no complete stage is.

    Raises:
        MismatchError: the file is another's, or damaged.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    manifest: Any = read_json(path)
    if not isinstance(manifest, dict):
        raise MismatchError(f"{path} is no manifest", remedy="Rebuild the directory it is in")
    return manifest


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
