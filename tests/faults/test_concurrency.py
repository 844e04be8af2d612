"""Commands that are started at once: each gets its own place, or one wins and the others say so in one line."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pytest

from symile_clin.data.store import Cohort, open_cohort
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from symile_clin.tracking.store import QUIET_MLFLOW, database_of, opened
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree
from tests.conftest import COMMAND
from tests.faults.test_determinism import cohort_digests
from tests.pipeline.tiny_cohort import tiny_cohort
from tests.report.evaluated import described_cohort

TRAININGS: Final = 8
EPOCHS: Final = 2
STORE: Final = "sqlite:///mlflow.db"
#: Runs command lines at once, each in a process forked from one that has imported what they need, and all released by
#: the same closed pipe; prints the exit code, output and errors of each.
PROGRAM: Final = """
import json, os, sys
from pathlib import Path
from symile_clin.cli import run
if sys.argv[2] == "build":
    import duckdb, ibis.backends.duckdb, PIL.Image, pyarrow.parquet
    from symile_clin.pipeline import cohorts, synthesis
else:
    import torch._dynamo
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from symile_clin.pipeline import evaluation, training

children = []
gate, opener = os.pipe()
for number, (place, *line) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(opener)
            os.chdir(place)
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{name}{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.read(gate, 1)
            code = run(line)
            sys.stdout.flush()
        finally:
            os._exit(code)
    children.append((child, place, number))
os.close(opener)
codes = [(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), place, number) for child, place, number in children]
print(json.dumps([(code, *(Path(place, f"{name}{number}").read_text() for name in ("out", "err")))
                  for code, place, number in codes]))
"""


def at_once(lines: Sequence[Sequence[Any]], kind: Literal["build", "train"]) -> list[tuple[int, str, str]]:
    """Run command lines, each after its working directory; exit code, output and errors of each."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines, default=str), kind], capture_output=True, text=True,
        timeout=600, check=False, env={**os.environ, **QUIET_MLFLOW, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def training(number: int) -> list[Any]:
    """A command line that no other training is equal to."""
    settings = ["--set", f"seed={number}", "--set", f"training.epochs={EPOCHS}"]
    return ["train", "tiny.yaml", "--device", "cpu", *settings]


def everything_is_recorded(place: Path) -> None:
    """Eight runs of their own names, and in the store every number of every epoch of each, at its epoch."""
    runs = sorted((place / "runs").glob("*/manifest.json"))
    assert [path.parent.name for path in runs] == [f"tiny-symile-{number + 1}" for number in range(TRAININGS)]
    uri = f"sqlite:///{place}/mlflow.db"
    with opened(uri, database_of(uri)) as client:
        (experiment,) = client.search_experiments(filter_string="name = 'symile-clin'")
        found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        assert len(found) == TRAININGS
        seeds = set()
        for path in runs:
            manifest, run = json.loads(path.read_text()), found[path.parent.name]
            assert (run.info.run_id, run.info.status) == (manifest["tracked_as"], "FINISHED")
            assert {"kind", "cohort", "cohort_hash", "objective", "patients"} <= set(run.data.tags)
            assert len(run.data.params) > 20
            seeds.add(run.data.params["seed"])
            lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
            assert len(lines) == EPOCHS
            for name in lines[0].keys() - {"epoch", "step"}:
                told = sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, name))
                assert told == [(line["epoch"], line[name]) for line in lines], name
    assert len(seeds) == TRAININGS


@contextmanager
def reading(database: Path) -> Iterator[list[int]]:
    """Ask the store for its numbers all the while, as a page that is open does; how many there were each time."""
    seen: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.05):
            if database.exists():
                with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
                    tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'metrics'").fetchall()
                    if tables:
                        seen.append(connection.execute("SELECT count(*) FROM metrics").fetchone()[0])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_trainings_that_start_at_once_on_a_fresh_store_record_everything(tmp_path: Path) -> None:
    tiny_cohort(tmp_path)
    with reading(tmp_path / "mlflow.db") as seen:
        ended = at_once([[tmp_path, *training(number)] for number in range(TRAININGS)], "train")
    for code, _, errors in ended:
        assert code == 0, errors
        assert "MLflow" not in errors
    everything_is_recorded(tmp_path)
    assert seen


@pytest.mark.slow
def test_so_they_do_in_interpreters_of_their_own_with_the_ui_open(tmp_path: Path) -> None:
    tiny_cohort(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    trainings = [
        subprocess.Popen([COMMAND, *training(number)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for number in range(TRAININGS)
    ]
    while not (tmp_path / "mlflow.db").exists():
        time.sleep(0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # the file is there before its tables are; who opens the page then is told to try again
    while True:
        ui = subprocess.Popen([COMMAND, "ui", "--port", str(port)], cwd=tmp_path, env=environment)
        counts = _watch(ui, port, trainings)
        ui.send_signal(signal.SIGINT)
        if ui.wait(60) == 0 or all(one.poll() is not None for one in trainings):
            break
    for one in trainings:
        errors = one.communicate(timeout=300)[1]
        assert one.returncode == 0, errors
        assert "MLflow" not in errors
    assert counts, "the page was never open during the trainings"
    everything_is_recorded(tmp_path)


def _watch(ui: subprocess.Popen[bytes], port: int, trainings: Sequence[subprocess.Popen[str]]) -> list[int]:
    """Ask the server for its runs until the trainings have ended; how many it showed each time."""
    shown: list[int] = []
    asked = json.dumps({"experiment_ids": ["1"], "max_results": 100})
    while ui.poll() is None and any(one.poll() is None for one in trainings):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/api/2.0/mlflow/runs/search", body=asked, headers=headers)
            answer = connection.getresponse()
            assert answer.status == http.HTTPStatus.OK, answer.read()
            shown.append(len(json.loads(answer.read()).get("runs", [])))
        except OSError:
            time.sleep(0.5)
        finally:
            connection.close()
    return shown


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 admissions that qualify."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    for number in range(24):
        tree.complete(10_000_000 + number, 20_000_000 + number, ADMITTED + number % 3 * 400 * HOUR)
    tree.write()
    (tree.root / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))
    return tree.root


def building(source: Path, out: str) -> list[Any]:
    """The command line of a build from `source`."""
    roots = [
        part for option in ("iv", "cxr", "ecg") for part in (f"--mimic-{option}", source / f"mimic_{option}")
    ]  # fmt: skip
    return ["cohort", "build", source / "tiny.yaml", *roots, "--out", out, "--workers", "1", "--no-tracking"]


def refused_in_one_line(errors: str) -> bool:
    """Whether the last thing said is that someone else is at it."""
    return "another process is writing" in errors.splitlines()[-1] and "Traceback" not in errors


def test_of_builds_into_one_directory_one_wins_and_others_share_a_cache(source: Path, tmp_path: Path) -> None:
    same = [[tmp_path, *building(source, "cohorts/one")]] * 3
    others = [[tmp_path, *building(source, f"cohorts/{name}")] for name in ("two", "three")]
    trees = [[tmp_path, "synth", "tree", "--patients", "3", "--workers", "1"]] * 2
    ended = at_once([*same, *others, *trees], "build")
    for code, _, errors in (*ended[:3], *ended[5:]):
        assert code == 0 or (code == 1 and refused_in_one_line(errors)), errors
    assert 1 in [code for code, _, _ in ended[:3]], "none came while another built"
    assert 0 in [code for code, _, _ in ended[:3]]
    assert 0 in [code for code, _, _ in ended[5:]]
    assert [code for code, _, _ in ended[3:5]] == [0, 0], ended[3:5]
    one, two, three = (cohort_digests(tmp_path / "cohorts" / name) for name in ("one", "two", "three"))
    assert one == two == three
    left = {path.name for path in (tmp_path / "cohorts").iterdir()}
    assert left == {"one", "two", "three", ".one.lock", ".two.lock", ".three.lock", ".cache"}
    assert (tmp_path / "tree" / "manifest.json").is_file()
    assert not list(tmp_path.glob(".tree.building*"))


def test_who_reads_a_cohort_that_is_replaced_keeps_what_it_opened(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def build(*overrides: str) -> Cohort:
        build_cohort(
            spec=str(source / "tiny.yaml"), mimic_iv=source / "mimic_iv", mimic_cxr=source / "mimic_cxr",
            mimic_ecg=source / "mimic_ecg", out=Path("one"), overrides=overrides, workers=1, threads=1,
            tracking_uri=None, progress=Quiet(),
        )  # fmt: skip
        return open_cohort(Path("one"))

    before = build()
    images, rows = before.array("cxr", "image"), np.arange(len(before.samples))
    now = build("modalities.cxr.short_side=28")
    replaced = now.array("cxr", "image").take(rows)
    assert not np.array_equal(images.take(rows), replaced)
    again = build().array("cxr", "image").take(rows)
    np.testing.assert_array_equal(images.take(rows), again)


@pytest.mark.slow
def test_of_trainings_evaluations_and_reports_of_one_run_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    described_cohort(tmp_path)
    run = tmp_path / "runs" / "same"
    where = ["--device", "cpu", "--split", "val"]
    steps: list[list[str]] = [
        ["train", "tiny.yaml", "--device", "cpu", "--name", "same", "--set", "training.epochs=2"],
        ["eval", "same", *where],
        ["report", "same", *where],
    ]
    for step in steps:
        ended = at_once([[tmp_path, *step]] * 3, "train")
        assert 0 in [code for code, _, _ in ended], ended
        for code, _, errors in ended:
            assert "Traceback" not in errors
            last = errors.splitlines()[-1]
            taken = "there is a run called 'same' already" in last
            assert code == 0 or (code == 1 and refused_in_one_line(errors)) or (code == 2 and taken), errors
        assert not [path for path in (tmp_path / "runs").rglob("*") if path.name.endswith((".tmp", ".building"))]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"metrics.json", "report.html"} < {path.name for path in (run / "eval" / "val").iterdir()}
