"""`train` under torchrun, the whole way: one run of two processes, and what becomes of it when one is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.synthesis import synth
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet

SMALL = (
    "modalities.cxr.short_side=32", "modalities.cxr.long_side=40", "candidates.n=4", "candidates.matched=false",
    "modalities.labs.items=[50912, 50931, 51222, 51301]", "splits.train=0.5", "splits.val=0.2", "require={at_least: 2}",
)  # fmt: skip
#: Without dropout, whose masks differ between processes; the small encoders have no BatchNorm.
TINY = ("training.epochs=1", "training.batch_size=11", "model.dim=8", "model.encoders.labs.dropout=0")
STORE = "sqlite:///mlflow.db"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "symile_clin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    tree = folder / "tree"
    synth(out=tree, patients=60, seed=0, workers=1, progress=Quiet())
    build_cohort(
        spec="demo", mimic_iv=tree / "mimic-iv", mimic_cxr=tree / "mimic-cxr-jpg", mimic_ecg=tree / "mimic-iv-ecg",
        out=folder / "cohort", overrides=SMALL, workers=1, tracking_uri=None, progress=Quiet(),
    )  # fmt: skip
    return folder


def _command(name: str, *overrides: str) -> list[str]:
    settings = [word for one in overrides for word in ("--set", one)]
    return [*TORCHRUN, "train", "--cohort", "cohort", "--name", name, "--tracking-uri", STORE, *settings]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
def test_two_processes_make_one_run_with_the_weights_of_one_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = subprocess.run(
        _command("two", *TINY), env=_environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run runs/two: best epoch 1") == 1
    assert done.stderr.count("epoch 1/1") == 1
    assert [path.name for path in Path("runs").iterdir() if not path.name.startswith(".")] == ["two"]
    with sqlite3.connect("mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
    train(cohort=Path("cohort"), name="one", overrides=TINY, device="cpu", tracking_uri=None, progress=Quiet())
    one, two = (load_file(Path("runs", name, "checkpoints", "last", "model.safetensors")) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        # AdamW's first steps divide a gradient by its own size, rounding included
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture
def started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    monkeypatch.chdir(folder)
    command = _command("killed", *TINY[1:], "training.epochs=500")
    with (
        Path("stderr").open("w", encoding="utf-8") as stderr,
        subprocess.Popen(command, env=_environment(), stderr=stderr, text=True) as process,
    ):
        yield process
        process.kill()


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_and_leaves_the_last_checkpoint(
    started: subprocess.Popen[str],
) -> None:
    deadline = time.monotonic() + 400
    while not Path("runs/killed/checkpoints/last").is_dir():
        assert started.poll() is None, Path("stderr").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    workers = {_rank(pid): pid for pid in _children(started.pid)}
    os.kill(workers["1"], signal.SIGKILL)
    assert started.wait(timeout=60) == 1
    assert not Path(f"/proc/{workers['0']}").exists()
    text = Path("stderr").read_text()
    assert text.count("symile-clin: ") == 1, text
    assert "another process of this training has ended or does not answer" in text
    assert Path("runs/killed/checkpoints/last/model.safetensors").is_file()
    assert not Path("runs/killed/manifest.json").exists()


def test_other_commands_refuse_a_launcher(tmp_path: Path) -> None:
    environment = {
        **_environment(), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1",
    }  # fmt: skip
    for rank, says in (("0", "only `train` runs in several processes"), ("1", "")):
        done = subprocess.run(
            [sys.executable, "-m", "symile_clin", "eval"], env={**environment, "RANK": rank}, cwd=tmp_path,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert says in done.stderr
        assert bool(done.stderr) == bool(says)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _rank(pid: int) -> str | None:
    variables = dict(
        part.partition("=")[::2] for part in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in part
    )
    return variables.get("RANK")


#: What trains loads torch._dynamo while it is connected; a thread that outlives the connection can abort the process.
LEAVES_NOTHING = """
import gc, pathlib
from symile_clin.training.distributed import joined
with joined() as ranks:
    import torch._dynamo
    ranks.first(lambda: 0)
gc.collect()
print([name for name in (one.read_text() for one in pathlib.Path("/proc/self/task").glob("*/comm")) if "gloo" in name])
"""


@pytest.mark.slow
def test_no_thread_of_a_connection_outlives_it(tmp_path: Path) -> None:
    script = tmp_path / "leaves_nothing.py"
    script.write_text(LEAVES_NOTHING)
    done = subprocess.run(
        [*TORCHRUN[:-2], str(script)], env=_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]", "[]"]
