"""`symile-clin ui`: MLflow's own server on this machine's loopback address, showing this folder's runs.

What may reach it is decided in tracking/guard.py, which stands before MLflow; here is where it listens, and that
nothing in the environment opens it further.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final

from symile_clin.errors import BusyError, ConfigError, NotFoundError, TrackingError
from symile_clin.pipeline.tracked import EXPERIMENT
from symile_clin.progress import Progress
from symile_clin.schema import TRACKING_URI
from symile_clin.tracking.guard import APP_NAME
from symile_clin.tracking.store import ARTIFACTS_FOLDER, QUIET_MLFLOW, database_of, probe

HOST: Final = "127.0.0.1"
LOCALHOST: Final = "localhost"
#: Names under which a browser on this machine may ask. MLflow's own default also lets in names such as
#: 10.attacker.example.com, which a hostile page can point here.
OWN_NAMES: Final = (LOCALHOST, HOST, "[::1]")
#: h11 hands the request line on as it came, hosts in it included; headers of proxies are not believed.
UVICORN_OPTIONS: Final = "--http h11 --ws none --no-proxy-headers"
#: Variables that could open the server, or move it: MLflow's, uvicorn's and gunicorn's own.
NOT_PASSED_ON: Final = ("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_", "FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY")
SECONDS_TO_START: Final = 120.0
SECONDS_TO_STOP: Final = 10.0


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


def ui(
    *,
    tracking_uri: str = TRACKING_URI,
    host: str = HOST,
    port: int = 5000,
    allow_other_machines: bool = False,
    progress: Progress,
) -> UiResult:
    """Serve a local MLflow store until Ctrl-C.

    Args:
        tracking_uri: `sqlite:///FILE`.
        host: the address to listen on; names other than localhost are not looked up unless other machines are allowed.
        allow_other_machines: `host` may be an address that other machines reach. There is no password.

    Raises:
        ConfigError: a `host` that other machines may reach, and was not allowed; or one that is every address.
        NotFoundError: nothing has been recorded there yet.
        BusyError: the port is taken.
        TrackingError: a store that is not local or not readable, or a server that does not start.
    """
    address = _address(host, allow_other_machines=allow_other_machines)
    database = database_of(tracking_uri)
    if database is None or not database.is_file():
        raise NotFoundError(
            f"no runs are recorded in {tracking_uri} yet",
            remedy="Run `symile-clin train` here first, or name the store with --tracking-uri",
        )
    probe(database)
    _refuse_taken(address, port)
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", APP_NAME, "--backend-store-uri", tracking_uri]
    command += ["--artifacts-destination", str(database.parent / ARTIFACTS_FOLDER)]
    command += ["--host", address, "--port", str(port), "--workers", "1", "--allowed-hosts", allowed_hosts(address)]
    command += ["--uvicorn-opts", UVICORN_OPTIONS]
    url = f"http://{_in_url(address)}:{port}"
    environment, left_out = server_environment(os.environ)
    if left_out:
        progress.say(f"Not passed on to the server: {', '.join(left_out)}.")
    if not _is_loopback(address):
        progress.say("Whoever reaches this address can read and change every run here: there is no password.")
    progress.say("Starting the MLflow UI ...")
    with tempfile.TemporaryFile() as log, _running(command, log, environment) as server:
        try:
            _wait_until_ready(server, address, port, log)
            progress.say(f"MLflow UI: {url}{_runs_page(address, port)}   (Ctrl-C ends it)")
            server.wait()
        except KeyboardInterrupt:
            return UiResult(url)
        raise TrackingError(f"the MLflow server ended by itself: {_last_line(log)}")


def _address(host: str, *, allow_other_machines: bool) -> str:
    """The address to listen on."""
    address = HOST if host == LOCALHOST else host.removeprefix("[").removesuffix("]")
    if _is_loopback(address):
        return address
    if not allow_other_machines:
        raise ConfigError(
            f"other machines may reach '{host}'",
            expected=f"an address of this machine alone, such as {HOST}",
            remedy="MIMIC's data use agreement forbids sharing the data and what is derived from them, and this server "
            "has no password; if everybody who can reach the address may see them, say --allow-other-machines",
        )
    if not address or "*" in address or "," in address or _is_every_address(address):
        raise ConfigError(f"'{host}' is no single address", expected="the one by which this machine is asked for")
    return address


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name, which would have to be looked up on other machines
        return False


def _is_every_address(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def allowed_hosts(address: str) -> str:
    """MLflow's --allowed-hosts: this machine's own names and the address, at any port so that an SSH tunnel works."""
    names = dict.fromkeys((*OWN_NAMES, _in_url(address).lower()))
    at_ports = [f"{name.replace('[', '[[]')}:*" for name in names]  # a bracket alone would begin a set of letters
    return ",".join([*names, *at_ports])


def server_environment(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment of the server's process, and the names of variables that it does not get."""
    kept = {name: value for name, value in given.items() if name in QUIET_MLFLOW or not name.startswith(NOT_PASSED_ON)}
    left_out = sorted(given.keys() - kept.keys())
    return {**QUIET_MLFLOW, **kept, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, left_out


@contextmanager
def _running(
    command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, which ends with the block: its workers must not outlive it.

    Its standard input is a pipe that nothing is written to: should this process be killed, it closes, and the server
    ends by itself.
    """
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    try:
        yield server
    finally:
        _end(server)
        if server.stdin is not None:
            server.stdin.close()


def _end(server: subprocess.Popen[bytes]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, signum)
            server.wait(SECONDS_TO_STOP)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _refuse_taken(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, right after another ended
        try:
            probe.bind((address, port))
        except socket.gaierror:
            raise ConfigError(f"no address is known of '{address}'", expected="one of this machine") from None
        except OSError as error:
            raise BusyError(
                f"port {port} of {address} cannot be used: {error.strerror}",
                remedy=f"Choose another one, e.g. --port {port + 1}",
            ) from None


def _wait_until_ready(server: subprocess.Popen[bytes], address: str, port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise TrackingError(f"the MLflow server does not start: {_last_line(log)}")
        if _answers(address, port):
            return
        time.sleep(0.2)
    raise TrackingError(f"the MLflow server was not ready after {SECONDS_TO_START:.0f} s")


def _answers(address: str, port: int) -> bool:
    try:
        return _get(address, port, "/health")[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _runs_page(address: str, port: int) -> str:
    """Where this program's runs are listed; MLflow opens on a page about language models otherwise."""
    status, body = _get(address, port, f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
    if status != http.HTTPStatus.OK:
        return ""
    experiment = json.loads(body)["experiment"]["experiment_id"]
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning"


def _get(address: str, port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, port, timeout=5)  # unlike urllib, asks no proxy
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
