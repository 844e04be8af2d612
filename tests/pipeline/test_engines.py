"""Cohorts are equal whichever engine joins them, and say so where no file was looked into."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from symile_clin.data.store import open_cohort
from symile_clin.errors import CohortError, ConfigError
from symile_clin.pipeline import build_cohort, synth, train
from symile_clin.pipeline.engines import EngineName
from symile_clin.progress import Quiet

SETTINGS = ("splits.train=0.6", "splits.val=0.2", "candidates.n=2")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic patients."""
    folder = tmp_path_factory.mktemp("tree") / "synthetic"
    synth(out=folder, patients=60, seed=3, workers=1, progress=Quiet())
    return folder


def build(tree: Path, out: Path, *, engine: EngineName = "duckdb", tables_only: bool = False) -> str:
    """A cohort's hash."""
    result = build_cohort(
        spec="demo",
        mimic_iv=tree / "mimic-iv",
        mimic_cxr=tree / "mimic-cxr-jpg",
        mimic_ecg=tree / "mimic-iv-ecg",
        out=out,
        overrides=SETTINGS,
        workers=1,
        engine=engine,
        tables_only=tables_only,
        tracking_uri=None,
        progress=Quiet(),
    )
    assert result.tables_only is tables_only
    return result.hash


def test_all_directories_that_lack_are_asked_for_at_once() -> None:
    options = "--mimic-cxr DIR --mimic-ecg DIR --mimic-iv DIR"
    with pytest.raises(ConfigError, match=rf"Add {options}\.$"):  # its tables, too: --tables-only would not help
        build_cohort(spec="demo", tracking_uri=None, progress=Quiet())
    with pytest.raises(ConfigError, match=r"Add --mimic-cxr-dicom DIR, or look into no file with --tables-only\.$"):
        build_cohort(
            spec="demo",
            overrides=["modalities.cxr.files=dicom"],
            mimic_iv=Path(),
            mimic_cxr=Path(),
            mimic_ecg=Path(),
            tracking_uri=None,
            progress=Quiet(),
        )


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="no JDK: PySpark is not tested"
)
def test_pyspark_builds_the_cohort_that_duckdb_builds(tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    assert build(tree, tmp_path / "a", engine="pyspark") == build(tree, tmp_path / "b")
    cohort = open_cohort(tmp_path / "a")
    assert cohort.manifest["runtime"]["engine"] == "pyspark"
    assert cohort.manifest["inputs"] == open_cohort(tmp_path / "b").manifest["inputs"]
    assert not (Path.cwd() / "metastore_db").exists()
    assert not (Path.cwd() / "spark-warehouse").exists()


def test_a_cohort_of_tables_only_says_so_and_is_not_trained_on(tree: Path, tmp_path: Path) -> None:
    whole = build(tree, tmp_path / "whole")
    assert build(tree, tmp_path / "tables", tables_only=True) != whole
    cohort = open_cohort(tmp_path / "tables")
    assert cohort.manifest["source_files"] == "not checked"
    assert len(cohort.samples) >= len(open_cohort(tmp_path / "whole").samples)
    with pytest.raises(CohortError, match="tables only"):
        train(cohort=tmp_path / "tables", tracking_uri=None, progress=Quiet())


def test_options_of_another_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--spark-master"):
        build_cohort(spec="demo", out=tmp_path / "c", spark_master="local", tracking_uri=None, progress=Quiet())
    with pytest.raises(ConfigError, match="--bigquery-project"):
        build_cohort(
            spec="demo", out=tmp_path / "c", engine="bigquery", tables_only=True, tracking_uri=None, progress=Quiet()
        )
