"""The information report the whole way: a run on a cohort whose samples lack modalities, its files, MLflow."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import pytest

from symile_clin.data.store import open_cohort
from symile_clin.errors import NotFoundError
from symile_clin.pipeline import measure_information
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.synthesis import synth
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet

#: Small pictures and few labs: this is about the way, not about what is found on it.
SMALL = (
    "modalities.cxr.short_side=32", "modalities.cxr.long_side=40", "candidates.n=4", "candidates.matched=false",
    "modalities.labs.items=[50912, 50931, 51222, 51301]", "splits.train=0.5", "splits.val=0.2", "require={at_least: 2}",
)  # fmt: skip
TINY = ("training.epochs=1", "training.batch_size=16", "model.dim=8")
STORE = "sqlite:///mlflow.db"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("information")
    tree = folder / "tree"
    synth(out=tree, patients=60, seed=0, workers=1, progress=Quiet())
    build_cohort(
        spec="demo", mimic_iv=tree / "mimic-iv", mimic_cxr=tree / "mimic-cxr-jpg", mimic_ecg=tree / "mimic-iv-ecg",
        out=folder / "cohort", overrides=SMALL, workers=1, tracking_uri=None, progress=Quiet(),
    )  # fmt: skip
    return folder


@pytest.mark.slow
def test_a_report_is_written_beside_its_run_and_tracked_below_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    train(cohort=folder / "cohort", name="one", overrides=TINY, tracking_uri=STORE, progress=Quiet())
    result = measure_information(tracking_uri=STORE, progress=Quiet())
    assert result.directory == Path("runs/one/information/test")
    assert json.loads((result.directory / "information.json").read_text()) == result.metrics
    assert all(math.isfinite(value) for value in result.metrics.values())
    samples = open_cohort(folder / "cohort").samples
    test = samples[samples["split"] == "test"]
    complete = test["cxr_present"] & test["ecg_present"] & test["labs_present"]
    assert 0 < complete.sum() < len(test)
    total = "test/information/total_correlation/lower_bound"
    assert result.metrics[f"{total}_samples"] == complete.sum()
    assert result.metrics[f"{total}_left_out"] == (~complete).sum()
    assert result.metrics["test/information/pair/cxr+ecg/lower_bound_samples"] == (
        (test["cxr_present"] & test["ecg_present"]).sum()
    )
    assert "lack one of them and are left out" in result.text()
    assert result.record()["metrics"] == result.metrics

    with sqlite3.connect(folder / "mlflow.db") as store:
        found = store.execute(
            "select tags.value, metrics.value from metrics join tags using (run_uuid) "
            "where tags.key = 'kind' and metrics.key = ?",
            (total,),
        ).fetchall()
    assert dict(found) == pytest.approx({"train": result.metrics[total], "information": result.metrics[total]})
    assert len(found) == 2

    on_val = measure_information(split="val", tracking_uri=None, progress=Quiet())
    assert on_val.directory == Path("runs/one/information/val")
    assert not any("lower_bound" in name for name in on_val.metrics)


def test_no_run_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="symile-clin train"):
        measure_information(progress=Quiet())
