"""Runs that a store could not take are brought to it later, and are then what they would have been."""

from __future__ import annotations

import json
import resource
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from symile_clin.errors import MismatchError, TrackingError
from symile_clin.progress import Quiet
from symile_clin.tracking import NullTracker, Tracker
from symile_clin.tracking import mlflow as mlflow_tracking
from symile_clin.tracking.delivery import deliver, remedy, resume_journaled, start_journaled
from symile_clin.tracking.journal import FOLDER, TRAINING, Journal, JournaledTracker, journals, tracked_as
from tests.tracking.test_mlflow import Listener, artifacts_folder, history, stored


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def _down(folder: Path) -> str:
    (folder / "down.db").mkdir(exist_ok=True)
    return f"sqlite:///{folder / 'down.db'}"


def _start(run: Path, uri: str, name: str = TRAINING, **arguments: Any) -> JournaledTracker:
    given: dict[str, Any] = {
        "experiment": "symile-clin",
        "run_name": run.name,
        "tags": {"kind": "train", "patient_level_artifacts": "false", "remote_tracking": "false"},
        "synthetic": False,
        "allow_patient_level": False,
        "allow_remote": False,
        "progress": Quiet(),
        **arguments,
    }
    return start_journaled(run / FOLDER / name, uri=uri, **given)


def _tell(tracker: Tracker, run: Path) -> None:
    """All that a run is told, more than one request takes."""
    tracker.params({f"p{number}": "x" * 7000 for number in range(120)} | {"training.lr": 0.001})
    tracker.tags({"device": "cpu"})
    for step in range(1, 4):
        tracker.metrics({"train/loss": 1 / step, "val/a+b/recall": float("nan")}, step=step)
    tracker.metrics({f"best/{number}": float(number) for number in range(30)} | {"best/inf": float("inf")})
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "gallery.png").write_bytes(b"a patient")
    tracker.artifact(run / "config.yaml", patient_level=False)
    tracker.artifact(run / "config.yaml", folder="again", patient_level=False)
    tracker.artifact(run / "gallery.png", patient_level=True)
    tracker.finish()


def _journal(run: Path, name: str = TRAINING) -> Journal:
    return Journal.read(run / FOLDER / name, progress=Quiet())


def _deliver(run: Path, uri: str, name: str = TRAINING, parent: str | None = None, **allowed: bool) -> Any:
    given = {"allow_patient_level": False, "allow_remote": False, **allowed}
    return deliver(_journal(run, name), uri=uri, parent_run_id=parent, **given)


def _content(uri: str, run_id: str) -> dict[str, Any]:
    """All that a store has of a run but what differs between any two."""
    run = stored(uri, run_id)
    folder = artifacts_folder(uri, run_id)
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": {key: value for key, value in run.data.tags.items() if key != "record"},
        "metrics": {key: list(map(repr, history(uri, run_id, key))) for key in run.data.metrics if "best" not in key},
        "best": {key: repr(value) for key, value in run.data.metrics.items()},
        "files": {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()},
    }


def test_a_delivered_run_is_what_a_live_one_is(uri: str, tmp_path: Path) -> None:
    live, down = tmp_path / "live" / "one", tmp_path / "down" / "one"
    tracker = _start(live, uri)
    _tell(tracker, live)
    listener = Listener()
    missing = _start(down, _down(tmp_path), progress=listener)
    assert isinstance(missing.inner, NullTracker)
    assert missing.run_id is None
    _tell(missing, down)
    assert len(listener.said) == 1
    assert f"`symile-clin track sync one --tracking-uri {_down(tmp_path)}` delivers it." in listener.said[0]
    told = _journal(down)
    time.sleep(0.05)
    found = _deliver(down, uri)
    assert (found.is_new, found.params, found.artifacts, found.withheld) == (True, 121, 2, 1)
    assert found.numbers == 6 + 31
    assert tracker.run_id is not None
    assert _content(uri, found.run_id) == _content(uri, tracker.run_id)
    info = stored(uri, found.run_id).info
    assert (info.start_time, info.end_time) == (told.begun["time"], told.end and told.end[1])
    assert tracked_as(down) == found.run_id
    again = _deliver(down, uri)
    assert again.is_nothing
    assert _deliver(live, uri).is_nothing
    assert _content(uri, found.run_id) == _content(uri, tracker.run_id)


def test_what_a_store_lacks_is_added_and_the_rest_left_alone(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, listener = tmp_path / "half", Listener()
    tracker = _start(run, uri, progress=listener)
    tracker.metrics({"train/loss": 3.0}, step=1)
    assert isinstance(tracker.inner, mlflow_tracking.MlflowTracker)
    tracker.inner.flush()
    with monkeypatch.context() as broken:

        def refuse(*_: object, **__: object) -> None:
            raise OSError("no space left on device")

        for method in ("log_batch", "set_terminated"):
            broken.setattr(tracker.inner._client, method, refuse)
        broken.setattr(mlflow_tracking, "keep_artifact", refuse)
        _tell(tracker, run)
    assert len(listener.said) == 1
    assert "MLflow does not record this run completely: no space left on device. It is kept in " in listener.said[0]
    assert tracker.run_id is not None
    before = history(uri, tracker.run_id, "train/loss")
    found = _deliver(run, uri)
    assert (found.run_id, found.is_new, found.status) == (tracker.run_id, False, "FINISHED")
    # of the first loss the store has another value, which was told before: it stays, as it would have
    assert (found.params, found.numbers, found.artifacts) == (121, 5 + 31, 2)
    assert before == [(1, 3.0)]
    assert [step for step, _ in history(uri, tracker.run_id, "train/loss")] == [1, 2, 3]
    assert _deliver(run, uri).is_nothing


def test_a_measurement_is_a_child_and_adds_to_its_training(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "measured"
    training = _start(run, uri)
    training.finish()
    child = _start(run, _down(tmp_path), "eval-test.jsonl", run_name="measured-eval-test", adds_to_training=True,
                   synthetic=True, tags={"kind": "eval", "patient_level_artifacts": "true"})  # fmt: skip
    child.metrics({"test/blue/recall_at_1": 0.4})
    (run / "eval").mkdir()
    for name in ("gallery.png", "histogram.png"):
        (run / "eval" / name).write_bytes(name.encode())
        child.artifact(run / "eval" / name, patient_level=name == "gallery.png")
    child.finish()
    (run / "eval" / "histogram.png").unlink()
    assert [path.name for path in journals(run)] == [TRAINING, "eval-test.jsonl"]
    found = _deliver(run, uri, "eval-test.jsonl", training.run_id)
    assert found.gone == ("histogram.png",)
    assert stored(uri, found.run_id).data.tags["mlflow.parentRunId"] == training.run_id
    assert training.run_id is not None
    for one in (found.run_id, training.run_id):
        assert history(uri, one, "test/blue/recall_at_1") == [(0, 0.4)]
        assert [path.name for path in artifacts_folder(uri, one).iterdir()] == ["gallery.png"]
    assert _deliver(run, uri, "eval-test.jsonl", training.run_id).is_nothing


@pytest.mark.parametrize("allowed", [False, True])
def test_patient_level_files_go_only_where_that_is_said_anew(uri: str, tmp_path: Path, allowed: bool) -> None:
    run = tmp_path / f"real-{allowed}"
    _tell(_start(run, _down(tmp_path), allow_patient_level=True), run)
    found = _deliver(run, uri, allow_patient_level=allowed)
    assert (artifacts_folder(uri, found.run_id) / "gallery.png").exists() == allowed
    assert stored(uri, found.run_id).data.tags["patient_level_artifacts"] == str(allowed).lower()
    assert found.withheld == (not allowed)
    if not allowed:  # and a run may be given them later
        assert _deliver(run, uri, allow_patient_level=True).artifacts == 1
        assert stored(uri, found.run_id).data.tags["patient_level_artifacts"] == "true"
        _deliver(run, uri)
        assert stored(uri, found.run_id).data.tags["patient_level_artifacts"] == "true"


def test_a_resumed_run_is_delivered_first_and_told_once(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "resumed"
    first = _start(run, _down(tmp_path))
    first.metrics({"train/loss": 2.0}, step=1)
    first.finish("KILLED")
    given: dict[str, Any] = {"allow_patient_level": False, "allow_remote": False, "progress": Quiet()}
    second = resume_journaled(run / FOLDER / TRAINING, uri=uri, **given)
    assert second.run_id is not None
    assert stored(uri, second.run_id).info.status == "RUNNING"
    for step in (1, 2):  # training sends what there was before again
        second.metrics({"train/loss": 2.0 / step}, step=step)
    second.finish()
    assert history(uri, second.run_id, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert [(one.step, one.value) for one in _journal(run).numbers] == [(1, 2.0), (2, 1.0)]
    assert _deliver(run, uri).is_nothing
    listener = Listener()
    third = resume_journaled(run / FOLDER / TRAINING, uri=_down(tmp_path), **{**given, "progress": listener})
    assert third.run_id is None
    assert len(listener.said) == 1
    assert "does not go on recording this run" in listener.said[0]


def test_a_store_that_fails_is_left_alone_for_a_while(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = _start(tmp_path / "slow", uri)
    assert isinstance(tracker.inner, mlflow_tracking.MlflowTracker)
    calls: list[float] = []

    def hang(*_: object, **__: object) -> None:
        calls.append(time.monotonic())
        time.sleep(0.2)
        raise TimeoutError

    monkeypatch.setattr(tracker.inner._client, "log_batch", hang)
    monkeypatch.setattr(mlflow_tracking, "_SECONDS_BETWEEN_SENDS", 0.0)
    for step in range(1000):
        tracker.metrics({"train/loss": 1.0}, step=step)
    assert len(calls) == 1
    tracker.finish()
    assert len(calls) == 2  # once more, whatever it takes


def test_what_a_store_refuses_is_one_line_with_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, uri = tmp_path / "one", f"sqlite:///{tmp_path}/full.db"
    _tell(_start(run, uri), run)
    with closing(sqlite3.connect(tmp_path / "full.db")) as store:
        for table in ("metrics", "latest_metrics"):
            store.execute(f"DROP TABLE {table}")  # sqlite's answer is of the kind that it gives on a full disk
        store.commit()
    with pytest.raises(
        TrackingError, match=r"the tracking store .*/full\.db cannot be used: .*no such table"
    ) as caught:
        _deliver(run, uri)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_no_password_is_said_or_kept(tmp_path: Path) -> None:
    said = remedy(tmp_path / "one", "postgresql://me:secret@db.example.org/runs?sslkey=secret")
    assert "--tracking-uri postgresql://db.example.org/runs --allow-remote-tracking" in said
    error = OSError("API request to http://me:secret@127.0.0.1:9/api failed: http://me:secret@127.0.0.1:9")
    assert mlflow_tracking.reason(error) == "API request to http://127.0.0.1:9/api failed: http://127.0.0.1:9"


@pytest.mark.parametrize("text", ["", "[]\n", '{"a": 1}\n', "\xff\n", '{"begun": {"record": "1", "tags": {}}}\n5\n'])
def test_another_file_is_no_journal(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(MismatchError, match="is no record of a run"):
        Journal.read(tmp_path / "train.jsonl", progress=Quiet())


def test_a_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    tracker = _start(tmp_path / "cut", _down(tmp_path))
    tracker.metrics({"train/loss": 1.0}, step=1)
    path = tmp_path / "cut" / FOLDER / TRAINING
    with path.open("a") as file:
        file.write('{"metrics": {"train/lo')
    journal = _journal(tmp_path / "cut")
    journal.told_numbers({"train/loss": 0.5}, step=2)
    assert [json.loads(line).get("step") for line in path.read_text().splitlines()] == [None, 1, 2]
    assert [(one.step, one.value) for one in _journal(tmp_path / "cut").numbers] == [(1, 1.0), (2, 0.5)]


def _forbid(folder: Path) -> str:
    return _down(folder)


def _damage(folder: Path) -> str:
    (folder / "mlflow.db").write_bytes(b"not a database" * 100)
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.mark.parametrize("spoil", [_forbid, _damage])
def test_a_store_that_is_still_down_says_so(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    broken = spoil(tmp_path)
    _tell(_start(tmp_path / "one", broken), tmp_path / "one")
    with pytest.raises(TrackingError, match="tracking store"):
        _deliver(tmp_path / "one", broken)


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / FOLDER).write_text("a file in the folder's place")
    listener = Listener()
    _tell(_start(tmp_path / "one", _down(tmp_path), progress=listener), tmp_path / "one")
    assert len([line for line in listener.said if "does not hold all of what is tracked" in line]) == 1


@pytest.mark.parametrize("room", [0, 500])
def test_a_disk_that_is_full_for_a_while_leaves_a_journal_or_none(tmp_path: Path, room: int) -> None:
    """Full before the first line, or in the middle of a later one: files may not grow beyond `room` bytes then."""
    listener, run = Listener(), tmp_path / "one"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    uri = _down(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        tracker = _start(run, uri, progress=listener)
        tracker.params({"long": "x" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    tracker.metrics({"train/loss": 1.0}, step=1)
    assert len([line for line in listener.said if "does not hold all of what is tracked" in line]) == 1
    if room:
        assert [(one.step, one.value) for one in _journal(run).numbers] == [(1, 1.0)]
        assert not _journal(run).params
    else:
        assert not list(journals(run))


@pytest.mark.slow
def test_a_store_that_another_process_holds_is_not_waited_for(uri: str, tmp_path: Path) -> None:
    tracker = _start(tmp_path / "locked", uri)
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        _tell(tracker, tmp_path / "locked")
        assert time.monotonic() - began < 120  # MLflow tries a few times, SQLite 5 s each; and once more at the end
    found = _deliver(tmp_path / "locked", uri)
    assert (found.params, found.status) == (121, "FINISHED")
