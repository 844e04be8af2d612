"""Releases are told from what lies in a directory, by the strongest evidence, and never guessed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from symile_clin import files
from symile_clin.sources.versions import Release, detect, detect_all, unlike_the_paper

LABEVENTS = "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime\n"
PATIENTS = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"


def hospital(root: Path, *, labevents: str = LABEVENTS, groups: tuple[str, ...] = ("2008 - 2010",)) -> Path:
    """The two tables that tell MIMIC-IV's releases apart."""
    folder = root / "hosp"
    folder.mkdir(parents=True)
    (folder / "labevents.csv.gz").write_bytes(gzip.compress(labevents.encode()))
    rows = "".join(f"{10_000_000 + n},F,60,2150,{group},\n" for n, group in enumerate(groups))
    (folder / "patients.csv.gz").write_bytes(gzip.compress((PATIENTS + rows).encode()))
    return root


def named(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir(parents=True)
    return path


def test_a_folder_that_shows_nothing_holds_an_unknown_release(tmp_path: Path) -> None:
    for source in ("mimic_iv", "mimic_cxr", "mimic_ecg"):
        for root in (tmp_path, tmp_path / "missing"):
            release = detect(source, root)
            assert (release.version, release.evidence) == (None, "nothing in it tells")
            assert "(version unknown)" in release.text()


@pytest.mark.parametrize(
    ("source", "folder", "version"),
    [
        ("mimic_iv", "mimiciv/3.1", "3.1"),
        ("mimic_iv", "mimiciv/2.2", "2.2"),
        ("mimic_iv", "mimic-iv-2.2", "2.2"),
        ("mimic_iv", "MIMIC_IV/v2.2", "2.2"),
        ("mimic_iv", "data/2.2", None),  # of what?
        ("mimic_iv", "mimic-iv-ecg/1.0", None),
        ("mimic_iv", "mimiciv/3.1.old", None),
        ("mimic_iv", "mimiciv/2023", None),
        ("mimic_cxr", "mimic-cxr-jpg/2.1.0", "2.1.0"),
        ("mimic_cxr", "mimic-cxr-jpg-2.0.0.physionet.org", "2.0.0"),
        ("mimic_cxr", "mimic-cxr-jpg-chest-radiographs-with-structured-labels-2.0.0", "2.0.0"),
        ("mimic_cxr", "mimic-cxr/2.0.0", None),  # the DICOM project's name, but nothing of it inside
        ("mimic_ecg", "mimic-iv-ecg/1.0", "1.0"),
        ("mimic_ecg", "mimic-iv-ecg-diagnostic-electrocardiogram-matched-subset-1.0", "1.0"),
    ],
)
def test_the_directory_name_tells_if_it_is_one_of_a_download(
    tmp_path: Path, source: str, folder: str, version: str | None
) -> None:
    assert detect(source, named(tmp_path, folder)).version == version


def test_a_link_is_followed_to_the_download_it_names(tmp_path: Path) -> None:
    (tmp_path / "iv").symlink_to(named(tmp_path, "mimiciv/2.2"))
    assert detect("mimic_iv", tmp_path / "iv").version == "2.2"


@pytest.mark.parametrize("heading", ["## MIMIC-IV v2.2", "# [2.2] - 2023-01-06", "v2.2", "Version 2.2:", "2.2 (2023)"])
def test_the_newest_heading_of_a_changelog_tells(tmp_path: Path, heading: str) -> None:
    """Whatever the order; doses and dates in it are none."""
    others = "v2.0\n\n- took 3.5 mg out of prescriptions\n2.9 million rows\n"
    text = f"# Changelog\n\n{others}\n{heading}\n\n## 12.06.2022\nv1.0\n"
    (tmp_path / "CHANGELOG.txt").write_text(text)
    release = detect("mimic_iv", tmp_path)
    assert (release.version, release.evidence) == ("2.2", "the newest entry of CHANGELOG.txt")


def test_a_release_s_own_file_outweighs_the_directory_s_name(tmp_path: Path) -> None:
    root = named(tmp_path, "mimic-cxr-jpg/2.0.0")
    assert detect("mimic_cxr", root).version == "2.0.0"
    (root / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text("study_id\n")
    assert detect("mimic_cxr", root).version == "2.1.0"


@pytest.mark.parametrize("last", [True, False])
def test_sums_that_name_a_release_s_own_file_tell(tmp_path: Path, last: bool) -> None:
    own = "00ff mimic-cxr-2.1.0-test-set-labeled.csv\n"
    others = "".join(f"{n:064x} files/p10/image{n}.jpg\n" for n in range(20_000))  # more than one block
    (tmp_path / "SHA256SUMS.txt").write_text(others + own if last else own + others)
    assert detect("mimic_cxr", tmp_path).version == "2.1.0"
    (tmp_path / "SHA256SUMS.txt").write_text(others + own.replace(".csv", ".csv.bak"))
    assert detect("mimic_cxr", tmp_path).version is None


def test_a_readme_s_prose_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("MIMIC-CXR-JPG v2.0.0 is a large dataset")
    assert detect("mimic_cxr", tmp_path).version is None


@pytest.mark.parametrize(
    ("labevents", "groups", "evidence"),
    [
        (LABEVENTS, ("2008 - 2010",), "2.1 or later by labevents' order_provider_id"),
        (
            LABEVENTS.replace("order_provider_id,", ""),
            ("2017 - 2019",),
            "before 2.1, for labevents has no order_provider",
        ),
        (LABEVENTS, ("2008 - 2010", "2020 - 2022"), "3.0 or later by patients of 2020 - 2022"),
    ],
)
def test_tables_narrow_the_version_without_naming_it(
    tmp_path: Path, labevents: str, groups: tuple[str, ...], evidence: str
) -> None:
    release = detect("mimic_iv", hospital(tmp_path, labevents=labevents, groups=groups))
    assert release.version is None
    assert evidence in release.evidence


def test_tables_that_contradict_the_directory_s_name_leave_the_version_unknown(tmp_path: Path) -> None:
    release = detect("mimic_iv", hospital(tmp_path / "mimiciv" / "2.2", groups=("2020 - 2022",)))
    assert release.version is None
    assert release.evidence == "by the directory's name, but 3.0 or later by patients of 2020 - 2022"
    assert release.is_not("2.2")
    assert detect("mimic_iv", hospital(tmp_path / "mimiciv" / "3.1", groups=("2020 - 2022",))).version == "3.1"


def test_tables_are_looked_into_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "hosp").mkdir()
    pq.write_table(pa.table({"order_provider_id": ["P1"]}), tmp_path / "hosp" / "labevents.parquet")
    pq.write_table(pa.table({"anchor_year_group": ["2020 - 2022"]}), tmp_path / "hosp" / "patients.parquet")
    assert detect("mimic_iv", tmp_path).since == "3.0"


def test_damaged_tables_tell_nothing(tmp_path: Path) -> None:
    root = hospital(tmp_path)
    (root / "hosp" / "labevents.csv.gz").write_bytes(b"no archive")
    assert detect("mimic_iv", root).evidence == "nothing in it tells"


def test_the_dicom_project_is_a_source_of_its_own(tmp_path: Path) -> None:
    release = detect("mimic_cxr_dicom", named(tmp_path, "mimic-cxr/2.1.0"))
    assert (release.name, release.version) == ("MIMIC-CXR", "2.1.0")
    assert unlike_the_paper({"mimic_cxr_dicom": release}) == []


def test_a_synthetic_tree_is_recognised_as_such(tmp_path: Path) -> None:
    root = hospital(named(tmp_path, "tree") / "mimic-iv")
    files.write_manifest(tmp_path / "tree", stage="synthetic", content={})
    release = detect("mimic_iv", root)
    assert release.synthetic
    assert release.text() == "synthetic, in the formats of MIMIC-IV"
    files.write_manifest(tmp_path / "tree", stage="tables", content={})
    assert not detect("mimic_iv", root).synthetic


def test_only_what_is_certainly_another_release_is_said_to_differ_from_the_paper_s() -> None:
    def release(source: str, version: str | None, *, since: str | None = None) -> dict[str, Release]:
        names = {"mimic_iv": "MIMIC-IV", "mimic_cxr": "MIMIC-CXR-JPG", "mimic_ecg": "MIMIC-IV-ECG"}
        return {source: Release(names[source], version, "", since=since)}

    assert unlike_the_paper(release("mimic_iv", "2.2")) == []
    assert unlike_the_paper(release("mimic_ecg", "1.0.0")) == []
    assert unlike_the_paper(release("mimic_iv", None, since="2.1")) == []
    assert unlike_the_paper(release("mimic_iv", "3.1")) == ["MIMIC-IV 3.1 instead of 2.2"]
    assert unlike_the_paper(release("mimic_cxr", "2.1.0")) == ["MIMIC-CXR-JPG 2.1.0 instead of 2.0.0"]
    assert unlike_the_paper(release("mimic_iv", None, since="3.0")) == ["MIMIC-IV of another version instead of 2.2"]
    synthetic = {"mimic_iv": Release("MIMIC-IV", None, "", synthetic=True)}
    assert unlike_the_paper(synthetic) == ["MIMIC-IV synthetic instead of 2.2"]


def test_sources_without_releases_are_left_out(tmp_path: Path) -> None:
    assert list(detect_all({"mimic_ecg": tmp_path, "a_table_of_mine": tmp_path})) == ["mimic_ecg"]
