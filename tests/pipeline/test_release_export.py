"""`cohort export`: what is written reads as the release does, by the published loader's steps and by our import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from symile_clin import files
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, Rows, open_cohort
from symile_clin.errors import CohortError, ConfigError, DiskError
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.release import ExportResult, export_cohort, import_cohort
from symile_clin.progress import Quiet
from symile_clin.rng import stream
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree, jpeg
from tests.data.released import FINDINGS

ADMISSIONS = 45
CANDIDATES = 4


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Admissions of 30 patients; some lack the second lab, X-rays are upright or lie."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    for number in range(ADMISSIONS):
        subject, hadm = 10_000_000 + number * 2 // 3, 20_000_000 + number
        time = ADMITTED + number % 3 * 400 * HOUR
        tree.admission(subject, hadm, time)
        width, height = (64, 80) if number % 2 else (90, 64)
        tree.xray(subject, 50_000_000 + number, time + 30 * HOUR, content=jpeg(width, height, level=40 + number))
        tree.ecg(subject, 40_000_000 + number, time + HOUR)
        tree.lab(subject, time + HOUR, number / 7)
        if number % 4:
            tree.lab(subject, time + HOUR, float(number % 11), item=50931)
    roots = tree.write()
    spec = tree.root / "tiny.yaml"
    spec.write_text(dump_yaml(apply_overrides(SPEC, [f"candidates.n={CANDIDATES}"])))
    out = tree.root / "cohort"
    build_cohort(spec=str(spec), out=out, workers=1, tracking_uri=None, progress=Quiet(), **roots)  # type: ignore[arg-type]  # sources by option
    return open_cohort(out)


@pytest.fixture(scope="module")
def exported(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """The cohort in the release's layout."""
    return export_cohort(cohort=cohort.path, out=tmp_path_factory.mktemp("out") / "release", progress=Quiet())


@pytest.fixture(scope="module")
def again(exported: ExportResult, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The export, imported."""
    out = tmp_path_factory.mktemp("again") / "cohort"
    import_cohort(release=exported.path, out=out, verify=True, progress=Quiet())
    return open_cohort(out)


def load(root: Path, split: str, stem: str) -> torch.Tensor:
    """As the published datasets.py does it, from .npy."""
    return torch.from_numpy(np.load(root / f"data_npy/{split}/{stem}_{split}.npy"))


class PublishedRetrieval(Dataset[dict[str, torch.Tensor]]):
    """The published retrieval dataset's fields."""

    STEMS = ("cxr", "ecg", "labs_percentiles", "labs_missingness", "hadm_id", "label_hadm_id", "label")

    def __init__(self, root: Path, split: str) -> None:
        self.tensors = {stem: load(root, split, stem) for stem in self.STEMS}

    def __len__(self) -> int:
        return len(self.tensors["ecg"])

    def __getitem__(self, index: Any) -> dict[str, torch.Tensor]:
        return {stem: tensor[index] for stem, tensor in self.tensors.items()}


def test_the_published_loaders_steps_read_it(exported: ExportResult) -> None:
    stems = ("cxr", "ecg", "labs_percentiles", "labs_missingness", "hadm_id")
    for split in ("train", "val"):
        tensors = [load(exported.path, split, stem) for stem in stems]
        assert [str(one.dtype) for one in tensors] == [f"torch.{d}" for d in ("float32",) * 3 + ("int64",) * 2]
        assert torch.unique(tensors[-1]).numel() == tensors[-1].numel()
        assert len(TensorDataset(*tensors)) == exported.rows[split]
        assert tensors[0].shape[1:] == (3, 32, 32)
        assert tensors[1].shape[1:] == (1, 5000, 12)
        assert tensors[1].amin() == -1
        assert tensors[1].amax() == 1
    for split in ("val_retrieval", "test"):
        whole = PublishedRetrieval(exported.path, split)[:]
        queries = whole["label"] == 1
        assert len(whole["label"]) == CANDIDATES * int(queries.sum())
        for hadm_id in whole["hadm_id"][queries]:
            negatives = (whole["label_hadm_id"] == hadm_id) & (whole["label"] == 0)
            assert int(negatives.sum()) == CANDIDATES - 1
            assert hadm_id not in whole["hadm_id"][negatives]


def test_repeated_candidates_repeat_the_very_same_arrays(exported: ExportResult) -> None:
    whole = PublishedRetrieval(exported.path, "test")[:]
    first = {int(h): i for i, h in reversed(list(enumerate(whole["hadm_id"])))}
    source = torch.tensor([first[int(h)] for h in whole["hadm_id"]])
    for stem in ("cxr", "ecg", "labs_percentiles", "labs_missingness"):
        assert torch.equal(whole[stem], whole[stem][source])


def test_tables_have_the_published_columns_in_their_order(exported: ExportResult) -> None:
    admissions = [
        "subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "admission_location",
        "discharge_location", "race", "hospital_expire_flag", "gender", "anchor_age", "anchor_year", "dod",
        "admittime_year", "age", "cxr_24_72_hr", "cxr_dicom_id", "cxr_study_id", "cxr_ViewPosition",
        "cxr_ViewCodeSequence_CodeMeaning", "cxr_StudyDateTime", "cxr_path", "study_id",
    ]  # fmt: skip
    ecg = ["ecg_adm", "ecg_study_id", "ecg_file_name", "ecg_time", "ecg_path"]
    table = pd.read_csv(exported.path / "symile_mimic_data.csv")
    assert table.columns.tolist() == [*admissions, *FINDINGS, *ecg, "50912", "50931", "labs_all_nan"]
    assert len(table.columns) == 94 - 50 + 2
    kept = [
        "subject_id", "hadm_id", "cxr_path", "Atelectasis", "Cardiomegaly", "Edema", "Lung Opacity", "No Finding",
        "Pleural Effusion", "ecg_path", "50912", "50931", "50912_percentile", "50931_percentile",
    ]  # fmt: skip
    for split in ("train", "val", "val_retrieval", "test"):
        labels = [] if split == "train" else ["label_hadm_id", "label"]
        found = pd.read_csv(exported.path / f"{split}.csv")
        assert found.columns.tolist() == [*kept, *labels]
        assert found["hadm_id"].tolist() == load(exported.path, split, "hadm_id").tolist()
    assert (table["cxr_24_72_hr"] == table["cxr_dicom_id"]).all()
    assert (table["study_id"] == table["cxr_study_id"]).all()
    assert table["admittime"].str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").all()
    assert set(exported.empty) == {
        "dischtime", "deathtime", "admission_location", "discharge_location", "hospital_expire_flag", "anchor_age",
        "anchor_year", "dod", "cxr_ViewCodeSequence_CodeMeaning", *FINDINGS[1:],
    }  # fmt: skip


def test_published_percentiles_are_those_of_its_formula(exported: ExportResult) -> None:
    """get_labs of the published code, by its loop."""
    means = json.loads((exported.path / "labs_means.json").read_text())
    train = pd.read_csv(exported.path / "train.csv")
    for item, mean in means.items():
        assert mean == pytest.approx(train[item].mean())
    for split in ("train", "test"):
        rows = pd.read_csv(exported.path / f"{split}.csv")
        for number, (_, row) in enumerate(rows.iterrows()):
            percentiles, indicators = [], []
            for column in sorted(means):
                missing = pd.isna(row[column.replace("_percentile", "")])
                percentiles.append(means[column] if missing else row[column])
                indicators.append(0 if missing else 1)
            found = load(exported.path, split, "labs_percentiles")[number]
            torch.testing.assert_close(found, torch.tensor(percentiles, dtype=torch.float32), rtol=1e-6, atol=0)
            assert load(exported.path, split, "labs_missingness")[number].tolist() == indicators


def test_there_and_back_gives_the_same_samples_splits_and_lists(cohort: Cohort, again: Cohort) -> None:
    lost = {"anchor_year_group", "ecg_gain", "ecg_baseline", "cxr_height", "cxr_width"}
    assert set(again.samples.columns) == set(cohort.samples.columns)
    columns = [column for column in cohort.samples.columns if column not in lost]
    pd.testing.assert_frame_equal(again.samples[columns], cohort.samples[columns], check_dtype=False)
    for split in ("val", "test"):
        before, after = cohort.candidates(split), again.candidates(split)
        np.testing.assert_array_equal(before.query_row, after.query_row)
        np.testing.assert_array_equal(before.candidate_rows, after.candidate_rows)
        np.testing.assert_array_equal(before.same_subject, after.same_subject)


def _inputs(cohort: Cohort, rows: Rows, *, augment: tuple[int, int] | None = None) -> dict[str, torch.Tensor]:
    dataset = CohortDataset(cohort, modalities_of(cohort.spec), rows)
    return dataset.inputs(dataset.fetch(rows, augment=augment))


def test_there_and_back_gives_the_models_inputs(cohort: Cohort, again: Cohort) -> None:
    for split in ("train", "val", "test"):
        rows = cohort.rows(split)
        before, after = (_inputs(one, rows) for one in (cohort, again))
        assert torch.equal(before["labs"], after["labs"])
        assert torch.equal(before["ecg"], after["ecg"])
        if split != "train":
            assert torch.equal(before["cxr"], after["cxr"])
    rows = cohort.rows("train")
    dataset = CohortDataset(cohort, modalities_of(cohort.spec), rows)
    draws = {"cxr": torch.from_numpy(stream(0, "release", "cxr").random((len(rows), 2)))}
    drawn = dataset.inputs(replace(dataset.fetch(rows), draws=draws))["cxr"]
    frozen, centred = _inputs(again, rows, augment=(1, 1))["cxr"], _inputs(cohort, rows)["cxr"]
    assert torch.equal(drawn, frozen), "one seeded stream over train, whatever the chunks"
    assert not torch.equal(centred, frozen)


def test_an_imported_cohort_can_be_exported_again(again: Cohort, exported: ExportResult, tmp_path: Path) -> None:
    export_cohort(cohort=again.path, out=tmp_path / "twice", progress=Quiet())
    first, second = (sums(root) for root in (exported.path, tmp_path / "twice"))
    assert first == second


def sums(root: Path) -> dict[str, str]:
    """SHA256SUMS.txt, after every digest has been compared with its file."""
    pairs = [line.split(" ", 1) for line in (root / "SHA256SUMS.txt").read_text().splitlines()]
    for digest, name in pairs:
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest, name
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {name for _, name in pairs} | {"SHA256SUMS.txt"}
    return {name: digest for digest, name in pairs}


def test_equal_seeds_write_equal_bytes_and_other_seeds_other_crops(
    cohort: Cohort, exported: ExportResult, tmp_path: Path
) -> None:
    export_cohort(cohort=cohort.path, out=tmp_path / "other", seed=1, progress=Quiet())
    first, other = sums(exported.path), sums(tmp_path / "other")
    assert {name for name in first if first[name] != other[name]} == {"data_npy/train/cxr_train.npy"}


def _manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        manifest = files.read_json(path / "manifest.json")
        change(manifest)
        files.write_json(path / "manifest.json", manifest)

    return apply


def _samples(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        change(pd.read_parquet(path / "samples.parquet")).to_parquet(path / "samples.parquet")

    return apply


UNFIT: dict[str, tuple[Callable[[Path], None], str]] = {
    "tables alone": (_manifest(lambda m: m["arrays"].pop("cxr")), "built from tables alone"),
    "absent in some": (_samples(lambda s: s.assign(ecg_present=s.index > 0)), "lack ecg"),
    "not by admission": (_samples(lambda s: s.assign(hadm_id=1)), "not one sample per admission"),
    "another room": (_manifest(lambda m: m["spec"]["modalities"].pop("labs")), "expected|Expected one of each"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_cohort_that_the_layout_has_no_place_for_is_refused(what: str, cohort: Cohort, tmp_path: Path) -> None:
    copy = tmp_path / "cohort"
    for path in cohort.path.rglob("*"):
        if path.is_file() and path.suffix != ".npy":
            (copy / path.relative_to(cohort.path)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(cohort.path)).write_bytes(path.read_bytes())
    change, message = UNFIT[what]
    change(copy)
    with pytest.raises(CohortError, match=message):
        export_cohort(cohort=copy, out=tmp_path / "release", progress=Quiet())
    assert not (tmp_path / "release").exists()


def test_a_folder_with_something_in_it_is_left_alone(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="is not empty"):
        export_cohort(cohort=cohort.path, out=tmp_path, progress=Quiet())


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DiskError, match=r"has 1 kB free"):
        export_cohort(cohort=cohort.path, out=tmp_path / "release", progress=Quiet())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_in_the_middle_leaves_nothing_behind(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, values: np.ndarray) -> None:  # noqa: ARG001
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("symile_clin.data.release_export._Npy.write", full)
    with pytest.raises(DiskError, match=r"release could not be written: No space left on device\. Expected \d"):
        export_cohort(cohort=cohort.path, out=tmp_path / "release", progress=Quiet())
    assert [path.name for path in tmp_path.iterdir()] == [".release.lock"]
