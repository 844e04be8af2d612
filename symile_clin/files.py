"""Atomic IO: a file or stage directory is either whole under its final name or not there."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from symile_clin import __version__
from symile_clin.errors import BusyError, MismatchError
from symile_clin.schema import MANIFEST


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary sibling to write to; fsynced and renamed to `path` when the block ends well, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MismatchError(f"{path} is not valid JSON: {error}", remedy="Rebuild the directory it is in") from None


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A private sibling directory to fill; renamed to `path` (replacing an old one) when the block ends well.

    Raises:
        BusyError: another process is filling the same directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.building")
    with lock(path.with_name(f".{path.name}.lock")):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            # A disk takes many flushes at once far better than thousands one by one.
            with ThreadPoolExecutor(16) as threads:
                list(threads.map(_sync, [file for file in temporary.rglob("*") if file.is_file()]))
            if path.exists():
                old = path.with_name(f".{path.name}.old")
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
                temporary.rename(path)
                shutil.rmtree(old)
            else:
                temporary.rename(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock file; it is released even when the process dies.

    Raises:
        BusyError: someone else holds it and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            name = path.name.removeprefix(".").removesuffix(".lock")
            raise BusyError(
                f"another process is writing {path.parent / name}", remedy="Wait for it or choose another place"
            ) from None
        yield


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: object) -> str:
    """Hex digest of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False, default=str).encode()).hexdigest()


def write_manifest(directory: Path, *, stage: str, content: Mapping[str, Any]) -> None:
    """Write a stage's manifest.json, the last file of the stage."""
    write_json(directory / MANIFEST, {"stage": stage, "version": __version__, **content})


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """A stage's manifest, or None where no complete stage is."""
    path = directory / MANIFEST
    if not path.is_file():
        return None
    manifest: dict[str, Any] = read_json(path)
    return manifest


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
