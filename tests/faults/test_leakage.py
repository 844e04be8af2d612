"""`cohort verify` finds every leak that is planted in a cohort whose checksums were made to agree, and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from symile_clin import files
from symile_clin.cli import run
from symile_clin.data.join import stored_sha256
from symile_clin.data.prepare import HELD_OUT, LISTS, hash_cohort, hash_lists
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.release import export_cohort, import_cohort
from symile_clin.pipeline.verification import Verification, verify_cohort
from symile_clin.progress import Quiet
from tests.cohort.tree import ADMITTED, HOUR, jpeg
from tests.pipeline.verified_cohort import SOURCES, build_tiny, full_tree

SECOND = pd.Timedelta(seconds=1)
#: Of a lab drawn an hour after the window, in every admission.
LATE = 1234.5


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree `tree` and its cohort `cohorts/tiny`."""
    root = tmp_path_factory.mktemp("leakage")
    tree = full_tree(root / "tree")
    for admission in tree.rows["admissions"]:
        tree.lab(admission["subject_id"], admission["admittime"] + 25 * HOUR, LATE)  # which no sample may take
    build_tiny(root, "require=[cxr,ecg]", tree=tree)
    return root


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The cohort, to be spoiled."""
    shutil.copytree(built / "cohorts" / "tiny", tmp_path / "tiny")
    return tmp_path / "tiny"


def verify(cohort: Path, **options: Any) -> Verification:
    return verify_cohort(cohort=cohort, progress=Quiet(), **options)


# --- how leaks are planted: through these, and then every digest of the manifest is made to agree ---


class Spoiled:
    """A cohort directory that is changed piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = pd.read_parquet(path / "samples.parquet")

    def row(self, split: str, place: int = 0) -> int:
        """A sample row of a split."""
        return int(self.samples.index[self.samples["split"] == split][place])

    def get(self, row: int, column: str) -> Any:
        return self.samples.at[row, column]

    def set(self, row: int, column: str, value: Any) -> None:
        self.samples.loc[row, column] = value

    def array(self, name: str) -> NDArray[Any]:
        """A stored array, writable; changes are kept by `keep`."""
        values: NDArray[Any] = np.load(self.path / "arrays" / f"{name}.npy")
        return values

    def keep(self, name: str, values: NDArray[Any]) -> None:
        np.save(self.path / "arrays" / f"{name}.npy", values)

    def state(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change what a modality has fitted."""
        path = self.path / "state" / f"{name}.json"
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))

    def lists(self, name: str, change: Callable[[pd.DataFrame], None]) -> None:
        """Change candidate lists."""
        table = pd.read_parquet(self.path / "candidates" / f"{name}.parquet")
        change(table)
        table.to_parquet(self.path / "candidates" / f"{name}.parquet", index=False)

    def inputs(self, change: Callable[[pd.DataFrame], None]) -> None:
        """Change the list of files that were read."""
        table = pd.read_parquet(self.path / "inputs.parquet")
        change(table)
        table.to_parquet(self.path / "inputs.parquet", index=False)

    def agree(self) -> None:
        """Write the samples, and make every digest and hash of the manifest that of what is there now."""
        self.samples.to_parquet(self.path / "samples.parquet", index=False)
        manifest = json.loads((self.path / "manifest.json").read_text())
        cohort = Cohort(self.path, manifest)
        for name, arrays in manifest["arrays"].items():
            for array, entry in arrays.items():
                entry["sha256"] = stored_sha256(cohort.array(name, array))
        digests = {name: {key: one["sha256"] for key, one in of.items()} for name, of in manifest["arrays"].items()}
        lists = [
            hash_lists(cohort.candidates(split, other_subjects=kind == "_other_subjects", matched=kind == "_matched"))
            for split in HELD_OUT
            for kind in LISTS
            if (self.path / "candidates" / f"{split}{kind}.parquet").is_file()
        ]
        manifest["hash"] = hash_cohort(self.samples, digests, lists)
        manifest["files"] = files.listing(self.path, leave_out=["manifest.json"])
        (self.path / "manifest.json").write_text(json.dumps(manifest))


def _patient_in_two_splits(cohort: Spoiled) -> None:
    cohort.set(cohort.row("test"), "subject_id", cohort.get(cohort.row("train"), "subject_id"))


def _split_column_edited(cohort: Spoiled) -> None:
    subject = cohort.get(cohort.row("test"), "subject_id")
    cohort.samples.loc[cohort.samples["subject_id"] == subject, "split"] = "train"


def _admission_in_two_splits(cohort: Spoiled) -> None:
    cohort.set(cohort.row("val"), "hadm_id", cohort.get(cohort.row("train"), "hadm_id"))


def _index_event_in_two_splits(cohort: Spoiled) -> None:
    cohort.set(cohort.row("val"), "sample_id", f"{cohort.get(cohort.row('train'), 'sample_id')}/1")


def _study_in_two_splits(cohort: Spoiled) -> None:
    cohort.set(cohort.row("test"), "cxr_study_id", cohort.get(cohort.row("train"), "cxr_study_id"))


def _record_in_two_splits(cohort: Spoiled) -> None:
    cohort.set(cohort.row("val"), "ecg_study_id", cohort.get(cohort.row("test"), "ecg_study_id"))


def _file_in_two_splits(cohort: Spoiled) -> None:
    cohort.set(cohort.row("val"), "cxr_path", cohort.get(cohort.row("train"), "cxr_path"))


def _copied(cohort: Spoiled, name: str) -> None:
    values = cohort.array(name)
    values[cohort.row("test")] = values[cohort.row("train", 2)]
    cohort.keep(name, values)


def _image_of_another_name(cohort: Spoiled) -> None:
    _copied(cohort, "cxr/image")


def _record_of_another_name(cohort: Spoiled) -> None:
    _copied(cohort, "ecg/signal")


def _bytes_of_another_name(cohort: Spoiled) -> None:
    def change(table: pd.DataFrame) -> None:
        images = table.index[table["modality"] == "cxr"]
        table.loc[images[cohort.row("test")], "sha256"] = table.loc[images[cohort.row("train")], "sha256"]

    cohort.inputs(change)


def _a_second_after_the_window(cohort: Spoiled) -> None:
    row = cohort.row("train")
    cohort.set(row, "cxr_time", cohort.get(row, "index_time") + 72 * HOUR + SECOND)


def _at_the_open_border(cohort: Spoiled) -> None:
    row = cohort.row("test")
    cohort.set(row, "cxr_time", cohort.get(row, "index_time") + 24 * HOUR)


def _a_microsecond_before_the_start(cohort: Spoiled) -> None:
    row = cohort.row("val")
    before = cohort.get(row, "index_time") - 24 * HOUR - pd.Timedelta(microseconds=1)
    cohort.set(row, "ecg_time", before)


def _index_time_moved(cohort: Spoiled) -> None:
    row = cohort.row("train", 1)
    cohort.set(row, "index_time", cohort.get(row, "index_time") - 48 * HOUR)


def _input_without_a_time(cohort: Spoiled) -> None:
    cohort.set(cohort.row("train"), "ecg_time", pd.NaT)


def _input_where_there_should_be_none(cohort: Spoiled) -> None:
    row = cohort.row("test")
    cohort.set(row, "labs_present", False)


def _fitted_on_everything(cohort: Spoiled) -> None:
    values = cohort.samples["lab_50912"].dropna()
    seen, counts = np.unique(values, return_counts=True)
    cohort.state("labs", lambda state: state["50912"].update(values=seen.tolist(), counts=counts.tolist()))


def _percentile_of_test(cohort: Spoiled) -> None:
    test = cohort.samples["split"] == "test"
    cohort.samples.loc[test, "lab_50931_percentile"] = cohort.samples.loc[test, "lab_50931"].rank(pct=True)


def _rows_of_an_array_in_another_order(cohort: Spoiled) -> None:
    values = cohort.array("labs/percentile")
    first, second = cohort.row("train"), cohort.row("test")
    values[[first, second]] = values[[second, first]]
    cohort.keep("labs/percentile", values)


def _parts_of_an_array_swapped(cohort: Spoiled) -> None:
    """Two parts, in the wrong order: every row is another sample's."""
    manifest = json.loads((cohort.path / "manifest.json").read_text())
    values, half = cohort.array("labs/percentile"), 7
    for name, part in (("percentile-0", values[:half]), ("percentile-1", values[half:])):
        cohort.keep(f"labs/{name}", part)
    (cohort.path / "arrays" / "labs" / "percentile.npy").unlink()
    parts = [{"file": "percentile-1.npy", "rows": len(values) - half}, {"file": "percentile-0.npy", "rows": half}]
    manifest["arrays"]["labs"]["percentile"]["parts"] = parts
    (cohort.path / "manifest.json").write_text(json.dumps(manifest))


def _query_of_test_listed_in_val(cohort: Spoiled) -> None:
    def change(table: pd.DataFrame) -> None:
        table["candidate_rows"] = [[rows[0], cohort.row("test")] for rows in table["candidate_rows"]]

    cohort.lists("val", change)


def _own_patient_among_other_subjects(cohort: Spoiled) -> None:
    def change(table: pd.DataFrame) -> None:
        table["same_subject"] = [[True, True] for _ in range(len(table))]

    cohort.lists("test_other_subjects", change)


@dataclass(frozen=True)
class Leak:
    """A way to spoil a cohort, and the finding that names it."""

    plant: Callable[[Spoiled], None]
    where: str
    what: str


LEAKS = (
    Leak(_patient_in_two_splits, "samples.parquet", "1 patients are in more than one split"),
    Leak(_split_column_edited, "candidates/test.parquet", "lists candidates that are not in test"),
    Leak(_admission_in_two_splits, "samples.parquet", "1 admissions are in more than one split: rows"),
    Leak(_index_event_in_two_splits, "samples.parquet", "1 index events are in more than one split: rows"),
    Leak(_study_in_two_splits, "samples.parquet", "1 cxr study ids are in more than one split: rows"),
    Leak(_record_in_two_splits, "samples.parquet", "1 ecg study ids are in more than one split: rows"),
    Leak(_file_in_two_splits, "samples.parquet", "1 cxr file ids are in more than one split: rows"),
    Leak(_image_of_another_name, "cxr/image", "1 recordings with equal values are in more than one split: rows"),
    Leak(_record_of_another_name, "ecg/signal", "1 recordings with equal values are in more than one split: rows"),
    Leak(_bytes_of_another_name, "inputs.parquet", "1 cxr files with equal bytes are in more than one split: rows"),
    Leak(_a_second_after_the_window, "samples.parquet", "cxr_time is outside its window: rows"),
    Leak(_at_the_open_border, "samples.parquet", "cxr_time is outside its window: rows"),
    Leak(_a_microsecond_before_the_start, "samples.parquet", "ecg_time is outside its window: rows"),
    Leak(_index_time_moved, "samples.parquet", "cxr_time is outside its window: rows"),
    Leak(_input_without_a_time, "samples.parquet", "ecg_time is empty where ecg is present: rows"),
    Leak(_input_where_there_should_be_none, "samples.parquet", "lab_50912 is there where labs is absent: rows"),
    Leak(_fitted_on_everything, "state/labs.json", "is not what the train samples give when it is fitted again"),
    Leak(_percentile_of_test, "samples.parquet", "lab_50931_percentile does not follow from train: rows"),
    Leak(_rows_of_an_array_in_another_order, "labs/percentile", "is not what train and the sample's row give: rows"),
    Leak(_parts_of_an_array_swapped, "labs/percentile", "is not what train and the sample's row give: rows"),
    Leak(_query_of_test_listed_in_val, "candidates/val.parquet", "lists candidates that are not in val"),
    Leak(_own_patient_among_other_subjects, "candidates/test_other_subjects.parquet", "lists the query's own patient"),
)


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.plant.__name__.strip("_"))
def test_a_planted_leak_is_found_though_every_checksum_agrees(copy: Path, leak: Leak) -> None:
    cohort = Spoiled(copy)
    ids = set(cohort.samples[["subject_id", "hadm_id"]].astype("int64").astype(str).to_numpy().ravel())
    leak.plant(cohort)
    cohort.agree()
    result = verify(copy)
    assert any(one.where == leak.where and leak.what in one.what for one in result.findings), result.text()
    assert result.exit_code == 3
    said = result.text()
    assert not [one for one in ids if one in said]
    assert "bytes" not in "".join(one.what for one in result.findings if "equal bytes" not in one.what)
    assert "hash" not in said


def test_a_cohort_without_leaks_has_none_though_it_was_written_again(copy: Path) -> None:
    """What plants leaks plants none by itself."""
    Spoiled(copy).agree()
    result = verify(copy)
    assert (result.found, result.exit_code) == (0, 0), result.text()
    assert result.not_proved == ["when the values of labs were taken: samples do not keep it, --sources tells"]


# --- leaks that are in the sources: the build does not know of them, the cohort it makes is as it was built ---


def test_a_patient_under_two_ids_is_found_by_picture_record_and_bytes(tmp_path: Path) -> None:
    """One person registered twice: other ids throughout, the picture saved anew, the record's signal the same."""
    tree = full_tree(tmp_path / "tree")
    flat = jpeg(level=0)
    commented = flat[:2] + b"\xff\xfe\x00\x08copied" + flat[2:]  # other bytes, the same pixels
    signal = np.random.default_rng(99).integers(-300, 300, (5000, 12)).astype(np.int16)
    for number in range(12):  # so many that both sides of a split have one
        subject, hadm = 19_000_000 + number, 29_000_000 + number
        tree.admission(subject, hadm, ADMITTED)
        tree.xray(subject, 59_000_000 + number, ADMITTED + 30 * HOUR, content=commented if number % 2 else flat)
        tree.ecg(subject, 49_000_000 + number, ADMITTED + HOUR, signal=signal)
        tree.lab(subject, ADMITTED + HOUR, 7.0)
        tree.lab(subject, ADMITTED + HOUR, 8.0, item=50931)
    path = build_tiny(tmp_path, tree=tree)
    found = {(one.where, one.what.partition(":")[0]) for one in verify(path).findings}
    equal = "1 recordings with equal values are in more than one split"
    assert found == {
        ("cxr/image", equal),
        ("ecg/signal", equal),
        ("inputs.parquet", "2 cxr files with equal bytes are in more than one split"),
        ("inputs.parquet", "1 ecg files with equal bytes are in more than one split"),
    }


def test_samples_of_one_patient_may_share_what_they_like_inside_a_split(tmp_path: Path) -> None:
    """`take: all`: two pictures of one admission are two samples, with the same record and labs; labs may be absent."""
    tree = full_tree(tmp_path / "tree")
    for number in range(0, 24, 3):
        subject, time = 10_000_000 + number * 2 // 3, ADMITTED + number % 3 * 400 * HOUR
        tree.xray(subject, 51_000_000 + number, time + 40 * HOUR, content=jpeg(level=40 + 6 * number))  # seen twice
    tree.rows["labevents"] = [row for row in tree.rows["labevents"] if row["subject_id"] % 5]
    path = build_tiny(tmp_path, "modalities.cxr.take=all", "require={all: [cxr], at_least: 2}", tree=tree)
    samples = open_cohort(path).samples
    assert samples["ecg_study_id"].duplicated().sum() == 8
    assert 0 < (~samples["labs_present"]).sum() < len(samples)
    result = verify(path)
    assert result.found == 0, result.text()


def test_an_imported_release_is_proved_as_far_as_it_can_be(built: Path, tmp_path: Path) -> None:
    export_cohort(cohort=built / "cohorts" / "tiny", out=tmp_path / "release", progress=Quiet())
    import_cohort(release=tmp_path / "release", out=tmp_path / "imported", progress=Quiet())
    result = verify(tmp_path / "imported")
    assert (result.found, result.exit_code) == (0, 0), result.text()
    said = " ".join(result.not_proved)
    for what in ("its bytes are as they were", "no list of files", "cropped at random", "arrays of labs follow"):
        assert what in said
    signal = tmp_path / "release" / "data_npy" / "test" / "ecg_test.npy"
    of_train = np.load(tmp_path / "release" / "data_npy" / "train" / "ecg_train.npy")
    values = np.load(signal)
    values[:] = of_train[3]
    np.save(signal, values)
    found = verify(tmp_path / "imported").findings
    assert [one.where for one in found] == ["ecg/signal"]
    assert "1 recordings with equal values are in more than one split" in found[0].what


def test_the_command_tells_programs_what_leaks_and_what_was_not_proved(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = Spoiled(copy)
    _study_in_two_splits(cohort)
    cohort.agree()
    assert run(["cohort", "verify", str(copy), "--json", "--quiet"]) == 3
    record = json.loads(capsys.readouterr().out)
    first, second = sorted([cohort.row("train"), cohort.row("test")])
    assert record["findings"] == [
        {"where": "samples.parquet", "what": f"1 cxr study ids are in more than one split: rows {first} and {second}"}
    ]
    assert len(record["not_proved"]) == 1


# --- with the sources at hand: times that samples do not keep, and events that no source has ---


def _value_of_after_the_window(cohort: Spoiled) -> None:
    """A lab drawn at 25 h: its value and percentiles made again with it, so that only its source can tell."""
    row = cohort.row("test")
    cohort.set(row, "lab_50912", LATE)
    _labs_again(cohort)


def _labs_again(cohort: Spoiled) -> None:
    """Fit and transform as the build does, so that state, percentiles and arrays agree with the spoiled values."""
    labs = modalities_of(open_cohort(cohort.path).spec)["labs"]
    state = labs.fit(cohort.samples[cohort.samples["split"] == "train"])
    files.write_json(cohort.path / "state" / "labs.json", state)
    cohort.samples, arrays = labs.transform(cohort.samples, state)
    for name, values in arrays.items():
        cohort.keep(f"labs/{name}", values)


def _record_that_no_source_has(cohort: Spoiled) -> None:
    row = cohort.row("train")
    cohort.set(row, "ecg_study_id", 49_999_999)


def _time_moved_into_the_window(cohort: Spoiled) -> None:
    row = cohort.row("val")
    cohort.set(row, "cxr_time", cohort.get(row, "cxr_time") - 2 * HOUR)


def _index_time_and_events_moved_together(cohort: Spoiled) -> None:
    row = cohort.row("test")
    for column in ("index_time", "cxr_time", "ecg_time"):
        cohort.set(row, column, cohort.get(row, column) + HOUR)


IN_SOURCES = (
    Leak(_value_of_after_the_window, "samples.parquet", "lab_50912 is not what the source has in the window: rows"),
    Leak(_record_that_no_source_has, "samples.parquet", "ecg_study_id and ecg_time are of no event that the source"),
    Leak(_time_moved_into_the_window, "samples.parquet", "cxr_dicom_id and cxr_time are of no event that the source"),
    Leak(_index_time_and_events_moved_together, "samples.parquet", "index_time is another than the source's: rows"),
)


@pytest.fixture(scope="module")
def roots(built: Path) -> dict[str, Path]:
    """The sources of the cohort."""
    return {source: built / "tree" / source for source in SOURCES}


@pytest.mark.parametrize("leak", IN_SOURCES, ids=lambda leak: leak.plant.__name__.strip("_"))
def test_what_only_the_sources_can_tell_is_found_with_them(
    built: Path, tmp_path: Path, roots: dict[str, Path], leak: Leak
) -> None:
    shutil.copytree(built / "cohorts", tmp_path / "cohorts")  # with the tables' copies beside it
    copy = tmp_path / "cohorts" / "tiny"
    cohort = Spoiled(copy)
    leak.plant(cohort)
    cohort.agree()
    assert verify(copy).found == 0
    result = verify(copy, sources=True, **roots)
    assert any(one.where == leak.where and leak.what in one.what for one in result.findings), result.text()
    assert result.exit_code == 3


def test_a_clean_cohort_is_what_its_sources_say(built: Path, roots: dict[str, Path]) -> None:
    result = verify(built / "cohorts" / "tiny", sources=True, **roots)
    assert (result.found, result.not_proved) == (0, []), result.text()
