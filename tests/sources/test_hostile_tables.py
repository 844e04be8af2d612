"""What people have done to tables: each is read right, or refused at once with one sentence that quotes no patient."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from symile_clin.errors import SourceError
from symile_clin.sources import csv_table
from symile_clin.sources.convert import convert, find_table
from tests.sources.test_catalog import HEADER, ROW, SPEC, converted, write

SECRET = "987654321"


def refused(folder: Path, data: str | bytes, match: str, *, gz: bool = True) -> None:
    """The table is refused, nothing is left of it, and no value is quoted."""
    with pytest.raises(SourceError, match=match) as caught:
        converted(folder, data, gz=gz)
    assert SECRET not in str(caught.value)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f'{SECRET},,,a"b,,\n', "quote in the wrong place, near line 2"),
        (f'{SECRET},,,"a"b,,\n', "quote in the wrong place, near line 2"),
        (f'{ROW}{SECRET},,,"open,,\n', "quote in the wrong place, near line 3"),
        (f'{SECRET},,,,,"open', "quote in the wrong place"),
        (f'{SECRET},,,"two\nlines",,\n', "2 lines from line 2 on but 1 rows.*line break"),
        (f"{SECRET},3150-13-01 00:00:00,,,,\n", "column time"),
        (f"{SECRET},20150-01-01 00:00:00,,,,\n", "column time"),
        (f"{SECRET},0000-00-00 00:00:00,,,,\n", "column time"),
        (f"{SECRET},,,,2150-02-29,\n", "column day"),
        (f"{SECRET},2150-01-01 00:00:00Z,,,,\n", "column time .* without zone"),
        (f"{SECRET},2150-01-01 00:00:00+01:00,,,,\n", "column time .* without zone"),
        (f"{SECRET}{SECRET}{SECRET},,,,,\n", "column id .* whole number of 64 bits"),
        (f"{SECRET},,high,,,\n", "column value .* number"),
    ],
)
def test_a_hostile_row_is_refused_with_its_place(tmp_path: Path, rows: str, message: str) -> None:
    refused(tmp_path, HEADER + rows, message)


def test_bytes_that_are_no_text_are_refused_in_used_columns_only(tmp_path: Path) -> None:
    refused(tmp_path, HEADER.encode() + b"1,,,\xff,,\n", "column note .* UTF-8")
    assert converted(tmp_path, HEADER.encode() + b"1,,,a,,\xff\n")[0]["note"] == "a"


def test_numbers_that_are_none_are_read_as_such_for_the_rooms_to_judge(tmp_path: Path) -> None:
    rows = converted(tmp_path, HEADER + "1,,inf,,,\n2,,-inf,,,\n3,,nan,,,\n4,,,,,\n")
    assert str([row["value"] for row in rows]) == "[inf, -inf, nan, None]"


def test_a_hole_in_the_file_is_refused_with_its_line_and_a_single_nul_is_a_character(tmp_path: Path) -> None:
    refused(tmp_path, HEADER.encode() + ROW.encode() + b"1,,,,," + bytes(4096) + b"\n", r"line 3, holds a run of NUL")
    refused(tmp_path, HEADER.encode() + b"1\0,,,,,\n", "column id")
    assert converted(tmp_path, HEADER.encode() + b"1,,,a\0b,,\n")[0]["note"] == "a\0b"


def test_unused_columns_may_hold_any_type_but_not_another_number_of_fields(tmp_path: Path) -> None:
    wider = HEADER.replace("extra", "extra,unknown")
    assert len(converted(tmp_path, wider + "1,,,,,3.5,x\n2,,,,,2150-01-01,\n3,,,,,,NaN\n")) == 3
    (tmp_path / "visits.parquet").unlink()
    refused(tmp_path, wider + "1,,,,,x\n", "6 fields instead of the header's 7")


def test_a_swapped_header_is_followed_by_name(tmp_path: Path) -> None:
    first = converted(tmp_path, "time,id,value,note,day,extra\n2150-03-01 12:00:00,7,,,,\n")[0]
    assert (first["id"], first["time"]) == (7, datetime(2150, 3, 1, 12))


def test_a_renamed_column_is_missing_unless_it_is_optional(tmp_path: Path) -> None:
    refused(tmp_path, HEADER.replace("value", "Value") + ROW, "has no column value")
    assert converted(tmp_path, HEADER.replace("extra", "late,extra") + '1,,,,,5,"x"\n')[0]["late"] == 5


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50, 1 << 20])
@pytest.mark.parametrize("last", ["", "\n", "\r", "\r\n"])
def test_mixed_line_ends_are_line_ends_wherever_a_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, last: str
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", block)
    text = '\ufeffid,time,value,note,day,extra\r\n1,,,a,,\r2,,,"b, ""c""",,\n3,,,d,,\r\n4,,,,,x' + last
    rows = converted(tmp_path, text)
    assert [(row["id"], row["note"]) for row in rows] == [(1, "a"), (2, 'b, "c"'), (3, "d"), (4, None)]


@pytest.mark.parametrize("block", [10, 64, 1000])
def test_a_quote_that_is_open_where_a_block_ends_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", block)
    for number in range(8):
        rows = ROW * number + '1,,,"open,,\n' + ROW * 3 + f'2,,,{SECRET}",,\n' + ROW
        refused(tmp_path, HEADER + rows, "quote|lines from line")


def test_rows_keep_their_order_and_their_places_over_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", 1000)
    monkeypatch.setattr("symile_clin.sources.convert.ROWS_PER_GROUP", 300)
    body = "".join(f"{number},,{number}.5,n{number % 7},,\n" for number in range(2000))
    rows = converted(tmp_path, HEADER + body)
    assert [(row["id"], row["value"]) for row in rows] == [(number, number + 0.5) for number in range(2000)]
    groups = pq.ParquetFile(tmp_path / "visits.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [300] * 6 + [200]
    (tmp_path / "visits.parquet").unlink()
    refused(tmp_path, HEADER + body + "x,,,,,\n", "line 2,002: column id")


def test_a_header_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    assert converted(tmp_path, HEADER) == []
    assert converted(tmp_path, HEADER.rstrip("\n"), gz=False) == []


@pytest.mark.parametrize("gz", [True, False])
def test_an_empty_file_is_no_table(tmp_path: Path, gz: bool) -> None:
    refused(tmp_path, b"", "is empty", gz=gz)


def test_an_archive_in_an_archive_and_text_named_gz_are_told_apart(tmp_path: Path) -> None:
    refused(tmp_path, gzip.compress((HEADER + ROW).encode()), "gzipped twice. .*Unpack it once")
    path = write(tmp_path, "")
    path.write_text(HEADER + ROW)
    with pytest.raises(SourceError, match="damaged archive: it is not gzip"):
        convert(SPEC, path, tmp_path / "out.parquet")


def test_every_kind_of_damage_to_an_archive_is_noticed(tmp_path: Path) -> None:
    """Wherever it is, and whatever Python's own gzip notices."""
    text = (HEADER + "".join(f"{number},,,,,\n" for number in range(3000))).encode()
    good = gzip.compress(text)
    damaged = {
        "cut in the trailer": good[:-3],
        "without trailer": good[:-8],
        "cut in the header": good[:5],
        "wrong CRC": good[:-8] + bytes([good[-8] ^ 1]) + good[-7:],
        "wrong length": good[:-4] + bytes([good[-4] ^ 1]) + good[-3:],
        "followed by a byte": good + b"x",
        "followed by others": good + b"and so on" * 9,
        "followed by half a member": good + good[: len(good) // 2],
    }
    damaged |= {f"bit flipped at {at}": _flipped(good, at) for at in range(10, len(good) - 8, len(good) // 40)}
    path = tmp_path / "visits.csv.gz"
    for how, data in damaged.items():
        with pytest.raises((OSError, EOFError, zlib.error)):
            gzip.GzipFile(fileobj=io.BytesIO(data)).read()
        path.write_bytes(data)
        with pytest.raises(SourceError):
            pytest.fail(f"{how}: {convert(SPEC, path, tmp_path / 'out.parquet')}")
        assert not (tmp_path / "out.parquet").exists()
    # members may follow each other, and zeros may pad the last
    path.write_bytes(good + gzip.compress(b"7,,,,,\n") + bytes(64))
    assert convert(SPEC, path, tmp_path / "out.parquet").rows == 3001


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def test_a_line_without_end_stops_after_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "visits.csv.gz"
    member = gzip.compress(bytes(b"a" * (16 << 20)))  # a gigabyte in a megabyte
    path.write_bytes(member * 64)
    with pytest.raises(SourceError, match="line 1, is longer than 8 MB"):
        convert(SPEC, path, tmp_path / "out.parquet")


@pytest.mark.parametrize("name", ["visits.csv.gz", "visits.csv", "visits.parquet"])
def test_a_folder_or_a_pipe_by_a_tables_name_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "hosp" / name).mkdir(parents=True)
    with pytest.raises(SourceError, match=f"{name} is not a file"):
        find_table(SPEC, tmp_path)
    (tmp_path / "hosp" / name).rmdir()
    os.mkfifo(tmp_path / "hosp" / name)
    with pytest.raises(SourceError, match=f"{name} is not a file"):
        find_table(SPEC, tmp_path)


def parquet(folder: Path, **columns: Any) -> list[dict[str, Any]]:
    table = {"id": [1], "time": [None], "value": [None], "note": [None], "day": [None], "extra": [None], **columns}
    path = folder / "visits.parquet"
    pq.write_table(pa.table({name: pa.array(v) if isinstance(v, list) else v for name, v in table.items()}), path)
    convert(SPEC, path, folder / "copy.parquet")
    rows: list[dict[str, Any]] = pq.read_table(folder / "copy.parquet").to_pylist()
    return rows


NOON = datetime(2150, 3, 1, 12)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("id", pa.array([5], pa.int32()), 5),
        ("id", pa.array([5], pa.uint64()), 5),
        ("id", pa.array([5.0]), 5),  # pandas, beside nulls
        ("id", pa.array(["5"]), 5),
        ("id", pa.array([""]), None),
        ("time", pa.array([NOON], pa.timestamp("ns")), NOON),
        ("time", pa.array([NOON], pa.timestamp("s")), NOON),
        ("time", pa.array(["2150-03-01 12:00:00"]), NOON),
        ("day", pa.array(["2150-03-01"]), NOON.date()),
        ("value", pa.array([1.5], pa.float32()), 1.5),
        ("value", pa.array([2]), 2.0),
        ("note", pa.array(["a"]).dictionary_encode(), "a"),
        ("note", pa.array(["a"], pa.large_string()), "a"),
        ("note", pa.array([7]), "7"),
    ],
)
def test_parquet_of_other_types_is_cast_where_nothing_is_lost(
    tmp_path: Path, column: str, values: pa.Array, expected: object
) -> None:
    assert parquet(tmp_path, **{column: values})[0][column] == expected


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pa.array([5.5])),
        ("id", pa.array([2**63], pa.uint64())),
        ("id", pa.array([SECRET + "x"])),
        ("id", pa.array([True])),
        ("time", pa.array([NOON], pa.timestamp("us", "UTC"))),
        ("time", pa.array([1], pa.timestamp("ns"))),
        ("time", pa.array([215003011200])),
        ("value", pa.array([[1.5]])),
        ("note", pa.array([b"\xff"])),
        ("day", pa.array([NOON], pa.timestamp("us"))),
    ],
)
def test_parquet_that_would_lose_something_is_refused(tmp_path: Path, column: str, values: pa.Array) -> None:
    with pytest.raises(SourceError, match=f"column {column} of 'visits'") as caught:
        parquet(tmp_path, **{column: values})
    assert SECRET not in str(caught.value)


def test_parquet_is_read_by_name_and_damage_is_named(tmp_path: Path) -> None:
    parquet(tmp_path)
    path = tmp_path / "visits.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(SourceError, match="no whole Parquet file"):
        convert(SPEC, path, tmp_path / "copy.parquet")
    pq.write_table(pa.table({"note": ["a"], "id": [1]}), path)
    with pytest.raises(SourceError, match="has no column time, value, day, extra"):
        convert(SPEC, path, tmp_path / "copy.parquet")
