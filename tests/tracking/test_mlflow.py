"""Runs in a real MLflow store, and in stores that fail."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from symile_clin.errors import TrackingError
from symile_clin.progress import Quiet
from symile_clin.tracking import Artifact, MlflowTracker, NullTracker, Tracker, add_results, resume_run, start_run
from symile_clin.tracking import mlflow as mlflow_tracking
from symile_clin.tracking.mlflow import code_version
from symile_clin.tracking.store import database_of


class Listener(Quiet):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def started(uri: str, **arguments: Any) -> MlflowTracker:
    arguments = {"run_name": "one", "tags": {"kind": "train"}, "progress": Quiet(), **arguments}
    tracker = start_run(uri=uri, experiment="symile-clin", **arguments)
    assert isinstance(tracker, MlflowTracker)
    return tracker


def stored(uri: str, run_id: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri).get_run(run_id)


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    return [(metric.step, metric.value) for metric in MlflowClient(uri).get_metric_history(run_id, key)]


def artifacts_folder(uri: str, run_id: str) -> Path:
    return Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / "symile-clin" / run_id / "artifacts"


def test_what_is_recorded_is_found_again(uri: str, tmp_path: Path) -> None:
    tracker = started(uri, run_name="demo-symile", tags={"kind": "train", "cohort_hash": "abc"})
    tracker.params({"objective.name": "symile", "training.lr": 0.001})
    for step in range(3):
        tracker.metrics({"train/loss": 3.0 - step}, step=step)
    tracker.tags({"device": "cpu"})
    (tmp_path / "figure.png").write_bytes(b"picture")
    tracker.artifact(tmp_path / "figure.png", folder="figures", patient_level=False)
    tracker.finish()
    run = stored(uri, tracker.run_id)
    assert run.info.run_name == "demo-symile"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"objective.name": "symile", "training.lr": "0.001"}
    assert {"kind": "train", "cohort_hash": "abc", "device": "cpu"}.items() <= run.data.tags.items()
    assert history(uri, tracker.run_id, "train/loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert (artifacts_folder(uri, tracker.run_id) / "figures" / "figure.png").read_bytes() == b"picture"


def test_requests_stay_within_mlflows_limits(uri: str) -> None:
    tracker = started(uri)
    tracker.params({f"p{i}": "x" * 7000 for i in range(205)})
    tracker.metrics({f"m{i}": float(i) for i in range(2345)})
    tracker.finish()
    run = stored(uri, tracker.run_id)
    assert len(run.data.params) == 205
    assert {len(value) for value in run.data.params.values()} == {6000}
    assert run.data.metrics == {f"m{i}": float(i) for i in range(2345)}


def test_a_name_that_mlflow_does_not_take_is_adapted(uri: str) -> None:
    tracker = started(uri)
    tracker.metrics({"test/cxr/candidates/ecg+labs/recall_at_1": 0.5})
    tracker.finish()
    assert stored(uri, tracker.run_id).data.metrics == {"test/cxr/candidates/ecg-labs/recall_at_1": 0.5}


def test_numbers_wait_to_be_sent_together(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = started(uri)
    tracker.metrics({"train/loss": 1.0}, step=0)
    assert stored(uri, tracker.run_id).data.metrics == {}
    monkeypatch.setattr(mlflow_tracking, "_SECONDS_BETWEEN_SENDS", 0.0)
    tracker.metrics({"train/loss": 0.5}, step=1)
    assert history(uri, tracker.run_id, "train/loss") == [(0, 1.0), (1, 0.5)]


def test_an_evaluation_is_a_child_and_its_results_are_on_the_training_run_too(uri: str, tmp_path: Path) -> None:
    training = started(uri)
    training.finish()
    ended = stored(uri, training.run_id).info
    child = started(uri, tags={"kind": "eval"}, parent_run_id=training.run_id)
    (tmp_path / "histogram.png").write_bytes(b"public")
    (tmp_path / "gallery.png").write_bytes(b"private")
    figures = [
        Artifact(tmp_path / "histogram.png", patient_level=False),
        Artifact(tmp_path / "gallery.png", patient_level=True),
    ]
    results = {"test/cxr/recall_at_1": 0.4}
    add_results(uri=uri, run_id=training.run_id, metrics=results, artifacts=figures, progress=Quiet())
    assert stored(uri, child.run_id).data.tags["mlflow.parentRunId"] == training.run_id
    run = stored(uri, training.run_id)
    assert run.data.metrics == results
    assert (run.info.status, run.info.end_time) == (ended.status, ended.end_time)
    assert [path.name for path in artifacts_folder(uri, training.run_id).iterdir()] == ["histogram.png"]


@pytest.mark.parametrize("allowed", [False, True])
def test_patient_level_artifacts_go_only_where_that_is_allowed(uri: str, tmp_path: Path, allowed: bool) -> None:
    tracker = started(uri, allow_patient_level=allowed)
    (tmp_path / "gallery.png").write_bytes(b"a patient")
    tracker.artifact(tmp_path / "gallery.png", patient_level=True)
    tracker.finish()
    assert (artifacts_folder(uri, tracker.run_id) / "gallery.png").exists() == allowed


def test_no_path_of_this_machine_is_recorded(uri: str, tmp_path: Path) -> None:
    tracker = started(uri)
    (tmp_path / "figure.png").write_bytes(b"picture")
    tracker.artifact(tmp_path / "figure.png", patient_level=False)
    tracker.finish()
    database = Path(uri.removeprefix("sqlite:///"))
    with sqlite3.connect(database) as connection:
        text = "\n".join(connection.iterdump())
    connection.close()
    assert tracker.run_id in text
    for place in (str(database.parent), str(tmp_path), str(Path.cwd()), str(Path.home()) + "/"):
        assert place not in text


def test_a_failing_store_is_said_once_and_numbers_are_kept(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    tracker = started(uri, progress=listener)
    send = tracker._client.log_batch

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tracker._client, "log_batch", refuse)
    monkeypatch.setattr(mlflow_tracking, "_SECONDS_BETWEEN_SENDS", 0.0)
    for step in range(3):
        tracker.metrics({"train/loss": 1.0}, step=step)
    tracker.params({"seed": 0})
    tracker.tags({"device": "cpu"})
    tracker.artifact(Path("/nowhere/figure.png"), patient_level=False)
    assert listener.said == ["MLflow does not record this run completely: no space left on device"]
    monkeypatch.setattr(tracker._client, "log_batch", send)
    tracker.finish()
    assert len(history(uri, tracker.run_id, "train/loss")) == 3
    assert len(listener.said) == 1


def _damage(folder: Path) -> None:
    (folder / "mlflow.db").write_bytes(b"not a database" * 100)


def _forbid(folder: Path) -> None:
    (folder / "mlflow.db").mkdir()


@pytest.mark.parametrize("spoil", [_damage, _forbid])
def test_a_store_that_does_not_open_does_not_stop_the_work(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path)
    began = time.monotonic()
    listener = Listener()
    tracker = start_run(
        uri=f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="e", run_name="r", tags={}, progress=listener
    )
    assert isinstance(tracker, NullTracker)
    _use_all(tracker)
    assert len(listener.said) == 1
    assert listener.said[0].startswith("MLflow does not record this run: ")
    assert time.monotonic() - began < 30  # MLflow by itself retries for 100 s


def test_a_run_that_was_cut_short_goes_on_where_it_stopped(uri: str, tmp_path: Path) -> None:
    first = started(uri, tags={"kind": "train"})
    first.params({"training.lr": 0.001})
    for epoch in (1, 2):
        first.metrics({"train/loss": 3.0 - epoch, "val/loss": 4.0 - epoch}, step=epoch)
    first.flush()
    first.metrics({"train/loss": 0.0, "val/loss": 1.0}, step=3)  # waits to be sent when the process is killed
    second = resume_run(uri=uri, run_id=first.run_id, progress=Quiet())
    assert stored(uri, first.run_id).info.status == "RUNNING"
    second.params({"training.lr": 0.001})
    for epoch in (1, 2, 3, 4):
        second.metrics({"train/loss": 3.0 - epoch, "val/loss": 4.0 - epoch}, step=epoch)
    second.metrics({"best/epoch": 4})
    second.finish("KILLED")
    third = resume_run(uri=uri, run_id=first.run_id, progress=Quiet())
    third.metrics({"best/epoch": 4})
    third.finish()
    assert history(uri, first.run_id, "train/loss") == [(1, 2.0), (2, 1.0), (3, 0.0), (4, -1.0)]
    assert history(uri, first.run_id, "val/loss") == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.0)]
    assert history(uri, first.run_id, "best/epoch") == [(0, 4.0)]
    run = stored(uri, first.run_id)
    assert (run.info.status, run.data.params, third.run_id) == ("FINISHED", {"training.lr": "0.001"}, first.run_id)
    (tmp_path / "figure.png").write_bytes(b"picture")
    third.artifact(tmp_path / "figure.png", patient_level=False)
    assert (artifacts_folder(uri, first.run_id) / "figure.png").exists()


@pytest.mark.parametrize("spoil", ["another run", "no store", "damaged"])
def test_a_run_that_cannot_go_on_being_recorded_is_only_mentioned(uri: str, tmp_path: Path, spoil: str) -> None:
    listener = Listener()
    if spoil != "another run":
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    if spoil == "damaged":
        _damage(tmp_path)
    tracker = resume_run(uri=uri, run_id="0" * 32, progress=listener)
    assert isinstance(tracker, NullTracker)
    assert len(listener.said) == 1
    assert listener.said[0].startswith("MLflow does not go on recording this run: ")
    assert (tmp_path / "mlflow.db").exists() == (spoil == "damaged")


def test_results_for_a_run_that_is_not_there_are_only_mentioned(uri: str) -> None:
    listener = Listener()
    add_results(uri=uri, run_id="0" * 32, metrics={"test/cxr/recall_at_1": 0.1}, progress=listener)
    assert len(listener.said) == 1


def test_the_null_tracker_takes_everything() -> None:
    _use_all(NullTracker())


def _use_all(tracker: Tracker) -> None:
    tracker.params({"a": 1})
    tracker.tags({"a": "b"})
    tracker.metrics({"loss": 1.0}, step=1)
    tracker.artifact(Path("nowhere"), folder="figures", patient_level=True)
    tracker.finish("FAILED")
    assert tracker.run_id is None


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "https://tracking.example.org", "postgresql://db.example.org/x", "databricks://x"]
)
def test_a_store_elsewhere_is_refused_unless_asked_for(uri: str) -> None:
    with pytest.raises(TrackingError, match="may be on another machine"):
        start_run(uri=uri, experiment="e", run_name="r", tags={}, progress=Quiet())
    with pytest.raises(TrackingError, match="may be on another machine"):
        add_results(uri=uri, run_id="0", metrics={}, progress=Quiet())
    with pytest.raises(TrackingError, match="may be on another machine"):
        resume_run(uri=uri, run_id="0", progress=Quiet())
    assert database_of(uri, allow_remote=True) is None


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "", "sqlite://", "sqlite:///", "file://x"])
def test_a_store_that_mlflow_no_longer_has_is_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match=r"Expected a database such as sqlite:///mlflow\.db"):
        database_of(uri)


def test_where_a_local_store_is() -> None:
    assert database_of("sqlite:///mlflow.db") == Path("mlflow.db")
    assert database_of("sqlite:////data/mlflow.db?timeout=5") == Path("/data/mlflow.db")


def test_the_code_version_is_a_commit() -> None:
    version = code_version()
    assert version is None or (
        len(version.removesuffix("-dirty")) == 40 and set(version[:40]) <= set("0123456789abcdef")
    )


FIRST_USE = """
import os, sys
from symile_clin.progress import Console
from symile_clin.tracking import start_run
tracker = start_run(uri="sqlite:///mlflow.db", experiment="e", run_name=sys.argv[1], tags={}, progress=Console())
tracker.metrics({"loss": 1.0})
tracker.finish()
assert tracker.run_id, "not recorded"
import mlflow.environment_variables as known
assert known.MLFLOW_DISABLE_TELEMETRY.get() is (sys.argv[2] == "off")
"""


def test_processes_that_meet_at_a_new_store_all_record(tmp_path: Path) -> None:
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", FIRST_USE, f"run{i}", telemetry],
            cwd=tmp_path,
            env={**inherited, **wish},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, (telemetry, wish) in enumerate([("off", {})] * 3 + [("on", {"MLFLOW_DISABLE_TELEMETRY": "false"})])
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert said == [""] * 4
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM runs ORDER BY name")]
        metrics = connection.execute("SELECT count(*) FROM metrics").fetchone()
    connection.close()
    assert names == ["run0", "run1", "run2", "run3"]
    assert metrics == (4,)


def test_a_store_is_the_one_of_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        tracker = start_run(uri="sqlite:///mlflow.db", experiment="e", run_name=name, tags={}, progress=Quiet())
        tracker.finish()
    for name in ("a", "b"):
        with closing(sqlite3.connect(tmp_path / name / "mlflow.db")) as store:
            assert store.execute("SELECT name FROM runs").fetchall() == [(name,)]
