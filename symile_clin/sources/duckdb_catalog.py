"""The default engine: DuckDB in this process, within a memory limit, spilling to disk beyond it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import duckdb
import ibis
import pyarrow as pa

from symile_clin import disk
from symile_clin.errors import ConfigError, DiskError
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.frames import to_frame
from symile_clin.sources.memory import memory_bytes
from symile_clin.sources.spill import spill_folder

#: DuckDB takes nine tenths of what is free when it starts for the most that it may spill.
_SPILL_LIMIT = re.compile(r"offload.*?\([^/()]*/([\d.]+ \w+) used\)", re.DOTALL)

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd


@final
class DuckDbCatalog(Catalog):
    """Tables of the Parquet cache in DuckDB.

    Args:
        memory: the engine's limit, e.g. "2GB"; beyond that it spills to a private folder in the cache, encrypted.
        threads: of the engine; None takes one per core.
    """

    def __init__(self, cache: ParquetCache, *, memory: str = "2GB", threads: int | None = None) -> None:
        self._cache = cache
        self._opened: dict[str, ir.Table] = {}
        self._memory = memory
        directory = cache.directory.resolve()
        self._closing = ExitStack()
        options: dict[str, Any] = {
            "memory_limit": f"{memory_bytes(memory)}B",
            "temp_directory": str(self._closing.enter_context(spill_folder(directory))),
            # The key is in memory only, so that what a killed build leaves says nothing to who finds it. DuckDB's own
            # cipher draws keys from a generator that its authors call unsafe; a better one comes only with an extension
            # for networks, and rows in plain text would be worse.
            "temp_file_encryption": True,
            "force_mbedtls_unsafe": "true",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,
        }
        if threads is not None:
            options["threads"] = threads
        self._engine = ibis.duckdb.connect(**options)
        self._closing.callback(self._engine.disconnect)
        # From here on no other place can be read, written or loaded from, whatever an expression says.
        place = str(directory).replace("'", "''")
        for setting in (
            f"allowed_directories = ['{place}']",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._engine.raw_sql(f"SET {setting}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def table(self, name: str) -> ir.Table:
        """The table's typed Parquet copy, made at the first use."""
        if name not in self._opened:
            self._opened[name] = self._engine.read_parquet(self._cache.parquet(name).resolve(), table_name=name)
        return self._opened[name]

    def root(self, source: str) -> Path | None:
        """The directory of a source."""
        return self._cache.roots.get(source)

    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """A frame as a table; no copy."""
        return ibis.memtable(pa.Table.from_pandas(frame, preserve_index=False))

    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """A temporary table."""
        with self._within_memory():
            return self._engine.create_table(name, expression, temp=True)

    def frame(self, expression: ir.Table) -> pd.DataFrame:
        """The answer, by way of Arrow."""
        with self._within_memory():
            answer: pa.Table = self._engine.to_pyarrow(expression)  # its own method might ask another engine
        return to_frame(answer)

    @contextmanager
    def _within_memory(self) -> Iterator[None]:
        folder = self._cache.directory
        try:
            with disk.writing(folder):
                yield
        except duckdb.OutOfMemoryException as error:
            spilled = _SPILL_LIMIT.search(str(error))
            if spilled is None:
                raise ConfigError(
                    f"the tables cannot be joined within {self._memory} of memory",
                    remedy="Give more with --memory, or fewer --threads",
                ) from None
            raise DiskError(
                f"the join does not fit into {self._memory} of memory and what is free on the disk of {folder}",
                expected=f"more than {spilled[1]} of room there for what it spills",
                remedy="Free some, or give more with --memory, or fewer --threads",
            ) from None
