"""The specs of `cohorts/` that are not the paper's, each built from a small synthetic tree and looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from symile_clin.cohort.spec import load_spec
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.registry import ROOMS, modalities_of
from symile_clin.pipeline.cohorts import BuildResult, build_cohort
from symile_clin.pipeline.synthesis import synth
from symile_clin.pipeline.verification import verify_cohort
from symile_clin.progress import Quiet

SMALL = ("modalities.cxr.short_side=32", "modalities.cxr.long_side=40", "candidates.n=3")
#: Items that every synthetic draw has: a lab that no train sample has stops a build, and this tree is small.
ITEMS = "modalities.labs.items=[50912, 50931, 51222, 51301]"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 synthetic patients."""
    out = tmp_path_factory.mktemp("synthetic") / "tree"
    synth(out=out, patients=120, seed=0, workers=1, progress=Quiet())
    return out


def _build(tree: Path, name: str, out: Path, *overrides: str) -> tuple[BuildResult, Cohort]:
    """Build a cohort, and prove by its files and its sources that nothing leaks between its splits."""
    roots: dict[str, Any] = {
        "mimic_iv": tree / "mimic-iv", "mimic_cxr": tree / "mimic-cxr-jpg", "mimic_ecg": tree / "mimic-iv-ecg",
    }  # fmt: skip
    settings = (*SMALL, ITEMS, *overrides)
    result = build_cohort(
        spec=name, out=out / name, overrides=settings, workers=1, tracking_uri=None, progress=Quiet(), **roots
    )
    proved = verify_cohort(cohort=result.path, sources=True, progress=Quiet(), **roots)
    assert (proved.found, proved.not_proved) == (0, []), proved.text()
    table = result.attrition
    assert table["samples"].iloc[0] == table["samples"].iloc[1:].sum()
    cohort = open_cohort(result.path)
    assert cohort.samples.groupby("subject_id")["split"].nunique().eq(1).all()
    return result, cohort


@pytest.mark.parametrize("name", ["symile_mimic", pytest.param("demo", marks=pytest.mark.slow)])
def test_the_papers_rules_leak_nothing(tree: Path, tmp_path: Path, name: str) -> None:
    sizes = ("splits.train=40", "splits.val=10") if name == "symile_mimic" else ()
    _, cohort = _build(tree, name, tmp_path, *sizes)
    assert len(cohort.samples) > 50


def test_any_two_of_an_intensive_care_stay_split_by_year(tree: Path, tmp_path: Path) -> None:
    _, cohort = _build(tree, "icu_any_two", tmp_path, "candidates.n=2")
    samples = cohort.samples
    stays = pd.read_csv(tree / "mimic-iv/icu/icustays.csv.gz", parse_dates=["outtime"]).set_index("stay_id")
    assert (samples["index_time"].to_numpy() == stays.loc[samples["sample_id"].astype(int), "outtime"].to_numpy()).all()
    present = samples[["cxr_present", "ecg_present", "labs_present"]]
    assert (present.sum(axis=1) >= 2).all()
    assert set(present.sum(axis=1)) == {2, 3}
    for column in ("cxr_time", "ecg_time"):
        before = (samples["index_time"] - samples[column]).dropna()
        assert ((before >= pd.Timedelta(0)) & (before < pd.Timedelta(hours=48))).all()
    groups = samples.groupby("split")["anchor_year_group"].unique().map(set).to_dict()
    assert groups == {"train": {"2008 - 2010", "2011 - 2013"}, "val": {"2014 - 2016"}, "test": {"2017 - 2019"}}
    # absent ones are zeros on disk, and batches of them can be made
    absent = samples.loc[~samples["cxr_present"], "row"].to_numpy()
    assert len(absent)
    assert not cohort.array("cxr", "image").take(absent).any()
    dataset = CohortDataset(cohort, modalities_of(cohort.spec), cohort.rows("train"))
    whole = dataset.fetch(np.arange(len(samples)), augment=(0, 0))
    for name, tensor in dataset.inputs(whole).items():
        assert whole.present[name].tolist() == samples[f"{name}_present"].tolist()
        assert len(tensor) == samples[f"{name}_present"].sum()
        alone = dataset.fetch(samples.loc[~samples[f"{name}_present"], "row"].to_numpy(copy=True))
        assert dataset.inputs(alone)[name].shape == (0, *tensor.shape[1:])
    # queries and candidates have the target
    for split in ("val", "test"):
        for others in (False, True):
            rows = cohort.candidates(split, other_subjects=others).candidate_rows
            assert samples["cxr_present"].to_numpy()[rows].all()


def test_every_xray_is_a_sample_with_the_nearest_ecg_and_labs(tree: Path, tmp_path: Path) -> None:
    result, cohort = _build(tree, "every_xray", tmp_path)
    samples = cohort.samples
    assert samples["sample_id"].is_unique
    assert samples["cxr_dicom_id"].is_unique
    assert samples["hadm_id"].duplicated().any()
    further = result.attrition["samples"] < 0
    assert further.sum() == 1
    expected = [
        f"{hadm}/{study:012d}/{image}"
        for hadm, study, image in zip(samples["hadm_id"], samples["cxr_study_id"], samples["cxr_dicom_id"], strict=True)
    ]
    assert samples["sample_id"].tolist() == expected
    after = samples["cxr_time"] - samples["index_time"]
    assert ((after >= pd.Timedelta(0)) & (after <= pd.Timedelta(days=10))).all()
    shared = samples.groupby("hadm_id")["ecg_study_id"].nunique()
    assert (shared == 1).all()  # measured from admission, whichever X-ray the sample is of


def test_matched_candidates_are_counted_and_covered_by_the_hash(tree: Path, tmp_path: Path) -> None:
    larger = ("candidates.n=2", "splits.train=0.4", "splits.val=0.3")
    result, cohort = _build(tree, "every_xray", tmp_path / "with", *larger)
    queries = cohort.manifest["counts"]["queries"]
    for split in ("val", "test"):
        lists = cohort.candidates(split, matched=True)
        assert queries[split] == {"all": len(cohort.rows(split)), "matched": len(lists.query_row)}
        assert 0 < len(lists.query_row) < len(cohort.rows(split))
        assert f"{len(lists.query_row):,} of {len(cohort.rows(split)):,} queries of {split}" in result.text()
    without, none = _build(tree, "every_xray", tmp_path / "without", *larger, "candidates.matched=false")
    assert none.hash != cohort.hash
    assert none.manifest["counts"]["queries"]["val"] == {"all": len(none.rows("val")), "matched": None}
    assert "list of matched" not in without.text()
    assert not (none.path / "candidates/val_matched.parquet").exists()


@pytest.mark.parametrize("name", ["icu_any_two", "every_xray"])
def test_shipped_specs_say_what_they_are_in_their_first_lines(name: str) -> None:
    spec = load_spec(name, (), ROOMS)
    text = (Path(__file__).parents[2] / "cohorts" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert spec.name == name
