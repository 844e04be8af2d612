"""`symile-clin probe` from run to files and MLflow, on a cohort of lab panels that are given findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from symile_clin.cli import run
from symile_clin.modalities.labs import Labs
from symile_clin.pipeline import trained
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet
from tests.pipeline.tiny_cohort import tiny_cohort

OPTIONS = ["--split", "val", "--device", "cpu", "--min-positives", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_cohort(folder)
        train(
            preset="tiny.yaml", name="one", overrides=["training.epochs=1"], device="cpu", tracking_uri=None,
            progress=Quiet(),
        )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def _labels(room: Labs, samples: pd.DataFrame) -> pd.DataFrame:
    """A finding of every other patient, of one of the panels."""
    found = pd.DataFrame({"odd": samples["row"] % 2.0})
    return found if room.name == "blue" else found[[]]


def test_a_cohort_without_findings_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", "one", "--no-tracking", *OPTIONS]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("symile-clin: none of the cohort's modalities is labelled with findings.")


def test_the_command_writes_beside_the_run_and_hands_little_to_mlflow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked: dict[str, Any] = {}
    monkeypatch.setattr(Labs, "labels", _labels)
    monkeypatch.setattr(trained, "track_results", lambda uri, **arguments: tracked.update(uri=uri, **arguments))
    assert run(["probe", "one", "--uncertain", "ones", "--json", "--quiet", *OPTIONS]) == 0
    record = json.loads(capsys.readouterr().out)
    directory = Path(record["directory"])
    assert directory == Path("runs/one/probes/val")
    settings = json.loads((directory / "probes.json").read_text())
    assert settings["policy"] == {
        "uncertain": "ones",
        "blank": "zeros",
        "in_words": "uncertain positive, not mentioned negative",
    }
    assert record["metrics"] == json.loads((directory / "metrics.json").read_text())
    assert 0 <= record["metrics"]["val/probe/blue/odd/auroc"] <= 1
    assert record["metrics"]["val/probe/red/odd/n"] == 20
    assert (tracked["kind"], tracked["split"], tracked["trained_here"]) == ("probe", "val", True)
    assert tracked["metrics"].items() < record["metrics"].items()
    assert len(tracked["metrics"]) < len(record["metrics"]) / 3
    levels = {one.path.name: one.patient_level for one in tracked["artifacts"]}
    assert levels["coefficients.npz"]
    assert not levels["probes.csv"]
    assert all(one.path.is_file() for one in tracked["artifacts"])
