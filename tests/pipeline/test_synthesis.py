"""The synthetic tree as a whole: MIMIC's files, the same for any number of processes, never half-written."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from symile_clin import files
from symile_clin.errors import ConfigError
from symile_clin.pipeline import synthesis as command
from symile_clin.pipeline.synthesis import SynthResult, synth
from symile_clin.progress import Quiet

PATIENTS = 24  # two chunks

#: First lines as the releases have them.
HEADERS = {
    "mimic-iv/hosp/patients.csv.gz": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "mimic-iv/hosp/admissions.csv.gz": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,"
    "admit_provider_id,admission_location,discharge_location,insurance,language,marital_status,race,edregtime,"
    "edouttime,hospital_expire_flag",
    "mimic-iv/icu/icustays.csv.gz": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "mimic-iv/hosp/labevents.csv.gz": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,"
    "storetime,value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
    "mimic-iv/hosp/d_labitems.csv.gz": "itemid,label,fluid,category",
    "mimic-cxr-jpg/mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
    "ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning",
    "mimic-cxr-jpg/mimic-cxr-2.0.0-chexpert.csv.gz": "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,"
    "Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,"
    "Pneumothorax,Support Devices",
    "mimic-iv-ecg/record_list.csv": "subject_id,study_id,file_name,ecg_time,path",
}


def _synth(out: Path, **changes: Any) -> SynthResult:
    arguments: dict[str, Any] = {"patients": PATIENTS, "seed": 0, "workers": 1, "progress": Quiet()}
    return synth(out=out, **{**arguments, **changes})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic tree."""
    out = tmp_path_factory.mktemp("synthetic") / "tree"
    _synth(out)
    return out


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def test_tables_have_the_releases_headers_and_lie_where_they_lie(tree: Path) -> None:
    for name, header in HEADERS.items():
        path = tree / name
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = text.decode().split("\n")
        assert lines[0] == header
        widths = {len(row) for row in csv.reader(lines[:-1])}
        assert widths == {header.count(",") + 1}
        assert lines[-1] == ""
    assert not (tree / "mimic-cxr").exists()


def test_tables_refer_to_each_other_and_to_files(tree: Path) -> None:
    patients = _table(tree / "mimic-iv/hosp/patients.csv.gz")
    admissions = _table(tree / "mimic-iv/hosp/admissions.csv.gz")
    events = _table(tree / "mimic-iv/hosp/labevents.csv.gz")
    metadata = _table(tree / "mimic-cxr-jpg/mimic-cxr-2.0.0-metadata.csv.gz")
    records = _table(tree / "mimic-iv-ecg/record_list.csv")
    truth = pd.read_parquet(tree / "truth.parquet")
    manifest = files.read_manifest(tree)
    assert manifest is not None
    assert len(patients) == PATIENTS == patients["subject_id"].nunique()
    for table in (admissions, events, metadata, records):
        assert set(table["subject_id"]) <= set(patients["subject_id"])
    assert sorted(truth["hadm_id"].astype(str)) == sorted(admissions["hadm_id"])
    assert list(truth.columns[1:]) == ["cxr_0", "cxr_1", "cxr_2", "cxr_3"] + [
        f"{query}_{j}" for query in manifest["planted"]["queries"] for j in range(3)
    ]
    assert set(truth.iloc[:, 1:].to_numpy().ravel()) == {0, 1}
    assert events["labevent_id"].is_unique
    assert len(events) == manifest["rows"]["labevents"]
    assert records["path"].map(lambda path: (tree / "mimic-iv-ecg" / f"{path}.dat").is_file()).all()
    times = metadata.groupby("study_id")[["StudyDate", "StudyTime"]].nunique()
    assert (times == 1).all(axis=None)
    assert (metadata.groupby("study_id").size() > 1).any()


def test_any_number_of_processes_writes_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    _synth(tmp_path / "tree", workers=2)
    ours = {path.relative_to(tree): path for path in tree.rglob("*") if path.is_file()}
    others = {path.relative_to(tmp_path / "tree"): path for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    assert set(ours) == set(others)
    assert all(ours[name].read_bytes() == others[name].read_bytes() for name in ours)


def test_the_same_tree_is_not_written_twice_and_another_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "tree"
    first = _synth(out, patients=1)
    written = (out / "manifest.json").stat().st_mtime_ns
    again = _synth(out, patients=1)
    assert (first.skipped, again.skipped) == (False, True)
    assert again.rows == first.rows
    assert (out / "manifest.json").stat().st_mtime_ns == written
    other = _synth(out, patients=1, seed=1, dicom=True)
    assert not other.skipped
    assert list((out / "mimic-cxr").rglob("*.dcm"))
    assert (out / "mimic-cxr/cxr-record-list.csv.gz").is_file()


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and not a synthetic tree"):
        _synth(tmp_path, patients=1)
    files.write_manifest(tmp_path / "cohort", stage="cohort", content={})
    with pytest.raises(ConfigError, match="holds a cohort"):
        _synth(tmp_path / "cohort", patients=1)
    with pytest.raises(ConfigError, match="100,001 synthetic patients"):
        _synth(tmp_path / "new", patients=100_001)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(out: Path, **_: Any) -> dict[str, int]:
        (out / "half").write_text("written")
        raise OSError("disk full")

    monkeypatch.setattr(command, "write_tree", fail)
    with pytest.raises(OSError, match="disk full"):
        _synth(tmp_path / "tree", patients=1)
    assert [path.name for path in tmp_path.iterdir()] == [".tree.lock"]


def test_the_result_says_what_a_perfect_model_could_reach(tree: Path) -> None:
    result = _synth(tree)
    assert result.skipped
    assert result.ceilings["pairs"] <= 0.35 < 0.65 <= result.ceilings["full"]
    assert f"{result.ceilings['pairs']:.3f} from pairs alone" in result.text()
    assert f"{PATIENTS} patients" in result.text()
    assert result.record()["path"] == str(tree)


def test_writing_patients_never_loads_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from symile_clin.pipeline.synthesis import synth; "
        "from symile_clin.progress import Quiet; "
        f"synth(out=Path({str(tmp_path / 'tree')!r}), patients=1, seed=0, dicom=True, workers=1, progress=Quiet()); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
