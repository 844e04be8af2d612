"""`cohort build --dry-run` says what a build would do, in words, and does nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symile_clin import cli
from symile_clin.cohort.words import in_words, interval
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.plan import IN_THE_WAY, NEW, REPLACED, UP_TO_DATE, Plan, plan_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import SPEC, Tree, tiny_spec

SOURCES = ("mimic_iv", "mimic_cxr", "mimic_ecg")
Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = Tree(tmp_path_factory.mktemp("tree"))
    for number in range(40):
        tree.complete(10_000_000 + number, 20_000_000 + number)
    tree.write()
    (tree.root / "tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))
    return tree.root


@pytest.fixture
def arguments(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of a build in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    roots = {name: source / name for name in SOURCES}
    return {"spec": str(source / "tiny.yaml"), "workers": 1, "progress": Quiet(), **roots}


def test_a_spec_reads_as_sentences() -> None:
    lines = in_words(tiny_spec("require=[cxr, ecg]"))
    assert "windows are measured from its admittime" in lines[0]
    assert lines[1] == "  cxr   earliest in (+24 h, +72 h], required; short_side 32; long_side 40"
    assert lines[2] == "  ecg   earliest in [−24 h, +24 h], required"
    assert lines[3] == "  labs  earliest in [−24 h, +24 h], optional; items [50912, 50931]"
    assert "Splits: train 50%, val 25%, test rest; whole patients in seeded order; seed 0" in lines[5]
    assert "ranked against 2 of cxr, seed 0" in lines[6]


def test_windows_are_written_as_intervals() -> None:
    borders = {"include_start": True, "include_end": False}
    assert interval({"start": "0h", "end": "3d", **borders}) == "[0 h, +3 d)"
    assert interval({"start": "-30m", "end": "90s", **borders}) == "[−30 min, +90 s)"


def test_nothing_is_written_before_or_after_a_build(arguments: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_cohort(**arguments)
    assert list(tmp_path.iterdir()) == []
    assert (plan.state, plan.exit_code) == (NEW, 0)
    text = plan.text()
    assert "Written to data/cohorts/tiny: new." in text
    assert "to be made" in text
    assert "nothing was written" in text
    json.dumps(plan.record(), allow_nan=False)

    build_cohort(tracking_uri=None, **arguments)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    plan = plan_cohort(**arguments)
    assert plan.state == UP_TO_DATE
    assert plan.found is not None
    assert plan.found.kept == plan.found.tables.keys()
    assert all(one.exact for one in plan.found.tables.values())
    assert plan.found.cost is not None
    assert not any(part.what.startswith("conversion") for part in plan.found.cost.seconds)
    assert plan_cohort(**arguments, overrides=["splits.seed=1"]).state == REPLACED
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_folder_of_something_else_is_not_overwritten(arguments: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("")
    plan = plan_cohort(**arguments, out=Path("thesis"))
    assert (plan.state, plan.exit_code) == (IN_THE_WAY, 3)


def test_problems_of_the_sources_are_part_of_the_plan(arguments: dict[str, Any]) -> None:
    plan = plan_cohort(**{**arguments, "mimic_ecg": None})
    assert plan.exit_code == 3
    assert "No folder was given for mimic_ecg" in plan.text()


def test_the_demo_s_tree_is_planned_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_cohort(demo=True, progress=Quiet())
    assert plan.exit_code == 0
    assert "First 800 synthetic patients would be written to data/synthetic/demo" in plan.text()
    assert list(tmp_path.iterdir()) == []


def test_the_command_takes_the_options_of_a_build(
    arguments: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["cohort", "build", arguments["spec"], "--dry-run", "--json", "--quiet", "--set", "splits.seed=4"]
    folders = [part for name in SOURCES for part in (f"--{name.replace('_', '-')}", str(arguments[name]))]
    assert cli.run([*command, *folders]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["splits"]["seed"] == 4
    assert list(tmp_path.iterdir()) == []


def test_what_an_engine_leaves_alone_is_not_looked_at(arguments: dict[str, Any]) -> None:
    given = {**arguments, "mimic_ecg": None}
    assert plan_cohort(**given, tables_only=True).exit_code == 3  # its table is read all the same
    plan = plan_cohort(**arguments, tables_only=True, memory="3GB", threads=2)
    assert plan.exit_code == 0
    assert "joined by DuckDB within 3GB and 2 threads" in plan.text()
    assert "No file is looked into." in plan.text()
    assert plan.found is not None
    assert plan.found.opened == {}
    plan = plan_cohort(**given, engine="bigquery", bigquery_project="p", tables_only=True)
    assert plan.exit_code == 0
    assert "joined by BigQuery, where they are" in plan.text()


def test_a_build_that_was_cut_short_would_go_on(arguments: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data/cohorts/.tiny.building/shards").mkdir(parents=True)
    assert "what it has read would be kept" in plan_cohort(**arguments).text()
