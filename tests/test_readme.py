"""The README's commands, executed in its order in an empty folder: the first hour of a new user.

The two make targets are CI's own way in. Everything else runs as written; `DIR` becomes a source of the synthetic
tree, and the paper's split sizes become ones that fit it.
"""

import json
from pathlib import Path

from tests.conftest import README, readme_commands


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


def run_metrics(newcomer: Path, run: str) -> dict[str, float]:
    """metrics.json of a run of the newcomer."""
    metrics: dict[str, float] = json.loads((newcomer / "runs" / run / "eval" / "test" / "metrics.json").read_text())
    return metrics


def test_the_session_ends_with_everything_in_its_place(newcomer: Path) -> None:
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
        assert (newcomer / path).is_file(), path
    assert not (newcomer / "runs" / "demo-symile-2").exists(), "demo trained an equal run again"


def test_the_demo_is_planted_as_promised_and_symile_finds_the_synergy(newcomer: Path) -> None:
    symile, clip = run_metrics(newcomer, "demo-symile-1"), run_metrics(newcomer, "demo-clip-1")
    target = "test/cxr/recall_at_1"
    assert symile[f"{target}_n"] >= 250
    assert symile[f"{target}_chance"] == 0.1
    assert symile[f"{target}_ceiling_pairs"] <= 0.35
    assert symile[f"{target}_ceiling"] >= 0.65
    assert symile[target] > symile[f"{target}_ceiling_pairs"]
    assert symile[f"{target}_ci_low"] < symile[target] < symile[f"{target}_ci_high"]
    assert symile[target] > clip[target]
    assert set(symile) == set(clip), "both objectives report the same metrics"


def test_derived_files_are_the_users_alone(newcomer: Path) -> None:
    shared = [path for path in newcomer.rglob("*") if path.stat().st_mode & 0o077]
    assert shared == []
