"""Cohorts of MIMIC-CXR's DICOMs: the same samples as of the JPGs, and pictures that are near."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from symile_clin.cli import run
from symile_clin.data.store import open_cohort
from symile_clin.errors import ConfigError
from symile_clin.pipeline.cohorts import BuildResult, build_cohort
from symile_clin.pipeline.synthesis import synth
from symile_clin.progress import Quiet

Build = Callable[..., BuildResult]
PATIENTS = 25
SOURCES = {"mimic_iv": "mimic-iv", "mimic_cxr": "mimic-cxr-jpg", "mimic_ecg": "mimic-iv-ecg"}
DICOM = ("modalities.cxr.files=dicom",)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "tree"
    synth(out=out, patients=PATIENTS, seed=3, dicom=True, workers=1, progress=Quiet())
    return out


@pytest.fixture
def build(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build the demo's cohort from the tree in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, out: str, dicom: Path | None = None) -> BuildResult:
        roots: dict[str, Any] = {source: tree / folder for source, folder in SOURCES.items()}
        return build_cohort(
            spec="demo", overrides=("candidates.n=2", *overrides), mimic_cxr_dicom=dicom, out=Path(out), workers=1,
            tracking_uri=None, progress=Quiet(), **roots,
        )  # fmt: skip

    return call


def _pictures(result: BuildResult) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Samples by image, and their pictures."""
    cohort = open_cohort(result.path)
    samples = cohort.samples.set_index("cxr_dicom_id").sort_index()
    return samples, cohort.array("cxr", "image").take(samples["row"].to_numpy())


def test_a_dicom_cohort_has_the_samples_of_the_jpgs_and_pictures_that_are_near(build: Build, tree: Path) -> None:
    jpg, jpg_pictures = _pictures(build(out="jpg"))
    dicom, dicom_pictures = _pictures(build(*DICOM, out="dicom", dicom=tree / "mimic-cxr"))
    # the tree's faults, which are missing and damaged files, are in the JPGs alone
    shared = jpg.index.intersection(dicom.index)
    assert len(shared) > 0.9 * len(jpg)
    assert len(dicom) > len(jpg)
    assert dicom["cxr_path"].str.endswith(".dcm").all()
    pd.testing.assert_series_equal(jpg["cxr_height"][shared], dicom["cxr_height"][shared])
    ours = dicom_pictures[dicom.index.get_indexer(shared)].astype(int)
    difference = np.abs(ours - jpg_pictures[jpg.index.get_indexer(shared)])
    assert difference.any()
    assert difference.mean() < 1
    assert difference.max() < 32


def test_voi_is_another_cohort(build: Build, tree: Path) -> None:
    recipe = build(*DICOM, out="recipe", dicom=tree / "mimic-cxr")
    voi = build(*DICOM, "modalities.cxr.dicom=voi", out="voi", dicom=tree / "mimic-cxr")
    assert recipe.hash != voi.hash
    assert np.abs(_pictures(recipe)[1].astype(int) - _pictures(voi)[1]).mean() > 5


def test_the_lists_of_the_dicoms_are_not_asked_for(build: Build, tree: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    whole = build(*DICOM, out="whole", dicom=tree / "mimic-cxr")
    lists = list((tree / "mimic-cxr").glob("*.csv.gz"))
    assert lists
    for table in lists:
        table.rename(hidden / table.name)
    try:
        assert build(*DICOM, out="bare", dicom=tree / "mimic-cxr").hash == whole.hash
    finally:
        for table in lists:
            (hidden / table.name).rename(table)


def test_dicoms_that_are_asked_for_and_not_given(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"given for mimic_cxr_dicom\. Add --mimic-cxr-dicom DIR"):
        build(*DICOM, out="cohort")


def test_dicoms_that_are_given_and_not_asked_for(build: Build, tree: Path) -> None:
    with pytest.raises(ConfigError, match="--mimic-cxr-dicom was given, but the spec reads nothing of it") as error:
        build(out="cohort", dicom=tree / "mimic-cxr")
    assert "--set modalities.cxr.files=dicom" in str(error.value)


def test_the_command_says_the_same(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [part for source, folder in SOURCES.items()
               for part in (f"--{source.replace('_', '-')}", str(tree / folder))]  # fmt: skip
    given = ["--mimic-cxr-dicom", str(tree / "mimic-cxr")]
    assert run(["cohort", "build", "demo", *sources, *given, "--no-tracking", "--out", str(tmp_path / "c")]) == 2
    assert "files=dicom" in capsys.readouterr().err
