"""BigQuery: the sources' tables where PhysioNet keeps them. Nothing but answers leaves it.

Expressions are compiled here, without Google's packages, which only running them needs. This has been checked as
compiled SQL, translated and run on another engine; it has never been run on BigQuery itself.
"""

from __future__ import annotations

import io
import itertools
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import reduce
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, final

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.sql.compilers.bigquery import BigQueryCompiler
from sqlglot import exp

from symile_clin.errors import ConfigError, SourceError
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.frames import to_frame
from symile_clin.sources.tables import RemoteTable, TableSpec, with_names

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

_TYPES: Final[Mapping[str, str]] = {
    "int": "int64", "float": "float64", "text": "string", "time": "timestamp", "date": "date",
}  # fmt: skip
#: How BigQuery names the types of frames that are sent there.
_FIELDS: Final[Mapping[pa.DataType, str]] = {
    pa.int64(): "INT64", pa.string(): "STRING", pa.large_string(): "STRING", pa.float64(): "FLOAT64",
    pa.bool_(): "BOOL", pa.timestamp("us"): "DATETIME",
}  # fmt: skip


class Connection(AbstractContextManager["Connection"]):
    """What runs SQL in BigQuery's dialect."""

    #: "project.dataset" of tables that last as long as the connection.
    scratch: str

    @abstractmethod
    def query(self, sql: str, schema: pa.Schema) -> pa.Table:
        """Rows of a query, with the names and types of `schema`."""

    @abstractmethod
    def keep(self, name: str, sql: str) -> None:
        """Make a table of a query in `scratch`."""

    @abstractmethod
    def load(self, name: str, rows: pa.Table) -> None:
        """Make a table of rows in `scratch`."""


@final
class BigQueryCatalog(Catalog):
    """The sources' tables in BigQuery.

    Every column is cast to its TableSpec's type, whatever it is there: ids are numbers in some releases, text in
    others.

    Args:
        specs: every table that may be asked for.
        connection: closed with the catalog.
        roots: directories of sources whose files are here.
        names: "project.dataset.table" by BigQuery's name of a table ("labevents"), where it is not the usual one.
    """

    def __init__(
        self,
        specs: Iterable[TableSpec],
        connection: Connection,
        *,
        roots: Mapping[str, Path],
        names: Mapping[str, str] | None = None,
    ) -> None:
        renamed = with_names(specs, names or {})
        self._specs = {spec.name: spec for spec in renamed}
        self._connection, self._roots = connection, roots
        self._numbers = itertools.count()
        self._compiler = BigQueryCompiler()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)

    def table(self, name: str) -> ir.Table:
        """The table's used columns, cast to their types."""
        spec = self._specs[name]
        if not spec.remote:
            raise SourceError(f"the table '{name}' is not known in BigQuery", remedy="Use another engine for this spec")
        used = {column: _TYPES[kind] for column, kind in spec.columns.items() if column not in spec.unused}
        first, *further = spec.remote
        elsewhere = {column for remote in further for column in remote.columns} - set(spec.key)
        parts = [_part(first, {column: kind for column, kind in used.items() if column not in elsewhere})]
        parts += [_part(remote, {column: used[column] for column in remote.columns}) for remote in further]
        joined = reduce(lambda left, right: left.left_join(right, list(spec.key)), parts)
        return joined.select(*used)

    def root(self, source: str) -> Path | None:
        """The directory of a source whose files are here."""
        return self._roots.get(source)

    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """A frame, sent to BigQuery."""
        rows = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
        name = f"rows_{next(self._numbers)}"
        self._connection.load(name, rows)
        return self._scratch(name, ibis.Schema.from_pyarrow(rows.schema))

    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """A table of BigQuery."""
        name = f"{name}_{next(self._numbers)}"
        self._connection.keep(name, self._compile(expression))
        return self._scratch(name, expression.schema())

    def frame(self, expression: ir.Table) -> pd.DataFrame:
        """The answer, by way of Arrow."""
        answer = self._connection.query(self._compile(expression), expression.schema().to_pyarrow())
        return to_frame(answer)

    def _compile(self, expression: ir.Table) -> str:
        statement = self._compiler.to_sqlglot(expression).transform(_without_zone)
        sql: str = statement.sql(self._compiler.dialect, pretty=True)
        return sql

    def _scratch(self, name: str, schema: ibis.Schema) -> ir.Table:
        project, _, dataset = self._connection.scratch.partition(".")
        # the least integer has 64 bits there
        wide = {column: "int64" if kind.is_integer() else kind for column, kind in schema.items()}
        return ibis.table(wide, name=name, catalog=project, database=dataset)


def _part(remote: RemoteTable, types: Mapping[str, str]) -> ir.Table:
    """Columns of one remote table under our names and types.

    They are declared text, which nothing is compared with, so that each is cast by name.
    """
    project, dataset, name = remote.name.split(".")
    there = {column: remote.columns.get(column, column) for column in types}
    table = ibis.table(dict.fromkeys(there.values(), "string"), name=name, catalog=project, database=dataset)
    columns = {}
    for column, kind in types.items():
        value = table[there[column]]
        columns[column] = value if kind == "string" else value.try_cast(kind) if remote.loose else value.cast(kind)
    return table.select(**columns)


def _without_zone(node: exp.Expression) -> exp.Expression:
    """MIMIC's times have no zone: they are DATETIME, which ibis would shift by a function of TIMESTAMP."""
    if not isinstance(node, exp.Anonymous) or node.name != "TIMESTAMP_ADD":
        return node
    time, interval = node.expressions
    count = exp.Interval(this=exp.Literal.number(interval.this.name), unit=interval.args["unit"])
    return exp.Anonymous(this="DATETIME_ADD", expressions=[time, count])


@final
class Google(Connection):
    """BigQuery, by Google's client and the user's own credentials.

    Tables of `scratch` are in the hidden dataset that BigQuery keeps answers in, and end within a day.

    Args:
        project: that is billed.

    Raises:
        ConfigError: no project, no package or no credentials.
    """

    def __init__(self, project: str | None) -> None:
        if project is None:
            raise ConfigError("the engine bigquery bills a project", remedy="Name yours with --bigquery-project")
        try:
            from google.auth.exceptions import GoogleAuthError
            from google.cloud import bigquery  # type: ignore[import-untyped,unused-ignore]  # where it is installed at all
        except ImportError:
            raise ConfigError(
                "the engine bigquery is not installed", remedy="Install it with `pip install 'symile-clin[bigquery]'`"
            ) from None
        self._bigquery: Any = bigquery
        try:
            self._client: Any = bigquery.Client(project=project)
            first = self._client.query("SELECT 1", job_config=bigquery.QueryJobConfig(use_query_cache=False))
            first.result()
        except GoogleAuthError as error:
            raise ConfigError(
                f"Google refuses: {error}", remedy="Log in with `gcloud auth application-default login`"
            ) from None
        self.scratch = f"{first.destination.project}.{first.destination.dataset_id}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def query(self, sql: str, schema: pa.Schema) -> pa.Table:
        """Run it and wait."""
        return self._client.query(sql).result().to_arrow().cast(schema)

    def keep(self, name: str, sql: str) -> None:
        """With the table as the query's destination."""
        config = self._bigquery.QueryJobConfig(destination=f"{self.scratch}.{name}")
        self._client.query(sql, job_config=config).result()

    def load(self, name: str, rows: pa.Table) -> None:
        """As Parquet."""
        fields = [self._bigquery.SchemaField(field.name, _FIELDS[field.type]) for field in rows.schema]
        config = self._bigquery.LoadJobConfig(source_format="PARQUET", schema=fields)
        buffer = io.BytesIO()
        pq.write_table(rows, buffer)
        buffer.seek(0)
        self._client.load_table_from_file(buffer, f"{self.scratch}.{name}", job_config=config).result()


@final
class Transcript(Connection):
    """Writes the SQL down, runs nothing, and answers each question with one blank row.

    Attributes:
        steps: what each would do, and its SQL.
    """

    scratch = "your-project._scratch"

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def query(self, sql: str, schema: pa.Schema) -> pa.Table:
        """One row: zeros, empty text, no times."""
        self.steps.append(("ask", sql))
        return pa.table([_blank(field) for field in schema], schema=schema)

    def keep(self, name: str, sql: str) -> None:
        """Nothing."""
        self.steps.append((f"keep as {self.scratch}.{name}", sql))

    def load(self, name: str, rows: pa.Table) -> None:
        """Nothing."""
        self.steps.append((f"send {', '.join(rows.column_names)} as {self.scratch}.{name}", ""))


def _blank(field: pa.Field) -> pa.Array:
    kind = field.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return pa.array([0], pa.int64()).cast(kind)
    return pa.array([""], kind) if pa.types.is_string(kind) else pa.nulls(1, kind)
