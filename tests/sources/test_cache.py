"""The cache keeps one copy of each table and source, knows what it was made from, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from symile_clin.errors import SourceError
from symile_clin.progress import Quiet
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.convert import CONVERTER_VERSION, find_table
from symile_clin.sources.inputs import drift, identities, source_files
from tests.sources.test_catalog import HEADER, ROW, SPEC, write


def opened(root: Path, cache: Path) -> ParquetCache:
    return ParquetCache([SPEC], roots={"mimic_iv": root}, directory=cache, progress=Quiet())


def source(root: Path, text: str = HEADER + ROW) -> Path:
    (root / "hosp").mkdir(parents=True, exist_ok=True)
    return write(root / "hosp", text)


def names(cache: Path) -> list[str]:
    """Whatever is there but locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_sidecar_says_what_a_copy_was_made_from(tmp_path: Path) -> None:
    path = source(tmp_path)
    cache = opened(tmp_path, tmp_path / "cache")
    assert cache.known("visits") is None
    assert not (tmp_path / "cache").exists()  # to ask makes nothing
    tables = source_files([SPEC], cache.roots)
    assert cache.with_contents(tables) == tables
    copy = cache.parquet("visits")
    sidecar = json.loads(copy.with_suffix(".json").read_bytes())
    assert (
        sidecar
        == cache.known("visits")
        == {
            "table": "visits",
            "file": "hosp/visits.csv.gz",
            "bytes": path.stat().st_size,
            "changed_ns": path.stat().st_mtime_ns,
            "rows": 1,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "converter": CONVERTER_VERSION,
            "copy_bytes": copy.stat().st_size,
        }
    )
    (described,) = cache.with_contents(tables)
    assert (described["rows"], described["sha256"]) == (1, sidecar["sha256"])
    assert identities([described]) == tables


@pytest.mark.parametrize("form", ["csv.gz", "csv", "parquet"])
def test_the_digest_is_of_the_files_own_bytes_in_every_form(tmp_path: Path, form: str) -> None:
    path = source(tmp_path)
    if form == "csv":
        path = write(tmp_path / "hosp", HEADER + ROW, gz=False)
        (tmp_path / "hosp" / "visits.csv.gz").unlink()
    if form == "parquet":
        table = pq.read_table(opened(tmp_path, tmp_path / "cache").parquet("visits"))
        path.unlink()
        path = tmp_path / "hosp" / "visits.parquet"
        pq.write_table(table.append_column("extra", [[None]]), path)
    cache = opened(tmp_path, tmp_path / "cache")
    assert pq.read_table(cache.parquet("visits"))["note"].to_pylist() == ['a, "b"']
    known = cache.known("visits")
    assert known is not None
    assert known["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_releases_own_form_wins(tmp_path: Path) -> None:
    (tmp_path / "hosp").mkdir()
    for name in ("visits.parquet", "visits.csv", "visits.csv.gz"):
        (tmp_path / "hosp" / name).touch()
        assert find_table(SPEC, tmp_path).name == name


def test_a_file_is_held_against_the_releases_list_of_digests(tmp_path: Path) -> None:
    path = source(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sums = tmp_path / "SHA256SUMS.txt"
    sums.write_text(f"{'0' * 64} other/hosp/visits.csv.gz\n{digest} hosp/visits.csv.gz\n{'1' * 64} hosp/d.csv.gz\n")
    opened(tmp_path, tmp_path / "good").parquet("visits")
    sums.write_text(f"{'0' * 64}  ./hosp/visits.csv.gz\r\n")
    with pytest.raises(SourceError, match=r"visits\.csv\.gz is not what SHA256SUMS\.txt lists: .* instead of 0000"):
        opened(tmp_path, tmp_path / "bad").parquet("visits")
    assert names(tmp_path / "bad") == []
    sums.write_text("no list at all\n\xff\n")
    opened(tmp_path, tmp_path / "silent").parquet("visits")


def test_the_old_copy_goes_when_the_new_one_is_whole_and_only_that_of_the_same_source(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    source(tmp_path / "a")
    source(tmp_path / "b")
    old, other = (opened(tmp_path / root, cache).parquet("visits") for root in ("a", "b"))
    assert len(names(cache)) == 4
    source(tmp_path / "a", HEADER + "broken\n")
    with pytest.raises(SourceError):
        opened(tmp_path / "a", cache).parquet("visits")
    assert old.is_file()
    source(tmp_path / "a", HEADER + ROW * 3)
    new = opened(tmp_path / "a", cache).parquet("visits")
    assert not old.exists()
    assert names(cache) == sorted(
        path.with_suffix(suffix).name for path in (new, other) for suffix in (".parquet", ".json")
    )


def test_a_copy_in_use_stays_until_its_user_is_gone(tmp_path: Path) -> None:
    source(tmp_path)
    user = opened(tmp_path, tmp_path / "cache")
    old = user.parquet("visits")
    source(tmp_path, HEADER + ROW * 2)
    opened(tmp_path, tmp_path / "cache").parquet("visits")
    assert pq.read_table(old).num_rows == 1
    del user
    opened(tmp_path, tmp_path / "cache").parquet("visits")
    assert not old.exists()


@pytest.mark.parametrize("damage", ["no sidecar", "broken sidecar", "cut copy"])
def test_a_copy_that_is_not_whole_is_made_again(tmp_path: Path, damage: str) -> None:
    source(tmp_path)
    copy = opened(tmp_path, tmp_path / "cache").parquet("visits")
    if damage == "no sidecar":
        copy.with_suffix(".json").unlink()
    elif damage == "broken sidecar":
        copy.with_suffix(".json").write_text("{")
    else:
        copy.write_bytes(copy.read_bytes()[:-5])
    cache = opened(tmp_path, tmp_path / "cache")
    assert cache.known("visits") is None
    assert pq.read_table(cache.parquet("visits")).num_rows == 1
    assert cache.known("visits") is not None


def test_what_a_killed_conversion_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    source(tmp_path)
    cut_short = """
import os, signal, sys
from pathlib import Path
from symile_clin.sources import convert
from tests.sources.test_cache import opened
write = convert.read_csv
convert.read_csv = lambda *given: (os.kill(os.getpid(), signal.SIGKILL) for _ in [0])
opened(Path(sys.argv[1]), Path(sys.argv[1]) / "cache").parquet("visits")
"""
    ended = subprocess.run(
        [sys.executable, "-c", cut_short, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert ended.returncode == -signal.SIGKILL
    (left,) = names(tmp_path / "cache")
    assert left.startswith(".")
    copy = opened(tmp_path, tmp_path / "cache").parquet("visits")
    assert names(tmp_path / "cache") == [copy.with_suffix(".json").name, copy.name]


def test_drift_is_named_in_one_sentence_a_table() -> None:
    then = [
        {"table": "a", "file": "hosp/a.csv.gz", "bytes": 2341112, "changed_ns": 1, "rows": 7, "sha256": "x"},
        {"table": "b", "file": "b.csv.gz", "bytes": 5, "changed_ns": 1},
        {"table": "c", "file": "c.csv.gz", "bytes": 5, "changed_ns": 1},
        {"table": "d", "file": "d.csv.gz", "bytes": 5, "changed_ns": 1},
        {"table": "same", "file": "same.csv", "bytes": 5, "changed_ns": 1, "rows": 2},
    ]
    now = [
        {"table": "a", "file": "hosp/a.csv.gz", "bytes": 2341300, "changed_ns": 2},
        {"table": "b", "file": "b.csv", "bytes": 9, "changed_ns": 1},
        {"table": "c", "file": "c.csv.gz", "bytes": 5, "changed_ns": 2},
        {"table": "e", "file": "e.csv.gz", "bytes": 5, "changed_ns": 1},
        {"table": "same", "file": "same.csv", "bytes": 5, "changed_ns": 1},
    ]
    assert drift(then, now) == [
        "d.csv.gz is no longer used",
        "hosp/a.csv.gz changed since (2,341,112 bytes then, 2,341,300 now)",
        "b.csv takes the place of b.csv.gz",
        "c.csv.gz was written again since (5 bytes then and now)",
        "e.csv.gz is used now and was not then",
    ]
    assert drift(now, now) == []
    assert identities(then) == [{key: table[key] for key in ("table", "file", "bytes", "changed_ns")} for table in then]
