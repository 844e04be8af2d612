"""A look at a source's table that reads a few megabytes of it: its columns, about how many rows, what converting costs.

A file of a few megabytes is read whole, and its rows are counted. Of a larger one only a part is: the head of an
archive, which cannot be entered elsewhere, and blocks from all over a plain file. Rows are then estimated from the
part's bytes per row. Damage behind that part is left for the conversion to find, which reads every byte.
"""

from __future__ import annotations

import csv
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from symile_clin.errors import SourceError
from symile_clin.sources.part import Part, read_part
from symile_clin.sources.tables import ColumnType, TableSpec

#: Rows of a Parquet file that are looked at.
PARQUET_ROWS: Final = 200_000
#: A smaller file is converted in a second or two, whatever room it takes.
LARGE_BYTES: Final = 16 << 20
COPY_SECONDS: Final = 5.0
#: A copy's rows may repeat less than those of the part that was looked at.
COPY_MARGIN: Final = 1.25
Form = Literal["csv.gz", "csv", "parquet"]
_ARROW: Final[dict[ColumnType, pa.DataType]] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
    "date": pa.date32(),
}
_DOWNLOAD_AGAIN: Final = "Check the file against the release's SHA256SUMS.txt and download it again"


@dataclass(frozen=True)
class Glance:
    """What a look at a table found.

    Attributes:
        rows: of the table; estimated unless `exact`.
        missing, repeated, unknown: columns that its format has and it lacks, that it has twice, that its format lacks.
        convert_seconds: that a typed copy would take on one core, from the part's own rate; 0 for Parquet.
        copy_bytes: size of that copy, from the part's own; 0 for Parquet.
        sample: the part's used columns, typed; empty if `fault` is set or columns are wrong.
        fault: why the part cannot be read as the table's format says; no value of it is quoted.
    """

    path: Path
    form: Form
    bytes: int
    rows: int
    exact: bool
    missing: tuple[str, ...]
    repeated: tuple[str, ...]
    unknown: tuple[str, ...]
    convert_seconds: float
    copy_bytes: int
    sample: pa.Table
    fault: str = ""


def glance(spec: TableSpec, path: Path, *, seconds: float) -> Glance:
    """Look at a table's file.

    Args:
        seconds: after which no more is read.

    Raises:
        SourceError: the file is empty, damaged in the part that was read, or no table at all.
        OSError: it cannot be opened or read.
    """
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty", remedy=_DOWNLOAD_AGAIN)
    if path.suffix == ".parquet":
        return _glance_parquet(spec, path)
    started = time.monotonic()
    part = read_part(path, seconds=seconds)
    header = _header(part, path)
    missing, repeated, unknown = _compare(spec, header)
    sample, fault, copy = _schema(spec).empty_table(), "", 0
    if not missing and not repeated:
        try:
            sample = _parse(spec, part, header)
            copy = _parquet_bytes(sample)
        except pa.ArrowException as error:
            fault = _without_values(str(error), header)
    return Glance(
        path=path,
        form="csv.gz" if path.suffix == ".gz" else "csv",
        bytes=path.stat().st_size,
        rows=part.rows,
        exact=part.whole,
        missing=missing,
        repeated=repeated,
        unknown=unknown,
        convert_seconds=(time.monotonic() - started) * part.times,
        copy_bytes=round(copy * part.times),
        sample=sample,
        fault=fault,
    )


def copy_bytes(spec: TableSpec, root: Path) -> int:
    """About how large the typed Parquet copy of a table will be, from a part of it; 0 of one that takes no time.

    A table that is not there, or cannot be read, takes none: its conversion says so.
    """
    path = table_file(root, spec.path)
    if path is None or path.stat().st_size < LARGE_BYTES:
        return 0
    try:
        found = glance(spec, path, seconds=COPY_SECONDS)
    except (SourceError, OSError):
        return 0
    return round(COPY_MARGIN * (found.copy_bytes or found.bytes))


def table_file(root: Path, name: str) -> Path | None:
    """A table's file below a source directory in whichever form it is there: gzipped, plain or Parquet."""
    plain = root / name
    for path in (plain.with_name(f"{plain.name}.gz"), plain, plain.with_suffix(".parquet")):
        if path.is_file():
            return path
    return None


def header_of(path: Path) -> list[str]:
    """A table's column names, in any of its forms.

    Raises:
        SourceError, OSError: as `glance`.
    """
    if path.suffix == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    return _header(read_part(path, seconds=1.0, raw_bytes=1 << 16), path)


def count_rows(path: Path) -> tuple[list[str], int]:
    """A table's column names and its rows; those of a large CSV are estimated.

    Raises:
        SourceError, OSError: as `glance`.
    """
    if path.suffix == ".parquet":
        file = _parquet(path)
        return list(file.schema_arrow.names), file.metadata.num_rows
    part = read_part(path, seconds=1.0)
    return _header(part, path), part.rows


def column_head(path: Path, column: str) -> set[str]:
    """Values of a text column among a table's first rows; empty if it has no such column.

    Raises:
        SourceError, OSError: as `glance`.
    """
    if path.suffix == ".parquet":
        file = _parquet(path)
        if column not in file.schema_arrow.names:
            return set()
        batch = next(file.iter_batches(batch_size=PARQUET_ROWS, columns=[column]), None)
        return set() if batch is None else {str(value) for value in batch.column(0).to_pylist()}
    part = read_part(path, seconds=1.0, raw_bytes=1 << 20)
    header = _header(part, path)
    if column not in header:
        return set()
    place = header.index(column)
    lines = part.body.decode("utf-8", "replace").splitlines()
    return {fields[place] for fields in csv.reader(lines) if len(fields) > place}


def _header(part: Part, path: Path) -> list[str]:
    try:
        return next(csv.reader([part.header.decode("utf-8-sig")]), [])
    except (UnicodeDecodeError, csv.Error):
        raise SourceError(f"{path} does not begin with the names of columns", remedy=_DOWNLOAD_AGAIN) from None


def _compare(spec: TableSpec, header: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    missing = tuple(name for name in spec.columns if name not in header and name not in spec.optional)
    repeated = tuple(sorted({name for name in header if header.count(name) > 1}))
    return missing, repeated, tuple(name for name in dict.fromkeys(header) if name not in spec.columns)


def _schema(spec: TableSpec) -> pa.Schema:
    return pa.schema([(name, _ARROW[kind]) for name, kind in spec.columns.items() if name not in spec.unused])


def _parse(spec: TableSpec, part: Part, header: list[str]) -> pa.Table:
    schema = _schema(spec)
    if not part.body:
        return schema.empty_table()
    parsed = pacsv.read_csv(
        pa.BufferReader(part.body),
        read_options=pacsv.ReadOptions(column_names=header),
        convert_options=pacsv.ConvertOptions(
            column_types={field.name: field.type for field in schema},
            include_columns=[name for name in schema.names if name in header],
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return _complete(parsed, schema)


def _complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With null columns for optional ones that the file lacks."""
    columns = [
        table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _parquet_bytes(sample: pa.Table) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(sample, sink, compression="zstd")
    return int(sink.tell())


def _glance_parquet(spec: TableSpec, path: Path) -> Glance:
    file = _parquet(path)
    missing, repeated, unknown = _compare(spec, list(file.schema_arrow.names))
    schema = _schema(spec)
    sample, fault = schema.empty_table(), ""
    if not missing and not repeated:
        present = [name for name in schema.names if name in file.schema_arrow.names]
        # a row group from anywhere: files are sorted, and their heads are one kind of patient
        group = int(np.random.default_rng(0).integers(max(file.num_row_groups, 1)))
        groups = [group] if file.num_row_groups else []
        try:
            batch = next(file.iter_batches(batch_size=PARQUET_ROWS, columns=present, row_groups=groups), None)
            if batch is not None:
                table = pa.Table.from_batches([batch])
                fields = pa.schema([schema.field(name) for name in table.column_names])
                sample = _complete(table.cast(fields), schema)
        except (pa.ArrowException, OSError) as error:
            fault = _without_values(str(error), list(file.schema_arrow.names))
    return Glance(
        path, "parquet", path.stat().st_size, file.metadata.num_rows, True, missing, repeated, unknown, 0.0, 0, sample,
        fault,
    )  # fmt: skip


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowException:
        raise SourceError(f"{path} is no whole Parquet file", remedy=_DOWNLOAD_AGAIN) from None


def _without_values(message: str, header: list[str]) -> str:
    """An Arrow message in words that quote no row of a patient."""
    column = re.search(r"CSV column #(\d+): CSV conversion error to (\w+)", message)
    if column is not None and int(column[1]) < len(header):
        return f"column {header[int(column[1])]} holds something that is no {column[2]}"
    if "Expected" in message and "columns" in message:
        return "a row has more or fewer fields than the header"
    return "its rows are not of its columns' types"
