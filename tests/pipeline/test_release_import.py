"""`cohort import`: the release's files become a cohort where they lie, or one clear error says why not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from symile_clin.data.candidates import NO_ROW
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.errors import ConfigError, MismatchError, SourceError, SymileClinError
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.evaluation import evaluate
from symile_clin.pipeline.release import import_cohort
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet
from tests.data.released import FINDINGS, ITEMS, FakeRelease, write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> FakeRelease:
    """A release nobody may change."""
    return write_release(tmp_path_factory.mktemp("published") / "symile-mimic")


@pytest.fixture(scope="module")
def cohort(release: FakeRelease, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The same, imported."""
    out = tmp_path_factory.mktemp("cohorts") / "imported"
    import_cohort(release=release.root, out=out, verify=True, progress=Quiet())
    return open_cohort(out)


def test_the_released_splits_are_kept_exactly(release: FakeRelease, cohort: Cohort) -> None:
    for split, hadm_ids in release.splits.items():
        found = cohort.samples.loc[cohort.samples["split"] == split, "hadm_id"]
        assert sorted(found) == sorted(hadm_ids)
    in_table = [hadm for hadm in release.table["hadm_id"] if hadm in set(cohort.samples["hadm_id"])]
    assert cohort.samples["hadm_id"].tolist() == in_table
    assert cohort.manifest["counts"]["samples"] == 37


def test_samples_have_the_tables_values_under_our_names(release: FakeRelease, cohort: Cohort) -> None:
    table = release.table.set_index("hadm_id").loc[cohort.samples["hadm_id"]].reset_index()
    samples = cohort.samples
    pairs = {
        "subject_id": "subject_id", "index_time": "admittime", "age": "age", "gender": "gender", "race": "race",
        "admission_type": "admission_type", "cxr_dicom_id": "cxr_dicom_id", "cxr_study_id": "study_id",
        "cxr_time": "cxr_StudyDateTime", "cxr_view": "cxr_ViewPosition", "cxr_path": "cxr_path",
        "ecg_study_id": "ecg_study_id", "ecg_time": "ecg_time", "ecg_path": "ecg_path",
        **{f"chexpert_{finding.lower().replace(' ', '_')}": finding for finding in FINDINGS},
        **{f"lab_{item}": item for item in ITEMS},
    }  # fmt: skip
    for ours, theirs in pairs.items():
        expected = pd.Series(table[theirs].to_numpy()).astype(object)
        found = samples[ours].astype(object)
        both_null = found.isna() & expected.isna()
        assert ((found == expected) | both_null).all(), ours
    assert samples["sample_id"].tolist() == [str(hadm) for hadm in samples["hadm_id"]]
    assert samples["anchor_year_group"].isna().all()
    assert samples["ecg_gain"].isna().all()


def test_every_sample_gets_its_own_rows_of_the_released_arrays(release: FakeRelease, cohort: Cohort) -> None:
    modalities = modalities_of(cohort.spec)
    rows = np.random.default_rng(1).permutation(len(cohort.samples)).astype(np.int64)
    hadm_ids = cohort.samples["hadm_id"].to_numpy()[rows]
    dataset = CohortDataset(cohort, modalities, rows)
    inputs = dataset.inputs(dataset.fetch(rows, augment=(0, 0)))
    np.testing.assert_array_equal(inputs["cxr"].numpy(), np.stack([release.cxr[h] for h in hadm_ids]))
    np.testing.assert_array_equal(inputs["ecg"].numpy(), np.stack([release.ecg[h] for h in hadm_ids]))
    labs = inputs["labs"].numpy()
    np.testing.assert_array_equal(labs[:, : len(ITEMS)], np.stack([release.percentile[h] for h in hadm_ids]))


def test_the_indicator_keeps_its_meaning_observed(release: FakeRelease, cohort: Cohort) -> None:
    observed = cohort.array("labs", "observed").take(np.arange(len(cohort.samples)))
    items = sorted(ITEMS, key=lambda item: f"{item}_percentile")
    table = release.table.set_index("hadm_id").loc[cohort.samples["hadm_id"], items]
    assert observed.dtype == np.bool_
    np.testing.assert_array_equal(observed, table.notna().to_numpy())
    assert not observed.all()


def test_large_arrays_stay_where_they_are(release: FakeRelease, cohort: Cohort) -> None:
    written = sum(path.stat().st_size for path in cohort.path.rglob("*") if path.is_file())
    assert written < 200_000
    for modality, array in (("cxr", "image"), ("ecg", "signal")):
        parts = cohort.manifest["arrays"][modality][array]["parts"]
        assert all(Path(part["file"]).is_relative_to(release.root.resolve()) for part in parts)
    assert cohort.manifest["source"] == "Symile-MIMIC release 1.0.0"
    assert "crop" in cohort.manifest["done_in_arrays"]["cxr"]


def test_candidate_lists_are_the_released_ones_in_their_order(release: FakeRelease, cohort: Cohort) -> None:
    hadm_of = cohort.samples["hadm_id"].to_numpy()
    subject_of = cohort.samples["subject_id"].to_numpy()
    dropped = 0
    for split in ("val", "test"):
        lists, others = cohort.candidates(split), cohort.candidates(split, other_subjects=True)
        assert len(lists.query_row) == len(release.lists[split])
        for place, query in enumerate(lists.query_row):
            expected = [int(hadm_of[query]), *release.lists[split][int(hadm_of[query])]]
            assert hadm_of[lists.candidate_rows[place]].tolist() == expected
            same = subject_of[lists.candidate_rows[place]] == subject_of[query]
            assert lists.same_subject[place].tolist() == same.tolist()
            same[0] = False
            kept = others.candidate_rows[place][others.candidate_rows[place] != NO_ROW]
            assert kept.tolist() == lists.candidate_rows[place][~same].tolist()
            dropped += int(same.sum())
    assert dropped > 0


def test_admissions_without_a_split_are_in_the_books(cohort: Cohort) -> None:
    attrition = pd.read_csv(cohort.path / "attrition.csv", keep_default_na=False)
    assert attrition["samples"].tolist() == [40, 3, 37]
    left = pd.read_parquet(cohort.path / "attrition.parquet")
    assert left["reason"].tolist() == ["not in the released splits"] * 3


def test_the_same_release_gives_the_same_hash_and_another_gives_another(
    release: FakeRelease, cohort: Cohort, tmp_path: Path
) -> None:
    again = import_cohort(release=release.root, out=tmp_path / "again", progress=Quiet())
    assert again.hash == cohort.hash
    other = write_release(tmp_path / "other", seed=1)
    assert import_cohort(release=other.root, out=tmp_path / "c", progress=Quiet()).hash != cohort.hash


def test_training_and_evaluation_run_on_it(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ("training.epochs=1", "training.batch_size=8", "model.dim=8")
    run = train(
        preset="demo", cohort=cohort.path, overrides=overrides, device="cpu", tracking_uri=None, progress=Quiet()
    )
    result = evaluate(run=str(run.run), device="cpu", tracking_uri=None, progress=Quiet())
    lengths = cohort.candidates("test", other_subjects=True).listed.sum(axis=1)
    assert result.metrics["test/cxr/recall_at_1_chance"] == pytest.approx(1 / 5)
    prefix = "test/cxr/candidates_other_subjects/ecg+labs/recall_at_1"
    assert result.metrics[f"{prefix}_chance"] == pytest.approx((1 / lengths).mean())
    assert (result.directory / "gallery.png").is_file()


def _cut(root: Path) -> None:
    path = root / "data_npy/train/ecg_train.npy"
    path.write_bytes(path.read_bytes()[:-4])


def _save(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "data_npy" / name
        np.save(path, change(np.load(path)))

    return apply


def _table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        change(pd.read_csv(root / name)).to_csv(root / name, index=False)

    return apply


BROKEN: dict[str, tuple[Callable[[Path], object], type[SymileClinError], str]] = {
    "a table is missing": (lambda root: (root / "test.csv").unlink(), SourceError, r"no test\.csv"),
    "an array is missing": (
        lambda root: (root / "data_npy/val/cxr_val.npy").unlink(), SourceError, r"no data_npy/val/cxr_val\.npy",
    ),
    "an array is cut short": (_cut, SourceError, r"ecg_train\.npy is damaged or cut short"),
    "another type": (
        _save("train/cxr_train.npy", lambda a: a.astype(np.float64)), SourceError, r"cxr_train\.npy holds float64",
    ),
    "another shape": (_save("test/ecg_test.npy", lambda a: a[:, :, :-1]), SourceError, r"ecg_test\.npy holds float32"),
    "fewer rows": (_save("train/cxr_train.npy", lambda a: a[1:]), SourceError, r"cxr_train\.npy holds float32"),
    "another order": (_save("val/hadm_id_val.npy", lambda a: a[::-1]), MismatchError, "differ in hadm_id or its order"),
    "an inverted indicator": (
        lambda root: [_save(f"{s}/labs_missingness_{s}.npy", lambda a: 1 - a)(root) for s in ("train", "val", "test")],
        MismatchError, "it is inverted",
    ),
    "a column is missing": (
        _table("symile_mimic_data.csv", lambda t: t.drop(columns="cxr_StudyDateTime")), SourceError,
        "has a column 'cxr_StudyDateTime'",
    ),
    "an admission twice": (
        _table("symile_mimic_data.csv", lambda t: pd.concat([t, t[:1]])), MismatchError, "an admission twice",
    ),
    "an admission that the table lacks": (
        _table("symile_mimic_data.csv", lambda t: t[5:]), MismatchError, "lacks",
    ),
    "a time that is none": (
        _table("symile_mimic_data.csv", lambda t: t.assign(ecg_time="yesterday")), SourceError, "values of ecg",
    ),
    "an index time that is none": (
        _table("symile_mimic_data.csv", lambda t: t.assign(admittime="2150-02-31 10:00:00")), SourceError, "is no time",
    ),
    "a word for a number": (
        _table("symile_mimic_data.csv", lambda t: t.assign(**{"50912": "high"})), SourceError, "values of labs",
    ),
    "a column twice": (
        lambda root: [
            (root / "val.csv").write_text(text.replace("cxr_path", "hadm_id", 1))
            for text in [(root / "val.csv").read_text()]
        ],
        SourceError, r"val\.csv has a column twice",
    ),
    "a table that is none": (
        lambda root: (root / "train.csv").write_bytes(b"\x00\xff" * 99), SourceError, r"nor train\.csv has a column",
    ),
    "an array of objects": (
        lambda root: np.save(root / "data_npy/val/cxr_val.npy", np.array([{}], dtype=object), allow_pickle=True),
        SourceError, r"cxr_val\.npy is damaged",
    ),
    "an array that is text": (
        lambda root: (root / "data_npy/val/hadm_id_val.npy").write_text("hello"), SourceError, "is damaged",
    ),
    "no JSON": (lambda root: (root / "labs_means.json").write_text("{"), MismatchError, "not valid JSON"),
    "an id that is no number": (
        _table("train.csv", lambda t: t.assign(hadm_id="x")), SourceError, r"train\.csv cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_belong_together_is_one_clear_error(what: str, tmp_path: Path) -> None:
    root = write_release(tmp_path / "release", side=16).root
    change, kind, message = BROKEN[what]
    change(root)
    with pytest.raises(kind, match=message) as caught:
        import_cohort(release=root, out=tmp_path / "cohort", progress=Quiet())
    assert "2000" not in str(caught.value).replace(str(tmp_path), "")  # no admission's id
    assert not (tmp_path / "cohort").exists()


def test_a_flipped_byte_is_found_on_request(tmp_path: Path) -> None:
    root = write_release(tmp_path / "release", side=16).root
    path = root / "data_npy/train/cxr_train.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(MismatchError, match=r"cxr_train\.npy differs"):
        import_cohort(release=root, out=tmp_path / "cohort", verify=True, progress=Quiet())
    import_cohort(release=root, out=tmp_path / "cohort", progress=Quiet())
    (root / "SHA256SUMS.txt").unlink()
    with pytest.raises(SourceError, match=r"no SHA256SUMS\.txt"):
        import_cohort(release=root, out=tmp_path / "cohort", verify=True, progress=Quiet())


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = write_release(tmp_path / "release", side=16).root
    table = pd.read_csv(root / "symile_mimic_data.csv")
    table["subject_id"] = 10_000_000
    table.to_csv(root / "symile_mimic_data.csv", index=False)
    with pytest.raises(SymileClinError, match="more than one split"):
        import_cohort(release=root, out=tmp_path / "cohort", progress=Quiet())


def test_another_cohort_is_not_overwritten(release: FakeRelease, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort/manifest.json").write_text('{"stage": "cohort", "name": "mine"}')
    with pytest.raises(ConfigError, match="something else than an import"):
        import_cohort(release=release.root, out=tmp_path / "cohort", progress=Quiet())


MEASURE = """
import resource, sys
from pathlib import Path
from symile_clin.pipeline import import_cohort
from symile_clin.progress import Quiet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import_cohort(release=Path(sys.argv[1]), out=Path(sys.argv[2]), progress=Quiet())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_gigabyte_of_pictures_is_mapped_not_read(tmp_path: Path) -> None:
    root = write_release(tmp_path / "release", side=16).root
    rows, side = len(np.load(root / "data_npy/train/hadm_id_train.npy")), 2048
    for split in ("train", "val", "test"):
        path = root / f"data_npy/{split}/cxr_{split}.npy"
        rows = len(np.load(path, mmap_mode="r"))
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 3, side, side)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + rows * 3 * side * side * 4)  # sparse: nothing of it is on the disk
    assert (root / "data_npy/train/cxr_train.npy").stat().st_size > 0.7e9
    write = [sys.executable, "-c", MEASURE, str(root), str(tmp_path / "cohort")]
    done = subprocess.run(write, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 120, "megabytes beyond the interpreter and its libraries"
