"""The whole way: a run on a cohort in which faults are planted, its list, pictures and metrics."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from symile_clin.audit import pictures, unlike
from symile_clin.audit.audit_report import Audit, audit_splits
from symile_clin.audit.listed import COLUMNS
from symile_clin.cli import run
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.base import Modality
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.pipeline import train
from symile_clin.progress import Quiet
from symile_clin.schema import Split
from tests.evaluation.small_cohort import NAMES, ReadsSynergy, modalities, small_cohort
from tests.pipeline.tiny_cohort import VAL, tiny_cohort


class Reads(nn.Module):
    """An encoder without weights."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, bits: Tensor) -> Tensor:
        return ReadsSynergy().encode(self.name, bits)


class Pictured:
    """A modality of the small cohort whose pictures are of any split."""

    def __init__(self, modality: Modality) -> None:
        self._modality = modality

    def __getattr__(self, name: str) -> Any:
        return getattr(self._modality, name)

    def render(self, arrays: Mapping[str, Any], row: Mapping[str, Any]) -> Any:
        return self._modality.render(arrays, {**row, "split": "test"})


def audited(cohort: Cohort, directory: Path, *, splits: tuple[Split, ...] = ("test",), top: int = 6) -> Audit:
    model = MultimodalEncoder(
        {name: Reads(name) for name in NAMES}, dim=4, normalization="l2", logit_scale_init=2.0, placeholders=["red"]
    )
    rooms = {name: cast(Modality, Pictured(one)) for name, one in modalities().items()}
    train_rows = cohort.rows("train")
    return audit_splits(
        model=model,
        objective=Symile(normalization="l2"),
        cohort=cohort,
        modalities=rooms,
        splits=splits,
        trained_on=CohortDataset(cohort, rooms, train_rows[::2]),
        held_out=CohortDataset(cohort, rooms, train_rows[1::2]),
        top=top,
        seed=0,
        batch_size=32,
        device="cpu",
        directory=directory,
        progress=Quiet(),
    )


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Fewer trees and pictures: this is about the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlike, "TREES", 25)
        patch.setattr(pictures, "DRAWN", 2)
        yield


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Blue of rows 10, 20, ... is that of the row with all bits turned over."""
    cohort = small_cohort(tmp_path_factory.mktemp("planted") / "cohort", lacking={"red": [3, 130], "green": [3]})
    path = cohort.path / "arrays" / "blue" / "bits.npy"
    bits = np.load(path)
    bits[10:120:10] ^= 1
    np.save(path, bits)
    return cohort


@pytest.fixture(scope="module")
def audit(planted: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audited(planted, tmp_path_factory.mktemp("run") / "audit" / "test", top=12)


def test_planted_mix_ups_are_at_the_top(audit: Audit) -> None:
    mixed = audit.lines[audit.lines["kind"] == "mix-up"]
    first = mixed.sort_values("share", ascending=False)["row"].head(11)
    assert set(first) == set(range(10, 120, 10))
    assert audit.found.metrics["test/audit/mix_up/n_share_above_0.5"] >= 11
    assert audit.found.metrics["test/audit/mix_up/n_evidence_above_0"] >= 11
    assert audit.found.metrics["test/audit/mix_up/n"] == 119, "row 3 has only one modality"
    listed = audit.found.table.split("Possible mix-ups")[1].split("Unlike")[0]
    assert all(f"{row:7}" in listed for row in range(10, 120, 10))


def test_every_line_is_of_a_sample_that_has_the_modality(audit: Audit, planted: Cohort) -> None:
    lines = audit.lines
    assert list(lines.columns) == list(COLUMNS)
    counts = lines.groupby(["kind", "modality"]).size().to_dict()
    assert counts["mix-up", "blue+red+green"] == 119
    assert counts["mismatch", "blue"] == counts["mismatch", "red"] == counts["mismatch", "green"] == 119
    assert (counts["unlike", "blue"], counts["unlike", "red"], counts["unlike", "green"]) == (120, 119, 119)
    assert set(lines["split"]) == {"test"}
    same = lines[lines["kind"] == "identical"]
    bits = np.load(planted.path / "arrays" / "red" / "bits.npy")
    for line in same[same["modality"] == "red"].head(5).to_dict("records"):
        for other in map(int, line["same_as"].split()):
            assert (bits[other] == bits[line["row"]]).all()
            assert other // 2 != line["row"] // 2, "of another patient"


def test_files_hold_the_same_and_are_private_where_they_show_patients(audit: Audit) -> None:
    folder = audit.found.artifacts[0].path.parent
    assert {one.path.name: one.patient_level for one in audit.found.artifacts} == {
        "metrics.json": False, "audit.png": False, "audit.csv": True, "audit_gallery.png": True
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {one.path.name for one in audit.found.artifacts}
    for one in audit.found.artifacts:
        assert one.patient_level <= (one.path.stat().st_mode & 0o077 == 0)
    assert json.loads((folder / "metrics.json").read_text()) == audit.found.metrics
    read = pd.read_csv(folder / "audit.csv", dtype={"same_as": str, "suspected": str})
    np.testing.assert_allclose(read["share"], audit.lines["share"], rtol=1e-5)
    assert (read["suspected"].fillna("") == audit.lines["suspected"]).all()
    for picture in ("audit.png", "audit_gallery.png"):
        assert imread(folder / picture)[:, :, :3].std() > 0.02


def test_it_is_the_same_again_and_each_split_by_itself(planted: Cohort, audit: Audit, tmp_path: Path) -> None:
    both = audited(planted, tmp_path / "both", splits=("train", "test"))
    alone = both.lines[both.lines["split"] == "test"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, audit.lines)
    assert {name for name in both.found.metrics if name.startswith("test/")} == set(audit.found.metrics)
    assert "by heart" in both.found.table
    assert "by heart" not in audit.found.table


def test_diverged_weights_leave_the_old_list_alone(
    planted: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited(planted, tmp_path / "audit")
    before = (tmp_path / "audit" / "audit.csv").read_bytes()
    monkeypatch.setattr(Reads, "forward", lambda _, bits: torch.full((len(bits), 4), torch.nan))
    with pytest.raises(Exception, match="not finite"):
        audited(planted, tmp_path / "audit")
    assert (tmp_path / "audit" / "audit.csv").read_bytes() == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited run")
    tiny_cohort(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(name="one", overrides=("training.epochs=1",), tracking_uri=None, progress=Quiet())
    return folder


@pytest.mark.slow
def test_the_command_writes_beside_the_run_and_tracks_no_patient(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert run(["audit", "one", "--split", "val", "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert "a question, not a verdict" in said
    assert "runs/one/audit/val" in said
    assert run(["audit", "--split", "all", "--no-tracking", "--json", "--quiet"]) == 0
    record = json.loads(capsys.readouterr().out)
    lines = pd.read_csv(trained / "runs/one/audit/all/audit.csv")
    assert set(lines["split"]) == {"train", "val"}
    assert record["metrics"]["val/audit/mix_up/n"] == VAL
    far = lines[(lines["kind"] == "unlike") & (lines["split"] == "val")]
    np.testing.assert_allclose(far.groupby("modality")["share"].mean(), 0.5, atol=1e-6)
    with sqlite3.connect(trained / "mlflow.db") as store:
        (kind,) = store.execute("select value from tags where key = 'kind'").fetchone()
    assert kind == "audit"
    sent = {path.name for path in (trained / "mlartifacts").rglob("*.*") if path.is_file()}
    assert {"metrics.json", "audit.png"} <= sent
    assert not sent & {"audit.csv", "audit_gallery.png"}


@pytest.mark.slow
def test_a_split_without_samples_is_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert open_cohort(trained / "data/cohorts/tiny").name == "tiny"
    assert run(["audit", "one", "--no-tracking"]) == 3
    assert "no sample in its test split" in capsys.readouterr().err
