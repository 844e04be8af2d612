"""The same expressions on PySpark as on DuckDB: frames equal row for row, dtype for dtype."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pytest

from symile_clin.cohort.spark_workers import SparkWorkers
from symile_clin.cohort.window import inside, rank_events
from symile_clin.errors import ConfigError, WorkerError
from symile_clin.modalities.cxr.events import xray_events
from symile_clin.modalities.ecg.events import ecg_events
from symile_clin.modalities.labs.events import lab_events
from symile_clin.progress import Quiet
from symile_clin.schema import EVENT_ID, KEY, RANK, SAMPLE_ID
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.duckdb_catalog import DuckDbCatalog
from symile_clin.sources.spark_catalog import SparkCatalog
from symile_clin.sources.spark_session import spark_session
from tests.cohort.rich import rich_index, rich_tables

if TYPE_CHECKING:
    import ibis.expr.types as ir

pytest.importorskip("pyspark", reason="PySpark is not installed: nothing of that engine is tested")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("no JDK: nothing of PySpark is tested", allow_module_level=True)

pytestmark = pytest.mark.slow
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One session for all tests: it takes ten seconds to start."""
    with spark_session(threads=2, memory="1GB", directory=tmp_path_factory.mktemp("spark")) as session:
        yield session


@pytest.fixture(scope="module")
def engines(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Catalog, Catalog]]:
    """DuckDB and PySpark, without tables of their own."""
    cache = ParquetCache([], roots={}, directory=tmp_path_factory.mktemp("cache"), progress=Quiet())
    with DuckDbCatalog(cache, threads=1) as duckdb, SparkCatalog(cache, spark) as pyspark:
        yield duckdb, pyspark


def rooms(catalog: Catalog, tables: Mapping[str, pd.DataFrame]) -> dict[str, ir.Table]:
    """Events of each room."""
    rows = {name: catalog.rows(frame) for name, frame in tables.items()}
    return {
        "cxr": xray_events(
            rows["cxr_metadata"], rows["cxr_chexpert"], views=["AP", "PA"], only_labelled=True, suffix=".jpg"
        ),
        "ecg": ecg_events(rows["ecg_records"]),
        "labs": lab_events(rows["labevents"], items=[50_900, 50_901, 50_903]),
    }


@pytest.mark.parametrize("room", ["cxr", "ecg", "labs"])
def test_rooms_make_equal_events_of_every_quirk(engines: tuple[Catalog, Catalog], room: str) -> None:
    frames = [sorted_rows(catalog.frame(rooms(catalog, rich_tables())[room])) for catalog in engines]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert frames[0]["eligible"].nunique() == 2, "both kinds are among the rows"
    assert frames[0]["ineligible_reason"].nunique() == {"cxr": 5, "ecg": 3, "labs": 4}[room]


@pytest.mark.parametrize("take", ["earliest", "latest", "nearest"])
@pytest.mark.parametrize("room", ["cxr", "ecg", "labs"])
def test_windows_and_ranks_are_equal(
    engines: tuple[Catalog, Catalog], room: str, take: Literal["earliest", "latest", "nearest"]
) -> None:
    frames = []
    borders = {"include_start": take == "latest", "include_end": take != "nearest"}
    for catalog in engines:
        events = rooms(catalog, rich_tables())[room]
        ranked = rank_events(
            catalog.rows(rich_index()), events.filter(events.eligible), start=-DAY, end=7 * DAY, take=take, **borders
        )
        kept = catalog.keep(f"ranked_{room}_{take}", ranked)
        frames.append(catalog.frame(kept.order_by([SAMPLE_ID, KEY, RANK])))
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert frames[0][RANK].max() > 1


def test_semi_and_anti_joins_are_equal(engines: tuple[Catalog, Catalog]) -> None:
    counts = []
    for catalog in engines:
        events = rooms(catalog, rich_tables())["ecg"]
        events = events.filter(events.eligible)
        index = catalog.rows(rich_index())
        condition = inside(index, events, start=-DAY, end=DAY, include_start=True, include_end=False)
        gone = catalog.rows(pd.DataFrame({EVENT_ID: pd.Series([400, 401], dtype="Int64"), KEY: [0, 0]}))
        parts = [events.semi_join(index, condition), events.anti_join(gone, [EVENT_ID, KEY])]
        counts.append([len(catalog.frame(part)) for part in parts])
    assert counts[0] == counts[1]
    assert all(counts[0])


def test_a_frame_comes_back_as_it_went_in(engines: tuple[Catalog, Catalog]) -> None:
    for catalog in engines:
        for frame in (*rich_tables().values(), rich_index()):
            back = catalog.frame(catalog.rows(frame))
            plain = [name for name in frame if frame[name].dtype == "Float64"]
            expected = frame.assign(
                **{str(name): frame[name].to_numpy("float64", na_value=float("nan")) for name in plain}
            )
            pd.testing.assert_frame_equal(sorted_rows(back), sorted_rows(expected))


def sorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order of their own."""
    order = frame.apply(lambda row: "\x1f".join(repr(value) for value in row), axis="columns").argsort()
    return frame.iloc[order].reset_index(drop=True)


def test_a_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match=r"symile-clin\[spark\]"), spark_session(directory=tmp_path):
        pass


def test_a_second_application_in_one_process_is_refused(spark: Any, tmp_path: Path) -> None:
    assert spark is not None
    with pytest.raises(ConfigError, match="runs Spark already"), spark_session(directory=tmp_path):
        pass


def doubled(items: Sequence[int]) -> list[int]:
    """What an executor does; 13 is an error, 66 the end of its process."""
    for item in items:
        if item == 13:
            raise ConfigError("thirteen", remedy="Take another")
        if item == 66:
            os.kill(os.getpid(), signal.SIGKILL)
    return [2 * item for item in items]


def lost(item: int) -> int:
    """The answer about an item that killed its process."""
    return -item


def test_results_of_executors_come_in_order(spark: Any) -> None:
    assert list(SparkWorkers(spark).map(doubled, range(100, 400), chunk=7)) == list(range(200, 800, 2))


def test_an_exception_in_an_executor_is_raised_here_with_its_remedy(spark: Any) -> None:
    with pytest.raises(ConfigError, match="Take another"):
        list(SparkWorkers(spark).map(doubled, range(20), chunk=4))


def test_an_item_that_kills_its_executor_is_answered_for_and_the_others_are_done(spark: Any) -> None:
    workers = SparkWorkers(spark)
    assert list(workers.map(doubled, [1, 66, 2, 3], chunk=2, died=lost)) == [2, -66, 4, 6]
    with pytest.raises(WorkerError, match="gave a task up"):
        list(workers.map(doubled, [66], chunk=2))
