"""From a source's table to typed Parquet, once and strictly."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from symile_clin import files
from symile_clin.errors import SourceError
from symile_clin.sources.archive import open_archive
from symile_clin.sources.checksums import SUMS, listed_digests
from symile_clin.sources.csv_table import read_csv, used_schema
from symile_clin.sources.parquet_table import read_parquet
from symile_clin.sources.tables import TableSpec

#: Part of the cache key: raise it when conversion changes.
CONVERTER_VERSION: Final = 2
#: A scan skips row groups by their least and greatest values, and reads several of them side by side.
ROWS_PER_GROUP: Final = 1 << 20


@dataclass(frozen=True)
class Contents:
    """What a source file held: rows, and the SHA-256 of its bytes."""

    rows: int
    sha256: str


def find_table(spec: TableSpec, root: Path) -> Path:
    """The table's file below a source directory: `.csv.gz`, or else `.csv`, or else `.parquet`.

    Where several are there, the first of these wins: the release's own form is never passed over for a copy.

    Raises:
        SourceError: the directory or the file is not there, or is no regular file.
    """
    option = "--" + spec.source.replace("_", "-")
    if not root.is_dir():
        raise SourceError(f"no directory {root}", remedy=f"Give {option} the folder that holds {spec.path}.gz")
    plain = root / spec.path
    for path in (plain.with_name(f"{plain.name}.gz"), plain, plain.with_suffix(".parquet")):
        if path.is_file():
            return path
        if path.exists():  # a folder, or a pipe that would never end
            raise SourceError(f"{path} is not a file", expected=f"the table '{spec.name}'")
    raise SourceError(
        f"{root} has no {spec.path}.gz",
        expected=f"table '{spec.name}' there, as .csv.gz, .csv or .parquet",
        remedy=f"Check that {option} names the right folder and that its download is complete",
    )


def convert(spec: TableSpec, path: Path, target: Path, *, sums: Path | None = None) -> Contents:
    """Write the used columns of a table as Parquet, atomically.

    Args:
        path: a `.csv.gz`, `.csv` or `.parquet`; the bytes of a CSV are hashed as they are read.
        sums: the source's directory, whose SHA256SUMS.txt the file is held against if it lists it.

    Raises:
        SourceError: the file is not what its format says (see `read_csv` and `read_parquet`), changed while it was
            read, or is not what SHA256SUMS.txt lists.
    """
    with files.atomic(target) as temporary:
        with open_archive(path) as archive:
            if path.suffix == ".parquet":
                rows = _write(spec, read_parquet(spec, path), temporary)
                contents = Contents(rows, files.sha256(path))
            else:
                rows = _write(spec, read_csv(spec, path, archive), temporary)
                contents = Contents(rows, archive.sha256())
        listed = None if sums is None else _listed(sums, path)
        if listed is not None and listed != contents.sha256:
            raise SourceError(
                f"{path} is not what {SUMS} lists: its SHA-256 is {contents.sha256[:12]}… instead of {listed[:12]}…",
                remedy="Download it again",
            )
    return contents


def _write(spec: TableSpec, tables: Generator[pa.Table, None, None], target: Path) -> int:
    """Write the tables in row groups of one size; their number.

    What tells rows apart repeats too little for a dictionary; its whole numbers rise, and their differences are small.
    Neither do times repeat, but where they do it is in runs, which compression finds.
    """
    schema = used_schema(spec)
    key_numbers = [field.name for field in schema if field.name in spec.key and pa.types.is_integer(field.type)]
    repeating = [field.name for field in schema if field.name not in spec.key and not pa.types.is_timestamp(field.type)]
    rows, waiting, count = 0, [schema.empty_table()], 0
    with (
        closing(tables),
        pq.ParquetWriter(
            target,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=repeating,
            column_encoding=dict.fromkeys(key_numbers, "DELTA_BINARY_PACKED"),
        ) as writer,
    ):
        for table in tables:
            waiting.append(table)
            count += table.num_rows
            rows += table.num_rows
            while count >= ROWS_PER_GROUP:
                joined = pa.concat_tables(waiting)
                writer.write_table(joined.slice(0, ROWS_PER_GROUP), row_group_size=ROWS_PER_GROUP)
                waiting, count = [joined.slice(ROWS_PER_GROUP)], count - ROWS_PER_GROUP
        if count:
            writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS_PER_GROUP)
    return rows


def _listed(root: Path, path: Path) -> str | None:
    """The digest that the source's SHA256SUMS.txt has for a file."""
    name = path.relative_to(root).as_posix()
    return listed_digests(root, [name]).get(name)
