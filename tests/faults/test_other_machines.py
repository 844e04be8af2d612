"""No other machine is asked for anything, and no name is looked up, unless a flag says so."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from symile_clin import cli
from symile_clin.progress import Quiet
from symile_clin.tracking import Artifact, add_results, start_run
from tests.conftest import COMMAND, WATCHED, watched_environment
from tests.faults.real_session import artifacts_of, check_quiet, tags_of


def test_the_watch_sees_and_refuses_every_way_out(tmp_path: Path) -> None:
    """Else an empty record would prove nothing."""
    attempts = (
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "socket.getaddrinfo('example.org', 80)",
        "socket.getaddrinfo('localhost', 80)",
        "socket.gethostbyname('example.org')",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.socket().bind(('0.0.0.0', 0))",
        "urllib.request.urlopen('http://192.0.2.1')",
    )
    for attempt in attempts:
        code = f"import socket, urllib.request\ntry: {attempt}\nexcept OSError: pass\nelse: raise SystemExit(1)"
        subprocess.run([sys.executable, "-c", code], env=watched_environment(tmp_path / WATCHED), check=True)
    lines = (tmp_path / WATCHED).read_text().splitlines()
    assert len(lines) == len(attempts)
    allowed = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    subprocess.run([sys.executable, "-c", allowed], env=watched_environment(tmp_path / WATCHED), check=True)
    assert len((tmp_path / WATCHED).read_text().splitlines()) == len(attempts)


def test_no_command_of_a_new_users_session_asks_for_another_machine(newcomer: Path) -> None:
    """Every command of the README, `demo` and `ui` among them, and all the processes that they start."""
    check_quiet(newcomer / WATCHED)


def test_the_users_own_wish_about_telemetry_stands() -> None:
    code = "import os, symile_clin; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    for wish, found in (({"MLFLOW_DISABLE_TELEMETRY": "false"}, "false"), ({}, "true")):
        inherited = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**inherited, **wish}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == found


TRACKING = ("cohort build --demo", "train", "eval", "compare a b", "probe", "information", "audit", "xor", "demo")
ELSEWHERE = (
    "http://127.0.0.1:5000", "https://h", "postgresql://h/x", "mysql+pymysql://h/x", "databricks", "databricks://x",
    "s3://b/x", "file:///tmp/x",
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "uri"),
    [*((one, "https://h") for one in TRACKING), *(("cohort build --demo", one) for one in ELSEWHERE)],
)
def test_a_store_elsewhere_is_refused_before_any_work(
    command: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run([*command.split(), "--tracking-uri", uri]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("--allow-remote-tracking" in said) == ("://" in uri and not uri.startswith("file"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a local store with one run, r."""
    folder = tmp_path_factory.mktemp("store")
    tags = {"patient_level_artifacts": "false"}
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    start_run(uri=uri, experiment="symile-clin", run_name="r", tags=tags, progress=Quiet()).finish()
    return folder


def _one(database: Path, query: str, *values: str) -> str:
    """The first value of a query's first row; empty of a statement."""
    with closing(sqlite3.connect(database)) as connection:
        row = connection.execute(query, values).fetchone()
        connection.commit()
    return str(row[0]) if row else ""


@pytest.mark.parametrize(
    "place", ["s3://b/x", "http://h/x", "mlflow-artifacts://h/x", "gs://b", "ftp://h/x", "file://h/x", "dbfs:/x"]
)
def test_a_local_store_whose_files_go_elsewhere_is_refused(
    place: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(store / "mlflow.db", tmp_path)
    _one(tmp_path / "mlflow.db", "UPDATE experiments SET artifact_location = ? WHERE name = 'symile-clin'", place)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train"]) == 1
    said = capsys.readouterr().err
    assert "may be on another machine" in said
    assert "--allow-remote-tracking" in said
    assert cli.run(["train", "--allow-remote-tracking"]) == 2, "there is no cohort: it went on"


def test_results_that_are_added_with_the_flag_change_the_tag_of_the_run(store: Path, tmp_path: Path) -> None:
    run = _one(store / "mlflow.db", "SELECT run_uuid FROM runs")
    (tmp_path / "gallery.html").write_text("x")
    page = Artifact(tmp_path / "gallery.html", patient_level=True)
    for allowed in (False, True):
        add_results(
            uri=f"sqlite:///{store / 'mlflow.db'}",
            run_id=run,
            metrics={},
            artifacts=[page],
            allow_patient_level=allowed,
            progress=Quiet(),
        )
        assert tags_of(store)["r"]["patient_level_artifacts"] == str(allowed).lower()
        assert bool(artifacts_of(store, "r")) == allowed


#: System calls that reach another machine, and the files that are read to look names of machines up (nsswitch.conf is
#: read for users' names, too).
ADDRESS = re.compile(r"(?:connect|sendto|sendmsg|sendmmsg)\(.*sa_family=AF_INET6?.*")
LOOPBACK = re.compile(r'"127\.\d+\.\d+\.\d+"|"::1"')
LOOKED_UP = re.compile(r'open(?:at)?\(.*"/etc/(?:resolv\.conf|hosts|gai\.conf)"')


@pytest.mark.slow
def test_no_system_call_of_the_demo_reaches_for_another_machine(tmp_path: Path) -> None:
    """Below Python: DuckDB, Arrow, PyTorch and SQLite are native code, which audit hooks do not see."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("strace is not here, or may not trace")
    environment = watched_environment(tmp_path / WATCHED) | {"OMP_NUM_THREADS": "1"}
    del environment["WATCHED"]  # nothing is refused: what is tried must be seen
    calls = "trace=connect,sendto,sendmsg,sendmmsg,open,openat"
    watch = [strace, "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-e", calls, "-o"]

    def seen(*command: str) -> list[str]:
        record = tmp_path / "calls"
        subprocess.run([*watch, str(record), *command], cwd=tmp_path, env=environment, capture_output=True, check=False)
        with record.open(errors="replace") as lines:
            return [line for line in lines if LOOKED_UP.search(line) or _leaves(line)]

    asks = "import socket\ntry: socket.{}\nexcept OSError: pass"
    for control in ("create_connection(('192.0.2.1', 80), timeout=0.1)", "getaddrinfo('a.example', 1)"):
        assert seen(sys.executable, "-c", asks.format(control)), "the watch sees nothing"
    assert seen(str(COMMAND), "demo") == []
    assert (tmp_path / "runs/demo-symile-1/eval/test/report.html").is_file()


def _leaves(line: str) -> bool:
    return bool(ADDRESS.search(line)) and not LOOPBACK.search(line)


@pytest.mark.slow
def test_the_demo_needs_no_network_at_all(tmp_path: Path) -> None:
    """In a network namespace that holds nothing but loopback."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces cannot be made here")
    command = [unshare, "-rn", str(COMMAND), "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
