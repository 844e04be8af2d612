"""The command from a preset to its files: all numbers in them, the same ones again, and nothing of a run that fails."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symile_clin import cli
from symile_clin.errors import ConfigError
from symile_clin.pipeline import experiment
from symile_clin.pipeline.experiment import xor
from symile_clin.progress import Quiet
from symile_clin.tracking import NullTracker

TINY = """
experiment: xor
bits: 2
p: [0.0, 1.0]
target: b
samples: {train: 300, val: 60, test: 150}
seeds: [0, 1]
objectives:
  - {name: symile, negatives: permuted, normalization: l2}
  - {name: clip, reduction: sum}
dim: 8
logit_scale_init: -0.3
training: {epochs: 4, batch_size: 50, lr: 0.1}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return "tiny.yaml"


class _Recorder(NullTracker):
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {"metrics": [], "artifacts": [], "status": []}

    def metrics(self, values: Any, *, step: int | None = None) -> None:
        self.seen["metrics"].append((step, dict(values)))

    def artifact(self, path: Path, *, folder: str | None = None, patient_level: bool) -> None:  # noqa: ARG002
        self.seen["artifacts"].append((path.name, patient_level))

    def finish(self, status: str = "FINISHED") -> None:
        self.seen["status"].append(status)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> _Recorder:
    made = _Recorder()
    monkeypatch.setattr(experiment, "start_run", lambda **_: made)
    return made


def test_a_run_leaves_all_its_numbers_and_a_figure(tiny: str, recorder: _Recorder) -> None:
    outcome = xor(preset=tiny, workers=1, progress=Quiet())
    assert outcome.directory == Path("runs/tiny-1")
    names = {path.name for path in outcome.directory.iterdir()}
    assert names == {"config.yaml", "results.json", "results.csv", "xor.png"}
    results = json.loads((outcome.directory / "results.json").read_text())
    rows = list(csv.DictReader((outcome.directory / "results.csv").read_text().splitlines()))
    assert [(float(row["p"]), row["objective"]) for row in rows] == [
        (p, name) for p in (0.0, 1.0) for name in ("symile", "clip")
    ]
    for row, found in zip(rows, results["accuracies"], strict=True):
        assert float(row["accuracy"]) == pytest.approx(found["accuracy"], abs=1e-6)
        assert found["accuracy"] == pytest.approx(np.mean(found["by_seed"]))
        assert found["ci_low"] <= found["accuracy"] <= found["ci_high"]
        assert float(row["ceiling"]) == (1.0 if row["p"] == "1.0" else 0.25)
        assert float(row["tc"]) == pytest.approx(2 * np.log(2), abs=1e-6)
    assert results["accuracies"][2]["ci_low"] > 0.5, "after 24 steps well above the chance of 0.25"
    assert results["information"]["unit"] == "nats"
    assert (outcome.directory / "xor.png").read_bytes().startswith(b"\x89PNG")
    assert "symile" in outcome.text()
    assert outcome.record()["accuracies"] == results["accuracies"]

    assert [step for step, _ in recorder.seen["metrics"]] == [0, 0, 100, 100]
    assert recorder.seen["metrics"][2][1]["test/b/symile/accuracy"] == results["accuracies"][2]["accuracy"]
    assert {name for name, _ in recorder.seen["artifacts"]} == names
    assert not any(patient_level for _, patient_level in recorder.seen["artifacts"])
    assert recorder.seen["status"] == ["FINISHED"]

    again = xor(preset=tiny, out=Path("again"), tracking_uri=None, workers=1, progress=Quiet())
    assert again.directory == Path("again")
    for name in ("results.csv", "xor.png", "config.yaml"):
        assert (again.directory / name).read_bytes() == (outcome.directory / name).read_bytes(), name


def test_one_p_and_other_than_three_variables_have_no_figure_and_no_terms(tiny: str) -> None:
    overrides = ["p=[1.0]", "variables=4", "seeds=[0]", "training.epochs=1", "objectives=[{name: clip}]"]
    outcome = xor(preset=tiny, overrides=overrides, tracking_uri=None, workers=1, progress=Quiet())
    assert {path.name for path in outcome.directory.iterdir()} == {"config.yaml", "results.json", "results.csv"}
    assert outcome.results["information"] is None
    assert "xor.png" not in outcome.text()


def test_four_variables_over_p_have_a_figure_of_accuracies(tiny: str) -> None:
    overrides = ["variables=4", "seeds=[0]", "training.epochs=1"]
    outcome = xor(preset=tiny, overrides=overrides, tracking_uri=None, workers=1, progress=Quiet())
    assert (outcome.directory / "xor.png").is_file()


def test_a_run_that_fails_leaves_nothing(tiny: str, recorder: _Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run_xor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        xor(preset=tiny, workers=1, progress=Quiet())
    assert [path for path in Path("runs").iterdir() if path.suffix != ".lock"] == []
    assert recorder.seen["status"] == ["KILLED"]


def test_results_are_not_written_over(tiny: str) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    with pytest.raises(ConfigError, match="full is not empty"):
        xor(preset=tiny, out=Path("full"), tracking_uri=None, workers=1, progress=Quiet())


def test_the_command_prints_one_object_and_fails_in_one_line(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--no-tracking",
        "--workers",
        "1",
        "--set",
        "seeds=[0]",
        "--set",
        "training.epochs=1",
        "--set",
        "p=[0.5]",
    ]
    assert cli.run(["xor", tiny, "--json", "--quiet", *options]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["directory"] == "runs/tiny-1"
    assert err == ""
    assert cli.run(["xor", tiny, "--set", "bit=3"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip() == "symile-clin: tiny.yaml has 1 problem: unknown key 'bit' (did you mean 'bits'?)."
