"""Tables as bytes: the format's columns in order, quoting, times, gzip members that concatenate."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import datetime

from symile_clin.sources.tables import TableSpec
from symile_clin.synthetic.tree import encode

SPEC = TableSpec(
    name="events",
    source="mimic_iv",
    path="hosp/events.csv",
    columns={"id": "int", "when": "time", "day": "date", "value": "float", "note": "text"},
    key=("id",),
)
ROW = {
    "note": 'said "no", then ___',
    "value": 0.5,
    "id": 7,
    "when": datetime(2180, 5, 6, 0, 3, 9),
    "day": datetime(2180, 5, 6),
}


def test_columns_come_in_the_formats_order_and_absent_values_are_empty() -> None:
    text = gzip.decompress(encode(SPEC, [ROW, {"id": 8, "value": None}])).decode()
    assert text == '7,2180-05-06 00:03:09,2180-05-06,0.5,"said ""no"", then ___"\n8,,,,\n'
    assert next(csv.reader(io.StringIO(text)))[-1] == ROW["note"]


def test_chunks_concatenate_to_one_file_and_carry_no_time() -> None:
    one, two = encode(SPEC, [ROW]), encode(SPEC, [{"id": 8}])
    assert gzip.decompress(one + two) == gzip.decompress(one) + gzip.decompress(two)
    assert one[4:8] == b"\0\0\0\0"


def test_tables_released_without_gzip_stay_plain() -> None:
    plain = TableSpec(name="list", source="mimic_ecg", path="list.csv", columns={"id": "int"}, key=("id",))
    assert encode(plain, [{"id": 1}, {"id": 2}]) == b"1\n2\n"
