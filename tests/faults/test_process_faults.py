"""`train` in two processes of torchrun, one of which ends, fails or stops at a chosen place: the other ends soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from safetensors.torch import load_file

from symile_clin.training.checkpoint import WEIGHTS, read_training_state
from tests.pipeline.tiny_cohort import tiny_cohort

#: Runs `symile-clin`; the process of one rank does something to itself when a function is called for the n-th time.
SCRIPT = """
import importlib, os, pathlib, signal, sys, time
from symile_clin import cli

rank, module, name, call, deed = sys.argv[1:6]
sys.argv[1:6] = []
pathlib.Path(f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
if os.environ["RANK"] == rank:
    place = importlib.import_module(module)
    real, calls = getattr(place, name), [0]

    def spoilt(*given, **named):
        calls[0] += 1
        if calls[0] == int(call):
            pathlib.Path("when").write_text(str(time.time()))
            if deed == "raise":
                raise ValueError("a mistake of this process alone")
            os.kill(os.getpid(), getattr(signal, deed))
        return real(*given, **named)

    setattr(place, name, spoilt)
cli.main()
"""
TORCHRUN: Final = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "faulty.py")
SECONDS: Final = 60
#: By place: rank, module, function, the call at which it happens, and what; five steps make an epoch.
PLACES: Final = {
    "before they are connected": ("1", "torch.distributed.rendezvous", "rendezvous", "1", "SIGKILL"),
    "while gradients are summed": ("1", "symile_clin.exchange", "reduced", "60", "SIGKILL"),
    "in the second validation": ("1", "symile_clin.training.fit", "validate", "2", "SIGKILL"),
    "while the first writes a checkpoint": ("0", "symile_clin.training.checkpoint", "save_weights", "3", "SIGKILL"),
    "an error of one alone": ("1", "symile_clin.training.fit", "optimisation_step", "8", "raise"),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_process_that_ends_ends_the_others_within_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    tiny_cohort(tmp_path)
    monkeypatch.chdir(tmp_path)
    rank, module, function, call, deed = PLACES[place]
    if place == "before they are connected":  # distributed.py has it by its own name
        module = "symile_clin.training.distributed"
    Path("faulty.py").write_text(SCRIPT)
    command = ["train", "--name", "run", "--no-tracking", "--device", "cpu", "--set", "training.epochs=400"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*TORCHRUN, rank, module, function, call, deed, *command], env=environment, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    took = time.time() - float(Path("when").read_text())
    assert done.returncode != 0
    assert took < SECONDS, took
    for one in ("0", "1"):
        assert not Path("/proc", Path(f"pid-{one}").read_text()).exists()
    assert done.stderr.count("symile-clin: ") <= 1, done.stderr
    if deed == "raise":
        assert "an error that was not foreseen: ValueError" in done.stderr
    last = Path("runs/run/checkpoints/last")
    if place != "before they are connected":
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(last / WEIGHTS).values())
        assert read_training_state(last).step in (5, 10)
    else:
        assert not Path("runs/run").exists()


@pytest.mark.slow
def test_a_process_that_is_stopped_ends_the_others_when_their_patience_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP is a machine that hangs: nothing is closed, and the others wait for `TIMEOUT`, which is shorter here."""
    tiny_cohort(tmp_path)
    monkeypatch.chdir(tmp_path)
    shortened = SCRIPT.replace(
        "from symile_clin import cli\n",
        "from symile_clin import cli\nfrom datetime import timedelta\nfrom symile_clin.training import distributed\n"
        "distributed.TIMEOUT = timedelta(seconds=15)\n",
    )
    Path("faulty.py").write_text(shortened)
    command = ["train", "--name", "run", "--no-tracking", "--device", "cpu", "--set", "training.epochs=400"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    fault = ("1", "symile_clin.training.fit", "optimisation_step", "8", "SIGSTOP")
    with subprocess.Popen(
        [*TORCHRUN, *fault, *command], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            _, said = process.communicate(timeout=400)
        finally:
            process.kill()
            for one in Path().glob("pid-*"):
                if Path("/proc", one.read_text()).exists():
                    os.kill(int(one.read_text()), signal.SIGKILL)
    assert process.returncode != 0
    assert time.time() - float(Path("when").read_text()) < SECONDS + 30
    assert "another process of this training has ended or does not answer" in said
    assert read_training_state(Path("runs/run/checkpoints/last")).step == 5
