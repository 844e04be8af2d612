"""`compare` the whole way, on run folders made by hand: files, MLflow, and every refusal."""

from __future__ import annotations

import json
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from symile_clin import cli, files
from symile_clin.evaluation.ranked import Ranked, write_ranked
from symile_clin.pipeline import compare
from symile_clin.progress import Quiet
from symile_clin.strict import dump_yaml
from tests.evaluation.asked_runs import drawn, ranked
from tests.pipeline.tiny_cohort import PRESET

STORE = "sqlite:///mlflow.db"
HASH = "0123456789abcdef" * 4


def make_run(
    name: str,
    asked: Ranked | list[Ranked],
    *,
    seed: int = 0,
    dim: int = 8,
    folder: str = "test",
    cohort: str = HASH,
    about: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
) -> None:
    """An evaluated run in the working directory, trained on cohort small."""
    run = Path("runs") / name
    trained = {"name": "small", "hash": HASH, "path": "data/cohorts/small"}
    files.write_manifest(run, stage="run", content={"cohort": trained, "tracked_as": f"id-of-{name}"})
    config = {**PRESET, "preset": "tiny", "seed": seed, "model": {"dim": dim}}
    files.write_text(run / "config.yaml", dump_yaml(config))
    directory = run / "eval" / folder
    found = asked if isinstance(asked, list) else [asked]
    write_ranked(directory / "ranks.parquet", found)
    told = {
        "run": name, "objective": "symile", "cohort": {"name": "small", "hash": cohort}, "split": "test",
        "target": "blue", "query": ["green", "red"], "seed": seed, "synthetic": False, "min_group": 10,
        "method": "learned placeholders", **(about or {}),
    }  # fmt: skip
    files.write_json(directory / "evaluation.json", told)
    files.write_json(directory / "metrics.json", metrics or {})


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs() -> None:
    rng = np.random.default_rng(0)
    make_run("base-1", drawn(rng, hit=0.4))
    make_run("new-1", drawn(rng, hit=0.7), dim=16)
    make_run("new-2", drawn(rng, hit=0.7), dim=16, seed=1)
    make_run("other", drawn(rng, hit=0.5), dim=32)


def said(capsys: pytest.CaptureFixture[str], arguments: str, code: int = 0) -> str:
    """What a command prints, or the one line of its error."""
    assert cli.run(["compare", *arguments.split()]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


class _Reader(HTMLParser):
    """What a page shows and where it points."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "b")
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.usefixtures("runs")
def test_a_comparison_is_a_folder_and_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "base-1 new-1 new-2 other --no-tracking")
    lines = out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 110
    folder = Path("comparisons/new-vs-base-1-and-1-more")
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare.csv", "compare.html", "compare.json", "compare.png",
    ]  # fmt: skip
    found = json.loads((folder / "compare.json").read_text())
    assert [group["name"] for group in found["groups"]] == ["base-1", "new", "other"]
    assert [(one["run"], one["minus"]) for one in found["differences"]] == [("new", "base-1"), ("other", "base-1")]
    new, other = found["differences"]
    assert new["settings"] == {"model.dim": [16, 8]}
    assert new["mcnemar_p"] is None
    assert other["mcnemar_p"] == other["mcnemar_p_holm"]
    assert new["ci_low"] < new["difference"] < new["ci_high"]
    assert f"{new['difference']:+.3f}" in out
    assert "SD" in lines[5]
    assert "not known from one run" in lines[4]
    table = pd.read_csv(folder / "compare.csv")
    assert table["difference"].tolist() == pytest.approx([new["difference"], other["difference"]])
    assert table["seeds"].tolist() == [2, 1]
    assert table["minus_run"].tolist() == ["base-1", "base-1"]
    assert np.isnan(table["seed_sd"][1])


@pytest.mark.usefixtures("runs")
def test_the_page_is_complete_in_itself_and_shows_no_patient() -> None:
    result = compare(runs=["base-1", "new-1"], tracking_uri=None, progress=Quiet())
    reader = _Reader()
    reader.feed((result.directory / "compare.html").read_text())
    assert [link for link in reader.links if not link.startswith(("data:", "#"))] == []
    assert any(link.startswith("data:image/png;base64,") for link in reader.links)
    for words in ("base-1", "new-1", "model.dim", "McNemar", "Holm", "Other seeds", "learned placeholders"):
        assert words in reader.text
    assert str(Path.cwd()) not in reader.text
    assert "Synthetic" not in reader.text
    for file in ("compare.json", "compare.csv", "compare.html"):
        for patient_level in ("query_row", "n_greater", '"patient"', str(Path.cwd())):
            assert patient_level not in (result.directory / file).read_text()


def test_names_are_text_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for name, dim in (("<b>&", 8), ("x|y", 9)):
        make_run(name, drawn(rng, hit=0.5), dim=dim, about={"synthetic": True, "method": "<script>"})
    result = compare(runs=["<b>&", "x|y"], tracking_uri=None, progress=Quiet())
    assert result.directory == Path("comparisons/x-y-vs-b")
    reader = _Reader()
    reader.feed((result.directory / "compare.html").read_text())
    assert "<b>&" in reader.text
    assert "Synthetic" in reader.text


@pytest.mark.usefixtures("runs")
def test_a_parent_run_holds_all_and_leaves_the_compared_ones_alone() -> None:
    runs = ["base-1", "new-1", "new-2", "other"]
    result = compare(runs=runs, name="mine", tracking_uri=STORE, progress=Quiet())
    with sqlite3.connect("mlflow.db") as store:
        named = dict(store.execute("select name, run_uuid from runs"))
        tags = {
            run: dict(store.execute("select key, value from tags where run_uuid = ?", (run_id,)))
            for run, run_id in named.items()
        }
        metrics = {
            run: dict(store.execute("select key, value from latest_metrics where run_uuid = ?", (run_id,)))
            for run, run_id in named.items()
        }
    assert set(named) == {"mine", "new minus base-1", "other minus base-1"}
    parent = tags["mine"]
    assert parent["kind"] == "compare"
    assert parent["compared_run_ids"] == ", ".join(f"id-of-{run}" for run in runs)
    assert parent["compared_runs"] == ", ".join(runs)
    assert parent["patients"] == "real"
    assert "new minus base-1: **+" in parent["mlflow.note.content"]
    assert all(tags[child]["mlflow.parentRunId"] == named["mine"] for child in named if child != "mine")
    for one in result.results["differences"]:
        child = metrics[f"{one['run']} minus {one['minus']}"]
        assert child["test/blue/recall_at_1_difference"] == one["difference"]
        assert child["test/blue/recall_at_1_difference_p_holm"] == one["p_holm"]
        name = f"test/blue/recall_at_1_difference/{one['run']} minus {one['minus']}"
        assert metrics["mine"][name] == one["difference"]
    assert metrics["mine"]["test/blue/recall_at_1_seed_sd/new"] == result.results["groups"][1]["seed_sd"]
    kept = Path("mlartifacts/symile-clin") / named["mine"] / "artifacts"
    assert sorted(path.name for path in kept.iterdir()) == sorted(path.name for path in result.directory.iterdir())


@pytest.mark.usefixtures("runs")
def test_names_are_numbered_where_taken_and_refused_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("new-1-vs-base-1", "new-1-vs-base-1-2", "new-1-vs-base-1-3"):
        assert json.loads(said(capsys, "base-1 new-1 --no-tracking --json"))["directory"] == f"comparisons/{folder}"
    said(capsys, "base-1 new-1 --name mine --no-tracking")
    assert "there is a comparison called 'mine' already" in said(capsys, "base-1 new-1 --name mine --no-tracking", 2)
    assert "not a plain name" in said(capsys, "base-1 new-1 --name ../x --no-tracking", 2)


@pytest.mark.parametrize("option", ["--split val", "--cohort nowhere"])
@pytest.mark.usefixtures("runs")
def test_an_evaluation_that_is_not_there(capsys: pytest.CaptureFixture[str], option: str) -> None:
    line = said(capsys, f"base-1 new-1 {option} --no-tracking", 2)
    assert ("symile-clin eval base-1 --split val" in line) if "val" in option else ("nowhere" in line)
    assert not Path("comparisons").exists()


@pytest.mark.usefixtures("runs")
def test_an_evaluation_of_an_earlier_version(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/new-1/eval/test/evaluation.json").unlink()
    assert "Evaluate it again: symile-clin eval new-1 --split test" in said(capsys, "base-1 new-1 --no-tracking", 2)


@pytest.mark.usefixtures("runs")
def test_damaged_files_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    ranks = Path("runs/new-1/eval/test/ranks.parquet")
    for damaged in (ranks.read_bytes()[:-200], pd.DataFrame({"query_row": [1]}).to_parquet()):
        ranks.write_bytes(damaged)
        assert "Evaluate again: symile-clin eval new-1 --split test" in said(capsys, "base-1 new-1 --no-tracking", 3)
    Path("runs/base-1/config.yaml").write_text("seed: 0\n")
    assert "the config of run 'base-1'" in said(capsys, "base-1 new-1 --no-tracking", 2)
    assert not Path("comparisons").exists()


@pytest.mark.usefixtures("runs")
def test_what_was_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "base-1 new-1 --query red --no-tracking", 2)
    assert "run 'base-1' has no ranks of --query red. Choose --query from green+red." in line
    line = said(capsys, "base-1 new-1 --protocol gallery --no-tracking", 2)
    assert "has no ranks of --protocol gallery. Choose --protocol from candidates." in line
    line = said(capsys, "base-1 new-1 --target red --no-tracking", 2)
    assert "has no ranks of --target red. Choose --target from blue." in line
    assert "at least two runs" in said(capsys, "base-1 --no-tracking", 2)
    assert "Missing argument" in said(capsys, "--no-tracking", 2)
    assert "no run called 'nwe-1'" in said(capsys, "base-1 nwe-1 --no-tracking", 2)


def test_other_ways_of_asking(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name, dim, hit in (("a", 8, 0.2), ("b", 9, 0.8)):
        ways = [drawn(rng, hit=0.5), drawn(rng, hit=hit), drawn(rng, hit=1 - hit)]
        ways[1] = Ranked(**{**vars(ways[1]), "target": "red", "query": ("blue", "green")})
        ways[2] = Ranked(**{**vars(ways[2]), "query": ("red",), "protocol": "gallery"})
        make_run(name, ways, dim=dim)
    to_red = json.loads(said(capsys, "a b --target red --metric mrr --json --no-tracking"))
    assert (to_red["query"], to_red["metric"]) == (["blue", "green"], "mrr")
    assert to_red["differences"][0]["ci_low"] > 0
    alone = json.loads(said(capsys, "a b --query red --protocol gallery --metric mean_rank --json --no-tracking"))
    assert alone["lower_is_better"]
    assert alone["differences"][0]["ci_low"] > 0  # lower hits, higher ranks
    backwards = json.loads(said(capsys, "a b --target red --query green+blue --json --no-tracking"))
    assert backwards["query"] == ["blue", "green"]


def test_different_queries_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a", ranked([0, 1, 2, 0]))
    make_run("b", ranked([0, 1]), dim=9, cohort="f" * 64)
    line = said(capsys, "a b --no-tracking", 3)
    assert "cohort small (01234567) and small (ffffffff); query rows (4 and 2; 2 and 0 without the other)" in line
    assert not Path("comparisons").exists()


def test_one_patient_has_no_interval_and_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for name, dim in (("a", 8), ("b", 9)):
        make_run(name, ranked([0, 1]), dim=dim)
    assert "at least 2 patients" in said(capsys, "a b --no-tracking", 3)
    assert not Path("comparisons").exists()


@pytest.mark.usefixtures("runs")
def test_a_failure_while_drawing_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("symile_clin.pipeline.comparison.comparison_figure", fails)
    with pytest.raises(OSError, match="no space"):
        compare(runs=["base-1", "new-1"], name="mine", tracking_uri=None, progress=Quiet())
    assert [path for path in Path("comparisons").iterdir() if not path.name.startswith(".")] == []


@pytest.mark.usefixtures("runs")
def test_a_store_that_fails_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mlflow.db").write_text("no database")
    out = said(capsys, "base-1 new-1")
    assert "compare.html" in out
    assert Path("comparisons/new-1-vs-base-1/compare.html").exists()


def test_the_val_split_is_said_to_flatter() -> None:
    rng = np.random.default_rng(0)
    for name, dim in (("a", 8), ("b", 9)):
        make_run(name, drawn(rng, hit=0.5), dim=dim, folder="val")
    result = compare(runs=["a", "b"], split="val", tracking_uri=None, progress=Quiet())
    assert "chose each run's checkpoint" in result.text()


def test_a_repeated_comparison_is_the_same_to_the_byte() -> None:
    rng = np.random.default_rng(0)
    for name, dim in (("a", 8), ("b", 9)):
        make_run(name, drawn(rng, hit=0.5), dim=dim)
    made = [compare(runs=["a", "b"], name=name, tracking_uri=None, progress=Quiet()).directory for name in "xy"]
    for file in ("compare.csv", "compare.png"):
        assert (made[0] / file).read_bytes() == (made[1] / file).read_bytes()


def test_queries_of_patients_that_a_run_was_trained_on_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    make_run("one", drawn(rng, hit=0.4), metrics={"test/blue/recall_at_1_n_trained_on": 7.0})
    make_run("two", drawn(rng, hit=0.7), dim=16)
    count = len(drawn(rng, hit=0.4).query_row)
    expected = f"Queries are of patients that a run was trained on, in another cohort: one 7 of {count:,}."
    assert expected in said(capsys, "one two --name seen --no-tracking")
    assert expected in Path("comparisons/seen/compare.html").read_text()
