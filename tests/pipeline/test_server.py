"""What `symile-clin ui` refuses before it starts a server; tests/browser starts one."""

from __future__ import annotations

import socket
import warnings
from pathlib import Path

import pytest

from symile_clin.errors import BusyError, NotFoundError, TrackingError
from symile_clin.pipeline.server import HOST, allowed_hosts, ui
from symile_clin.progress import Quiet


def test_a_folder_without_runs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match=r"no runs are recorded in sqlite:///mlflow.db yet.*symile-clin train"):
        ui(progress=Quiet())
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match=rf"port {port} of 127\.0\.0\.1.*--port {port + 1}"):
            ui(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", port=port, progress=Quiet())


def test_a_store_elsewhere_is_not_served() -> None:
    with pytest.raises(TrackingError, match="may be on another machine"):
        ui(tracking_uri="https://tracking.example.org", progress=Quiet())


def test_a_damaged_store_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be opened: file is not a database"):
        ui(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", progress=Quiet())


def test_only_this_machines_own_names_are_let_in_by_mlflow_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's dependencies deprecate each other
        from mlflow.server.security_utils import is_allowed_host_header

    allowed = allowed_hosts(HOST).split(",")
    for host in ("localhost", "localhost:5000", "127.0.0.1:8080", "[::1]", "[::1]:5000"):
        assert is_allowed_host_header(allowed, host)
    for host in (
        "10.attacker.example.com",
        "192.168.0.1",
        "localhost.example.com",
        "127.0.0.1.example.com",
        ":5000",
        "",
    ):
        assert not is_allowed_host_header(allowed, host)


def test_an_address_that_is_allowed_adds_its_own_name_and_no_other() -> None:
    assert set(allowed_hosts("192.168.0.7").split(",")) - set(allowed_hosts(HOST).split(",")) == {
        "192.168.0.7",
        "192.168.0.7:*",
    }
    assert allowed_hosts("::1") == allowed_hosts(HOST)
