"""The engine of a build: where its tables are joined, and who opens its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from symile_clin.cohort.spark_workers import SparkWorkers
from symile_clin.cohort.workers import Workers
from symile_clin.errors import ConfigError
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.duckdb_catalog import DuckDbCatalog
from symile_clin.sources.memory import memory_bytes
from symile_clin.sources.spark_session import spark_session
from symile_clin.sources.tables import TableSpec
from symile_clin.sources.tables_only import TablesOnly

EngineName = Literal["duckdb", "pyspark", "bigquery"]


@dataclass(frozen=True)
class Engine:
    """How a build's tables are joined; no choice here changes the cohort.

    Attributes:
        memory: of DuckDB, or of Spark's driver.
        threads: of DuckDB, or of Spark on this machine; None takes one per core.
        spark_master: of a cluster; None runs Spark on this machine.
        bigquery_project: that is billed.
        bigquery_tables: "project.dataset.table" by a table's name in BigQuery, where it is not the usual one.
        tables_only: look into no file: missing and broken ones are not noticed, and none is read.
    """

    name: EngineName = "duckdb"
    memory: str = "2GB"
    threads: int | None = None
    spark_master: str | None = None
    bigquery_project: str | None = None
    bigquery_tables: Mapping[str, str] = field(default_factory=dict)
    tables_only: bool = False

    @property
    def remote(self) -> bool:
        """Whether the tables are elsewhere, so that no directory is needed for them."""
        return self.name == "bigquery"


#: What a build takes that is not asked for another.
DUCKDB: Final = Engine()


def choose_engine(
    name: EngineName,
    *,
    memory: str,
    threads: int | None,
    spark_master: str | None,
    bigquery_project: str | None,
    bigquery_tables: Sequence[str],
    tables_only: bool,
) -> Engine:
    """An engine from a command's options.

    Args:
        bigquery_tables: as "labevents=project.dataset.table".

    Raises:
        ConfigError: options of another engine, or some that cannot be understood.
    """
    memory_bytes(memory)  # is refused before anything is done
    if spark_master is not None and name != "pyspark":
        raise ConfigError("--spark-master was given", remedy="Add --engine pyspark, or leave it out")
    if (bigquery_project is not None or bigquery_tables) and name != "bigquery":
        raise ConfigError("options of BigQuery were given", remedy="Add --engine bigquery, or leave them out")
    named: dict[str, str] = {}
    for text in bigquery_tables:
        table, found, remote = text.partition("=")
        if not found:
            raise ConfigError(f"'{text}' names no table", expected="NAME=PROJECT.DATASET.TABLE")
        named[table.strip()] = remote.strip()
    return Engine(name, memory, threads, spark_master, bigquery_project, named, tables_only)


@contextmanager
def open_engine(
    engine: Engine,
    *,
    cache: ParquetCache,
    tables: Sequence[TableSpec],
    roots: Mapping[str, Path],
    workers: int | None,
    cautious: bool,
) -> Iterator[tuple[Catalog, Workers | SparkWorkers]]:
    """The tables, and who opens files.

    Args:
        tables: every table that may be asked for.
        workers, cautious: of the processes that open files, but for Spark's.

    Raises:
        ConfigError: the engine is not installed or cannot be reached.
    """
    with ExitStack() as stack:
        pool: Workers | SparkWorkers
        catalog: Catalog
        if engine.name == "pyspark":
            # imported where it is used: only this engine needs pyspark
            session = stack.enter_context(
                spark_session(
                    master=engine.spark_master,
                    memory=engine.memory,
                    threads=engine.threads,
                    directory=cache.directory.resolve(),
                )
            )
            from symile_clin.sources.spark_catalog import SparkCatalog

            catalog, pool = SparkCatalog(cache, session), SparkWorkers(session)
        elif engine.name == "bigquery":
            from symile_clin.sources.bigquery_catalog import BigQueryCatalog, Google

            google = Google(engine.bigquery_project)
            catalog = BigQueryCatalog(tables, google, roots=roots, names=engine.bigquery_tables)
            pool = Workers(workers, cautious=cautious)
        else:
            catalog = DuckDbCatalog(cache, memory=engine.memory, threads=engine.threads)
            pool = Workers(workers, cautious=cautious)
        stack.enter_context(catalog)
        stack.enter_context(pool)
        yield TablesOnly(catalog) if engine.tables_only else catalog, pool
