"""The default engine: DuckDB in this process, within a memory limit, spilling to disk beyond it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, final

import ibis
import pandas as pd
import pyarrow as pa

from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog

if TYPE_CHECKING:
    import ibis.expr.types as ir

#: Nulls stay nulls: integers and text have missing values of their own.
_PANDAS_TYPES: Final = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype()}


@final
class DuckDbCatalog(Catalog):
    """Tables of the Parquet cache in DuckDB.

    Args:
        memory: the engine's limit, e.g. "2GB"; it spills to a private folder in the cache beyond that.
        threads: of the engine; None takes one per core.
    """

    def __init__(self, cache: ParquetCache, *, memory: str = "2GB", threads: int | None = None) -> None:
        self._cache = cache
        self._opened: dict[str, ir.Table] = {}
        self._spill = tempfile.TemporaryDirectory(prefix="spill-", dir=cache.directory)  # mode 0700
        options: dict[str, Any] = {
            "memory_limit": memory,
            "temp_directory": self._spill.name,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if threads is not None:
            options["threads"] = threads
        self._engine = ibis.duckdb.connect(**options)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.disconnect()
        self._spill.cleanup()

    def table(self, name: str) -> ir.Table:
        """The table's typed Parquet copy, made at the first use."""
        if name not in self._opened:
            self._opened[name] = self._engine.read_parquet(self._cache.parquet(name), table_name=name)
        return self._opened[name]

    def root(self, source: str) -> Path | None:
        """The directory of a source."""
        return self._cache.roots.get(source)

    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """A frame as a table; no copy."""
        return ibis.memtable(pa.Table.from_pandas(frame, preserve_index=False))

    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """A temporary table."""
        return self._engine.create_table(name, expression, temp=True)

    def frame(self, expression: ir.Table) -> pd.DataFrame:
        """The answer, by way of Arrow."""
        table: pa.Table = expression.to_pyarrow()
        frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get)
        return frame
