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

import pytest

from symile_clin.files import read_manifest
from tests.browser.chromium import Browser, browser, free_port
from tests.test_readme import run_metrics

DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        DRIVER is None,
        reason="NOT TESTED: the MLflow compare page. It needs a browser: apt-get install chromium chromium-driver",
    ),
]

RECALL = "test/cxr/recall_at_1"
RUNS = ("demo-symile-1", "demo-clip-1")


@pytest.fixture(scope="module")
def store(newcomer: Path) -> tuple[Path, dict[str, str]]:
    """The folder in which Symile and CLIP were trained on the same demo cohort, and the two runs' ids."""
    manifests = {run: read_manifest(newcomer / "runs" / run) for run in RUNS}
    return newcomer, {run: manifest["tracked_as"] for run, manifest in manifests.items() if manifest}


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
        assert f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning" in shown
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
    text = window.wait_for(*RUNS, "best/epoch", "rank_histogram.png")
    text += _scrolled(window)
    for run in RUNS:
        assert f"{run_metrics(store[0], run)[RECALL]:.3f}" in text
    for name in (RECALL, f"{RECALL}_ci_low", "objective.name", "training.epochs", "train/loss", "val/loss"):
        assert name in text


def _scrolled(window: Browser) -> str:
    """All that the page's tables show on the way down: they draw only the rows in view."""
    seen, top, end = [], 0, 1
    while top < end:
        end = window.run(
            "let end = 0; for (const e of document.querySelectorAll('*')) if (e.scrollHeight > e.clientHeight) "
            f"{{ e.scrollTop = {top}; end = Math.max(end, e.scrollHeight); }} return end"
        )
        time.sleep(0.3)
        seen.append(window.text())
        top += 400
    return "\n".join(seen)


def test_the_page_that_ui_names_lists_the_runs(server: str, window: Browser) -> None:
    window.open(f"{server}/#/experiments/1/runs?workflowType=machine_learning")
    window.wait_for(*RUNS)


def test_a_figure_is_shown_as_an_artifact(store: tuple[Path, dict[str, str]], server: str, window: Browser) -> None:
    run = store[1][RUNS[0]]
    window.open(f"{server}/#/experiments/1/runs/{run}/artifacts/rank_histogram.png")
    window.wait_for("rank_histogram.png")
    deadline = time.monotonic() + 30
    while not window.run("return [...document.images].some(i => i.naturalWidth > 400)"):
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
