"""The README's commands, executed in its order in an empty folder: the first hour of a new user.

The two make targets are CI's own way in. Everything else runs as written; `DIR` becomes a source of the synthetic
tree, and the paper's split sizes become ones that fit it.
"""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
COMMAND = Path(sys.executable).with_name("symile-clin")
TREE = "data/synthetic/demo"


def readme_commands() -> list[str]:
    """Lines of the README's bash blocks without their comments, and commands that its prose promises."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    promised = re.findall(r"^`(symile-clin [a-z ]+)`", README.read_text(), flags=re.MULTILINE)
    return [line for line in lines if line.startswith("symile-clin ")] + promised


def test_the_readme_holds_the_session_of_the_design() -> None:
    commands = readme_commands()
    assert commands[:4] == [
        "symile-clin cohort build --demo",
        "symile-clin train",
        "symile-clin eval --bootstrap 10",
        "symile-clin ui",
    ]
    assert "symile-clin demo" in commands
    assert README.read_text().index("make demo") < README.read_text().index("make test") < 2000


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command of the README has run."""
    folder = tmp_path_factory.mktemp("session")
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
        [COMMAND, *command.split()[1:]], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Warning" not in done.stderr, f"{command}\n{done.stderr}"
    assert str(folder) not in done.stdout, "an absolute path in what a user would paste into a report"


def _open_and_interrupt(folder: Path) -> None:
    port = "5917"
    with subprocess.Popen([COMMAND, "ui", "--port", port], cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            deadline = time.monotonic() + 120
            while not _answers(int(port)):
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


def _metrics(session: Path, run: str) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((session / "runs" / run / "eval" / "test" / "metrics.json").read_text())
    return metrics


def test_the_session_ends_with_everything_in_its_place(session: Path) -> None:
    for path in (
        "data/cohorts/demo/samples.parquet",
        "data/cohorts/demo/attrition.csv",
        "data/cohorts/demo/events.csv",
        "data/cohorts/demo/quarantine.parquet",
        "data/cohorts/symile_mimic/manifest.json",
        "runs/demo-symile-1/checkpoints/best/model.safetensors",
        "runs/demo-symile-1/eval/test/ranks.parquet",
        "runs/demo-clip-1/eval/test/metrics.json",
        "mlflow.db",
    ):
        assert (session / path).is_file(), path
    assert not (session / "runs" / "demo-symile-2").exists(), "demo trained an equal run again"


def test_the_demo_is_planted_as_promised_and_symile_finds_the_synergy(session: Path) -> None:
    symile, clip = _metrics(session, "demo-symile-1"), _metrics(session, "demo-clip-1")
    target = "test/cxr/recall_at_1"
    assert symile[f"{target}_n"] >= 250
    assert symile[f"{target}_chance"] == 0.1
    assert symile[f"{target}_ceiling_pairs"] <= 0.35
    assert symile[f"{target}_ceiling"] >= 0.65
    assert symile[target] > symile[f"{target}_ceiling_pairs"]
    assert symile[f"{target}_ci_low"] < symile[target] < symile[f"{target}_ci_high"]
    assert symile[target] > clip[target]
    assert set(symile) == set(clip), "both objectives report the same metrics"


def test_derived_files_are_the_users_alone(session: Path) -> None:
    shared = [path for path in session.rglob("*") if path.stat().st_mode & 0o077]
    assert shared == []
