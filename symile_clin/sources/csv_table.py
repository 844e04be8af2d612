"""A table's used columns out of its CSV, strictly: nothing is skipped, guessed or repaired.

Words such as nan and inf in a column of numbers are what they say; the rooms say whether they are of use.
One line is one row. A quoted value that holds a line break is refused, for nothing tells it from an open quote that
swallows rows up to the next quote.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from symile_clin.errors import SourceError
from symile_clin.sources.archive import DOWNLOAD_AGAIN, Archive
from symile_clin.sources.tables import ColumnType, TableSpec

BLOCK_BYTES: Final = 2 << 20
MAX_LINE_BYTES: Final = 8 << 20
#: Blocks are parsed side by side: inflating, one thread's work, is faster than one thread's parsing.
PARSERS: Final = 2
ARROW: Final[Mapping[ColumnType, pa.DataType]] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
    "date": pa.date32(),
}
WORDS: Final[Mapping[ColumnType, str]] = {
    "int": "whole number of 64 bits",
    "float": "number",
    "text": "UTF-8 text",
    "time": "time as YYYY-MM-DD HH:MM:SS without zone",
    "date": "date as YYYY-MM-DD",
}
_QUOTE, _LINE_FEED = 34, 10
_HOLE: Final = bytes(8)
_MAY_STAND_BESIDE_A_QUOTE: Final = np.isin(np.arange(256), list(b',\n"'))


@dataclass(frozen=True)
class _Block:
    """Whole lines of a file, their ends made line feeds; `line` is the number of the first."""

    text: bytes
    line: int


def used_schema(spec: TableSpec) -> pa.Schema:
    """Names and types of the columns that a table's copy has."""
    return pa.schema([(name, ARROW[kind]) for name, kind in spec.columns.items() if name not in spec.unused])


def read_csv(spec: TableSpec, path: Path, archive: Archive) -> Generator[pa.Table, None, None]:
    """The used columns, some ten thousand rows at a time, in the file's order; absent optional ones are null.

    Raises:
        SourceError: a column is missing or repeated, a value is not of its column's type, a row has too many or too
            few fields, a quote is in the wrong place, a value holds a line break, or the archive is damaged.
    """
    # Generators that hold threads are closed where they are used: the garbage collector would do it in any thread.
    with closing(_lines(path, archive)) as blocks, ThreadPoolExecutor(PARSERS) as parsers:
        first = next(blocks, None)
        if first is None:
            raise SourceError(f"{path} is empty", remedy=DOWNLOAD_AGAIN)
        head, _, rest = first.text.partition(b"\n")
        header = _header(spec, path, head)
        waiting: deque[Future[pa.Table]] = deque()
        try:
            if rest:
                waiting.append(parsers.submit(_parse, spec, path, header, _Block(rest, 2)))
            for block in blocks:
                waiting.append(parsers.submit(_parse, spec, path, header, block))
                if len(waiting) > PARSERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def check_columns(spec: TableSpec, path: Path, names: list[str]) -> None:
    """Compare a file's columns with its format, by name.

    Raises:
        SourceError: one is missing or repeated.
    """
    missing = [name for name in spec.columns if name not in names and name not in spec.optional]
    if missing:
        raise SourceError(
            f"{path} has no column {', '.join(missing)}",
            expected=f"the columns of '{spec.name}': {', '.join(spec.columns)}",
            remedy="Check that it is the right file of the right release",
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(f"{path} has column {', '.join(repeated)} more than once", remedy=DOWNLOAD_AGAIN)


def complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with null columns for optional ones that the file lacks, in the schema's order."""
    columns = [
        table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _lines(path: Path, archive: Archive) -> Generator[_Block, None, None]:
    """The text cut at line ends."""
    line, kept, held = 1, b"", b""
    with closing(archive.blocks(BLOCK_BYTES)) as texts:
        for data in texts:
            data = held + data if held else data
            held = data[-1:] if data.endswith(b"\r") else b""  # its line feed may be the next block's first byte
            data = _with_line_feeds(data[:-1] if held else data)
            end = data.rfind(b"\n") + 1
            if end:
                text = b"".join([kept, memoryview(data)[:end]])
                yield _Block(text, line)
                line += _count(text)
            kept = data[end:] if end else kept + data
            if len(kept) > MAX_LINE_BYTES:
                raise SourceError(
                    f"{path}, line {line:,}, is longer than {MAX_LINE_BYTES >> 20} MB",
                    expected="lines of a CSV file",
                    remedy=DOWNLOAD_AGAIN,
                )
    if kept or held:
        yield _Block(kept + b"\n", line)


def _with_line_feeds(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def _count(text: bytes) -> int:
    # numpy counts several times faster than bytes.count, and lets other threads run meanwhile
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _LINE_FEED))


def _header(spec: TableSpec, path: Path, line: bytes) -> list[str]:
    try:
        names = next(csv.reader([line.decode("utf-8-sig")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        twice = line.startswith(b"\x1f\x8b")
        raise SourceError(
            f"{path} does not begin with the names of columns{': it is gzipped twice' if twice else ''}",
            expected=f"the table '{spec.name}'",
            remedy="Unpack it once" if twice else DOWNLOAD_AGAIN,
        ) from None
    check_columns(spec, path, names)
    return names


def _parse(spec: TableSpec, path: Path, header: list[str], block: _Block) -> pa.Table:
    schema = used_schema(spec)
    _check_bytes(path, block)
    try:
        table = pacsv.read_csv(
            pa.BufferReader(block.text),
            read_options=pacsv.ReadOptions(column_names=header, use_threads=False, block_size=len(block.text) + 1),
            convert_options=pacsv.ConvertOptions(
                column_types={field.name: field.type for field in schema},
                include_columns=[name for name in schema.names if name in header],
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise _in_words(spec, path, header, block, str(error)) from None
    lines = _count(block.text)
    if table.num_rows != lines:
        raise SourceError(
            f"{path} has {lines:,} lines from line {block.line:,} on but {table.num_rows:,} rows",
            expected="one line a row, but a quote is open, a value holds a line break or a line is empty",
            remedy=DOWNLOAD_AGAIN,
        )
    return complete(table, schema)


def _check_bytes(path: Path, block: _Block) -> None:
    """Refuse what the parser would take as it is: pages never written, and quotes that are out of place.

    A single NUL is a character like others: whoever reads the value judges it.
    """
    hole = block.text.find(_HOLE)
    if hole >= 0:
        line = block.line + block.text.count(b"\n", 0, hole)
        raise SourceError(f"{path}, line {line:,}, holds a run of NUL bytes", remedy=DOWNLOAD_AGAIN)
    if b'"' not in block.text:
        return
    text = np.frombuffer(block.text, np.uint8)
    places = np.flatnonzero(text == _QUOTE)
    # Quotes open and close in turn; one that is doubled closes and opens again. The text ends with a line feed.
    outside = text[places + np.where(np.arange(len(places)) % 2 == 0, -1, 1)]  # at 0 - 1: that line feed
    wrong = places[~_MAY_STAND_BESIDE_A_QUOTE[outside]]
    if len(wrong) or len(places) % 2:
        line = block.line + block.text.count(b"\n", 0, int(wrong[0] if len(wrong) else places[-1]))
        raise SourceError(
            f"{path} has a quote in the wrong place, near line {line:,}",
            expected="quotes around whole values that hold no line break, and doubled inside of them",
            remedy=DOWNLOAD_AGAIN,
        )


def _in_words(spec: TableSpec, path: Path, header: list[str], block: _Block, message: str) -> SourceError:
    """An Arrow message without the row of a patient that it quotes."""
    row = re.search(r"Row #(\d+)", message)
    place = f"{path}, line {block.line + int(row[1]) - 1:,}" if row else f"{path}"
    column = re.match(r"In CSV column #(\d+)", message)
    fields = re.search(r"Expected (\d+) columns, got (\d+)", message)
    if column is not None and header[int(column[1])] in spec.columns:
        name = header[int(column[1])]
        found = f"{place}: column {name} of '{spec.name}' holds something else than a {WORDS[spec.columns[name]]}"
    elif fields is not None:
        found = f"{place}: {fields[2]} fields instead of the header's {fields[1]}"
    else:
        found = f"{place}: not a row of '{spec.name}'"
    return SourceError(found, remedy=DOWNLOAD_AGAIN)
