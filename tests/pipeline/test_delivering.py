"""`train` without its tracking store, and `track sync` when that is back: from command line to store."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from symile_clin import cli, files
from symile_clin.pipeline.runs import open_run
from tests.pipeline.tiny_cohort import tiny_cohort

DOWN = ("--tracking-uri", "sqlite:///down.db")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a cohort, and a folder in the place of a store."""
    folder = tmp_path_factory.mktemp("delivering")
    tiny_cohort(folder)
    (folder / "down.db").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def _counts() -> dict[str, int]:
    tables = ("runs", "metrics", "params", "tags", "latest_metrics")
    with closing(sqlite3.connect("mlflow.db")) as store:
        return {table: store.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def test_a_training_without_its_store_finishes_and_is_delivered_later(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["track", "sync"]) == 2
    assert "no run in runs was tracked. Train one with `symile-clin train`." in capsys.readouterr().err
    assert cli.run(["train", "--name", "one", "--set", "training.epochs=3", *DOWN]) == 0
    said = capsys.readouterr()
    assert said.err.count("MLflow") == 1
    assert "`symile-clin track sync one --tracking-uri sqlite:///down.db` delivers it." in said.err
    assert "Run runs/one: best epoch" in said.out
    assert open_run(Path("runs"), "one").tracked_as is None
    assert cli.run(["track", "sync", "one", *DOWN]) == 1
    assert "the tracking store down.db cannot be opened" in capsys.readouterr().err
    assert cli.run(["track", "sync", "--json"]) == 0
    delivered = json.loads(capsys.readouterr().out)
    found = delivered["delivered"]["train"]
    assert (delivered["run"], found["is_new"], found["numbers"], found["artifacts"]) == ("runs/one", True, 3 * 6 + 3, 1)
    assert open_run(Path("runs"), "one").tracked_as == found["run_id"]
    before = _counts()
    assert cli.run(["track", "sync", "one"]) == 0
    assert "Run runs/one is recorded whole (train): nothing to deliver." in capsys.readouterr().out
    assert _counts() == before
    monkeypatch.chdir("runs/one")
    assert cli.run(["track", "sync", ".", "--tracking-uri", "sqlite:///../../mlflow.db"]) == 0
    assert f"Run {place / 'runs/one'} is recorded whole" in capsys.readouterr().out
    assert open_run(Path(), ".").name == "one"
    text = (place / "runs" / "one" / "tracking" / "train.jsonl").read_text()
    assert str(place) not in text
    assert "down.db" not in text
    with closing(sqlite3.connect(place / "mlflow.db")) as store:
        lines = [json.loads(line) for line in (place / "runs" / "one" / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            value = store.execute("SELECT value FROM metrics WHERE key = 'val/loss' AND step = ?", (line["epoch"],))
            assert value.fetchone() == (line["val/loss"],)
        assert store.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]


def test_what_has_nothing_to_deliver_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--name", "untracked", "--no-tracking", "--set", "training.epochs=1"]) == 0
    capsys.readouterr()
    assert not Path("runs/untracked/tracking").exists()
    assert cli.run(["track", "sync", "untracked"]) == 2
    assert "run 'untracked' has nothing to deliver" in capsys.readouterr().err
    assert cli.run(["track", "sync", "nowhere"]) == 2
    assert "no run called 'nowhere' in runs" in capsys.readouterr().err


def test_a_run_that_is_being_trained_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--name", "busy", "--set", "training.epochs=1", *DOWN]) == 0
    with files.lock(Path("runs/.busy.lock")):
        assert cli.run(["track", "sync", "busy"]) == 1
    assert "another process is writing" in capsys.readouterr().err


def test_a_server_is_refused_without_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["track", "sync", "--tracking-uri", "https://tracking.example.org"]) == 1
    assert "say --allow-remote-tracking" in capsys.readouterr().err


def test_a_server_that_is_down_stops_nothing_and_its_password_is_not_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # by default two more
    server = ["--tracking-uri", "http://me:secret@127.0.0.1:9", "--allow-remote-tracking"]
    assert cli.run(["train", "--name", "far", "--set", "training.epochs=1", *server]) == 0
    said = capsys.readouterr()
    assert said.err.count("MLflow does not record this run") == 1
    assert (
        "`symile-clin track sync far --tracking-uri http://127.0.0.1:9 --allow-remote-tracking` delivers it" in said.err
    )
    for text in (said.err, said.out, Path("runs/far/tracking/train.jsonl").read_text()):
        assert "secret" not in text
