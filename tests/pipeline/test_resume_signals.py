"""`symile-clin train` as a process of its own: signalled, killed, gone on with, to the bytes of one left alone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from symile_clin.pipeline.unfinished import STARTED
from symile_clin.tracking.store import QUIET_MLFLOW
from symile_clin.training.checkpoint import WEIGHTS
from tests.pipeline.tiny_cohort import tiny_cohort

#: Runs command lines one after the other, each in a forked process (imports are most of the time of a small training)
#: and a session of its own. Once its log shows so many epochs, and some time later, it is sent a signal. Prints what
#: each left with, and how many processes of its session were left.
PROGRAM = """
import json, os, random, signal, sys, time
import torch._dynamo, mlflow  # what a training imports late
from symile_clin import cli
from symile_clin.pipeline import training


def start(arguments, log):
    child = os.fork()
    if child == 0:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["symile-clin", *arguments]
        code = 1
        try:
            cli.main()
        except SystemExit as left:
            code = left.code
        finally:
            os._exit(code)
    return child


def wait(child, log, number, group, epochs, seconds):
    while open(log).read().count("epoch ") < epochs if os.path.exists(log) else True:
        if os.waitpid(child, os.WNOHANG)[0]:
            raise SystemExit(f"it ended before its signal: {open(log).read()}")
        time.sleep(0.002)
    time.sleep(seconds)
    (os.killpg if group else os.kill)(child, number)


def left_over(session):
    found = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = open(f"/proc/{process}/stat").read().rpartition(")")[2].split()
            found += int(fields[3]) == session and fields[0] != "Z"
        except OSError:
            pass
    return found


if __name__ == "__main__":
    draw = random.Random(int(sys.argv[2]))
    found = []
    for arguments, log, kill in json.loads(sys.argv[1]):
        child = start(arguments, log)
        if kill is not None:
            number, group, epochs = kill
            wait(child, log, number, group, epochs, draw.uniform(0.0, 0.05))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        deadline = time.monotonic() + 15
        while left_over(child) and time.monotonic() < deadline:
            time.sleep(0.1)
        found.append([code, left_over(child)])
    print(json.dumps(found))
"""
#: Signal, whether to the whole group, after how many epochs.
Kill = tuple[int, bool, int]


NEW, AGAIN = "train --no-tracking --name", "train --no-tracking --resume --name"
#: A run left alone, and others with what happens to them: command, log, signal.
SESSION: Final[tuple[tuple[str, str, Kill | None], ...]] = (
    (f"{NEW} whole", "whole.log", None),
    (f"{NEW} usr1", "usr1.log", (signal.SIGUSR1, True, 2)),
    (f"{AGAIN} usr1", "usr1-again.log", (signal.SIGINT, True, 2)),
    (f"{AGAIN} usr1", "usr1-end.log", None),
    (f"{NEW} kill", "kill.log", (signal.SIGKILL, False, 1)),
    (f"{AGAIN} kill", "kill-again.log", (signal.SIGKILL, False, 2)),
    (f"{AGAIN} kill", "kill-end.log", None),
    (f"{AGAIN} kill", "kill-more.log", None),
    ("train --name tracked --set seed=1", "tracked.log", (signal.SIGTERM, False, 3)),
    ("train --resume", "tracked-again.log", (signal.SIGKILL, False, 2)),
    ("train --resume", "tracked-end.log", None),
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    """Where it took place, and what `_run` gave."""
    place = tmp_path_factory.mktemp("session")
    tiny_cohort(place)
    return place, _run(place, *SESSION)


def _run(place: Path, *commands: tuple[str, str, Kill | None]) -> list[list[int]]:
    """What each left with, and how many processes."""
    given = json.dumps([(line.split(), log, kill) for line, log, kill in commands])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, given, "0"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, **QUIET_MLFLOW, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: list[list[int]] = json.loads(done.stdout)
    return found


def _content(run: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": [(run / "checkpoints" / which / WEIGHTS).read_bytes() for which in ("best", "last")],
        "log": [{key: value for key, value in line.items() if key != "train/data_wait"} for line in lines],
        "config": (run / "config.yaml").read_bytes(),
        "files": {path.relative_to(run).as_posix() for path in run.rglob("*") if not path.name.endswith(".lock")},
        "best": json.loads((run / "manifest.json").read_text())["best"]["epoch"],
    }


def test_each_leaves_with_its_code_and_no_process_behind(session: tuple[Path, list[list[int]]]) -> None:
    _, found = session
    codes = [0, 138, 130, 0, -signal.SIGKILL, -signal.SIGKILL, 0, 0, 143, -signal.SIGKILL, 0]
    assert found == [[code, 0] for code in codes]


def test_all_come_to_the_same_bytes(session: tuple[Path, list[list[int]]]) -> None:
    runs = session[0] / "runs"
    assert _content(runs / "usr1") == _content(runs / "whole") == _content(runs / "kill")
    assert {path.stat().st_mode & 0o777 for path in runs.rglob("*") if path.is_file()} == {0o600}


def test_one_line_says_how_to_go_on(session: tuple[Path, list[list[int]]]) -> None:
    place, _ = session
    (said,) = (line for line in (place / "usr1.log").read_text().splitlines() if line.startswith("symile-clin: "))
    assert said.startswith("symile-clin: SIGUSR1 stopped training after step ")
    assert said.endswith(" of 40. Go on with `symile-clin train --resume --name usr1`.")
    assert "Run runs/kill has finished: there is nothing to go on with." in (place / "kill-more.log").read_text()
    assert not any("Traceback" in log.read_text() for log in place.glob("*.log"))


def test_mlflow_goes_on_with_the_run_that_was_stopped(session: tuple[Path, list[list[int]]]) -> None:
    place, _ = session
    run_id = json.loads((place / "runs" / "tracked" / STARTED).read_text())["tracked_as"]
    with closing(sqlite3.connect(place / "mlflow.db")) as database:
        assert database.execute("SELECT run_uuid, status FROM runs").fetchall() == [(run_id, "FINISHED")]
        steps = database.execute("SELECT key, step FROM metrics ORDER BY key, step").fetchall()
    assert [step for key, step in steps if key == "train/loss"] == list(range(1, 9))
    assert len(steps) == len(set(steps))
    assert json.loads((place / "runs" / "tracked" / "manifest.json").read_text())["tracked_as"] == run_id
    assert not any("MLflow" in log.read_text() for log in place.glob("tracked*.log"))


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_job_leaves_the_workers_to_finish_the_step(tmp_path: Path) -> None:
    """Ctrl-C and a scheduler's signals come to a DataLoader's workers, too."""
    tiny_cohort(tmp_path)
    found = _run(
        tmp_path,
        (f"{NEW} whole", "whole.log", None),
        (f"{NEW} run --set training.workers=2", "1.log", (signal.SIGINT, True, 1)),
        (f"{AGAIN} run", "2.log", (signal.SIGTERM, True, 1)),
        (f"{AGAIN} run", "3.log", None),
    )
    logs = "".join((tmp_path / name).read_text() for name in ("1.log", "2.log", "3.log"))
    assert found == [[0, 0], [130, 0], [143, 0], [0, 0]], logs
    assert _content(tmp_path / "runs" / "run")["weights"] == _content(tmp_path / "runs" / "whole")["weights"]
    assert "Traceback" not in logs
