"""From a source's CSV to typed Parquet, once and strictly: nothing is skipped, guessed or repaired.

The file is inflated here rather than by an engine: Python's gzip checks length and CRC at the end, and the lines that
go past are counted, so that a damaged archive or a stray quote that swallows rows is noticed.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from symile_clin import files
from symile_clin.errors import SourceError
from symile_clin.sources.tables import ColumnType, TableSpec

#: Part of the cache key: raise it when conversion changes.
CONVERTER_VERSION: Final = 1
BLOCK_BYTES: Final = 16 << 20
_DOWNLOAD_AGAIN: Final = "Check the file against the release's SHA256SUMS.txt and download it again"
_ARROW: Final[Mapping[ColumnType, pa.DataType]] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
    "date": pa.date32(),
}


def find_table(spec: TableSpec, root: Path) -> Path:
    """The table's file below a source directory, gzipped or plain.

    Raises:
        SourceError: the directory or the file is not there.
    """
    option = "--" + spec.source.replace("_", "-")
    if not root.is_dir():
        raise SourceError(f"no directory {root}", remedy=f"Give {option} the folder that holds {spec.path}.gz")
    for path in (root / f"{spec.path}.gz", root / spec.path):
        if path.is_file():
            return path
    raise SourceError(
        f"{root} has no {spec.path}.gz",
        expected=f"table '{spec.name}' there, gzipped or plain",
        remedy=f"Check that {option} names the right folder and that its download is complete",
    )


def convert(spec: TableSpec, path: Path, target: Path) -> int:
    """Write the used columns of a CSV as Parquet, atomically; returns the number of rows.

    Raises:
        SourceError: a column is missing or repeated, a value is not of its column's type, a row has too many or too
            few fields, the archive is damaged, or lines and rows differ in number.
    """
    present = _check_header(spec, path)
    used = {name: _ARROW[kind] for name, kind in spec.columns.items() if name not in spec.unused}
    schema = pa.schema(used)
    rows = 0
    try:
        with _open(path) as raw, files.atomic(target) as temporary:
            lines = _LineCounter(raw)
            reader = pacsv.open_csv(
                pa.PythonFile(lines, mode="r"),
                read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES),
                convert_options=pacsv.ConvertOptions(
                    column_types=used,
                    include_columns=[name for name in used if name in present],
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for batch in reader:
                    rows += batch.num_rows
                    writer.write_batch(_complete(batch, schema))
            if rows != lines.total - 1:
                raise SourceError(
                    f"{path} has {lines.total - 1:,} lines after its header but {rows:,} rows",
                    expected="one line a row, but a quote is open or a value holds a line break",
                    remedy=_DOWNLOAD_AGAIN,
                )
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the file's
        raise SourceError(
            f"{path} cannot be read as '{spec.name}': {_one_line(error)}", remedy=_DOWNLOAD_AGAIN
        ) from None
    return rows


class _LineCounter(io.RawIOBase):
    """Passes bytes through and counts their lines; the last may lack its line feed."""

    def __init__(self, raw: gzip.GzipFile | io.BufferedReader) -> None:
        self._raw = raw
        self._line_feeds = 0
        self._last = b"\n"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size)
        if data:
            self._line_feeds += data.count(b"\n")
            self._last = data[-1:]
        return data

    @property
    def total(self) -> int:
        return self._line_feeds + (self._last != b"\n")


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.GzipFile(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _check_header(spec: TableSpec, path: Path) -> set[str]:
    """Compare a file's header with its format by name; returns the columns that are there."""
    try:
        with _open(path) as raw:
            header = next(csv.reader([raw.readline(1 << 16).decode("utf-8-sig")]), [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read: {_one_line(error)}", remedy=_DOWNLOAD_AGAIN) from None
    missing = [name for name in spec.columns if name not in header and name not in spec.optional]
    if missing:
        raise SourceError(
            f"{path} has no column {', '.join(missing)}",
            expected=f"the columns of '{spec.name}': {', '.join(spec.columns)}",
            remedy="Check that it is the right file of the right release",
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise SourceError(f"{path} has column {', '.join(repeated)} more than once", remedy=_DOWNLOAD_AGAIN)
    return set(header)


def _complete(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with null columns for optional ones that the file lacks, in the schema's order."""
    columns: list[Any] = [
        batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)


def _one_line(error: Exception) -> str:
    # Arrow quotes the offending row after the first line; rows of patients stay out of messages.
    text = str(error).split(":", 2)[:2] if "CSV parse error" in str(error) else [str(error)]
    return " ".join(":".join(text).split())[:200] or type(error).__name__
