"""The default engine stays within its memory and its folder, and gives the same answer on any number of threads."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import duckdb
import ibis
import pandas as pd
import pytest

from symile_clin.errors import ConfigError
from symile_clin.progress import Quiet
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.duckdb_catalog import DuckDbCatalog
from symile_clin.sources.memory import memory_bytes
from symile_clin.sources.spill import spill_folder
from tests.sources.test_catalog import HEADER, ROW, SPEC, write


def cache_of(folder: Path, rows: str = ROW) -> ParquetCache:
    (folder / "hosp").mkdir(exist_ok=True)
    write(folder / "hosp", HEADER + rows)
    return ParquetCache([SPEC], roots={"mimic_iv": folder}, directory=folder / "it's a cache", progress=Quiet())


#: What an expression could ask for; {out} is a folder that was not named, {cache} the one that was.
REFUSED: Final = (
    "FROM read_csv('{out}/secret.csv')",
    "FROM '{cache}/../secret.csv'",
    "FROM read_text('{out}/secret.csv')",
    "FROM read_blob('{out}/*')",
    "FROM read_json('{out}/secret.csv')",
    "FROM glob('{out}/*')",
    "FROM sniff_csv('{out}/secret.csv')",
    "FROM parquet_metadata('{out}/secret.csv')",
    "FROM query('FROM read_text(''{out}/secret.csv'')')",
    "FROM 'file://{out}/secret.csv'",
    "FROM 'http://127.0.0.1:{port}/x.csv'",
    "FROM 's3://bucket/x.parquet'",
    "COPY (SELECT 1) TO '{out}/out.csv'",
    "COPY (SELECT 1) TO '{out}/out.parquet'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "COPY kept FROM '{out}/secret.csv'",
    "EXPORT DATABASE '{out}/all'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{out}/other.db'",
    "ATTACH 'host=127.0.0.1 port={port}' AS remote (TYPE postgres)",
    "INSTALL httpfs",
    "INSTALL httpfs FROM 'http://127.0.0.1:{port}'",
    "FORCE INSTALL httpfs FROM community",
    "LOAD httpfs",
    "LOAD '{cache}/httpfs.duckdb_extension'",
)
LOCKED: Final = (
    "enable_external_access = true",
    "allowed_directories = ['/']",
    "lock_configuration = false",
    "memory_limit = '9GB'",
    "temp_directory = '/tmp'",
    "temp_file_encryption = false",
    "autoload_known_extensions = true",
    "autoinstall_known_extensions = true",
    "custom_extension_repository = 'http://127.0.0.1'",
    "home_directory = '/'",
    "log_query_path = '/tmp/log'",
    "profiling_output = '/tmp/profile'",
    "python_enable_replacements = true",
    "TimeZone = 'America/New_York'",
)


def test_the_engine_reads_and_writes_nothing_outside_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with a planted extension and a file of settings in the home directory either, and nobody is called."""
    home = tmp_path / "home"
    planted = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / "linux_amd64" / "httpfs.duckdb_extension"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"code")
    (home / ".duckdbrc").write_text(f"COPY (SELECT 1) TO '{tmp_path}/started.csv';")
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "secret.csv").write_text("a\n1\n")
    cache = cache_of(tmp_path)
    (cache.directory / planted.name).write_bytes(b"code")
    before = sorted(tmp_path.rglob("*"))
    catalog = DuckDbCatalog(cache)
    with socket.create_server(("127.0.0.1", 0)) as server, catalog:
        server.setblocking(False)
        frame = catalog.frame(
            catalog.keep("kept", catalog.table("visits").join(catalog.rows(pd.DataFrame({"id": [1, 2]})), "id"))
        )
        assert frame["id"].tolist() == [1]
        engine = catalog._engine
        places = {"out": tmp_path, "cache": str(cache.directory).replace("'", "''"), "port": server.getsockname()[1]}
        for query in REFUSED:
            with pytest.raises(duckdb.PermissionException):
                engine.raw_sql(query.format(**places))
        for setting in LOCKED:
            with pytest.raises(duckdb.InvalidInputException, match="locked"):
                engine.raw_sql(f"SET {setting}")
        with pytest.raises(duckdb.InvalidInputException, match="secrets are disabled"):
            engine.raw_sql("CREATE PERSISTENT SECRET key (TYPE http, BEARER_TOKEN 'x')")
        local = pd.DataFrame({"a": [1]})
        with pytest.raises(duckdb.CatalogException, match="local does not exist"):
            engine.raw_sql("FROM local")
        assert len(local) == 1
        with pytest.raises(BlockingIOError):  # nobody has knocked
            server.accept()
    made = set(tmp_path.rglob("*")) - set(before)
    assert {path.parent for path in made} == {cache.directory}
    assert {path.suffix for path in made} <= {".parquet", ".json", ".lock", ""}


def test_a_relative_cache_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_of(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    copies = ParquetCache([SPEC], roots={"mimic_iv": Path()}, directory=Path("link/.cache"), progress=Quiet())
    with DuckDbCatalog(copies) as catalog:
        assert len(catalog.frame(catalog.table("visits"))) == 1


def test_an_engine_without_enough_memory_says_which_option_to_raise(tmp_path: Path) -> None:
    with DuckDbCatalog(cache_of(tmp_path), memory="64MB", threads=1) as catalog:
        many = ibis.range(0, 1_100_000).unnest().name("n").as_table()
        everything = many.group_by(half=many["n"] % 2).aggregate(all=many["n"].cast(str).repeat(20).collect())
        with pytest.raises(ConfigError, match=r"cannot be joined within 64MB of memory.*--memory"):
            catalog.frame(everything)


def test_the_spill_folder_is_private_and_goes_with_the_catalog(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    with DuckDbCatalog(cache):
        (folder,) = cache.directory.glob("spill-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(cache.directory.glob("spill-*"))


def test_what_is_spilled_cannot_be_read_and_changes_no_answer(tmp_path: Path) -> None:
    """Looked for while it is there: with `temp_file_encryption` off, its files hold the word 80,000 times."""
    rows = ibis.range(0, 1_100_000).unnest().name("n").as_table()
    names = rows.mutate(name=ibis.literal("CANARY") + (rows["n"] * 7919 % 1_000_003).cast(str) + "x" * 60)
    counted = []
    for memory in ("64MB", "2GB"):
        cache = cache_of(tmp_path)
        with DuckDbCatalog(cache, memory=memory, threads=1) as catalog:
            kept = catalog.keep("kept", names)
            (folder,) = cache.directory.glob("spill-*")
            spilled = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
            assert (len(spilled) > 1_000_000) == (memory == "64MB")
            assert spilled.count(b"CANARY") == 0
            answer = kept.aggregate(n=kept["n"].sum(), first=kept["name"].min(), last=kept["name"].max())
            counted.append(catalog.frame(answer))
    assert counted[0].equals(counted[1])


def test_spill_folders_of_killed_builds_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    waits = """
import sys, time
from pathlib import Path
from symile_clin.sources.spill import spill_folder
with spill_folder(Path(sys.argv[1])) as folder:
    (folder / "rows").write_text("patients")
    print(folder, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", waits, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        with spill_folder(tmp_path) as mine, spill_folder(tmp_path):
            assert left.is_dir()
            assert mine.is_dir()
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert left.is_dir()
    with spill_folder(tmp_path):
        assert not left.exists()


def test_answers_are_equal_on_any_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symile_clin.sources.convert.ROWS_PER_GROUP", 4096)
    rows = "".join(f"{n},2150-01-01 00:00:{n % 60:02d},{n % 97}.5,n{n % 13},,\n" for n in range(60_000))
    cache = cache_of(tmp_path, rows)
    answers = []
    for threads in (1, 2, 8):
        with DuckDbCatalog(cache, threads=threads) as catalog:
            visits = catalog.table("visits")
            first = ibis.row_number().over(group_by="note", order_by=["time", visits["value"].desc(), "id"])
            ranked = catalog.keep("ranked", visits.mutate(rank=first).filter(lambda table: table["rank"] < 50))
            answers.append((catalog.frame(ranked.order_by("note", "rank")), catalog.frame(visits.select("id"))))
    assert all(one.equals(answers[0][0]) for one, _ in answers)
    assert all(rows_read["id"].tolist() == list(range(60_000)) for _, rows_read in answers)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * 10**9), ("512MB", 512 * 10**6), ("1.5GiB", 3 << 29), ("2 gb", 2 * 10**9), ("1TB", 10**12)],
)
def test_amounts_of_memory_are_understood(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "2", "2G B", "GB", "-2GB", "2GB; SET x", "80%", "1e3GB", "nanGB", "٢GB", "2GBs"])
def test_other_words_are_no_amount_of_memory(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no amount of memory.*such as 2GB or 512MB"):
        memory_bytes(text)


def test_too_little_memory_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"10MB of memory is too little. Expected 64MB at least"):
        memory_bytes("10MB")
