"""Trainings as processes of their own in which something goes wrong: what each says, leaves with and leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from symile_clin.schema import SAMPLES, SUBJECT_ID
from tests.pipeline.tiny_cohort import tiny_cohort

#: Runs command lines one after the other, each in a forked process whose hook has spoilt something (imports are most of
#: the time of a small training). Prints the code that each left with, and the steps of its last and best checkpoint.
PROGRAM = """
import json, os, pathlib, sys
from safetensors.torch import load_file
from symile_clin.training.checkpoint import read_training_state
import torch._dynamo, mlflow  # what a training imports late
from symile_clin import cli
from symile_clin.pipeline import training
import symile_clin.training.fit

def step(run, which):
    # of a checkpoint whose weights are finite; else what is wrong with it
    place = pathlib.Path(run, "checkpoints", which)
    if not place.is_dir():
        return None
    weights = load_file(place / "model.safetensors")
    bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    return bad or read_training_state(place).step

found = []
for arguments, log, hook in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = 1
        try:
            exec(hook, {})
            sys.argv = ["symile-clin", *arguments]
            cli.main()
        except SystemExit as left:
            code = left.code
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    run = pathlib.Path("runs", arguments[arguments.index("--name") + 1])
    found.append([code, step(run, "last"), step(run, "best")])
print(json.dumps(found))
"""

#: Calls `spoil(arguments)` before one step of the run, the eighth: the third of the second epoch.
AT_STEP = """
import torch
from symile_clin.training import fit
real = fit.optimisation_step
def step(**given):
    if given["step"] == 7:
        spoil(given)
    return real(**given)
fit.optimisation_step = step
"""
BAD_ROWS = """
def spoil(given):
    given["batch"].arrays["red"]["percentile"][1] = float("{value}")
    given["batch"].arrays["green"]["percentile"][4] = float("{value}")
"""
BAD_GRADIENT = """
def spoil(given):
    weight = next(given["model"].encoders["green"].parameters())
    weight.register_hook(lambda gradient: gradient * float("nan"))
"""
HUGE_RATE = """
def spoil(given):
    for group in given["optimizer"].param_groups:
        group["lr"] = 1e38
"""
POISONED = """
def spoil(given):
    with torch.no_grad():
        next(given["model"].encoders["red"].parameters())[0] = float("inf")
"""
OUT_OF_MEMORY = """
def spoil(given):
    def allocate(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    given["objective"].share_of_loss = allocate
"""
#: The real thing: no more address space than there is at that moment.
LIMITED = """
import resource
held = []
def spoil(given):
    given["optimizer"].zero_grad(set_to_none=True)
    resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))  # less than there is already
    try:
        while True:  # what had been given back
            held.append(bytearray(2**20))
    except MemoryError:
        pass
"""
VALIDATION = """
import torch
from symile_clin.model import MultimodalEncoder
real = MultimodalEncoder.encode
def encode(self, *given, **named):
    if not self.training:
        raise MemoryError
    return real(self, *given, **named)
MultimodalEncoder.encode = encode
"""
KILLED_WORKER = """
import multiprocessing, os, signal, time
def spoil(given):
    for one in multiprocessing.active_children():
        os.kill(one.pid, signal.SIGKILL)
    time.sleep(1)
"""
EVERY_STEP: Final = "training.checkpoint_minutes=1e-9"
FIRST_ID: Final = 17_000_000


@dataclass(frozen=True)
class Ended:
    """What became of a training.

    Attributes:
        last, best: steps of its checkpoints whose weights are finite.
    """

    code: int
    said: str
    last: object
    best: object

    def line(self) -> str:
        """Its one message."""
        lines = [line for line in self.said.splitlines() if line.startswith("symile-clin: ")]
        assert len(lines) == 1, self.said
        assert "Traceback" not in self.said
        return lines[0]


#: By name: hook and settings.
NOT_FINITE: Final[dict[str, tuple[str, tuple[str, ...], str]]] = {
    "nan": (BAD_ROWS.format(value="nan") + AT_STEP, (), "the loss is nan at epoch 2, step 8 (rows {bad})"),
    "inf": (BAD_ROWS.format(value="inf") + AT_STEP, (), "the loss is nan at epoch 2, step 8 (rows {bad})"),
    "bf16": (
        BAD_ROWS.format(value="nan") + AT_STEP,
        ("training.precision=bf16",),
        "the loss is nan at epoch 2, step 8 (rows {bad})",
    ),
    "chunks": (
        BAD_ROWS.format(value="nan") + AT_STEP,
        ("training.embed_chunk=3",),
        "the loss is nan at epoch 2, step 8 (rows {bad})",
    ),
    "gradient": (BAD_GRADIENT + AT_STEP, (), "the gradient's norm is nan at epoch 2, step 8 (rows {all})"),
    "rate": (
        HUGE_RATE + AT_STEP,
        (),
        "weights or running statistics are not finite after the step at epoch 2, step 8 (rows {all})",
    ),
    "weights": (POISONED + AT_STEP, (), "the loss is nan at epoch 2, step 8 (rows {all})"),
}


def _run(place: Path, cases: dict[str, tuple[list[str], str]], **environment: str) -> dict[str, Ended]:
    commands = [(arguments, str(place / f"{name}.log"), hook) for name, (arguments, hook) in cases.items()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)], cwd=place, capture_output=True, text=True, check=False,
        timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout.splitlines()[-1])
    return {
        name: Ended(code, (place / f"{name}.log").read_text(), last, best)
        for name, (code, last, best) in zip(cases, left, strict=True)
    }


def _train(name: str, *settings: str, tracked: bool = False, cohort: str = "tiny") -> list[str]:
    given = ["training.epochs=3", *settings]
    words = [word for setting in given for word in ("--set", setting)]
    return [
        "train",
        "--cohort",
        f"data/cohorts/{cohort}",
        "--name",
        name,
        *([] if tracked else ["--no-tracking"]),
        *words,
    ]


def _cohort(place: Path) -> None:
    """The tiny cohort, with ids of patients that can be told from rows."""
    cohort = tiny_cohort(place)
    samples = pd.read_parquet(cohort.path / SAMPLES)
    samples[SUBJECT_ID] += FIRST_ID
    samples.to_parquet(cohort.path / SAMPLES)


def _poison(place: Path) -> None:
    """Another such cohort, with a sample of its validation split that is no number."""
    cohorts = place / "data" / "cohorts"
    shutil.copytree(cohorts / "tiny", cohorts / "poisoned")
    path = cohorts / "poisoned" / "arrays" / "red" / "percentile.npy"
    array: Any = np.load(path)
    array[45] = np.nan
    np.save(path, array)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    _cohort(folder)
    return folder


@pytest.fixture(scope="module")
def ended(place: Path) -> dict[str, Ended]:
    """All trainings that go wrong, and each gone on with."""
    cases = {name: (_train(name, EVERY_STEP, *settings), hook) for name, (hook, settings, _) in NOT_FINITE.items()}
    cases["device memory"] = (_train("device memory"), OUT_OF_MEMORY + AT_STEP)
    cases["validation memory"] = (_train("validation memory", EVERY_STEP), VALIDATION)
    big = ("model.encoders.red.hidden=[1500,1500]", "training.checkpoint_minutes=100")
    cases["memory"] = (_train("memory", *big), LIMITED + AT_STEP)
    for name in ("nan", "memory"):
        cases[f"{name} again"] = (["train", "--resume", "--name", name, "--no-tracking"], "")
    cases["poisoned"] = (_train("poisoned", EVERY_STEP, tracked=True, cohort="poisoned"), "")
    _poison(place)
    return _run(place, cases, MALLOC_MMAP_THRESHOLD_="1000000")


@pytest.mark.parametrize("name", NOT_FINITE)
def test_training_stops_at_the_very_step_and_keeps_the_last_finite_one(ended: dict[str, Ended], name: str) -> None:
    found, (_, _, says) = ended[name], NOT_FINITE[name]
    assert found.code == 1
    rows = re.search(r"\(rows ([\d, ]+)\)", found.line())
    assert rows, found.line()
    numbers = [int(row) for row in rows.group(1).split(", ")]
    assert len(numbers) == (2 if "{bad}" in says else 8)
    assert all(0 <= row < 40 for row in numbers)
    assert found.line().startswith("symile-clin: " + says.partition(" (rows")[0])
    assert str(FIRST_ID)[:4] not in found.said
    assert (found.last, found.best) == (7, 5)


def test_a_run_goes_on_after_the_last_finite_step(ended: dict[str, Ended]) -> None:
    for name, step in (("nan", 7), ("memory", 5)):
        found = ended[f"{name} again"]
        assert (found.code, found.last) == (0, 15), found.said
        assert f"Going on after step {step} of 15." in found.said


FORMULA: Final = "the loss of symile takes (6 k + 8) n² + 8 k² n d bytes, which is 0.0 MiB for n = 8, d = 16, k = 3"


def test_memory_that_runs_out_is_one_message_with_the_formula_and_what_takes_less(ended: dict[str, Ended]) -> None:
    for name in ("device memory", "memory"):
        found = ended[name]
        assert found.code == 1
        line = found.line()
        assert line.startswith(f"symile-clin: out of memory on cpu at epoch 2, step 8: {FORMULA}")
        assert "--set training.embed_chunk=4 (fewer activations, the same loss), or training.batch_size" in line
        assert found.last == 5
    parameters = re.search(r"for each of ([\d,]+) parameters", ended["memory"].line())
    assert parameters
    assert int(parameters.group(1).replace(",", "")) > 1500 * 1500


def test_memory_that_runs_out_in_validation_says_what_is_encoded(ended: dict[str, Ended]) -> None:
    found = ended["validation memory"]
    assert found.code == 1
    assert "out of memory on cpu while encoding 8 samples at once" in found.line()
    assert found.last == 5


def test_a_bad_sample_of_the_validation_split_is_named(place: Path, ended: dict[str, Ended]) -> None:
    found = ended["poisoned"]
    assert found.code == 1
    assert "embeddings of 'red' are not finite (rows 45) after epoch 1, step 5" in found.line()
    assert (found.last, found.best) == (5, None)
    assert str(FIRST_ID)[:4] not in found.said
    with closing(sqlite3.connect(place / "mlflow.db")) as store:
        assert store.execute("SELECT status FROM runs").fetchall() == [("FAILED",)]


@pytest.mark.slow
def test_a_worker_that_the_system_ends_is_told_from_a_mistake(tmp_path: Path) -> None:
    _cohort(tmp_path)
    found = _run(tmp_path, {"worker": (_train("worker", "training.workers=1"), KILLED_WORKER + AT_STEP)})["worker"]
    assert found.code == 1
    assert "a process that fetches batches was ended by another at epoch " in found.line()
    assert "Lower training.workers" in found.line()
    assert found.last == 5


@pytest.mark.slow
def test_shared_memory_that_runs_out_ends_training_instead_of_stopping_it_forever(tmp_path: Path) -> None:
    """As in a container, whose /dev/shm is 64 MB unless told otherwise."""
    small = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=56k tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace")
    _cohort(tmp_path)
    command = [*small, sys.executable, "-m", "symile_clin", *_train("shared", "training.workers=1")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert "shared memory (/dev/shm) ran out at epoch 1, step 1" in done.stderr.splitlines()[-1]
