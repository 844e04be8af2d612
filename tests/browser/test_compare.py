"""Two training runs side by side in MLflow's own compare page, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import pytest

from symile_clin.progress import Quiet
from symile_clin.tracking import Artifact, MlflowTracker, add_results, start_run
from tests.browser.chromium import Browser, browser, free_port

DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        DRIVER is None,
        reason="NOT TESTED: the MLflow compare page. It needs a browser: apt-get install chromium chromium-driver",
    ),
]

RECALL = "test/cxr/recall_at_1"
RESULTS = {"symile": 0.4711, "clip": 0.2533}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with two recorded training runs, and their ids by objective."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    ids = {}
    for objective, recall in RESULTS.items():
        tracker = start_run(
            uri=uri,
            experiment="symile-clin",
            run_name=f"demo-{objective}",
            tags={"kind": "train", "cohort": "demo", "cohort_hash": "1f2e3d", "objective": objective, "device": "cpu"},
            progress=Quiet(),
        )
        assert isinstance(tracker, MlflowTracker)
        tracker.params({"objective.name": objective, "training.epochs": 8, "training.lr": 1e-3, "seed": 0})
        for epoch in range(8):
            tracker.metrics({"train/loss": 5 / (epoch + 1), "val/loss": 6 / (epoch + 1)}, step=epoch)
        tracker.finish()
        figure = folder / "rank_histogram.png"
        plt.bar([1, 2, 3], [recall, 0.2, 0.1])
        plt.gcf().set_size_inches(3, 2)
        plt.savefig(figure, dpi=100)
        plt.close("all")
        results = {RECALL: recall, f"{RECALL}_ci_low": recall - 0.05, f"{RECALL}_ci_high": recall + 0.05}
        add_results(
            uri=uri,
            run_id=tracker.run_id,
            metrics=results,
            artifacts=[Artifact(figure, patient_level=False)],
            progress=Quiet(),
        )
        ids[objective] = tracker.run_id
    return folder, ids


@pytest.fixture(scope="module")
def server(store: tuple[Path, dict[str, str]]) -> Iterator[str]:
    """The address of `symile-clin ui`, started and ended as a person does it."""
    port = free_port()
    code = "import sys; from symile_clin.pipeline.server import ui; from symile_clin.progress import Console\n"
    code += "print(ui(port=int(sys.argv[1]), progress=Console()).text())"
    command = [sys.executable, "-c", code, str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=store[0], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        shown = ""
        while "Ctrl-C" not in shown:
            line = process.stderr.readline()
            assert line, f"the UI ended: {shown}"
            shown += line
        assert f"http://127.0.0.1:{port}" in shown
        yield f"http://127.0.0.1:{port}"
        workers = _descendants(process.pid)
        assert workers
        process.send_signal(signal.SIGINT)
        assert "has ended" in process.communicate(timeout=30)[0]
        assert process.returncode == 0
        assert not [worker for worker in workers if _is_alive(worker)]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert DRIVER is not None
    with browser(DRIVER, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_both_runs_are_compared(store: tuple[Path, dict[str, str]], server: str, window: Browser) -> None:
    runs = quote(json.dumps(list(store[1].values())))
    window.open(f"{server}/#/compare-runs?runs={runs}&experiments={quote(json.dumps(['1']))}")
    text = window.wait_for("demo-symile", "demo-clip", RECALL, "0.471", "0.253", "rank_histogram.png")
    for name in ("objective.name", "training.epochs", f"{RECALL}_ci_low", "train/loss", "val/loss"):
        assert name in text


def test_a_figure_is_shown_as_an_artifact(store: tuple[Path, dict[str, str]], server: str, window: Browser) -> None:
    run = store[1]["symile"]
    window.open(f"{server}/#/experiments/1/runs/{run}/artifacts/rank_histogram.png")
    window.wait_for("rank_histogram.png")
    deadline = time.monotonic() + 30
    while not window.run("return [...document.images].some(i => i.naturalWidth === 300 && i.naturalHeight === 200)"):
        assert time.monotonic() < deadline, "the figure is not drawn"
        time.sleep(0.3)


def _descendants(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [int(child) for child in found] + [g for child in found for g in _descendants(int(child))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
