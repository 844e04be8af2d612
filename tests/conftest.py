"""Shared fixtures: the session of a new user, in which every command of the README has run once."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

README = Path(__file__).parents[1] / "README.md"
COMMAND = Path(sys.executable).with_name("symile-clin")
TREE = "data/synthetic/demo"
#: Where the session's processes wrote down what they asked the network for; see faults/no_network/sitecustomize.py.
WATCHED = ".watched"
#: What MLflow takes for a sign that nobody works here, and then sends nothing anyway.
SIGNS_OF_TESTS = (
    "CI",
    "PYTEST_CURRENT_TEST",
    "GITHUB_ACTIONS",
    "CIRCLECI",
    "GITLAB_CI",
    "JENKINS_URL",
    "TRAVIS",
    "TF_BUILD",
)

# A shell's background job passes Ctrl-C over, and so would all processes that tests start, and send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Tests of a file share a process, and so do all files that need the newcomer: what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    scheduling = LoadFileScheduling(config, log)
    file_of = scheduling._split_scope
    scheduling._split_scope = lambda test: "newcomer" if _needs_newcomer(file_of(test)) else file_of(test)
    return scheduling


@cache
def _needs_newcomer(file: str) -> bool:
    return re.search(r"\bnewcomer: Path\b", (README.parent / file).read_text()) is not None


def readme_commands() -> list[str]:
    """Lines of the README's bash blocks without their comments, and commands that its prose promises."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    promised = re.findall(r"^`(symile-clin [a-z ]+)`", README.read_text(), flags=re.MULTILINE)
    return [line for line in lines if line.startswith("symile-clin ")] + promised


def watched_environment(record: Path) -> dict[str, str]:
    """An environment in which Python processes reach loopback only, and write down in a file what else they ask for."""
    unset = (*SIGNS_OF_TESTS, "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "PYTHONPATH": str(Path(__file__).parent / "faults" / "no_network"), "WATCHED": str(record)}


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new user, in which every command of the README has run."""
    folder = tmp_path_factory.mktemp("newcomer")
    for command in readme_commands():
        if command == "symile-clin ui":
            _open_and_interrupt(folder)
        else:
            _run(command, folder)
    return folder


def _run(command: str, folder: Path) -> None:
    if "DIR" in command:
        for option, source in (("iv", "mimic-iv"), ("cxr", "mimic-cxr-jpg"), ("ecg", "mimic-iv-ecg")):
            command = command.replace(f"--mimic-{option} DIR", f"--mimic-{option} {TREE}/{source}")
        command += " --set splits.train=400 --set splits.val=50"
    done = subprocess.run(
        [COMMAND, *command.split()[1:]],
        cwd=folder,
        env=watched_environment(folder / WATCHED),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Warning" not in done.stderr, f"{command}\n{done.stderr}"
    assert str(folder) not in done.stdout, "an absolute path in what a user would paste into a report"


def _open_and_interrupt(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [COMMAND, "ui", "--port", str(port)],
        cwd=folder,
        env=watched_environment(folder / WATCHED),
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            deadline = time.monotonic() + 120
            while not _answers(port):
                assert server.poll() is None, server.stderr.read() if server.stderr else ""
                assert time.monotonic() < deadline, "the UI does not answer"
                time.sleep(0.5)
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
