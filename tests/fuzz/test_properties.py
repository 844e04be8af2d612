"""Hostile files by hypothesis: a few seconds each day, a minute in `make test-all`, an hour by scripts/fuzz.py."""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.strategies import files_of
from tests.fuzz.targets import TARGETS, seeds

#: Examples of each target: some tens of milliseconds each for settings and joins, a few for the others.
FEW = {"header": 40, "spec": 30, "config": 60, "join": 12, "image": 60, "csv": 120, "path": 120}
MANY = {"header": 600, "spec": 300, "config": 600, "join": 250, "image": 2000, "csv": 3000, "path": 10_000}
#: A picture of 30 megapixels may be decoded, and no more than its grey and a copy of it kept.
MEGABYTES = 400
SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz.py"


def _hold(target: str, examples: int, *, derandomize: bool) -> None:
    quiet = list(HealthCheck)  # the machine's load is none of the property's business
    chosen = settings(
        max_examples=examples, derandomize=derandomize, deadline=None, database=None, suppress_health_check=quiet
    )
    chosen(given(files_of(target))(TARGETS[target]))()


@pytest.mark.parametrize("target", TARGETS)
def test_valid_files_are_taken(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The targets refuse what they should not otherwise: nothing would ever be compared."""
    monkeypatch.setattr("tests.fuzz.targets._says_something", lambda error: pytest.fail(str(error)))
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_files_are_refused_or_read_right(target: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _hold(target, FEW[target], derandomize=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES << 10


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_many_more_hostile_files(target: str) -> None:
    """With other files at each run."""
    _hold(target, MANY[target], derandomize=False)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_the_hour_of_fuzzing_counts_what_it_does(tmp_path: Path, engine: str) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed: pip install --group fuzz")
    command = [sys.executable, str(SCRIPT), "--minutes", "0.5", "--target", "path", "--engine", engine]
    command += ["--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    name, used, _, executions, findings = done.stdout.splitlines()[-1].split()
    assert (name, used, findings, done.returncode) == ("path", engine, "0", 0), done.stdout + done.stderr
    assert int(executions.replace(",", "")) > 10
