"""`cohort diff` as a user sees it: counts first, no ids on the terminal, a built cohort against a release."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from symile_clin.cli import cli
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.difference import diff_cohorts
from symile_clin.pipeline.release import export_cohort, import_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree

ADMISSIONS = 24


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a`, `narrow` with a narrower window, and `release`: `a` exported, changed as other tools differ, imported."""
    root = tmp_path_factory.mktemp("cohorts")
    tree = Tree(root / "tree")
    for number in range(ADMISSIONS):
        hours = 50 if number < 3 else 30
        subject, hadm, time = 10_000_000 + number, 20_000_000 + number, ADMITTED + number * HOUR
        tree.admission(subject, hadm, time)
        tree.xray(subject, 50_000_000 + number, time + hours * HOUR)
        tree.ecg(subject, 40_000_000 + number, time + HOUR)
        tree.lab(subject, time + HOUR, float(number))
        tree.lab(subject, time + HOUR, float(number + 1), item=50931)
    tree.lab(10_000_004, ADMITTED + 5 * HOUR, 91.0)  # level with the first value of admission 4
    roots = tree.write()
    for name, overrides in (("a", []), ("narrow", ["modalities.cxr.window.end=48h"])):
        spec = root / f"{name}.yaml"
        spec.write_text(dump_yaml(apply_overrides(SPEC, overrides)))
        build_cohort(spec=str(spec), out=root / name, workers=1, tracking_uri=None, progress=Quiet(), **roots)  # type: ignore[arg-type]  # sources by option
    export_cohort(cohort=root / "a", out=root / "files", progress=Quiet())
    table = pd.read_csv(root / "files/symile_mimic_data.csv")
    assert table.loc[table["hadm_id"] == 20_000_004, "50912"].item() == 4.0
    table.loc[table["hadm_id"] == 20_000_004, "50912"] = 91.0
    table.loc[table["hadm_id"] == 20_000_005, "50912"] = 92.0
    table.loc[table["hadm_id"] == 20_000_006, "ecg_study_id"] = 41_000_006
    table.loc[table["hadm_id"] == 20_000_006, "ecg_time"] = str(ADMITTED)
    table.to_csv(root / "files/symile_mimic_data.csv", index=False)
    import_cohort(release=root / "files", out=root / "release", progress=Quiet())
    return root


def show(*arguments: object) -> str:
    done = CliRunner().invoke(cli, ["cohort", "diff", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_rule_that_changed_is_named_beside_what_it_did(cohorts: Path) -> None:
    text = show(cohorts / "a", cohorts / "narrow")
    assert "in both 21, only in A 3, only in B 0; Jaccard index 0.8750" in text
    assert "modalities.cxr.window.end: 72h → 48h" in text
    assert re.search(r"cxr +no event in the window +3", text)
    assert not re.search(r"\b[1245]\d{7}\b", text), "an id on the terminal"


def test_a_build_is_compared_with_the_release(cohorts: Path) -> None:
    found = json.loads(show(cohorts / "a", cohorts / "release", "--json", "--quiet"))
    assert found["counts"]["jaccard"] == 1
    by_choice = {(row["modality"], row["what"]): row for row in found["choices"]}
    outcomes = ("equal", "tie in time", "another", "only in A", "only in B")
    assert [by_choice["labs", "50912"][one] for one in outcomes] == [22, 1, 1, 0, 0]
    assert [by_choice["ecg", "record"][one] for one in outcomes] == [23, 0, 1, 0, 0]
    assert [by_choice["cxr", "image"][one] for one in outcomes] == [24, 0, 0, 0, 0]
    assert by_choice["ecg", "record"]["settings"] == ["modalities.ecg.stored"]
    (made,) = found["sources"].items()
    assert made[0] == "made from"
    assert "MIMIC-IV (version unknown)" in made[1][0]
    assert made[1][1] == "Symile-MIMIC release 1.0.0"
    text = show(cohorts / "a", cohorts / "release")
    assert re.search(r"labs +2 values +46 +1 +1 +0 +0", text)
    assert not re.search(r"\b[1245]\d{7}\b", text)


def test_equal_cohorts_are_said_to_be_equal(cohorts: Path) -> None:
    assert "The samples are the same, and take the same." in show(cohorts / "a", cohorts / "a")


def test_ids_are_only_in_the_file_that_was_asked_for(cohorts: Path, tmp_path: Path) -> None:
    listed = tmp_path / "samples.parquet"
    text = show(cohorts / "narrow", cohorts / "release", "--out", listed)
    assert f"{listed} (patient-level)" in text
    table = pd.read_parquet(listed)
    assert listed.stat().st_mode & 0o077 == 0
    gone = table[table["difference"] == "only in B"]
    assert gone["sample_id"].tolist() == ["20000000", "20000001", "20000002"]
    assert gone["detail"].unique().tolist() == ["cxr: no event in the window"]
    changed = table[table["difference"] == "choice"][["sample_id", "modality", "detail"]].to_numpy().tolist()
    assert changed == [
        ["20000006", "ecg", "another"], ["20000004", "labs", "tie in time"], ["20000005", "labs", "another"],
    ]  # fmt: skip


def test_the_record_counts_what_the_file_lists(cohorts: Path, tmp_path: Path) -> None:
    result = diff_cohorts(a=cohorts / "a", b=cohorts / "narrow", out=tmp_path / "x.parquet", progress=Quiet())
    listed = pd.read_parquet(tmp_path / "x.parquet")["difference"].value_counts()
    counts = result.record()["counts"]
    assert listed.get("only in A", 0) == counts["only_a"]
    assert listed.get("split", 0) == counts["split_changed"]


def test_a_folder_without_a_cohort_is_one_line(cohorts: Path, tmp_path: Path) -> None:
    from symile_clin.cli import run

    assert run(["cohort", "diff", str(cohorts / "a"), str(tmp_path)]) == 2
