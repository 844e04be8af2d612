"""`symile-clin ui`: MLflow's own server on this machine's loopback address, showing this folder's runs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from symile_clin.errors import BusyError, NotFoundError, TrackingError
from symile_clin.pipeline.tracked import EXPERIMENT
from symile_clin.progress import Progress
from symile_clin.schema import TRACKING_URI
from symile_clin.tracking.store import ARTIFACTS_FOLDER, QUIET_MLFLOW, database_of, probe

HOST = "127.0.0.1"
#: Names under which a browser may ask, at any port so that an SSH tunnel works. MLflow's own default also lets in
#: names such as 10.attacker.example.com, which a hostile page can point here.
ALLOWED_HOSTS = "localhost,localhost:*,127.0.0.1,127.0.0.1:*"
SECONDS_TO_START = 120.0
SECONDS_TO_STOP = 10.0


@dataclass(frozen=True)
class UiResult:
    """A server that has ended.

    Attributes:
        url: where it was.
    """

    url: str

    def text(self) -> str:
        """That it ended."""
        return f"The MLflow UI at {self.url} has ended."

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return dict(vars(self))


def ui(*, tracking_uri: str = TRACKING_URI, port: int = 5000, progress: Progress) -> UiResult:
    """Serve a local MLflow store until Ctrl-C.

    Args:
        tracking_uri: `sqlite:///FILE`.

    Raises:
        NotFoundError: nothing has been recorded there yet.
        BusyError: the port is taken.
        TrackingError: a store that is not local or not readable, or a server that does not start.
    """
    database = database_of(tracking_uri)
    if database is None or not database.is_file():
        raise NotFoundError(
            f"no runs are recorded in {tracking_uri} yet",
            remedy="Run `symile-clin train` here first, or name the store with --tracking-uri",
        )
    probe(database)
    _refuse_taken(port)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    command += ["--artifacts-destination", str(database.parent / ARTIFACTS_FOLDER)]
    command += ["--host", HOST, "--port", str(port), "--workers", "1", "--allowed-hosts", ALLOWED_HOSTS]
    url = f"http://{HOST}:{port}"
    progress.say("Starting the MLflow UI ...")
    with tempfile.TemporaryFile() as log, _running(command, log) as server:
        try:
            _wait_until_ready(server, port, log)
            progress.say(f"MLflow UI: {url}{_runs_page(port)}   (Ctrl-C ends it)")
            server.wait()
        except KeyboardInterrupt:
            return UiResult(url)
        raise TrackingError(f"the MLflow server ended by itself: {_last_line(log)}")


@contextmanager
def _running(command: list[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, which ends with the block: its workers must not outlive it."""
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **QUIET_MLFLOW, **os.environ}
    server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, signum)
            server.wait(SECONDS_TO_STOP)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, right after another ended
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BusyError(
                f"port {port} of {HOST} cannot be used: {error.strerror}",
                remedy=f"Choose another one, e.g. --port {port + 1}",
            ) from None


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise TrackingError(f"the MLflow server does not start: {_last_line(log)}")
        if _answers(port):
            return
        time.sleep(0.2)
    raise TrackingError(f"the MLflow server was not ready after {SECONDS_TO_START:.0f} s")


def _answers(port: int) -> bool:
    try:
        return _get(port, "/health")[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _runs_page(port: int) -> str:
    """Where this program's runs are listed; MLflow opens on a page about language models otherwise."""
    status, body = _get(port, f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
    if status != http.HTTPStatus.OK:
        return ""
    experiment = json.loads(body)["experiment"]["experiment_id"]
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning"


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)  # unlike urllib, asks no proxy
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
