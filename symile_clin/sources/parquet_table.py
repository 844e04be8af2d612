"""A table's used columns out of a Parquet file, its types cast where nothing is lost by it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from symile_clin import disk
from symile_clin.errors import SourceError
from symile_clin.sources.archive import DOWNLOAD_AGAIN
from symile_clin.sources.csv_table import WORDS, check_columns, complete, used_schema
from symile_clin.sources.tables import TableSpec

BATCH_ROWS: Final = 1 << 17


def read_parquet(spec: TableSpec, path: Path) -> Generator[pa.Table, None, None]:
    """The used columns, some hundred thousand rows at a time, in the file's order; absent optional ones are null.

    Whole numbers may be of any width, or floats without fractions, as pandas writes them beside nulls; times of any
    unit that keeps them exact, and text of what a CSV would hold.

    Pages are held against their checksums, where whoever wrote them did write checksums.

    Raises:
        SourceError: a column is missing, repeated or of another type, a value would be lost, or the file is damaged.
    """
    schema = used_schema(spec)
    try:
        with disk.reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            check_columns(spec, path, names)
            present = [name for name in schema.names if name in names]
            rows, listed = 0, file.metadata.num_rows
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=present):
                table = pa.table({name: _cast(spec, path, name, batch.column(name)) for name in present})
                rows += table.num_rows
                yield complete(table, schema)
            if rows != listed:  # pages that are missing are no error of the reader's
                raise SourceError(f"{path} has {rows:,} rows instead of its footer's {listed:,}", remedy=DOWNLOAD_AGAIN)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceError(f"{path} is no whole Parquet file", remedy=DOWNLOAD_AGAIN) from None


def _cast(spec: TableSpec, path: Path, name: str, column: pa.Array) -> pa.Array:
    wanted = used_schema(spec).field(name).type
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type) and not _is_text(wanted):
        column = pc.if_else(pc.equal(column, ""), None, column)  # an empty field of a CSV is null
    try:
        if not _may_become(column.type, wanted):
            raise pa.ArrowInvalid
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SourceError(
            f"{path}: column {name} of '{spec.name}' is {column.type} and holds something else than a "
            f"{WORDS[spec.columns[name]]}",
            remedy="Write it with the format's type, or give the release's CSV",
        ) from None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _may_become(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a cast between the types means the same value."""
    if _is_text(found) or pa.types.is_null(found):
        return True
    number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    if pa.types.is_integer(wanted) or pa.types.is_floating(wanted):
        return bool(number)
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_date(found) or (pa.types.is_timestamp(found) and found.tz is None))
    if pa.types.is_date(wanted):
        return bool(pa.types.is_date(found))
    return bool(pa.types.is_integer(found))  # ids that are text here and numbers there
