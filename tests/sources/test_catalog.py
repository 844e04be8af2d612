"""Tables are converted strictly and once; what is not as its format says is named."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from symile_clin.errors import ConfigError, SourceError
from symile_clin.progress import Quiet
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.convert import convert, find_table
from symile_clin.sources.duckdb_catalog import DuckDbCatalog
from symile_clin.sources.inputs import source_files
from symile_clin.sources.tables import TableSpec

SPEC = TableSpec(
    name="visits",
    source="mimic_iv",
    path="hosp/visits.csv",
    columns={
        "id": "int",
        "time": "time",
        "value": "float",
        "note": "text",
        "day": "date",
        "late": "int",
        "extra": "text",
    },
    key=("id",),
    optional=frozenset({"late"}),
    unused=frozenset({"extra"}),
)
HEADER = "id,time,value,note,day,extra\n"
ROW = '1,2150-03-01 12:00:00,1.5,"a, ""b""",2150-03-01,x\n'


def write(folder: Path, data: str | bytes, *, gz: bool = True) -> Path:
    raw = data.encode() if isinstance(data, str) else data
    path = folder / ("visits.csv.gz" if gz else "visits.csv")
    path.write_bytes(gzip.compress(raw) if gz else raw)
    return path


def converted(folder: Path, data: str | bytes, *, gz: bool = True) -> list[dict[str, Any]]:
    target = folder / "visits.parquet"
    rows = convert(SPEC, write(folder, data, gz=gz), target).rows
    table: list[dict[str, Any]] = pq.read_table(target).to_pylist()
    assert len(table) == rows
    return table


@pytest.mark.parametrize("gz", [True, False])
def test_values_are_typed_and_absent_optional_columns_null(tmp_path: Path, gz: bool) -> None:
    first, second = converted(tmp_path, HEADER + ROW + "2,,,NA,,\n", gz=gz)
    assert first["time"] == datetime(2150, 3, 1, 12)
    assert (first["value"], first["note"], first["late"]) == (1.5, 'a, "b"', None)
    assert "extra" not in first
    # only an empty field is null: NA is a word
    assert second == {"id": 2, "time": None, "value": None, "note": "NA", "day": None, "late": None}


@pytest.mark.parametrize(
    "text", ["\ufeff" + HEADER + ROW, (HEADER + ROW).replace("\n", "\r\n"), (HEADER + ROW).rstrip("\n")]
)
def test_byte_order_mark_line_ends_and_a_missing_last_line_feed_do_no_harm(tmp_path: Path, text: str) -> None:
    assert converted(tmp_path, text)[0]["id"] == 1


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    row = converted(tmp_path, "note,extra,value,day,id,time,unknown\nn,x,2,,7,,u\n")[0]
    assert (row["id"], row["note"], row["value"]) == (7, "n", 2.0)


def test_a_missing_column_is_named_with_the_file_and_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"visits\.csv\.gz has no column time, note\. .*right release") as caught:
        converted(tmp_path, "id,value,day,extra\n1,2,,\n")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("one,,,,,\n", "line 2: column id of 'visits' holds something else than a whole number"),
        ("1.0,,,,,\n", "column id"),
        ("1,2150-02-30 00:00:00,,,,\n", "column time .* a time as YYYY-MM-DD HH:MM:SS without zone"),
        (ROW + "1,,high,,,\n", "line 3: column value .* than a number"),
        ("1,,,,\n", "line 2: 5 fields instead of the header's 6"),
        ("1,,,,,,\n", "7 fields instead of the header's 6"),
        ("\n" + ROW, "2 lines from line 2 on but 1 rows"),
        ('1,,,,,"open\n2,,,,,closed"\n3,,,,,\n', "3 lines from line 2 on but 2 rows"),
    ],
)
def test_a_row_that_is_not_of_the_format_stops_the_build(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        converted(tmp_path, HEADER + rows)
    assert [path.name for path in tmp_path.iterdir()] == ["visits.csv.gz"]


def test_no_row_of_a_patient_is_quoted_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        converted(tmp_path, HEADER + "987654321,,,secret\n")
    assert "987654321" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="column id more than once"):
        converted(tmp_path, "id," + HEADER)


@pytest.mark.parametrize("damage", ["truncated", "crc", "not gzip", "empty"])
def test_a_damaged_archive_is_noticed(tmp_path: Path, damage: str) -> None:
    good = gzip.compress((HEADER + ROW * 5000).encode())
    bad = {
        "truncated": good[:-20],
        "crc": good[:-8] + bytes([good[-8] ^ 1]) + good[-7:],
        "not gzip": b"PK\x03\x04" + good,
        "empty": b"",
    }[damage]
    path = tmp_path / "visits.csv.gz"
    path.write_bytes(bad)
    with pytest.raises(SourceError):
        convert(SPEC, path, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_missing_directory_and_a_missing_file_say_which_option_to_check(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no directory .*--mimic-iv"):
        find_table(SPEC, tmp_path / "none")
    with pytest.raises(SourceError, match=r"has no hosp/visits\.csv\.gz.*--mimic-iv"):
        find_table(SPEC, tmp_path)
    with pytest.raises(ConfigError, match=r"for mimic_iv\. Add --mimic-iv DIR"):
        source_files([SPEC], {})


def test_tables_are_converted_once_and_again_only_when_the_file_changes(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "hosp"
    folder.mkdir(parents=True)
    cache = tmp_path / "cache"

    def ids() -> list[int]:
        copies = ParquetCache([SPEC], roots={"mimic_iv": tmp_path / "source"}, directory=cache, progress=Quiet())
        with DuckDbCatalog(copies) as catalog:
            return [int(one) for one in catalog.frame(catalog.table("visits").order_by("id"))["id"]]

    write(folder, HEADER + ROW)
    assert ids() == [1]
    (kept,) = cache.glob("*.parquet")
    changed = kept.stat().st_mtime_ns
    assert ids() == [1]
    assert kept.stat().st_mtime_ns == changed
    write(folder, HEADER + ROW + "2,,,,,\n")
    assert ids() == [1, 2]
    assert not list(cache.glob("spill-*"))


def test_integers_with_nulls_stay_integers(tmp_path: Path) -> None:
    (tmp_path / "hosp").mkdir()
    write(tmp_path / "hosp", HEADER + "9007199254740993,,,,,\n,,,,,\n")
    copies = ParquetCache([SPEC], roots={"mimic_iv": tmp_path}, directory=tmp_path / "cache", progress=Quiet())
    with DuckDbCatalog(copies) as catalog:
        frame = catalog.frame(catalog.table("visits"))
    assert frame["id"].max() == 9007199254740993
    assert frame["id"].isna().sum() == 1
