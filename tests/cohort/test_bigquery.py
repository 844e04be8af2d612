"""BigQuery's SQL, compiled here; never run on BigQuery, but parsed, translated and run on DuckDB."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp

from symile_clin.cohort.build import Assembled, assemble
from symile_clin.cohort.events import count_events
from symile_clin.cohort.workers import Workers
from symile_clin.errors import ConfigError, SourceError
from symile_clin.modalities.registry import ROOMS
from symile_clin.pipeline import cohort_sql
from symile_clin.pipeline.inputs import source_tables
from symile_clin.progress import Quiet
from symile_clin.sources.bigquery_catalog import BigQueryCatalog, Connection, Google, Transcript
from symile_clin.sources.cache import ParquetCache
from symile_clin.sources.catalog import Catalog
from symile_clin.sources.duckdb_catalog import DuckDbCatalog
from symile_clin.sources.tables import TableSpec
from symile_clin.sources.tables_only import TablesOnly
from tests.cohort.tree import ADMITTED, HOUR, TABLES, Tree, tiny_spec

DAY = timedelta(days=1)
_SQL_TYPES = {"int": "BIGINT", "float": "DOUBLE", "text": "VARCHAR", "time": "TIMESTAMP", "date": "DATE"}


class Translated(Connection):
    """Runs BigQuery's SQL on DuckDB, in catalogs and schemas of the same names."""

    scratch = "mine.scratch"

    def __init__(self) -> None:
        self.duckdb = duckdb.connect()
        for project, datasets in {
            "physionet-data": ("mimiciv_3_1_hosp", "mimiciv_3_1_icu", "mimic_cxr", "mimiciv_ecg"), "mine": ("scratch",),
        }.items():  # fmt: skip
            self.duckdb.execute(f"ATTACH ':memory:' AS \"{project}\"")
            for dataset in datasets:
                self.duckdb.execute(f'CREATE SCHEMA "{project}".{dataset}')

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.duckdb.close()

    def query(self, sql: str, schema: pa.Schema) -> pa.Table:
        return self.duckdb.sql(translate(sql)).to_arrow_table().cast(schema)

    def keep(self, name: str, sql: str) -> None:
        self.duckdb.execute(f"CREATE TABLE {self.scratch}.{name} AS {translate(sql)}")

    def load(self, name: str, rows: pa.Table) -> None:
        self.duckdb.register("rows_to_load", rows)
        self.duckdb.execute(f"CREATE TABLE {self.scratch}.{name} AS SELECT * FROM rows_to_load")
        self.duckdb.unregister("rows_to_load")


def translate(sql: str) -> str:
    (statement,) = sqlglot.parse(sql, read="bigquery")
    assert statement is not None
    return str(statement.transform(_short_length).sql("duckdb"))


def _short_length(node: Any) -> Any:
    """DuckDB pads to a length of 32 bits."""
    if isinstance(node, exp.Pad):
        node.set("expression", exp.cast(node.expression, "int"))
    return node


def fill(connection: Translated, tree: Tree, *, ids: str) -> None:
    """The tree's rows as BigQuery's tables: of X-rays, the DICOM headers' texts, with the zeros of their times."""
    for spec in TABLES:
        rows = tree.rows[spec.name]
        for remote in spec.remote:
            own = set(remote.columns) if len(spec.remote) > 1 and remote.columns else set(spec.columns)
            names = {column: remote.columns.get(column, column) for column in spec.columns if column in own}
            kinds = {
                column: "VARCHAR" if remote.loose else ids if column.endswith("_id") and spec.columns[column] == "int"
                else _SQL_TYPES[spec.columns[column]]
                for column in names
            }  # fmt: skip
            columns = ", ".join(f'"{names[column]}" {kinds[column]}' for column in names)
            project, dataset, table = remote.name.split(".")
            place = f'"{project}".{dataset}.{table}'
            connection.duckdb.execute(f"CREATE TABLE {place} ({columns})")
            values = [[_remote(column, row.get(column), loose=remote.loose) for column in names] for row in rows]
            if values:
                connection.duckdb.executemany(f"INSERT INTO {place} VALUES ({', '.join('?' * len(names))})", values)


def _remote(column: str, value: Any, *, loose: bool) -> Any:
    if value == "" or value is None:
        return None
    if loose and column == "StudyTime":
        whole, _, rest = f"{value:.3f}".partition(".")
        return f"{whole.zfill(6)}.{rest}"
    return str(value) if loose else value


def rich(root: Path) -> Tree:
    """Admissions that qualify, that do not, ties, repeated labels, impossible times, other views."""
    tree = Tree(root)
    for place in range(4):
        tree.complete(10_000_001 + place, 20_000_001 + place, ADMITTED + place * HOUR)
    tree.complete(10_000_001, 20_000_009, ADMITTED + DAY)
    tree.admission(10_000_007, 20_000_007)
    tree.xray(10_000_002, 50_000_101, ADMITTED + 31 * HOUR, image=1)
    tree.xray(10_000_002, 50_000_101, ADMITTED + 31 * HOUR, image=2, view="LATERAL", labels=2)
    tree.xray(10_000_002, 50_000_102, ADMITTED, labels=0, StudyDate=21500303, StudyTime=405.0)
    impossible: list[dict[str, Any]] = [{"StudyTime": 246000.0}, {"StudyDate": 21500230}, {"StudyTime": None}]
    for number, columns in enumerate(impossible):
        tree.xray(10_000_003, 50_000_110 + number, ADMITTED + 30 * HOUR, **columns)
    tree.rows["cxr_chexpert"].append({"subject_id": 10_000_002, "study_id": 50_000_101, "Edema": 1.0})
    for study in (40_000_101, 40_000_102):
        tree.ecg(10_000_003, study, ADMITTED)
    for value in (None, -1.5, 0.1):
        tree.lab(10_000_003, ADMITTED - HOUR, value)
    tree.lab(10_000_003, ADMITTED, 3.0, item=1, hadm_id=5)
    return tree


def run(catalog: Catalog, tree: Tree, name: str, take: str) -> tuple[Assembled, pd.DataFrame]:
    spec = tiny_spec(*(f"modalities.{room}.take={take}" for room in ("cxr", "ecg", "labs")))
    modalities = spec.make_modalities(ROOMS)
    with TablesOnly(catalog) as tables, Workers(1) as pool:
        built = assemble(
            spec, modalities, catalog=tables, work=tree.root / f"work-{name}", workers=pool, progress=Quiet()
        )
        counted = [
            count_events(
                modality, spec.modalities[room].window, catalog=tables, index=built.index, samples=built.samples,
                chosen=built.chosen[room], refused=built.attrition.refused,
            )
            for room, modality in modalities.items()
        ]  # fmt: skip
    return built, pd.concat(counted, ignore_index=True)


def specs() -> list[TableSpec]:
    spec = tiny_spec()
    return source_tables(spec, spec.make_modalities(ROOMS))


@pytest.mark.parametrize(
    ("ids", "take"),
    [
        ("VARCHAR", "nearest"),
        pytest.param("BIGINT", "earliest", marks=pytest.mark.slow),
        pytest.param("BIGINT", "latest", marks=pytest.mark.slow),
    ],
)
def test_translated_sql_gives_the_cohort_that_duckdb_gives(tmp_path: Path, ids: str, take: str) -> None:
    tree = rich(tmp_path)
    cache = ParquetCache(specs(), roots=tree.write(), directory=tmp_path / "cache", progress=Quiet())
    local, local_counts = run(DuckDbCatalog(cache, threads=1), tree, "local", take)
    connection = Translated()
    fill(connection, tree, ids=ids)
    remote, remote_counts = run(BigQueryCatalog(specs(), connection, roots={}), tree, "remote", take)
    pd.testing.assert_frame_equal(local.samples, remote.samples)
    pd.testing.assert_frame_equal(local.index, remote.index)
    pd.testing.assert_frame_equal(local.attrition.table(), remote.attrition.table())
    pd.testing.assert_frame_equal(local_counts, remote_counts)
    for room in local.chosen:
        pd.testing.assert_frame_equal(local.chosen[room], remote.chosen[room])
    assert len(local.samples) > 3


@pytest.fixture(scope="module")
def compiled() -> Mapping[str, str]:
    steps = cohort_sql(spec="symile_mimic", progress=Quiet()).steps
    return {f"{step.stage}: {step.action} {number}": step.sql for number, step in enumerate(steps) if step.sql}


def test_every_step_parses_as_bigquery_sql(compiled: Mapping[str, str]) -> None:
    assert len(compiled) > 15
    for sql in compiled.values():
        (statement,) = sqlglot.parse(sql, read="bigquery")
        assert statement is not None
        assert statement.sql("bigquery")


def test_times_without_a_zone_are_never_taken_for_timestamps(compiled: Mapping[str, str]) -> None:
    """BigQuery has no such signatures; ibis compiles one."""
    assert "DATETIME_ADD" in "".join(compiled.values())
    assert not [sql for sql in compiled.values() if "TIMESTAMP" in sql]


def test_tables_are_those_of_physionet(compiled: Mapping[str, str]) -> None:
    found = set(re.findall(r"`physionet-data`\.`(\w+)`\.`(\w+)`", "".join(compiled.values())))
    assert found == {
        ("mimiciv_3_1_hosp", "admissions"), ("mimiciv_3_1_hosp", "patients"), ("mimiciv_3_1_hosp", "labevents"),
        ("mimic_cxr", "record_list"), ("mimic_cxr", "dicom_metadata_string"), ("mimic_cxr", "chexpert"),
        ("mimiciv_ecg", "record_list"),
    }  # fmt: skip


def test_a_table_can_be_elsewhere() -> None:
    sql = cohort_sql(bigquery_tables=["labevents=my-project.mine.labs"], progress=Quiet()).text()
    assert "`my-project`.`mine`.`labs`" in sql
    assert "`labevents`" not in sql


@pytest.mark.parametrize(("option", "message"), [("labs=a.b.c", "no table 'labs'"), ("labevents=x", "no table of BigQ"),
                                                 ("labevents", "names no table"),
                                                 ("labevents=a.b.c`; x", "no table")])  # fmt: skip
def test_a_table_that_is_none_is_refused(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cohort_sql(bigquery_tables=[option], progress=Quiet())


def test_a_table_that_bigquery_has_not_is_named() -> None:
    spec = TableSpec("other", "mimic_iv", "other.csv", {"a": "int"}, ("a",))
    with pytest.raises(SourceError, match="not known in BigQuery"):
        BigQueryCatalog([spec], Transcript(), roots={}).table("other")


def test_without_a_project_or_package_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--bigquery-project"):
        Google(None)
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    with pytest.raises(ConfigError, match=r"symile-clin\[bigquery\]"):
        Google("mine")
