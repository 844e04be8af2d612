"""PySpark: the same Parquet copies, on this machine or a cluster."""

from __future__ import annotations

import itertools
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.frames import to_frame
from symile_clin.sources.spill import spill_folder

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd


@final
class SparkCatalog(Catalog):
    """Tables of the Parquet cache in Spark.

    The driver converts the tables, once; the cache's directory must lie where every executor sees it under one path.
    Frames travel as Parquet and Arrow, never through pyspark's pandas conversions, which change types.

    Args:
        session: of Spark, in UTC; left open.
    """

    def __init__(self, cache: ParquetCache, session: Any) -> None:
        self._cache = cache
        self._session = session.newSession()  # its temporary views are this catalog's own
        self._opened: dict[str, ir.Table] = {}
        self._closing = ExitStack()
        # Java has a working directory of its own
        self._kept = self._closing.enter_context(spill_folder(cache.directory.resolve()))
        self._numbers = itertools.count()
        with warnings.catch_warnings():
            # said of pandas conversions, when ibis defines functions that we do not use
            warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
            self._engine = ibis.pyspark.connect(self._session)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def table(self, name: str) -> ir.Table:
        """The table's typed Parquet copy, made at the first use."""
        if name not in self._opened:
            self._opened[name] = self._view(name, self._cache.parquet(name).resolve())
        return self._opened[name]

    def root(self, source: str) -> Path | None:
        """The directory of a source."""
        root = self._cache.roots.get(source)
        return None if root is None else root.absolute()  # executors have working directories of their own

    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """A frame as a table, by way of a private Parquet file."""
        name = f"rows_{next(self._numbers)}"
        path = self._kept / f"{name}.parquet"
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        return self._view(name, path)

    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """Private Parquet files, written by the executors."""
        path = self._kept / f"{name}_{next(self._numbers)}"
        self._session.sql(self._engine.compile(expression)).write.parquet(str(path))
        kept = self._view(name, path)
        wanted = expression.schema()
        wider = {column: wanted[column] for column, kind in kept.schema().items() if kind != wanted[column]}
        return kept.cast(wider) if wider else kept  # Spark's smallest integer literal has 32 bits, its times a zone

    def frame(self, expression: ir.Table) -> pd.DataFrame:
        """The answer, by way of Arrow."""
        answer: pa.Table = self._session.sql(self._engine.compile(expression)).toArrow()
        return to_frame(answer.cast(expression.schema().to_pyarrow()))

    def _view(self, name: str, path: Path) -> ir.Table:
        self._session.read.parquet(str(path)).createOrReplaceTempView(name)
        return self._engine.table(name)
