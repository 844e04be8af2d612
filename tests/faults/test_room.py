"""What stages look for before they start, against what they then take: never less, never three times as much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from symile_clin import disk
from symile_clin.modalities.labs.tables import LABEVENTS
from symile_clin.objectives.symile import Symile
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.release import export_cohort
from symile_clin.pipeline.synthesis import synth
from symile_clin.progress import Quiet
from symile_clin.sources import glance
from symile_clin.sources.convert import convert
from symile_clin.strict import apply_overrides, dump_yaml
from symile_clin.training.checkpoint import checkpoint_bytes, save_checkpoint
from symile_clin.training.state import TrainingState
from tests.cohort.tree import SPEC, Tree


class Looks:
    """Takes the place of `disk.require_space`: what was asked for, and what was there then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        self.needed: dict[str, int] = {}
        self.there: dict[str, int] = {}
        self._place = place
        monkeypatch.setattr(disk, "require_space", self)

    def __call__(self, folder: Path, needed: int, *, what: str) -> None:  # noqa: ARG002  its signature
        self.needed[what] = needed
        self.there[what] = disk.size(self._place, on_disk=True)


def test_a_checkpoint(tmp_path: Path) -> None:
    model, objective = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300)), Symile(negatives="permuted")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 300)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "last", model=model, objective=objective, optimizer=optimizer, state=TrainingState())
    assert 1 <= checkpoint_bytes(model, objective) / disk.size(tmp_path / "last") < 1.1


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_the_typed_copy_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    rng, rows = np.random.default_rng(0), 40_000
    columns: dict[str, object] = dict.fromkeys(LABEVENTS.columns, "")
    times = pd.Timestamp("2150-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 10**8, rows)), unit="s")
    columns |= {
        "labevent_id": np.arange(rows), "subject_id": np.sort(rng.integers(10**7, 10**7 + 500, rows)),
        "itemid": rng.integers(50_800, 51_000, rows), "charttime": times, "storetime": times,
        "valuenum": rng.integers(0, 3000, rows) / 10,
    }  # fmt: skip
    path = tmp_path / "hosp" / f"labevents{suffix}"
    path.parent.mkdir()
    pd.DataFrame(columns).to_csv(path, index=False)
    monkeypatch.setattr(glance, "LARGE_BYTES", 0)
    expected = glance.copy_bytes(LABEVENTS, tmp_path)
    convert(LABEVENTS, path, tmp_path / "copy.parquet")
    assert 1 <= expected / disk.size(tmp_path / "copy.parquet") < 3
    monkeypatch.undo()
    assert glance.copy_bytes(LABEVENTS, tmp_path) == 0, "it is small, and nothing is estimated"


@pytest.mark.slow
def test_synthetic_patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch, tmp_path)
    synth(out=tmp_path / "tree", patients=100, seed=0, workers=1, progress=Quiet())
    more = disk.size(tmp_path, on_disk=True) - looks.there["80 more patients"]
    assert 1 <= looks.needed["80 more patients"] / more < 3


@pytest.mark.slow
def test_a_cohort_and_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path / "tree")
    for number in range(24):
        tree.complete(10_000_000 + number, 20_000_000 + number)
    tree.write()
    (tmp_path / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))
    looks = Looks(monkeypatch, tmp_path)
    roots = {name: tmp_path / "tree" / name for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
    out = tmp_path / "cohorts" / "tiny"
    build_cohort(
        spec=str(tmp_path / "tiny.yaml"), out=out, workers=1, tracking_uri=None, progress=Quiet(),
        mimic_iv=roots["mimic_iv"], mimic_cxr=roots["mimic_cxr"], mimic_ecg=roots["mimic_ecg"],
    )  # fmt: skip
    while_built = disk.size(out) + disk.size(out / "arrays")  # shards are as large
    assert 1 <= looks.needed["the cohort"] / while_built < 3
    released = export_cohort(cohort=out, out=tmp_path / "release", progress=Quiet())
    assert 1 <= looks.needed["its copy in the release's layout"] / released.bytes < 1.5
