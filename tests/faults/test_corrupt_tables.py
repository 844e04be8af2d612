"""Every kind of bad table and settings file: one line that names the file and says what is wrong, and nothing is left.

Damage that makes another table of the same form is told by the source's SHA256SUMS.txt alone; it is listed as such.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from symile_clin.cli import run
from symile_clin.cohort.spec import load_spec
from symile_clin.errors import ConfigError, SourceError
from symile_clin.modalities.registry import ROOMS
from symile_clin.sources.checksums import SUMS
from symile_clin.sources.convert import convert
from symile_clin.strict import dump_yaml
from tests.cohort.tree import ADMITTED, Tree, build
from tests.cohort.tree import SPEC as COHORT_SPEC
from tests.faults.corrupt_images import good_jpeg
from tests.sources.test_catalog import HEADER, SPEC

ROWS: Final = "".join(f'{number},2150-03-01 12:00:00,{number}.5,"a, b",2150-03-01,x\n' for number in range(1, 400))
CSV: Final = (HEADER + ROWS).encode()
GZ: Final = gzip.compress(CSV)
HALF: Final = len(CSV) // 2


def _parquet(*, checksums: bool = False, **changes: Any) -> bytes:
    columns = {
        "id": pa.array(range(1, 3000)), "time": pa.nulls(2999, pa.timestamp("us")),
        "value": pa.array([number + 0.5 for number in range(2999)]), "note": pa.nulls(2999, pa.string()),
        "day": pa.nulls(2999, pa.date32()), "extra": pa.nulls(2999, pa.string()), **changes,
    }  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, write_page_checksum=checksums, compression="none")
    return buffer.getvalue()


PARQUET: Final = _parquet()
CHECKED: Final = _parquet(checksums=True)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _hole(data: bytes, at: int, size: int = 512) -> bytes:
    return data[:at] + bytes(size) + data[at + size :]


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("visits.csv")
        entry.size = len(CSV)
        archive.addfile(entry, io.BytesIO(CSV))
    return buffer.getvalue()


def _with_row(row: str) -> bytes:
    return (HEADER + row + ROWS).encode()


#: (format, fault, how, file, whether only a digest tells)
TABLES: Final[list[tuple[str, str, str, bytes, bool]]] = [
    ("CSV", "truncated", "empty", b"", False),
    ("CSV", "truncated", "within a row", CSV[: CSV.index(b"a, b", HALF) + 2], False),
    ("CSV", "truncated", "within the last value", CSV[: CSV.index(b",x\n", HALF) + 1], True),
    ("CSV", "truncated", "between two rows", CSV[: CSV.index(b"\n", HALF) + 1], True),
    ("CSV", "zero-filled", "all of it", bytes(len(CSV)), False),
    ("CSV", "zero-filled", "the end", CSV[:HALF] + bytes(len(CSV) - HALF), False),
    ("CSV", "zero-filled", "a sector", _hole(CSV, HALF), False),
    ("CSV", "flipped byte", "in a quote", _flipped(CSV, CSV.index(b'"', HALF)), False),
    ("CSV", "flipped byte", "in a digit", _flipped(CSV, CSV.index(b"12:00", HALF)), True),
    ("CSV", "wrong type", "a JPEG", good_jpeg(), False),
    ("CSV", "wrong type", "a page of a login", b"<!DOCTYPE html>\n<html>Log in</html>\n", False),
    ("CSV", "wrong type", "gzipped", GZ, False),
    ("CSV", "wrong type", "UTF-16", CSV.decode().encode("utf-16"), False),
    ("CSV", "swapped header", "another table's", b"subject_id,gender\n" + ROWS.encode(), False),
    ("CSV", "swapped header", "two names of other types", CSV.replace(b"time,value", b"value,time"), False),
    ("CSV", "swapped header", "a name twice", CSV.replace(b"time,value", b"time,time"), False),
    ("CSV", "NaN", "as id", _with_row("nan,,,,,\n"), False),
    ("CSV", "inf", "as id", _with_row("inf,,,,,\n"), False),
    ("CSV", "bomb", "a line of 9 MB", CSV + b"a" * (9 << 20), False),
    ("gz", "truncated", "half", GZ[: len(GZ) // 2], False),
    ("gz", "truncated", "without its trailer", GZ[:-8], False),
    ("gz", "zero-filled", "all of it", bytes(len(GZ)), False),
    ("gz", "zero-filled", "the end", GZ[:-400] + bytes(400), False),
    ("gz", "zero-filled", "within", _hole(GZ, len(GZ) // 2, 64), False),
    ("gz", "flipped byte", "in what is packed", _flipped(GZ, len(GZ) // 2), False),
    ("gz", "CRC error", "in its trailer", _flipped(GZ, len(GZ) - 8), False),
    ("gz", "wrong type", "text", CSV, False),
    ("gz", "wrong type", "a tar", gzip.compress(_tar()), False),
    ("gz", "wrong type", "gzipped twice", gzip.compress(GZ), False),
    ("gz", "swapped header", "another table's", gzip.compress(b"subject_id,gender\n" + ROWS.encode()), False),
    ("gz", "NaN", "as time", gzip.compress(_with_row("7,nan,,,,\n")), False),
    ("gz", "bomb", "a line of a gigabyte", gzip.compress(b"a" * (16 << 20)) * 64, False),
    ("Parquet", "truncated", "half", PARQUET[: len(PARQUET) // 2], False),
    ("Parquet", "truncated", "by the last byte", PARQUET[:-1], False),
    ("Parquet", "zero-filled", "all of it", bytes(len(PARQUET)), False),
    ("Parquet", "zero-filled", "in values, with page checksums", _hole(CHECKED, 8000), False),
    ("Parquet", "zero-filled", "in values, without", _hole(PARQUET, 8000), True),
    ("Parquet", "flipped byte", "in the footer's length", _flipped(PARQUET, len(PARQUET) - 6), False),
    ("Parquet", "flipped byte", "in a value, with page checksums", _flipped(CHECKED, 8000), False),
    ("Parquet", "flipped byte", "in a value, without", _flipped(PARQUET, 8000), True),
    ("Parquet", "CRC error", "of a page", _flipped(CHECKED, 9000), False),
    ("Parquet", "wrong type", "text", CSV, False),
    ("Parquet", "swapped header", "another table's", _parquet(id=pa.nulls(2999)).replace(b"value", b"other"), False),
    ("Parquet", "NaN", "as id", _parquet(id=pa.array([float("nan")] * 2999)), False),
    ("Parquet", "inf", "as id", _parquet(id=pa.array([float("inf")] * 2999)), False),
    ("Parquet", "bomb", "a footer of 2 GB", PARQUET[:-8] + b"\xf0\xff\xff\x7fPAR1", False),
]  # fmt: skip
SUFFIXES: Final = {"CSV": ".csv", "gz": ".csv.gz", "Parquet": ".parquet"}


@pytest.mark.parametrize("row", TABLES, ids=lambda row: " ".join(row[:3]))
def test_every_kind_of_bad_table_is_refused_in_one_line_and_leaves_nothing(
    tmp_path: Path, row: tuple[str, str, str, bytes, bool]
) -> None:
    form, _, _, data, listed = row
    path, copy = tmp_path / f"visits{SUFFIXES[form]}", tmp_path / "copy"
    path.write_bytes(data)
    if listed:
        assert convert(SPEC, path, copy).rows > 0, "it can be told, after all"
        copy.unlink()
        good = {"CSV": CSV, "gz": GZ, "Parquet": PARQUET}[form]
        (tmp_path / SUMS).write_text(f"{hashlib.sha256(good).hexdigest()}  {path.name}\n")
    with pytest.raises(SourceError, match=path.name) as caught:
        convert(SPEC, path, copy, sums=tmp_path)
    text = str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in text
    assert not copy.exists()
    assert not list(tmp_path.glob(".*")), "a half-made copy"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_disk_that_does_not_give_a_table_is_not_taken_for_one_that_does_not_take_its_copy(
    suffix: str, tmp_path: Path
) -> None:
    table = tmp_path / f"table{suffix}"
    table.symlink_to("/proc/self/mem")  # a regular file, whose first byte no process may read: EIO, as of a bad sector
    with pytest.raises(OSError, match="Input/output error") as caught:
        convert(SPEC, table, tmp_path / "table.parquet")
    assert caught.value.filename == str(table)


def test_what_a_reader_cannot_tell_of_a_table_is_listed() -> None:
    assert [f"{form}, {fault}: {how}" for form, fault, how, _, listed in TABLES if listed] == [
        "CSV, truncated: within the last value",
        "CSV, truncated: between two rows",
        "CSV, flipped byte: in a digit",
        "Parquet, zero-filled: in values, without",
        "Parquet, flipped byte: in a value, without",
    ]
    for form in SUFFIXES:
        own = {fault for one, fault, *_ in TABLES if one == form}
        assert {"truncated", "zero-filled", "flipped byte", "wrong type", "swapped header", "NaN", "bomb"} <= own


@pytest.mark.parametrize("form", SUFFIXES)
def test_the_command_says_it_in_one_line_and_leaves_with_3(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Tree(tmp_path)
    tree.complete(10_000_001, 20_000_001)
    roots = tree.write()
    good = roots["mimic_iv"] / "hosp" / "patients.csv.gz"
    good.with_name(f"patients{SUFFIXES[form]}").write_bytes({"CSV": CSV, "gz": GZ[:-9], "Parquet": PARQUET[:-9]}[form])
    if form != "gz":
        good.unlink()
    spec = tmp_path / "tiny.yaml"
    spec.write_text(dump_yaml(COHORT_SPEC))
    options = [part for source, root in roots.items() for part in (f"--{source.replace('_', '-')}", str(root))]
    code = run(["cohort", "build", str(spec), *options, "--out", str(tmp_path / "out"), "--no-tracking"])
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 3
    assert said[-1].startswith("symile-clin: ")
    assert f"patients{SUFFIXES[form]}" in said[-1]
    assert sum(line.startswith("symile-clin: ") for line in said) == 1
    assert not (tmp_path / "out").exists()


def _spec(**changes: Any) -> str:
    return dump_yaml({**COHORT_SPEC, **changes})


YAML: Final = _spec()
#: (fault, how, file)
SETTINGS: Final[list[tuple[str, str, bytes | str]]] = [
    ("truncated", "empty", ""),
    ("truncated", "in the middle", YAML[: len(YAML) // 2]),
    ("truncated", "within a word", YAML[: YAML.rindex("d")]),
    ("zero-filled", "all of it", bytes(400)),
    ("zero-filled", "the end", YAML.encode() + bytes(512)),
    ("flipped byte", "in a key", YAML.replace("require", "qequire")),
    ("flipped byte", "in a sign", YAML.replace(":", ";", 1)),
    ("flipped byte", "beyond ASCII", YAML.encode().replace(b"t", b"\xf4", 1)),
    ("wrong type", "a JPEG", good_jpeg()),
    ("wrong type", "gzipped", gzip.compress(YAML.encode())),
    ("wrong type", "a list", "- a\n- b\n"),
    ("wrong type", "a page of a login", "<!DOCTYPE html>\n"),
    ("swapped header", "the keys of a training config", "objective: {name: symile}\ntraining: {epochs: 3}\n"),
    ("NaN", "as share", _spec(max_refused=float("nan"))),
    ("NaN", "as size of a split", YAML.replace("0.25", ".nan")),
    ("inf", "as size of a split", YAML.replace("0.25", ".inf")),
    ("inf", "as share", _spec(max_refused=float("inf"))),
    ("bomb", "aliases", "a: &a [x]\n" + "".join(f"b{n}: [*a, *a]\n" for n in range(9))),
    ("bomb", "nested", "a: " + "[" * 5_000),
    ("bomb", "2 MB", YAML + "# " + "a" * (2 << 20)),
]


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: " ".join(row[:2]))
def test_every_kind_of_bad_spec_is_refused_in_one_line(tmp_path: Path, row: tuple[str, str, bytes | str]) -> None:
    data = row[2]
    path = tmp_path / "spec.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ConfigError, match=r"spec\.yaml") as caught:
        load_spec(str(path), [], ROOMS)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_numbers_that_are_none_do_not_reach_a_sample(tmp_path: Path) -> None:
    """NaN and inf in a column of numbers are what they say, and the room passes them over."""
    tree = Tree(tmp_path)
    for hadm in range(20_000_001, 20_000_004):
        tree.complete(hadm - 10_000_000, hadm)
        for value in ("nan", "inf", "-inf"):
            tree.rows["labevents"].insert(0, {
                "labevent_id": 90_000_000 + len(tree.rows["labevents"]), "subject_id": hadm - 10_000_000,
                "itemid": 50912, "charttime": ADMITTED, "valuenum": value,
            })  # fmt: skip
    samples = build(tree).samples
    assert len(samples) == 3
    assert samples["lab_50912"].tolist() == [float(hadm % 97) for hadm in range(20_000_001, 20_000_004)]
