"""A session of commands on real patients, as far as the program can tell, and what it left."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.cohort.tree import SPEC
from tests.conftest import WATCHED, watched_environment
from tests.faults import canaries

PRESET = {
    "objective": {"name": "symile", "negatives": "exhaustive", "normalization": "layernorm"},
    "model": {
        "dim": 16,
        "encoders": {
            "cxr": {"arch": "small"},
            "ecg": {"arch": "small"},
            "labs": {"arch": "mlp", "hidden": [16]},
        },
    },
    "training": {"epochs": 1, "batch_size": 16, "lr": 2e-3},
}
#: MLflow's own names of stores. The program's option is explicit, and wins: nobody must be asked at that address.
MOVES_STORES = (
    "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_ARTIFACT_URI",
)  # fmt: skip
SOURCES = {"mimic_iv": "--mimic-iv", "mimic_cxr": "--mimic-cxr", "mimic_ecg": "--mimic-ecg"}


@dataclass(frozen=True)
class Session:
    """Commands on real patients, run in one process under umask 0.

    Attributes:
        folder: the working directory.
        codes: by command line, of what it returned.
        output: by command line, what it printed, without the source folders that it was given.
        figures: texts on figures.
        umasks: the process's after each command.
    """

    folder: Path
    codes: dict[str, int]
    output: dict[str, str]
    figures: list[str]
    umasks: set[int]


def source_options(tree: Path) -> list[str]:
    return [word for name, option in SOURCES.items() for word in (option, str(tree / name))]


def run_session(folder: Path, commands: list[list[str]]) -> Session:
    file = folder.parent / "commands.json"
    file.write_text(json.dumps(commands))
    command = [sys.executable, "-m", "tests.faults.canary_session", str(file)]
    environment = {**watched_environment(folder.parent / WATCHED), "PYTHONWARNINGS": "default"}
    environment |= dict.fromkeys(MOVES_STORES, "http://192.0.2.1:1")
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[2])
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(file.with_suffix(".said").read_text())
    output = {"stderr": done.stderr, "stdout": done.stdout}
    for one in said["commands"]:
        text = one["output"]
        for word in one["command"]:
            text = text.replace(word, "GIVEN") if canaries.FOLDER in word else text
        output[" ".join(one["command"])] = text
    return Session(
        folder=folder,
        codes={" ".join(one["command"]): one["code"] for one in said["commands"]},
        output=output,
        figures=said["figures"],
        umasks={one["umask"] for one in said["commands"]},
    )


def _spoiled(text: str) -> dict[str, tuple[str, str]]:
    """By name, a table of which one value is spoiled, and its text."""
    lines = text.splitlines(keepends=True)
    return {
        "time": ("admissions", text.replace("2187-03-04 00:54:43", "2187-03-04 zebrafish")),
        "id": ("admissions", text.replace(f"\n{canaries.SUBJECTS[1]},", f"\n{canaries.SUBJECTS[1]}x,")),
        "columns": ("admissions", text.replace(f"\n{canaries.SUBJECTS[1]},", f"\n{canaries.SUBJECTS[1]},quagga,")),
        "quote": ("admissions", text.replace(f"\n{canaries.SUBJECTS[1]},", f'\n"{canaries.SUBJECTS[1]},')),
        "twice": ("admissions", text + lines[3]),
    }


def prepare(root: Path) -> tuple[Path, list[str], list[list[str]]]:
    """Plant the canaries; the working directory, the options that name the sources, and builds that must fail."""
    tree = canaries.plant(root)
    tree.write()
    folder = root / "work"
    folder.mkdir(mode=0o700)
    splits = {"by": "subject", "train": 0.5, "val": 0.2, "test": "rest"}
    (folder / "tiny.yaml").write_text(json.dumps({**SPEC, "splits": splits}))
    (folder / "fast.yaml").write_text(json.dumps(PRESET))
    table = tree.root / "mimic_iv/hosp/admissions.csv.gz"
    failing = []
    for name, (_, text) in _spoiled(gzip.decompress(table.read_bytes()).decode()).items():
        copy = root / name / canaries.FOLDER
        shutil.copytree(tree.root, copy, copy_function=os.link)
        (copy / table.relative_to(tree.root)).unlink()
        (copy / table.relative_to(tree.root)).write_bytes(gzip.compress(text.encode()))
        failing.append(["cohort", "build", "tiny.yaml", *source_options(copy), "--out", f"data/cohorts/{name}"])
    # an image that is not what it was when the cohort was built
    copy = root / "changed" / canaries.FOLDER
    shutil.copytree(tree.root, copy, copy_function=os.link)
    image = next(copy.glob("mimic_cxr/files/*/*/*/*.jpg"))
    image.unlink()
    image.write_bytes(b"zebrafish")
    failing.append(["cohort", "verify", "--sources", *source_options(copy)])
    return folder, source_options(tree.root), failing


def all_but_cohorts(folder: Path) -> list[Path]:
    """Files of a session; what a cohort directory holds is patient-level, and stays there."""
    kept = (folder / "data" / "cohorts", folder / "tiny.yaml")
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not any(map(path.is_relative_to, kept))]


def tags_of(folder: Path) -> dict[str, dict[str, str]]:
    """Tags of a store's runs by their names."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        rows = connection.execute("SELECT name, key, value FROM runs JOIN tags USING (run_uuid)").fetchall()
    return {run: {key: value for name, key, value in rows if name == run} for run, _, _ in rows}


def artifacts_of(folder: Path, name: str) -> dict[str, Path]:
    """Artifacts of a run by their names."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        [(run,)] = connection.execute("SELECT run_uuid FROM runs WHERE name = ?", (name,)).fetchall()
    return {path.name: path for path in (folder / "mlartifacts").rglob("*") if path.is_file() and run in path.parts}


def watched_lines(file: Path) -> tuple[list[str], list[str]]:
    """Attempts to get out, and first imports of what may send telemetry."""
    lines = [line.partition(" ")[2] for line in file.read_text().splitlines()]
    return [line for line in lines if not line.startswith("import ")], [
        one for one in lines if one.startswith("import ")
    ]


def check_quiet(file: Path) -> None:
    attempts, imports = watched_lines(file)
    assert attempts == []
    assert {line.split()[1] for line in imports} >= {"mlflow", "torch", "duckdb"}
    assert {line.split()[2] for line in imports} == {"telemetry-disabled=true"}
