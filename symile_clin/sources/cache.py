"""Typed Parquet copies of the sources' tables, made once and kept between builds."""

from __future__ import annotations

import fcntl
import json
import os
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from symile_clin import disk, files
from symile_clin.errors import SourceError
from symile_clin.progress import Progress
from symile_clin.sources.convert import CONVERTER_VERSION, convert, find_table
from symile_clin.sources.glance import copy_bytes
from symile_clin.sources.inputs import CONTENTS, identity
from symile_clin.sources.tables import TableSpec


class ParquetCache:
    """Where the typed copies are.

    A copy is whole once its sidecar is beside it: a small JSON file with what the copy was made from. A table has one
    copy of each source directory; the one of a file that has changed since is removed when the new one is whole.

    Args:
        specs: every table that may be asked for.
        roots: directory of each source that was given, by source name.
        directory: where the copies are kept; made at the first use.
    """

    def __init__(
        self, specs: Iterable[TableSpec], *, roots: Mapping[str, Path], directory: Path, progress: Progress
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self.roots = roots
        self._directory = directory
        self._progress = progress
        self._has_looked = False

    @property
    def directory(self) -> Path:
        """Where the copies are kept."""
        with disk.writing(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    def parquet(self, name: str) -> Path:
        """The table's typed copy, made now if it is not there; it stays while this cache is in use.

        Raises:
            SourceError: the table is not there or is not what its format says.
        """
        spec = self._specs[name]
        root = self.roots[spec.source]
        path = find_table(spec, root)
        target = self._target(spec, path)
        stem = target.name.rpartition("-")[0]
        with files.lock(self.directory / f".{stem}.lock", wait=True):
            for cut_short in self._directory.glob(f".{stem}-*.tmp"):
                cut_short.unlink()  # whoever wrote it is dead: the lock is ours
            if _sidecar(target) is None:
                self._look_for_room()
                described = identity(spec, root, path)
                contents = convert(spec, path, target, sums=root)
                copy = {"converter": CONVERTER_VERSION, "copy_bytes": target.stat().st_size}
                files.write_json(
                    _beside(target), {**described, "rows": contents.rows, "sha256": contents.sha256, **copy}
                )
                self._progress.say(f"  {spec.name}: {contents.rows:,} rows of {path.name}, kept as Parquet.")
            self._hold(target)
            for old in self._directory.glob(f"{stem}-*.parquet"):
                if old != target and not _is_held(old):
                    old.unlink()
                    _beside(old).unlink(missing_ok=True)
        return target

    def known(self, name: str) -> dict[str, Any] | None:
        """What is known of a table's file from its conversion; None if it has not been converted as it is now.

        Returns:
            table, file, bytes, changed_ns, rows, sha256 (of the source file), converter, copy_bytes.
        """
        spec = self._specs[name]
        if spec.source not in self.roots:
            return None
        try:
            return _sidecar(self._target(spec, find_table(spec, self.roots[spec.source])))
        except SourceError:
            return None

    def with_contents(self, tables: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Tables of `source_files` with the rows and the SHA-256 of those that have been converted as they are now."""
        described: list[dict[str, Any]] = []
        for table in tables:
            known = self.known(table["table"]) if "file" in table else None
            if known is None or known["changed_ns"] != table["changed_ns"]:
                known = dict[str, Any]()
            described.append({**table, **{key: known[key] for key in CONTENTS if key in known}})
        return described

    def _look_for_room(self) -> None:
        """Before the first table is converted: whether the disk has room for the copies of all that are large.

        Raises:
            DiskError: it has not.
        """
        if self._has_looked:
            return
        self._has_looked = True
        needed = sum(copy_bytes(spec, self.roots[spec.source]) for spec in self._specs.values() if self._is_due(spec))
        disk.require_space(self._directory, needed, what="the Parquet copies of the tables")

    def _is_due(self, spec: TableSpec) -> bool:
        return spec.source in self.roots and self.known(spec.name) is None

    def _target(self, spec: TableSpec, path: Path) -> Path:
        """Named after the table, the source's place, and what the copy depends on."""
        root = self.roots[spec.source]
        place = files.digest(str((root / spec.path).absolute().parent.resolve() / Path(spec.path).name))[:8]
        columns = {name: kind for name, kind in spec.columns.items() if name not in spec.unused}
        key = files.digest([CONVERTER_VERSION, identity(spec, root, path), columns, list(spec.key)])
        return self._directory / f"{spec.name}-{place}-{key[:16]}.parquet"

    def _hold(self, target: Path) -> None:
        """Keep others from removing a copy; ends with this cache, or with the process however it ends."""
        handle = os.open(target, os.O_RDONLY)
        weakref.finalize(self, os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_SH)


def _is_held(path: Path) -> bool:
    with path.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _beside(target: Path) -> Path:
    return target.with_suffix(".json")


def _sidecar(target: Path) -> dict[str, Any] | None:
    """A copy's sidecar, if both are whole."""
    try:
        sidecar: dict[str, Any] = json.loads(_beside(target).read_bytes())
        return sidecar if target.stat().st_size == sidecar["copy_bytes"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
