"""The source directories as checked, typed tables behind one engine (DuckDB, through Ibis)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import ibis
import pandas as pd
import pyarrow as pa

from symile_clin import files
from symile_clin.errors import ConfigError
from symile_clin.progress import Progress
from symile_clin.sources.convert import CONVERTER_VERSION, convert, find_table
from symile_clin.sources.tables import TableSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir


#: Nulls stay nulls: integers and text have missing values of their own.
_PANDAS_TYPES: Final = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype()}


class Catalog(AbstractContextManager["Catalog"]):
    """Hands out the tables of the sources; a context manager that closes the engine and removes what it spilled.

    Args:
        specs: every table that may be asked for.
        roots: directory of each source that was given, by source name.
        cache: where the typed copies are kept between builds.
        memory: the engine's limit, e.g. "2GB"; it spills to a private folder in `cache` beyond that.
        threads: of the engine.
    """

    def __init__(
        self,
        specs: Iterable[TableSpec],
        *,
        roots: Mapping[str, Path],
        cache: Path,
        progress: Progress,
        memory: str = "2GB",
        threads: int | None = None,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._roots = roots
        self._cache = cache
        self._progress = progress
        self._opened: dict[str, ir.Table] = {}
        cache.mkdir(parents=True, exist_ok=True)
        self._spill = tempfile.TemporaryDirectory(prefix="spill-", dir=cache)  # mode 0700
        options: dict[str, Any] = {
            "memory_limit": memory,
            "temp_directory": self._spill.name,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if threads is not None:
            options["threads"] = threads
        self.engine = ibis.duckdb.connect(**options)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.disconnect()
        self._spill.cleanup()

    def table(self, name: str) -> ir.Table:
        """The table's used columns, typed; absent optional ones are null.

        Raises:
            SourceError: the table is not there or is not what its format says.
        """
        if name not in self._opened:
            self._opened[name] = self.engine.read_parquet(self._columnar(self._specs[name]), table_name=name)
        return self._opened[name]

    def root(self, source: str) -> Path:
        """The directory of a source."""
        return self._roots[source]

    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """Run an expression once and keep its rows in the engine under `name`, until the catalog is closed."""
        return self.engine.create_table(name, expression, temp=True)

    def frame(self, expression: ir.Table) -> pd.DataFrame:
        """Run an expression; integers with nulls stay integers, times have microseconds."""
        table: pa.Table = expression.to_pyarrow()
        frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get)
        return frame

    def _columnar(self, spec: TableSpec) -> Path:
        path = find_table(spec, self._roots[spec.source])
        columns = {name: kind for name, kind in spec.columns.items() if name not in spec.unused}
        key = files.digest([CONVERTER_VERSION, str(path.resolve()), _identity(spec, path), columns])
        target = self._cache / f"{spec.name}-{key[:16]}.parquet"
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
    missing = sorted({spec.source for spec in by_name} - set(roots))
    if missing:
        options = " ".join(f"--{source.replace('_', '-')} DIR" for source in missing)
        raise ConfigError(f"no directory was given for {', '.join(missing)}", remedy=f"Add {options}")
    return [_identity(spec, find_table(spec, roots[spec.source])) for spec in by_name]


def _identity(spec: TableSpec, path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"table": spec.name, "file": path.name, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
