"""Typed Parquet copies of the sources' tables, made once and kept between builds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from symile_clin import files
from symile_clin.errors import ConfigError
from symile_clin.progress import Progress
from symile_clin.sources.convert import CONVERTER_VERSION, convert, find_table
from symile_clin.sources.tables import TableSpec


class ParquetCache:
    """Where the typed copies are.

    Args:
        specs: every table that may be asked for.
        roots: directory of each source that was given, by source name.
        directory: where the copies are kept.
    """

    def __init__(
        self, specs: Iterable[TableSpec], *, roots: Mapping[str, Path], directory: Path, progress: Progress
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self.roots = roots
        self.directory = directory
        self._progress = progress
        directory.mkdir(parents=True, exist_ok=True)

    def parquet(self, name: str) -> Path:
        """The table's typed copy, made now if it is not there.

        Raises:
            SourceError: the table is not there or is not what its format says.
        """
        spec = self._specs[name]
        path = find_table(spec, self.roots[spec.source])
        columns = {name: kind for name, kind in spec.columns.items() if name not in spec.unused}
        key = files.digest([CONVERTER_VERSION, str(path.resolve()), _identity(spec, path), columns])
        target = self.directory / f"{spec.name}-{key[:16]}.parquet"
        with files.lock(target.with_suffix(".lock"), wait=True):
            if not target.is_file():
                rows = convert(spec, path, target)
                self._progress.say(f"  {spec.name}: {rows:,} rows of {path.name}, kept as Parquet.")
        return target


def source_files(specs: Iterable[TableSpec], roots: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Which files stand behind the tables: table, file, bytes and time of change, in order of table name.

    Raises:
        ConfigError: the directory of a source was not given.
        SourceError: a table is not in its directory.
    """
    by_name = sorted(specs, key=lambda spec: spec.name)
    require_roots({spec.source for spec in by_name}, roots)
    return [_identity(spec, find_table(spec, roots[spec.source])) for spec in by_name]


def require_roots(sources: Collection[str], roots: Mapping[str, Path]) -> None:
    """Every source that is needed has a directory.

    Raises:
        ConfigError: the directory of a source was not given.
    """
    missing = sorted(set(sources) - set(roots))
    if missing:
        options = " ".join(f"--{source.replace('_', '-')} DIR" for source in missing)
        raise ConfigError(f"no directory was given for {', '.join(missing)}", remedy=f"Add {options}")


def _identity(spec: TableSpec, path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"table": spec.name, "file": path.name, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
